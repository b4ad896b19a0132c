//! The elementwise passes of the forward, on the widest instructions that the machine has.
//!
//! The rows of a small model are a vector or two long, so that a loop's beginning and end are most of
//! it: the last vector of a row is loaded and stored in part rather than value by value.

use super::Scalar;
use faer::MatMut;
use pulp::{Arch, NullaryFnOnce, Simd, WithSimd};
use std::marker::PhantomData;

/// Runs `f` compiled for the machine's instructions.
#[inline]
pub(crate) fn vectorize<F: FnOnce()>(f: F) {
    struct Call<F>(F);
    impl<F: FnOnce()> NullaryFnOnce for Call<F> {
        type Output = ();
        #[inline(always)]
        fn call(self) {
            (self.0)()
        }
    }
    Arch::new().dispatch(Call(f))
}

/// The instructions that the vectorised passes and products use on this machine, by their name.
pub fn instructions() -> &'static str {
    match Arch::new() {
        #[cfg(target_arch = "x86_64")]
        Arch::V4(_) => "AVX-512",
        #[cfg(target_arch = "x86_64")]
        Arch::V3(_) => "AVX2",
        #[cfg(target_arch = "aarch64")]
        Arch::Neon(_) => "NEON",
        _ => "no vectors",
    }
}

/// How many values one of this machine's vectors holds.
pub(crate) fn lanes<T: Scalar>() -> usize {
    struct CountLanes<T>(PhantomData<T>);
    impl<T: Scalar> WithSimd for CountLanes<T> {
        type Output = usize;
        fn with_simd<S: Simd>(self, _: S) -> usize {
            size_of::<T::V<S>>() / size_of::<T>()
        }
    }
    Arch::new().dispatch(CountLanes(PhantomData::<T>))
}

/// `dst += src`.
pub(crate) fn add_assign<T: Scalar>(dst: &mut [T], src: &[T]) {
    vectorize(
        #[inline(always)]
        || dst.iter_mut().zip(src).for_each(|(d, &s)| *d += s),
    );
}

/// `x = f(x)` for every value.
pub(crate) fn map_in_place<T: Scalar>(x: &mut [T], f: impl Fn(T) -> T) {
    vectorize(
        #[inline(always)]
        || x.iter_mut().for_each(|x| *x = f(*x)),
    );
}

/// `x = f(x, y)` for every pair of values.
pub(crate) fn map2_in_place<T: Scalar>(x: &mut [T], y: &[T], f: impl Fn(T, T) -> T) {
    vectorize(
        #[inline(always)]
        || x.iter_mut().zip(y).for_each(|(x, &y)| *x = f(*x, y)),
    );
}

/// Adds the same row to every row of `dst`.
///
/// # Panics
/// When the rows of `dst` are not contiguous.
pub(crate) fn add_rows<T: Scalar>(dst: MatMut<'_, T>, row: &[T]) {
    vectorize(
        #[inline(always)]
        || {
            for dst in dst.row_iter_mut() {
                let dst = dst.try_as_row_major_mut().expect("contiguous rows");
                let dst = dst.as_slice_mut().iter_mut();
                dst.zip(row).for_each(|(d, &r)| *d += r);
            }
        },
    );
}

/// `out = table[ids]`, by rows of a table that is `d` wide.
pub(crate) fn gather_rows<T: Scalar>(table: &[T], d: usize, ids: &[i64], out: &mut [T]) {
    struct GatherRows<'a, T>(&'a [T], usize, &'a [i64], &'a mut [T]);
    impl<T: Scalar> WithSimd for GatherRows<'_, T> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let GatherRows(table, d, ids, out) = self;
            for (i, &id) in ids.iter().enumerate() {
                let lanes = size_of::<T::V<S>>() / size_of::<T>();
                // Vector by vector: rows are too short for a call that copies memory.
                for at in (0..d).step_by(lanes) {
                    let n = lanes.min(d - at);
                    let v = load_over::<T, S>(simd, &table[id as usize * d + at..], n);
                    store_over::<T, S>(simd, &mut out[i * d + at..], n, v);
                }
            }
        }
    }
    Arch::new().dispatch(GatherRows(table, d, ids, out));
}

