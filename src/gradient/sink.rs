//! Where the derivatives of a backward pass go.

use super::ops::scatter;
use crate::model::{Attention, Layout, Mlp, Weights};
use crate::names::Hook;
use crate::tensor::{Scalar, Tensor};

/// What someone wants of a stretch's backward pass.
pub(super) struct Sink<'a, T: Scalar> {
    /// The derivatives by hooks' values, of all positions, in the order of the axes; of hooks that stand for others.
    pub slots: Vec<(Hook, &'a mut [T])>,
    /// Whether they are zero until they are written.
    pub zeros: bool,
    /// The derivatives by the parameters; added to.
    pub weights: Option<&'a mut Weights<T>>,
}

impl<T: Scalar> Sink<'_, T> {
    /// Whether anyone wants the derivative by a hook's value.
    pub fn wants(&self, hook: Hook) -> bool {
        self.slots.iter().any(|(h, _)| *h == hook)
    }

    /// Where the derivative by a hook's value goes, if anyone wants it.
    pub fn slot(&mut self, hook: Hook) -> Option<&mut [T]> {
        let slot = self.slots.iter_mut().find(|(h, _)| *h == hook);
        slot.map(|(_, slot)| &mut slot[..])
    }

    /// As [`Sink::slot`], with zeros to add to.
    pub fn zero_slot(&mut self, hook: Hook) -> Option<&mut [T]> {
        let zeros = self.zeros;
        let slot = self.slot(hook)?;
        if !zeros {
            slot.fill(T::ZERO);
        }
        Some(slot)
    }

    /// Shows the derivative by a hook's value, `[batch, pos, …]`: of all positions, or of those `at` alone.
    pub fn visit(&mut self, hook: Hook, value: &Tensor<T>, at: Option<&[usize]>, pos: usize) {
        match at {
            None => {
                if let Some(slot) = self.slot(hook) {
                    slot.copy_from_slice(value.data());
                }
            }
            Some(at) => {
                let Some(slot) = self.zero_slot(hook) else {
                    return;
                };
                scatter(Layout::ROWS, value, at, pos, slot);
            }
        }
    }

    /// The derivatives by an attention layer's parameters, if they are wanted.
    pub fn attn(&mut self, l: usize) -> Option<&mut Attention<T>> {
        let weights = self.weights.as_mut()?;
        Some(&mut weights.blocks[l].attn)
    }

    /// The derivatives by an MLP's parameters, if they are wanted.
    pub fn mlp(&mut self, l: usize) -> Option<&mut Mlp<T>> {
        self.weights.as_mut()?.blocks[l].mlp.as_mut()
    }

    /// Whether anything before layer `l`'s `hook_resid_post` is wanted.
    pub fn wants_before_the_end_of(&self, l: usize) -> bool {
        let before = |hook: Hook| match hook.layer() {
            Some(layer) => layer <= l && hook != Hook::ResidPost(l),
            None => hook == Hook::Embed,
        };
        self.weights.is_some() || self.slots.iter().any(|&(hook, _)| before(hook))
    }
}
