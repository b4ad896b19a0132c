//! The study's figures by their ids: those that begin with `nanda` are of "Progress measures for grokking", the others of
//! "A Toy Model of Universality", under the names of its own files.

use crate::study::Story;
use crate::study::modular_addition::{Losses, ModularAdditionStudy, OWN, Scores};
use serde_json::json;
use std::collections::BTreeMap;

/// So many frequencies are listed by their norm.
const LISTED: usize = 10;
/// So many pairs of the split are listed.
const PAIRS: usize = 10;

impl ModularAdditionStudy {
    pub(super) fn figures(&self, story: &mut Story) {
        self.of_losses(story);
        self.of_weights(story);
        self.of_hidden(story);
        self.of_logits(story);
        self.of_table(story);
        self.of_waves(story);
        self.of_neurons(story);
        self.of_attention(story);
        self.of_parts(story);
    }

    fn of_losses(&self, story: &mut Story) {
        story.figure("train_loss", self.loss.train);
        story.figure("test_loss", self.loss.test);
        story.figure("all_loss", self.loss.all);
        story.figure("train_acc", self.accuracy.train);
        story.figure("test_acc", self.accuracy.test);
        story.figure("all_acc", self.accuracy.all);
        story.figure("n_train", self.split.order.len());
        let first = self.split.order.iter().take(PAIRS);
        story.figure("train_indices_first10", first.collect::<Vec<_>>());
        story.figure("split", &self.split);
        story.figure("clock", self.clock);
        story.figure("clock.way", self.clock.way());
        if let Some(training) = &self.training {
            story.figure("training", training);
        }
    }

    fn of_weights(&self, story: &mut Story) {
        let keys = self.keys();
        let embedding = &self.weights.embedding;
        // One table embeds both.
        for x in ["x", "y"] {
            story.figure(
                &format!("percent_{x}_embed_trivial_rep"),
                embedding.shares[0],
            );
            for &k in keys {
                story.figure(
                    &format!("percent_{x}_embed_freq_{k}_rep"),
                    embedding.shares[k],
                );
            }
            story.figure(
                &format!("percent_{x}_embed_explained"),
                embedding.share(keys),
            );
        }
        let unembedding = &self.weights.neurons_to_logits;
        story.figure("percent_unembed_trivial_rep", unembedding.shares[0]);
        for &k in keys {
            story.figure(
                &format!("percent_unembed_freq_{k}_rep"),
                unembedding.shares[k],
            );
        }
        story.figure("percent_unembed_explained", unembedding.share(keys));
        story.figure("allfreq.percent_x_embed", &embedding.shares[1..]);
        story.figure("allfreq.percent_unembed", &unembedding.shares[1..]);
        for (id, of) in [("we", embedding), ("wl", unembedding)] {
            story.figure(&format!("nanda.{id}_fourier_norms"), &of.row_norms);
            story.figure(&format!("nanda.{id}_freq_norms"), &of.norms[1..]);
            let order = of.in_order();
            let listed = &order[..order.len().min(LISTED)];
            story.figure(&format!("nanda.{id}_freqs_by_norm_top10"), listed);
            story.figure(&format!("nanda.{id}_gini"), of.gini);
        }
        let share = unembedding.share(keys);
        story.figure("nanda.wl_key_fve", share);
        let left: f64 = (0..unembedding.shares.len())
            .filter(|k| !keys.contains(k))
            .map(|k| unembedding.shares[k])
            .sum();
        story.figure("nanda.wl_key_residual_norm_ratio", left.sqrt());
        let centred = self.weights.centred_share(keys);
        story.figure("nanda.wl_key_fve_centred", centred);
        let rank = 2 * keys.len();
        story.figure("nanda.wl_best_rank_fve", self.weights.best_rank(rank));
        story.figure(
            "sum_sq_all_params",
            self.weights.squares.values().sum::<f64>(),
        );
        story.figure("sum_sq_per_param", &self.weights.squares);
        // The published code sums over parameters of this name; TransformerLens has none.
        let named = self.weights.squares.iter();
        let named = named.filter(|(name, _)| name.contains("weight"));
        story.figure("sum_of_squared_weights", named.map(|(_, s)| s).sum::<f64>());
    }

