//! The symbols of the language: every weight, every value of a run, and a few constants.

use super::space::{Dims, Space};
use crate::diagram::{NormWeight, Order};
use crate::names::NormSite;
use crate::names::{Head, Hook};
use std::fmt;

/// A head where its queries or its output are meant: with the head in whose name its keys and values are written,
/// the first of its group ([`Dims::keys_of`]). Where every head has keys and values of its own, that is itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryHead {
    /// The head.
    pub head: Head,
    /// The head whose keys and values these are.
    pub keys: Head,
}

impl From<Head> for QueryHead {
    /// A head with keys and values of its own.
    fn from(head: Head) -> Self {
        QueryHead { head, keys: head }
    }
}

impl fmt::Display for QueryHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head.fmt(f)
    }
}

/// What stands in the brackets behind a symbol's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexed {
    /// Nothing: `W_E`
    Alone,
    /// A layer: `W_in[0]`
    ByLayer,
    /// A head: `W_Q[0.1]`
    ByHead,
    /// A norm: `scale[0,ln1]`
    BySite,
}

/// Where a symbol's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The model.
    Weight,
    /// A run of it.
    Run,
    /// Neither: the same for all models of one size.
    Constant,
}

macro_rules! symbols {
    (
        alone { $($(#[$ad:meta])* $A:ident = $an:literal: [$ar:expr, $ac:expr] $ao:ident,)* }
        by_layer { $($(#[$ld:meta])* $L:ident = $ln:literal: |$ll:pat_param| [$lr:expr, $lc:expr] $lo:ident,)* }
        by_head { $($(#[$hd:meta])* $H:ident($ht:ty) = $hn:literal: |$hh:pat_param| [$hr:expr, $hc:expr] $ho:ident,)* }
        by_site { $($(#[$sd:meta])* $S:ident = $sn:literal: [$sr:expr, $sc:expr] $so:ident,)* }
    ) => {
        /// A matrix that an expression is made of.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Symbol {
            $($(#[$ad])* #[doc = concat!(" `", $an, "`")] $A,)*
            $($(#[$ld])* #[doc = concat!(" `", $ln, "[l]`")] $L(usize),)*
            $($(#[$hd])* #[doc = concat!(" `", $hn, "[l.h]`")] $H($ht),)*
            $($(#[$sd])* #[doc = concat!(" `", $sn, "[site]`")] $S(NormSite),)*
            /// `[head, head]`: turns a row of queries or keys by so many positions. The head is the one whose
            /// space it acts on, and with its layer says by which angles. `R[n]`
            R(Head, i64),
            /// `[space, one]`: a column of ones. `ones[space]`
            Ones(Space),
            /// `[space, one]`: the column that is 1 at an index and 0 elsewhere; a negative index counts
            /// from the end. `I[space][:,i]`
            Unit(Space, i64),
            /// `[stack, part]`: puts a matrix in its place of a stack, zeros elsewhere.
            Inject {
                /// The spaces of the stack.
                stack: Vec<Space>,
                /// The number of the one that is filled.
                part: usize,
            },
        }

        impl Symbol {
            /// The names of the symbols that take such an index.
            pub(super) fn names(indexed: Indexed) -> &'static [&'static str] {
                match indexed {
                    Indexed::Alone => &[$($an,)*],
                    Indexed::ByLayer => &[$($ln,)*],
                    Indexed::ByHead => &[$($hn,)*],
                    Indexed::BySite => &[$($sn,)*],
                }
            }

            pub(super) fn alone(name: &str) -> Option<Self> {
                match name { $($an => Some(Symbol::$A),)* _ => None }
            }

            pub(super) fn by_layer(name: &str, layer: usize) -> Option<Self> {
                match name { $($ln => Some(Symbol::$L(layer)),)* _ => None }
            }

            pub(super) fn by_head(name: &str, head: Head) -> Option<Self> {
                match name { $($hn => Some(Symbol::$H(head.into())),)* _ => None }
            }

            pub(super) fn by_site(name: &str, site: NormSite) -> Option<Self> {
                match name { $($sn => Some(Symbol::$S(site)),)* _ => None }
            }

            /// What the rows and the columns are indexed by.
            pub fn spaces(&self) -> (Space, Space) {
                match self {
                    $(Symbol::$A => ($ar, $ac),)*
                    $(&Symbol::$L($ll) => ($lr, $lc),)*
                    $(&Symbol::$H($hh) => ($hr, $hc),)*
                    $(Symbol::$S(_) => ($sr, $sc),)*
                    &Symbol::R(head, _) => (Space::Head(head), Space::Head(head)),
                    Symbol::Ones(space) | Symbol::Unit(space, _) => (space.clone(), Space::One),
                    Symbol::Inject { stack, part } => {
                        (Space::Stack(stack.clone()), stack[*part].clone())
                    }
                }
            }

            /// Where the value comes from.
            pub fn origin(&self) -> Origin {
                match self {
                    $(Symbol::$A => Origin::$ao,)*
                    $(Symbol::$L(_) => Origin::$lo,)*
                    $(Symbol::$H(_) => Origin::$ho,)*
                    $(Symbol::$S(_) => Origin::$so,)*
                    Symbol::R(..) => Origin::Weight,
                    Symbol::Ones(_) | Symbol::Unit(..) | Symbol::Inject { .. } => Origin::Constant,
                }
            }
        }

        impl fmt::Display for Symbol {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Symbol::$A => f.write_str($an),)*
                    $(Symbol::$L(l) => write!(f, "{}[{l}]", $ln),)*
                    $(Symbol::$H(h) => write!(f, "{}[{h}]", $hn),)*
                    $(Symbol::$S(s) => write!(f, "{}[{s}]", $sn),)*
                    Symbol::R(head, n) => write!(f, "R[{n},head {head}]"),
                    Symbol::Ones(space) => write!(f, "ones[{space}]"),
                    Symbol::Unit(space, i) => write!(f, "I[{space}][:,{i}]"),
                    Symbol::Inject { stack, part } => {
                        write!(f, "part {part} of {}", Space::Stack(stack.clone()))
                    }
                }
            }
        }
    };
}

use Space::{Mlp, Model, One, Out, Pos, Vocab};

symbols! {
    alone {
        /// The embedding.
        WE = "W_E": [Vocab, Model] Weight,
        /// The positions' embedding; in a run, as many rows as the sequences are long.
        WPos = "W_pos": [Pos, Model] Weight,
        /// The unembedding.
        WU = "W_U": [Model, Out] Weight,
        /// The unembedding's bias, a row.
        BU = "b_U": [One, Out] Weight,
        /// Centring over the stream: `x C = x - mean(x)`.
        C = "C": [Model, Model] Constant,
        /// The Fourier basis over the vocabulary's residues, the tokens that are answers too; other tokens stay. Rows are
        /// the constant, cosines and sines.
        F = "F": [Vocab, Vocab] Constant,
        /// The same over the answers.
        FOut = "F_out": [Out, Out] Constant,
        /// The sequence's tokens, a 1 in each row.
        Tokens = "tokens": [Pos, Vocab] Run,
        /// The tokens' rows of `W_E`.
        Embed = "embed": [Pos, Model] Run,
        /// The positions' rows of `W_pos`.
        PosEmbed = "pos_embed": [Pos, Model] Run,
        /// The token types' rows of `W_token_type`.
        TokenTypeEmbed = "token_type_embed": [Pos, Model] Run,
        /// The embeddings' sum, where a norm goes over it.
        EmbedSum = "embed_sum": [Pos, Model] Run,
        /// What the run gives.
        Logits = "logits": [Pos, Out] Run,
    }
    by_layer {
        /// The attention's output bias, a row.
        BO = "b_O": |_| [One, Model] Weight,
        /// Into the neurons.
        WIn = "W_in": |l| [Model, Mlp(l)] Weight,
        /// Into the gates of gated neurons.
        WGate = "W_gate": |l| [Model, Mlp(l)] Weight,
        /// The gates' bias, a row.
        BGate = "b_gate": |l| [One, Mlp(l)] Weight,
        /// The neurons' bias, a row.
        BIn = "b_in": |l| [One, Mlp(l)] Weight,
        /// Out of the neurons.
        WOut = "W_out": |l| [Mlp(l), Model] Weight,
        /// The MLP's output bias, a row.
        BOut = "b_out": |_| [One, Model] Weight,
        /// The stream before the block.
        ResidPre = "resid_pre": |_| [Pos, Model] Run,
        /// The heads' results and `b_O`, summed, where a norm goes over it.
        AttnSum = "attn_sum": |_| [Pos, Model] Run,
        /// What attention adds to the stream.
        AttnOut = "attn_out": |_| [Pos, Model] Run,
        /// The stream between attention and MLP.
        ResidMid = "resid_mid": |_| [Pos, Model] Run,
        /// The neurons before their function.
        Pre = "pre": |l| [Pos, Mlp(l)] Run,
        /// What gated neurons are multiplied with.
        PreLinear = "pre_linear": |l| [Pos, Mlp(l)] Run,
        /// The neurons after it.
        Post = "post": |l| [Pos, Mlp(l)] Run,
        /// What the neurons write, `b_out` included, where a norm goes over it.
        MlpSum = "mlp_sum": |_| [Pos, Model] Run,
        /// What the MLP adds to the stream.
        MlpOut = "mlp_out": |_| [Pos, Model] Run,
        /// The stream after the block.
        ResidPost = "resid_post": |_| [Pos, Model] Run,
    }
    by_head {
        /// Queries' weights.
        WQ(QueryHead) = "W_Q": |h| [Model, Space::Head(h.keys)] Weight,
        /// Keys' weights.
        WK(Head) = "W_K": |h| [Model, Space::Head(h)] Weight,
        /// Values' weights.
        WV(Head) = "W_V": |h| [Model, Space::Head(h)] Weight,
        /// A head's output weights.
        WO(QueryHead) = "W_O": |h| [Space::Head(h.keys), Model] Weight,
        /// Queries' bias, a row.
        BQ(QueryHead) = "b_Q": |h| [One, Space::Head(h.keys)] Weight,
        /// Keys' bias, a row.
        BK(Head) = "b_K": |h| [One, Space::Head(h)] Weight,
        /// Values' bias, a row.
        BV(Head) = "b_V": |h| [One, Space::Head(h)] Weight,
        /// Queries.
        Q(QueryHead) = "q": |h| [Pos, Space::Head(h.keys)] Run,
        /// Keys.
        K(Head) = "k": |h| [Pos, Space::Head(h)] Run,
        /// Values.
        V(Head) = "v": |h| [Pos, Space::Head(h)] Run,
        /// Queries, each turned by its position.
        RotQ(QueryHead) = "rot_q": |h| [Pos, Space::Head(h.keys)] Run,
        /// Keys, each turned by its position.
        RotK(Head) = "rot_k": |h| [Pos, Space::Head(h)] Run,
        /// What the norm of queries multiplies by, as a diagonal matrix.
        WNormQ(QueryHead) = "w_q": |h| [Space::Head(h.keys), Space::Head(h.keys)] Weight,
        /// What the norm of keys multiplies by, as a diagonal matrix.
        WNormK(Head) = "w_k": |h| [Space::Head(h), Space::Head(h)] Weight,
        /// What the norm of queries divides by, as a diagonal matrix.
        ScaleQ(QueryHead) = "scale_q": |_| [Pos, Pos] Run,
        /// What the norm of keys divides by, as a diagonal matrix.
        ScaleK(Head) = "scale_k": |_| [Pos, Pos] Run,
        /// Queries past their norm.
        NormalizedQ(QueryHead) = "normalized_q": |h| [Pos, Space::Head(h.keys)] Run,
        /// Keys past their norm.
        NormalizedK(Head) = "normalized_k": |h| [Pos, Space::Head(h)] Run,
        /// The attention pattern, queries by keys.
        Pattern(Head) = "pattern": |_| [Pos, Pos] Run,
        /// The values, weighted by the pattern.
        Z(QueryHead) = "z": |h| [Pos, Space::Head(h.keys)] Run,
        /// What the head writes; without `b_O`, with `b_V`.
        Result(Head) = "result": |_| [Pos, Model] Run,
    }
    by_site {
        /// A norm's weights, as a diagonal matrix.
        NormW = "w": [Model, Model] Weight,
        /// A norm's bias, a row.
        NormB = "b": [One, Model] Weight,
        /// What a norm divides by, as a diagonal matrix.
        Scale = "scale": [Pos, Pos] Run,
        /// A norm's output.
        Normalized = "normalized": [Pos, Model] Run,
    }
}

impl Symbol {
    /// Whether the matrix is diagonal: its own transpose, and cheap to multiply with.
    pub fn diagonal(&self) -> bool {
        let weights = matches!(
            self,
            Symbol::NormW(_) | Symbol::WNormQ(_) | Symbol::WNormK(_)
        );
        weights || self.is_scale()
    }

    /// Whether its inverse is its transpose: a Fourier basis.
    pub fn orthogonal(&self) -> bool {
        matches!(self, Symbol::F | Symbol::FOut)
    }

    /// Whether it is what a norm divides by, which has an inverse.
    pub fn is_scale(&self) -> bool {
        matches!(
            self,
            Symbol::Scale(_) | Symbol::ScaleQ(_) | Symbol::ScaleK(_)
        )
    }

    /// Whether the matrix is its own transpose.
    pub fn symmetric(&self) -> bool {
        self.diagonal() || *self == Symbol::C
    }

    /// The symbol as a model of these sizes has it: keys and values that several heads share, by the name of the
    /// first of these.
    pub fn grouped(self, dims: &Dims) -> Self {
        let keys = |head: Head| dims.keys_of(head);
        let query = |h: QueryHead| QueryHead {
            head: h.head,
            keys: keys(h.head),
        };
        match self {
            Symbol::WQ(h) => Symbol::WQ(query(h)),
            Symbol::WO(h) => Symbol::WO(query(h)),
            Symbol::BQ(h) => Symbol::BQ(query(h)),
            Symbol::Q(h) => Symbol::Q(query(h)),
            Symbol::RotQ(h) => Symbol::RotQ(query(h)),
            Symbol::WNormQ(h) => Symbol::WNormQ(query(h)),
            Symbol::ScaleQ(h) => Symbol::ScaleQ(query(h)),
            Symbol::NormalizedQ(h) => Symbol::NormalizedQ(query(h)),
            Symbol::Z(h) => Symbol::Z(query(h)),
            Symbol::WK(h) => Symbol::WK(keys(h)),
            Symbol::WV(h) => Symbol::WV(keys(h)),
            Symbol::BK(h) => Symbol::BK(keys(h)),
            Symbol::BV(h) => Symbol::BV(keys(h)),
            Symbol::K(h) => Symbol::K(keys(h)),
            Symbol::V(h) => Symbol::V(keys(h)),
            Symbol::RotK(h) => Symbol::RotK(keys(h)),
            Symbol::WNormK(h) => Symbol::WNormK(keys(h)),
            Symbol::ScaleK(h) => Symbol::ScaleK(keys(h)),
            Symbol::NormalizedK(h) => Symbol::NormalizedK(keys(h)),
            Symbol::R(h, n) => Symbol::R(keys(h), n),
            Symbol::Ones(space) => Symbol::Ones(space.grouped(dims)),
            Symbol::Unit(space, i) => Symbol::Unit(space.grouped(dims), i),
            Symbol::Inject { stack, part } => Symbol::Inject {
                stack: stack.iter().map(|space| space.grouped(dims)).collect(),
                part,
            },
            Symbol::WE
            | Symbol::WPos
            | Symbol::WU
            | Symbol::BU
            | Symbol::C
            | Symbol::F
            | Symbol::FOut
            | Symbol::Tokens
            | Symbol::Embed
            | Symbol::PosEmbed
            | Symbol::TokenTypeEmbed
            | Symbol::EmbedSum
            | Symbol::AttnSum(_)
            | Symbol::MlpSum(_)
            | Symbol::Logits
            | Symbol::BO(_)
            | Symbol::WIn(_)
            | Symbol::WGate(_)
            | Symbol::BGate(_)
            | Symbol::BIn(_)
            | Symbol::WOut(_)
            | Symbol::BOut(_)
            | Symbol::ResidPre(_)
            | Symbol::AttnOut(_)
            | Symbol::ResidMid(_)
            | Symbol::Pre(_)
            | Symbol::PreLinear(_)
            | Symbol::Post(_)
            | Symbol::MlpOut(_)
            | Symbol::ResidPost(_)
            | Symbol::Pattern(_)
            | Symbol::Result(_)
            | Symbol::NormW(_)
            | Symbol::NormB(_)
            | Symbol::Scale(_)
            | Symbol::Normalized(_) => self,
        }
    }

    /// The hook whose value this is, for values of a run; the tokens and the logits have none.
    pub fn hook(&self) -> Option<Hook> {
        Some(match *self {
            Symbol::Embed => Hook::Embed,
            Symbol::PosEmbed => Hook::PosEmbed,
            Symbol::TokenTypeEmbed => Hook::TokenTypeEmbed,
            Symbol::EmbedSum => Hook::EmbedSum,
            Symbol::AttnSum(l) => Hook::AttnSum(l),
            Symbol::MlpSum(l) => Hook::MlpSum(l),
            Symbol::ResidPre(l) => Hook::ResidPre(l),
            Symbol::AttnOut(l) => Hook::AttnOut(l),
            Symbol::ResidMid(l) => Hook::ResidMid(l),
            Symbol::Pre(l) => Hook::Pre(l),
            Symbol::PreLinear(l) => Hook::PreLinear(l),
            Symbol::Post(l) => Hook::Post(l),
            Symbol::MlpOut(l) => Hook::MlpOut(l),
            Symbol::ResidPost(l) => Hook::ResidPost(l),
            Symbol::Q(h) => Hook::Q(h.head.layer),
            Symbol::K(h) => Hook::K(h.layer),
            Symbol::V(h) => Hook::V(h.layer),
            Symbol::Pattern(h) => Hook::Pattern(h.layer),
            Symbol::Z(h) => Hook::Z(h.head.layer),
            Symbol::Result(h) => Hook::Result(h.layer),
            Symbol::Scale(site) => Hook::Scale(site),
            Symbol::Normalized(site) => site.output(),
            Symbol::RotQ(h) => Hook::RotQ(h.head.layer),
            Symbol::RotK(h) => Hook::RotK(h.layer),
            Symbol::ScaleQ(h) => Hook::Scale(NormSite::Q(h.head.layer)),
            Symbol::ScaleK(h) => Hook::Scale(NormSite::K(h.layer)),
            Symbol::NormalizedQ(h) => NormSite::Q(h.head.layer).output(),
            Symbol::NormalizedK(h) => NormSite::K(h.layer).output(),
            Symbol::Tokens | Symbol::Logits => return None,
            Symbol::WE
            | Symbol::WPos
            | Symbol::WU
            | Symbol::BU
            | Symbol::C
            | Symbol::F
            | Symbol::FOut
            | Symbol::BO(_)
            | Symbol::WIn(_)
            | Symbol::WGate(_)
            | Symbol::BGate(_)
            | Symbol::BIn(_)
            | Symbol::WOut(_)
            | Symbol::BOut(_)
            | Symbol::WQ(_)
            | Symbol::WK(_)
            | Symbol::WV(_)
            | Symbol::WO(_)
            | Symbol::BQ(_)
            | Symbol::BK(_)
            | Symbol::BV(_)
            | Symbol::WNormQ(_)
            | Symbol::WNormK(_)
            | Symbol::NormW(_)
            | Symbol::NormB(_)
            | Symbol::R(..)
            | Symbol::Ones(_)
            | Symbol::Unit(..)
            | Symbol::Inject { .. } => return None,
        })
    }

    /// Why a model of these sizes has no such matrix, if so.
    pub(super) fn absent(&self, dims: &Dims) -> Option<String> {
        let layer_there = |l: usize| (l >= dims.n_layers).then(|| no_layer(l, dims));
        let head_there = |h: Head| {
            let missing = h.head >= dims.n_heads;
            let which = format!(
                "there is no head {h}: this model has {} a layer",
                dims.n_heads
            );
            layer_there(h.layer).or(missing.then_some(which))
        };
        let mlp_there = |l: usize| {
            let none = dims.d_mlp.is_none();
            layer_there(l).or(none.then(|| "this model has no MLPs".to_string()))
        };
        let no_norm = |site: NormSite| {
            let none = || format!("this model has no norm at `{site}`");
            (!dims.has_norm(site)).then(none)
        };
        let site_there = |site: NormSite| match site {
            _ if dims.norm_kind(site).is_none() => Some("this model has no LayerNorms".to_string()),
            NormSite::Ln1(l) | NormSite::Ln1Post(l) => layer_there(l).or(no_norm(site)),
            NormSite::Ln2(l) | NormSite::Ln2Post(l) => mlp_there(l).or(no_norm(site)),
            other => no_norm(other),
        };
        let turning = || {
            let none = "this model has no rotary positions: its queries and keys are not turned";
            dims.rotary.is_none().then(|| none.to_string())
        };
        let normed = || {
            let none = "this model has no norms of queries and keys";
            dims.qk_norm.is_none().then(|| none.to_string())
        };
        let weighed = || {
            let none = "this model's norms of queries and keys have no parameters";
            let absent = dims.qk_norm.is_some_and(|n| n.weight == NormWeight::Absent);
            absent.then(|| none.to_string())
        };
        match *self {
            Symbol::WNormQ(h) => normed().or(weighed()).or(head_there(h.head)),
            Symbol::WNormK(h) => normed().or(weighed()).or(head_there(h)),
            Symbol::ScaleQ(h) | Symbol::NormalizedQ(h) => normed().or(head_there(h.head)),
            Symbol::ScaleK(h) | Symbol::NormalizedK(h) => normed().or(head_there(h)),
            Symbol::WGate(l) | Symbol::PreLinear(l) if !dims.gated => {
                mlp_there(l).or(Some("this model's neurons are not gated".to_string()))
            }
            Symbol::BGate(l) if !dims.gate_bias => {
                let none = "the gates of this model's neurons have no bias";
                mlp_there(l).or(Some(none.to_string()))
            }
            Symbol::WIn(l)
            | Symbol::WGate(l)
            | Symbol::BGate(l)
            | Symbol::PreLinear(l)
            | Symbol::BIn(l)
            | Symbol::WOut(l)
            | Symbol::BOut(l)
            | Symbol::Pre(l)
            | Symbol::Post(l)
            | Symbol::MlpOut(l) => mlp_there(l),
            Symbol::TokenTypeEmbed => {
                let none = "this model's tokens have no types";
                (!dims.token_types).then(|| none.to_string())
            }
            Symbol::EmbedSum => no_norm(NormSite::Embed),
            Symbol::AttnSum(l) => site_there(NormSite::Ln1Post(l)),
            Symbol::MlpSum(l) => site_there(NormSite::Ln2Post(l)),
            Symbol::Normalized(NormSite::Ln1Post(l)) => {
                Some(format!("this is attn_out[{l}], under the name of a norm"))
            }
            Symbol::Normalized(NormSite::Ln2Post(l)) => {
                Some(format!("this is mlp_out[{l}], under the name of a norm"))
            }
            Symbol::ResidMid(l) => {
                let none = "this model's blocks have no stream between attention and MLP";
                let parallel = dims.order != Order::Sequential;
                mlp_there(l).or(parallel.then(|| none.to_string()))
            }
            Symbol::BO(l) | Symbol::ResidPre(l) | Symbol::AttnOut(l) | Symbol::ResidPost(l) => {
                layer_there(l)
            }
            Symbol::WQ(h) | Symbol::WO(h) | Symbol::BQ(h) | Symbol::Q(h) | Symbol::Z(h) => {
                head_there(h.head)
            }
            Symbol::WK(h)
            | Symbol::WV(h)
            | Symbol::BK(h)
            | Symbol::BV(h)
            | Symbol::K(h)
            | Symbol::V(h)
            | Symbol::Pattern(h)
            | Symbol::Result(h) => head_there(h),
            Symbol::RotQ(h) => turning().or(head_there(h.head)),
            Symbol::RotK(h) | Symbol::R(h, _) => turning().or(head_there(h)),
            Symbol::WPos | Symbol::PosEmbed => {
                let none = "this model adds no embedding of positions";
                (!dims.pos_embed).then(|| none.to_string())
            }
            Symbol::NormW(site)
                if dims
                    .norm_kind(site)
                    .is_some_and(|n| n.weight == NormWeight::Absent) =>
            {
                site_there(site).or(Some("this model's norms have no parameters".to_string()))
            }
            Symbol::NormB(site) if dims.norm_kind(site).is_some_and(|n| !n.bias) => {
                let reason = match dims.norm_kind(site).map(|n| n.weight) {
                    Some(NormWeight::Absent) => "this model's norms have no parameters",
                    _ => "this model's norms have no b",
                };
                site_there(site).or(Some(reason.to_string()))
            }
            Symbol::NormW(site)
            | Symbol::NormB(site)
            | Symbol::Scale(site)
            | Symbol::Normalized(site) => site_there(site),
            Symbol::WE
            | Symbol::WU
            | Symbol::BU
            | Symbol::C
            | Symbol::F
            | Symbol::FOut
            | Symbol::Tokens
            | Symbol::Embed
            | Symbol::Logits
            | Symbol::Ones(_)
            | Symbol::Unit(..)
            | Symbol::Inject { .. } => None,
        }
    }
}

fn no_layer(l: usize, dims: &Dims) -> String {
    format!("there is no layer {l}: this model has {}", dims.n_layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page of the language has a row for every matrix.
    #[test]
    fn every_name_is_documented() {
        let page = include_str!("../../docs/expressions.md");
        for (indexed, end) in [
            (Indexed::Alone, "`"),
            (Indexed::ByLayer, "[l]`"),
            (Indexed::ByHead, "[l.h]`"),
            (Indexed::BySite, "[l,ln1]`"),
        ] {
            for name in Symbol::names(indexed) {
                assert!(page.contains(&format!("`{name}{end}")), "{name}");
            }
        }
    }
}
