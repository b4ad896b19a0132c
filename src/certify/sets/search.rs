//! The search for proofs: branch and bound over every root.

use super::bound::{Frame, Keys, Worst};
use super::problem::{Problem, Root, State};
use super::tree::{Beaten, Decision, Forest, InputSet};
use crate::certify::{Count, Interval, OneLayer};
use crate::error::{Error, Result};
use crate::linalg::Par;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::time::Instant;

/// How often `λ` is set anew before a rival is given up on a node.
const ROUNDS: usize = 6;

/// When a search ends.
#[derive(Clone, Copy, Debug)]
pub struct Stop {
    /// Nodes of a smaller share of the space are not divided.
    pub cutoff: f64,
    /// No node is divided from then on.
    pub deadline: Option<Instant>,
    /// Which part of the roots is looked at, `(i, n)`: those of numbers that leave `i` when divided by `n`.
    pub shard: (usize, usize),
}

/// What is searched.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    /// The model.
    pub tables: &'a OneLayer,
    /// The answers' sets.
    pub problems: &'a [Problem],
    /// Inputs of the space.
    pub size: u128,
    /// By how much the right logit must be the largest.
    pub margin: f64,
}

/// The roots of one query that are done, of however many answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// How many roots these are.
    pub roots: usize,
    /// By answer, what is proved of them that was not before.
    pub gained: Vec<Count>,
}

/// The roots of one query, each with its answer's number and what is found of it.
type Trees<'a> = Vec<(usize, &'a Root, &'a mut Option<InputSet>)>;

/// The rival that is furthest from being shown to be beaten on a node.
struct Hardest {
    /// The bound.
    lower: f64,
    /// The token to divide the node by.
    token: Option<(usize, usize)>,
    rival: usize,
    /// Whether it wins at the worst choice, and so may on all of the node.
    may_win: bool,
}

impl Search<'_> {
    /// Nothing begun.
    pub fn begin(&self) -> Forest {
        let roots: Vec<usize> = self.problems.iter().map(|p| p.roots.len()).collect();
        let t = self.tables;
        let keys = (0..t.heads).flat_map(|h| (0..t.positions).map(move |p| (h, p)));
        let keys = keys.flat_map(|(h, p)| (0..t.tokens).map(move |token| (h, token, p)));
        let most = keys
            .flat_map(|(h, token, p)| t.ov(h, token, p))
            .map(|ov| ov.magnitude());
        // A difference of two entries is at most twice as large.
        let most = 2.0 * most.fold(f64::MIN_POSITIVE, f64::max);
        Forest::new(&roots, most)
    }

    /// What a certificate's body holds of this search's roots, to be gone on with.
    ///
    /// # Errors
    /// When it is damaged, or its nodes are not divided as these roots can be.
    pub fn resume(&self, body: &[u8], step: f64) -> Result<Forest> {
        let roots: Vec<usize> = self.problems.iter().map(|p| p.roots.len()).collect();
        let forest = Forest::read(body, step, &roots, self.tables.heads)?;
        for (problem, nodes) in self.problems.iter().zip(&forest.answers) {
            let mut begun = problem.roots.iter().zip(nodes);
            let fits = |(root, node): (&Root, &Option<InputSet>)| {
                let node = node.as_ref();
                node.is_none_or(|node| fits(root, node, &mut State::new(root)))
            };
            if !begun.all(fits) {
                return Err(Error::Experiment(
                    "the certificate's body is of other sets than these".into(),
                ));
            }
        }
        Ok(forest)
    }

    /// Divides what is open, as far as the stop allows. What is proved in the forest stays.
    ///
    /// `done` is told of the roots of one query, each time that they are done.
    ///
    /// # Errors
    /// When the model has too many heads.
    pub fn refine(
        &self,
        forest: &mut Forest,
        stop: Stop,
        par: Par,
        done: &(dyn Fn(Done) + Sync),
    ) -> Result<()> {
        let step = forest.step;
        // The exponentials are a query's; the roots of one query are done together.
        let mut tasks: BTreeMap<(usize, usize), Trees<'_>> = BTreeMap::new();
        let mut number = 0;
        let answers = self.problems.iter().zip(&mut forest.answers);
        for (answer, (problem, nodes)) in answers.enumerate() {
            for (root, node) in problem.roots.iter().zip(nodes) {
                let (i, n) = stop.shard;
                if number % n == i {
                    let trees = tasks.entry(root.query).or_default();
                    trees.push((answer, root, node));
                }
                number += 1;
            }
        }
        let one = |(query, roots): ((usize, usize), Trees<'_>)| {
            let mut did = Done {
                roots: roots.len(),
                gained: vec![Count::default(); self.problems.len()],
            };
            let e = self.tables.exponentials(query);
            for (answer, root, node) in roots {
                let before = of_root(root, node);
                self.root(root, node, &e, stop, step)?;
                let after = of_root(root, node);
                did.gained[answer] += Count {
                    right: after.right - before.right,
                    wrong: after.wrong - before.wrong,
                };
            }
            done(did);
            Ok(())
        };
        let tasks: Vec<_> = tasks.into_iter().collect();
        match par {
            Par::Seq => tasks.into_iter().try_for_each(one),
            Par::Rayon => tasks.into_par_iter().with_max_len(1).try_for_each(one),
        }
    }

    fn root(
        &self,
        root: &Root,
        node: &mut Option<InputSet>,
        e: &[Interval],
        stop: Stop,
        step: f64,
    ) -> Result<()> {
        let late = || {
            stop.deadline
                .is_some_and(|deadline| Instant::now() >= deadline)
        };
        let fresh = node.is_none();
        // All roots that are not begun together are less than the cutoff.
        let count: usize = self
            .problems
            .iter()
            .map(|problem| problem.roots.len())
            .sum();
        let share = State::new(root).size(root) as f64 / self.size as f64;
        let idle = match node {
            Some(node) => !self.anything_open(root, node, &mut State::new(root), stop.cutoff),
            None => share * (count as f64) < stop.cutoff,
        };
        if idle || late() {
            return Ok(());
        }
        let keys = Keys::new(self.tables, e, root, self.margin)?;
        let rivals: Vec<usize> = (0..self.tables.classes)
            .filter(|&w| w != root.right)
            .collect();
        let mut walk = Walk {
            root,
            keys: &keys,
            step,
            least: (stop.cutoff * self.size as f64).max(1.0),
            late: &late,
            state: State::new(root),
            worst: Worst::default(),
            last: vec![Vec::new(); self.tables.classes],
        };
        walk.node(node.get_or_insert_with(InputSet::open), rivals, fresh);
        Ok(())
    }

    fn anything_open(&self, root: &Root, node: &InputSet, state: &mut State, cutoff: f64) -> bool {
        match &node.decision {
            Decision::Right | Decision::Wrong(_) => false,
            Decision::Open => state.size(root) as f64 >= cutoff * self.size as f64,
            Decision::Branch(token, children) => {
                let mut any = false;
                each_part(root, state, *token, children, &mut |state, child| {
                    any = any || self.anything_open(root, child, state, cutoff);
                });
                any
            }
        }
    }

    /// What the forest proves of each answer.
    pub fn counts(&self, forest: &Forest) -> Vec<(usize, Count)> {
        let answers = self.problems.iter().zip(&forest.answers);
        let count = |(problem, nodes): (&Problem, &Vec<Option<InputSet>>)| {
            let mut count = Count::default();
            for (root, node) in problem.roots.iter().zip(nodes) {
                count += of_root(root, node);
            }
            (problem.position, count)
        };
        answers.map(count).collect()
    }
}

