//! The QR decomposition, on the calling thread.

use super::product;
use crate::tensor::{Precision, Scalar};
use faer::{Mat, MatRef};

/// `M = Q R`, with `Q` as the reflections that make it.
pub(super) struct Qr<T> {
    /// `R` above the diagonal, the reflections below.
    factors: Mat<T>,
    coefficients: Mat<T>,
}

impl<T: Scalar> Qr<T> {
    /// Decomposes, in place.
    pub(super) fn new(M: Mat<T>) -> Self {
        let (m, n) = M.shape();
        let size = m.min(n);
        let mut factors = M;
        if size == 0 {
            let coefficients = Mat::zeros(0, 0);
            return Qr {
                factors,
                coefficients,
            };
        }
        let coefficients = T::qr_in_place(factors.as_mut());
        Qr {
            factors,
            coefficients,
        }
    }

    /// `[min(m, n), n]`, upper trapezoidal.
    pub(super) fn R(&self) -> Mat<T> {
        let (m, n) = self.factors.shape();
        Mat::from_fn(m.min(n), n, |i, j| {
            if i <= j {
                self.factors[(i, j)]
            } else {
                T::ZERO
            }
        })
    }

    /// The first columns of `Q` times `M: [min(m, n), any]`.
    pub(super) fn Q_times(&self, M: MatRef<'_, T>) -> Mat<T> {
        let m = self.factors.nrows();
        let mut out = Mat::zeros(m, M.ncols());
        out.as_mut().subrows_mut(0, M.nrows()).copy_from(M);
        if M.nrows() == 0 || M.ncols() == 0 {
            return out;
        }
        let reflections = self.factors.as_ref().subcols(0, self.coefficients.ncols());
        T::apply_q(reflections, self.coefficients.as_ref(), out.as_mut());
        out
    }
}

/// `R` of an f32 matrix, by Cholesky's decomposition of its Gram matrix in f64: six times as fast. `None` where that
/// would lose some of f32's precision, and for matrices in f64.
pub(super) fn by_gram<T: Scalar>(M: MatRef<'_, T>) -> Option<Mat<T>> {
    let (m, n) = (M.nrows(), M.ncols());
    if T::PRECISION == Precision::F64 || m < n {
        return None;
    }
    let wide = Mat::from_fn(m, n, |i, j| M[(i, j)].to_f64());
    let gram = product(wide.transpose(), wide.as_ref());
    // A pivot is what is left of a squared length, which is off by up to m eps of f64: below this share of it the
    // pivot is no longer known to f32's precision.
    let least = m as f64 * f64::EPSILON / T::EPSILON.to_f64();
    let mut R = Mat::<f64>::zeros(n, n);
    for j in 0..n {
        let (done, mut rest) = R.as_mut().split_at_col_mut(j);
        let mut column = rest.as_mut().col_mut(0);
        for i in 0..=j {
            let other = if i < j {
                Some(done.as_ref().col(i))
            } else {
                None
            };
            let sum: f64 = (0..i)
                .map(|k| column[k] * other.map_or(column[k], |c| c[k]))
                .sum();
            let left = gram[(i, j)] - sum;
            column[i] = match other {
                Some(c) => left / c[i],
                None if left > least * gram[(j, j)] => left.sqrt(),
                None => return None,
            };
        }
    }
    Some(Mat::from_fn(n, n, |i, j| T::from_f64(R[(i, j)])))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `RᵀR` is `MᵀM`, however `R` was found; and what has no full rank is left to the reflections.
    #[test]
    fn both_ways_have_the_same_gram_matrix() {
        let M = Mat::from_fn(20, 5, |i, j| ((i * 7 + j * j * 3) % 11) as f32 - 5.0);
        let expected = product(M.transpose(), M.as_ref());
        for R in [by_gram(M.as_ref()).unwrap(), Qr::new(M.clone()).R()] {
            let found = product(R.transpose(), R.as_ref());
            let off = (&found - &expected).norm_max();
            assert!(off <= 64.0 * f32::EPSILON * expected.norm_max(), "{off}");
            assert!((0..5).all(|j| (j + 1..5).all(|i| R[(i, j)] == 0.0)));
        }
        let deficient = Mat::from_fn(20, 5, |i, j| ((i + j) % 2) as f32);
        assert!(by_gram(deficient.as_ref()).is_none());
        assert!(by_gram(Mat::<f64>::identity(3, 3).as_ref()).is_none());
        assert!(by_gram(Mat::<f32>::zeros(2, 3).as_ref()).is_none());
    }
}
