//! The text part of Gemma-3.

use super::gemma2::pre_attn_scalar;
use super::llama::{LLAMA, turned};
use super::*;
use crate::diagram::{NormKind, NormPlace, QkNorm};
use crate::format::hugging_face::rope::Rope;

pub(super) const GEMMA3: Family = Family {
    name: "gemma3_text",
    // Whose fields stand under `text_config`.
    other_names: &["gemma3"],
    bodies: &["Gemma3TextModel", "Gemma3Model"],
    with_head: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
    fields,
    prefixes: &[
        ("model.", ""),
        ("language_model.model.", "language_model."),
        ("model.language_model.", ""),
        ("language_model.", ""),
        ("", ""),
    ],
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
            Row::Norm("ln1_post", "post_attention_layernorm"),
            Row::Norm("ln2", "pre_feedforward_layernorm"),
            Row::Linear("mlp.W_gate", "mlp.gate_proj", Bias::No),
            Row::Linear("mlp.W_in", "mlp.up_proj", Bias::No),
            Row::Linear("mlp.W_out", "mlp.down_proj", Bias::No),
            Row::Norm("ln2_post", "post_feedforward_layernorm"),
        ],
    ),
    // What sees pictures.
    ignored: &[
        "vision_tower.*",
        "multi_modal_projector.*",
        "model.vision_tower.*",
        "model.multi_modal_projector.*",
    ],
    ..LLAMA
};

fn fields(f: &mut Fields, c: &mut Config, s: &mut Storage) -> Result<()> {
    f.size("vocab_size", 262208, &mut c.d_vocab)?;
    f.size("hidden_size", 2304, &mut c.d_model)?;
    f.layers("num_hidden_layers", 26, &mut c.n_layers)?;
    f.size("num_attention_heads", 8, &mut c.n_heads)?;
    f.size("num_key_value_heads", 4, &mut c.groups)?;
    f.size("head_dim", 256, &mut c.d_head)?;
    let (width, act_fn) = (("intermediate_size", 9216), ActFn::GeluPytorchTanh);
    mlp(f, c, width, ("hidden_activation", act_fn), true)?;
    f.size("max_position_embeddings", 131072, &mut c.n_ctx)?;
    f.number("rms_norm_eps", 1e-6, &mut c.eps)?;
    c.norm = Some(NormKind::RMS_ONE_PLUS);
    c.norm_place = NormPlace::Around;
    c.qk_norm = Some(QkNorm {
        kind: NormKind::RMS_ONE_PLUS,
        per_head: true,
    });
    let rope = Rope {
        base: ("rope_theta", 1e6),
        kind: "rope_type",
    };
    turned(f, &rope, c)?;
    // Layers with a window have a base of their own, and no scaling.
    let mut local = c.windowed_rotary.clone().unwrap_or(rotary_of(c));
    f.number("rope_local_base_freq", 10000.0, &mut local.base)?;
    local.dim = c.d_head;
    local.scaling = RotaryScaling::None;
    c.windowed_rotary = Some(local);
    pre_attn_scalar(f, c)?;
    let mut window = any_window(c);
    f.optional_size("sliding_window", Some(4096), &mut window)?;
    let mut pattern = 6;
    if !f.writes() {
        f.size("sliding_window_pattern", 6, &mut pattern)?;
    }
    windows(f, c, window, |l| (l + 1) % pattern != 0)?;
    // `attn_logit_softcapping` stands in its files, and is not read.
    f.optional_number("final_logit_softcapping", None, &mut c.logit_cap)?;
    f.only("use_bidirectional_attention", false)?;
    // `transformers` keeps this constant in f32 whatever the model's precision.
    s.embed_scale = f64::from(root(c.d_model) as f32);
    f.flag("attention_bias", false, &mut s.biases)?;
    f.flag("tie_word_embeddings", true, &mut s.tied)
}
