//! Sweeps: a metric after each cell's interventions.

use super::change::{Change, Intervention, Prepared};
use super::downstream;
use super::grid::Grid;
use super::means::{self, Means};
use super::part::Selection;
use super::result::SweepResult;
use super::run::intervene;
use crate::error::Result;
use crate::linalg::Par;
use crate::metric::{Answers, Metric, mean, per_sequence, values};
use crate::model::{Cache, Model, Run, Tokens};
use crate::names::Hook;
use crate::op::Scratch;
use crate::resume::{Clean, POSITIONS, Resume, Stretch};
use crate::tensor::Scalar;
use rayon::prelude::*;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A metric to be read after each of many interventions, one at a time.
///
/// The clean run is made once. A cell whose changes are all of one hook goes on from there, and recomputes
/// only what lies downstream and somebody reads; other cells are run from the tokens on.
///
/// ```
/// use pathsum::intervene::{Each, Change, Grid, Over, Scope, Site, Sweep};
/// use pathsum::metric::{Answers, Standard};
/// use pathsum::{Tokens, fixture};
///
/// let model = fixture::induction::<f64>();
/// let tokens = fixture::repeated_sequences(32, 4, 0);
/// // After the second half's first token comes what came after it before.
/// let answers = Answers::next_tokens(&tokens, &[4, 5, 6])?;
/// let change = Change::Mean(Over::Sequences);
/// let grid = Grid::new(model.config(), tokens.pos(), Site::Result, &[Each::Head], &Scope::default(), &change)?;
/// let result = Sweep::new(&model, &tokens, &answers, &Standard::Accuracy).run(&grid)?;
/// assert_eq!(result.clean, 1.0);
/// assert!(result.values.iter().all(|v| v.unwrap() < 0.5), "both heads are needed: {result:?}");
/// # Ok::<(), pathsum::Error>(())
/// ```
pub struct Sweep<'a, T: Scalar> {
    model: &'a Model<T>,
    tokens: &'a Tokens,
    answers: &'a Answers,
    metric: &'a dyn Metric,
    source: Option<&'a Cache<T>>,
    shard: (usize, usize),
    par: Par,
    progress: Option<&'a (dyn Fn(usize, usize) + Sync)>,
}

/// What a sweep keeps of the clean run, and which of its cells are run on together.
#[derive(Default)]
struct Kept {
    /// What its cells go on from.
    needed: Vec<Hook>,
    /// What its changes look at of the whole batch.
    looked_at: Vec<Hook>,
    /// The first layer with a change that may leave out pads.
    first_layer: Option<usize>,
    /// Cells of one hook, changed at the same positions: weights are read once for all of them.
    groups: Vec<Vec<usize>>,
}

/// Cells that are run on together: all changes are of one hook, and every cell's at the same positions.
struct Group<'a, T: Scalar> {
    hook: Hook,
    cells: Vec<Vec<Prepared<'a, T>>>,
}

/// How much memory the clean run's values may take, in bytes; with longer batches it is made piece by piece.
const MEMORY: usize = 1 << 30;

impl<'a, T: Scalar> Sweep<'a, T> {
    /// A sweep over a batch.
    pub fn new(
        model: &'a Model<T>,
        tokens: &'a Tokens,
        answers: &'a Answers,
        metric: &'a dyn Metric,
    ) -> Self {
        Sweep {
            model,
            tokens,
            answers,
            metric,
            source: None,
            shard: (0, 1),
            par: Par::default(),
            progress: None,
        }
    }

    /// The run that [`Change::Patch`] takes its values from.
    pub fn source(mut self, cache: &'a Cache<T>) -> Self {
        self.source = Some(cache);
        self
    }

    /// The `i`-th of `n` parts of the cells only: see [`SweepResult::merge`].
    ///
    /// Cells that are run on together are all in one part, so that every part computes the same to the bit.
    ///
    /// # Panics
    /// Unless `i < n`.
    #[track_caller]
    pub fn shard(mut self, i: usize, n: usize) -> Self {
        assert!(i < n, "shard {i} of {n}");
        self.shard = (i, n);
        self
    }

