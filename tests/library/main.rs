//! The library from outside. One program holds all of these tests: every other would compile what is generic in the
//! crate once more, which takes longer than the tests.

mod bilinear;
mod certify;
mod circuits;
mod common;
mod composition;
mod edges;
mod enumerate;
mod errors;
mod factored;
mod figures;
mod fits;
mod fixtures;
mod forests;
mod gradient;
mod interventions;
mod language;
mod lens;
mod memory;
mod mutations;
mod naive;
mod paths;
mod properties;
mod reference;
#[cfg(feature = "report")]
mod report;
mod scores;
mod scrub;
mod statements;
#[cfg(feature = "report")]
mod stories;
mod task;
mod text;
mod token_circuits;
mod train;
mod user;
