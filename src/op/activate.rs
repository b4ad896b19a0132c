//! The activation functions, each with TransformerLens's formula, and their derivatives.

use super::{Layout, Rules, split};
use crate::diagram::ActFn;
use crate::tensor::{Scalar, Tensor, add_rows, map_in_place, map2_in_place, softmax_rows};
use faer::MatMut;

/// The activation function of `[batch, pos, d_mlp]` neurons, in place.
pub(crate) fn activate<T: Scalar>(layout: Layout, act_fn: ActFn, x: &mut Tensor<T>) {
    let d_mlp = x.shape()[2];
    split(layout.par(), x.data_mut(), d_mlp, |_, x| {
        act_fn.apply(x, d_mlp)
    });
}

/// What gated neurons give: their function, which `x` holds, times what is gated, plus a bias if there is one.
pub(crate) fn gate<T: Scalar>(
    layout: Layout,
    x: &mut Tensor<T>,
    gated: &Tensor<T>,
    b: Option<&Tensor<T>>,
) {
    let gated = gated.data();
    split(layout.par(), x.data_mut(), 1, |first, x| {
        map2_in_place(x, &gated[first..][..x.len()], |x, y| x * y)
    });
    let b = b.map(Tensor::data);
    if let Some(b) = b.filter(|b| b.iter().any(|&b| b != T::ZERO)) {
        add_to_each(layout, x, b);
    }
}

/// `x += b` at every position.
fn add_to_each<T: Scalar>(layout: Layout, x: &mut Tensor<T>, b: &[T]) {
    match layout {
        Layout::Rows(_) => {
            let rows = x.len() / b.len();
            add_rows(
                MatMut::from_row_major_slice_mut(x.data_mut(), rows, b.len()),
                b,
            );
        }
        Layout::Abreast => {
            let lanes = x.shape()[0];
            let values = x.data_mut().chunks_exact_mut(lanes).zip(b.iter().cycle());
            values.for_each(|(x, &b)| x.iter_mut().for_each(|x| *x += b));
        }
    }
}

/// From the derivative `d` by what gated neurons give to that by the gate, in place, and that by what is gated.
pub(crate) fn gate_back<T: Scalar>(
    layout: Layout,
    rules: Rules,
    act_fn: ActFn,
    [pre, gated]: [&Tensor<T>; 2],
    d: &mut Tensor<T>,
    d_gated: &mut Tensor<T>,
) {
    d_gated.data_mut().copy_from_slice(pre.data());
    activate(layout, act_fn, d_gated);
    map2_in_place(d_gated.data_mut(), d.data(), |x, d| x * d);
    map2_in_place(d.data_mut(), gated.data(), |d, y| d * y);
    activate_back(rules, act_fn, pre.data(), d.data_mut(), pre.shape()[2]);
    if rules != Rules::Derivatives {
        let half = T::from_f64(0.5);
        for d in [d, d_gated] {
            map_in_place(d.data_mut(), |d| half * d);
        }
    }
}

impl ActFn {
    /// Applies the function to `[n, d_mlp]` neurons, in place. For `solu_ln` this is SoLU itself; the
    /// LayerNorm that follows is the caller's.
    ///
    /// Source: `transformer_lens/utilities/activation_functions.py`.
    pub(crate) fn apply<T: Scalar>(self, x: &mut [T], d_mlp: usize) {
        let c = T::from_f64;
        let (half, one) = (c(0.5), T::ONE);
        match self {
            ActFn::Relu => map_in_place(x, |x| if x < T::ZERO { T::ZERO } else { x }),
            ActFn::Gelu => {
                let inv_sqrt2 = c(std::f64::consts::FRAC_1_SQRT_2);
                x.iter_mut()
                    .for_each(|x| *x = half * *x * (one + (*x * inv_sqrt2).erf()));
            }
            ActFn::GeluNew | ActFn::GeluPytorchTanh => {
                gelu_tanh(x, c((2.0 / std::f64::consts::PI).sqrt()))
            }
            ActFn::GeluFast => gelu_tanh(x, c(0.7978845608)),
            ActFn::GeluBloom => gelu_tanh(x, c(0.79788456)),
            ActFn::QuickGelu => map_in_place(x, |x| x / (one + (-(c(1.702) * x)).exp_lane())),
            ActFn::Silu => map_in_place(x, |x| x / (one + (-x).exp_lane())),
            ActFn::Linear => {}
            ActFn::Solu | ActFn::SoluLn => {
                let mut weights = x.to_vec();
                softmax_rows(&mut weights, d_mlp);
                x.iter_mut().zip(weights).for_each(|(x, w)| *x *= w);
            }
        }
    }
}

