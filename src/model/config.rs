//! The model's configuration, with HookedTransformerConfig's field names, values and defaults.

use crate::error::{Error, Result};
use crate::expr::{Dims, Norms};
use crate::names::Hook;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What an MLP's neurons compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActFn {
    /// `max(x, 0)`
    Relu,
    /// `x Φ(x)`, with the error function.
    Gelu,
    /// `x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))`, as in GPT-2.
    GeluNew,
    /// As `gelu_new`, with √(2/π) cut to ten digits.
    GeluFast,
    /// As `gelu_new`.
    GeluPytorchTanh,
    /// `x / (1 + e^-x)`
    Silu,
    /// `x softmax(x)`
    Solu,
    /// `x softmax(x)`, then a LayerNorm over the neurons.
    SoluLn,
}

/// The normalisation before each layer and before the unembedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NormalizationType {
    /// LayerNorm with `w` and `b`.
    LN,
    /// LayerNorm without parameters.
    LNPre,
}

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentionDir {
    /// Those at its own position and before.
    Causal,
    /// All.
    Bidirectional,
}

/// How positions enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PositionalEmbeddingType {
    /// Learned, added to the embedding.
    Standard,
}

/// A model's sizes and options: the fields of TransformerLens's HookedTransformerConfig that change
/// what is computed, and `pad_token`.
///
/// Read it with [`Config::from_json`], which knows every field of HookedTransformerConfig: those that
/// change nothing here (a seed, a device) are accepted and dropped, those whose value asks for
/// something that is not covered (rotary positions, say) are refused by name.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// Blocks.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// The longest sequence.
    pub n_ctx: usize,
    /// Width of a head.
    pub d_head: usize,
    /// Heads a layer.
    pub n_heads: usize,
    /// Neurons a layer; `None` where there are no MLPs.
    pub d_mlp: Option<usize>,
    /// Whether there are no MLPs.
    pub attn_only: bool,
    /// The neurons' function; may be absent where there are no MLPs.
    pub act_fn: Option<ActFn>,
    /// Tokens.
    pub d_vocab: usize,
    /// Columns of the logits.
    pub d_vocab_out: usize,
    /// Which keys a query sees.
    pub attention_dir: AttentionDir,
    /// The normalisation, if any.
    pub normalization_type: Option<NormalizationType>,
    /// What the normalisation adds to the variance, inside the root.
    pub eps: f64,
    /// How positions enter.
    pub positional_embedding_type: PositionalEmbeddingType,
    /// Whether the scores are divided by `attn_scale`.
    pub use_attn_scale: bool,
    /// What the scores are divided by; `sqrt(d_head)` unless given.
    pub attn_scale: f64,
    /// Whether layer `l` divides its scores by `l + 1` as well.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// Keys at this token get a score of -1e5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pad_token: Option<usize>,
}

