//! The forward pass: one loop that reads like the diagram.

use super::ops::Layout;
use super::run::Sites;
use super::scratch::Scratch;
use super::{Attention, AttentionDir, Mlp, Model, Norm};
use super::{attend, ops};
use crate::names::Hook;
use crate::tensor::{Scalar, Tensor};

impl<T: Scalar> Model<T> {
    /// Runs a stretch of whole sequences of `pos` tokens each, writing `[batch, pos, d_vocab_out]`
    /// logits, or where only some positions are read, those positions' alone. The tokens have been checked.
    pub(super) fn forward(
        &self,
        tokens: &[i64],
        pos: usize,
        sites: &mut Sites<'_, '_, T>,
        layout: Layout,
        logits: &mut [T],
    ) {
        let (c, w) = (&self.config, &self.weights);
        let pad_keys: Option<Vec<bool>> = c
            .pad_token
            .map(|pad| tokens.iter().map(|&t| t == pad as i64).collect());

        let mut resid = self.embed(tokens, pos, sites, layout);
        for (l, block) in w.blocks.iter().enumerate() {
            sites.visit(Hook::ResidPre(l), &mut resid);

            let qkv = match sites.head_start {
                Some(head_start) if l == 0 => head_start.of(tokens, pos, sites, layout),
                _ => self.project(l, &resid, sites, layout),
            };
            let mut attn_out =
                self.attention(l, &block.attn, qkv, pad_keys.as_deref(), sites, layout);
            sites.visit(Hook::AttnOut(l), &mut attn_out);
            if l + 1 == c.n_layers {
                self.keep_what_is_read(&mut resid, sites, layout);
            }
            ops::add(layout, &mut resid, &attn_out);
            sites.scratch.give(attn_out);

            if let Some(mlp) = &block.mlp {
                sites.visit(Hook::ResidMid(l), &mut resid);

                let x = self.read_by_mlp(l, &resid, sites, layout);
                let mut mlp_out = self.mlp(l, mlp, &x, sites, layout);
                sites.done(Hook::Ln2Normalized(l), x);
                sites.visit(Hook::MlpOut(l), &mut mlp_out);
                ops::add(layout, &mut resid, &mlp_out);
                sites.scratch.give(mlp_out);
            }
            sites.visit(Hook::ResidPost(l), &mut resid);
        }

        if c.n_layers == 0 {
            self.keep_what_is_read(&mut resid, sites, layout);
        }
        let x = self.read_by_unembedding(&resid, sites, layout);
        let (W_U, b_U) = (w.W_U.data(), w.b_U.data());
        ops::unembed(layout, &x, W_U, b_U, sites.scratch, logits);
        sites.done(Hook::LnFinalNormalized, x);
        sites.scratch.give(resid);
    }

    /// What enters the stream: each token's row of `W_E`, each position's of `W_pos`.
    fn embed(
        &self,
        tokens: &[i64],
        pos: usize,
        sites: &mut Sites<'_, '_, T>,
        layout: Layout,
    ) -> Tensor<T> {
        let w = &self.weights;
        let batch = layout.batch::<T>(tokens.len() / pos);
        let stream = [batch, pos, self.config.d_model];
        let mut embed = sites.scratch.take(&stream);
        ops::gather(layout, w.W_E.data(), tokens, &mut embed);
        sites.visit(Hook::Embed, &mut embed);

        let mut pos_embed = sites.scratch.take(&stream);
        let positions = &w.W_pos.data()[..pos * self.config.d_model];
        ops::spread(layout, positions, &mut pos_embed);
        sites.visit(Hook::PosEmbed, &mut pos_embed);

        let mut resid = embed;
        ops::add(layout, &mut resid, &pos_embed);
        sites.scratch.give(pos_embed);
        resid
    }

    /// Layer `l`'s queries, keys and values, `[batch, pos, head, d_head]`, from the stream; in the last layer the
    /// queries that are read.
    fn project(
        &self,
        l: usize,
        resid: &Tensor<T>,
        sites: &mut Sites<'_, '_, T>,
        layout: Layout,
    ) -> [Tensor<T>; 3] {
        let (c, block) = (&self.config, &self.weights.blocks[l]);
        let x = self.read_by_attention(l, resid, sites, layout);
        let x_q = match l + 1 == c.n_layers {
            true => self.what_is_read(&x, sites, layout),
            false => None,
        };
        let mut head_inputs = |hook: Hook, x: &Tensor<T>, W: &Tensor<T>, b: &Tensor<T>| {
            let shape = [x.shape()[0], x.shape()[1], c.n_heads, c.d_head];
            let mut out = sites.scratch.take(&shape);
            ops::project_heads(layout, x.data(), W, b, out.data_mut());
            sites.visit(hook, &mut out);
            out
        };
        let attn = &block.attn;
        let q = head_inputs(Hook::Q(l), x_q.as_ref().unwrap_or(&x), &attn.W_Q, &attn.b_Q);
        let k = head_inputs(Hook::K(l), &x, &attn.W_K, &attn.b_K);
        let v = head_inputs(Hook::V(l), &x, &attn.W_V, &attn.b_V);
        sites.done(Hook::Ln1Normalized(l), x);
        x_q.into_iter().for_each(|t| sites.scratch.give(t));
        [q, k, v]
    }