/// The parts of a branch that have inputs, each with its node.
pub(super) fn each_part<N>(
    root: &Root,
    state: &mut State,
    token: (usize, usize),
    children: N,
    then: &mut dyn FnMut(&mut State, N::Item),
) where
    N: IntoIterator,
{
    let mut children = children.into_iter();
    for times in 0..=state.most(root, token.0) {
        state.decide(token, times);
        if state.size(root) > 0 {
            let child = children.next().expect("a node for every part");
            then(state, child);
        }
        state.undo(token);
    }
}

/// Whether every branch decides something that is undecided, and has a node for each of its parts.
fn fits(root: &Root, node: &InputSet, state: &mut State) -> bool {
    let Decision::Branch(token, children) = &node.decision else {
        return true;
    };
    let own = state.counts.get(token.0).and_then(|own| own.get(token.1));
    if own != Some(&None) {
        return false;
    }
    let mut children = children.iter();
    for times in 0..=state.most(root, token.0) {
        state.decide(*token, times);
        let part = state.size(root) == 0
            || children
                .next()
                .is_some_and(|child| fits(root, child, state));
        state.undo(*token);
        if !part {
            return false;
        }
    }
    children.next().is_none()
}

/// What is proved of a root.
pub(super) fn of_root(root: &Root, node: &Option<InputSet>) -> Count {
    let counted = |node| counted(root, node, &mut State::new(root));
    node.as_ref().map(counted).unwrap_or_default()
}

pub(super) fn counted(root: &Root, node: &InputSet, state: &mut State) -> Count {
    let size = state.size(root);
    match &node.decision {
        Decision::Right => Count {
            right: size,
            wrong: 0,
        },
        Decision::Wrong(_) => Count {
            right: 0,
            wrong: size,
        },
        Decision::Open => Count::default(),
        Decision::Branch(token, children) => {
            let mut count = Count::default();
            each_part(root, state, *token, children, &mut |state, child| {
                count += counted(root, child, state);
            });
            count
        }
    }
}

/// A walk over the nodes of one root.
struct Walk<'a> {
    root: &'a Root,
    keys: &'a Keys,
    step: f64,
    /// Smaller nodes are not divided.
    least: f64,
    late: &'a dyn Fn() -> bool,
    state: State,
    worst: Worst,
    /// By rival, the `λ` that it was last shown to be beaten with: often the next node's as well.
    last: Vec<Vec<i16>>,
}

