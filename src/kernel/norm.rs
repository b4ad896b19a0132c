//! Norms by rows, forward and back.

use crate::tensor::{Scalar, load_over, only, store_over};
use pulp::{Arch, Simd, WithSimd};

/// LayerNorm by rows: `out = (x - mean(x)) (1 / scale) w + b`; `w` and `b` where there are any.
///
/// With an `eps`, `scale` becomes `sqrt(mean((x - mean(x))²) + eps)`; without one it is what it was.
pub(crate) fn layer_norm_rows<T: Scalar>(
    x: &[T],
    eps: Option<T>,
    scale: &mut [T],
    affine: Option<(&[T], &[T])>,
    out: &mut [T],
) {
    struct LayerNorm<'a, T> {
        x: &'a [T],
        eps: Option<T>,
        scale: &'a mut [T],
        affine: Option<(&'a [T], &'a [T])>,
        out: &'a mut [T],
    }
    impl<T: Scalar> WithSimd for LayerNorm<'_, T> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let LayerNorm {
                x,
                eps,
                scale,
                affine,
                out,
            } = self;
            let d = x.len() / scale.len().max(1);
            let n = T::from_f64(d as f64);
            let affine = affine.map(|(w, b)| (T::split::<S>(w), T::split::<S>(b)));
            let affine = affine.map(|((w, w_tail), (b, b_tail))| {
                (w, T::load(simd, w_tail), b, T::load(simd, b_tail))
            });
            for (i, scale) in scale.iter_mut().enumerate() {
                let (body, tail) = T::split::<S>(&x[i * d..(i + 1) * d]);
                let (own, rest) = out[i * d..].split_at_mut(d - tail.len());
                let (own, _) = T::split_mut::<S>(own);

                let last = load_over::<T, S>(simd, &x[(i + 1) * d - tail.len()..], tail.len());
                let sum = body.iter().fold(last, |sum, &x| T::vadd(simd, sum, x));
                let mean = T::splat(simd, T::reduce_sum(simd, sum) / n);
                // The missing values stay zero.
                let last = only::<T, S>(simd, tail.len(), T::vsub(simd, last, mean));
                let mut squares = T::vmul(simd, last, last);
                for (to, &x) in own.iter_mut().zip(body) {
                    *to = T::vsub(simd, x, mean);
                    squares = T::mul_add(simd, *to, *to, squares);
                }
                if let Some(eps) = eps {
                    *scale = (T::reduce_sum(simd, squares) / n + eps).sqrt();
                }
                let inverse = T::splat(simd, T::ONE / *scale);
                own.iter_mut().for_each(|x| *x = T::vmul(simd, *x, inverse));
                let mut last = T::vmul(simd, last, inverse);
                if let Some((w, w_last, b, b_last)) = affine {
                    for ((x, &w), &b) in own.iter_mut().zip(w).zip(b) {
                        *x = T::mul_add(simd, *x, w, b);
                    }
                    last = T::mul_add(simd, last, w_last, b_last);
                }
                store_over::<T, S>(simd, rest, tail.len(), last);
            }
        }
    }
    Arch::new().dispatch(LayerNorm {
        x,
        eps,
        scale,
        affine,
        out,
    });
}

/// LayerNorm's derivatives by rows: with `x̂ = (x - mean) / scale` and `g = d_out w`,
/// `d_x += (g - mean(g) - x̂ mean(g x̂)) / scale`.
pub(crate) struct LayerNormBack<'a, T> {
    /// `[n, d]`, what was normalised.
    pub x: &'a [T],
    /// `[n]`, what it was divided by.
    pub scale: &'a [T],
    /// `[d]`, where there are parameters.
    pub w: Option<&'a [T]>,
    /// `[n, d]`
    pub d_out: &'a [T],
    /// `[n, d]`, added to.
    pub d_x: &'a mut [T],
    /// `[n]`, written: the derivative by the scale alone.
    pub d_scale: &'a mut [T],
    /// `[d]` each, added to where wanted: the derivatives by `w` and `b`.
    pub d_affine: Option<(&'a mut [T], &'a mut [T])>,
}

