//! The identities that the language of [`crate::expr`] can express, as statements of it.

use crate::diagram::{NormPlace, Order};
use crate::expr::{self, Dims, Expr, Space, Statement, Symbol};
use crate::names::{Head, NormSite};

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
    let types = dims.token_types.then_some(Symbol::TokenTypeEmbed);
    let sum = dims.embed_norm.map(|_| Symbol::EmbedSum);
    let start = (dims.n_layers > 0).then_some(Symbol::ResidPre(0));
    let all = [Some(Symbol::Embed), positions, types, sum, start];
    definitions(all.into_iter().flatten(), dims)
}

pub(super) fn projections(dims: &Dims) -> Vec<Statement> {
    let of = |h: Head| [Symbol::Q(h.into()), Symbol::K(h), Symbol::V(h)];
    let turned = |h: Head| [Symbol::RotQ(h.into()), Symbol::RotK(h)];
    let turns = dims.rotary.is_some();
    let turned = dims.heads().flat_map(turned).filter(|_| turns);
    definitions(dims.heads().flat_map(of).chain(turned), dims)
}

pub(super) fn attn_outs(dims: &Dims) -> Vec<Statement> {
    definitions(
        (0..dims.n_layers).map(|l| match dims.has_norm(NormSite::Ln1Post(l)) {
            true => Symbol::AttnSum(l),
            false => Symbol::AttnOut(l),
        }),
        dims,
    )
}

pub(super) fn neurons(dims: &Dims) -> Vec<Statement> {
    let of = |l| {
        let gated = dims.gated.then_some(Symbol::PreLinear(l));
        [Symbol::Pre(l)].into_iter().chain(gated)
    };
    definitions((0..dims.n_layers).flat_map(of), dims)
}

pub(super) fn mlp_outs(dims: &Dims) -> Vec<Statement> {
    definitions(
        (0..dims.n_layers).map(|l| match dims.has_norm(NormSite::Ln2Post(l)) {
            true => Symbol::MlpSum(l),
            false => Symbol::MlpOut(l),
        }),
        dims,
    )
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

/// The stream at every place where it has a hook, by head; where a norm goes over it, from that norm on.
pub(super) fn residual_sums(dims: &Dims) -> Vec<Statement> {
    let behind = dims.norm_place == NormPlace::Stream && dims.norm.is_some();
    let plainly_written =
        dims.norm.is_none() || matches!(dims.norm_place, NormPlace::Before | NormPlace::Stream);
    let written = |l: usize| match plainly_written {
        true => {
            let heads = (0..dims.n_heads).map(|head| expr::result(Head { layer: l, head }));
            let bias = expr::ones(Space::Pos) * expr::b_O(l);
            heads.fold(bias, |sum, result| sum + result)
        }
        false => expr::attn_out(l),
    };
    let mut sum = expr::embedded(dims);
    let mut all = Vec::new();
    for l in 0..dims.n_layers {
        all.push(Statement::equal(expr::resid_pre(l), sum.clone()));
        sum = sum + written(l);
        let sequential = dims.order == Order::Sequential;
        if dims.d_mlp.is_some() && sequential {
            all.push(Statement::equal(expr::resid_mid(l), sum.clone()));
            if behind {
                sum = expr::normalized(NormSite::Ln1(l));
            }
        }
        if dims.d_mlp.is_some() {
            sum = sum + expr::mlp_out(l);
        }
        all.push(Statement::equal(expr::resid_post(l), sum.clone()));
        if behind {
            let last = match dims.d_mlp {
                Some(_) => NormSite::Ln2(l),
                None => NormSite::Ln1(l),
            };
            sum = expr::normalized(last);
        }
    }
    all
}
