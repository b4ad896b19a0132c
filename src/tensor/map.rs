//! Memory mappings: a file's bytes, and the pages of large tensors. The one unsafe place.

use super::Scalar;
use crate::error::{Error, Result};
use std::fs::File;
use std::io::Read;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
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

/// The size of a huge page. From so many bytes on, values get pages of their own.
const HUGE_PAGE: usize = 2 << 20;

/// A tensor's values.
///
/// Large ones are mapped in huge pages where the system has them: a full cache touches each of its pages
/// once, and with small pages the system takes longer to hand them out than a small model to fill them.
pub(super) enum Buffer<T> {
    Heap(Vec<T>),
    /// The pages, and how many values of them are the tensor's.
    Pages(memmap2::MmapMut, usize, PhantomData<T>),
}

impl<T: Scalar> Buffer<T> {
    pub(super) fn zeros(len: usize) -> Self {
        let bytes = len.saturating_mul(size_of::<T>());
        // In whole huge pages: what is left over at the end would be handed out in small ones.
        if bytes >= HUGE_PAGE
            && let Some(whole) = bytes.checked_next_multiple_of(HUGE_PAGE)
            && let Ok(pages) = memmap2::MmapMut::map_anon(whole)
        {
            // Advice only: without huge pages the mapping works all the same.
            #[cfg(target_os = "linux")]
            let _ = pages.advise(memmap2::Advice::HugePage);
            return Buffer::Pages(pages, len, PhantomData);
        }
        Buffer::Heap(vec![T::ZERO; len])
    }

    pub(super) fn into_vec(self) -> Vec<T> {
        match self {
            Buffer::Heap(data) => data,
            Buffer::Pages(..) => self.to_vec(),
        }
    }
}

impl<T: Scalar> Deref for Buffer<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match self {
            Buffer::Heap(data) => data,
            Buffer::Pages(pages, len, _) => &bytemuck::cast_slice(pages)[..*len],
        }
    }
}

impl<T: Scalar> DerefMut for Buffer<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Buffer::Heap(data) => data,
            Buffer::Pages(pages, len, _) => &mut bytemuck::cast_slice_mut(pages)[..*len],
        }
    }
}

impl<T: Scalar> Clone for Buffer<T> {
    fn clone(&self) -> Self {
        let mut copy = Buffer::zeros(self.len());
        copy.copy_from_slice(self);
        copy
    }
}

impl<T: Scalar> PartialEq for Buffer<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}
