//! Gemma, the first.

use super::llama::{LLAMA, turned};
use super::*;
use crate::diagram::NormKind;
use crate::format::hugging_face::rope::ROPE;

pub(super) const GEMMA: Family = Family {
    name: "gemma",
    bodies: &["GemmaModel"],
    with_head: &["GemmaForCausalLM"],
    fields,
    ..LLAMA
};

fn fields(f: &mut Fields, c: &mut Config, s: &mut Storage) -> Result<()> {
    f.size("vocab_size", 256000, &mut c.d_vocab)?;
    f.size("hidden_size", 3072, &mut c.d_model)?;
    f.layers("num_hidden_layers", 28, &mut c.n_layers)?;
    f.size("num_attention_heads", 16, &mut c.n_heads)?;
    f.size("num_key_value_heads", 16, &mut c.groups)?;
    f.size("head_dim", 256, &mut c.d_head)?;
    let width = ("intermediate_size", 24576);
    // `hidden_activation` stands in some of its files, and is not read.
    mlp(f, c, width, ("hidden_act", ActFn::GeluPytorchTanh), true)?;
    f.size("max_position_embeddings", 8192, &mut c.n_ctx)?;
    f.number("rms_norm_eps", 1e-6, &mut c.eps)?;
    c.norm = Some(NormKind::RMS_ONE_PLUS);
    turned(f, &ROPE, c)?;
    c.attn_scale = root(c.d_head);
    s.embed_scale = root(c.d_model);
    f.flag("attention_bias", false, &mut s.biases)?;
    f.flag("tie_word_embeddings", true, &mut s.tied)
}
