//! The forward pass: one loop that reads like the diagram.

use super::ops;
use super::run::Sites;
use super::{Attention, AttentionDir, Mlp, Model, Norm};
use crate::linalg::Par;
use crate::names::Hook;
use crate::tensor::{Scalar, Tensor};

impl<T: Scalar> Model<T> {
    /// Runs a stretch of whole sequences of `pos` tokens each, writing `[batch, pos, d_vocab_out]`
    /// logits. The tokens have been checked.
    pub(super) fn forward(
        &self,
        tokens: &[i64],
        pos: usize,
        sites: &mut Sites<'_, '_, T>,
        par: Par,
        logits: &mut [T],
    ) {
        let (c, w) = (&self.config, &self.weights);
        let stream = [tokens.len() / pos, pos, c.d_model];
        let pad_keys: Option<Vec<bool>> = c
            .pad_token
            .map(|pad| tokens.iter().map(|&t| t == pad as i64).collect());

        let mut embed = sites.scratch.take(&stream);
        ops::gather(&w.W_E, tokens, embed.data_mut());
        sites.visit(Hook::Embed, &mut embed);

        let mut pos_embed = sites.scratch.take(&stream);
        let positions = &w.W_pos.data()[..pos * c.d_model];
        pos_embed
            .data_mut()
            .chunks_exact_mut(positions.len())
            .for_each(|p| p.copy_from_slice(positions));
        sites.visit(Hook::PosEmbed, &mut pos_embed);

        let mut resid = embed;
        ops::add(par, &mut resid, &pos_embed);
        sites.scratch.give(pos_embed);

        for (l, block) in w.blocks.iter().enumerate() {
            sites.visit(Hook::ResidPre(l), &mut resid);

            let ln1 = (
                Hook::Ln1Scale(l),
                Hook::Ln1Normalized(l),
                block.ln1.as_ref(),
            );
            let x = self.norm(&resid, ln1, sites, par);
            let mut attn_out = self.attention(l, &block.attn, &x, pad_keys.as_deref(), sites, par);
            sites.scratch.give(x);
            sites.visit(Hook::AttnOut(l), &mut attn_out);
            ops::add(par, &mut resid, &attn_out);
            sites.scratch.give(attn_out);

            if let Some(mlp) = &block.mlp {
                sites.visit(Hook::ResidMid(l), &mut resid);

                let ln2 = (
                    Hook::Ln2Scale(l),
                    Hook::Ln2Normalized(l),
                    block.ln2.as_ref(),
                );
                let x = self.norm(&resid, ln2, sites, par);
                let mut mlp_out = self.mlp(l, mlp, &x, sites, par);
                sites.scratch.give(x);
                sites.visit(Hook::MlpOut(l), &mut mlp_out);
                ops::add(par, &mut resid, &mlp_out);
                sites.scratch.give(mlp_out);
            }
            sites.visit(Hook::ResidPost(l), &mut resid);
        }

        let ln_final = (
            Hook::LnFinalScale,
            Hook::LnFinalNormalized,
            w.ln_final.as_ref(),
        );
        let x = self.norm(&resid, ln_final, sites, par);
        ops::linear(par, x.data(), w.W_U.mat(&[]), w.b_U.data(), logits);
        sites.scratch.give(x);
        sites.scratch.give(resid);
    }

