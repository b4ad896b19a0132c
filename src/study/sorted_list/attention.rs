//! What the heads attend to on runs, step by step, and what each of them adds to the right answer.

use super::circuits::{Circuits, order};
use super::lab::{Answered, Lab, Shown, mean_of, total};
use crate::decompose::{self, Logit, direct_logit_attribution, residual_stack};
use crate::error::Result;
use crate::metric::mean;
use crate::model::Run;
use crate::names::Hook;
use serde::Serialize;

/// Sequences that are shown, as many as the write-up shows.
const SHOWN: usize = 10;

/// Sequences whose components are taken apart.
const TAKEN_APART: usize = 500;

/// What a query's largest weight can lie on: the right answer, the value after it, values further above, the query's own
/// token, values below it, the separator.
pub(super) const KINDS: [&str; 6] = ["next", "after next", "above", "itself", "below", "SEP"];

/// What the heads attend to where answers are read.
#[derive(Clone, Debug, Serialize)]
pub struct Attending {
    /// `[head][step][kind]`: the share of sequences in which a step's largest weight lies on a key of such a kind.
    pub kinds: Vec<Vec<Vec<f64>>>,
    /// `[head][step]`: the share in which it lies on the right answer, of all keys.
    pub hits: Vec<Vec<f64>>,
    /// The same, of the keys in the list that is to be sorted.
    pub hits_in_list: Vec<Vec<f64>>,
    /// `[step]`: the share in which it does in at least one head, of all keys.
    pub either: Vec<f64>,
    /// The same, of the keys in the list.
    pub either_in_list: Vec<f64>,
    /// `[step]`: the share there would be if each head chose any of the values that are still to be written.
    pub chance: Vec<f64>,
    /// `[head][step]`: in the first sequence, the attention to the right answer and to the value after it.
    pub first: Vec<Vec<[f64; 2]>>,
    /// The first sequences, with their patterns.
    pub shown: Shown,
}

impl Attending {
    pub(super) fn of(lab: &Lab<'_>) -> Self {
        let on = &lab.on;
        let n_steps = lab.length;
        let per_head = |f: &dyn Fn(usize, usize) -> f64| -> Vec<Vec<f64>> {
            let of_head = |h: usize| (0..n_steps).map(|i| f(h, i)).collect();
            lab.heads().map(of_head).collect()
        };
        let share = |such: &dyn Fn(usize) -> bool| mean_of(on.all().map(|s| f64::from(such(s))));
        // The token with the largest weight, of the first keys.
        let top = |s: usize, h: usize, i: usize, keys: usize| {
            let row = &on.pattern.slice(&[s, h, lab.length + i])[..keys];
            on.tokens.sequence(s)[order(row)[0]]
        };
        let right = |s: usize, i: usize| on.tokens.sequence(s)[lab.length + 1 + i];
        let all = |i: usize| lab.length + 1 + i;
        let kind = |s: usize, h: usize, i: usize| kind(lab, s, i, top(s, h, i, all(i)));
        let kinds = |h: usize, i: usize| -> Vec<f64> {
            let of: Vec<usize> = on.all().map(|s| kind(s, h, i)).collect();
            let share = |k| mean_of(of.iter().map(|&found| f64::from(found == k)));
            (0..KINDS.len()).map(share).collect()
        };
        let hit = |s: usize, h: usize, i: usize, keys: usize| top(s, h, i, keys) == right(s, i);
        let either = |i: usize, keys: usize| share(&|s| lab.heads().any(|h| hit(s, h, i, keys)));
        let left = |i: usize| 1.0 / (n_steps - i) as f64;
        let heads = lab.heads().len() as i32;
        let first = |h: usize, i: usize| {
            let sequence = on.tokens.sequence(0);
            let to = |at: usize| {
                let token = sequence.get(lab.length + at).copied();
                token.map_or(f64::NAN, |t| on.attention(0, h, lab.length + i, t))
            };
            [to(i + 1), to(i + 2)]
        };
        Attending {
            kinds: lab
                .heads()
                .map(|h| (0..n_steps).map(|i| kinds(h, i)).collect())
                .collect(),
            hits: per_head(&|h, i| share(&|s| hit(s, h, i, all(i)))),
            hits_in_list: per_head(&|h, i| share(&|s| hit(s, h, i, n_steps))),
            either: (0..n_steps).map(|i| either(i, all(i))).collect(),
            either_in_list: (0..n_steps).map(|i| either(i, n_steps)).collect(),
            chance: (0..n_steps)
                .map(|i| 1.0 - (1.0 - left(i)).powi(heads))
                .collect(),
            first: lab
                .heads()
                .map(|h| (0..n_steps).map(|i| first(h, i)).collect())
                .collect(),
            shown: on.shown(&on.all().take(SHOWN).collect::<Vec<_>>()),
        }
    }

