//! A run: what to change on the way, what to keep, and how the batch is split over threads.

use super::forward::Sequences;
use super::{Cache, Model, Tokens};
use crate::error::Result;
use crate::kernel::abreast;
use crate::linalg::Par;
use crate::names::{Hook, HookQuery};
use crate::op::{Layout, Scratch};
use crate::tensor::{Scalar, Tensor, check_room, lanes};
use rayon::prelude::*;

/// A closure on a hook's value.
pub(super) type HookFn<'a, T> = Box<dyn FnMut(&mut Tensor<T>, Hook) + 'a>;

/// What a run does beside computing logits: hooks and cache.
///
/// ```
/// use pathsum::{Run, Tokens, fixture};
/// let model = fixture::induction::<f64>();
/// let tokens = Tokens::from_rows(&[[3, 1, 4, 3]]);
/// let run = Run::new()
///     .hook("blocks.1.attn.hook_pattern", |pattern, _| pattern.data_mut().fill(0.0))
///     .cache("blocks.1.attn.*");
/// let out = model.run(&tokens, run)?;
/// assert_eq!(out.cache.by_name("blocks.1.attn.hook_z")?.max_abs(), 0.0);
/// # Ok::<(), pathsum::Error>(())
/// ```
pub struct Run<'a, T: Scalar> {
    hooks: Vec<(HookQuery, HookFn<'a, T>)>,
    keep: Vec<HookQuery>,
    logits: bool,
    par: Par,
    progress: Option<&'a (dyn Fn(usize) + Sync)>,
}

/// What a run gives.
#[derive(Clone, Debug)]
pub struct RunOutput<T: Scalar> {
    /// What it was run on.
    pub tokens: Tokens,
    /// `[batch, pos, d_vocab_out]`
    pub logits: Tensor<T>,
    /// The values asked for.
    pub cache: Cache<T>,
}

impl<T: Scalar> Default for Run<'_, T> {
    fn default() -> Self {
        Run {
            hooks: Vec::new(),
            keep: Vec::new(),
            logits: true,
            par: Par::default(),
            progress: None,
        }
    }
}

impl<'a, T: Scalar> Run<'a, T> {
    /// A run that changes and keeps nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls a closure on the values of a hook, or of those that a name or pattern covers.
    ///
    /// It sees the whole batch's value and may change it; the run goes on from the changed value, and a
    /// cache taken in the same run keeps it. Several hooks on one value are called in the order given.
    /// They must leave the value's shape alone, or the run panics.
    pub fn hook(
        mut self,
        hooks: impl Into<HookQuery>,
        f: impl FnMut(&mut Tensor<T>, Hook) + 'a,
    ) -> Self {
        self.hooks.push((hooks.into(), Box::new(f)));
        self
    }

    /// Keeps the values of a hook, or of those that a name or pattern covers. What nobody asks for is not kept.
    pub fn cache(mut self, hooks: impl Into<HookQuery>) -> Self {
        self.keep.push(hooks.into());
        self
    }

    /// Whether to split the work over threads; over the current rayon pool unless said otherwise.
    pub fn par(mut self, par: Par) -> Self {
        self.par = par;
        self
    }

    /// Computes no logits, which of a large vocabulary are a third of the work: those of what it gives are empty.
    pub(crate) fn without_logits(mut self) -> Self {
        self.logits = false;
        self
    }

    /// Called with the number of sequences done, as stretches of the batch are.
    pub fn progress(mut self, f: &'a (dyn Fn(usize) + Sync)) -> Self {
        self.progress = Some(f);
        self
    }
}

/// What happens at the hooks of one stretch of the batch.
pub(super) struct Sites<'r, 'a, T: Scalar> {
    pub(super) hooks: &'r mut [(Vec<Hook>, HookFn<'a, T>)],
    pub(super) slots: Vec<(Hook, &'r mut [T])>,
    /// The hooks whose values are taken once the pass is done with them, and those taken so far.
    pub(super) takes: &'r [Hook],
    pub(super) taken: Vec<(Hook, Tensor<T>)>,
    /// Whether the run's values lie abreast, but are kept in the order of the axes.
    pub(super) turned: bool,
    pub(super) scratch: &'r mut Scratch<T>,
}

