//! Where the heads look: patterns to look through, what the comparing head moves between a value and its mirror, and
//! where `END` looks.

use super::lab::{Lab, mean};
use super::roles::Roles;
use crate::decompose::{Summary, info_weighted_pattern, summary};
use crate::error::Result;
use crate::model::{Run, RunOutput, Tokens};
use crate::names::{Head, Hook};
use serde::Serialize;

/// Every head's patterns on a few sequences.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Views {
    /// The sequences.
    pub sequences: Vec<Shown>,
    /// The heads, layer by layer, each that which is needed most first.
    pub heads: Vec<Head>,
    /// For each sequence the patterns, `[head, query, key]`.
    pub patterns: Vec<Vec<f64>>,
    /// The same, each entry times the length of what the head writes of that key.
    pub info_weighted: Vec<Vec<f64>>,
}

/// A sequence that is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shown {
    /// Its place in the dataset.
    pub index: usize,
    /// Its tokens, written out.
    pub words: Vec<String>,
    /// The positions in both halves whose values are not their mirrors'.
    pub broken: Vec<usize>,
    /// The probability of a palindrome that the model gives it.
    pub p_palindrome: f64,
}

impl Views {
    /// Of sequences of the dataset.
    pub(super) fn of(lab: &Lab<'_>, roles: &Roles, chosen: &[usize]) -> Result<Self> {
        use crate::task::Task;
        let few = lab.data.dataset.sequences.select(chosen).tokens;
        let run = Run::new()
            .par(lab.par)
            .cache("*.hook_pattern")
            .cache("*.hook_v");
        let out = lab.model.run(&few, run)?;
        let weighted = [0, 1].map(|layer| info_weighted_pattern(&lab.model, &out.cache, layer));
        let [first, second] = weighted;
        let weighted = [first?, second?];
        let heads: Vec<Head> = roles.all().map(|a| a.head).collect();
        let p = lab.p_palindrome(&few)?;
        let show = |s: usize| {
            let sequence = few.sequence(s);
            let names = sequence.iter().map(|&t| lab.task.vocabulary().name(t));
            let broken = (0..lab.positions()).filter(|&i| sequence[i] != sequence[lab.end() - i]);
            Shown {
                index: chosen[s],
                words: names.map(String::from).collect(),
                // START and END are no mirrors of each other.
                broken: broken.filter(|&i| i != 0 && i != lab.end()).collect(),
                p_palindrome: p[s],
            }
        };
        let of_heads = |pattern: &dyn Fn(Head) -> Vec<f64>| -> Vec<f64> {
            heads.iter().flat_map(|&h| pattern(h)).collect()
        };
        let sequences = 0..few.batch();
        let patterns = sequences.clone().map(|s| {
            of_heads(&|h| {
                out.cache[Hook::Pattern(h.layer)]
                    .slice(&[s, h.head])
                    .to_vec()
            })
        });
        let info_weighted = sequences
            .clone()
            .map(|s| of_heads(&|h| weighted[h.layer].slice(&[s, h.head]).to_vec()));
        Ok(Views {
            patterns: patterns.collect(),
            info_weighted: info_weighted.collect(),
            sequences: sequences.map(show).collect(),
            heads,
        })
    }
}

/// How much attention the comparing head moves from a value's mirror to the value itself when they differ, on pairs of
/// sequences with the same second halves.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Differences {
    /// The second half's positions, in whose order all else is.
    pub positions: Vec<usize>,
    /// Attention to the value itself: without a mirror less with one, `p2 - p1`.
    pub to_self: Vec<Summary>,
    /// Attention to the mirror: with it less without, `p1' - p2'`.
    pub to_mirror: Vec<Summary>,
    /// The mean of `p2 - p1` over the positions that are not blind.
    pub mean_to_self: f64,
    /// The mean of `p1' - p2'` over these.
    pub mean_to_mirror: f64,
}

impl Differences {
    pub(super) fn of(lab: &Lab<'_>, roles: &Roles, blind: &[usize]) -> Result<Self> {
        let comparing = roles.comparing();
        let run = |tokens: &Tokens| -> Result<RunOutput<f64>> {
            let run = Run::new()
                .par(lab.par)
                .cache(Hook::Pattern(comparing.layer));
            lab.model.run(tokens, run)
        };
        let same = run(&lab.data.pairs.sequences.palindromic)?;
        let other = run(&lab.data.pairs.sequences.nonpalindromic)?;
        let to = |out: &RunOutput<f64>, s: usize, query: usize, key: usize| {
            out.cache[Hook::Pattern(comparing.layer)][[s, comparing.head, query, key]]
        };
        let positions: Vec<usize> = lab.second_half().collect();
        let of = |moved: &dyn Fn(usize, usize) -> f64| -> Result<Vec<Summary>> {
            let at = positions.iter().map(|&i| {
                let values: Vec<f64> = (0..same.tokens.batch()).map(|s| moved(s, i)).collect();
                summary(&values)
            });
            at.collect()
        };
        let to_self = of(&|s, i| to(&other, s, i, i) - to(&same, s, i, i))?;
        let to_mirror = of(&|s, i| {
            let mirror = lab.end() - i;
            to(&same, s, i, mirror) - to(&other, s, i, mirror)
        })?;
        let but_blind = |of: &[Summary]| {
            let at = positions.iter().zip(of);
            mean(at.filter(|(i, _)| !blind.contains(i)).map(|(_, s)| s.mean))
        };
        Ok(Differences {
            mean_to_self: but_blind(&to_self),
            mean_to_mirror: but_blind(&to_mirror),
            positions,
            to_self,
            to_mirror,
        })
    }
}

/// Where the second layer's heads look from `END`, by whether the value there is its mirror's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EndAttention {
    /// The heads, that which is needed most first.
    pub heads: Vec<Head>,
    /// For each, the mean attention to every position, over the sequences in which the value there is its mirror's;
    /// NaN where there are none.
    pub palindromic: Vec<Vec<f64>>,
    /// And over those in which it is not.
    pub nonpalindromic: Vec<Vec<f64>>,
}

impl EndAttention {
    pub(super) fn of(lab: &Lab<'_>, roles: &Roles) -> Self {
        let pattern = &lab.out.cache[Hook::Pattern(1)];
        let tokens = &lab.out.tokens;
        let heads: Vec<Head> = roles.second.iter().map(|a| a.head).collect();
        let of = |mirrored: bool| -> Vec<Vec<f64>> {
            let at = |head: Head, i: usize| {
                let those = (0..tokens.batch()).filter(|&s| {
                    let sequence = tokens.sequence(s);
                    (sequence[i] == sequence[lab.end() - i]) == mirrored
                });
                mean(those.map(|s| pattern[[s, head.head, lab.end(), i]]))
            };
            let of_head = |&head: &Head| (0..lab.positions()).map(|i| at(head, i)).collect();
            heads.iter().map(of_head).collect()
        };
        EndAttention {
            palindromic: of(true),
            nonpalindromic: of(false),
            heads,
        }
    }
}
