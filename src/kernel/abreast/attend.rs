//! Attention of sequences abreast: each query with the keys that it sees, and no others.

use super::product::{Keys, ROWS, Values, block, multiply, rows_at};
use crate::kernel::PAD_SCORE;
use crate::tensor::Scalar;
use pulp::{Simd, WithSimd};

/// The attention of as many sequences as a vector has lanes.
pub(crate) struct Attend<'a, T> {
    /// The positions of the queries.
    pub queries: &'a [usize],
    pub pos: usize,
    pub heads: usize,
    pub d_head: usize,
    /// `[queries, head, d_head, lane]`, as is `z`.
    pub q: &'a [T],
    /// `[pos, head, d_head, lane]`, as is `v`.
    pub k: &'a [T],
    pub v: &'a [T],
    /// What `q kᵀ` is multiplied by.
    pub factor: T,
    pub causal: bool,
    /// `[pos, lane]`: one for a key at the pad token, zero for the others.
    pub pad_keys: Option<&'a [T]>,
    /// `[head, queries, key, lane]`, where someone wants them.
    pub scores: Option<&'a mut [T]>,
    pub pattern: Option<&'a mut [T]>,
    pub z: &'a mut [T],
}

impl<T: Scalar> WithSimd for Attend<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (pos, heads, d_head) = (self.pos, self.heads, self.d_head);
        let (queries, n) = (self.queries, self.queries.len());
        let lanes = size_of::<T::V<S>>() / size_of::<T>();
        let stride = heads * d_head;
        let [q, k, v] = [self.q, self.k, self.v].map(|x| T::split::<S>(x).0);
        let (z, _) = T::split_mut::<S>(self.z);
        let is_pad = self.pad_keys.map(|pads| T::split::<S>(pads).0);
        let factor = T::splat(simd, self.factor);
        let keep =
            |kept: &mut Option<&mut [T]>, h: usize, place: usize, row: &[T::V<S>], hidden| {
                let Some(kept) = kept else { return };
                let to = &mut T::split_mut::<S>(kept).0[(h * n + place) * pos..][..pos];
                let (seen, rest) = to.split_at_mut(row.len());
                seen.copy_from_slice(row);
                rest.fill(T::splat(simd, hidden));
            };
        // The scores, then the pattern, of the queries at work.
        let mut at_work = vec![T::ZERO; ROWS * pos * lanes];
        for h in 0..heads {
            let keys = Keys::<T, S> {
                keys: &k[h * d_head..],
                stride,
                factor,
            };
            let values = Values::<T, S> {
                values: &v[h * d_head..],
                stride,
            };
            for first in (0..n).step_by(ROWS) {
                let places = block(first, n);
                let last = places.iter().map(|&place| queries[place]).max();
                // A key at the pad token has a score even where the causal mask hides it.
                let seen = match last {
                    Some(last) if self.causal && is_pad.is_none() => last + 1,
                    _ => pos,
                };
                let mut starts = places;
                starts
                    .iter_mut()
                    .for_each(|start| *start = *start * stride + h * d_head);
                let rows = rows_at(q, starts, d_head);
                let at_work = &mut at_work[..ROWS * seen * lanes];
                let (pattern, _) = T::split_mut::<S>(at_work);
                let own = [0, seen, 2 * seen, 3 * seen];
                multiply(simd, rows, &keys, seen, pattern, own);

                for (row, place) in pattern.chunks_exact_mut(seen).zip(places) {
                    if self.causal {
                        row[queries[place] + 1..].fill(T::splat(simd, -T::INFINITY));
                    }
                    if let Some(is_pad) = is_pad {
                        let zero = T::splat(simd, T::ZERO);
                        let score = T::splat(simd, T::from_f64(PAD_SCORE));
                        for (x, &is_pad) in row.iter_mut().zip(is_pad) {
                            *x = T::where_less(simd, zero, is_pad, score, *x);
                        }
                    }
                    keep(&mut self.scores, h, place, row, -T::INFINITY);
                    subtract_max::<T, S>(simd, row);
                }
                at_work.iter_mut().for_each(|x| *x = x.exp_lane());
                let (pattern, _) = T::split_mut::<S>(at_work);
                pattern
                    .chunks_exact_mut(seen)
                    .for_each(|row| normalize::<T, S>(simd, row));
                for (row, place) in pattern.chunks_exact(seen).zip(places) {
                    keep(&mut self.pattern, h, place, row, T::ZERO);
                }

                let rows = rows_at(pattern, own, seen);
                multiply(simd, rows, &values, d_head, z, starts);
            }
        }
    }
}

/// Subtracts each sequence's largest value.
#[inline(always)]
fn subtract_max<T: Scalar, S: Simd>(simd: S, row: &mut [T::V<S>]) {
    let max = row.iter().fold(row[0], |max, &x| T::vmax(simd, max, x));
    row.iter_mut().for_each(|x| *x = T::vsub(simd, *x, max));
}

