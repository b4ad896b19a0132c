//! The identities that the language of [`crate::expr`] can express, as statements of it.

use super::run_identity::RunIdentity;
use crate::diagram::{NormPlace, Order};
use crate::expr::{self, Dims, Expr, Space, Statement, Symbol};
use crate::names::{Head, NormSite};

impl RunIdentity {
    /// What the identity says of a model of these sizes, where the language can say it: linear statements about
    /// a run's values. Masks, softmaxes, scales and the neurons' function are beyond it.
    ///
    /// Each is true by the rules, so that `prove` proves it; `check` holds the run's numbers to it.
    ///
    /// ```
    /// use pathsum::expr::Dims;
    /// use pathsum::verify::{Proof, RunIdentity, prove};
    /// let dims = Dims::default();
    /// for identity in RunIdentity::ALL {
    ///     for statement in identity.statements(&dims).unwrap_or_default() {
    ///         assert!(matches!(prove(&statement, &dims, 0)?.proof, Proof::Proved { .. }));
    ///     }
    /// }
    /// # Ok::<(), pathsum::Error>(())
    /// ```
    pub fn statements(self, dims: &Dims) -> Option<Vec<Statement>> {
        let symbols: Vec<Symbol> = match self {
            RunIdentity::Embeddings if dims.pos_embed => vec![Symbol::Embed, Symbol::PosEmbed],
            RunIdentity::Embeddings => vec![Symbol::Embed],
            RunIdentity::Projections => {
                let all = dims.heads();
                let of = |h: Head| [Symbol::Q(h.into()), Symbol::K(h), Symbol::V(h)];
                let turned = |h: Head| [Symbol::RotQ(h.into()), Symbol::RotK(h)];
                let turned = dims
                    .heads()
                    .flat_map(turned)
                    .filter(|_| dims.rotary.is_some());
                all.flat_map(of).chain(turned).collect()
            }
            RunIdentity::AttnOut => (0..dims.n_layers).map(Symbol::AttnOut).collect(),
            RunIdentity::Neurons if dims.gated => {
                let all = 0..dims.n_layers;
                all.flat_map(|l| [Symbol::Pre(l), Symbol::PreLinear(l)])
                    .collect()
            }
            RunIdentity::Neurons => (0..dims.n_layers).map(Symbol::Pre).collect(),
            RunIdentity::MlpOut => (0..dims.n_layers).map(Symbol::MlpOut).collect(),
            RunIdentity::HeadResults => {
                let all = dims.heads().flat_map(|h| head_results(h, dims));
                return Some(all.collect());
            }
            RunIdentity::ResidualSum => return Some(residual_sums(dims)),
            _ => return None,
        };
        let is_its_definition = |symbol: Symbol| {
            let symbol = symbol.grouped(dims);
            // Of more positions than an expression may have terms, what is turned has none: `scores` speaks of it.
            let definition = expr::definition(&symbol, dims)?;
            Some(Statement::equal(Expr::from(symbol), definition))
        };
        let statements = symbols.into_iter().filter_map(is_its_definition);
        Some(statements.collect())
    }
}

/// The forward pass mixes the values first; in the second statement each is written out first.
fn head_results(h: Head, dims: &Dims) -> [Statement; 2] {
    let mixed = expr::pattern(h) * expr::v(h);
    let result = &mixed * expr::W_O(h);
    [
        Statement::equal(expr::z(h).grouped(dims), mixed.grouped(dims)),
        Statement::equal(expr::result(h), result.grouped(dims)),
    ]
}

/// The stream at every place where it has a hook, by head; where a norm goes over it, from that norm on.
fn residual_sums(dims: &Dims) -> Vec<Statement> {
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
    let mut sum = match (dims.begins_plain, dims.pos_embed) {
        (false, _) => expr::resid_pre(0),
        (true, true) => expr::embed() + expr::pos_embed(),
        (true, false) => expr::embed(),
    };
    let mut all = Vec::new();
    for l in 0..dims.n_layers {
        if l > 0 || dims.begins_plain {
            all.push(Statement::equal(expr::resid_pre(l), sum.clone()));
        }
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
