//! A few rows times a matrix: one pass over the matrix's memory, in the order in which it lies there. A routine for
//! products of matrices packs it first, which takes longer than the product.

use crate::tensor::Scalar;
use faer::{MatMut, MatRef};
use pulp::{Arch, Simd, WithSimd};

/// Of more rows packing pays; where a matrix is small it costs little.
const FEW: usize = 16;
const LARGE: usize = 1 << 15;

/// `dst = alpha A B` where `A` is one row, or a few of a large `B`, or `B` one column, and the other's memory is
/// contiguous; else gives `dst` back untouched.
pub(super) fn vector_product<'d, T: Scalar>(
    dst: MatMut<'d, T>,
    alpha: T,
    A: MatRef<'_, T>,
    B: MatRef<'_, T>,
) -> Option<MatMut<'d, T>> {
    let few = A.nrows() <= FEW && B.nrows() * B.ncols() >= LARGE && B.col_stride() == 1;
    let (mut dst, a, B, rows) = match (A.nrows(), B.ncols()) {
        (1, _) => (dst, A, B, true),
        // `A b = (bᵀ Aᵀ)ᵀ`
        (_, 1) => (dst.transpose_mut(), B.transpose(), A.transpose(), false),
        _ if few => (dst, A, B, true),
        _ => return Some(dst),
    };
    if B.row_stride() != 1 && B.col_stride() != 1 {
        return Some(if rows { dst } else { dst.transpose_mut() });
    }
    let copy: Vec<T>;
    let a = match a.try_as_row_major() {
        Some(a) if a.nrows() == 1 => a.row(0).as_slice(),
        _ => {
            copy = a.row_iter().flat_map(|row| row.iter()).copied().collect();
            &copy
        }
    };
    let dst = dst.as_mut();
    // A matrix of one row may have both strides 1; inner products are of one row of `A` only.
    match dst.nrows() == 1 && B.row_stride() == 1 {
        true => Arch::new().dispatch(Dots { a, alpha, B, dst }),
        false => Arch::new().dispatch(Sums { a, alpha, B, dst }),
    }
    None
}

/// A row times a matrix whose columns are contiguous.
struct Dots<'a, T> {
    a: &'a [T],
    alpha: T,
    B: MatRef<'a, T>,
    dst: MatMut<'a, T>,
}

impl<T: Scalar> WithSimd for Dots<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let B = self.B.try_as_col_major().expect("contiguous columns");
        for (j, to) in self.dst.row_mut(0).iter_mut().enumerate() {
            *to = self.alpha * dot::<T, S>(simd, self.a, B.col(j).as_slice());
        }
    }
}

/// A few rows times a matrix whose rows are contiguous.
struct Sums<'a, T> {
    /// `[dst's rows, B's rows]`
    a: &'a [T],
    alpha: T,
    B: MatRef<'a, T>,
    dst: MatMut<'a, T>,
}

/// So many rows of the matrix are read at a time, for which sums are loaded and stored once.
const AT_A_TIME: usize = 8;
/// And so many bytes of each: enough that memory is read in long runs, few enough for the sums to stay in the nearest cache.
const RUN: usize = 2048;
/// So many sums need no memory of the system's, which takes as long to get as a head's row takes to multiply.
const ON_STACK: usize = 64;

impl<T: Scalar> WithSimd for Sums<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Sums {
            a,
            alpha,
            B,
            mut dst,
        } = self;
        let B = B.try_as_row_major().expect("contiguous rows");
        let (m, k, n) = (dst.nrows(), B.nrows(), B.ncols());
        let run = RUN / size_of::<T>();
        let (mut few, mut many) = ([T::ZERO; ON_STACK], Vec::new());
        let sums = match m * run.min(n) {
            ..=ON_STACK => &mut few[..],
            count => {
                many.resize(count, T::ZERO);
                &mut many[..]
            }
        };
        for j in (0..n).step_by(run) {
            let width = run.min(n - j);
            let sums = &mut sums[..m * width];
            sums.fill(T::ZERO);
            for i in (0..k).step_by(AT_A_TIME) {
                let count = AT_A_TIME.min(k - i);
                let mut rows = [&[][..]; AT_A_TIME];
                for (l, row) in rows[..count].iter_mut().enumerate() {
                    *row = &B.row(i + l).as_slice()[j..j + width];
                }
                let rows = &rows[..count];
                let mut groups = sums.chunks_exact_mut(4 * width);
                let mut r = 0;
                for group in &mut groups {
                    let x = [0, 1, 2, 3].map(|l| &a[(r + l) * k + i..][..count]);
                    add_rows_times::<T, S, 4>(simd, x, rows, group);
                    r += 4;
                }
                for sums in groups.into_remainder().chunks_exact_mut(width) {
                    add_rows_times::<T, S, 1>(simd, [&a[r * k + i..][..count]], rows, sums);
                    r += 1;
                }
            }
            for (r, sums) in sums.chunks_exact(width).enumerate() {
                let to = dst.as_mut().row_mut(r).subcols_mut(j, width);
                to.iter_mut()
                    .zip(sums)
                    .for_each(|(to, &sum)| *to = alpha * sum);
            }
        }
    }
}

