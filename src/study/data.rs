//! Where a study's sequences come from: a write-up's own sets, or generated ones.

use crate::error::{Error, Result};
use crate::model::Tokens;
use crate::tensor::TensorFile;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Where sequences come from. Figures of generated ones have ids of their own ([`Story::figure_of`](super::Story::figure_of)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Provenance {
    /// Somebody gave them.
    Given,
    /// They were generated.
    Generated,
}

/// Sequences, and where they come from.
#[derive(Clone, Debug)]
pub struct Set<T> {
    /// The sequences.
    pub sequences: T,
    /// Where they come from.
    pub origin: Provenance,
}

impl<T> Set<T> {
    /// Sequences that somebody gave.
    pub fn given(sequences: T) -> Self {
        Set {
            sequences,
            origin: Provenance::Given,
        }
    }

    /// Sequences that were generated.
    pub fn generated(sequences: T) -> Self {
        Set {
            sequences,
            origin: Provenance::Generated,
        }
    }
}

/// A folder with a write-up's sets, each a safetensors file of its name: `dataset.safetensors`.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// The folder.
    ///
    /// # Errors
    /// When it is no folder, or has none of these sets.
    pub fn open(path: &Path, sets: &[&str]) -> Result<Self> {
        let folder = Folder(path.into());
        if !path.is_dir() {
            return Err(Error::format(path, "there is no such folder"));
        }
        if !sets.iter().any(|set| folder.file(set).exists()) {
            let files: Vec<String> = sets.iter().map(|s| format!("{s}.safetensors")).collect();
            let reason = format!("no sequences there, expected {}", files.join(" or "));
            return Err(Error::format(path, reason));
        }
        Ok(folder)
    }

    /// The tokens of a set under their name in its file; `None` where there is no such set.
    ///
    /// # Errors
    /// When the file is not readable or has no such tokens.
    pub fn tokens(&self, set: &str, name: &str) -> Result<Option<Tokens>> {
        let path = self.file(set);
        if !path.exists() {
            return Ok(None);
        }
        let read = || {
            let (shape, ids) = TensorFile::open(&path)?.integer(name)?;
            match shape[..] {
                [batch, pos] if batch > 0 => Ok(Tokens::new(batch, pos, ids)),
                _ => Err(Error::Axes {
                    name: name.into(),
                    found: shape,
                    expected: "[sequences, positions]",
                }),
            }
        };
        read().map(Some).map_err(|e| self.of(set, e))
    }

    /// An error with the name of the set's file.
    pub fn of(&self, set: &str, error: Error) -> Error {
        match error {
            named @ (Error::Io { .. } | Error::Format { .. }) => named,
            other => Error::format(&self.file(set), other),
        }
    }

    fn file(&self, set: &str) -> PathBuf {
        self.0.join(format!("{set}.safetensors"))
    }
}
