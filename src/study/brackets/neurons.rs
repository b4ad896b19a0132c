//! Neurons as keys and values: an MLP is a sum over its neurons, each writing its own direction as often as its key asks.
//!
//! What a neuron adds along a direction is its activation times one number, `W_out · direction`: the outputs of the
//! neurons themselves, `d_model` times as many numbers, are never made.

use super::data::Data;
use super::written::{Along, Written, mean_where, times};
use crate::model::Model;
use serde::Serialize;
use std::fmt;

/// Where a neuron says that the total is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NeuronSide {
    /// Where more than half of the brackets open.
    More,
    /// Where fewer do.
    Fewer,
    /// On both sides.
    Both,
    /// It says the opposite: less "unbalanced" where the share is not one half.
    Opposite,
    /// It says little.
    Neither,
}

impl NeuronSide {
    /// All that say something.
    pub const ALL: [NeuronSide; 4] = [
        NeuronSide::More,
        NeuronSide::Fewer,
        NeuronSide::Both,
        NeuronSide::Opposite,
    ];

    /// From what it adds where fewer than half of the brackets open, and where more do, and what the layer's strongest
    /// neuron adds.
    fn of(sides: [f64; 2], strongest: f64) -> NeuronSide {
        /// Saying something, as a part of the strongest: less than any neuron adds that the write-up names.
        const WORTH: f64 = 0.05;
        /// Saying it on both sides, as a part of the larger.
        const SIMILAR: f64 = 0.25;
        let [fewer, more] = sides;
        let (low, high) = (fewer.min(more), fewer.max(more));
        let size = high.abs().max(low.abs());
        if size.is_nan() || size < WORTH * strongest || strongest <= 0.0 {
            NeuronSide::Neither
        } else if -low > high {
            NeuronSide::Opposite
        } else if low >= SIMILAR * high {
            NeuronSide::Both
        } else if more > fewer {
            NeuronSide::More
        } else {
            NeuronSide::Fewer
        }
    }
}

impl fmt::Display for NeuronSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NeuronSide::More => "where more than half open",
            NeuronSide::Fewer => "where fewer than half open",
            NeuronSide::Both => "on both sides",
            NeuronSide::Opposite => "the opposite",
            NeuronSide::Neither => "little",
        })
    }
}

/// An MLP by its neurons.
#[derive(Clone, Debug, Serialize)]
pub struct Neurons {
    /// The layer.
    pub layer: usize,
    /// Each neuron's output along the direction: the mean over unbalanced sequences less that over balanced ones, of
    /// the sequences that start with an opening bracket.
    pub difference: Vec<f64>,
    /// The same where fewer than half of the brackets open, and where more do: each less the balanced ones' mean. NaN
    /// where there are none.
    pub fewer_and_more: Vec<[f64; 2]>,
    /// Where each says that the total is wrong.
    pub sides: Vec<NeuronSide>,
    /// Each neuron's output along the direction for every sequence: `[neuron][sequence]`.
    pub outputs: Vec<Vec<f64>>,
    /// The largest distance of the neurons' and the bias's sum from what the MLP writes along the direction.
    pub off: f64,
}

/// The neurons of a layer along a direction, at position 1.
pub(super) fn neurons(
    model: &Model<f64>,
    written: &Written,
    data: &Data,
    layer: usize,
    direction: &[f64],
    whole: &Along,
) -> Neurons {
    let mlp = model.weights().blocks[layer].mlp.as_ref();
    let value = times(&mlp.expect("checked: there are MLPs").W_out, direction);
    let post = &written.neurons[layer];
    let batch = post.shape()[0];
    let outputs: Vec<Vec<f64>> = (value.iter().enumerate())
        .map(|(neuron, value)| (0..batch).map(|s| post[[s, neuron]] * value).collect())
        .collect();
    let sums: Vec<f64> = (0..batch)
        .map(|s| outputs.iter().map(|of| of[s]).sum())
        .collect();
    // The bias is the same for all sequences, and gone with the balanced ones' mean.
    let centre = mean_where(&sums, &data.balanced, true);
    let off = sums.iter().zip(&whole.values);
    let off = off.fold(0f64, |m, (sum, whole)| m.max((sum - centre - whole).abs()));

    let starts = data.starting_open();
    let balanced: Vec<bool> = starts.iter().map(|&s| data.balanced[s]).collect();
    let of_starts = |of: &Vec<f64>| -> Vec<f64> { starts.iter().map(|&s| of[s]).collect() };
    let difference = |of: &Vec<f64>| {
        let of = of_starts(of);
        mean_where(&of, &balanced, false) - mean_where(&of, &balanced, true)
    };
    let half = 0.5;
    let sides = |of: &Vec<f64>| {
        let of = of_starts(of);
        let centre = mean_where(&of, &balanced, true);
        let share = |s: &usize| data.open_share[*s];
        [true, false].map(|fewer| {
            let flags = starts.iter().map(|s| {
                if fewer {
                    share(s) < half
                } else {
                    share(s) > half
                }
            });
            mean_where(&of, &flags.collect::<Vec<_>>(), true) - centre
        })
    };
    let difference: Vec<f64> = outputs.iter().map(difference).collect();
    let fewer_and_more: Vec<[f64; 2]> = outputs.iter().map(sides).collect();
    let strongest = difference.iter().fold(0f64, |m, x| m.max(*x));
    let side = |&sides: &[f64; 2]| NeuronSide::of(sides, strongest);
    Neurons {
        layer,
        sides: fewer_and_more.iter().map(side).collect(),
        difference,
        fewer_and_more,
        outputs,
        off,
    }
}

impl Neurons {
    /// The neurons of one kind, the strongest first.
    pub fn on(&self, side: NeuronSide) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.sides.len())
            .filter(|&i| self.sides[i] == side)
            .collect();
        all.sort_by(|&i, &j| self.size(j).total_cmp(&self.size(i)));
        all
    }

    /// The larger of what a neuron adds on either side of one half, or takes away.
    pub fn size(&self, neuron: usize) -> f64 {
        let [fewer, more] = self.fewer_and_more[neuron];
        fewer.abs().max(more.abs())
    }
}
