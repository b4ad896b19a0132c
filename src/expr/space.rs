//! Spaces: what the rows and columns of a matrix are indexed by; and how large they are in a model.

use crate::diagram::{Config, NormKind, NormPlace, Order, RotaryPositions, RotaryScaling};
use crate::names::{Head, NormSite};
use std::fmt;

/// What the rows or the columns of a matrix are indexed by.
///
/// Two matrices meet in a product only where the left one's columns and the right one's rows are the
/// same space; that two spaces have the same size is not enough.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Tokens, `d_vocab` of them.
    Vocab,
    /// Positions: `n_ctx` of them, or as many as a run's sequences have.
    Pos,
    /// The residual stream, `d_model`.
    Model,
    /// A head's queries, keys and values, `d_head`. Heads that share their keys and values share this space,
    /// which then has the name of the first of them: [`Dims::keys_of`].
    Head(Head),
    /// A layer's neurons, `d_mlp`.
    Mlp(usize),
    /// The logits' columns, `d_vocab_out`.
    Out,
    /// A single row or column.
    One,
    /// Several spaces, one below the other.
    Stack(Vec<Space>),
}

impl Space {
    /// How many dimensions the space has in a model.
    pub fn size(&self, dims: &Dims) -> usize {
        match self {
            Space::Vocab => dims.d_vocab,
            Space::Pos => dims.pos,
            Space::Model => dims.d_model,
            Space::Head(_) => dims.d_head,
            Space::Mlp(_) => dims.d_mlp.unwrap_or(0),
            Space::Out => dims.d_vocab_out,
            Space::One => 1,
            Space::Stack(parts) => parts.iter().map(|s| s.size(dims)).sum(),
        }
    }

    /// The space as a model of these sizes names it: heads that share keys and values have one.
    pub(super) fn grouped(&self, dims: &Dims) -> Space {
        match self {
            Space::Head(head) => Space::Head(dims.keys_of(*head)),
            Space::Stack(parts) => Space::Stack(parts.iter().map(|s| s.grouped(dims)).collect()),
            Space::Vocab | Space::Pos | Space::Model | Space::Mlp(_) | Space::Out | Space::One => {
                self.clone()
            }
        }
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Space::Vocab => f.write_str("vocab"),
            Space::Pos => f.write_str("pos"),
            Space::Model => f.write_str("model"),
            Space::Head(head) => write!(f, "head {head}"),
            Space::Mlp(layer) => write!(f, "mlp {layer}"),
            Space::Out => f.write_str("out"),
            Space::One => f.write_str("one"),
            Space::Stack(parts) => {
                let parts: Vec<String> = parts.iter().map(Space::to_string).collect();
                write!(f, "[{}]", parts.join("; "))
            }
        }
    }
}

/// The sizes of a model, and which parts it has: all that an expression's meaning depends on beside the
/// weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Blocks.
    pub n_layers: usize,
    /// Heads a layer.
    pub n_heads: usize,
    /// Keys and values a layer, each for as many heads in a row; `n_heads` where every head has its own.
    pub groups: usize,
    /// Tokens.
    pub d_vocab: usize,
    /// Positions: `n_ctx`, or the length of a run's sequences.
    pub pos: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Width of a head.
    pub d_head: usize,
    /// Neurons a layer; `None` where there are no MLPs.
    pub d_mlp: Option<usize>,
    /// Columns of the logits.
    pub d_vocab_out: usize,
    /// The norms before the layers and the unembedding.
    pub norm: Option<NormKind>,
    /// Whether the neurons are gated.
    pub gated: bool,
    /// Whether both of their maps have a bias.
    pub gate_bias: bool,
    /// Whether positions have an embedding, which is added to the tokens'.
    pub pos_embed: bool,
    /// What of queries and keys is turned by their positions; `None` where nothing is, where they are multiplied too, or
    /// where other entries are turned in other layers.
    pub rotary: Option<Rotary>,
    /// Where in a block the norms stand.
    pub norm_place: NormPlace,
    /// In which order a block's parts read and write.
    pub order: Order,
    /// The norm over the embeddings' sum, if there is one.
    pub embed_norm: Option<NormKind>,
    /// Whether tokens are of several types, whose embedding is added to theirs.
    pub token_types: bool,
    /// Whether the logits are linear in what the last norm gives: nothing else is before them, and nothing caps them.
    pub ends_plain: bool,
    /// The norms of queries and keys, if there are any.
    pub qk_norm: Option<NormKind>,
    /// Whether scores are products of queries and keys alone: nothing is added to them, and nothing caps them.
    pub plain_scores: bool,
}

/// Rotary positions: which entries of a head's queries and keys are turned together. All layers turn the same
/// ones; which layers turn them by the same angles is said here, how large these are is a model's own, and no
/// expression's business.
///
/// ```
/// use pathsum::expr::Rotary;
/// assert_eq!(Rotary::halves(4).pairs, [(0, 2), (1, 3)]);
/// assert_eq!(Rotary::neighbours(4).pairs, [(0, 1), (2, 3)]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotary {
    /// The pairs, by frequency. An entry in none of them stays as it is.
    pub pairs: Vec<(usize, usize)>,
    /// By layer, whether it turns them by the angles of layers with a window, where these are others. Layers beyond the
    /// list turn by those of the other layers: it is empty where all turn by the same.
    pub windowed: Vec<bool>,
}

impl Rotary {
    /// Of the first `rotary_dim` entries each of the first half with its counterpart in the second, as GPT-NeoX and
    /// LLaMA have it.
    pub fn halves(rotary_dim: usize) -> Self {
        let half = rotary_dim / 2;
        Rotary {
            pairs: (0..half).map(|f| (f, f + half)).collect(),
            windowed: Vec::new(),
        }
    }

