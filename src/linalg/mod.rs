//! The one place that calls faer's routines, and BLAS's where the feature `blas` is on: products, decompositions of products from their factors, and the fits
//! that are made of them.

mod affine;
#[cfg(feature = "blas")]
#[allow(unsafe_code)] // The one module that calls routines of another language.
mod blas;
mod cosine;
mod eigen;
mod jacobi;
mod largest;
mod least_squares;
mod normal;
mod outer;
mod pca;
mod qr;
pub(crate) mod rounding;
mod routines;
mod scale;
mod svd;
mod symmetric;
mod top_k;
mod vector;

pub use affine::{AffineFit, affine_fit};
#[cfg(feature = "blas")]
pub use blas::check_blas;
pub use cosine::cosines;
pub use eigen::{eigenvalues, modulus};
pub use faer::complex::Complex;
pub use largest::{Entry, largest_of_product};
pub use least_squares::{LeastSquares, least_squares};
pub use normal::Normal;
pub(crate) use outer::add_transposed_product;
pub use pca::{Pca, pca};
pub use svd::{Svd, norm_of_product, singular_values_of_product, svd_of_product};
pub use symmetric::{SymmetricEigen, symmetric_eigen};
pub use top_k::{TopK, top_k_of_product};

use crate::tensor::{Scalar, add_rows};
use faer::{Mat, MatMut, MatRef};
use rayon::prelude::*;

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

    /// Runs what will be split many times over on a thread of the pool: from outside, each split would wait for the pool
    /// to wake and to answer, which takes as long as a small product.
    pub(crate) fn within<R: Send>(self, f: impl FnOnce() -> R + Send) -> R {
        match self {
            Par::Seq => f(),
            Par::Rayon => rayon::scope(|_| f()),
        }
    }

    /// Both results; made at once where there are threads for it.
    pub fn both<A: Send, B: Send>(
        self,
        a: impl FnOnce() -> A + Send,
        b: impl FnOnce() -> B + Send,
    ) -> (A, B) {
        match self {
            Par::Seq => (a(), b()),
            Par::Rayon => rayon::join(a, b),
        }
    }
}