    /// What layer `l`'s heads read: the stream through `ln1`.
    pub(super) fn read_by_attention(
        &self,
        l: usize,
        resid: &Tensor<T>,
        sites: &mut Sites<'_, '_, T>,
        layout: Layout,
    ) -> Tensor<T> {
        let ln1 = self.weights.blocks[l].ln1.as_ref();
        let norm = (Hook::Ln1Scale(l), Hook::Ln1Normalized(l), ln1);
        self.norm(resid, norm, sites, layout)
    }

    /// The queries, keys or values of this hook's layer, from a stream of one's own.
    pub(crate) fn head_inputs(&self, hook: Hook, resid: &Tensor<T>) -> Tensor<T> {
        let mut scratch = Scratch::default();
        let l = hook.layer().expect("heads stand in a layer");
        let x = self.read_by_attention(l, resid, &mut Sites::none(&mut scratch), Layout::ROWS);
        let attn = &self.weights.blocks[l].attn;
        let (W, b) = match hook {
            Hook::Q(_) => (&attn.W_Q, &attn.b_Q),
            Hook::K(_) => (&attn.W_K, &attn.b_K),
            Hook::V(_) => (&attn.W_V, &attn.b_V),
            _ => unreachable!("{hook} is no input of a head"),
        };
        let &[batch, pos, _] = x.shape() else {
            unreachable!("a stream is [batch, pos, d]")
        };
        let mut out = Tensor::zeros(&[batch, pos, self.config.n_heads, self.config.d_head]);
        ops::project_heads(Layout::ROWS, x.data(), W, b, out.data_mut());
        out
    }

    /// Layer `l`'s neurons before their function, from a stream of one's own.
    pub(crate) fn neuron_inputs(&self, l: usize, resid: &Tensor<T>) -> Tensor<T> {
        let mut scratch = Scratch::default();
        let x = self.read_by_mlp(l, resid, &mut Sites::none(&mut scratch), Layout::ROWS);
        let mlp = self.weights.blocks[l]
            .mlp
            .as_ref()
            .expect("a layer with neurons");
        let mut pre = Tensor::zeros(&[x.shape()[0], x.shape()[1], mlp.b_in.len()]);
        ops::linear(
            Layout::ROWS,
            x.data(),
            mlp.W_in.data(),
            mlp.b_in.data(),
            pre.data_mut(),
        );
        pre
    }

    /// What layer `l`'s neurons read: the stream through `ln2`.
    pub(super) fn read_by_mlp(
        &self,
        l: usize,
        resid: &Tensor<T>,
        sites: &mut Sites<'_, '_, T>,
        layout: Layout,
    ) -> Tensor<T> {
        let ln2 = self.weights.blocks[l].ln2.as_ref();
        let norm = (Hook::Ln2Scale(l), Hook::Ln2Normalized(l), ln2);
        self.norm(resid, norm, sites, layout)
    }

    /// What the unembedding reads: the stream through `ln_final`.
    pub(super) fn read_by_unembedding(
        &self,
        resid: &Tensor<T>,
        sites: &mut Sites<'_, '_, T>,
        layout: Layout,
    ) -> Tensor<T> {
        let ln_final = self.weights.ln_final.as_ref();
        let norm = (Hook::LnFinalScale, Hook::LnFinalNormalized, ln_final);
        self.norm(resid, norm, sites, layout)
    }

    /// What a layer reads: the stream through the layer's norm, or the stream itself where the model has
    /// no norms.
    fn norm(
        &self,
        resid: &Tensor<T>,
        norm: (Hook, Hook, Option<&Norm<T>>),
        sites: &mut Sites<'_, '_, T>,
        layout: Layout,
    ) -> Tensor<T> {
        if self.config.normalization_type.is_some() {
            return self.layer_norm(resid, norm, sites, layout);
        }
        let mut x = sites.scratch.take(resid.shape());
        x.data_mut().copy_from_slice(resid.data());
        x
    }

