//! The backward pass: the diagram, read from its end.

use super::sink::Sink;
use crate::diagram::{Op, Step, Value};
use crate::kernel::abreast;
use crate::model::{Model, Sequences, Tape};
use crate::names::{Hook, NormSite};
use crate::op::{self, Attention, AttentionBack, Layout, Rules, Scratch, Turns};
use crate::tensor::{Scalar, Tensor, add_assign};
use std::sync::Arc;

/// One stretch's backward pass.
pub(super) struct Backward<'a, 's, T: Scalar> {
    model: &'a Model<T>,
    sequences: Sequences<'a>,
    /// The forward pass.
    tape: &'a Tape<T>,
    sink: &'a mut Sink<'s, T>,
    scratch: Scratch<T>,
    pads: Option<Vec<bool>>,
    /// The derivatives so far by the values that have been read since. What is one for several values is there once.
    derivatives: Vec<Option<Arc<Tensor<T>>>>,
    /// The values whose derivatives anyone wants, or that they are made of.
    reached: Vec<bool>,
    /// Values whose derivatives go no further back.
    cut: &'a [Hook],
    rules: Rules,
}

impl<'a, 's, T: Scalar> Backward<'a, 's, T> {
    pub fn new(
        model: &'a Model<T>,
        sequences: Sequences<'a>,
        tape: &'a Tape<T>,
        scratch: Scratch<T>,
        sink: &'a mut Sink<'s, T>,
        (cut, rules): (&'a [Hook], Rules),
    ) -> Self {
        let diagram = &model.diagram;
        let reached = diagram.reached_back(|hook| sink.wants(hook), sink.weights.is_some());
        Backward {
            model,
            sequences,
            tape,
            scratch,
            pads: sequences.pads(model.config().pad_token),
            derivatives: diagram.values.iter().map(|_| None).collect(),
            reached,
            sink,
            cut,
            rules,
        }
    }

    /// From the derivative by the logits that are read, `[batch, read, d_vocab_out]`, in the order of the axes. Gives
    /// the memory back.
    pub fn run(mut self, mut d_logits: Tensor<T>) -> Scratch<T> {
        let model = self.model;
        if let Some(cap) = model.logit_cap() {
            op::capped_back(self.tape.logits().data(), cap, d_logits.data_mut());
        }
        let mut d_logits = Some(self.laid_out(d_logits));
        for step in model.diagram.steps.iter().rev() {
            let d_out = match step.op {
                Op::Unembed => d_logits.take().map(Arc::new),
                _ => {
                    let value = *step.gives.last().expect("it gives a value");
                    let d_out = self.derivatives[value].take();
                    d_out.inspect(|d| self.visit(value, d))
                }
            };
            let last = step.gives.last().map(|&value| model.diagram.values[value]);
            let cut = last.is_some_and(|hook| self.cut.contains(&hook));
            let wanted = step.goes_back(&self.reached) || self.sink.weights.is_some();
            if let (Some(d_out), true) = (d_out, wanted && !cut) {
                self.step(step, d_out);
            }
        }
        self.scratch
    }

    fn step(&mut self, step: &Step, d_out: Arc<Tensor<T>>) {
        let layout = self.sequences.layout;
        match step.op {
            Op::Embed => {
                if let Some(d) = &mut self.sink.weights {
                    let tokens = self
                        .sequences
                        .tokens_at(self.model.diagram.narrow[step.gives[0]]);
                    op::embed_back(layout, &d_out, &tokens, &mut d.W_E);
                }
                self.free(d_out);
            }
            Op::PosEmbed => self.pos_embed_back(step, d_out),
            Op::TokenTypeEmbed => {
                if let Some(d) = &mut self.sink.weights {
                    let types = self
                        .sequences
                        .types_at(self.model.diagram.narrow[step.gives[0]]);
                    op::embed_back(layout, &d_out, &types, &mut d.W_token_type);
                }
                self.free(d_out);
            }
            Op::Sum | Op::Same => {
                for &(value, _) in &step.reads {
                    self.share(step, value, &d_out);
                }
                self.free(d_out);
            }
            Op::Norm(site) => self.norm_back(site, step, &d_out),
            Op::Project(..)
            | Op::Gate(_)
            | Op::Neurons(_)
            | Op::WriteNeurons(_)
            | Op::MlmHead
            | Op::Unembed => {
                self.linear_back(step, &d_out);
                self.free(d_out);
            }
            Op::Rotate(l) => {
                let narrow = self.model.diagram.narrow[step.gives[0]];
                let rotary = self.model.config().rotary_at(l);
                let rotary = rotary.expect("a model with rotary positions");
                let turns = Turns::new(rotary, self.sequences.places(narrow));
                let mut d = self.own(d_out);
                turns.turn_back(layout, &mut d);
                self.add(step, step.reads[0].0, d);
            }
            Op::Attend(l) => self.attend_back(l, step, d_out),
            Op::WriteHeads(_) => {
                self.visit_results(step, &d_out);
                self.linear_back(step, &d_out);
                self.free(d_out);
            }
            Op::Activate(l) => self.activate_back(l, step, d_out),
            Op::ActivateMlmHead => {
                let value = step.reads[0].0;
                let pre = self.tape.value(self.model.diagram.values[value]);
                let act_fn = self
                    .model
                    .config()
                    .mlm_head
                    .expect("a model with this head");
                let mut d = self.own(d_out);
                op::activate_back(self.rules, act_fn, pre.data(), d.data_mut(), pre.shape()[2]);
                self.add(step, value, d);
            }
        }
    }

    fn pos_embed_back(&mut self, step: &Step, d_out: Arc<Tensor<T>>) {
        if let Some(d) = &mut self.sink.weights {
            let layout = self.sequences.layout;
            let d_model = d.W_pos.shape()[1];
            let narrow = self.model.diagram.narrow[step.gives[0]];
            if self.sequences.attended.is_some() {
                let places = self.sequences.places(narrow);
                let ids: Vec<i64> = places.iter().map(|p| p.position as i64).collect();
                op::embed_back(layout, &d_out, &ids, &mut d.W_pos);
                return self.free(d_out);
            }
            let at = self.sequences.positions(narrow);
            let mut rows = self.scratch.take(&[at.len(), d_model]);
            rows.data_mut().fill(T::ZERO);
            op::spread_back(layout, d_out.data(), rows.data_mut());
            for (row, &p) in rows.data().chunks_exact(d_model).zip(at.iter()) {
                add_assign(d.W_pos.slice_mut(&[p]), row);
            }
            self.scratch.give(rows);
        }
        self.free(d_out);
    }

    /// `y = x W + b`: `d_x += d_y Wᵀ`, `d_W += xᵀ d_y`, `d_b += Σ d_y`.
    fn linear_back(&mut self, step: &Step, d_out: &Tensor<T>) {
        let (layout, value) = (self.sequences.layout, step.reads[0].0);
        if self.sink.weights.is_some() {
            let x = self.tape.value(self.model.diagram.values[value]);
            let own = self.rows_read(step, value, x);
            let d = self
                .sink
                .weights
                .as_mut()
                .and_then(|w| w.affine_mut(step.op));
            let (d_W, d_b, axes) = d.expect("a linear map");
            let d_in = d_W.shape()[..axes].iter().product();
            let x = own.as_ref().unwrap_or(x);
            op::parameters_back(layout, x.data(), d_out.data(), d_W, d_b, d_in);
            own.into_iter().for_each(|t| self.scratch.give(t));
        }
        if !self.reached[value] {
            return;
        }
        let W = self.model.affine(step.op).expect("a linear map").W;
        let scattered = self.widens(step, value);
        match self.derivatives[value].take() {
            Some(before) if !scattered => {
                let mut sum = self.own(before);
                op::add_linear_back(layout, d_out, W, &mut sum, &mut self.scratch);
                self.derivatives[value] = Some(Arc::new(sum));
            }
            before => {
                self.derivatives[value] = before;
                let mut shape = d_out.shape()[..2].to_vec();
                shape.extend(&self.shape(value)[2..]);
                let mut d_x = self.scratch.take(&shape);
                op::linear_back(layout, d_out, W, &mut d_x);
                self.add(step, value, d_x);
            }
        }
    }

    fn norm_back(&mut self, site: NormSite, step: &Step, d_out: &Arc<Tensor<T>>) {
        let value = step.reads[0].0;
        let layout = self.sequences.layout;
        let x = self.tape.value(self.model.diagram.values[value]);
        let scale = self.tape.value(Hook::Scale(site));
        let own = self.rows_read(step, value, x);
        let x = own.as_ref().unwrap_or(x);
        let scattered = self.widens(step, value);
        let mut d_x = match self.derivatives[value].take() {
            Some(before) if !scattered => self.own(before),
            before => {
                self.derivatives[value] = before;
                self.zeros(x.shape())
            }
        };
        let map = self.model.norm_at(site).expect("a norm of this model");
        let mut d_scale = self.scratch.take(scale.shape());
        let d_norm = self
            .sink
            .weights
            .as_mut()
            .and_then(|w| w.norms.get_mut(&site));
        // Where there is no `b`, its derivative goes nowhere.
        let mut nowhere = Vec::new();
        let d_affine = d_norm.map(|n| {
            let d_b = match &mut n.b {
                Some(b) => b.data_mut(),
                None => {
                    nowhere.resize(n.w.len(), T::ZERO);
                    &mut nowhere
                }
            };
            (n.w.data_mut(), d_b)
        });
        let of = (x, scale, &map);
        op::norm_back(
            layout,
            self.rules,
            of,
            d_out,
            &mut d_x,
            &mut d_scale,
            d_affine,
        );
        self.visit(step.gives[0], &d_scale);
        self.scratch.give(d_scale);
        own.into_iter().for_each(|t| self.scratch.give(t));
        match scattered {
            true => self.add(step, value, d_x),
            false => self.derivatives[value] = Some(Arc::new(d_x)),
        }
    }

    fn activate_back(&mut self, l: usize, step: &Step, d_out: Arc<Tensor<T>>) {
        let layout = self.sequences.layout;
        let config = self.model.config();
        let act_fn = config.act_fn().expect("a model with neurons");
        let of = |i: usize| self.tape.value(self.model.diagram.values[step.reads[i].0]);
        let (pre, value) = (of(0), step.reads[0].0);
        if step.reads.len() == 1 {
            let mut d = self.own(d_out);
            let d_mlp = pre.shape()[2];
            op::activate_back(self.rules, act_fn, pre.data(), d.data_mut(), d_mlp);
            return self.add(step, value, d);
        }
        let gated = of(1);
        let d_b = self
            .sink
            .weights
            .as_mut()
            .and_then(|w| w.blocks[l].mlp.as_mut());
        if let Some(mlp) = d_b.filter(|mlp| mlp.b_after().is_some()) {
            op::spread_back(layout, d_out.data(), mlp.b_in.data_mut());
        }
        let mut d = self.own(d_out);
        let mut d_gated = self.scratch.take(gated.shape());
        op::gate_back(
            layout,
            self.rules,
            act_fn,
            [pre, gated],
            &mut d,
            &mut d_gated,
        );
        self.add(step, value, d);
        self.add(step, step.reads[1].0, d_gated);
    }

    /// From the derivative by `z` of the queries that there are to those by queries, keys and values.
    fn attend_back(&mut self, l: usize, step: &Step, d_z: Arc<Tensor<T>>) {
        let (model, tape, layout) = (self.model, self.tape, self.sequences.layout);
        let of = |i: usize| tape.value(model.diagram.values[step.reads[i].0]);
        let [q, k, v] = [0, 1, 2].map(of);
        let pattern = tape.value(Hook::Pattern(l));
        let queries = self
            .sequences
            .positions(model.diagram.narrow[step.gives[2]]);
        let pads = self.pads.take();
        let attention = Attention {
            queries: &queries,
            q,
            k,
            v,
            scoring: model.scoring(l),
            masks: model.masks(l, pads.as_deref(), self.sequences.attended),
        };
        let [mut d_q, mut d_k, mut d_v] = [q, k, v].map(|x| self.scratch.take(x.shape()));
        let squares = [step.gives[1], step.gives[0]];
        let mut wanted = squares.map(|value| {
            let wants = self.sink.wants(model.diagram.values[value]);
            wants.then(|| self.scratch.take(pattern.shape()))
        });
        let [d_pattern, d_scores] = wanted.each_mut().map(Option::as_mut);
        let to = AttentionBack {
            d_q: &mut d_q,
            d_k: &mut d_k,
            d_v: &mut d_v,
            d_pattern,
            d_scores,
        };
        let scores = attention
            .scoring
            .cap
            .map(|_| tape.value(Hook::AttnScores(l)));
        let met = (pattern, scores);
        attention.back(layout, self.rules, met, &d_z, to, &mut self.scratch);
        self.pads = pads;
        self.free(d_z);
        for (value, d) in squares.into_iter().zip(wanted) {
            let Some(d) = d else { continue };
            self.visit(value, &d);
            self.scratch.give(d);
        }
        for (&(value, _), d) in step.reads.iter().zip([d_q, d_k, d_v]) {
            self.add(step, value, d);
        }
    }

    /// Each head's result has the derivative of their sum.
    fn visit_results(&mut self, step: &Step, d_out: &Tensor<T>) {
        let hook = self.model.diagram.values[step.gives[0]];
        if !self.sink.wants(hook) {
            return;
        }
        let rows = self.in_order(d_out);
        let d_out = rows.as_ref().unwrap_or(d_out);
        let &[batch, n, d] = d_out.shape() else {
            unreachable!("a stream is [batch, pos, d]")
        };
        let heads = self.model.config().n_heads;
        let mut results = self.scratch.take(&[batch, n, heads, d]);
        let of_heads = results.data_mut().chunks_exact_mut(heads * d);
        for (heads, row) in of_heads.zip(d_out.data().chunks_exact(d)) {
            let heads = heads.chunks_exact_mut(d);
            heads.for_each(|head| head.copy_from_slice(row));
        }
        let at = self.at(step.gives[0]);
        self.sink.visit(hook, &results, at, self.sequences.pos);
        let used = [Some(results), rows].into_iter().flatten();
        used.for_each(|t| self.scratch.give(t));
    }

    /// Shows a value's derivative to those who want it.
    fn visit(&mut self, value: Value, d: &Tensor<T>) {
        let hook = self.model.diagram.values[value];
        if !self.sink.wants(hook) {
            return;
        }
        let rows = self.in_order(d);
        let d = rows.as_ref().unwrap_or(d);
        self.sink.visit(hook, d, self.at(value), self.sequences.pos);
        rows.into_iter().for_each(|t| self.scratch.give(t));
    }

    /// The positions at which a value is there, where not all are.
    fn at(&self, value: Value) -> Option<&'a [usize]> {
        (self.sequences.read).filter(|_| self.model.diagram.narrow[value])
    }

