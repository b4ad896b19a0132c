//! Composition scores: how much of what one head writes a later head reads.
//!
//! The score of an earlier head with `L = W_OV` and a later one with `R` is `|L R|_F / (|L|_F |R|_F)`, where `R` is
//! the later head's `W_QK` (Q-composition), `W_QKᵀ` (K) or `W_OV` (V).
//!
//! With `L = Q_L P`, `Q_L` of orthonormal columns and `P: [d_head, d_model]`, and likewise `R = Z Q_Rᵀ`,
//! `|L R|² = |P Z|² = <PᵀP, Z Zᵀ>`: the Gram matrices of all heads, flattened, multiply in one product of
//! matrices. For GPT-2's sizes these are 40 GFLOP rather than the 180 of one product for each pair. The Gram
//! matrices are symmetric, and are formed, multiplied and forgotten tile by tile.

use super::turned::{Distance, Meeting};
use crate::error::{Error, Result};
use crate::factored::Factored;
use crate::linalg::{Par, product, product_into, triangular_factor};
use crate::model::Model;
use crate::names::Head;
use crate::tensor::{Scalar, Tensor};
use faer::{Mat, MatMut, MatRef};
use rayon::prelude::*;
use serde::{Serialize, Serializer};
use std::ops::Range;

/// By which of its inputs a head composes with an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Composition {
    /// By its queries: with `W_QK`.
    Q,
    /// By its keys: with `W_QKᵀ`.
    K,
    /// By its values: with `W_OV`.
    V,
}

impl Composition {
    /// All three.
    pub const ALL: [Composition; 3] = [Composition::Q, Composition::K, Composition::V];
}

/// The composition scores of all pairs of heads.
///
/// # Shapes
/// `Q`, `K`, `V`: `[layer, head, layer, head]`, the earlier head first. Where the second layer is not after the
/// first, zero. As JSON, nested lists.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(bound = "")]
pub struct CompositionScores<T: Scalar> {
    /// By the later head's queries.
    #[serde(serialize_with = "nested")]
    pub Q: Tensor<T>,
    /// By its keys.
    #[serde(serialize_with = "nested")]
    pub K: Tensor<T>,
    /// By its values.
    #[serde(serialize_with = "nested")]
    pub V: Tensor<T>,
}

impl<T: Scalar> CompositionScores<T> {
    /// The scores of one kind.
    pub fn of(&self, kind: Composition) -> &Tensor<T> {
        match kind {
            Composition::Q => &self.Q,
            Composition::K => &self.K,
            Composition::V => &self.V,
        }
    }

    /// The score of one pair.
    ///
    /// # Panics
    /// When the model has no such heads.
    #[track_caller]
    pub fn score(&self, kind: Composition, earlier: Head, later: Head) -> T {
        self.of(kind)[[earlier.layer, earlier.head, later.layer, later.head]]
    }
}

fn nested<T: Scalar, S: Serializer>(scores: &Tensor<T>, s: S) -> Result<S::Ok, S::Error> {
    let &[layers, heads, ..] = scores.shape() else {
        unreachable!("scores have four axes")
    };
    let list = |l: usize, h: usize| -> Vec<Vec<f64>> {
        let later = |m: usize| {
            scores
                .slice(&[l, h, m])
                .iter()
                .map(|x| x.to_f64())
                .collect()
        };
        (0..layers).map(later).collect()
    };
    let all = (0..layers).map(|l| (0..heads).map(|h| list(l, h)).collect::<Vec<_>>());
    s.collect_seq(all)
}

