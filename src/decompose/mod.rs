//! The residual stream by component, LayerNorm applied to the components, direct logit attribution, and the
//! composition of heads.

mod composition;
mod logits;
mod stack;

pub use composition::{
    Composition, CompositionBaseline, CompositionScores, composition_baseline, composition_score,
    composition_scores,
};
pub use logits::{Logit, direct_logit_attribution, layer_norm_stack};
pub use stack::{By, Component, Stack, residual_stack};
