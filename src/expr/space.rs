//! Spaces: what the rows and columns of a matrix are indexed by; and how large they are in a model.

use crate::diagram::{Config, NormKind};
use crate::names::Head;
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
    /// A head's queries, keys and values, `d_head`.
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
    pub norms: Norms,
}

/// What a model's norms are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norms {
    /// There are none.
    Absent,
    /// `(x - mean) / scale`
    Plain,
    /// `(x - mean) / scale · w + b`
    Affine,
}

impl Default for Dims {
    /// The sizes that an expression is read with where no model is named: two layers of three heads, with
    /// MLPs and LayerNorms, every size different from the others.
    fn default() -> Self {
        Dims {
            n_layers: 2,
            n_heads: 3,
            d_vocab: 19,
            pos: 11,
            d_model: 13,
            d_head: 5,
            d_mlp: Some(17),
            d_vocab_out: 7,
            norms: Norms::Affine,
        }
    }
}

impl Dims {
    /// Every head, by layer and then by head.
    pub fn heads(&self) -> impl Iterator<Item = Head> + use<> {
        let n_heads = self.n_heads;
        (0..self.n_layers).flat_map(move |layer| (0..n_heads).map(move |head| Head { layer, head }))
    }
}

impl Config {
    /// The sizes that an expression is read with.
    pub fn dims(&self) -> Dims {
        Dims {
            n_layers: self.n_layers,
            n_heads: self.n_heads,
            d_vocab: self.d_vocab,
            pos: self.n_ctx,
            d_model: self.d_model,
            d_head: self.d_head,
            d_mlp: self.d_mlp(),
            d_vocab_out: self.d_vocab_out,
            norms: match self.norm {
                None => Norms::Absent,
                Some(NormKind::Plain) => Norms::Plain,
                Some(NormKind::Affine) => Norms::Affine,
            },
        }
    }
}
