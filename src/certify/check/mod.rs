//! The checker: whether a certificate is of a model, and proves what it says.
//!
//! It searches nothing, and shares no arithmetic with what does: numbers are middles with radii (`ball.rs`), the model's
//! first layer is the plain definition's (`plain.rs`) and its tables are formed of that (`tables.rs`), sets are made and
//! counted anew (`sets.rs`), and of every proof in a tree the bound of `../sets/mod.rs` is evaluated once (`walk.rs`).
//! Where inputs were enumerated they are run once more, several abreast (`run.rs`), or of one head summed up (`sums.rs`).
//! What it takes as given: which inputs a space has and which answer is right ([`InputSpace`], [`Task`]), how a tree is written
//! ([`Forest::read`]), which models are covered, and how positions come together ([`Certified::from_positions`]).

mod ball;
mod plain;
#[cfg(test)]
pub(super) mod ranges;
mod run;
mod sets;
mod sums;
mod tables;
mod walk;

use self::ball::Ball;
use self::plain::Plain;
use self::run::{ABREAST, Run};
use self::sets::{Set, sets};
use self::tables::Tables;
use self::walk::Walk;
use super::certificate::{Certificate, Method, hash};
use super::sets::Forest;
use super::{Certified, Count, OneLayer, Ranges, enumerate};
use crate::error::Result;
use crate::model::{Mask, Model};
use crate::task::{InputSpace, Restriction, Task};
use rayon::prelude::*;
use std::ops::Range;

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
/// *Cost*: for an enumeration a run of each of its inputs, or of one bare head one sum of keys each; for sets one bound a
/// proof.
///
/// # Errors
/// When the model does not fit the task.
pub fn check(certificate: &Certificate, model: &Model<f64>, task: &dyn Task) -> Result<Checked> {
    task.check_model(model.config())?;
    let proved = proved(certificate, model, task);
    Ok(proved.map_or_else(Checked::Refused, Checked::Accepted))
}

fn ensure(holds: bool, or: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(or.into()) }
}

/// What follows, or why what is said does not.
fn proved(
    certificate: &Certificate,
    model: &Model<f64>,
    task: &dyn Task,
) -> Result<Certified, String> {
    let (header, c) = (&certificate.header, model.config());
    let (claim, said) = (&header.claim, &header.certified);
    ensure(header.weights == hash(model), "it is of another model")?;
    ensure(claim.task == task.name(), "it is of another task")?;
    let all = task.space().ok_or("its task has no space")?;
    let by = Restriction::parse(&claim.space, task.vocabulary());
    let space = by
        .and_then(|by| all.restricted(&by))
        .map_err(|e| e.to_string())?;
    ensure(space.size() == said.size, "its space is of another size")?;
    ensure(
        space.positions() <= c.n_ctx,
        "its inputs are longer than the model reads",
    )?;
    ensure(
        (0.0..f64::INFINITY).contains(&claim.margin),
        "its margin is no number of at least zero",
    )?;
    let covered = match header.method {
        Method::Enumeration(_) => enumerate::covers(c),
        Method::Sets => OneLayer::covers(c),
    };
    covered.map_err(|e| e.to_string())?;
    let plain = Plain::new(model, space.positions());
    let proved = match &header.method {
        Method::Enumeration(ranges) => enumerated(&plain, task, &space, ranges, claim.margin)?,
        Method::Sets => divided(&plain, certificate, task, &space)?,
    };
    let follows = |a: &Count, b: &Count| a.right <= b.right && a.wrong <= b.wrong;
    let pairs = said.positions.iter().zip(&proved.positions);
    let follows = said.positions.len() == proved.positions.len()
        && pairs
            .into_iter()
            .all(|(a, b)| a.0 == b.0 && follows(&a.1, &b.1))
        && follows(&said.all, &proved.all);
    ensure(
        follows,
        &format!("it says {said:?}, and {proved:?} is what follows"),
    )?;
    Ok(proved)
}

fn sum(mut a: Count, b: Count) -> Count {
    a += b;
    a
}