    /// `(x - mean) / scale`, times `w`, plus `b`, with `scale = sqrt(mean((x - mean)²) + eps)`.
    fn layer_norm(
        &self,
        x: &Tensor<T>,
        (scale_hook, normalized_hook, params): (Hook, Hook, Option<&Norm<T>>),
        sites: &mut Sites<'_, '_, T>,
        layout: Layout,
    ) -> Tensor<T> {
        let &[batch, pos, _] = x.shape() else {
            unreachable!("a stream is [batch, pos, d]")
        };
        let mut scale = sites.scratch.take(&[batch, pos, 1]);
        let mut normalized = sites.scratch.take(x.shape());
        let eps = Some(T::from_f64(self.config.eps));
        ops::layer_norm(layout, x, eps, &mut scale, params, &mut normalized);
        sites.visit(scale_hook, &mut scale);
        if sites.changes(scale_hook) {
            ops::layer_norm(layout, x, None, &mut scale, params, &mut normalized);
        }
        sites.done(scale_hook, scale);
        sites.visit(normalized_hook, &mut normalized);
        normalized
    }

    /// `Σ_h softmax(q kᵀ / attn_scale) v W_O + b_O`
    fn attention(
        &self,
        l: usize,
        attn: &Attention<T>,
        [q, k, v]: [Tensor<T>; 3],
        pad_keys: Option<&[bool]>,
        sites: &mut Sites<'_, '_, T>,
        layout: Layout,
    ) -> Tensor<T> {
        let c = &self.config;
        let (batch, pos) = (k.shape()[0], k.shape()[1]);
        let all: Vec<usize>;
        let queries = match sites.read {
            Some(read) if l + 1 == c.n_layers => read,
            _ => {
                all = (0..pos).collect();
                &all
            }
        };
        let scale = T::from_f64(c.score_scale(l));
        let masks = (c.attention_dir == AttentionDir::Causal, pad_keys);
        let square = [batch, c.n_heads, queries.len(), pos];
        let mut z = sites.scratch.take(q.shape());
        let (scores_hook, pattern_hook) = (Hook::AttnScores(l), Hook::Pattern(l));
        let changed = sites.changes(scores_hook) || sites.changes(pattern_hook);
        let in_one_go = matches!(layout, Layout::Abreast) || attend::is_short::<T>(pos, c.d_head);
        if in_one_go && !changed {
            let mut wanted = |hook| sites.wants(hook).then(|| sites.scratch.take(&square));
            let (mut scores, mut pattern) = (wanted(scores_hook), wanted(pattern_hook));
            ops::attend(
                layout,
                (&q, queries),
                [&k, &v],
                scale,
                masks,
                [scores.as_mut(), pattern.as_mut()],
                &mut z,
            );
            for (hook, value) in [(scores_hook, scores), (pattern_hook, pattern)] {
                if let Some(mut value) = value {
                    sites.visit(hook, &mut value);
                    sites.done(hook, value);
                }
            }
        } else {
            let mut scores = sites.scratch.take(&square);
            ops::scores(layout.par(), (&q, queries), &k, scale, masks, &mut scores);
            sites.visit(scores_hook, &mut scores);

            let mut pattern = scores;
            ops::softmax(layout.par(), &mut pattern);
            sites.visit(pattern_hook, &mut pattern);

            ops::mix(layout.par(), &pattern, &v, &mut z);
            sites.done(pattern_hook, pattern);
        }
        for (hook, value) in [(Hook::Q(l), q), (Hook::K(l), k), (Hook::V(l), v)] {
            sites.done(hook, value);
        }
        sites.visit(Hook::Z(l), &mut z);

        let mut out = sites.scratch.take(&[batch, queries.len(), c.d_model]);
        if sites.wants(Hook::Result(l)) {
            let shape = [batch, queries.len(), c.n_heads, c.d_model];
            let mut result = sites.scratch.take(&shape);
            ops::head_results(layout.par(), &z, &attn.W_O, &mut result);
            sites.visit(Hook::Result(l), &mut result);
            ops::sum_heads(layout.par(), &result, attn.b_O.data(), &mut out);
            sites.scratch.give(result);
        } else {
            // The same sum as one product over all heads' z.
            ops::linear(
                layout,
                z.data(),
                attn.W_O.data(),
                attn.b_O.data(),
                out.data_mut(),
            );
        }
        sites.done(Hook::Z(l), z);
        out
    }

    /// The rows of the positions that are read, where not all are: past the last layer's keys and values no position
    /// sees another.
    fn what_is_read(
        &self,
        value: &Tensor<T>,
        sites: &mut Sites<'_, '_, T>,
        layout: Layout,
    ) -> Option<Tensor<T>> {
        let read = sites.read?;
        let mut shape = value.shape().to_vec();
        shape[1] = read.len();
        let mut kept = sites.scratch.take(&shape);
        ops::at_positions(layout, value, read, &mut kept);
        Some(kept)
    }

    /// Leaves the stream to the positions that are read.
    fn keep_what_is_read(
        &self,
        resid: &mut Tensor<T>,
        sites: &mut Sites<'_, '_, T>,
        layout: Layout,
    ) {
        if let Some(kept) = self.what_is_read(resid, sites, layout) {
            sites.scratch.give(std::mem::replace(resid, kept));
        }
    }

