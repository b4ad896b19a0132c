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
mod ranges;

pub(super) use deep::Deep;
pub(super) use folded::covers;
pub(super) use forward::Workspace;
pub use ranges::Ranges;

use super::{Answered, Certified, Count, InputSpace};
use crate::error::Result;
use crate::model::Model;
use crate::task::Task;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

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

/// What some inputs were found to be.
#[derive(Clone, Debug)]
pub struct Walked {
    /// Which inputs they are.
    pub ranges: Ranges,
    /// The counts: exact where nothing is left open.
    pub certified: Certified,
    /// By answer, with its position, and by right class: how many inputs there were, and what they are.
    pub by_right: Vec<(usize, Vec<Answered>)>,
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

impl Walked {
    /// No input yet of a space, of which answers are read at some positions.
    fn none(space: &InputSpace, at: &[usize], classes: usize) -> Walked {
        let positions = at.iter().map(|&p| (p, Count::default()));
        let by_right = at.iter().map(|&p| (p, vec![Answered::default(); classes]));
        Walked {
            ranges: Ranges::default(),
            certified: Certified {
                size: space.size(),
                positions: positions.collect(),
                all: Count::default(),
            },
            by_right: by_right.collect(),
            closest: None,
            wrong: Vec::new(),
            open: Vec::new(),
            again: 0,
        }
    }

    /// The answers to an input, each with its right class. Which ranges inputs are of, is said when all of them are in.
    fn add(
        &mut self,
        by: f64,
        (input, sequence): (u128, &[i64]),
        classes: &[usize],
        margins: &[Margin],
    ) {
        let (mut right, mut wrong) = (true, false);
        let counts = self.certified.positions.iter_mut().map(|own| &mut own.1);
        let own = self.by_right.iter_mut().zip(counts).zip(classes);
        for ((((position, answered), count), &class), &margin) in own.zip(margins) {
            let answered = &mut answered[class];
            let case = || Case {
                input: Some(input),
                sequence: sequence.to_vec(),
                position: *position,
                margin,
            };
            let mut found = Count::default();
            match margin.is_right(by) {
                Some(true) => {
                    found.right = 1;
                    let least = |c: &Case| c.margin.at_least();
                    if margin.at_least() < self.closest.as_ref().map_or(f64::INFINITY, least) {
                        self.closest = Some(case());
                    }
                }
                Some(false) => {
                    found.wrong = 1;
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
            answered.inputs += 1;
            answered.count += found;
            *count += found;
        }
        self.certified.all.right += u128::from(right);
        self.certified.all.wrong += u128::from(wrong);
    }

    /// Takes in what other inputs were found to be: in whatever order, the same comes of it.
    fn take_in(&mut self, other: Walked) {
        let apart = self.ranges.add(&other.ranges);
        apart.expect("an input is walked once");
        self.certified += &other.certified;
        self.again += other.again;
        let own = self.by_right.iter_mut().flat_map(|own| &mut own.1);
        let more = other.by_right.into_iter().flat_map(|more| more.1);
        own.zip(more).for_each(|(a, b)| *a += b);
        let place = |case: &Case| (case.input, case.position);
        let least = |case: &Case| case.margin.at_least();
        let closest = self.closest.take().into_iter().chain(other.closest);
        self.closest =
            closest.min_by(|a, b| least(a).total_cmp(&least(b)).then(place(a).cmp(&place(b))));
        for (own, more) in [(&mut self.wrong, other.wrong), (&mut self.open, other.open)] {
            own.extend(more);
            own.sort_by_key(place);
            own.truncate(LISTED);
        }
    }

    fn with(mut self, other: Walked) -> Walked {
        self.take_in(other);
        self
    }
}

/// A walk on its way.
struct Course<'a>(Mutex<State<'a>>);

struct State<'a> {
    so_far: Walked,
    go_on: &'a mut (dyn FnMut(&Walked) -> Result<bool> + Send),
    /// Why no more is begun.
    stopped: Option<Result<()>>,
}

impl<'a> Course<'a> {
    fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether more is to be begun.
    fn goes_on(&self) -> bool {
        let state = &mut *self.state();
        if state.stopped.is_none() {
            state.stopped = match (state.go_on)(&state.so_far) {
                Ok(true) => None,
                stop => Some(stop.map(drop)),
            };
        }
        state.stopped.is_none()
    }

