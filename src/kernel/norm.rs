//! Norms, forward and back: by rows, and of sequences abreast, where no sum looks across a vector.

use crate::tensor::{Scalar, load_over, only, store_over};
use pulp::{Arch, Simd, WithSimd};

/// What a sum over `d` entries is multiplied by for the mean that is taken off: zero where none is.
fn share_of_mean<T: Scalar>(centred: bool, d: usize) -> T {
    match centred {
        true => T::ONE / T::from_f64(d as f64),
        false => T::ZERO,
    }
}

/// LayerNorm by rows: `out = (x - mean(x)) (1 / scale) w + b`; `w` and `b` where there are any.
///
/// With an `eps`, `scale` becomes `sqrt(mean((x - mean(x))²) + eps)`; without one it is what it was.
///
/// Where it is not `centred`, zero stands for the means.
pub(crate) fn norm_rows<T: Scalar>(
    x: &[T],
    centred: bool,
    eps: Option<T>,
    scale: &mut [T],
    affine: Option<(&[T], &[T])>,
    out: &mut [T],
) {
    struct NormRows<'a, T> {
        x: &'a [T],
        centred: bool,
        eps: Option<T>,
        scale: &'a mut [T],
        affine: Option<(&'a [T], &'a [T])>,
        out: &'a mut [T],
    }
    impl<T: Scalar> WithSimd for NormRows<'_, T> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let NormRows {
                x,
                centred,
                eps,
                scale,
                affine,
                out,
            } = self;
            let d = x.len() / scale.len().max(1);
            let n = T::from_f64(d as f64);
            let share = share_of_mean::<T>(centred, d);
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
                let mean = T::splat(simd, T::reduce_sum(simd, sum) * share);
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
    Arch::new().dispatch(NormRows {
        x,
        centred,
        eps,
        scale,
        affine,
        out,
    });
}

/// LayerNorm's derivatives by rows: with `x̂ = (x - mean) / scale` and `g = d_out w`,
/// `d_x += (g - mean(g) - x̂ mean(g x̂)) / scale`.
pub(crate) struct NormBack<'a, T> {
    /// `[n, d]`, what was normalised.
    pub x: &'a [T],
    /// Whether the mean was taken off.
    pub centred: bool,
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

impl<T: Scalar> WithSimd for NormBack<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let d = self.x.len() / self.scale.len().max(1);
        let lanes = size_of::<T::V<S>>() / size_of::<T>();
        let wide = d.next_multiple_of(lanes);
        let n = T::from_f64(d as f64);
        let share = share_of_mean::<T>(self.centred, d);
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
            let mean = T::splat(simd, T::reduce_sum(simd, sum) * share);
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
            let g_mean = T::splat(simd, T::reduce_sum(simd, g_sum) * share);
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

/// `(x - mean) / scale`, times `w`, plus `b`, with `scale = sqrt(mean((x - mean)²) + eps)`, at every position.
pub(crate) struct NormAbreast<'a, T> {
    /// `[pos, d, lane]`, as is `out`.
    pub x: &'a [T],
    /// Whether the mean is taken off.
    pub centred: bool,
    pub eps: T,
    pub affine: Option<(&'a [T], &'a [T])>,
    /// `[pos, lane]`
    pub scale: &'a mut [T],
    pub out: &'a mut [T],
}

impl<T: Scalar> WithSimd for NormAbreast<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (x, (out, _)) = (T::split::<S>(self.x).0, T::split_mut::<S>(self.out));
        let lanes = size_of::<T::V<S>>() / size_of::<T>();
        let d = self.x.len() / self.scale.len();
        let share = T::splat(simd, T::ONE / T::from_f64(d as f64));
        let mean_share = T::splat(simd, share_of_mean::<T>(self.centred, d));
        let zero = T::splat(simd, T::ZERO);
        let rows = x.chunks_exact(d).zip(out.chunks_exact_mut(d));
        for ((x, out), scale) in rows.zip(self.scale.chunks_exact_mut(lanes)) {
            let sum = x.iter().fold(zero, |sum, &x| T::vadd(simd, sum, x));
            let mean = T::vmul(simd, sum, mean_share);
            let mut squares = zero;
            for (out, &x) in out.iter_mut().zip(x) {
                *out = T::vsub(simd, x, mean);
                squares = T::mul_add(simd, *out, *out, squares);
            }
            T::split_mut::<S>(scale).0[0] = T::vmul(simd, squares, share);
            scale.iter_mut().for_each(|x| *x = (*x + self.eps).sqrt());
            let inverse = T::vdiv(simd, T::splat(simd, T::ONE), T::split::<S>(scale).0[0]);
            match self.affine {
                Some((w, b)) => {
                    for ((x, &w), &b) in out.iter_mut().zip(w).zip(b) {
                        let (w, b) = (T::splat(simd, w), T::splat(simd, b));
                        *x = T::mul_add(simd, T::vmul(simd, *x, inverse), w, b);
                    }
                }
                None => out.iter_mut().for_each(|x| *x = T::vmul(simd, *x, inverse)),
            }
        }
    }
}

