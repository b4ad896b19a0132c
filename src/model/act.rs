//! The activation functions, each with TransformerLens's formula.

use crate::model::ActFn;
use crate::tensor::{Scalar, map_in_place, softmax_rows};

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
            ActFn::Silu => map_in_place(x, |x| x / (one + (-x).exp_lane())),
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
            ActFn::Silu => x / (1.0 + (-x).exp()),
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
            ActFn::GeluPytorchTanh,
            ActFn::Silu,
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

    #[test]
    fn nan_stays_nan() {
        for f in [ActFn::Relu, ActFn::Gelu, ActFn::GeluNew, ActFn::Silu] {
            let mut x = [f64::NAN];
            f.apply(&mut x, 1);
            assert!(x[0].is_nan(), "{f:?}");
        }
    }
}
