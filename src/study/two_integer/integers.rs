//! The four vectors over the integers that the filters are made of.

use super::Filters;
use super::plane::correlation;
use crate::error::Result;
use crate::linalg::affine_fit;
use faer::Mat;
use serde::Serialize;

/// How regular a filter's numbers of one of the integers are.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Regular {
    /// The share that these numbers have of the filter's variance over all pairs.
    pub share: f64,
    /// Their correlation with the integer itself.
    pub rises: f64,
    /// The mean over the larger half of the integers less that over the smaller half, in units of the standard
    /// deviation.
    pub halves: f64,
    /// How much of their variance a cubic polynomial of the integer tells.
    pub cubic: f64,
    /// How much of it the one wave tells that tells the most, of those with a whole number of periods.
    pub wave: f64,
}

/// What the best wave tells of random numbers, on average.
///
/// Of `m` waves each tells an exponentially distributed share, of which the largest is the `m`th harmonic number over
/// `m`.
pub fn wave_by_chance(n: usize) -> f64 {
    let m = (n.saturating_sub(1) / 2).max(1);
    (1..=m).map(|k| 1.0 / k as f64).sum::<f64>() / m as f64
}

/// Of each filter, its numbers of `A` and of `B`.
pub(super) fn regular(filters: &Filters) -> Result<[[Regular; 2]; 2]> {
    let of = |filter: usize| -> Result<[Regular; 2]> {
        let filter = &filters.filters[filter];
        let variances = [&filter.of_a, &filter.of_b].map(|x| variance(x));
        let all = variances[0] + variances[1];
        let share = |i: usize| if all > 0.0 { variances[i] / all } else { 0.0 };
        Ok([
            Regular::of(&filter.of_a, share(0))?,
            Regular::of(&filter.of_b, share(1))?,
        ])
    };
    Ok([of(0)?, of(1)?])
}

impl Regular {
    fn of(x: &[f64], share: f64) -> Result<Self> {
        let n = x.len();
        let variance = variance(x);
        let at = |i: usize| i as f64;
        let mean = |range: std::ops::Range<usize>| {
            let count = range.len() as f64;
            x[range].iter().sum::<f64>() / count
        };
        Ok(Regular {
            share,
            rises: correlation((0..n).map(|i| [at(i), x[i]])),
            halves: match variance > 0.0 && n > 1 {
                true => (mean(n.div_ceil(2)..n) - mean(0..n / 2)) / variance.sqrt(),
                false => 0.0,
            },
            cubic: cubic(x)?,
            wave: (1..=n.saturating_sub(1) / 2)
                .map(|k| wave(x, k, variance))
                .fold(0.0, f64::max),
        })
    }
}

fn variance(x: &[f64]) -> f64 {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64
}

/// The share of the variance that a cubic tells; 0 where there is none.
fn cubic(x: &[f64]) -> Result<f64> {
    let n = x.len();
    if variance(x) == 0.0 {
        return Ok(0.0);
    }
    // From -1 to 1, so that no power dwarfs another.
    let place = |i: usize| 2.0 * i as f64 / (n as f64 - 1.0) - 1.0;
    let powers = Mat::from_fn(n, 3, |i, j| place(i).powi(j as i32 + 1));
    let numbers = Mat::from_fn(n, 1, |i, _| x[i]);
    Ok(affine_fit(powers.as_ref(), numbers.as_ref())?.r2[0])
}

/// The share of the variance that a wave of `k` periods tells; 0 where there is none.
fn wave(x: &[f64], k: usize, variance: f64) -> f64 {
    if variance == 0.0 {
        return 0.0;
    }
    let n = x.len() as f64;
    let along = |f: fn(f64) -> f64| -> f64 {
        let turn = std::f64::consts::TAU * k as f64 / n;
        let terms = x.iter().enumerate().map(|(i, x)| x * f(turn * i as f64));
        terms.sum()
    };
    let (sin, cos) = (along(f64::sin), along(f64::cos));
    2.0 * (sin * sin + cos * cos) / (n * n * variance)
}
