//! A vector times a matrix: one pass over the matrix's memory, in the order in which it lies there. A routine for
//! products of matrices packs it first, which takes longer than the product.

use crate::tensor::Scalar;
use faer::{MatMut, MatRef};
use pulp::{Arch, Simd, WithSimd};

/// `dst = alpha A B` where `A` is one row or `B` one column, and the other's memory is contiguous; else gives `dst`
/// back untouched.
pub(super) fn vector_product<'d, T: Scalar>(
    dst: MatMut<'d, T>,
    alpha: T,
    A: MatRef<'_, T>,
    B: MatRef<'_, T>,
) -> Option<MatMut<'d, T>> {
    let (dst, a, B, row) = match (A.nrows(), B.ncols()) {
        (1, _) => (dst, A, B, true),
        // `A b = (bᵀ Aᵀ)ᵀ`
        (_, 1) => (dst.transpose_mut(), B.transpose(), A.transpose(), false),
        _ => return Some(dst),
    };
    if B.row_stride() != 1 && B.col_stride() != 1 {
        return Some(if row { dst } else { dst.transpose_mut() });
    }
    let a: Vec<T> = a.row(0).iter().map(|&x| alpha * x).collect();
    let mut out = vec![T::ZERO; B.ncols()];
    Arch::new().dispatch(Pass {
        a: &a,
        B,
        out: &mut out,
    });
    dst.row_mut(0)
        .iter_mut()
        .zip(out)
        .for_each(|(to, x)| *to = x);
    None
}

struct Pass<'a, T> {
    a: &'a [T],
    B: MatRef<'a, T>,
    out: &'a mut [T],
}

impl<T: Scalar> WithSimd for Pass<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Pass { a, B, out } = self;
        if let Some(B) = B.try_as_col_major() {
            for (j, out) in out.iter_mut().enumerate() {
                *out = dot::<T, S>(simd, a, B.col(j).as_slice());
            }
        } else if let Some(B) = B.try_as_row_major() {
            for (i, &x) in a.iter().enumerate() {
                let row = B.row(i).as_slice();
                out.iter_mut().zip(row).for_each(|(out, &b)| *out += x * b);
            }
        }
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