    /// Whether a step reads a value at some positions only.
    fn widens(&self, step: &Step, value: Value) -> bool {
        let narrow = &self.model.diagram.narrow;
        let own = step.gives.iter().all(|&to| narrow[to]);
        let place = step.reads.iter().position(|&(v, _)| v == value);
        let mixes = place.is_some_and(|i| step.op.mixes(i));
        self.sequences.read.is_some() && own && !narrow[value] && !mixes
    }

    /// The rows of a value of the forward pass that a step reads, where it does not read all.
    fn rows_read(&mut self, step: &Step, value: Value, x: &Tensor<T>) -> Option<Tensor<T>> {
        let read = self.sequences.read.filter(|_| self.widens(step, value))?;
        Some(op::gather_positions(
            self.sequences.layout,
            x,
            read,
            &mut self.scratch,
        ))
    }

    /// Adds to the derivative by a value that a step reads.
    fn add(&mut self, step: &Step, value: Value, d: Tensor<T>) {
        let d = match self.widens(step, value) {
            false => d,
            true => {
                let read = self.sequences.read.expect("some positions are read");
                let mut all = match self.derivatives[value].take() {
                    Some(before) => self.own(before),
                    None => self.zeros(&self.shape(value)),
                };
                op::scatter_positions(self.sequences.layout, &d, read, &mut all);
                self.scratch.give(d);
                self.derivatives[value] = Some(Arc::new(all));
                return;
            }
        };
        let sum = match self.derivatives[value].take() {
            None => d,
            Some(before) => {
                let mut sum = self.own(before);
                add_assign(sum.data_mut(), d.data());
                self.scratch.give(d);
                sum
            }
        };
        self.derivatives[value] = Some(Arc::new(sum));
    }

