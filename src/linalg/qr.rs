//! The QR decomposition, on the calling thread.

use crate::tensor::Scalar;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::householder;
use faer::linalg::qr::no_pivoting::factor;
use faer::{Conj, Mat, MatRef, Par};

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
        let block = factor::recommended_block_size::<T>(m, n);
        let mut coefficients = Mat::zeros(block, size);
        let scratch = factor::qr_in_place_scratch::<T>(m, n, block, Par::Seq, Default::default());
        factor::qr_in_place(
            factors.as_mut(),
            coefficients.as_mut(),
            Par::Seq,
            MemStack::new(&mut MemBuffer::new(scratch)),
            Default::default(),
        );
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
        let scratch = householder::apply_block_householder_sequence_on_the_left_in_place_scratch::<T>(
            m,
            self.coefficients.nrows(),
            M.ncols(),
        );
        householder::apply_block_householder_sequence_on_the_left_in_place_with_conj(
            self.factors.as_ref().subcols(0, self.coefficients.ncols()),
            self.coefficients.as_ref(),
            Conj::No,
            out.as_mut(),
            Par::Seq,
            MemStack::new(&mut MemBuffer::new(scratch)),
        );
        out
    }
}