/// The Q-, K- and V-composition scores of all pairs of heads in ascending layers. Where queries and keys are turned by their
/// positions, `W_QK` is that of a distance; a norm of queries and keys is in it but for its scale, which is a number for each
/// query and key of a run, and leaves the scores as they are.
///
/// A head whose `W_OV` or `W_QK` is zero composes with none: its scores are zero.
///
/// # Errors
/// When one of the weights is NaN or infinite, or the model's positions do not go so far.
///
/// # Accuracy
/// The square of a score is computed with an error of at most `eps (TILE² |G| |H| + d_head (|G| + |H|))`, where `G`
/// and `H` are the Gram matrices of the two, scaled to trace one, and `TILE`, 128, is the side of the tiles in which
/// they are multiplied (the tiles' products are added in f64). Where that could be more than an eighth of the square,
/// the product of the pair is formed instead, which has an error of the order of `eps` in the score itself.
///
/// # Cost
/// `(4 N d_head + p) d_model²` operations for `N` heads and `p` pairs, counting all three kinds: 40 GFLOP for GPT-2
/// small. The keys and values of heads that share them are not copied.
///
/// # Source
/// `HookedTransformer.all_composition_scores`; "A Mathematical Framework for Transformer Circuits".
///
/// ```
/// use pathsum::decompose::{Composition, Distance, composition_scores};
/// use pathsum::{Par, fixture};
/// let scores = composition_scores(&fixture::induction::<f64>(), Distance::At(0), Par::Seq)?;
/// // The induction head finds its keys by what the previous-token head wrote.
/// let (previous, induction) = ("0.0".parse()?, "1.0".parse()?);
/// let by_keys = scores.score(Composition::K, previous, induction);
/// assert!(by_keys > scores.score(Composition::Q, previous, induction));
/// # Ok::<(), pathsum::Error>(())
/// ```
pub fn composition_scores<T: Scalar>(
    model: &Model<T>,
    distance: Distance,
    par: Par,
) -> Result<CompositionScores<T>> {
    let c = model.config();
    distance.check(c)?;
    let rotations: Vec<_> = (0..c.n_layers).map(|l| distance.rotations(c, l)).collect();
    let halves_of = |&h: &Head| Halves::of(model, h, rotations[h.layer].as_ref());
    let heads: Vec<Head> = (0..c.n_layers)
        .flat_map(|layer| (0..c.n_heads).map(move |head| Head { layer, head }))
        .collect();
    let halves: Vec<Halves<T>> = match par {
        Par::Seq => heads.iter().map(halves_of).collect::<Result<_>>()?,
        Par::Rayon => heads.par_iter().map(halves_of).collect::<Result<_>>()?,
    };
    let layers = Layers {
        heads: c.n_heads,
        d_model: c.d_model,
        halves: &halves,
    };
    let squares = layers.squares(par);
    let kind = |kind: usize| {
        Tensor::from_fn(&[c.n_layers, c.n_heads, c.n_layers, c.n_heads], |at| {
            if at[0] >= at[2] {
                return T::ZERO;
            }
            let (left, right) = (at[0] * c.n_heads + at[1], at[2] * c.n_heads + at[3]);
            let square = squares[left * 3 * heads.len() + 3 * right + kind];
            layers.score(left, right, kind, square)
        })
    };
    Ok(CompositionScores {
        Q: kind(0),
        K: kind(1),
        V: kind(2),
    })
}

/// The side of the square tiles of the Gram matrices: large enough for a product to be fast, small enough for all
/// heads' to stay in the caches.
const TILE: usize = 128;

/// How many layers' heads read at a time: one layer's are too few for a product to be fast. Among them are pairs
/// that do not ascend, which nobody looks at.
const LAYERS: usize = 4;

/// A matrix `M`, scaled to Frobenius norm one, of which the Gram matrix `M Mᵀ` is wanted: `[d_model, d_head]`.
struct Half<T: Scalar> {
    M: Tensor<T>,
    /// `Mᵀ`, so that both factors of the Gram matrix have contiguous rows.
    transposed: Tensor<T>,
    /// The Frobenius norm of the Gram matrix, between `1/√d_head` and one.
    gram_norm: f64,
}

impl<T: Scalar> Half<T> {
    /// The half of `X Y` that meets what stands on its left: `X R_Yᵀ`, with `Yᵀ = Q R_Y`.
    fn new(X: MatRef<'_, T>, Y: MatRef<'_, T>) -> Self {
        let R = triangular_factor(Y.transpose());
        let mut M = Tensor::zeros(&[X.nrows(), R.nrows()]);
        product_into(M.mat_mut(&[]), T::ONE, X, R.transpose());
        let norm = M.mat(&[]).norm_l2();
        // A norm that is zero leaves zeros.
        let inverse = if norm == T::ZERO {
            T::ONE
        } else {
            T::ONE / norm
        };
        M.data_mut().iter_mut().for_each(|x| *x *= inverse);
        // Made rather than copied: a product writes whole rows, a transpose one entry at a time.
        let mut transposed = Tensor::zeros(&[R.nrows(), X.nrows()]);
        product_into(transposed.mat_mut(&[]), inverse, R.as_ref(), X.transpose());
        // `M Mᵀ` and the smaller `Mᵀ M` have the same.
        let gram_norm = product(transposed.mat(&[]), M.mat(&[])).norm_l2().to_f64();
        Half {
            M,
            transposed,
            gram_norm,
        }
    }

