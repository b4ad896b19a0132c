//! What a forest proves, set by set: which are the widest, and where a proof is thin.

use super::bound::{Keys, Worst};
use super::problem::{Layout, Root, State};
use super::search::{Search, each_part, of_root};
use super::tree::{Decision, Forest, InputSet};
use crate::certify::{Answered, InputSpace};
use crate::error::Result;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// What a set's inputs are known to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// All are answered rightly.
    Right,
    /// All are answered wrongly.
    Wrong,
    /// Neither is proved.
    Open,
}

/// A set of inputs that is not divided further.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Region {
    /// The position at which the answer is read.
    pub position: usize,
    /// The query's token.
    pub query: usize,
    /// The right class.
    pub right: usize,
    /// Tokens that its inputs have besides, each as often as they do.
    pub with: Vec<usize>,
    /// Tokens that they have not, of those that they could.
    pub without: Vec<usize>,
    /// How many inputs it has.
    #[serde(with = "crate::certify::exact")]
    pub size: u128,
    /// What they are known to be.
    pub found: Found,
    /// Where they are answered rightly, by how much the right logit is the largest at least, where that was asked for.
    pub margin: Option<f64>,
    /// One of them.
    pub example: Vec<i64>,
}

/// A leaf on the way.
struct Leaf<'a> {
    root: &'a Root,
    position: usize,
    state: &'a State,
    node: &'a InputSet,
    /// The least of the margins of the proofs on the way to it, where they were asked for.
    margin: Option<f64>,
}

/// The regions of some kind that come first in some order, of those added.
struct Kept<K> {
    most: usize,
    all: Vec<(K, Region)>,
}

impl<K: PartialOrd> Kept<K> {
    fn add(&mut self, key: K, region: impl FnOnce() -> Region) {
        if self.all.len() == self.most && self.all.last().is_none_or(|last| key >= last.0) {
            return;
        }
        let at = self.all.partition_point(|other| other.0 <= key);
        self.all.insert(at, (key, region()));
        self.all.truncate(self.most);
    }

    fn with(mut self, other: Kept<K>) -> Kept<K> {
        for (key, region) in other.all {
            self.add(key, || region);
        }
        self
    }
}

/// How thick a proof is.
#[derive(Clone, Debug)]
pub struct Thickness {
    /// The sets whose inputs are right by the least, the thinnest first.
    pub thinnest: Vec<Region>,
    /// By answer, of inputs that are proved right: by how much at least, and how many; by descending margin, in no more
    /// than [`Thickness::STEPS`] of them.
    pub margins: Vec<Vec<(f64, u128)>>,
}

impl Thickness {
    /// Into how many steps margins are put together.
    pub const STEPS: usize = 64;
}

impl Leaf<'_> {
    fn found(&self) -> Found {
        match self.node.decision {
            Decision::Right => Found::Right,
            Decision::Wrong(_) => Found::Wrong,
            Decision::Open | Decision::Branch(..) => Found::Open,
        }
    }

    fn region(&self, space: &InputSpace) -> Region {
        let (root, state) = (self.root, self.state);
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for (group, counts) in root.groups.iter().zip(&state.counts) {
            for (&token, times) in group.tokens.iter().zip(counts) {
                match times {
                    Some(0) => without.push(token),
                    Some(times) => with.extend(std::iter::repeat_n(token, *times)),
                    None => {}
                }
            }
        }
        Region {
            position: self.position,
            query: root.query.0,
            right: root.right,
            with,
            without,
            size: state.size(root),
            found: self.found(),
            margin: self.margin,
            example: example(root, state, space),
        }
    }
}

/// An input of a set: of what is not decided the first tokens, and those that may stand anywhere in ascending order.
fn example(root: &Root, state: &State, space: &InputSpace) -> Vec<i64> {
    let list = Layout::of(space, *space.values().lengths().end())
        .expect("a space with roots")
        .list;
    let mut values = vec![None; list.len()];
    let mut rest = Vec::new();
    for (token, places) in &root.fixed {
        let mut own = places.iter().map(|p| list.iter().position(|q| q == p));
        match (own.next().flatten(), places.len()) {
            // What stands among the values at one place.
            (Some(i), 1) => values[i] = Some(*token as i64),
            (Some(_), _) => rest.push(*token as i64),
            (None, _) => {}
        }
    }
    for (g, group) in root.groups.iter().enumerate() {
        let mut left = state.left[g];
        for (&token, times) in group.tokens.iter().zip(&state.counts[g]) {
            let times = times.unwrap_or_else(|| {
                let own = if group.repeats { left } else { left.min(1) };
                left -= own;
                own
            });
            rest.extend(std::iter::repeat_n(token as i64, times));
        }
    }
    rest.sort_unstable();
    let mut rest = rest.into_iter();
    let values: Vec<i64> = values
        .into_iter()
        .map(|own| {
            own.or_else(|| rest.next())
                .expect("a value for every place")
        })
        .collect();
    space.sequence_of(&values)
}

/// A walk over the leaves of a root's tree.
struct Leaves<'a> {
    search: &'a Search<'a>,
    position: usize,
    root: &'a Root,
    /// What margins are found by, where they are asked for.
    keys: Option<Keys>,
    step: f64,
}

