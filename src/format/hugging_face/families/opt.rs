//! OPT.

use super::*;
use crate::diagram::{NormKind, NormPlace};

pub(super) const OPT: Family = Family {
    name: "opt",
    other_names: &[],
    bodies: &["OPTModel"],
    with_head: &["OPTForCausalLM"],
    aliases: &[],
    fields,
    prefixes: &[("model.decoder.", ""), ("decoder.", ""), ("", "")],
    body: &[
        Row::Table("embed.W_E", "embed_tokens"),
        Row::Table("pos_embed.W_pos", "embed_positions"),
        Row::Projections("project_in", "project_out"),
        Row::Norm("ln_final", "final_layer_norm"),
    ],
    blocks: (
        "layers",
        &[
            Row::Norm("ln1", "self_attn_layer_norm"),
            Row::Linear("attn.W_Q", "self_attn.q_proj", Bias::Asked),
            Row::Linear("attn.W_K", "self_attn.k_proj", Bias::Asked),
            Row::Linear("attn.W_V", "self_attn.v_proj", Bias::Asked),
            Row::Linear("attn.W_O", "self_attn.out_proj", Bias::Asked),
            Row::Norm("ln2", "final_layer_norm"),
            Row::Linear("mlp.W_in", "fc1", Bias::Asked),
            Row::Linear("mlp.W_out", "fc2", Bias::Asked),
        ],
    ),
    head: &[Row::Unembed("lm_head", Bias::No)],
    ignored: &[],
    inputs_first: false,
};

fn fields(f: &mut Fields, c: &mut Config, s: &mut Storage) -> Result<()> {
    f.size("vocab_size", 50272, &mut c.d_vocab)?;
    f.size("hidden_size", 768, &mut c.d_model)?;
    f.layers("num_hidden_layers", 12, &mut c.n_layers)?;
    f.size("num_attention_heads", 12, &mut c.n_heads)?;
    heads_of_the_stream(c);
    let width = ("ffn_dim", 3072);
    mlp(f, c, width, ("activation_function", ActFn::Relu), false)?;
    f.size("max_position_embeddings", 2048, &mut c.n_ctx)?;
    // The first two rows of its table are no position's.
    s.first_position = 2;
    c.attn_scale = root(c.d_head);
    c.eps = 1e-5;
    let mut before = c.norm_place != NormPlace::Stream;
    f.flag("do_layer_norm_before", true, &mut before)?;
    if before {
        f.only("_remove_final_layer_norm", false)?;
    }
    c.norm_place = match before {
        true => NormPlace::Before,
        false => NormPlace::Stream,
    };
    let mut affine = c.norm != Some(NormKind::LN_PRE);
    f.flag("layer_norm_elementwise_affine", true, &mut affine)?;
    c.norm = Some(if affine {
        NormKind::LN
    } else {
        NormKind::LN_PRE
    });
    f.flag("enable_bias", true, &mut s.biases)?;
    let mut width = Some(c.d_model);
    f.optional_size("word_embed_proj_dim", None, &mut width)?;
    s.projected = width.filter(|&width| width != c.d_model);
    f.flag("tie_word_embeddings", true, &mut s.tied)
}
