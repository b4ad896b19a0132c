//! Lists that are hard by the circuit.

use super::circuits::top2;
use super::performance::probabilities;
use crate::error::Result;
use crate::metric::{Answers, mean};
use crate::model::{Model, Tokens};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

/// Lists of each adversarial kind that are tried.
const TRIED: usize = 200;

/// A kind of lists, and how the model does on them.
#[derive(Clone, Debug, Serialize)]
pub struct Adversarial {
    /// What the lists have in common.
    pub kind: String,
    /// How many were tried.
    pub lists: usize,
    /// Mean probability of the right token.
    pub mean: f64,
    /// The worst list, and the position of the worst prediction in it.
    pub worst: Vec<i64>,
    /// That prediction's position.
    pub position: usize,
    /// The right token's probability there.
    pub probability: f64,
    /// The token predicted instead.
    pub predicted: usize,
}

/// Lists on which the circuit has little to go by: a large jump from one value to the next, and values all at the
/// upper end.
pub(super) fn adversarial(
    model: &Model<f64>,
    values: usize,
    length: usize,
) -> Result<Vec<Adversarial>> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut draw = |from: usize, to: usize, n: usize| -> Vec<i64> {
        (0..n).map(|_| rng.random_range(from..to) as i64).collect()
    };
    let half = length / 2;
    let (low, high) = (values / 5, values - values / 5);
    let mut kinds: Vec<(&str, Vec<Vec<i64>>)> = Vec::new();
    kinds.push((
        "any values",
        (0..TRIED).map(|_| draw(0, values, length)).collect(),
    ));
    let jump = |_| [draw(0, low, half), draw(high, values, length - half)].concat();
    kinds.push(("a large jump", (0..TRIED).map(jump).collect()));
    kinds.push((
        "all large",
        (0..TRIED).map(|_| draw(high, values, length)).collect(),
    ));
    kinds
        .into_iter()
        .map(|(kind, lists)| tried(model, values, kind, &lists))
        .collect()
}

/// Probabilities of the right tokens on lists.
fn tried(model: &Model<f64>, values: usize, kind: &str, lists: &[Vec<i64>]) -> Result<Adversarial> {
    let length = lists[0].len();
    let sequence = |list: &Vec<i64>| {
        let mut sorted = list.clone();
        sorted.sort_unstable();
        [&list[..], &[values as i64], &sorted].concat()
    };
    let tokens = Tokens::from_rows(&lists.iter().map(sequence).collect::<Vec<_>>());
    let positions: Vec<usize> = (length..2 * length).collect();
    let answers = Answers::next_tokens(&tokens, &positions)?;
    let logits = answers.rows_of(&model.logits(&tokens)?);
    let p = probabilities(&answers, &logits);
    let worst = (0..p.len()).fold(0, |worst, i| if p[i] < p[worst] { i } else { worst });
    let (list, index) = (worst / length, worst % length);
    let row = logits.slice(&[list, index]);
    Ok(Adversarial {
        kind: kind.into(),
        lists: lists.len(),
        mean: mean(&p),
        worst: tokens.sequence(list).to_vec(),
        position: positions[index],
        probability: p[worst],
        predicted: top2(row)[0],
    })
}
