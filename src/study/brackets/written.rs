//! One pass over the sequences: what each component writes where the answer is formed and where the count is negative,
//! how far the components' sum is off the stream, and what the neurons and the last layer's heads do.

use super::data::Data;
use crate::decompose::{By, Component, residual_stack};
use crate::error::Result;
use crate::linalg::{Par, product};
use crate::metric::mean;
use crate::model::{Model, Run};
use crate::names::{Head, Hook};
use crate::task::Brackets;
use crate::tensor::Tensor;
use faer::{Mat, MatRef};
use serde::Serialize;

/// The positions that the classifier's story is about: the answer is read at the first, and what is counted over the
/// whole sequence comes together at the second.
pub(super) const ANSWER: usize = 0;
/// See [`ANSWER`].
pub(super) const TALLY: usize = 1;

/// Sequences of one stretch: their components at all positions are in memory together.
const STRETCH: usize = 128;

/// A component of the stream along a direction.
#[derive(Clone, Debug, Serialize)]
pub struct Along {
    /// `embeddings`, `head 2.0` or `mlp 1`.
    pub component: String,
    /// For each sequence, less the mean over the balanced ones.
    pub values: Vec<f64>,
    /// The mean over unbalanced sequences.
    pub difference: f64,
}

/// What was kept of the pass.
pub(super) struct Written {
    /// Each writer's output at [`ANSWER`] and at [`TALLY`], `[batch, d_model]`.
    writers: Vec<(Writer, [Tensor<f64>; 2])>,
    /// Each layer's neurons at [`TALLY`], `[batch, d_mlp]`.
    pub neurons: Vec<Tensor<f64>>,
    /// The last layer's attention from [`ANSWER`], `[batch, head, key]`.
    pub attention: Tensor<f64>,
    /// What the last layer's values are worth along the unbalanced direction through `W_O`, `[batch, head, key]`.
    pub worth: Tensor<f64>,
    /// Each writer's mean output over the brackets from which on more open than close, less that over the others.
    at_negative: Vec<(Writer, Vec<f64>)>,
    /// The largest entry of the components' sum less the stream after the last layer.
    pub off: f64,
}

/// What writes to the stream, as the write-up counts: the two embeddings are one, and the biases of attention none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    Embeddings,
    Head(Head),
    Mlp(usize),
}

impl Writer {
    fn of(component: Component) -> Option<Writer> {
        match component {
            Component::Embed | Component::PosEmbed => Some(Writer::Embeddings),
            Component::Head(head) => Some(Writer::Head(head)),
            Component::MlpOut(layer) => Some(Writer::Mlp(layer)),
            _ => None,
        }
    }

    /// Whether it writes before the attention of a layer.
    fn before(self, layer: usize) -> bool {
        match self {
            Writer::Embeddings => true,
            Writer::Head(head) => head.layer < layer,
            Writer::Mlp(own) => own < layer,
        }
    }

    fn name(self) -> String {
        match self {
            Writer::Embeddings => "embeddings".into(),
            Writer::Head(head) => format!("head {head}"),
            Writer::Mlp(layer) => format!("mlp {layer}"),
        }
    }
}

