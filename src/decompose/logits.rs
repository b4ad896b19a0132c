//! What each component adds to a logit, directly.

use super::stack::{Component, Stack};
use crate::diagram::NormPlace;
use crate::error::{Error, Result};
use crate::linalg::product;
use crate::model::{Cache, Config, Model};
use crate::names::Hook;
use crate::names::NormSite;
use crate::tensor::{Scalar, Tensor};

/// A direction in the logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Logit<'a, T> {
    /// One logit.
    Of(usize),
    /// One logit less another.
    Difference(usize, usize),
    /// Any combination: a weight for each of the `d_vocab_out` logits.
    Along(&'a [T]),
}

impl<T: Scalar> Logit<'_, T> {
    /// The sum of `f` over the logits, each by its weight in this direction.
    pub(super) fn weigh(&self, f: impl Fn(usize) -> T) -> T {
        match *self {
            Logit::Of(i) => f(i),
            Logit::Difference(i, j) => f(i) - f(j),
            Logit::Along(weights) => weights.iter().enumerate().map(|(i, &w)| w * f(i)).sum(),
        }
    }

    /// The sum of the terms' moduli in [`Logit::weigh`].
    pub(super) fn size(&self, f: impl Fn(usize) -> T) -> T {
        match *self {
            Logit::Of(i) => f(i).abs(),
            Logit::Difference(i, j) => f(i).abs() + f(j).abs(),
            Logit::Along(weights) => {
                let terms = weights.iter().enumerate();
                terms.map(|(i, &w)| (w * f(i)).abs()).sum()
            }
        }
    }

    pub(super) fn check(&self, d_vocab_out: usize) -> Result<()> {
        let there = |i: usize| match i < d_vocab_out {
            true => Ok(()),
            false => Err(Error::out_of_range(
                "logit",
                i,
                "",
                "this model's logits",
                0..d_vocab_out,
            )),
        };
        match *self {
            Logit::Of(i) => there(i),
            Logit::Difference(i, j) => there(i).and_then(|()| there(j)),
            Logit::Along(weights) if weights.len() != d_vocab_out => Err(Error::Mismatch(format!(
                "a direction of {} weights, expected one for each of the {d_vocab_out} logits",
                weights.len()
            ))),
            Logit::Along(_) => Ok(()),
        }
    }
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
    if model.config().norm.is_none() {
        return Ok(stack);
    }
    let over_stream = |site: &NormSite| site.output().axes() == Hook::ResidPre(0).axes();
    let site = match scale_hook {
        Hook::Scale(site) => Some(site).filter(over_stream),
        _ => None,
    };
    let Some(site) = site else {
        return Err(Error::WrongHook {
            hook: scale_hook,
            reason: "is the scale of no norm on the residual stream, expected ln1, ln2 or ln_final"
                .into(),
        });
    };
    if model.diagram.value(scale_hook).is_none() {
        return Err(Error::NotInModel(format!("`{scale_hook}`")));
    }
    let norm = model.norm_at(site).expect("its scale is there");
    let scale = cache.require(scale_hook)?;
    let d = model.config().d_model;
    let rows = stack.values.data_mut().chunks_exact_mut(d);
    for (row, &scale) in rows.zip(scale.data().iter().cycle()) {
        norm.at_scale(row, scale);
    }
    if let Some(b) = norm.b() {
        let mut shape = stack.values.shape().to_vec();
        let each = scale.len() * d;
        let mut data = stack.values.into_data();
        data.extend(b.iter().copied().cycle().take(each));
        shape[0] += 1;
        stack.labels.push(Component::NormBias(site));
        stack.values = Tensor::from_vec(&shape, data);
    }
    Ok(stack)
}

/// Why a model's logits are no linear map of its stream's end through the last norm, if so.
pub(crate) fn nonlinear_logits(c: &Config) -> Option<&'static str> {
    if c.mlm_head.is_some() {
        return Some("a dense layer with a function stands before the unembedding");
    }
    c.logit_cap.map(|_| "the logits are capped")
}

