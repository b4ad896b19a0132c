//! Identities of the residual stream: what writes to it, the norms that read it, the logits.

use super::attention::capped;
use super::bounded::{Bounded, gamma, rounded_up, unit};
use super::evidence::{Evidence, compare};
use super::mlp;
use super::verdict::Comparison;
use crate::decompose::{By, Logit, Stack, direct_logit_attribution, stack_of};
use crate::diagram::{NormPlace, Op, Value};
use crate::error::Result;
use crate::names::Hook;
use crate::names::NormSite;
use crate::op::NormMap;
use crate::tensor::{Scalar, Tensor};
use faer::{Mat, MatRef};

/// The sum of a stack's components and its bound: `γ_{n-1} Σ |x_i|` on each side.
fn stack_sum<T: Scalar>(stack: &Stack<T>) -> Bounded<T> {
    let n = stack.labels.len();
    let magnitude = Tensor::from_vec(
        stack.values.shape(),
        stack.values.data().iter().map(|x| x.abs()).collect(),
    );
    let magnitude = Stack {
        labels: stack.labels.clone(),
        values: magnitude,
    }
    .sum();
    let (g, up) = (gamma::<T>(n), rounded_up::<T>(n + 4));
    let magnitude = magnitude.rows();
    Bounded {
        value: stack.sum().rows().to_owned(),
        error: Mat::from_fn(magnitude.nrows(), magnitude.ncols(), |i, j| {
            g * magnitude[(i, j)] * up
        }),
    }
}

/// The sum of the stream's components at its end, and a bound on how far the run's own may be from it.
fn end_of_stream<T: Scalar>(e: &Evidence<'_, T>) -> Result<Bounded<T>> {
    let stack = last_stack(e)?;
    let mut sum = stack_sum(&stack);
    let c = e.model.config();
    if c.embed_norm.is_some() || c.norm.is_some() && c.norm_place == NormPlace::Stream {
        // Norms take off what components have in common: before them these may be far larger than behind.
        let end = e.model.diagram.value(c.end_of_stream());
        let (sizes, roundings) = written(e, end.expect("every model has it"))?;
        let n = stack.labels.len() + roundings;
        // The run's own is off by as much as the components are.
        let both = (gamma::<T>(n) + gamma::<T>(n)) * rounded_up::<T>(n + 4);
        let sizes = sizes.rows();
        sum.error = Mat::from_fn(sizes.nrows(), sizes.ncols(), |i, j| {
            sum.error[(i, j)] + both * sizes[(i, j)]
        });
    }
    Ok(match run_end_of_stream(e) {
        Some(own) => sum.claimed(own.rows()),
        None => sum,
    })
}

/// What the run has at the end of its stream; without layers that is nothing, unless it has another name.
fn run_end_of_stream<'a, T: Scalar>(e: &Evidence<'a, T>) -> Option<&'a Tensor<T>> {
    let end = e.model.config().end_of_stream();
    let own = e.out.cache.get(end);
    own.or_else(|| e.out.cache.get(e.model.diagram.same_as(end)?))
}

/// The moduli of all that has been written to a value of the stream, each through the norms that it passes, and how many
/// roundings it meets on its way at most.
fn written<T: Scalar>(e: &Evidence<'_, T>, value: Value) -> Result<(Tensor<T>, usize)> {
    let diagram = &e.model.diagram;
    let step = &diagram.steps[diagram.made_by(value)];
    match step.op {
        Op::Sum | Op::Same => {
            let mut reads = step.reads.iter().map(|&(part, _)| written(e, part));
            let first = reads.next().expect("a sum has parts")?;
            reads.try_fold(first, |(mut sum, roundings), part| {
                let (sizes, own) = part?;
                let entries = sum.data_mut().iter_mut().zip(sizes.data());
                entries.for_each(|(sum, &x)| *sum += x);
                Ok((sum, roundings.max(own) + 1))
            })
        }
        Op::Norm(site @ (NormSite::Embed | NormSite::Ln1(_) | NormSite::Ln2(_))) => {
            let (mut sizes, roundings) = written(e, step.reads[0].0)?;
            let norm = e.model.norm_at(site).expect("a norm of this model");
            let scale = e.value(Hook::Scale(site))?;
            let d = e.model.config().d_model;
            let rows = sizes.data_mut().chunks_exact_mut(d).zip(scale.data());
            for (row, &scale) in rows {
                let mean = match norm.kind.centred {
                    true => row.iter().copied().sum::<T>() / T::from_f64(d as f64),
                    false => T::ZERO,
                };
                for (i, x) in row.iter_mut().enumerate() {
                    let w = norm.w().map_or(T::ONE, |w| w[i].abs());
                    let b = norm.b().map_or(T::ZERO, |b| b[i].abs());
                    *x = (*x + mean) / scale.abs() * w + b;
                }
            }
            // Two sums over the features, and what is done to an entry.
            Ok((sizes, roundings + 2 * d + 10))
        }
        _ => {
            let x = e.value(diagram.values[value])?;
            let sizes = x.data().iter().map(|x| x.abs()).collect();
            Ok((Tensor::from_vec(x.shape(), sizes), 0))
        }
    }
}

