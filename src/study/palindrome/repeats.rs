//! What positions add to the comparison of tokens: a sequence of few values that come again and again, with and
//! without the positional embedding.

use super::lab::Lab;
use super::roles::Roles;
use crate::error::Result;
use crate::model::{Model, Run, Tokens};
use crate::names::Hook;
use crate::task::Task;
use serde::Serialize;

/// How many values there are before they come again: 1 2 3 4 5 1 2 ….
const VALUES: usize = 5;

/// The comparing head's attention on a sequence of values that come again and again.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Repeats {
    /// The sequence, written out.
    pub words: Vec<String>,
    /// The attention, `[query, key]`, without the positional embedding.
    pub without: Vec<f64>,
    /// And with it.
    pub with: Vec<f64>,
    /// From the last value, the attention that each place of that value has, without positions.
    pub from_last: Vec<f64>,
    /// The positions of the second half whose mirrors have the same value.
    pub mirrored: Vec<usize>,
    /// For each of these, the attention to its mirror and to itself together, without positions and with them.
    pub on_lambda: Vec<[f64; 2]>,
}

impl Repeats {
    pub(super) fn of(lab: &Lab<'_>, roles: &Roles) -> Result<Self> {
        let last = lab.end() - 1;
        let value = |p: usize| ((p - 1) % VALUES + 1) as i64;
        let mut sequence = vec![lab.task.start()];
        sequence.extend((1..=last).map(value));
        sequence.push(lab.task.end());
        let tokens = Tokens::from_rows(&[&sequence]);
        let mut weights = lab.model.weights().clone();
        weights.W_pos.data_mut().fill(0.0);
        let unplaced = Model::new(lab.model.config().clone(), weights)?;
        let head = roles.comparing();
        let pattern = |model: &Model<f64>| -> Result<Vec<f64>> {
            let hook = Hook::Pattern(head.layer);
            let out = model.run(&tokens, Run::new().cache(hook))?;
            Ok(out.cache[hook].slice(&[0, head.head]).to_vec())
        };
        let (without, with) = (pattern(&unplaced)?, pattern(&lab.model)?);
        let at = |of: &[f64], q: usize, k: usize| of[q * lab.positions() + k];
        let mirrored: Vec<usize> = lab
            .second_half()
            .filter(|&i| value(i) == value(lab.end() - i))
            .collect();
        let on_lambda =
            |&i: &usize| [&without, &with].map(|of| at(of, i, i) + at(of, i, lab.end() - i));
        let names = sequence.iter().map(|&t| lab.task.vocabulary().name(t));
        Ok(Repeats {
            words: names.map(String::from).collect(),
            from_last: (1..=last)
                .filter(|&k| value(k) == value(last))
                .map(|k| at(&without, last, k))
                .collect(),
            on_lambda: mirrored.iter().map(on_lambda).collect(),
            mirrored,
            without,
            with,
        })
    }
}
