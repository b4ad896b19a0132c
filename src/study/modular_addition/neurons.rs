//! Neurons one by one: each of one frequency.

use super::pass::{Pass, squares};
use crate::frequency::{Pairs, Terms, share};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The frequency that explains most of each neuron.
#[derive(Clone, Debug, Serialize)]
pub struct NeuronFrequencies {
    /// By neuron; 0 of a neuron that is the same for all pairs.
    pub frequency: Vec<usize>,
    /// The share of its variation that is made of the cosines and sines of `a` and `b` of that frequency, and of their
    /// products.
    pub explained: Vec<f64>,
    /// How many neurons are the same for all pairs.
    pub dead: usize,
    /// The mean of what is explained, over the others.
    pub mean: f64,
    /// The same, each by its variation.
    pub weighted: f64,
    /// By frequency, the neurons of which it explains most; with the frequencies below the largest alone, as the published
    /// code tries them.
    #[serde(skip)]
    pub but_the_largest: ButTheLargest,
}

/// What the published loop finds, which ends one frequency too early.
#[derive(Clone, Debug)]
pub struct ButTheLargest {
    /// How many neurons each frequency has.
    pub neurons: BTreeMap<usize, usize>,
    /// How many neurons are explained well.
    pub over: usize,
    /// The frequencies that have any.
    pub keys: Vec<usize>,
}

/// A neuron is one of its frequency where more than this share of it is explained.
pub const OWN: f64 = 0.85;
/// A neuron is dead where its variation is below this share of the largest: nothing but rounding.
const DEAD: f64 = 1e-12;

impl NeuronFrequencies {
    pub(super) fn of(pass: &Pass, pairs: &Pairs) -> Self {
        let largest = pass.fourier.largest();
        let variation = pairs.variation();
        let most = variation.iter().copied().fold(0.0, f64::max);
        let alive: Vec<bool> = variation
            .iter()
            .map(|&v| v > 0.0 && v >= DEAD * most)
            .collect();
        let shares: Vec<Vec<f64>> = (1..=largest)
            .map(|k| pairs.shares(&[Terms::Block(k)]))
            .collect();
        let best = |neuron: usize, up_to: usize| -> (usize, f64) {
            let mut best = (0, 0.0);
            for (k, shares) in (1..=up_to).zip(&shares) {
                if alive[neuron] && shares[neuron] > best.1 {
                    best = (k, shares[neuron]);
                }
            }
            best
        };
        let neurons = 0..variation.len();
        let found: Vec<(usize, f64)> = neurons.clone().map(|n| best(n, largest)).collect();
        let coded: Vec<(usize, f64)> = neurons.clone().map(|n| best(n, largest - 1)).collect();
        let live = || neurons.clone().filter(|&n| alive[n]);
        let total: f64 = live().map(|n| variation[n]).sum();
        let weighted = live().map(|n| variation[n] * found[n].1).sum::<f64>();
        let keys: BTreeSet<usize> = live().map(|n| coded[n].0).filter(|&k| k > 0).collect();
        NeuronFrequencies {
            mean: live().map(|n| found[n].1).sum::<f64>() / live().count().max(1) as f64,
            weighted: share(weighted, total),
            dead: alive.iter().filter(|a| !**a).count(),
            but_the_largest: ButTheLargest {
                neurons: count(coded.iter().filter(|(k, _)| *k > 0)),
                over: coded.iter().filter(|(_, share)| *share > OWN).count(),
                keys: keys.into_iter().collect(),
            },
            frequency: found.iter().map(|f| f.0).collect(),
            explained: found.iter().map(|f| f.1).collect(),
        }
    }

    /// How many neurons are explained well.
    pub fn over(&self) -> usize {
        self.explained.iter().filter(|&&share| share > OWN).count()
    }

    /// How many neurons each frequency has that explain more than this share of them.
    pub fn counts(&self, share: f64) -> BTreeMap<usize, usize> {
        let all = self
            .frequency
            .iter()
            .copied()
            .zip(self.explained.iter().copied());
        let own: Vec<(usize, f64)> = all.filter(|(k, s)| *k > 0 && *s > share).collect();
        count(own.iter())
    }

    /// The neuron of each frequency that varies most, of those that are explained well.
    pub(super) fn examples(&self, pass: &Pass, keys: &[usize]) -> Vec<(usize, usize)> {
        let p = pass.p;
        let varies = |n: usize| {
            let column: Vec<f64> = (0..p * p).map(|i| pass.hidden[[i, n]]).collect();
            let mean = column.iter().sum::<f64>() / column.len() as f64;
            squares(&column.iter().map(|x| x - mean).collect::<Vec<_>>())
        };
        let of = |&k: &usize| {
            let own = (0..self.frequency.len())
                .filter(|&n| self.frequency[n] == k && self.explained[n] > OWN);
            let most = own.max_by(|&i, &j| varies(i).total_cmp(&varies(j)));
            most.map(|n| (k, n))
        };
        keys.iter().filter_map(of).collect()
    }
}

fn count<'a>(found: impl Iterator<Item = &'a (usize, f64)>) -> BTreeMap<usize, usize> {
    let mut counts = BTreeMap::new();
    found.for_each(|(k, _)| *counts.entry(*k).or_default() += 1);
    counts
}
