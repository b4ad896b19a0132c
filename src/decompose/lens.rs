//! What a model would say at each layer, and what its layers and heads write straight to the logits.

use super::logits::{Logit, direct_logit_attribution, layer_norm_stack, nonlinear_logits};
use super::stack::{By, Component, Stack, residual_stack};
use crate::diagram::{Config, NormPlace};
use crate::error::{Error, Result};
use crate::linalg::product;
use crate::model::{Cache, Model, RunOutput, Standing, Tokens};
use crate::names::{Hook, NormSite};
use crate::tensor::{Scalar, Tensor};
use rayon::prelude::*;
use std::ops::Range;

/// The logits that a model's own end makes of its stream, layer by layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LogitLens<T: Scalar> {
    /// Where the stream is read.
    pub hooks: Vec<Hook>,
    /// `[hook, d_vocab_out]`
    pub logits: Tensor<T>,
}

impl<T: Scalar> LogitLens<T> {
    /// The hooks that a run must keep: the stream before the first layer and behind each; of post-norm blocks behind the
    /// layer's last norm, which is what the next layer reads. None where the model has no layers.
    pub fn hooks(config: &Config) -> Vec<Hook> {
        let behind = |l| match (config.norm, config.norm_place) {
            (Some(_), NormPlace::Stream) => Hook::NormalizedResidPost(l),
            _ => Hook::ResidPost(l),
        };
        let first = (config.n_layers > 0).then_some(Hook::ResidPre(0));
        first
            .into_iter()
            .chain((0..config.n_layers).map(behind))
            .collect()
    }
}

/// The logit lens: what the model would say at one position of a sequence, `(sequence, position)`, if its stream ended
/// at each layer. The stream goes through the model's own end ([`Model::logits_of_stream`]), whose norm takes the scale
/// of what it is given, not that of the run. The last row is the model's own logits.
///
/// ```
/// use pathsum::decompose::{LogitLens, logit_lens};
/// use pathsum::model::Standing;
/// use pathsum::{Run, Tokens, fixture};
/// let model = fixture::induction::<f64>();
/// let keep = LogitLens::<f64>::hooks(model.config());
/// let run = keep.into_iter().fold(Run::new(), |run, hook| run.cache(hook));
/// let out = model.run(&Tokens::from_rows(&[[3, 1, 4, 3]]), run)?;
/// let lens = logit_lens(&model, &out, (0, 3))?;
/// // Not before the induction head has written does the model know what comes.
/// let probability = |i| Standing::of(lens.logits.slice(&[i]), 1).probability;
/// assert!(probability(1) < 0.1 && probability(2) > 0.99);
/// # Ok::<(), pathsum::Error>(())
/// ```
///
/// # Shapes
/// The logits are `[hook, d_vocab_out]`.
///
/// # Errors
/// When the model has no layers or no unembedding, the run has no such position or one that is a pad, or it did not
/// keep what [`LogitLens::hooks`] names.
///
/// Source: nostalgebraist, "interpreting GPT: the logit lens" (2020); `ActivationCache.accumulated_resid` with
/// `apply_ln`, which takes the last layer's scale.
pub fn logit_lens<T: Scalar>(
    model: &Model<T>,
    out: &RunOutput<T>,
    (sequence, position): (usize, usize),
) -> Result<LogitLens<T>> {
    let stream = lens_stream(model, out, sequence, position..position + 1)?;
    Ok(LogitLens {
        logits: model.logits_of_stream(&stream)?,
        hooks: LogitLens::<T>::hooks(model.config()),
    })
}

