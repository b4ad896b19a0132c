//! The direct path: what it favours, and what is lost without it.

use super::circuits::Circuits;
use super::lab::{Lab, mean_of, mean_of_steps, per_step};
use super::triples::DrawnTriples;
use crate::error::Result;
use crate::intervene::{Change, Intervention, Part, Receiver, path_patch};
use crate::metric::{Answers, Standard};
use crate::model::{Run, Tokens};
use crate::names::Hook;
use crate::tensor::Tensor;
use serde::Serialize;

/// The direct path from a token's embedding to the logits.
#[derive(Clone, Debug, Serialize)]
pub struct Direct {
    /// The share of values `d` whose logit of `d + 1` it raises over that of `d + 2`.
    pub next_before_second: f64,
    /// The share of right answers on the dataset, as the model is and without the path.
    pub accuracy: [f64; 2],
    /// The loss there.
    pub loss: [f64; 2],
    /// On lists with `d`, `d + 1` and `d + 2`, where `d + 1` is to be written: the share of right answers.
    pub right: [f64; 2],
    /// And the share of `d + 2` instead.
    pub second: [f64; 2],
}

impl Direct {
    pub(super) fn of(lab: &Lab<'_>, circuits: &Circuits, triples: &DrawnTriples) -> Result<Self> {
        let prefers = |d: usize| {
            let row = &circuits.direct_path[d];
            f64::from(row[d + 1] > row[d + 2])
        };
        let on = &lab.on;
        let without = without(lab, lab.tokens, &on.answers)?;
        let of = |metric: Standard| {
            let mean = |logits: &Tensor<f64>| {
                let steps = mean_of_steps(&per_step(&on.answers, logits, &metric));
                mean_of(steps)
            };
            [mean(&on.logits), mean(&without)]
        };
        let (accuracy, loss) = (of(Standard::Accuracy), of(Standard::Loss));
        let on_triples = self::without(lab, &triples.on.tokens, &triples.on.answers)?;
        let written = [
            triples.written(&triples.on.logits),
            triples.written(&on_triples),
        ];
        let share = |after: usize| {
            written.each_ref().map(|written| {
                let pairs = written.iter().zip(&triples.smallest);
                mean_of(pairs.map(|(w, x)| f64::from(*w == x + after)))
            })
        };
        Ok(Direct {
            next_before_second: mean_of((0..lab.values.saturating_sub(2)).map(prefers)),
            accuracy,
            loss,
            right: share(1),
            second: share(2),
        })
    }
}

/// The answers' logits when `ln_final` reads a stream without the token's embedding, and the heads one with it.
fn without(lab: &Lab<'_>, tokens: &Tokens, answers: &Answers) -> Result<Tensor<f64>> {
    let embedding = [Intervention::new(Hook::Embed, Part::all(), Change::Zero)];
    let out = path_patch(
        Run::new(),
        &lab.model,
        tokens,
        &embedding,
        &[Receiver::Logits],
        None,
    )?;
    Ok(answers.rows_of(&out.logits))
}