/// A matrix cut into blocks of so many columns; the last one has what is left.
pub(crate) fn column_blocks<T>(mut matrix: MatMut<'_, T>, each: usize) -> Vec<MatMut<'_, T>> {
    let mut blocks = Vec::with_capacity(matrix.ncols().div_ceil(each));
    while matrix.ncols() > 0 {
        let wide = each.min(matrix.ncols());
        let (block, rest) = matrix.split_at_col_mut(wide);
        blocks.push(block);
        matrix = rest;
    }
    blocks
}

/// A matrix cut into blocks of so many rows; the last one has what is left.
pub(crate) fn row_blocks<T>(matrix: MatMut<'_, T>, each: usize) -> Vec<MatMut<'_, T>> {
    let blocks = column_blocks(matrix.transpose_mut(), each).into_iter();
    blocks.map(MatMut::transpose_mut).collect()
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

/// `A B`, of shape `[A's rows, B's columns]`, split over threads by the result's longer side.
///
/// # Panics
/// When the inner dimensions differ.
///
/// # Cost
/// `2 m k n` operations.
#[track_caller]
pub fn product_with<T: Scalar>(A: MatRef<'_, T>, B: MatRef<'_, T>, par: Par) -> Mat<T> {
    /// Below this many operations, waking a thread costs more than it saves.
    const WORTH: usize = 1 << 20;
    let (m, k, n) = (A.nrows(), A.ncols(), B.ncols());
    let work = 2 * m.saturating_mul(k).saturating_mul(n);
    if par.threads() == 1 || work < WORTH || k != B.nrows() {
        return product(A, B);
    }
    let mut dst = Mat::zeros(m, n);
    // More pieces than threads, so that none waits long for another.
    let pieces = 4 * par.threads();
    let chunk = m.max(n).div_ceil(pieces);
    if n >= m {
        let columns = column_blocks(dst.as_mut(), chunk).into_par_iter();
        columns.enumerate().for_each(|(c, dst)| {
            let B = B.subcols(c * chunk, dst.ncols());
            product_into(dst, T::ONE, A, B);
        });
    } else {
        let rows = row_blocks(dst.as_mut(), chunk).into_par_iter();
        rows.enumerate().for_each(|(c, dst)| {
            let A = A.subrows(c * chunk, dst.nrows());
            product_into(dst, T::ONE, A, B);
        });
    }
    dst
}

/// `R Qᵀ`'s `R`: with `M = Q R`, the rows of `A Mᵀ` have the lengths and angles of those of `A Rᵀ`.
///
/// # Shapes
/// `M: [m, n]`; the result is `[min(m, n), n]`.
pub(crate) fn triangular_factor<T: Scalar>(M: MatRef<'_, T>) -> Mat<T> {
    qr::by_gram(M).unwrap_or_else(|| qr::Qr::new(M.to_owned()).R())
}

/// The orthogonal factor `Q` of a square matrix's `Q R`.
pub(crate) fn orthogonal_factor<T: Scalar>(M: MatRef<'_, T>) -> Mat<T> {
    let n = M.nrows();
    qr::Qr::new(M.to_owned()).Q_times(Mat::identity(n, n).as_ref())
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
    T::product_into(dst, alpha, A, B);
}

/// `out = A B + b`, `b` added to every row; on the calling thread. The rows of `out` are contiguous.
///
/// # Panics
/// When the shapes do not meet.
#[track_caller]
pub(crate) fn affine_into<T: Scalar>(
    mut out: MatMut<'_, T>,
    A: MatRef<'_, T>,
    B: MatRef<'_, T>,
    b: &[T],
) {
    product_into(out.as_mut(), T::ONE, A, B);
    add_rows(out, b);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every layout and every size around the vectors' own, against plain loops.
    #[test]
    fn products_of_every_shape_and_layout() {
        fn check<T: Scalar>() {
            let entry = |i: usize, j: usize| T::from_f64(((i * 7 + j * 13) % 11) as f64 - 5.0);
            for (m, k, n) in (1..30).chain([80]).flat_map(|m| {
                [
                    (m, 1, 1),
                    (m, 5, 7),
                    (m, 14, 16),
                    (m, 3, 17),
                    (m, 22, 33),
                    (m, 9, 50),
                    (m, 2, 70),
                    (m, 0, 3),
                    (m, 37, 120),
                    (m, 130, 1),
                    (m, 131, 271),
                    (m, 33, 1030),
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
                    let bias: Vec<T> = (0..n).map(|j| entry(j, 5)).collect();
                    let mut affine = vec![T::ZERO; m * n];
                    affine_into(
                        MatMut::from_row_major_slice_mut(&mut affine, m, n),
                        a,
                        B,
                        &bias,
                    );
                    for i in 0..m {
                        assert_eq!(out[i * wide], T::from_f64(3.0));
                        assert_eq!(out[i * wide + n + 1], T::from_f64(3.0));
                        for j in 0..n {
                            // Small integers: exact in either precision.
                            let sum: T = (0..k).map(|l| A[(i, l)] * B[(l, j)]).sum();
                            assert_eq!(out[i * wide + 1 + j], T::from_f64(2.0) * sum);
                            assert_eq!(affine[i * n + j], sum + bias[j]);
                        }
                    }
                }
            }
        }
        check::<f64>();
        check::<f32>();
    }

    /// A long row seen as a column and turned has both strides 1, whatever is multiplied with it.
    #[test]
    fn a_matrix_of_one_row_meets_several() {
        let (m, n) = (3, 1 << 15);
        let b: Vec<f64> = (0..n).map(|j| (j % 17) as f64).collect();
        let B = MatRef::from_row_major_slice(&b, n, 1).transpose();
        let A = Mat::from_fn(m, 1, |i, _| i as f64 + 1.0);
        let C = product(A.as_ref(), B);
        for i in 0..m {
            assert!((0..n).all(|j| C[(i, j)] == A[(i, 0)] * b[j]));
        }
    }

    #[test]
    #[should_panic(expected = "[2, 2] = [2, 3] [2, 2]")]
    fn shapes_must_meet() {
        let A = Mat::<f64>::zeros(2, 3);
        product(A.as_ref(), Mat::zeros(2, 2).as_ref());
    }
}