impl Leaves<'_> {
    /// Goes on below a node; `margin` is the least of the proofs above it.
    fn walk(
        &self,
        node: &InputSet,
        state: &mut State,
        margin: Option<f64>,
        then: &mut dyn FnMut(&Leaf<'_>),
    ) {
        let margin = margin.map(|above| self.margin(node, state, above));
        match &node.decision {
            Decision::Branch(token, parts) => {
                each_part(self.root, state, *token, parts, &mut |state, part| {
                    self.walk(part, state, margin, then);
                });
            }
            decision => then(&Leaf {
                root: self.root,
                position: self.position,
                state,
                node,
                margin: margin.filter(|_| *decision == Decision::Right),
            }),
        }
    }

    /// By how much the right logit is above those of the rivals that a node's proofs are of, or what was known above where
    /// that is less.
    fn margin(&self, node: &InputSet, state: &State, above: f64) -> f64 {
        let Some(keys) = self.keys.as_ref().filter(|_| !node.proofs.is_empty()) else {
            return above;
        };
        let (frame, mut worst) = (keys.frame(self.root, state), Worst::default());
        let scale = self.search.tables.sigma(self.root.query).hi;
        let mut least = above;
        for proof in &node.proofs {
            let lambda = match proof.lambda.is_empty() {
                true => keys.mean(state, proof.rival, false),
                false => proof.lambda(self.step),
            };
            let pair = (proof.rival, false);
            let bound = keys.bound((self.root, state, &frame), pair, &lambda, &mut worst);
            // What is bounded is the difference of logits less the claim's margin, times the norm's scale.
            let own = (self.search.margin + (bound / scale).next_down()).next_down();
            least = least.min(own);
        }
        least
    }
}

impl Search<'_> {
    /// By answer, with its position, and by right class: how many inputs there are, and what is proved of them.
    pub fn by_right(&self, forest: &Forest) -> Vec<(usize, Vec<Answered>)> {
        let answers = self.problems.iter().zip(&forest.answers);
        let each = answers.map(|(problem, nodes)| {
            let mut all = vec![Answered::default(); self.tables.classes];
            for (root, node) in problem.roots.iter().zip(nodes) {
                all[root.right] += Answered {
                    inputs: State::new(root).size(root),
                    count: of_root(root, node),
                };
            }
            (problem.position, all)
        });
        each.collect()
    }

    /// The sets of a kind that have the most inputs, of all answers, the widest first.
    pub fn widest(
        &self,
        forest: &Forest,
        space: &InputSpace,
        found: Found,
        most: usize,
    ) -> Vec<Region> {
        let mut kept = Kept {
            most,
            all: Vec::new(),
        };
        for (problem, nodes) in self.problems.iter().zip(&forest.answers) {
            for (root, node) in problem.roots.iter().zip(nodes) {
                let (open, mut state) = (InputSet::open(), State::new(root));
                let leaves = Leaves {
                    search: self,
                    position: problem.position,
                    root,
                    keys: None,
                    step: forest.step,
                };
                let node = node.as_ref().unwrap_or(&open);
                leaves.walk(node, &mut state, None, &mut |leaf| {
                    if leaf.found() == found {
                        let size = std::cmp::Reverse(leaf.state.size(root));
                        kept.add(size, || leaf.region(space));
                    }
                });
            }
        }
        kept.all.into_iter().map(|(_, region)| region).collect()
    }

    /// By how much inputs that are proved right are so at least.
    ///
    /// *Cost*: the bound of every proof once more.
    ///
    /// # Errors
    /// When the model has too many heads.
    pub fn thickness(&self, forest: &Forest, space: &InputSpace, most: usize) -> Result<Thickness> {
        type Margins = Vec<(f64, u128)>;
        let none = || Kept {
            most,
            all: Vec::new(),
        };
        let mut thinnest = none();
        let mut answers: Vec<Margins> = Vec::new();
        for (problem, nodes) in self.problems.iter().zip(&forest.answers) {
            let one = |(root, node): (&Root, &Option<InputSet>)| -> Result<(Kept<f64>, Margins)> {
                let (mut kept, mut margins) = (none(), Vec::new());
                let Some(node) = node else {
                    return Ok((kept, margins));
                };
                let e = self.tables.exponentials(root.query);
                let leaves = Leaves {
                    search: self,
                    position: problem.position,
                    root,
                    keys: Some(Keys::new(self.tables, &e, root, self.margin)?),
                    step: forest.step,
                };
                let above = Some(f64::INFINITY);
                leaves.walk(node, &mut State::new(root), above, &mut |leaf| {
                    if let Some(margin) = leaf.margin {
                        margins.push((margin, leaf.state.size(root)));
                        kept.add(margin, || leaf.region(space));
                    }
                });
                Ok((kept, margins))
            };
            let roots = problem.roots.par_iter().zip(nodes).map(one);
            let both = roots.try_reduce(
                || (none(), Vec::new()),
                |(kept, mut margins), (other, more)| {
                    margins.extend(more);
                    Ok((kept.with(other), margins))
                },
            )?;
            thinnest = thinnest.with(both.0);
            answers.push(both.1);
        }
        let all = answers.iter().flatten().map(|(margin, _)| *margin);
        let largest = all.filter(|m| m.is_finite()).fold(0.0, f64::max);
        let steps = |margins: &Margins| {
            let edges = (0..=Thickness::STEPS).rev();
            let edges = edges.map(|i| largest * i as f64 / Thickness::STEPS as f64);
            let at_least = |edge: f64| {
                let sizes = margins.iter().filter(|(margin, _)| *margin >= edge);
                (edge, sizes.map(|(_, size)| size).sum())
            };
            edges.map(at_least).collect()
        };
        Ok(Thickness {
            margins: answers.iter().map(steps).collect(),
            thinnest: thinnest.all.into_iter().map(|(_, r)| r).collect(),
        })
    }
}