/// Every input of some ranges, marked.
fn enumerated(
    plain: &Plain<'_>,
    task: &dyn Task,
    space: &InputSpace,
    Ranges(ranges): &Ranges,
    margin: f64,
) -> Result<Certified, String> {
    /// Inputs whose figures are summed before others'.
    const CHUNK: u64 = 1 << 10;
    let size = i64::try_from(space.size()).map_err(|_| "it has more inputs than can be run")?;
    let there = ranges
        .iter()
        .all(|r| r.start < r.end && r.end <= size as u64);
    let apart = ranges.windows(2).all(|r| r[0].end <= r[1].start);
    ensure(
        there && apart,
        "its ranges are not in order, apart, and of inputs that there are",
    )?;
    let places = task.read_at();
    if let Some(sets) = sums::sets(plain.c, task, space) {
        let count = sums::summed(&Tables::new(plain), task, space, sets, ranges, margin);
        return Ok(Certified {
            size: space.size(),
            all: count,
            positions: vec![(places[0], count)],
        });
    }
    let run = Run::new(plain);
    let mark = |(logits, u): (&Vec<Ball>, usize)| {
        let beats =
            |a: usize, b: usize| logits[a].minus(logits[b]).minus(Ball::of(margin)).lo() > 0.0;
        let rivals = || (0..logits.len()).filter(|&w| w != u);
        let (right, wrong) = (rivals().all(|w| beats(u, w)), rivals().any(|w| beats(w, u)));
        Count {
            right: right.into(),
            wrong: wrong.into(),
        }
    };
    let add = |a: Vec<Count>, b| a.into_iter().zip(b).map(|(a, b)| sum(a, b)).collect();
    let none = || vec![Count::default(); places.len() + 1];
    let chunk = |inputs: Range<u64>| {
        let inputs: Vec<Vec<i64>> = inputs.map(|i| space.sequence(i.into())).collect();
        let abreast = inputs.chunk_by(|a, b| run.pads(a) == run.pads(b));
        let mut counts = none();
        for inputs in abreast.flat_map(|inputs| inputs.chunks(ABREAST)) {
            for (input, logits) in inputs.iter().zip(run.logits(inputs, &places)) {
                let marks = logits.iter().zip(task.solve(input)).map(mark);
                let mut found: Vec<Count> = marks.collect();
                found.push(Count {
                    right: found.iter().all(|f| f.right == 1).into(),
                    wrong: found.iter().any(|f| f.wrong == 1).into(),
                });
                counts = add(counts, found);
            }
        }
        counts
    };
    let chunks = ranges.par_iter().flat_map(|r| {
        let firsts = (0..(r.end - r.start).div_ceil(CHUNK)).into_par_iter();
        let firsts = firsts.map(|i| r.start + i * CHUNK);
        firsts.map(|first| first..r.end.min(first + CHUNK))
    });
    let mut counts = chunks.map(chunk).reduce(none, add);
    Ok(Certified {
        size: space.size(),
        all: counts.pop().unwrap_or_default(),
        positions: places.into_iter().zip(counts).collect(),
    })
}

/// Every tree, walked.
fn divided(
    plain: &Plain<'_>,
    certificate: &Certificate,
    task: &dyn Task,
    space: &InputSpace,
) -> Result<Certified, String> {
    let (header, heads, size) = (&certificate.header, plain.c.n_heads, space.size());
    // Corners double with every head.
    ensure(heads <= 8, "sets are of up to eight heads")?;
    let ranks = task.ranks().ok_or("its task has no ranks")?;
    ensure(
        ranks.len() == task.read_at().len(),
        "its task has not a rank for every answer",
    )?;
    let answers = task.read_at().into_iter().zip(ranks);
    let all =
        answers.map(|answer| Some((answer.0, sets(space, plain.c.mask == Mask::Causal, answer)?)));
    let all: Vec<(usize, Vec<Set>)> = all
        .collect::<Option<_>>()
        .ok_or("its space has no such sets")?;
    let counts: Vec<usize> = all.iter().map(|(_, sets)| sets.len()).collect();
    let forest = Forest::read(&certificate.body, header.step, &counts, heads);
    let walk = Walk {
        tables: Tables::new(plain),
        margin: header.claim.margin,
        step: header.step,
    };
    let mut positions = Vec::new();
    for ((p, sets), nodes) in all
        .into_iter()
        .zip(forest.map_err(|e| e.to_string())?.answers)
    {
        let whole = sets
            .iter()
            .try_fold(0u128, |sum, set| sum.checked_add(set.size()?));
        ensure(
            whole == Some(size),
            "the sets of an answer are not the whole space",
        )?;
        let begun = sets
            .into_par_iter()
            .zip(nodes)
            .filter_map(|(set, node)| Some((set, node?)));
        let counts = begun.map(|(set, node)| walk.tree(set, &node));
        positions.push((p, counts.try_reduce(Count::default, |a, b| Ok(sum(a, b)))?));
    }
    Ok(Certified::from_positions(size, positions))
}
