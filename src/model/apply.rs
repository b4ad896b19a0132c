//! Operations on values at the same rows, whichever these are: all but embeddings and attention.

use super::Model;
use crate::diagram::{Op, Value};
use crate::error::{Error, Result};
use crate::names::Hook;
use crate::op::{self, Layout, Place, Scratch, Turns};
use crate::tensor::{Scalar, Tensor};

impl<T: Scalar> Model<T> {
    /// What an operation makes of the same rows of the values that it reads, `[batch, positions, …]`, at these places.
    ///
    /// # Panics
    /// When it looks at other rows too.
    #[track_caller]
    pub(crate) fn apply(
        &self,
        op: Op,
        reads: Vec<Tensor<T>>,
        places: &dyn Fn() -> Vec<Place>,
        layout: Layout,
        scratch: &mut Scratch<T>,
    ) -> Tensor<T> {
        let mut reads = reads.into_iter();
        let mut x = reads.next().expect("it reads something");
        match op {
            Op::Same => x,
            Op::Sum => {
                for more in reads {
                    op::add(layout, &mut x, &more);
                    scratch.give(more);
                }
                x
            }
            Op::Norm(site) => {
                let rows = x.len() / self.config.norm_width(site);
                let mut scale = scratch.take(&[rows]);
                let mut out = scratch.take(x.shape());
                let eps = T::from_f64(self.config.eps);
                let map = self.norm_at(site).expect("a norm of this model");
                op::norm(layout, &x, eps, &map, &mut scale, &mut out);
                [x, scale].into_iter().for_each(|t| scratch.give(t));
                out
            }
            Op::Project(..)
            | Op::Gate(_)
            | Op::Neurons(_)
            | Op::WriteHeads(_)
            | Op::WriteNeurons(_)
            | Op::MlmHead => {
                let map = self.affine(op).expect("a linear map");
                let shape = [&x.shape()[..2], map.outputs()].concat();
                let mut out = scratch.take(&shape);
                op::linear(layout, x.data(), map, out.data_mut());
                scratch.give(x);
                out
            }
            Op::Rotate(l) => {
                let rotary = self.config.rotary_at(l).expect("rotary positions");
                Turns::new(rotary, places()).turn(layout, &mut x);
                x
            }
            Op::ActivateMlmHead => {
                let act_fn = self.config.mlm_head.expect("a model with this head");
                op::activate(layout, act_fn, &mut x);
                x
            }
            Op::Activate(l) => {
                let act_fn = self.config.act_fn().expect("a model with neurons");
                op::activate(layout, act_fn, &mut x);
                if let Some(gated) = reads.next() {
                    op::gate(layout, &mut x, &gated, self.weights.mlp(l).b_after());
                    scratch.give(gated);
                }
                x
            }
            Op::Embed | Op::PosEmbed | Op::TokenTypeEmbed | Op::Attend(_) | Op::Unembed => {
                unreachable!("{op:?} looks at other rows, or gives no value")
            }
        }
    }

    /// A hook's value, which is made of another alone, from a value of that one's own.
    ///
    /// # Panics
    /// When anything else goes into it.
    #[track_caller]
    pub(crate) fn made_of(&self, from: (Hook, &Tensor<T>), to: Hook) -> Tensor<T> {
        let number = |hook| self.diagram.value(hook).expect("a hook of this model");
        let mut scratch = Scratch::default();
        self.made_of_value((number(from.0), from.1), number(to), &mut scratch)
    }

    fn made_of_value(
        &self,
        from: (Value, &Tensor<T>),
        to: Value,
        scratch: &mut Scratch<T>,
    ) -> Tensor<T> {
        if to == from.0 {
            return from.1.clone();
        }
        let step = &self.diagram.steps[self.diagram.made_by(to)];
        let reads = step.reads.iter();
        let reads = reads.map(|&(value, _)| self.made_of_value(from, value, scratch));
        let reads = reads.collect();
        let length = from.1.shape()[1];
        let places = || {
            (0..length)
                .map(|position| Place { position, length })
                .collect()
        };
        self.apply(step.op, reads, &places, Layout::ROWS, scratch)
    }

    /// The logits that the model's own end makes of rows of a stream, wherever these come from: through its last norm, at
    /// each row's own scale; through the dense layer and the norm of a masked language model; through the unembedding and
    /// the cap on logits. Of the rows of [`Config::end_of_stream`](super::Config::end_of_stream) they are the model's logits.
    ///
    /// # Shapes
    /// `[…, d_model]` to `[…, d_vocab_out]`.
    ///
    /// # Errors
    /// When the rows are not of the stream's width.
    pub fn logits_of_stream(&self, stream: &Tensor<T>) -> Result<Tensor<T>> {
        let c = &self.config;
        let mut shape = stream.shape().to_vec();
        if shape.last() != Some(&c.d_model) {
            return Err(Error::Mismatch(format!(
                "a stream of shape {shape:?}, expected rows of {} (d_model)",
                c.d_model
            )));
        }
        let rows = stream.len() / c.d_model;
        let mut x = Tensor::from_vec(&[1, rows, c.d_model], stream.data().to_vec());
        let end = self.diagram.value(c.end_of_stream());
        let end = self.diagram.made_by(end.expect("every stream has an end"));
        let mut scratch = Scratch::default();
        *shape.last_mut().expect("an axis of rows") = c.d_vocab_out;
        let mut logits = Tensor::zeros(&shape);
        for step in &self.diagram.steps[end + 1..] {
            match self.affine(step.op).filter(|_| step.op == Op::Unembed) {
                None => {
                    // No step from the stream's end on asks where a row stands.
                    let nowhere = Vec::new;
                    x = self.apply(step.op, vec![x], &nowhere, Layout::ROWS, &mut scratch);
                }
                Some(map) => {
                    let map = (map, self.logit_cap());
                    op::unembed(Layout::ROWS, &x, map, &mut scratch, logits.data_mut());
                }
            }
        }
        Ok(logits)
    }

    /// What the heads of layer `l` write of `z`: `[batch, pos, head, d_model]`.
    pub(crate) fn head_results(&self, l: usize, z: &Tensor<T>) -> Tensor<T> {
        let mut shape = z.shape().to_vec();
        shape[3] = self.config.d_model;
        let mut out = Tensor::zeros(&shape);
        op::head_results(
            Layout::ROWS.par(),
            z,
            &self.weights.blocks[l].attn.W_O,
            &mut out,
        );
        out
    }
}
