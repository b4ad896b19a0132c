//! What a model is made of: independent features, not a family's name.

use super::rotary::RotaryPositions;
use crate::error::{Error, Result};
use crate::names::{Head, NormSite};
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
    /// As `gelu_new`, with √(2/π) cut to eight digits, as in BLOOM.
    GeluBloom,
    /// `x / (1 + e^(-1.702 x))`
    QuickGelu,
    /// As `gelu_new`.
    GeluPytorchTanh,
    /// `x / (1 + e^-x)`
    Silu,
    /// `x`: gated neurons are then bilinear in what they read.
    Linear,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NormKind {
    /// Whether the mean is taken off, as LayerNorm does and RMSNorm does not.
    pub centred: bool,
    /// What the result is multiplied by.
    pub weight: NormWeight,
    /// Whether a `b` is added.
    pub bias: bool,
}

/// What a norm multiplies by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

/// Where in a block the norms stand. A place may be left out of all models: [`Config::norm`] is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormPlace {
    /// Before attention and MLP, which read the norm's output; and before the unembedding.
    Before,
    /// Before attention and MLP, over what each of them writes, and before the unembedding, as in Gemma-2.
    Around,
    /// Over what attention and MLP write, and before the unembedding, as in OLMo-2.
    Output,
    /// Over the stream, after attention and MLP have written to it, as in BERT; none before the unembedding.
    Stream,
}

/// In which order a block's parts read and write the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The MLP reads what attention has written.
    Sequential,
    /// Both read the stream before the block, each through a norm of its own, as in GPT-NeoX.
    Parallel,
    /// Both read the stream before the block through one norm, as in GPT-J.
    SharedNorm,
}

/// A norm of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QkNorm {
    /// What it computes.
    pub kind: NormKind,
    /// Whether each head's `d_head` entries are a row, with one `w` for all heads of a layer; else all heads' together.
    pub per_head: bool,
}

/// How positions enter.
#[derive(Clone, Debug, PartialEq)]
pub enum Positions {
    /// Learned, a row of `W_pos` added to each embedding.
    Learned,
    /// Queries and keys are turned by their positions.
    Rotary(RotaryPositions),
    /// A slope of the head's times the key's position is added to the scores.
    ///
    /// Source: Press et al., "Train Short, Test Long" (2021); by key position as in BLOOM.
    Alibi,
    /// Not at all, but through the mask.
    None,
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
    /// Whether both maps of gated neurons have a bias: `act_fn(x W_gate + b_gate) · (x W_in + b_in)`.
    pub gate_bias: bool,
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
    /// How they do in layers with a window, where that is otherwise.
    pub windowed_rotary: Option<RotaryPositions>,
    /// Kinds of tokens, each with a row of `W_token_type` that is added to the embedding; 0 where there are none.
    pub token_types: usize,
    /// A norm over the embeddings' sum, if there is one.
    pub embed_norm: Option<NormKind>,
    /// The norms of the blocks and before the unembedding, if there are any.
    pub norm: Option<NormKind>,
    /// Where they stand.
    pub norm_place: NormPlace,
    /// In which order a block's parts read and write.
    pub order: Order,
    /// Norms of queries and keys, if there are any.
    pub qk_norm: Option<QkNorm>,
    /// What a norm adds to the mean square, inside the root.
    pub eps: f64,
    /// Which keys a query sees.
    pub mask: Mask,
    /// By layer, how many of the keys that the mask leaves, its own included, a query sees; all where there is none. Layers
    /// beyond the list have none.
    pub windows: Vec<Option<usize>>,
    /// What scores are capped at, `cap tanh(score / cap)`, if anything.
    pub score_cap: Option<f64>,
    /// What the scores are divided by.
    pub attn_scale: f64,
    /// Whether layer `l` divides its scores by `l + 1` as well.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// The MLPs, if there are any.
    pub mlp: Option<MlpKind>,
    /// A dense layer with this function and a norm before the unembedding, as in masked language models.
    pub mlm_head: Option<ActFn>,
    /// What logits are capped at, `cap tanh(logit / cap)`, if anything.
    pub logit_cap: Option<f64>,
    /// Keys at this token get a score of -1e5.
    pub pad_token: Option<usize>,
}

