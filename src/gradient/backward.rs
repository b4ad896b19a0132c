//! The backward pass: the forward pass's diagram, read from its end.

use super::abreast;
use super::act::activation_back;
use super::attention::AttentionBack;
use super::norm::Site;
use super::ops::{
    add_linear_back, gather, heads_back, linear_back, parameters_back, scatter, sum_back,
};
use super::sink::Sink;
use crate::model::{
    self, AttentionDir, Config, Layout, Mlp, Model, Scratch, Sequences, Tape, side_by_side,
};
use crate::names::Hook;
use crate::tensor::{Scalar, Tensor, add_assign};
use pulp::Arch;

/// The values that the backward pass of the layers `from..` reads; and those that the derivatives by `parameters` are
/// made of, where these are wanted.
pub(super) fn needed(config: &Config, from: usize, parameters: bool) -> Vec<Hook> {
    let is = |hook: Hook| match hook {
        Hook::Embed | Hook::PosEmbed => config.n_layers == 0,
        Hook::LnFinalNormalized => parameters,
        Hook::Ln1Normalized(_) | Hook::Z(_) | Hook::Ln2Normalized(_) | Hook::Post(_)
            if !parameters =>
        {
            false
        }
        Hook::AttnScores(_)
        | Hook::Result(_)
        | Hook::AttnOut(_)
        | Hook::MlpLnNormalized(_)
        | Hook::MlpOut(_) => false,
        Hook::ResidPost(l) => l + 1 == config.n_layers,
        other => other.layer().is_none_or(|l| l >= from),
    };
    config.hooks().into_iter().filter(|&h| is(h)).collect()
}

/// One stretch's backward pass.
pub(super) struct Backward<'a, 's, T: Scalar> {
    pub model: &'a Model<T>,
    /// Past the last layer's keys and values there are no positions but those that are read.
    pub sequences: Sequences<'a>,
    /// The forward pass.
    pub tape: &'a Tape<T>,
    pub sink: &'a mut Sink<'s, T>,
    pub scratch: Scratch<T>,
}

impl<T: Scalar> Backward<'_, '_, T> {
    /// From the derivative by the logits that are read, `[batch, read, d_vocab_out]`, in the order of the axes. Gives
    /// the memory back.
    pub fn run(mut self, d_logits: Tensor<T>) -> Scratch<T> {
        let (c, w, tape) = (self.model.config(), self.model.weights(), self.tape);
        let layout = self.sequences.layout;
        let d_logits = self.laid_out(d_logits);
        let embedded;
        let end = match c.n_layers {
            0 => {
                embedded = self.embedded();
                &embedded
            }
            n => tape.value(Hook::ResidPost(n - 1)),
        };
        if let Some(d) = &mut self.sink.weights {
            let x = match c.normalization_type {
                Some(_) => tape.value(Site::Final.normalized()),
                None => end,
            };
            parameters_back(layout, x.data(), d_logits.data(), &mut d.W_U, &mut d.b_U);
        }
        let mut d_x = self.scratch.take(end.shape());
        linear_back(layout, &d_logits, &w.W_U, &mut d_x);
        let mut d_resid = self.zeros(end.shape());
        self.norm_back(Site::Final, end, d_x, &mut d_resid, true);
        if c.n_layers == 0 {
            d_resid = self.at_all_positions(d_resid);
        }

        for (l, block) in w.blocks.iter().enumerate().rev() {
            let last = l + 1 == c.n_layers;
            self.visit(Hook::ResidPost(l), &d_resid, last);
            if !self.sink.wants_before_the_end_of(l) {
                return self.scratch;
            }
            if let Some(mlp) = &block.mlp {
                self.mlp_back(l, mlp, &mut d_resid, last);
                self.visit(Hook::ResidMid(l), &d_resid, last);
            }
            d_resid = self.attention_back(l, d_resid, last);
        }
        self.visit(Hook::Embed, &d_resid, false);
        self.embed_back(d_resid);
        self.scratch
    }

    /// A value of these sequences, as their values lie in memory; zero where a lane has no sequence.
    fn laid_out(&mut self, value: Tensor<T>) -> Tensor<T> {
        let layout = self.sequences.layout;
        match layout {
            Layout::Rows(_) => value,
            Layout::Abreast => {
                let mut shape = value.shape().to_vec();
                shape[0] = layout.batch::<T>(shape[0]);
                let mut out = self.scratch.take(&shape);
                model::abreast::from_rows(value.data(), shape[0], out.data_mut());
                out
            }
        }
    }

