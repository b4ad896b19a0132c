//! The forward pass: a loop over the diagram.

use super::run::Sites;
use super::{Model, Tokens};
use crate::diagram::{Mask, Op, Step, Value};
use crate::names::{Hook, NormSite};
use crate::op::{self, Affine, Attended, Attention, Layout, Masks, NormMap, Place, Scoring, Turns};
use crate::tensor::{Scalar, Tensor};
use std::borrow::Cow;

/// Some whole sequences, and what of them is computed.
#[derive(Clone, Copy)]
pub(crate) struct Sequences<'a> {
    /// Of `pos` tokens each, which have been checked.
    pub tokens: &'a [i64],
    pub pos: usize,
    /// Which of them are attended to, where not all are.
    pub attended: Option<Attended<'a>>,
    /// Their kinds, where these are several.
    types: Option<&'a [i64]>,
    /// The positions whose logits are read, where not all are.
    pub read: Option<&'a [usize]>,
    /// How the values lie in memory.
    pub layout: Layout,
}

impl<'a> Sequences<'a> {
    /// Some of a batch, from the `first` on; what is read of them, and how their values lie.
    pub fn of(
        tokens: &'a Tokens,
        (first, count): (usize, usize),
        read: Option<&'a [usize]>,
        layout: Layout,
    ) -> Self {
        Sequences {
            tokens: tokens.range(first, count),
            pos: tokens.pos(),
            attended: tokens.attended_range(first, count),
            types: tokens.types_range(first, count),
            read,
            layout,
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.tokens.len() / self.pos
    }

    /// Which tokens are pads, `[batch, pos]`, for a model with a pad token.
    pub fn pads(&self, pad_token: Option<usize>) -> Option<Vec<bool>> {
        let pad = pad_token? as i64;
        Some(self.tokens.iter().map(|&token| token == pad).collect())
    }

    /// The positions of a value that is there where it is read, or at all of them.
    pub fn positions(&self, narrow: bool) -> Cow<'a, [usize]> {
        match self.read.filter(|_| narrow) {
            Some(read) => Cow::Borrowed(read),
            None => (0..self.pos).collect(),
        }
    }

    /// The tokens at those positions.
    pub fn tokens_at(&self, narrow: bool) -> Cow<'a, [i64]> {
        self.at(self.tokens, narrow)
    }

    /// The kinds of the tokens at those positions.
    pub fn types_at(&self, narrow: bool) -> Cow<'a, [i64]> {
        match self.types {
            Some(types) => self.at(types, narrow),
            None => vec![0; self.count() * self.positions(narrow).len()].into(),
        }
    }

    /// Where those positions stand in their sequences: of each position, or where tokens are left out of each row.
    pub fn places(&self, narrow: bool) -> Vec<Place> {
        let positions = self.positions(narrow);
        let Some(attended) = self.attended else {
            let place = |&position: &usize| Place {
                position,
                length: self.pos,
            };
            return positions.iter().map(place).collect();
        };
        places_of(attended, self.pos, &positions)
    }

    /// What of `[batch, pos]` numbers is at those positions.
    fn at(&self, of: &'a [i64], narrow: bool) -> Cow<'a, [i64]> {
        match self.read.filter(|_| narrow) {
            Some(read) => {
                let sequences = of.chunks_exact(self.pos);
                let at = |s: &'a [i64]| read.iter().map(move |&p| s[p]);
                sequences.flat_map(at).collect()
            }
            None => Cow::Borrowed(of),
        }
    }
}

/// Where some positions of every sequence stand, some of whose tokens are left out.
pub(crate) fn places_of(attended: Attended<'_>, pos: usize, positions: &[usize]) -> Vec<Place> {
    let of = |own: &[usize], p: usize| Place {
        position: own[p],
        length: own.last().map_or(0, |last| last + 1),
    };
    let sequences = attended.positions.chunks_exact(pos);
    sequences
        .flat_map(|own| positions.iter().map(move |&p| of(own, p)))
        .collect()
}

