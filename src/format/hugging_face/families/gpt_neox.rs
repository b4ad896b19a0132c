//! GPT-NeoX, as which Pythia comes.

use super::*;
use crate::diagram::Order;
use crate::format::hugging_face::rope::Rope;

pub(super) const GPT_NEOX: Family = Family {
    name: "gpt_neox",
    other_names: &[],
    bodies: &["GPTNeoXModel"],
    with_head: &["GPTNeoXForCausalLM"],
    aliases: &[],
    fields,
    prefixes: &[("gpt_neox.", ""), ("", "")],
    body: &[
        Row::Table("embed.W_E", "embed_in"),
        Row::Norm("ln_final", "final_layer_norm"),
    ],
    blocks: (
        "layers",
        &[
            Row::Norm("ln1", "input_layernorm"),
            Row::Fused(QKV, "attention.query_key_value", Weave::ByHead, Bias::Asked),
            Row::Linear("attn.W_O", "attention.dense", Bias::Asked),
            Row::Norm("ln2", "post_attention_layernorm"),
            Row::Linear("mlp.W_in", "mlp.dense_h_to_4h", Bias::Yes),
            Row::Linear("mlp.W_out", "mlp.dense_4h_to_h", Bias::Yes),
        ],
    ),
    head: &[Row::Unembed("embed_out", Bias::No)],
    ignored: &[
        "layers.{}.attention.bias",
        "layers.{}.attention.masked_bias",
        "layers.{}.attention.rotary_emb.inv_freq",
    ],
    inputs_first: false,
};

fn fields(f: &mut Fields, c: &mut Config, s: &mut Storage) -> Result<()> {
    f.size("vocab_size", 50432, &mut c.d_vocab)?;
    f.size("hidden_size", 6144, &mut c.d_model)?;
    f.layers("num_hidden_layers", 44, &mut c.n_layers)?;
    f.size("num_attention_heads", 64, &mut c.n_heads)?;
    heads_of_the_stream(c);
    let width = ("intermediate_size", 24576);
    mlp(f, c, width, ("hidden_act", ActFn::Gelu), false)?;
    f.size("max_position_embeddings", 2048, &mut c.n_ctx)?;
    f.number("layer_norm_eps", 1e-5, &mut c.eps)?;
    // Its own names win; the common ones stand alone in files of version 5.
    let common = |name| f.given(name).and_then(Value::as_f64);
    let base = common("rope_theta").unwrap_or(10000.0);
    let common_share = common("partial_rotary_factor").unwrap_or(0.25);
    let mut rotary = rotary_of(c);
    share(f, "rotary_pct", common_share, c.d_head, &mut rotary)?;
    let rope = Rope {
        base: ("rotary_emb_base", base),
        kind: "rope_type",
    };
    f.rope(&rope, (c.n_ctx, None), &mut rotary)?;
    c.positions = Positions::Rotary(rotary);
    c.attn_scale = root(c.d_head);
    let mut parallel = c.order != Order::Sequential;
    f.flag("use_parallel_residual", true, &mut parallel)?;
    c.order = match parallel {
        true => Order::Parallel,
        false => Order::Sequential,
    };
    f.flag("attention_bias", true, &mut s.biases)?;
    f.flag("tie_word_embeddings", false, &mut s.tied)
}
