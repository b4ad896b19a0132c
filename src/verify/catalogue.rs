//! The identities that the language of [`crate::expr`] can express, as statements of it.

use crate::expr::{self, Dims, Expr, Space, Statement, Symbol};
use crate::names::Head;

/// That values of a run are what defines them.
fn definitions(symbols: impl IntoIterator<Item = Symbol>, dims: &Dims) -> Vec<Statement> {
    let is_its_definition = |symbol: Symbol| {
        let symbol = symbol.grouped(dims);
        // Of more positions than an expression may have terms, what is turned has none: `scores` speaks of it.
        let definition = expr::definition(&symbol, dims)?;
        Some(Statement::equal(Expr::from(symbol), definition))
    };
    let statements = symbols.into_iter().filter_map(is_its_definition);
    statements.collect()
}

pub(super) fn embeddings(dims: &Dims) -> Vec<Statement> {
    let positions = dims.pos_embed.then_some(Symbol::PosEmbed);
    definitions([Symbol::Embed].into_iter().chain(positions), dims)
}

pub(super) fn projections(dims: &Dims) -> Vec<Statement> {
    let of = |h: Head| [Symbol::Q(h.into()), Symbol::K(h), Symbol::V(h)];
    let turned = |h: Head| [Symbol::RotQ(h.into()), Symbol::RotK(h)];
    let turns = dims.rotary.is_some();
    let turned = dims.heads().flat_map(turned).filter(|_| turns);
    definitions(dims.heads().flat_map(of).chain(turned), dims)
}

pub(super) fn attn_outs(dims: &Dims) -> Vec<Statement> {
    definitions((0..dims.n_layers).map(Symbol::AttnOut), dims)
}

pub(super) fn neurons(dims: &Dims) -> Vec<Statement> {
    let of = |l| {
        let gated = dims.gated.then_some(Symbol::PreLinear(l));
        [Symbol::Pre(l)].into_iter().chain(gated)
    };
    definitions((0..dims.n_layers).flat_map(of), dims)
}

pub(super) fn mlp_outs(dims: &Dims) -> Vec<Statement> {
    definitions((0..dims.n_layers).map(Symbol::MlpOut), dims)
}

/// The forward pass mixes the values first; in the second statement each is written out first.
pub(super) fn head_results(dims: &Dims) -> Vec<Statement> {
    let of = |h| {
        let mixed = expr::pattern(h) * expr::v(h);
        let result = &mixed * expr::W_O(h);
        [
            Statement::equal(expr::z(h).grouped(dims), mixed.grouped(dims)),
            Statement::equal(expr::result(h), result.grouped(dims)),
        ]
    };
    dims.heads().flat_map(of).collect()
}

/// The stream at every place where it has a hook, by head.
pub(super) fn residual_sums(dims: &Dims) -> Vec<Statement> {
    let mut sum = if dims.pos_embed {
        expr::embed() + expr::pos_embed()
    } else {
        expr::embed()
    };
    let mut all = Vec::new();
    let bias = |b: Expr| expr::ones(Space::Pos) * b;
    for l in 0..dims.n_layers {
        all.push(Statement::equal(expr::resid_pre(l), sum.clone()));
        let heads = (0..dims.n_heads).map(|head| expr::result(Head { layer: l, head }));
        sum = heads.fold(sum, |sum, result| sum + result) + bias(expr::b_O(l));
        if dims.d_mlp.is_some() {
            all.push(Statement::equal(expr::resid_mid(l), sum.clone()));
            sum = sum + expr::mlp_out(l);
        }
        all.push(Statement::equal(expr::resid_post(l), sum.clone()));
    }
    all
}
