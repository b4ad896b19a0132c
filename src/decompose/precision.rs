//! A run's values and a model's parameters, in a precision that holds them.

use crate::model::Model;
use crate::names::NormSite;
use crate::op::NormMap;
use crate::tensor::{Scalar, Tensor};
use std::any::Any;
use std::borrow::Cow;

/// Values in another precision: themselves where it is their own.
pub(crate) fn in_precision<U: Scalar, T: Scalar>(x: &[U]) -> Cow<'_, [T]> {
    match T::PRECISION == U::PRECISION {
        true => Cow::Borrowed(bytemuck::cast_slice(x)),
        false => x.iter().map(|x| T::from_f64(x.to_f64())).collect(),
    }
}

/// A tensor, likewise.
pub(crate) fn tensor_in_precision<U: Scalar, T: Scalar>(x: &Tensor<U>) -> Cow<'_, Tensor<T>> {
    match (x as &dyn Any).downcast_ref() {
        Some(x) => Cow::Borrowed(x),
        None => Cow::Owned(x.cast()),
    }
}

/// A norm of a model, likewise: with what the run itself multiplies by, where that is one more than the parameter too.
pub(crate) fn norm_in_precision<U: Scalar, T: Scalar>(
    model: &Model<U>,
    site: NormSite,
) -> Option<NormMap<'static, T>> {
    let own = model.norm_at(site)?;
    let cast = |x: &[U]| Cow::Owned(in_precision::<U, T>(x).into_owned());
    Some(NormMap {
        kind: own.kind,
        affine: own.affine.as_ref().map(|(w, b)| (cast(w), cast(b))),
    })
}
