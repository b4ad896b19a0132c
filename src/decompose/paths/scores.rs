//! An attention score by what the query and the key are made of.

use super::{row, times};
use crate::decompose::{By, Component, Stack, layer_norm_stack, residual_stack};
use crate::diagram::NormPlace;
use crate::error::{Error, Result};
use crate::model::{Cache, Model};
use crate::names::{Head, Hook, NormSite};
use crate::op::{Layout, Place, Turns};
use crate::tensor::{Scalar, Tensor};
use faer::MatRef;
use serde::{Serialize, Serializer};
use std::fmt;

/// What a query or a key is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScoreTerm {
    /// A component of the stream, through `ln1` and `W_Q` or `W_K`.
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

/// A score, as a table over what the query and the key are made of.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreTable<T: Scalar> {
    /// What the query is made of.
    pub query: Vec<ScoreTerm>,
    /// What the key is made of.
    pub key: Vec<ScoreTerm>,
    /// `[query term, key term]`: what each pair adds to the score.
    pub values: Tensor<T>,
}

impl<T: Scalar> ScoreTable<T> {
    /// The score, before any mask.
    pub fn sum(&self) -> T {
        self.values.data().iter().copied().sum()
    }

    /// What each part of the query adds, over all of the key: for a head, its Q-composition.
    pub fn by_query(&self) -> Vec<(ScoreTerm, T)> {
        let rows = self.values.data().chunks_exact(self.key.len());
        let sums = rows.map(|row| row.iter().copied().sum());
        self.query.iter().copied().zip(sums).collect()
    }

    /// What each part of the key adds, over all of the query: for a head, its K-composition.
    pub fn by_key(&self) -> Vec<(ScoreTerm, T)> {
        let column = |j: usize| self.values.data().iter().skip(j).step_by(self.key.len());
        let sums = (0..self.key.len()).map(|j| column(j).copied().sum());
        self.key.iter().copied().zip(sums).collect()
    }
}

/// A head's score at a query and a key, before any mask, by what has been written to the stream at the two
/// positions: embeddings, each earlier head's result, MLPs, and biases, through `ln1` at the run's own scale.
///
/// ```
/// use pathsum::decompose::{Component, ScoreTerm, score_table};
/// use pathsum::{Head, Run, Tokens, fixture};
/// let model = fixture::induction::<f64>();
/// let out = model.run(&Tokens::from_rows(&[[7, 3, 9, 7]]), Run::new().cache("*"))?;
/// let table = score_table(&model, &out.cache, 0, Head { layer: 1, head: 0 }, 3, 1)?;
/// // The induction head's query is the token, its key what the previous-token head wrote.
/// let part = |of: Vec<(ScoreTerm, f64)>, c| of.into_iter().find(|p| p.0 == ScoreTerm::Component(c)).unwrap().1;
/// let previous = Component::Head(Head { layer: 0, head: 0 });
/// assert!(part(table.by_query(), Component::Embed) > 23.0);
/// assert!(part(table.by_key(), previous) > 23.0);
/// # Ok::<(), pathsum::Error>(())
/// ```
///
/// # Errors
/// When there is no such head, sequence or position, or the cache lacks a hook that [`By::hooks`] names by head,
/// or the layer's `ln1.hook_scale`.
///
/// # Cost
/// A product of the components at the two positions with `W_Q` and `W_K`, and one of the results.
pub fn score_table<T: Scalar>(
    model: &Model<T>,
    cache: &Cache<T>,
    sequence: usize,
    head: Head,
    query: usize,
    key: usize,
) -> Result<ScoreTable<T>> {
    let c = model.config();
    if head.layer >= c.n_layers || head.head >= c.n_heads {
        return Err(Error::NoSuchHead {
            head,
            layers: c.n_layers,
            heads: c.n_heads,
        });
    }
    if c.qk_norm.is_some() || c.score_cap.is_some() || c.alibi_slopes().is_some() {
        let reason = "scores are no products of queries and keys as they are projected alone";
        return Err(Error::NotCovered(reason));
    }
    let stack = residual_stack(model, cache, Hook::ResidPre(head.layer), By::Head)?;
    let site = NormSite::Ln1(head.layer);
    // Attention of post-norm blocks, and where norms stand behind alone, reads the stream itself.
    let stack = match model
        .norm_at(site)
        .filter(|_| c.norm_place != NormPlace::Stream)
    {
        Some(_) => layer_norm_stack(model, cache, stack, Hook::Scale(site))?,
        None => stack,
    };
    let &[_, batch, pos, _] = stack.values.shape() else {
        unreachable!("a stack has four axes")
    };
    for (what, at, most) in [
        ("sequence", sequence, batch),
        ("query", query, pos),
        ("key", key, pos),
    ] {
        if at >= most {
            return Err(Error::out_of_range(what, at, "", "the run's", 0..most));
        }
    }
    let w = model.weights();
    let mut at_query = projected(&stack, sequence, query, w.W_Q(head), w.b_Q(head));
    let mut at_key = projected(&stack, sequence, key, w.W_K(head), w.b_K(head));
    if let Some(rotary) = c.rotary_at(head.layer) {
        // Each term of a query or key is turned as the whole is.
        for (rows, position) in [(&mut at_query, query), (&mut at_key, key)] {
            let &[n, d_head] = rows.shape() else {
                unreachable!("a row for each term")
            };
            let place = Place {
                position,
                length: pos,
            };
            let turns = Turns::new(rotary, [place]);
            let mut turned = rows.clone().reshape(&[1, 1, n, d_head]);
            turns.turn(Layout::ROWS, &mut turned);
            *rows = turned.reshape(&[n, d_head]);
        }
    }
    let mut values = times(at_query.mat(&[]), at_key.mat(&[]).transpose());
    let scale = T::from_f64(c.score_scale(head.layer));
    values.data_mut().iter_mut().for_each(|x| *x /= scale);
    let labels = |bias: ScoreTerm| {
        let components = stack.labels.iter().copied().map(ScoreTerm::Component);
        components.chain([bias]).collect()
    };
    Ok(ScoreTable {
        query: labels(ScoreTerm::QueryBias),
        key: labels(ScoreTerm::KeyBias),
        values,
    })
}

/// The components at a position through a head's matrix, and the bias: `[component + 1, d_head]`.
fn projected<T: Scalar>(
    stack: &Stack<T>,
    sequence: usize,
    position: usize,
    W: MatRef<'_, T>,
    b: &[T],
) -> Tensor<T> {
    let mut data = Vec::new();
    for i in 0..stack.labels.len() {
        data.extend(times(row(stack.values.slice(&[i, sequence, position])), W).into_data());
    }
    data.extend(b);
    Tensor::from_vec(&[stack.labels.len() + 1, b.len()], data)
}
