//! How far rounding may have put the sum over all paths.
//!
//! The sum is `Σ ⟨G_l, s_l⟩`, over what is written before each layer, `s_l`, and the logit's cotangents there,
//! `G_l`. Going back through a layer, the cotangent as computed is off by some `δ_l`; from there on it is
//! carried along, and what it changes in the sum is `⟨δ_l, x_l⟩`, with `x_l` the exact stream. So the sum is
//! off by no more than `Σ ‖δ_l‖ ‖x_l‖` and its own last products. That does not grow from layer to layer as the
//! bounds of running error analysis do. The exact stream is the computed one to within an `e_l` that does, but
//! enters multiplied by `δ_l`.
//!
//! `δ_l` is bounded by `γ_n` times the norm of the moduli of its terms, by the factors' Frobenius norms.

use super::sums::{Cotangents, LogitPaths};
use super::{Layer, Paths, StreamWrite, frobenius, norm};
use crate::linalg::rounding::{gamma, rounded_up, spectral_at_most};
use crate::names::Head;
use crate::names::NormSite;
use crate::tensor::{Scalar, Tensor};

/// A bound for every position.
type Sizes<T> = Vec<T>;

impl<T: Scalar> Layer<'_, T> {
    /// A pattern's moduli times sizes by key.
    pub(super) fn mixed(&self, head: usize, sizes: &[T]) -> Sizes<T> {
        let pattern = self.patterns[head];
        let row = |q| {
            sizes
                .iter()
                .enumerate()
                .map(move |(k, &x)| pattern[(q, k)].abs() * x)
        };
        (0..sizes.len()).map(|q| row(q).sum()).collect()
    }

    /// Sizes by query times a pattern's moduli.
    pub(super) fn mixed_back(&self, head: usize, sizes: &[T]) -> Sizes<T> {
        let pattern = self.patterns[head];
        let column = |k| {
            sizes
                .iter()
                .enumerate()
                .map(move |(q, &x)| pattern[(q, k)].abs() * x)
        };
        (0..sizes.len()).map(|k| column(k).sum()).collect()
    }
}

impl<T: Scalar> StreamWrite<'_, T> {
    /// The norm of the terms that are written at a position.
    pub(super) fn size(&self, position: usize, d: usize) -> T {
        let (row, by) = self.value.at(position, d);
        (norm(row) + self.from) * by.abs()
    }
}

impl<T: Scalar> Paths<'_, T> {
    /// How many roundings a term meets at most in one layer, forward or back, and in the last products.
    pub(super) fn roundings(&self) -> usize {
        let c = self.model.config();
        // Products over the features (and the mean over them), the head's width and the positions; sums
        // over heads and starts; scales, factors, and what the bounds themselves take.
        4 * (c.d_model + c.d_head + self.pos) + c.n_heads + self.starts.len() + 32
    }

    /// The norm of the terms that a head's folded `W_V` has: taking the mean off doubles them at most.
    pub(super) fn folded_size(&self, layer: usize, head: usize) -> T {
        let W_V = self.model.weights().W_V(Head { layer, head });
        let ln1 = self.model.norm_at(NormSite::Ln1(layer));
        let w = |i: usize| ln1.as_ref().and_then(|n| n.w()).map_or(T::ONE, |w| w[i]);
        let scaled = faer::Mat::from_fn(W_V.nrows(), W_V.ncols(), |i, j| W_V[(i, j)] * w(i));
        let size = frobenius(scaled.as_ref());
        size + size
    }

    /// The norm of the terms of a norm's `b` times a head's `W_V`.
    pub(super) fn bias_size(&self, layer: usize, head: usize) -> T {
        let ln1 = self.model.norm_at(NormSite::Ln1(layer));
        let b = ln1.as_ref().and_then(|n| n.b()).map_or(T::ZERO, norm);
        b * frobenius(self.model.weights().W_V(Head { layer, head }))
    }
}

fn norms<T: Scalar>(x: &Tensor<T>) -> Sizes<T> {
    x.data().chunks_exact(x.shape()[1]).map(norm).collect()
}

impl<T: Scalar> LogitPaths<'_, '_, T> {
    /// How far rounding may have put the sum over all paths, by start.
    pub(super) fn rounding(&self, sweep: &Cotangents<T>) -> T {
        let paths = self.paths;
        let (d, n) = (paths.d_model(), paths.roundings() + self.weighed);
        let g = gamma::<T>(n);
        let forward = paths.forward();
        // How far the exact streams are from the computed ones.
        let mut apart = vec![T::ZERO; paths.pos];
        let mut bound = g * self.constants_size;
        for level in 0..=paths.layers.len() {
            let cotangents = norms(&sweep.streams[level]);
            for written in paths.starts.iter().filter(|w| w.level == level) {
                for p in 0..paths.pos {
                    let size = written.size(p, d);
                    bound += g * cotangents[p] * size;
                    apart[p] += g * size;
                }
            }
            let streams = norms(&forward.streams[level]);
            let exact: Sizes<T> = streams.iter().zip(&apart).map(|(&x, &e)| x + e).collect();
            let Some(layer) = paths.layers.get(level) else {
                bound += g * self.row_size * exact[self.position];
                continue;
            };
            let after = norms(&sweep.streams[level + 1]);
            let mut next = apart.clone();
            for p in 0..paths.pos {
                bound += g * after[p] * exact[p];
                next[p] += g * streams[p];
            }
            for head in 0..layer.patterns.len() {
                let (W_V, W_O) = (layer.W_V(head), layer.W_O.mat(&[head]));
                let (V, O) = (paths.folded_size(level, head), frobenius(W_O));
                let b = paths.bias_size(level, head);
                let back = layer.mixed_back(head, &after);
                let mut local = vec![T::ZERO; paths.pos];
                for k in 0..paths.pos {
                    let scaled = V * layer.inverse_scale[k].abs();
                    bound += g * back[k] * O * (scaled * exact[k] + b);
                    local[k] = scaled * streams[k] + b;
                }
                let most = (spectral_at_most(W_V) + g * V) * spectral_at_most(W_O);
                let scaled = apart.iter().zip(&layer.inverse_scale);
                let scaled: Sizes<T> = scaled.map(|(&e, s)| e * s.abs()).collect();
                let carried = layer.mixed(head, &scaled);
                let local = layer.mixed(head, &local);
                for p in 0..paths.pos {
                    next[p] += most * carried[p] + g * O * local[p];
                }
            }
            apart = next;
        }
        bound * rounded_up::<T>(8 * n)
    }
}
