//! Attention: from queries, keys and values to what the heads mix, `softmax(q kᵀ / attn_scale) v`.

use super::{Layout, Rules, Scratch, split};
use crate::kernel::{self, PAD_SCORE, abreast};
use crate::linalg::{Par, add_transposed_product, product_into};
use crate::tensor::{
    Columns, Scalar, Tensor, add_assign, map_in_place, map2_in_place, softmax_rows,
    softmax_rows_back,
};
use faer::{MatMut, MatRef};
use pulp::Arch;
use rayon::prelude::*;
use std::ops::Range;

/// Which keys a query sees.
#[derive(Clone, Copy)]
pub(crate) struct Masks<'a> {
    /// Whether those after the query are hidden: their score is `-inf`.
    pub causal: bool,
    /// `[batch, pos]`: whether a key is a pad. It scores [`PAD_SCORE`], whatever the causal mask says, as a hook on
    /// TransformerLens's scores would have it, unless it is left out.
    pub pads: Option<&'a [bool]>,
    /// How many keys a query sees at most, its own included: those further back are hidden.
    pub window: Option<usize>,
    /// Where some of the sequences' tokens are left out of attention.
    pub attended: Option<Attended<'a>>,
}

/// Which tokens are attended to, and where these stand among those of their sequence.
#[derive(Clone, Copy)]
pub(crate) struct Attended<'a> {
    /// `[batch, pos]`: a key that is not is hidden from all queries but its own.
    pub mask: &'a [bool],
    /// `[batch, pos]`
    pub positions: &'a [usize],
}

/// What becomes of scores before they are masked.
#[derive(Clone, Copy)]
pub(crate) struct Scoring<'a, T> {
    /// What `q kᵀ` is multiplied by.
    pub factor: T,
    /// By head, what a key's position times is added.
    pub slopes: Option<&'a [T]>,
    /// What they are capped at: `cap tanh(score / cap)`.
    pub cap: Option<T>,
}

/// Queries at some positions, and the keys and values of all.
pub(crate) struct Attention<'a, T: Scalar> {
    /// The queries' positions.
    pub queries: &'a [usize],
    /// `[batch, queries, head, d_head]`
    pub q: &'a Tensor<T>,
    /// `[batch, pos, group, d_head]`, as is `v`.
    pub k: &'a Tensor<T>,
    pub v: &'a Tensor<T>,
    pub scoring: Scoring<'a, T>,
    pub masks: Masks<'a>,
}

