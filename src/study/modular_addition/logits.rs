//! Logits as sums of `cos(w (a + b - c))`.

use super::Split;
use super::losses::{Losses, Told, losses, means_by_sum, right, train_loss};
use super::pass::{Pass, squares};
use crate::frequency::{Fourier, Pairs, Terms, share};
use crate::linalg::Par;
use crate::tensor::Tensor;
use serde::Serialize;
use std::f64::consts::TAU;

/// The logits over all pairs, by frequency.
#[derive(Clone, Debug, Serialize)]
pub struct LogitFrequencies {
    /// Frequencies whose waves the logits are like: those whose cosine is above [`KEY`], in order.
    pub keys: Vec<usize>,
    /// The inner product of the logits with each frequency's wave `cos(w (a + b - c))` of norm one, from 1 on.
    pub along: Vec<f64>,
    /// The cosine of the logits, each pair's mean removed, with each wave, from 1 on.
    pub similarities: Vec<f64>,
    /// The amplitudes of the key waves, by least squares.
    pub amplitudes: Vec<f64>,
    /// The share of the logits' squared norm that the key waves have.
    pub explained: Explained,
    /// The loss over the trained pairs when one frequency's wave is taken from the logits, from 1 on.
    pub excluded: Vec<f64>,
    /// The loss over all pairs of one frequency's wave alone, from 1 on.
    pub restricted: Vec<f64>,
    /// The loss over the trained pairs when all key waves are taken away.
    pub excluded_keys: f64,
    /// The losses of the key waves alone: the same for every pair.
    pub restricted_keys: Losses,
    /// With what is a function of the sum at the key frequencies, answer by answer.
    pub sums: SumDirections,
    /// With all four products of cosines and sines of the key frequencies, answer by answer.
    pub products: SumDirections,
    /// The products with the largest norms over the answers: row of `a`, row of `b`, norm.
    pub largest_terms: Vec<(usize, usize, f64)>,
    /// The norm of the part that is the same for all pairs.
    pub mean_norm: f64,
    /// The mean logit, each pair's mean removed, by `a + b - c`.
    #[serde(skip)]
    pub by_rest: Vec<f64>,
}

/// A wave is key where the logits' cosine with it is above this: the rule of "A Toy Model of Universality".
pub const KEY: f64 = 0.005;
/// So many of the largest products are listed.
const TERMS: usize = 12;

/// Shares of the logits' squared norm.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Explained {
    /// That of all waves, of the logits with each pair's mean removed.
    pub all_waves: f64,
    /// Likewise that of the key waves.
    pub by_pair: f64,
    /// Of the logits with each answer's mean over the pairs removed as well.
    pub by_pair_and_answer: f64,
    /// Of the logits with one mean removed.
    pub by_one_mean: f64,
    /// Of the logits as they are.
    pub uncentred: f64,
}

/// Losses with a part of the logits alone, and without it.
#[derive(Clone, Debug, Serialize)]
pub struct SumDirections {
    /// Of the part and each answer's mean.
    pub restricted: Losses,
    /// Of what is left without the part.
    pub excluded: Losses,
    /// Without the part of one key frequency, each in turn.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub excluded_each: Vec<Losses>,
    /// The share of the squared norm around each answer's mean that the part has.
    pub explained: f64,
}

/// `cos(w r)` of a frequency.
pub(super) fn wave(p: usize, k: usize, r: usize) -> f64 {
    (TAU * (k * r % p) as f64 / p as f64).cos()
}

/// The squared norm of a frequency's wave over all pairs and answers.
fn wave_square(p: usize, k: usize) -> f64 {
    let each: f64 = (0..p).map(|r| wave(p, k, r).powi(2)).sum();
    (p * p) as f64 * each
}

