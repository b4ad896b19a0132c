//! In which precision a model's weights are held.

use crate::tensor::{Dtype, Scalar, Tensor};

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
    /// Whether a parameter is kept in 16 bits where it can be: those that are multiplied or embedded a block at a time.
    /// Others are read as a whole by every pass, and would be held twice.
    pub(super) fn keeps(self, parameter: &str) -> bool {
        let own = parameter.rsplit('.').next().unwrap_or(parameter);
        self == Held::Filed && own.starts_with('W') && own != "W_pos"
    }

    /// A parameter's tensor, held so.
    pub(super) fn tensor<T: Scalar>(self, parameter: &str, read: Tensor<T>) -> Tensor<T> {
        match self.keeps(parameter) {
            true => read.narrowed(),
            false => read,
        }
    }

    /// The bytes of a value of a tensor that a file has in a type; what few values are kept wide all the same is little.
    pub(super) fn bytes<T>(self, dtype: Option<Dtype>) -> usize {
        match (self, dtype) {
            (Held::Filed, Some(Dtype::BF16 | Dtype::F16)) => size_of::<u16>(),
            _ => size_of::<T>(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_in_blocks_is_kept_in_sixteen_bits() {
        let narrow = |held: Held, parameter: &str, x: f32| {
            let tensor = held.tensor(parameter, Tensor::from_vec(&[1, 2], vec![x, -1.5]));
            tensor.narrow().is_some()
        };
        for parameter in [
            "embed.W_E",
            "blocks.0.attn.W_Q",
            "blocks.1.mlp.W_out",
            "unembed.W_U",
        ] {
            assert!(narrow(Held::Filed, parameter, 0.5), "{parameter}");
            assert!(!narrow(Held::Computed, parameter, 0.5), "{parameter}");
            assert!(!narrow(Held::Filed, parameter, 0.1), "{parameter}");
        }
        for parameter in ["pos_embed.W_pos", "blocks.0.attn.b_Q", "blocks.0.ln1.w"] {
            assert!(!narrow(Held::Filed, parameter, 0.5), "{parameter}");
        }
    }
}
