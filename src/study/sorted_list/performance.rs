//! How well a model sorts, and one list step by step.

use crate::metric::{Answers, Metric, Standard, mean, per_sequence};
use crate::tensor::Tensor;
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

pub(super) fn performance(answers: &Answers, logits: &Tensor<f64>) -> Performance {
    let of = |metric| mean(&per_sequence(&metric, answers, logits));
    let mut p = probabilities(answers, logits);
    p.sort_by(f64::total_cmp);
    Performance {
        sequences: answers.batch(),
        loss: of(Standard::Loss),
        accuracy: of(Standard::Accuracy),
        mean: mean(&p),
        median: p[(p.len() - 1) / 2],
        min: p[0],
    }
}

/// The right token's probability, answer by answer.
pub(super) fn probabilities(answers: &Answers, logits: &Tensor<f64>) -> Vec<f64> {
    let d = logits.shape()[2];
    let each = answers.positions().len();
    let rows = logits.data().chunks_exact(d).enumerate();
    let of = |(i, row): (usize, &[f64])| {
        Standard::RightProbability.of(&answers.get(i / each, i % each), row)
    };
    rows.map(of).collect()
}

pub(super) fn example(sequence: &[i64], logits: &Tensor<f64>, first: usize) -> Example {
    let d = logits.shape()[2];
    let softmax = |row: &[f64]| {
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = row.iter().map(|x| (x - max).exp()).sum();
        row.iter().map(|x| (x - max).exp() / total).collect()
    };
    Example {
        tokens: sequence.to_vec(),
        first,
        probabilities: logits.slice(&[0]).chunks_exact(d).map(softmax).collect(),
    }
}
