//! Large products by the BLAS that the program links, through its C interface.
//!
//! This crate declares the routines and brings no library: whoever links the program chooses one, and with it how many
//! threads it uses. It should use one: work is split before it comes here (`Par`), and a product of several threads in each
//! thread of a pool waits for itself.

use super::rounding::gamma;
use crate::error::{Error, Result};
use crate::tensor::Scalar;
use cblas_sys::{
    CBLAS_LAYOUT, CBLAS_TRANSPOSE, CblasColMajor, CblasNoTrans, CblasRowMajor, CblasTrans,
};
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef, Par};
use std::ffi::c_int;
use std::sync::OnceLock;

/// From so many products of two numbers on. Below, at a model's shapes, OpenBLAS takes up to 1.6 times as long as faer
/// (64 x 768 x 96, on an Intel Xeon with AVX-512) and MKL gains a tenth; from 17 x 768 x 768 on, MKL is up to 1.8 times as
/// fast and OpenBLAS about as fast.
const LARGE: usize = 1 << 23;

/// A precision that BLAS has a product for.
pub(super) trait Blas: Scalar {
    /// `cblas_sgemm` or `cblas_dgemm`.
    ///
    /// # Safety
    /// The matrices lie in memory as layout, sizes and leading dimensions say, and none that is read is the one written.
    unsafe fn gemm(call: Call<Self>);
}

/// What the routine takes: `C = alpha A B + beta C`.
pub(super) struct Call<T> {
    layout: CBLAS_LAYOUT,
    /// Rows and columns of the result, and the length of the sums.
    sizes: [c_int; 3],
    alpha: T,
    A: Factor<T>,
    B: Factor<T>,
    beta: T,
    C: *mut T,
    ldc: c_int,
}

/// A matrix that is read.
struct Factor<T> {
    transposed: CBLAS_TRANSPOSE,
    data: *const T,
    /// From one row, or column, to the next.
    ld: c_int,
}

macro_rules! blas {
    ($t:ty, $gemm:path) => {
        impl Blas for $t {
            unsafe fn gemm(call: Call<$t>) {
                let Call {
                    layout,
                    sizes: [m, n, k],
                    alpha,
                    A,
                    B,
                    beta,
                    C,
                    ldc,
                } = call;
                // SAFETY: as the caller promises.
                unsafe {
                    $gemm(
                        layout,
                        A.transposed,
                        B.transposed,
                        m,
                        n,
                        k,
                        alpha,
                        A.data,
                        A.ld,
                        B.data,
                        B.ld,
                        beta,
                        C,
                        ldc,
                    );
                }
            }
        }
    };
}

blas!(f32, cblas_sys::cblas_sgemm);
blas!(f64, cblas_sys::cblas_dgemm);

/// `dst = alpha A B`, or `dst += alpha A B`, where the product is large and the matrices lie as BLAS has them; else gives
/// `dst` back untouched.
///
/// # Panics
/// The first time, when the BLAS that is linked does not multiply as [`check_blas`] has it.
pub(super) fn large_product<'d, T: Blas>(
    dst: MatMut<'d, T>,
    accum: Accum,
    alpha: T,
    A: MatRef<'_, T>,
    B: MatRef<'_, T>,
) -> Option<MatMut<'d, T>> {
    let work = dst
        .nrows()
        .saturating_mul(dst.ncols())
        .saturating_mul(A.ncols());
    if work < LARGE {
        return Some(dst);
    }
    if let Err(e) = check_blas() {
        panic!("{e}");
    }
    by_blas(dst, accum, alpha, A, B)
}

