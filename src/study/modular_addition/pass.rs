//! What a model computes of all pairs.

use super::losses::{Told, told_of};
use crate::error::Result;
use crate::frequency::Fourier;
use crate::linalg::{Par, product_with};
use crate::model::{Model, Run, Tokens};
use crate::names::Hook;
use crate::study::upper::Upper;
use crate::task::{ModularAddition, Operation, Task};
use crate::tensor::Tensor;

/// The position of `=`, after `a` and `b`.
pub(super) const EQUALS: usize = 2;

/// A model's values over all pairs, read at `=`. Pair `a p + b` has the right answer `a + b`: of subtraction, `b` is counted
/// backwards.
pub(super) struct Pass {
    pub p: usize,
    pub fourier: Fourier,
    /// The tokens of all pairs.
    pub tokens: Tokens,
    /// `[pair, answer]`
    pub logits: Tensor<f64>,
    /// The stream between attention and MLP: `[pair, d_model]`
    pub mid: Tensor<f64>,
    /// The neurons past their function: `[pair, neuron]`
    pub hidden: Tensor<f64>,
    /// `W_out W_U`: `[neuron, answer]`
    pub W_L: Tensor<f64>,
    /// What the neurons add to the logits: `[pair, answer]`
    pub by_neurons: Tensor<f64>,
    /// What `b_out` and `b_U` add to them.
    pub biases: Vec<f64>,
    /// Attention at `=`: by head `[pair, key]`
    pub patterns: Vec<Tensor<f64>>,
    /// Its scores: by head `[pair, key]`
    pub scores: Vec<Tensor<f64>>,
    /// What the logits say.
    pub told: Vec<Told>,
}

impl Pass {
    pub fn of(model: &Model<f64>, task: &ModularAddition, par: Par) -> Result<Self> {
        let p = task.modulus();
        let tokens = tokens(task);
        let (pattern, scores) = (Hook::Pattern(0), Hook::AttnScores(0));
        let run = Run::new().par(par).cache(Hook::ResidMid(0));
        let out = model.run(&tokens, run.cache(pattern).cache(scores))?;
        let at_equals = |t: &Tensor<f64>| {
            let width = t.shape()[2];
            let rows = (0..p * p).flat_map(|i| t.slice(&[i, EQUALS]).iter().copied());
            Tensor::from_vec(&[p * p, width], rows.collect())
        };
        let by_head = |t: &Tensor<f64>| -> Vec<Tensor<f64>> {
            let of = |head| {
                let rows = (0..p * p).flat_map(|i| t.slice(&[i, head, EQUALS]).iter().copied());
                Tensor::from_vec(&[p * p, 3], rows.collect())
            };
            (0..t.shape()[1]).map(of).collect()
        };
        let mid = at_equals(&out.cache[Hook::ResidMid(0)]);
        let upper = Upper::new(model, &mid)?;
        let run = Run::new().par(par).cache(Hook::Post(0));
        let above = upper.model.run(&upper.all(), run)?;
        let hidden = &above.cache[Hook::Post(0)];
        let hidden = hidden.clone().reshape(&[p * p, hidden.shape()[2]]);
        let weights = model.weights();
        let mlp = weights.blocks[0].mlp.as_ref();
        let mlp = mlp.expect("checked: there is an MLP");
        let W_U = weights.W_U.mat(&[]);
        let W_L = product_with(mlp.W_out.mat(&[]), W_U, par);
        let by_neurons = product_with(hidden.mat(&[]), W_L.as_ref(), par);
        let biases = (0..p).map(|c| {
            let written = mlp.b_out.data().iter().enumerate();
            written.map(|(i, b)| b * W_U[(i, c)]).sum::<f64>() + weights.b_U[[c]]
        });
        let logits = at_equals(&out.logits);
        let pairs: Vec<usize> = (0..p * p).collect();
        let told = told_of(
            p,
            &pairs,
            &|pair, row| row.copy_from_slice(logits.slice(&[pair])),
            par,
        );
        Ok(Pass {
            p,
            fourier: Fourier::new(p),
            biases: biases.collect(),
            W_L: Tensor::from_mat(W_L.as_ref()),
            by_neurons: Tensor::from_mat(by_neurons.as_ref()),
            patterns: by_head(&out.cache[pattern]),
            scores: by_head(&out.cache[scores]),
            tokens,
            logits,
            mid,
            hidden,
            told,
        })
    }

    /// The logits with each pair's mean over the answers removed: what the softmax sees.
    pub fn centred(&self) -> Tensor<f64> {
        centred_rows(&self.logits)
    }
}

/// Rows less their means.
pub(super) fn centred_rows(values: &Tensor<f64>) -> Tensor<f64> {
    let width = values.shape()[1];
    let mut centred = values.clone();
    for row in centred.data_mut().chunks_exact_mut(width) {
        let mean = row.iter().sum::<f64>() / width as f64;
        row.iter_mut().for_each(|x| *x -= mean);
    }
    centred
}

/// All pairs, `a` by `a`, so that pair `a p + b` has the answer `a + b`.
fn tokens(task: &ModularAddition) -> Tokens {
    let all = task.inputs().expect("there are finitely many pairs");
    if task.operation() == Operation::Add {
        return all;
    }
    let p = task.equals();
    let ids = (0..p * p).flat_map(|i| [i / p, (p - i % p) % p, p]);
    Tokens::new((p * p) as usize, 3, ids.collect())
}

/// The squared norm of all values.
pub(super) fn squares(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum()
}
