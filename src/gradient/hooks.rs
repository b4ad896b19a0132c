//! The derivative of a metric by hooks' values.

use super::backward::Backward;
use super::gathered::Gathered;
use super::sink::{Sink, Slot};
use crate::diagram::Diagram;
use crate::error::Result;
use crate::linalg::Par;
use crate::metric::{self, Answers, Metric};
use crate::model::{Cache, Model, STRETCH, Sequences, Tape, Tokens};
use crate::names::{Hook, HookQuery};
use crate::op::{self, Layout, Rules};
use crate::tensor::{Scalar, Tensor, lanes};
use rayon::prelude::*;

/// What [`hook_gradients`] finds.
#[derive(Clone, Debug)]
pub struct HookGradients<T: Scalar> {
    /// The metric of every sequence: the mean over its answers.
    pub metric: Vec<f64>,
    /// The derivatives of the metric's mean over all sequences, each of the shape of its hook's value.
    pub gradients: Cache<T>,
}

/// The derivative of a metric's mean over the answers by the values of hooks, or of those that names or patterns cover.
///
/// The batch is split into stretches, each run forward and back while its values are in a core's own cache; nothing is
/// kept but what is asked for.
///
/// ```
/// use pathsum::gradient::hook_gradients;
/// use pathsum::metric::{Answers, Standard};
/// use pathsum::{Hook, Par, Tokens, fixture};
///
/// let model = fixture::induction::<f64>();
/// let tokens = Tokens::from_rows(&[[7, 3, 9, 7]]);
/// let answers = Answers::new(&[3], vec![3]);
/// let found = hook_gradients(&model, &tokens, &Standard::LogitDiff, &answers, &["*hook_z"], Par::Seq)?;
/// assert_eq!(found.gradients[Hook::Z(0)].shape(), [1, 4, 1, 32]);
/// # Ok::<(), pathsum::Error>(())
/// ```
///
/// # Errors
/// When the tokens or answers do not fit the model, the metric has no gradient, or a name is no hook of the model.
///
/// # Cost
/// About that of three runs.
pub fn hook_gradients<T: Scalar>(
    model: &Model<T>,
    tokens: &Tokens,
    metric: &dyn Metric,
    answers: &Answers,
    hooks: &[impl Clone + Into<HookQuery>],
    par: Par,
) -> Result<HookGradients<T>> {
    let asked = asked(model, hooks)?;
    let plain = Pass::default();
    Ok(gradients_with(model, tokens, metric, answers, asked, plain, par)?.0)
}

/// The hooks that are meant, in the order of the forward pass.
fn asked<T: Scalar>(model: &Model<T>, hooks: &[impl Clone + Into<HookQuery>]) -> Result<Vec<Hook>> {
    let all = model.config().hooks();
    let mut asked = Vec::new();
    for meant in hooks {
        asked.extend(HookQuery::from(meant).select(&all)?);
    }
    Ok(all.into_iter().filter(|h| asked.contains(h)).collect())
}

/// As [`hook_gradients`], and beside the derivatives the values themselves: of the last layer at the positions that are
/// read alone, and zero where the derivatives are.
pub(super) fn gradients_and_values<T: Scalar>(
    model: &Model<T>,
    tokens: &Tokens,
    metric: &dyn Metric,
    answers: &Answers,
    hooks: &[impl Clone + Into<HookQuery>],
    par: Par,
) -> Result<(HookGradients<T>, Cache<T>)> {
    let asked = asked(model, hooks)?;
    let pass = Pass {
        values: &asked,
        ..Pass::default()
    };
    gradients_with(model, tokens, metric, answers, asked.clone(), pass, par)
}

/// In what a pass forward and back departs from the plain one.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'a, T: Scalar> {
    /// A hook's value with another in its place. What the value was made of has no derivative through it.
    pub replaced: Option<(Hook, &'a Tensor<T>)>,
    /// Values that nothing has a derivative through, each an attention's or an MLP's whole output.
    pub dropped: &'a [Hook],
    /// What stands for the derivatives of operations that are not linear.
    pub rules: Rules,
    /// The hooks whose values are wanted too, in the order of the forward pass.
    pub values: &'a [Hook],
}

impl<T: Scalar> Default for Pass<'_, T> {
    fn default() -> Self {
        Pass {
            replaced: None,
            dropped: &[],
            rules: Rules::Derivatives,
            values: &[],
        }
    }
}

