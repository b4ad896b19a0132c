//! Strings that begin with a closing bracket: wrong at once, and which head says so.

use super::LastHead;
use super::data::{Data, StringKind};
use super::heads::told;
use super::silence::{Silence, answers};
use super::written::{TALLY, Written};
use crate::error::Result;
use crate::linalg::Par;
use crate::metric::mean;
use crate::model::Model;
use crate::names::Head;
use serde::Serialize;

/// The strings that begin with a closing bracket.
#[derive(Clone, Debug, Serialize)]
pub struct Closing {
    /// How many there are.
    pub strings: usize,
    /// The share that the model gets right.
    pub right: f64,
    /// What the last layer's heads do with them; none where there are no such strings.
    pub heads: Vec<ClosingHead>,
}

/// What a head of the last layer does with strings that begin with a closing bracket.
#[derive(Clone, Debug, Serialize)]
pub struct ClosingHead {
    /// The head.
    pub head: Head,
    /// What it writes along the unbalanced direction, less the mean over balanced strings: the mean.
    pub mean: f64,
    /// The least of them.
    pub least: f64,
    /// Of these strings and the balanced ones, the share that one threshold on what it writes tells apart.
    pub tells: f64,
    /// Its mean attention from position 0, by key.
    pub attention: Vec<f64>,
    /// What it takes from position 1 along that direction, on average: in these strings, and in balanced ones.
    pub from_first: [f64; 2],
    /// The share of right answers where it writes what it writes to balanced strings, on average.
    pub right_without: f64,
    /// The share of right answers where all other heads of the last layer do.
    pub right_alone: f64,
}

impl Closing {
    pub(super) fn new(
        model: &Model<f64>,
        data: &Data,
        written: &Written,
        last_heads: &[LastHead],
        par: Par,
    ) -> Result<Self> {
        let closing: Vec<usize> = (0..data.kinds.len())
            .filter(|&s| !data.starts_open[s])
            .collect();
        let mut found = Closing {
            strings: closing.len(),
            right: f64::NAN,
            heads: Vec::new(),
        };
        if closing.is_empty() {
            return Ok(found);
        }
        let balanced = data.of_kind(StringKind::Balanced);
        let heads: Vec<Head> = last_heads.iter().map(|h| h.head).collect();
        let right = |silent: &[Head]| -> Result<f64> {
            let silent = silent
                .iter()
                .map(|&h| Silence::balanced(h, written, &balanced));
            Ok(answers(model, data, &closing, &silent.collect::<Vec<_>>(), par)?.right)
        };
        found.right = right(&[])?;
        for head in last_heads {
            let own = head.head;
            let row = |s: usize, key: usize| written.attention[[s, own.head, key]];
            let over = |of: &[usize], f: &dyn Fn(usize) -> f64| {
                mean(&of.iter().map(|&s| f(s)).collect::<Vec<_>>())
            };
            let first = |s: usize| row(s, TALLY) * written.worth[[s, own.head, TALLY]];
            let others: Vec<Head> = heads.iter().copied().filter(|h| *h != own).collect();
            let writes = closing.iter().map(|&s| head.writes[s]);
            let keys = 0..data.tokens.pos();
            found.heads.push(ClosingHead {
                head: own,
                mean: over(&closing, &|s| head.writes[s]),
                least: writes.fold(f64::INFINITY, f64::min),
                tells: told(&head.writes, &balanced, &closing)?,
                attention: keys.map(|key| over(&closing, &|s| row(s, key))).collect(),
                from_first: [&closing, &balanced].map(|of| over(of, &first)),
                right_without: right(&[own])?,
                right_alone: right(&others)?,
            });
        }
        Ok(found)
    }

    /// What this head does with them.
    pub fn of(&self, head: Head) -> Option<&ClosingHead> {
        self.heads.iter().find(|h| h.head == head)
    }
}
