//! Attention over short sequences: a head's scores, their softmax and its mix of the values in one go.
//!
//! As three operations on a stretch, each would write what the next one reads, and on rows as short as
//! these each would be mostly beginnings and ends. Here a few queries' scores stay in the first cache from
//! the product that makes them to the one that uses them, and keys that no query among them may see are
//! not computed.

use super::PAD_SCORE;
use super::sums::{pack, row_sums};
use crate::tensor::{Scalar, lanes, load_over, normalize, store_over};
use faer::MatRef;
use pulp::{Simd, WithSimd};

/// The longest sequence, in vectors and in positions: a few queries' scores must stay in registers.
const MAX_VECTORS: usize = 8;
const MAX_POS: usize = 64;

/// The widest head: a sequence's keys and values must stay in the first cache.
const MAX_D_HEAD: usize = 64;

/// How many queries are taken at a time at the most: as many sums hide an addition's latency.
const QUERIES: usize = 8;

/// Whether sequences of this length, with heads of this width, are short.
pub(crate) fn is_short<T: Scalar>(pos: usize, d_head: usize) -> bool {
    pos <= longest(lanes::<T>()) && d_head <= MAX_D_HEAD
}

/// How long a sequence can be, with vectors of so many numbers.
fn longest(lanes: usize) -> usize {
    MAX_POS.min(MAX_VECTORS * lanes)
}

/// Some sequences' attention: what is read, and where the results go.
pub(crate) struct Attend<'a, T> {
    /// The positions of the queries.
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
    /// `[batch, head, queries, key]`, where someone wants them.
    pub scores: Option<&'a mut [T]>,
    /// As `scores`.
    pub pattern: Option<&'a mut [T]>,
    pub z: &'a mut [T],
}

impl<T: Scalar> WithSimd for Attend<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (pos, d_head) = (self.pos, self.d_head);
        let lanes = size_of::<T::V<S>>() / size_of::<T>();
        let (width, wide) = (pos.next_multiple_of(lanes), d_head.next_multiple_of(lanes));
        let index: Vec<T> = (0..width).map(|i| T::from_f64(i as f64)).collect();
        let mut is_pad = vec![T::ZERO; width];
        let mut keys = vec![T::ZERO; d_head * width];
        let mut values = vec![T::ZERO; pos * wide];
        let mut at_work = vec![T::ZERO; QUERIES * width];

        let (heads, groups, queries) = (self.heads, self.groups, self.queries);
        let square = queries.len() * pos;
        let mut scores = self.scores.map(|s| s.chunks_exact_mut(square));
        let mut pattern = self.pattern.map(|p| p.chunks_exact_mut(square));
        let each = queries.len() * heads * d_head;
        let of_queries = self.q.chunks_exact(each).zip(self.z.chunks_exact_mut(each));
        for (b, (q, z)) in of_queries.enumerate() {
            let first = b * pos * groups * d_head;
            let k = &self.k[first..][..pos * groups * d_head];
            let k = MatRef::from_row_major_slice(k, pos, groups * d_head);
            if let Some(pads) = self.pad_keys {
                let pads = &pads[b * pos..(b + 1) * pos];
                let to = is_pad.iter_mut().zip(pads);
                to.for_each(|(to, &pad)| *to = if pad { T::ONE } else { T::ZERO });
            }
            for h in 0..heads {
                let g = h / (heads / groups);
                let of_head = k.subcols(g * d_head, d_head);
                pack(of_head.transpose(), &mut keys, width);
                for p in 0..pos {
                    let from = &self.v[first + (p * groups + g) * d_head..];
                    for at in (0..d_head).step_by(lanes) {
                        let n = lanes.min(d_head - at);
                        let v = load_over::<T, S>(simd, &from[at..], n);
                        store_over::<T, S>(simd, &mut values[p * wide + at..], lanes, v);
                    }
                }
                let mut head = Head {
                    simd,
                    queries,
                    q,
                    z,
                    heads,
                    h,
                    d_head,
                    pos,
                    factor: self.factor,
                    causal: self.causal,
                    index: T::split::<S>(&index).0,
                    is_pad: self.pad_keys.map(|_| T::split::<S>(&is_pad).0),
                    keys: T::split::<S>(&keys).0,
                    values: T::split::<S>(&values).0,
                    at_work: &mut at_work,
                    scores: scores.as_mut().and_then(Iterator::next),
                    pattern: pattern.as_mut().and_then(Iterator::next),
                };
                head.all();
            }
        }
    }
}

