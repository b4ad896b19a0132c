//! Which pairs a model was trained on.

use super::losses::Told;
use crate::metric::mean;
use crate::task::{ModularAddition, randperm};
use serde::Serialize;

/// The pairs that were trained on: the first 30% of a permutation that PyTorch draws from a seed.
#[derive(Clone, Debug, Serialize)]
pub struct Split {
    /// The seed.
    pub seed: u32,
    /// How it is known.
    pub known: Known,
    /// The pairs that were trained on, in the order of the permutation.
    #[serde(skip)]
    pub order: Vec<usize>,
    /// By pair, whether it was trained on.
    #[serde(skip)]
    pub trained: Vec<bool>,
}

/// How the seed of a split is known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Known {
    /// It was told.
    Told,
    /// Its pairs are answered better than the others, by so many standard errors of the mean logarithm of the loss, as those
    /// of no other seed below [`SEEDS`] are.
    Found {
        /// Standard errors.
        deviations: f64,
    },
    /// No seed's pairs stand out: it is the published one.
    Assumed,
}

/// So many seeds are tried where none is told.
pub const SEEDS: u32 = 100;
/// The seed of the published checkpoint.
pub const PUBLISHED: u32 = 1;
/// So many standard errors no seed reaches by chance: of a hundred, one in ten million times.
const STANDS_OUT: f64 = 6.0;

impl Split {
    /// The split of a seed, of so many pairs.
    pub(super) fn of(pairs: usize, seed: u32, known: Known) -> Self {
        let mut order = randperm(pairs, seed);
        order.truncate((ModularAddition::SHARE * pairs as f64) as usize);
        let mut trained = vec![false; pairs];
        order.iter().for_each(|&i| trained[i] = true);
        Split {
            seed,
            known,
            order,
            trained,
        }
    }

    /// The split whose pairs are answered best, where one stands out: a model is nearly always surer of what it has seen.
    pub(super) fn find(told: &[Told]) -> Self {
        let pairs = told.len();
        // Losses span many powers of ten; one that is zero in this precision is as small as any.
        let logs: Vec<f64> = (told.iter())
            .map(|t| t.loss.max(f64::MIN_POSITIVE).ln())
            .collect();
        let middle = mean(&logs);
        let squares: Vec<f64> = logs.iter().map(|x| (x - middle).powi(2)).collect();
        // Of any split drawn without regard to the losses, the two means differ by about this.
        let trained = Split::of(pairs, PUBLISHED, Known::Assumed).order.len();
        let (seen, others) = (trained as f64, (pairs - trained) as f64);
        let error = (mean(&squares) * (1.0 / seen + 1.0 / others)).sqrt();
        let deviations = |split: &Split| {
            let all: f64 = logs.iter().sum();
            let own: f64 = split.order.iter().map(|&i| logs[i]).sum();
            ((all - own) / others - own / seen) / error
        };
        let tried = (0..SEEDS).map(|seed| {
            let split = Split::of(pairs, seed, Known::Assumed);
            let deviations = deviations(&split);
            (seed, deviations)
        });
        let best = tried.filter(|(_, d)| *d >= STANDS_OUT);
        let best = best.max_by(|a, b| a.1.total_cmp(&b.1));
        match best {
            Some((seed, deviations)) => Split::of(pairs, seed, Known::Found { deviations }),
            None => Split::of(pairs, PUBLISHED, Known::Assumed),
        }
    }
}
