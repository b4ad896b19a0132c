//! What identities are checked on, and how two sides are compared there.

use super::bounded::Bounded;
use super::verdict::Comparison;
use crate::diagram::Op;
use crate::error::Result;
use crate::model::{Mask, Model, RunOutput, places_of};
use crate::names::Hook;
use crate::op::Place;
use crate::tensor::{Scalar, Tensor};

/// What identities are checked on: a model, and a run of it that kept every hook.
#[derive(Clone, Copy)]
pub struct Evidence<'a, T: Scalar> {
    /// The model.
    pub model: &'a Model<T>,
    /// What it ran on and what it gave, with every hook in its cache.
    pub out: &'a RunOutput<T>,
    /// The number of the batch's first sequence in a larger batch, for the places in verdicts.
    pub first_sequence: usize,
}

impl<T: Scalar> Evidence<'_, T> {
    pub(super) fn value(&self, hook: Hook) -> Result<&Tensor<T>> {
        self.out.cache.require(hook)
    }

    /// The hook of the `i`-th value that an operation reads.
    ///
    /// # Panics
    /// When the model has no such operation.
    #[track_caller]
    pub(super) fn read_by(&self, op: Op, i: usize) -> Hook {
        let diagram = &self.model.diagram;
        let step = diagram.step_of(op).expect("an operation of this model");
        diagram.values[step.reads[i].0]
    }

    /// Where the tokens of a sequence stand.
    pub(super) fn places(&self, sequence: usize) -> Vec<Place> {
        let tokens = &self.out.tokens;
        let length = tokens.pos();
        let all: Vec<usize> = (0..length).collect();
        match tokens.attended_range(sequence, 1) {
            Some(attended) => places_of(attended, length, &all),
            None => all
                .into_iter()
                .map(|position| Place { position, length })
                .collect(),
        }
    }

    /// A row `[batch, pos]` flattened, and a column, as the place in a hook's value.
    pub(super) fn place(&self, what: impl std::fmt::Display, row: usize, rest: &[usize]) -> String {
        let pos = self.out.tokens.pos();
        let rest: String = rest.iter().map(|i| format!(", {i}")).collect();
        format!(
            "{what}[{}, {}{rest}]",
            self.first_sequence + row / pos,
            row % pos
        )
    }

    /// What a key is to a query of layer `l`.
    pub(super) fn visibility(
        &self,
        l: usize,
        sequence: usize,
        query: usize,
        key: usize,
    ) -> Visibility {
        let config = self.model.config();
        let tokens = &self.out.tokens;
        let left_out = !tokens.is_attended(sequence, key) && key != query;
        let behind = config.mask == Mask::Causal && key > query;
        let pad = |pad: usize| tokens.sequence(sequence)[key] == pad as i64;
        let beyond = |window: usize| {
            let [own, other] = [query, key].map(|p| tokens.position(sequence, p));
            key <= query && other + window <= own
        };
        if left_out {
            Visibility::Hidden
        } else if config.pad_token.is_some_and(pad) {
            Visibility::Pad
        } else if behind || config.window(l).is_some_and(beyond) {
            Visibility::Hidden
        } else {
            Visibility::Seen
        }
    }
}

/// What a key is to a query.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Visibility {
    Seen,
    Hidden,
    Pad,
}

pub(super) fn compare<T: Scalar>(
    cmp: &mut Comparison,
    left: &Bounded<T>,
    right: &Bounded<T>,
    place: impl Fn(usize, usize) -> String,
) {
    for i in 0..left.nrows() {
        for j in 0..left.value.ncols() {
            let bound = left.error[(i, j)].to_f64() + right.error[(i, j)].to_f64();
            let (l, r) = (left.value[(i, j)].to_f64(), right.value[(i, j)].to_f64());
            cmp.entry(l, r, bound, || place(i, j));
        }
    }
}