impl Default for Config {
    /// The least transformer there is: a layer of one head, every width 1, learned positions, LayerNorm, no MLP. For
    /// what a configuration does not say.
    fn default() -> Self {
        Config {
            n_layers: 1,
            d_model: 1,
            n_ctx: 1,
            n_heads: 1,
            groups: 1,
            d_head: 1,
            d_vocab: 1,
            d_vocab_out: 1,
            positions: Positions::Learned,
            windowed_rotary: None,
            token_types: 0,
            embed_norm: None,
            norm: Some(NormKind::LN),
            norm_place: NormPlace::Before,
            order: Order::Sequential,
            qk_norm: None,
            eps: 1e-5,
            mask: Mask::Causal,
            windows: Vec::new(),
            score_cap: None,
            attn_scale: 1.0,
            scale_attn_by_inverse_layer_idx: false,
            mlp: None,
            mlm_head: None,
            logit_cap: None,
            pad_token: None,
        }
    }
}

/// The largest size that a field may have: beyond it, products of two sizes would overflow, and no
/// file could hold the model.
pub(crate) const LARGEST: usize = 1 << 31;

/// As many layers as a model may have: there are lists with an entry a layer.
pub(crate) const MOST_LAYERS: usize = 1 << 16;

impl Config {
    /// What layer `l`'s scores are divided by.
    pub fn score_scale(&self, l: usize) -> f64 {
        match self.scale_attn_by_inverse_layer_idx {
            true => self.attn_scale * (l + 1) as f64,
            false => self.attn_scale,
        }
    }

    /// How queries and keys of layer `l` are turned, where they are.
    pub fn rotary_at(&self, l: usize) -> Option<&RotaryPositions> {
        match &self.positions {
            Positions::Rotary(all) => {
                let other = self.windowed_rotary.as_ref();
                Some(other.filter(|_| self.window(l).is_some()).unwrap_or(all))
            }
            Positions::Learned | Positions::Alibi | Positions::None => None,
        }
    }

    /// Every way in which some layer turns queries and keys.
    pub(crate) fn rotaries(&self) -> impl Iterator<Item = &RotaryPositions> {
        let all = match &self.positions {
            Positions::Rotary(all) => Some(all),
            Positions::Learned | Positions::Alibi | Positions::None => None,
        };
        let windowed = self.windowed_rotary.iter().filter(move |_| all.is_some());
        all.into_iter().chain(windowed)
    }

    /// Whether queries and keys are turned by their positions.
    pub fn rotary(&self) -> bool {
        matches!(self.positions, Positions::Rotary(_))
    }

    /// Whether a row of `W_pos` is added to each embedding.
    pub fn pos_embed(&self) -> bool {
        matches!(self.positions, Positions::Learned)
    }

    /// By head, what a key's position is multiplied by before it is added to the scores, where it is. Of heads in a number
    /// that is no power of two the first ones are as many as the largest power of two below has, the others come from
    /// between them.
    ///
    /// Source: `build_alibi_tensor` of `transformers`.
    pub fn alibi_slopes(&self) -> Option<Vec<f64>> {
        if !matches!(self.positions, Positions::Alibi) {
            return None;
        }
        let n = self.n_heads;
        let whole = 1usize << n.ilog2();
        let base = (-8.0 / whole as f64).exp2();
        let between = (-4.0 / whole as f64).exp2();
        let first = (1..=whole).map(|i| base.powi(i as i32));
        let rest = (0..n - whole).map(|i| between.powi(2 * i as i32 + 1));
        Some(first.chain(rest).collect())
    }

    /// How many keys a query of layer `l` sees at most, where that is limited.
    pub fn window(&self, l: usize) -> Option<usize> {
        self.windows.get(l).copied().flatten()
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
        use NormPlace::{Around, Before, Output, Stream};
        let stands = |places: &[NormPlace]| self.norm.filter(|_| places.contains(&self.norm_place));
        let mlp = |norm: Option<NormKind>| norm.filter(|_| self.mlp.is_some());
        match site {
            NormSite::Embed => self.embed_norm,
            NormSite::Ln1(_) => stands(&[Before, Around, Stream]),
            NormSite::Q(_) | NormSite::K(_) => self.qk_norm.map(|norm| norm.kind),
            NormSite::Ln1Post(_) => stands(&[Around, Output]),
            NormSite::Ln2(_) if self.order == Order::SharedNorm => None,
            NormSite::Ln2(_) => mlp(stands(&[Before, Around, Stream])),
            NormSite::Ln2Post(_) => mlp(stands(&[Around, Output])),
            NormSite::Neurons(_) if !self.norms_neurons() => None,
            NormSite::Neurons(_) if self.norm == Some(NormKind::LN) => Some(NormKind::LN),
            NormSite::Neurons(_) => Some(NormKind::LN_PRE),
            NormSite::Final => stands(&[Before, Around, Output]),
            NormSite::MlmHead => self.mlm_head.map(|_| self.norm.unwrap_or(NormKind::LN)),
        }
    }

