//! Gemma-2.

use super::llama::{LLAMA, turned};
use super::*;
use crate::diagram::{NormKind, NormPlace};
use crate::format::hugging_face::rope::ROPE;

pub(super) const GEMMA2: Family = Family {
    name: "gemma2",
    bodies: &["Gemma2Model"],
    with_head: &["Gemma2ForCausalLM"],
    fields,
    blocks: (
        "layers",
        &[
            Row::Norm("ln1", "input_layernorm"),
            Row::Linear("attn.W_Q", "self_attn.q_proj", Bias::Asked),
            Row::Linear("attn.W_K", "self_attn.k_proj", Bias::Asked),
            Row::Linear("attn.W_V", "self_attn.v_proj", Bias::Asked),
            Row::Linear("attn.W_O", "self_attn.o_proj", Bias::Asked),
            Row::Norm("ln1_post", "post_attention_layernorm"),
            Row::Norm("ln2", "pre_feedforward_layernorm"),
            Row::Linear("mlp.W_gate", "mlp.gate_proj", Bias::No),
            Row::Linear("mlp.W_in", "mlp.up_proj", Bias::No),
            Row::Linear("mlp.W_out", "mlp.down_proj", Bias::No),
            Row::Norm("ln2_post", "post_feedforward_layernorm"),
        ],
    ),
    ..LLAMA
};

fn fields(f: &mut Fields, c: &mut Config, s: &mut Storage) -> Result<()> {
    f.size("vocab_size", 256000, &mut c.d_vocab)?;
    f.size("hidden_size", 2304, &mut c.d_model)?;
    f.layers("num_hidden_layers", 26, &mut c.n_layers)?;
    f.size("num_attention_heads", 8, &mut c.n_heads)?;
    f.size("num_key_value_heads", 4, &mut c.groups)?;
    f.size("head_dim", 256, &mut c.d_head)?;
    let (width, act_fn) = (("intermediate_size", 9216), ActFn::GeluPytorchTanh);
    mlp(f, c, width, ("hidden_activation", act_fn), true)?;
    f.size("max_position_embeddings", 8192, &mut c.n_ctx)?;
    f.number("rms_norm_eps", 1e-6, &mut c.eps)?;
    c.norm = Some(NormKind::RMS_ONE_PLUS);
    c.norm_place = NormPlace::Around;
    turned(f, &ROPE, c)?;
    pre_attn_scalar(f, c)?;
    let mut window = any_window(c);
    f.optional_size("sliding_window", Some(4096), &mut window)?;
    windows(f, c, window, |l| l % 2 == 0)?;
    let caps = ["attn_logit_softcapping", "final_logit_softcapping"];
    f.optional_number(caps[0], Some(50.0), &mut c.score_cap)?;
    f.optional_number(caps[1], Some(30.0), &mut c.logit_cap)?;
    s.embed_scale = root(c.d_model);
    f.flag("attention_bias", false, &mut s.biases)?;
    f.flag("tie_word_embeddings", true, &mut s.tied)
}

/// What scores are divided by is the root of a field.
pub(super) fn pre_attn_scalar(f: &mut Fields, c: &mut Config) -> Result<()> {
    let square = c.attn_scale * c.attn_scale;
    // Whole where it was whole.
    let mut scalar = match square.round().sqrt() == c.attn_scale {
        true => square.round(),
        false => square,
    };
    f.number("query_pre_attn_scalar", 256.0, &mut scalar)?;
    if scalar.is_nan() || scalar <= 0.0 {
        let reason = format!("{scalar}, expected a positive number");
        return refuse("query_pre_attn_scalar", reason);
    }
    c.attn_scale = scalar.sqrt();
    Ok(())
}
