//! The residual stream by component, LayerNorm applied to the components, direct logit attribution, the
//! paths through the heads, and how the heads compose.

mod composition;
mod logits;
mod paths;
mod stack;

pub use composition::{
    Composition, CompositionBaseline, CompositionScores, composition_baseline, composition_score,
    composition_scores,
};
pub use logits::{Logit, direct_logit_attribution, layer_norm_stack};
pub use paths::{
    Certificate, Contribution, LogitPaths, Path, Paths, ScoreTable, ScoreTerm, Start, Sum, Top,
    count, score_table,
};
pub use stack::{By, Component, Stack, residual_stack};