/// One head of one sequence.
struct Head<'a, T: Scalar, S: Simd> {
    simd: S,
    queries: &'a [usize],
    /// `[queries, head, d_head]`, as is `z`.
    q: &'a [T],
    z: &'a mut [T],
    heads: usize,
    h: usize,
    d_head: usize,
    pos: usize,
    factor: T,
    causal: bool,
    /// Each key's number.
    index: &'a [T::V<S>],
    /// One for each key at the pad token, zero for the others.
    is_pad: Option<&'a [T::V<S>]>,
    /// `[d_head, pos]` in whole vectors.
    keys: &'a [T::V<S>],
    /// `[pos, d_head]` in whole vectors.
    values: &'a [T::V<S>],
    /// The scores, then the pattern, of the queries at work.
    at_work: &'a mut [T],
    scores: Option<&'a mut [T]>,
    pattern: Option<&'a mut [T]>,
}

impl<T: Scalar, S: Simd> Head<'_, T, S> {
    const LANES: usize = size_of::<T::V<S>>() / size_of::<T>();

    /// Some queries at a time, with no more keys than these see.
    #[inline(always)]
    fn all(&mut self) {
        let mut first = 0;
        while first < self.queries.len() {
            let vectors = self.seen(first).div_ceil(Self::LANES);
            // Often one position alone is read: as eight it takes half as long again.
            first += if first + 1 == self.queries.len() {
                self.alone(first, vectors)
            } else if size_of::<T::V<S>>() == 64 {
                self.among_32_registers(first, vectors)
            } else {
                self.among_16_registers(first, vectors)
            }
        }
    }

    /// One query. Gives how many are done with.
    fn alone(&mut self, first: usize, vectors: usize) -> usize {
        match vectors {
            1 => self.tile::<1, 1>(first),
            2 => self.tile::<1, 2>(first),
            3 => self.tile::<1, 3>(first),
            4 => self.tile::<1, 4>(first),
            5 => self.tile::<1, 5>(first),
            6 => self.tile::<1, 6>(first),
            7 => self.tile::<1, 7>(first),
            _ => self.tile::<1, MAX_VECTORS>(first),
        }
    }

    /// Several, with as many sums as there are registers for. Gives how many are done with.
    fn among_32_registers(&mut self, first: usize, vectors: usize) -> usize {
        match vectors {
            1 => self.tile::<QUERIES, 1>(first),
            2 => self.tile::<QUERIES, 2>(first),
            3 => self.tile::<QUERIES, 3>(first),
            4 => self.tile::<QUERIES, 4>(first),
            5 => self.tile::<2, 5>(first),
            6 => self.tile::<2, 6>(first),
            7 => self.tile::<2, 7>(first),
            _ => self.tile::<2, MAX_VECTORS>(first),
        }
    }

    /// The same where vectors are shorter, and registers half as many: at most twelve sums, next to what they are made of.
    fn among_16_registers(&mut self, first: usize, vectors: usize) -> usize {
        match vectors {
            1 => self.tile::<QUERIES, 1>(first),
            2 => self.tile::<4, 2>(first),
            3 => self.tile::<4, 3>(first),
            4 => self.tile::<3, 4>(first),
            5 => self.tile::<2, 5>(first),
            6 => self.tile::<2, 6>(first),
            7 => self.tile::<1, 7>(first),
            _ => self.tile::<1, MAX_VECTORS>(first),
        }
    }

    /// `R` queries from the `first` on, which see `V` vectors of keys, in a function of their own. Gives how many these are.
    fn tile<const R: usize, const V: usize>(&mut self, first: usize) -> usize {
        let simd = self.simd;
        simd.vectorize(Tile::<T, S, R, V> { head: self, first });
        R
    }

    /// How many keys the next few queries see. A key at the pad token has a score even where the causal mask
    /// hides it.
    fn seen(&self, first: usize) -> usize {
        let end = self.queries.len().min(first + QUERIES);
        match self.queries[first..end].iter().max() {
            Some(last) if self.causal && self.is_pad.is_none() => last + 1,
            _ => self.pos,
        }
    }

    /// `R` queries from the `first` on, which see `V` vectors of keys. Where there are too few, the last one
    /// again.
    #[inline(always)]
    fn queries<const R: usize, const V: usize>(&mut self, first: usize) {
        let simd = self.simd;
        let last = self.queries.len() - 1;
        let mut q: [&[T]; R] = [&[]; R];
        for (r, q) in q.iter_mut().enumerate() {
            let row = ((first + r).min(last) * self.heads + self.h) * self.d_head;
            *q = &self.q[row..row + self.d_head];
        }
        let width = self.keys.len() / self.d_head;
        let mut scores = row_sums::<T, S, R, V>(simd, q, self.keys, width, 0);
        scores
            .iter_mut()
            .enumerate()
            .for_each(|(r, row)| self.mask(row, self.queries[(first + r).min(last)]));

        let at_work = &mut self.at_work[..R * V * Self::LANES];
        let (rows, _) = T::split_mut::<S>(at_work);
        for (to, row) in rows.chunks_exact_mut(V).zip(&scores) {
            to.copy_from_slice(row);
        }
        show::<T, R>(&mut self.scores, at_work, first, self.pos, -T::INFINITY);

        let (rows, _) = T::split_mut::<S>(at_work);
        for (to, row) in rows.chunks_exact_mut(V).zip(&scores) {
            let max = row.iter().fold(row[0], |a, &b| T::vmax(simd, a, b));
            let max = T::splat(simd, T::reduce_max(simd, max));
            for (to, &score) in to.iter_mut().zip(row) {
                *to = T::vsub(simd, score, max);
            }
        }
        at_work.iter_mut().for_each(|x| *x = x.exp_lane());
        let (rows, _) = T::split_mut::<S>(at_work);
        for row in rows.chunks_exact_mut(V) {
            normalize::<T, S>(simd, row, &mut []);
        }
        show::<T, R>(&mut self.pattern, at_work, first, self.pos, T::ZERO);

        let (mut at, values) = (0, self.values.len() / self.pos);
        while at < values {
            // Eight sums at a time again.
            at += match (values - at).min(QUERIES / R) {
                0 | 1 => self.mix::<R, 1>(first, V, at),
                2 => self.mix::<R, 2>(first, V, at),
                3 => self.mix::<R, 3>(first, V, at),
                _ => self.mix::<R, 4>(first, V, at),
            }
        }
    }

    /// `Z` vectors of what the queries at work mix, from the one `at` on, in a function of their own; the pattern is `vectors` wide.
    /// Gives how many these are.
    fn mix<const R: usize, const Z: usize>(
        &mut self,
        first: usize,
        vectors: usize,
        at: usize,
    ) -> usize {
        let simd = self.simd;
        let mix = Mix::<T, S, R, Z> {
            first,
            vectors,
            at,
            head: self,
        };
        simd.vectorize(mix);
        Z
    }

    /// What that function does: the pattern's rows times the values, written to `z`.
    #[inline(always)]
    fn mixed<const R: usize, const Z: usize>(&mut self, first: usize, vectors: usize, at: usize) {
        let (simd, last, seen) = (self.simd, self.queries.len() - 1, self.seen(first));
        let mut pattern: [&[T]; R] = [&[]; R];
        let rows = self.at_work.chunks_exact(vectors * Self::LANES);
        for (pattern, row) in pattern.iter_mut().zip(rows) {
            *pattern = &row[..seen];
        }
        let width = self.values.len() / self.pos;
        let z = row_sums::<T, S, R, Z>(simd, pattern, self.values, width, at);
        for (r, z) in z.iter().enumerate() {
            let row = ((first + r).min(last) * self.heads + self.h) * self.d_head;
            for (at, &z) in (at..).zip(z) {
                let to = row + at * Self::LANES;
                let own = self.d_head.min((at + 1) * Self::LANES) - at * Self::LANES;
                match self.z[to..].split_at_mut_checked(Self::LANES) {
                    // Over its neighbours too, as they were: a part of a vector takes longer to store.
                    Some((to, _)) => {
                        let to = &mut T::split_mut::<S>(to).0[0];
                        let own = T::splat(simd, T::from_f64(own as f64));
                        *to = T::where_less(simd, self.index[0], own, z, *to);
                    }
                    None => T::store(simd, &mut self.z[to..to + own], z),
                }
            }
        }
    }

    /// A query's scores, from its products with the keys.
    #[inline(always)]
    fn mask<const V: usize>(&self, row: &mut [T::V<S>; V], query: usize) {
        let simd = self.simd;
        let seen = if self.causal { query + 1 } else { self.pos };
        let seen = T::splat(simd, T::from_f64(seen as f64));
        let factor = T::splat(simd, self.factor);
        let hidden = T::splat(simd, -T::INFINITY);
        for (score, &index) in row.iter_mut().zip(self.index) {
            *score = T::where_less(simd, index, seen, T::vmul(simd, factor, *score), hidden);
        }
        if let Some(is_pad) = self.is_pad {
            let (zero, pad) = (T::ZERO, T::from_f64(PAD_SCORE));
            let (zero, pad) = (T::splat(simd, zero), T::splat(simd, pad));
            for (score, &is_pad) in row.iter_mut().zip(is_pad) {
                *score = T::where_less(simd, zero, is_pad, pad, *score);
            }
        }
    }
}

