//! The model with attention between its mean and itself.

use super::plane::FirstTwo;
use super::reading::MlpReading;
use super::{Answered, agreement};
use crate::linalg::Par;
use crate::tensor::Tensor;
use serde::Serialize;

/// The model with attention between its mean and itself: `mean + share (attention - mean)`.
#[derive(Clone, Debug, Serialize)]
pub struct Between {
    /// How much there is of what the attention differs from its mean by.
    pub share: f64,
    /// The share of pairs that get their label.
    pub agrees: f64,
    /// What it answers, `A` by `A`.
    #[serde(skip)]
    pub says: Vec<bool>,
    /// The stream before the MLP, along the first two principal components of the full model's.
    #[serde(skip)]
    pub points: Vec<[f64; 2]>,
}

impl Between {
    /// How far the steps go.
    const SHARES: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];

    /// Of the streams with attention as it is and fixed. What the heads bring is linear in the pattern, so that what is
    /// between two patterns brings what is between the two streams.
    pub(super) fn all(
        reading: &MlpReading,
        [own, fixed]: &[Tensor<f64>; 2],
        full: &Answered,
        labels: &[bool],
        par: Par,
    ) -> Vec<Self> {
        let FirstTwo {
            components, mean, ..
        } = &full.plane.first_two;
        let of = |share: f64| {
            let pairs = own.data().iter().zip(fixed.data());
            let stream = pairs.map(|(x, f)| f + share * (x - f)).collect();
            let stream = Tensor::from_vec(own.shape(), stream);
            let along = |row: &[f64], c: usize| -> f64 {
                let off = row.iter().zip(mean).map(|(x, m)| x - m);
                off.zip(components.row(c).iter()).map(|(x, e)| x * e).sum()
            };
            let rows = stream.data().chunks_exact(mean.len());
            let says = reading.says_of(stream.mat(&[]), par);
            Between {
                share,
                agrees: agreement(&says, labels),
                says,
                points: rows.map(|row| [0, 1].map(|c| along(row, c))).collect(),
            }
        };
        Self::SHARES.into_iter().map(of).collect()
    }
}
