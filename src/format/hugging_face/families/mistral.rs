//! Mistral.

use super::llama::{LLAMA, turned};
use super::*;
use crate::diagram::NormKind;
use crate::format::hugging_face::rope::ROPE;

pub(super) const MISTRAL: Family = Family {
    name: "mistral",
    bodies: &["MistralModel"],
    with_head: &["MistralForCausalLM"],
    fields,
    ..LLAMA
};

fn fields(f: &mut Fields, c: &mut Config, s: &mut Storage) -> Result<()> {
    f.size("vocab_size", 32000, &mut c.d_vocab)?;
    f.size("hidden_size", 4096, &mut c.d_model)?;
    f.layers("num_hidden_layers", 32, &mut c.n_layers)?;
    f.size("num_attention_heads", 32, &mut c.n_heads)?;
    groups(f, 8, c)?;
    f.size("head_dim", of_the_stream(c), &mut c.d_head)?;
    let width = ("intermediate_size", 14336);
    mlp(f, c, width, ("hidden_act", ActFn::Silu), true)?;
    f.size("max_position_embeddings", 131072, &mut c.n_ctx)?;
    f.number("rms_norm_eps", 1e-6, &mut c.eps)?;
    c.norm = Some(NormKind::RMS);
    turned(f, &ROPE, c)?;
    c.attn_scale = root(c.d_head);
    one_window(f, c, ("sliding_window", Some(4096)))?;
    // It has no biases, and no field that could ask for them.
    s.biases = false;
    f.flag("tie_word_embeddings", false, &mut s.tied)
}

/// Keys and values a layer, where absence does not mean what null does: as many as heads.
pub(super) fn groups(f: &mut Fields, default: usize, c: &mut Config) -> Result<()> {
    let mut groups = Some(c.groups);
    f.optional_size("num_key_value_heads", Some(default), &mut groups)?;
    c.groups = groups.unwrap_or(c.n_heads);
    Ok(())
}
