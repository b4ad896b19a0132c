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

/// `(x - mean) / scale`, times `w`, plus `b`, with `scale = sqrt(mean((x - mean)²) + eps)`, at every position.
pub(crate) struct LayerNorm<'a, T> {
    /// `[pos, d, lane]`, as is `out`.
    pub x: &'a [T],
    pub eps: T,
    pub affine: Option<(&'a [T], &'a [T])>,
    /// `[pos, lane]`
    pub scale: &'a mut [T],
    pub out: &'a mut [T],
}

impl<T: Scalar> WithSimd for LayerNorm<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (x, (out, _)) = (T::split::<S>(self.x).0, T::split_mut::<S>(self.out));
        let lanes = size_of::<T::V<S>>() / size_of::<T>();
        let d = self.x.len() / self.scale.len();
        let share = T::splat(simd, T::ONE / T::from_f64(d as f64));
        let zero = T::splat(simd, T::ZERO);
        let rows = x.chunks_exact(d).zip(out.chunks_exact_mut(d));
        for ((x, out), scale) in rows.zip(self.scale.chunks_exact_mut(lanes)) {
            let sum = x.iter().fold(zero, |sum, &x| T::vadd(simd, sum, x));
            let mean = T::vmul(simd, sum, share);
            let mut squares = zero;
            for (out, &x) in out.iter_mut().zip(x) {
                *out = T::vsub(simd, x, mean);
                squares = T::mul_add(simd, *out, *out, squares);
            }
            T::split_mut::<S>(scale).0[0] = T::vmul(simd, squares, share);
            scale.iter_mut().for_each(|x| *x = (*x + self.eps).sqrt());
            let inverse = T::vdiv(simd, T::splat(simd, T::ONE), T::split::<S>(scale).0[0]);
            match self.affine {
                Some((w, b)) => {
                    for ((x, &w), &b) in out.iter_mut().zip(w).zip(b) {
                        let (w, b) = (T::splat(simd, w), T::splat(simd, b));
                        *x = T::mul_add(simd, T::vmul(simd, *x, inverse), w, b);
                    }
                }
                None => out.iter_mut().for_each(|x| *x = T::vmul(simd, *x, inverse)),
            }
        }
    }
}
