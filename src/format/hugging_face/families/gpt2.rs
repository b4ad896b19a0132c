//! GPT-2.

use super::*;

pub(super) const GPT2: Family = Family {
    name: "gpt2",
    other_names: &[],
    bodies: &["GPT2Model"],
    with_head: &["GPT2LMHeadModel"],
    aliases: &[
        ("hidden_size", "n_embd"),
        ("num_attention_heads", "n_head"),
        ("num_hidden_layers", "n_layer"),
        ("max_position_embeddings", "n_positions"),
    ],
    fields,
    prefixes: &[("transformer.", ""), ("", "")],
    body: &[
        Row::Table("embed.W_E", "wte"),
        Row::Table("pos_embed.W_pos", "wpe"),
        Row::Norm("ln_final", "ln_f"),
    ],
    blocks: (
        "h",
        &[
            Row::Norm("ln1", "ln_1"),
            Row::Fused(QKV, "attn.c_attn", Weave::Stacked, Bias::Yes),
            Row::Linear("attn.W_O", "attn.c_proj", Bias::Yes),
            Row::Norm("ln2", "ln_2"),
            Row::Linear("mlp.W_in", "mlp.c_fc", Bias::Yes),
            Row::Linear("mlp.W_out", "mlp.c_proj", Bias::Yes),
        ],
    ),
    head: &[Row::Unembed("lm_head", Bias::No)],
    ignored: &["h.{}.attn.bias", "h.{}.attn.masked_bias"],
    inputs_first: true,
};

fn fields(f: &mut Fields, c: &mut Config, s: &mut Storage) -> Result<()> {
    f.size("vocab_size", 50257, &mut c.d_vocab)?;
    f.size("n_positions", 1024, &mut c.n_ctx)?;
    f.size("n_embd", 768, &mut c.d_model)?;
    f.layers("n_layer", 12, &mut c.n_layers)?;
    f.size("n_head", 12, &mut c.n_heads)?;
    heads_of_the_stream(c);
    inner(f, c)?;
    f.number("layer_norm_epsilon", 1e-5, &mut c.eps)?;
    let mut scaled = c.attn_scale != 1.0 || c.d_head == 1;
    f.flag("scale_attn_weights", true, &mut scaled)?;
    c.attn_scale = if scaled { root(c.d_head) } else { 1.0 };
    f.flag(
        "scale_attn_by_inverse_layer_idx",
        false,
        &mut c.scale_attn_by_inverse_layer_idx,
    )?;
    f.flag("tie_word_embeddings", true, &mut s.tied)
}

/// The MLPs of GPT-2 and GPT-J, four times as wide as the stream where no field says otherwise.
pub(super) fn inner(f: &mut Fields, c: &mut Config) -> Result<()> {
    let mut d_mlp = c.d_mlp();
    f.optional_size("n_inner", None, &mut d_mlp)?;
    let d_mlp = d_mlp.unwrap_or(c.d_model.saturating_mul(4));
    let mut act_fn = c.act_fn().unwrap_or(ActFn::GeluNew);
    f.act_fn("activation_function", ActFn::GeluNew, &mut act_fn)?;
    c.mlp = Some(MlpKind {
        d_mlp,
        act_fn,
        gated: false,
        gate_bias: false,
    });
    Ok(())
}
