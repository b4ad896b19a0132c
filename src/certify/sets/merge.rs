//! Two proofs of the same sets put together.

use super::problem::{Root, State};
use super::search::{Search, counted, each_part};
use super::tree::{Decision, Forest, InputSet};
use crate::error::{Error, Result};

impl Search<'_> {
    /// The better of two forests' proofs of every set: where both divide it by the same token, part by part; else that of
    /// the forest which decides more of its inputs, of equals the first's. What one has not begun is the other's.
    ///
    /// Of no root less is decided than in either. No bound is evaluated: whether what is put together is proved,
    /// [`check`](crate::certify::check) says.
    ///
    /// Both are forests of this search's problems ([`Search::begin`], [`Search::resume`]).
    ///
    /// # Errors
    /// When their `λ`s are counted in different steps.
    pub fn merge(&self, a: Forest, b: Forest) -> Result<Forest> {
        if a.step != b.step {
            return Err(Error::Experiment(format!(
                "λ is counted in steps of {:e} in one certificate and of {:e} in the other",
                a.step, b.step
            )));
        }
        let step = a.step;
        let answers = self
            .problems
            .iter()
            .zip(a.answers.into_iter().zip(b.answers));
        let answers = answers.map(|(problem, (a, b))| {
            let roots = problem.roots.iter().zip(a.into_iter().zip(b));
            let one = |(root, pair)| match pair {
                (Some(a), Some(b)) => Some(better(root, &mut State::new(root), a, b)),
                (a, b) => a.or(b),
            };
            roots.map(one).collect()
        });
        Ok(Forest {
            answers: answers.collect(),
            step,
        })
    }
}

/// The better of two proofs of a set.
fn better(root: &Root, state: &mut State, a: InputSet, b: InputSet) -> InputSet {
    match (a.decision, b.decision) {
        (Decision::Branch(token, own), Decision::Branch(other, theirs)) if token == other => {
            // What either part goes on from was shown of the whole set, there.
            let mut proofs = a.proofs;
            for proof in b.proofs {
                if !proofs.iter().any(|own| own.rival == proof.rival) {
                    proofs.push(proof);
                }
            }
            let mut parts = Vec::new();
            let pairs = own.into_iter().zip(theirs);
            each_part(root, state, token, pairs, &mut |state, (a, b)| {
                parts.push(better(root, state, a, b));
            });
            InputSet {
                proofs,
                decision: Decision::Branch(token, parts),
            }
        }
        (own, theirs) => {
            let node = |proofs, decision| InputSet { proofs, decision };
            let (a, b) = (node(a.proofs, own), node(b.proofs, theirs));
            let mut decided = |node: &InputSet| {
                let count = counted(root, node, state);
                count.right + count.wrong
            };
            if decided(&b) > decided(&a) { b } else { a }
        }
    }
}
