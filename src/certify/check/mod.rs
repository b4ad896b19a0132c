//! The checker: whether a certificate is of a model, and proves what it says.
//!
//! It searches nothing, and shares no arithmetic with what does: numbers are middles with radii instead of intervals, the
//! tables are formed from the weights by the plain definition (`tables.rs` has the formulas), sizes are counted from
//! Pascal's triangle, and of every proof in a tree the bound of `sets/mod.rs` is evaluated once. What it takes as given:
//! which inputs a space has and which answer is right ([`Space`], [`Task`]), how a tree is written ([`Forest::read`]), which
//! models are of a kind that tables are of (`OneLayer::covers`), and how positions come together
//! ([`Certified::from_positions`]).

mod ball;
mod sets;
mod tables;
mod walk;

use self::ball::Ball;
use self::sets::{Pascal, Set, nothing, sets};
use self::tables::Tables;
use self::walk::Walk;
use super::certificate::{Certificate, Method, hash};
use super::sets::{Forest, Node};
use super::{Certified, Count};
use crate::error::{Error, Result};
use crate::linalg::Par;
use crate::model::Model;
use crate::task::{Restriction, Space, Task};
use rayon::prelude::*;

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub enum Checked {
    /// The certificate is of this model, and proves these figures, which are at least what it says.
    Accepted(Certified),
    /// It does not: why, and where.
    Refused(String),
}

/// Checks a certificate of a model: that the model is the one it names, and that what it says follows.
///
/// *Cost*: for an enumeration that of every input, some microseconds each; for sets one bound a proof.
///
/// # Errors
/// When the model is of a kind that the checker has no tables of, or does not fit the task.
pub fn check(
    certificate: &Certificate,
    model: &Model<f64>,
    task: &dyn Task,
    par: Par,
) -> Result<Checked> {
    task.check_model(model.config())?;
    let refused = |reason: String| Ok(Checked::Refused(reason));
    let header = &certificate.header;
    let found = hash(model);
    if header.weights != found {
        return refused(format!(
            "it is of the model {}, this one is {found}",
            header.weights
        ));
    }
    if header.claim.task != task.name() {
        return refused(format!(
            "it is of the task {}, expected {}",
            header.claim.task,
            task.name()
        ));
    }
    let restricted = |all: Space| {
        let by = Restriction::parse(&header.claim.space, task.vocabulary())?;
        all.restricted(&by)
    };
    let space = match task.space().map(restricted) {
        Some(Ok(space)) if space.size() == header.certified.size => space,
        Some(Err(e)) => return refused(format!("its space is none of the task: {e}")),
        _ => return refused("its space is of another size".into()),
    };
    let space = &space;
    if !header.claim.margin.is_finite() || header.claim.margin < 0.0 {
        return refused("its margin is no number of at least zero".into());
    }
    let tables = Tables::new(model, space.positions())?;
    let places = task.read_at();
    let proved = match header.method {
        Method::Enumeration => enumerated(&tables, task, space, header.claim.margin, par),
        Method::Sets => match walked(&tables, certificate, task, space, par)? {
            Ok(counts) => {
                Certified::from_positions(space.size(), places.into_iter().zip(counts).collect())
            }
            Err(reason) => return refused(reason),
        },
    };
    let no_more =
        |said: Count, found: Count| said.right <= found.right && said.wrong <= found.wrong;
    let said = &header.certified;
    let same = said.positions.len() == proved.positions.len();
    let mut pairs = said.positions.iter().zip(&proved.positions);
    match same
        && pairs.all(|(a, b)| a.0 == b.0 && no_more(a.1, b.1))
        && no_more(said.all, proved.all)
    {
        true => Ok(Checked::Accepted(proved)),
        false => refused(format!("it says {said:?}, and {proved:?} is what follows")),
    }
}

