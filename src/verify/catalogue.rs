//! The identities that the language of [`crate::expr`] can express, as statements of it.

use super::run_identity::RunIdentity;
use crate::expr::{self, Dims, Expr, Space, Statement, Symbol};
use crate::names::Head;

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

/// The stream at every place where it has a hook, by head.
fn residual_sums(dims: &Dims) -> Vec<Statement> {
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