/// `x/2 (1 + tanh(k (x + 0.044715 x³)))`, with `tanh y = 1 - 2 / (e^2y + 1)`.
fn gelu_tanh<T: Scalar>(x: &mut [T], k: T) {
    let cubic = T::from_f64(0.044715);
    let (half, one, two) = (T::from_f64(0.5), T::ONE, T::from_f64(2.0));
    map_in_place(x, |x| {
        let y = k * (x + cubic * (x * x * x));
        let tanh = one - two / ((two * y).exp_lane() + one);
        half * x * (one + tanh)
    });
}

/// Turns the derivative by `[n, d_mlp]` neurons past the function into that by `pre`, the neurons before it, in place.
/// For `solu_ln` that past the function is that before its LayerNorm.
pub(crate) fn activate_back<T: Scalar>(
    rules: Rules,
    act_fn: ActFn,
    pre: &[T],
    d: &mut [T],
    d_mlp: usize,
) {
    match rules {
        Rules::Derivatives => derivatives_back(act_fn, pre, d, d_mlp),
        Rules::Relevance { .. } => relevance_back(act_fn, pre, d, d_mlp),
    }
}

/// `d f(x) / x`; where `x` is zero, what that goes to: the derivative.
fn relevance_back<T: Scalar>(act_fn: ActFn, pre: &[T], d: &mut [T], d_mlp: usize) {
    let mut out = pre.to_vec();
    if act_fn.looks_across() {
        softmax_rows(&mut out, d_mlp);
        return map2_in_place(d, &out, |d, weight| d * weight);
    }
    act_fn.apply(&mut out, d_mlp);
    let mut at_zero = Vec::new();
    if pre.contains(&T::ZERO) {
        at_zero.extend_from_slice(d);
        derivatives_back(act_fn, pre, &mut at_zero, d_mlp);
    }
    for (i, (d, (&x, &y))) in d.iter_mut().zip(pre.iter().zip(&out)).enumerate() {
        *d = if x == T::ZERO { at_zero[i] } else { *d * y / x };
    }
}

fn derivatives_back<T: Scalar>(act_fn: ActFn, pre: &[T], d: &mut [T], d_mlp: usize) {
    let c = T::from_f64;
    match act_fn {
        ActFn::Relu => map2_in_place(d, pre, |d, x| if x > T::ZERO { d } else { T::ZERO }),
        ActFn::Gelu => {
            let (half, one, root) = (c(0.5), T::ONE, c(std::f64::consts::FRAC_1_SQRT_2));
            let density = c((2.0 * std::f64::consts::PI).sqrt().recip());
            for (d, &x) in d.iter_mut().zip(pre) {
                let below = half * (one + (x * root).erf());
                *d *= below + x * density * (-half * x * x).exp();
            }
        }
        ActFn::GeluNew | ActFn::GeluPytorchTanh => {
            tanh_back(pre, d, c((2.0 / std::f64::consts::PI).sqrt()))
        }
        ActFn::GeluFast => tanh_back(pre, d, c(0.7978845608)),
        ActFn::GeluBloom => tanh_back(pre, d, c(0.79788456)),
        ActFn::QuickGelu => map2_in_place(d, pre, |d, x| {
            let k = T::from_f64(1.702);
            let s = T::ONE / (T::ONE + (-(k * x)).exp_lane());
            d * s * (T::ONE + k * x * (T::ONE - s))
        }),
        ActFn::Silu => map2_in_place(d, pre, |d, x| {
            let s = T::ONE / (T::ONE + (-x).exp_lane());
            d * s * (T::ONE + x * (T::ONE - s))
        }),
        ActFn::Linear => {}
        ActFn::Solu | ActFn::SoluLn => {
            let mut weights = pre.to_vec();
            softmax_rows(&mut weights, d_mlp);
            let rows = d.chunks_exact_mut(d_mlp).zip(pre.chunks_exact(d_mlp));
            for ((d, x), s) in rows.zip(weights.chunks_exact(d_mlp)) {
                // y_i = x_i s_i: dy_i / dx_j = s_i (δ_ij + x_i (δ_ij - s_j))
                let terms = d.iter().zip(x).zip(s).map(|((&d, &x), &s)| d * x * s);
                let shared: T = terms.sum();
                for ((d, &x), &s) in d.iter_mut().zip(x).zip(s) {
                    *d = s * (*d + *d * x - shared);
                }
            }
        }
    }
}

