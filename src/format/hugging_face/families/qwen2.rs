//! Qwen2, and Qwen2.5.

use super::llama::{LLAMA, turned};
use super::mistral::groups;
use super::*;
use crate::diagram::NormKind;
use crate::format::hugging_face::rope::ROPE;

pub(super) const QWEN2: Family = Family {
    name: "qwen2",
    bodies: &["Qwen2Model"],
    with_head: &["Qwen2ForCausalLM"],
    fields,
    blocks: (
        "layers",
        &[
            Row::Norm("ln1", "input_layernorm"),
            Row::Linear("attn.W_Q", "self_attn.q_proj", Bias::Yes),
            Row::Linear("attn.W_K", "self_attn.k_proj", Bias::Yes),
            Row::Linear("attn.W_V", "self_attn.v_proj", Bias::Yes),
            Row::Linear("attn.W_O", "self_attn.o_proj", Bias::No),
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
    f.size("head_dim", of_the_stream(c), &mut c.d_head)?;
    let width = ("intermediate_size", 22016);
    mlp(f, c, width, ("hidden_act", ActFn::Silu), true)?;
    f.size("max_position_embeddings", 32768, &mut c.n_ctx)?;
    f.number("rms_norm_eps", 1e-6, &mut c.eps)?;
    c.norm = Some(NormKind::RMS);
    turned(f, &ROPE, c)?;
    c.attn_scale = root(c.d_head);
    late_windows(f, c)?;
    f.flag("tie_word_embeddings", false, &mut s.tied)
}

/// Windows in the layers from `max_window_layers` on, if `use_sliding_window` says so.
pub(super) fn late_windows(f: &mut Fields, c: &mut Config) -> Result<()> {
    let mut window = any_window(c);
    let mut used = window.is_some();
    f.flag("use_sliding_window", false, &mut used)?;
    f.optional_size("sliding_window", Some(4096), &mut window)?;
    let full = |l: &usize| c.window(*l).is_none();
    let mut first = (0..c.n_layers).take_while(full).count();
    f.index("max_window_layers", 28, &mut first)?;
    let window = window.filter(|_| used);
    windows(f, c, window, |l| window.is_some() && l >= first)
}