    /// Whether to split the work over threads; over the current rayon pool unless said otherwise.
    pub fn par(mut self, par: Par) -> Self {
        self.par = par;
        self
    }

    /// Called with the number of cells that have just been done, and with how many this shard has.
    pub fn progress(mut self, f: &'a (dyn Fn(usize, usize) + Sync)) -> Self {
        self.progress = Some(f);
        self
    }

    /// The metric's mean over the sequences, for each cell of this shard.
    ///
    /// # Errors
    /// When the batch has no such answers, the metric cannot be read off them, or an intervention does not
    /// fit the model or the batch.
    ///
    /// # Cost
    /// One run for all cells, and for each cell a run from the layer changed on; from a changed position of the
    /// last layers on, a small part of that.
    pub fn run(&self, grid: &Grid) -> Result<SweepResult> {
        let (clean, cells) = self.per_sequence(grid)?;
        Ok(SweepResult {
            metric: self.metric.name(),
            axes: grid.axes().to_vec(),
            clean: mean(&clean),
            values: cells
                .iter()
                .map(|cell| cell.as_ref().map(|v| mean(v)))
                .collect(),
        })
    }

    /// The metric of every sequence: of the clean run, and for each cell of this shard.
    ///
    /// # Errors
    /// As [`Sweep::run`].
    #[allow(clippy::type_complexity)]
    pub fn per_sequence(&self, grid: &Grid) -> Result<(Vec<f64>, Vec<Option<Vec<f64>>>)> {
        let config = self.model.config();
        self.tokens.check(config)?;
        self.answers.check(config, self.tokens)?;
        self.metric.check(self.answers, config.d_vocab_out)?;
        let (batch, pos) = (self.tokens.batch(), self.tokens.pos());
        for intervention in grid.cells().iter().flatten() {
            intervention.check(self.model, batch, pos, self.source)?;
        }
        let (resumed, whole): (Vec<usize>, Vec<usize>) =
            (0..grid.cells().len()).partition(|&i| resumes(&grid.cells()[i]));
        // Which values the clean run keeps can change its roundings: it keeps what every shard's needs.
        let kept = self.kept(grid, &resumed)?;
        let (i, n) = self.shard;
        let groups: Vec<&[usize]> = (kept.groups.iter().skip(i).step_by(n))
            .map(|group| &group[..])
            .collect();

        let whole: Vec<usize> = whole.into_iter().skip(i).step_by(n).collect();
        let of = groups.iter().map(|group| group.len()).sum::<usize>() + whole.len();
        let done = |n: usize| self.progress.iter().for_each(|f| f(n, of));

        let mut cells = vec![None; grid.cells().len()];
        let (clean, found) = self.resumed(grid, &groups, &kept, &done)?;
        for (&i, values) in groups.into_iter().flatten().zip(found) {
            cells[i] = Some(values);
        }
        for i in whole {
            let run = intervene(
                Run::new().par(self.par),
                self.model,
                self.tokens,
                &grid.cells()[i],
                self.source,
            )?;
            let logits = self
                .answers
                .rows_of(&self.model.run(self.tokens, run)?.logits);
            cells[i] = Some(per_sequence(self.metric, self.answers, &logits));
            done(1);
        }
        Ok((clean, cells))
    }

