//! What the values of a run are, as expressions in those before them.
//!
//! Tokens, patterns, scales and neurons after their function are where this ends: they are what they are, and
//! everything between them is linear. So is turning queries and keys by their positions: each row is multiplied
//! with a rotation of its own.

use super::build::*;
use super::normal::{Expr, Factor, Mismatch};
use super::space::{Dims, Space};
use super::symbol::{Origin, QueryHead, Symbol};
use crate::diagram::{NormPlace, NormWeight, Order};
use crate::names::{Head, NormSite};
use std::collections::{BTreeSet, HashMap};

/// What a value of a run is made of, one step back; `None` for what no expression gives: weights, tokens,
/// patterns, scales, and the neurons after their function; and for what a model of these sizes does not have.
///
/// Queries and keys are turned row by row, by as much as the row's position says: one term a position, and none of this
/// where there are more positions than an expression may have terms.
///
/// *Source*: the forward pass, `model/forward.rs`.
pub fn definition(symbol: &Symbol, dims: &Dims) -> Option<Expr> {
    // What a model does not have is made of nothing, whatever its place in other models.
    if symbol.absent(dims).is_some() {
        return None;
    }
    if symbol.is_turned() {
        return turned(symbol, dims, 0..dims.pos).ok();
    }
    let heads = |layer| (0..dims.n_heads).map(move |head| Head { layer, head });
    // What reads the stream where a norm may stand.
    let read = |site: NormSite| match dims.has_norm(site) {
        true => normalized(site),
        false => stream(site, dims),
    };
    let attention_reads = |l: usize| match dims.norm_place {
        NormPlace::Stream => resid_pre(l),
        _ => read(NormSite::Ln1(l)),
    };
    let mlp_reads = |l: usize| match (dims.norm_place, dims.order) {
        (NormPlace::Stream, _) | (_, Order::SharedNorm) => read(NormSite::Ln1(l)),
        _ => read(NormSite::Ln2(l)),
    };
    let row = |bias: Expr| ones(Space::Pos) * bias;
    let projected = |h: Head, W: Expr, b: Expr| attention_reads(h.layer) * W + row(b);
    let definition = match *symbol {
        Symbol::Embed => tokens() * W_E(),
        Symbol::PosEmbed => W_pos(),
        Symbol::EmbedSum => embeddings(dims),
        Symbol::ResidPre(0) => embedded(dims),
        Symbol::ResidPre(l) => end_of_block(l - 1, dims),
        Symbol::Q(QueryHead { head: h, .. }) => projected(h, W_Q(h), b_Q(h)),
        Symbol::K(h) => projected(h, W_K(h), b_K(h)),
        Symbol::V(h) => projected(h, W_V(h), b_V(h)),
        Symbol::NormalizedQ(QueryHead { head: h, .. }) => {
            of_head(scale_q(h), q(h), || w_q(h), dims)?
        }
        Symbol::NormalizedK(h) => of_head(scale_k(h), k(h), || w_k(h), dims)?,
        Symbol::Z(QueryHead { head: h, .. }) => pattern(h) * v(h),
        Symbol::Result(h) => z(h) * W_O(h),
        Symbol::AttnOut(l) if dims.has_norm(NormSite::Ln1Post(l)) => {
            normed(NormSite::Ln1Post(l), attn_sum(l), dims)?
        }
        Symbol::MlpOut(l) if dims.has_norm(NormSite::Ln2Post(l)) => {
            normed(NormSite::Ln2Post(l), mlp_sum(l), dims)?
        }
        Symbol::AttnOut(l) | Symbol::AttnSum(l) => {
            heads(l).map(result).fold(row(b_O(l)), |sum, r| sum + r)
        }
        Symbol::ResidMid(l) => resid_pre(l) + attn_out(l),
        Symbol::Pre(l) if dims.gate_bias => mlp_reads(l) * W_gate(l) + row(b_gate(l)),
        Symbol::Pre(l) if dims.gated => mlp_reads(l) * W_gate(l),
        Symbol::PreLinear(l) if dims.gate_bias => mlp_reads(l) * W_in(l) + row(b_in(l)),
        Symbol::PreLinear(l) => mlp_reads(l) * W_in(l),
        Symbol::Pre(l) => mlp_reads(l) * W_in(l) + row(b_in(l)),
        Symbol::MlpOut(l) | Symbol::MlpSum(l) => post(l) * W_out(l) + row(b_out(l)),
        Symbol::ResidPost(l) => match (dims.d_mlp, dims.order) {
            (None, _) => resid_pre(l) + attn_out(l),
            (Some(_), Order::Sequential) => after_attention(l, dims) + mlp_out(l),
            (Some(_), _) => resid_pre(l) + attn_out(l) + mlp_out(l),
        },
        Symbol::Normalized(site) => normed(site, stream(site, dims), dims)?,
        Symbol::Logits if !dims.ends_plain => return None,
        Symbol::Logits => read(NormSite::Final) * W_U() + row(b_U()),
        _ => return None,
    };
    // Each head was written with keys and values of its own.
    Some(definition.grouped(dims))
}

