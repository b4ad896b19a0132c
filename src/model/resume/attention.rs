//! The attention of a run that is resumed: of changed streams, queries, keys and values.

use super::attend_rows::{AttendRows, attend_rows};
use super::changed_keys::{ChangedKeys, change};
use super::{Resume, Rows};
use crate::linalg::product_into;
use crate::model::ops::Layout;
use crate::model::run::Sites;
use crate::model::{AttentionDir, attend, ops};
use crate::names::Hook;
use crate::tensor::{Scalar, Tensor};
use faer::{MatMut, MatRef};

impl<T: Scalar> Resume<'_, T> {
    /// What the heads of layer `l` mix at some queries, from the stream where it has changed.
    pub(super) fn mix(&mut self, l: usize, queries: &[usize], stream: &Rows<T>) -> Tensor<T> {
        if self.few(queries, &stream.positions) {
            return self.attend_to_stream(l, queries, stream);
        }
        let [q, k, v] = self.project(l, stream, queries);
        let z = self.attend(l, queries, q, &k, &v);
        [k, v]
            .into_iter()
            .for_each(|rows| self.scratch.give(rows.values));
        z
    }

    /// Whether everything has changed and so few queries are looked at that keys and values of all positions would be
    /// more work than to take each query back through `W_K`, and each mix on through `W_V`.
    fn few(&self, queries: &[usize], changed: &[usize]) -> bool {
        let (length, d_head) = (self.stretch.length, self.model().config.d_head);
        changed.len() == length && 2 * queries.len() * (length + d_head) <= length * d_head
    }

    /// What the attention of layer `l` reads of the stream.
    fn read_by_heads(&mut self, l: usize, stream: &Rows<T>) -> Rows<T> {
        let model = self.model();
        let sites = &mut Sites::none(self.scratch);
        Rows {
            values: model.read_by_attention(l, &stream.values, sites, Layout::ROWS),
            positions: stream.positions.clone(),
        }
    }

    /// What the heads of layer `l` mix at some queries: `q kᵀ = (q W_Kᵀ) xᵀ + q b_K`, and
    /// `Σ p (x W_V + b_V) = (Σ p x) W_V + b_V`.
    fn attend_to_stream(&mut self, l: usize, queries: &[usize], stream: &Rows<T>) -> Tensor<T> {
        let model = self.model();
        let (c, attn) = (&model.config, &model.weights.blocks[l].attn);
        let (heads, d_head, d_model) = (c.n_heads, c.d_head, c.d_model);
        let x = self.read_by_heads(l, stream);
        let own = self.of(&x, queries);
        let [mut q, mut z] = [(); 2].map(|()| {
            self.scratch
                .take(&[self.count(), queries.len(), heads, d_head])
        });
        ops::project_heads(Layout::ROWS, own.data(), &attn.W_Q, &attn.b_Q, q.data_mut());
        let [mut reads, mut mixes] = [(); 2].map(|()| {
            self.scratch
                .take(&[self.count(), queries.len(), heads, d_model])
        });
        let rows = self.count() * queries.len();
        let of_head = |h: usize, from: &Tensor<T>, W: MatRef<'_, T>, to: &mut Tensor<T>| {
            let (n, m) = (W.nrows(), W.ncols());
            let from = MatRef::from_row_major_slice(from.data(), rows, heads * n);
            let to = MatMut::from_row_major_slice_mut(to.data_mut(), rows, heads * m);
            let to = to.subcols_mut(h * m, m);
            product_into(to, T::ONE, from.subcols(h * n, n), W);
        };
        for h in 0..heads {
            of_head(h, &q, attn.W_K.mat(&[h]).transpose(), &mut reads);
        }
        let offsets: Vec<T> = q
            .data()
            .chunks_exact(d_head)
            .zip(attn.b_K.data().chunks_exact(d_head).cycle())
            .map(|(q, b)| q.iter().zip(b).map(|(&q, &b)| q * b).sum())
            .collect();
        let largest = attend_rows(AttendRows {
            queries,
            pos: self.stretch.length,
            heads,
            d_head: d_model,
            q: reads.data(),
            k: x.values.data(),
            v: x.values.data(),
            shared: true,
            offsets: Some(&offsets),
            factor: T::ONE / T::from_f64(c.score_scale(l)),
            causal: c.attention_dir == AttentionDir::Causal,
            pad_keys: self.pads.as_deref(),
            z: mixes.data_mut(),
        });
        self.note_largest_scores(largest);
        for h in 0..heads {
            of_head(h, &mixes, attn.W_V.mat(&[h]), &mut z);
        }
        for z in z.data_mut().chunks_exact_mut(heads * d_head) {
            z.iter_mut()
                .zip(attn.b_V.data())
                .for_each(|(z, &b)| *z += b);
        }
        [x.values, own, q, reads, mixes]
            .into_iter()
            .for_each(|t| self.scratch.give(t));
        z
    }

    /// Layer `l`'s queries at the positions reached, and its keys and values where they have changed.
    fn project(&mut self, l: usize, stream: &Rows<T>, reached: &[usize]) -> [Rows<T>; 3] {
        let model = self.model();
        let (c, attn) = (&model.config, &model.weights.blocks[l].attn);
        let x = self.read_by_heads(l, stream);
        let own: Vec<usize> = reached
            .iter()
            .copied()
            .filter(|p| x.positions.contains(p))
            .collect();
        let x_own = self.of(&x, &own);
        let mut project = |x: &Tensor<T>, W: &Tensor<T>, b: &Tensor<T>| {
            let mut out = self
                .scratch
                .take(&[x.shape()[0], x.shape()[1], c.n_heads, c.d_head]);
            ops::project_heads(Layout::ROWS, x.data(), W, b, out.data_mut());
            out
        };
        let values = [
            project(&x_own, &attn.W_Q, &attn.b_Q),
            project(&x.values, &attn.W_K, &attn.b_K),
            project(&x.values, &attn.W_V, &attn.b_V),
        ];
        [x_own, x.values]
            .into_iter()
            .for_each(|x| self.scratch.give(x));
        let positions = [own, x.positions.clone(), x.positions];
        let mut rows = positions.into_iter().zip(values);
        [(); 3].map(|()| {
            let (positions, values) = rows.next().expect("three");
            Rows { positions, values }
        })
    }

    /// What the heads of layer `l` mix at some queries, `[batch, queries, head, d_head]`.
    pub(super) fn attend(
        &mut self,
        l: usize,
        queries: &[usize],
        q: Rows<T>,
        k: &Rows<T>,
        v: &Rows<T>,
    ) -> Tensor<T> {
        let mut keys = [&k.positions[..], &v.positions].concat();
        keys.sort_unstable();
        keys.dedup();
        match few_keys(keys.len(), self.stretch.length) && self.kept(l) {
            true => self.attend_to_changed(l, queries, &keys, q, k, v),
            false => self.attend_to_all(l, queries, q, k, v),
        }
    }

    /// Whether the clean run has what a change of few keys goes on from.
    fn kept(&self, l: usize) -> bool {
        let hooks = [Hook::Q, Hook::K, Hook::V, Hook::Pattern, Hook::Z].map(|hook| hook(l));
        hooks
            .iter()
            .all(|&hook| self.clean.cache.get(hook).is_some())
    }

    /// As [`Resume::attend`], from the clean run's pattern and mix.
    fn attend_to_changed(
        &mut self,
        l: usize,
        queries: &[usize],
        keys: &[usize],
        q: Rows<T>,
        k: &Rows<T>,
        v: &Rows<T>,
    ) -> Tensor<T> {
        let c = &self.model().config;
        let mut z = self.clean_rows(Hook::Z(l), queries).values;
        let clean_q = self.clean_rows(Hook::Q(l), queries).values;
        let old = [Hook::K(l), Hook::V(l)].map(|hook| self.clean_rows(hook, keys).values);
        let new =
            [(Hook::K(l), k), (Hook::V(l), v)].map(|(hook, rows)| self.overlay(hook, keys, rows));
        let again = change(ChangedKeys {
            queries,
            keys,
            sequences: &self.stretch.sequences,
            length: self.stretch.length,
            heads: c.n_heads,
            d_head: c.d_head,
            q: clean_q.data(),
            old: [old[0].data(), old[1].data()],
            new: [new[0].data(), new[1].data()],
            pattern: &self.clean.cache[Hook::Pattern(l)],
            factor: T::ONE / T::from_f64(c.score_scale(l)),
            causal: c.attention_dir == AttentionDir::Causal,
            pad_keys: self.pads.as_deref(),
            z: z.data_mut(),
        });
        let again: Vec<usize> = (queries.iter().enumerate())
            .filter(|(place, query)| again.contains(place) || q.positions.contains(query))
            .map(|(_, &query)| query)
            .collect();
        [clean_q]
            .into_iter()
            .chain(old)
            .chain(new)
            .for_each(|t| self.scratch.give(t));
        if again.is_empty() {
            self.scratch.give(q.values);
            return z;
        }
        let anew = Rows {
            values: self.attend_to_all(l, &again, q, k, v),
            positions: again,
        };
        let width = c.n_heads * c.d_head;
        let sequences = z.data_mut().chunks_exact_mut(queries.len() * width);
        let from = anew
            .values
            .data()
            .chunks_exact(anew.positions.len() * width);
        for (z, from) in sequences.zip(from) {
            for (query, from) in anew.positions.iter().zip(from.chunks_exact(width)) {
                let place = queries
                    .iter()
                    .position(|q| q == query)
                    .expect("one of the queries");
                z[place * width..(place + 1) * width].copy_from_slice(from);
            }
        }
        self.scratch.give(anew.values);
        z
    }

    /// As [`Resume::attend`], with all keys.
    fn attend_to_all(
        &mut self,
        l: usize,
        queries: &[usize],
        q: Rows<T>,
        k: &Rows<T>,
        v: &Rows<T>,
    ) -> Tensor<T> {
        let c = &self.model().config;
        let pos = self.stretch.length;
        let all: Vec<usize> = (0..pos).collect();
        let q_rows = self.overlay(Hook::Q(l), queries, &q);
        self.scratch.give(q.values);
        let whole = |this: &mut Self, hook, rows: &Rows<T>| {
            (rows.positions.len() < pos).then(|| this.overlay(hook, &all, rows))
        };
        let (k_all, v_all) = (whole(self, Hook::K(l), k), whole(self, Hook::V(l), v));
        let keys = k_all.as_ref().unwrap_or(&k.values);
        let values = v_all.as_ref().unwrap_or(&v.values);
        let scale = T::from_f64(c.score_scale(l));
        let causal = c.attention_dir == AttentionDir::Causal;
        let mut z = self.scratch.take(q_rows.shape());
        if queries.len() == pos && attend::is_short::<T>(pos, c.d_head) {
            let factor = T::ONE / scale;
            self.note_queries_and_keys(q_rows.data(), keys.data(), c.d_head, factor);
            let masks = (causal, self.pads.as_deref());
            ops::attend(
                Layout::ROWS,
                (&q_rows, queries),
                [keys, values],
                scale,
                masks,
                [None, None],
                &mut z,
            );
        } else {
            let largest = attend_rows(AttendRows {
                queries,
                pos,
                heads: c.n_heads,
                d_head: c.d_head,
                q: q_rows.data(),
                k: keys.data(),
                v: values.data(),
                shared: false,
                offsets: None,
                factor: T::ONE / scale,
                causal,
                pad_keys: self.pads.as_deref(),
                z: z.data_mut(),
            });
            self.note_largest_scores(largest);
        }
        [Some(q_rows), k_all, v_all]
            .into_iter()
            .flatten()
            .for_each(|t| self.scratch.give(t));
        z
    }
}

/// Whether so few keys have changed that each query's mix is changed by them, rather than made anew.
fn few_keys(changed: usize, pos: usize) -> bool {
    changed > 0 && 4 * changed <= pos
}

/// What the attention of a layer goes on from, besides queries, keys and values, when so many keys have changed.
pub(crate) fn goes_on_from(l: usize, changed: usize, pos: usize) -> Vec<Hook> {
    match few_keys(changed, pos) {
        true => vec![Hook::Pattern(l), Hook::Z(l)],
        false => Vec::new(),
    }
}