    fn is_stopped(&self) -> bool {
        self.state().stopped.is_some()
    }

    /// Takes in what a range of inputs was found to be.
    fn finished(&self, range: Range<u64>, found: Walked) {
        let ranges = Ranges::from(range);
        self.state().so_far.take_in(Walked { ranges, ..found });
    }
}

/// Runs a model on inputs of a space.
///
/// A model of one layer and head without MLP, asked at the last position of a product of sets, is walked by tables
/// (some ten nanoseconds an input); others are run input by input.
///
/// `by` is what the right logit must be the largest by, `ranges` which inputs are gone through; [`Ranges::part`] has all.
/// `go_on` is told now and then of what is finished, and says whether to go on: what is found is of whole ranges, and of
/// what was begun and is not finished, nothing.
///
/// # Errors
/// When the model is of a kind that no bound is known for, does not fit the task, or the space has more inputs than 2^63;
/// and those of `go_on`.
///
/// # Panics
/// When the ranges are not in order, or beyond the space.
#[track_caller]
pub fn walk(
    model: &Model<f64>,
    task: &dyn Task,
    space: &InputSpace,
    by: f64,
    ranges: &Ranges,
    go_on: &mut (dyn FnMut(&Walked) -> Result<bool> + Send),
) -> Result<Walked> {
    task.check_model(model.config())?;
    let all = Ranges::part(space, (0, 1))?;
    // What all are without, they are not of: twice over, these are left, in order.
    let own = all.without(&all.without(ranges));
    assert_eq!(own, *ranges, "ranges of {} inputs", space.size());
    let none = || Walked::none(space, &task.read_at(), model.config().d_vocab_out);
    let course = Course(Mutex::new(State {
        so_far: none(),
        go_on,
        stopped: None,
    }));
    match one_layer::OneHead::of(model, task, space)? {
        Some(tables) => tables.run(by, ranges, &none, &course),
        None => one_by_one(model, task, space, by, ranges, &none, &course)?,
    }
    let state = course
        .0
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    state.stopped.transpose()?;
    Ok(state.so_far)
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
    space: &InputSpace,
    by: f64,
    ranges: &Ranges,
    none: &(dyn Fn() -> Walked + Sync),
    course: &Course<'_>,
) -> Result<()> {
    /// Inputs that are finished together.
    const CHUNK: u64 = 1024;
    let at = task.read_at();
    let deep = Deep::new(model, at.clone())?;
    let chunk = |chunk: Range<u64>| {
        if !course.goes_on() {
            return;
        }
        let mut found = none();
        let mut work = Workspace::default();
        let mut margins = Vec::new();
        for first in chunk.clone().step_by(deep.lanes()) {
            let inputs: Range<u64> = first..chunk.end.min(first + deep.lanes() as u64);
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
                    found.add(by, (input.into(), sequence), right, margins);
                } else {
                    found.again += doubt;
                    let margins = deep.carefully(sequence, right);
                    found.add(by, (input.into(), sequence), right, &margins);
                }
            }
        }
        course.finished(chunk, found);
    };
    let chunks = ranges.0.par_iter().flat_map(|r| {
        let starts = (0..(r.end - r.start).div_ceil(CHUNK)).into_par_iter();
        starts.map(move |i| r.start + i * CHUNK..r.end.min(r.start + (i + 1) * CHUNK))
    });
    chunks.for_each(chunk);
    Ok(())
}
