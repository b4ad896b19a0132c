//! The elementwise passes of the forward, on the widest instructions that the machine has.
//!
//! The rows of a small model are a vector or two long, so that a loop's beginning and end are most of
//! it: the last vector of a row is loaded and stored in part rather than value by value.

use super::Scalar;
use pulp::{Arch, NullaryFnOnce, Simd, WithSimd};

/// Runs `f` compiled for the machine's instructions.
#[inline]
fn dispatch<F: FnOnce()>(f: F) {
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

/// `dst += src`.
pub(crate) fn add_assign<T: Scalar>(dst: &mut [T], src: &[T]) {
    dispatch(
        #[inline(always)]
        || dst.iter_mut().zip(src).for_each(|(d, &s)| *d += s),
    );
}

/// `x = f(x)` for every value.
pub(crate) fn map_in_place<T: Scalar>(x: &mut [T], f: impl Fn(T) -> T) {
    dispatch(
        #[inline(always)]
        || x.iter_mut().for_each(|x| *x = f(*x)),
    );
}

/// Adds the same row to every row of `dst`.
pub(crate) fn add_rows<T: Scalar>(dst: &mut [T], row: &[T]) {
    struct AddRows<'a, T>(&'a mut [T], &'a [T]);
    impl<T: Scalar> WithSimd for AddRows<'_, T> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let AddRows(dst, row) = self;
            let (body, tail) = T::split::<S>(row);
            let last = T::load(simd, tail);
            for dst in dst.chunks_exact_mut(row.len()) {
                let (head, rest) = T::split_mut::<S>(dst);
                head.iter_mut()
                    .zip(body)
                    .for_each(|(d, &b)| *d = T::vadd(simd, *d, b));
                let d = T::load(simd, rest);
                T::store(simd, rest, T::vadd(simd, d, last));
            }
        }
    }
    Arch::new().dispatch(AddRows(dst, row));
}

/// LayerNorm's first half: `centered = x - mean(x)`, `scale = sqrt(mean(centered²) + eps)`, by rows.
pub(crate) fn center_and_scale<T: Scalar>(x: &[T], eps: T, centered: &mut [T], scale: &mut [T]) {
    struct Center<'a, T> {
        x: &'a [T],
        eps: T,
        centered: &'a mut [T],
        scale: &'a mut [T],
    }
    impl<T: Scalar> WithSimd for Center<'_, T> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let Center {
                x,
                eps,
                centered,
                scale,
            } = self;
            let d = x.len() / scale.len().max(1);
            let n = T::from_f64(d as f64);
            let rows = x.chunks_exact(d).zip(centered.chunks_exact_mut(d));
            for ((x, centered), scale) in rows.zip(scale) {
                let (body, tail) = T::split::<S>(x);
                let last = T::load(simd, tail);
                let sum = body.iter().fold(last, |sum, &x| T::vadd(simd, sum, x));
                let mean = T::splat(simd, T::reduce_sum(simd, sum) / n);
                let (head, rest) = T::split_mut::<S>(centered);
                let mut squares = T::splat(simd, T::ZERO);
                for (c, &x) in head.iter_mut().zip(body) {
                    *c = T::vsub(simd, x, mean);
                    squares = T::mul_add(simd, *c, *c, squares);
                }
                T::store(simd, rest, T::vsub(simd, last, mean));
                // Loaded again, so that the missing values are zero and not minus the mean.
                let last = T::load(simd, rest);
                squares = T::mul_add(simd, last, last, squares);
                *scale = (T::reduce_sum(simd, squares) / n + eps).sqrt();
            }
        }
    }
    Arch::new().dispatch(Center {
        x,
        eps,
        centered,
        scale,
    });
}

/// LayerNorm's second half: `x = x (1 / scale) w + b`, by rows; `w` and `b` where there are any.
pub(crate) fn divide_affine<T: Scalar>(x: &mut [T], scale: &[T], affine: Option<(&[T], &[T])>) {
    struct Divide<'a, T> {
        x: &'a mut [T],
        scale: &'a [T],
        affine: Option<(&'a [T], &'a [T])>,
    }
    impl<T: Scalar> WithSimd for Divide<'_, T> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let Divide { x, scale, affine } = self;
            let d = x.len() / scale.len().max(1);
            for (x, &scale) in x.chunks_exact_mut(d).zip(scale) {
                let inverse = T::splat(simd, T::ONE / scale);
                let (head, rest) = T::split_mut::<S>(x);
                match affine {
                    Some((w, b)) => {
                        let ((w, w_tail), (b, b_tail)) = (T::split::<S>(w), T::split::<S>(b));
                        for ((x, &w), &b) in head.iter_mut().zip(w).zip(b) {
                            *x = T::mul_add(simd, T::vmul(simd, *x, inverse), w, b);
                        }
                        let (w, b) = (T::load(simd, w_tail), T::load(simd, b_tail));
                        let last = T::vmul(simd, T::load(simd, rest), inverse);
                        T::store(simd, rest, T::mul_add(simd, last, w, b));
                    }
                    None => {
                        head.iter_mut()
                            .for_each(|x| *x = T::vmul(simd, *x, inverse));
                        let last = T::load(simd, rest);
                        T::store(simd, rest, T::vmul(simd, last, inverse));
                    }
                }
            }
        }
    }
    Arch::new().dispatch(Divide { x, scale, affine });
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
                let last = T::load(simd, rest);
                let sum = head.iter().fold(last, |sum, &x| T::vadd(simd, sum, x));
                let total = T::reduce_sum(simd, sum);
                // Times zero would leave a NaN what it is.
                if !(total > T::ZERO && total.is_finite()) {
                    row.fill(T::ZERO);
                    continue;
                }
                let inverse = T::splat(simd, T::ONE / total);
                head.iter_mut()
                    .for_each(|x| *x = T::vmul(simd, *x, inverse));
                T::store(simd, rest, T::vmul(simd, last, inverse));
            }
        }
    }
    Arch::new().dispatch(Softmax(x, d));
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

                let (mut centered, mut scale) = (vec![T::ZERO; 3 * d], vec![T::ZERO; 3]);
                center_and_scale(&x, T::from_f64(0.5), &mut centered, &mut scale);
                let mut normalized = centered.clone();
                divide_affine(&mut normalized, &scale, Some((&w, &w)));
                let mut plain = centered.clone();
                divide_affine(&mut plain, &scale, None);
                let mut soft = x.clone();
                softmax_rows(&mut soft, d);
                let mut shifted = x.clone();
                add_rows(&mut shifted, &w);

                for r in 0..3 {
                    let row = &x[r * d..(r + 1) * d];
                    let n = T::from_f64(d as f64);
                    let mean = row.iter().copied().sum::<T>() / n;
                    let square = row.iter().map(|&x| (x - mean) * (x - mean)).sum::<T>() / n;
                    let expected = (square + T::from_f64(0.5)).sqrt();
                    assert!(close(scale[r], expected), "{d}: {} {expected}", scale[r]);
                    let max = row
                        .iter()
                        .copied()
                        .fold(-T::INFINITY, |a, b| if b > a { b } else { a });
                    let total: T = row.iter().map(|&x| (x - max).exp()).sum();
                    for j in 0..d {
                        let i = r * d + j;
                        assert!(close(centered[i], row[j] - mean), "{d}");
                        assert!(close(plain[i], (row[j] - mean) / expected), "{d}");
                        assert!(
                            close(normalized[i], (row[j] - mean) / expected * w[j] + w[j]),
                            "{d}"
                        );
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
