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

/// A norm of a model, likewise.
pub(crate) fn norm_in_precision<U: Scalar, T: Scalar>(
    model: &Model<U>,
    site: NormSite,
) -> Option<NormMap<'static, T>> {
    let kind = model.config().norm_at(site)?;
    let own = model.weights().norms.get(&site);
    let w = own.map(|norm| in_precision::<U, T>(norm.w.data()));
    let b = own.and_then(|norm| Some(in_precision::<U, T>(norm.b.as_ref()?.data())));
    Some(NormMap::new(kind, w.as_deref().map(|w| (w, b.as_deref()))).into_owned())
}
