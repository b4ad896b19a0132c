//! BLOOM.

use super::*;
use crate::diagram::NormKind;

pub(super) const BLOOM: Family = Family {
    name: "bloom",
    other_names: &[],
    bodies: &["BloomModel"],
    with_head: &["BloomForCausalLM"],
    aliases: &[
        ("n_embed", "hidden_size"),
        ("num_hidden_layers", "n_layer"),
        ("num_attention_heads", "n_head"),
    ],
    fields,
    prefixes: &[("transformer.", ""), ("", "")],
    body: &[
        Row::Table("embed.W_E", "word_embeddings"),
        Row::Norm("embed.ln", "word_embeddings_layernorm"),
        Row::Norm("ln_final", "ln_f"),
    ],
    blocks: (
        "h",
        &[
            Row::Norm("ln1", "input_layernorm"),
            Row::Fused(
                QKV,
                "self_attention.query_key_value",
                Weave::ByHead,
                Bias::Yes,
            ),
            Row::Linear("attn.W_O", "self_attention.dense", Bias::Yes),
            Row::Norm("ln2", "post_attention_layernorm"),
            Row::Linear("mlp.W_in", "mlp.dense_h_to_4h", Bias::Yes),
            Row::Linear("mlp.W_out", "mlp.dense_4h_to_h", Bias::Yes),
        ],
    ),
    head: &[Row::Unembed("lm_head", Bias::No)],
    ignored: &[],
    inputs_first: false,
};

fn fields(f: &mut Fields, c: &mut Config, s: &mut Storage) -> Result<()> {
    f.size("vocab_size", 250880, &mut c.d_vocab)?;
    f.size("hidden_size", 64, &mut c.d_model)?;
    f.layers("n_layer", 2, &mut c.n_layers)?;
    f.size("n_head", 8, &mut c.n_heads)?;
    heads_of_the_stream(c);
    // Nothing in it depends on a longest sequence; its files name the one that it was trained on.
    f.size("seq_length", 2048, &mut c.n_ctx)?;
    f.number("layer_norm_epsilon", 1e-5, &mut c.eps)?;
    c.embed_norm = Some(NormKind::LN);
    c.positions = Positions::Alibi;
    c.attn_scale = root(c.d_head);
    c.mlp = Some(MlpKind {
        d_mlp: c.d_model.saturating_mul(4),
        act_fn: ActFn::GeluBloom,
        gated: false,
        gate_bias: false,
    });
    f.only("apply_residual_connection_post_layernorm", false)?;
    f.flag("tie_word_embeddings", true, &mut s.tied)
}
