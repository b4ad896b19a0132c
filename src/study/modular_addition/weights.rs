//! Frequencies of the weights.

use super::pass::Pass;
use crate::error::Result;
use crate::frequency::{gini, share};
use crate::linalg::{Par, singular_values_of_product};
use crate::model::Model;
use crate::tensor::Tensor;
use serde::Serialize;
use std::collections::BTreeMap;

/// A matrix one of whose axes runs over the residues, by frequency.
#[derive(Clone, Debug, Serialize)]
pub struct ByFrequency {
    /// The norm of each row of the basis, from the constant on.
    pub row_norms: Vec<f64>,
    /// The norm of each frequency, from 0 on.
    pub norms: Vec<f64>,
    /// The share of the squared norm that each frequency has, from 0 on.
    pub shares: Vec<f64>,
    /// How unequal the rows' norms are.
    pub gini: f64,
    /// The rows themselves: `[row, other axis]`.
    #[serde(skip)]
    pub transform: Tensor<f64>,
}

impl ByFrequency {
    /// Of a matrix whose first axis runs over the residues.
    fn of(pass: &Pass, matrix: &Tensor<f64>, par: Par) -> Self {
        let transform = pass.fourier.along(matrix, 0, par);
        let row_norms = pass.fourier.norms(&transform);
        ByFrequency {
            norms: pass.fourier.frequency_norms(&transform),
            shares: pass.fourier.shares(&transform),
            gini: gini(&row_norms),
            row_norms,
            transform,
        }
    }

    /// The share that some frequencies have.
    pub fn share(&self, frequencies: &[usize]) -> f64 {
        frequencies.iter().map(|&k| self.shares[k]).sum()
    }

    /// Frequencies but the constant, by their norm, the largest first.
    pub fn in_order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (1..self.norms.len()).collect();
        order.sort_by(|&i, &j| self.norms[j].total_cmp(&self.norms[i]));
        order
    }
}

/// The frequencies of a model's weights.
#[derive(Clone, Debug, Serialize)]
pub struct WeightFrequencies {
    /// Of `W_E`, its residues' rows.
    pub embedding: ByFrequency,
    /// Of `W_out W_U`, its answers' columns.
    pub neurons_to_logits: ByFrequency,
    /// The singular values of `W_out W_U`.
    #[serde(skip)]
    pub singular_values: Vec<f64>,
    /// The squared norm of every parameter.
    pub squares: BTreeMap<String, f64>,
}

impl WeightFrequencies {
    pub(super) fn of(model: &Model<f64>, pass: &Pass, par: Par) -> Result<Self> {
        let weights = model.weights();
        let d = model.config().d_model;
        let residues = weights.W_E.data()[..pass.p * d].to_vec();
        let answers = Tensor::from_mat(pass.W_L.mat(&[]).transpose());
        let mlp = weights.blocks[0].mlp.as_ref();
        let W_out = mlp.expect("checked: there is an MLP").W_out.mat(&[]);
        let named = weights.state_dict().into_iter();
        let squares = named.map(|(name, t)| (name.to_string(), super::pass::squares(t.data())));
        Ok(WeightFrequencies {
            embedding: ByFrequency::of(pass, &Tensor::from_vec(&[pass.p, d], residues), par),
            neurons_to_logits: ByFrequency::of(pass, &answers, par),
            singular_values: singular_values_of_product(W_out, weights.W_U.mat(&[]))?,
            squares: squares.collect(),
        })
    }

    /// The share of the squared norm of `W_out W_U` that its largest singular values have: so many dimensions can have no
    /// more.
    pub fn best_rank(&self, rank: usize) -> f64 {
        let squares = self.singular_values.iter().map(|s| s * s);
        let all: f64 = squares.clone().sum();
        share(squares.take(rank).sum(), all)
    }

    /// The share of `W_out W_U` that some frequencies have where each neuron's mean over the answers, which the softmax does
    /// not see, is taken away.
    pub fn centred_share(&self, frequencies: &[usize]) -> f64 {
        let shares = &self.neurons_to_logits.shares;
        share(self.neurons_to_logits.share(frequencies), 1.0 - shares[0])
    }
}