/// With `x̂ = (x - mean) / scale` and `g = d_out w`, at every position: `d_x += (g - mean(g) - x̂ mean(g x̂)) / scale`.
pub(crate) struct NormBackAbreast<'a, T> {
    /// `[pos, d, lane]`, what was normalised; as are `d_out` and `d_x`.
    pub x: &'a [T],
    /// Whether the mean was taken off.
    pub centred: bool,
    /// `[pos, lane]`, what it was divided by.
    pub scale: &'a [T],
    /// `[d]`, where there are parameters.
    pub w: Option<&'a [T]>,
    pub d_out: &'a [T],
    /// Added to.
    pub d_x: &'a mut [T],
    /// `[pos, lane]`, written: the derivative by the scale alone.
    pub d_scale: &'a mut [T],
    /// `[d]` each, added to where wanted: the derivatives by `w` and `b`.
    pub d_affine: Option<(&'a mut [T], &'a mut [T])>,
}

impl<T: Scalar> WithSimd for NormBackAbreast<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let d = self.x.len() / self.scale.len();
        let splat = |x: T| T::splat(simd, x);
        let zero = splat(T::ZERO);
        let share = splat(T::ONE / T::from_f64(d as f64));
        let mean_share = splat(share_of_mean::<T>(self.centred, d));
        let (x, d_out) = (T::split::<S>(self.x).0, T::split::<S>(self.d_out).0);
        let (d_x, _) = T::split_mut::<S>(self.d_x);
        let (d_scale, _) = T::split_mut::<S>(self.d_scale);
        let scales = T::split::<S>(self.scale).0.iter().zip(d_scale);
        // One position's x̂ and g; the sums over positions of `d_out x̂` and of `d_out`.
        let [mut hats, mut gs] = [(); 2].map(|()| vec![zero; d]);
        let sums = if self.d_affine.is_some() { d } else { 0 };
        let [mut d_w, mut d_b] = [(); 2].map(|()| vec![zero; sums]);
        let rows = x.chunks_exact(d).zip(d_out.chunks_exact(d));
        let rows = rows.zip(scales).zip(d_x.chunks_exact_mut(d));
        for (((x, d_out), (&scale, d_scale)), d_x) in rows {
            let inverse = T::vdiv(simd, splat(T::ONE), scale);
            let sum = x.iter().fold(zero, |sum, &x| T::vadd(simd, sum, x));
            let mean = T::vmul(simd, sum, mean_share);
            for (hat, &x) in hats.iter_mut().zip(x) {
                *hat = T::vmul(simd, T::vsub(simd, x, mean), inverse);
            }
            match self.w {
                Some(w) => {
                    let values = gs.iter_mut().zip(d_out).zip(w);
                    values.for_each(|((g, &d), &w)| *g = T::vmul(simd, d, splat(w)));
                }
                None => gs.copy_from_slice(d_out),
            }
            let (mut g_sum, mut g_hat_sum) = (zero, zero);
            for (&g, &hat) in gs.iter().zip(&hats) {
                g_sum = T::vadd(simd, g_sum, g);
                g_hat_sum = T::mul_add(simd, g, hat, g_hat_sum);
            }
            *d_scale = T::vsub(simd, zero, T::vmul(simd, g_hat_sum, inverse));
            let g_mean = T::vmul(simd, g_sum, mean_share);
            let minus = T::vsub(simd, zero, T::vmul(simd, g_hat_sum, share));
            for ((to, &g), &hat) in d_x.iter_mut().zip(&gs).zip(&hats) {
                let d = T::mul_add(simd, hat, minus, T::vsub(simd, g, g_mean));
                *to = T::mul_add(simd, d, inverse, *to);
            }
            let sums = d_w.iter_mut().zip(&mut d_b);
            for ((d_w, d_b), (&d, &hat)) in sums.zip(d_out.iter().zip(&hats)) {
                *d_w = T::mul_add(simd, d, hat, *d_w);
                *d_b = T::vadd(simd, *d_b, d);
            }
        }
        if let Some((to_w, to_b)) = self.d_affine {
            let sums = [(to_w, d_w), (to_b, d_b)];
            for (to, sums) in sums {
                let values = to.iter_mut().zip(sums);
                values.for_each(|(to, sum)| *to += T::reduce_sum(simd, sum));
            }
        }
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
                norm_rows(
                    &x,
                    true,
                    Some(T::from_f64(0.5)),
                    &mut scale,
                    None,
                    &mut plain,
                );
                let (mut normalized, mut given) = (plain.clone(), vec![T::ONE; 3]);
                let affine = Some((&w[..], &w[..]));
                norm_rows(&x, true, None, &mut given, affine, &mut normalized);
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
