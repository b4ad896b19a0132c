//! The QR decomposition, on the calling thread.

use crate::tensor::Scalar;
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
