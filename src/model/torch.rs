//! PyTorch state dicts (placeholder until the reader lands).
use crate::error::{Error, Result};
use crate::tensor::TensorFile;
use std::path::Path;
pub(crate) fn open_state_dict(path: &Path) -> Result<TensorFile> {
    Err(Error::format(path, "not yet"))
}
