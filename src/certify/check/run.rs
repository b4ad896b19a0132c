//! The model's runs, some inputs abreast: each row with one number for how far it is off.
//!
//! A row that was computed is `x̂`, and `off >= |x - x̂|` in length (Euclidean, as all lengths here). With `ε` for
//! `f64::EPSILON`, twice what an operation is off by, and so `nε` at least what a sum of `n` products is:
//!
//! - *Map*, `x W + b`: `|W| off`, and `ε (n + 8) (|x̂| |W|_F + |b|)`. `|W|` by the powers of `W Wᵀ`, see [`norm`].
//! - *Norm*, `c / σ` with `c` the mean-free row and `σ² = |c|² / d + eps`: its derivative `(1 - c cᵀ / (d σ²)) / σ` is no
//!   longer than `1 / σ`, that of `σ` no longer than `1 / √d`, and so within `off` it moves by `off / (σ̂ - off / √d)`.
//! - *Scores*, `q · k`: `|q̂| off_k + off_q (|k̂| + off_k)`.
//! - *Mean* of values with weights `w_j` within `r_j` of `ŵ_j`: from `m = Σ ŵ_j v̂_j / Σ ŵ_j` it is
//!   `(Σ w_j (v_j - v̂_j) + Σ (w_j - ŵ_j) (v̂_j - m)) / Σ w_j` away, as `Σ ŵ_j (v̂_j - m)` is nothing: no more than
//!   `(Σ (ŵ_j + r_j) off_j + Σ r_j (|v̂_j| + |m|)) / Σ (ŵ_j - r_j)`. A key that is left out moves a mean by no more than its
//!   weight times both lengths, over the sum of the weights.
//! - *Neurons*, `max(x, 0)`: two rows come no further apart.

// Lanes by their number: so the compiler makes vectors of them.
#![allow(clippy::needless_range_loop)]

use super::ball::{Ball, dot, exact, exp, total};
use super::plain::Plain;
use crate::kernel::PAD_SCORE;
use crate::model::{Mask, NormKind};
use crate::names::{Head, NormSite};
use crate::tensor::vectorize;
use faer::MatRef;
use std::array::from_fn;

/// How many inputs are run abreast.
pub(super) const ABREAST: usize = 8;

/// One number of each of them.
type Lanes = [f64; ABREAST];

/// So many sums are made in one pass over what they are made of, and stay in registers.
const TOGETHER: usize = 8;

/// Where passes over sums begin, so that each has all that it makes; and those that are made alone, where there are fewer.
fn passes(sums: usize) -> (impl Iterator<Item = usize>, std::ops::Range<usize>) {
    let whole = sums >= TOGETHER;
    let starts = (0..if whole { sums } else { 0 }).step_by(TOGETHER);
    let starts = starts.map(move |first| first.min(sums - TOGETHER));
    (starts, 0..if whole { 0 } else { sums })
}

/// A vector of each of the inputs: no less than how long it came out, and than how far it is off.
#[derive(Clone)]
struct Row {
    mid: Vec<Lanes>,
    long: Lanes,
    off: Lanes,
}

/// More than what a few operations on positive numbers came out as, whatever was lost to rounding and underflow.
#[inline(always)]
fn up(x: f64) -> f64 {
    x * (1.0 + 64.0 * f64::EPSILON) + f64::MIN_POSITIVE
}

/// What a sum of `n` products, and some operations on it, may be off by, of the sum of moduli.
fn share(n: usize) -> f64 {
    (n + 8) as f64 * f64::EPSILON
}

/// A sum of products, in four parts, as an addition takes as long as four can be begun in.
#[inline(always)]
fn product(x: &[Lanes], y: &[Lanes]) -> Lanes {
    let mut sums = [[0.0; ABREAST]; 4];
    let ((x, x_left), (y, y_left)) = (x.as_chunks::<4>(), y.as_chunks::<4>());
    for (x, y) in x.iter().zip(y) {
        for part in 0..4 {
            for i in 0..ABREAST {
                sums[part][i] = x[part][i].mul_add(y[part][i], sums[part][i]);
            }
        }
    }
    for (x, y) in x_left.iter().zip(y_left) {
        for i in 0..ABREAST {
            sums[0][i] = x[i].mul_add(y[i], sums[0][i]);
        }
    }
    from_fn(|i| (sums[0][i] + sums[1][i]) + (sums[2][i] + sums[3][i]))
}

/// No less than a row's length.
#[inline(always)]
fn length(x: &[Lanes]) -> Lanes {
    let lost = x.len() as f64 * f64::MIN_POSITIVE;
    product(x, x).map(|s| up((s * (1.0 + share(x.len())) + lost).sqrt()))
}