    /// Blocks of `M Mᵀ`, each row-major, one after the other from the beginning of `out`; those that stand for their
    /// mirror images too are multiplied by `mirrored`.
    fn gram(&self, blocks: &[GramBlock], mirrored: T, mut out: &mut [T]) {
        for GramBlock { rows, columns } in blocks {
            let left = self.M.mat(&[]).subrows(rows.start, rows.len());
            let right = self
                .transposed
                .mat(&[])
                .subcols(columns.start, columns.len());
            let (own, rest) = out.split_at_mut(rows.len() * columns.len());
            let own = MatMut::from_row_major_slice_mut(own, rows.len(), columns.len());
            let alpha = if rows == columns { T::ONE } else { mirrored };
            product_into(own, alpha, left, right);
            out = rest;
        }
    }
}

/// What a head is to the later ones, and to the earlier ones by each kind of composition.
struct Halves<T: Scalar> {
    writes: Half<T>,
    /// In the order of [`Composition::ALL`].
    reads: [Half<T>; 3],
}

impl<T: Scalar> Halves<T> {
    fn of(model: &Model<T>, h: Head, rotations: Option<&(Mat<T>, Mat<T>)>) -> Result<Self> {
        let w = model.weights();
        let (W_Q, W_K, W_V, W_O) = (w.W_Q(h), w.W_K(h), w.W_V(h), w.W_O(h));
        for (name, M) in [("W_Q", W_Q), ("W_K", W_K), ("W_V", W_V), ("W_O", W_O)] {
            if !M.is_all_finite() {
                return Err(Error::Numeric(format!(
                    "composition of head {h}: its {name} holds a NaN or an infinity"
                )));
            }
        }
        let meeting = Meeting::of(model, h, rotations);
        let (W_Q, W_K) = (meeting.W_Q.mat(), meeting.W_K.mat());
        Ok(Halves {
            writes: Half::new(W_O.transpose(), W_V.transpose()),
            reads: [
                Half::new(W_Q, W_K.transpose()),
                Half::new(W_K, W_Q.transpose()),
                Half::new(W_V, W_O),
            ],
        })
    }
}

/// A block of a Gram matrix: on its diagonal, or above it.
struct GramBlock {
    rows: Range<usize>,
    columns: Range<usize>,
}

/// The blocks of a tile: of one on the diagonal, which is symmetric, without its lower left quarter.
fn blocks_of(rows: Range<usize>, columns: Range<usize>) -> Vec<GramBlock> {
    let block = |rows: &Range<usize>, columns: &Range<usize>| GramBlock {
        rows: rows.clone(),
        columns: columns.clone(),
    };
    if rows != columns {
        return vec![block(&rows, &columns)];
    }
    let middle = rows.start + rows.len() / 2;
    let (low, high) = (rows.start..middle, middle..rows.end);
    vec![block(&low, &low), block(&high, &high), block(&low, &high)]
}

/// What one tile after the other is worked out in: the writers' and some readers' Gram matrices there, each
/// `stride` from the next, and their inner products.
struct Room<T> {
    stride: usize,
    left: Vec<T>,
    right: Vec<T>,
    products: Vec<T>,
}

struct Layers<'a, T: Scalar> {
    heads: usize,
    d_model: usize,
    halves: &'a [Halves<T>],
}