/// The components of the stream at its end.
fn last_stack<T: Scalar>(e: &Evidence<'_, T>) -> Result<Stack<T>> {
    let end = e.model.diagram.value(e.model.config().end_of_stream());
    stack_of(
        e.model,
        &e.out.cache,
        end.expect("every model has it"),
        By::Layer,
    )
}

/// Each token's row of the table of types, bit by bit.
pub(super) fn token_types<T: Scalar>(e: &Evidence<'_, T>, cmp: &mut Comparison) -> Result<()> {
    let found = e.value(Hook::TokenTypeEmbed)?;
    let W = &e.model.weights().W_token_type;
    let d = e.model.config().d_model;
    let types = e.out.tokens.token_types();
    for (flat, x) in found.data().iter().enumerate() {
        let (row, j) = (flat / d, flat % d);
        // Without types all are of the first.
        let kind = types.map_or(0, |types| types[row] as usize);
        cmp.entry(x.to_f64(), W[[kind, j]].to_f64(), 0.0, || {
            e.place(Hook::TokenTypeEmbed, row, &[j])
        });
    }
    Ok(())
}

/// The logits from what the unembedding reads, where more than norms and linear maps stands between the stream and them.
pub(super) fn logits<T: Scalar>(e: &Evidence<'_, T>, cmp: &mut Comparison) -> Result<()> {
    let (c, w) = (e.model.config(), e.model.weights());
    let read = |op: Op| -> Result<Bounded<T>> {
        let own = e.out.cache.get(e.read_by(op, 0));
        // Without layers the stream has no hook.
        let without_hook = || run_end_of_stream(e).filter(|_| c.n_layers == 0);
        match own.or_else(without_hook) {
            Some(x) => Ok(Bounded::exact(x.rows())),
            None => end_of_stream(e),
        }
    };
    if let (Some(head), Some(act_fn)) = (&w.mlm_head, c.mlm_head) {
        let W = Bounded::exact(head.W.mat(&[]));
        let expected = read(Op::MlmHead)?.times_plus(&W, head.b.data());
        let found = expected.claimed(e.value(Hook::MlmHeadPre)?.rows());
        compare(cmp, &found, &expected, |i, j| {
            e.place(Hook::MlmHeadPre, i, &[j])
        });
        mlp::mlm_head(e, act_fn, cmp)?;
    }
    let chosen = Chosen::of(e);
    let expected = read(Op::Unembed)?.times_plus(&chosen.W_U, &chosen.b_U);
    let expected = match c.logit_cap {
        Some(cap) => capped(cap, expected),
        None => expected,
    };
    let found = e.out.logits.rows();
    let found = Mat::from_fn(found.nrows(), chosen.logits.len(), |i, j| {
        found[(i, chosen.logits[j])]
    });
    let found = expected.claimed(found.as_ref());
    chosen.compare(e, cmp, 0, (&found, &expected));
    Ok(())
}

