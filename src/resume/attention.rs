//! The attention of a run that is resumed: of changed queries, keys and values.

use super::{Left, Resume};
use crate::diagram::Step;
use crate::kernel::{self, AttendRows};
use crate::linalg::product_into;
use crate::op::{self, Attention, Layout, group_of};
use crate::tensor::{Scalar, Tensor};

impl<T: Scalar> Resume<'_, T> {
    /// What the heads of layer `l` mix at some queries, `[batch, queries, head, d_head]`.
    pub(super) fn attend(&mut self, l: usize, step: &Step, queries: &[usize]) -> Tensor<T> {
        let model = self.model();
        let pos = self.stretch.length;
        let all: Vec<usize> = (0..pos).collect();
        let q = self.beside_clean(step.reads[0], queries);
        let [k, v] = [1, 2].map(|i| self.beside_clean(step.reads[i], &all));
        let scoring = model.scoring(l);
        let (pads, attended) = (self.pads.take(), self.attended.take());
        let masks = model.masks(l, pads.as_deref(), attended.as_ref().map(Left::attended));
        let mut z = self.scratch.take(q.shape());
        let attention = Attention {
            queries,
            q: &q,
            k: &k,
            v: &v,
            scoring,
            masks,
        };
        if queries.len() == pos && attention.in_one_go(Layout::ROWS) {
            attention.mix(Layout::ROWS, [None, None], &mut z);
            self.note_queries_and_keys(q.data(), k.data(), q.shape()[3], scoring.factor);
        } else if !attention.is_plain() {
            let square = [q.shape()[0], q.shape()[2], queries.len(), pos];
            let mut scores = self.scratch.take(&square);
            attention.scores(Layout::ROWS.par(), &mut scores);
            self.note_largest_scores(least_of_largest(scores.data(), pos));
            op::softmax(Layout::ROWS.par(), &mut scores);
            op::weigh(Layout::ROWS.par(), &scores, &v, &mut z);
            self.scratch.give(scores);
        } else {
            let least = kernel::attend_rows(AttendRows {
                queries,
                pos,
                heads: q.shape()[2],
                groups: k.shape()[2],
                d_head: q.shape()[3],
                q: q.data(),
                k: k.data(),
                v: v.data(),
                factor: scoring.factor,
                causal: masks.causal,
                pad_keys: masks.pads,
                z: z.data_mut(),
            });
            self.note_largest_scores(least);
        }
        (self.pads, self.attended) = (pads, attended);
        [q, k, v].into_iter().for_each(|t| self.scratch.give(t));
        z
    }

    /// `z = pattern v`, at some queries.
    pub(super) fn weigh(&self, step: &Step, pattern: &Tensor<T>, z: &mut Tensor<T>) {
        let v = &self.clean.cache[self.model().diagram.values[step.reads[2].0]];
        for (i, &sequence) in self.stretch.sequences.iter().enumerate() {
            for h in 0..z.shape()[2] {
                let g = group_of(h, z.shape()[2], v);
                let (pattern, v) = (pattern.mat(&[i, h]), v.head(sequence, g));
                product_into(z.head_mut(i, h), T::ONE, pattern, v);
            }
        }
    }
}

/// The least of each query's largest score; of a NaN, that.
fn least_of_largest<T: Scalar>(scores: &[T], keys: usize) -> T {
    let largest = |row: &[T]| {
        row.iter()
            .fold(-T::INFINITY, |m, &x| if x > m { x } else { m })
    };
    let known = scores.iter().all(|x| !x.is_nan());
    let rows = scores.chunks_exact(keys).map(largest);
    match known {
        true => rows.fold(T::INFINITY, |m, x| if x < m { x } else { m }),
        false => T::from_f64(f64::NAN),
    }
}
