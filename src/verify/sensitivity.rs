//! How far rounding moves a model's logits, measured.

use crate::error::Result;
use crate::linalg::Par;
use crate::model::{Model, Run, Tokens};
use crate::tensor::{Scalar, Tensor};
use crate::verify::bounded::unit;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;

/// A model's logits on a batch, and an estimate of how far rounding may move them.
///
/// A sum of `k` terms is off by `√k u` of their size, as a rule (`k u` at worst; the errors are as often of
/// one sign as of the other), as if its terms had been off by so much; a factorisation by as much of its
/// matrix's norm. So every parameter is moved by `√k u (|w| + rms(W))` in a random direction, `k` being the
/// number of terms that meet in one value of the model, and the logits' largest move, over several draws,
/// is taken with a margin for what the draws missed.
///
/// Source of the rule: Higham and Mary, "A New Approach to Probabilistic Rounding Error Analysis" (2019).
pub(super) struct Sensitivity<T: Scalar> {
    pub tokens: Tokens,
    pub logits: Tensor<T>,
    /// How far rounding may move a logit.
    pub logit: f64,
    /// How far rounding may move a log-probability.
    pub log_prob: f64,
}

/// Random directions tried.
const DRAWS: u64 = 4;

/// The margin: an entry's largest move over any directions against its largest over [`DRAWS`] random ones.
const MARGIN: f64 = 8.0;

impl<T: Scalar> Sensitivity<T> {
    pub fn measure(model: &Model<T>, tokens: &Tokens, par: Par) -> Result<Self> {
        let c = model.config();
        let logits = run(model, tokens, par)?;
        let log_probs = log_softmax(&logits);
        let terms = c.d_model + c.d_head + tokens.pos() + c.d_mlp().unwrap_or(0) + 4 * c.n_layers;
        let relative = T::from_f64((terms as f64).sqrt()) * unit::<T>();
        let mut moved = (0f64, 0f64);
        for seed in 0..DRAWS {
            let perturbed = perturb(model, relative, seed);
            let theirs = run(&perturbed, tokens, par)?;
            moved.0 = larger(moved.0, furthest(&logits, &theirs));
            moved.1 = larger(moved.1, furthest(&log_probs, &log_softmax(&theirs)));
        }
        // What is moved nowhere is still rounded once where it is computed.
        let rounding = |t: &Tensor<T>| (relative * t.max_abs()).to_f64();
        Ok(Sensitivity {
            logit: MARGIN * (moved.0 + rounding(&logits)),
            log_prob: MARGIN * (moved.1 + rounding(&log_probs)),
            tokens: tokens.clone(),
            logits,
        })
    }
}

pub(super) fn run<T: Scalar>(model: &Model<T>, tokens: &Tokens, par: Par) -> Result<Tensor<T>> {
    let mut logits = model.run(tokens, Run::new().par(par))?.logits;
    // What is not attended to has none; zeros stand for them here and there.
    let d = logits.shape()[2].max(1);
    let seen = tokens.attention_mask().unwrap_or_default().iter();
    let rows = logits.data_mut().chunks_exact_mut(d).zip(seen);
    rows.filter(|(_, seen)| !**seen)
        .for_each(|(row, _)| row.fill(T::ZERO));
    Ok(logits)
}

/// The larger, or NaN when either is.
fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

fn furthest<T: Scalar>(a: &Tensor<T>, b: &Tensor<T>) -> f64 {
    let pairs = a.data().iter().zip(b.data());
    pairs.fold(0.0, |m, (&a, &b)| larger(m, (a - b).abs().to_f64()))
}

fn perturb<T: Scalar>(model: &Model<T>, relative: T, seed: u64) -> Model<T> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut weights = model.weights().clone();
    // A matrix and its bias are read together, and share a size: `attn.W_Q` and `attn.b_Q`.
    let group = |name: &str| name.replace(".W_", ".").replace(".b_", ".");
    let mut sizes: BTreeMap<String, (f64, usize)> = BTreeMap::new();
    for (name, t) in weights.tensors() {
        let entry = sizes.entry(group(&name)).or_default();
        entry.0 += t.data().iter().map(|x| x.to_f64().powi(2)).sum::<f64>();
        entry.1 += t.len();
    }
    for (name, t) in weights.tensors_mut() {
        let (squares, count) = sizes[&group(&name)];
        let rms = T::from_f64((squares / count.max(1) as f64).sqrt());
        for x in t.data_mut() {
            let by = relative * (x.abs() + rms);
            *x += if rng.random_bool(0.5) { by } else { -by };
        }
    }
    Model::of(model.config().clone(), weights)
}

/// `x - log Σ exp x` by rows.
pub(super) fn log_softmax<T: Scalar>(logits: &Tensor<T>) -> Tensor<T> {
    let mut out = logits.clone();
    let d = logits.shape()[2];
    for row in out.data_mut().chunks_exact_mut(d.max(1)) {
        let max = row
            .iter()
            .copied()
            .fold(-T::INFINITY, |a, b| if b > a { b } else { a });
        // In f64 whatever the precision, so that the comparison adds no rounding of its own.
        let total: f64 = row.iter().map(|&x| (x - max).to_f64().exp()).sum();
        let log = T::from_f64(total.ln());
        row.iter_mut().for_each(|x| *x = *x - max - log);
    }
    out
}
