//! The residual stream by component, LayerNorm applied to the components or fitted, direct logit attribution, by
//! component and by source, the logit lens, the paths through the heads, how the heads compose and what they are known
//! by; and what tells classes apart.

mod alone;
mod and_gate;
mod bilinear;
mod boundary;
mod composition;
mod composition_baseline;
mod head_scores;
mod lens;
mod logits;
mod norm_fit;
mod paths;
mod precision;
mod scores;
mod source;
mod stack;
mod summary;
mod token_circuits;
mod turned;

pub use alone::written_alone;
pub use and_gate::{AndGate, and_gate};
pub use bilinear::{QuadraticForm, bilinear_form};
pub use boundary::{Boundary, Threshold, best_threshold};
pub use composition::{Composition, CompositionScores, composition_score, composition_scores};
pub use composition_baseline::{CompositionBaseline, composition_baseline};
pub use head_scores::{PatternScore, PatternScores, copying_scores};
pub use lens::{
    LogitLens, direct_logits, direct_logits_along, direct_logits_hooks, lens_everywhere, logit_lens,
};
pub(crate) use logits::nonlinear_logits;
pub use logits::{Logit, direct_logit_attribution, layer_norm_stack};
pub use norm_fit::{NormFit, norm_fit};
pub use paths::{Contribution, LogitPaths, Path, Paths, Start, Station, Sum, Top, Unlisted, count};
pub(crate) use precision::{in_precision, norm_in_precision};
pub use scores::{Score, ScorePair, ScoreParts, ScoreTerm, Side, score_parts};
pub use source::{info_weighted_pattern, source_attribution, source_attribution_through};
pub(crate) use stack::stack_of;
pub use stack::{By, Component, Stack, residual_stack};
pub use summary::{
    Counts, Histogram, OfClass, Summary, histogram_by_class, summary, summary_by_class,
};
pub use token_circuits::{TokenCircuits, query_key, value_output};
pub use turned::Distance;
