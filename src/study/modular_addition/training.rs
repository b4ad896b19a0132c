//! Progress measures along a training.

use super::logits::of_sums;
use super::losses::means;
use super::pass::Pass;
use super::{ModularAdditionStudy, WeightFrequencies, check};
use crate::error::Result;
use crate::linalg::Par;
use crate::model::Model;
use serde::{Deserialize, Serialize};

/// What a training came to, step by step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Losses as the training went.
    pub curve: Vec<Trial>,
    /// The progress measures of the weights that were kept.
    pub measures: Vec<Measures>,
}

/// Losses after some steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// Steps done.
    pub step: usize,
    /// The loss over the trained pairs, before the step.
    pub train: f64,
    /// The loss over the others, after it.
    pub test: f64,
    /// The share of the others that is right.
    pub accuracy: f64,
}

/// The progress measures of a model along the way; the key frequencies are those of its end.
///
/// Source: Nanda et al., "Progress measures for grokking via mechanistic interpretability" (2023).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measures {
    /// Steps done.
    pub step: usize,
    /// The loss over the trained pairs.
    pub train: f64,
    /// The loss over the others.
    pub test: f64,
    /// The loss over all pairs with the key frequencies of the sum alone.
    pub restricted: f64,
    /// The loss over the trained pairs without them.
    pub excluded: f64,
    /// How unequal the frequencies of `W_E` are.
    pub gini_embedding: f64,
    /// How unequal those of `W_out W_U` are.
    pub gini_neurons: f64,
    /// The squared norm of all parameters.
    pub squares: f64,
}

impl ModularAdditionStudy {
    /// The progress measures of the model as it was after so many steps.
    ///
    /// # Errors
    /// When the model is not of the task's shape, or not finite.
    pub fn measures(&self, model: &Model<f64>, step: usize, par: Par) -> Result<Measures> {
        check(model.config(), &self.task)?;
        let pass = Pass::of(model, &self.task, par)?;
        let own = means(&pass.told, &self.split, |t| t.loss);
        let sums = of_sums(&pass, &self.split, self.keys(), par);
        let weights = WeightFrequencies::of(model, &pass, par)?;
        Ok(Measures {
            step,
            train: own.train,
            test: own.test,
            restricted: sums.restricted.all,
            excluded: sums.excluded.train,
            gini_embedding: weights.embedding.gini,
            gini_neurons: weights.neurons_to_logits.gini,
            squares: weights.squares.values().sum(),
        })
    }
}