impl LogitFrequencies {
    pub(super) fn of(pass: &Pass, split: &Split, par: Par) -> Self {
        let (p, fourier) = (pass.p, &pass.fourier);
        let centred = pass.centred();
        let by_sum = means_by_sum(&centred, p);
        // By a + b - c = r: the sum over the sums of what is the mean over the pairs of each.
        let mut by_rest = vec![0.0; p];
        for s in 0..p {
            for c in 0..p {
                by_rest[(s + p - c) % p] += by_sum[[s, c]];
            }
        }
        let inner = |k: usize| -> f64 {
            let each = by_rest.iter().enumerate();
            p as f64 * each.map(|(r, x)| x * wave(p, k, r)).sum::<f64>()
        };
        let all = 1..=fourier.largest();
        let along: Vec<f64> = all
            .clone()
            .map(|k| inner(k) / wave_square(p, k).sqrt())
            .collect();
        let square = squares(centred.data());
        let similarities: Vec<f64> = along.iter().map(|&x| share(x, square.sqrt())).collect();
        let keys: Vec<usize> = all.clone().filter(|&k| similarities[k - 1] > KEY).collect();
        let amplitude = |k: usize| along[k - 1] / wave_square(p, k).sqrt();
        let waves = |frequencies: &[usize]| -> Vec<f64> {
            let at = |r| {
                frequencies
                    .iter()
                    .map(|&k| amplitude(k) * wave(p, k, r))
                    .sum()
            };
            (0..p).map(at).collect()
        };
        // Waves alone: every pair's logits are the same but for their order.
        let alone = |frequencies: &[usize]| {
            let waves = waves(frequencies);
            let turned: Vec<f64> = (0..p).map(|c| waves[(p - c) % p]).collect();
            Told::of(&turned, 0).loss
        };
        let without = |frequencies: &[usize]| {
            let waves = waves(frequencies);
            let fill = |pair: usize, row: &mut [f64]| {
                let s = right(p, pair);
                let logits = centred.slice(&[pair]).iter().enumerate();
                for ((c, x), to) in logits.zip(row) {
                    *to = x - waves[(s + p - c) % p];
                }
            };
            train_loss(p, split, &fill, par)
        };
        let of_keys: f64 = keys.iter().map(|&k| along[k - 1].powi(2)).sum();
        let key_loss = alone(&keys);
        let pairs = Pairs::of(fourier, &pass.logits, par);
        let constant = pairs.transform().slice(&[0, 0]);
        LogitFrequencies {
            excluded: all.clone().map(|k| without(&[k])).collect(),
            restricted: all.clone().map(|k| alone(&[k])).collect(),
            excluded_keys: without(&keys),
            restricted_keys: Losses {
                all: key_loss,
                train: key_loss,
                test: key_loss,
            },
            amplitudes: keys.iter().map(|&k| amplitude(k)).collect(),
            explained: Explained::of(pass, &centred, &along, of_keys),
            sums: of_sums(pass, split, &keys, par),
            products: of_products(pass, split, &pairs, &keys, par),
            largest_terms: largest_terms(&pairs, p),
            mean_norm: squares(constant).sqrt(),
            keys,
            along,
            similarities,
            by_rest: by_rest.iter().map(|x| x / p as f64).collect(),
        }
    }
}

impl Explained {
    fn of(pass: &Pass, centred: &Tensor<f64>, along: &[f64], of_keys: f64) -> Self {
        let p = pass.p;
        let square = squares(centred.data());
        let mut means = vec![0.0; p];
        for row in centred.data().chunks_exact(p) {
            means.iter_mut().zip(row).for_each(|(m, x)| *m += x);
        }
        means.iter_mut().for_each(|m| *m /= (p * p) as f64);
        let rows = centred.data().chunks_exact(p);
        let around: f64 = rows
            .map(|row| {
                row.iter()
                    .zip(&means)
                    .map(|(x, m)| (x - m).powi(2))
                    .sum::<f64>()
            })
            .sum();
        let logits = pass.logits.data();
        let mean = logits.iter().sum::<f64>() / logits.len() as f64;
        let around_one: f64 = logits.iter().map(|x| (x - mean).powi(2)).sum();
        Explained {
            all_waves: share(along.iter().map(|x| x * x).sum(), square),
            by_pair: share(of_keys, square),
            by_pair_and_answer: share(of_keys, around),
            by_one_mean: share(of_keys, around_one),
            uncentred: share(of_keys, squares(logits)),
        }
    }
}