    /// Adds the same derivative to that by a value which a sum reads: where it is the first, it is the same.
    fn share(&mut self, step: &Step, value: Value, d: &Arc<Tensor<T>>) {
        if !self.reached[value] {
            return;
        }
        if self.derivatives[value].is_none() && !self.widens(step, value) {
            self.derivatives[value] = Some(Arc::clone(d));
            return;
        }
        let mut copy = self.scratch.take(d.shape());
        copy.data_mut().copy_from_slice(d.data());
        self.add(step, value, copy);
    }

    /// A derivative to be changed: a copy where it is another value's too.
    fn own(&mut self, d: Arc<Tensor<T>>) -> Tensor<T> {
        Arc::try_unwrap(d).unwrap_or_else(|shared| {
            let mut copy = self.scratch.take(shared.shape());
            copy.data_mut().copy_from_slice(shared.data());
            copy
        })
    }

    /// Memory that nobody else reads.
    fn free(&mut self, d: Arc<Tensor<T>>) {
        if let Some(d) = Arc::into_inner(d) {
            self.scratch.give(d);
        }
    }

    /// The shape of a value's derivative.
    fn shape(&self, value: Value) -> Vec<usize> {
        let (s, hook) = (self.sequences, self.model.diagram.values[value]);
        let batch = s.layout.batch::<T>(s.count());
        let mut shape = self.model.config().hook_shape(hook, batch, s.pos);
        if let Some(at) = self.at(value) {
            shape[hook.position_axis()] = at.len();
        }
        shape
    }