/// `Head::queries`, as a function of its own: all of them inlined into one would take the compiler minutes.
struct Tile<'h, 'a, T: Scalar, S: Simd, const R: usize, const V: usize> {
    head: &'h mut Head<'a, T, S>,
    first: usize,
}

impl<T: Scalar, S: Simd, const R: usize, const V: usize> WithSimd for Tile<'_, '_, T, S, R, V> {
    type Output = ();

    #[inline(always)]
    fn with_simd<Same: Simd>(self, _: Same) {
        self.head.queries::<R, V>(self.first);
    }
}

/// `Head::mixed`, as a function of its own.
struct Mix<'h, 'a, T: Scalar, S: Simd, const R: usize, const Z: usize> {
    head: &'h mut Head<'a, T, S>,
    first: usize,
    vectors: usize,
    at: usize,
}

impl<T: Scalar, S: Simd, const R: usize, const Z: usize> WithSimd for Mix<'_, '_, T, S, R, Z> {
    type Output = ();

    #[inline(always)]
    fn with_simd<Same: Simd>(self, _: Same) {
        self.head.mixed::<R, Z>(self.first, self.vectors, self.at);
    }
}

/// Copies `R` rows to where someone wants them, with `hidden` for the keys that were not computed.
#[inline(always)]
fn show<T: Scalar, const R: usize>(
    to: &mut Option<&mut [T]>,
    rows: &[T],
    first: usize,
    pos: usize,
    hidden: T,
) {
    let Some(to) = to else { return };
    let width = rows.len() / R;
    let to = to[first * pos..].chunks_exact_mut(pos);
    for (to, row) in to.zip(rows.chunks_exact(width)) {
        let seen = pos.min(width);
        to[..seen].copy_from_slice(&row[..seen]);
        to[seen..].fill(hidden);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulp::Arch;

    /// Scores, pattern and z of one sequence by plain loops.
    fn naive<T: Scalar>(a: &Attend<'_, T>) -> [Vec<f64>; 3] {
        let (pos, heads, d_head) = (a.pos, a.heads, a.d_head);
        let at = |x: &[T], p: usize, h: usize, i: usize| x[(p * heads + h) * d_head + i].to_f64();
        let (mut scores, mut pattern) = (Vec::new(), Vec::new());
        let mut z = vec![0.0; a.queries.len() * heads * d_head];
        for h in 0..heads {
            for (place, &query) in a.queries.iter().enumerate() {
                let row: Vec<f64> = (0..pos)
                    .map(|key| match a.pad_keys {
                        Some(pad) if pad[key] => PAD_SCORE,
                        _ if a.causal && key > query => f64::NEG_INFINITY,
                        _ => {
                            let products =
                                (0..d_head).map(|i| at(a.q, place, h, i) * at(a.k, key, h, i));
                            products.sum::<f64>() * a.factor.to_f64()
                        }
                    })
                    .collect();
                let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = row.iter().map(|s| (s - max).exp()).sum();
                for (key, score) in row.iter().enumerate() {
                    let weight = (score - max).exp() / total;
                    pattern.push(weight);
                    for i in 0..d_head {
                        z[(place * heads + h) * d_head + i] += weight * at(a.v, key, h, i);
                    }
                }
                scores.extend(row);
            }
        }
        [scores, pattern, z]
    }

    /// Every length around the vectors' own, on every instruction set that the machine has.
    #[test]
    fn agrees_with_plain_loops() {
        fn check<T: Scalar>(run: impl Fn(Attend<'_, T>), longest: usize) {
            let wave = |n: usize, phase: f64| -> Vec<T> {
                let value = |i: usize| T::from_f64((i as f64 * 0.7 + phase).sin() * 2.0);
                (0..n).map(value).collect()
            };
            for (pos, d_head, causal, pad) in (1..=longest).flat_map(|pos| {
                [1, 5, 14, 16, 17, 33].into_iter().flat_map(move |d_head| {
                    [(true, false), (true, true), (false, false), (false, true)]
                        .map(|(causal, pad)| (pos, d_head, causal, pad))
                })
            }) {
                let heads = 2;
                let keys = pos * heads * d_head;
                let [k, v] = [1.0, 2.0].map(|phase| wave(keys, phase));
                let pads: Vec<bool> = (0..pos).map(|key| key % 3 == 0).collect();
                let all: Vec<usize> = (0..pos).collect();
                for queries in [&all[..], &[pos - 1, 0, pos / 2, 0], &[pos / 3]] {
                    let n = queries.len() * heads * d_head;
                    let q = wave(n, 0.0);
                    let square = heads * queries.len() * pos;
                    let (mut scores, mut pattern) = (vec![T::ONE; square], vec![T::ONE; square]);
                    let mut z = vec![T::ONE; n];
                    let attend = Attend {
                        queries,
                        pos,
                        heads,
                        groups: heads,
                        d_head,
                        q: &q,
                        k: &k,
                        v: &v,
                        factor: T::from_f64(0.3),
                        causal,
                        pad_keys: pad.then_some(&pads[..]),
                        scores: Some(&mut scores),
                        pattern: Some(&mut pattern),
                        z: &mut z,
                    };
                    let expected = naive(&attend);
                    run(attend);
                    for (ours, expected) in [&scores, &pattern, &z].into_iter().zip(&expected) {
                        for (i, (x, e)) in ours.iter().zip(expected).enumerate() {
                            // A sum of d_head or pos products, each of size 4 at the most, and an exponential.
                            let bound = 16.0 * (pos + d_head) as f64 * T::EPSILON.to_f64();
                            let x = x.to_f64();
                            assert!(
                                x == *e || (x - e).abs() <= bound,
                                "{queries:?} {pos} {d_head} {causal} {pad} {i}: {x} {e}"
                            );
                        }
                    }
                }
            }
        }
        check::<f32>(|a| Arch::new().dispatch(a), longest(lanes::<f32>()));
        check::<f64>(|a| Arch::new().dispatch(a), longest(lanes::<f64>()));
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V3::try_new() {
            check::<f32>(|a| Simd::vectorize(simd, a), longest(8));
            check::<f64>(|a| Simd::vectorize(simd, a), longest(4));
        }
    }
}