/// The first `n` values of a vector, and zeros.
#[inline(always)]
pub(crate) fn only<T: Scalar, S: Simd>(simd: S, n: usize, v: T::V<S>) -> T::V<S> {
    let index = [
        0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.,
    ];
    let index = index.map(T::from_f64);
    let index = T::split::<S>(&index).0[0];
    let n = T::splat(simd, T::from_f64(n as f64));
    T::where_less(simd, index, n, v, T::splat(simd, T::ZERO))
}

/// The first `n` values of a slice, and zeros. A whole vector is loaded where the
/// slice goes on for so long: a part of one takes several times as long.
#[inline(always)]
pub(crate) fn load_over<T: Scalar, S: Simd>(simd: S, x: &[T], n: usize) -> T::V<S> {
    match x.get(..size_of::<T::V<S>>() / size_of::<T>()) {
        Some(whole) => only::<T, S>(simd, n, T::split::<S>(whole).0[0]),
        None => T::load(simd, &x[..n]),
    }
}

/// Stores the first `n` values of a vector; the others too, over what is still to be written, where the
/// slice goes on for so long.
#[inline(always)]
pub(crate) fn store_over<T: Scalar, S: Simd>(simd: S, x: &mut [T], n: usize, v: T::V<S>) {
    match x.get_mut(..size_of::<T::V<S>>() / size_of::<T>()) {
        Some(whole) => T::split_mut::<S>(whole).0[0] = v,
        None => T::store(simd, &mut x[..n], v),
    }
}

/// Softmax of every row of length `d`, in place.
///
/// A row whose sum of exponentials is no positive finite number (all scores `-inf`, or one NaN)
/// becomes zero, as TransformerLens has it.
pub(crate) fn softmax_rows<T: Scalar>(x: &mut [T], d: usize) {
    struct Softmax<'a, T>(&'a mut [T], usize);
    impl<T: Scalar> WithSimd for Softmax<'_, T> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let Softmax(x, d) = self;
            // Three passes rather than one a row: the middle one, which costs most, then runs over
            // long stretches of memory however short the rows are.
            for row in x.chunks_exact_mut(d) {
                let max = T::splat(simd, row_max(simd, row));
                let (head, rest) = T::split_mut::<S>(row);
                head.iter_mut().for_each(|x| *x = T::vsub(simd, *x, max));
                let last = T::load(simd, rest);
                T::store(simd, rest, T::vsub(simd, last, max));
            }
            x.iter_mut().for_each(|x| *x = x.exp_lane());
            for row in x.chunks_exact_mut(d) {
                let (head, rest) = T::split_mut::<S>(row);
                let mut last = [T::load(simd, rest)];
                normalize::<T, S>(simd, head, &mut last);
                T::store(simd, rest, last[0]);
            }
        }
    }
    Arch::new().dispatch(Softmax(x, d));
}

/// Divides a row of exponentials, which is in two parts, by its sum.
#[inline(always)]
pub(crate) fn normalize<T: Scalar, S: Simd>(simd: S, row: &mut [T::V<S>], last: &mut [T::V<S>]) {
    let zero = T::splat(simd, T::ZERO);
    let values = row.iter().chain(last.iter());
    let sum = values.fold(zero, |sum, &x| T::vadd(simd, sum, x));
    let total = T::reduce_sum(simd, sum);
    let values = row.iter_mut().chain(last);
    if total > T::ZERO && total.is_finite() {
        let inverse = T::splat(simd, T::ONE / total);
        values.for_each(|x| *x = T::vmul(simd, *x, inverse));
    } else {
        // Times zero would leave a NaN what it is.
        values.for_each(|x| *x = zero);
    }
}

/// The largest value of a row. What it is for a row with a NaN does not matter: the NaN stays one.
#[inline(always)]
fn row_max<T: Scalar, S: Simd>(simd: S, row: &[T]) -> T {
    let (body, tail) = T::split::<S>(row);
    let Some((&first, others)) = body.split_first() else {
        return tail
            .iter()
            .fold(-T::INFINITY, |a, &b| if b > a { b } else { a });
    };
    // The last whole vector, which overlaps the one before: the zeros of a vector loaded in part could
    // be the largest value.
    let lanes = (row.len() - tail.len()) / body.len();
    let (last, _) = T::split::<S>(&row[row.len() - lanes..]);
    let max = others
        .iter()
        .chain(last)
        .fold(first, |a, &b| T::vmax(simd, a, b));
    T::reduce_max(simd, max)
}

