//! The search for counterexamples: from inputs whose answers are hardly right to others that are less so.

use super::enumerate::{Case, Deep, Margin, Workspace};
use super::{InputPart, InputSpace, Values};
use crate::error::Result;
use crate::model::Model;
use crate::task::Task;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;

/// How long is searched.
#[derive(Clone, Copy, Debug)]
pub struct Seek {
    /// Inputs that are drawn, from the space and as the task draws them.
    pub drawn: usize,
    /// Of those as many as are gone on from: the ones whose answers are right by the least.
    pub starts: usize,
    /// Steps from each at the most.
    pub steps: usize,
    /// What the draw depends on.
    pub seed: u64,
    /// By how much another logit must be above the right one's.
    pub margin: f64,
}

impl Default for Seek {
    fn default() -> Self {
        Seek {
            drawn: 4096,
            starts: 16,
            steps: 64,
            seed: 0,
            margin: 0.0,
        }
    }
}

struct Search<'a> {
    deep: Deep<'a>,
    task: &'a dyn Task,
    space: &'a InputSpace,
    at: Vec<usize>,
}

/// Values of an input, and the answer of it that is right by the least.
#[derive(Clone)]
struct Found {
    values: Vec<i64>,
    position: usize,
    margin: Margin,
}

/// Looks for inputs of a space that are answered wrongly, by coordinate descent: of the inputs that differ from the present
/// one in one place, in two that are exchanged, or in a pair that mirrors each other, the one whose answer is right by the
/// least is next, until none is less so. Starts are the closest of those that are drawn.
///
/// What is returned is proved, each margin with its bound, the furthest wrong first; that nothing is returned says nothing.
///
/// `advance` is asked before each start whether to go on.
///
/// # Errors
/// When the model is of a kind that no bound is known for, or does not fit the task.
pub fn seek(
    model: &Model<f64>,
    task: &dyn Task,
    space: &InputSpace,
    how: Seek,
    advance: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<Case>> {
    task.check_model(model.config())?;
    let at = task.read_at();
    let search = Search {
        deep: Deep::new(model, at.clone())?,
        task,
        space,
        at,
    };
    let mut starts = search.margins(&search.drawn(how));
    starts.sort_by(|a, b| a.margin.value.total_cmp(&b.margin.value));
    starts.dedup_by(|a, b| a.values == b.values);
    starts.truncate(how.starts);
    let ends = starts.into_par_iter().map(|start| match advance() {
        true => search.descend(start, how.steps),
        false => start,
    });
    let mut wrong: Vec<Found> = ends.filter(|end| end.margin.value < -how.margin).collect();
    wrong.sort_by(|a, b| a.margin.value.total_cmp(&b.margin.value));
    wrong.dedup_by(|a, b| a.values == b.values);
    let proved = wrong
        .into_iter()
        .filter_map(|found| search.proved(found, how.margin));
    Ok(proved.collect())
}

impl Search<'_> {
    /// Values to begin with: each input of the space is as likely, and those of the task's own drawing that are in it.
    fn drawn(&self, how: Seek) -> Vec<Vec<i64>> {
        let mut rng = ChaCha8Rng::seed_from_u64(how.seed);
        let size = self.space.size();
        let numbers = (0..how.drawn).map(|_| rng.random_range(0..size));
        let mut values: Vec<Vec<i64>> = numbers.map(|i| self.space.values_of(i)).collect();
        let own = self.task.tokens(how.drawn, how.seed);
        let sequences = (0..own.batch()).map(|i| own.sequence(i));
        values.extend(sequences.filter_map(|s| self.values_in(s)));
        values
    }

    /// The values of a sequence, where it is one of the space and they can be read off.
    fn values_in(&self, sequence: &[i64]) -> Option<Vec<i64>> {
        let mut len = sequence.len();
        if let Some((pad, _)) = self.space.pad() {
            len = sequence.iter().rposition(|&t| t != pad)? + 1;
        }
        let parts = self.space.parts();
        let start = parts.iter().position(|p| *p == InputPart::All)?;
        let values = sequence[start..(len + start + 1).checked_sub(parts.len())?].to_vec();
        (contains(self.space.values(), &values) && self.space.sequence_of(&values) == sequence)
            .then_some(values)
    }

    /// How inputs of these values stand.
    fn margins(&self, values: &[Vec<i64>]) -> Vec<Found> {
        let stretch = |values: &[Vec<i64>]| {
            let (mut ids, mut right) = (Vec::new(), Vec::new());
            for values in values {
                let sequence = self.space.sequence_of(values);
                right.extend(self.task.solve(&sequence));
                ids.extend(sequence);
            }
            let (mut work, mut margins) = (Workspace::default(), Vec::new());
            let pos = ids.len() / values.len();
            self.deep
                .margins(&ids, pos, &right, &mut work, &mut margins);
            let of = |(values, margins): (&Vec<i64>, &[Margin])| {
                let all = self.at.iter().zip(margins);
                let (&position, &margin) = all
                    .min_by(|a, b| a.1.value.total_cmp(&b.1.value))
                    .expect("an answer at least");
                Found {
                    values: values.clone(),
                    position,
                    margin,
                }
            };
            let each = values.iter().zip(margins.chunks_exact(self.at.len()));
            each.map(of).collect::<Vec<_>>()
        };
        values
            .par_chunks(self.deep.lanes())
            .flat_map_iter(stretch)
            .collect()
    }

    fn descend(&self, start: Found, steps: usize) -> Found {
        let mut best = start;
        for _ in 0..steps {
            let next = self.margins(&neighbours(self.space.values(), &best.values));
            let least = next
                .into_iter()
                .min_by(|a, b| a.margin.value.total_cmp(&b.margin.value));
            match least {
                Some(next) if next.margin.value < best.margin.value => best = next,
                _ => break,
            }
        }
        best
    }

    /// The case, where its answer is wrong whatever rounding did.
    fn proved(&self, found: Found, by: f64) -> Option<Case> {
        let sequence = self.space.sequence_of(&found.values);
        let mut margin = found.margin;
        if margin.is_right(by).is_none() {
            let right = self.task.solve(&sequence);
            let index = self.at.iter().position(|&p| p == found.position)?;
            margin = self.deep.carefully(&sequence, &right)[index];
        }
        (margin.is_right(by) == Some(false)).then_some(Case {
            input: None,
            sequence,
            position: found.position,
            margin,
        })
    }
}