impl<'r, T: Scalar> Sites<'r, '_, T> {
    /// Nobody looks at anything.
    pub(super) fn none(scratch: &'r mut Scratch<T>) -> Self {
        Sites {
            hooks: &mut [],
            slots: Vec::new(),
            takes: &[],
            taken: Vec::new(),
            turned: false,
            scratch,
        }
    }

    /// Whether a closure may change this hook's value.
    pub(super) fn changes(&self, hook: Hook) -> bool {
        self.hooks.iter().any(|(hs, _)| hs.contains(&hook))
    }

    /// Whether anyone looks at this hook's value.
    pub(super) fn wants(&self, hook: Hook) -> bool {
        self.slots.iter().any(|(h, _)| *h == hook)
            || self.takes.contains(&hook)
            || self.changes(hook)
    }

    /// Gives away a value that the pass is done with: to those who take it, or as memory.
    pub(super) fn done(&mut self, hook: Hook, value: Tensor<T>) {
        match self.takes.contains(&hook) {
            true => self.taken.push((hook, value)),
            false => self.scratch.give(value),
        }
    }

    /// Shows a value to those who look at it: first those who may change it, then the cache.
    #[track_caller]
    pub(super) fn visit(&mut self, hook: Hook, value: &mut Tensor<T>) {
        for (hooks, f) in self.hooks.iter_mut() {
            if hooks.contains(&hook) {
                let shape = value.shape().to_vec();
                f(value, hook);
                assert_eq!(
                    shape,
                    value.shape(),
                    "the closure on {hook} changed the value's shape"
                );
            }
        }
        if let Some((_, slot)) = self.slots.iter_mut().find(|(h, _)| *h == hook) {
            match self.turned {
                false => slot.copy_from_slice(value.data()),
                true => {
                    // By way of memory at hand: the slot is far, and best written in one go.
                    let mut rows = self.scratch.take(&[slot.len()]);
                    abreast::to_rows(value.data(), lanes::<T>(), rows.data_mut());
                    slot.copy_from_slice(rows.data());
                    self.scratch.give(rows);
                }
            }
        }
    }
}

/// How many positions a stretch of the batch has, about: enough for the products to be fast, few enough
/// for the stretch's values to stay in a core's own cache between one operation and the next.
pub(crate) const STRETCH: usize = 256;

/// Where the weights of a layer fill a core's cache by themselves, they are read once for more positions: 4 x 256 tokens of
/// GPT-2 small take a tenth less time than with [`STRETCH`].
const WIDE_STRETCH: usize = 512;

/// From which width of the stream on that is so.
const WIDE: usize = 512;

/// Below this many operations, waking another thread costs more than it gains.
const WORTH_A_THREAD: usize = 1 << 21;

