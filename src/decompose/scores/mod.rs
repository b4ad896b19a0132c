//! An attention score by what the query and the key are made of.

mod reads;

pub use reads::Side;
pub(super) use reads::{Constant, Reads};

use super::stack::{Row, Rows, row_hooks};
use super::{By, Component};
use crate::error::{Error, Result};
use crate::linalg::rounding::{gamma, rounded_up};
use crate::linalg::{Par, product_with, top_k_of_product};
use crate::model::{Cache, Config, Model};
use crate::names::{Head, Hook, NormSite};
use crate::tensor::{Scalar, Tensor};
use faer::MatRef;
use serde::{Serialize, Serializer};
use std::fmt;

/// What a query or a key is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScoreTerm {
    /// A component of the stream, through `ln1`, `W_Q` or `W_K`, the norm of queries and keys, and the rotation; or the
    /// `b` of one of these norms.
    Component(Component),
    /// `b_Q`
    QueryBias,
    /// `b_K`
    KeyBias,
}

impl fmt::Display for ScoreTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScoreTerm::Component(c) => c.fmt(f),
            ScoreTerm::QueryBias => f.write_str("b_Q"),
            ScoreTerm::KeyBias => f.write_str("b_K"),
        }
    }
}

impl Serialize for ScoreTerm {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A head's score at a query and a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Score {
    /// The head.
    pub head: Head,
    /// The query's position.
    pub query: usize,
    /// The key's position.
    pub key: usize,
}

/// A score as a table over what the query and the key are made of, not yet formed: a row for each part of either, whose
/// products are the entries.
///
/// In f64, whatever the run's precision: the run's values and the weights are taken as they are.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreParts {
    /// What the query is made of.
    pub query: Vec<ScoreTerm>,
    /// What the key is made of.
    pub key: Vec<ScoreTerm>,
    /// `[query term, d_head]`
    at_query: Tensor<f64>,
    /// `[key term, d_head]`
    at_key: Tensor<f64>,
    /// What products are divided by.
    scale: f64,
    /// What the key's position adds by itself (ALiBi).
    pub by_position: f64,
    /// The score of the run's own query and key, before the cap and the mask.
    pub run: f64,
    /// How far rounding, of the run and of the table, may have put the table's sum from [`ScoreParts::run`], underflow
    /// aside.
    pub rounding: f64,
}

/// An entry of a score's table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScorePair {
    /// The part of the query.
    pub query: ScoreTerm,
    /// The part of the key.
    pub key: ScoreTerm,
    /// What the two add to the score.
    pub value: f64,
}

impl ScoreParts {
    /// The hooks that a run must keep: `hook_z` in place of heads' results, which takes `d_head` numbers a head.
    ///
    /// # Errors
    /// When there is no such head.
    pub fn hooks(config: &Config, head: Head, by: By) -> Result<Vec<Hook>> {
        config.check_head(head)?;
        let mut hooks = row_hooks(config, Hook::ResidPre(head.layer), by);
        for hook in Reads::hooks(config, head.layer) {
            if !hooks.contains(&hook) {
                hooks.push(hook);
            }
        }
        Ok(hooks)
    }

    /// The sum of the table's entries: the score, before the cap and the mask.
    pub fn sum(&self) -> f64 {
        let (q, k) = (total(&self.at_query), total(&self.at_key));
        dot(&q, &k) / self.scale + self.by_position
    }

    /// What each part of the query adds, over all of the key: for a head, its Q-composition.
    pub fn by_query(&self) -> Vec<(ScoreTerm, f64)> {
        let k = total(&self.at_key);
        let rows = self.at_query.data().chunks_exact(k.len());
        let sums = rows.map(|q| dot(q, &k) / self.scale);
        self.query.iter().copied().zip(sums).collect()
    }

    /// What each part of the key adds, over all of the query: for a head, its K-composition.
    pub fn by_key(&self) -> Vec<(ScoreTerm, f64)> {
        let q = total(&self.at_query);
        let rows = self.at_key.data().chunks_exact(q.len());
        let sums = rows.map(|k| dot(&q, k) / self.scale);
        self.key.iter().copied().zip(sums).collect()
    }

    /// All entries, `[query term, key term]`; what the key's position adds by itself is none of them.
    pub fn table(&self, par: Par) -> Tensor<f64> {
        let K = self.at_key.mat(&[]).transpose();
        let mut table = Tensor::from_mat(product_with(self.at_query.mat(&[]), K, par).as_ref());
        table.data_mut().iter_mut().for_each(|x| *x /= self.scale);
        table
    }

