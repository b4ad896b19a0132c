//! A file's bytes, mapped into memory: unsafe, as only BLAS's routines are beside it.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::Read;
use std::ops::{Deref, Range};
use std::path::Path;

/// A file's bytes: mapped, or read where mapping is refused (an empty file, a pipe).
pub(crate) enum FileBytes {
    Mapped(memmap2::Mmap),
    Read(Vec<u8>),
}

impl FileBytes {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
        let metadata = file.metadata().map_err(|e| Error::io(path, e))?;
        if metadata.is_dir() {
            return Err(Error::format(path, "is a folder, expected a file"));
        }
        if metadata.is_file() && metadata.len() > 0 {
            // SAFETY: the mapping is private and read-only. Another process that truncates the file
            // while it is mapped could end this one with a signal; the values read are checked and
            // copied out before this function's caller returns, so the window is the load itself.
            if let Ok(map) = unsafe { memmap2::Mmap::map(&file) } {
                return Ok(FileBytes::Mapped(map));
            }
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(|e| Error::io(path, e))?;
        Ok(FileBytes::Read(bytes))
    }

    /// Says that a stretch has been read and is not wanted soon: its memory may go, so that a model's file does not take as
    /// much as the model while it is loaded.
    pub(crate) fn done(&self, bytes: Range<usize>) {
        #[cfg(unix)]
        if let FileBytes::Mapped(map) = self {
            use memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: the mapping is of a file and read-only. What is read again comes from the file again.
            // A refusal costs memory and nothing else.
            let _ = unsafe { map.unchecked_advise_range(DontNeed, bytes.start, bytes.len()) };
        }
        #[cfg(not(unix))]
        let _ = bytes;
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            FileBytes::Mapped(map) => map,
            FileBytes::Read(bytes) => bytes,
        }
    }
}
