//! Where a tensor's values lie: on the heap, or large ones in pages of their own; and the memory that lends such pages.

use super::narrow::Narrow;
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
    Pages(Pages<T>),
    Narrow(Box<Narrow<T>>),
}

/// Pages, and how many values of them are a tensor's.
pub(super) struct Pages<T> {
    /// There until they are given back.
    map: Option<MmapMut>,
    len: usize,
    lender: Weak<Mutex<Free>>,
    values: PhantomData<T>,
}

impl<T> Pages<T> {
    fn new(map: MmapMut, len: usize, lender: Weak<Mutex<Free>>) -> Self {
        Pages {
            map: Some(map),
            len,
            lender,
            values: PhantomData,
        }
    }
}

impl<T> Drop for Pages<T> {
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
pub(crate) struct Memory<T>(Arc<Mutex<Free>>, PhantomData<T>);

#[derive(Default)]
struct Free {
    maps: Vec<MmapMut>,
    /// How many bytes of pages may be kept.
    room: usize,
}

impl Free {
    fn kept(&self) -> usize {
        self.maps.iter().map(|map| map.len()).sum()
    }

    fn take_back(&mut self, map: MmapMut) {
        if self.kept() + map.len() <= self.room {
            self.maps.push(map);
        }
    }
}

fn lock(free: &Mutex<Free>) -> MutexGuard<'_, Free> {
    free.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Memory(Arc::default(), PhantomData)
    }
}

/// Whose pages are whose makes no difference to anyone: a clone starts with none.
impl<T> Clone for Memory<T> {
    fn clone(&self) -> Self {
        Memory::default()
    }
}

impl<T> PartialEq for Memory<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> fmt::Debug for Memory<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}

impl<T: Scalar> Memory<T> {
    /// Tensors of these shapes, whose values are whatever they were.
    pub fn lend(&self, shapes: &[Vec<usize>]) -> Vec<Tensor<T>> {
        let len = |shape: &[usize]| shape.iter().product::<usize>();
        let pages = |shape: &[usize]| whole_pages(len(shape).saturating_mul(size_of::<T>()));
        let room = (shapes.iter().filter_map(|s| pages(s))).fold(0, usize::saturating_add);
        let mut free = Vec::new();
        // Those who ask for heap alone leave the pages to others.
        if room > 0 {
            let mut there = lock(&self.0);
            there.room = room;
            free = std::mem::take(&mut there.maps);
        }
        let mut of_pages = |whole: usize| {
            let again = free.iter().position(|map: &MmapMut| map.len() == whole);
            again.map_or_else(|| new_pages(whole), |at| Some(free.swap_remove(at)))
        };
        let tensor = |shape: &Vec<usize>| match pages(shape).and_then(&mut of_pages) {
            None => Tensor::zeros(shape),
            Some(map) => Tensor {
                shape: shape.clone(),
                data: Buffer::Pages(Pages::new(map, len(shape), Arc::downgrade(&self.0))),
            },
        };
        shapes.iter().map(tensor).collect()
    }
}

impl<T: Scalar> Buffer<T> {
    pub(super) fn zeros(len: usize) -> Self {
        let bytes = len.saturating_mul(size_of::<T>());
        match whole_pages(bytes).and_then(new_pages) {
            Some(map) => Buffer::Pages(Pages::new(map, len, Weak::new())),
            None => Buffer::Heap(vec![T::ZERO; len]),
        }
    }

    pub(super) fn into_vec(self) -> Vec<T> {
        match self {
            Buffer::Heap(data) => data,
            Buffer::Pages(..) => self.to_vec(),
            Buffer::Narrow(narrow) => narrow.into_wide(),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Buffer::Heap(data) => data.len(),
            Buffer::Pages(pages) => pages.len,
            Buffer::Narrow(narrow) => narrow.len(),
        }
    }
}

impl<T: Scalar> Deref for Buffer<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match self {
            Buffer::Heap(data) => data,
            Buffer::Pages(pages) => {
                let map = pages.map.as_deref().unwrap_or_default();
                &bytemuck::cast_slice(map)[..pages.len]
            }
            Buffer::Narrow(narrow) => narrow.wide(),
        }
    }
}

impl<T: Scalar> DerefMut for Buffer<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        if let Buffer::Narrow(_) = self {
            let narrow = std::mem::replace(self, Buffer::Heap(Vec::new()));
            *self = Buffer::Heap(narrow.into_vec());
        }
        match self {
            Buffer::Narrow(_) => unreachable!("it is wide now"),
            Buffer::Heap(data) => data,
            Buffer::Pages(pages) => {
                let map = pages.map.as_deref_mut().unwrap_or_default();
                &mut bytemuck::cast_slice_mut(map)[..pages.len]
            }
        }
    }
}

impl<T: Scalar> Clone for Buffer<T> {
    fn clone(&self) -> Self {
        if let Buffer::Narrow(narrow) = self {
            return Buffer::Narrow(narrow.clone());
        }
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

    fn lent(memory: &Memory<f32>, shapes: &[&[usize]]) -> Vec<Tensor<f32>> {
        let all: Vec<_> = shapes.iter().map(|shape| shape.to_vec()).collect();
        memory.lend(&all)
    }

    fn kept(memory: &Memory<f32>) -> usize {
        lock(&memory.0).kept()
    }

    #[test]
    fn pages_come_back_and_are_lent_again() {
        let memory = Memory::default();
        let (large, small) = ([1 << 20], [5, 7]);
        let mut first = lent(&memory, &[&large, &small, &large]);
        for t in &mut first {
            assert_eq!(t.max_abs(), 0.0);
            t.data_mut().fill(3.0);
        }
        assert_eq!(kept(&memory), 0);
        drop(first);
        assert_eq!(kept(&memory), 8 << 20);

        // What is asked for on the heap alone leaves the pages where they are; another shape of as many pages has them.
        let _heap = lent(&memory, &[&small]);
        assert_eq!(kept(&memory), 8 << 20);
        let again = lent(&memory, &[&small, &[2, 512, 1000]]);
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
        let outlives = lent(&memory, &[&[1 << 20]]);
        drop(memory);
        assert_eq!(outlives[0].len(), 1 << 20);
    }
}
