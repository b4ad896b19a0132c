//! A run of some sequences that keeps what a backward pass needs.

use super::Model;
use super::forward::Sequences;
use super::run::{HookFn, Sites};
use crate::names::Hook;
use crate::op::Scratch;
use crate::tensor::{Scalar, Tensor};

/// The values of a stretch's forward pass, and the memory for the next one's.
#[derive(Default)]
pub(crate) struct Tape<T: Scalar> {
    values: Vec<(Hook, Tensor<T>)>,
    logits: Option<Tensor<T>>,
    /// Buffers for the backward pass too.
    pub scratch: Scratch<T>,
}

impl<T: Scalar> Tape<T> {
    /// Runs the model on the calling thread, and keeps these hooks' values, and in the order of the axes the logits at
    /// the positions that are read, `[batch, read, d_vocab_out]`.
    ///
    /// Past the last layer's keys and values only the positions read are computed: the values there are
    /// `[batch, read, …]`, scores and pattern `[batch, head, read, key]`. `replaced` is what a hook's value is set to
    /// on the way.
    pub fn record(
        &mut self,
        model: &Model<T>,
        sequences: Sequences<'_>,
        keep: &[Hook],
        replaced: Option<(Hook, &[T])>,
    ) {
        let c = model.config();
        let (batch, pos) = (sequences.count(), sequences.pos);
        let read = sequences.read.map_or(pos, <[usize]>::len);
        let old = self.values.drain(..).map(|(_, value)| value);
        old.chain(self.logits.take())
            .for_each(|t| self.scratch.give(t));
        let (takes, copies): (Vec<Hook>, Vec<Hook>) =
            keep.iter().partition(|h| model.diagram.leaves_whole(**h));
        for hook in copies {
            let mut shape = c.hook_shape(hook, sequences.layout.batch::<T>(batch), pos);
            if let Some(axis) = model.diagram.axis_read(hook) {
                shape[axis] = read;
            }
            self.values.push((hook, self.scratch.take(&shape)));
        }
        let mut logits = self.scratch.take(&[batch, read, c.d_vocab_out]);

        let mut hooks: Vec<(Vec<Hook>, HookFn<'_, T>)> = Vec::new();
        if let Some((hook, value)) = replaced {
            let set = move |to: &mut Tensor<T>, _| to.data_mut().copy_from_slice(value);
            hooks.push((vec![hook], Box::new(set)));
        }
        let slots = self.values.iter_mut();
        let mut sites = Sites {
            hooks: &mut hooks,
            slots: slots.map(|(h, t)| (*h, t.data_mut())).collect(),
            takes: &takes,
            ..Sites::none(&mut self.scratch)
        };
        model.forward(sequences, &mut sites, logits.data_mut());
        let taken = sites.taken;
        self.values.extend(taken);
        self.logits = Some(logits);
    }

    /// A value that was kept.
    ///
    /// # Panics
    /// When it was not.
    #[track_caller]
    pub fn value(&self, hook: Hook) -> &Tensor<T> {
        let found = self.values.iter().find(|(h, _)| *h == hook);
        &found
            .unwrap_or_else(|| panic!("the tape has no `{hook}`"))
            .1
    }

    /// The logits at the positions read.
    ///
    /// # Panics
    /// When nothing was recorded.
    #[track_caller]
    pub fn logits(&self) -> &Tensor<T> {
        self.logits.as_ref().expect("something was recorded")
    }
}
