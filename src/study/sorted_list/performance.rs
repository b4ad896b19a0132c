//! How well a model sorts, one list step by step, and what is lost without each head.

use super::lab::{Lab, mean_of};
use crate::error::Result;
use crate::intervene::{Change, Each, Grid, Over, Scope, Site, Sweep};
use crate::metric::{Standard, mean, per_sequence};
use serde::Serialize;

/// How well a model sorts.
#[derive(Clone, Debug, Serialize)]
pub struct Performance {
    /// Sequences it was measured on.
    pub sequences: usize,
    /// Mean cross-entropy.
    pub loss: f64,
    /// Share of right answers.
    pub accuracy: f64,
    /// Mean probability of the right token.
    pub mean: f64,
    /// Its median: the lower of the two middle values.
    pub median: f64,
    /// Its smallest value.
    pub min: f64,
}

/// One prediction.
#[derive(Clone, Debug, Serialize)]
pub struct Example {
    /// The sequence.
    pub tokens: Vec<i64>,
    /// The first position that predicts.
    pub first: usize,
    /// `[position, token]`
    pub probabilities: Vec<Vec<f64>>,
}

pub(super) fn performance(lab: &Lab<'_>) -> Performance {
    let on = &lab.on;
    let of = |metric| mean(&per_sequence(&metric, &on.answers, &on.logits));
    let mut p = on.right.concat();
    p.sort_by(f64::total_cmp);
    Performance {
        sequences: on.answers.batch(),
        loss: of(Standard::Loss),
        accuracy: of(Standard::Accuracy),
        mean: mean_of(p.iter().copied()),
        median: p[(p.len() - 1) / 2],
        min: p[0],
    }
}

pub(super) fn example(lab: &Lab<'_>) -> Example {
    let tokens = 0..=lab.sep();
    let of = |step: usize| {
        let all = tokens.clone();
        all.map(|t| lab.on.probability(0, step, t)).collect()
    };
    Example {
        tokens: lab.tokens.sequence(0).to_vec(),
        first: lab.length,
        probabilities: (0..lab.length).map(of).collect(),
    }
}

/// How much the loss rises with each head's result replaced by its mean over the sequences, position by position.
pub(super) fn ablations(lab: &Lab<'_>) -> Result<Vec<(String, f64)>> {
    let change = Change::Mean(Over::Sequences);
    let (config, pos) = (lab.model.config(), lab.tokens.pos());
    let grid = Grid::new(
        config,
        pos,
        Site::Result,
        &[Each::Head],
        &Scope::default(),
        &change,
    )?;
    let sweep = Sweep::new(&lab.model, lab.tokens, &lab.on.answers, &Standard::Loss);
    let ablated = sweep.run(&grid)?;
    let rise = |v: &Option<f64>| v.expect("no shards") - ablated.clean;
    let heads = ablated.axes[0].labels.iter().cloned();
    Ok(heads.zip(ablated.values.iter().map(rise)).collect())
}
