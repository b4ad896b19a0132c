//! What derivatives say about parts of a model: attribution patching and integrated gradients.

use super::hooks::{Pass, gradients_and_values, gradients_with};
use crate::error::{Error, Result};
use crate::linalg::Par;
use crate::metric::{Answers, Metric, mean, per_sequence};
use crate::model::{Cache, Model, Run, Tokens};
use crate::names::{Hook, HookQuery};
use crate::tensor::{Scalar, Tensor};

/// For every entry of the hooks' values, about how much the metric's mean would change if the run on `tokens` had the
/// entry of the run on `source` instead: the difference times the derivative.
///
/// Exact where the metric is linear in the value. Sum the entries of a head, position or neuron by [`sum_to`].
///
/// # Errors
/// As [`hook_gradients`](super::hook_gradients); and when the two batches differ in shape.
///
/// # Source
/// Nanda, "Attribution Patching: Activation Patching At Industrial Scale" (2023).
pub fn attribution_patching<T: Scalar>(
    model: &Model<T>,
    tokens: &Tokens,
    source: &Tokens,
    metric: &dyn Metric,
    answers: &Answers,
    hooks: &[impl Clone + Into<HookQuery>],
    par: Par,
) -> Result<Cache<T>> {
    if (tokens.batch(), tokens.pos()) != (source.batch(), source.pos()) {
        return Err(Error::Mismatch(format!(
            "the source has [{}, {}] tokens, expected [{}, {}], as the batch has",
            source.batch(),
            source.pos(),
            tokens.batch(),
            tokens.pos()
        )));
    }
    let (found, own) = gradients_and_values(model, tokens, metric, answers, hooks, par)?;
    let run = hooks
        .iter()
        .fold(Run::new().par(par).without_logits(), |run, h| run.cache(h));
    let other = model.run(source, run)?.cache;
    let effects = found.gradients.iter().map(|(hook, d)| {
        let difference = other[hook].data().iter().zip(own[hook].data());
        // Scores that the mask hides are infinite, and nobody reads them.
        let effect = |(&d, (&to, &from)): (&T, (&T, &T))| match d == T::ZERO || to == from {
            true => T::ZERO,
            false => d * (to - from),
        };
        let effects = d.data().iter().zip(difference).map(effect).collect();
        (hook, Tensor::from_vec(d.shape(), effects))
    });
    Ok(Cache::new(effects.collect()))
}

/// What [`integrated_gradients`] finds.
#[derive(Clone, Debug)]
pub struct IntegratedGradients<T: Scalar> {
    /// Each entry's share of the change from the baseline, of the shape of the hook's value.
    pub attributions: Tensor<T>,
    /// The metric's mean with the hook's own value.
    pub metric: f64,
    /// The metric's mean with the baseline in its place.
    pub baseline: f64,
    /// By how much the shares' sum exceeds the change: what so many steps leave of completeness.
    pub gap: f64,
}

/// How much each entry of a hook's value adds to the metric's mean on the straight way from a baseline to that value:
/// the difference times the mean derivative at `steps` midpoints of the way.
///
/// # Errors
/// As [`hook_gradients`](super::hook_gradients); and when the baseline is of another shape than the value, or there are
/// no steps.
///
/// # Source
/// Sundararajan, Taly & Yan, "Axiomatic Attribution for Deep Networks" (2017).
pub fn integrated_gradients<T: Scalar>(
    model: &Model<T>,
    tokens: &Tokens,
    metric: &dyn Metric,
    answers: &Answers,
    (hook, baseline): (Hook, &Tensor<T>),
    steps: usize,
    par: Par,
) -> Result<IntegratedGradients<T>> {
    let clean = model.run(tokens, Run::new().cache(hook).par(par))?;
    let value = &clean.cache[hook];
    if baseline.shape() != value.shape() {
        return Err(Error::Shape {
            name: format!("the baseline of {hook}"),
            found: baseline.shape().to_vec(),
            expected: value.shape().to_vec(),
        });
    }
    if steps == 0 {
        return Err(Error::TooFew {
            found: 0,
            least: 1,
            message: "0 steps: expected one at least".into(),
        });
    }
    let between = |t: f64| {
        let t = T::from_f64(t);
        let pairs = baseline.data().iter().zip(value.data());
        let entry = |(&from, &to): (&T, &T)| match from == to {
            true => to,
            false => from + t * (to - from),
        };
        Tensor::from_vec(value.shape(), pairs.map(entry).collect())
    };
    let mut sums = vec![0.0; value.len()];
    for step in 0..steps {
        let at = between((step as f64 + 0.5) / steps as f64);
        let pass = Pass {
            replaced: Some((hook, &at)),
            ..Pass::default()
        };
        let (found, _) = gradients_with(model, tokens, metric, answers, vec![hook], pass, par)?;
        let d = found.gradients[hook].data().iter();
        sums.iter_mut()
            .zip(d)
            .for_each(|(sum, d)| *sum += d.to_f64());
    }
    let differences = value.data().iter().zip(baseline.data());
    let shares = sums
        .iter()
        .zip(differences)
        .map(|(sum, (&to, &from))| match to == from {
            true => 0.0,
            false => sum / steps as f64 * (to.to_f64() - from.to_f64()),
        });
    let shares: Vec<f64> = shares.collect();
    let run = Run::new().par(par).hook(hook, |value: &mut Tensor<T>, _| {
        value.data_mut().copy_from_slice(baseline.data());
    });
    let without = model.run(tokens, run)?.logits;
    let of = |logits| mean(&per_sequence(metric, answers, &answers.rows_of(logits)));
    let (metric, baseline) = (of(&clean.logits), of(&without));
    Ok(IntegratedGradients {
        gap: shares.iter().sum::<f64>() - (metric - baseline),
        attributions: Tensor::from_vec(
            value.shape(),
            shares.into_iter().map(T::from_f64).collect(),
        ),
        metric,
        baseline,
    })
}

/// The sums of a tensor's entries over all axes but some.
///
/// ```
/// use pathsum::Tensor;
/// use pathsum::gradient::sum_to;
/// let t = Tensor::from_vec(&[2, 1, 2], vec![1.0, 2.0, 3.0, 4.0]);
/// assert_eq!(sum_to(&t, &[2]).data(), &[4.0, 6.0]);
/// ```
///
/// # Panics
/// When the tensor has no such axis.
#[track_caller]
pub fn sum_to<T: Scalar>(t: &Tensor<T>, axes: &[usize]) -> Tensor<T> {
    let shape: Vec<usize> = axes.iter().map(|&axis| t.shape()[axis]).collect();
    let mut sums = Tensor::zeros(&shape);
    for (i, &x) in t.data().iter().enumerate() {
        let place = t.place(i);
        let at: Vec<usize> = axes.iter().map(|&axis| place[axis]).collect();
        sums.slice_mut(&at)[0] += x;
    }
    sums
}
