//! OLMo-2.

use super::llama::{LLAMA, turned};
use super::*;
use crate::diagram::{NormKind, NormPlace, QkNorm};
use crate::format::hugging_face::rope::Rope;

pub(super) const OLMO2: Family = Family {
    name: "olmo2",
    bodies: &["Olmo2Model"],
    with_head: &["Olmo2ForCausalLM"],
    fields,
    blocks: (
        "layers",
        &[
            Row::Linear("attn.W_Q", "self_attn.q_proj", Bias::Asked),
            Row::Linear("attn.W_K", "self_attn.k_proj", Bias::Asked),
            Row::Linear("attn.W_V", "self_attn.v_proj", Bias::Asked),
            Row::Norm("attn.q_norm", "self_attn.q_norm"),
            Row::Norm("attn.k_norm", "self_attn.k_norm"),
            Row::Linear("attn.W_O", "self_attn.o_proj", Bias::Asked),
            Row::Norm("ln1_post", "post_attention_layernorm"),
            Row::Linear("mlp.W_gate", "mlp.gate_proj", Bias::No),
            Row::Linear("mlp.W_in", "mlp.up_proj", Bias::No),
            Row::Linear("mlp.W_out", "mlp.down_proj", Bias::No),
            Row::Norm("ln2_post", "post_feedforward_layernorm"),
        ],
    ),
    ..LLAMA
};

fn fields(f: &mut Fields, c: &mut Config, s: &mut Storage) -> Result<()> {
    f.size("vocab_size", 50304, &mut c.d_vocab)?;
    f.size("hidden_size", 4096, &mut c.d_model)?;
    f.layers("num_hidden_layers", 32, &mut c.n_layers)?;
    f.size("num_attention_heads", 32, &mut c.n_heads)?;
    f.size("num_key_value_heads", c.n_heads, &mut c.groups)?;
    f.size("head_dim", of_the_stream(c), &mut c.d_head)?;
    let width = ("intermediate_size", 11008);
    mlp(f, c, width, ("hidden_act", ActFn::Silu), true)?;
    f.size("max_position_embeddings", 2048, &mut c.n_ctx)?;
    f.number("rms_norm_eps", 1e-5, &mut c.eps)?;
    c.norm = Some(NormKind::RMS);
    c.norm_place = NormPlace::Output;
    c.qk_norm = Some(QkNorm {
        kind: NormKind::RMS,
        per_head: false,
    });
    let rope = Rope {
        base: ("rope_theta", 10000.0),
        // It takes no other name.
        kind: "type",
    };
    turned(f, &rope, c)?;
    c.attn_scale = root(c.d_head);
    f.flag("attention_bias", false, &mut s.biases)?;
    f.flag("tie_word_embeddings", false, &mut s.tied)
}
