//! What the values of a run are, as expressions in those before them.
//!
//! Tokens, patterns, scales and neurons after their function are where this ends: they are what they are, and
//! everything between them is linear. So is turning queries and keys by their positions: each row is multiplied
//! with a rotation of its own.

use super::build::*;
use super::normal::{Expr, Factor, Mismatch};
use super::space::{Dims, Space};
use super::symbol::{Origin, QueryHead, Site, Symbol};
use crate::diagram::NormWeight;
use crate::names::Head;
use std::collections::{BTreeSet, HashMap};

/// What a value of a run is made of, one step back; `None` for what no expression gives: weights, tokens,
/// patterns, scales, and the neurons after their function.
///
/// Queries and keys are turned row by row, by as much as the row's position says: one term a position, and none of this
/// where there are more positions than an expression may have terms.
///
/// *Source*: the forward pass, `model/forward.rs`.
pub fn definition(symbol: &Symbol, dims: &Dims) -> Option<Expr> {
    if symbol.unturned().is_some() {
        return turned(symbol, dims, 0..dims.pos).ok();
    }
    let heads = |layer| (0..dims.n_heads).map(move |head| Head { layer, head });
    let normed = dims.norm.is_some();
    // What a layer reads.
    let input = |site: Site| {
        if normed {
            normalized(site)
        } else {
            stream(site, dims)
        }
    };
    let row = |bias: Expr| ones(Space::Pos) * bias;
    let projected = |h: Head, W: Expr, b: Expr| input(Site::Ln1(h.layer)) * W + row(b);
    let definition = match *symbol {
        Symbol::Embed => tokens() * W_E(),
        Symbol::PosEmbed => W_pos(),
        Symbol::ResidPre(0) => embedded(dims),
        Symbol::ResidPre(l) => resid_post(l - 1),
        Symbol::Q(QueryHead { head: h, .. }) => projected(h, W_Q(h), b_Q(h)),
        Symbol::K(h) => projected(h, W_K(h), b_K(h)),
        Symbol::V(h) => projected(h, W_V(h), b_V(h)),
        Symbol::Z(QueryHead { head: h, .. }) => pattern(h) * v(h),
        Symbol::Result(h) => z(h) * W_O(h),
        Symbol::AttnOut(l) => heads(l).map(result).fold(row(b_O(l)), |sum, r| sum + r),
        Symbol::ResidMid(l) => resid_pre(l) + attn_out(l),
        Symbol::Pre(l) if dims.gated => input(Site::Ln2(l)) * W_gate(l),
        Symbol::PreLinear(l) => input(Site::Ln2(l)) * W_in(l),
        Symbol::Pre(l) => input(Site::Ln2(l)) * W_in(l) + row(b_in(l)),
        Symbol::MlpOut(l) => post(l) * W_out(l) + row(b_out(l)),
        Symbol::ResidPost(l) if dims.d_mlp.is_some() => resid_mid(l) + mlp_out(l),
        Symbol::ResidPost(l) => resid_pre(l) + attn_out(l),
        Symbol::Normalized(site) => {
            let scale = scale(site).inverse().expect("a scale has an inverse");
            let norm = dims.norm?;
            let scaled = match norm.centred {
                true => scale * stream(site, dims) * C(),
                false => scale * stream(site, dims),
            };
            // `w` is what is multiplied by, where that is one more than the parameter too.
            let weighed = match norm.weight {
                NormWeight::Absent => scaled,
                NormWeight::Plain | NormWeight::OnePlus => scaled * w(site),
            };
            match norm.bias {
                true => weighed + row(b(site)),
                false => weighed,
            }
        }
        Symbol::Logits => input(Site::LnFinal) * W_U() + row(b_U()),
        _ => return None,
    };
    // Each head was written with keys and values of its own.
    Some(definition.grouped(dims))
}

/// Queries or keys, each turned by its position: the rows at these positions.
fn turned(
    symbol: &Symbol,
    dims: &Dims,
    positions: impl IntoIterator<Item = usize>,
) -> Result<Expr, Mismatch> {
    let symbol = symbol.clone().grouped(dims);
    let straight = symbol.unturned().expect("queries or keys that are turned");
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
            if factor.symbol.unturned().is_none() {
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

/// The stream's beginning.
fn embedded(dims: &Dims) -> Expr {
    if dims.pos_embed {
        embed() + pos_embed()
    } else {
        embed()
    }
}

/// The stream that a norm reads.
fn stream(site: Site, dims: &Dims) -> Expr {
    match site {
        Site::Ln1(l) => resid_pre(l),
        Site::Ln2(l) => resid_mid(l),
        Site::LnFinal => match dims.n_layers.checked_sub(1) {
            Some(last) => resid_post(last),
            None => embedded(dims),
        },
    }
}

/// How late in the forward pass a value is: a value is defined by earlier ones only.
fn order(symbol: &Symbol) -> Option<(usize, usize)> {
    Some(match *symbol {
        Symbol::Embed | Symbol::PosEmbed => (0, 0),
        Symbol::ResidPre(l) => (l, 1),
        Symbol::Normalized(Site::Ln1(l)) => (l, 2),
        Symbol::Q(QueryHead { head: h, .. }) | Symbol::K(h) | Symbol::V(h) => (h.layer, 3),
        Symbol::RotQ(QueryHead { head: h, .. }) | Symbol::RotK(h) => (h.layer, 4),
        Symbol::Z(QueryHead { head: h, .. }) => (h.layer, 4),
        Symbol::Result(h) => (h.layer, 5),
        Symbol::AttnOut(l) => (l, 6),
        Symbol::ResidMid(l) => (l, 7),
        Symbol::Normalized(Site::Ln2(l)) => (l, 8),
        Symbol::Pre(l) | Symbol::PreLinear(l) => (l, 9),
        Symbol::MlpOut(l) => (l, 10),
        Symbol::ResidPost(l) => (l, 11),
        Symbol::Normalized(Site::LnFinal) => (usize::MAX, 0),
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
    let Some(latest) = values.filter_map(|s| order(s)).max() else {
        return Ok(None);
    };
    let positions = positions(expr, dims);
    let mut definitions: HashMap<&Symbol, Expr> = HashMap::new();
    for &symbol in symbols.iter().filter(|s| order(s) == Some(latest)) {
        let defined = match symbol.unturned() {
            Some(_) => Some(turned(symbol, dims, positions.iter().copied())?),
            None => definition(symbol, dims),
        };
        definitions.extend(defined.map(|expr| (symbol, expr)));
    }
    let of = |symbol: &Symbol| definitions.get(symbol).cloned();
    let replaced = symbols.iter().filter(|s| order(s) == Some(latest));
    let replaced = replaced.map(|s| (*s).clone()).collect();
    Ok(Some((expr.substitute(&of)?, replaced)))
}
