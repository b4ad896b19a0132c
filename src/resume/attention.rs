//! The attention of a run that is resumed: of changed queries, keys and values.

use super::Resume;
use super::reach::goes_on_from_pattern;
use crate::diagram::{Step, Value};
use crate::kernel::{self, AttendRows, ChangedKeys};
use crate::linalg::product_into;
use crate::op::{Attention, Layout};
use crate::tensor::{Scalar, Tensor};

impl<T: Scalar> Resume<'_, T> {
    /// What the heads of layer `l` mix at some queries, `[batch, queries, head, d_head]`.
    pub(super) fn attend(&mut self, l: usize, step: &Step, queries: &[usize]) -> Tensor<T> {
        let [_, k, v] = [0, 1, 2].map(|i| step.reads[i].0);
        let mut keys = [self.positions(k), self.positions(v)].concat();
        keys.sort_unstable();
        keys.dedup();
        match goes_on_from_pattern(keys.len(), self.stretch.length) && self.kept(step) {
            true => self.attend_to_changed(l, step, queries, &keys),
            false => self.attend_to_all(l, step, queries),
        }
    }

    /// Where a value has changed.
    fn positions(&self, value: Value) -> &[usize] {
        let rows = self.changed[value].as_ref();
        rows.map_or(&[], |rows| &rows.positions)
    }

    /// Whether the clean run has what a change of few keys goes on from.
    fn kept(&self, step: &Step) -> bool {
        let [.., pattern, z] = step.gives[..] else {
            unreachable!("an attention gives scores, pattern and z")
        };
        let reads = step.reads.iter().map(|&(value, _)| value);
        let mut hooks = reads
            .chain([pattern, z])
            .map(|v| self.model().diagram.values[v]);
        hooks.all(|hook| self.clean.cache.get(hook).is_some())
    }

    /// As [`Resume::attend`], from the clean run's pattern and mix.
    fn attend_to_changed(
        &mut self,
        l: usize,
        step: &Step,
        queries: &[usize],
        keys: &[usize],
    ) -> Tensor<T> {
        let model = self.model();
        let hooks = &model.diagram.values;
        let [q, k, v] = [0, 1, 2].map(|i| step.reads[i].0);
        let (pattern, z) = (hooks[step.gives[1]], hooks[step.gives[2]]);
        let mut z = self.clean_rows(z, queries).values;
        let clean_q = self.clean_rows(hooks[q], queries).values;
        let old = [k, v].map(|value| self.clean_rows(hooks[value], keys).values);
        let new = [k, v].map(|value| self.beside_clean(value, keys));
        let &[_, _, heads, d_head] = z.shape() else {
            unreachable!("z has four axes")
        };
        let again = kernel::change(ChangedKeys {
            queries,
            keys,
            sequences: &self.stretch.sequences,
            length: self.stretch.length,
            heads,
            d_head,
            q: clean_q.data(),
            old: [old[0].data(), old[1].data()],
            new: [new[0].data(), new[1].data()],
            pattern: &self.clean.cache[pattern],
            factor: model.score_factor(l),
            causal: model.masks(None).causal,
            pad_keys: self.pads.as_deref(),
            z: z.data_mut(),
        });
        let changed = self.positions(q);
        let again: Vec<usize> = (queries.iter().enumerate())
            .filter(|(place, query)| again.contains(place) || changed.contains(query))
            .map(|(_, &query)| query)
            .collect();
        [clean_q]
            .into_iter()
            .chain(old)
            .chain(new)
            .for_each(|t| self.scratch.give(t));
        if again.is_empty() {
            return z;
        }
        let anew = self.attend_to_all(l, step, &again);
        let width = heads * d_head;
        let sequences = z.data_mut().chunks_exact_mut(queries.len() * width);
        for (z, from) in sequences.zip(anew.data().chunks_exact(again.len() * width)) {
            for (query, from) in again.iter().zip(from.chunks_exact(width)) {
                let place = queries.iter().position(|q| q == query);
                let place = place.expect("one of the queries");
                z[place * width..(place + 1) * width].copy_from_slice(from);
            }
        }
        self.scratch.give(anew);
        z
    }

    /// As [`Resume::attend`], with all keys.
    fn attend_to_all(&mut self, l: usize, step: &Step, queries: &[usize]) -> Tensor<T> {
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
                let (pattern, v) = (pattern.mat(&[i, h]), v.head(sequence, h));
                product_into(z.head_mut(i, h), T::ONE, pattern, v);
            }
        }
    }
}
