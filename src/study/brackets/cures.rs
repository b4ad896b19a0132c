//! Why the write-up's family fools the model: what cures each string.

use super::Roles;
use super::adversarial::{Judged, judged_with};
use super::written::{ANSWER, TALLY};
use crate::error::Result;
use crate::intervene::{Change, Intervention, Part};
use crate::linalg::Par;
use crate::model::Model;
use crate::model::Run;
use crate::model::Tokens;
use crate::names::Hook;
use crate::task::Brackets;
use serde::Serialize;

/// A string of the family, with the model's probability of "balanced" as it is and as it is changed.
#[derive(Clone, Debug, Serialize)]
pub struct Cure {
    /// The string's `i`.
    pub i: usize,
    /// The bracket that goes negative.
    pub bracket: usize,
    /// The negative head's attention to it from position 0.
    pub attention: f64,
    /// As the model is.
    pub as_is: f64,
    /// With the counting head's attention from that bracket even over it and all that follows.
    pub even_there: f64,
    /// With its attention even in that way from every bracket.
    pub even_everywhere: f64,
    /// With all of the negative head's attention from position 0 on that bracket.
    pub looked_at: f64,
    /// The same of the balanced string with `()` in place of `)(`, with the attention on that `(`: what looking at a
    /// bracket does by itself.
    pub balanced_looked_at: f64,
}

impl Cure {
    /// Of one string of the family, of all positions.
    pub(super) fn new(
        model: &Model<f64>,
        roles: &Roles,
        i: usize,
        string: &Judged,
        par: Par,
    ) -> Result<Self> {
        let sequence = string.sequence()?;
        let elevation = Brackets::elevation(&sequence);
        let bracket = elevation.iter().position(|&e| e < 0);
        let bracket = bracket.expect("the family goes negative");
        let n = sequence.len();
        let even = |query: usize| {
            let weights = (0..n).map(|key| {
                if key < query {
                    0.0
                } else {
                    1.0 / (n - query) as f64
                }
            });
            set(
                roles.counting.layer,
                roles.counting.head,
                query,
                weights.collect(),
            )
        };
        let look = |at: usize| {
            let only = (0..n).map(|key| f64::from(key == at)).collect();
            set(roles.negative.layer, roles.negative.head, ANSWER, only)
        };
        let mut balanced = sequence.clone();
        balanced.swap(bracket - 1, bracket);
        let p = |changes: &[Intervention]| judged_with(model, &sequence, changes, par);
        let everywhere: Vec<Intervention> = (TALLY..n - 1).map(even).collect();
        let pattern = Hook::Pattern(roles.negative.layer);
        let run = Run::new().par(par).cache(pattern);
        let out = model.run(&Tokens::from_rows(&[&sequence]), run)?;
        Ok(Cure {
            i,
            bracket,
            attention: out.cache[pattern][[0, roles.negative.head, ANSWER, bracket]],
            as_is: string.p_balanced,
            even_there: p(&[even(bracket)])?,
            even_everywhere: p(&everywhere)?,
            balanced_looked_at: judged_with(model, &balanced, &[look(bracket - 1)], par)?,
            looked_at: p(&[look(bracket)])?,
        })
    }

    /// Whether the model takes the string for balanced.
    pub fn fools(&self) -> bool {
        self.as_is > 0.5
    }
}

/// A query's attention, one weight a key.
fn set(layer: usize, head: usize, query: usize, weights: Vec<f64>) -> Intervention {
    let part = Part::all().heads([head]).positions([query]);
    Intervention::new(Hook::Pattern(layer), part, Change::Set(weights))
}
