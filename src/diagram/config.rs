//! What a model is made of: independent features, not a family's name.

use super::NormSite;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

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

impl ActFn {
    /// Whether each neuron's value depends on all of them.
    pub fn looks_across(self) -> bool {
        matches!(self, ActFn::Solu | ActFn::SoluLn)
    }
}

/// The norms before the layers and the unembedding: `(x - mean) / scale · w + b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NormKind {
    /// Whether the mean is taken off, as LayerNorm does and RMSNorm does not.
    pub centred: bool,
    /// What the result is multiplied by.
    pub weight: NormWeight,
    /// Whether a `b` is added.
    pub bias: bool,
}

/// What a norm multiplies by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormWeight {
    /// Nothing.
    Absent,
    /// `w`
    Plain,
    /// `1 + w`, as in Gemma.
    OnePlus,
}

impl NormKind {
    /// LayerNorm with parameters.
    pub const LN: NormKind = NormKind {
        centred: true,
        weight: NormWeight::Plain,
        bias: true,
    };
    /// LayerNorm without parameters.
    pub const LN_PRE: NormKind = NormKind {
        centred: true,
        weight: NormWeight::Absent,
        bias: false,
    };
    /// RMSNorm: `x / sqrt(mean(x²) + eps) · w`.
    pub const RMS: NormKind = NormKind {
        centred: false,
        weight: NormWeight::Plain,
        bias: false,
    };
    /// RMSNorm without parameters.
    pub const RMS_PRE: NormKind = NormKind {
        centred: false,
        weight: NormWeight::Absent,
        bias: false,
    };
    /// RMSNorm with weights that are added to one: `x / sqrt(mean(x²) + eps) · (1 + w)`.
    pub const RMS_ONE_PLUS: NormKind = NormKind {
        centred: false,
        weight: NormWeight::OnePlus,
        bias: false,
    };
}

/// Which keys a query sees; those at pads are hidden in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// Those at its own position and before.
    Causal,
    /// All.
    All,
}

/// How positions enter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Positions {
    /// Learned, a row of `W_pos` added to each embedding.
    Learned,
    /// Queries and keys are turned by their positions.
    Rotary(RotaryPositions),
}

/// Rotary positions: entries of a head's queries and keys are turned in pairs, by `position · angle`.
///
/// Source: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding" (2021).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RotaryPositions {
    /// How many of a head's entries are turned, the first ones.
    pub dim: usize,
    /// The pair `f` is turned by `base^(-2f / dim)` a position.
    pub base: f64,
    /// Which entries are pairs.
    pub pairing: Pairing,
    /// What becomes of the angles in longer contexts.
    pub scaling: RotaryScaling,
}

/// Which entries are turned together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// Each of the first half with its counterpart in the second, as in GPT-NeoX and LLaMA.
    Halves,
    /// Each even one with the next, as in GPT-J.
    Neighbours,
}

/// How angles are scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RotaryScaling {
    /// They are not.
    None,
    /// All divided by a factor.
    Linear(f64),
    /// LLaMA 3's, by parts: slow ones are divided by `factor`, fast ones are left, those between in between.
    ByParts {
        /// What slow angles are divided by.
        factor: f64,
        /// Those that turn fewer times than this in the original context are slow.
        low: f64,
        /// Those that turn more often are fast.
        high: f64,
        /// The context that the model was first trained on.
        original: f64,
    },
}

impl RotaryScaling {
    /// What an angle a position becomes.
    fn of(self, angle: f64) -> f64 {
        match self {
            RotaryScaling::None => angle,
            RotaryScaling::Linear(factor) => angle / factor,
            RotaryScaling::ByParts {
                factor,
                low,
                high,
                original,
            } => {
                let turns = original * angle / std::f64::consts::TAU;
                match turns {
                    t if t < low => angle / factor,
                    t if t > high => angle,
                    t => {
                        let smooth = (t - low) / (high - low);
                        (1.0 - smooth) * angle / factor + smooth * angle
                    }
                }
            }
        }
    }
}

/// The MLP of every block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MlpKind {
    /// Neurons.
    pub d_mlp: usize,
    /// What each of them computes.
    pub act_fn: ActFn,
    /// Whether that is multiplied with a second linear map of the stream: `act_fn(x W_gate) · (x W_in) + b_in`.
    pub gated: bool,
}

/// A model's sizes and features: all that what it computes depends on, beside its parameters.
///
/// Each field is independent of the others. [`Config::from_json`] reads the fields of TransformerLens's
/// HookedTransformerConfig into it, [`Config::to_json`] writes them.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Blocks.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// The longest sequence.
    pub n_ctx: usize,
    /// Heads a layer.
    pub n_heads: usize,
    /// Keys and values a layer, each for as many heads in a row: `n_heads` where every head has its own.
    pub groups: usize,
    /// Width of a head.
    pub d_head: usize,
    /// Tokens.
    pub d_vocab: usize,
    /// Columns of the logits.
    pub d_vocab_out: usize,
    /// How positions enter.
    pub positions: Positions,
    /// The norms before the layers and the unembedding, if there are any.
    pub norm: Option<NormKind>,
    /// What a norm adds to the mean square, inside the root.
    pub eps: f64,
    /// Which keys a query sees.
    pub mask: Mask,
    /// What the scores are divided by.
    pub attn_scale: f64,
    /// Whether layer `l` divides its scores by `l + 1` as well.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// The MLPs, if there are any.
    pub mlp: Option<MlpKind>,
    /// Keys at this token get a score of -1e5.
    pub pad_token: Option<usize>,
}

/// The largest size that a field may have: beyond it, products of two sizes would overflow, and no
/// file could hold the model.
const LARGEST: usize = 1 << 31;

