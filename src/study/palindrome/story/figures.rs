//! The study's figures.

use super::super::{ByInput, Judged, PUBLISHED_SHARE, PalindromeStudy};
use crate::study::Story;
use serde_json::json;

impl PalindromeStudy {
    /// Every figure, by the write-ups' names for the heads.
    pub(super) fn figures(&self, story: &mut Story) {
        let of = self.origins;
        let p = &self.performance;
        story.figure_of(of.dataset, "loss", p.loss);
        story.figure_of(of.dataset, "logit_diff", p.logit_diff);
        story.figure_of(of.dataset, "accuracy", p.accuracy);
        story.figure_of(of.five_hundred, "loss_500", p.loss_500);
        for (name, ablation) in self.roles.named() {
            story.figure_of(
                of.dataset,
                &format!("ablate.mean.{name}.logit_diff"),
                ablation.mean,
            );
            story.figure_of(
                of.dataset,
                &format!("ablate.zero.{name}.logit_diff"),
                ablation.zero,
            );
            story.figure_of(
                of.dataset,
                &format!("ablate.mean_of_all_positions.{name}.logit_diff"),
                ablation.mean_of_all,
            );
        }
        let t = &self.targeted;
        story.figure_of(of.dataset, "targeted.0.1.result.all.loss", t.result.all);
        story.figure_of(
            of.dataset,
            "targeted.0.1.result.except20.loss",
            t.result.but_one,
        );
        for (name, helper) in [("0.1.result", &t.result), ("1.1.v", &t.values)] {
            story.figure_of(
                of.dataset,
                &format!("targeted.{name}.all.logit_diff"),
                helper.all_diff,
            );
            story.figure_of(
                of.dataset,
                &format!("targeted.{name}.except20.logit_diff"),
                helper.but_one_diff,
            );
        }
        story.figure_of(of.dataset, "targeted.1.1.v.all.loss", t.values.all);
        story.figure_of(of.dataset, "targeted.1.1.v.except20.loss", t.values.but_one);
        let w = &self.place;
        let places =
            json!({"first_half": w.first_half, "second_half": w.second_half, "end": w.at_end});
        story.figure_of(of.dataset, "ablate.layer0.logit_diff", places);
        story.figure_of(of.hundred, "first_five.p_palindrome", p.first_five);
        self.loss_figures(story);
        self.adversarial_figures(story);
        self.attention_figures(story);
        self.vector_figures(story);
    }

    fn loss_figures(&self, story: &mut Story) {
        let (of, l) = (self.origins, &self.losses);
        story.figure_of(of.five_hundred, "ablate.mean.loss_500", &l.mean);
        story.figure_of(of.five_hundred, "ablate.zero.loss_500", &l.zero);
        story.figure_of(of.five_hundred, "ablate.random.loss_500", &l.random);
        let inputs = |by: &ByInput| {
            [
                ("q", by.q.clone()),
                ("k", by.k.clone()),
                ("v", by.v.clone()),
            ]
        };
        for (change, by) in [("mean", &l.input_mean), ("zero", &l.input_zero)] {
            for (input, losses) in inputs(by) {
                let id = format!("qkv_ablation.{change}.{input}");
                story.figure_of(of.five_hundred, &id, losses);
            }
        }
        let queries = json!({"mean": l.queries_mean, "zero": l.queries_zero});
        story.figure_of(of.hundred, "q_ablation.100", queries);
    }

    fn adversarial_figures(&self, story: &mut Story) {
        let of = self.origins;
        let a = &self.adversarial;
        let natural: Vec<_> = a.natural.iter().map(|(_, judged)| &judged.tokens).collect();
        story.figure_of(of.dataset, "advex.counts", a.counts);
        story.figure_of(of.dataset, "advex.sequences", natural);
        let p_of = |judged: &[Judged]| judged.iter().map(|j| j.p_palindrome).collect::<Vec<_>>();
        let four = a.four.iter().map(|j| j.p_palindrome);
        story.figure("advex.four.p_palindrome", four.collect::<Vec<_>>());
        // The palindrome itself, and changed at the last four values.
        let flipped = p_of(&a.flipped);
        let last = flipped.len() - 4;
        story.figure_of(
            of.dataset,
            "flip.p_palindrome",
            [&flipped[..1], &flipped[last..]].concat(),
        );
        story.figure_of(of.dataset, "advex.foreseen", a.foreseen);
        story.figure_of(of.dataset, "advex.only_blind", a.only_blind);
        story.figure_of(of.dataset, "blind.rates", a.rates());
    }