    /// The values of the clean run that these cells need, those of the whole batch that their changes look at, and which
    /// cells are run on together.
    fn kept(&self, grid: &Grid, cells: &[usize]) -> Result<Kept> {
        let config = self.model.config();
        let (batch, pos) = (self.tokens.batch(), self.tokens.pos());
        let mut kept = Kept::default();
        let mut alike: HashMap<(Hook, Vec<usize>), Vec<usize>> = HashMap::new();
        // A longer batch fills a run on by itself.
        let together = (POSITIONS / (batch * pos).max(1)).max(1);
        for &i in cells {
            let cell = &grid.cells()[i][..];
            let mut positions = Vec::new();
            for intervention in cell {
                let selection = intervention.check(self.model, batch, pos, self.source)?;
                positions.extend_from_slice(selection.positions());
                kept.looked_at.extend(looks_at(intervention));
            }
            positions.sort_unstable();
            positions.dedup();
            let hook = cell[0].hook;
            let layer = hook.layer().filter(|_| !downstream::may_show_pads(hook));
            kept.first_layer = [kept.first_layer, layer].into_iter().flatten().min();
            kept.needed.extend(downstream::needed(
                self.model,
                cell,
                &positions,
                self.answers.positions(),
                pos,
            ));
            let group = alike.entry((hook, positions)).or_default();
            group.push(i);
            if group.len() == together {
                kept.groups.push(std::mem::take(group));
            }
        }
        kept.groups
            .extend(alike.into_values().filter(|group| !group.is_empty()));
        kept.groups.sort_unstable();
        let stretches_from = kept.first_layer.filter(|_| config.pad_token.is_some());
        kept.needed.extend(stretches_from.map(Hook::ResidPre));
        for hooks in [&mut kept.needed, &mut kept.looked_at] {
            hooks.sort_unstable_by_key(Hook::to_string);
            hooks.dedup();
        }
        Ok(kept)
    }

    /// The clean run's metric, and that of every cell of these groups, whose changes are each of one hook.
    fn resumed(
        &self,
        grid: &Grid,
        groups: &[&[usize]],
        kept: &Kept,
        done: &(dyn Fn(usize) + Sync),
    ) -> Result<(Vec<f64>, Vec<Vec<f64>>)> {
        let config = self.model.config();
        let (batch, pos) = (self.tokens.batch(), self.tokens.pos());
        let Kept {
            needed, looked_at, ..
        } = kept;
        let cells = groups.iter().copied().flatten();
        let cells: Vec<&[Intervention]> = cells.map(|&i| &grid.cells()[i][..]).collect();
        let checked: Vec<Selection> = (cells.iter().copied().flatten())
            .map(|intervention| intervention.check(self.model, batch, pos, self.source))
            .collect::<Result<_>>()?;
        let keep = |hooks: &[Hook]| {
            let all = self
                .model
                .diagram
                .hooks()
                .into_iter()
                .filter(|h| hooks.contains(h));
            all.fold(Run::new().par(self.par), |run, hook| run.cache(hook))
        };
        let bytes = |hook: &Hook| {
            config.hook_shape(*hook, 1, pos).iter().product::<usize>() * size_of::<T>()
        };
        let each: usize = needed.iter().map(bytes).sum();
        let piece = (MEMORY / each.max(1)).clamp(1, batch.max(1));

        // What changes look at of the whole batch, when the batch is run in pieces.
        let apart = match piece < batch && !looked_at.is_empty() {
            true => Some(self.model.run(self.tokens, keep(looked_at))?),
            false => None,
        };
        let (mut clean, mut found) = (
            Vec::with_capacity(batch),
            vec![Vec::with_capacity(batch); cells.len()],
        );
        for first in (0..batch).step_by(piece) {
            let tokens = self.tokens.slice(first, piece.min(batch - first));
            let answers = self.answers.slice(first, tokens.batch());
            let run = self.model.run(&tokens, keep(needed))?;
            let logits = answers.rows_of(&run.logits);
            clean.extend(values(
                self.metric,
                self.answers,
                first..first + tokens.batch(),
                logits.data(),
                config.d_vocab_out,
            ));
            let whole = apart.as_ref().map_or(&run.cache, |run| &run.cache);
            let means = Means::of(self.model, whole, cells.iter().copied().flatten(), self.par);
            let mut selections = checked.iter();
            let mut prepare = |i: &Intervention| {
                let selection = selections.next().expect("one for each").clone();
                let mean = |over| Cow::Borrowed(means.get(i.hook, over));
                let arriving = || Cow::Borrowed(&whole[i.hook]);
                Prepared::new(i, selection, mean, arriving, self.source)
            };
            let prepared: Vec<Group<'_, T>> = groups
                .iter()
                .map(|group| {
                    let cells = group.iter().map(|&i| &grid.cells()[i]);
                    Group {
                        hook: grid.cells()[group[0]][0].hook,
                        cells: cells
                            .map(|cell| cell.iter().map(&mut prepare).collect())
                            .collect(),
                    }
                })
                .collect();
            let piece = Clean {
                model: self.model,
                tokens: &tokens,
                cache: &run.cache,
                answers: self.answers.positions(),
                logits: &logits,
            };
            let stretches = piece.stretches(kept.first_layer, self.par);
            let values = self.piece(&prepared, &piece, &stretches, first, done);
            found
                .iter_mut()
                .zip(values)
                .for_each(|(to, of)| to.extend(of));
        }
        Ok((clean, found))
    }

