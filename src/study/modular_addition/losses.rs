//! Cross-entropies of logits that a study makes up.

use super::Split;
use crate::linalg::Par;
use crate::tensor::Tensor;
use rayon::prelude::*;
use serde::Serialize;

/// What logits say of one pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Told {
    /// The cross-entropy of the right answer, in nats.
    pub loss: f64,
    /// Whether the right answer has the largest logit.
    pub right: bool,
}

impl Told {
    /// Of logits and the right answer. Losses near zero keep their digits: the right answer's probability is never
    /// subtracted from one.
    pub fn of(logits: &[f64], right: usize) -> Self {
        let own = logits[right];
        let others = || logits.iter().enumerate().filter(|(c, _)| *c != right);
        let above = others()
            .map(|(_, l)| l - own)
            .fold(f64::NEG_INFINITY, f64::max);
        let sum = |shift: f64| others().map(|(_, l)| (l - own - shift).exp()).sum::<f64>();
        Told {
            loss: match above > 0.0 {
                false => sum(0.0).ln_1p(),
                true => above + ((-above).exp() + sum(above)).ln(),
            },
            // The first of several that are largest is the answer.
            right: others().all(|(c, l)| if c < right { *l < own } else { *l <= own }),
        }
    }
}

/// Mean losses over all pairs, over those trained on, and over the others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Losses {
    /// Over all pairs.
    pub all: f64,
    /// Over those trained on.
    pub train: f64,
    /// Over the others.
    pub test: f64,
}

/// The mean of what is told over all pairs, those trained on, and the others.
pub(super) fn means(told: &[Told], split: &Split, of: impl Fn(&Told) -> f64) -> Losses {
    let mean = |among: &dyn Fn(usize) -> bool| {
        let these: Vec<f64> = (0..told.len())
            .filter(|&i| among(i))
            .map(|i| of(&told[i]))
            .collect();
        crate::metric::mean(&these)
    };
    Losses {
        all: mean(&|_| true),
        train: mean(&|i| split.trained[i]),
        test: mean(&|i| !split.trained[i]),
    }
}

/// The right answer of a pair.
pub(super) fn right(p: usize, pair: usize) -> usize {
    (pair / p + pair % p) % p
}

/// What logits say of some pairs; `fill` writes a pair's.
pub(super) fn told_of(
    p: usize,
    pairs: &[usize],
    fill: &(dyn Fn(usize, &mut [f64]) + Sync),
    par: Par,
) -> Vec<Told> {
    let one = |logits: &mut Vec<f64>, &pair: &usize| {
        fill(pair, logits);
        Told::of(logits, right(p, pair))
    };
    match par {
        Par::Seq => {
            let mut logits = vec![0.0; p];
            pairs.iter().map(|pair| one(&mut logits, pair)).collect()
        }
        Par::Rayon => pairs.par_iter().map_init(|| vec![0.0; p], one).collect(),
    }
}

/// Losses over all pairs, of logits that `fill` writes.
pub(super) fn losses(
    p: usize,
    split: &Split,
    fill: &(dyn Fn(usize, &mut [f64]) + Sync),
    par: Par,
) -> Losses {
    let pairs: Vec<usize> = (0..p * p).collect();
    means(&told_of(p, &pairs, fill, par), split, |t| t.loss)
}

/// The mean loss over the pairs trained on alone.
pub(super) fn train_loss(
    p: usize,
    split: &Split,
    fill: &(dyn Fn(usize, &mut [f64]) + Sync),
    par: Par,
) -> f64 {
    let losses: Vec<f64> = (told_of(p, &split.order, fill, par).iter())
        .map(|t| t.loss)
        .collect();
    crate::metric::mean(&losses)
}

/// The mean loss over all pairs of logits that depend on the sum alone: `[sum, answer]`.
pub(super) fn loss_by_sum(table: &Tensor<f64>) -> f64 {
    let p = table.shape()[0];
    let each: Vec<f64> = (0..p)
        .map(|s| Told::of(table.slice(&[s]), s).loss)
        .collect();
    crate::metric::mean(&each)
}

/// The mean of logits, `[pair, answer]`, over the pairs of each sum: `[sum, answer]`.
pub(super) fn means_by_sum(values: &Tensor<f64>, p: usize) -> Tensor<f64> {
    let channels = values.shape()[1];
    let mut sums = Tensor::zeros(&[p, channels]);
    for pair in 0..p * p {
        let row = values.slice(&[pair]);
        let to = sums.slice_mut(&[right(p, pair)]);
        to.iter_mut().zip(row).for_each(|(to, x)| *to += x);
    }
    let share = 1.0 / p as f64;
    sums.data_mut().iter_mut().for_each(|x| *x *= share);
    sums
}