    /// What a layer reads: the stream through the layer's norm, or the stream itself where the model has
    /// no norms.
    fn norm(
        &self,
        resid: &Tensor<T>,
        norm: (Hook, Hook, Option<&Norm<T>>),
        sites: &mut Sites<'_, '_, T>,
        par: Par,
    ) -> Tensor<T> {
        if self.config.normalization_type.is_some() {
            return self.layer_norm(resid, norm, sites, par);
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
        par: Par,
    ) -> Tensor<T> {
        let &[batch, pos, _] = x.shape() else {
            unreachable!("a stream is [batch, pos, d]")
        };
        let mut scale = sites.scratch.take(&[batch, pos, 1]);
        let mut normalized = sites.scratch.take(x.shape());
        ops::center(
            par,
            x,
            T::from_f64(self.config.eps),
            &mut normalized,
            &mut scale,
        );
        sites.visit(scale_hook, &mut scale);
        ops::divide(par, &mut normalized, &scale, params);
        sites.scratch.give(scale);
        sites.visit(normalized_hook, &mut normalized);
        normalized
    }

    /// `Σ_h softmax(q kᵀ / attn_scale) v W_O + b_O`
    fn attention(
        &self,
        l: usize,
        attn: &Attention<T>,
        x: &Tensor<T>,
        pad_keys: Option<&[bool]>,
        sites: &mut Sites<'_, '_, T>,
        par: Par,
    ) -> Tensor<T> {
        let c = &self.config;
        let &[batch, pos, d_model] = x.shape() else {
            unreachable!("a stream is [batch, pos, d]")
        };
        let per_head = [batch, pos, c.n_heads, c.d_head];

        let mut project = |hook: Hook, W: &Tensor<T>, b: &Tensor<T>| {
            let mut out = sites.scratch.take(&per_head);
            ops::project_heads(par, x.data(), W, b, out.data_mut());
            sites.visit(hook, &mut out);
            out
        };
        let q = project(Hook::Q(l), &attn.W_Q, &attn.b_Q);
        let k = project(Hook::K(l), &attn.W_K, &attn.b_K);
        let v = project(Hook::V(l), &attn.W_V, &attn.b_V);

        let scale = T::from_f64(c.score_scale(l));
        let causal = c.attention_dir == AttentionDir::Causal;
        let mut scores = sites.scratch.take(&[batch, c.n_heads, pos, pos]);
        ops::scores(par, &q, &k, scale, causal, pad_keys, &mut scores);
        sites.scratch.give(q);
        sites.scratch.give(k);
        sites.visit(Hook::AttnScores(l), &mut scores);

        let mut pattern = scores;
        ops::softmax(par, &mut pattern);
        sites.visit(Hook::Pattern(l), &mut pattern);

        let mut z = sites.scratch.take(&per_head);
        ops::mix(par, &pattern, &v, &mut z);
        sites.scratch.give(pattern);
        sites.scratch.give(v);
        sites.visit(Hook::Z(l), &mut z);

        let mut out = sites.scratch.take(&[batch, pos, d_model]);
        if sites.wants(Hook::Result(l)) {
            let mut result = sites.scratch.take(&[batch, pos, c.n_heads, d_model]);
            ops::head_results(par, &z, &attn.W_O, &mut result);
            sites.visit(Hook::Result(l), &mut result);
            ops::sum_heads(par, &result, attn.b_O.data(), &mut out);
            sites.scratch.give(result);
        } else {
            // The same sum as one product over all heads' z.
            let W_O = attn.W_O.rows();
            ops::linear(par, z.data(), W_O, attn.b_O.data(), out.data_mut());
        }
        sites.scratch.give(z);
        out
    }

    /// `act_fn(x W_in + b_in) W_out + b_out`
    fn mlp(
        &self,
        l: usize,
        mlp: &Mlp<T>,
        x: &Tensor<T>,
        sites: &mut Sites<'_, '_, T>,
        par: Par,
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
            par,
            x.data(),
            mlp.W_in.mat(&[]),
            mlp.b_in.data(),
            pre.data_mut(),
        );
        sites.visit(Hook::Pre(l), &mut pre);

        let mut post = pre;
        ops::activate(par, act_fn, &mut post);
        if self.config.solu() {
            sites.visit(Hook::Mid(l), &mut post);
            let ln = (
                Hook::MlpLnScale(l),
                Hook::MlpLnNormalized(l),
                mlp.ln.as_ref(),
            );
            let normalized = self.layer_norm(&post, ln, sites, par);
            sites.scratch.give(std::mem::replace(&mut post, normalized));
        }
        sites.visit(Hook::Post(l), &mut post);

        let mut out = sites.scratch.take(&[batch, pos, d_model]);
        ops::linear(
            par,
            post.data(),
            mlp.W_out.mat(&[]),
            mlp.b_out.data(),
            out.data_mut(),
        );
        sites.scratch.give(post);
        out
    }
}
