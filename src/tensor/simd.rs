//! The elementwise passes of the forward, written so that they vectorise, and dispatched to the
//! widest instructions the machine has.
//!
//! Floating-point sums do not vectorise by themselves, since their order matters; [`lanes`] gives
//! them a fixed order of eight interleaved sums, the same on every machine.

use super::Scalar;
use pulp::{Arch, NullaryFnOnce};

/// How many interleaved accumulators a reduction has.
const LANES: usize = 8;

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

/// Folds a row in [`LANES`] interleaved lanes, then the lanes.
#[inline(always)]
fn lanes<T: Scalar>(row: &[T], start: T, map: impl Fn(T) -> T, fold: impl Fn(T, T) -> T) -> T {
    let mut acc = [start; LANES];
    let mut chunks = row.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (a, &x) in acc.iter_mut().zip(chunk) {
            *a = fold(*a, map(x));
        }
    }
    for (a, &x) in acc.iter_mut().zip(chunks.remainder()) {
        *a = fold(*a, map(x));
    }
    let half: [T; LANES / 2] = std::array::from_fn(|i| fold(acc[i], acc[i + LANES / 2]));
    fold(fold(half[0], half[2]), fold(half[1], half[3]))
}

#[inline(always)]
fn sum<T: Scalar>(row: &[T], map: impl Fn(T) -> T) -> T {
    lanes(row, T::ZERO, map, |a, b| a + b)
}

/// `dst += src`.
pub(crate) fn add_assign<T: Scalar>(dst: &mut [T], src: &[T]) {
    dispatch(
        #[inline(always)]
        || dst.iter_mut().zip(src).for_each(|(d, &s)| *d += s),
    );
}

/// Adds the same row to every row of `dst`.
pub(crate) fn add_rows<T: Scalar>(dst: &mut [T], row: &[T]) {
    dispatch(
        #[inline(always)]
        || {
            for d in dst.chunks_exact_mut(row.len()) {
                d.iter_mut().zip(row).for_each(|(d, &s)| *d += s);
            }
        },
    );
}

/// `x = f(x)` for every value.
pub(crate) fn map_in_place<T: Scalar>(x: &mut [T], f: impl Fn(T) -> T) {
    dispatch(
        #[inline(always)]
        || x.iter_mut().for_each(|x| *x = f(*x)),
    );
}

/// LayerNorm's first half: `centered = x - mean(x)`, `scale = sqrt(mean(centered²) + eps)`, by rows.
pub(crate) fn center_and_scale<T: Scalar>(x: &[T], eps: T, centered: &mut [T], scale: &mut [T]) {
    let d = x.len() / scale.len().max(1);
    let n = T::from_f64(d as f64);
    dispatch(
        #[inline(always)]
        || {
            let rows = x.chunks_exact(d).zip(centered.chunks_exact_mut(d));
            for ((x, centered), scale) in rows.zip(scale) {
                let mean = sum(x, |x| x) / n;
                centered.iter_mut().zip(x).for_each(|(c, &x)| *c = x - mean);
                *scale = (sum(centered, |x| x * x) / n + eps).sqrt();
            }
        },
    );
}

/// LayerNorm's second half: `x = x / scale * w + b`, by rows; `w` and `b` where there are any.
pub(crate) fn divide_affine<T: Scalar>(x: &mut [T], scale: &[T], affine: Option<(&[T], &[T])>) {
    let d = x.len() / scale.len().max(1);
    dispatch(
        #[inline(always)]
        || {
            for (x, &scale) in x.chunks_exact_mut(d).zip(scale) {
                match affine {
                    Some((w, b)) => {
                        for ((x, &w), &b) in x.iter_mut().zip(w).zip(b) {
                            *x = *x / scale * w + b;
                        }
                    }
                    None => x.iter_mut().for_each(|x| *x = *x / scale),
                }
            }
        },
    );
}

/// Softmax of every row of length `d`, in place.
///
/// A row whose sum of exponentials is no positive finite number (all scores `-inf`, or one NaN)
/// becomes zero, as TransformerLens has it.
pub(crate) fn softmax_rows<T: Scalar>(x: &mut [T], d: usize) {
    dispatch(
        #[inline(always)]
        || {
            // Three passes rather than one a row: the middle one, which costs most, then runs over
            // long stretches of memory however short the rows are.
            for row in x.chunks_exact_mut(d) {
                let max = lanes(row, -T::INFINITY, |x| x, |a, b| if b > a { b } else { a });
                row.iter_mut().for_each(|x| *x -= max);
            }
            x.iter_mut().for_each(|x| *x = x.exp_lane());
            for row in x.chunks_exact_mut(d) {
                let total = sum(row, |x| x);
                if total > T::ZERO && total.is_finite() {
                    let inverse = T::ONE / total;
                    row.iter_mut().for_each(|x| *x *= inverse);
                } else {
                    row.fill(T::ZERO);
                }
            }
        },
    );
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

    #[test]
    fn lanes_sum_every_length() {
        for n in 0..40 {
            let row: Vec<f64> = (0..n).map(|i| i as f64).collect();
            assert_eq!(sum(&row, |x| x), (n * n.max(1) - n) as f64 / 2.0, "{n}");
        }
    }
}