/// What is a function of the sum at some frequencies, of means by sum: `[sum, answer]`.
pub(super) fn of_frequencies(
    fourier: &Fourier,
    by_sum: &Tensor<f64>,
    frequencies: &[usize],
) -> Tensor<f64> {
    let mut kept = fourier.along(by_sum, 0, Par::Seq);
    for row in 0..fourier.n() {
        if !frequencies.contains(&fourier.frequency(row)) {
            kept.slice_mut(&[row]).fill(0.0);
        }
    }
    fourier.back(&kept, 0, Par::Seq)
}

/// A table of sums and answers, less another.
pub(super) fn taken(
    values: &Tensor<f64>,
    table: &Tensor<f64>,
    p: usize,
    pair: usize,
    row: &mut [f64],
) {
    let both = values
        .slice(&[pair])
        .iter()
        .zip(table.slice(&[right(p, pair)]));
    both.zip(row).for_each(|((x, part), to)| *to = x - part);
}

/// With the directions `cos(w (a + b))` and `sin(w (a + b))` of some frequencies, answer by answer.
pub(super) fn of_sums(pass: &Pass, split: &Split, keys: &[usize], par: Par) -> SumDirections {
    let (p, fourier) = (pass.p, &pass.fourier);
    let by_sum = means_by_sum(&pass.logits, p);
    let with_mean: Vec<usize> = std::iter::once(0).chain(keys.iter().copied()).collect();
    let kept = of_frequencies(fourier, &by_sum, &with_mean);
    let alone = |pair: usize, row: &mut [f64]| row.copy_from_slice(kept.slice(&[right(p, pair)]));
    let without = |frequencies: &[usize]| {
        let part = of_frequencies(fourier, &by_sum, frequencies);
        losses(
            p,
            split,
            &|pair, row| taken(&pass.logits, &part, p, pair, row),
            par,
        )
    };
    let mean = of_frequencies(fourier, &by_sum, &[0]);
    let around: f64 = (0..p * p)
        .map(|i| {
            let both = pass.logits.slice(&[i]).iter().zip(mean.slice(&[0]));
            both.map(|(x, m)| (x - m).powi(2)).sum::<f64>()
        })
        .sum();
    let part = of_frequencies(fourier, &by_sum, keys);
    SumDirections {
        restricted: losses(p, split, &alone, par),
        excluded: without(keys),
        excluded_each: keys.iter().map(|&k| without(&[k])).collect(),
        explained: share(p as f64 * squares(part.data()), around),
    }
}

/// With all four products of some frequencies, answer by answer.
fn of_products(
    pass: &Pass,
    split: &Split,
    pairs: &Pairs,
    keys: &[usize],
    par: Par,
) -> SumDirections {
    let p = pass.p;
    let places: Vec<[usize; 2]> = (keys.iter())
        .flat_map(|&k| pairs.places(Terms::Products(k)))
        .collect();
    let part = pairs.fit(|place, _| places.contains(&place), par);
    let constant: Vec<f64> = (pairs.transform().slice(&[0, 0]).iter())
        .map(|x| x / p as f64)
        .collect();
    let alone = |pair: usize, row: &mut [f64]| {
        let both = part.slice(&[pair]).iter().zip(&constant);
        both.zip(row).for_each(|((x, m), to)| *to = x + m);
    };
    let without = |pair: usize, row: &mut [f64]| {
        let both = pass.logits.slice(&[pair]).iter().zip(part.slice(&[pair]));
        both.zip(row).for_each(|((x, part), to)| *to = x - part);
    };
    let explained: f64 = pairs.squares(&places).iter().sum();
    SumDirections {
        restricted: losses(p, split, &alone, par),
        excluded: losses(p, split, &without, par),
        excluded_each: Vec::new(),
        explained: share(explained, pairs.variation().iter().sum()),
    }
}

fn largest_terms(pairs: &Pairs, p: usize) -> Vec<(usize, usize, f64)> {
    let norm = |i: usize| squares(pairs.transform().slice(&[i / p, i % p])).sqrt();
    let mut all: Vec<(usize, usize, f64)> = (0..p * p).map(|i| (i / p, i % p, norm(i))).collect();
    all.sort_by(|x, y| y.2.total_cmp(&x.2));
    all.truncate(TERMS);
    all
}
