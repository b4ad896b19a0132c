//! Sums of values.

use super::{Layout, split};
use crate::tensor::{Scalar, Tensor, add_assign};

/// `dst += src`
pub(crate) fn add<T: Scalar>(layout: Layout, dst: &mut Tensor<T>, src: &Tensor<T>) {
    let src = src.data();
    split(layout.par(), dst.data_mut(), 1, |i, dst| {
        add_assign(dst, &src[i..i + dst.len()])
    });
}