impl<T: Scalar> Attention<'_, T> {
    /// Whether scores are products that at most a causal mask and pads hide.
    pub fn is_plain(&self) -> bool {
        let Masks {
            window, attended, ..
        } = self.masks;
        let Scoring { slopes, cap, .. } = self.scoring;
        window.is_none() && attended.is_none() && slopes.is_none() && cap.is_none()
    }

    /// Whether everything between the projections and `z` can be done in one go: abreast, or for short sequences.
    pub fn in_one_go(&self, layout: Layout) -> bool {
        let (pos, d_head) = (self.k.shape()[1], self.k.shape()[3]);
        let short = || self.is_plain() && kernel::is_short::<T>(pos, d_head);
        matches!(layout, Layout::Abreast) || short()
    }

    /// `z: [batch, queries, head, d_head]` in one go; scores and pattern, `[batch, head, queries, key]`, where someone
    /// wants them.
    pub fn mix(
        &self,
        layout: Layout,
        [scores, pattern]: [Option<&mut Tensor<T>>; 2],
        z: &mut Tensor<T>,
    ) {
        let &[batch, pos, groups, d_head] = self.k.shape() else {
            unreachable!("keys have four axes")
        };
        let heads = self.q.shape()[2];
        let (queries, causal) = (self.queries, self.masks.causal);
        let par = match layout {
            Layout::Rows(par) => par,
            Layout::Abreast => {
                let pad_keys = (self.masks.pads).map(|pads| abreast::pad_lanes(pads, pos));
                return Arch::new().dispatch(abreast::Attend {
                    queries,
                    pos,
                    heads,
                    d_head,
                    q: self.q.data(),
                    k: self.k.data(),
                    v: self.v.data(),
                    factor: self.scoring.factor,
                    causal,
                    pad_keys: pad_keys.as_deref(),
                    scores: scores.map(Tensor::data_mut),
                    pattern: pattern.map(Tensor::data_mut),
                    z: z.data_mut(),
                });
            }
        };
        let each = batch.div_ceil(par.threads());
        let (rows, keys) = (each * queries.len() * heads, each * pos * groups * d_head);
        let mut scores = scores.map(|s| s.data_mut().chunks_mut(rows * pos));
        let mut pattern = pattern.map(|p| p.data_mut().chunks_mut(rows * pos));
        let values = self.k.data().chunks(keys).zip(self.v.data().chunks(keys));
        let rows = rows * d_head;
        let of_queries = (self.q.data().chunks(rows)).zip(z.data_mut().chunks_mut(rows));
        let mut parts = Vec::new();
        for (i, ((q, z), (k, v))) in of_queries.zip(values).enumerate() {
            parts.push(kernel::Attend {
                queries,
                pos,
                heads,
                groups,
                d_head,
                q,
                k,
                v,
                factor: self.scoring.factor,
                causal,
                pad_keys: self.masks.pads.map(|pads| &pads[i * each * pos..]),
                scores: scores.as_mut().and_then(Iterator::next),
                pattern: pattern.as_mut().and_then(Iterator::next),
                z,
            });
        }
        let work = |part| Arch::new().dispatch(part);
        match par {
            Par::Seq => parts.into_iter().for_each(work),
            Par::Rayon => parts.into_par_iter().for_each(work),
        }
    }

    /// `z` where nobody wants scores or pattern: a block of queries at a time with the keys that it sees, so that the
    /// memory is linear in the length.
    pub fn mix_in_blocks(&self, par: Par, z: &mut Tensor<T>) {
        /// Enough rows for a product, few enough for their scores to stay in a core's cache.
        const BLOCK: usize = 64;
        let (queries, heads) = (self.queries.len(), self.q.shape()[2]);
        let (pos, d_head) = (self.k.shape()[1], self.k.shape()[3]);
        let width = heads * d_head;
        // Blocks end where sequences do.
        let sequences = z.data_mut().chunks_exact_mut(queries * width).enumerate();
        let blocks = sequences.flat_map(|(b, z)| {
            let blocks = z.chunks_mut(BLOCK * width).enumerate();
            blocks.map(move |(i, z)| (b, i * BLOCK, z))
        });
        // The last blocks see most, and come first.
        let mut blocks: Vec<_> = blocks.collect();
        blocks.reverse();
        let work = |room: &mut Vec<T>, (b, first, z): (usize, usize, &mut [T])| {
            let n = z.len() / width;
            let rows = first..first + n;
            let keys = self.keys_seen(b, rows.clone());
            room.resize(n * pos, T::ZERO);
            let scores = &mut room[..n * keys.len()];
            for h in 0..heads {
                self.block_of_scores((b, h), rows.clone(), keys.clone(), scores);
                softmax_rows(scores, keys.len());
                let pattern = MatRef::from_row_major_slice(scores, n, keys.len());
                let v = self.v.head(b, group_of(h, heads, self.v));
                let z = MatMut::from_row_major_slice_mut(z, n, width);
                let z = z.subcols_mut(h * d_head, d_head);
                product_into(z, T::ONE, pattern, v.subrows(keys.start, keys.len()));
            }
        };
        match par {
            Par::Seq => {
                let mut room = Vec::new();
                blocks.into_iter().for_each(|block| work(&mut room, block));
            }
            // Each a job of its own: they differ in how much they see.
            Par::Rayon => {
                let blocks = blocks.into_par_iter().with_max_len(1);
                blocks.for_each(|block| work(&mut Vec::new(), block));
            }
        }
    }

    /// A stretch of keys outside of which these queries of a sequence give no weight.
    fn keys_seen(&self, b: usize, rows: Range<usize>) -> Range<usize> {
        let pos = self.k.shape()[1];
        // They may be in any order.
        let queries = &self.queries[rows];
        let (Some(first), Some(last)) = (queries.iter().min(), queries.iter().max()) else {
            return 0..0;
        };
        // A key at a pad has a score even where the causal mask hides it.
        let end = match self.masks.causal && self.masks.pads.is_none() {
            true => last + 1,
            false => pos,
        };
        let own = self.key_position(b, *first);
        let start = match self.masks.window {
            // Of keys that are attended to positions rise; those that are not are seen by themselves alone.
            Some(window) if self.masks.pads.is_none() => {
                let outside = |key: &usize| self.key_position(b, *key) + window <= own;
                (0..*first).take_while(outside).count()
            }
            _ => 0,
        };
        start..end
    }

    /// `scores[b, h] = q kᵀ / attn_scale`, with what is added to them, capped and masked: `[batch, head, queries, key]`.
    pub fn scores(&self, par: Par, out: &mut Tensor<T>) {
        let (queries, pos) = (self.queries.len(), self.k.shape()[1]);
        let (square, heads) = (queries * pos, self.q.shape()[2]);
        split(par, out.data_mut(), square, |first, out| {
            for (i, out) in out.chunks_exact_mut(square).enumerate() {
                let (b, h) = ((first + i) / heads, (first + i) % heads);
                self.block_of_scores((b, h), 0..queries, 0..pos, out);
            }
        });
    }

    /// The scores of some queries with a stretch of keys, `[queries, keys]`.
    fn block_of_scores(
        &self,
        (b, h): (usize, usize),
        rows: Range<usize>,
        keys: Range<usize>,
        out: &mut [T],
    ) {
        let (n, heads) = (keys.len(), self.q.shape()[2]);
        let scores = MatMut::from_row_major_slice_mut(out, rows.len(), n);
        let q = self.q.head(b, h).subrows(rows.start, rows.len());
        let k = self.k.head(b, group_of(h, heads, self.k));
        let k = k.subrows(keys.start, n).transpose();
        product_into(scores, self.scoring.factor, q, k);
        if let Some(slopes) = self.scoring.slopes {
            let position = |key| T::from_f64(self.key_position(b, key) as f64);
            let added: Vec<T> = keys.clone().map(|key| slopes[h] * position(key)).collect();
            for row in out.chunks_exact_mut(n) {
                add_assign(row, &added);
            }
        }
        if let Some(cap) = self.scoring.cap {
            map_in_place(out, |x| capped(x, cap));
        }
        for (&query, row) in self.queries[rows].iter().zip(out.chunks_exact_mut(n)) {
            self.mask(b, query, keys.clone(), row);
        }
    }

    /// Where the keys of the `b`-th sequence stand.
    fn key_position(&self, b: usize, key: usize) -> usize {
        match self.masks.attended {
            Some(attended) => attended.positions[b * self.k.shape()[1] + key],
            None => key,
        }
    }

    /// Masks the scores of one query of the `b`-th sequence with some keys.
    fn mask(&self, b: usize, query: usize, keys: Range<usize>, scores: &mut [T]) {
        let pos = self.k.shape()[1];
        let first = keys.start;
        if let Some(window) = self.masks.window {
            let own = self.key_position(b, query);
            let outside = |key: usize| key <= query && self.key_position(b, key) + window <= own;
            let outside = keys.clone().take_while(|&key| outside(key)).count();
            scores[..outside].fill(-T::INFINITY);
        }
        if self.masks.causal && query + 1 < keys.end {
            scores[query + 1 - first..].fill(-T::INFINITY);
        }
        if let Some(pads) = self.masks.pads {
            let pads = &pads[b * pos..][keys.clone()];
            for (score, _) in scores.iter_mut().zip(pads).filter(|(_, pad)| **pad) {
                *score = T::from_f64(PAD_SCORE);
            }
        }
        // A key that is left out is not there, whatever its token is.
        if let Some(attended) = self.masks.attended {
            let mask = &attended.mask[b * pos..][keys.clone()];
            let seen = keys.zip(scores).zip(mask);
            let hidden = seen.filter(|((key, _), seen)| !**seen && *key != query);
            hidden.for_each(|((_, score), _)| *score = -T::INFINITY);
        }
    }
}

