//! LayerNorm's derivatives.

use crate::tensor::Scalar;
use pulp::{Simd, WithSimd};

/// With `x̂ = (x - mean) / scale` and `g = d_out w`, at every position: `d_x += (g - mean(g) - x̂ mean(g x̂)) / scale`.
pub(crate) struct LayerNormBack<'a, T> {
    /// `[pos, d, lane]`, what was normalised; as are `d_out` and `d_x`.
    pub x: &'a [T],
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

impl<T: Scalar> WithSimd for LayerNormBack<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let d = self.x.len() / self.scale.len();
        let splat = |x: T| T::splat(simd, x);
        let zero = splat(T::ZERO);
        let share = splat(T::ONE / T::from_f64(d as f64));
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
            let mean = T::vmul(simd, sum, share);
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
            let g_mean = T::vmul(simd, g_sum, share);
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
