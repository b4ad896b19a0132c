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
use crate::tensor::{Scalar, Tensor};

/// A bound for every position.
type Sizes<T> = Vec<T>;

impl<T: Scalar> Layer<'_, T> {
    /// A pattern's moduli times sizes by key.
    pub(super) fn mixed(&self, head: usize, sizes: &[T]) -> Sizes<T> {
        let pattern = self.pattern(head);
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
        let pattern = self.pattern(head);
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
        let c = self.config;
        // A product over the features, where the mean was taken off a product over them before; the head's width and the
        // positions (sums over both are of sums over one); sums over heads and starts; scales, factors, and what the bounds themselves take.
        let centred = c.norm.is_some_and(|norm| norm.centred);
        let mean = if centred { c.d_model } else { 0 };
        c.d_model + mean + c.d_head + self.pos + c.n_heads + self.starts.len() + 32
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
        let forward = paths.forward(self.level);
        // How far the exact streams are from the computed ones.
        let mut apart = vec![T::ZERO; paths.pos];
        let mut bound = g * self.constants_size;
        for level in 0..=self.level {
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
            let Some(layer) = paths.layers[..self.level].get(level) else {
                bound += g * self.row_size * exact[self.position];
                continue;
            };
            let after = norms(&sweep.streams[level + 1]);
            let mut next = apart.clone();
            for p in 0..paths.pos {
                bound += g * after[p] * exact[p];
                next[p] += g * streams[p];
            }
            let mut carried = vec![T::ZERO; paths.pos];
            for head in 0..layer.n_heads {
                let sizes = &layer.sizes[head];
                let O = frobenius(layer.W_O.mat(&[head]));
                let back = layer.mixed_back(head, &after);
                let mut local = vec![T::ZERO; paths.pos];
                for k in 0..paths.pos {
                    let scaled = sizes.W_V * layer.inverse_scale[k].abs();
                    bound += g * back[k] * O * (scaled * exact[k] + sizes.b);
                    local[k] = scaled * streams[k] + sizes.b;
                }
                let most = spectral_at_most(layer.W_V(head)) + g * sizes.W_V;
                let scaled = apart.iter().zip(&layer.inverse_scale);
                let scaled: Sizes<T> = scaled.map(|(&e, s)| most * e * s.abs()).collect();
                let mixed = layer.mixed(head, &scaled);
                let local = layer.mixed(head, &local);
                for p in 0..paths.pos {
                    carried[p] += mixed[p] * mixed[p];
                    next[p] += g * O * local[p];
                }
            }
            // What all heads write together: their values side by side, through their `W_O` one below the other.
            let together = spectral_at_most(layer.W_O.rows());
            for (next, squares) in next.iter_mut().zip(carried) {
                *next += together * squares.sqrt();
            }
            apart = next;
        }
        bound * rounded_up::<T>(8 * n)
    }
}
