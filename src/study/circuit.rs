//! Circuits of a model as matrices, from their expressions.

use crate::error::Result;
use crate::eval::{Circuit, Source};
use crate::linalg::Par;
use crate::model::Model;
use crate::tensor::Tensor;

/// The matrices of an expression on a model's weights: one, or one a head where the expression has a `*`.
///
/// # Errors
/// When the expression does not fit the model.
pub(super) fn circuits(model: &Model<f64>, expression: &str) -> Result<Vec<Tensor<f64>>> {
    circuits_of(&Source::of(model), expression)
}

/// The same of an expression that may speak of a sequence of a run.
///
/// # Errors
/// As [`circuits`], and when the run lacks a value.
pub(super) fn circuits_of(source: &Source<'_, f64>, expression: &str) -> Result<Vec<Tensor<f64>>> {
    let matrices = Circuit::parse(expression, *source)?.each_dense(Par::Rayon)?;
    Ok(matrices
        .iter()
        .map(|M| Tensor::from_mat(M.as_ref()))
        .collect())
}

/// The one matrix of an expression.
///
/// # Errors
/// As [`circuits`].
pub(super) fn circuit(model: &Model<f64>, expression: &str) -> Result<Tensor<f64>> {
    let matrix = Circuit::parse(expression, model)?.dense(Par::Rayon)?;
    Ok(Tensor::from_mat(matrix.as_ref()))
}

/// A matrix as rows.
pub(super) fn rows(t: &Tensor<f64>) -> Vec<Vec<f64>> {
    let columns = t.shape()[1];
    t.data()
        .chunks_exact(columns)
        .map(<[f64]>::to_vec)
        .collect()
}