/// The same of one row.
fn long(x: &[f64]) -> f64 {
    let x = exact(x);
    up(dot(&x, x.iter().copied()).hi().sqrt())
}

/// No less than how much longer a matrix makes a vector: `|W|` is `|G|` to the 1/2, 1/4, … of `G = W Wᵀ`, `G²`, …, which
/// are symmetric, so that each is the last one's rows times each other. And its entries' length.
pub(super) fn norm(W: MatRef<'_, f64>) -> [f64; 2] {
    let W = if W.nrows() <= W.ncols() {
        W
    } else {
        W.transpose()
    };
    let mut rows: Vec<Vec<Ball>> = (W.row_iter())
        .map(|row| row.iter().copied().map(Ball::of).collect())
        .collect();
    let squares = |rows: &[Vec<Ball>]| {
        let each: Vec<Ball> = rows.iter().map(|x| dot(x, x.iter().copied())).collect();
        Ball::of(total(&each).hi().max(f64::MIN_POSITIVE))
    };
    let entries = squares(&rows).root().hi();
    for _ in 0..4 {
        let with = |x: &Vec<Ball>| rows.iter().map(|y| dot(x, y.iter().copied())).collect();
        rows = rows.iter().map(with).collect();
    }
    [(0..5).fold(squares(&rows), |x, _| x.root()).hi(), entries]
}

/// `x W + b`
struct Map {
    W: Vec<f64>,
    b: Vec<f64>,
    /// No less than what it lengthens a vector by, than the length of all of `W`, and of `b`.
    norm: f64,
    entries: f64,
    bias: f64,
}

impl Map {
    fn new(W: MatRef<'_, f64>, b: &[f64]) -> Map {
        let rows = W.row_iter().flat_map(|row| row.iter().copied());
        let [norm, entries] = norm(W);
        Map {
            W: rows.collect(),
            b: b.to_vec(),
            norm,
            entries,
            bias: long(b),
        }
    }

    fn of(&self, x: &Row) -> Row {
        let (n, columns) = (x.mid.len(), self.b.len());
        let mut out = Row::new(vec![[0.0; ABREAST]; columns], x.off);
        vectorize(
            #[inline(always)]
            || {
                let (together, alone) = passes(columns);
                for first in together {
                    let mut sums = [[0.0; ABREAST]; TOGETHER];
                    for (x, row) in x.mid.iter().zip(self.W.chunks_exact(columns)) {
                        let row: &[f64; TOGETHER] = row[first..].first_chunk().expect("whole");
                        for (sum, w) in sums.iter_mut().zip(row) {
                            for i in 0..ABREAST {
                                sum[i] = x[i].mul_add(*w, sum[i]);
                            }
                        }
                    }
                    out.mid[first..][..TOGETHER].copy_from_slice(&sums);
                }
                for column in alone {
                    for (x, row) in x.mid.iter().zip(self.W.chunks_exact(columns)) {
                        for (sum, x) in out.mid[column].iter_mut().zip(x) {
                            *sum = x.mul_add(row[column], *sum);
                        }
                    }
                }
                for (out, &b) in out.mid.iter_mut().zip(&self.b) {
                    out.iter_mut().for_each(|x| *x += b);
                }
                for (off, long) in out.off.iter_mut().zip(&x.long) {
                    let rounding = share(n) * (long * self.entries + self.bias);
                    *off = up(*off * self.norm + rounding);
                }
                out.long = length(&out.mid);
            },
        );
        out
    }
}

impl Row {
    fn new(mid: Vec<Lanes>, off: Lanes) -> Row {
        let mut long = [0.0; ABREAST];
        vectorize(
            #[inline(always)]
            || long = length(&mid),
        );
        Row { mid, long, off }
    }

    fn add(&mut self, other: &Row) {
        vectorize(
            #[inline(always)]
            || {
                for (x, y) in self.mid.iter_mut().zip(&other.mid) {
                    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
                }
                self.long = length(&self.mid);
                for i in 0..ABREAST {
                    let off = self.off[i] + other.off[i] + f64::EPSILON * self.long[i];
                    self.off[i] = up(off);
                }
            },
        );
    }
}

/// A norm's weight and bias, and no less than the largest and the length of these.
struct Norm {
    kind: Option<NormKind>,
    eps: f64,
    w: Vec<f64>,
    b: Vec<f64>,
    most: f64,
    bias: f64,
}

