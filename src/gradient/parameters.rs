//! The derivative of a metric by every parameter.

use super::backward::Backward;
use super::sink::Sink;
use crate::error::Result;
use crate::linalg::Par;
use crate::metric::{self, Answers, Metric};
use crate::model::{Config, Model, STRETCH, Sequences, Tape, Tokens, Weights};
use crate::op::{Layout, Rules};
use crate::tensor::{Scalar, add_assign, lanes};
use rayon::prelude::*;
use std::ops::Range;

/// The most parts that a batch is split into, each with sums of its own; but for a few sequences that are left over.
///
/// Their number depends on the batch alone, so that the sums do not depend on the number of threads.
const MAX_PARTS: usize = 8;

/// The derivative of a metric's mean over the answers by every parameter: the sums, and the memory that they are made
/// in, for one batch after the other.
///
/// The result depends on nothing but model, tokens and answers: not on the number of threads.
///
/// ```
/// use pathsum::gradient::ParameterGradient;
/// use pathsum::metric::{Answers, Standard, mean};
/// use pathsum::{Par, Tokens, fixture};
///
/// let model = fixture::induction::<f64>();
/// let mut gradient = ParameterGradient::new(model.config());
/// let tokens = Tokens::from_rows(&[[7, 3, 9, 7]]);
/// let loss = gradient.compute(&model, &tokens, &Standard::Loss, &Answers::new(&[3], vec![3]), Par::Seq)?;
/// assert!(mean(&loss) < 1e-3);
/// assert_eq!(gradient.weights().len(), model.weights().len());
/// # Ok::<(), pathsum::Error>(())
/// ```
pub struct ParameterGradient<T: Scalar> {
    parts: Vec<Part<T>>,
}

/// A part of the batch.
struct Part<T: Scalar> {
    tape: Tape<T>,
    gradient: Weights<T>,
    values: Result<Vec<f64>>,
}

impl<T: Scalar> ParameterGradient<T> {
    /// Memory for a model's gradients, which are zero.
    pub fn new(config: &Config) -> Self {
        ParameterGradient {
            parts: vec![Part::new(config)],
        }
    }

    /// The derivatives that were computed last.
    pub fn weights(&self) -> &Weights<T> {
        &self.parts[0].gradient
    }

    /// As [`ParameterGradient::weights`], to be changed.
    pub fn weights_mut(&mut self) -> &mut Weights<T> {
        &mut self.parts[0].gradient
    }

    /// Computes the derivatives, and gives the metric of every sequence: the mean over its answers.
    ///
    /// # Errors
    /// When the tokens or answers do not fit the model, or the metric has no gradient.
    pub fn compute(
        &mut self,
        model: &Model<T>,
        tokens: &Tokens,
        metric: &dyn Metric,
        answers: &Answers,
        par: Par,
    ) -> Result<Vec<f64>> {
        let c = model.config();
        tokens.check(c)?;
        answers.check(c, tokens)?;
        metric.check(answers, c.d_vocab_out)?;
        let batch = tokens.batch();
        let shares = shares::<T>(c, tokens);
        while self.parts.len() < shares.len() {
            self.parts.push(Part::new(c));
        }
        let work = |(part, (own, layout)): (&mut Part<T>, (Range<usize>, Layout))| {
            part.values = part.compute(model, tokens, metric, answers, own, layout);
        };
        let parts = &mut self.parts[..shares.len()];
        match par {
            Par::Seq => parts.iter_mut().zip(shares).for_each(work),
            Par::Rayon => parts.par_iter_mut().zip(shares).for_each(work),
        }
        let mut values = Vec::with_capacity(batch);
        let (first, others) = parts.split_at_mut(1);
        let mut sums = first[0].gradient.tensors_mut();
        for part in others.iter() {
            for ((_, sum), (_, d)) in sums.iter_mut().zip(part.gradient.tensors()) {
                add_assign(sum.data_mut(), d.data());
            }
        }
        for part in parts {
            values.extend(std::mem::replace(&mut part.values, Ok(Vec::new()))?);
        }
        Ok(values)
    }
}