/// A forward pass under way: the values that are still to be read.
struct Forward<'m, 'v, 'r, 'a, T: Scalar> {
    model: &'m Model<T>,
    sequences: Sequences<'m>,
    pads: Option<Vec<bool>>,
    /// Of all positions, once they are turned: in layers without a window and with one.
    turns: [Option<Turns<T>>; 2],
    values: Vec<Option<Tensor<T>>>,
    sites: &'v mut Sites<'r, 'a, T>,
}

impl<T: Scalar> Model<T> {
    /// Runs some whole sequences, writing `[batch, pos, d_vocab_out]` logits; of those positions alone that are read. None
    /// where there is no room for any.
    pub(super) fn forward(
        &self,
        sequences: Sequences<'_>,
        sites: &mut Sites<'_, '_, T>,
        logits: &mut [T],
    ) {
        let mut pass = Forward {
            model: self,
            sequences,
            pads: sequences.pads(self.config.pad_token),
            turns: [None, None],
            values: (self.diagram.values.iter()).map(|_| None).collect(),
            sites,
        };
        for step in &self.diagram.steps {
            pass.step(step, logits);
        }
    }

    /// The norm at a place, where there is one.
    pub(crate) fn norm_at(&self, site: NormSite) -> Option<NormMap<'_, T>> {
        let kind = self.config.norm_at(site)?;
        let parameters = self.weights.norms.get(&site);
        let parameters = parameters.map(|n| (n.w.data(), n.b.as_ref().map(Tensor::data)));
        Some(NormMap::new(kind, parameters))
    }

    /// What becomes of the scores of layer `l`.
    pub(crate) fn scoring(&self, l: usize) -> Scoring<'_, T> {
        let c = &self.config;
        Scoring {
            factor: T::ONE / T::from_f64(c.score_scale(l)),
            slopes: self.slopes.as_deref(),
            cap: c.score_cap.map(T::from_f64),
        }
    }

    /// Which keys queries of layer `l` see, with these pads and where these tokens are attended to.
    pub(crate) fn masks<'a>(
        &self,
        l: usize,
        pads: Option<&'a [bool]>,
        attended: Option<Attended<'a>>,
    ) -> Masks<'a> {
        Masks {
            causal: self.config.mask == Mask::Causal,
            pads,
            window: self.config.window(l),
            attended,
        }
    }

    /// What the logits are capped at.
    pub(crate) fn logit_cap(&self) -> Option<T> {
        self.config.logit_cap.map(T::from_f64)
    }
}

impl<T: Scalar> Forward<'_, '_, '_, '_, T> {
    fn step(&mut self, step: &Step, logits: &mut [T]) {
        match step.op {
            Op::Embed => self.embed(step),
            Op::PosEmbed => self.pos_embed(step),
            Op::TokenTypeEmbed => self.token_type_embed(step),
            Op::Sum => self.sum(step),
            Op::Same => {
                let value = self.take(step);
                self.give(step.gives[0], value);
            }
            Op::Norm(site) => self.norm(site, step),
            Op::Project(..) | Op::Gate(_) | Op::Neurons(_) | Op::WriteNeurons(_) | Op::MlmHead => {
                let map = self.model.affine(step.op).expect("a linear map");
                self.linear(step, map);
            }
            Op::Rotate(l) => self.rotate(l, step),
            Op::Attend(l) => self.attend(l, step),
            Op::WriteHeads(l) => self.write_heads(l, step),
            Op::Activate(l) => {
                let mut value = self.take(step);
                let act_fn = self.model.config.act_fn().expect("a model with neurons");
                let layout = self.sequences.layout;
                op::activate(layout, act_fn, &mut value);
                if step.reads.len() > 1 {
                    let gated = self.read(step, 1);
                    let b = self.model.weights.mlp(l).b_after();
                    op::gate(layout, &mut value, &gated, b);
                    self.done(step, 1, gated);
                }
                self.give(step.gives[0], value);
            }
            Op::ActivateMlmHead => {
                let mut value = self.take(step);
                let act_fn = self.model.config.mlm_head.expect("a model with this head");
                op::activate(self.sequences.layout, act_fn, &mut value);
                self.give(step.gives[0], value);
            }
            Op::Unembed => {
                let x = self.read(step, 0);
                // There may be no logits, or nobody who reads them.
                if !logits.is_empty() {
                    let map = self.model.affine(step.op).expect("a linear map");
                    let map = (map, self.model.logit_cap());
                    let layout = self.sequences.layout;
                    op::unembed(layout, &x, map, self.sites.scratch, logits);
                    self.leave_out_pads(logits);
                }
                self.done(step, 0, x);
            }
        }
    }