impl<T: Scalar> Layers<'_, T> {
    /// `<PᵀP, Z Zᵀ>` for all pairs of heads in ascending layers: `[head, head, kind]`.
    fn squares(&self, par: Par) -> Vec<f64> {
        let tiles = self.d_model.div_ceil(TILE);
        let tiles: Vec<(usize, usize)> = (0..tiles)
            .flat_map(|i| (i..tiles).map(move |j| (i, j)))
            .collect();
        let zeros = || vec![0.0; 3 * self.halves.len() * self.halves.len()];
        let sum = |tiles: &[(usize, usize)]| {
            let (mut sums, mut room) = (zeros(), self.room());
            for tile in tiles {
                self.add_tile(*tile, &mut room, &mut sums);
            }
            sums
        };
        match par {
            Par::Seq => sum(&tiles),
            Par::Rayon => {
                // One stretch of tiles a thread: the order of summing is then the same in every run.
                let stretch = tiles.len().div_ceil(4 * par.threads()).max(1);
                let parts: Vec<Vec<f64>> = tiles.par_chunks(stretch).map(sum).collect();
                parts.into_iter().fold(zeros(), |mut all, part| {
                    all.iter_mut().zip(part).for_each(|(a, b)| *a += b);
                    all
                })
            }
        }
    }

    fn room(&self) -> Room<T> {
        // The last layer writes for none, the first reads from none.
        let writers = self.halves.len().saturating_sub(self.heads);
        let readers = 3 * writers.min(LAYERS * self.heads);
        // A cache line more, so that the heads' tiles do not all fall to the same sets of the cache.
        let stride = TILE * TILE + 64 / size_of::<T>();
        Room {
            stride,
            left: vec![T::ZERO; writers * stride],
            right: vec![T::ZERO; readers * stride],
            products: vec![T::ZERO; writers * readers],
        }
    }

    /// Adds one tile's part of all sums of squares.
    fn add_tile(&self, (i, j): (usize, usize), room: &mut Room<T>, sums: &mut [f64]) {
        let (n, heads) = (self.halves.len(), self.heads);
        let side = |i: usize| i * TILE..self.d_model.min((i + 1) * TILE);
        let blocks = blocks_of(side(i), side(j));
        let size: usize = blocks.iter().map(|b| b.rows.len() * b.columns.len()).sum();
        // Once: in the readers'. Exact, a power of two.
        let two = T::ONE + T::ONE;
        let Room {
            stride,
            left,
            right,
            products,
        } = room;
        let (stride, group) = (*stride, LAYERS * heads);
        for (h, out) in left.chunks_exact_mut(stride).enumerate() {
            self.halves[h]
                .writes
                .gram(&blocks, T::ONE, &mut out[..size]);
        }
        for first in (heads..n).step_by(group.max(1)) {
            let end = (first + group).min(n);
            let (before, reads) = (end - heads, 3 * (end - first));
            let readers = self.halves[first..end].iter().flat_map(|h| &h.reads);
            for (half, out) in readers.zip(right.chunks_exact_mut(stride)) {
                half.gram(&blocks, two, &mut out[..size]);
            }
            let products = &mut products[..before * reads];
            product_into(
                MatMut::from_row_major_slice_mut(products, before, reads),
                T::ONE,
                MatRef::from_row_major_slice(&left[..before * stride], before, stride)
                    .subcols(0, size),
                MatRef::from_row_major_slice(&right[..reads * stride], reads, stride)
                    .subcols(0, size)
                    .transpose(),
            );
            for (h, products) in products.chunks_exact(reads).enumerate() {
                let sums = &mut sums[3 * (h * n + first)..][..reads];
                let products = products.iter().map(|x| x.to_f64());
                sums.iter_mut().zip(products).for_each(|(s, x)| *s += x);
            }
        }
    }

    /// The score from its square, or from the pair's own product where rounding can have spoilt the square.
    fn score(&self, left: usize, right: usize, kind: usize, square: f64) -> T {
        let (P, Z) = (&self.halves[left].writes, &self.halves[right].reads[kind]);
        let (G, H) = (P.gram_norm, Z.gram_norm);
        let (tile, d_head) = ((TILE * TILE) as f64, P.M.shape()[1] as f64);
        let error = T::EPSILON.to_f64() * (tile * G * H + d_head * (G + H));
        /// How many times its error a square must be, at the least.
        const SOUND: f64 = 8.0;
        if square >= SOUND * error {
            return T::from_f64(square.sqrt());
        }
        product(P.M.mat(&[]).transpose(), Z.M.mat(&[])).norm_l2()
    }
}

