//! Two ways to add on circles: the clock, which multiplies, and the pizza, which averages.

use super::losses::right;
use super::pass::{EQUALS, Pass};
use crate::error::Result;
use crate::frequency::share;
use crate::gradient::hook_gradients;
use crate::linalg::Par;
use crate::metric::{Answer, Answers, Metric, mean};
use crate::model::{Model, Tokens};
use crate::names::Hook;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

/// What tells a clock from a pizza.
///
/// Source: Zhong, Liu, Tegmark and Andreas, "The Clock and the Pizza: Two Stories in Mechanistic Explanation of Neural
/// Networks" (2023).
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Clock {
    /// The mean cosine of a logit's derivatives by the embeddings of `a` and of `b`, over random pairs and answers. A pizza
    /// knows only the embeddings' mean: 1.
    pub gradient_symmetry: f64,
    /// How many pairs and answers that is of.
    pub sampled: usize,
    /// The mean over the differences `a - b` of the standard deviation of the right logit among pairs of one difference, over
    /// that among all pairs. A pizza's right logit hangs on the difference: towards 0. A clock's does not: 1.
    pub distance_irrelevance: f64,
    /// The share of the right logit's variation that is a function of the difference.
    pub by_difference: f64,
}

/// The way in which a model adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// It multiplies cosines and sines.
    Clock,
    /// It adds the embeddings up, and takes the length of the sum.
    Pizza,
    /// The numbers do not agree on either.
    Between,
}

/// So many random pairs and answers.
const SAMPLED: usize = 1000;
/// Above this, derivatives count as the same, as those of pizzas are.
pub(super) const SYMMETRIC: f64 = 0.9;
/// Below this, the right logit counts as a matter of the difference.
pub(super) const BY_DISTANCE: f64 = 0.6;

/// One logit: that of the answer's class.
struct OfClass;

impl Metric for OfClass {
    fn name(&self) -> String {
        "logit".into()
    }

    fn of(&self, answer: &Answer, logits: &[f64]) -> f64 {
        logits[answer.class.unwrap_or_default()]
    }

    fn gradient(&self, answer: &Answer, logits: &[f64], d_logits: &mut [f64]) -> Result<f64> {
        d_logits.fill(0.0);
        d_logits[answer.class.unwrap_or_default()] = 1.0;
        Ok(self.of(answer, logits))
    }
}

impl Clock {
    pub(super) fn of(model: &Model<f64>, pass: &Pass, par: Par) -> Result<Self> {
        let p = pass.p;
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let drawn: Vec<[usize; 2]> = (0..SAMPLED)
            .map(|_| [rng.random_range(0..p * p), rng.random_range(0..p)])
            .collect();
        let ids = drawn
            .iter()
            .flat_map(|&[pair, _]| pass.tokens.sequence(pair));
        let tokens = Tokens::new(SAMPLED, 3, ids.copied().collect());
        let answers = Answers::new(&[EQUALS], drawn.iter().map(|d| d[1]).collect());
        let found = hook_gradients(model, &tokens, &OfClass, &answers, &[Hook::Embed], par)?;
        let by_embedding = &found.gradients[Hook::Embed];
        let cosine = |i: usize| {
            let (a, b) = (by_embedding.slice(&[i, 0]), by_embedding.slice(&[i, 1]));
            let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
            dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
        };
        // Where a logit hangs on neither there is nothing to compare.
        let cosines: Vec<f64> = (0..SAMPLED).map(cosine).filter(|c| c.is_finite()).collect();

        let own = |pair: usize| pass.logits[[pair, right(p, pair)]];
        let all: Vec<f64> = (0..p * p).map(own).collect();
        let by_difference: Vec<Vec<f64>> = (0..p)
            .map(|d| (0..p).map(|b| all[(b + d) % p * p + b]).collect())
            .collect();
        let whole = variance(&all);
        let within: Vec<f64> = by_difference.iter().map(|v| variance(v)).collect();
        let deviations: Vec<f64> = within.iter().map(|v| v.sqrt()).collect();
        Ok(Clock {
            gradient_symmetry: if cosines.is_empty() {
                0.0
            } else {
                mean(&cosines)
            },
            sampled: cosines.len(),
            distance_irrelevance: share(mean(&deviations), whole.sqrt()),
            by_difference: share(whole - mean(&within), whole),
        })
    }

    /// Which way these numbers speak for.
    pub fn way(&self) -> Way {
        let symmetric = self.gradient_symmetry > SYMMETRIC;
        let by_distance = self.distance_irrelevance < BY_DISTANCE;
        match (symmetric, by_distance) {
            (false, false) => Way::Clock,
            (true, true) => Way::Pizza,
            _ => Way::Between,
        }
    }
}

fn variance(values: &[f64]) -> f64 {
    let middle = mean(values);
    mean(
        &values
            .iter()
            .map(|x| (x - middle).powi(2))
            .collect::<Vec<_>>(),
    )
}