    /// `act_fn(x W_in + b_in) W_out + b_out`
    pub(super) fn mlp(
        &self,
        l: usize,
        mlp: &Mlp<T>,
        x: &Tensor<T>,
        sites: &mut Sites<'_, '_, T>,
        layout: Layout,
    ) -> Tensor<T> {
        let &[batch, pos, d_model] = x.shape() else {
            unreachable!("a stream is [batch, pos, d]")
        };
        let d_mlp = mlp.b_in.len();
        let act_fn = self
            .config
            .mlp_act()
            .expect("a config with MLPs names their function");

        let mut pre = sites.scratch.take(&[batch, pos, d_mlp]);
        ops::linear(
            layout,
            x.data(),
            mlp.W_in.data(),
            mlp.b_in.data(),
            pre.data_mut(),
        );
        sites.visit(Hook::Pre(l), &mut pre);

        let mut post = pre;
        ops::activate(layout, act_fn, &mut post);
        if self.config.solu() {
            sites.visit(Hook::Mid(l), &mut post);
            let ln = (
                Hook::MlpLnScale(l),
                Hook::MlpLnNormalized(l),
                mlp.ln.as_ref(),
            );
            let normalized = self.layer_norm(&post, ln, sites, layout);
            sites.scratch.give(std::mem::replace(&mut post, normalized));
        }
        sites.visit(Hook::Post(l), &mut post);

        let mut out = sites.scratch.take(&[batch, pos, d_model]);
        ops::linear(
            layout,
            post.data(),
            mlp.W_out.data(),
            mlp.b_out.data(),
            out.data_mut(),
        );
        sites.done(Hook::Post(l), post);
        out
    }
}

/// Whether the forward pass is done with a hook's value before another is made of it in its place.
pub(super) fn leaves_whole(hook: Hook) -> bool {
    matches!(
        hook,
        Hook::Q(_)
            | Hook::K(_)
            | Hook::V(_)
            | Hook::Pattern(_)
            | Hook::Z(_)
            | Hook::Ln1Scale(_)
            | Hook::Ln1Normalized(_)
            | Hook::Ln2Scale(_)
            | Hook::Ln2Normalized(_)
            | Hook::Post(_)
            | Hook::MlpLnScale(_)
            | Hook::LnFinalScale
            | Hook::LnFinalNormalized
    )
}

/// Layer 0's queries, keys and values of every token at every position, `[d_vocab, pos, head, d_head]`.
///
/// Up to there a position sees no other, so that a large batch on a small vocabulary would compute the
/// same few rows over and over.
pub(super) struct HeadStart<T: Scalar>([Tensor<T>; 3]);

impl<T: Scalar> HeadStart<T> {
    /// Whether it is worth computing for so many sequences, and may be used: nobody looks at what it
    /// leaves out.
    pub(super) fn pays(model: &Model<T>, batch: usize, kept: &[Hook]) -> bool {
        use Hook::{K, Ln1Normalized, Ln1Scale, Q, V};
        let left_out = [Ln1Scale(0), Ln1Normalized(0), Q(0), K(0), V(0)];
        batch >= 4 * model.config.d_vocab
            && !model.weights.blocks.is_empty()
            && !left_out.iter().any(|hook| kept.contains(hook))
    }

    /// For sequences of `pos` tokens.
    pub(super) fn new(model: &Model<T>, pos: usize) -> Self {
        let tokens: Vec<i64> = (0..model.config.d_vocab)
            .flat_map(|token| std::iter::repeat_n(token as i64, pos))
            .collect();
        let mut scratch = Scratch::default();
        let mut sites = Sites::none(&mut scratch);
        let resid = model.embed(&tokens, pos, &mut sites, Layout::ROWS);
        HeadStart(model.project(0, &resid, &mut sites, Layout::ROWS))
    }

    /// What a stretch of sequences needs of it.
    fn of(
        &self,
        tokens: &[i64],
        pos: usize,
        sites: &mut Sites<'_, '_, T>,
        layout: Layout,
    ) -> [Tensor<T>; 3] {
        let rows = |(i, &token): (usize, &i64)| token * pos as i64 + (i % pos) as i64;
        let rows: Vec<i64> = tokens.iter().enumerate().map(rows).collect();
        self.0.each_ref().map(|table| {
            let &[_, _, heads, d_head] = table.shape() else {
                unreachable!("queries have four axes")
            };
            let batch = layout.batch::<T>(tokens.len() / pos);
            let mut out = sites.scratch.take(&[batch, pos, heads, d_head]);
            ops::gather(layout, table.data(), &rows, &mut out);
            out
        })
    }
}
