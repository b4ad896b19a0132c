//! What every part of the study starts from: the processed model, its run on the dataset, and runs on lists.

use super::circuits::order;
use crate::error::{Error, Result};
use crate::metric::{Answers, Metric, Standard};
use crate::model::process::Processing;
use crate::model::{Model, Run, RunOutput, Tokens};
use crate::names::{Head, Hook};
use crate::tensor::Tensor;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use serde::Serialize;
use std::ops::Range;

/// The processed model, and its run on the dataset.
pub(super) struct Lab<'a> {
    pub model: Model<f64>,
    pub tokens: &'a Tokens,
    /// The values that are sorted, `0..values`; the separator comes after them.
    pub values: usize,
    /// The list's length, which is also the separator's position.
    pub length: usize,
    /// The dataset's run.
    pub on: Answered,
}

/// A run on sequences of the task.
pub(super) struct Answered {
    pub tokens: Tokens,
    pub answers: Answers,
    /// `[sequence, step, token]`
    pub logits: Tensor<f64>,
    /// `[sequence, head, query, key]`
    pub pattern: Tensor<f64>,
    /// `[sequence][step]`: the right token's probability.
    pub right: Vec<Vec<f64>>,
}

impl<'a> Lab<'a> {
    pub fn new(model: &Model<f64>, tokens: &'a Tokens) -> Result<Self> {
        let (values, length) = check(model, tokens)?;
        let mut model = model.clone();
        for step in Processing::DEFAULT {
            step.apply(&mut model)?;
        }
        Ok(Lab {
            on: Answered::of(&model, tokens.clone(), length)?,
            model,
            tokens,
            values,
            length,
        })
    }

    /// The separator.
    pub fn sep(&self) -> i64 {
        self.values as i64
    }

    /// The positions that predict: that of the separator, and of every value in order but the last.
    pub fn steps(&self) -> Range<usize> {
        self.length..2 * self.length
    }

    pub fn heads(&self) -> Range<usize> {
        0..self.model.config().n_heads
    }

    /// Lists as sequences.
    pub fn sequences(&self, lists: &[Vec<i64>]) -> Tokens {
        let sequence = |list: &Vec<i64>| {
            let mut sorted = list.clone();
            sorted.sort_unstable();
            [&list[..], &[self.sep()], &sorted].concat()
        };
        Tokens::from_rows(&lists.iter().map(sequence).collect::<Vec<_>>())
    }

    /// A run on lists.
    pub fn run(&self, lists: &[Vec<i64>]) -> Result<Answered> {
        Answered::of(&self.model, self.sequences(lists), self.length)
    }
}

impl Answered {
    fn of(model: &Model<f64>, tokens: Tokens, length: usize) -> Result<Self> {
        let steps: Vec<usize> = (length..2 * length).collect();
        let answers = Answers::next_tokens(&tokens, &steps)?;
        let mut out: RunOutput<f64> = model.run(&tokens, Run::new().cache(Hook::Pattern(0)))?;
        let pattern = out.cache.get_mut(Hook::Pattern(0)).expect("it was kept");
        let pattern = std::mem::replace(pattern, Tensor::zeros(&[0]));
        let logits = answers.rows_of(&out.logits);
        Ok(Answered {
            right: per_step(&answers, &logits, &Standard::RightProbability),
            tokens,
            answers,
            logits,
            pattern,
        })
    }

    /// Every sequence's place in the batch.
    pub fn all(&self) -> Range<usize> {
        0..self.tokens.batch()
    }

    /// Whether each step of each sequence is right, as 1 or 0.
    pub fn hits(&self) -> Vec<Vec<f64>> {
        per_step(&self.answers, &self.logits, &Standard::Accuracy)
    }

    /// The logits at a step.
    pub fn row(&self, sequence: usize, step: usize) -> &[f64] {
        self.logits.slice(&[sequence, step])
    }

    /// The token that a step writes, and the one that is right.
    pub fn written(&self, sequence: usize, step: usize) -> usize {
        order(self.row(sequence, step))[0]
    }

    /// A token's probability at a step.
    pub fn probability(&self, sequence: usize, step: usize, token: i64) -> f64 {
        let answer = self.answers.get(sequence, step);
        Standard::Probability(token as usize).of(&answer, self.row(sequence, step))
    }

    /// A head's attention from a position to all keys of a token.
    pub fn attention(&self, sequence: usize, head: usize, query: usize, token: i64) -> f64 {
        self.attention_where(sequence, head, query, |key| key == token)
    }

    /// A head's attention from a position to all keys whose tokens are such.
    pub fn attention_where(
        &self,
        sequence: usize,
        head: usize,
        query: usize,
        such: impl Fn(i64) -> bool,
    ) -> f64 {
        let tokens = self.tokens.sequence(sequence);
        let row = self.pattern.slice(&[sequence, head, query]);
        let keys = row.iter().zip(tokens).filter(|(_, t)| such(**t));
        total(keys.map(|(a, _)| *a))
    }