    /// Whether attention reads a norm of the stream, and not the stream itself.
    pub(crate) fn reads_ln1(&self) -> bool {
        self.norm_place != NormPlace::Stream && self.norm_at(NormSite::Ln1(0)).is_some()
    }

    /// The norm that a layer's neurons read, where they read one and not the stream itself.
    pub(crate) fn norm_before_neurons(&self, layer: usize) -> Option<NormSite> {
        let site = match self.order {
            Order::SharedNorm => NormSite::Ln1(layer),
            Order::Sequential | Order::Parallel => NormSite::Ln2(layer),
        };
        let read = self.norm_place != NormPlace::Stream && self.norm_at(site).is_some();
        read.then_some(site)
    }

    /// That there is such a head.
    pub(crate) fn check_head(&self, head: Head) -> Result<()> {
        match head.layer < self.n_layers && head.head < self.n_heads {
            true => Ok(()),
            false => Err(Error::NoSuchHead {
                head,
                layers: self.n_layers,
                heads: self.n_heads,
            }),
        }
    }

    /// That there is such a layer.
    pub(crate) fn check_layer(&self, layer: usize) -> Result<()> {
        match layer < self.n_layers {
            true => Ok(()),
            false => Err(Error::out_of_range(
                "layer",
                layer,
                "",
                "this model's layers",
                0..self.n_layers,
            )),
        }
    }

    /// How many numbers a norm's row has.
    pub(crate) fn norm_width(&self, site: NormSite) -> usize {
        let rows = |heads: usize| match self.qk_norm {
            Some(QkNorm {
                per_head: false, ..
            }) => heads * self.d_head,
            _ => self.d_head,
        };
        match site {
            NormSite::Q(_) => rows(self.n_heads),
            NormSite::K(_) => rows(self.groups),
            NormSite::Neurons(_) => self.d_mlp().unwrap_or(0),
            NormSite::Embed
            | NormSite::Ln1(_)
            | NormSite::Ln1Post(_)
            | NormSite::Ln2(_)
            | NormSite::Ln2Post(_)
            | NormSite::Final
            | NormSite::MlmHead => self.d_model,
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

    /// Whether both maps of gated neurons have a bias.
    pub fn gate_bias(&self) -> bool {
        self.mlp.is_some_and(|mlp| mlp.gated && mlp.gate_bias)
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
        ];
        for (field, n) in sizes {
            if n == 0 {
                return refuse(field, "is 0, expected at least 1".into());
            }
        }
        // A model without an unembedding has no columns of logits.
        for (field, n) in sizes.into_iter().chain([("d_vocab_out", self.d_vocab_out)]) {
            if n > LARGEST {
                return refuse(field, format!("{n} is larger than any model"));
            }
        }
        if self.n_layers > MOST_LAYERS {
            let reason = format!("{} is larger than any model", self.n_layers);
            return refuse("n_layers", reason);
        }
        if !(self.eps >= 0.0 && self.eps.is_finite()) {
            let reason = format!("{}, expected a number that is not negative", self.eps);
            return refuse("eps", reason);
        }
        if self.attn_scale == 0.0 || !self.attn_scale.is_finite() {
            let reason = format!("{}, expected a number other than 0", self.attn_scale);
            return refuse("attn_scale", reason);
        }
        for rotary in self.rotaries() {
            rotary.check(self.d_head)?;
        }
        if self.windowed_rotary.is_some() && !self.rotary() {
            return refuse(
                "rotary_base_local",
                "given, but positions are not rotary".into(),
            );
        }
        for (field, cap) in [
            ("attn_scores_soft_cap", self.score_cap),
            ("output_logits_soft_cap", self.logit_cap),
        ] {
            if let Some(cap) = cap.filter(|cap| !(*cap > 0.0 && cap.is_finite())) {
                return refuse(field, format!("{cap}, expected a positive number"));
            }
        }
        if self.windows.contains(&Some(0)) {
            return refuse("window_size", "is 0, expected at least 1".into());
        }
        if self.mask == Mask::All && self.windows.iter().any(Option::is_some) {
            return refuse(
                "window_size",
                "is not covered where attention goes both ways".into(),
            );
        }
        if self.order != Order::Sequential && self.norm_place != NormPlace::Before {
            return refuse(
                "parallel_attn_mlp",
                "true is not covered where norms stand behind attention".into(),
            );
        }
        if self.order != Order::Sequential && self.mlp.is_none() {
            return refuse("parallel_attn_mlp", "true, but there are no MLPs".into());
        }
        if self.mlm_head.is_some_and(ActFn::looks_across) {
            return refuse(
                "act_fn",
                "is not covered in the head of a masked language model".into(),
            );
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
