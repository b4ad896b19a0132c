//! Attention from `=`, over all pairs.

use super::pass::{EQUALS, Pass};
use crate::error::Result;
use crate::frequency::{Pairs, Terms};
use crate::linalg::Par;
use crate::metric::mean;
use crate::model::Model;
use crate::study::circuit::circuits;
use crate::tensor::Tensor;
use serde::Serialize;

/// How each head's attention from `=` to `a`, `b` and `=` depends on the pair.
#[derive(Clone, Debug, Serialize)]
pub struct AttentionFrequencies {
    /// `[head][key]`
    pub mean: Vec<[f64; 3]>,
    /// Standard deviations, `[head][key]`.
    pub deviation: Vec<[f64; 3]>,
    /// `[head][key]`
    pub least: Vec<[f64; 3]>,
    /// `[head][key]`
    pub most: Vec<[f64; 3]>,
    /// How the attention to `a` varies, by head.
    pub to_a: Vec<ToA>,
    /// The scores of `a`, and of `b`, which depend on that token alone: by head.
    pub scores: [Vec<Scores>; 2],
    /// The score of `=`, by head.
    pub of_equals: Vec<f64>,
}

/// How a head's attention to `a` varies.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ToA {
    /// The share that is a function of `a` alone.
    pub by_a: f64,
    /// Of `b` alone.
    pub by_b: f64,
    /// The frequency that explains most of it, with all products.
    pub frequency: usize,
    /// The share that it explains.
    pub explained: f64,
}

/// A head's scores of one position, over the residues.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Scores {
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation.
    pub deviation: f64,
    /// The frequency with the largest share of what varies.
    pub frequency: usize,
    /// Its share.
    pub share: f64,
    /// That of the key frequencies.
    pub keys: f64,
}

impl AttentionFrequencies {
    pub(super) fn of(pass: &Pass, keys: &[usize], par: Par) -> Self {
        let p = pass.p;
        let each = |f: &dyn Fn(&[f64]) -> f64| -> Vec<[f64; 3]> {
            let of = |pattern: &Tensor<f64>, key| {
                f(&(0..p * p).map(|i| pattern[[i, key]]).collect::<Vec<f64>>())
            };
            let heads = pass.patterns.iter();
            heads
                .map(|pattern| [0, 1, 2].map(|key| of(pattern, key)))
                .collect()
        };
        let fold = |values: &[f64], pick: fn(f64, f64) -> f64| values.iter().copied().reduce(pick);
        // The token at one position, whatever stands at the other.
        let scores_of = |key: usize| -> Vec<Scores> {
            let pair = |x: usize| if key == 0 { x * p } else { x };
            let of = |scores: &Tensor<f64>| {
                let own: Vec<f64> = (0..p).map(|x| scores[[pair(x), key]]).collect();
                Scores::of(pass, &own, keys)
            };
            pass.scores.iter().map(of).collect()
        };
        AttentionFrequencies {
            mean: each(&mean),
            deviation: each(&deviation),
            least: each(&|v| fold(v, f64::min).unwrap_or_default()),
            most: each(&|v| fold(v, f64::max).unwrap_or_default()),
            to_a: pass
                .patterns
                .iter()
                .map(|m| ToA::of(pass, m, par))
                .collect(),
            scores: [scores_of(0), scores_of(1)],
            of_equals: pass.scores.iter().map(|s| s[[0, EQUALS]]).collect(),
        }
    }
}

fn deviation(values: &[f64]) -> f64 {
    let middle = mean(values);
    let off: Vec<f64> = values.iter().map(|x| (x - middle).powi(2)).collect();
    mean(&off).sqrt()
}

impl ToA {
    fn of(pass: &Pass, pattern: &Tensor<f64>, par: Par) -> Self {
        let p = pass.p;
        let column = (0..p * p).map(|i| pattern[[i, 0]]).collect();
        let pairs = Pairs::of(&pass.fourier, &Tensor::from_vec(&[p * p, 1], column), par);
        let all: Vec<Terms> = (1..=pass.fourier.largest()).map(Terms::OfA).collect();
        let of_b: Vec<Terms> = (1..=pass.fourier.largest()).map(Terms::OfB).collect();
        let mut best = (0, 0.0);
        for k in 1..=pass.fourier.largest() {
            let share = pairs.shares(&[Terms::Block(k)])[0];
            if share > best.1 {
                best = (k, share);
            }
        }
        ToA {
            by_a: pairs.shares(&all)[0],
            by_b: pairs.shares(&of_b)[0],
            frequency: best.0,
            explained: best.1,
        }
    }
}

impl Scores {
    fn of(pass: &Pass, scores: &[f64], keys: &[usize]) -> Self {
        let middle = mean(scores);
        let centred: Vec<f64> = scores.iter().map(|x| x - middle).collect();
        let transform = Tensor::from_vec(&[pass.p, 1], centred);
        let transform = pass.fourier.along(&transform, 0, Par::Seq);
        let shares = pass.fourier.shares(&transform);
        let frequency = (1..shares.len())
            .max_by(|&i, &j| shares[i].total_cmp(&shares[j]))
            .unwrap_or_default();
        Scores {
            mean: middle,
            deviation: deviation(scores),
            frequency,
            share: shares[frequency],
            keys: keys.iter().map(|&k| shares[k]).sum(),
        }
    }
}

/// The stream between attention and MLP at `=` with attention fixed to these weights, `[head][key]`: `[pair, d_model]`.
pub(super) fn mid_with(
    model: &Model<f64>,
    pass: &Pass,
    weights: &[[f64; 3]],
) -> Result<Tensor<f64>> {
    let d = model.config().d_model;
    let tokens = circuits(model, "W_E W_OV[0.*]")?;
    let positions = circuits(model, "W_pos W_OV[0.*]")?;
    let biases = circuits(model, "b_V[0.*] W_O[0.*]")?;
    let equals = pass.p;
    // What each token adds from each position.
    let brought = |position: usize, token: usize, to: &mut [f64]| {
        for (h, shares) in weights.iter().enumerate() {
            let embedded = tokens[h].slice(&[token]).iter();
            let rows = embedded.zip(positions[h].slice(&[position]));
            let rows = rows.zip(biases[h].data());
            let share = shares[position];
            to.iter_mut()
                .zip(rows)
                .for_each(|(to, ((e, p), b))| *to += share * (e + p + b));
        }
    };
    let table = |position: usize| -> Vec<Vec<f64>> {
        let of = |token| {
            let mut row = vec![0.0; d];
            brought(position, token, &mut row);
            row
        };
        (0..pass.p).map(of).collect()
    };
    let mut always = vec![0.0; d];
    brought(EQUALS, equals, &mut always);
    let own = model.weights();
    let rows = [
        own.W_E.slice(&[equals]),
        own.W_pos.slice(&[EQUALS]),
        own.blocks[0].attn.b_O.data(),
    ];
    for row in rows {
        always.iter_mut().zip(row).for_each(|(to, x)| *to += x);
    }
    let (of_a, of_b) = (table(0), table(1));
    let mut mid = Tensor::zeros(&[pass.p * pass.p, d]);
    for pair in 0..pass.p * pass.p {
        let sequence = pass.tokens.sequence(pair);
        let (a, b) = (&of_a[sequence[0] as usize], &of_b[sequence[1] as usize]);
        let row = mid.slice_mut(&[pair]);
        for (i, to) in row.iter_mut().enumerate() {
            *to = a[i] + b[i] + always[i];
        }
    }
    Ok(mid)
}
