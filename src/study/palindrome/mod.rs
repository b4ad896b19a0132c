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
mod comparing;
mod components;
mod data;
mod lab;
mod losses;
mod repeats;
mod roles;
mod story;
mod vectors;

pub use ablations::{AllOrBut, Targeted, Where};
pub use adversarial::{Adversarial, Broken, Judged};
pub use attention::{EndAttention, Shown, Views};
pub use circuits::{QkCircuits, Scores};
pub use comparing::{Comparing, Looks};
pub use components::ComponentAttribution;
pub use data::{Data, Origins, Pairs};
pub use losses::{ByInput, Losses, PerHead};
pub use repeats::Repeats;
pub use roles::{HeadAblation, Roles};
pub use vectors::{Composed, PUBLISHED_SHARE, Vectors};

use super::Announce;
use crate::error::Result;
use crate::linalg::Par;
use crate::metric::{Standard, mean};
use crate::model::{Config, Model, Tokens};
use comparing::PairRuns;
use lab::{Lab, PALINDROME};
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
    /// Patterns of a palindrome, and of it with one value changed.
    pub flipped: Views,
    /// Where the comparison is made.
    pub place: Where,
    /// The first layer's QK circuits.
    pub circuits: QkCircuits,
    /// What fools the model.
    pub adversarial: Adversarial,
    /// Where the first layer's heads look, and the attention that the comparing head moves.
    pub comparing: Comparing,
    /// What positions add to the comparison of tokens.
    pub repeats: Repeats,
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
    /// What ablations cost on the second write-up's sequences.
    pub losses: Losses,
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
    /// The share of right answers that the same answer to every sequence would have.
    pub constant: f64,
    /// The probability of a palindrome that the model gives the first five of the second write-up's hundred.
    pub first_five: [f64; 5],
}

/// Does the write-ups' analysis again on a model of the task, its weights processed as TransformerLens processes them.
///
/// # Errors
/// When the model is not of the task's shape (two layers of two or more heads, no MLPs, LayerNorm, 22 positions, 33
/// tokens, 2 classes), its weights are not finite, or the dataset is all of one class.
///
/// # Cost
/// About as much as 170 runs on the dataset.
pub fn study(
    model: &Model<f64>,
    data: &Data,
    par: Par,
    progress: Announce<'_>,
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
    let pairs = PairRuns::of(&lab)?;
    let comparing = Comparing::of(&lab, &pairs, &roles, &adversarial.blind)?;
    let repeats = Repeats::of(&lab, &roles)?;
    let end = EndAttention::of(&lab, &roles);
    let chosen = shown(&adversarial, lab.data.dataset.sequences.batch());
    let few = lab.data.dataset.sequences.select(&chosen).tokens;
    let views = Views::of(&lab, &roles, &few, &|s| chosen[s].to_string())?;
    let changed: Vec<&Vec<i64>> = adversarial.flipped.iter().map(|j| &j.tokens).collect();
    let first = lab.second_half().start;
    let flipped = Views::of(&lab, &roles, &Tokens::from_rows(&changed), &|s| match s {
        0 => "as it is".into(),
        s => format!("changed at {}", first + s - 1),
    })?;
    progress("ablating heads by position");
    let targeted = Targeted::of(&lab, &roles)?;
    let place = Where::of(&lab)?;
    progress("ablating queries, keys and values");
    let losses = Losses::of(&lab, &roles)?;
    progress("attributing logits");
    let components = components::components(&lab)?;
    Ok(PalindromeStudy {
        origins: Origins::of(data),
        config: model.config().clone(),
        performance,
        roles,
        views,
        flipped,
        place,
        circuits,
        adversarial,
        comparing,
        repeats,
        end,
        vectors,
        composed,
        scores,
        targeted,
        losses,
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
        let yes = lab.classes().iter().filter(|&&c| c == PALINDROME).count();
        let yes = yes as f64 / lab.classes().len() as f64;
        let hundred = lab.p_palindrome(&lab.data.hundred.sequences.tokens)?;
        Ok(Performance {
            sequences: dataset.batch(),
            loss: of(Standard::Loss),
            logit_diff: of(Standard::LogitDiff),
            accuracy: of(Standard::Accuracy),
            loss_500: mean(&loss_500),
            constant: yes.max(1.0 - yes),
            first_five: std::array::from_fn(|s| hundred.get(s).copied().unwrap_or(f64::NAN)),
        })
    }

    /// Whether the model tells palindromes from others at all: better than the same answer to every sequence would, by
    /// more than chance makes of so many sequences.
    pub fn tells(&self) -> bool {
        const DEVIATIONS: f64 = 3.0;
        let deviation = (self.constant * (1.0 - self.constant) / self.sequences as f64).sqrt();
        self.accuracy > self.constant + DEVIATIONS * deviation
    }
}

/// A dozen sequences to look at: the first ten, and the first two that the model is wrong on.
fn shown(adversarial: &Adversarial, batch: usize) -> Vec<usize> {
    let mut shown: Vec<usize> = (0..batch.min(10)).collect();
    let wrong = adversarial.natural.iter().map(|(s, _)| *s);
    shown.extend(wrong.filter(|&s| s >= 10).take(2));
    shown
}
