//! How a model is trained.

use super::adam::AdamW;
use super::evaluate::Goal;
use super::schedule::Schedule;
use serde::{Deserialize, Serialize};

/// How a model is trained, but for the model and the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What the initial weights and the data are drawn from.
    pub seed: u64,
    /// The standard deviation of the initial weights, where it is not TransformerLens's `0.8 / sqrt(d_model)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initializer_range: Option<f64>,
    /// Parameters that stay as they are initialised, by name; `*` stands for any characters.
    pub frozen: Vec<String>,
    /// Steps at the most.
    pub steps: usize,
    /// The learning rate.
    pub schedule: Schedule,
    /// The optimiser.
    pub optimiser: AdamW,
    /// After how many steps the model is tried on held-out data.
    pub evaluate_every: usize,
    /// After how many steps a checkpoint is written.
    pub checkpoint_every: usize,
    /// After how many steps the weights are kept for good, as `snapshots/STEP.safetensors`: never unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_every: Option<usize>,
    /// When to stop early: where nothing is given, never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Goal>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            seed: 0,
            initializer_range: None,
            frozen: Vec::new(),
            steps: 1000,
            schedule: Schedule::constant(1e-3),
            optimiser: AdamW::default(),
            evaluate_every: 100,
            checkpoint_every: 1000,
            snapshot_every: None,
            target: None,
        }
    }
}
