//! The attention of a run that is resumed: of changed queries, keys and values.

use super::Resume;
use crate::diagram::Step;
use crate::kernel::{self, AttendRows};
use crate::linalg::product_into;
use crate::op::{Attention, Layout, group_of};
use crate::tensor::{Scalar, Tensor};

impl<T: Scalar> Resume<'_, T> {
    /// What the heads of layer `l` mix at some queries, `[batch, queries, head, d_head]`.
    pub(super) fn attend(&mut self, l: usize, step: &Step, queries: &[usize]) -> Tensor<T> {
        let model = self.model();
        let pos = self.stretch.length;
        let all: Vec<usize> = (0..pos).collect();
        let q = self.beside_clean(step.reads[0].0, queries);
        let [k, v] = [1, 2].map(|i| self.beside_clean(step.reads[i].0, &all));
        let factor = model.score_factor(l);
        let pads = self.pads.take();
        let masks = model.masks(pads.as_deref());
        let mut z = self.scratch.take(q.shape());
        let attention = Attention {
            queries,
            q: &q,
            k: &k,
            v: &v,
            factor,
            masks,
        };
        if queries.len() == pos && attention.in_one_go(Layout::ROWS) {
            attention.mix(Layout::ROWS, [None, None], &mut z);
            self.note_queries_and_keys(q.data(), k.data(), q.shape()[3], factor);
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
                factor,
                causal: masks.causal,
                pad_keys: masks.pads,
                z: z.data_mut(),
            });
            self.note_largest_scores(least);
        }
        self.pads = pads;
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
