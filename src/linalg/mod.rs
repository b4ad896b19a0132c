//! The one place that calls faer's routines: products, and the singular value decomposition of a product.

mod jacobi;
pub(crate) mod rounding;
mod small;
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
    product_into(dst.as_mut(), T::ONE, A, B);
    dst
}

/// The orthogonal factor `Q` of a square matrix's `Q R`.
pub(crate) fn orthogonal_factor<T: Scalar>(M: MatRef<'_, T>) -> Mat<T> {
    M.qr().compute_Q()
}

/// `dst = alpha A B`, on the calling thread. Fastest where all three are row-major.
///
/// # Panics
/// When the shapes do not meet.
#[track_caller]
pub fn product_into<T: Scalar>(dst: MatMut<'_, T>, alpha: T, A: MatRef<'_, T>, B: MatRef<'_, T>) {
    assert!(
        A.ncols() == B.nrows() && dst.nrows() == A.nrows() && dst.ncols() == B.ncols(),
        "[{}, {}] = [{}, {}] [{}, {}]",
        dst.nrows(),
        dst.ncols(),
        A.nrows(),
        A.ncols(),
        B.nrows(),
        B.ncols()
    );
    let Some(dst) = small::small_product(dst, alpha, A, B) else {
        return;
    };
    // Whoever calls has split the work already; faer's own threads are slower than that, and nested
    // ones slower still.
    matmul(dst, Accum::Replace, A, B, alpha, faer::Par::Seq);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every layout and every size around the vectors' own, against plain loops.
    #[test]
    fn products_of_every_shape_and_layout() {
        fn check<T: Scalar>() {
            let entry = |i: usize, j: usize| T::from_f64(((i * 7 + j * 13) % 11) as f64 - 5.0);
            for (m, k, n) in (1..30).flat_map(|m| {
                [
                    (m, 1, 1),
                    (m, 5, 7),
                    (m, 14, 16),
                    (m, 3, 17),
                    (m, 22, 33),
                    (m, 9, 50),
                    (m, 2, 70),
                    (m, 0, 3),
                ]
            }) {
                let A = Mat::from_fn(m, k, entry);
                let B = Mat::from_fn(k, n, |i, j| entry(j + 1, i));
                let row_major = |M: &Mat<T>| {
                    let data: Vec<T> = (0..M.nrows())
                        .flat_map(|i| (0..M.ncols()).map(move |j| M[(i, j)]))
                        .collect();
                    data
                };
                let (a, b) = (row_major(&A), row_major(&B));
                let a = MatRef::from_row_major_slice(&a, m, k);
                for B in [B.as_ref(), MatRef::from_row_major_slice(&b, k, n)] {
                    // A window of a wider matrix, whose other columns must stay as they are.
                    let wide = n + 2;
                    let mut out = vec![T::from_f64(3.0); m * wide];
                    let dst = MatMut::from_row_major_slice_mut(&mut out, m, wide).subcols_mut(1, n);
                    product_into(dst, T::from_f64(2.0), a, B);
                    for i in 0..m {
                        assert_eq!(out[i * wide], T::from_f64(3.0));
                        assert_eq!(out[i * wide + n + 1], T::from_f64(3.0));
                        for j in 0..n {
                            // Small integers: exact in either precision.
                            let sum: T = (0..k).map(|l| A[(i, l)] * B[(l, j)]).sum();
                            assert_eq!(out[i * wide + 1 + j], T::from_f64(2.0) * sum);
                        }
                    }
                }
            }
        }
        check::<f64>();
        check::<f32>();
    }

    #[test]
    #[should_panic(expected = "[2, 2] = [2, 3] [2, 2]")]
    fn shapes_must_meet() {
        let A = Mat::<f64>::zeros(2, 3);
        product(A.as_ref(), Mat::zeros(2, 2).as_ref());
    }
}
