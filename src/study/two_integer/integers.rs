//! The four vectors over the integers that the filters are made of.

use super::{Answered, Filters, agreement};
use crate::error::Result;
use crate::linalg::affine_fit;
use crate::study::correlation::correlation;
use faer::Mat;
use serde::Serialize;

/// How regular the filters' numbers are.
#[derive(Clone, Debug, Serialize)]
pub struct Integers {
    /// Of each filter, its numbers of `A` and of `B`.
    pub regular: [[Regular; 2]; 2],
    /// On how many pairs the AND of the filters is what the full model says if each vector's numbers are those that a
    /// rule tells: a cubic and a wave.
    pub ruled_agrees_with_full: f64,
}

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
    /// How much of it a cubic and a wave tell together.
    pub both: f64,
}

/// What the best wave tells of random numbers, on average.
///
/// Of `m` waves each tells an exponentially distributed share, of which the largest is the `m`th harmonic number over
/// `m`.
pub fn wave_by_chance(n: usize) -> f64 {
    let m = waves(n).count().max(1);
    (1..=m).map(|k| 1.0 / k as f64).sum::<f64>() / m as f64
}

impl Integers {
    pub(super) fn of(filters: &Filters, full: &Answered) -> Result<Self> {
        let mut ruled = filters.clone();
        let mut of = |f: usize| -> Result<[Regular; 2]> {
            let filter = &mut ruled.filters[f];
            let variances = [&filter.of_a, &filter.of_b].map(|x| variance(x));
            let all = variances[0] + variances[1];
            let share = |i: usize| if all > 0.0 { variances[i] / all } else { 0.0 };
            Ok([
                Regular::replace(&mut filter.of_a, share(0))?,
                Regular::replace(&mut filter.of_b, share(1))?,
            ])
        };
        let regular = [of(0)?, of(1)?];
        Ok(Integers {
            regular,
            ruled_agrees_with_full: agreement(&ruled.passes(), &full.says),
        })
    }
}

impl Regular {
    /// Puts what a rule tells in the numbers' place.
    fn replace(x: &mut [f64], share: f64) -> Result<Self> {
        let n = x.len();
        let variance = variance(x);
        let mean = |range: std::ops::Range<usize>| {
            let count = range.len() as f64;
            x[range].iter().sum::<f64>() / count
        };
        let best = |fits: Vec<Fit>| -> Fit {
            let better = |best: Fit, fit: Fit| if fit.told > best.told { fit } else { best };
            fits.into_iter().reduce(better).unwrap_or_default()
        };
        let with_waves = |powers: usize| -> Result<Fit> {
            let fits = waves(n).map(|k| Fit::of(x, powers, Some(k)));
            Ok(best(fits.collect::<Result<_>>()?))
        };
        let cubic = Fit::of(x, 3, None)?;
        let wave = with_waves(0)?.told;
        let halves = match variance > 0.0 {
            true => (mean(n.div_ceil(2)..n) - mean(0..n / 2)) / variance.sqrt(),
            false => 0.0,
        };
        let rises = correlation(x.iter().enumerate().map(|(i, &x)| [i as f64, x]));
        let told = cubic.told;
        let both = best(vec![cubic, with_waves(3)?]);
        x.copy_from_slice(&both.numbers);
        Ok(Regular {
            share,
            rises,
            halves,
            cubic: told,
            wave,
            both: both.told,
        })
    }
}

/// How many periods waves have.
fn waves(n: usize) -> std::ops::RangeInclusive<usize> {
    1..=n.saturating_sub(1) / 2
}

fn variance(x: &[f64]) -> f64 {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64
}

/// Numbers as a rule has them.
#[derive(Default)]
struct Fit {
    /// The share of the variance that it tells.
    told: f64,
    numbers: Vec<f64>,
}

impl Fit {
    /// By powers of the integer up to this one, and a wave of so many periods.
    fn of(x: &[f64], powers: usize, wave: Option<usize>) -> Result<Self> {
        let n = x.len();
        // From -1 to 1, so that no power dwarfs another.
        let place = |i: usize| 2.0 * i as f64 / (n as f64 - 1.0) - 1.0;
        let turned = |i: usize, k: usize| std::f64::consts::TAU * (k * i) as f64 / n as f64;
        let columns = powers + 2 * usize::from(wave.is_some());
        let rule = Mat::from_fn(n, columns, |i, j| match (j.checked_sub(powers), wave) {
            (Some(0), Some(k)) => turned(i, k).sin(),
            (Some(_), Some(k)) => turned(i, k).cos(),
            _ => place(i).powi(j as i32 + 1),
        });
        let numbers = Mat::from_fn(n, 1, |i, _| x[i]);
        let fit = affine_fit(rule.as_ref(), numbers.as_ref())?;
        let at = |i: usize| {
            let terms = (0..columns).map(|j| rule[(i, j)] * fit.coefficients[(j, 0)]);
            fit.intercept[0] + terms.sum::<f64>()
        };
        Ok(Fit {
            told: fit.r2[0],
            numbers: (0..n).map(at).collect(),
        })
    }
}