/// Every input, marked.
fn enumerated(tables: &Tables, task: &dyn Task, space: &Space, margin: f64, par: Par) -> Certified {
    let places = task.read_at();
    let one = |index: u64| -> Vec<Count> {
        let sequence = space.sequence(u128::from(index));
        let answers = places.iter().zip(task.solve(&sequence));
        let mut found: Vec<_> = answers
            .map(|(&p, u)| tables.mark(&sequence, p, u, margin))
            .collect();
        let right = found.iter().all(|f| *f == Some(true)).then_some(true);
        found.push(if found.contains(&Some(false)) {
            Some(false)
        } else {
            right
        });
        let count = |f: Option<bool>| Count {
            right: u128::from(f == Some(true)),
            wrong: u128::from(f == Some(false)),
        };
        found.into_iter().map(count).collect()
    };
    let add = |mut a: Vec<Count>, b: Vec<Count>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    let (none, size) = (
        || vec![Count::default(); places.len() + 1],
        space.size() as u64,
    );
    let mut counts = match par {
        Par::Seq => (0..size).map(one).fold(none(), add),
        Par::Rayon => (0..size).into_par_iter().map(one).reduce(none, add),
    };
    let all = counts.pop().unwrap_or_default();
    Certified {
        size: space.size(),
        positions: places.iter().copied().zip(counts).collect(),
        all,
    }
}

/// Every tree, walked: by answer what it proves.
fn walked(
    tables: &Tables,
    certificate: &Certificate,
    task: &dyn Task,
    space: &Space,
    par: Par,
) -> Result<Result<Vec<Count>, String>> {
    let header = &certificate.header;
    let (places, ranks) = (task.read_at(), task.ranks().unwrap_or_default());
    let pascal = Pascal::new(tables.tokens.max(tables.positions));
    let answers = places.iter().copied().zip(ranks);
    let all: Option<Vec<Vec<Set>>> = answers
        .map(|a| sets(space, tables.causal, a, &pascal))
        .collect();
    let Some(all) = all.filter(|all| all.len() == places.len()) else {
        return Err(Error::NotCovered(
            "cells and sets are of another kind of task",
        ));
    };
    let sum = |sets: &Vec<Set>| {
        sets.iter().try_fold(0u128, |sum, s| {
            sum.checked_add(pascal.size(s, &nothing(s))?)
        })
    };
    if all.iter().any(|sets| sum(sets) != Some(space.size())) {
        return Ok(Err("the sets of an answer are not the whole space".into()));
    }
    let counts: Vec<usize> = all.iter().map(Vec::len).collect();
    let forest = match Forest::read(&certificate.body, header.step, &counts, tables.heads) {
        Ok(forest) => forest,
        Err(e) => return Ok(Err(e.to_string())),
    };
    // The trees of one query are walked with the same exponentials.
    let mut trees: Vec<(usize, &Set, &Node)> = Vec::new();
    for (answer, (sets, nodes)) in all.iter().zip(&forest.answers).enumerate() {
        let begun = sets
            .iter()
            .zip(nodes)
            .filter_map(|(set, node)| Some((answer, set, node.as_ref()?)));
        trees.extend(begun);
    }
    trees.sort_by_key(|(_, set, _)| set.query);
    let walk = |trees: &[(usize, &Set, &Node)]| -> Result<Vec<(usize, Count)>, String> {
        let query = trees[0].1.query;
        let keys = || (0..tables.positions).flat_map(|j| (0..tables.tokens).map(move |t| (t, j)));
        let seen = |key: &(usize, usize)| !tables.causal || key.1 <= query.1;
        let mut e = Vec::new();
        for h in 0..tables.heads {
            let shift = tables.shift(h, query, keys().filter(seen));
            let own = keys().map(|key| {
                if seen(&key) {
                    tables.e(h, query, key, shift)
                } else {
                    Ball::ZERO
                }
            });
            e.extend(own);
        }
        let one = |&(answer, set, node): &(usize, &Set, &Node)| {
            let walk = Walk {
                tables,
                pascal: &pascal,
                set,
                e: &e,
                margin: header.claim.margin,
                step: header.step,
            };
            let mut beaten = vec![false; tables.bias.len()];
            beaten[set.right] = true;
            Ok((answer, walk.node(node, &mut nothing(set), &beaten)?))
        };
        trees.iter().map(one).collect()
    };
    let parts: Vec<_> = trees.chunk_by(|a, b| a.1.query == b.1.query).collect();
    let found: Result<Vec<_>, String> = match par {
        Par::Seq => parts.into_iter().map(walk).collect(),
        Par::Rayon => parts.into_par_iter().map(walk).collect(),
    };
    Ok(found.map(|found| {
        let mut counts = vec![Count::default(); all.len()];
        found
            .into_iter()
            .flatten()
            .for_each(|(answer, count)| counts[answer] += count);
        counts
    }))
}
