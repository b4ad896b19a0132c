//! The study's figures by their ids.

use crate::study::Story;
use crate::study::two_integer::{Scrubs, TwoIntegerStudy};
use serde_json::{Map, json};

impl TwoIntegerStudy {
    pub(super) fn figures(&self, story: &mut Story) {
        story.figure("model.agreement_with_truth", self.full.agrees);
        story.figure("challenge.test_accuracy", self.challenge_accuracy());
        if let Some(held_out) = self.held_out {
            story.figure("held_out.accuracy", held_out.accuracy());
        }
        story.figure("attention.mean", &self.attention.mean);
        let kept = self.fixed_agrees_with_full();
        story.figure("fixed_attention.agreement_with_model", kept);
        story.figure("fixed_attention.agreement_with_truth", self.fixed.agrees);
        let between = self.between.iter().map(|b| [b.share, b.agrees]);
        story.figure("attention.between", between.collect::<Vec<_>>());
        let models = [("full_model", &self.full), ("fixed_attention", &self.fixed)];
        for (id, answered) in models {
            let plane = &answered.plane;
            story.figure(&format!("and_gate.{id}"), plane.gate.agreement());
            let first_two = &plane.first_two.gate;
            story.figure(
                &format!("and_gate.{id}.first_two_components"),
                first_two.agreement(),
            );
            story.figure(&format!("and_gate.{id}.fitted"), first_two);
            story.figure(&format!("and_gate.{id}.passing"), answered.passing());
            story.figure(
                &format!("one_line.{id}"),
                [plane.one_line, answered.after.one_line],
            );
            story.figure(&format!("variance.{id}"), &plane.shares);
        }
        story.figure("filters.and.vs_fixed", self.filters.agrees_with_fixed);
        story.figure("filters.and.vs_full", self.filters.agrees_with_full);
        story.figure("filters.and.vs_truth", self.filters.agrees_with_labels);
        let vectors = self
            .filters
            .filters
            .each_ref()
            .map(|f| json!({"A": f.of_a, "B": f.of_b}));
        story.figure("filters.vectors", vectors);
        story.figure("filters.regular", self.integers.regular);
        let ruled = self.integers.ruled_agrees_with_full;
        story.figure("filters.ruled.vs_full", ruled);
        let correlations = self.filters.filters.each_ref().map(|f| f.correlation);
        story.figure("filters.lines", correlations);
        for (id, of) in [("full", 0), ("fixed", 1)] {
            let vectors = &self.vectors[of];
            story.figure(&format!("mlp.neurons.{id}"), &self.neurons[of].agrees);
            story.figure(&format!("vectors.random.{id}"), &vectors.random);
            story.figure(&format!("vectors.along.{id}"), &vectors.along);
            let scrubs = self.scrubs[of].as_ref();
            story.figure(
                &format!("scrub.{id}"),
                scrubs.map(|s| by_name(s, |t| t.left, s.none)),
            );
            story.figure(
                &format!("scrub.{id}.error"),
                scrubs.map(|s| by_name(s, |t| t.error, 0.0)),
            );
            story.figure(
                &format!("scrub.{id}.lost"),
                scrubs.map(|s| by_name(s, |t| s.lost(t), 0.0)),
            );
            let third = scrubs.map(|s| s.test("1*").left - s.test("1").left);
            story.figure(&format!("scrub.{id}.third"), third);
        }
        for (id, scrubs) in ["full_model", "fixed_attention"].iter().zip(&self.scrubs) {
            let left = scrubs.as_ref().map(|s| s.together().left);
            story.figure(&format!("causal_scrubbing.{id}"), left);
        }
        story.figure("wrong.curves", &self.edges);
        story.figure("wrong.fixed", &self.margins);
    }
}

/// A number of each exchange by its name, and that with nothing exchanged.
fn by_name(
    scrubs: &Scrubs,
    of: impl Fn(&crate::study::two_integer::Test) -> f64,
    none: f64,
) -> Map<String, serde_json::Value> {
    let exchanged = scrubs
        .tests
        .iter()
        .map(|t| (t.name.to_string(), json!(of(t))));
    std::iter::once(("none".to_string(), json!(none)))
        .chain(exchanged)
        .collect()
}
