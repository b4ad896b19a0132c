//! The hooks' values that a batch is asked for, or the derivatives by them, in the making.

use super::sink::Slot;
use crate::diagram::Diagram;
use crate::model::{Cache, Model, Tokens};
use crate::names::Hook;
use crate::tensor::{Scalar, Tensor};

/// The values of some hooks, or the derivatives by them: what is the same for several hooks is there once.
pub(super) struct Gathered<'a, T: Scalar> {
    diagram: &'a Diagram,
    batch: usize,
    same_as: fn(&Diagram, Hook) -> Hook,
    /// In the order of the forward pass.
    hooks: Vec<Hook>,
    values: Vec<Value<T>>,
}

struct Value<T: Scalar> {
    /// What stands for all hooks of which this is.
    hook: Hook,
    value: Tensor<T>,
}

impl<'a, T: Scalar> Gathered<'a, T> {
    /// Memory for them. `same_as` gives what stands for a hook.
    pub fn new(
        model: &'a Model<T>,
        hooks: Vec<Hook>,
        tokens: &Tokens,
        same_as: fn(&Diagram, Hook) -> Hook,
    ) -> Self {
        let (config, diagram) = (model.config(), &model.diagram);
        let (batch, pos) = (tokens.batch(), tokens.pos());
        let mut made: Vec<Hook> = Vec::new();
        for hook in hooks.iter().map(|&hook| same_as(diagram, hook)) {
            if !made.contains(&hook) {
                made.push(hook);
            }
        }
        let shapes = made.iter().map(|&hook| config.hook_shape(hook, batch, pos));
        let lent = model.memory.lend(&shapes.collect::<Vec<_>>());
        let value = |(hook, value)| Value { hook, value };
        Gathered {
            diagram,
            batch,
            same_as,
            hooks,
            values: made.into_iter().zip(lent).map(value).collect(),
        }
    }

    /// Where those of `each` sequences after the other go.
    pub fn slots(&mut self, each: usize) -> Vec<Vec<Slot<'_, T>>> {
        let batch = self.batch;
        let mut stretches: Vec<_> = (0..batch).step_by(each).map(|_| Vec::new()).collect();
        for value in &mut self.values {
            let unit = value.value.len().checked_div(batch).unwrap_or(0);
            let chunks = value.value.data_mut().chunks_mut((each * unit).max(1));
            for (slots, to) in stretches.iter_mut().zip(chunks) {
                slots.push(Slot {
                    hook: value.hook,
                    to,
                });
            }
        }
        stretches
    }

    /// All of them, once they are written.
    pub fn into_cache(self) -> Cache<T> {
        let values = self.values.into_iter().map(|v| (v.hook, v.value)).collect();
        Cache::of(
            self.hooks,
            |hook| (self.same_as)(self.diagram, hook),
            values,
        )
    }
}