/// As [`hook_gradients`], for hooks in the order of the forward pass; and in another pass than the plain one, of which
/// nobody may ask for a hook that has no derivative at all. Beside the derivatives the values that the pass is asked for.
pub(crate) fn gradients_with<T: Scalar>(
    model: &Model<T>,
    tokens: &Tokens,
    metric: &dyn Metric,
    answers: &Answers,
    hooks: Vec<Hook>,
    pass: Pass<'_, T>,
    par: Par,
) -> Result<(HookGradients<T>, Cache<T>)> {
    let Pass {
        replaced,
        dropped,
        rules,
        values,
    } = pass;
    let c = model.config();
    tokens.check(c)?;
    answers.check(c, tokens)?;
    metric.check(answers, c.d_vocab_out)?;
    let (batch, pos) = (tokens.batch(), tokens.pos());
    let share = 1.0 / (batch * answers.positions().len()) as f64;
    let diagram = &model.diagram;
    let wanted = |hook: Hook| hooks.iter().any(|&h| diagram.same_derivative_as(h) == hook);
    let mut keep = diagram.needed_back(&diagram.reached_back(wanted, false), false);

    // A value is replaced by a closure on the order of the axes; and other rules than derivatives go by rows.
    let abreast = replaced.is_none()
        && rules == Rules::Derivatives
        && tokens.attention_mask().is_none()
        && Layout::abreast_pays::<T>(c, (batch, pos), values);
    let (layout, each) = if abreast {
        (Layout::Abreast, lanes::<T>())
    } else {
        let stretches = (batch * pos).div_ceil(STRETCH);
        let stretches = stretches.next_multiple_of(par.threads()).min(batch);
        (Layout::ROWS, batch.div_ceil(stretches.max(1)).max(1))
    };
    let set = replaced.map(|(hook, _)| hook);
    let cut: Vec<Hook> = set.into_iter().chain(dropped.iter().copied()).collect();
    let same_as = |diagram: &Diagram, hook| diagram.same_as(hook).unwrap_or(hook);
    for hook in values.iter().map(|&hook| same_as(diagram, hook)) {
        if !keep.contains(&hook) {
            keep.push(hook);
        }
    }
    let mut own = Gathered::new(model, values.to_vec(), tokens, same_as);
    let mut derivatives = Gathered::new(model, hooks, tokens, Diagram::same_derivative_as);
    let slots = derivatives.slots(each).into_iter().zip(own.slots(each));
    let stretches: Vec<_> = (0..batch).step_by(each).zip(slots).collect();

    type Slots<'a, T> = Vec<Slot<'a, T>>;
    let work = |tape: &mut Tape<T>,
                (first, (slots, own)): (usize, (Slots<'_, T>, Slots<'_, T>))| {
        let count = each.min(batch - first);
        let replaced = replaced.map(|(hook, value)| {
            (
                hook,
                rows_read(diagram.axis_read(hook), value, first, count, answers),
            )
        });
        let replaced = replaced.as_ref().map(|(hook, value)| (*hook, &value[..]));
        let sequences = Sequences::of(tokens, (first, count), Some(answers.positions()), layout);
        tape.record(model, sequences, &keep, replaced);
        let (values, d_logits) =
            metric::values_and_gradient(metric, answers, first, tape.logits(), share)?;
        let mut sink = Sink {
            slots,
            weights: None,
        };
        let mut scratch = std::mem::take(&mut tape.scratch);
        for mut slot in own {
            let value = tape.value(slot.hook);
            let rows = op::in_order(layout, value, count, &mut scratch);
            let of = diagram.value(slot.hook).expect("a hook of this model");
            let at = sequences.read.filter(|_| diagram.narrow[of]);
            let value = rows.as_ref().unwrap_or(value);
            slot.write(value, at, pos, <[T]>::copy_from_slice);
            rows.into_iter().for_each(|t| scratch.give(t));
        }
        let back = (&cut[..], rules);
        let pass = Backward::new(model, sequences, tape, scratch, &mut sink, back);
        tape.scratch = pass.run(d_logits);
        Ok(values)
    };
    let per_stretch: Vec<Result<Vec<f64>>> = match par {
        Par::Seq => {
            let mut tape = Tape::default();
            stretches.into_iter().map(|s| work(&mut tape, s)).collect()
        }
        Par::Rayon => {
            // Not many tapes: their memory is new.
            let few = stretches.len().div_ceil(16 * par.threads());
            let stretches = stretches.into_par_iter().with_min_len(few);
            stretches.map_init(Tape::default, work).collect()
        }
    };
    let mut metric = Vec::with_capacity(batch);
    for values in per_stretch {
        metric.extend(values?);
    }
    let found = HookGradients {
        metric,
        gradients: derivatives.into_cache(),
    };
    Ok((found, own.into_cache()))
}

/// A stretch's share of a value, as the tape has it: along an axis of positions, those read alone.
fn rows_read<T: Scalar>(
    axis: Option<usize>,
    value: &Tensor<T>,
    first: usize,
    count: usize,
    answers: &Answers,
) -> Vec<T> {
    let each: usize = value.shape()[1..].iter().product();
    let own = &value.data()[first * each..(first + count) * each];
    let Some(axis) = axis else {
        return own.to_vec();
    };
    let width: usize = value.shape()[axis + 1..].iter().product();
    let rows = own.chunks_exact(value.shape()[axis] * width);
    let rows = rows.flat_map(|rows| {
        let at = answers.positions().iter();
        at.flat_map(move |p| &rows[p * width..(p + 1) * width])
    });
    rows.copied().collect()
}