/// Divides each sequence's exponentials by their sum. Where that is no positive finite number they become
/// zero, as TransformerLens has it.
#[inline(always)]
fn normalize<T: Scalar, S: Simd>(simd: S, row: &mut [T::V<S>]) {
    let zero = T::splat(simd, T::ZERO);
    let sum = row.iter().fold(zero, |sum, &x| T::vadd(simd, sum, x));
    let inverse = T::vdiv(simd, T::splat(simd, T::ONE), sum);
    for x in row {
        // Times zero would leave a NaN what it is.
        *x = T::where_less(simd, zero, inverse, T::vmul(simd, *x, inverse), zero);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulp::Arch;

    /// What one query of one lane mixes, by plain loops.
    fn naive(a: &Attend<'_, f64>, lanes: usize, h: usize, place: usize, lane: usize) -> Vec<f64> {
        let query = a.queries[place];
        let at =
            |x: &[f64], p: usize, i: usize| x[((p * a.heads + h) * a.d_head + i) * lanes + lane];
        let weights: Vec<f64> = (0..a.pos)
            .map(|key| match a.pad_keys {
                Some(pads) if pads[key * lanes + lane] == 1.0 => PAD_SCORE.exp(),
                _ if a.causal && key > query => 0.0,
                _ => {
                    let products = (0..a.d_head).map(|i| at(a.q, place, i) * at(a.k, key, i));
                    (products.sum::<f64>() * a.factor).exp()
                }
            })
            .collect();
        let total: f64 = weights.iter().sum();
        let mixed = |i: usize| (0..a.pos).map(move |key| (key, i));
        (0..a.d_head)
            .map(|i| {
                mixed(i)
                    .map(|(key, i)| weights[key] * at(a.v, key, i))
                    .sum::<f64>()
                    / total
            })
            .collect()
    }

    #[test]
    fn agrees_with_plain_loops() {
        fn check(lanes: usize, run: impl Fn(Attend<'_, f64>)) {
            for (pos, d_head) in [(1, 1), (4, 5), (7, 14), (10, 6), (22, 3)] {
                for (causal, pad) in [(true, false), (true, true), (false, false), (false, true)] {
                    let heads = 2;
                    let wave = |n: usize, phase: f64| -> Vec<f64> {
                        (0..n)
                            .map(|i| (i as f64 * 0.7 + phase).sin() * 2.0)
                            .collect()
                    };
                    let keys = pos * heads * d_head * lanes;
                    let [k, v] = [1.0, 2.0].map(|phase| wave(keys, phase));
                    // The first key never: else its causal query would see pads alone, whose scores the
                    // oracle's exponentials do not reach.
                    let is_pad = |i: usize| i >= lanes && i.is_multiple_of(3);
                    let pads: Vec<f64> = (0..pos * lanes).map(|i| f64::from(is_pad(i))).collect();
                    let all: Vec<usize> = (0..pos).collect();
                    for queries in [&all[..], &[pos - 1, 0, pos / 2, 0, 0], &[pos / 3]] {
                        let n = queries.len() * heads * d_head * lanes;
                        let q = wave(n, 0.0);
                        let mut z = vec![f64::NAN; n];
                        let mut pattern = vec![f64::NAN; heads * queries.len() * pos * lanes];
                        let attend = |pattern, z| Attend {
                            queries,
                            pos,
                            heads,
                            d_head,
                            q: &q,
                            k: &k,
                            v: &v,
                            factor: 0.3,
                            causal,
                            pad_keys: pad.then_some(&pads[..]),
                            scores: None,
                            pattern,
                            z,
                        };
                        let oracle = attend(None, &mut []);
                        let places = (0..heads).flat_map(|h| {
                            (0..queries.len())
                                .flat_map(move |p| (0..lanes).map(move |lane| (h, p, lane)))
                        });
                        let expected: Vec<_> = places
                            .map(|(h, p, lane)| ((h, p, lane), naive(&oracle, lanes, h, p, lane)))
                            .collect();
                        run(attend(Some(&mut pattern), &mut z));
                        // A sum of d_head or pos products, each of size 4 at the most.
                        let bound = 16.0 * (pos + d_head) as f64 * f64::EPSILON;
                        for ((h, place, lane), expected) in expected {
                            for (i, e) in expected.into_iter().enumerate() {
                                let x = z[((place * heads + h) * d_head + i) * lanes + lane];
                                assert!(
                                    (x - e).abs() <= bound,
                                    "{queries:?} {pos} {d_head} {causal} {pad} {h} {place} {lane} {i}: {x} {e}"
                                );
                            }
                        }
                        for row in pattern.chunks_exact(pos * lanes) {
                            for lane in 0..lanes {
                                let sum: f64 = row.iter().skip(lane).step_by(lanes).sum();
                                assert!((sum - 1.0).abs() <= bound, "{queries:?} {pos}: {sum}");
                            }
                        }
                    }
                }
            }
        }
        check(crate::tensor::lanes::<f64>(), |a| Arch::new().dispatch(a));
        check(1, |a| a.with_simd(pulp::Scalar::new()));
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V3::try_new() {
            check(4, |a| Simd::vectorize(simd, a));
        }
    }
}
