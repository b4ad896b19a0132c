//! Phi: Phi-1, Phi-1.5, Phi-2.

use super::*;
use crate::diagram::{NormKind, Order, QkNorm};
use crate::format::hugging_face::rope::ROPE;

pub(super) const PHI: Family = Family {
    name: "phi",
    other_names: &[],
    bodies: &["PhiModel"],
    with_head: &["PhiForCausalLM"],
    aliases: &[],
    fields,
    prefixes: &[("model.", ""), ("", "")],
    body: &[
        Row::Table("embed.W_E", "embed_tokens"),
        Row::Norm("ln_final", "final_layernorm"),
    ],
    blocks: (
        "layers",
        &[
            Row::Norm("ln1", "input_layernorm"),
            Row::Linear("attn.W_Q", "self_attn.q_proj", Bias::Yes),
            Row::Linear("attn.W_K", "self_attn.k_proj", Bias::Yes),
            Row::Linear("attn.W_V", "self_attn.v_proj", Bias::Yes),
            Row::Norm("attn.q_norm", "self_attn.q_layernorm"),
            Row::Norm("attn.k_norm", "self_attn.k_layernorm"),
            Row::Linear("attn.W_O", "self_attn.dense", Bias::Yes),
            Row::Linear("mlp.W_in", "mlp.fc1", Bias::Yes),
            Row::Linear("mlp.W_out", "mlp.fc2", Bias::Yes),
        ],
    ),
    head: &[Row::Unembed("lm_head", Bias::Yes)],
    ignored: &["layers.{}.self_attn.rotary_emb.inv_freq"],
    inputs_first: false,
};

fn fields(f: &mut Fields, c: &mut Config, s: &mut Storage) -> Result<()> {
    f.size("vocab_size", 51200, &mut c.d_vocab)?;
    f.size("hidden_size", 2048, &mut c.d_model)?;
    f.layers("num_hidden_layers", 24, &mut c.n_layers)?;
    f.size("num_attention_heads", 32, &mut c.n_heads)?;
    f.size("num_key_value_heads", c.n_heads, &mut c.groups)?;
    f.size("head_dim", of_the_stream(c), &mut c.d_head)?;
    let width = ("intermediate_size", 8192);
    mlp(f, c, width, ("hidden_act", ActFn::GeluNew), false)?;
    f.size("max_position_embeddings", 2048, &mut c.n_ctx)?;
    f.number("layer_norm_eps", 1e-5, &mut c.eps)?;
    let mut rotary = rotary_of(c);
    share(f, "partial_rotary_factor", 0.5, c.d_head, &mut rotary)?;
    f.rope(&ROPE, (c.n_ctx, None), &mut rotary)?;
    c.positions = Positions::Rotary(rotary);
    c.attn_scale = root(c.d_head);
    c.order = Order::SharedNorm;
    let mut norms = c.qk_norm.is_some();
    f.flag("qk_layernorm", false, &mut norms)?;
    c.qk_norm = norms.then_some(QkNorm {
        kind: NormKind::LN,
        per_head: true,
    });
    f.flag("tie_word_embeddings", false, &mut s.tied)
}