    /// The `n` largest entries by modulus, the largest first, without forming the others.
    ///
    /// # Errors
    /// When the run holds a NaN or an infinity.
    ///
    /// # Cost
    /// `4 d_head` operations an entry of the table; memory for `n` entries a row.
    pub fn top(&self, n: usize, par: Par) -> Result<Vec<ScorePair>> {
        let K = self.at_key.mat(&[]).transpose();
        let mut best: Vec<ScorePair> = Vec::new();
        for sign in [1.0, -1.0] {
            let by = sign / self.scale;
            let rows = self.at_query.data().iter().map(|x| by * x).collect();
            let rows = Tensor::from_vec(self.at_query.shape(), rows);
            let top = top_k_of_product(rows.mat(&[]), K, n, par)?;
            for (i, &query) in self.query.iter().enumerate() {
                // An entry of the other sign is among the largest of the other product.
                let largest = top
                    .row(i)
                    .filter(|&(_, x)| x > 0.0 || x == 0.0 && sign > 0.0);
                best.extend(largest.map(|(j, x)| ScorePair {
                    query,
                    key: self.key[j],
                    value: sign * x,
                }));
            }
        }
        best.sort_by(|a, b| b.value.abs().total_cmp(&a.value.abs()));
        best.truncate(n);
        Ok(best)
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn total(rows: &Tensor<f64>) -> Vec<f64> {
    let d = rows.shape()[1];
    let mut sum = vec![0.0; d];
    for row in rows.data().chunks_exact(d) {
        sum.iter_mut().zip(row).for_each(|(s, x)| *s += x);
    }
    sum
}

/// A head's score at a query and a key, before the cap and the mask, by what has been written to the stream at the two
/// positions: embeddings, each earlier head's result, MLPs or their neurons, and biases, through `ln1` and the norms of
/// queries and keys at the run's own scales, and the rotation.
///
/// ```
/// use pathsum::decompose::{By, Component, Score, ScoreTerm, score_parts};
/// use pathsum::{Head, Run, Tokens, fixture};
/// let model = fixture::induction::<f64>();
/// let out = model.run(&Tokens::from_rows(&[[7, 3, 9, 7]]), Run::new().cache("*"))?;
/// let score = Score { head: Head { layer: 1, head: 0 }, query: 3, key: 1 };
/// let parts = score_parts(&model, &out.cache, 0, score, By::Head)?;
/// // The induction head's query is the token, its key what the previous-token head wrote.
/// let part = |of: Vec<(ScoreTerm, f64)>, c| of.into_iter().find(|p| p.0 == ScoreTerm::Component(c)).unwrap().1;
/// let previous = Component::Head(Head { layer: 0, head: 0 });
/// assert!(part(parts.by_query(), Component::Embed) > 23.0);
/// assert!(part(parts.by_key(), previous) > 23.0);
/// assert!((parts.sum() - parts.run).abs() <= parts.rounding);
/// # Ok::<(), pathsum::Error>(())
/// ```
///
/// # Errors
/// When there is no such head, sequence or position, or the cache lacks a hook that [`ScoreParts::hooks`] names.
///
/// # Cost
/// The components at two positions, and their products with `W_Q` and `W_K`: `2 d_model d_head` operations a component.
pub fn score_parts<T: Scalar>(
    model: &Model<T>,
    cache: &Cache<T>,
    sequence: usize,
    score: Score,
    by: By,
) -> Result<ScoreParts> {
    let c = model.config();
    check_score(c, cache, sequence, score)?;
    let query = side(
        model,
        cache,
        (score.head, Side::Query),
        (sequence, score.query),
        by,
    )?;
    let key = side(
        model,
        cache,
        (score.head, Side::Key),
        (sequence, score.key),
        by,
    )?;
    let scale = c.score_scale(score.head.layer);
    let by_position = match c.alibi_slopes() {
        Some(slopes) => slopes[score.head.head] * score.key as f64,
        None => 0.0,
    };
    let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    // At most the norms of the exact sums, of which the computed ones are off by their own rounding.
    let (q, k) = (
        norm(&total(&query.rows)) + query.off * query.size,
        norm(&total(&key.rows)) + key.off * key.size,
    );
    // The run's product of its own query and key, and of what these may be off; then the table's own roundings.
    let (dq, dk) = (query.run_off, key.run_off);
    let run = dq * k + q * dk + dq * dk;
    let multiplied = gamma::<f64>(2 * c.d_head + 8) * (q + dq) * (k + dk);
    let (sq, sk) = (query.size, key.size);
    let terms = query.labels.len().max(key.labels.len()) + c.d_head + 8;
    let own = (query.off + key.off + gamma::<f64>(2 * terms)) * sq * sk * (1.0 + query.off);
    let added = 4.0 * f64::EPSILON * by_position.abs();
    let rounding = (run + multiplied + own) / scale.abs() + added;
    Ok(ScoreParts {
        run: dot(&query.run, &key.run) / scale + by_position,
        rounding: rounding * rounded_up::<f64>(64 + 4 * terms),
        query: query.labels,
        key: key.labels,
        at_query: query.rows,
        at_key: key.rows,
        scale,
        by_position,
    })
}

/// That there is such a score.
pub(super) fn check_score<T: Scalar>(
    c: &Config,
    cache: &Cache<T>,
    sequence: usize,
    score: Score,
) -> Result<()> {
    c.check_head(score.head)?;
    let shape = cache.require(Hook::Embed)?.shape();
    for (what, at, most) in [
        ("sequence", sequence, shape[0]),
        ("query", score.query, shape[1]),
        ("key", score.key, shape[1]),
    ] {
        if at >= most {
            return Err(Error::out_of_range(what, at, "", "the run's", 0..most));
        }
    }
    Ok(())
}

/// The run's own query or key, as it is multiplied: `[d_head]`.
pub(super) fn run_side<T: Scalar>(
    model: &Model<T>,
    cache: &Cache<T>,
    (head, side): (Head, Side),
    (sequence, position): (usize, usize),
) -> Result<Vec<f64>> {
    let c = model.config();
    let own = match side {
        Side::Query => head.head,
        Side::Key => c.group(head.head),
    };
    let value = cache.require(side.multiplied(c, head.layer))?;
    let row = value.slice(&[sequence, position]);
    let row = &row[own * c.d_head..][..c.d_head];
    Ok(row.iter().map(|x| x.to_f64()).collect())
}

/// A query or a key.
struct AtSide {
    labels: Vec<ScoreTerm>,
    /// `[term, d_head]`
    rows: Tensor<f64>,
    /// The run's own.
    run: Vec<f64>,
    /// The norms of all terms that it is made of, added.
    size: f64,
    /// How far off its parts are, together, relative to that.
    off: f64,
    /// How far the run's own may be from the exact sum of its parts.
    run_off: f64,
}

/// How many rows of parts are projected at a time.
const BLOCK: usize = 512;

fn side<T: Scalar>(
    model: &Model<T>,
    cache: &Cache<T>,
    which: (Head, Side),
    at: (usize, usize),
    by: By,
) -> Result<AtSide> {
    let (head, side) = which;
    let (c, reads) = (model.config(), Reads::new(model, cache, which, at)?);
    let mut labels = Vec::new();
    let mut data: Vec<f64> = Vec::new();
    let mut waiting: Vec<f64> = Vec::new();
    let mut stream = vec![0.0; c.d_model];
    let mut written = 0.0;
    let project = |waiting: &mut Vec<f64>, data: &mut Vec<f64>| {
        let rows = waiting.len() / c.d_model;
        let x = MatRef::from_row_major_slice(waiting, rows, c.d_model);
        data.extend(reads.parts(x).into_data());
        waiting.clear();
    };
    let rows = Rows::new(model, cache, by, at.0, at.1);
    let roundings = rows.each(Hook::ResidPre(head.layer), &mut |part: Row<'_>| {
        labels.push(ScoreTerm::Component(part.label));
        stream.iter_mut().zip(part.row).for_each(|(s, x)| *s += x);
        written += part.size;
        waiting.extend(part.row);
        if waiting.len() == BLOCK * c.d_model {
            project(&mut waiting, &mut data);
        }
    })?;
    project(&mut waiting, &mut data);
    let (constants, rows) = reads.constants();
    labels.extend(
        constants
            .into_iter()
            .map(|constant| match (constant, side) {
                (Constant::Ln1, _) => {
                    ScoreTerm::Component(Component::NormBias(NormSite::Ln1(head.layer)))
                }
                (Constant::Projection, Side::Query) => ScoreTerm::QueryBias,
                (Constant::Projection, Side::Key) => ScoreTerm::KeyBias,
                (Constant::Norm, _) => {
                    ScoreTerm::Component(Component::NormBias(side.norm_site(head.layer)))
                }
            }),
    );
    data.extend(rows.into_data());
    let (most, constant) = (reads.most(), reads.constants_size());
    let stream = dot(&stream, &stream).sqrt();
    // The run's stream is its parts to within as many roundings as it meets on its way; it is then read with its own.
    let in_stream = gamma::<T>(roundings).to_f64() * written;
    let g = reads.gamma::<T>();
    let run_off = most * (in_stream + g * (stream + in_stream)) + g * constant;
    Ok(AtSide {
        rows: Tensor::from_vec(&[labels.len(), c.d_head], data),
        labels,
        run: run_side(model, cache, which, at)?,
        size: most * written + constant,
        off: reads.gamma::<f64>() + gamma::<f64>(roundings),
        run_off,
    })
}