    /// The tokens' rows of `W_E`.
    fn embed(&mut self, step: &Step) {
        let to = step.gives[0];
        let mut out = self.room(to);
        let tokens = self.sequences.tokens_at(self.model.diagram.narrow[to]);
        let W_E = &self.model.weights.W_E;
        op::embed(self.sequences.layout, W_E, &tokens, &mut out);
        self.give(to, out);
    }

    /// The kinds' rows of `W_token_type`.
    fn token_type_embed(&mut self, step: &Step) {
        let to = step.gives[0];
        let mut out = self.room(to);
        let types = self.sequences.types_at(self.model.diagram.narrow[to]);
        let table = &self.model.weights.W_token_type;
        op::embed(self.sequences.layout, table, &types, &mut out);
        self.give(to, out);
    }

    /// What is not attended to has no logits.
    fn leave_out_pads(&self, logits: &mut [T]) {
        let Some(attended) = self.sequences.attended else {
            return;
        };
        let positions = self.sequences.positions(true);
        let sequences = attended.mask.chunks_exact(self.sequences.pos);
        let seen = sequences.flat_map(|own| positions.iter().map(move |&p| own[p]));
        let rows = logits.chunks_exact_mut(self.model.config.d_vocab_out.max(1));
        let left_out = rows.zip(seen).filter(|(_, seen)| !seen);
        left_out.for_each(|(row, _)| row.fill(T::from_f64(f64::NAN)));
    }

    /// The positions' rows of `W_pos`.
    fn pos_embed(&mut self, step: &Step) {
        let to = step.gives[0];
        let mut out = self.room(to);
        let (model, layout) = (self.model, self.sequences.layout);
        let d = model.config.d_model;
        if self.sequences.attended.is_some() {
            let places = self.sequences.places(model.diagram.narrow[to]);
            let positions: Vec<i64> = places.iter().map(|p| p.position as i64).collect();
            op::embed(layout, &model.weights.W_pos, &positions, &mut out);
            return self.give(to, out);
        }
        let W_pos = model.weights.W_pos.data();
        match self.sequences.read.filter(|_| model.diagram.narrow[to]) {
            Some(read) => {
                let rows = |&p: &usize| &W_pos[p * d..(p + 1) * d];
                let rows: Vec<T> = read.iter().flat_map(rows).copied().collect();
                op::spread(layout, &rows, &mut out);
            }
            None => op::spread(layout, &W_pos[..self.sequences.pos * d], &mut out),
        }
        self.give(to, out);
    }

    fn sum(&mut self, step: &Step) {
        let mut sum = self.take(step);
        for i in 1..step.reads.len() {
            let x = self.read(step, i);
            op::add(self.sequences.layout, &mut sum, &x);
            self.done(step, i, x);
        }
        self.give(step.gives[0], sum);
    }