/// Whether these are values of an input.
fn contains(all: &Values, values: &[i64]) -> bool {
    if !all.lengths().contains(&values.len()) {
        return false;
    }
    let of = |alphabet: &[i64]| values.iter().all(|v| alphabet.contains(v));
    match all {
        Values::Product(sets) => sets.iter().zip(values).all(|(set, v)| set.contains(v)),
        Values::Distinct { pool, .. } => {
            let again = |(i, v): (usize, &i64)| values[..i].contains(v);
            of(pool) && !values.iter().enumerate().any(again)
        }
        Values::Strings { alphabet, .. } => of(alphabet),
        Values::Mirrored {
            alphabet, broken, ..
        } => {
            let n = values.len();
            let differ = (0..n / 2).filter(|&i| values[i] != values[n - 1 - i]);
            of(alphabet) && differ.count() == *broken
        }
        Values::Listed(tokens) => (0..tokens.batch()).any(|i| tokens.sequence(i) == values),
    }
}

/// The inputs next to one.
fn neighbours(all: &Values, values: &[i64]) -> Vec<Vec<i64>> {
    let n = values.len();
    let tokens = |place: usize| -> &[i64] {
        match all {
            Values::Product(sets) => &sets[place],
            Values::Distinct { pool, .. } => pool,
            Values::Strings { alphabet, .. } | Values::Mirrored { alphabet, .. } => alphabet,
            Values::Listed(_) => &[],
        }
    };
    let mut next = Vec::new();
    let mut add = |changes: &[(usize, i64)]| {
        let mut other = values.to_vec();
        changes
            .iter()
            .for_each(|&(place, token)| other[place] = token);
        if other != values && contains(all, &other) {
            next.push(other);
        }
    };
    for place in 0..n {
        for &token in tokens(place) {
            add(&[(place, token)]);
            if matches!(all, Values::Mirrored { .. }) && place < n / 2 {
                add(&[(place, token), (n - 1 - place, token)]);
            }
        }
        for other in 0..place {
            add(&[(place, values[other]), (other, values[place])]);
        }
    }
    next
}
