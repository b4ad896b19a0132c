//! Where a tensor's values lie: on the heap, or large ones in pages of their own; and the memory that lends such pages.

use super::{Scalar, Tensor};
use memmap2::MmapMut;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The size of a huge page. From so many bytes on, values get pages of their own.
const HUGE_PAGE: usize = 2 << 20;

/// A tensor's values.
///
/// Large ones are mapped in huge pages where the system has them: a full cache touches each of its pages
/// once, and with small pages the system takes longer to hand them out than a small model to fill them.
pub(super) enum Buffer<T> {
    Heap(Vec<T>),
    Pages(Pages, PhantomData<T>),
}

/// Pages, and how many bytes of them are a tensor's.
pub(super) struct Pages {
    /// There until they are given back.
    map: Option<MmapMut>,
    bytes: usize,
    lender: Weak<Mutex<Free>>,
}

impl Drop for Pages {
    fn drop(&mut self) {
        if let (Some(map), Some(lender)) = (self.map.take(), self.lender.upgrade()) {
            lock(&lender).take_back(map);
        }
    }
}

/// The whole pages that so many bytes need, if they are worth pages of their own.
fn whole_pages(bytes: usize) -> Option<usize> {
    // What is left over at the end would be handed out in small pages.
    let whole = bytes.checked_next_multiple_of(HUGE_PAGE)?;
    (bytes >= HUGE_PAGE).then_some(whole)
}

/// New pages, which are zero, unless the system has none.
fn new_pages(whole: usize) -> Option<MmapMut> {
    let map = MmapMut::map_anon(whole).ok()?;
    // Advice only: without huge pages the mapping works all the same.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    Some(map)
}

/// Pages that tensors no longer need, for the next ones: the system would take as long to clear new ones as a small
/// model to fill them.
///
/// It keeps no more than was asked for last, and nothing once it is gone itself; tensors may outlive it.
#[derive(Default)]
pub(crate) struct Memory(Arc<Mutex<Free>>);

#[derive(Default)]
struct Free {
    maps: Vec<MmapMut>,
    /// How many bytes of pages may be kept.
    room: usize,
}

impl Free {
    fn take_back(&mut self, map: MmapMut) {
        let kept: usize = self.maps.iter().map(|m| m.len()).sum();
        if kept + map.len() <= self.room {
            self.maps.push(map);
        }
    }
}

fn lock(free: &Mutex<Free>) -> MutexGuard<'_, Free> {
    free.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whose pages are whose makes no difference to anyone: a clone starts with none.
impl Clone for Memory {
    fn clone(&self) -> Self {
        Memory::default()
    }
}

impl PartialEq for Memory {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}

impl Memory {
    /// Tensors of these shapes, whose values are whatever they were; and whether all are zeros.
    pub fn lend<T: Scalar>(&self, shapes: &[Vec<usize>]) -> (Vec<Tensor<T>>, bool) {
        let bytes = |shape: &[usize]| {
            let len = shape.iter().product::<usize>();
            len.saturating_mul(size_of::<T>())
        };
        let pages = |shape: &Vec<usize>| whole_pages(bytes(shape));
        let asked = (shapes.iter().filter_map(pages)).fold(0, usize::saturating_add);
        let mut free = Vec::new();
        // Those who ask for heap alone leave the pages to others.
        if asked > 0 {
            let mut there = lock(&self.0);
            there.room = asked;
            free = std::mem::take(&mut there.maps);
        }
        let mut zeros = true;
        let mut lend = |shape: &Vec<usize>| {
            let old = pages(shape).and_then(|whole| {
                let fits = free.iter().position(|map| map.len() == whole)?;
                zeros = false;
                Some(free.swap_remove(fits))
            });
            let Some(map) = old.or_else(|| new_pages(pages(shape)?)) else {
                return Tensor::zeros(shape);
            };
            let pages = Pages {
                map: Some(map),
                bytes: bytes(shape),
                lender: Arc::downgrade(&self.0),
            };
            Tensor {
                shape: shape.clone(),
                data: Buffer::Pages(pages, PhantomData),
            }
        };
        let tensors = shapes.iter().map(&mut lend).collect();
        (tensors, zeros)
    }
}

impl<T: Scalar> Buffer<T> {
    pub(super) fn zeros(len: usize) -> Self {
        let bytes = len.saturating_mul(size_of::<T>());
        match whole_pages(bytes).and_then(new_pages) {
            Some(map) => {
                let pages = Pages {
                    map: Some(map),
                    bytes,
                    lender: Weak::new(),
                };
                Buffer::Pages(pages, PhantomData)
            }
            None => Buffer::Heap(vec![T::ZERO; len]),
        }
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
            Buffer::Pages(pages, _) => {
                let map = pages.map.as_deref().unwrap_or_default();
                bytemuck::cast_slice(&map[..pages.bytes])
            }
        }
    }
}

impl<T: Scalar> DerefMut for Buffer<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Buffer::Heap(data) => data,
            Buffer::Pages(pages, _) => {
                let map = pages.map.as_deref_mut().unwrap_or_default();
                bytemuck::cast_slice_mut(&mut map[..pages.bytes])
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lent(memory: &Memory, shapes: &[&[usize]]) -> (Vec<Tensor<f32>>, bool) {
        let shapes: Vec<_> = shapes.iter().map(|shape| shape.to_vec()).collect();
        memory.lend(&shapes)
    }

    fn kept(memory: &Memory) -> usize {
        lock(&memory.0).maps.iter().map(|m| m.len()).sum()
    }

    #[test]
    fn pages_come_back_and_are_lent_again() {
        let memory = Memory::default();
        let (large, small) = ([1 << 20], [5, 7]);
        let (mut first, zeros) = lent(&memory, &[&large, &small, &large]);
        assert!(zeros && first.iter().all(|t| t.max_abs() == 0.0));
        first.iter_mut().for_each(|t| t.data_mut().fill(3.0));
        assert_eq!(kept(&memory), 0);
        drop(first);
        assert_eq!(kept(&memory), 8 << 20);

        // What is asked for on the heap alone leaves the pages where they are; another shape of as many pages has them.
        let _heap = lent(&memory, &[&small]);
        assert_eq!(kept(&memory), 8 << 20);
        let (again, zeros) = lent(&memory, &[&small, &[2, 512, 1000]]);
        assert!(!zeros);
        assert_eq!(again[0].max_abs(), 0.0);
        assert_eq!(again[1].max_abs(), 3.0);
        // The pages that were not wanted again are the system's.
        assert_eq!(kept(&memory), 0);
    }

    #[test]
    fn no_more_is_kept_than_was_asked_for_last() {
        let memory = Memory::default();
        let many: Vec<_> = (0..3).map(|_| lent(&memory, &[&[1 << 19]])).collect();
        drop(many);
        assert_eq!(kept(&memory), 2 << 20);
        let outlives = lent(&memory, &[&[1 << 20]]).0;
        drop(memory);
        assert_eq!(outlives[0].len(), 1 << 20);
    }
}