    fn norm(&mut self, site: NormSite, step: &Step) {
        let (model, layout) = (self.model, self.sequences.layout);
        let x = self.read(step, 0);
        let [mut scale, mut out] = [step.gives[0], step.gives[1]].map(|to| self.room(to));
        let map = model.norm_at(site).expect("a norm of this model");
        let eps = T::from_f64(model.config.eps);
        op::norm(layout, &x, eps, &map, &mut scale, &mut out);
        self.sites.visit(Hook::Scale(site), &mut scale);
        if self.sites.changes(Hook::Scale(site)) {
            op::norm_given_scale(layout.par(), &x, &map, &mut scale, &mut out);
        }
        self.sites.done(Hook::Scale(site), scale);
        self.done(step, 0, x);
        self.give(step.gives[1], out);
    }

    /// `x W + b`
    fn linear(&mut self, step: &Step, map: Affine<'_, T>) {
        let to = *step.gives.last().expect("it gives a value");
        let x = self.read(step, 0);
        let mut out = self.room(to);
        op::linear(self.sequences.layout, x.data(), map, out.data_mut());
        self.done(step, 0, x);
        self.give(to, out);
    }

    /// Queries or keys, turned by their positions.
    fn rotate(&mut self, l: usize, step: &Step) {
        let (config, s) = (&self.model.config, self.sequences);
        let mut x = self.take(step);
        let rotary = config.rotary_at(l).expect("a model with rotary positions");
        let narrow = s.read.is_some() && self.model.diagram.narrow[step.gives[0]];
        match narrow {
            true => Turns::new(rotary, s.places(true)).turn(s.layout, &mut x),
            false => {
                let known = &mut self.turns[usize::from(config.window(l).is_some())];
                let turns = known.get_or_insert_with(|| Turns::new(rotary, s.places(false)));
                turns.turn(s.layout, &mut x);
            }
        }
        self.give(step.gives[0], x);
    }

    /// `z = softmax(q kᵀ / attn_scale) v`
    fn attend(&mut self, l: usize, step: &Step) {
        let (model, layout) = (self.model, self.sequences.layout);
        let (scores_hook, pattern_hook) = (Hook::AttnScores(l), Hook::Pattern(l));
        let [q, k, v] = [0, 1, 2].map(|i| self.read(step, i));
        let queries = self
            .sequences
            .positions(model.diagram.narrow[step.gives[2]]);
        let pads = self.pads.take();
        let attention = Attention {
            queries: &queries,
            q: &q,
            k: &k,
            v: &v,
            scoring: model.scoring(l),
            masks: model.masks(l, pads.as_deref(), self.sequences.attended),
        };
        let square = [k.shape()[0], q.shape()[2], queries.len(), k.shape()[1]];
        let mut z = self.sites.scratch.take(q.shape());
        let sites = &mut *self.sites;
        let changed = sites.changes(scores_hook) || sites.changes(pattern_hook);
        if attention.in_one_go(layout) && !changed {
            let mut wanted = |hook| sites.wants(hook).then(|| sites.scratch.take(&square));
            let (mut scores, mut pattern) = (wanted(scores_hook), wanted(pattern_hook));
            attention.mix(layout, [scores.as_mut(), pattern.as_mut()], &mut z);
            for (hook, value) in [(scores_hook, scores), (pattern_hook, pattern)] {
                if let Some(mut value) = value {
                    sites.visit(hook, &mut value);
                    sites.done(hook, value);
                }
            }
        } else if !sites.wants(scores_hook) && !sites.wants(pattern_hook) {
            attention.mix_in_blocks(layout.par(), &mut z);
        } else {
            let mut scores = sites.scratch.take(&square);
            attention.scores(layout.par(), &mut scores);
            sites.visit(scores_hook, &mut scores);

            let mut pattern = scores;
            op::softmax(layout.par(), &mut pattern);
            sites.visit(pattern_hook, &mut pattern);

            op::weigh(layout.par(), &pattern, &v, &mut z);
            sites.done(pattern_hook, pattern);
        }
        self.pads = pads;
        for (i, x) in [q, k, v].into_iter().enumerate() {
            self.done(step, i, x);
        }
        self.give(step.gives[2], z);
    }

