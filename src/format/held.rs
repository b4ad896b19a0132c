//! In which precision a model's weights are held.

use crate::tensor::{Scalar, Tensor};

/// In which precision a model's weights are held in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Held {
    /// In that which is computed in.
    #[default]
    Computed,
    /// Tensors whose values are all bf16, or all f16, in these 16 bits: a block at a time is widened as it is multiplied. It
    /// changes no value. What looks at weights themselves (circuits, derivatives) widens for good those that it looks at.
    Filed,
}

impl Held {
    /// A tensor, held so.
    pub(super) fn tensor<T: Scalar>(self, read: Tensor<T>) -> Tensor<T> {
        match self {
            Held::Computed => read,
            Held::Filed => read.narrowed(),
        }
    }

    /// The bytes of a value at least.
    pub(super) fn bytes<T>(self) -> usize {
        match self {
            Held::Computed => size_of::<T>(),
            Held::Filed => size_of::<u16>(),
        }
    }
}