impl Symbol {
    /// For queries and keys turned by their positions, those before they are turned: past their norm, where there is one.
    pub(crate) fn unturned(&self, dims: &Dims) -> Option<Symbol> {
        match (*self).clone() {
            Symbol::RotQ(h) if dims.qk_norm.is_some() => Some(Symbol::NormalizedQ(h)),
            Symbol::RotK(h) if dims.qk_norm.is_some() => Some(Symbol::NormalizedK(h)),
            Symbol::RotQ(h) => Some(Symbol::Q(h)),
            Symbol::RotK(h) => Some(Symbol::K(h)),
            _ => None,
        }
    }

    /// Whether these are queries or keys turned by their positions.
    pub(crate) fn is_turned(&self) -> bool {
        matches!(self, Symbol::RotQ(_) | Symbol::RotK(_))
    }
}

/// Queries or keys, each turned by its position: the rows at these positions.
fn turned(
    symbol: &Symbol,
    dims: &Dims,
    positions: impl IntoIterator<Item = usize>,
) -> Result<Expr, Mismatch> {
    let symbol = symbol.clone().grouped(dims);
    let straight = symbol
        .unturned(dims)
        .expect("queries or keys that are turned");
    let (rows, cols) = straight.spaces();
    let Space::Head(head) = cols else {
        unreachable!("queries and keys have a head's columns")
    };
    let straight = Expr::from(straight);
    let at = |position: usize| {
        let n = i64::try_from(position).expect("a position in memory");
        let row = Expr::unit(Space::Pos, n);
        &row * straight.row(n) * R(head, n)
    };
    Expr::try_sum(rows, Space::Head(head), positions.into_iter().map(at))
}

/// The positions whose turned queries and keys an expression asks for: those that it selects where it has only
/// selected rows of them, else all.
fn positions(expr: &Expr, dims: &Dims) -> Vec<usize> {
    let selected = |f: Option<&Factor>, transposed: bool| match f {
        Some(Factor {
            symbol: Symbol::Unit(Space::Pos, i),
            transposed: t,
            ..
        }) if *t == transposed => usize::try_from(*i).ok(),
        _ => None,
    };
    let mut positions = BTreeSet::new();
    for (product, _) in expr.terms() {
        for (i, factor) in product.iter().enumerate() {
            if !factor.symbol.is_turned() {
                continue;
            }
            let row = if factor.transposed {
                selected(product.get(i + 1), false)
            } else {
                selected(i.checked_sub(1).and_then(|i| product.get(i)), true)
            };
            match row {
                Some(row) => positions.insert(row),
                None => return (0..dims.pos).collect(),
            };
        }
    }
    positions.into_iter().collect()
}

/// A norm of a value, with the run's scale.
fn normed(site: NormSite, x: Expr, dims: &Dims) -> Option<Expr> {
    let scale = scale(site).inverse().expect("a scale has an inverse");
    let norm = dims.norm_kind(site)?;
    let scaled = match norm.centred {
        true => scale * x * C(),
        false => scale * x,
    };
    // `w` is what is multiplied by, where that is one more than the parameter too.
    let weighed = match norm.weight {
        NormWeight::Absent => scaled,
        NormWeight::Plain | NormWeight::OnePlus => scaled * w(site),
    };
    Some(match norm.bias {
        true => weighed + ones(Space::Pos) * b(site),
        false => weighed,
    })
}

/// Whether norms of queries and keys do no more than to divide by a scale and to multiply: a mean, and what is added, are
/// beyond the language.
fn scaled_alone(dims: &Dims) -> bool {
    dims.qk_norm.is_some_and(|norm| !norm.centred && !norm.bias)
}

/// A norm of a head's queries or keys, with the run's scale.
fn of_head(scale: Expr, x: Expr, w: impl Fn() -> Expr, dims: &Dims) -> Option<Expr> {
    let norm = dims.qk_norm.filter(|_| scaled_alone(dims))?;
    let scaled = scale.inverse().expect("a scale has an inverse") * x;
    Some(match norm.weight {
        NormWeight::Absent => scaled,
        // `w` is what is multiplied by, where that is one more than the parameter too.
        NormWeight::Plain | NormWeight::OnePlus => scaled * w(),
    })
}

/// The sum of all embeddings.
fn embeddings(dims: &Dims) -> Expr {
    let mut sum = embed();
    if dims.pos_embed {
        sum = sum + pos_embed();
    }
    if dims.token_types {
        sum = sum + token_type_embed();
    }
    sum
}

/// The stream's beginning.
pub(crate) fn embedded(dims: &Dims) -> Expr {
    match dims.embed_norm {
        Some(_) => normalized(NormSite::Embed),
        None => embeddings(dims),
    }
}