impl<T: Scalar> WithSimd for LayerNormBack<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let d = self.x.len() / self.scale.len().max(1);
        let lanes = size_of::<T::V<S>>() / size_of::<T>();
        let wide = d.next_multiple_of(lanes);
        let n = T::from_f64(d as f64);
        let zero = T::splat(simd, T::ZERO);
        // One row's x̂ and g, in whole vectors.
        let (mut hats, mut gs) = (vec![T::ZERO; wide], vec![T::ZERO; wide]);
        let mut w = vec![T::ONE; wide];
        if let Some(given) = self.w {
            w[..d].copy_from_slice(given);
        }
        let (w, _) = T::split::<S>(&w);
        for (i, &scale) in self.scale.iter().enumerate() {
            let (hats, _) = T::split_mut::<S>(&mut hats);
            let (gs, _) = T::split_mut::<S>(&mut gs);
            let row = i * d;
            let mut sum = zero;
            for (v, hat) in hats.iter_mut().enumerate() {
                let at = v * lanes;
                *hat = load_over::<T, S>(simd, &self.x[row + at..], lanes.min(d - at));
                sum = T::vadd(simd, sum, *hat);
            }
            let mean = T::splat(simd, T::reduce_sum(simd, sum) / n);
            let inverse = T::splat(simd, T::ONE / scale);
            let (mut g_sum, mut g_hat_sum) = (zero, zero);
            for (v, (hat, g)) in hats.iter_mut().zip(gs.iter_mut()).enumerate() {
                let at = v * lanes;
                let own = lanes.min(d - at);
                *hat = T::vmul(simd, T::vsub(simd, *hat, mean), inverse);
                // Zero where there is no value, so that what x̂ is there does not matter.
                let d_out = load_over::<T, S>(simd, &self.d_out[row + at..], own);
                *g = T::vmul(simd, d_out, w[v]);
                g_sum = T::vadd(simd, g_sum, *g);
                g_hat_sum = T::mul_add(simd, *g, *hat, g_hat_sum);
                if let Some((d_w, d_b)) = &mut self.d_affine {
                    let (d_w, d_b) = (&mut d_w[at..at + own], &mut d_b[at..at + own]);
                    let sum = T::mul_add(simd, d_out, *hat, load_part::<T, S>(simd, d_w));
                    store_part::<T, S>(simd, d_w, sum);
                    let sum = T::vadd(simd, d_out, load_part::<T, S>(simd, d_b));
                    store_part::<T, S>(simd, d_b, sum);
                }
            }
            let g_hat_sum = T::reduce_sum(simd, g_hat_sum);
            self.d_scale[i] = -g_hat_sum / scale;
            let g_mean = T::splat(simd, T::reduce_sum(simd, g_sum) / n);
            let minus = T::splat(simd, -g_hat_sum / n);
            for (v, (&hat, &g)) in hats.iter().zip(gs.iter()).enumerate() {
                let at = v * lanes;
                let to = &mut self.d_x[row + at..row + d.min(at + lanes)];
                let d_x = T::mul_add(simd, hat, minus, T::vsub(simd, g, g_mean));
                let sum = T::mul_add(simd, d_x, inverse, load_part::<T, S>(simd, to));
                store_part::<T, S>(simd, to, sum);
            }
        }
    }
}

/// A slice of one vector or less, which is loaded whole where it is whole.
#[inline(always)]
fn load_part<T: Scalar, S: Simd>(simd: S, x: &[T]) -> T::V<S> {
    match T::split::<S>(x) {
        ([whole], _) => *whole,
        (_, part) => T::load(simd, part),
    }
}

/// The way back of [`load_part`].
#[inline(always)]
fn store_part<T: Scalar, S: Simd>(simd: S, x: &mut [T], v: T::V<S>) {
    match T::split_mut::<S>(x) {
        ([whole], _) => *whole = v,
        (_, part) => T::store(simd, part, v),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
                let (mut plain, mut scale) = (vec![T::ZERO; 3 * d], vec![T::ZERO; 3]);
                layer_norm_rows(&x, Some(T::from_f64(0.5)), &mut scale, None, &mut plain);
                let (mut normalized, mut given) = (plain.clone(), vec![T::ONE; 3]);
                let affine = Some((&w[..], &w[..]));
                layer_norm_rows(&x, None, &mut given, affine, &mut normalized);
                for r in 0..3 {
                    let row = &x[r * d..(r + 1) * d];
                    let n = T::from_f64(d as f64);
                    let mean = row.iter().copied().sum::<T>() / n;
                    let square = row.iter().map(|&x| (x - mean) * (x - mean)).sum::<T>() / n;
                    let expected = (square + T::from_f64(0.5)).sqrt();
                    assert!(close(scale[r], expected), "{d}: {} {expected}", scale[r]);
                    for j in 0..d {
                        let i = r * d + j;
                        assert!(close(plain[i], (row[j] - mean) / expected), "{d}");
                        assert!(close(normalized[i], (row[j] - mean) * w[j] + w[j]), "{d}");
                    }
                }
            }
        }
        check::<f64>();
        check::<f32>();
    }
}