    fn attention_figures(&self, story: &mut Story) {
        let (of, e) = (self.origins, &self.end);
        for n in 0..e.heads.len() {
            let id = |what: &str| format!("attn.end.1.{n}.{what}");
            story.figure_of(of.dataset, &id("palindromic"), &e.palindromic[n]);
            story.figure_of(of.dataset, &id("nonpalindromic"), &e.nonpalindromic[n]);
            story.figure_of(of.dataset, &id("start"), e.start[n]);
            story.figure_of(of.dataset, &id("on_broken"), e.on_broken[n]);
            story.figure_of(of.dataset, &id("largest"), e.largest[n]);
        }
        story.figure_of(of.pairs, "attn_diff.self", self.comparing.mean_to_self);
        story.figure_of(of.pairs, "attn_diff.mirror", self.comparing.mean_to_mirror);
        for (n, looks) in self.comparing.heads.iter().enumerate() {
            let id = |what: &str| format!("attn.pairs.0.{n}.{what}");
            story.figure_of(of.pairs, &id("mirror_first_equal"), &looks.mirror_first);
            story.figure_of(of.pairs, &id("self_first_broken"), &looks.self_first);
            story.figure_of(of.pairs, &id("mirror_equal"), &looks.mirror_equal);
            story.figure_of(of.pairs, &id("mirror_broken"), &looks.mirror_broken);
            story.figure_of(of.pairs, &id("self_equal"), &looks.self_equal);
            story.figure_of(of.pairs, &id("self_broken"), &looks.self_broken);
            story.figure_of(of.pairs, &id("sum_equal"), looks.both_equal());
            story.figure_of(of.pairs, &id("sum_broken"), looks.both_broken());
            story.figure_of(of.pairs, &id("more_when_broken"), &looks.more_when_broken);
        }
        let r = &self.repeats;
        story.figure("repeats.from_last", &r.from_last);
        let lambda = r.mirrored.iter().zip(&r.on_lambda);
        let lambda = lambda.map(|(p, [without, with])| {
            json!({"position": p, "without_positions": without, "with_positions": with})
        });
        story.figure("repeats.lambda", lambda.collect::<Vec<_>>());
    }

    fn vector_figures(&self, story: &mut Story) {
        let of = self.origins;
        let v = &self.vectors;
        story.figure_of(of.dataset, "k_composition.cosine", &v.key_cosines);
        story.figure_of(
            of.dataset,
            "v_composition.dla",
            v.attribution_of(PUBLISHED_SHARE),
        );
        story.figure_of(of.dataset, "difference_vectors.cosine", &v.cosines);
        story.figure("cosine.chance.keys", v.key_chance);
        story.figure("cosine.chance.vectors", v.vector_chance);

        let c = &self.circuits;
        story.figure_of(of.dataset, "ln1_scale.mean", &c.scale_mean);
        story.figure_of(of.dataset, "ln1_scale.std", &c.scale_std);
        story.figure("qk_full", &c.full);
        story.figure("qk_embed.own_last", &c.own_last);
        story.figure_of(of.dataset, "qk_embed.softmax", &c.tokens);
        story.figure_of(of.dataset, "qk_pos.softmax", &c.positions);
        let first = json!({"mirror": c.mirror_first, "self": c.self_first});
        story.figure_of(of.dataset, "qk_pos.first", first);
        story.figure_of(of.hundred, "qk_embed.top1", c.top1);
        let s = &self.scores;
        story.figure("composition", json!({"Q": s.Q, "K": s.K, "V": s.V}));
        story.figure("composition.random_baseline", s.baseline.mean);
        story.figure("composition.random_baseline.std", s.baseline.std);
        story.figure_of(of.hundred, "v_composition.example", self.composed.example);
        story.figure_of(
            of.hundred,
            "v_composition.std",
            self.composed.values_spread(),
        );
        story.figure("v_composition.positions", &self.composed.to_logits);
        story.figure("k_composition.positions", &self.composed.to_attention);
        let written: Vec<f64> = self.composed.written.iter().map(|w| w.value.mean).collect();
        story.figure_of(of.hundred, "v_composition.written", written);
        story.figure_of(of.hundred, "v_composition.values", &self.composed.values);
        let components = self.components.iter().map(|c| {
            let means = c.summaries.iter().map(|of| of.value.mean);
            (c.component.to_string(), means.collect::<Vec<f64>>())
        });
        let components: std::collections::BTreeMap<_, _> = components.collect();
        story.figure_of(of.dataset, "components.by_class", components);
    }
}
