//! Where the derivatives of a backward pass go.

use crate::model::Weights;
use crate::names::Hook;
use crate::tensor::{Scalar, Tensor, add_assign};
use std::ops::Range;

/// Where the derivative by a hook's value goes, of all positions, in the order of the axes.
pub(super) struct Slot<'a, T> {
    pub hook: Hook,
    pub to: &'a mut [T],
}

impl<T: Scalar> Slot<'_, T> {
    /// Writes the rows `at` of some groups of `pos` rows, and zeros everywhere else in them.
    fn write_rows(
        &mut self,
        groups: Range<usize>,
        at: &[usize],
        [pos, width]: [usize; 2],
        rows: &[T],
    ) {
        let each = pos * width;
        let to = &mut self.to[groups.start * each..groups.end * each];
        to.fill(T::ZERO);
        // A position may be read twice.
        let again: Vec<bool> = (0..at.len()).map(|i| at[..i].contains(&at[i])).collect();
        let of_groups = rows.chunks_exact(at.len() * width);
        for (group, rows) in to.chunks_exact_mut(each).zip(of_groups) {
            for ((row, p), again) in rows.chunks_exact(width).zip(at).zip(&again) {
                let to = &mut group[p * width..][..width];
                match again {
                    true => add_assign(to, row),
                    false => to.copy_from_slice(row),
                }
            }
        }
    }
}

/// What someone wants of a stretch's backward pass.
pub(super) struct Sink<'a, T: Scalar> {
    /// The derivatives by hooks' values, of hooks that stand for others.
    pub slots: Vec<Slot<'a, T>>,
    /// The derivatives by the parameters; added to.
    pub weights: Option<&'a mut Weights<T>>,
}

impl<'a, T: Scalar> Sink<'a, T> {
    /// Whether anyone wants the derivative by a hook's value.
    pub fn wants(&self, hook: Hook) -> bool {
        self.slots.iter().any(|slot| slot.hook == hook)
    }

    /// Where the derivative by a hook's value goes, if anyone wants it.
    fn slot(&mut self, hook: Hook) -> Option<&mut Slot<'a, T>> {
        self.slots.iter_mut().find(|slot| slot.hook == hook)
    }

    /// Shows the derivative by a hook's value: of all positions, or of those `at` alone.
    pub fn visit(&mut self, hook: Hook, value: &Tensor<T>, at: Option<&[usize]>, pos: usize) {
        let Some(slot) = self.slot(hook) else { return };
        let Some(at) = at else {
            return slot.to.copy_from_slice(value.data());
        };
        let axis = hook.position_axis();
        let groups = value.shape()[..axis].iter().product();
        let width = value.shape()[axis + 1..].iter().product();
        slot.write_rows(0..groups, at, [pos, width], value.data());
    }
}