    /// `Σ_h z[h] W_O[h] + b_O`
    fn write_heads(&mut self, l: usize, step: &Step) {
        let hook = Hook::Result(l);
        if !self.sites.wants(hook) {
            // The same sum as one product over all heads' z.
            let map = self.model.affine(step.op).expect("a linear map");
            return self.linear(step, map);
        }
        let Layout::Rows(par) = self.sequences.layout else {
            unreachable!("what single heads write is not made abreast")
        };
        let attn = &self.model.weights.blocks[l].attn;
        let z = self.read(step, 0);
        let mut result = self.room(step.gives[0]);
        op::head_results(par, &z, &attn.W_O, &mut result);
        self.sites.visit(hook, &mut result);
        let mut out = self.room(step.gives[1]);
        op::sum_heads(par, &result, attn.b_O.data(), &mut out);
        self.sites.done(hook, result);
        self.done(step, 0, z);
        self.give(step.gives[1], out);
    }

    /// Memory for a value.
    fn room(&mut self, value: Value) -> Tensor<T> {
        let (model, s) = (self.model, self.sequences);
        let hook = model.diagram.values[value];
        let batch = s.layout.batch::<T>(s.count());
        let mut shape = model.config.hook_shape(hook, batch, s.pos);
        if let Some(read) = s.read.filter(|_| model.diagram.narrow[value]) {
            shape[hook.position_axis()] = read.len();
        }
        self.sites.scratch.take(&shape)
    }

    /// Shows a value to those who look at it, and keeps it for those that read it.
    fn give(&mut self, value: Value, mut x: Tensor<T>) {
        self.sites.visit(self.model.diagram.values[value], &mut x);
        self.values[value] = Some(x);
    }

    /// A value that a step reads: at the positions of what it gives, or whole where it mixes them.
    fn read(&mut self, step: &Step, i: usize) -> Tensor<T> {
        let (value, _) = step.reads[i];
        let narrow = &self.model.diagram.narrow;
        let gathers =
            !narrow[value] && step.gives.iter().all(|&to| narrow[to]) && !step.op.mixes(i);
        let slot = &mut self.values[value];
        match self.sequences.read.filter(|_| gathers) {
            None => slot.take().expect("a value is made before it is read"),
            Some(read) => {
                let whole = slot.as_ref().expect("a value is made before it is read");
                op::gather_positions(self.sequences.layout, whole, read, self.sites.scratch)
            }
        }
    }

    /// After a step: what it read goes back to its place, or to those who take it where nobody reads it any more.
    fn done(&mut self, step: &Step, i: usize, x: Tensor<T>) {
        let (value, last) = step.reads[i];
        let hook = self.model.diagram.values[value];
        match (self.values[value].take(), last) {
            // What was read are some rows of it.
            (Some(whole), last) => {
                self.sites.scratch.give(x);
                match last {
                    true => self.sites.done(hook, whole),
                    false => self.values[value] = Some(whole),
                }
            }
            (None, true) => self.sites.done(hook, x),
            (None, false) => self.values[value] = Some(x),
        }
    }