impl Walk<'_> {
    fn node(&mut self, node: &mut InputSet, mut rivals: Vec<usize>, fresh: bool) {
        let proved = |proofs: &[Beaten], w: usize| proofs.iter().any(|p| p.rival == w);
        rivals.retain(|&w| !proved(&node.proofs, w));
        match &mut node.decision {
            Decision::Right | Decision::Wrong(_) => {}
            Decision::Branch(token, children) => {
                let token = *token;
                self.parts(token, children, &rivals, false);
            }
            Decision::Open => {
                let size = self.state.size(self.root) as f64;
                if !fresh && size < self.least {
                    return;
                }
                let Some(token) = self.decide(node, &mut rivals) else {
                    return;
                };
                if size < self.least || (self.late)() {
                    return;
                }
                let mut children = Vec::new();
                for times in 0..=self.state.most(self.root, token.0) {
                    self.state.decide(token, times);
                    if self.state.size(self.root) > 0 {
                        children.push(InputSet::open());
                    }
                    self.state.undo(token);
                }
                self.parts(token, &mut children, &rivals, true);
                node.decision = Decision::Branch(token, children);
            }
        }
    }

    fn parts(
        &mut self,
        token: (usize, usize),
        children: &mut [InputSet],
        rivals: &[usize],
        fresh: bool,
    ) {
        let mut children = children.iter_mut();
        for times in 0..=self.state.most(self.root, token.0) {
            self.state.decide(token, times);
            if self.state.size(self.root) > 0 {
                let child = children.next().expect("a node for every part");
                self.node(child, rivals.to_vec(), fresh);
            }
            self.state.undo(token);
        }
    }

    /// Proves of a node what can be; of what is left, the token to divide by, if there is one.
    fn decide(&mut self, node: &mut InputSet, rivals: &mut Vec<usize>) -> Option<(usize, usize)> {
        let frame = self.keys.frame(self.root, &self.state);
        let mut hardest: Option<Hardest> = None;
        rivals.retain(|&w| match self.beaten(&frame, (w, false)) {
            Some(proof) => {
                self.last[w].clone_from(&proof.lambda);
                node.proofs.push(proof);
                false
            }
            None => {
                let lower = self.worst.lower;
                let harder = |other: &Hardest| lower.is_nan() || lower < other.lower;
                if hardest.as_ref().is_none_or(harder) {
                    hardest = Some(Hardest {
                        lower,
                        token: self.pick(),
                        rival: w,
                        may_win: self.worst.value < 0.0,
                    });
                }
                true
            }
        });
        let Some(hardest) = hardest else {
            node.decision = Decision::Right;
            return None;
        };
        let wins = match hardest.may_win {
            true => self.beaten(&frame, (hardest.rival, true)),
            false => None,
        };
        if let Some(proof) = wins {
            node.decision = Decision::Wrong(proof);
            // What else is known of inputs that are answered wrongly does not matter.
            node.proofs.clear();
            return None;
        }
        hardest.token
    }

    /// Whether the right class beats a rival (or is beaten) on all of the node, by which `λ`.
    fn beaten(&mut self, frame: &Frame, pair: (usize, bool)) -> Option<Beaten> {
        let at = (self.root, &self.state, frame);
        let (rival, swapped) = pair;
        let mut steps = match swapped {
            true => Vec::new(),
            false => self.last[rival].clone(),
        };
        for _ in 0..ROUNDS {
            let lambda: Vec<f64> = match steps.is_empty() {
                true => self.keys.mean(&self.state, rival, swapped),
                false => steps.iter().map(|&s| f64::from(s) * self.step).collect(),
            };
            if self.keys.evaluate(at, pair, &lambda, &mut self.worst) {
                let lambda = steps;
                return Some(Beaten { rival, lambda });
            }
            // No bound is above what the worst choice has.
            if self.worst.value.is_nan() || self.worst.value <= 0.0 {
                return None;
            }
            let step = |ratio: &f64| {
                let steps = (ratio / self.step).round();
                (steps.abs() <= f64::from(i16::MAX)).then_some(steps as i16)
            };
            let next: Vec<i16> = self.worst.ratios.iter().map(step).collect::<Option<_>>()?;
            if next == steps {
                return None;
            }
            steps = next;
        }
        None
    }

    /// The undecided token whose cost is furthest from where the choice ends; where tokens repeat, the one that costs least.
    fn pick(&self) -> Option<(usize, usize)> {
        let mut best: Option<(f64, (usize, usize))> = None;
        for (g, costs) in self.worst.costs.iter().enumerate() {
            let (left, free) = (self.state.left[g], self.state.free[g]);
            let repeats = self.root.groups[g].repeats;
            if left == 0 || free <= if repeats { 1 } else { left } {
                continue;
            }
            for (place, &cost) in costs.iter().enumerate() {
                if self.state.counts[g][place].is_some() {
                    continue;
                }
                let far = match repeats {
                    true => -cost,
                    false => (cost - self.worst.threshold[g]).abs(),
                };
                if best.is_none_or(|(most, _)| far > most) {
                    best = Some((far, (g, place)));
                }
            }
        }
        best.map(|(_, token)| token)
    }
}