    /// Sequences to look at, with their patterns.
    pub fn shown(&self, sequences: &[usize]) -> Shown {
        Shown {
            patterns: sequences
                .iter()
                .map(|&s| self.pattern.slice(&[s]).to_vec())
                .collect(),
            sequences: sequences
                .iter()
                .map(|&s| self.tokens.sequence(s).to_vec())
                .collect(),
        }
    }
}

/// Sequences with the heads' patterns on them.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// Their tokens.
    pub sequences: Vec<Vec<i64>>,
    /// For each `[head, query, key]`, row-major.
    pub patterns: Vec<Vec<f64>>,
}

/// A metric of every answer, `[sequence][step]`.
pub(super) fn per_step(
    answers: &Answers,
    logits: &Tensor<f64>,
    metric: &dyn Metric,
) -> Vec<Vec<f64>> {
    let of = |s: usize, i: usize| metric.of(&answers.get(s, i), logits.slice(&[s, i]));
    let steps = 0..answers.positions().len();
    (0..answers.batch())
        .map(|s| steps.clone().map(|i| of(s, i)).collect())
        .collect()
}

/// The mean over the sequences, step by step.
pub(super) fn mean_of_steps(per_sequence: &[Vec<f64>]) -> Vec<f64> {
    let steps = per_sequence.first().map_or(0, Vec::len);
    let mean = |i: usize| mean_of(per_sequence.iter().map(|s| s[i]));
    (0..steps).map(mean).collect()
}

/// The sum; nothing adds up to zero, where the standard library's sum is -0.
pub(super) fn total(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(0.0, |sum, x| sum + x)
}

/// The mean; NaN where there are no values.
pub(super) fn mean_of(values: impl IntoIterator<Item = f64>) -> f64 {
    crate::metric::mean(&values.into_iter().collect::<Vec<_>>())
}

/// Distinct values of `from..to` in any order, those of `with` among them.
///
/// # Panics
/// When there are not so many.
pub(super) fn draw(
    rng: &mut ChaCha8Rng,
    range: Range<usize>,
    n: usize,
    with: &[usize],
) -> Vec<i64> {
    let mut rest: Vec<usize> = range.filter(|v| !with.contains(v)).collect();
    let (chosen, _) = rest.partial_shuffle(rng, n - with.len());
    let mut list: Vec<i64> = chosen.iter().chain(with).map(|&v| v as i64).collect();
    assert_eq!(list.len(), n, "there are not so many values");
    list.shuffle(rng);
    list
}

/// The heads by their names.
pub(super) fn head_name(head: usize) -> String {
    Head { layer: 0, head }.to_string()
}

/// The values and the list's length of a model and sequences of the task.
fn check(model: &Model<f64>, tokens: &Tokens) -> Result<(usize, usize)> {
    let c = model.config();
    let config = |field, reason: String| Err(Error::Config { field, reason });
    if c.n_layers != 1 {
        let reason = format!("{}, expected 1 for this study", c.n_layers);
        return config("n_layers", reason);
    }
    if c.mlp.is_some() {
        return config("attn_only", "false, expected true for this study".into());
    }
    if c.d_vocab_out != c.d_vocab {
        let (out, all) = (c.d_vocab_out, c.d_vocab);
        let reason = format!("{out}, expected {all}, a logit for every token, for this study");
        return config("d_vocab_out", reason);
    }
    let (pos, length) = (tokens.pos(), tokens.pos() / 2);
    let refused = |sequence: Option<usize>, what: String| {
        Err(Error::Sequence {
            sequence,
            message: format!("the study of sorted lists: {what}"),
        })
    };
    if pos % 2 == 0 || length == 0 {
        return refused(
            None,
            format!(
                "sequences of {pos} tokens, expected a list, the separator, and the list in order"
            ),
        );
    }
    if pos > c.n_ctx {
        let reason = format!("{}, expected {pos}, the sequences' positions", c.n_ctx);
        return config("n_ctx", reason);
    }
    let sep = tokens.sequence(0)[length];
    let is_of_task = |s: &[i64]| {
        let mut sorted = s[..length].to_vec();
        sorted.sort_unstable();
        s[length] == sep && sorted.iter().all(|&v| v < sep) && s[length + 1..] == sorted
    };
    if let Some(i) = (0..tokens.batch()).find(|&i| !is_of_task(tokens.sequence(i))) {
        return refused(
            Some(i),
            format!("sequence {i} is not a list, the separator {sep}, and the list in order"),
        );
    }
    if sep + 1 != c.d_vocab as i64 {
        let expected = sep + 1;
        let reason = format!(
            "{}, expected {expected}: the sequences' separator is {sep}",
            c.d_vocab
        );
        return config("d_vocab", reason);
    }
    Ok((c.d_vocab - 1, length))
}
