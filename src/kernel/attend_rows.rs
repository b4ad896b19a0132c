//! Attention of a few queries: those whose outputs somebody looks at.

use super::PAD_SCORE;
use crate::tensor::{Scalar, load_over, normalize};
use pulp::{Arch, Simd, WithSimd};

/// Some queries of some sequences: what is read, and where the results go.
pub(crate) struct AttendRows<'a, T> {
    /// The queries' positions, the same in every sequence.
    pub queries: &'a [usize],
    pub pos: usize,
    pub heads: usize,
    /// Keys and values, each of as many heads.
    pub groups: usize,
    pub d_head: usize,
    /// `[batch, queries, head, d_head]`, as is `z`.
    pub q: &'a [T],
    /// `[batch, pos, group, d_head]`, as is `v`.
    pub k: &'a [T],
    pub v: &'a [T],
    /// What `q kᵀ` is multiplied by.
    pub factor: T,
    pub causal: bool,
    /// `[batch, pos]`
    pub pad_keys: Option<&'a [bool]>,
    pub z: &'a mut [T],
}

/// Scores, softmax and mix of each query. Gives the least of the queries' largest scores.
pub(crate) fn attend_rows<T: Scalar>(rows: AttendRows<'_, T>) -> T {
    Arch::new().dispatch(rows)
}

impl<T: Scalar> WithSimd for AttendRows<'_, T> {
    type Output = T;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> T {
        let AttendRows {
            queries,
            pos,
            heads,
            groups,
            d_head,
            ..
        } = self;
        let lanes = size_of::<T::V<S>>() / size_of::<T>();
        let (width, key_width) = (heads * d_head, groups * d_head);
        let vectors = d_head.div_ceil(lanes);
        // What fills the last vector up scores too little to count.
        let mut row = vec![T::ZERO; pos.next_multiple_of(lanes)];
        let mut least = T::INFINITY;
        let mut own = vec![T::splat(simd, T::ZERO); vectors];
        let chunk = |x: &[T], i: usize| {
            let at = i * lanes;
            load_over::<T, S>(simd, &x[at..], lanes.min(d_head - at))
        };
        let rows = self
            .q
            .chunks_exact(width)
            .zip(self.z.chunks_exact_mut(width))
            .enumerate();
        for (i, (q, z)) in rows {
            let (sequence, query) = (i / queries.len(), queries[i % queries.len()]);
            let pads = self
                .pad_keys
                .map(|pads| &pads[sequence * pos..(sequence + 1) * pos]);
            let seen = if self.causal && pads.is_none() {
                query + 1
            } else {
                pos
            };
            let (k, v) = (
                &self.k[sequence * pos * key_width..],
                &self.v[sequence * pos * key_width..],
            );
            for h in 0..heads {
                let g = h / (heads / groups);
                let q = &q[h * d_head..];
                own.iter_mut()
                    .enumerate()
                    .for_each(|(i, own)| *own = chunk(q, i));
                let mut max = -T::INFINITY;
                for (key, score) in row[..seen].iter_mut().enumerate() {
                    let k = &k[key * key_width + g * d_head..];
                    let products = own.iter().enumerate();
                    let sum = products.fold(T::splat(simd, T::ZERO), |sum, (i, &q)| {
                        T::mul_add(simd, q, chunk(k, i), sum)
                    });
                    *score = match pads {
                        Some(pads) if pads[key] => T::from_f64(PAD_SCORE),
                        _ if self.causal && key > query => -T::INFINITY,
                        _ => T::reduce_sum(simd, sum) * self.factor,
                    };
                    // A NaN stays one below, whatever the maximum is.
                    if *score > max {
                        max = *score;
                    }
                }
                if max < least {
                    least = max;
                }
                row[seen..].fill(-T::INFINITY);
                row.iter_mut().for_each(|x| *x = (*x - max).exp_lane());
                normalize::<T, S>(simd, T::split_mut::<S>(&mut row).0, &mut []);
                own.fill(T::splat(simd, T::ZERO));
                for (key, &weight) in row[..seen].iter().enumerate() {
                    let v = &v[key * key_width + g * d_head..];
                    let weight = T::splat(simd, weight);
                    for (i, sum) in own.iter_mut().enumerate() {
                        *sum = T::mul_add(simd, weight, chunk(v, i), *sum);
                    }
                }
                let z = &mut z[h * d_head..(h + 1) * d_head];
                for (to, &sum) in z.chunks_mut(lanes).zip(&own) {
                    T::store(simd, to, sum);
                }
            }
        }
        least
    }
}
