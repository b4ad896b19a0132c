//! The model: its weights, the forward pass with its hooks and cache, and the processing of weights.

mod apply;
mod cache;
mod forward;
mod generate;
mod loss;
mod pool;
pub mod process;
mod run;
mod standing;
mod tape;
mod tokens;
mod weights;

pub use crate::diagram::{
    ActFn, Axis, Config, Mask, MlpKind, NormKind, NormPlace, NormWeight, Order, Pairing, Positions,
    QkNorm, RotaryPositions, RotaryScaling,
};
pub use cache::Cache;
pub(crate) use forward::{Sequences, places_of};
pub use generate::{Continuation, Sampling};
pub use loss::Loss;
pub(crate) use run::STRETCH;
pub use run::{Run, RunOutput};
pub use standing::Standing;
pub(crate) use tape::Tape;
pub use tokens::Tokens;
pub(crate) use weights::layout;
pub(crate) use weights::norm_of_scale;
pub use weights::{Attention, Block, Dense, Mlp, Norm, Weights};

use crate::diagram::{Diagram, Op};
use crate::error::Result;
use crate::op::Affine;
use crate::tensor::{Memory, Scalar, Tensor, without_subnormals};
use std::sync::OnceLock;

/// A transformer: what it is made of, and its parameters.
///
/// It keeps the memory of large values that it gave and that are no longer needed, for the next ones: no more than it
/// was asked for last.
#[derive(Clone, Debug)]
pub struct Model<T: Scalar> {
    config: Config,
    pub(crate) diagram: Diagram,
    weights: Weights<T>,
    /// Of the weights that have subnormal entries, those that are multiplied with.
    without_subnormals: OnceLock<Vec<(Op, Tensor<T>)>>,
    /// By head, what a key's position times is added to scores.
    slopes: Option<Vec<T>>,
    pub(crate) memory: Memory<T>,
}

impl<T: Scalar> Model<T> {
    /// A model of weights that are the configuration's.
    pub(crate) fn of(config: Config, weights: Weights<T>) -> Self {
        Model {
            diagram: Diagram::of(&config),
            slopes: config
                .alibi_slopes()
                .map(|s| s.into_iter().map(T::from_f64).collect()),
            config,
            weights,
            without_subnormals: OnceLock::new(),
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

    /// The parameters, to be changed; their shapes must stay.
    pub(crate) fn weights_mut(&mut self) -> &mut Weights<T> {
        self.without_subnormals.take();
        &mut self.weights
    }

    /// The linear map that an operation is, where it is one, as it is multiplied with: zeros stand for subnormal
    /// weights, since processors compute with those many times slower than with others, and weight decay leaves many
    /// of them behind.
    pub(crate) fn affine(&self, op: Op) -> Option<Affine<'_, T>> {
        let other = self.without_subnormals.get_or_init(|| {
            let steps = self.diagram.steps.iter();
            let other = |op| {
                let W = without_subnormals(self.weights.affine(op)?.W)?;
                Some((op, W))
            };
            steps.filter_map(|step| other(step.op)).collect()
        });
        let affine = self.weights.affine(op)?;
        let found = other.iter().find(|(own, _)| *own == op);
        Some(found.map_or(affine, |(_, W)| Affine { W, ..affine }))
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

/// Whether they are the same model: what they compute with, and where, follows from that.
impl<T: Scalar> PartialEq for Model<T> {
    fn eq(&self, other: &Self) -> bool {
        self.config == other.config && self.weights == other.weights
    }
}