impl Written {
    /// Runs the model on all sequences, a stretch at a time. `unbalanced` is the direction before the last norm.
    pub fn new(model: &Model<f64>, data: &Data, unbalanced: &[f64], par: Par) -> Result<Self> {
        let (c, tokens) = (model.config(), &data.tokens);
        let (batch, last) = (tokens.batch(), c.n_layers - 1);
        let neurons = c.d_mlp().expect("checked: there are MLPs");
        let two = || [(); 2].map(|()| Tensor::zeros(&[batch, c.d_model]));
        let mut written = Written {
            writers: Vec::new(),
            neurons: (0..c.n_layers)
                .map(|_| Tensor::zeros(&[batch, neurons]))
                .collect(),
            attention: Tensor::zeros(&[batch, c.n_heads, tokens.pos()]),
            worth: Tensor::zeros(&[batch, c.n_heads, tokens.pos()]),
            at_negative: Vec::new(),
            off: 0.0,
        };
        let mut sides = Sides::default();
        let mut hooks = By::Head.hooks(c);
        hooks.extend((0..c.n_layers).map(Hook::Post));
        hooks.extend([Hook::Pattern(last), Hook::V(last), Hook::ResidPost(last)]);
        let direction = MatRef::from_column_major_slice(unbalanced, unbalanced.len(), 1);
        let read = |head| product(model.weights().W_O(Head { layer: last, head }), direction);
        let read: Vec<Mat<f64>> = (0..c.n_heads).map(read).collect();
        for first in (0..batch).step_by(STRETCH) {
            let stretch = tokens.slice(first, STRETCH.min(batch - first));
            let run = hooks
                .iter()
                .fold(Run::new().par(par), |run, hook| run.cache(hook));
            let out = model.run(&stretch, run)?;
            let stack = residual_stack(model, &out.cache, Hook::ResidPost(last), By::Head)?;
            let stream = &out.cache[Hook::ResidPost(last)];
            for (sum, stream) in stack.sum().data().iter().zip(stream.data()) {
                written.off = written.off.max((sum - stream).abs());
            }
            for (i, &label) in stack.labels.iter().enumerate() {
                let Some(writer) = Writer::of(label) else {
                    continue;
                };
                if !written.writers.iter().any(|(w, _)| *w == writer) {
                    written.writers.push((writer, two()));
                }
                let there = written.writers.iter_mut().find(|(w, _)| *w == writer);
                let (_, places) = there.expect("it was put there");
                for s in 0..stretch.batch() {
                    for (place, position) in places.iter_mut().zip([ANSWER, TALLY]) {
                        let to = place.slice_mut(&[first + s]).iter_mut();
                        to.zip(stack.values.slice(&[i, s, position]))
                            .for_each(|(to, x)| *to += x);
                    }
                    if data.starts_open[first + s] {
                        let at = |p: usize| stack.values.slice(&[i, s, p]);
                        sides.add(writer, data, first + s, at);
                    }
                }
            }
            for s in 0..stretch.batch() {
                if data.starts_open[first + s] {
                    sides.count(data, first + s);
                }
                for (layer, to) in written.neurons.iter_mut().enumerate() {
                    let post = out.cache[Hook::Post(layer)].slice(&[s, TALLY]);
                    to.slice_mut(&[first + s]).copy_from_slice(post);
                }
                for (head, read) in read.iter().enumerate() {
                    let row = out.cache[Hook::Pattern(last)].slice(&[s, head, ANSWER]);
                    let to = written.attention.slice_mut(&[first + s, head]);
                    to.copy_from_slice(row);
                    let worth = product(out.cache[Hook::V(last)].head(s, head), read.as_ref());
                    let to = written.worth.slice_mut(&[first + s, head]).iter_mut();
                    to.zip(worth.col(0).iter()).for_each(|(to, x)| *to = *x);
                }
            }
        }
        written.at_negative = sides.differences();
        Ok(written)
    }

    /// Every component before the attention of `layer` along a direction: its mean over the brackets from which on more
    /// open than close, less that over the other brackets, in sequences that start with an opening bracket.
    pub fn along_at_negative(&self, direction: &[f64], layer: usize) -> Vec<(String, f64)> {
        let there = self.at_negative.iter().filter(|(w, _)| w.before(layer));
        let dot = |d: &[f64]| d.iter().zip(direction).map(|(x, y)| x * y).sum();
        there.map(|(writer, d)| (writer.name(), dot(d))).collect()
    }

    /// A head's mean output at [`ANSWER`] over some sequences.
    pub fn mean_answer_of(&self, head: Head, sequences: &[usize]) -> Vec<f64> {
        let wrote = &self.of(head)[0];
        let of = |d: usize| mean(&sequences.iter().map(|&s| wrote[[s, d]]).collect::<Vec<_>>());
        (0..wrote.shape()[1]).map(of).collect()
    }

