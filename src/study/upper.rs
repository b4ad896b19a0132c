//! A model of pairs from the attention on.

use crate::error::Result;
use crate::model::{Model, Tokens, Weights};
use crate::tensor::Tensor;

/// What a model does at `=` after its attention, as a model of one position without attention: its tokens are the
/// inputs, its embeddings what the stream holds after the attention.
///
/// What is done to the stream after the attention has the same effect on both; this one has a third of the work, and
/// the stream may come from anywhere: from fixed attention, say.
pub(super) struct Upper {
    pub model: Model<f64>,
}

impl Upper {
    /// From the stream at `=`, `[input, d_model]`.
    pub fn new(model: &Model<f64>, mid: &Tensor<f64>) -> Result<Self> {
        let mut config = model.config().clone();
        config.n_ctx = 1;
        config.n_heads = 1;
        config.groups = 1;
        config.d_head = 1;
        config.d_vocab = mid.shape()[0];
        config.pad_token = None;
        let old = model.weights().tensors();
        let weights = Weights::build(&config, |name, shape| {
            if name.starts_with("pos_embed.") || name.contains(".attn.") {
                return Ok(Tensor::zeros(shape));
            }
            let found = match name {
                "embed.W_E" => mid,
                _ => {
                    let mut named = old.iter();
                    let found = named.find(|(other, _)| other == name);
                    found.expect("both have the same layer").1
                }
            };
            Ok(found.clone())
        })?;
        let model = Model::new(config, weights)?;
        Ok(Upper { model })
    }

    /// All inputs.
    pub fn all(&self) -> Tokens {
        self.some(&(0..self.model.config().d_vocab).collect::<Vec<_>>())
    }

    /// Some of the inputs.
    pub fn some(&self, inputs: &[usize]) -> Tokens {
        let ids = inputs.iter().map(|&i| i as i64).collect();
        Tokens::new(inputs.len(), 1, ids)
    }
}