    /// The share of steps after the separator's in which some head attends most to the right answer, of all keys,
    /// and what chance would give. NaN where a list has one value.
    pub fn after_the_separator(&self) -> [f64; 2] {
        [&self.either, &self.chance].map(|of| mean(&of[1..]))
    }

    /// What a head's largest weight lies on most often where it is not on the right answer, and the share of these steps,
    /// after the separator's; `None` where it always is.
    pub fn otherwise(&self, head: usize) -> Option<(&'static str, f64)> {
        let steps = &self.kinds[head][1..];
        let of: Vec<f64> = (0..KINDS.len())
            .map(|k| total(steps.iter().map(|step| step[k])))
            .collect();
        let missed = total(of[1..].iter().copied());
        let most = 1 + order(&of[1..])[0];
        (missed > 0.0).then(|| (KINDS[most], of[most] / missed))
    }

    /// The head that attends to the smallest value from the separator most often, and how often.
    pub fn at_the_separator(&self) -> (usize, f64) {
        let first: Vec<f64> = self.hits.iter().map(|steps| steps[0]).collect();
        let best = order(&first)[0];
        (best, first[best])
    }
}

/// The kind of a key's token, for a step of a sequence.
fn kind(lab: &Lab<'_>, sequence: usize, step: usize, key: i64) -> usize {
    let sorted = &lab.on.tokens.sequence(sequence)[lab.length..];
    let (query, right) = (sorted[step], sorted[step + 1]);
    if key == right {
        0
    } else if sorted.get(step + 2) == Some(&key) {
        1
    } else if key == lab.sep() {
        5
    } else if query != lab.sep() && key == query {
        3
    } else if query != lab.sep() && key < query {
        4
    } else {
        2
    }
}

/// What each head adds to the right answers, and each component to the logits.
#[derive(Clone, Debug, Serialize)]
pub struct Shares {
    /// `[head][value]`: what a head adds to the value's logit directly where the value is right, on average over the
    /// first sequences; NaN where it never is.
    pub attribution: Vec<Vec<f64>>,
    /// `[head][value]`: the attention to the value there.
    pub attention: Vec<Vec<f64>>,
    /// Of the values that are right somewhere, the share to which the head adds most that copies them by its circuit.
    pub agree: f64,
    /// How far apart each component pushes the logits, where answers are read: the standard deviation of what it adds
    /// directly, averaged.
    pub pushes: Vec<(String, f64)>,
}

impl Shares {
    pub(super) fn of(lab: &Lab<'_>, circuits: &Circuits) -> Result<Self> {
        let tokens = lab.tokens.clone().truncate(TAKEN_APART);
        let out = lab.model.run(&tokens, Run::new().cache("*"))?;
        let stack = residual_stack(
            &lab.model,
            &out.cache,
            Hook::ResidPost(0),
            decompose::By::Head,
        )?;
        let d_vocab = lab.model.config().d_vocab_out;
        let logits: Vec<Logit<'_, f64>> = (0..d_vocab).map(Logit::Of).collect();
        let parts = direct_logit_attribution(&lab.model, &out.cache, stack, &logits)?;
        let of_head = |h: usize| {
            let name = format!("head {}", super::lab::head_name(h));
            let mut labels = parts.labels.iter();
            labels
                .position(|l| l.to_string() == name)
                .expect("every head is a component")
        };
        let places = || (0..tokens.batch()).flat_map(|s| lab.steps().map(move |p| (s, p)));
        let by_value = |f: &dyn Fn(usize, usize, i64) -> f64| -> Vec<f64> {
            let mut of_values = vec![Vec::new(); lab.values];
            for (s, p) in places() {
                let right = tokens.sequence(s)[p + 1];
                of_values[right as usize].push(f(s, p, right));
            }
            of_values.into_iter().map(mean_of).collect()
        };
        let attribution: Vec<Vec<f64>> = lab
            .heads()
            .map(|h| {
                let part = of_head(h);
                by_value(&|s, p, right| parts.values[[part, s, p, right as usize]])
            })
            .collect();
        let on: &Answered = &lab.on;
        let attention = lab
            .heads()
            .map(|h| by_value(&|s, p, right| on.attention(s, h, p, right)))
            .collect();
        let seen = (0..lab.values).filter(|&v| !attribution[0][v].is_nan());
        let agree = seen.map(|v| {
            let added: Vec<f64> = attribution.iter().map(|head| head[v]).collect();
            f64::from(order(&added)[0] == circuits.owners[v])
        });
        let agree = mean_of(agree);
        let pushes = parts.labels.iter().enumerate().map(|(i, label)| {
            let spreads = places().map(|(s, p)| spread(parts.values.slice(&[i, s, p])));
            (label.to_string(), mean_of(spreads))
        });
        Ok(Shares {
            pushes: pushes.collect(),
            agree,
            attribution,
            attention,
        })
    }
}

/// The standard deviation of some values.
fn spread(values: &[f64]) -> f64 {
    let middle = mean(values);
    mean_of(values.iter().map(|x| (x - middle) * (x - middle))).sqrt()
}