    /// Every component before the attention of `layer` along a direction, at [`ANSWER`] or [`TALLY`].
    pub fn along(
        &self,
        position: usize,
        direction: &[f64],
        layer: usize,
        balanced: &[bool],
    ) -> Vec<Along> {
        let there = self
            .writers
            .iter()
            .filter(|(writer, _)| writer.before(layer));
        there
            .map(|(writer, places)| {
                let place = if position == ANSWER { 0 } else { 1 };
                let values = times(&places[place], direction);
                Along::new(writer.name(), values, balanced)
            })
            .collect()
    }

    /// What a head writes at [`TALLY`], `[batch, d_model]`.
    pub fn tally_of(&self, head: Head) -> &Tensor<f64> {
        &self.of(head)[1]
    }

    fn of(&self, head: Head) -> &[Tensor<f64>; 2] {
        let mut writers = self.writers.iter();
        let found = writers.find(|(writer, _)| *writer == Writer::Head(head));
        &found.expect("a head of the model").1
    }
}

/// What each writer writes at brackets, added up: at negative ones, and at the others.
#[derive(Default)]
struct Sides {
    brackets: [usize; 2],
    sums: Vec<(Writer, [Vec<f64>; 2])>,
}

impl Sides {
    /// The brackets of a sequence, each with its side.
    fn of(data: &Data, s: usize) -> impl Iterator<Item = (usize, usize)> {
        let elevation = Brackets::elevation(data.tokens.sequence(s));
        (1..data.lengths[s] - 1).map(move |p| (p, usize::from(elevation[p] >= 0)))
    }

    /// Counts the brackets of a sequence.
    fn count(&mut self, data: &Data, s: usize) {
        Sides::of(data, s).for_each(|(_, side)| self.brackets[side] += 1);
    }

    /// Adds a component of a writer at the brackets of a sequence.
    fn add<'a>(&mut self, writer: Writer, data: &Data, s: usize, at: impl Fn(usize) -> &'a [f64]) {
        if !self.sums.iter().any(|(w, _)| *w == writer) {
            let none = || vec![0.0; at(0).len()];
            self.sums.push((writer, [none(), none()]));
        }
        let found = self.sums.iter_mut().find(|(w, _)| *w == writer);
        let (_, sides) = found.expect("it was put there");
        for (p, side) in Sides::of(data, s) {
            let sum = sides[side].iter_mut();
            sum.zip(at(p)).for_each(|(to, x)| *to += x);
        }
    }

    /// The means of the first less those of the second.
    fn differences(self) -> Vec<(Writer, Vec<f64>)> {
        let [below, above] = self.brackets.map(|n| n as f64);
        let difference = |(x, y): (&f64, &f64)| x / below - y / above;
        let all = self.sums.iter();
        all.map(|(w, [x, y])| (*w, x.iter().zip(y).map(difference).collect()))
            .collect()
    }
}

impl Along {
    /// From what a component has along a direction for each sequence.
    fn new(component: String, mut values: Vec<f64>, balanced: &[bool]) -> Self {
        // From the first on, so that what is the same for all comes out as exactly 0.
        let first = values.first().copied().unwrap_or_default();
        values.iter_mut().for_each(|x| *x -= first);
        let centre = mean_where(&values, balanced, true);
        values.iter_mut().for_each(|x| *x -= centre);
        let difference = mean_where(&values, balanced, false);
        Along {
            component,
            values,
            difference,
        }
    }
}

/// The mean of the values whose flag is `which`.
pub(super) fn mean_where(values: &[f64], flags: &[bool], which: bool) -> f64 {
    let chosen = values.iter().zip(flags).filter(|(_, flag)| **flag == which);
    mean(&chosen.map(|(x, _)| *x).collect::<Vec<_>>())
}

/// Every row along a direction.
pub(super) fn times(rows: &Tensor<f64>, direction: &[f64]) -> Vec<f64> {
    let column = MatRef::from_column_major_slice(direction, direction.len(), 1);
    product(rows.rows(), column)
        .col(0)
        .iter()
        .copied()
        .collect()
}
