//! A head's queries and keys as they meet: past the norm of queries and keys, and turned by a distance.

use crate::error::{Error, Result};
use crate::linalg::product;
use crate::model::{Config, Model, NormWeight, QkNorm};
use crate::names::{Head, NormSite};
use crate::op::{Layout, Place, Turns};
use crate::tensor::{Scalar, Tensor};
use faer::{Mat, MatRef};
use std::fmt;

/// How far a key is behind its query, in models with rotary positions: `W_QK` depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distance {
    /// So many positions, `W_Q R[n] W_Kᵀ`; 0 is the query's own.
    At(usize),
    /// The mean of `W_QK` over the distances from 0 to `n`, both included.
    MeanTo(usize),
}

impl fmt::Display for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Distance::At(n) => write!(f, "at distance {n}"),
            Distance::MeanTo(n) => write!(f, "mean over the distances 0 to {n}"),
        }
    }
}

impl Distance {
    /// What turns a query of a layer's heads, `[d_head, d_head]`; and what a key at distance 0 is multiplied by, which is
    /// one but in LongRoPE.
    pub(super) fn rotations<T: Scalar>(self, c: &Config, layer: usize) -> Option<(Mat<T>, Mat<T>)> {
        let rotary = c.rotary_at(layer)?;
        let farthest = match self {
            Distance::At(n) | Distance::MeanTo(n) => n,
        };
        let turned = |positions: std::ops::RangeInclusive<usize>| {
            let length = farthest + 1;
            let n = positions.clone().count();
            let places = positions.map(|position| Place { position, length });
            // One sequence of so many positions, of which each row of the identity is a head.
            let turns = Turns::<f64>::new(rotary, places);
            let d = c.d_head;
            let unit = |at: &[usize]| f64::from(at[2] == at[3]);
            let mut rows = Tensor::from_fn(&[1, n, d, d], unit);
            turns.turn(Layout::ROWS, &mut rows);
            Mat::from_fn(d, d, |i, j| {
                let sum: f64 = (0..n).map(|p| rows[[0, p, i, j]]).sum();
                T::from_f64(sum / n as f64)
            })
        };
        let query = match self {
            Distance::At(n) => turned(n..=n),
            Distance::MeanTo(n) => turned(0..=n),
        };
        Some((query, turned(0..=0)))
    }

    /// That a model's positions go so far.
    pub(super) fn check(self, c: &Config) -> Result<()> {
        let (Distance::At(n) | Distance::MeanTo(n)) = self;
        match n {
            n if n >= c.n_ctx => Err(Error::out_of_range(
                "distance",
                n,
                "",
                "this model's distances",
                0..c.n_ctx,
            )),
            n if n > 0 && !c.rotary() => Err(Error::NotCovered(
                "the model has no rotary positions: its W_QK is the same at every distance",
            )),
            _ => Ok(()),
        }
    }
}

/// A head's `W_Q` and `W_K` as its queries and keys meet at a distance, `[d_model, d_head]` each, such that `W_Q W_Kᵀ` is what
/// scores are made of: through the rotation, and through the norm of queries and keys but for its scale, a number for each
/// query and key of a run. The keys of heads that share them are views of one.
pub(super) struct Meeting<'a, T: Scalar> {
    pub W_Q: Meets<'a, T>,
    pub W_K: Meets<'a, T>,
}

/// A matrix as it is, or what was made of it.
pub(super) enum Meets<'a, T: Scalar> {
    AsItIs(MatRef<'a, T>),
    Made(Mat<T>),
}

impl<T: Scalar> Meets<'_, T> {
    pub fn mat(&self) -> MatRef<'_, T> {
        match self {
            Meets::AsItIs(M) => *M,
            Meets::Made(M) => M.as_ref(),
        }
    }
}

impl<'a, T: Scalar> Meeting<'a, T> {
    /// `rotations` are the layer's at the distance.
    pub fn of(model: &'a Model<T>, h: Head, rotations: Option<&(Mat<T>, Mat<T>)>) -> Self {
        let w = model.weights();
        let attn = &w.blocks[h.layer].attn;
        let own = model.config().group(h.head);
        let turned = |W: Meets<'a, T>, R: Option<&Mat<T>>| match R {
            Some(R) => Meets::Made(product(W.mat(), R.as_ref())),
            None => W,
        };
        let W_Q = normed(model, (NormSite::Q(h.layer), h.head), &attn.W_Q);
        let W_K = normed(model, (NormSite::K(h.layer), own), &attn.W_K);
        Meeting {
            W_Q: turned(W_Q, rotations.map(|r| &r.0)),
            // At distance 0 a key is turned by nothing, but may be multiplied.
            W_K: turned(W_K, rotations.map(|r| &r.1).filter(|R| !is_identity(R))),
        }
    }
}

fn is_identity<T: Scalar>(M: &Mat<T>) -> bool {
    let entry = |i, j| if i == j { T::ONE } else { T::ZERO };
    (0..M.nrows()).all(|i| (0..M.ncols()).all(|j| M[(i, j)] == entry(i, j)))
}

/// A head's columns of `W: [d_model, rows, d_head]`, through the norm over them but for its scale.
fn normed<'a, T: Scalar>(
    model: &'a Model<T>,
    (site, own): (NormSite, usize),
    W: &'a Tensor<T>,
) -> Meets<'a, T> {
    let (c, columns) = (model.config(), W.of_head(own));
    let (Some(QkNorm { kind, per_head }), Some(norm)) = (c.qk_norm, model.norm_at(site)) else {
        return Meets::AsItIs(columns);
    };
    let width = W.len() / c.d_model;
    let all = MatRef::from_row_major_slice(W.data(), c.d_model, width);
    let averaged = if per_head { columns } else { all };
    let first = if per_head { 0 } else { own * c.d_head };
    let n = T::from_f64(averaged.ncols() as f64);
    let mut M = columns.to_owned();
    for i in 0..M.nrows() {
        let mean = match kind.centred {
            true => averaged.row(i).iter().copied().sum::<T>() / n,
            false => T::ZERO,
        };
        for j in 0..M.ncols() {
            let w = match kind.weight {
                NormWeight::Absent => T::ONE,
                // `w` is what is multiplied by, where that is one more than the parameter too.
                _ => norm.w().map_or(T::ONE, |w| w[first + j]),
            };
            M[(i, j)] = (M[(i, j)] - mean) * w;
        }
    }
    Meets::Made(M)
}