/// `cap tanh(x / cap)`
pub(crate) fn capped<T: Scalar>(x: T, cap: T) -> T {
    cap * (x / cap).tanh_lane()
}

/// From the derivative by what is capped to that by what it was before, where it is not masked.
pub(crate) fn capped_back<T: Scalar>(capped: &[T], cap: T, d: &mut [T]) {
    map2_in_place(d, capped, |d, y| {
        let share = y / cap;
        let slope = T::ONE - share * share;
        // A masked score is infinite, and has no derivative.
        if slope >= T::ZERO { d * slope } else { T::ZERO }
    });
}

/// Which of these keys or values, `[batch, pos, group, d_head]`, the head `h` has.
pub(crate) fn group_of<T: Scalar>(h: usize, heads: usize, keys: &Tensor<T>) -> usize {
    h / (heads / keys.shape()[2])
}

/// The softmax of scores over the keys, in place.
pub(crate) fn softmax<T: Scalar>(par: Par, scores: &mut Tensor<T>) {
    let keys = scores.shape()[3];
    split(par, scores.data_mut(), keys, |_, rows| {
        softmax_rows(rows, keys)
    });
}

/// `z[:, h] = pattern[h] v[:, h]`, for `pattern: [batch, head, queries, key]`, `v: [batch, pos, head, d_head]`.
pub(crate) fn weigh<T: Scalar>(par: Par, pattern: &Tensor<T>, v: &Tensor<T>, z: &mut Tensor<T>) {
    let &[_, heads, queries, _] = pattern.shape() else {
        unreachable!("patterns have four axes")
    };
    let d_head = v.shape()[3];
    let width = heads * d_head;
    split(par, z.data_mut(), width, |first, out| {
        // A stretch of rows may begin and end inside sequences.
        let mut row = first;
        let mut rest = out;
        while !rest.is_empty() {
            let (b, p) = (row / queries, row % queries);
            let n = (queries - p).min(rest.len() / width);
            let (own, others) = rest.split_at_mut(n * width);
            for h in 0..heads {
                let z =
                    MatMut::from_row_major_slice_mut(own, n, width).subcols_mut(h * d_head, d_head);
                let pattern = pattern.mat(&[b, h]).subrows(p, n);
                product_into(z, T::ONE, pattern, v.head(b, group_of(h, heads, v)));
            }
            rest = others;
            row += n;
        }
    });
}