impl Config {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// As [`Config::from_json`], naming the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let json = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        Self::from_json(&json).map_err(|e| Error::format(path, e))
    }

    /// The JSON of a `config.json`, which TransformerLens reads as well (but for `pad_token`).
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a config is plain data")
    }

    /// The sizes that an expression is read with.
    pub fn dims(&self) -> Dims {
        Dims {
            n_layers: self.n_layers,
            n_heads: self.n_heads,
            groups: self.n_heads,
            d_vocab: self.d_vocab,
            pos: self.n_ctx,
            d_model: self.d_model,
            d_head: self.d_head,
            d_mlp: self.d_mlp,
            d_vocab_out: self.d_vocab_out,
            norms: match self.normalization_type {
                None => Norms::Absent,
                Some(NormalizationType::LNPre) => Norms::Plain,
                Some(NormalizationType::LN) => Norms::Affine,
            },
            pos_embed: true,
            rotary: None,
        }
    }

    /// By how many radians a position turns each pair of [`Dims::rotary`], in their order.
    pub(crate) fn rotary_angles(&self) -> Vec<f64> {
        Vec::new()
    }

    /// What layer `l`'s scores are divided by.
    pub fn score_scale(&self, l: usize) -> f64 {
        let scale = if self.use_attn_scale {
            self.attn_scale
        } else {
            1.0
        };
        if self.scale_attn_by_inverse_layer_idx {
            scale * (l + 1) as f64
        } else {
            scale
        }
    }

    /// That the fields agree with each other: [`Config::from_json`] sees to it, but they are public.
    pub(crate) fn check(&self) -> Result<()> {
        if self.attn_only == self.d_mlp.is_some() {
            return Err(Error::Config {
                field: "d_mlp",
                reason: format!("{:?} where attn_only is {}", self.d_mlp, self.attn_only),
            });
        }
        if !self.attn_only && self.act_fn.is_none() {
            return Err(Error::Config {
                field: "act_fn",
                reason: "is missing, and the model has MLPs (attn_only is false)".into(),
            });
        }
        Ok(())
    }

    /// The activation function, in a model with MLPs.
    pub(crate) fn mlp_act(&self) -> Option<ActFn> {
        if self.attn_only { None } else { self.act_fn }
    }

    /// Whether the neurons pass a LayerNorm of their own.
    pub(crate) fn solu(&self) -> bool {
        self.mlp_act() == Some(ActFn::SoluLn)
    }

    /// Every hook of this model, in the order of the forward pass.
    pub fn hooks(&self) -> Vec<Hook> {
        let mlp = !self.attn_only;
        let norm = self.normalization_type.is_some();
        let mut hooks = vec![Hook::Embed, Hook::PosEmbed];
        let mut add = |present: bool, hook: Hook| {
            if present {
                hooks.push(hook);
            }
        };
        for l in 0..self.n_layers {
            add(true, Hook::ResidPre(l));
            add(norm, Hook::Ln1Scale(l));
            add(norm, Hook::Ln1Normalized(l));
            add(true, Hook::Q(l));
            add(true, Hook::K(l));
            add(true, Hook::V(l));
            add(true, Hook::AttnScores(l));
            add(true, Hook::Pattern(l));
            add(true, Hook::Z(l));
            add(true, Hook::Result(l));
            add(true, Hook::AttnOut(l));
            add(mlp, Hook::ResidMid(l));
            add(mlp && norm, Hook::Ln2Scale(l));
            add(mlp && norm, Hook::Ln2Normalized(l));
            add(mlp, Hook::Pre(l));
            add(self.solu(), Hook::Mid(l));
            add(self.solu(), Hook::MlpLnScale(l));
            add(self.solu(), Hook::MlpLnNormalized(l));
            add(mlp, Hook::Post(l));
            add(mlp, Hook::MlpOut(l));
            add(true, Hook::ResidPost(l));
        }
        add(norm, Hook::LnFinalScale);
        add(norm, Hook::LnFinalNormalized);
        hooks
    }

    /// The axis of the positions of a hook's value that stands past the last layer's keys and values, from where on no
    /// position needs another.
    pub(crate) fn axis_read(&self, hook: Hook) -> Option<usize> {
        let last = |l: usize| l + 1 == self.n_layers;
        match hook {
            Hook::LnFinalScale | Hook::LnFinalNormalized => Some(1),
            Hook::AttnScores(l) | Hook::Pattern(l) => last(l).then_some(2),
            Hook::Q(l)
            | Hook::Z(l)
            | Hook::Result(l)
            | Hook::AttnOut(l)
            | Hook::ResidMid(l)
            | Hook::Ln2Scale(l)
            | Hook::Ln2Normalized(l)
            | Hook::Pre(l)
            | Hook::Mid(l)
            | Hook::MlpLnScale(l)
            | Hook::MlpLnNormalized(l)
            | Hook::Post(l)
            | Hook::MlpOut(l)
            | Hook::ResidPost(l) => last(l).then_some(1),
            _ => None,
        }
    }

    /// The shape of a hook's value for a batch.
    pub fn hook_shape(&self, hook: Hook, batch: usize, pos: usize) -> Vec<usize> {
        let (heads, d_mlp) = (self.n_heads, self.d_mlp.unwrap_or(0));
        match hook {
            Hook::Ln1Scale(_) | Hook::Ln2Scale(_) | Hook::MlpLnScale(_) | Hook::LnFinalScale => {
                vec![batch, pos, 1]
            }
            Hook::Q(_) | Hook::K(_) | Hook::V(_) | Hook::Z(_) => {
                vec![batch, pos, heads, self.d_head]
            }
            Hook::AttnScores(_) | Hook::Pattern(_) => vec![batch, heads, pos, pos],
            Hook::Result(_) => vec![batch, pos, heads, self.d_model],
            Hook::Pre(_) | Hook::Mid(_) | Hook::MlpLnNormalized(_) | Hook::Post(_) => {
                vec![batch, pos, d_mlp]
            }
            _ => vec![batch, pos, self.d_model],
        }
    }
}
