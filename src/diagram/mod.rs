//! What a model computes, as data: no floats but a configuration's own numbers, no weights.
//!
//! [`Config`] says what a model is made of, `Diagram::of` which operations that is, in order, and what each of
//! them reads and gives. What else is asked about a model's values (their shapes, which are one value under two
//! names, what lies downstream of a change, what a derivative needs) is answered by walks over it.

mod build;
mod config;
mod rotary;
mod value;
mod walk;

pub(crate) use build::{Diagram, Op, Projection, Step, Value};
pub use config::{
    ActFn, Config, Mask, MlpKind, NormKind, NormPlace, NormWeight, Order, Positions, QkNorm,
};
pub(crate) use config::{LARGEST, MOST_LAYERS};
pub use rotary::{Pairing, RotaryPositions, RotaryScaling};
pub use value::Axis;
