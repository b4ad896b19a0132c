//! One pass over the sequences: what each component writes where the answer is formed, how far the components' sum is
//! off the stream, and what the neurons and the last layer's heads do there.

use crate::decompose::{By, Component, residual_stack};
use crate::error::Result;
use crate::linalg::{Par, product};
use crate::metric::mean;
use crate::model::{Model, Run, Tokens};
use crate::names::{Head, Hook};
use crate::tensor::Tensor;
use faer::MatRef;
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
    /// Runs the model on all sequences, a stretch at a time.
    pub fn new(model: &Model<f64>, tokens: &Tokens, par: Par) -> Result<Self> {
        let c = model.config();
        let (batch, last) = (tokens.batch(), c.n_layers - 1);
        let neurons = c.d_mlp.expect("checked: there are MLPs");
        let two = || [(); 2].map(|()| Tensor::zeros(&[batch, c.d_model]));
        let mut written = Written {
            writers: Vec::new(),
            neurons: (0..c.n_layers)
                .map(|_| Tensor::zeros(&[batch, neurons]))
                .collect(),
            attention: Tensor::zeros(&[batch, c.n_heads, tokens.pos()]),
            off: 0.0,
        };
        let mut hooks = By::Head.hooks(c.n_layers, c.attn_only);
        hooks.extend((0..c.n_layers).map(Hook::Post));
        hooks.extend([Hook::Pattern(last), Hook::ResidPost(last)]);
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
                }
            }
            for s in 0..stretch.batch() {
                for (layer, to) in written.neurons.iter_mut().enumerate() {
                    let post = out.cache[Hook::Post(layer)].slice(&[s, TALLY]);
                    to.slice_mut(&[first + s]).copy_from_slice(post);
                }
                for head in 0..c.n_heads {
                    let row = out.cache[Hook::Pattern(last)].slice(&[s, head, ANSWER]);
                    written
                        .attention
                        .slice_mut(&[first + s, head])
                        .copy_from_slice(row);
                }
            }
        }
        Ok(written)
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
        let mut writers = self.writers.iter();
        let found = writers.find(|(writer, _)| *writer == Writer::Head(head));
        &found.expect("a head of the model").1[1]
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
