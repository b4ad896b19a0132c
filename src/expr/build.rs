//! The language without strings: a function for every symbol.

use super::normal::Expr;
use super::space::Space;
use super::symbol::Symbol;
use crate::names::{Head, NormSite};

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $t:ty)?) = $symbol:ident;)*) => {$(
        $(#[$doc])*
        pub fn $name($($arg: $t)?) -> Expr {
            Expr::from(Symbol::$symbol$(($arg.into()))?)
        }
    )*};
}

constructors! {
    /// `[vocab, model]`
    W_E() = WE;
    /// `[pos, model]`
    W_pos() = WPos;
    /// `[model, out]`
    W_U() = WU;
    /// `[one, out]`
    b_U() = BU;
    /// `[model, model]`: `x C = x - mean(x)`
    C() = C;
    /// `[vocab, vocab]`: the Fourier basis over the residues.
    F() = F;
    /// `[out, out]`: the Fourier basis over the answers.
    F_out() = FOut;
    /// `[model, head]`
    W_Q(head: Head) = WQ;
    /// `[model, head]`
    W_K(head: Head) = WK;
    /// `[model, head]`
    W_V(head: Head) = WV;
    /// `[head, model]`
    W_O(head: Head) = WO;
    /// `[one, head]`
    b_Q(head: Head) = BQ;
    /// `[one, head]`
    b_K(head: Head) = BK;
    /// `[one, head]`
    b_V(head: Head) = BV;
    /// `[one, model]`
    b_O(layer: usize) = BO;
    /// `[model, mlp]`
    W_in(layer: usize) = WIn;
    /// `[model, mlp]`
    W_gate(layer: usize) = WGate;
    /// `[one, mlp]`
    b_gate(layer: usize) = BGate;
    /// `[one, mlp]`
    b_in(layer: usize) = BIn;
    /// `[mlp, model]`
    W_out(layer: usize) = WOut;
    /// `[one, model]`
    b_out(layer: usize) = BOut;
    /// `[model, model]`, diagonal: a norm's weights.
    w(site: NormSite) = NormW;
    /// `[one, model]`: a norm's bias.
    b(site: NormSite) = NormB;
    /// `[pos, model]`
    token_type_embed() = TokenTypeEmbed;
    /// `[pos, model]`: the embeddings' sum, where a norm goes over it.
    embed_sum() = EmbedSum;
    /// `[pos, model]`: the heads' results and `b_O`, where a norm goes over their sum.
    attn_sum(layer: usize) = AttnSum;
    /// `[pos, model]`: what the neurons write, where a norm goes over it.
    mlp_sum(layer: usize) = MlpSum;
    /// `[pos, vocab]`: a run's tokens, a 1 in each row.
    tokens() = Tokens;
    /// `[pos, model]`
    embed() = Embed;
    /// `[pos, model]`
    pos_embed() = PosEmbed;
    /// `[pos, out]`
    logits() = Logits;
    /// `[pos, model]`
    resid_pre(layer: usize) = ResidPre;
    /// `[pos, model]`
    attn_out(layer: usize) = AttnOut;
    /// `[pos, model]`
    resid_mid(layer: usize) = ResidMid;
    /// `[pos, mlp]`
    pre(layer: usize) = Pre;
    /// `[pos, mlp]`
    pre_linear(layer: usize) = PreLinear;
    /// `[pos, mlp]`
    post(layer: usize) = Post;
    /// `[pos, model]`
    mlp_out(layer: usize) = MlpOut;
    /// `[pos, model]`
    resid_post(layer: usize) = ResidPost;
    /// `[pos, head]`
    q(head: Head) = Q;
    /// `[pos, head]`
    k(head: Head) = K;
    /// `[pos, head]`
    v(head: Head) = V;
    /// `[pos, head]`: queries, each turned by its position.
    rot_q(head: Head) = RotQ;
    /// `[pos, head]`: keys, each turned by its position.
    rot_k(head: Head) = RotK;
    /// `[head, head]`, diagonal: what the norm of queries multiplies by.
    w_q(head: Head) = WNormQ;
    /// `[head, head]`, diagonal: what the norm of keys multiplies by.
    w_k(head: Head) = WNormK;
    /// `[pos, pos]`, diagonal: what the norm of queries divides by.
    scale_q(head: Head) = ScaleQ;
    /// `[pos, pos]`, diagonal: what the norm of keys divides by.
    scale_k(head: Head) = ScaleK;
    /// `[pos, head]`: queries past their norm.
    normalized_q(head: Head) = NormalizedQ;
    /// `[pos, head]`: keys past their norm.
    normalized_k(head: Head) = NormalizedK;
    /// `[pos, pos]`, queries by keys
    pattern(head: Head) = Pattern;
    /// `[pos, head]`
    z(head: Head) = Z;
    /// `[pos, model]`
    result(head: Head) = Result;
    /// `[pos, pos]`, diagonal: what a norm divides by.
    scale(site: NormSite) = Scale;
    /// `[pos, model]`: a norm's output.
    normalized(site: NormSite) = Normalized;
}

/// `[model, model]`: `W_Q W_Kᵀ`
pub fn W_QK(head: Head) -> Expr {
    W_Q(head) * W_K(head).t()
}

/// `[model, model]`: `W_V W_O`
pub fn W_OV(head: Head) -> Expr {
    W_V(head) * W_O(head)
}

/// `[head, head]`: turns a row by `n` positions. Between queries and keys of a head, `n` is how far the key is
/// behind the query.
///
/// ```
/// use pathsum::Head;
/// use pathsum::expr::{R, W_K, W_Q};
/// let h = Head { layer: 1, head: 0 };
/// let circuit = W_Q(h) * R(h, 5) * R(h, 2).t() * W_K(h).t();
/// assert_eq!(circuit.to_string(), "W_Q[1.0] R[3] W_K[1.0]^T");
/// ```
pub fn R(head: Head, n: i64) -> Expr {
    Expr::from(Symbol::R(head, n))
}

/// `[space, space]`: the identity.
pub fn I(space: Space) -> Expr {
    Expr::identity(space)
}

/// `[space, one]`: a column of ones.
pub fn ones(space: Space) -> Expr {
    Expr::ones(space)
}
