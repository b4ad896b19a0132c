//! LLaMA.

use super::*;
use crate::diagram::NormKind;
use crate::format::hugging_face::rope::{ROPE, Rope};

pub(super) const LLAMA: Family = Family {
    name: "llama",
    other_names: &[],
    bodies: &["LlamaModel"],
    with_head: &["LlamaForCausalLM"],
    aliases: &[],
    fields,
    prefixes: &[("model.", ""), ("", "")],
    body: &[
        Row::Table("embed.W_E", "embed_tokens"),
        Row::Norm("ln_final", "norm"),
    ],
    blocks: (
        "layers",
        &[
            Row::Norm("ln1", "input_layernorm"),
            Row::Linear("attn.W_Q", "self_attn.q_proj", Bias::Asked),
            Row::Linear("attn.W_K", "self_attn.k_proj", Bias::Asked),
            Row::Linear("attn.W_V", "self_attn.v_proj", Bias::Asked),
            Row::Linear("attn.W_O", "self_attn.o_proj", Bias::Asked),
            Row::Norm("ln2", "post_attention_layernorm"),
            Row::Linear("mlp.W_gate", "mlp.gate_proj", Bias::OfGates),
            Row::Linear("mlp.W_in", "mlp.up_proj", Bias::OfGates),
            Row::Linear("mlp.W_out", "mlp.down_proj", Bias::OfGates),
        ],
    ),
    head: &[Row::Unembed("lm_head", Bias::No)],
    ignored: &["layers.{}.self_attn.rotary_emb.inv_freq"],
    inputs_first: false,
};

fn fields(f: &mut Fields, c: &mut Config, s: &mut Storage) -> Result<()> {
    f.size("vocab_size", 32000, &mut c.d_vocab)?;
    f.size("hidden_size", 4096, &mut c.d_model)?;
    f.layers("num_hidden_layers", 32, &mut c.n_layers)?;
    f.size("num_attention_heads", 32, &mut c.n_heads)?;
    f.size("num_key_value_heads", c.n_heads, &mut c.groups)?;
    f.size("head_dim", of_the_stream(c), &mut c.d_head)?;
    let width = ("intermediate_size", 11008);
    mlp(f, c, width, ("hidden_act", ActFn::Silu), true)?;
    f.size("max_position_embeddings", 2048, &mut c.n_ctx)?;
    f.number("rms_norm_eps", 1e-6, &mut c.eps)?;
    c.norm = Some(NormKind::RMS);
    turned(f, &ROPE, c)?;
    c.attn_scale = root(c.d_head);
    f.flag("attention_bias", false, &mut s.biases)?;
    let mut mlp_bias = c.gate_bias();
    f.flag("mlp_bias", false, &mut mlp_bias)?;
    c.mlp = c.mlp.map(|mlp| MlpKind {
        gate_bias: mlp_bias,
        ..mlp
    });
    f.flag("tie_word_embeddings", false, &mut s.tied)
}

/// Rotary positions over whole heads, as LLaMA and most after it have them.
pub(super) fn turned(f: &mut Fields, rope: &Rope, c: &mut Config) -> Result<()> {
    let mut rotary = rotary_of(c);
    f.only("partial_rotary_factor", 1.0)?;
    f.rope(rope, (c.n_ctx, None), &mut rotary)?;
    rotary.dim = c.d_head;
    c.positions = Positions::Rotary(rotary);
    Ok(())
}
