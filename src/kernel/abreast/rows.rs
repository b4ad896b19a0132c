//! The operations on one position at a time: norms and linear maps.

use super::product::{Added, ROWS, Weights, block, multiply, rows_at};
use crate::tensor::Scalar;
use pulp::{Simd, WithSimd};

/// `out = x W + b` at every position, or `out += x W + b`, for `x: [pos, inputs, lane]`.
pub(crate) struct Linear<'a, T> {
    pub x: &'a [T],
    /// `[inputs, outputs]`
    pub W: &'a [T],
    /// `[outputs]`
    pub b: &'a [T],
    pub add: bool,
    pub out: &'a mut [T],
}

impl<T: Scalar> WithSimd for Linear<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (x, (out, _)) = (T::split::<S>(self.x).0, T::split_mut::<S>(self.out));
        let d_out = self.b.len();
        let d_in = self.W.len() / d_out;
        let pos = out.len() / d_out;
        let weights = Weights {
            W: self.W,
            b: self.b,
        };
        for first in (0..pos).step_by(ROWS) {
            let positions = block(first, pos);
            let (mut from, mut to) = (positions, positions);
            from.iter_mut().for_each(|p| *p *= d_in);
            to.iter_mut().for_each(|p| *p *= d_out);
            let rows = rows_at(x, from, d_in);
            match self.add {
                false => multiply(simd, rows, &weights, d_out, out, to),
                true => multiply(simd, rows, &Added(&weights), d_out, out, to),
            }
        }
    }
}