/// Softmax's derivative by rows of length `d`, in place: `d_p` becomes `p (d_p - Σ p d_p)`.
pub(crate) fn softmax_rows_back<T: Scalar>(p: &[T], d_p: &mut [T], d: usize) {
    struct SoftmaxBack<'a, T>(&'a [T], &'a mut [T], usize);
    impl<T: Scalar> WithSimd for SoftmaxBack<'_, T> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let SoftmaxBack(p, d_p, d) = self;
            for (p, d_p) in p.chunks_exact(d).zip(d_p.chunks_exact_mut(d)) {
                let (p, p_rest) = T::split::<S>(p);
                let (d_p, d_rest) = T::split_mut::<S>(d_p);
                let (p_last, d_last) = (T::load(simd, p_rest), T::load(simd, d_rest));
                let mut sum = T::vmul(simd, p_last, d_last);
                for (&p, &d) in p.iter().zip(d_p.iter()) {
                    sum = T::mul_add(simd, p, d, sum);
                }
                let shared = T::splat(simd, T::reduce_sum(simd, sum));
                for (&p, d) in p.iter().zip(d_p.iter_mut()) {
                    *d = T::vmul(simd, p, T::vsub(simd, *d, shared));
                }
                let last = T::vmul(simd, p_last, T::vsub(simd, d_last, shared));
                T::store(simd, d_rest, last);
            }
        }
    }
    Arch::new().dispatch(SoftmaxBack(p, d_p, d));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_of_rows() {
        let mut x = vec![
            1.0f64,
            2.0,
            f64::NEG_INFINITY,
            f64::NEG_INFINITY,
            0.0,
            f64::NAN,
        ];
        softmax_rows(&mut x, 2);
        let e = 1.0 / (1.0 + 1f64.exp());
        assert!(
            (x[0] - e).abs() < 4.0 * f64::EPSILON && (x[0] + x[1] - 1.0).abs() < 4.0 * f64::EPSILON
        );
        assert_eq!(x[2..], [0.0; 4]);
    }

    /// Every length around the vectors' own, against plain loops.
    #[test]
    fn rows_of_every_length() {
        fn check<T: Scalar>() {
            let close = |a: T, b: T| (a - b).abs().to_f64() <= 64.0 * T::EPSILON.to_f64();
            for d in 1..70usize {
                let x: Vec<T> = (0..3 * d)
                    .map(|i| T::from_f64(((i * 37 % 41) as f64 - 30.0) / 8.0))
                    .collect();
                let w: Vec<T> = (0..d).map(|i| T::from_f64(1.0 + i as f64 / 70.0)).collect();

                let mut soft = x.clone();
                softmax_rows(&mut soft, d);
                let mut shifted = x.clone();
                add_rows(MatMut::from_row_major_slice_mut(&mut shifted, 3, d), &w);
                let mut gathered = vec![T::ZERO; 4 * d];
                gather_rows(&x, d, &[2, 0, 1, 2], &mut gathered);
                for (row, from) in gathered.chunks(d).zip([2, 0, 1, 2]) {
                    assert_eq!(row, &x[from * d..(from + 1) * d]);
                }

                for r in 0..3 {
                    let row = &x[r * d..(r + 1) * d];
                    let max = row
                        .iter()
                        .copied()
                        .fold(-T::INFINITY, |a, b| if b > a { b } else { a });
                    let total: T = row.iter().map(|&x| (x - max).exp()).sum();
                    for j in 0..d {
                        let i = r * d + j;
                        assert!(close(soft[i], (row[j] - max).exp() / total), "{d}");
                        assert_eq!(shifted[i], row[j] + w[j]);
                    }
                }
            }
        }
        check::<f64>();
        check::<f32>();
    }
}