/// That the stream is a sum from the embeddings on, behind one norm wherever it is read, and the logits linear in it: what
/// paths through the heads and attributions by source are made for.
///
/// # Errors
/// When it is not, saying why.
pub(crate) fn plain_stream(c: &Config) -> Result<()> {
    let reason = if c.embed_norm.is_some() || c.token_types > 0 {
        "the stream does not begin with the embeddings of tokens and positions alone"
    } else if c.norm.is_some() && c.norm_place != NormPlace::Before {
        "norms stand behind attention, and the stream is no plain sum of what heads write"
    } else if let Some(reason) = nonlinear_logits(c) {
        reason
    } else {
        return Ok(());
    };
    Err(Error::NotCovered(reason))
}

/// What each component of the final residual stream adds to logits, with `ln_final` linearised at the
/// run's own scale, and with `ln_final.b` and `b_U` as components, so that the whole adds up to the logits.
///
/// # Shapes
/// `stack` is that of the stream's end ([`Config::end_of_stream`]); the values are `[component, batch, pos, logit]`, one
/// column for each of `logits`.
///
/// # Errors
/// When the cache lacks `ln_final.hook_scale`, there is no such logit, or a direction has not one weight a logit.
///
/// # Cost
/// `2 d_model` operations for each component, position and logit.
///
/// Source: `ActivationCache.logit_attrs`, which leaves the biases out.
pub fn direct_logit_attribution<T: Scalar>(
    model: &Model<T>,
    cache: &Cache<T>,
    stack: Stack<T>,
    logits: &[Logit<'_, T>],
) -> Result<Stack<T>> {
    let c = model.config();
    if let Some(reason) = nonlinear_logits(c) {
        return Err(Error::NotCovered(reason));
    }
    let (W_U, b_U) = (model.weights().W_U.mat(&[]), model.weights().b_U.data());
    let mut directions = Tensor::zeros(&[c.d_model, logits.len()]);
    let mut biases = Vec::with_capacity(logits.len());
    for (column, logit) in logits.iter().enumerate() {
        logit.check(c.d_vocab_out)?;
        for i in 0..c.d_model {
            directions[[i, column]] = logit.weigh(|j| W_U[(i, j)]);
        }
        biases.push(logit.weigh(|j| b_U[j]));
    }
    let stack = match model.norm_at(NormSite::Final) {
        Some(_) => layer_norm_stack(model, cache, stack, Hook::Scale(NormSite::Final))?,
        None => stack,
    };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decompose::{By, residual_stack};
    use crate::fixture;
    use crate::model::Run;

    #[test]
    fn directions_are_combinations_of_logits() {
        let model = fixture::induction::<f64>();
        let tokens = fixture::repeated_sequences(2, 5, 0);
        let out = model.run(&tokens, Run::new().cache("*")).unwrap();
        let stack = || residual_stack(&model, &out.cache, Hook::ResidPost(1), By::Head).unwrap();
        let mut weights = vec![0.0; model.config().d_vocab_out];
        (weights[2], weights[5]) = (1.0, -1.0);
        let directions = [
            Logit::Of(2),
            Logit::Of(5),
            Logit::Difference(2, 5),
            Logit::Along(&weights),
        ];
        let sum = direct_logit_attribution(&model, &out.cache, stack(), &directions)
            .unwrap()
            .sum();
        // The bound: the logits' size times the roundings of a sum over the stream.
        let bound = 4.0 * model.config().d_model as f64 * f64::EPSILON * out.logits.max_abs();
        for (row, logits) in sum
            .data()
            .chunks_exact(4)
            .zip(out.logits.data().chunks_exact(16))
        {
            let expected = [
                logits[2],
                logits[5],
                logits[2] - logits[5],
                logits[2] - logits[5],
            ];
            for (found, expected) in row.iter().zip(expected) {
                assert!((found - expected).abs() <= bound, "{found} {expected}");
            }
        }
        let wrong =
            |logit| direct_logit_attribution(&model, &out.cache, stack(), &[logit]).unwrap_err();
        assert_eq!(
            wrong(Logit::Of(16)).to_string(),
            "logit 16: this model's logits are 0..=15"
        );
        assert!(
            wrong(Logit::Along(&weights[1..]))
                .to_string()
                .contains("15 weights")
        );
    }
}
