//! Qwen3.

use super::llama::{LLAMA, turned};
use super::mistral::groups;
use super::qwen2::late_windows;
use super::*;
use crate::diagram::{NormKind, QkNorm};
use crate::format::hugging_face::rope::ROPE;

pub(super) const QWEN3: Family = Family {
    name: "qwen3",
    bodies: &["Qwen3Model"],
    with_head: &["Qwen3ForCausalLM"],
    fields,
    blocks: (
        "layers",
        &[
            Row::Norm("ln1", "input_layernorm"),
            Row::Linear("attn.W_Q", "self_attn.q_proj", Bias::Asked),
            Row::Linear("attn.W_K", "self_attn.k_proj", Bias::Asked),
            Row::Linear("attn.W_V", "self_attn.v_proj", Bias::Asked),
            Row::Norm("attn.q_norm", "self_attn.q_norm"),
            Row::Norm("attn.k_norm", "self_attn.k_norm"),
            Row::Linear("attn.W_O", "self_attn.o_proj", Bias::Asked),
            Row::Norm("ln2", "post_attention_layernorm"),
            Row::Linear("mlp.W_gate", "mlp.gate_proj", Bias::No),
            Row::Linear("mlp.W_in", "mlp.up_proj", Bias::No),
            Row::Linear("mlp.W_out", "mlp.down_proj", Bias::No),
        ],
    ),
    ..LLAMA
};

fn fields(f: &mut Fields, c: &mut Config, s: &mut Storage) -> Result<()> {
    f.size("vocab_size", 151936, &mut c.d_vocab)?;
    f.size("hidden_size", 4096, &mut c.d_model)?;
    f.layers("num_hidden_layers", 32, &mut c.n_layers)?;
    f.size("num_attention_heads", 32, &mut c.n_heads)?;
    groups(f, 32, c)?;
    f.size("head_dim", 128, &mut c.d_head)?;
    let width = ("intermediate_size", 22016);
    mlp(f, c, width, ("hidden_act", ActFn::Silu), true)?;
    f.size("max_position_embeddings", 32768, &mut c.n_ctx)?;
    f.number("rms_norm_eps", 1e-6, &mut c.eps)?;
    c.norm = Some(NormKind::RMS);
    c.qk_norm = Some(QkNorm {
        kind: NormKind::RMS,
        per_head: true,
    });
    turned(f, &ROPE, c)?;
    c.attn_scale = root(c.d_head);
    late_windows(f, c)?;
    f.flag("attention_bias", false, &mut s.biases)?;
    f.flag("tie_word_embeddings", false, &mut s.tied)
}
