//! RoBERTa.

use super::bert::{BERT, encoder};
use super::*;

pub(super) const ROBERTA: Family = Family {
    name: "roberta",
    bodies: &["RobertaModel"],
    with_head: &["RobertaForMaskedLM"],
    fields,
    prefixes: &[("roberta.", ""), ("", "")],
    head: &[
        Row::Linear("mlm_head.W", "lm_head.dense", Bias::Yes),
        Row::Norm("mlm_head.ln", "lm_head.layer_norm"),
        Row::Unembed("lm_head.decoder", Bias::No),
        Row::Alone("unembed.b_U", &["lm_head.bias", "lm_head.decoder.bias"]),
    ],
    ..BERT
};

fn fields(f: &mut Fields, c: &mut Config, s: &mut Storage) -> Result<()> {
    f.size("vocab_size", 50265, &mut c.d_vocab)?;
    // A token's position is its place among those that are no pads, counted from the pad's number on.
    let mut pad = 1;
    f.index("pad_token_id", 1, &mut pad)?;
    s.first_position = pad + 1;
    let mut rows = c.n_ctx + s.first_position;
    f.size("max_position_embeddings", 512, &mut rows)?;
    let Some(n_ctx) = rows.checked_sub(s.first_position).filter(|&n| n > 0) else {
        let reason = format!("{rows}, expected more than pad_token_id + 1, {}", pad + 1);
        return refuse("max_position_embeddings", reason);
    };
    c.n_ctx = n_ctx;
    encoder(f, c, s)?;
    if s.head {
        // Whatever the blocks have.
        c.mlm_head = Some(ActFn::Gelu);
    }
    Ok(())
}
