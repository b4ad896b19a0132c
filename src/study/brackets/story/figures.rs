//! Every figure by its id.

use super::counting::PATCHES;
use crate::metric::mean;
use crate::study::brackets::written::TALLY;
use crate::study::brackets::{Along, BracketsStudy, LastHead, NeuronSide, Suffix};
use crate::study::{Provenance, Story};
use serde_json::{Value, json};

impl BracketsStudy {
    /// Every figure by the name that it has for the write-up's model, whichever heads play its parts here.
    pub(super) fn figures(&self, story: &mut Story) {
        let p = &self.performance;
        let differences = |all: &[Along]| -> serde_json::Map<String, Value> {
            let each = all
                .iter()
                .map(|a| (a.component.clone(), a.difference.into()));
            each.collect()
        };
        let examples: Vec<f64> = p.examples.iter().map(|e| e.p_balanced).collect();
        story.figure("examples.p_balanced", examples);
        story.figure_of(self.data.origin, "correct", p.right);
        story.figure("advex.p_balanced", self.adversarial.published.p_balanced);
        story.figure("advex.family", &self.adversarial.family);
        story.figure_of(self.data.origin, "ln_fit.final.r2", self.directions.last.r2);
        story.figure_of(
            self.data.origin,
            "ln_fit.1.ln1.r2",
            self.directions.second.r2,
        );
        story.figure_of(self.data.origin, "ov00.cosine", self.counter().cosine);
        for (layer, mean) in self.counting.mean_squared_cosines().into_iter().enumerate() {
            story.figure_of(
                self.data.origin,
                &format!("mlp_in.{layer}.mean_sq_cosine"),
                mean,
            );
        }
        story.figure_of(self.data.origin, "residual_sum.max_error", self.sum_off);
        story.figure_of(
            self.data.origin,
            "components.unbalanced_dir",
            differences(&self.components),
        );
        story.figure_of(
            self.data.origin,
            "components.pre20_dir",
            differences(&self.components_before),
        );
        story.figure_of(
            self.data.origin,
            "attn.2.0.query0",
            &self.elevation_head().attention,
        );
        let failures = json!({"total_elevation": p.wrong_total, "negative": p.negative});
        story.figure_of(self.data.origin, "failures", failures);
        for neurons in &self.neurons {
            let id = format!("neurons.{}.pre20_dir", neurons.layer);
            story.figure_of(self.data.origin, &id, &neurons.difference);
        }
        self.more_figures(story);
    }

