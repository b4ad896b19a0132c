//! How far rounding may have put the sum over all paths.
//!
//! The sum is `Σ ⟨G_l, s_l⟩`, over what is written before each level, `s_l`, and the logit's cotangents there,
//! `G_l`. Going back through a level, the cotangent as computed is off by some `δ_l`; from there on it is
//! carried along, and what it changes in the sum is `⟨δ_l, x_l⟩`, with `x_l` the exact stream. So the sum is
//! off by no more than `Σ ‖δ_l‖ ‖x_l‖` and its own last products. That does not grow from level to level as the
//! bounds of running error analysis do. The exact stream is the computed one to within an `e_l` that does, but
//! enters multiplied by `δ_l`.
//!
//! `δ_l` is bounded by `γ_n` times the norm of the moduli of its terms, by the factors' Frobenius norms.

use super::sums::{Cotangents, LogitPaths};
use super::{Paths, StreamWrite, frobenius, norm};
use crate::linalg::rounding::{gamma, rounded_up, spectral_at_most};
use crate::tensor::{Scalar, Tensor};

/// A bound for every position.
type Sizes<T> = Vec<T>;

impl<T: Scalar> StreamWrite<'_, T> {
    /// The norm of the terms that are written at a position.
    pub(super) fn size(&self, position: usize, d: usize) -> T {
        let (row, by) = self.value.at(position, d);
        (norm(row) + self.from) * by.abs()
    }
}

impl<T: Scalar> Paths<'_, T> {
    /// How many roundings a term meets at most in one level, forward or back, and in the last products.
    pub(super) fn roundings(&self) -> usize {
        let c = self.config;
        // A product over the features, where the mean was taken off a product over them before; the widest station's width and the
        // positions (sums over both are of sums over one); sums over heads and starts; scales, gates, factors, and what the bounds
        // themselves take.
        let centred = c.norm.is_some_and(|norm| norm.centred);
        let mean = if centred { c.d_model } else { 0 };
        let widest = self.levels.iter().map(|level| level.width()).max();
        let width = widest.unwrap_or(c.d_head);
        c.d_model + mean + width + self.pos + c.n_heads + self.starts.len() + 32
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
            let Some(own) = paths.levels[..self.level].get(level) else {
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
            for i in 0..own.stations() {
                let (V, O) = (own.V_sizes[i], frobenius(own.W_O(i)));
                let biases: T = own.biases.iter().map(|bias| bias.sizes[i]).sum();
                let back = own.mixed_back(i, &after);
                let mut local = vec![T::ZERO; paths.pos];
                for k in 0..paths.pos {
                    let scaled = V * own.inverse_scale[k].abs();
                    bound += g * back[k] * O * (scaled * exact[k] + biases);
                    local[k] = scaled * streams[k] + biases;
                }
                let most = spectral_at_most(own.W_V(i)) + g * V;
                let scaled = apart.iter().zip(&own.inverse_scale);
                let scaled: Sizes<T> = scaled.map(|(&e, s)| most * e * s.abs()).collect();
                let mixed = own.mixed(i, &scaled);
                let local = own.mixed(i, &local);
                for p in 0..paths.pos {
                    carried[p] += mixed[p] * mixed[p];
                    next[p] += g * O * local[p];
                }
            }
            // What all stations write together: their values side by side, through their `W_O` one below the other.
            let together = spectral_at_most(own.all_W_O());
            for (next, squares) in next.iter_mut().zip(carried) {
                *next += together * squares.sqrt();
            }
            apart = next;
        }
        bound * rounded_up::<T>(8 * n)
    }
}
