//! Rows of a stretch's values: those of the clean run, those that have changed, and one over the other.

use super::Resume;
use crate::diagram::Value;
use crate::names::{Head, Hook};
use crate::op;
use crate::tensor::{Scalar, Tensor};

/// A value at some positions of every sequence, in order: `[batch, positions, …]`.
pub(crate) struct Rows<T: Scalar> {
    pub positions: Vec<usize>,
    pub values: Tensor<T>,
}

impl<T: Scalar> Resume<'_, T> {
    /// The clean run's value at some positions. Of scores and patterns, the queries'.
    pub fn clean_rows(&mut self, hook: Hook, positions: &[usize]) -> Rows<T> {
        let value = &self.clean.cache[hook];
        let sequences = &self.stretch.sequences;
        let values = if hook.position_axis() == 2 {
            let &[_, heads, _, keys] = value.shape() else {
                unreachable!("patterns have four axes")
            };
            let shape = [sequences.len(), heads, positions.len(), keys];
            let mut out = self.scratch.take(&shape);
            let mut to = out.data_mut().chunks_exact_mut(keys);
            for &sequence in sequences {
                for head in 0..heads {
                    for (&p, to) in positions.iter().zip(&mut to) {
                        to.copy_from_slice(value.slice(&[sequence, head, p]));
                    }
                }
            }
            out
        } else {
            let mut shape = value.shape().to_vec();
            let width = shape[2..].iter().product();
            (shape[0], shape[1]) = (sequences.len(), positions.len());
            let mut out = self.scratch.take(&shape);
            let from = sequences.iter().map(|&s| value.slice(&[s]));
            gather(from, width, positions, out.data_mut());
            out
        };
        Rows {
            positions: positions.to_vec(),
            values,
        }
    }

    /// A value at some positions: as it has changed, or else as in the clean run. The last to read it has it itself.
    pub(super) fn beside_clean(
        &mut self,
        (value, last): (Value, bool),
        wanted: &[usize],
    ) -> Tensor<T> {
        let hook = self.model().diagram.values[value];
        let Some(changed) = self.changed[value].take() else {
            return self.clean_rows(hook, wanted).values;
        };
        if last && changed.positions == wanted {
            return changed.values;
        }
        let values = self.overlay(hook, wanted, &changed);
        self.changed[value] = Some(changed);
        values
    }

    /// The clean run's value, but where it has changed: at `wanted` positions.
    fn overlay(&mut self, hook: Hook, wanted: &[usize], changed: &Rows<T>) -> Tensor<T> {
        if wanted.iter().all(|p| changed.positions.contains(p)) {
            return self.of(changed, wanted);
        }
        let mut rows = self.clean_rows(hook, wanted);
        if changed.positions.is_empty() {
            return rows.values;
        }
        let width = rows.values.len() / (self.count() * wanted.len());
        let places: Vec<(usize, usize)> = (wanted.iter().enumerate())
            .filter_map(|(to, p)| Some((to, changed.positions.iter().position(|q| q == p)?)))
            .collect();
        let from = changed
            .values
            .data()
            .chunks_exact(changed.positions.len() * width);
        let to = rows
            .values
            .data_mut()
            .chunks_exact_mut(wanted.len() * width);
        for (to, from) in to.zip(from) {
            for &(i, j) in &places {
                to[i * width..(i + 1) * width].copy_from_slice(&from[j * width..(j + 1) * width]);
            }
        }
        rows.values
    }

    /// Some of the rows.
    fn of(&mut self, rows: &Rows<T>, positions: &[usize]) -> Tensor<T> {
        let mut shape = rows.values.shape().to_vec();
        let width: usize = shape[2..].iter().product();
        shape[1] = positions.len();
        let mut out = self.scratch.take(&shape);
        if positions == rows.positions {
            out.data_mut().copy_from_slice(rows.values.data());
            return out;
        }
        let place = |p| (rows.positions.iter().position(|q| q == p)).expect("one of the rows");
        let places: Vec<usize> = positions.iter().map(place).collect();
        let each = (rows.positions.len() * width).max(1);
        let from = rows.values.data().chunks_exact(each);
        gather(from, width, &places, out.data_mut());
        out
    }

    /// What one head of layer `l` writes in the first `count` sequences, `[count, positions, d_model]`, from the clean
    /// run's `z`.
    pub fn head_result(
        &mut self,
        l: usize,
        head: usize,
        count: usize,
        positions: &[usize],
    ) -> Tensor<T> {
        let z = &self.clean.cache[Hook::Z(l)];
        let (heads, d_head) = (z.shape()[2], z.shape()[3]);
        let mut of_head = self.scratch.take(&[count, positions.len(), d_head]);
        let places: Vec<usize> = positions.iter().map(|p| p * heads + head).collect();
        let from = self.stretch.sequences[..count].iter();
        let from = from.map(|&s| z.slice(&[s]));
        gather(from, d_head, &places, of_head.data_mut());
        let W_O = self.model().weights().W_O(Head { layer: l, head });
        let mut out = self.scratch.take(&[count, positions.len(), W_O.ncols()]);
        op::head_result(of_head.data(), W_O, out.data_mut());
        self.scratch.give(of_head);
        out
    }
}

/// The rows, `width` wide, at some of every sequence's places.
fn gather<'a, T: Copy + 'a>(
    sequences: impl Iterator<Item = &'a [T]>,
    width: usize,
    places: &[usize],
    out: &mut [T],
) {
    let out = out.chunks_exact_mut((places.len() * width).max(1));
    for (mut to, from) in out.zip(sequences) {
        // Neighbours at once: mostly these are all the places there are.
        for places in places.chunk_by(|a, b| a + 1 == *b) {
            let (own, others) = to.split_at_mut(places.len() * width);
            own.copy_from_slice(&from[places[0] * width..][..own.len()]);
            to = others;
        }
    }
}