impl Config {
    /// What layer `l`'s scores are divided by.
    pub fn score_scale(&self, l: usize) -> f64 {
        match self.scale_attn_by_inverse_layer_idx {
            true => self.attn_scale * (l + 1) as f64,
            false => self.attn_scale,
        }
    }

    /// Radians by which a position turns each pair of entries of queries and keys; none where nothing is turned.
    pub(crate) fn rotary_angles(&self) -> Vec<f64> {
        let Positions::Rotary(rotary) = self.positions else {
            return Vec::new();
        };
        let angle = |f: usize| rotary.base.powf(-2.0 * f as f64 / rotary.dim as f64);
        let angles = (0..rotary.dim / 2).map(angle);
        angles.map(|angle| rotary.scaling.of(angle)).collect()
    }

    /// The pairs of entries of queries and keys that are turned together, in the order of the angles.
    pub(crate) fn rotary_pairs(&self) -> Vec<(usize, usize)> {
        let Positions::Rotary(RotaryPositions { dim, pairing, .. }) = self.positions else {
            return Vec::new();
        };
        let pair = |f: usize| match pairing {
            Pairing::Halves => (f, f + dim / 2),
            Pairing::Neighbours => (2 * f, 2 * f + 1),
        };
        (0..dim / 2).map(pair).collect()
    }

    /// Whether queries and keys are turned by their positions.
    pub fn rotary(&self) -> bool {
        matches!(self.positions, Positions::Rotary(_))
    }

    /// Neurons a layer, where there are MLPs.
    pub fn d_mlp(&self) -> Option<usize> {
        self.mlp.map(|mlp| mlp.d_mlp)
    }

    /// The neurons' function, where there are MLPs.
    pub fn act_fn(&self) -> Option<ActFn> {
        self.mlp.map(|mlp| mlp.act_fn)
    }

    /// What stands at a norm's place, if anything does. Over neurons that is a LayerNorm, whatever the others are.
    pub(crate) fn norm_at(&self, site: NormSite) -> Option<NormKind> {
        match site {
            NormSite::Ln1(_) | NormSite::Ln2(_) | NormSite::Final => self.norm,
            NormSite::Neurons(_) if !self.norms_neurons() => None,
            NormSite::Neurons(_) if self.norm == Some(NormKind::LN) => Some(NormKind::LN),
            NormSite::Neurons(_) => Some(NormKind::LN_PRE),
        }
    }

    /// Whether heads share keys and values.
    pub fn grouped(&self) -> bool {
        self.groups < self.n_heads
    }

    /// Which of its layer's keys and values a head has.
    pub fn group(&self, head: usize) -> usize {
        head / (self.n_heads / self.groups)
    }

    /// Whether the neurons are gated.
    pub fn gated(&self) -> bool {
        self.mlp.is_some_and(|mlp| mlp.gated)
    }

    /// Whether the neurons pass a LayerNorm of their own.
    pub(crate) fn norms_neurons(&self) -> bool {
        self.act_fn() == Some(ActFn::SoluLn)
    }

    /// Whether a query sees keys after it. A key at the pad token has a score even where the mask hides it.
    pub(crate) fn sees_ahead(&self) -> bool {
        self.mask == Mask::All || self.pad_token.is_some()
    }

    /// That the sizes are those of a model: reading a file sees to it, but the fields are public.
    ///
    /// # Errors
    /// When a size is zero or larger than any model's, or a number is none.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |field: &'static str, reason: String| Err(Error::Config { field, reason });
        let sizes = [
            ("d_model", self.d_model),
            ("n_ctx", self.n_ctx),
            ("n_heads", self.n_heads),
            ("n_key_value_heads", self.groups),
            ("d_head", self.d_head),
            ("d_mlp", self.d_mlp().unwrap_or(1)),
            ("d_vocab", self.d_vocab),
            ("d_vocab_out", self.d_vocab_out),
        ];
        for (field, n) in sizes {
            if n == 0 {
                return refuse(field, "is 0, expected at least 1".into());
            }
        }
        for (field, n) in sizes.into_iter().chain([("n_layers", self.n_layers)]) {
            if n > LARGEST {
                return refuse(field, format!("{n} is larger than any model"));
            }
        }
        if !(self.eps >= 0.0 && self.eps.is_finite()) {
            let reason = format!("{}, expected a number that is not negative", self.eps);
            return refuse("eps", reason);
        }
        if self.attn_scale == 0.0 || !self.attn_scale.is_finite() {
            let reason = format!("{}, expected a number other than 0", self.attn_scale);
            return refuse("attn_scale", reason);
        }
        if let Positions::Rotary(rotary) = self.positions {
            if rotary.dim == 0 || rotary.dim % 2 == 1 || rotary.dim > self.d_head {
                let reason = format!("{}, expected an even number up to d_head", rotary.dim);
                return refuse("rotary_dim", reason);
            }
            if !(rotary.base > 0.0 && rotary.base.is_finite()) {
                let reason = format!("{}, expected a positive number", rotary.base);
                return refuse("rotary_base", reason);
            }
        }
        if !self.n_heads.is_multiple_of(self.groups) {
            let reason = format!("{} does not divide n_heads, {}", self.groups, self.n_heads);
            return refuse("n_key_value_heads", reason);
        }
        if self.gated() && self.norms_neurons() {
            return refuse(
                "gated_mlp",
                "true is not covered where act_fn is solu_ln".into(),
            );
        }
        if let Some(pad) = self.pad_token.filter(|&pad| pad >= self.d_vocab) {
            let reason = format!("{pad} is no token: d_vocab is {}", self.d_vocab);
            return refuse("pad_token", reason);
        }
        Ok(())
    }
}