    /// What a model without layers unembeds.
    fn embedded(&mut self) -> Tensor<T> {
        let mut resid = self.tape.value(Hook::Embed).clone();
        add_assign(resid.data_mut(), self.tape.value(Hook::PosEmbed).data());
        gather(
            self.sequences.layout,
            &resid,
            self.sequences.read,
            &mut self.scratch,
        )
    }

    fn embed_back(&mut self, d_resid: Tensor<T>) {
        let &[batch, pos, d_model] = d_resid.shape() else {
            unreachable!("a stream is [batch, pos, d]")
        };
        let Sequences { tokens, layout, .. } = self.sequences;
        if let Some(d) = &mut self.sink.weights {
            match layout {
                Layout::Rows(_) => {
                    for (&token, row) in tokens.iter().zip(d_resid.data().chunks_exact(d_model)) {
                        add_assign(d.W_E.slice_mut(&[token as usize]), row);
                    }
                }
                Layout::Abreast => {
                    let table = d.W_E.data_mut();
                    abreast::add_to_table(d_resid.data(), batch, tokens, pos, table);
                }
            }
            let positions = &mut d.W_pos.data_mut()[..pos * d_model];
            sum_back(layout, d_resid.data(), positions);
        }
        self.scratch.give(d_resid);
    }

    /// Adds what comes through the MLP to `d_resid`.
    fn mlp_back(&mut self, l: usize, mlp: &Mlp<T>, d_resid: &mut Tensor<T>, compact: bool) {
        let (c, tape, layout) = (self.model.config(), self.tape, self.sequences.layout);
        let act_fn = c
            .mlp_act()
            .expect("a config with MLPs names their function");
        let (resid, pre) = (tape.value(Hook::ResidMid(l)), tape.value(Hook::Pre(l)));
        let mut d = self.scratch.take(pre.shape());
        if let Some(d) = self.sink.mlp(l) {
            let post = tape.value(Hook::Post(l));
            let (d_W, d_b) = (&mut d.W_out, &mut d.b_out);
            parameters_back(layout, post.data(), d_resid.data(), d_W, d_b);
        }
        linear_back(layout, d_resid, &mlp.W_out, &mut d);
        self.visit(Hook::Post(l), &d, compact);
        if c.solu() {
            let mut d_mid = self.zeros(d.shape());
            let mid = tape.value(Hook::Mid(l));
            self.layer_norm_back(Site::Mlp(l), mid, &d, &mut d_mid, compact);
            self.visit(Hook::Mid(l), &d_mid, compact);
            self.scratch.give(std::mem::replace(&mut d, d_mid));
        }
        activation_back(act_fn, pre.data(), d.data_mut(), mlp.b_in.len());
        self.visit(Hook::Pre(l), &d, compact);

        if let Some(to) = self.sink.mlp(l) {
            let x = match c.normalization_type {
                Some(_) => tape.value(Site::Ln2(l).normalized()),
                None => resid,
            };
            parameters_back(layout, x.data(), d.data(), &mut to.W_in, &mut to.b_in);
        }
        let mut d_x = self.scratch.take(resid.shape());
        linear_back(layout, &d, &mlp.W_in, &mut d_x);
        self.scratch.give(d);
        self.norm_back(Site::Ln2(l), resid, d_x, d_resid, compact);
    }