    fn of_hidden(&self, story: &mut Story) {
        let (keys, h) = (self.keys(), &self.hidden);
        // Around each neuron's mean nothing is constant.
        for of in ["percent_hidden_x", "percent_hidden_y", "percent_hidden_xy"] {
            story.figure(&format!("{of}_trivial_rep"), 0.0);
        }
        story.figure("total_percent_hidden_trivial_rep", 0.0);
        let shares = [("x", &h.of_a), ("y", &h.of_b), ("xy", &h.of_sum)];
        for (x, of) in shares {
            story.figure(&format!("allfreq.percent_hidden_{x}"), of);
            for &k in keys {
                story.figure(&format!("percent_hidden_{x}_freq_{k}_rep"), of[k - 1]);
            }
        }
        for &k in keys {
            story.figure(&format!("total_percent_hidden_freq_{k}_rep"), h.total(k));
        }
        story.figure("percent_hidden_explained", self.hidden_explained());
        story.figure("percent_hidden_xy_explained", self.hidden_sum_explained());
        story.figure("hidden_excluded_loss_trivial_rep", h.excluded[0]);
        story.figure("hidden_restricted_loss_trivial_rep", h.restricted[0]);
        for &k in keys {
            story.figure(&format!("hidden_excluded_loss_freq_{k}_rep"), h.excluded[k]);
            story.figure(
                &format!("hidden_restricted_loss_freq_{k}_rep"),
                h.restricted[k],
            );
        }
        story.figure("allfreq.hidden_excluded_loss", &h.excluded[1..]);
        story.figure("allfreq.hidden_restricted_loss", &h.restricted[1..]);
        story.figure("total_hidden_excluded_loss", h.excluded_keys);
        story.figure("total_hidden_restricted_loss", h.restricted_keys);
        story.figure(
            "test_loss_restricted_loss_ratio",
            self.loss.test / h.restricted_keys,
        );
        story.figure("nanda.hidden_key_blocks_fve", h.in_key_blocks);
        let written = |i: usize| h.written.iter().map(move |w| w[i]);
        for (i, id) in [(0, "u_cos"), (1, "v_sin")] {
            let explained: Vec<f64> = written(i).map(|w| w.explained).collect();
            let coefficients: Vec<f64> = written(i).map(|w| w.coefficient).collect();
            story.figure(&format!("nanda.mlp_{id}_fve"), explained);
            story.figure(&format!("nanda.mlp_{id}_coef"), coefficients);
        }
    }

    fn of_logits(&self, story: &mut Story) {
        let l = &self.logits;
        for &k in self.keys() {
            let similarity = l.similarities[k - 1];
            story.figure(&format!("logit_freq_{k}_rep_trace_similarity"), similarity);
            story.figure(
                &format!("logit_excluded_loss_freq_{k}_rep"),
                l.excluded[k - 1],
            );
            story.figure(
                &format!("logit_restricted_loss_freq_{k}_rep"),
                l.restricted[k - 1],
            );
        }
        story.figure("allfreq.logit_trace_similarity", &l.similarities);
        story.figure("allfreq.logit_excluded_loss", &l.excluded);
        story.figure("allfreq.logit_restricted_loss", &l.restricted);
        story.figure("percent_logits_explained", l.explained.all_waves);
        story.figure("total_logit_excluded_loss", l.excluded_keys);
        story.figure("total_logit_restricted_loss", l.restricted_keys.all);
        story.figure("key_freqs.logit_similarity", self.keys());
    }

    /// The write-up's table of its models.
    fn of_table(&self, story: &mut Story) {
        story.figure("table.test_loss", self.loss.test);
        story.figure("table.exc_loss", self.hidden.excluded_keys);
        story.figure("table.res_loss", self.hidden.restricted_keys);
        story.figure("table.logit_fve", self.logits.explained.all_waves);
        story.figure("table.w_e_fve", self.weights.embedding.share(self.keys()));
        story.figure(
            "table.w_u_fve",
            self.weights.neurons_to_logits.share(self.keys()),
        );
        story.figure("table.mlp_fve", self.hidden_explained());
        story.figure("table.mlp_rho_ab_fve", self.hidden_sum_explained());
    }

    fn of_waves(&self, story: &mut Story) {
        let l = &self.logits;
        story.figure("nanda.logit_cos_coef_unit", &l.along);
        story.figure("nanda.logit_cos_amp", &l.amplitudes);
        story.figure("nanda.logit_cos_fve_key", l.explained.by_pair);
        let both = l.explained.by_pair_and_answer;
        story.figure("nanda.logit_cos_fve_key_double_centred", both);
        story.figure(
            "nanda.logit_cos_fve_key_global_mean",
            l.explained.by_one_mean,
        );
        story.figure("nanda.logit_cos_fve_key_uncentred", l.explained.uncentred);
        story.figure("nanda.logit_trig_loss", l.restricted_keys);
        let mut all = |id: &str, losses: &Losses| {
            story.figure(&format!("nanda.{id}_all"), losses.all);
            story.figure(&format!("nanda.{id}_train"), losses.train);
            story.figure(&format!("nanda.{id}_test"), losses.test);
        };
        all("restricted_loss", &l.sums.restricted);
        all("excluded_loss", &l.sums.excluded);
        all("restricted_loss_products", &l.products.restricted);
        all("excluded_loss_products", &l.products.excluded);
        let each = |of: fn(&Losses) -> f64| l.sums.excluded_each.iter().map(of).collect::<Vec<_>>();
        story.figure("nanda.excluded_loss_each_all", each(|x| x.all));
        story.figure("nanda.excluded_loss_each_train", each(|x| x.train));
        story.figure("nanda.excluded_loss_each_test", each(|x| x.test));
        story.figure(
            "nanda.restricted_loss_codekeys_all",
            self.at_coded_keys.restricted.all,
        );
        story.figure(
            "nanda.excluded_loss_codekeys_train",
            self.at_coded_keys.excluded.train,
        );
        story.figure("nanda.logit_2d_fve_sum_dirs", l.sums.explained);
        story.figure("nanda.logit_2d_fve_products", l.products.explained);
        story.figure("nanda.logit_2d_top12_terms", &l.largest_terms);
        story.figure("nanda.logit_mean_norm", l.mean_norm);
    }