    /// Every cell's metric for the sequences of one piece of the batch, which begins at `first`.
    fn piece(
        &self,
        groups: &[Group<'_, T>],
        clean: &Clean<'_, T>,
        stretches: &[Stretch],
        first: usize,
        done: &(dyn Fn(usize) + Sync),
    ) -> Vec<Vec<f64>> {
        let (batch, pos) = (clean.tokens.batch(), clean.tokens.pos());
        let left: Vec<AtomicUsize> = groups
            .iter()
            .map(|_| AtomicUsize::new(stretches.len()))
            .collect();
        let d_vocab_out = self.model.config().d_vocab_out;
        let of_batch = |stretch: &Stretch| -> Vec<usize> {
            stretch.sequences.iter().map(|s| first + s).collect()
        };
        let work = |scratch: &mut Scratch<T>, task: usize| {
            let (group, stretch) = (task / stretches.len(), &stretches[task % stretches.len()]);
            let Group { hook, cells } = &groups[group];
            let mut logits_of = |cells: &[Vec<Prepared<'_, T>>], stretch: &Stretch| {
                let resume = Resume::new(clean, &stretch.times(cells.len()), scratch);
                downstream::logits(resume, *hook, cells, &of_batch(stretch))
            };
            let leaves_out = !downstream::may_show_pads(*hook);
            let found = leaves_out.then(|| logits_of(cells, stretch)).flatten();
            let logits = found.unwrap_or_else(|| {
                let whole = stretch.whole(pos);
                let pieces = (cells.chunks(1))
                    .flat_map(|cell| whole.iter().map(move |stretch| (cell, stretch)));
                let of = |(cell, stretch)| logits_of(cell, stretch).expect("nothing is left out");
                pieces.flat_map(of).collect()
            });
            let sequences = of_batch(&stretch.times(cells.len())).into_iter();
            let values = values(self.metric, self.answers, sequences, &logits, d_vocab_out);
            if left[group].fetch_sub(1, Ordering::Relaxed) == 1
                && first + batch == self.tokens.batch()
            {
                done(cells.len());
            }
            values
        };
        let tasks = 0..groups.len() * stretches.len();
        let values: Vec<Vec<f64>> = match self.par {
            Par::Rayon => tasks
                .into_par_iter()
                .map_init(Scratch::default, work)
                .collect(),
            Par::Seq => {
                let mut scratch = Scratch::default();
                tasks.map(|task| work(&mut scratch, task)).collect()
            }
        };
        let mut values = values.into_iter();
        let mut found = Vec::new();
        for group in groups {
            let mut own = vec![vec![0.0; batch]; group.cells.len()];
            for (stretch, values) in stretches.iter().zip(&mut values) {
                let each = values.chunks_exact(stretch.sequences.len());
                for (to, values) in own.iter_mut().zip(each) {
                    let to_sequence = stretch.sequences.iter().zip(values);
                    to_sequence.for_each(|(&sequence, &value)| to[sequence] = value);
                }
            }
            found.extend(own);
        }
        found
    }
}

/// Whether a run can go on from these changes.
fn resumes(cell: &[Intervention]) -> bool {
    let hook = cell.first().map(|i| i.hook);
    hook.is_some_and(|hook| downstream::resumes_from(hook) && cell.iter().all(|i| i.hook == hook))
}

/// The value of the whole batch that a change looks at, before it is made on any sequence.
fn looks_at(intervention: &Intervention) -> Option<Hook> {
    match intervention.change {
        Change::Resample { .. } => Some(intervention.hook),
        _ => means::looks_at(intervention).map(|_| means::read(intervention.hook)),
    }
}
