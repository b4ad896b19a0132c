//! Models from files and back: which fields and tensors' names say what.

mod fields;
mod files;
mod folder;
mod held;
mod hugging_face;
#[cfg(feature = "torch")]
mod torch;
mod transformer_lens;

pub use folder::{layout, open_checkpoint, open_weights};
pub use held::Held;
pub use hugging_face::{family_of, module_hooks};
