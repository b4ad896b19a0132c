//! Powers of two that bring a matrix to entries near one, so that no square of them overflows or vanishes.

use crate::tensor::Scalar;
use faer::{Mat, MatRef};

/// The exponent of the largest modulus, zero for a matrix of zeros; `None` where an entry is not finite.
pub(super) fn exponent<T: Scalar>(M: MatRef<'_, T>) -> Option<i32> {
    let mut largest = T::ZERO;
    for column in M.col_iter() {
        for &x in column.iter() {
            if !x.is_finite() {
                return None;
            }
            largest = if x.abs() > largest { x.abs() } else { largest };
        }
    }
    if largest == T::ZERO {
        return Some(0);
    }
    Some(largest.to_f64().log2().floor() as i32)
}

/// `x 2^e`; exact but where it leaves the range.
pub(super) fn times_power<T: Scalar>(x: T, e: i32) -> T {
    // In two steps: twice the range of exponents is more than an f64 has.
    let half = e / 2;
    T::from_f64(x.to_f64() * 2f64.powi(half) * 2f64.powi(e - half))
}

/// `2^e M`; exact but where it leaves the range.
pub(super) fn scaled<T: Scalar>(M: MatRef<'_, T>, e: i32) -> Mat<T> {
    if e == 0 {
        return M.to_owned();
    }
    let half = e / 2;
    let (one, other) = (times_power(T::ONE, half), times_power(T::ONE, e - half));
    Mat::from_fn(M.nrows(), M.ncols(), |i, j| M[(i, j)] * one * other)
}
