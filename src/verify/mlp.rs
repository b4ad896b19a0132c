//! Identities of an MLP.

use super::bounded::{ELEMENTARY, bounded_softmax, unit};
use super::evidence::Evidence;
use super::verdict::Comparison;
use crate::error::Result;
use crate::model::{ActFn, Mlp};
use crate::names::{Hook, NormSite};
use crate::tensor::Scalar;

/// The MLPs, with their layers.
fn mlps<'a, T: Scalar>(e: &Evidence<'a, T>) -> impl Iterator<Item = (usize, &'a Mlp<T>)> {
    let blocks = e.model.weights().blocks.iter().enumerate();
    blocks.filter_map(|(l, block)| block.mlp.as_ref().map(|mlp| (l, mlp)))
}

/// The function of one neuron, in f64.
fn act<T: Scalar>(act_fn: ActFn, x: T) -> f64 {
    let x = x.to_f64();
    let gelu = |k: f64| 0.5 * x * (1.0 + (k * (x + 0.044715 * x * x * x)).tanh());
    match act_fn {
        ActFn::Relu => x.max(0.0),
        ActFn::Gelu => 0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
        ActFn::GeluNew | ActFn::GeluPytorchTanh => gelu((2.0 / std::f64::consts::PI).sqrt()),
        ActFn::GeluFast => gelu(0.7978845608),
        ActFn::GeluBloom => gelu(0.79788456),
        ActFn::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        ActFn::Silu => x / (1.0 + (-x).exp()),
        ActFn::Linear => x,
        ActFn::Solu | ActFn::SoluLn => unreachable!("SoLU is no function of one neuron"),
    }
}

/// How far `x · g(x)` may be off, in units of roundoff of `x`, for `g` a sigmoid, a `(1 + tanh)/2` or a
/// `(1 + erf)/2` of an argument with six roundings. The argument's error moves `g` by at most
/// `6 |y g'(y)| u`, and `|y g'(y)| < 1/2` for all of them; `1 + tanh` and the elementary function add
/// one unit each and [`ELEMENTARY`]; the products two. In f64 the reference has the same.
const SIGMOIDAL: f64 = 2.0 * (6.0 * 0.5 + 1.0 + 1.0 + ELEMENTARY + 2.0);

/// The function of one neuron, and how far it may be off.
fn neuron<T: Scalar>(act_fn: ActFn, x: T) -> (f64, f64) {
    let bound = match act_fn {
        ActFn::Relu | ActFn::Linear => 0.0,
        _ => {
            let size = x.to_f64().abs();
            SIGMOIDAL * unit::<T>().to_f64() * size + T::MIN_POSITIVE.to_f64()
        }
    };
    (act(act_fn, x), bound)
}

/// The function of the dense layer before the unembedding.
pub(super) fn mlm_head<T: Scalar>(
    e: &Evidence<'_, T>,
    act_fn: ActFn,
    cmp: &mut Comparison,
) -> Result<()> {
    let (pre, post) = (e.value(Hook::MlmHeadPre)?, e.value(Hook::MlmHeadPost)?);
    let d = e.model.config().d_model;
    for (flat, (&x, found)) in pre.data().iter().zip(post.data()).enumerate() {
        let (expected, bound) = neuron(act_fn, x);
        cmp.entry(found.to_f64(), expected, bound, || {
            e.place(Hook::MlmHeadPost, flat / d, &[flat % d])
        });
    }
    Ok(())
}

/// A gate's function, which is within a bound, times what is gated, plus a bias: the product and the sum are rounded
/// here and there.
fn times_gated<T: Scalar>((gate, bound): (f64, f64), by: f64, b: f64) -> (f64, f64) {
    let value = gate * by + b;
    let product = (gate.abs() + bound) * by.abs();
    let roundings = 2.0 * unit::<T>().to_f64() * (2.0 * product + b.abs());
    (
        value,
        bound * by.abs() + roundings + T::MIN_POSITIVE.to_f64(),
    )
}

pub(super) fn activation<T: Scalar>(e: &Evidence<'_, T>, cmp: &mut Comparison) -> Result<()> {
    let act_fn = e
        .model
        .config()
        .act_fn()
        .expect("a model with MLPs names their function");
    for (l, mlp) in mlps(e) {
        let pre = e.value(Hook::Pre(l))?;
        let d_mlp = mlp.b_in.len();
        // Where a LayerNorm follows, it is `layer_norm` that speaks of the rest; but its output is `post`.
        let hook = if e.model.config().norms_neurons() {
            Hook::Mid(l)
        } else {
            Hook::Post(l)
        };
        let found = e.value(hook)?;
        let gated = match mlp.W_gate {
            Some(_) => Some(e.value(Hook::PreLinear(l))?),
            None => None,
        };
        for (row, (x, y)) in pre
            .data()
            .chunks_exact(d_mlp)
            .zip(found.data().chunks_exact(d_mlp))
            .enumerate()
        {
            let solu = matches!(act_fn, ActFn::Solu | ActFn::SoluLn).then(|| bounded_softmax(x));
            for j in 0..d_mlp {
                let (expected, bound) = match &solu {
                    Some((p, error)) => {
                        let value = x[j] * p[j];
                        let error =
                            x[j].abs() * error[j] + T::EPSILON * value.abs() + T::MIN_POSITIVE;
                        (value.to_f64(), 2.0 * error.to_f64())
                    }
                    None => neuron(act_fn, x[j]),
                };
                let (expected, bound) = match &gated {
                    None => (expected, bound),
                    Some(gated) => {
                        let by = gated.data()[row * d_mlp + j].to_f64();
                        let b = mlp.b_after().map_or(0.0, |b| b.data()[j].to_f64());
                        times_gated::<T>((expected, bound), by, b)
                    }
                };
                cmp.entry(y[j].to_f64(), expected, bound, || e.place(hook, row, &[j]));
            }
        }
        if e.model.config().norms_neurons() {
            let (post, normalized) = (
                e.value(Hook::Post(l))?,
                e.value(Hook::Normalized(NormSite::Neurons(l)))?,
            );
            for (flat, (p, n)) in post.data().iter().zip(normalized.data()).enumerate() {
                cmp.entry(p.to_f64(), n.to_f64(), 0.0, || {
                    e.place(Hook::Post(l), flat / d_mlp, &[flat % d_mlp])
                });
            }
        }
    }
    Ok(())
}
