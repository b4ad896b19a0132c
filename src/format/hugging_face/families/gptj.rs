//! GPT-J.

use super::gpt2::{self, GPT2};
use super::*;
use crate::diagram::Order;

pub(super) const GPTJ: Family = Family {
    name: "gptj",
    other_names: &[],
    bodies: &["GPTJModel"],
    with_head: &["GPTJForCausalLM"],
    aliases: GPT2.aliases,
    fields,
    prefixes: &[("transformer.", ""), ("", "")],
    body: &[
        Row::Table("embed.W_E", "wte"),
        Row::Norm("ln_final", "ln_f"),
    ],
    blocks: (
        "h",
        &[
            Row::Norm("ln1", "ln_1"),
            Row::Linear("attn.W_Q", "attn.q_proj", Bias::No),
            Row::Linear("attn.W_K", "attn.k_proj", Bias::No),
            Row::Linear("attn.W_V", "attn.v_proj", Bias::No),
            Row::Linear("attn.W_O", "attn.out_proj", Bias::No),
            Row::Linear("mlp.W_in", "mlp.fc_in", Bias::Yes),
            Row::Linear("mlp.W_out", "mlp.fc_out", Bias::Yes),
        ],
    ),
    head: &[Row::Unembed("lm_head", Bias::Yes)],
    ignored: &["h.{}.attn.bias", "h.{}.attn.masked_bias"],
    inputs_first: false,
};

fn fields(f: &mut Fields, c: &mut Config, s: &mut Storage) -> Result<()> {
    f.size("vocab_size", 50400, &mut c.d_vocab)?;
    f.size("n_positions", 2048, &mut c.n_ctx)?;
    f.size("n_embd", 4096, &mut c.d_model)?;
    f.layers("n_layer", 28, &mut c.n_layers)?;
    f.size("n_head", 16, &mut c.n_heads)?;
    heads_of_the_stream(c);
    gpt2::inner(f, c)?;
    f.number("layer_norm_epsilon", 1e-5, &mut c.eps)?;
    let mut dim = Some(rotary_of(c).dim);
    f.optional_size("rotary_dim", Some(64), &mut dim)?;
    let Some(dim) = dim else {
        return refuse("rotary_dim", "null is not covered, expected a number");
    };
    // Whatever the model's precision, its rotations and scores come from constants that `transformers` makes in f32.
    c.positions = Positions::Rotary(RotaryPositions {
        dim,
        base: 10000.0,
        pairing: Pairing::Neighbours,
        scaling: RotaryScaling::None,
        f32_angles: true,
    });
    c.attn_scale = f64::from(root(c.d_head) as f32);
    c.order = Order::SharedNorm;
    f.flag("tie_word_embeddings", false, &mut s.tied)
}
