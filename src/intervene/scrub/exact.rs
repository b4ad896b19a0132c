//! The expectation over all draws, each with its probability.

use super::Scrub;
use super::hypothesis::{Body, Child};
use super::run::{Job, Read};
use crate::error::{Error, Result};
use crate::tensor::Scalar;
use std::collections::HashMap;

/// How many runs are prepared at a time.
const AT_A_TIME: usize = 1 << 13;

/// The metric's mean over the references and all draws, and how many runs it took.
pub(super) fn expectation<T: Scalar>(
    scrub: &Scrub<'_, T>,
    body: &Body<T>,
    most_runs: u64,
) -> Result<(f64, u64)> {
    let mut budget = Budget {
        left: most_runs,
        most: most_runs,
    };
    let mut sum = 0.0;
    let mut logits = vec![0.0; scrub.model.config().d_vocab_out];
    every_run(
        scrub,
        body,
        &Read::Answers,
        &mut budget,
        |references, probability, rows| {
            for &reference in references {
                sum += probability * scrub.metric_of(reference, rows, &mut logits);
            }
        },
    )?;
    Ok((sum / scrub.tokens.batch() as f64, budget.most - budget.left))
}

struct Budget {
    left: u64,
    most: u64,
}

impl Budget {
    fn spend(&mut self, runs: u64) -> Result<()> {
        if runs > self.left {
            let found = (self.most - self.left).saturating_add(runs);
            return Err(Error::TooMany {
                found: found.into(),
                most: self.most.into(),
                message: format!(
                    "the exact expectation takes {found} runs or more, expected at most {}; a sample estimates it",
                    self.most
                ),
            });
        }
        self.left -= runs;
        Ok(())
    }
}

/// The values that a child can have, and how probable they are for each class of inputs.
struct Distribution<T> {
    /// Without repetition.
    values: Vec<Vec<T>>,
    /// By class: values' numbers and their probabilities.
    of_class: Vec<Vec<(usize, f64)>>,
}

fn distribution<T: Scalar>(
    scrub: &Scrub<'_, T>,
    child: &Child<T>,
    budget: &mut Budget,
) -> Result<Distribution<T>> {
    let mut values: Vec<Vec<T>> = Vec::new();
    let mut known: HashMap<Vec<u64>, usize> = HashMap::new();
    let mut of_class: Vec<HashMap<usize, f64>> = vec![HashMap::new(); child.agree.members.len()];
    every_run(
        scrub,
        &child.body,
        &Read::Piece(&child.site),
        budget,
        |inputs, probability, value| {
            let bits = value.iter().map(|x| x.to_f64().to_bits()).collect();
            let number = *known.entry(bits).or_insert_with(|| {
                values.push(value.to_vec());
                values.len() - 1
            });
            for &input in inputs {
                let class = child.agree.of[input];
                let share = probability / child.agree.members[class].len() as f64;
                *of_class[class].entry(number).or_default() += share;
            }
        },
    )?;
    let ordered = |class: HashMap<usize, f64>| {
        // By number, so that sums are taken in the same order every time.
        let mut class: Vec<(usize, f64)> = class.into_iter().collect();
        class.sort_unstable_by_key(|&(number, _)| number);
        class
    };
    Ok(Distribution {
        values,
        of_class: of_class.into_iter().map(ordered).collect(),
    })
}

/// Runs everything that a node can be computed from, and calls `f` on the inputs that it can be for, how probable it
/// is for each of them, and what is read.
fn every_run<T: Scalar>(
    scrub: &Scrub<'_, T>,
    body: &Body<T>,
    read: &Read<'_, T>,
    budget: &mut Budget,
    mut f: impl FnMut(&[usize], f64, &[T]),
) -> Result<()> {
    let mut children = Vec::new();
    for child in &body.children {
        children.push(distribution(scrub, child, budget)?);
    }
    let choices = choices(scrub.tokens.batch(), body);
    let lists = |choice: &Choice| -> Vec<&[(usize, f64)]> {
        let classes = choice.classes.iter().zip(&children);
        classes.map(|(&class, d)| &d.of_class[class][..]).collect()
    };
    let runs = |choice: &Choice| {
        let sizes = lists(choice).into_iter().map(|list| list.len() as u64);
        let bases = body.rest.members[choice.rest].len() as u64;
        sizes.fold(bases, u64::saturating_mul)
    };
    let all = choices.iter().map(runs).fold(0, u64::saturating_add);
    budget.spend(all)?;

    let mut jobs: Vec<Job<'_, T>> = Vec::new();
    let mut of_job: Vec<(&[usize], f64)> = Vec::new();
    let mut flush = |jobs: &mut Vec<Job<'_, T>>, of_job: &mut Vec<(&[usize], f64)>| {
        let found = scrub.run(body, read, jobs)?;
        let rows = found.chunks_exact(scrub.width(read));
        for (&(inputs, probability), row) in of_job.iter().zip(rows) {
            f(inputs, probability, row);
        }
        jobs.clear();
        of_job.clear();
        Result::Ok(())
    };
    for choice in &choices {
        let (bases, lists) = (&body.rest.members[choice.rest], lists(choice));
        for run in 0..runs(choice) {
            // The run's number, digit by digit: which input for the rest, which value for each child.
            let mut left = run;
            let mut digit = |base: usize| {
                let digit = left % base as u64;
                left /= base as u64;
                digit as usize
            };
            let base = bases[digit(bases.len())];
            let mut probability = 1.0 / bases.len() as f64;
            let mut values = Vec::with_capacity(lists.len());
            for (list, child) in lists.iter().zip(&children) {
                let (number, share) = list[digit(list.len())];
                probability *= share;
                values.push(&child.values[number][..]);
            }
            jobs.push(Job { base, values });
            of_job.push((&choice.inputs, probability));
            if jobs.len() == AT_A_TIME {
                flush(&mut jobs, &mut of_job)?;
            }
        }
    }
    flush(&mut jobs, &mut of_job)
}

/// Inputs from which the same can be drawn.
struct Choice {
    /// The class for the rest.
    rest: usize,
    /// The class for each child.
    classes: Vec<usize>,
    inputs: Vec<usize>,
}

fn choices<T: Scalar>(inputs: usize, body: &Body<T>) -> Vec<Choice> {
    let mut known: HashMap<(usize, Vec<usize>), usize> = HashMap::new();
    let mut choices: Vec<Choice> = Vec::new();
    for input in 0..inputs {
        let rest = body.rest.of[input];
        let of_children = body.children.iter().map(|child| child.agree.of[input]);
        let classes: Vec<usize> = of_children.collect();
        let at = *known.entry((rest, classes.clone())).or_insert_with(|| {
            choices.push(Choice {
                rest,
                classes,
                inputs: Vec::new(),
            });
            choices.len() - 1
        });
        choices[at].inputs.push(input);
    }
    choices
}