/// The same, whatever the size.
fn by_blas<'d, T: Blas>(
    mut dst: MatMut<'d, T>,
    accum: Accum,
    alpha: T,
    A: MatRef<'_, T>,
    B: MatRef<'_, T>,
) -> Option<MatMut<'d, T>> {
    let C = dst.as_mut();
    let (m, n, k) = (C.nrows(), C.ncols(), A.ncols());
    assert!(A.nrows() == m && B.nrows() == k && B.ncols() == n);
    let rows = C.col_stride() == 1;
    let call = || {
        let size = |n: usize| c_int::try_from(n).ok();
        Some(Call {
            layout: if rows { CblasRowMajor } else { CblasColMajor },
            sizes: [size(m)?, size(n)?, size(k)?],
            alpha,
            A: factor(A, rows)?,
            B: factor(B, rows)?,
            beta: match accum {
                Accum::Replace => T::ZERO,
                Accum::Add => T::ONE,
            },
            ldc: leading(C.as_ref(), rows)?,
            C: C.as_ptr_mut(),
        })
    };
    match call() {
        // SAFETY: the sizes and strides are those of the three matrices, and only `dst` is borrowed to be changed.
        Some(call) => unsafe { T::gemm(call) },
        None => return Some(dst),
    }
    None
}

/// How a matrix is told to a routine that takes row-major matrices, or column-major ones; none where it is neither.
fn factor<T: Scalar>(M: MatRef<'_, T>, rows: bool) -> Option<Factor<T>> {
    let (transposed, ld) = match leading(M, rows) {
        Some(ld) => (CblasNoTrans, ld),
        None => (CblasTrans, leading(M, !rows)?),
    };
    let data = M.as_ptr();
    Some(Factor {
        transposed,
        data,
        ld,
    })
}

/// The leading dimension of a row-major matrix, or a column-major one; none where it is not that.
fn leading<T>(M: MatRef<'_, T>, rows: bool) -> Option<c_int> {
    let (one, ld, least) = match rows {
        true => (M.col_stride(), M.row_stride(), M.ncols()),
        false => (M.row_stride(), M.col_stride(), M.nrows()),
    };
    let ld = c_int::try_from(ld).ok()?;
    (one == 1 && ld >= 1 && ld as usize >= least).then_some(ld)
}

/// Whether the BLAS that the program links multiplies as the derived bounds assume: every entry a sum of products in some
/// order, each number in the precision that it has.
///
/// Of both precisions one product is compared with faer's, entry by entry, within what rounding can do. Its rows and columns
/// are of very different sizes, which routines that add up blocks first (Strassen's) cannot bear, and what a precision of
/// fewer bits would round away has one sign and adds up. Asked once; the first large product asks too, and panics with this
/// error.
///
/// # Errors
/// When they are further apart, with an entry.
pub fn check_blas() -> Result<()> {
    static FOUND: OnceLock<Option<String>> = OnceLock::new();
    let find = || found::<f32>(by_blas_alone).or_else(|| found::<f64>(by_blas_alone));
    match FOUND.get_or_init(find) {
        None => Ok(()),
        Some(found) => Err(Error::Mismatch(found.clone())),
    }
}

/// `dst = A B`
fn by_blas_alone<T: Blas>(dst: MatMut<'_, T>, A: MatRef<'_, T>, B: MatRef<'_, T>) {
    let refused = by_blas(dst, Accum::Replace, T::ONE, A, B);
    assert!(refused.is_none(), "faer's own matrices are column-major");
}

