//! Composition scores of random heads, to hold a model's against.

use super::composition::composition_score;
use crate::error::Result;
use crate::factored::Factored;
use crate::linalg::Par;
use faer::Mat;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;
use serde::Serialize;

/// The composition scores of random matrices.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CompositionBaseline {
    /// The mean score.
    pub mean: f64,
    /// The standard deviation of a score (with `samples - 1`).
    pub std: f64,
    /// How many were drawn.
    pub samples: usize,
}

/// What composition scores random heads of these sizes have: those of `samples` pairs of matrices `A Bᵀ`, with
/// `A, B: [d_model, d_head]` of entries uniform in `±1/√d_head`.
///
/// The same seed gives the same baseline, on any number of threads but for rounding.
///
/// # Panics
/// When there are fewer than two samples.
///
/// # Source
/// The write-up of the July 2023 challenge (*palindromes*), after `torch.nn.init.kaiming_uniform_` with `a = √5`.
///
/// ```
/// use pathsum::{Par, decompose::composition_baseline};
/// let baseline = composition_baseline(28, 14, 300, 0, Par::Rayon)?;
/// // The write-up's own: 0.18756, with a standard deviation of 0.01410.
/// let of_the_mean = baseline.std / (baseline.samples as f64).sqrt();
/// assert!((baseline.mean - 0.18756).abs() < 6.0 * of_the_mean);
/// # Ok::<(), pathsum::Error>(())
/// ```
#[track_caller]
pub fn composition_baseline(
    d_model: usize,
    d_head: usize,
    samples: usize,
    seed: u64,
    par: Par,
) -> Result<CompositionBaseline> {
    assert!(samples >= 2, "a spread of {samples} samples");
    let score = |sample: usize| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // A stream of its own for each sample, whichever thread draws it.
        rng.set_stream(sample as u64);
        let bound = 1.0 / (d_head as f64).sqrt();
        let mut random =
            |m: usize, n: usize| Mat::from_fn(m, n, |_, _| rng.random_range(-bound..bound));
        let mut matrix = || Factored::new(random(d_model, d_head), random(d_head, d_model));
        composition_score(&matrix(), &matrix())
    };
    let scores: Vec<f64> = match par {
        Par::Seq => (0..samples).map(score).collect::<Result<_>>()?,
        Par::Rayon => (0..samples)
            .into_par_iter()
            .map(score)
            .collect::<Result<_>>()?,
    };
    let mean = scores.iter().sum::<f64>() / samples as f64;
    let squares: f64 = scores.iter().map(|s| (s - mean) * (s - mean)).sum();
    Ok(CompositionBaseline {
        mean,
        std: (squares / (samples - 1) as f64).sqrt(),
        samples,
    })
}