pub(super) fn layer_norm<T: Scalar>(e: &Evidence<'_, T>, cmp: &mut Comparison) -> Result<()> {
    let eps = T::from_f64(e.model.config().eps);
    let diagram = &e.model.diagram;
    for step in &diagram.steps {
        if let Op::Same = step.op
            && let end @ Hook::NormalizedResidPost(_) = diagram.values[step.gives[0]]
        {
            let own = e.value(diagram.values[step.reads[0].0])?;
            let d = e.model.config().d_model;
            for (flat, (found, x)) in e.value(end)?.data().iter().zip(own.data()).enumerate() {
                cmp.entry(found.to_f64(), x.to_f64(), 0.0, || {
                    e.place(end, flat / d, &[flat % d])
                });
            }
        }
        let Op::Norm(site) = step.op else { continue };
        let norm = e.model.norm_at(site).expect("a norm of this model");
        let (scale_hook, normalized_hook) = (Hook::Scale(site), site.output());
        let width = e.model.config().norm_width(site);
        let input = diagram.values[step.reads[0].0];
        // Without layers the stream has no hook.
        let without_hook = || run_end_of_stream(e).filter(|_| e.model.config().n_layers == 0);
        let x = match e.out.cache.get(input).or_else(without_hook) {
            Some(x) => Bounded::exact(rows_of(x, width)),
            None => end_of_stream(e)?,
        };
        // Of queries and keys a row is a head's, or all heads'.
        let rows = x.nrows() / (e.out.tokens.batch() * e.out.tokens.pos());
        let compare_rows = |cmp: &mut Comparison, hook, left: &Bounded<T>, right: &Bounded<T>| {
            compare(cmp, left, right, |i, j| match rows {
                1 => e.place(hook, i, &[j]),
                _ => e.place(hook, i / rows, &[i % rows, j]),
            });
        };
        let d = T::from_f64(x.value.ncols() as f64);
        let x = read_by(&norm, &x);
        let mean_square = x.squared().row_sums().scaled(T::ONE / d, unit::<T>());
        let expected = mean_square.plus(&Bounded::exact_row(&[eps])).sqrt();
        let scale = e.value(scale_hook)?;
        compare_rows(
            cmp,
            scale_hook,
            &expected.claimed(rows_of(scale, 1)),
            &expected,
        );

        let expected = match norm.b() {
            Some(b) => weighed(&norm, &x, scale.data()).plus(&Bounded::exact_row(b)),
            None => weighed(&norm, &x, scale.data()),
        };
        let found = e.value(normalized_hook)?;
        let claimed = expected.claimed(rows_of(found, width));
        compare_rows(cmp, normalized_hook, &claimed, &expected);
    }
    Ok(())
}

/// A value in rows of another width than its last axis'.
fn rows_of<T: Scalar>(x: &Tensor<T>, width: usize) -> MatRef<'_, T> {
    MatRef::from_row_major_slice(x.data(), x.len() / width, width)
}

/// What a norm takes the mean square of: the stream less its mean.
fn read_by<T: Scalar>(norm: &NormMap<'_, T>, x: &Bounded<T>) -> Bounded<T> {
    match norm.kind.centred {
        true => x.centered(),
        false => x.clone(),
    }
}

/// `x / scale · w`, for what the norm takes the mean square of.
fn weighed<T: Scalar>(norm: &NormMap<'_, T>, x: &Bounded<T>, scale: &[T]) -> Bounded<T> {
    let normalized = x.divided_by_column(scale);
    match norm.w() {
        Some(w) => normalized.times_row(w),
        None => normalized,
    }
}

/// A part of the stream through a norm at the run's scale, without `b`; and the stream itself with it.
pub(super) fn through<T: Scalar>(
    norm: &NormMap<'_, T>,
    x: &Bounded<T>,
    scale: &[T],
    with_b: bool,
) -> Bounded<T> {
    let out = weighed(norm, &read_by(norm, x), scale);
    match norm.b().filter(|_| with_b) {
        Some(b) => out.plus(&Bounded::exact_row(b)),
        None => out,
    }
}

/// At most this many logits are compared: with a real vocabulary all of them would take minutes.
const LOGITS: usize = 64;

/// The logits that are compared, with their part of the unembedding.
pub(super) struct Chosen<T> {
    pub logits: Vec<usize>,
    /// `[d_model, chosen]`
    pub W_U: Bounded<T>,
    pub b_U: Vec<T>,
}

impl<T: Scalar> Chosen<T> {
    pub fn of(e: &Evidence<'_, T>) -> Self {
        let (c, w) = (e.model.config(), e.model.weights());
        let step = c.d_vocab_out.div_ceil(LOGITS);
        let logits: Vec<usize> = (0..c.d_vocab_out).step_by(step).collect();
        let W_U = w.W_U.mat(&[]);
        let W_U = Mat::from_fn(c.d_model, logits.len(), |i, j| W_U[(i, logits[j])]);
        Chosen {
            W_U: Bounded::exact(W_U.as_ref()),
            b_U: logits.iter().map(|&i| w.b_U.data()[i]).collect(),
            logits,
        }
    }

