//! How good a model is on sequences that it was not trained on, and when that is good enough.

use crate::error::Result;
use crate::linalg::Par;
use crate::metric::{Standard, mean, per_sequence};
use crate::model::{Model, Run};
use crate::task::Labelled;
use crate::tensor::Scalar;
use serde::{Deserialize, Serialize};

/// Means over all answers of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The cross-entropy, in nats.
    pub loss: f64,
    /// The share of answers whose right class has the largest logit.
    pub accuracy: f64,
    /// The right class's probability.
    pub probability: f64,
}

/// Runs a model on a batch.
///
/// # Errors
/// When the batch does not fit the model.
pub fn evaluate<T: Scalar>(model: &Model<T>, batch: &Labelled, par: Par) -> Result<Evaluation> {
    let Labelled { tokens, answers } = batch;
    answers.check(model.config(), tokens)?;
    let logits = answers.rows_of(&model.run(tokens, Run::new().par(par))?.logits);
    let of = |metric: Standard| mean(&per_sequence(&metric, answers, &logits));
    Ok(Evaluation {
        loss: of(Standard::Loss),
        accuracy: of(Standard::Accuracy),
        probability: of(Standard::RightProbability),
    })
}

/// What is good enough: every bound that is given must be met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Goal {
    /// A loss at the most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// An accuracy at the least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// A mean probability of the right class at the least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
}

impl Goal {
    /// Whether a model is good enough.
    pub fn met(&self, e: &Evaluation) -> bool {
        self.loss.is_none_or(|most| e.loss <= most)
            && self.accuracy.is_none_or(|least| e.accuracy >= least)
            && self.probability.is_none_or(|least| e.probability >= least)
    }
}