impl<T: Scalar> Model<T> {
    /// Runs the model on a batch.
    ///
    /// Without hooks the batch is split into stretches that run in parallel; a hook's closure sees the
    /// whole batch, so with hooks it is run as one, and each operation is split instead.
    ///
    /// # Shapes
    /// `tokens: [batch, pos]` with `1 <= pos <= n_ctx`; the logits are `[batch, pos, d_vocab_out]`.
    ///
    /// # Errors
    /// When a token is not in the vocabulary, the sequences are too long, a hook's name is unknown, or there is not memory
    /// enough for what is asked for.
    ///
    /// # Panics
    /// When a closure changes the shape of a hook's value.
    pub fn run(&self, tokens: &Tokens, run: Run<'_, T>) -> Result<RunOutput<T>> {
        tokens.check(&self.config)?;
        let (batch, pos) = (tokens.batch(), tokens.pos());
        let all = match run.hooks.is_empty() && run.keep.is_empty() {
            true => Vec::new(),
            false => self.diagram.hooks(),
        };
        let mut hooks = Vec::new();
        for (meant, f) in run.hooks {
            hooks.push((meant.select(&all)?, f));
        }
        let mut keep = Vec::new();
        for meant in &run.keep {
            keep.extend(meant.select(&all)?);
        }
        keep.sort_by_key(|hook| all.iter().position(|h| h == hook));
        keep.dedup();
        // The stream before a layer is that past the one before it, unless a closure changes it in between.
        let changed: Vec<Hook> = hooks.iter().flat_map(|(hs, _)| hs.clone()).collect();
        let stands_for = |hook: Hook| match changed.contains(&hook) {
            true => hook,
            false => self.diagram.same_as(hook).unwrap_or(hook),
        };
        let mut made: Vec<Hook> = keep.iter().copied().map(stands_for).collect();
        made.dedup();
        let shapes = made.iter().map(|&h| self.config.hook_shape(h, batch, pos));
        let d_vocab_out = if run.logits {
            self.config.d_vocab_out
        } else {
            0
        };
        let shapes = shapes.chain([vec![batch, pos, d_vocab_out]]);
        // Every entry is written over.
        let shapes: Vec<_> = shapes.collect();
        let entries = shapes.iter().map(|shape| shape.iter().product::<usize>());
        let bytes = entries.sum::<usize>().saturating_mul(size_of::<T>());
        check_room(bytes as u64, "the run's logits and what is kept of it")?;
        let mut memory = self.memory.lend(&shapes).into_iter();
        let mut values: Vec<(Hook, Tensor<T>)> = made.into_iter().zip(&mut memory).collect();
        let mut logits = memory.next().expect("the logits' memory");

        let threads = run.par.threads();
        let stretch = match self.config.d_model < WIDE {
            true => STRETCH,
            false => WIDE_STRETCH,
        };
        let done = |n: usize| run.progress.iter().for_each(|f| f(n));
        // Closures want the whole batch.
        let abreast = hooks.is_empty()
            && tokens.attention_mask().is_none()
            && Layout::abreast_pays::<T>(&self.config, (batch, pos), &keep);
        if !abreast
            && (!hooks.is_empty()
                || threads == 1 && batch * pos <= stretch
                || batch < threads.max(2))
        {
            let par = self.worth(run.par, batch * pos);
            let slots = values.iter_mut().map(|(h, t)| (*h, t.data_mut())).collect();
            let sequences = Sequences::of(tokens, (0, batch), None, Layout::Rows(par));
            // Closures stay on the caller's thread.
            match hooks.is_empty() {
                true => par.within(|| {
                    let mut scratch = Scratch::default();
                    let none = Sites::none(&mut scratch);
                    let mut sites = Sites { slots, ..none };
                    self.forward(sequences, &mut sites, logits.data_mut());
                }),
                false => {
                    let mut scratch = Scratch::default();
                    let none = Sites::none(&mut scratch);
                    let hooks = &mut hooks[..];
                    let mut sites = Sites {
                        hooks,
                        slots,
                        ..none
                    };
                    self.forward(sequences, &mut sites, logits.data_mut());
                }
            }
            done(batch);
        } else {
            let stretches = (batch * pos)
                .div_ceil(stretch)
                .next_multiple_of(threads)
                .min(batch);
            let (layout, each) = if abreast {
                (Layout::Abreast, lanes::<T>())
            } else {
                (Layout::ROWS, batch.div_ceil(stretches))
            };
            let work = |scratch: &mut Scratch<T>, s: Piece<'_, T>| {
                let mut sites = Sites {
                    slots: s.slots,
                    turned: abreast,
                    ..Sites::none(scratch)
                };
                let sequences = Sequences::of(tokens, (s.first, s.count), None, layout);
                self.forward(sequences, &mut sites, &mut s.logits[..]);
                done(s.count);
            };
            let stretches = stretches_of(batch, each, &mut logits, &mut values);
            if self.worth(run.par, batch * pos) == Par::Rayon {
                stretches
                    .into_par_iter()
                    .for_each_init(Scratch::default, work);
            } else {
                let mut scratch = Scratch::default();
                stretches.into_iter().for_each(|s| work(&mut scratch, s));
            }
        }
        Ok(RunOutput {
            tokens: tokens.clone(),
            logits,
            cache: Cache::of(keep, stands_for, values),
        })
    }

    /// The logits of a batch, `[batch, pos, d_vocab_out]`.
    ///
    /// # Errors
    /// As [`Model::run`].
    pub fn logits(&self, tokens: &Tokens) -> Result<Tensor<T>> {
        Ok(self.run(tokens, Run::new())?.logits)
    }

    /// Over what the work of so many positions is split, if it may be over `par`.
    pub(super) fn worth(&self, par: Par, positions: usize) -> Par {
        match par.threads() > 1 && self.operations(positions) >= WORTH_A_THREAD {
            true => par,
            false => Par::Seq,
        }
    }

    /// About how many operations a forward pass over so many positions takes.
    fn operations(&self, positions: usize) -> usize {
        let c = &self.config;
        let attn = 4 * c.d_model * c.d_head * c.n_heads;
        let mlp = 2 * c.d_model * c.d_mlp().unwrap_or(0);
        let per_position = c.n_layers * (attn + mlp) + c.d_model * c.d_vocab_out;
        positions.saturating_mul(2 * per_position)
    }
}

/// One stretch of the batch: its sequences, and where its values go.
struct Piece<'r, T> {
    first: usize,
    count: usize,
    logits: &'r mut [T],
    slots: Vec<(Hook, &'r mut [T])>,
}

/// Splits a batch into stretches of `each` sequences, and the outputs with it.
fn stretches_of<'r, T: Scalar>(
    batch: usize,
    each: usize,
    logits: &'r mut Tensor<T>,
    values: &'r mut [(Hook, Tensor<T>)],
) -> Vec<Piece<'r, T>> {
    // A tensor may have no entries: the logits of a model without an unembedding.
    let split = |t: &'r mut Tensor<T>| {
        let unit = t.len() / batch;
        let mut rest = t.data_mut();
        move |count: usize| {
            let own = rest.split_off_mut(..count * unit);
            own.expect("as many entries as sequences")
        }
    };
    let mut logits = split(logits);
    let mut slots: Vec<_> = values.iter_mut().map(|(h, t)| (*h, split(t))).collect();
    (0..batch)
        .step_by(each)
        .map(|first| {
            let count = each.min(batch - first);
            let slots = slots.iter_mut();
            Piece {
                first,
                count,
                logits: logits(count),
                slots: slots.map(|(h, next)| (*h, next(count))).collect(),
            }
        })
        .collect()
}