/// The stream at a block's end, as the next block reads it.
fn end_of_block(l: usize, dims: &Dims) -> Expr {
    let last = match dims.d_mlp {
        Some(_) => NormSite::Ln2(l),
        None => NormSite::Ln1(l),
    };
    match dims.norm_place == NormPlace::Stream && dims.has_norm(last) {
        true => normalized(last),
        false => resid_post(l),
    }
}

/// The stream to which a block's MLP adds, where that comes after attention.
fn after_attention(l: usize, dims: &Dims) -> Expr {
    match dims.norm_place == NormPlace::Stream && dims.has_norm(NormSite::Ln1(l)) {
        true => normalized(NormSite::Ln1(l)),
        false => resid_mid(l),
    }
}

/// The stream that a norm reads.
fn stream(site: NormSite, dims: &Dims) -> Expr {
    let behind = dims.norm_place == NormPlace::Stream;
    match site {
        NormSite::Embed => embed_sum(),
        NormSite::Ln1(l) if behind && dims.d_mlp.is_some() => resid_mid(l),
        NormSite::Ln1(l) if behind => resid_post(l),
        NormSite::Ln1(l) => resid_pre(l),
        NormSite::Ln2(l) if behind => resid_post(l),
        NormSite::Ln2(l) if dims.order != Order::Sequential => resid_pre(l),
        NormSite::Ln2(l) => resid_mid(l),
        _ => match dims.n_layers.checked_sub(1) {
            Some(last) => end_of_block(last, dims),
            None => embedded(dims),
        },
    }
}

/// How late in the forward pass a value is that has a definition: by earlier ones only.
fn order(symbol: &Symbol, dims: &Dims) -> Option<(usize, usize)> {
    let undefined = match symbol {
        Symbol::NormalizedQ(_) | Symbol::NormalizedK(_) => !scaled_alone(dims),
        Symbol::Logits => !dims.ends_plain,
        _ => false,
    };
    // What would not be replaced would be the latest again, and again.
    if undefined || symbol.absent(dims).is_some() {
        return None;
    }
    let behind = dims.norm_place == NormPlace::Stream;
    Some(match *symbol {
        Symbol::Embed | Symbol::PosEmbed => (0, 0),
        Symbol::EmbedSum => (0, 1),
        Symbol::Normalized(NormSite::Embed) => (0, 2),
        Symbol::ResidPre(l) => (l, 3),
        Symbol::Normalized(NormSite::Ln1(l)) if behind && dims.d_mlp.is_some() => (l, 11),
        Symbol::Normalized(NormSite::Ln1(l) | NormSite::Ln2(l)) if behind => (l, 16),
        Symbol::Normalized(NormSite::Ln1(l)) => (l, 4),
        Symbol::Q(QueryHead { head: h, .. }) | Symbol::K(h) | Symbol::V(h) => (h.layer, 5),
        Symbol::NormalizedQ(QueryHead { head: h, .. }) | Symbol::NormalizedK(h) => (h.layer, 6),
        Symbol::RotQ(QueryHead { head: h, .. }) | Symbol::RotK(h) => (h.layer, 7),
        Symbol::Z(QueryHead { head: h, .. }) => (h.layer, 6),
        Symbol::Result(h) => (h.layer, 7),
        Symbol::AttnSum(l) => (l, 8),
        Symbol::AttnOut(l) => (l, 9),
        Symbol::ResidMid(l) => (l, 10),
        Symbol::Normalized(NormSite::Ln2(l)) => (l, 11),
        Symbol::Pre(l) | Symbol::PreLinear(l) => (l, 12),
        Symbol::MlpSum(l) => (l, 13),
        Symbol::MlpOut(l) => (l, 14),
        Symbol::ResidPost(l) => (l, 15),
        Symbol::Normalized(NormSite::Final) => (usize::MAX, 0),
        Symbol::Logits => (usize::MAX, 1),
        _ => return None,
    })
}

/// The expression with its latest values replaced by what they are made of; `None` where there is none left to
/// replace. Also what was replaced.
///
/// # Errors
/// When the result has too many terms.
pub fn unfolded(expr: &Expr, dims: &Dims) -> Result<Option<(Expr, Vec<Symbol>)>, Mismatch> {
    let symbols = expr.symbols();
    let values = symbols.iter().filter(|s| s.origin() == Origin::Run);
    let Some(latest) = values.filter_map(|s| order(s, dims)).max() else {
        return Ok(None);
    };
    let positions = positions(expr, dims);
    let mut definitions: HashMap<&Symbol, Expr> = HashMap::new();
    for &symbol in symbols.iter().filter(|s| order(s, dims) == Some(latest)) {
        let defined = match symbol.is_turned() {
            true => Some(turned(symbol, dims, positions.iter().copied())?),
            false => definition(symbol, dims),
        };
        definitions.extend(defined.map(|expr| (symbol, expr)));
    }
    let of = |symbol: &Symbol| definitions.get(symbol).cloned();
    let replaced = symbols.iter().filter(|s| order(s, dims) == Some(latest));
    let replaced = replaced.map(|s| (*s).clone()).collect();
    Ok(Some((expr.substitute(&of)?, replaced)))
}