/// `x/2 (1 + tanh y)`, `y = k (x + 0.044715 x³)`.
fn tanh_back<T: Scalar>(pre: &[T], d: &mut [T], k: T) {
    let cubic = T::from_f64(0.044715);
    let (half, one, two, three) = (T::from_f64(0.5), T::ONE, T::from_f64(2.0), T::from_f64(3.0));
    map2_in_place(d, pre, |d, x| {
        let y = k * (x + cubic * (x * x * x));
        let tanh = one - two / ((two * y).exp_lane() + one);
        let slope = k * (one + three * cubic * x * x);
        d * half * (one + tanh + x * (one - tanh * tanh) * slope)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The functions as the Python source has them, on std's elementary functions.
    fn naive(f: ActFn, x: f64) -> f64 {
        let tanh = |k: f64| 0.5 * x * (1.0 + (k * (x + 0.044715 * x.powi(3))).tanh());
        match f {
            ActFn::Relu => x.max(0.0),
            ActFn::Gelu => 0.5 * x * (1.0 + libm::erf(x / 2f64.sqrt())),
            ActFn::GeluNew | ActFn::GeluPytorchTanh => tanh((2.0 / std::f64::consts::PI).sqrt()),
            ActFn::GeluFast => tanh(0.7978845608),
            ActFn::GeluBloom => tanh(0.79788456),
            ActFn::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
            ActFn::Silu => x / (1.0 + (-x).exp()),
            ActFn::Linear => x,
            ActFn::Solu | ActFn::SoluLn => unreachable!("SoLU is no function of one neuron"),
        }
    }

    #[test]
    fn each_is_its_formula() {
        let inputs: Vec<f64> = (-4000..=4000).map(|i| i as f64 / 100.0).collect();
        for f in [
            ActFn::Relu,
            ActFn::Gelu,
            ActFn::GeluNew,
            ActFn::GeluFast,
            ActFn::GeluBloom,
            ActFn::QuickGelu,
            ActFn::GeluPytorchTanh,
            ActFn::Silu,
            ActFn::Linear,
        ] {
            let mut out = inputs.clone();
            f.apply(&mut out, inputs.len());
            for (&x, &y) in inputs.iter().zip(&out) {
                // 1 + tanh cancels for negative x: the error is relative to x, not to the result.
                let bound = 8.0 * f64::EPSILON * x.abs();
                assert!(
                    (y - naive(f, x)).abs() <= bound,
                    "{f:?}({x}) = {y}, {}",
                    naive(f, x)
                );
            }
        }
    }

    #[test]
    fn solu_is_x_softmax_x() {
        let mut x = vec![1.0f64, 2.0, 3.0, -1.0, 0.0, 1.0];
        let e: Vec<f64> = x.iter().map(|x| x.exp()).collect();
        let expected: Vec<f64> = (0..6)
            .map(|i| x[i] * e[i] / e[i / 3 * 3..i / 3 * 3 + 3].iter().sum::<f64>())
            .collect();
        ActFn::SoluLn.apply(&mut x, 3);
        for (a, b) in x.iter().zip(expected) {
            assert!((a - b).abs() <= 8.0 * f64::EPSILON * b.abs());
        }
    }

    /// What is passed back to `x` is `f(x)` of it, and at zero what it is beside it.
    #[test]
    fn relevance_is_conserved() {
        for f in [
            ActFn::Relu,
            ActFn::Gelu,
            ActFn::GeluNew,
            ActFn::GeluFast,
            ActFn::GeluBloom,
            ActFn::QuickGelu,
            ActFn::Silu,
            ActFn::Linear,
            ActFn::Solu,
        ] {
            let near = f64::EPSILON.sqrt();
            let pre = [-3.0, -0.7, -near, 0.0, 0.4, 2.5];
            let mut out = pre;
            f.apply(&mut out, 6);
            let mut d = [1.0; 6];
            let rules = Rules::Relevance { patterns: true };
            activate_back(rules, f, &pre, &mut d, 6);
            for (i, (x, y)) in pre.iter().zip(out).enumerate() {
                let off = (d[i] * x - y).abs();
                assert!(off <= 2.0 * f64::EPSILON * y.abs(), "{f:?}({x}): {}", d[i]);
            }
            // No function here bends by more than one.
            assert!((d[3] - d[2]).abs() <= near, "{f:?}: {d:?}");
        }
    }

    #[test]
    fn nan_stays_nan() {
        for f in [ActFn::Relu, ActFn::Gelu, ActFn::GeluNew, ActFn::Silu] {
            let mut x = [f64::NAN];
            f.apply(&mut x, 1);
            assert!(x[0].is_nan(), "{f:?}");
        }
    }
}