impl Norm {
    fn new(plain: &Plain<'_>, site: NormSite) -> Norm {
        // A weight of one and some more is rounded, as the row that it multiplies is.
        let middles = |row: Vec<Ball>| row.iter().map(|x| x.0).collect::<Vec<f64>>();
        let [w, b] = plain.of_norm(site).map(middles);
        Norm {
            kind: plain.c.norm,
            eps: plain.c.eps,
            most: up(w.iter().fold(0.0, |most, w| f64::max(most, w.abs()))),
            bias: long(&b),
            w,
            b,
        }
    }

    /// No less than how long any row is behind it.
    fn reach(&self) -> f64 {
        up((self.w.len() as f64).sqrt() * self.most + self.bias)
    }

    fn of(&self, x: &Row) -> Row {
        let Some(kind) = self.kind else {
            return x.clone();
        };
        let (mut out, n) = (x.clone(), x.mid.len());
        let (d, root) = (n as f64, (n as f64).sqrt());
        vectorize(
            #[inline(always)]
            || {
                if kind.centred {
                    let mut mean = [0.0; ABREAST];
                    for x in &x.mid {
                        mean.iter_mut().zip(x).for_each(|(m, x)| *m += x);
                    }
                    for x in &mut out.mid {
                        x.iter_mut().zip(&mean).for_each(|(x, m)| *x -= m / d);
                    }
                }
                let squares = product(&out.mid, &out.mid);
                let mut inverse = [0.0; ABREAST];
                for i in 0..ABREAST {
                    let variance = squares[i] / d + self.eps;
                    let sigma = variance.sqrt();
                    inverse[i] = 1.0 / sigma;
                    let off = up(x.off[i] + share(n) * x.long[i]);
                    let least = sigma * (1.0 - share(n)) - off / root;
                    // Below this what underflows would count.
                    let known = variance > f64::MIN_POSITIVE / f64::EPSILON && least > 0.0;
                    let moved = up(off / least + 2.0 * share(n) * root) * self.most;
                    let off = up(moved + 4.0 * f64::EPSILON * self.bias);
                    out.off[i] = if known { off } else { f64::NAN };
                }
                for ((x, &w), &b) in out.mid.iter_mut().zip(&self.w).zip(&self.b) {
                    for (x, inverse) in x.iter_mut().zip(&inverse) {
                        *x = *x * inverse * w + b;
                    }
                }
                out.long = length(&out.mid);
            },
        );
        out
    }
}

struct Layer {
    norms: [Norm; 2],
    /// By head `W_Q`, `W_K`, `W_V`, `W_O`, the first head's with what attention adds whatever it sees.
    heads: Vec<[Map; 4]>,
    /// What scores are multiplied by.
    factor: f64,
    mlp: Option<[Map; 2]>,
}

/// A vector by position and token, and how far it is off.
type Known = Vec<(Vec<f64>, f64)>;

/// A model as it is run.
pub(super) struct Run<'a> {
    plain: &'a Plain<'a>,
    embedded: Known,
    /// By head the first layer's queries, keys and values.
    first: Vec<[Known; 3]>,
    layers: Vec<Layer>,
    last: Norm,
    unembed: Map,
}

fn known<'a>(rows: impl Iterator<Item = &'a Vec<Ball>>) -> Known {
    let one = |row: &Vec<Ball>| {
        let radii: Vec<f64> = row.iter().map(|x| x.1).collect();
        (row.iter().map(|x| x.0).collect(), long(&radii))
    };
    rows.map(one).collect()
}

