//! Where the heads look: patterns to look through, and where `END` looks.

use super::lab::{Lab, PALINDROME, mean};
use super::roles::Roles;
use crate::decompose::info_weighted_pattern;
use crate::error::Result;
use crate::model::{Run, Tokens};
use crate::names::{Head, Hook};
use crate::task::Task;
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
    /// How it is called: its place in the dataset.
    pub name: String,
    /// Its tokens, written out.
    pub words: Vec<String>,
    /// The positions in both halves whose values are not their mirrors'.
    pub broken: Vec<usize>,
    /// The probability of a palindrome that the model gives it.
    pub p_palindrome: f64,
}

impl Views {
    /// Of sequences, by their names.
    pub(super) fn of(
        lab: &Lab<'_>,
        roles: &Roles,
        few: &Tokens,
        called: &dyn Fn(usize) -> String,
    ) -> Result<Self> {
        let run = Run::new()
            .par(lab.par)
            .cache("*.hook_pattern")
            .cache("*.hook_v");
        let out = lab.model.run(few, run)?;
        let weighted = [0, 1].map(|layer| info_weighted_pattern(&lab.model, &out.cache, layer));
        let [first, second] = weighted;
        let weighted = [first?, second?];
        let heads: Vec<Head> = roles.all().map(|a| a.head).collect();
        let p = lab.p_palindrome(few)?;
        let show = |s: usize| {
            let sequence = few.sequence(s);
            let names = sequence.iter().map(|&t| lab.task.vocabulary().name(t));
            let broken = (0..lab.positions()).filter(|&i| sequence[i] != sequence[lab.end() - i]);
            Shown {
                name: called(s),
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
    /// For each, its mean attention to `START`, over palindromes.
    pub start: Vec<f64>,
    /// For each, what broken values of the second half have of its attention together: the mean over the other
    /// sequences; NaN where there are none.
    pub on_broken: Vec<f64>,
    /// What they would have if it looked everywhere alike.
    pub on_broken_evenly: f64,
    /// For each, the most that one position has, the mean over palindromes and over the others.
    pub largest: Vec<[f64; 2]>,
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
        let class = |palindrome: bool| {
            let classes = lab.classes().iter().enumerate();
            classes.filter_map(move |(s, &c)| ((c == PALINDROME) == palindrome).then_some(s))
        };
        let from_end = |head: &Head, s: usize| pattern.slice(&[s, head.head, lab.end()]);
        let broken = |s: usize| lab.broken(tokens.sequence(s));
        let on_broken = |head: &Head| {
            mean(class(false).map(|s| {
                let attention = from_end(head, s);
                broken(s).iter().map(|&p| attention[p]).sum()
            }))
        };
        let largest = |head: &Head| {
            [true, false].map(|of| {
                mean(class(of).map(|s| from_end(head, s).iter().copied().fold(0.0, f64::max)))
            })
        };
        EndAttention {
            palindromic: of(true),
            nonpalindromic: of(false),
            start: (heads.iter())
                .map(|h| mean(class(true).map(|s| from_end(h, s)[0])))
                .collect(),
            on_broken: heads.iter().map(on_broken).collect(),
            on_broken_evenly: mean(
                class(false).map(|s| broken(s).len() as f64 / lab.positions() as f64),
            ),
            largest: heads.iter().map(largest).collect(),
            heads,
        }
    }
}
