//! BERT.

use super::*;
use crate::diagram::{Mask, NormKind, NormPlace};

pub(super) const BERT: Family = Family {
    name: "bert",
    other_names: &[],
    bodies: &["BertModel"],
    with_head: &["BertForMaskedLM", "BertForPreTraining"],
    aliases: &[],
    fields,
    prefixes: &[("bert.", ""), ("", "")],
    body: &[
        Row::Table("embed.W_E", "embeddings.word_embeddings"),
        Row::Table("pos_embed.W_pos", "embeddings.position_embeddings"),
        Row::Table(
            "token_type_embed.W_token_type",
            "embeddings.token_type_embeddings",
        ),
        Row::Norm("embed.ln", "embeddings.LayerNorm"),
    ],
    blocks: (
        "encoder.layer",
        &[
            Row::Linear("attn.W_Q", "attention.self.query", Bias::Yes),
            Row::Linear("attn.W_K", "attention.self.key", Bias::Yes),
            Row::Linear("attn.W_V", "attention.self.value", Bias::Yes),
            Row::Linear("attn.W_O", "attention.output.dense", Bias::Yes),
            Row::Norm("ln1", "attention.output.LayerNorm"),
            Row::Linear("mlp.W_in", "intermediate.dense", Bias::Yes),
            Row::Linear("mlp.W_out", "output.dense", Bias::Yes),
            Row::Norm("ln2", "output.LayerNorm"),
        ],
    ),
    head: &[
        Row::Linear("mlm_head.W", "cls.predictions.transform.dense", Bias::Yes),
        Row::Norm("mlm_head.ln", "cls.predictions.transform.LayerNorm"),
        Row::Unembed("cls.predictions.decoder", Bias::No),
        Row::Alone(
            "unembed.b_U",
            &["cls.predictions.bias", "cls.predictions.decoder.bias"],
        ),
    ],
    ignored: &[
        "embeddings.position_ids",
        "embeddings.token_type_ids",
        "pooler.dense.weight",
        "pooler.dense.bias",
        "cls.seq_relationship.weight",
        "cls.seq_relationship.bias",
    ],
    inputs_first: false,
};

fn fields(f: &mut Fields, c: &mut Config, s: &mut Storage) -> Result<()> {
    f.size("vocab_size", 30522, &mut c.d_vocab)?;
    f.size("max_position_embeddings", 512, &mut c.n_ctx)?;
    encoder(f, c, s)?;
    if s.head {
        c.mlm_head = c.act_fn();
    }
    Ok(())
}

/// What RoBERTa has as well.
pub(super) fn encoder(f: &mut Fields, c: &mut Config, s: &mut Storage) -> Result<()> {
    f.size("hidden_size", 768, &mut c.d_model)?;
    f.layers("num_hidden_layers", 12, &mut c.n_layers)?;
    f.size("num_attention_heads", 12, &mut c.n_heads)?;
    heads_of_the_stream(c);
    let width = ("intermediate_size", 3072);
    mlp(f, c, width, ("hidden_act", ActFn::Gelu), false)?;
    f.size("type_vocab_size", 2, &mut c.token_types)?;
    f.number("layer_norm_eps", 1e-12, &mut c.eps)?;
    c.embed_norm = Some(NormKind::LN);
    c.norm_place = NormPlace::Stream;
    c.mask = Mask::All;
    c.attn_scale = root(c.d_head);
    f.only("position_embedding_type", "absolute")?;
    f.only("is_decoder", false)?;
    f.flag("tie_word_embeddings", true, &mut s.tied)
}