impl<'a> Run<'a> {
    pub fn new(plain: &'a Plain<'a>) -> Run<'a> {
        let (c, w) = (plain.c, plain.w);
        let layer = |l: usize| {
            let block = &w.blocks[l];
            let head = |head: usize| {
                let (h, none) = (Head { layer: l, head }, vec![0.0; c.d_model]);
                let out = if head == 0 {
                    block.attn.b_O.data()
                } else {
                    &none
                };
                [
                    Map::new(w.W_Q(h), w.b_Q(h)),
                    Map::new(w.W_K(h), w.b_K(h)),
                    Map::new(w.W_V(h), w.b_V(h)),
                    Map::new(w.W_O(h), out),
                ]
            };
            let by_layer = if c.scale_attn_by_inverse_layer_idx {
                l + 1
            } else {
                1
            };
            let mlp = block.mlp.as_ref().map(|mlp| {
                [
                    Map::new(mlp.W_in.rows(), mlp.b_in.data()),
                    Map::new(mlp.W_out.rows(), mlp.b_out.data()),
                ]
            });
            Layer {
                norms: [NormSite::Ln1(l), NormSite::Ln2(l)].map(|site| Norm::new(plain, site)),
                heads: (0..c.n_heads).map(head).collect(),
                factor: 1.0 / (c.attn_scale * by_layer as f64),
                mlp,
            }
        };
        let first =
            |own: &Vec<[Vec<Ball>; 3]>| [0, 1, 2].map(|i| known(own.iter().map(|own| &own[i])));
        Run {
            plain,
            embedded: known(plain.embedded.iter()),
            first: plain.first.iter().map(first).collect(),
            layers: (0..c.n_layers).map(layer).collect(),
            last: Norm::new(plain, NormSite::Final),
            unembed: Map::new(w.W_U.rows(), w.b_U.data()),
        }
    }

    /// Which positions of an input are pads: the same for all that are run abreast.
    pub fn pads(&self, sequence: &[i64]) -> Vec<bool> {
        let pad = self.plain.c.pad_token.map(|pad| pad as i64);
        sequence.iter().map(|&t| Some(t) == pad).collect()
    }

    /// The logits of some sequences with pads at the same positions, at some places: by sequence and place.
    ///
    /// # Panics
    /// When there are none, or more than are run abreast.
    pub fn logits(&self, sequences: &[Vec<i64>], places: &[usize]) -> Vec<Vec<Vec<Ball>>> {
        let (c, pads) = (self.plain.c, self.pads(&sequences[0]));
        assert!(sequences.len() <= ABREAST && sequences.iter().all(|s| self.pads(s) == pads));
        // Lanes that are left over run the first again.
        let sequence: [&Vec<i64>; ABREAST] = from_fn(|i| sequences.get(i).unwrap_or(&sequences[0]));
        let beside = |known: &Known, j: usize| {
            let rows = sequence.map(|s| &known[j * c.d_vocab + s[j] as usize]);
            let mut mid = vec![[0.0; ABREAST]; rows[0].0.len()];
            for (i, row) in rows.iter().enumerate() {
                mid.iter_mut().zip(&row.0).for_each(|(x, &row)| x[i] = row);
            }
            Row::new(mid, rows.map(|row| row.1))
        };
        // A pad weighs so little that it may have any value that a norm lets through.
        let left_out = |j: &usize| pads[*j] && !places.contains(j) && c.norm.is_some();
        let there: Vec<usize> = (0..pads.len()).filter(|j| !left_out(j)).collect();
        let left = (pads.len() - there.len()) as f64;
        let mut x: Vec<Row> = there.iter().map(|&j| beside(&self.embedded, j)).collect();
        for (l, layer) in self.layers.iter().enumerate() {
            let asked = |&i: &usize| l + 1 < c.n_layers || places.contains(&there[i]);
            let asked: Vec<usize> = (0..there.len()).filter(asked).collect();
            let read = |x: &Row| layer.norms[0].of(x);
            let read: Vec<Row> = if l > 0 {
                x.iter().map(read).collect()
            } else {
                Vec::new()
            };
            for (head, maps) in layer.heads.iter().enumerate() {
                let own = |which: usize, i: usize| match l {
                    0 => beside(&self.first[head][which], there[i]),
                    _ => maps[which].of(&read[i]),
                };
                let keys: Vec<Row> = (0..there.len()).map(|i| own(1, i)).collect();
                let values: Vec<Row> = (0..there.len()).map(|i| own(2, i)).collect();
                let pad_value = up(maps[2].norm * layer.norms[0].reach() + maps[2].bias);
                for &p in &asked {
                    let sees = |j: usize| pads[j] || c.mask == Mask::All || j <= there[p];
                    let seen: Vec<usize> = (0..there.len()).filter(|&i| sees(there[i])).collect();
                    let seen_keys: Vec<&Row> = seen.iter().map(|&i| &keys[i]).collect();
                    let mut scores = scored(&own(0, p), &seen_keys, layer.factor);
                    for (score, _) in scores
                        .iter_mut()
                        .zip(&seen)
                        .filter(|(_, i)| pads[there[**i]])
                    {
                        *score = ([PAD_SCORE; ABREAST], [0.0; ABREAST]);
                    }
                    let seen: Vec<&Row> = seen.iter().map(|&i| &values[i]).collect();
                    x[p].add(&maps[3].of(&mean(&scores, &seen, left, pad_value)));
                }
            }
            if let Some([into, out]) = &layer.mlp {
                for &p in &asked {
                    let mut post = into.of(&layer.norms[1].of(&x[p]));
                    for x in post.mid.iter_mut().flatten() {
                        *x = x.max(0.0);
                    }
                    x[p].add(&out.of(&post));
                }
            }
        }
        let at = |p: &usize| {
            there
                .iter()
                .position(|j| j == p)
                .expect("what is asked is there")
        };
        let end = |p: &usize| self.unembed.of(&self.last.of(&x[at(p)]));
        let ends: Vec<Row> = places.iter().map(end).collect();
        let balls = |row: &Row, i: usize| row.mid.iter().map(|x| Ball(x[i], row.off[i])).collect();
        let of = |i: usize| ends.iter().map(|row| balls(row, i)).collect();
        (0..sequences.len()).map(of).collect()
    }
}