/// Where an attention's derivatives go.
pub(crate) struct AttentionBack<'a, T: Scalar> {
    /// `[batch, queries, head, d_head]`, written.
    pub d_q: &'a mut Tensor<T>,
    /// `[batch, pos, head, d_head]`, written, as is `d_v`.
    pub d_k: &'a mut Tensor<T>,
    pub d_v: &'a mut Tensor<T>,
    /// `[batch, head, queries, key]` where someone wants them: the derivatives by pattern and scores.
    pub d_pattern: Option<&'a mut Tensor<T>>,
    pub d_scores: Option<&'a mut Tensor<T>>,
}

impl<T: Scalar> Attention<'_, T> {
    /// From the derivative by `z` and the pattern of the forward pass to those by queries, keys and values; of capped
    /// scores these too. Where patterns are held, queries and keys have none.
    pub fn back(
        &self,
        layout: Layout,
        rules: Rules,
        (pattern, scores): (&Tensor<T>, Option<&Tensor<T>>),
        d_z: &Tensor<T>,
        to: AttentionBack<'_, T>,
        scratch: &mut Scratch<T>,
    ) {
        match layout {
            Layout::Rows(_) => self.back_by_rows(rules, (pattern, scores), d_z, to),
            Layout::Abreast => self.back_abreast(pattern, d_z, to, scratch),
        }
    }

    fn back_abreast(
        &self,
        pattern: &Tensor<T>,
        d_z: &Tensor<T>,
        to: AttentionBack<'_, T>,
        scratch: &mut Scratch<T>,
    ) {
        let &[lanes, pos, heads, d_head] = self.k.shape() else {
            unreachable!("keys have four axes")
        };
        let pad_keys = (self.masks.pads).map(|pads| abreast::pad_lanes(pads, pos));
        let room = abreast::back::AttentionBack::<T>::room(self.queries.len(), pos, lanes);
        let mut work = scratch.take(&room);
        Arch::new().dispatch(abreast::back::AttentionBack {
            heads,
            d_head,
            queries: self.queries,
            q: self.q.data(),
            d_z: d_z.data(),
            d_q: to.d_q.data_mut(),
            k: self.k.data(),
            v: self.v.data(),
            d_k: to.d_k.data_mut(),
            d_v: to.d_v.data_mut(),
            pattern: pattern.data(),
            d_pattern: to.d_pattern.map(Tensor::data_mut),
            d_scores: to.d_scores.map(Tensor::data_mut),
            factor: self.scoring.factor,
            // A key at the pad token has a score even where the causal mask hides it.
            causal: self.masks.causal && pad_keys.is_none(),
            pad_keys: pad_keys.as_deref(),
            work: work.data_mut(),
        });
        scratch.give(work);
    }

    fn back_by_rows(
        &self,
        rules: Rules,
        (pattern, scores): (&Tensor<T>, Option<&Tensor<T>>),
        d_z: &Tensor<T>,
        mut to: AttentionBack<'_, T>,
    ) {
        let &[batch, pos, _, d_head] = self.k.shape() else {
            unreachable!("keys have four axes")
        };
        let heads = self.q.shape()[2];
        let n = self.queries.len();
        let width = heads * d_head;
        to.d_k.data_mut().fill(T::ZERO);
        to.d_v.data_mut().fill(T::ZERO);
        let mut d_scores = vec![T::ZERO; n * pos];
        for b in 0..batch {
            let (q, d_z) = (self.q.slice(&[b]), d_z.slice(&[b]));
            for h in 0..heads {
                let g = group_of(h, heads, self.k);
                let pattern = pattern.slice(&[b, h]);
                let of_head = |x| Columns::some(x, width, h * d_head, d_head);
                let d_pattern = MatMut::from_row_major_slice_mut(&mut d_scores, n, pos);
                let v = self.v.head(b, g).transpose();
                product_into(d_pattern, T::ONE, of_head(d_z).mat(), v);
                if let Some(kept) = &mut to.d_pattern {
                    kept.slice_mut(&[b, h]).copy_from_slice(&d_scores);
                }
                match rules.hold_patterns() {
                    true => d_scores.fill(T::ZERO),
                    false => softmax_rows_back(pattern, &mut d_scores, pos),
                }
                if let Some(kept) = &mut to.d_scores {
                    kept.slice_mut(&[b, h]).copy_from_slice(&d_scores);
                }
                if let Some(pads) = self.masks.pads {
                    // Their scores are constants.
                    let pads = &pads[b * pos..(b + 1) * pos];
                    for row in d_scores.chunks_exact_mut(pos) {
                        let constant = row.iter_mut().zip(pads).filter(|(_, pad)| **pad);
                        constant.for_each(|(d, _)| *d = T::ZERO);
                    }
                }
                if let (Some(cap), Some(scores)) = (self.scoring.cap, scores) {
                    capped_back(scores.slice(&[b, h]), cap, &mut d_scores);
                }
                let d = Columns::all(&d_scores[..], pos);
                let d_q = to.d_q.head_mut(b, h);
                product_into(d_q, self.scoring.factor, d.mat(), self.k.head(b, g));
                add_transposed_product(to.d_k.head_mut(b, g), self.scoring.factor, d, of_head(q));
                let pattern = Columns::all(pattern, pos);
                add_transposed_product(to.d_v.head_mut(b, g), T::ONE, pattern, of_head(d_z));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Several blocks a sequence, with every kind of mask and score, beside scores, softmax and mix of whole sequences.
    #[test]
    fn blocks_mix_what_the_whole_does() {
        let (batch, pos, heads, groups, d_head) = (2, 150, 4, 2, 8);
        let wave = |shape: &[usize], by: f64| {
            Tensor::<f64>::from_fn(shape, |at| {
                let sum = at.iter().fold(0, |sum, i| 7 * sum + i) as f64;
                (by * sum).sin()
            })
        };
        let k = wave(&[batch, pos, groups, d_head], 0.37);
        let v = wave(&[batch, pos, groups, d_head], 0.73);
        let slopes = [0.5, 0.25, 0.125, 0.0625];
        let pads: Vec<bool> = (0..batch * pos)
            .map(|i| i % 7 == 3 || i % pos > 140)
            .collect();
        let mask: Vec<bool> = pads.iter().map(|pad| !pad).collect();
        let positions: Vec<usize> = (0..batch * pos)
            .map(|i| {
                mask[i / pos * pos..=i]
                    .iter()
                    .filter(|&&seen| seen)
                    .count()
                    .max(1)
                    - 1
            })
            .collect();
        let plain = Masks {
            causal: true,
            pads: None,
            window: None,
            attended: None,
        };
        let product = Scoring {
            factor: 0.4,
            slopes: None,
            cap: None,
        };
        let attended = Some(Attended {
            mask: &mask,
            positions: &positions,
        });
        let window = Some(20);
        let cap = Some(1.5);
        let all: Vec<usize> = (0..pos).collect();
        let backwards: Vec<usize> = (0..pos).rev().step_by(2).collect();
        for (masks, scoring) in [
            (plain, product),
            (
                Masks {
                    causal: false,
                    ..plain
                },
                product,
            ),
            (Masks { window, ..plain }, product),
            (
                Masks {
                    window,
                    causal: false,
                    ..plain
                },
                Scoring { cap, ..product },
            ),
            (
                plain,
                Scoring {
                    slopes: Some(&slopes),
                    ..product
                },
            ),
            (
                Masks {
                    pads: Some(&pads),
                    ..plain
                },
                product,
            ),
            (
                Masks {
                    pads: Some(&pads),
                    window,
                    ..plain
                },
                product,
            ),
            (
                Masks { attended, ..plain },
                Scoring {
                    slopes: Some(&slopes),
                    ..product
                },
            ),
            (
                Masks {
                    attended,
                    window,
                    ..plain
                },
                product,
            ),
        ] {
            for queries in [&all[..], &backwards[..], &[149, 3, 77]] {
                let q = wave(&[batch, queries.len(), heads, d_head], 0.91);
                let attention = Attention {
                    queries,
                    q: &q,
                    k: &k,
                    v: &v,
                    scoring,
                    masks,
                };
                let mut pattern = Tensor::zeros(&[batch, heads, queries.len(), pos]);
                attention.scores(Par::Seq, &mut pattern);
                let finite = pattern.data().iter().filter(|x| x.is_finite());
                // Those at pads are constants.
                let seen = finite.filter(|&&x| x > PAD_SCORE);
                let size = seen.fold(d_head as f64, |m, x| m.max(x.abs()));
                softmax(Par::Seq, &mut pattern);
                let mut expected = Tensor::zeros(q.shape());
                weigh(Par::Seq, &pattern, &v, &mut expected);
                // Scores are off by their products' roundings, weights by as much of themselves, and sums of them by theirs;
                // no value is larger than one.
                let bound = 4.0 * ((d_head as f64 + 4.0) * size + pos as f64) * f64::EPSILON;
                for par in [Par::Seq, Par::Rayon] {
                    let mut z = Tensor::zeros(q.shape());
                    attention.mix_in_blocks(par, &mut z);
                    for (a, b) in z.data().iter().zip(expected.data()) {
                        assert!((a - b).abs() <= bound, "{a} {b}, bound {bound:e}");
                    }
                }
            }
        }
    }
}