    /// Compares the chosen logits of some positions of the batch, of which there is one at tokens that are attended to alone.
    pub fn compare(
        &self,
        e: &Evidence<'_, T>,
        cmp: &mut Comparison,
        first: usize,
        (left, right): (&Bounded<T>, &Bounded<T>),
    ) {
        let pos = e.out.tokens.pos();
        for i in 0..left.nrows() {
            let row = first + i;
            if !e.out.tokens.is_attended(row / pos, row % pos) {
                continue;
            }
            for (j, &logit) in self.logits.iter().enumerate() {
                let bound = left.error[(i, j)].to_f64() + right.error[(i, j)].to_f64();
                let (l, r) = (left.value[(i, j)].to_f64(), right.value[(i, j)].to_f64());
                cmp.entry(l, r, bound, || e.place("logits", row, &[logit]));
            }
        }
    }

    /// What the run computed, `[batch · pos, chosen]`, with the bound of doing so from its own last stream.
    pub fn found(&self, e: &Evidence<'_, T>) -> Result<Bounded<T>> {
        // The stream is the components' sum to within rounding.
        let stream = end_of_stream(e)?;
        let normalized = match (e.model.norm_at(NormSite::Final), final_scale(e)?) {
            (Some(norm), Some(scale)) => through(&norm, &stream, scale, true),
            _ => stream,
        };
        let found = e.out.logits.rows();
        let found = Mat::from_fn(found.nrows(), self.logits.len(), |i, j| {
            found[(i, self.logits[j])]
        });
        let logits = normalized.times_plus(&self.W_U, &self.b_U);
        Ok(logits.claimed(found.as_ref()))
    }
}

/// The scale of the last norm, where there is one.
fn final_scale<'a, T: Scalar>(e: &Evidence<'a, T>) -> Result<Option<&'a [T]>> {
    match e.model.norm_at(NormSite::Final) {
        Some(_) => Ok(Some(
            e.out.cache.require(Hook::Scale(NormSite::Final))?.data(),
        )),
        None => Ok(None),
    }
}

pub(super) fn direct_attribution<T: Scalar>(
    e: &Evidence<'_, T>,
    cmp: &mut Comparison,
) -> Result<()> {
    let c = e.model.config();
    let chosen = Chosen::of(e);
    let (W_U, b_U) = (&chosen.W_U, &chosen.b_U);
    let norm = e.model.norm_at(NormSite::Final);
    let scale = final_scale(e)?;
    let stack = last_stack(e)?;
    let left = chosen.found(e)?;

    // The sum of attributions, and its bound from each component's.
    let mut bounded: Option<Bounded<T>> = None;
    for i in 0..stack.labels.len() {
        let rows = left.nrows();
        let component = MatRef::from_row_major_slice(stack.values.slice(&[i]), rows, c.d_model);
        let component = Bounded::exact(component);
        let component = match (&norm, scale) {
            (Some(norm), Some(scale)) => through(norm, &component, scale, false),
            _ => component,
        };
        let attributed = component.times(W_U);
        bounded = Some(bounded.map_or(attributed.clone(), |sum| sum.plus(&attributed)));
    }
    let mut bounded = bounded
        .expect("the embedding is a component")
        .plus(&Bounded::exact_row(b_U));
    if let Some(b) = norm.as_ref().and_then(|norm| norm.b()) {
        bounded = bounded.plus(&Bounded::exact_row(b).times(W_U));
    }
    let logits: Vec<Logit<T>> = chosen.logits.iter().map(|&i| Logit::Of(i)).collect();
    let attributions = direct_logit_attribution(e.model, &e.out.cache, stack, &logits)?;
    // The library adds in another order than the bound was carried: by magnitudes, both are covered.
    let by_magnitude = stack_sum(&attributions);
    let error = Mat::from_fn(left.nrows(), chosen.logits.len(), |i, j| {
        bounded.error[(i, j)] + by_magnitude.error[(i, j)]
    });
    let right = Bounded {
        value: by_magnitude.value,
        error,
    };
    chosen.compare(e, cmp, 0, (&left, &right));
    Ok(())
}