/// The stream at each of the lens's hooks at some positions of a sequence, `[position * hook, d_model]`.
fn lens_stream<T: Scalar>(
    model: &Model<T>,
    out: &RunOutput<T>,
    sequence: usize,
    positions: Range<usize>,
) -> Result<Tensor<T>> {
    let c = model.config();
    if c.d_vocab_out == 0 {
        return Err(Error::NotCovered(
            "the model has no unembedding, and no logits",
        ));
    }
    check_layers(c)?;
    let hooks = LogitLens::<T>::hooks(c);
    let mut rows = Vec::with_capacity(positions.len() * hooks.len() * c.d_model);
    for position in positions.clone() {
        check_place(&out.tokens, (sequence, position))?;
        for &hook in &hooks {
            rows.extend_from_slice(out.cache.require(hook)?.slice(&[sequence, position]));
        }
    }
    Ok(Tensor::from_vec(
        &[positions.len() * hooks.len(), c.d_model],
        rows,
    ))
}

/// How much memory the logits of a piece of a sequence may take, in bytes.
const MEMORY: usize = 1 << 26;

/// The logit lens at every position of a sequence: for each position and each of [`LogitLens::hooks`], the `k` tokens that
/// come next likeliest, the likeliest first.
///
/// `progress` is called with the number of positions read.
///
/// # Errors
/// As [`logit_lens`].
///
/// # Cost
/// `2 d_model d_vocab_out` operations, and a sort of `d_vocab_out` numbers, a hook and position; the logits of a few
/// positions at a time.
pub fn lens_everywhere<T: Scalar>(
    model: &Model<T>,
    out: &RunOutput<T>,
    sequence: usize,
    k: usize,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Vec<Vec<Vec<Standing>>>> {
    let c = model.config();
    let hooks = LogitLens::<T>::hooks(c).len();
    let each = (hooks * c.d_vocab_out * size_of::<T>()).max(1);
    let piece = (MEMORY / each).max(1);
    let mut all = Vec::with_capacity(out.tokens.pos());
    for first in (0..out.tokens.pos()).step_by(piece) {
        let positions = first..out.tokens.pos().min(first + piece);
        let stream = lens_stream(model, out, sequence, positions.clone())?;
        let logits = model.logits_of_stream(&stream)?;
        let rows = logits.data().par_chunks_exact(c.d_vocab_out);
        let mut read: Vec<Vec<Standing>> = rows.map(|row| Standing::likeliest(row, k)).collect();
        for _ in positions.clone() {
            let rest = read.split_off(hooks);
            all.push(std::mem::replace(&mut read, rest));
        }
        progress(positions.len());
    }
    Ok(all)
}

/// The hooks that a run must keep for [`direct_logits`].
pub fn direct_logits_hooks(config: &Config, by: By) -> Vec<Hook> {
    let heads = |hook| match hook {
        // What each head writes is made of its `z` where it is asked for: the run need not make it everywhere.
        Hook::Result(l) => Hook::Z(l),
        other => other,
    };
    let scale = config.norm_at(NormSite::Final);
    let scale = scale.map(|_| Hook::Scale(NormSite::Final));
    by.hooks(config)
        .into_iter()
        .map(heads)
        .chain(scale)
        .collect()
}

/// What each component of the stream adds to every logit at one position of a sequence, `(sequence, position)`, with the
/// last norm linear at the run's own scale, and with its `b` and `b_U` as components, so that the whole adds up to the
/// logits. As [`direct_logit_attribution`](super::direct_logit_attribution), of all logits in one place.
///
/// # Shapes
/// The values are `[component, 1, 1, d_vocab_out]`.
///
/// # Errors
/// When the model has no layers or its logits are not linear in its stream behind the last norm, the run has no such
/// position or one that is a pad, or it did not keep what [`direct_logits_hooks`] names.
///
/// # Cost
/// `2 d_model d_vocab_out` operations a component.
///
/// Source: `ActivationCache.decompose_resid` and `stack_head_results` with `apply_ln`, times `W_U`.
pub fn direct_logits<T: Scalar>(
    model: &Model<T>,
    out: &RunOutput<T>,
    at: (usize, usize),
    by: By,
) -> Result<Stack<T>> {
    let c = model.config();
    let (cache, stack) = stack_at(model, out, at, by)?;
    let stack = match model.norm_at(NormSite::Final) {
        Some(_) => layer_norm_stack(model, &cache, stack, Hook::Scale(NormSite::Final))?,
        None => stack,
    };
    let logits = product(stack.values.rows(), model.weights().W_U.mat(&[]));
    let mut data = Tensor::from_mat(logits.as_ref()).into_data();
    data.extend_from_slice(model.weights().b_U.data());
    let mut labels = stack.labels;
    labels.push(Component::UnembedBias);
    Ok(Stack {
        values: Tensor::from_vec(&[labels.len(), 1, 1, c.d_vocab_out], data),
        labels,
    })
}

/// What each component of the stream adds to some logits at one position of a sequence, `(sequence, position)`:
/// [`direct_logit_attribution`] there, of a run that kept no more than [`direct_logits_hooks`] names.
///
/// # Shapes
/// The values are `[component, 1, 1, logit]`.
///
/// # Errors
/// As [`direct_logits`]; when there is no such logit.
///
/// # Cost
/// `2 d_model` operations a component and logit.
///
/// Source: `ActivationCache.logit_attrs`.
pub fn direct_logits_along<T: Scalar>(
    model: &Model<T>,
    out: &RunOutput<T>,
    at: (usize, usize),
    by: By,
    logits: &[Logit<'_, T>],
) -> Result<Stack<T>> {
    let (cache, stack) = stack_at(model, out, at, by)?;
    direct_logit_attribution(model, &cache, stack, logits)
}

/// The stack of the stream's end at one position of one sequence, and the values there that it is made of.
fn stack_at<T: Scalar>(
    model: &Model<T>,
    out: &RunOutput<T>,
    at: (usize, usize),
    by: By,
) -> Result<(Cache<T>, Stack<T>)> {
    let c = model.config();
    if let Some(reason) = nonlinear_logits(c) {
        return Err(Error::NotCovered(reason));
    }
    check_layers(c)?;
    check_place(&out.tokens, at)?;
    let cache = cache_at(model, &out.cache, at, by)?;
    let stack = residual_stack(model, &cache, c.end_of_stream(), by)?;
    Ok((cache, stack))
}

/// Of what the stack of the stream is made of, one position of one sequence: `[1, 1, …]`.
fn cache_at<T: Scalar>(
    model: &Model<T>,
    cache: &Cache<T>,
    (sequence, position): (usize, usize),
    by: By,
) -> Result<Cache<T>> {
    let own = |value: &Tensor<T>| {
        let shape = [&[1, 1], &value.shape()[2..]].concat();
        Tensor::from_vec(&shape, value.slice(&[sequence, position]).to_vec())
    };
    let c = model.config();
    let mut hooks = by.hooks(c);
    let scale = c.norm_at(NormSite::Final);
    hooks.extend(scale.map(|_| Hook::Scale(NormSite::Final)));
    let values = hooks.into_iter().map(|hook| {
        let value = match (cache.get(hook), hook) {
            (Some(value), _) => own(value),
            (None, Hook::Result(l)) => model.head_results(l, &own(cache.require(Hook::Z(l))?)),
            (None, hook) => return Err(Error::NotCached(hook)),
        };
        Ok((hook, value))
    });
    Ok(Cache::new(values.collect::<Result<_>>()?))
}

fn check_layers(c: &Config) -> Result<()> {
    match c.n_layers {
        0 => Err(Error::NotInModel("layers".into())),
        _ => Ok(()),
    }
}

/// That something is said there.
fn check_place(tokens: &Tokens, (sequence, position): (usize, usize)) -> Result<()> {
    if sequence >= tokens.batch() {
        let all = 0..tokens.batch();
        return Err(Error::out_of_range(
            "sequence",
            sequence,
            "",
            "the run's",
            all,
        ));
    }
    if position >= tokens.pos() {
        let all = 0..tokens.pos();
        return Err(Error::out_of_range(
            "position",
            position,
            "",
            "the sequence's",
            all,
        ));
    }
    match tokens.is_attended(sequence, position) {
        true => Ok(()),
        false => Err(Error::Mismatch(format!(
            "position {position} of sequence {sequence} is a pad, after which nothing is said"
        ))),
    }
}
