//! Strings of other lengths and depths: odd lengths, deep nesting, and longer than in training.

use super::adversarial::BALANCED;
use super::data::Data;
use crate::error::Result;
use crate::linalg::{Par, affine_fit, product};
use crate::metric::{Answers, Standard, mean, per_sequence};
use crate::model::{Config, Model, Run, Tokens};
use crate::task::{Brackets, Task};
use crate::tensor::Tensor;
use faer::Mat;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

/// Strings of each length or depth that are generated.
const STRINGS: usize = 100;
/// How far beyond the longest strings of the task lengths go.
const LONGER: usize = 20;

/// How the model fares on strings of other lengths and depths.
#[derive(Clone, Debug, Serialize)]
pub struct Beyond {
    /// How many of the study's strings have each number of brackets, ascending.
    pub lengths: Vec<(usize, usize)>,
    /// The deepest nesting of the study's balanced strings.
    pub deepest: usize,
    /// `[brackets, share right]` of strings of odd length: balanced ones with one more bracket somewhere.
    pub odd: Vec<(usize, f64)>,
    /// `[depth, share right]` of balanced strings of full length that are nested as deeply from their beginning.
    pub depths: Vec<(usize, f64)>,
    /// The largest difference of `W_pos` from sines and cosines.
    pub sine_off: f64,
    /// `[brackets, share of balanced strings right, share of others right]` beyond the task's longest, with `W_pos`
    /// continued; none where it is no sine.
    pub longer: Vec<(usize, f64, f64)>,
    /// Of the lengths from 0 to the longest, those whose parity a head made by hand tells; of how many.
    pub parity: (usize, usize),
}

impl Beyond {
    pub(super) fn new(model: &Model<f64>, data: &Data, par: Par) -> Result<Self> {
        let config = model.config();
        let longest = config.n_ctx - 2;
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let task = Brackets::default();
        let mut lengths: Vec<(usize, usize)> = Vec::new();
        for brackets in 0..=longest {
            let count = data.lengths.iter().filter(|&&l| l == brackets + 2).count();
            if count > 0 {
                lengths.push((brackets, count));
            }
        }
        let balanced = (0..data.kinds.len()).filter(|&s| data.balanced[s]);
        let deepest = balanced.map(|s| depth(&task.text(data.tokens.sequence(s))));
        let right = |strings: &[String]| share_right(model, &task, strings, par);
        let mut odd = Vec::new();
        for brackets in (1..longest).step_by(2) {
            let strings: Vec<String> = (0..STRINGS)
                .map(|_| one_more(brackets - 1, &mut rng))
                .collect();
            odd.push((brackets, right(&strings)?));
        }
        let mut depths = Vec::new();
        for deep in 1..=longest / 2 {
            let strings: Vec<String> = (0..STRINGS)
                .map(|_| nested(longest, deep, &mut rng))
                .collect();
            depths.push((deep, right(&strings)?));
        }
        let sine_off = sine_off(&model.weights().W_pos);
        let mut longer = Vec::new();
        if is_sine(config, sine_off) {
            for brackets in (longest + 2..=longest + LONGER).step_by(2) {
                let (model, task) = (continued(model, brackets + 2)?, Brackets::new(brackets));
                let right = |strings: Vec<String>| share_right(&model, &task, &strings, par);
                let fine = (0..STRINGS)
                    .map(|_| balanced_of(brackets, &mut rng))
                    .collect();
                let fine = right(fine)?;
                let others = (0..STRINGS)
                    .map(|_| unbalanced_of(brackets, &mut rng))
                    .collect();
                longer.push((brackets, fine, right(others)?));
            }
        }
        Ok(Beyond {
            lengths,
            deepest: deepest.max().unwrap_or(0),
            odd,
            depths,
            sine_off,
            longer,
            parity: parity(&model.weights().W_pos)?,
        })
    }

    /// Whether the positional embedding is of sines and cosines.
    pub fn is_sine(&self) -> bool {
        !self.longer.is_empty()
    }
}

/// The share of right answers to strings of brackets.
fn share_right(model: &Model<f64>, task: &Brackets, strings: &[String], par: Par) -> Result<f64> {
    let rows = strings.iter().map(|b| task.sequence(b));
    let rows = rows.collect::<Result<Vec<_>>>()?;
    let answers = Answers::at(rows.len(), &task.read_at());
    let logits = model
        .run(&Tokens::from_rows(&rows), Run::new().par(par))?
        .logits;
    let p = per_sequence(
        &Standard::Probability(BALANCED),
        &answers,
        &answers.rows_of(&logits),
    );
    let right = strings
        .iter()
        .zip(p)
        .map(|(brackets, p)| f64::from((p > 0.5) == Brackets::balanced_by_loop(brackets)));
    Ok(mean(&right.collect::<Vec<_>>()))
}

// ---- Strings

/// A balanced string, each of that length as likely: a random order of one closing bracket more than opening ones has
/// one rotation that is a balanced string and that bracket.
fn balanced_of(brackets: usize, rng: &mut ChaCha8Rng) -> String {
    let mut order: Vec<char> = "(".repeat(brackets / 2).chars().collect();
    order.extend(")".repeat(brackets / 2 + 1).chars());
    for i in (1..order.len()).rev() {
        order.swap(i, rng.random_range(0..=i));
    }
    let (mut height, mut lowest, mut at) = (0i64, 0, 0);
    for (i, c) in order.iter().enumerate() {
        height += if *c == '(' { 1 } else { -1 };
        if height < lowest {
            (lowest, at) = (height, i + 1);
        }
    }
    let turned = at % order.len();
    order.rotate_left(turned);
    order.into_iter().take(brackets).collect()
}

