//! Why large values do not attend to small ones, though their own scores are highest there: the query's position.

use super::circuits::{Circuits, order};
use super::lab::{Lab, mean_of, total};
use crate::error::Result;
use crate::intervene::{Change, Intervention, Part, intervene};
use crate::model::{Model, Run};
use crate::names::Hook;
use crate::tensor::Tensor;
use serde::Serialize;
use std::ops::Range;

/// The attention of large values to small ones.
#[derive(Clone, Debug, Serialize)]
pub struct Zero {
    /// The small values: the eighth of the values that is smallest, of 51 those below 6.
    pub small: Range<usize>,
    /// The large values: the three tenths that are largest, of 51 those from 36 on.
    pub large: Range<usize>,
    /// For each head, the values above the small ones whose own token scores a small one highest.
    pub to_small: Vec<Vec<usize>>,
    /// `[head][step]`: the mean of what a query's position adds to the scores of the small values.
    pub small_keys: Vec<Vec<f64>>,
    /// And of all values.
    pub all_keys: Vec<Vec<f64>>,
    /// Queries in the dataset that this was measured on: large values after the first value in order, in lists with a
    /// small one.
    pub queries: usize,
    /// Their attention to small values, of each head.
    pub attended: Vec<f64>,
    /// The same with every query's position exchanged for that of the first value in order.
    pub exchanged: Vec<f64>,
    /// The share of these queries whose largest weight in the list lies on the right answer, of each head.
    pub hits: Vec<f64>,
    /// The same with their positions exchanged.
    pub hits_exchanged: Vec<f64>,
}

impl Zero {
    pub(super) fn of(lab: &Lab<'_>, circuits: &Circuits) -> Result<Self> {
        const SMALL: usize = 8;
        const LARGE: (usize, usize) = (3, 10);
        let values = lab.values;
        let small = 0..values / SMALL;
        let large = values - values * LARGE.0 / LARGE.1..values;
        let to_small = |h: usize| {
            let top = |d: usize| order(&circuits.qk_full[h][d][..values])[0];
            let such = |d: &usize| small.contains(&top(*d));
            (small.end..values).filter(such).collect()
        };
        let by_step = |keys: Range<usize>| -> Vec<Vec<f64>> {
            let of = |h: usize, p: usize| {
                mean_of(circuits.qk_pos_emb[h][p][keys.clone()].iter().copied())
            };
            let of_head = |h: usize| lab.steps().map(|p| of(h, p)).collect();
            lab.heads().map(of_head).collect()
        };
        let exchanged = exchanged(lab)?;
        let is_small = |t: i64| small.contains(&(t as usize));
        let queries: Vec<(usize, usize)> = lab
            .on
            .all()
            .filter(|&s| {
                lab.tokens.sequence(s)[..lab.length]
                    .iter()
                    .any(|&t| is_small(t))
            })
            .flat_map(|s| lab.steps().skip(2).map(move |p| (s, p)))
            .filter(|&(s, p)| large.contains(&(lab.tokens.sequence(s)[p] as usize)))
            .collect();
        let attention = |pattern: &Tensor<f64>, h: usize| {
            let of = |&(s, p): &(usize, usize)| -> f64 {
                let keys = pattern.slice(&[s, h, p]).iter();
                let keys = keys.zip(lab.tokens.sequence(s));
                total(keys.filter(|(_, t)| is_small(**t)).map(|(a, _)| *a))
            };
            mean_of(queries.iter().map(of))
        };
        let hits = |pattern: &Tensor<f64>, h: usize| {
            let of = |&(s, p): &(usize, usize)| {
                let sequence = lab.tokens.sequence(s);
                let top = order(&pattern.slice(&[s, h, p])[..lab.length])[0];
                f64::from(sequence[top] == sequence[p + 1])
            };
            mean_of(queries.iter().map(of))
        };
        let of_heads = |f: &dyn Fn(usize) -> f64| lab.heads().map(f).collect();
        Ok(Zero {
            to_small: lab.heads().map(to_small).collect(),
            small_keys: by_step(small.clone()),
            all_keys: by_step(0..values),
            queries: queries.len(),
            attended: of_heads(&|h| attention(&lab.on.pattern, h)),
            exchanged: of_heads(&|h| attention(&exchanged, h)),
            hits: of_heads(&|h| hits(&lab.on.pattern, h)),
            hits_exchanged: of_heads(&|h| hits(&exchanged, h)),
            small,
            large,
        })
    }

    /// Heads in which most of the large values score a small one highest.
    pub fn puzzling(&self) -> Vec<usize> {
        let most = |head: &Vec<usize>| {
            let large = head.iter().filter(|v| self.large.contains(v)).count();
            2 * large > self.large.len()
        };
        (0..self.to_small.len())
            .filter(|&h| most(&self.to_small[h]))
            .collect()
    }

    /// What a step's position adds to the scores of small values, over what it adds to all.
    pub fn bias(&self, head: usize) -> Vec<f64> {
        let steps = self.small_keys[head].iter().zip(&self.all_keys[head]);
        steps.map(|(small, all)| small - all).collect()
    }
}

/// The patterns with the queries of all values in order where the first one's are: their position embedding is that one's,
/// and nothing else is changed.
fn exchanged(lab: &Lab<'_>) -> Result<Tensor<f64>> {
    let first = lab.length + 1;
    let later = first + 1..lab.steps().end;
    if later.is_empty() {
        return Ok(lab.on.pattern.clone());
    }
    let mut weights = lab.model.weights().clone();
    let embedding = weights.W_pos.slice(&[first]).to_vec();
    for p in later.clone() {
        weights.W_pos.slice_mut(&[p]).copy_from_slice(&embedding);
    }
    let moved = Model::new(lab.model.config().clone(), weights)?;
    let queries = moved.run(lab.tokens, Run::new().cache(Hook::Q(0)))?.cache;
    let change = [Intervention::new(
        Hook::Q(0),
        Part::all().positions(later),
        Change::Patch,
    )];
    let run = Run::new().cache(Hook::Pattern(0));
    let run = intervene(run, &lab.model, lab.tokens, &change, Some(&queries))?;
    let mut out = lab.model.run(lab.tokens, run)?;
    let pattern = out.cache.get_mut(Hook::Pattern(0)).expect("it was kept");
    Ok(std::mem::replace(pattern, Tensor::zeros(&[0])))
}