/// `sums[r] += Σ x[r][l] rows[l]`
#[inline(always)]
fn add_rows_times<T: Scalar, S: Simd, const R: usize>(
    simd: S,
    x: [&[T]; R],
    rows: &[&[T]],
    sums: &mut [T],
) {
    let width = sums.len() / R;
    let lanes = size_of::<T::V<S>>() / size_of::<T>();
    let mut at = 0;
    while at + 4 * lanes <= width {
        add_vectors::<T, S, R, 4>(simd, x, rows, sums, at);
        at += 4 * lanes;
    }
    while at + lanes <= width {
        add_vectors::<T, S, R, 1>(simd, x, rows, sums, at);
        at += lanes;
    }
    if at < width {
        for (r, x) in x.iter().enumerate() {
            let to = &mut sums[r * width + at..(r + 1) * width];
            let mut sum = T::load(simd, to);
            for (row, &x) in rows.iter().zip(*x) {
                sum = T::mul_add(simd, T::splat(simd, x), T::load(simd, &row[at..]), sum);
            }
            T::store(simd, to, sum);
        }
    }
}

/// The same of `C` vectors from the place `at` on.
#[inline(always)]
fn add_vectors<T: Scalar, S: Simd, const R: usize, const C: usize>(
    simd: S,
    x: [&[T]; R],
    rows: &[&[T]],
    sums: &mut [T],
    at: usize,
) {
    let width = sums.len() / R;
    let length = C * size_of::<T::V<S>>() / size_of::<T>();
    let mut own: [[T::V<S>; C]; R] = std::array::from_fn(|r| {
        let from = &sums[r * width + at..][..length];
        std::array::from_fn(|c| T::split::<S>(from).0[c])
    });
    for (l, row) in rows.iter().enumerate() {
        let (b, _) = T::split::<S>(&row[at..][..length]);
        for (own, x) in own.iter_mut().zip(x) {
            let x = T::splat(simd, x[l]);
            for (sum, &b) in own.iter_mut().zip(b) {
                *sum = T::mul_add(simd, x, b, *sum);
            }
        }
    }
    for (r, own) in own.into_iter().enumerate() {
        let (to, _) = T::split_mut::<S>(&mut sums[r * width + at..][..length]);
        to.iter_mut().zip(own).for_each(|(to, sum)| *to = sum);
    }
}

/// The inner product, in as many sums as hide an addition's latency.
#[inline(always)]
fn dot<T: Scalar, S: Simd>(simd: S, a: &[T], b: &[T]) -> T {
    const SUMS: usize = 4;
    let ((a, a_rest), (b, b_rest)) = (T::split::<S>(a), T::split::<S>(b));
    let mut sums = [T::splat(simd, T::ZERO); SUMS];
    let whole = a.chunks_exact(SUMS).zip(b.chunks_exact(SUMS));
    for (a, b) in whole {
        for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
            *sum = T::mul_add(simd, a, b, *sum);
        }
    }
    let rest = a.len() / SUMS * SUMS;
    for (&a, &b) in a[rest..].iter().zip(&b[rest..]) {
        sums[0] = T::mul_add(simd, a, b, sums[0]);
    }
    let (a, b) = (T::load(simd, a_rest), T::load(simd, b_rest));
    sums[1] = T::mul_add(simd, a, b, sums[1]);
    let sum = sums.into_iter().reduce(|x, y| T::vadd(simd, x, y));
    T::reduce_sum(simd, sum.expect("a constant number of sums"))
}