    /// From the derivative by the stream past the heads to that before them, at all positions.
    fn attention_back(&mut self, l: usize, d_out: Tensor<T>, last: bool) -> Tensor<T> {
        let (c, tape) = (self.model.config(), self.tape);
        let Sequences { read, layout, .. } = self.sequences;
        let attn = &self.model.weights().blocks[l].attn;
        self.visit_results(l, &d_out, last);
        let k = tape.value(Hook::K(l));
        let &[batch, pos, heads, d_head] = k.shape() else {
            unreachable!("keys have four axes")
        };
        let n = d_out.shape()[1];
        if self.sink.weights.is_some() {
            let z = tape.value(Hook::Z(l));
            let d = &mut self.sink.attn(l).expect("just looked");
            parameters_back(layout, z.data(), d_out.data(), &mut d.W_O, &mut d.b_O);
        }
        let mut d_z = self.scratch.take(&[batch, n, heads, d_head]);
        linear_back(layout, &d_out, &attn.W_O, &mut d_z);
        self.visit(Hook::Z(l), &d_z, last);

        let mut d_q = self.scratch.take(&[batch, n, heads, d_head]);
        let mut d_k = self.scratch.take(k.shape());
        let mut d_v = self.scratch.take(k.shape());
        self.mix_back(l, &d_z, last, [&mut d_q, &mut d_k, &mut d_v]);
        self.scratch.give(d_z);
        self.visit(Hook::Q(l), &d_q, last);
        self.visit(Hook::K(l), &d_k, false);
        self.visit(Hook::V(l), &d_v, false);

        let resid = tape.value(Hook::ResidPre(l));
        if self.sink.weights.is_some() {
            let x = match c.normalization_type {
                Some(_) => tape.value(Site::Ln1(l).normalized()),
                None => resid,
            };
            let own = last.then(|| gather(layout, x, read, &mut self.scratch));
            let x_q = own.as_ref().unwrap_or(x);
            let d = self.sink.attn(l).expect("just looked");
            heads_back(layout, x_q.data(), d_q.data(), &mut d.W_Q, &mut d.b_Q);
            heads_back(layout, x.data(), d_k.data(), &mut d.W_K, &mut d.b_K);
            heads_back(layout, x.data(), d_v.data(), &mut d.W_V, &mut d.b_V);
            own.into_iter().for_each(|t| self.scratch.give(t));
        }
        let mut d_x = self.scratch.take(resid.shape());
        linear_back(layout, &d_k, &side_by_side(&attn.W_K), &mut d_x);
        let [W_V, W_Q] = [&attn.W_V, &attn.W_Q].map(side_by_side);
        add_linear_back(layout, &d_v, &W_V, &mut d_x, &mut self.scratch);
        if last {
            // There are fewer queries.
            let mut part = self.scratch.take(&[batch, n, c.d_model]);
            linear_back(layout, &d_q, &W_Q, &mut part);
            scatter(layout, &part, read, pos, d_x.data_mut());
            self.scratch.give(part);
        } else {
            add_linear_back(layout, &d_q, &W_Q, &mut d_x, &mut self.scratch);
        }
        [d_q, d_k, d_v]
            .into_iter()
            .for_each(|d| self.scratch.give(d));
        let mut d_resid = match last {
            true => self.at_all_positions(d_out),
            false => d_out,
        };
        self.norm_back(Site::Ln1(l), resid, d_x, &mut d_resid, false);
        d_resid
    }

    /// From the derivative by `z` of the queries that there are to those by queries, keys and values.
    fn mix_back(&mut self, l: usize, d_z: &Tensor<T>, last: bool, to: [&mut Tensor<T>; 3]) {
        let (c, tape) = (self.model.config(), self.tape);
        let Sequences {
            tokens,
            pos,
            read,
            layout,
        } = self.sequences;
        let [q, k, v] = [Hook::Q(l), Hook::K(l), Hook::V(l)].map(|hook| tape.value(hook));
        let pattern = tape.value(Hook::Pattern(l));
        let factor = T::ONE / T::from_f64(c.score_scale(l));
        let pads: Option<Vec<bool>> =
            (c.pad_token).map(|pad| tokens.iter().map(|&t| t == pad as i64).collect());
        match layout {
            Layout::Rows(_) => {
                let back = AttentionBack {
                    layer: l,
                    q,
                    k,
                    v,
                    pattern,
                    queries: last.then_some(read),
                    d_z,
                    factor,
                    pad_keys: pads.as_deref(),
                };
                back.run(to, self.sink);
            }
            Layout::Abreast => {
                let all: Vec<usize> = (0..pos).collect();
                let pad_keys = pads.map(|pads| model::abreast::pad_lanes(&pads, pos));
                let [d_q, d_k, d_v] = to;
                let queries = if last { read } else { &all };
                let room = abreast::AttentionBack::<T>::room(queries.len(), pos, d_z.shape()[0]);
                let mut work = self.scratch.take(&room);
                let squares = [Hook::Pattern(l), Hook::AttnScores(l)];
                let shape = [d_z.shape()[0], c.n_heads, queries.len(), pos];
                let mut wanted = squares.map(|hook| {
                    let wants = self.sink.wants(hook);
                    wants.then(|| self.scratch.take(&shape))
                });
                let [d_pattern, d_scores] =
                    wanted.each_mut().map(|d| d.as_mut().map(Tensor::data_mut));
                Arch::new().dispatch(abreast::AttentionBack {
                    heads: c.n_heads,
                    d_head: c.d_head,
                    queries,
                    q: q.data(),
                    d_z: d_z.data(),
                    d_q: d_q.data_mut(),
                    k: k.data(),
                    v: v.data(),
                    d_k: d_k.data_mut(),
                    d_v: d_v.data_mut(),
                    pattern: pattern.data(),
                    d_pattern,
                    d_scores,
                    factor,
                    // A key at the pad token has a score even where the causal mask hides it.
                    causal: c.attention_dir == AttentionDir::Causal && pad_keys.is_none(),
                    pad_keys: pad_keys.as_deref(),
                    work: work.data_mut(),
                });
                self.scratch.give(work);
                for (hook, value) in squares.into_iter().zip(wanted) {
                    let Some(value) = value else { continue };
                    let rows = self.in_order(&value).expect("they lie abreast");
                    // Each head's rows as a sequence's.
                    let shape = [rows.len() / (queries.len() * pos), queries.len(), pos];
                    let rows = rows.reshape(&shape);
                    self.sink.visit(hook, &rows, last.then_some(read), pos);
                    [value, rows].into_iter().for_each(|t| self.scratch.give(t));
                }
            }
        }
    }

