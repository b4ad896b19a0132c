//! What the values of a run are, as expressions in those before them.
//!
//! Tokens, patterns, scales and neurons after their function are where this ends: they are what they are, and
//! everything between them is linear.

use super::build::*;
use super::normal::{Expr, Mismatch};
use super::space::{Dims, Norms, Space};
use super::symbol::{Origin, Site, Symbol};
use crate::names::Head;

/// What a value of a run is made of, one step back; `None` for what no expression gives: weights, tokens,
/// patterns, scales, and the neurons after their function.
///
/// *Source*: the forward pass, `model/forward.rs`.
pub fn definition(symbol: &Symbol, dims: &Dims) -> Option<Expr> {
    let heads = |layer| (0..dims.n_heads).map(move |head| Head { layer, head });
    let normed = dims.norms != Norms::Absent;
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
    Some(match *symbol {
        Symbol::Embed => tokens() * W_E(),
        Symbol::PosEmbed => W_pos(),
        Symbol::ResidPre(0) => embed() + pos_embed(),
        Symbol::ResidPre(l) => resid_post(l - 1),
        Symbol::Q(h) => projected(h, W_Q(h), b_Q(h)),
        Symbol::K(h) => projected(h, W_K(h), b_K(h)),
        Symbol::V(h) => projected(h, W_V(h), b_V(h)),
        Symbol::Z(h) => pattern(h) * v(h),
        Symbol::Result(h) => z(h) * W_O(h),
        Symbol::AttnOut(l) => heads(l).map(result).fold(row(b_O(l)), |sum, r| sum + r),
        Symbol::ResidMid(l) => resid_pre(l) + attn_out(l),
        Symbol::Pre(l) => input(Site::Ln2(l)) * W_in(l) + row(b_in(l)),
        Symbol::MlpOut(l) => post(l) * W_out(l) + row(b_out(l)),
        Symbol::ResidPost(l) if dims.d_mlp.is_some() => resid_mid(l) + mlp_out(l),
        Symbol::ResidPost(l) => resid_pre(l) + attn_out(l),
        Symbol::Normalized(site) => {
            let scale = scale(site).inverse().expect("a scale has an inverse");
            let centred = scale * stream(site, dims) * C();
            match dims.norms {
                Norms::Affine => centred * w(site) + row(b(site)),
                _ => centred,
            }
        }
        Symbol::Logits => input(Site::LnFinal) * W_U() + row(b_U()),
        _ => return None,
    })
}

/// The stream that a norm reads.
fn stream(site: Site, dims: &Dims) -> Expr {
    match site {
        Site::Ln1(l) => resid_pre(l),
        Site::Ln2(l) => resid_mid(l),
        Site::LnFinal => match dims.n_layers.checked_sub(1) {
            Some(last) => resid_post(last),
            None => embed() + pos_embed(),
        },
    }
}

/// How late in the forward pass a value is: a value is defined by earlier ones only.
fn order(symbol: &Symbol) -> Option<(usize, usize)> {
    Some(match *symbol {
        Symbol::Embed | Symbol::PosEmbed => (0, 0),
        Symbol::ResidPre(l) => (l, 1),
        Symbol::Normalized(Site::Ln1(l)) => (l, 2),
        Symbol::Q(h) | Symbol::K(h) | Symbol::V(h) => (h.layer, 3),
        Symbol::Z(h) => (h.layer, 4),
        Symbol::Result(h) => (h.layer, 5),
        Symbol::AttnOut(l) => (l, 6),
        Symbol::ResidMid(l) => (l, 7),
        Symbol::Normalized(Site::Ln2(l)) => (l, 8),
        Symbol::Pre(l) => (l, 9),
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
    let of = |symbol: &Symbol| {
        let replaced = order(symbol) == Some(latest);
        replaced.then(|| definition(symbol, dims)).flatten()
    };
    let replaced = symbols.iter().filter(|s| order(s) == Some(latest));
    let replaced = replaced.map(|s| (*s).clone()).collect();
    Ok(Some((expr.substitute(&of)?, replaced)))
}
