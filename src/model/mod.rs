//! The model: configuration, weights, loading, the forward pass with its hooks and cache, and the
//! processing of weights.

pub(crate) mod abreast;
mod act;
mod attend;
mod cache;
mod config;
mod config_json;
mod forward;
mod load;
mod ops;
pub mod process;
mod resume;
mod run;
mod scratch;
mod tape;
mod tokens;
#[cfg(feature = "torch")]
mod torch;
mod weights;

pub use cache::Cache;
pub use config::{ActFn, AttentionDir, Config, NormalizationType, PositionalEmbeddingType};
pub use load::open_checkpoint;
pub(crate) use ops::{Layout, PAD_SCORE, at_positions, side_by_side};
pub(crate) use resume::{Clean, Resume, Rows, Stretch, goes_on_from};
pub(crate) use run::STRETCH;
pub use run::{Run, RunOutput};
pub(crate) use scratch::Scratch;
pub(crate) use tape::{Sequences, Tape};
pub use tokens::Tokens;
#[cfg(any(test, feature = "proptest"))]
pub(crate) use weights::is_norm_scale;
pub use weights::{Attention, Block, Mlp, Norm, Weights, layout};

use crate::error::Result;
use crate::tensor::{Memory, Scalar};

/// A transformer: what it is made of, and its parameters.
///
/// It keeps the memory of large values that it gave and that are no longer needed, for the next ones: no more than it
/// was asked for last.
#[derive(Clone, Debug, PartialEq)]
pub struct Model<T: Scalar> {
    pub(crate) config: Config,
    pub(crate) weights: Weights<T>,
    pub(crate) memory: Memory<T>,
}

impl<T: Scalar> Model<T> {
    /// A model of weights that are the configuration's.
    pub(crate) fn of(config: Config, weights: Weights<T>) -> Self {
        Model {
            config,
            weights,
            memory: Memory::default(),
        }
    }

    /// A model of these weights.
    ///
    /// # Errors
    /// When the configuration contradicts itself, or a parameter is missing, of another shape than it gives,
    /// or superfluous.
    pub fn new(config: Config, weights: Weights<T>) -> Result<Self> {
        config.check()?;
        weights.check(&config)?;
        Ok(Model::of(config, weights))
    }

    /// What the model is made of.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The parameters.
    pub fn weights(&self) -> &Weights<T> {
        &self.weights
    }

    /// The parameters, given away.
    pub fn into_weights(self) -> Weights<T> {
        self.weights
    }

    /// The same model in another precision, each parameter rounded to the nearest.
    pub fn cast<U: Scalar>(&self) -> Model<U> {
        Model::of(self.config.clone(), self.weights.cast(&self.config))
    }
}
