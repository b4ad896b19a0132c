//! What each component adds to a logit, directly.

use super::stack::{Component, Stack};
use crate::error::{Error, Result};
use crate::linalg::product;
use crate::model::{Cache, Model, Norm};
use crate::names::Hook;
use crate::tensor::{Scalar, Tensor};

/// A direction in the logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logit {
    /// One logit.
    Of(usize),
    /// One logit less another.
    Difference(usize, usize),
}

/// The LayerNorm that is to be applied to a stack.
///
/// With the scale of the run, LayerNorm is linear in its input but for `b`: each component is centred,
/// divided by the run's own scale and multiplied by `w`; `b` becomes a component of its own. The stack
/// then adds up to the norm's output.
///
/// A model without norms leaves the stack as it is.
///
/// # Errors
/// When the cache lacks the norm's scale, or `scale_hook` is the scale of no norm on the residual stream.
pub fn layer_norm_stack<T: Scalar>(
    model: &Model<T>,
    cache: &Cache<T>,
    mut stack: Stack<T>,
    scale_hook: Hook,
) -> Result<Stack<T>> {
    if model.config().normalization_type.is_none() {
        return Ok(stack);
    }
    let weights = model.weights();
    let block = |l: usize| {
        weights
            .blocks
            .get(l)
            .ok_or_else(|| Error::Request(format!("`{scale_hook}`: no such layer")))
    };
    let norm: Option<&Norm<T>> = match scale_hook {
        Hook::Ln1Scale(l) => block(l)?.ln1.as_ref(),
        Hook::Ln2Scale(l) => block(l)?.ln2.as_ref(),
        Hook::LnFinalScale => weights.ln_final.as_ref(),
        _ => {
            return Err(Error::Request(format!(
                "`{scale_hook}` is the scale of no norm on the residual stream, expected ln1, ln2 or ln_final"
            )));
        }
    };
    let scale = cache.require(scale_hook)?;
    let d = model.config().d_model;
    let n = T::from_f64(d as f64);
    let rows = stack.values.data_mut().chunks_exact_mut(d);
    for (row, &scale) in rows.zip(scale.data().iter().cycle()) {
        let mean = row.iter().copied().sum::<T>() / n;
        row.iter_mut().for_each(|x| *x = (*x - mean) / scale);
        if let Some(norm) = norm {
            row.iter_mut()
                .zip(norm.w.data())
                .for_each(|(x, &w)| *x *= w);
        }
    }
    if let Some(norm) = norm {
        let mut shape = stack.values.shape().to_vec();
        let each = scale.len() * d;
        let mut data = stack.values.into_data();
        data.extend(norm.b.data().iter().copied().cycle().take(each));
        shape[0] += 1;
        stack.labels.push(Component::NormBias);
        stack.values = Tensor::from_vec(&shape, data);
    }
    Ok(stack)
}

/// What each component of the final residual stream adds to logits, with `ln_final` linearised at the
/// run's own scale, and with `ln_final.b` and `b_U` as components, so that the whole adds up to the logits.
///
/// # Shapes
/// `stack` is that of the last `hook_resid_post`; the values are `[component, batch, pos, logit]`, one
/// column for each of `logits`.
///
/// # Errors
/// When the cache lacks `ln_final.hook_scale`, or there is no such logit.
///
/// # Cost
/// `2 d_model` operations for each component, position and logit.
///
/// Source: `ActivationCache.logit_attrs`, which leaves the biases out.
pub fn direct_logit_attribution<T: Scalar>(
    model: &Model<T>,
    cache: &Cache<T>,
    stack: Stack<T>,
    logits: &[Logit],
) -> Result<Stack<T>> {
    let c = model.config();
    let (W_U, b_U) = (model.weights().W_U.mat(&[]), model.weights().b_U.data());
    let mut directions = Tensor::zeros(&[c.d_model, logits.len()]);
    let mut biases = Vec::with_capacity(logits.len());
    for (column, &logit) in logits.iter().enumerate() {
        let (plus, minus) = match logit {
            Logit::Of(i) => (i, None),
            Logit::Difference(i, j) => (i, Some(j)),
        };
        let wrong = [Some(plus), minus]
            .into_iter()
            .flatten()
            .find(|&i| i >= c.d_vocab_out);
        if let Some(i) = wrong {
            return Err(Error::Request(format!(
                "logit {i}: this model's logits are 0..={}",
                c.d_vocab_out - 1
            )));
        }
        let of = |f: &dyn Fn(usize) -> T| minus.map_or(f(plus), |j| f(plus) - f(j));
        for i in 0..c.d_model {
            directions[[i, column]] = of(&|logit| W_U[(i, logit)]);
        }
        biases.push(of(&|logit| b_U[logit]));
    }
    let stack = layer_norm_stack(model, cache, stack, Hook::LnFinalScale)?;
    let along = product(stack.values.rows(), directions.mat(&[]));
    let positions = stack.values.len() / (stack.labels.len().max(1) * c.d_model);
    let mut shape = stack.values.shape().to_vec();
    (shape[0], shape[3]) = (shape[0] + 1, logits.len());
    let mut data = Tensor::from_mat(along.as_ref()).into_data();
    data.extend(
        biases
            .iter()
            .copied()
            .cycle()
            .take(positions * logits.len()),
    );
    let mut labels = stack.labels;
    labels.push(Component::UnembedBias);
    Ok(Stack {
        labels,
        values: Tensor::from_vec(&shape, data),
    })
}
