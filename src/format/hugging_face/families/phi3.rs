//! Phi-3, Phi-3.5, Phi-4.

use super::*;
use crate::diagram::NormKind;
use crate::format::hugging_face::rope::Rope;

pub(super) const PHI3: Family = Family {
    name: "phi3",
    other_names: &[],
    bodies: &["Phi3Model"],
    with_head: &["Phi3ForCausalLM"],
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
            Row::Fused(QKV, "self_attn.qkv_proj", Weave::Stacked, Bias::No),
            Row::Linear("attn.W_O", "self_attn.o_proj", Bias::No),
            Row::Norm("ln2", "post_attention_layernorm"),
            Row::Fused(
                &["mlp.W_gate", "mlp.W_in"],
                "mlp.gate_up_proj",
                Weave::Stacked,
                Bias::No,
            ),
            Row::Linear("mlp.W_out", "mlp.down_proj", Bias::No),
        ],
    ),
    head: &[Row::Unembed("lm_head", Bias::No)],
    ignored: &["layers.{}.self_attn.rotary_emb.inv_freq"],
    inputs_first: false,
};

fn fields(f: &mut Fields, c: &mut Config, s: &mut Storage) -> Result<()> {
    f.size("vocab_size", 32064, &mut c.d_vocab)?;
    f.size("hidden_size", 3072, &mut c.d_model)?;
    f.layers("num_hidden_layers", 32, &mut c.n_layers)?;
    f.size("num_attention_heads", 32, &mut c.n_heads)?;
    f.size("num_key_value_heads", c.n_heads, &mut c.groups)?;
    f.size("head_dim", of_the_stream(c), &mut c.d_head)?;
    let width = ("intermediate_size", 8192);
    mlp(f, c, width, ("hidden_act", ActFn::Silu), true)?;
    f.size("max_position_embeddings", 4096, &mut c.n_ctx)?;
    f.number("rms_norm_eps", 1e-5, &mut c.eps)?;
    c.norm = Some(NormKind::RMS);
    let mut rotary = rotary_of(c);
    let mut original = match rotary.scaling {
        RotaryScaling::ByLength { original, .. } => original,
        _ => 4096,
    };
    f.size("original_max_position_embeddings", 4096, &mut original)?;
    share(f, "partial_rotary_factor", 1.0, c.d_head, &mut rotary)?;
    let rope = Rope {
        base: ("rope_theta", 10000.0),
        // It takes no other name, and no other field than the lists.
        kind: "type",
    };
    f.rope(&rope, (c.n_ctx, Some(original)), &mut rotary)?;
    c.positions = Positions::Rotary(rotary);
    c.attn_scale = root(c.d_head);
    one_window(f, c, ("sliding_window", None))?;
    f.flag("tie_word_embeddings", false, &mut s.tied)
}
