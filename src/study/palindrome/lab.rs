//! What every part of the study starts from: the processed model, its run on the dataset, and its heads in order.

use super::Data;
use crate::decompose::summary;
use crate::error::{Error, Result};
use crate::intervene::{Change, Each, Grid, Scope, Site, Sweep, SweepResult};
use crate::linalg::Par;
use crate::metric::{Answers, Metric, Standard, per_sequence};
use crate::model::process::Processing;
use crate::model::{Model, Run, RunOutput, Tokens};
use crate::names::{Head, Hook};
use crate::study::circuit::circuit;
use crate::task::{Labelled, Palindromes, Task};
use crate::tensor::Tensor;
use std::ops::Range;

/// The class of palindromes, and of all other sequences.
pub const PALINDROME: usize = 1;
/// The class of all other sequences.
pub const OTHER: usize = 0;

/// The processed model, its run on the dataset, and what is often asked of them.
pub(super) struct Lab<'a> {
    pub model: Model<f64>,
    pub task: Palindromes,
    pub data: &'a Data,
    /// The dataset's run, with every scale, the patterns, and layer 1's queries.
    pub out: RunOutput<f64>,
    pub par: Par,
}

impl<'a> Lab<'a> {
    pub fn new(model: &Model<f64>, data: &'a Data, par: Par) -> Result<Self> {
        let task = Palindromes::default();
        check(model, &task)?;
        let classes = data.dataset.sequences.answers.classes().unwrap_or_default();
        if ![OTHER, PALINDROME].iter().all(|c| classes.contains(c)) {
            return Err(Error::TooFew {
                found: 1,
                least: 2,
                message: "the dataset is all of one class, expected palindromes and others".into(),
            });
        }
        let mut model = model.clone();
        for step in Processing::DEFAULT {
            step.apply(&mut model)?;
        }
        let run = Run::new().par(par).cache("*.hook_scale");
        let run = run.cache("*.hook_pattern").cache(Hook::Q(1));
        let out = model.run(&data.dataset.sequences.tokens, run)?;
        Ok(Lab {
            model,
            task,
            data,
            out,
            par,
        })
    }

    /// Positions of a sequence.
    pub fn positions(&self) -> usize {
        self.task.positions()
    }

    /// Where the answer is read.
    pub fn end(&self) -> usize {
        self.positions() - 1
    }

    /// The positions of the second half's values, which have seen their mirrors.
    pub fn second_half(&self) -> Range<usize> {
        self.positions() / 2..self.end()
    }

    /// The sequences' classes.
    pub fn classes(&self) -> &[usize] {
        let classes = self.data.dataset.sequences.answers.classes();
        classes.expect("labelled sequences have classes")
    }

    /// The circuit of an expression, on the weights.
    pub fn circuit(&self, text: &str) -> Result<Tensor<f64>> {
        circuit(&self.model, text)
    }

    /// A metric's mean over the dataset, after a change of each part of a site in turn.
    pub fn sweep(
        &self,
        site: Site,
        by: &[Each],
        scope: &Scope,
        change: &Change,
        metric: Standard,
    ) -> Result<SweepResult> {
        self.sweep_on(
            &self.data.dataset.sequences,
            site,
            by,
            scope,
            change,
            metric,
        )
    }

    /// The same over other sequences.
    pub fn sweep_on(
        &self,
        data: &Labelled,
        site: Site,
        by: &[Each],
        scope: &Scope,
        change: &Change,
        metric: Standard,
    ) -> Result<SweepResult> {
        let grid = Grid::new(
            self.model.config(),
            self.positions(),
            site,
            by,
            scope,
            change,
        )?;
        let sweep = Sweep::new(&self.model, &data.tokens, &data.answers, &metric);
        sweep.par(self.par).run(&grid)
    }

    /// The mean scale of a norm at a position, over the sequences.
    pub fn mean_scale(&self, hook: Hook, position: usize) -> f64 {
        mean(self.scales(hook, position))
    }

    /// The scales of a norm at a position, of every sequence.
    pub fn scales(&self, hook: Hook, position: usize) -> Vec<f64> {
        let scale = &self.out.cache[hook];
        (0..self.out.tokens.batch())
            .map(|s| scale[[s, position, 0]])
            .collect()
    }

    /// The probability of a palindrome that the model gives each sequence.
    pub fn p_palindrome(&self, tokens: &Tokens) -> Result<Vec<f64>> {
        let answers = Answers::at(tokens.batch(), &[self.end()]);
        self.per_sequence(tokens, &answers, &Standard::Probability(PALINDROME))
    }

    /// A metric of every sequence.
    pub fn per_sequence(
        &self,
        tokens: &Tokens,
        answers: &Answers,
        metric: &dyn Metric,
    ) -> Result<Vec<f64>> {
        let logits = self.model.run(tokens, Run::new().par(self.par))?.logits;
        Ok(per_sequence(metric, answers, &answers.rows_of(&logits)))
    }

    /// The positions of the second half whose values are not their mirrors'.
    pub fn broken(&self, sequence: &[i64]) -> Vec<usize> {
        let pairs = self.task.broken_pairs(sequence).into_iter();
        let mut broken: Vec<usize> = pairs.map(|p| self.task.mirror(p)).collect();
        broken.sort_unstable();
        broken
    }

    /// All heads of a layer.
    pub fn heads(&self, layer: usize) -> impl Iterator<Item = Head> + use<> {
        (0..self.model.config().n_heads).map(move |head| Head { layer, head })
    }
}

/// Whether a model is one of this task that the write-ups' mechanism could be in.
fn check(model: &Model<f64>, task: &Palindromes) -> Result<()> {
    let c = model.config();
    task.check_model(c)?;
    let config = |field, reason: String| Err(Error::Config { field, reason });
    if c.n_ctx != task.positions() {
        let reason = format!("{}, expected {} for this study", c.n_ctx, task.positions());
        return config("n_ctx", reason);
    }
    if c.n_layers != 2 {
        return config(
            "n_layers",
            format!("{}, expected 2 for this study", c.n_layers),
        );
    }
    if c.n_heads < 2 {
        return config(
            "n_heads",
            format!("{}, expected 2 or more for this study", c.n_heads),
        );
    }
    if c.mlp.is_some() {
        return config("attn_only", "false, expected true for this study".into());
    }
    if c.norm.is_none() {
        return config(
            "normalization_type",
            "none, expected LN for this study".into(),
        );
    }
    Ok(())
}

/// The mean; NaN where there are no values.
pub(super) fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.into_iter().collect();
    summary(&values).map_or(f64::NAN, |s| s.mean)
}