    /// Of the first `rotary_dim` entries each even one with the next, as GPT-J has it.
    pub fn neighbours(rotary_dim: usize) -> Self {
        Rotary {
            pairs: (0..rotary_dim / 2).map(|f| (2 * f, 2 * f + 1)).collect(),
            windowed: Vec::new(),
        }
    }

    /// Whether a layer turns by the angles of layers with a window.
    pub(crate) fn windowed(&self, layer: usize) -> bool {
        self.windowed.get(layer).copied().unwrap_or(false)
    }
}

impl Default for Dims {
    /// The sizes that an expression is read with where no model is named: two layers of three heads, with
    /// MLPs and LayerNorms, with positions that are added and that turn, every size different from the others.
    fn default() -> Self {
        Dims {
            n_layers: 2,
            n_heads: 3,
            groups: 3,
            d_vocab: 19,
            pos: 11,
            d_model: 13,
            d_head: 5,
            d_mlp: Some(17),
            d_vocab_out: 7,
            norm: Some(NormKind::LN),
            gated: false,
            gate_bias: false,
            pos_embed: true,
            rotary: Some(Rotary::halves(4)),
            norm_place: NormPlace::Before,
            order: Order::Sequential,
            embed_norm: None,
            token_types: false,
            ends_plain: true,
            qk_norm: None,
            plain_scores: true,
        }
    }
}

impl Dims {
    /// Every head, by layer and then by head.
    pub fn heads(&self) -> impl Iterator<Item = Head> + use<> {
        let n_heads = self.n_heads;
        (0..self.n_layers).flat_map(move |layer| (0..n_heads).map(move |head| Head { layer, head }))
    }

    /// The number of a head's keys and values among its layer's.
    pub fn group(&self, head: Head) -> usize {
        head.head / self.heads_a_group()
    }

    /// The first of the heads that have the same keys and values: the one in whose name they are written.
    ///
    /// ```
    /// use pathsum::{Head, expr::Dims};
    /// let dims = Dims { n_heads: 6, groups: 2, ..Dims::default() };
    /// assert_eq!(dims.keys_of(Head { layer: 1, head: 5 }), Head { layer: 1, head: 3 });
    /// ```
    pub fn keys_of(&self, head: Head) -> Head {
        Head {
            layer: head.layer,
            head: self.group(head) * self.heads_a_group(),
        }
    }

    /// What a norm computes, if it stands there.
    pub(crate) fn norm_kind(&self, site: NormSite) -> Option<NormKind> {
        match site {
            NormSite::Embed => self.embed_norm,
            _ => self.norm,
        }
    }

    /// Whether a norm stands there, of which expressions speak.
    pub(crate) fn has_norm(&self, site: NormSite) -> bool {
        use NormPlace::{Around, Output, Stream};
        let first = self.norm_place != Output;
        let written = matches!(self.norm_place, Around | Output);
        let mlp = self.d_mlp.is_some();
        self.norm_kind(site).is_some()
            && match site {
                NormSite::Embed => true,
                NormSite::Ln1(_) => first,
                NormSite::Ln2(_) => first && mlp && self.order != Order::SharedNorm,
                NormSite::Ln1Post(_) => written,
                NormSite::Ln2Post(_) => written && mlp,
                NormSite::Final => self.norm_place != Stream,
                // Expressions do not speak of these.
                NormSite::Q(_) | NormSite::K(_) | NormSite::Neurons(_) | NormSite::MlmHead => false,
            }
    }

    fn heads_a_group(&self) -> usize {
        // In a model without heads nothing is asked of any.
        self.n_heads.checked_div(self.groups).unwrap_or(1).max(1)
    }
}

impl Config {
    /// What is turned in every layer, where these are the same entries in all, and turned only.
    fn rotary_of_all(&self) -> Option<Rotary> {
        let turned = |rotary: &RotaryPositions| match rotary.scaling {
            RotaryScaling::ByLength { .. } => None,
            RotaryScaling::None | RotaryScaling::Linear(_) | RotaryScaling::ByParts { .. } => {
                Some(rotary.pairs())
            }
        };
        let of_layer = |l| self.rotary_at(l).and_then(turned);
        let pairs = of_layer(0)?;
        let same = (1..self.n_layers).all(|l| of_layer(l).as_ref() == Some(&pairs));
        let turn = |l| self.rotary_at(l);
        let alike = (1..self.n_layers).all(|l| turn(l) == turn(0));
        let windowed = |l| self.window(l).is_some();
        let windowed = match alike {
            true => Vec::new(),
            false => (0..self.n_layers).map(windowed).collect(),
        };
        same.then_some(Rotary { pairs, windowed })
    }

    /// The sizes that an expression is read with.
    pub fn dims(&self) -> Dims {
        Dims {
            n_layers: self.n_layers,
            n_heads: self.n_heads,
            groups: self.groups,
            d_vocab: self.d_vocab,
            pos: self.n_ctx,
            d_model: self.d_model,
            d_head: self.d_head,
            d_mlp: self.d_mlp(),
            d_vocab_out: self.d_vocab_out,
            norm: self.norm,
            gated: self.gated(),
            gate_bias: self.gate_bias(),
            pos_embed: self.pos_embed(),
            rotary: self.rotary_of_all(),
            norm_place: self.norm_place,
            order: self.order,
            embed_norm: self.embed_norm,
            token_types: self.token_types > 0,
            ends_plain: self.mlm_head.is_none() && self.logit_cap.is_none(),
            qk_norm: self.qk_norm.map(|norm| norm.kind),
            plain_scores: self.score_cap.is_none() && self.alibi_slopes().is_none(),
        }
    }
}