    fn zeros(&mut self, shape: &[usize]) -> Tensor<T> {
        let mut t = self.scratch.take(shape);
        t.data_mut().fill(T::ZERO);
        t
    }

    /// A value of these sequences, as their values lie in memory; zero where a lane has no sequence.
    fn laid_out(&mut self, value: Tensor<T>) -> Tensor<T> {
        match self.sequences.layout {
            Layout::Rows(_) => value,
            Layout::Abreast => {
                let mut shape = value.shape().to_vec();
                shape[0] = self.sequences.layout.batch::<T>(shape[0]);
                let mut out = self.scratch.take(&shape);
                abreast::from_rows(value.data(), shape[0], out.data_mut());
                out
            }
        }
    }

    /// A value that lies abreast, in the order of the axes, without the sequences that are there again.
    fn in_order(&mut self, value: &Tensor<T>) -> Option<Tensor<T>> {
        let (layout, count) = (self.sequences.layout, self.sequences.count());
        op::in_order(layout, value, count, &mut self.scratch)
    }
}

#[cfg(test)]
mod tests {
    use crate::gradient::{ParameterGradient, hook_gradients};
    use crate::linalg::Par;
    use crate::metric::{Answers, Standard};
    use crate::model::{Config, Model, Tokens, Weights};
    use crate::op::Layout;
    use crate::tensor::{Scalar, Tensor, lanes};

