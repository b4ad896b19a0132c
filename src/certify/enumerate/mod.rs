//! Every input of a space, one by one.
//!
//! What is decided is the real-valued function that the weights define: each margin is computed in f64 with a proved
//! bound on its rounding, again in twice the precision where that does not decide it, and is open if that does not
//! either.

mod bound;
mod careful;
mod deep;
mod folded;
mod forward;
mod one_layer;

pub(super) use deep::Deep;
pub(super) use folded::covers;
pub(super) use forward::Workspace;

use super::{Answered, Certified, Count, Space};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::task::Task;
use rayon::prelude::*;
use std::ops::Range;

/// By how much a right answer's logit is the largest, and what that may be off by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Margin {
    /// The right logit less the largest other.
    pub value: f64,
    /// By how much the exact one may differ from it.
    pub error: f64,
}

impl Margin {
    /// A difference that was itself rounded once, and a bound on what its terms are off by.
    pub(super) fn new(value: f64, error: f64) -> Margin {
        let up = 1.0 + 4.0 * f64::EPSILON;
        Margin {
            value,
            error: (error + f64::EPSILON * value.abs()) * up + f64::MIN_POSITIVE,
        }
    }

    /// No more than the exact margin.
    pub fn at_least(self) -> f64 {
        (self.value - self.error).next_down()
    }

    /// No less than the exact margin.
    pub fn at_most(self) -> f64 {
        (self.value + self.error).next_up()
    }

    /// Whether the answer is right by more than so much, or wrong; `None` where that is not known.
    pub fn is_right(self, by: f64) -> Option<bool> {
        if self.at_least() > by {
            Some(true)
        } else if self.at_most() < -by {
            Some(false)
        } else {
            None
        }
    }
}

/// An answer to an input, with its margin.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Its number in the space, where it was come upon by that.
    pub input: Option<u128>,
    /// The sequence.
    pub sequence: Vec<i64>,
    /// Where the answer is read.
    pub position: usize,
    /// By how much it is right.
    pub margin: Margin,
}

/// What every input was found to be.
#[derive(Clone, Debug)]
pub struct Walked {
    /// The counts: exact where nothing is left open.
    pub certified: Certified,
    /// By answer, with its position, and by right class: how many inputs were looked at, and what they are.
    pub by_right: Vec<(usize, Vec<Answered>)>,
    /// Inputs that were looked at: all of them unless it was stopped.
    pub seen: u128,
    /// The right answer that is so by the least.
    pub closest: Option<Case>,
    /// The first wrong answers, by their inputs' numbers.
    pub wrong: Vec<Case>,
    /// The first answers that are open.
    pub open: Vec<Case>,
    /// Answers that f64 left open, and twice the precision was asked for.
    pub again: u64,
}

/// Of wrong and of open answers so many are listed.
const LISTED: usize = 20;

/// What some inputs were found to be.
#[derive(Clone, Default)]
struct Tally {
    seen: u64,
    /// By answer and right class.
    by_right: Vec<Vec<Answered>>,
    all: Count,
    closest: Option<Case>,
    wrong: Vec<Case>,
    open: Vec<Case>,
    again: u64,
}

impl Tally {
    fn new(answers: usize, classes: usize) -> Tally {
        Tally {
            by_right: vec![vec![Answered::default(); classes]; answers],
            ..Tally::default()
        }
    }

    /// The answers to an input, each with its right class.
    fn add(
        &mut self,
        by: f64,
        (input, sequence): (u128, &[i64]),
        (at, classes): (&[usize], &[usize]),
        margins: &[Margin],
    ) {
        self.seen += 1;
        let (mut right, mut wrong) = (true, false);
        let own = self.by_right.iter_mut().zip(classes);
        for (((answered, &class), &position), &margin) in own.zip(at).zip(margins) {
            answered[class].inputs += 1;
            let count = &mut answered[class].count;
            let case = || Case {
                input: Some(input),
                sequence: sequence.to_vec(),
                position,
                margin,
            };
            match margin.is_right(by) {
                Some(true) => {
                    count.right += 1;
                    let least = self
                        .closest
                        .as_ref()
                        .map_or(f64::INFINITY, |c| c.margin.at_least());
                    if margin.at_least() < least {
                        self.closest = Some(case());
                    }
                }
                Some(false) => {
                    count.wrong += 1;
                    (right, wrong) = (false, true);
                    if self.wrong.len() < LISTED {
                        self.wrong.push(case());
                    }
                }
                None => {
                    right = false;
                    if self.open.len() < LISTED {
                        self.open.push(case());
                    }
                }
            }
        }
        self.all.right += u128::from(right);
        self.all.wrong += u128::from(wrong);
    }

    /// With what other inputs were found to be.
    fn with(mut self, other: Tally) -> Tally {
        self.seen += other.seen;
        self.again += other.again;
        let own = self.by_right.iter_mut().flatten();
        for (a, b) in own.zip(other.by_right.into_iter().flatten()) {
            *a += b;
        }
        self.all += other.all;
        let least = |case: &Case| case.margin.at_least();
        self.closest = match (self.closest, other.closest) {
            (Some(a), Some(b)) if least(&b) < least(&a) => Some(b),
            (a, b) => a.or(b),
        };
        for (own, more) in [(&mut self.wrong, other.wrong), (&mut self.open, other.open)] {
            own.extend(more);
            own.sort_by_key(|case| (case.input, case.position));
            own.truncate(LISTED);
        }
        self
    }

