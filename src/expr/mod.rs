//! Symbolic circuits: text, the tree that it says, and the typed expression in normal form.
//!
//! ```
//! use pathsum::expr::{Dims, Family, W_E, W_OV, W_U};
//! use pathsum::Head;
//!
//! let dims = Dims::default();
//! let family = Family::parse("W_E W_OV[0.*] W_U", &dims)?;
//! assert_eq!(family.members.len(), dims.n_heads);
//! // The same without a string.
//! assert_eq!(family.members[1], W_E() * W_OV(Head { layer: 0, head: 1 }) * W_U());
//!
//! let error = Family::parse("W_E W_U^T", &dims).unwrap_err().to_string();
//! assert!(error.contains("`W_E` has model columns, `W_U^T` has out rows; did you mean `W_U`?"));
//! # Ok::<(), pathsum::Error>(())
//! ```
//!
//! No floats and no weights here: an expression means the same for every model of its sizes. The grammar is
//! in `docs/expressions.md`.

mod ast;
mod build;
mod define;
mod family;
mod normal;
mod parse;
mod print;
mod rules;
mod space;
mod symbol;
mod typing;

pub use build::*;
pub(crate) use define::embedded;
pub use define::{definition, unfolded};
pub use family::{Family, FamilyAxis, Statement};
pub use normal::{Expr, Factor, Mismatch, Product, Rational, stack};
pub use rules::Rule;
pub use space::{Dims, Rotary, Space};
pub use symbol::{Indexed, Origin, QueryHead, Symbol};
