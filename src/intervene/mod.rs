//! What is done to a model's run: interventions as values, grids of them swept, paths patched.

mod change;
mod downstream;
mod grid;
mod means;
mod part;
mod path;
mod result;
mod run;
pub mod scrub;
mod sweep;

pub use change::{Change, Intervention, Over};
pub use grid::{Each, Grid, GridAxis, Scope, Site};
pub use part::Part;
pub use path::{Receiver, path_patch};
pub use result::SweepResult;
pub use run::intervene;
pub use sweep::Sweep;