    fn of_neurons(&self, story: &mut Story) {
        let n = &self.neurons;
        let named = |counts: &BTreeMap<usize, usize>| -> BTreeMap<String, usize> {
            counts.iter().map(|(k, n)| (k.to_string(), *n)).collect()
        };
        story.figure("nanda.neuron_best_freq", &n.frequency);
        story.figure("nanda.neuron_best_fve", &n.explained);
        story.figure("nanda.neurons_dead", n.dead);
        story.figure("nanda.neurons_over_85", n.over());
        let share = n.over() as f64 / n.frequency.len() as f64;
        story.figure("nanda.neurons_over_85_share", share);
        story.figure("nanda.neurons_per_freq_all", named(&n.counts(0.0)));
        story.figure("nanda.neurons_per_freq_over_85", named(&n.counts(OWN)));
        story.figure("nanda.neuron_best_fve_mean", n.mean);
        story.figure("nanda.neuron_best_fve_weighted", n.weighted);
        let coded = &n.but_the_largest;
        let last = self.p() / 2 - 1;
        let id = format!("nanda.neurons_per_freq_code_1_to_{last}");
        story.figure(&id, named(&coded.neurons));
        story.figure(
            &format!("nanda.neurons_over_85_code_1_to_{last}"),
            coded.over,
        );
        story.figure("nanda.key_freqs_code", &coded.keys);
    }

    fn of_attention(&self, story: &mut Story) {
        let a = &self.attention;
        story.figure("nanda.attn_mean", &a.mean);
        story.figure("nanda.attn_std", &a.deviation);
        story.figure("nanda.attn_min", &a.least);
        story.figure("nanda.attn_max", &a.most);
        let heads = || a.to_a.iter();
        story.figure(
            "nanda.attn0_fve_a",
            heads().map(|h| h.by_a).collect::<Vec<_>>(),
        );
        story.figure(
            "nanda.attn0_fve_b",
            heads().map(|h| h.by_b).collect::<Vec<_>>(),
        );
        let rest = heads().map(|h| 1.0 - h.by_a - h.by_b);
        story.figure("nanda.attn0_fve_interaction", rest.collect::<Vec<_>>());
        story.figure(
            "nanda.attn0_best_freq",
            heads().map(|h| h.frequency).collect::<Vec<_>>(),
        );
        story.figure(
            "nanda.attn0_best_fve",
            heads().map(|h| h.explained).collect::<Vec<_>>(),
        );
        for (x, scores) in ["a", "b"].iter().zip(&a.scores) {
            let all = |of: fn(&Scores) -> f64| scores.iter().map(of).collect::<Vec<_>>();
            story.figure(&format!("nanda.attn_score_{x}_std"), all(|s| s.deviation));
            let frequencies: Vec<usize> = scores.iter().map(|s| s.frequency).collect();
            story.figure(&format!("nanda.attn_score_{x}_top_freq"), frequencies);
            story.figure(&format!("nanda.attn_score_{x}_top_share"), all(|s| s.share));
            story.figure(&format!("nanda.attn_score_{x}_key_share"), all(|s| s.keys));
        }
        story.figure("nanda.attn_score_eq", &a.of_equals);
        let both = a.scores[0].iter().zip(&a.scores[1]);
        let means: Vec<_> = both.map(|(a, b)| json!([a.mean, b.mean])).collect();
        story.figure("nanda.attn_score_mean_ab", means);
    }

    fn of_parts(&self, story: &mut Story) {
        let r = &self.replaced;
        story.figure("nanda.loss_mean_attention", r.mean_attention);
        story.figure("nanda.acc_mean_attention", r.mean_attention_accuracy);
        story.figure("nanda.loss_half_attention", r.half_attention);
        story.figure("nanda.loss_no_skip_around_mlp", r.no_skip);
        story.figure("nanda.skip_logit_norm_ratio", r.skip_norm);
        story.figure("nanda.loss_wl_key_only", r.keys_alone);
        story.figure("nanda.loss_wl_key_only_no_skip", r.keys_alone_no_skip);
        story.figure("nanda.loss_neurons_deg2", r.fitted_neurons);
    }

    /// The share of the neurons along functions of `a`, of `b` and of their sum at the key frequencies.
    pub(super) fn hidden_explained(&self) -> f64 {
        self.keys().iter().map(|&k| self.hidden.total(k)).sum()
    }

    /// The same of the sum alone.
    pub(super) fn hidden_sum_explained(&self) -> f64 {
        self.keys().iter().map(|&k| self.hidden.of_sum[k - 1]).sum()
    }
}