    fn finish(self, space: &Space, at: &[usize]) -> Walked {
        let sum = |answered: &Vec<Answered>| {
            let mut all = Count::default();
            answered.iter().for_each(|own| all += own.count);
            all
        };
        let positions = at.iter().copied().zip(self.by_right.iter().map(sum));
        Walked {
            certified: Certified {
                size: space.size(),
                positions: positions.collect(),
                all: self.all,
            },
            by_right: at.iter().copied().zip(self.by_right).collect(),
            seen: self.seen.into(),
            closest: self.closest,
            wrong: self.wrong,
            open: self.open,
            again: self.again,
        }
    }
}

/// Runs a model on every input of a space.
///
/// A model of one layer and head without MLP, asked at the last position of a product of sets, is walked by tables
/// (some ten nanoseconds an input); others are run input by input.
///
/// `by` is what the right logit must be the largest by. `advance` is told of inputs that are done, and says whether to go
/// on: what is not looked at is neither right nor wrong.
///
/// # Errors
/// When the model is of a kind that no bound is known for, does not fit the task, or the space has more inputs than 2^63.
pub fn walk(
    model: &Model<f64>,
    task: &dyn Task,
    space: &Space,
    by: f64,
    advance: &(dyn Fn(u64) -> bool + Sync),
) -> Result<Walked> {
    task.check_model(model.config())?;
    if i64::try_from(space.size()).is_err() {
        return Err(Error::TooMany {
            found: space.size(),
            most: 1 << 63,
            message: format!("{} inputs are too many to walk through", space.size()),
        });
    }
    let at = task.read_at();
    if let Some(tables) = one_layer::OneHead::of(model, task, space)? {
        return Ok(tables.run(by, advance).finish(space, &at));
    }
    Ok(one_by_one(model, task, space, by, advance)?.finish(space, &at))
}

/// A model's answers to one input, each with its margin, in twice f64's precision.
///
/// # Errors
/// As [`walk`].
pub fn answers(model: &Model<f64>, task: &dyn Task, sequence: &[i64]) -> Result<Vec<Case>> {
    task.check_model(model.config())?;
    let at = task.read_at();
    let margins = Deep::new(model, at.clone())?.carefully(sequence, &task.solve(sequence));
    let case = |(position, margin)| Case {
        input: None,
        sequence: sequence.to_vec(),
        position,
        margin,
    };
    Ok(at.into_iter().zip(margins).map(case).collect())
}

/// By running every input.
fn one_by_one(
    model: &Model<f64>,
    task: &dyn Task,
    space: &Space,
    by: f64,
    advance: &(dyn Fn(u64) -> bool + Sync),
) -> Result<Tally> {
    /// Inputs whose tallies are one.
    const CHUNK: u64 = 1024;
    let at = task.read_at();
    let deep = Deep::new(model, at.clone())?;
    let none = || Tally::new(at.len(), model.config().d_vocab_out);
    let size = space.size() as u64;
    let stopped = std::sync::atomic::AtomicBool::new(false);
    use std::sync::atomic::Ordering::Relaxed;
    let chunk = |i: u64| {
        let mut tally = none();
        if stopped.load(Relaxed) {
            return tally;
        }
        let mut work = Workspace::default();
        let mut margins = Vec::new();
        let end = size.min((i + 1) * CHUNK);
        for first in (i * CHUNK..end).step_by(deep.lanes()) {
            let inputs: Range<u64> = first..end.min(first + deep.lanes() as u64);
            let (mut ids, mut right) = (Vec::new(), Vec::new());
            for input in inputs.clone() {
                let sequence = space.sequence(input.into());
                right.extend(task.solve(&sequence));
                ids.extend(sequence);
            }
            let pos = ids.len() / (inputs.end - inputs.start) as usize;
            deep.margins(&ids, pos, &right, &mut work, &mut margins);
            let each = ids.chunks_exact(pos).zip(right.chunks_exact(at.len()));
            for ((input, (sequence, right)), margins) in
                inputs.zip(each).zip(margins.chunks_exact(at.len()))
            {
                let open = |m: &Margin| m.is_right(by).is_none();
                // Where a margin is asked for that an answer has not, there is nothing more to find out.
                let within = |m: &Margin| m.at_most() <= by && m.at_least() >= -by;
                let doubt = margins
                    .iter()
                    .filter(|m| open(m) && !(by > 0.0 && within(m)));
                let doubt = doubt.count() as u64;
                if doubt == 0 {
                    tally.add(by, (input.into(), sequence), (&at, right), margins);
                } else {
                    tally.again += doubt;
                    let margins = deep.carefully(sequence, right);
                    tally.add(by, (input.into(), sequence), (&at, right), &margins);
                }
            }
        }
        if !advance(end - i * CHUNK) {
            stopped.store(true, Relaxed);
        }
        tally
    };
    let chunks = (0..size.div_ceil(CHUNK)).into_par_iter().map(chunk);
    Ok(chunks.reduce(none, Tally::with))
}