/// Which sequences each part has, and how their values lie.
fn shares<T: Scalar>(config: &Config, tokens: &Tokens) -> Vec<(Range<usize>, Layout)> {
    let (batch, pos) = (tokens.batch(), tokens.pos());
    let cut = |whole: Range<usize>, each: usize, layout: Layout| {
        let end = whole.end;
        let starts = whole.step_by(each.max(1));
        starts.map(move |first| (first..(first + each).min(end), layout))
    };
    if batch == 0 {
        return vec![(0..0, Layout::ROWS)];
    }
    if tokens.attention_mask().is_some() || !Layout::abreast_pays::<T>(config, (batch, pos), &[]) {
        let parts = (batch * pos).div_ceil(STRETCH).clamp(1, MAX_PARTS);
        let all = cut(0..batch, batch.div_ceil(parts), Layout::ROWS);
        return all.collect();
    }
    // Few sequences that are left over are not worth a vector's lanes.
    let lanes = lanes::<T>();
    let rest = match batch % lanes {
        rest if 2 * rest <= lanes => rest,
        _ => 0,
    };
    let groups = (batch - rest).div_ceil(lanes);
    let each = groups.div_ceil(MAX_PARTS) * lanes;
    let all = cut(0..batch - rest, each, Layout::Abreast);
    all.chain(cut(batch - rest..batch, rest, Layout::ROWS))
        .collect()
}

impl<T: Scalar> Part<T> {
    fn new(config: &Config) -> Self {
        Part {
            tape: Tape::default(),
            gradient: Weights::zeros(config),
            values: Ok(Vec::new()),
        }
    }

    /// The sums of some sequences, stretch by stretch.
    fn compute(
        &mut self,
        model: &Model<T>,
        tokens: &Tokens,
        metric: &dyn Metric,
        answers: &Answers,
        sequences: Range<usize>,
        layout: Layout,
    ) -> Result<Vec<f64>> {
        for (_, d) in self.gradient.tensors_mut() {
            d.data_mut().fill(T::ZERO);
        }
        let pos = tokens.pos();
        let share = 1.0 / (tokens.batch() * answers.positions().len()) as f64;
        let diagram = &model.diagram;
        let needed = diagram.needed_back(&diagram.reached_back(|_| false, true), true);
        let each = match layout {
            Layout::Abreast => lanes::<T>(),
            Layout::Rows(_) => {
                // Of one layer all but keys and values is at the positions read alone: its products are as large as those of
                // several layers only with more sequences.
                let own = match model.config().n_layers {
                    1 => answers.positions().len().min(pos),
                    _ => pos,
                };
                // The nearest number: a few positions more are no reason for stretches of half the size.
                let stretches = ((sequences.len() * own + STRETCH / 2) / STRETCH).max(1);
                sequences.len().div_ceil(stretches).max(1)
            }
        };
        let mut all = Vec::with_capacity(sequences.len());
        for first in sequences.clone().step_by(each) {
            let count = each.min(sequences.end - first);
            let own = Sequences::of(tokens, (first, count), Some(answers.positions()), layout);
            let tape = &mut self.tape;
            tape.record(model, own, &needed, None);
            let (values, d_logits) =
                metric::values_and_gradient(metric, answers, first, tape.logits(), share)?;
            all.extend(values);
            let mut sink = Sink {
                slots: Vec::new(),
                weights: Some(&mut self.gradient),
            };
            let scratch = std::mem::take(&mut tape.scratch);
            let plain = (&[][..], Rules::Derivatives);
            let pass = Backward::new(model, own, tape, scratch, &mut sink, plain);
            tape.scratch = pass.run(d_logits);
        }
        Ok(all)
    }
}
