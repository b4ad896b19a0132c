//! The one place that calls faer's routines: products, and the singular value decomposition of a product.

mod jacobi;
mod svd;

pub use svd::{Svd, svd_of_product};

use crate::tensor::Scalar;
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef};

/// Whether work may be split over threads: an argument, never global state.
///
/// `Rayon` uses the pool that the caller runs in: the global one, or the one whose `install` the call
/// is made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Par {
    /// On the calling thread alone.
    Seq,
    /// Over the threads of the current rayon pool.
    #[default]
    Rayon,
}

impl Par {
    /// The number of threads there are.
    pub fn threads(self) -> usize {
        match self {
            Par::Seq => 1,
            Par::Rayon => rayon::current_num_threads(),
        }
    }
}

/// `A B`, of shape `[A's rows, B's columns]`, on the calling thread.
///
/// # Panics
/// When the inner dimensions differ.
///
/// # Cost
/// `2 m k n` operations.
#[track_caller]
pub fn product<T: Scalar>(A: MatRef<'_, T>, B: MatRef<'_, T>) -> Mat<T> {
    let mut dst = Mat::zeros(A.nrows(), B.ncols());
    product_into(dst.as_mut(), Accum::Replace, T::ONE, A, B);
    dst
}

/// The orthogonal factor `Q` of a square matrix's `Q R`.
pub(crate) fn orthogonal_factor<T: Scalar>(M: MatRef<'_, T>) -> Mat<T> {
    M.qr().compute_Q()
}

/// `dst = alpha A B`, or `dst += alpha A B`, on the calling thread.
#[track_caller]
pub(crate) fn product_into<T: Scalar>(
    dst: MatMut<'_, T>,
    accum: Accum,
    alpha: T,
    A: MatRef<'_, T>,
    B: MatRef<'_, T>,
) {
    // Whoever calls has split the work already; faer's own threads are slower than that, and nested
    // ones slower still.
    matmul(dst, accum, A, B, alpha, faer::Par::Seq);
}