/// What is wrong with a routine that multiplies, if anything.
fn found<T: Blas>(
    multiply: impl FnOnce(MatMut<'_, T>, MatRef<'_, T>, MatRef<'_, T>),
) -> Option<String> {
    const M: usize = 254;
    const K: usize = 256;
    const N: usize = 258;
    const PRIME: usize = 65_521;
    // The first ten bits behind the point are zeros, or the number would be rounded to something else than its power of
    // two by who keeps no more; and no sum leaves f32's range.
    let entry = |i: usize, l: usize, seed: usize| {
        let scale = 2f64.powi((i * 7 % 41) as i32 - 20);
        let random = (i * K + l + seed) * (i + l + 40_503) % PRIME;
        T::from_f64(scale * (1.0 + random as f64 / PRIME as f64 / 2048.0))
    };
    let A = Mat::from_fn(M, K, |i, l| entry(i, l, 1));
    let B = Mat::from_fn(K, N, |l, j| entry(j, l, 2));
    let (mut expected, mut C) = (Mat::zeros(M, N), Mat::zeros(M, N));
    let (A, B) = (A.as_ref(), B.as_ref());
    matmul(expected.as_mut(), Accum::Replace, A, B, T::ONE, Par::Seq);
    multiply(C.as_mut(), A, B);
    // All entries are positive, so that a sum is its terms' magnitude, and each of the two is within γ of it.
    let apart = T::from_f64(2.0) * gamma::<T>(K + 2);
    let mut entries = (0..M).flat_map(|i| (0..N).map(move |j| (i, j)));
    // What is not a number is not close either.
    let close = |at| (C[at] - expected[at]).abs() <= apart * expected[at];
    let (i, j) = entries.find(|&at| !close(at))?;
    Some(format!(
        "the BLAS that is linked does not multiply as bounds on rounding assume: entry [{i}, {j}] of a product in {} is {:e}, \
         expected {:e} within {:e} of it: no Strassen's method, and no mode of fewer bits",
        T::PRECISION,
        C[(i, j)].to_f64(),
        expected[(i, j)].to_f64(),
        apart.to_f64()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::product_into;
    use rayon::prelude::*;

    #[test]
    fn what_multiplies_otherwise_is_found() {
        fn check<T: Blas>(bits: &[i32]) {
            let faer = |dst: MatMut<'_, T>, A: MatRef<'_, T>, B: MatRef<'_, T>| {
                matmul(dst, Accum::Replace, A, B, T::ONE, Par::Seq);
            };
            assert_eq!(found::<T>(faer), None);
            for &bits in bits {
                // To so many bits behind the point.
                let round = |M: MatRef<'_, T>| {
                    Mat::from_fn(M.nrows(), M.ncols(), |i, j| {
                        let x = M[(i, j)].to_f64();
                        let unit = 2f64.powi(x.log2().floor() as i32 - bits);
                        T::from_f64((x / unit).round() * unit)
                    })
                };
                let rounded = |dst: MatMut<'_, T>, A: MatRef<'_, T>, B: MatRef<'_, T>| {
                    faer(dst, round(A).as_ref(), round(B).as_ref());
                };
                let found = found::<T>(rounded).unwrap_or_else(|| panic!("{bits} bits"));
                assert!(found.contains("no mode of fewer bits"), "{found}");
            }
            // Strassen's method, one level of it.
            let strassen = |mut dst: MatMut<'_, T>, A: MatRef<'_, T>, B: MatRef<'_, T>| {
                let parts = |M: MatRef<'_, T>| {
                    let (m, n) = (M.nrows() / 2, M.ncols() / 2);
                    [(0, 0), (0, n), (m, 0), (m, n)]
                        .map(|(i, j)| M.submatrix(i, j, m, n).to_owned())
                };
                let times = |A: Mat<T>, B: Mat<T>| {
                    let mut C = Mat::zeros(A.nrows(), B.ncols());
                    faer(C.as_mut(), A.as_ref(), B.as_ref());
                    C
                };
                let ([a, b, c, d], [e, f, g, h]) = (parts(A), parts(B));
                let m1 = times(&a + &d, &e + &h);
                let m2 = times(&c + &d, e.clone());
                let m3 = times(a.clone(), &f - &h);
                let m4 = times(d.clone(), &g - &e);
                let m5 = times(&a + &b, h.clone());
                let m6 = times(&c - &a, &e + &f);
                let m7 = times(&b - &d, &g + &h);
                let quarters = [
                    &m1 + &m4 - &m5 + &m7,
                    &m3 + &m5,
                    &m2 + &m4,
                    &m1 - &m2 + &m3 + &m6,
                ];
                let (m, n) = (dst.nrows() / 2, dst.ncols() / 2);
                for (at, quarter) in quarters.iter().enumerate() {
                    let to = dst.as_mut().submatrix_mut(at / 2 * m, at % 2 * n, m, n);
                    { to }.copy_from(quarter);
                }
            };
            assert!(found::<T>(strassen).is_some());
        }
        // bf16, f16 and TF32; and f32 where f64 was asked for.
        check::<f32>(&[7, 10, 12]);
        check::<f64>(&[7, 10, 12, 23]);
    }

    #[test]
    fn the_one_that_is_linked_multiplies() {
        check_blas().unwrap();
    }

    /// Whether a matrix of some layout is kept by rows, by columns, or with its rows in reverse, which BLAS cannot take.
    #[derive(Clone, Copy, PartialEq)]
    enum Kept {
        Rows,
        Columns,
        Reversed,
    }
    const KEPT: [Kept; 3] = [Kept::Rows, Kept::Columns, Kept::Reversed];
    /// Entries of the memory that are not the matrix's, at the end of each row or column.
    const SPARE: usize = 3;

    impl Kept {
        fn memory<T: Scalar>(
            self,
            rows: usize,
            cols: usize,
            entry: impl Fn(usize, usize) -> T,
        ) -> Mat<T> {
            let entry = |i, j| {
                if i < rows && j < cols {
                    entry(i, j)
                } else {
                    T::ONE
                }
            };
            match self {
                Kept::Rows => Mat::from_fn(cols + SPARE, rows, |j, i| entry(i, j)),
                Kept::Columns => Mat::from_fn(rows + SPARE, cols, entry),
                Kept::Reversed => Mat::from_fn(rows + SPARE, cols, |i, j| {
                    entry((2 * rows - 1 - i) % rows + i / rows * rows, j)
                }),
            }
        }

        fn view<T>(self, memory: MatRef<'_, T>) -> MatRef<'_, T> {
            let inside = memory.subrows(0, memory.nrows() - SPARE);
            match self {
                Kept::Rows => inside.transpose(),
                Kept::Columns => inside,
                Kept::Reversed => inside.reverse_rows(),
            }
        }
    }

    /// Every layout, from several threads at once; what BLAS cannot take is multiplied all the same.
    #[test]
    fn large_products_of_every_layout() {
        fn check<T: Blas>() {
            let (m, k, n) = (206, 205, 204);
            assert!(m * k * n >= LARGE);
            let entry = |i: usize, j: usize| T::from_f64(((i * 7 + j * 13) % 11) as f64 - 5.0);
            // Small integers: exact in either precision.
            let expected = Mat::from_fn(m, n, |i, j| {
                (0..k).map(|l| entry(i, l) * entry(l, j)).sum::<T>()
            });
            let all: Vec<_> = (0..27)
                .map(|i| [i / 9, i / 3 % 3, i % 3].map(|i| KEPT[i]))
                .collect();
            all.into_par_iter().for_each(|[a, b, c]| {
                let (A, B) = (a.memory(m, k, entry), b.memory(k, n, entry));
                let (A, B) = (a.view(A.as_ref()), b.view(B.as_ref()));
                let mut C = c.memory(m, n, |_, _| T::INFINITY);
                let (two, three) = (T::from_f64(2.0), T::from_f64(3.0));
                let mut dst = C
                    .as_mut()
                    .subrows_mut(0, if c == Kept::Rows { n } else { m });
                dst = match c {
                    Kept::Rows => dst.transpose_mut(),
                    Kept::Columns => dst,
                    Kept::Reversed => dst.reverse_rows_mut(),
                };
                let mut again = Mat::full(m, n, T::ONE);
                let left = large_product(again.as_mut(), Accum::Add, three, A, B).is_some();
                assert_eq!(left, a == Kept::Reversed || b == Kept::Reversed);
                product_into(dst, two, A, B);
                let found = c.view(C.as_ref());
                for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                    assert_eq!(found[(i, j)], two * expected[(i, j)]);
                    let added = if left {
                        T::ONE
                    } else {
                        T::ONE + three * expected[(i, j)]
                    };
                    assert_eq!(again[(i, j)], added);
                }
                let spare = C.as_ref().subrows(C.nrows() - SPARE, SPARE);
                assert!(spare.col_iter().all(|col| col.iter().all(|&x| x == T::ONE)));
            });
        }
        check::<f32>();
        check::<f64>();
    }
}
