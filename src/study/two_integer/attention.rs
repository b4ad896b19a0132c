//! The attention at `=`, and what it brings there if it is fixed.

use super::EQUALS;
use crate::error::Result;
use crate::metric::mean;
use crate::model::Model;
use crate::study::circuit::circuits;
use crate::tensor::Tensor;
use serde::Serialize;

/// How much of each head's attention at `=` goes to `A`, `B` and `=`, over all pairs.
#[derive(Clone, Debug, Serialize)]
pub struct AttentionShares {
    /// `[head][key]`
    pub mean: Vec<[f64; 3]>,
    /// Standard deviations, `[head][key]`.
    pub deviation: Vec<[f64; 3]>,
    /// The patterns of a few pairs, `[head, query, key]` each, to be looked at.
    #[serde(skip)]
    pub(super) shown: Vec<(usize, Vec<f64>)>,
}

/// How many pairs' patterns are shown.
const SHOWN: usize = 8;

impl AttentionShares {
    /// Of patterns, `[input, head, query, key]`.
    pub(super) fn of(patterns: &Tensor<f64>) -> Self {
        let (inputs, heads) = (patterns.shape()[0], patterns.shape()[1]);
        let each = |f: &dyn Fn(&[f64]) -> f64| -> Vec<[f64; 3]> {
            let of = |head, key| {
                let at = |i| patterns[[i, head, EQUALS, key]];
                f(&(0..inputs).map(at).collect::<Vec<f64>>())
            };
            (0..heads)
                .map(|head| [0, 1, 2].map(|key| of(head, key)))
                .collect()
        };
        let deviation = |values: &[f64]| {
            let middle = mean(values);
            mean(
                &values
                    .iter()
                    .map(|x| (x - middle).powi(2))
                    .collect::<Vec<_>>(),
            )
            .sqrt()
        };
        let few = inputs.min(SHOWN);
        let at = |i: usize| (2 * i + 1) * inputs / (2 * few);
        AttentionShares {
            mean: each(&mean),
            deviation: each(&deviation),
            shown: (0..few)
                .map(|i| (at(i), patterns.slice(&[at(i)]).to_vec()))
                .collect(),
        }
    }
}

/// Extended embeddings: what each integer, as `A` and as `B`, adds to the stream at `=` through fixed attention.
#[derive(Clone, Debug)]
pub struct Extended {
    /// As `A`: `[n, d_model]`.
    pub a: Tensor<f64>,
    /// As `B`: `[n, d_model]`.
    pub b: Tensor<f64>,
    /// What is there whatever the integers are: that of `=` itself, and the biases. `[d_model]`
    pub rest: Vec<f64>,
}

impl Extended {
    /// From the weights: `Σ_h mean[h] (W_E + W_pos) W_OV[h]`.
    pub(super) fn of(model: &Model<f64>, attention: &AttentionShares, n: usize) -> Result<Self> {
        let d = model.config().d_model;
        let tokens = circuits(model, "W_E W_OV[0.*]")?;
        let positions = circuits(model, "W_pos W_OV[0.*]")?;
        let biases = circuits(model, "b_V[0.*] W_O[0.*]")?;
        let through = |position: usize, token: usize, to: &mut [f64]| {
            for (h, mean) in attention.mean.iter().enumerate() {
                let rows = tokens[h]
                    .slice(&[token])
                    .iter()
                    .zip(positions[h].slice(&[position]));
                to.iter_mut()
                    .zip(rows)
                    .for_each(|(to, (e, p))| *to += mean[position] * (e + p));
            }
        };
        let integers = |position: usize| {
            let mut all = Tensor::zeros(&[n, d]);
            (0..n).for_each(|token| through(position, token, all.slice_mut(&[token])));
            all
        };
        let mut rest = vec![0.0; d];
        through(EQUALS, n, &mut rest);
        let weights = model.weights();
        let own = [
            weights.W_E.slice(&[n]),
            weights.W_pos.slice(&[EQUALS]),
            weights.blocks[0].attn.b_O.data(),
        ];
        // Patterns sum to one, so that each head's value bias arrives in full.
        for row in own.into_iter().chain(biases.iter().map(|b| b.data())) {
            rest.iter_mut().zip(row).for_each(|(to, x)| *to += x);
        }
        Ok(Extended {
            a: integers(0),
            b: integers(1),
            rest,
        })
    }

    /// The stream at `=` between attention and MLP, `[A · n + B, d_model]`.
    pub fn sums(&self) -> Tensor<f64> {
        let (n, d) = (self.a.shape()[0], self.a.shape()[1]);
        Tensor::from_fn(&[n * n, d], |at| {
            let (a, b, i) = (at[0] / n, at[0] % n, at[1]);
            self.a[[a, i]] + self.b[[b, i]] + self.rest[i]
        })
    }
}
