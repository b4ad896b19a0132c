//! What identities are checked on, and how two sides are compared there.

use super::bounded::Bounded;
use super::verdict::Comparison;
use crate::error::Result;
use crate::model::{Mask, Model, RunOutput};
use crate::names::Hook;
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

    /// The input of a layer: its norm's output, or the stream itself.
    pub(super) fn layer_input(&self, normalized: Hook, resid: Hook) -> Result<&Tensor<T>> {
        let normed = self.model.config().norm.is_some();
        self.value(if normed { normalized } else { resid })
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

    /// Compares two sides of shape `[batch · pos, d]`.
    pub(super) fn compare_rows(
        &self,
        cmp: &mut Comparison,
        hook: Hook,
        left: &Bounded<T>,
        right: &Bounded<T>,
    ) {
        compare(cmp, left, right, |i, j| self.place(hook, i, &[j]));
    }

    pub(super) fn visibility(&self, sequence: usize, query: usize, key: usize) -> Visibility {
        let config = self.model.config();
        if config
            .pad_token
            .is_some_and(|pad| self.out.tokens.sequence(sequence)[key] == pad as i64)
        {
            Visibility::Pad
        } else if config.mask == Mask::Causal && key > query {
            Visibility::Future
        } else {
            Visibility::Seen
        }
    }
}

/// What a key is to a query.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Visibility {
    Seen,
    Future,
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
