//! The backward pass through an attention layer, from `z` to queries, keys and values.

use crate::kernel::abreast::product::{Keys, ROWS, Values, block, multiply, rows_at};
use crate::tensor::Scalar;
use pulp::{Simd, WithSimd};

/// The attention of as many sequences as a vector has lanes, from its end.
pub(crate) struct AttentionBack<'a, T> {
    pub heads: usize,
    pub d_head: usize,
    /// The queries that there are derivatives for.
    pub queries: &'a [usize],
    /// `[queries, head, d_head, lane]`, as are `d_z` and `d_q`.
    pub q: &'a [T],
    pub d_z: &'a [T],
    pub d_q: &'a mut [T],
    /// `[pos, head, d_head, lane]`, as are `v`, `d_k` and `d_v`.
    pub k: &'a [T],
    pub v: &'a [T],
    pub d_k: &'a mut [T],
    pub d_v: &'a mut [T],
    /// `[head, queries, key, lane]`, as are the derivatives by pattern and scores, where someone wants them.
    pub pattern: &'a [T],
    pub d_pattern: Option<&'a mut [T]>,
    pub d_scores: Option<&'a mut [T]>,
    /// What `q kᵀ` was multiplied by.
    pub factor: T,
    /// Whether no query sees a key after it.
    pub causal: bool,
    /// `[pos, lane]`: one for a key whose score is a constant, zero for the others.
    pub pad_keys: Option<&'a [T]>,
    /// Memory to work in, of [`AttentionBack::room`] values.
    pub work: &'a mut [T],
}

impl<T> AttentionBack<'_, T> {
    /// The shape of the memory to work in.
    pub fn room(queries: usize, pos: usize, lanes: usize) -> [usize; 3] {
        [ROWS + 2 * queries, pos, lanes]
    }
}

impl<T: Scalar> WithSimd for AttentionBack<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (heads, d_head, queries) = (self.heads, self.d_head, self.queries);
        let causal = self.causal;
        let stride = heads * d_head;
        let [q, k, v, d_z, pattern] =
            [self.q, self.k, self.v, self.d_z, self.pattern].map(|x| T::split::<S>(x).0);
        let [d_q, d_k, d_v] = [self.d_q, self.d_k, self.d_v].map(|x| T::split_mut::<S>(x).0);
        let is_pad = self.pad_keys.map(|pads| T::split::<S>(pads).0);
        let (n, pos) = (queries.len(), k.len() / stride);
        let splat = |x: T| T::splat(simd, x);
        let zero = splat(T::ZERO);
        let factor = splat(self.factor);
        let keep = |kept: &mut Option<&mut [T]>, h: usize, place: usize, row: &[T::V<S>]| {
            let Some(kept) = kept else { return };
            let to = &mut T::split_mut::<S>(kept).0[(h * n + place) * pos..][..pos];
            let (seen, rest) = to.split_at_mut(row.len());
            seen.copy_from_slice(row);
            rest.fill(zero);
        };
        // The derivatives by the scores of the queries at work; then those of all, and the pattern, by keys:
        // `[key, query]`.
        let (work, _) = T::split_mut::<S>(self.work);
        let (at_work, by_keys) = work.split_at_mut(ROWS * pos);
        let (d_by_key, by_key) = by_keys.split_at_mut(pos * n);
        for h in 0..heads {
            let head = h * d_head;
            let values = Keys::<T, S> {
                keys: &v[head..],
                stride,
                factor: splat(T::ONE),
            };
            let keys = Values::<T, S> {
                values: &k[head..],
                stride,
            };
            for first in (0..n).step_by(ROWS) {
                let places = block(first, n);
                let last = places.iter().map(|&place| queries[place]).max();
                let seen = match (causal, last) {
                    (true, Some(last)) => last + 1,
                    _ => pos,
                };
                let mut starts = places;
                starts.iter_mut().for_each(|s| *s = *s * stride + head);
                let rows = rows_at(d_z, starts, d_head);
                // The pattern's derivative is there even where the pattern is zero.
                let width = if self.d_pattern.is_some() { pos } else { seen };
                let own = [0, width, 2 * width, 3 * width];
                let d_scores = &mut at_work[..ROWS * width];
                multiply(simd, rows, &values, width, d_scores, own);
                for (d, place) in d_scores.chunks_exact_mut(width).zip(places) {
                    let pattern = &pattern[(h * n + place) * pos..][..seen];
                    keep(&mut self.d_pattern, h, place, d);
                    let d = &mut d[..seen];
                    let terms = d.iter().zip(pattern);
                    let shared = terms.fold(zero, |sum, (&d, &p)| T::mul_add(simd, d, p, sum));
                    for (d, &p) in d.iter_mut().zip(pattern) {
                        *d = T::vmul(simd, p, T::vsub(simd, *d, shared));
                    }
                    keep(&mut self.d_scores, h, place, d);
                    for (key, (d, &p)) in d.iter_mut().zip(pattern).enumerate() {
                        *d = T::vmul(simd, *d, factor);
                        if let Some(is_pad) = is_pad {
                            *d = T::where_less(simd, zero, is_pad[key], zero, *d);
                        }
                        d_by_key[key * n + place] = *d;
                        by_key[key * n + place] = p;
                    }
                    for key in seen..pos {
                        (d_by_key[key * n + place], by_key[key * n + place]) = (zero, zero);
                    }
                }
                multiply(
                    simd,
                    rows_at(d_scores, own, seen),
                    &keys,
                    d_head,
                    d_q,
                    starts,
                );
            }
            for first in (0..pos).step_by(ROWS) {
                let keys = block(first, pos);
                let (mut from, mut to) = (keys, keys);
                // Queries that see none of these keys add nothing.
                let unseen = match causal {
                    true => queries.iter().take_while(|q| **q < first).count(),
                    false => 0,
                };
                from.iter_mut().for_each(|key| *key = *key * n + unseen);
                to.iter_mut().for_each(|key| *key = *key * stride + head);
                for (by_key, rows, to_rows) in
                    [(&*d_by_key, q, &mut *d_k), (&*by_key, d_z, &mut *d_v)]
                {
                    let of_queries = Values::<T, S> {
                        values: &rows[(unseen * stride + head).min(rows.len())..],
                        stride,
                    };
                    let by_key = rows_at(by_key, from, n - unseen);
                    multiply(simd, by_key, &of_queries, d_head, to_rows, to);
                }
            }
        }
    }
}
