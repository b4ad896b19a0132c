//! The derivatives by hooks' values that a batch is asked for, in the making.

use super::sink::Slot;
use crate::metric::Answers;
use crate::model::{Cache, Config, Model, Tokens};
use crate::names::Hook;
use crate::tensor::{Asked, Scalar, Tensor, ZeroBut};

/// The derivatives by the values of some hooks: what is the same for several of them is there once.
pub(super) struct Derivatives<'a, T: Scalar> {
    config: &'a Config,
    batch: usize,
    /// In the order of the forward pass.
    hooks: Vec<Hook>,
    values: Vec<Value<T>>,
}

struct Value<T: Scalar> {
    /// What stands for all whose derivatives these are.
    hook: Hook,
    value: Tensor<T>,
    /// Past the last layer's keys and values there are derivatives only at the positions that are read.
    zero_but: Option<ZeroBut>,
    /// Whether all else is zero in the memory that there is.
    known: bool,
}

impl<'a, T: Scalar> Derivatives<'a, T> {
    /// Memory for the derivatives.
    pub fn new(model: &'a Model<T>, hooks: Vec<Hook>, tokens: &Tokens, answers: &Answers) -> Self {
        let config = model.config();
        let (batch, pos) = (tokens.batch(), tokens.pos());
        let mut made: Vec<Hook> = Vec::new();
        for hook in hooks.iter().map(|&hook| stands_for(config, hook)) {
            if !made.contains(&hook) {
                made.push(hook);
            }
        }
        let mut at = answers.positions().to_vec();
        at.sort_unstable();
        at.dedup();
        let ask = |&hook: &Hook| {
            let shape = config.hook_shape(hook, batch, pos);
            let zero_but = config.axis_read(hook).map(|axis| ZeroBut {
                len: shape.iter().product(),
                rows: shape[axis],
                width: shape[axis + 1..].iter().product(),
                at: at.clone(),
            });
            Asked { shape, zero_but }
        };
        let asked: Vec<Asked> = made.iter().map(ask).collect();
        let lent = model.memory.lend(&asked).into_iter().zip(asked);
        let value = |(hook, ((value, known), asked)): (Hook, ((Tensor<T>, bool), Asked))| Value {
            hook,
            value,
            zero_but: asked.zero_but,
            known,
        };
        Derivatives {
            config,
            batch,
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
                    zero_but_read: value.known,
                });
            }
        }
        stretches
    }

    /// The derivatives, once they are written.
    pub fn into_cache(self) -> Cache<T> {
        let written = |v: Value<T>| {
            let mut value = v.value;
            v.zero_but.into_iter().for_each(|z| value.note_zero_but(z));
            (v.hook, value)
        };
        let values = self.values.into_iter().map(written).collect();
        Cache::of(self.hooks, |hook| stands_for(self.config, hook), values)
    }
}

/// The hook that stands for all whose derivatives are the same: what is added to the stream has the stream's.
fn stands_for(config: &Config, hook: Hook) -> Hook {
    match hook {
        Hook::PosEmbed | Hook::ResidPre(0) => Hook::Embed,
        Hook::ResidPre(l) => Hook::ResidPost(l - 1),
        Hook::AttnOut(l) if config.attn_only => Hook::ResidPost(l),
        Hook::AttnOut(l) => Hook::ResidMid(l),
        Hook::MlpOut(l) => Hook::ResidPost(l),
        other => other,
    }
}