    /// The first value that a step reads, to be changed into what it gives.
    fn take(&mut self, step: &Step) -> Tensor<T> {
        let x = self.read(step, 0);
        let (value, last) = step.reads[0];
        let gathered = self.values[value].is_some();
        match (gathered, last) {
            (false, true) => x,
            (true, false) => x,
            (true, true) => {
                let whole = self.values[value].take().expect("it is there");
                self.sites.done(self.model.diagram.values[value], whole);
                x
            }
            (false, false) => {
                let mut copy = self.sites.scratch.take(x.shape());
                copy.data_mut().copy_from_slice(x.data());
                self.values[value] = Some(x);
                copy
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Config, Run, RunOutput, Weights};
    use crate::tensor::lanes;

    /// Every kind of model that goes abreast, on batches that do not fill the lanes, beside the same run in the
    /// order of the axes, which shares no kernel with it. A run with a closure is such a run.
    #[test]
    fn values_are_those_of_a_run_by_rows() {
        fn check<T: Scalar>(json: &str, pos: usize, pads: Option<i64>) {
            let mut config = Config::from_json(json).unwrap();
            config.pad_token = pads.map(|pad| pad as usize);
            let wave = |shape: &[usize]| {
                let sum = |at: &[usize]| at.iter().fold(0, |sum, i| 7 * sum + i) as f64;
                Tensor::from_fn(shape, |at| T::from_f64(sum(at).sin()))
            };
            let weights = Weights::build(&config, |_, shape| Ok(wave(shape))).unwrap();
            let model = Model::new(config, weights).unwrap();
            let lanes = lanes::<T>();
            for batch in [lanes, lanes + 1, 9 * lanes - 1] {
                let tokens = Tokens::random(model.config(), batch, 5);
                let tokens = Tokens::from_rows(
                    &(0..batch)
                        .map(|i| tokens.range(i, 1)[..pos].to_vec())
                        .collect::<Vec<_>>(),
                );
                assert!(Layout::abreast_pays::<T>(model.config(), (batch, pos), &[]) || lanes < 4);
                let hooks = model.config().hooks().into_iter();
                let hooks: Vec<Hook> = hooks.filter(|h| !matches!(h, Hook::Result(_))).collect();
                let full = || hooks.iter().fold(Run::new(), |run, hook| run.cache(hook));
                let alone = model.logits(&tokens).unwrap();
                let ours = model.run(&tokens, full()).unwrap();
                let by_rows = full().hook("hook_embed", |_, _| ());
                let by_rows = model.run(&tokens, by_rows).unwrap();
                let values = |run: &RunOutput<T>| {
                    let kept = hooks.iter().map(|&h| (h.to_string(), run.cache[h].clone()));
                    kept.chain([("logits".into(), run.logits.clone())])
                        .collect::<Vec<_>>()
                };
                let mut pairs: Vec<_> = values(&ours).into_iter().zip(values(&by_rows)).collect();
                pairs.push((("logits".into(), alone), ("logits".into(), by_rows.logits)));
                for ((name, ours), (_, by_rows)) in pairs {
                    assert_eq!(ours.shape(), by_rows.shape());
                    let finite = by_rows.data().iter().filter(|x| x.is_finite());
                    let size = finite.fold(0.0, |size: f64, x| size.max(x.to_f64().abs()));
                    // Each layer's sums have a hundred terms at the most, of size 30 at the most.
                    let bound = 1e4 * T::EPSILON.to_f64() * size;
                    for (a, b) in ours.data().iter().zip(by_rows.data()) {
                        // Masked scores are infinite.
                        assert!(
                            a == b || (*a - *b).abs().to_f64() <= bound,
                            "{json} {pos} {pads:?} {batch} {name}: {a} {b}"
                        );
                    }
                }
            }
        }
        let rest = r#""n_ctx": 23, "d_vocab": 9, "d_vocab_out": 5"#;
        let with = |more: &str| format!("{{{rest}, {more}}}");
        let attention =
            r#""n_layers": 2, "d_model": 12, "d_head": 5, "n_heads": 3, "attn_only": true"#;
        let mlp = r#""n_layers": 1, "d_model": 7, "d_head": 14, "n_heads": 1, "d_mlp": 18, "act_fn": "gelu_new""#;
        for (more, pads) in [
            (attention.to_string(), None),
            (attention.to_string(), Some(2)),
            (
                format!(r#"{attention}, "attention_dir": "bidirectional""#),
                None,
            ),
            (
                format!(r#"{mlp}, "attention_dir": "bidirectional""#),
                Some(2),
            ),
            (format!(r#"{mlp}, "normalization_type": null"#), None),
            (format!(r#"{mlp}, "normalization_type": "LNPre""#), None),
        ] {
            for pos in [1, 3, 4, 22, 23] {
                check::<f32>(&with(&more), pos, pads);
                check::<f64>(&with(&more), pos, pads);
            }
        }
    }
}