/// Tosses for every bracket, until the string is not balanced.
fn unbalanced_of(brackets: usize, rng: &mut ChaCha8Rng) -> String {
    loop {
        let toss = |_| if rng.random() { '(' } else { ')' };
        let string: String = (0..brackets).map(toss).collect();
        if !Brackets::balanced_by_loop(&string) {
            return string;
        }
    }
}

/// A balanced string with one more bracket somewhere.
fn one_more(brackets: usize, rng: &mut ChaCha8Rng) -> String {
    let mut string = balanced_of(brackets, rng);
    let bracket = if rng.random() { '(' } else { ')' };
    string.insert(rng.random_range(0..=brackets), bracket);
    string
}

/// A balanced string that opens so many brackets at once, and then tosses within that depth.
fn nested(brackets: usize, deep: usize, rng: &mut ChaCha8Rng) -> String {
    let mut string = "(".repeat(deep);
    let mut height = deep;
    while string.len() < brackets {
        let up = height < deep && height < brackets - string.len();
        if up && (height == 0 || rng.random()) {
            string.push('(');
            height += 1;
        } else {
            string.push(')');
            height -= 1;
        }
    }
    string
}

/// How many brackets are open at most.
fn depth(string: &str) -> usize {
    let mut open = 0usize;
    let heights = string.chars().map(|c| {
        open = if c == '(' {
            open + 1
        } else {
            open.saturating_sub(1)
        };
        open
    });
    heights.max().unwrap_or(0)
}

// ---- Positions

/// Sines and cosines in turn, of wavelengths from 2π to 10000 times that.
fn sine(position: usize, place: usize, d_model: usize) -> f64 {
    const LONGEST: f64 = 10_000.0;
    let pair = (place - place % 2) as f64 / d_model as f64;
    let angle = position as f64 / LONGEST.powf(pair);
    if place.is_multiple_of(2) {
        angle.sin()
    } else {
        angle.cos()
    }
}

fn sine_off(W_pos: &Tensor<f64>) -> f64 {
    let (n_ctx, d_model) = (W_pos.shape()[0], W_pos.shape()[1]);
    let places = (0..n_ctx).flat_map(|p| (0..d_model).map(move |d| [p, d]));
    places.fold(0.0, |most, [p, d]| {
        f64::max(most, (W_pos[[p, d]] - sine(p, d, d_model)).abs())
    })
}

/// Whether a difference from the sines is no more than angles in single precision make: they are as large as the last
/// position, and rounded once when the frequency is, and once when it is multiplied.
fn is_sine(config: &Config, off: f64) -> bool {
    off <= 2.0 * f64::from(f32::EPSILON) * config.n_ctx as f64
}

/// The model for longer sequences, its positional embedding continued.
fn continued(model: &Model<f64>, n_ctx: usize) -> Result<Model<f64>> {
    let config = Config {
        n_ctx,
        ..model.config().clone()
    };
    let mut weights = model.weights().clone();
    let (known, d_model) = (weights.W_pos.shape()[0], weights.W_pos.shape()[1]);
    let own = weights.W_pos;
    weights.W_pos = Tensor::from_fn(&[n_ctx, d_model], |place| match place[0] < known {
        true => own[[place[0], place[1]]],
        false => sine(place[0], place[1], d_model),
    });
    Model::new(config, weights)
}

/// A head made by hand, on the positional embedding alone, that tells odd from even lengths: it attends to the last
/// position that there is, where the scores rise along the direction that fits the position's number best, and copies
/// what lies along the direction that fits the parity best.
fn parity(W_pos: &Tensor<f64>) -> Result<(usize, usize)> {
    /// How sharply it attends: one position further weighs e¹⁰ times as much.
    const SHARP: f64 = 10.0;
    let n_ctx = W_pos.shape()[0];
    let wanted = Mat::from_fn(n_ctx, 2, |p, column| match column {
        0 => p as f64,
        _ if p.is_multiple_of(2) => 1.0,
        _ => -1.0,
    });
    let fit = affine_fit(W_pos.rows(), wanted.as_ref())?;
    let read = product(W_pos.rows(), fit.coefficients.as_ref());
    let lengths = 0..n_ctx - 1;
    let told = lengths.clone().filter(|&brackets| {
        let end = brackets + 1;
        let scores: Vec<f64> = (0..=end).map(|p| SHARP * read[(p, 0)]).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let mixed: f64 = (0..=end).map(|p| weights[p] / sum * read[(p, 1)]).sum();
        // The `[end]` of an even length stands at an odd position.
        (mixed + fit.intercept[1] < 0.0) == brackets.is_multiple_of(2)
    });
    Ok((told.count(), lengths.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn strings_are_what_they_are_called() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut all = BTreeSet::new();
        for _ in 0..400 {
            let fine = balanced_of(6, &mut rng);
            assert!(
                Brackets::balanced_by_loop(&fine) && fine.len() == 6,
                "{fine}"
            );
            all.insert(fine);
            let odd = one_more(8, &mut rng);
            assert!(odd.len() == 9 && !Brackets::balanced_by_loop(&odd));
            for deep in 1..=5 {
                let deeply = nested(10, deep, &mut rng);
                assert!(
                    Brackets::balanced_by_loop(&deeply) && deeply.len() == 10,
                    "{deeply}"
                );
                assert_eq!(depth(&deeply), deep);
            }
        }
        // The Catalan number.
        assert_eq!(all.len(), 5);
        assert_eq!(balanced_of(0, &mut rng), "");
    }
}
