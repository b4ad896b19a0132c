//! How a two-layer transformer tells palindromes: one head compares every value of the second half with its mirror,
//! another collects at `END` what was found.
//!
//! Done again on any model of the task, whichever of its heads and positions play which part ([`Roles`]).
//!
//! # Source
//! The July 2023 monthly algorithmic challenge (*palindromes*): the solution published with it, by Callum McDougall,
//! and that of Andy Arditi.

mod ablations;
mod adversarial;
mod attention;
mod circuits;
mod components;
mod lab;
mod roles;
mod story;
mod vectors;

pub use ablations::{AllOrBut, Inputs, Targeted};
pub use adversarial::{Adversarial, Broken, Judged};
pub use attention::{Differences, EndAttention, Shown, Views};
pub use circuits::{QkCircuits, Scores};
pub use components::ComponentAttribution;
pub use lab::{Data, Origins, Pairs};
pub use roles::{HeadAblation, Roles};
pub use vectors::{Composed, PUBLISHED_SHARE, Vectors};

use super::Progress;
use crate::error::Result;
use crate::linalg::Par;
use crate::metric::{Standard, mean};
use crate::model::{Config, Model};
use lab::Lab;
use serde::Serialize;

/// How many parts [`study`] reports.
pub const PARTS: usize = 8;

/// What the study found.
#[derive(Clone, Debug, Serialize)]
pub struct PalindromeStudy {
    /// Where the sequences come from.
    pub origins: Origins,
    /// The model's sizes.
    #[serde(skip)]
    pub config: Config,
    /// How well it answers.
    pub performance: Performance,
    /// Which head does what.
    pub roles: Roles,
    /// Patterns to look through.
    pub views: Views,
    /// The first layer's QK circuits.
    pub circuits: QkCircuits,
    /// What fools the model.
    pub adversarial: Adversarial,
    /// The attention that the comparing head moves.
    pub differences: Differences,
    /// Where `END` looks.
    pub end: EndAttention,
    /// The difference vectors.
    pub vectors: Vectors,
    /// The composed circuits.
    pub composed: Composed,
    /// How the heads compose.
    pub scores: Scores,
    /// What the helping heads are for.
    pub targeted: Targeted,
    /// What the heads take in.
    pub inputs: Inputs,
    /// What each component adds at `END`.
    pub components: Vec<ComponentAttribution>,
}

/// How well a model answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Performance {
    /// Sequences.
    pub sequences: usize,
    /// The mean cross-entropy.
    pub loss: f64,
    /// The mean of the right logit less the wrong one.
    pub logit_diff: f64,
    /// The share of right answers.
    pub accuracy: f64,
    /// The mean cross-entropy on the second write-up's five hundred sequences.
    pub loss_500: f64,
}

/// Does the write-ups' analysis again on a model of the task, its weights processed as TransformerLens processes them.
///
/// # Errors
/// When the model is not of the task's shape (two layers of two or more heads, no MLPs, LayerNorm, 22 positions, 33
/// tokens, 2 classes), its weights are not finite, or the dataset is all of one class.
///
/// # Cost
/// About as much as 150 runs on the dataset.
pub fn study(
    model: &Model<f64>,
    data: &Data,
    par: Par,
    progress: Progress<'_>,
) -> Result<PalindromeStudy> {
    progress("running the model");
    let lab = Lab::new(model, data, par)?;
    let performance = Performance::of(&lab)?;
    progress("ablating heads");
    let roles = Roles::find(&lab)?;
    progress("multiplying circuits");
    let circuits = QkCircuits::of(&lab, &roles)?;
    let scores = Scores::of(&lab, &roles)?;
    let vectors = Vectors::of(&lab, &roles)?;
    let composed = Composed::of(&lab, &roles)?;
    progress("looking for sequences that fool the model");
    let adversarial = Adversarial::of(&lab, &vectors)?;
    progress("following the attention");
    let differences = Differences::of(&lab, &roles, &adversarial.blind)?;
    let end = EndAttention::of(&lab, &roles);
    let views = Views::of(
        &lab,
        &roles,
        &shown(&adversarial, lab.data.dataset.sequences.batch()),
    )?;
    progress("ablating heads by position");
    let targeted = Targeted::of(&lab, &roles)?;
    progress("ablating queries, keys and values");
    let inputs = Inputs::of(&lab, &roles)?;
    progress("attributing logits");
    let components = components::components(&lab)?;
    Ok(PalindromeStudy {
        origins: Origins::of(data),
        config: model.config().clone(),
        performance,
        roles,
        views,
        circuits,
        adversarial,
        differences,
        end,
        vectors,
        composed,
        scores,
        targeted,
        inputs,
        components,
    })
}

impl Performance {
    fn of(lab: &Lab<'_>) -> Result<Self> {
        let (dataset, more) = (
            &lab.data.dataset.sequences,
            &lab.data.five_hundred.sequences,
        );
        let rows = dataset.answers.rows_of(&lab.out.logits);
        let of = |metric: Standard| {
            mean(&crate::metric::per_sequence(
                &metric,
                &dataset.answers,
                &rows,
            ))
        };
        let loss_500 = lab.per_sequence(&more.tokens, &more.answers, &Standard::Loss)?;
        Ok(Performance {
            sequences: dataset.batch(),
            loss: of(Standard::Loss),
            logit_diff: of(Standard::LogitDiff),
            accuracy: of(Standard::Accuracy),
            loss_500: mean(&loss_500),
        })
    }
}

/// A dozen sequences to look at: the first ten, and the first two that the model is wrong on.
fn shown(adversarial: &Adversarial, batch: usize) -> Vec<usize> {
    let mut shown: Vec<usize> = (0..batch.min(10)).collect();
    let wrong = adversarial.natural.iter().map(|(s, _)| *s);
    shown.extend(wrong.filter(|&s| s >= 10).take(2));
    shown
}
