//! The residual stream by component, LayerNorm applied to the components, and direct logit attribution.

mod logits;
mod stack;

pub use logits::{Logit, direct_logit_attribution, layer_norm_stack};
pub use stack::{By, Component, Stack, residual_stack};
