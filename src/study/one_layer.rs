//! What the studies of pairs ask of a model, and how they tell of it: one layer with neurons, without norms.

use crate::error::{Error, Result};
use crate::model::Config;

/// That a model is of that shape.
pub(super) fn check(config: &Config) -> Result<()> {
    let wrong = |field, reason: String| Err(Error::Config { field, reason });
    if config.n_layers != 1 {
        let reason = format!("{}, expected 1 for this study", config.n_layers);
        return wrong("n_layers", reason);
    }
    if config.mlp.is_none() {
        return wrong("attn_only", "true, expected an MLP for this study".into());
    }
    if config.norm.is_some() {
        return wrong("normalization_type", "expected none for this study".into());
    }
    Ok(())
}

/// A model in words, by where it is from.
pub(super) fn in_words(config: &Config, from: &str, pairs: usize) -> String {
    format!(
        "{from}: 1 layer of {} heads and {} neurons, d_model {}, d_head {}; all {pairs} pairs",
        config.n_heads,
        config.d_mlp().unwrap_or_default(),
        config.d_model,
        config.d_head,
    )
}