/// A query's scores with some keys, and what they are off by.
fn scored(query: &Row, keys: &[&Row], factor: f64) -> Vec<(Lanes, Lanes)> {
    let mut all: Vec<(Lanes, Lanes)> = Vec::new();
    vectorize(
        #[inline(always)]
        || {
            let n = query.mid.len();
            for key in keys {
                let sums = product(&query.mid, &key.mid);
                let mut off = [0.0; ABREAST];
                for i in 0..ABREAST {
                    let own = query.long[i] * (key.off[i] + share(n) * key.long[i]);
                    let inherited = query.off[i] * (key.long[i] + key.off[i]);
                    off[i] = up((own + inherited) * factor.abs());
                }
                all.push((sums.map(|s| s * factor), off));
            }
        },
    );
    all
}

/// The mean of some values by their scores, some more that are not there scored as pads, and these no longer than so much.
fn mean(scores: &[(Lanes, Lanes)], values: &[&Row], pads: f64, pad_value: f64) -> Row {
    let width = values.first().map_or(0, |v| v.mid.len());
    let mut out = Row::new(vec![[0.0; ABREAST]; width], [f64::NAN; ABREAST]);
    let mut weights = vec![[0.0; ABREAST]; scores.len()];
    vectorize(
        #[inline(always)]
        || {
            let mut most = [f64::MIN; ABREAST];
            for (score, _) in scores {
                for (most, &s) in most.iter_mut().zip(score) {
                    *most = if s > *most { s } else { *most };
                }
            }
            // Of the weights ŵ, and of r, |ŵ v̂|, r |v̂| and (ŵ + r) off.
            let [mut sum, mut radii, mut long, mut about, mut off] = [[0.0; ABREAST]; 5];
            for (((score, within), value), weight) in scores.iter().zip(values).zip(&mut weights) {
                let (mut by, mut within) = (*score, *within);
                for i in 0..ABREAST {
                    by[i] -= most[i];
                    within[i] += f64::EPSILON * by[i].abs();
                }
                let r;
                [*weight, r] = exp(by, within);
                for i in 0..ABREAST {
                    sum[i] += weight[i];
                    radii[i] += r[i];
                    long[i] += weight[i] * value.long[i];
                    about[i] += r[i] * value.long[i];
                    off[i] += (weight[i] + r[i]) * value.off[i];
                }
            }
            let mut inverse = [0.0; ABREAST];
            for i in 0..ABREAST {
                inverse[i] = 1.0 / sum[i];
                let n = share(scores.len());
                let by = PAD_SCORE - most[i];
                let [[e], [r]] = exp([by], [f64::EPSILON * by.abs()]);
                let least = sum[i] * (1.0 - n) - radii[i] * (1.0 + n);
                let middle = long[i] * inverse[i];
                let moved = off[i] + about[i] + radii[i] * middle;
                let pads = pads * (e + r) * (pad_value + (long[i] + about[i] + off[i]) / least);
                let moved = up((moved + pads) / least + 2.0 * n * middle) * (1.0 + 2.0 * n);
                out.off[i] = if least > 0.0 { moved } else { f64::NAN };
            }
            let (together, alone) = passes(width);
            for first in together {
                let mut sums = [[0.0; ABREAST]; TOGETHER];
                for (weight, value) in weights.iter().zip(values) {
                    let value: &[Lanes; TOGETHER] =
                        value.mid[first..].first_chunk().expect("whole");
                    for (sum, v) in sums.iter_mut().zip(value) {
                        for i in 0..ABREAST {
                            sum[i] = weight[i].mul_add(v[i], sum[i]);
                        }
                    }
                }
                out.mid[first..][..TOGETHER].copy_from_slice(&sums);
            }
            for column in alone {
                for (weight, value) in weights.iter().zip(values) {
                    for i in 0..ABREAST {
                        let sum = &mut out.mid[column][i];
                        *sum = weight[i].mul_add(value.mid[column][i], *sum);
                    }
                }
            }
            for out in &mut out.mid {
                out.iter_mut().zip(&inverse).for_each(|(x, by)| *x *= by);
            }
            out.long = length(&out.mid);
        },
    );
    out
}