    /// Every kind of model that goes abreast, on batches that do not fill the lanes, beside the same sequences one by
    /// one, which go by rows.
    #[test]
    fn derivatives_are_those_of_single_sequences() {
        fn check<T: Scalar>(json: &str, pads: Option<usize>, read: &[usize]) {
            let mut config = Config::from_json(json).unwrap();
            config.pad_token = pads;
            let wave = |shape: &[usize]| {
                let sum = |at: &[usize]| at.iter().fold(0, |sum, i| 7 * sum + i) as f64;
                Tensor::from_fn(shape, |at| T::from_f64(sum(at).sin()))
            };
            let weights = Weights::build(&config, |_, shape| Ok(wave(shape))).unwrap();
            let model = Model::new(config, weights).unwrap();
            let c = model.config();
            let mut gradient = ParameterGradient::new(c);
            for batch in [lanes::<T>(), lanes::<T>() + 1, 9 * lanes::<T>() - 1] {
                let tokens = Tokens::random(c, batch, 5);
                assert!(
                    Layout::abreast_pays::<T>(c, (batch, tokens.pos()), &[]) || lanes::<T>() < 4
                );
                let classes: Vec<usize> =
                    (0..batch * read.len()).map(|i| i % c.d_vocab_out).collect();
                let answers = Answers::new(read, classes);
                // A bound for numbers of this size: each layer's sums have a hundred terms at the most, of size 30
                // at the most.
                let bound = |size: f64| 1e4 * T::EPSILON.to_f64() * size.max(1.0);
                let by_hooks = |tokens: &Tokens, answers: &Answers| {
                    hook_gradients(&model, tokens, &Standard::Loss, answers, &["*"], Par::Seq)
                };
                let together = by_hooks(&tokens, &answers).unwrap();
                let mut sums: Vec<Vec<f64>> = Vec::new();
                let mut losses = Vec::new();
                for i in 0..batch {
                    let (one, own) = (tokens.slice(i, 1), answers.slice(i, 1));
                    let loss = gradient.compute(&model, &one, &Standard::Loss, &own, Par::Seq);
                    losses.extend(loss.unwrap());
                    for (hook, alone) in by_hooks(&one, &own).unwrap().gradients.iter() {
                        let bound = bound(alone.max_abs().to_f64());
                        for (a, b) in together.gradients[hook]
                            .slice(&[i])
                            .iter()
                            .zip(alone.data())
                        {
                            let (a, b) = (a.to_f64() * batch as f64, b.to_f64());
                            assert!(
                                (a - b).abs() <= bound,
                                "{json} {pads:?} {read:?} {hook}: {a} {b}"
                            );
                        }
                    }
                    for (at, (_, d)) in gradient.weights().tensors().into_iter().enumerate() {
                        if i == 0 {
                            sums.push(vec![0.0; d.len()]);
                        }
                        let values = sums[at].iter_mut().zip(d.data());
                        values.for_each(|(sum, d)| *sum += d.to_f64() / batch as f64);
                    }
                }
                let found = gradient
                    .compute(&model, &tokens, &Standard::Loss, &answers, Par::Rayon)
                    .unwrap();
                for (a, b) in found.iter().zip(&losses) {
                    assert!((a - b).abs() <= bound(b.abs()), "{json} {batch}: {a} {b}");
                }
                let largest = |d: &[f64]| d.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
                let all = sums.iter().map(|d| largest(d)).fold(0.0, f64::max);
                for ((name, d), sum) in gradient.weights().tensors().into_iter().zip(&sums) {
                    for (a, b) in d.data().iter().zip(sum) {
                        assert!(
                            (a.to_f64() - b).abs() <= bound(all),
                            "{json} {pads:?} {read:?} {batch} {name}: {a} {b}"
                        );
                    }
                }
            }
        }
        let rest = r#""n_ctx": 7, "d_vocab": 9, "d_vocab_out": 5"#;
        let with = |more: &str| format!("{{{rest}, {more}}}");
        let attention =
            r#""n_layers": 2, "d_model": 12, "d_head": 5, "n_heads": 3, "attn_only": true"#;
        let mlp = r#""n_layers": 1, "d_model": 7, "d_head": 14, "n_heads": 1, "d_mlp": 18, "act_fn": "gelu_new""#;
        let bidirectional = r#""attention_dir": "bidirectional""#;
        for (more, pads) in [
            (attention.to_string(), None),
            (attention.to_string(), Some(2)),
            (format!("{attention}, {bidirectional}"), None),
            (format!("{mlp}, {bidirectional}"), Some(2)),
            (format!(r#"{mlp}, "normalization_type": null"#), None),
            (format!(r#"{mlp}, "normalization_type": "LNPre""#), None),
        ] {
            for read in [&[6][..], &[5, 0, 5], &[0, 1, 2, 3, 4, 5, 6]] {
                check::<f32>(&with(&more), pads, read);
                check::<f64>(&with(&more), pads, read);
            }
        }
    }
}