/// The composition score of two matrices: `|L R|_F / (|L|_F |R|_F)`, zero where one of them is zero.
///
/// # Errors
/// When a factor holds a NaN or an infinity, or a norm overflows.
///
/// # Panics
/// When the inner dimensions differ.
///
/// # Cost
/// `O((m + n) r²)` for inner dimensions `r`.
///
/// # Source
/// `transformer_lens.utils.composition_scores`.
#[track_caller]
pub fn composition_score<T: Scalar>(L: &Factored<T>, R: &Factored<T>) -> Result<T> {
    let norms = (L.norm()?, R.norm()?);
    if norms.0 == T::ZERO || norms.1 == T::ZERO {
        return Ok(T::ZERO);
    }
    // One after the other: their product can overflow.
    Ok(L.times(R, Par::Seq).norm()? / norms.0 / norms.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Config, Weights};

    fn model<T: Scalar>(d_model: usize, d_head: usize, wave: impl Fn(usize) -> f64) -> Model<T> {
        let config = Config::from_json(&format!(
            r#"{{"n_layers": 3, "d_model": {d_model}, "n_ctx": 4, "d_head": {d_head}, "n_heads": 2,
                "d_vocab": 5, "attn_only": true}}"#
        ))
        .unwrap();
        let mut i = 0;
        let weights = Weights::build(&config, |_, shape| {
            Ok(Tensor::from_fn(shape, |_| {
                i += 1;
                T::from_f64(wave(i))
            }))
        });
        Model::new(config, weights.unwrap()).unwrap()
    }

    fn agrees_with_dense<T: Scalar>(model: &Model<T>) {
        let (w, c) = (model.weights(), model.config());
        let dense = |A: MatRef<'_, T>, B: MatRef<'_, T>| {
            let wide = |M: MatRef<'_, T>| {
                nalgebra::DMatrix::from_fn(M.nrows(), M.ncols(), |i, j| M[(i, j)].to_f64())
            };
            wide(A) * wide(B)
        };
        let heads = |l: usize| (0..c.n_heads).map(move |head| Head { layer: l, head });
        for par in [Par::Seq, Par::Rayon] {
            let scores = composition_scores(model, Distance::At(0), par).unwrap();
            for (l1, l2) in (0..3).flat_map(|a| (0..3).map(move |b| (a, b))) {
                for (a, b) in heads(l1).flat_map(|a| heads(l2).map(move |b| (a, b))) {
                    let L = dense(w.W_V(a), w.W_O(a));
                    let QK = dense(w.W_Q(b), w.W_K(b).transpose());
                    for (kind, R) in [
                        (Composition::Q, QK.clone()),
                        (Composition::K, QK.transpose()),
                        (Composition::V, dense(w.W_V(b), w.W_O(b))),
                    ] {
                        let found = scores.score(kind, a, b).to_f64();
                        if l1 >= l2 {
                            assert_eq!(found, 0.0);
                            continue;
                        }
                        let norms = L.norm() * R.norm();
                        let expected = if norms == 0.0 {
                            0.0
                        } else {
                            (&L * &R).norm() / norms
                        };
                        // The stated error of the square, halved by the root.
                        let terms = (c.d_head + 2 * TILE * TILE) as f64;
                        let error = terms * T::EPSILON.to_f64() / expected.max(f64::MIN_POSITIVE);
                        let error = error.min(16.0 * T::EPSILON.to_f64().sqrt() * terms.sqrt());
                        assert!(
                            (found - expected).abs() <= error,
                            "{kind:?} {a} {b}: {found} {expected}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn scores_are_those_of_the_dense_matrices() {
        for (d_model, d_head) in [(1, 1), (5, 3), (3, 7), (70, 6), (130, 65)] {
            let wave = |i: usize| ((i * i) as f64 * 0.37).sin();
            agrees_with_dense::<f64>(&model(d_model, d_head, wave));
            agrees_with_dense::<f32>(&model(d_model, d_head, wave));
        }
        agrees_with_dense::<f64>(&model(4, 2, |_| 0.0));
    }

    /// Heads that write where the later ones do not read: the squares are rounding errors, the scores are not.
    #[test]
    fn scores_near_zero_come_from_the_product() {
        let mut model = model::<f64>(6, 2, |i| (i as f64 * 0.7).sin());
        for block in &mut model.weights_mut().blocks {
            let a = &mut block.attn;
            for head in 0..2 {
                for j in 0..2 {
                    for i in 3..6 {
                        a.W_O[[head, j, i]] = 0.0;
                    }
                    for i in 0..3 {
                        a.W_V[[i, head, j]] *= 1e-9;
                    }
                }
            }
        }
        let scores = composition_scores(&model, Distance::At(0), Par::Seq).unwrap();
        let (a, b) = (Head { layer: 0, head: 0 }, Head { layer: 2, head: 1 });
        let factored = |h| Factored::from_views(model.weights().W_V(h), model.weights().W_O(h));
        let expected = composition_score(&factored(a), &factored(b)).unwrap();
        let found = scores.score(Composition::V, a, b);
        assert!(
            expected < 1e-8 && (found - expected).abs() <= 64.0 * f64::EPSILON,
            "{found} {expected}"
        );
    }

    #[test]
    fn a_nan_names_its_head() {
        let mut model = model::<f32>(4, 2, |i| i as f64);
        model.weights_mut().blocks[1].attn.W_K[[0, 1, 0]] = f32::NAN;
        let error = composition_scores(&model, Distance::At(0), Par::Seq)
            .unwrap_err()
            .to_string();
        assert!(error.contains("head 1.1: its W_K"), "{error}");
    }
}
