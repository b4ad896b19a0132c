//! pathsum (front page written when the rooms stand).

pub mod decompose;
pub mod fixture;
pub mod linalg;
pub mod model;
pub mod names;
pub mod tensor;
pub mod verify;

mod error;

pub use error::{Error, Result};
pub use linalg::Par;
pub use model::{Cache, Config, Model, Run, RunOutput, Tokens, Weights};
pub use names::{Head, Hook, HookPattern};
pub use tensor::{Precision, Scalar, Tensor, TensorFile, write_safetensors};