    /// The figures of what the write-up says without printing it.
    fn more_figures(&self, story: &mut Story) {
        let origin = self.data.origin;
        let p = &self.performance;
        let wrong = p.many_wrong as f64 / p.many as f64;
        story.figure_of(Provenance::Generated, "wrong_share.20000", wrong);
        let beside: Vec<f64> = self
            .adversarial
            .beside
            .iter()
            .map(|j| j.p_balanced)
            .collect();
        story.figure("advex.examples", beside);
        let cures = self.adversarial.cures.iter();
        let cures = cures.map(|c| {
            json!({"i": c.i, "as_is": c.as_is, "even_there": c.even_there, "even_everywhere": c.even_everywhere,
                "looked_at": c.looked_at, "balanced_looked_at": c.balanced_looked_at, "attention": c.attention})
        });
        story.figure("advex.cures", cures.collect::<Vec<_>>());
        story.figure("mlp_in.random.mean_sq_cosine", self.chance_cosine());

        let b = &self.beyond;
        story.figure_of(origin, "lengths", &b.lengths);
        story.figure("positions.sine_error", b.sine_off);
        story.figure("parity_head.right", json!([b.parity.0, b.parity.1]));
        for (id, value) in [("odd", &b.odd), ("depths", &b.depths)] {
            story.figure_of(Provenance::Generated, &format!("beyond.{id}"), value);
        }
        story.figure_of(Provenance::Generated, "beyond.longer", &b.longer);

        let e = self.elevation_head();
        let closing = self.closing.of(e.head);
        let to_one = json!({"open": e.attention[TALLY], "open_std": e.attention_spread,
            "closing": closing.map(|c| c.attention[TALLY])});
        story.figure_of(origin, "attn.2.0.to_1", to_one);
        let with = |id: &str, f: &dyn Fn(&LastHead) -> Value| {
            let heads = [("2.0", e), ("2.1", self.negative_head())];
            let each = heads.map(|(name, head)| (format!("{name}.{id}"), f(head)));
            each.into_iter().collect::<Vec<_>>()
        };
        let by_kind = |h: &LastHead| {
            json!({"total_alone": h.elevation, "negative_alone": h.negative, "both": h.both,
                "tells_total": h.tells_elevation, "tells_negative": h.tells_negative, "tells_share": h.tells_share})
        };
        let begins = |h: &LastHead| match self.closing.of(h.head) {
            None => Value::Null,
            Some(c) => json!({"mean": c.mean, "least": c.least, "tells": c.tells,
                "right_without": c.right_without, "right_alone": c.right_alone}),
        };
        for (id, value) in with("by_failure", &by_kind)
            .into_iter()
            .chain(with("closing", &begins))
        {
            story.figure_of(origin, &format!("head.{id}"), value);
        }
        let names = self.components_before.iter().map(|a| a.component.clone());
        let by_kind: serde_json::Map<String, Value> = names
            .zip(self.before_by_kind().into_iter().map(|k| json!(k)))
            .collect();
        story.figure_of(origin, "components.pre20_dir.by_kind", by_kind);
        let before = self.negative.components.iter();
        let before: serde_json::Map<String, Value> =
            before.map(|(name, x)| (name.clone(), json!(x))).collect();
        story.figure_of(origin, "components.pre21_dir", before);
        story.figure_of(origin, "ln_fit.2.ln1.r2", self.directions.before_heads.r2);
        story.figure_of(
            origin,
            "ln_fit.2.ln1.brackets.r2",
            self.directions.at_brackets.r2,
        );
        story.figure_of(
            origin,
            "negative.2.1",
            self.negative.of(self.roles.negative),
        );
        story.figure_of(origin, "agreement", &self.agreement);
        story.figure_of(origin, "routes", &self.routes);

        let c = &self.counting;
        let shares = |suffixes: &[Suffix]| suffixes.iter().map(|s| s.share).collect::<Vec<_>>();
        let mean_of = |suffixes: &[Suffix], f: fn(&Suffix) -> f64| {
            mean(&suffixes.iter().map(f).collect::<Vec<_>>())
        };
        story.figure("attn.0.0.suffix.opening", shares(&c.suffixes));
        story.figure("attn.0.0.suffix.closing", shares(&c.closing_suffixes));
        let evenness: Vec<f64> = c.suffixes.iter().map(|s| s.evenness).collect();
        story.figure("attn.0.0.evenness", &evenness);
        let means = json!({"opening": mean_of(&c.suffixes, |s| s.share),
            "closing": mean_of(&c.closing_suffixes, |s| s.share), "even": mean_of(&c.suffixes, |s| s.even)});
        story.figure("attn.0.0.on_what_follows", means);
        let own = c.pattern(self.roles.counting);
        let [late, early] = PATCHES.map(|(queries, keys)| own.to_keys(queries, keys));
        story.figure(
            "attn.0.0.patch",
            json!({"from_27_to_31": late, "from_10": early}),
        );
        story.figure_of(origin, "attn.0.0.from_1", &c.from_tally);
        for pattern in &c.patterns {
            story.figure(&format!("attn.{}.by_position", pattern.head), pattern);
        }
        for neurons in &self.neurons {
            let layer = neurons.layer;
            story.figure_of(
                origin,
                &format!("neurons.{layer}.sides"),
                &neurons.fewer_and_more,
            );
            story.figure_of(origin, &format!("neurons.{layer}.kinds"), &neurons.sides);
            let counts: serde_json::Map<String, Value> = NeuronSide::ALL
                .iter()
                .map(|&side| (side.to_string(), json!(neurons.on(side).len())))
                .collect();
            story.figure_of(origin, &format!("neurons.{layer}.counts"), counts);
            story.figure_of(
                origin,
                &format!("mlp_in.{layer}.cosines"),
                &c.neuron_cosines[layer],
            );
        }
    }
}