    /// Each head's result has the derivative of their sum.
    fn visit_results(&mut self, l: usize, d_out: &Tensor<T>, last: bool) {
        let (c, sequences) = (self.model.config(), self.sequences);
        if !self.sink.wants(Hook::Result(l)) {
            return;
        }
        let rows = self.in_order(d_out);
        let d_out = rows.as_ref().unwrap_or(d_out);
        let &[batch, n, d] = d_out.shape() else {
            unreachable!("a stream is [batch, pos, d]")
        };
        let mut results = self.scratch.take(&[batch, n, c.n_heads, d]);
        let of_heads = results.data_mut().chunks_exact_mut(c.n_heads * d);
        for (heads, row) in of_heads.zip(d_out.data().chunks_exact(d)) {
            let heads = heads.chunks_exact_mut(d);
            heads.for_each(|head| head.copy_from_slice(row));
        }
        let at = last.then_some(sequences.read);
        self.sink
            .visit(Hook::Result(l), &results, at, sequences.pos);
        let used = [Some(results), rows].into_iter().flatten();
        used.for_each(|t| self.scratch.give(t));
    }

    /// Shows a hook's derivative; `compact` where only the positions read are there.
    pub(super) fn visit(&mut self, hook: Hook, value: &Tensor<T>, compact: bool) {
        if !self.sink.wants(hook) {
            return;
        }
        let at = compact.then_some(self.sequences.read);
        let rows = self.in_order(value);
        let value = rows.as_ref().unwrap_or(value);
        self.sink.visit(hook, value, at, self.sequences.pos);
        rows.into_iter().for_each(|t| self.scratch.give(t));
    }

    /// A value that lies abreast, in the order of the axes, without the sequences that are there again.
    fn in_order(&mut self, value: &Tensor<T>) -> Option<Tensor<T>> {
        let Sequences {
            tokens,
            pos,
            layout,
            ..
        } = self.sequences;
        match layout {
            Layout::Rows(_) => None,
            Layout::Abreast => {
                let mut shape = value.shape().to_vec();
                let lanes = std::mem::replace(&mut shape[0], tokens.len() / pos);
                let mut rows = self.scratch.take(&shape);
                model::abreast::to_rows(value.data(), lanes, rows.data_mut());
                Some(rows)
            }
        }
    }

    fn zeros(&mut self, shape: &[usize]) -> Tensor<T> {
        let mut t = self.scratch.take(shape);
        t.data_mut().fill(T::ZERO);
        t
    }

    /// The derivative at every position, from that at those read: zero at the others.
    fn at_all_positions(&mut self, d: Tensor<T>) -> Tensor<T> {
        let &[batch, _, width] = d.shape() else {
            unreachable!("a stream is [batch, pos, d]")
        };
        let Sequences {
            pos, read, layout, ..
        } = self.sequences;
        let mut all = self.zeros(&[batch, pos, width]);
        scatter(layout, &d, read, pos, all.data_mut());
        self.scratch.give(d);
        all
    }
}
