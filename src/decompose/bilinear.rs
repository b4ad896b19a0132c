//! Gated neurons without a gate function: a third-order tensor, and what it is along a direction.

use crate::error::{Error, Result};
use crate::linalg::{Par, SymmetricEigen, product_with, symmetric_eigen};
use crate::model::Model;
use crate::tensor::{Scalar, Tensor};
use faer::{Mat, MatRef};

/// What an MLP of gated neurons without a gate function writes along a direction `u`, as a function of what it reads, `x`:
/// `x M xᵀ + x linearᵀ + constant`.
#[derive(Clone, Debug)]
pub struct QuadraticForm<T> {
    /// `[d_model, d_model]`, symmetric.
    pub M: Mat<T>,
    /// `[d_model]`
    pub linear: Vec<T>,
    /// What is left where `x` is zero.
    pub constant: T,
}

impl<T: Scalar> QuadraticForm<T> {
    /// Its value.
    ///
    /// # Panics
    /// When `x` is not of the stream's width.
    #[track_caller]
    pub fn at(&self, x: &[T]) -> T {
        assert_eq!(x.len(), self.linear.len(), "what the MLP reads");
        let row = MatRef::from_row_major_slice(x, 1, x.len());
        let squared = row * &self.M * row.transpose();
        let linear = x.iter().zip(&self.linear).map(|(&x, &b)| x * b);
        squared[(0, 0)] + linear.sum::<T>() + self.constant
    }

    /// The same of the stream before the norm that the layer's MLP reads, where there is one: its value at the stream divided by
    /// the norm's scale is that of `self` at the norm's output.
    ///
    /// # Errors
    /// When there is no such layer, or what the form is of is not its stream.
    pub fn before_norm(&self, model: &Model<T>, layer: usize) -> Result<Self> {
        let c = model.config();
        c.check_layer(layer)?;
        if self.linear.len() != c.d_model {
            let n = self.linear.len();
            return Err(Error::Mismatch(format!(
                "a form of {n} entries, expected {} (d_model)",
                c.d_model
            )));
        }
        let site = c.norm_before_neurons(layer);
        let Some(norm) = site.and_then(|site| model.norm_at(site)) else {
            return Ok(self.clone());
        };
        let b = norm
            .b()
            .map_or_else(|| vec![T::ZERO; c.d_model], <[T]>::to_vec);
        let Mb: Vec<T> = (0..c.d_model)
            .map(|i| b.iter().enumerate().map(|(j, &b)| self.M[(i, j)] * b).sum())
            .collect();
        let two = T::ONE + T::ONE;
        let mut linear: Vec<T> = self
            .linear
            .iter()
            .zip(&Mb)
            .map(|(&x, &m)| x + two * m)
            .collect();
        norm.before(&mut linear);
        // The norm's map on both sides, one after the other.
        let mut M = self.M.clone();
        for _ in 0..2 {
            let rows = Tensor::from_fn(&[c.d_model, c.d_model], |at| M[(at[0], at[1])]);
            M = norm.folded_into(&rows).mat(&[]).transpose().to_owned();
        }
        Ok(QuadraticForm {
            M,
            linear,
            constant: self.at(&b),
        })
    }

    /// The directions in what is read that add up to `M`, each by its eigenvalue: `x M xᵀ = Σ λ (x vᵀ)²`.
    ///
    /// # Errors
    /// When a weight was NaN or infinite.
    ///
    /// # Source
    /// Pearce, Dooms, Rigg, Oramas and Sharkey, "Bilinear MLPs enable weight-based mechanistic interpretability" (2024).
    pub fn eigen(&self) -> Result<SymmetricEigen<T>> {
        symmetric_eigen(self.M.as_ref())
    }
}

/// The third-order tensor `Σ_j W_in[:, j] W_gate[:, j] W_out[j, :]` of a layer's gated neurons, contracted with a direction
/// `u` of what they write: `M = ½ (W_gate D W_inᵀ + W_in D W_gateᵀ)`, `D = diag(W_out uᵀ)`; exact where the gates have no
/// function. Of neurons whose gates have one it is what they would do without.
///
/// The tensor itself, of `d_model³` numbers, is never formed. What is read is the output of the norm before the MLP, where
/// there is one.
///
/// # Errors
/// When there is no such layer, its neurons are not gated, or the direction is not of the stream's width.
///
/// # Cost
/// `2 d_model² d_mlp` operations.
///
/// # Source
/// Sharkey, "A technical note on bilinear layers for interpretability" (2023).
pub fn bilinear_form<T: Scalar>(
    model: &Model<T>,
    layer: usize,
    u: &[T],
    par: Par,
) -> Result<QuadraticForm<T>> {
    let c = model.config();
    c.check_layer(layer)?;
    if u.len() != c.d_model {
        return Err(Error::Mismatch(format!(
            "a direction of {} entries, expected {} (d_model)",
            u.len(),
            c.d_model
        )));
    }
    let mlp = model.weights().blocks[layer].mlp.as_ref();
    let Some((mlp, W_gate)) = mlp.and_then(|mlp| Some((mlp, mlp.W_gate.as_ref()?))) else {
        return Err(Error::NotCovered(
            "the neurons are not gated: no product of two linear maps",
        ));
    };
    let (W_in, W_gate, W_out) = (mlp.W_in.mat(&[]), W_gate.mat(&[]), mlp.W_out.mat(&[]));
    let d_mlp = W_in.ncols();
    let along: Vec<T> = (0..d_mlp)
        .map(|j| u.iter().enumerate().map(|(i, &u)| W_out[(j, i)] * u).sum())
        .collect();
    let scaled = Mat::from_fn(c.d_model, d_mlp, |i, j| W_gate[(i, j)] * along[j]);
    let half = product_with(scaled.as_ref(), W_in.transpose(), par);
    let two = T::ONE + T::ONE;
    let M = Mat::from_fn(c.d_model, c.d_model, |i, j| {
        (half[(i, j)] + half[(j, i)]) / two
    });
    // A bias before the product, of either map, leaves a linear part; one after it is written as it is.
    let before = |b: Option<&[T]>, j: usize| b.map_or(T::ZERO, |b| b[j]);
    let b_gate = mlp.b_gate.as_ref().map(|b| b.data());
    let b_in = mlp.b_gate.as_ref().map(|_| mlp.b_in.data());
    let linear = (0..c.d_model)
        .map(|i| {
            let of = |j: usize| {
                along[j] * (W_gate[(i, j)] * before(b_in, j) + W_in[(i, j)] * before(b_gate, j))
            };
            (0..d_mlp).map(of).sum()
        })
        .collect();
    let after = mlp.b_after().map(|b| b.data());
    let neurons =
        (0..d_mlp).map(|j| along[j] * (before(b_in, j) * before(b_gate, j) + before(after, j)));
    let written = u.iter().zip(mlp.b_out.data()).map(|(&u, &b)| u * b);
    Ok(QuadraticForm {
        M,
        linear,
        constant: neurons.sum::<T>() + written.sum::<T>(),
    })
}
