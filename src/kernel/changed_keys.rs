//! Attention when few keys have changed: each query's mix of the clean run, less what the old keys gave it, plus what
//! the new ones do.

use crate::tensor::{Scalar, Tensor, load_over};
use pulp::{Arch, Simd, WithSimd};

/// Some queries that have not changed, of some sequences that a few keys have changed in.
///
/// With the clean pattern `a`, a key's new weight is `r = a exp(δ)` before all are divided by `n = 1 + Σ (r - a)`, where
/// `δ` is how much its score has grown; so `z' = (z + Σ (r v' - a v)) / n`.
pub(crate) struct ChangedKeys<'a, T: Scalar> {
    /// The queries' positions, the same in every sequence, as are the changed keys'.
    pub queries: &'a [usize],
    pub keys: &'a [usize],
    /// Which of the clean run's sequences they are, and how many positions of theirs there are here.
    pub sequences: &'a [usize],
    pub length: usize,
    pub heads: usize,
    pub d_head: usize,
    /// The queries, `[batch, queries, head, d_head]`.
    pub q: &'a [T],
    /// The clean run's, `[batch, keys, head, d_head]`.
    pub old: [&'a [T]; 2],
    /// Keys and values as they are now.
    pub new: [&'a [T]; 2],
    /// That of all the clean run's sequences and positions, `[batch, head, pos, pos]`.
    pub pattern: &'a Tensor<T>,
    /// What `q kᵀ` is multiplied by.
    pub factor: T,
    pub causal: bool,
    /// `[batch, length]`
    pub pad_keys: Option<&'a [bool]>,
    /// The clean run's, `[batch, queries, head, d_head]`, to be changed.
    pub z: &'a mut [T],
}

/// Changes `z`, and gives the places among the queries of those that have to be computed anew: where the changed keys
/// had so much of the attention that what is left is not known well enough, or too little to know how much it becomes.
pub(crate) fn change<T: Scalar>(rows: ChangedKeys<'_, T>) -> Vec<usize> {
    Arch::new().dispatch(rows)
}

impl<T: Scalar> WithSimd for ChangedKeys<'_, T> {
    type Output = Vec<usize>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<usize> {
        let ChangedKeys {
            queries,
            keys,
            sequences,
            length,
            heads,
            d_head,
            ..
        } = self;
        let lanes = size_of::<T::V<S>>() / size_of::<T>();
        let (width, pos) = (heads * d_head, self.pattern.shape()[3]);
        let chunk = |x: &[T], i: usize| {
            let at = i * lanes;
            load_over::<T, S>(simd, &x[at..], lanes.min(d_head - at))
        };
        let vectors = d_head.div_ceil(lanes);
        // Below, `a exp(δ)` may be a small number that has lost its digits.
        let half = T::ONE / (T::ONE + T::ONE);
        let tiny = T::EPSILON * T::EPSILON * T::EPSILON * T::EPSILON;
        let mut again = vec![false; queries.len()];
        let mut sums = vec![T::splat(simd, T::ZERO); vectors];
        let rows = self.q.chunks_exact(width);
        for (i, (q, z)) in rows.zip(self.z.chunks_exact_mut(width)).enumerate() {
            let (sequence, place) = (i / queries.len(), i % queries.len());
            let query = queries[place];
            let patterns = self.pattern.slice(&[sequences[sequence]]);
            for h in 0..heads {
                let head = h * d_head..(h + 1) * d_head;
                let (q, z) = (&q[head.clone()], &mut z[head]);
                let pattern = &patterns[(h * pos + query) * pos..][..pos];
                sums.iter_mut()
                    .enumerate()
                    .for_each(|(i, sum)| *sum = chunk(z, i));
                let mut n = T::ONE;
                for (j, &key) in keys.iter().enumerate() {
                    let is_pad = self
                        .pad_keys
                        .is_some_and(|pads| pads[sequence * length + key]);
                    if self.causal && key > query && !is_pad {
                        continue;
                    }
                    let at = (sequence * keys.len() + j) * width + h * d_head;
                    let [old_k, old_v, new_k, new_v] =
                        [self.old[0], self.old[1], self.new[0], self.new[1]].map(|x| &x[at..]);
                    let grown = match is_pad {
                        true => T::ZERO,
                        false => {
                            let zero = T::splat(simd, T::ZERO);
                            let sum = (0..vectors).fold(zero, |sum, i| {
                                let by = T::vsub(simd, chunk(new_k, i), chunk(old_k, i));
                                T::mul_add(simd, chunk(q, i), by, sum)
                            });
                            T::reduce_sum(simd, sum) * self.factor
                        }
                    };
                    let old = pattern[key];
                    let new = old * grown.exp();
                    n += new - old;
                    // A NaN is computed anew too.
                    let known = grown <= T::ZERO || old >= tiny;
                    again[place] |= !known;
                    let (old, new) = (T::splat(simd, -old), T::splat(simd, new));
                    for (i, sum) in sums.iter_mut().enumerate() {
                        *sum = T::mul_add(simd, new, chunk(new_v, i), *sum);
                        *sum = T::mul_add(simd, old, chunk(old_v, i), *sum);
                    }
                }
                again[place] |= !(n >= half && n.is_finite());
                let share = T::splat(simd, T::ONE / n);
                for (to, &sum) in z.chunks_mut(lanes).zip(&sums) {
                    T::store(simd, to, T::vmul(simd, sum, share));
                }
            }
        }
        let places = again.iter().enumerate().filter(|(_, again)| **again);
        places.map(|(place, _)| place).collect()
    }
}
