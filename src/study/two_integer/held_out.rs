//! How good a model is on pairs that it was not trained on.

use super::TwoIntegerStudy;
use crate::error::{Error, Result};
use crate::model::Tokens;
use serde::Serialize;

/// Pairs that a model was not trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HeldOut {
    /// How many there are.
    pub pairs: usize,
    /// How many of them get their label.
    pub right: usize,
}

impl HeldOut {
    /// The share of them that get their label.
    pub fn accuracy(&self) -> f64 {
        self.right as f64 / self.pairs as f64
    }
}

impl TwoIntegerStudy {
    /// With pairs that the model was not trained on, `[pair, 3]`: how good it is on them.
    ///
    /// # Errors
    /// When there are none, or a sequence is no pair of the task's integers.
    pub fn held_out(mut self, pairs: &Tokens) -> Result<Self> {
        let n = self.n();
        let mut right = 0;
        for i in 0..pairs.batch() {
            let integer = |&id: &i64| usize::try_from(id).ok().filter(|&x| x < n);
            let pair = match pairs.sequence(i) {
                [a, b, _] => integer(a).zip(integer(b)),
                _ => None,
            };
            let Some((a, b)) = pair else {
                let message = format!("held-out pair {i}: expected two integers below {n} and =");
                return Err(Error::Sequence {
                    sequence: Some(i),
                    message,
                });
            };
            right += usize::from(self.full.says[a * n + b] == self.labels[a * n + b]);
        }
        if pairs.batch() == 0 {
            return Err(Error::TooFew {
                found: 0,
                least: 1,
                message: "no held-out pairs".into(),
            });
        }
        self.held_out = Some(HeldOut {
            pairs: pairs.batch(),
            right,
        });
        Ok(self)
    }
}
