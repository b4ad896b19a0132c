//! Neurons over all pairs, together.

use super::Split;
use super::logits::{of_frequencies, taken};
use super::losses::{loss_by_sum, means_by_sum, train_loss};
use super::pass::Pass;
use crate::frequency::{Pairs, Terms, share};
use crate::linalg::Par;
use serde::Serialize;

/// What the neurons are, and what they do, by frequency. Spans are exact: of two dimensions each.
#[derive(Clone, Debug, Serialize)]
pub struct HiddenFrequencies {
    /// The share of the neurons' variation along functions of `a` alone, by frequency from 1 on.
    pub of_a: Vec<f64>,
    /// Of `b` alone.
    pub of_b: Vec<f64>,
    /// Of `a + b` alone.
    pub of_sum: Vec<f64>,
    /// In everything that is made of the key frequencies' cosines and sines of `a` and of `b`.
    pub in_key_blocks: f64,
    /// The loss over the trained pairs without what is a function of the sum at one frequency, from 0 on.
    pub excluded: Vec<f64>,
    /// The loss over all pairs with that alone.
    pub restricted: Vec<f64>,
    /// Without all key frequencies.
    pub excluded_keys: f64,
    /// With them alone.
    pub restricted_keys: f64,
    /// What the answers' waves that the neurons write are like, by key frequency: cosine, then sine.
    pub written: Vec<[Written; 2]>,
}

/// Neurons read along a direction that writes a wave of the answers.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Written {
    /// The share of its variation that is the same wave of `a + b`.
    pub explained: f64,
    /// The coefficient of that wave.
    pub coefficient: f64,
}

impl HiddenFrequencies {
    pub(super) fn of(pass: &Pass, pairs: &Pairs, split: &Split, keys: &[usize], par: Par) -> Self {
        let (p, fourier) = (pass.p, &pass.fourier);
        let all: f64 = pairs.variation().iter().sum();
        let of = |squares: Vec<f64>| share(squares.iter().sum(), all);
        let frequencies = 1..=fourier.largest();
        let shares = |terms: fn(usize) -> Terms| -> Vec<f64> {
            let each = frequencies
                .clone()
                .map(|k| of(pairs.squares(&pairs.places(terms(k)))));
            each.collect()
        };
        let in_blocks = keys
            .iter()
            .map(|&k| of(pairs.squares(&pairs.places(Terms::Block(k)))));
        let by_sum = means_by_sum(&pass.by_neurons, p);
        let part = |frequencies: &[usize]| of_frequencies(fourier, &by_sum, frequencies);
        let without = |frequencies: &[usize]| {
            let part = part(frequencies);
            let fill = |pair: usize, row: &mut [f64]| taken(&pass.by_neurons, &part, p, pair, row);
            train_loss(p, split, &fill, par)
        };
        HiddenFrequencies {
            of_a: shares(Terms::OfA),
            of_b: shares(Terms::OfB),
            of_sum: frequencies
                .clone()
                .map(|k| of(pairs.squares_of_sum(k)))
                .collect(),
            in_key_blocks: in_blocks.sum(),
            excluded: (0..=fourier.largest()).map(|k| without(&[k])).collect(),
            restricted: (0..=fourier.largest())
                .map(|k| loss_by_sum(&part(&[k])))
                .collect(),
            excluded_keys: without(keys),
            restricted_keys: loss_by_sum(&part(keys)),
            written: keys.iter().map(|&k| written(pass, k)).collect(),
        }
    }

    /// The share along functions of `a`, of `b` and of their sum at a frequency.
    pub fn total(&self, k: usize) -> f64 {
        self.of_a[k - 1] + self.of_b[k - 1] + self.of_sum[k - 1]
    }
}

/// The neurons along what writes the cosine and the sine of a frequency.
fn written(pass: &Pass, k: usize) -> [Written; 2] {
    let (p, fourier) = (pass.p, &pass.fourier);
    let basis = fourier.basis();
    let rows = fourier.rows(k);
    [rows.start, rows.end - 1].map(|row| {
        // The neurons along the direction are what they write along the row of the answers.
        let wave = basis.slice(&[row]);
        let mut along: Vec<f64> = (0..p * p)
            .map(|i| {
                let both = pass.by_neurons.slice(&[i]).iter().zip(wave);
                both.map(|(x, f)| x * f).sum()
            })
            .collect();
        let mean = along.iter().sum::<f64>() / along.len() as f64;
        along.iter_mut().for_each(|x| *x -= mean);
        // The row, with its largest value one: a cosine or a sine of the sum.
        let scale = match 2 * k == p {
            true => (p as f64).sqrt(),
            false => (p as f64 / 2.0).sqrt(),
        };
        let (mut inner, mut square, mut own) = (0.0, 0.0, 0.0);
        for (pair, x) in along.iter().enumerate() {
            let wave = scale * wave[super::losses::right(p, pair)];
            inner += x * wave;
            square += wave * wave;
            own += x * x;
        }
        Written {
            explained: share(inner * inner, own * square),
            coefficient: inner / square,
        }
    })
}
