//! How the first layer's heads compare: on pairs of sequences with the same second halves, of which one is a
//! palindrome, and in the other no value is its mirror's.

use super::lab::{Lab, mean};
use super::roles::Roles;
use crate::decompose::{Summary, summary};
use crate::error::Result;
use crate::model::{Run, RunOutput, Tokens};
use crate::names::{Head, Hook};
use serde::Serialize;

/// A share that is most: what is more often so than not.
pub const MOST: f64 = 0.5;

/// The runs on the two sides of the pairs.
pub(super) struct PairRuns {
    equal: RunOutput<f64>,
    broken: RunOutput<f64>,
}

impl PairRuns {
    pub fn of(lab: &Lab<'_>) -> Result<Self> {
        let run = |tokens: &Tokens| {
            let run = Run::new().par(lab.par).cache(Hook::Pattern(0));
            lab.model.run(tokens, run)
        };
        Ok(PairRuns {
            equal: run(&lab.data.pairs.sequences.palindromic)?,
            broken: run(&lab.data.pairs.sequences.nonpalindromic)?,
        })
    }

    /// A head's attention from a query to a key, of every sequence.
    fn to(out: &RunOutput<f64>, head: Head, query: usize, key: usize) -> Vec<f64> {
        let pattern = &out.cache[Hook::Pattern(head.layer)];
        (0..out.tokens.batch())
            .map(|s| pattern[[s, head.head, query, key]])
            .collect()
    }

    /// The share of sequences in which a head looks from a query at a key more than at any other.
    fn first(out: &RunOutput<f64>, head: Head, query: usize, key: usize) -> f64 {
        let pattern = &out.cache[Hook::Pattern(head.layer)];
        let first = (0..out.tokens.batch()).filter(|&s| {
            let row = pattern.slice(&[s, head.head, query]);
            (0..=query).all(|k| k == key || row[k] < row[key])
        });
        first.count() as f64 / out.tokens.batch() as f64
    }
}

/// Where a head of the first layer looks from the second half's positions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Looks {
    /// The head.
    pub head: Head,
    /// For each position, the share of sequences in which it looks at the mirror before all else, where the value is
    /// the same.
    pub mirror_first: Vec<f64>,
    /// The share in which it looks at the value itself before all else, where the mirror has another value.
    pub self_first: Vec<f64>,
    /// The mean attention to the mirror where the value is the same.
    pub mirror_equal: Vec<f64>,
    /// And to the value itself there.
    pub self_equal: Vec<f64>,
    /// The mean attention to the mirror where it has another value.
    pub mirror_broken: Vec<f64>,
    /// And to the value itself there.
    pub self_broken: Vec<f64>,
    /// The share of pairs in which the mirror has more attention where it has another value.
    pub more_when_broken: Vec<f64>,
}

impl Looks {
    fn of(lab: &Lab<'_>, runs: &PairRuns, head: Head) -> Self {
        let positions = || lab.second_half();
        let mirror = |i: usize| lab.end() - i;
        let PairRuns { equal, broken } = runs;
        let each = |f: &dyn Fn(usize) -> f64| positions().map(f).collect::<Vec<f64>>();
        let mean_to = |out: &RunOutput<f64>, i, k| mean(PairRuns::to(out, head, i, k));
        Looks {
            head,
            mirror_first: each(&|i| PairRuns::first(equal, head, i, mirror(i))),
            self_first: each(&|i| PairRuns::first(broken, head, i, i)),
            mirror_equal: each(&|i| mean_to(equal, i, mirror(i))),
            self_equal: each(&|i| mean_to(equal, i, i)),
            mirror_broken: each(&|i| mean_to(broken, i, mirror(i))),
            self_broken: each(&|i| mean_to(broken, i, i)),
            more_when_broken: each(&|i| {
                let same = PairRuns::to(equal, head, i, mirror(i));
                let other = PairRuns::to(broken, head, i, mirror(i));
                let more = same.iter().zip(&other).filter(|(s, o)| o > s);
                more.count() as f64 / same.len() as f64
            }),
        }
    }

    /// Whether it compares at the n-th position of the second half: mostly the mirror first where that is the same,
    /// and mostly itself where it is not.
    pub fn compares(&self, n: usize) -> bool {
        self.mirror_first[n] > MOST && self.self_first[n] > MOST
    }

    /// What the value itself and its mirror have together, where they are the same.
    pub fn both_equal(&self) -> Vec<f64> {
        let both = self.mirror_equal.iter().zip(&self.self_equal);
        both.map(|(m, s)| m + s).collect()
    }

    /// And where they are not.
    pub fn both_broken(&self) -> Vec<f64> {
        let both = self.mirror_broken.iter().zip(&self.self_broken);
        both.map(|(m, s)| m + s).collect()
    }
}

/// Where the first layer's heads look, and what the comparing head moves.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparing {
    /// The second half's positions, in whose order all else is.
    pub positions: Vec<usize>,
    /// The heads, that which is needed most first.
    pub heads: Vec<Looks>,
    /// The comparing head's attention to the value itself: without a mirror less with one, `p2 - p1`.
    pub to_self: Vec<Summary>,
    /// Its attention to the mirror: with it less without, `p1' - p2'`.
    pub to_mirror: Vec<Summary>,
    /// The mean of `p2 - p1` over the positions that are not blind.
    pub mean_to_self: f64,
    /// The mean of `p1' - p2'` over these.
    pub mean_to_mirror: f64,
}

impl Comparing {
    pub(super) fn of(
        lab: &Lab<'_>,
        runs: &PairRuns,
        roles: &Roles,
        blind: &[usize],
    ) -> Result<Self> {
        let head = roles.comparing();
        let positions: Vec<usize> = lab.second_half().collect();
        // How much more one side's sequences look from each position at a key than the other's.
        let moved = |more: &RunOutput<f64>, less: &RunOutput<f64>, key: &dyn Fn(usize) -> usize| {
            let at = positions.iter().map(|&i| {
                let (more, less) = (
                    PairRuns::to(more, head, i, key(i)),
                    PairRuns::to(less, head, i, key(i)),
                );
                let by: Vec<f64> = more.iter().zip(&less).map(|(m, l)| m - l).collect();
                summary(&by)
            });
            at.collect::<Result<Vec<Summary>>>()
        };
        let to_self = moved(&runs.broken, &runs.equal, &|i| i)?;
        let to_mirror = moved(&runs.equal, &runs.broken, &|i| lab.end() - i)?;
        let but_blind = |of: &[Summary]| {
            let at = positions.iter().zip(of);
            mean(at.filter(|(i, _)| !blind.contains(i)).map(|(_, s)| s.mean))
        };
        let heads = roles.first.iter().map(|a| Looks::of(lab, runs, a.head));
        Ok(Comparing {
            heads: heads.collect(),
            mean_to_self: but_blind(&to_self),
            mean_to_mirror: but_blind(&to_mirror),
            positions,
            to_self,
            to_mirror,
        })
    }

    /// The comparing head.
    pub fn comparing(&self) -> &Looks {
        &self.heads[0]
    }

    /// The first layer's helper.
    pub fn helper(&self) -> &Looks {
        &self.heads[1]
    }

    /// The positions at which the comparing head compares.
    pub fn compared(&self) -> Vec<usize> {
        let at = self.positions.iter().enumerate();
        at.filter(|(n, _)| self.comparing().compares(*n))
            .map(|(_, &p)| p)
            .collect()
    }

    /// The place of a position of the second half in the order of all else.
    pub fn place(&self, position: usize) -> usize {
        position - self.positions[0]
    }
}
