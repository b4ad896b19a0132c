//! Progress measures along a training.

use super::Split;
use super::logits::of_sums;
use super::losses::means;
use super::pass::Pass;
use crate::error::Result;
use crate::frequency::{Fourier, gini};
use crate::linalg::Par;
use crate::model::Model;
use crate::task::ModularAddition;
use crate::tensor::Tensor;
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

impl Measures {
    /// Of a model after so many steps.
    ///
    /// # Errors
    /// When the model is not of the task's shape, or not finite.
    pub fn of(
        model: &Model<f64>,
        task: &ModularAddition,
        split: &Split,
        keys: &[usize],
        step: usize,
        par: Par,
    ) -> Result<Self> {
        let pass = Pass::of(model, task, par)?;
        let own = means(&pass.told, split, |t| t.loss);
        let sums = of_sums(&pass, split, keys, par);
        let fourier: &Fourier = &pass.fourier;
        let d = model.config().d_model;
        let W_E = Tensor::from_vec(
            &[pass.p, d],
            model.weights().W_E.data()[..pass.p * d].to_vec(),
        );
        let W_L = Tensor::from_mat(pass.W_L.mat(&[]).transpose());
        let gini_of = |t: &Tensor<f64>| gini(&fourier.norms(&fourier.along(t, 0, par)));
        let tensors = model.weights().state_dict();
        Ok(Measures {
            step,
            train: own.train,
            test: own.test,
            restricted: sums.restricted.all,
            excluded: sums.excluded.train,
            gini_embedding: gini_of(&W_E),
            gini_neurons: gini_of(&W_L),
            squares: tensors
                .iter()
                .map(|(_, t)| super::pass::squares(t.data()))
                .sum(),
        })
    }
}
