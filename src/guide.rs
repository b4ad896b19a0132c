//! Pages that lead from a question to its answer. They are read here, and their code is run with the tests.

#[doc = include_str!("../docs/guide/checkpoint.md")]
pub mod checkpoint {}

#[doc = include_str!("../docs/guide/prompt.md")]
pub mod prompt {}

#[doc = include_str!("../docs/guide/identities.md")]
pub mod identities {}

#[doc = include_str!("../docs/guide/sweeps.md")]
pub mod sweeps {}

#[doc = include_str!("../docs/guide/training.md")]
pub mod training {}

#[doc = include_str!("../docs/guide/certificates.md")]
pub mod certificates {}
