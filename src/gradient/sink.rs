//! Where the derivatives of a backward pass go.

use crate::model::Weights;
use crate::names::Hook;
use crate::tensor::{Scalar, Tensor, add_assign};

/// Where a hook's value goes, or the derivative by it, of all positions, in the order of the axes.
pub(super) struct Slot<'a, T> {
    pub hook: Hook,
    pub to: &'a mut [T],
}

impl<T: Scalar> Slot<'_, T> {
    /// Writes what is there at all positions, or at those `at` alone, and zeros everywhere else. A position may be read
    /// twice: its second row is put by `again`.
    pub fn write(
        &mut self,
        value: &Tensor<T>,
        at: Option<&[usize]>,
        pos: usize,
        again: impl Fn(&mut [T], &[T]),
    ) {
        let Some(at) = at else {
            return self.to.copy_from_slice(value.data());
        };
        let width: usize = value.shape()[self.hook.position_axis() + 1..]
            .iter()
            .product();
        self.to.fill(T::ZERO);
        let seen: Vec<bool> = (0..at.len()).map(|i| at[..i].contains(&at[i])).collect();
        let groups = self.to.chunks_exact_mut(pos * width);
        for (group, rows) in groups.zip(value.data().chunks_exact(at.len() * width)) {
            for ((row, p), seen) in rows.chunks_exact(width).zip(at).zip(&seen) {
                let to = &mut group[p * width..][..width];
                match seen {
                    true => again(to, row),
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
        if let Some(slot) = self.slot(hook) {
            slot.write(value, at, pos, add_assign);
        }
    }
}
