//! Derivatives: of a metric by any hook's value and by every parameter, by a backward pass written by hand.
//!
//! The derivative by a hook's value is what the metric would change by if that value changed and everything past it
//! were computed again; TransformerLens's backward hooks give the same. (Where TransformerLens calls `ln1` three
//! times, for queries, keys and values, its hooks see each call's share; here `ln1.hook_normalized` is one value, and
//! its derivative the sum.)

mod attribution;
mod backward;
mod gathered;
mod hooks;
mod parameters;
mod sink;

pub use attribution::{IntegratedGradients, attribution_patching, integrated_gradients, sum_to};
pub use hooks::{HookGradients, hook_gradients};
pub(crate) use hooks::{Pass, gradients_with};
pub use parameters::ParameterGradient;
