//! The study told as a story.

mod answers;
mod fixed;
mod gate;
mod plot;
mod scrubbed;

use super::TwoIntegerStudy;
use crate::study::words::percent;
use crate::study::{Outcome, Story};

/// What an AND gate has to tell of the answers to be what the model does.
const GATE: f64 = 0.93;

impl TwoIntegerStudy {
    /// The study as a report's steps and figures; `model` says where the model is from.
    pub fn story(&self, model: &str) -> Story {
        let c = &self.config;
        let model = format!(
            "{model}: 1 layer of {} heads and {} neurons, d_model {}, d_head {}; all {} pairs",
            c.n_heads,
            c.d_mlp.unwrap_or_default(),
            c.d_model,
            c.d_head,
            self.labels.len()
        );
        let title = "How a transformer labels pairs of integers";
        let mut story = Story::new("two-integer", title, &model);
        story.steps = vec![
            self.answered(),
            self.attention_fixed(),
            self.in_a_plane(),
            self.gated(),
            self.by_neuron(),
            self.weighed(),
            self.on_lines(),
            self.pushed(),
            self.scrubbed(),
            self.at_the_edge(),
        ];
        story.summary = self.summary(&story);
        self.figures(&mut story);
        story.publish(include_str!("../published.json"));
        story
    }

    fn summary(&self, story: &Story) -> Vec<String> {
        let held = |s: &&crate::study::Step| s.verdict.outcome == Outcome::Holds;
        vec![
            format!(
                "The write-up says: attention brings a vector of `A` and a vector of `B` to `=`, in shares that hardly depend on \
                 the input. Their sum lies nearly in a plane. Two thresholds in it, the filters, each let about a half pass; the \
                 MLP answers 1 where both do. Each filter is a number of `A` plus a number of `B`, read off the weights. On this \
                 model {} of {} claims hold.",
                story.steps.iter().filter(held).count(),
                story.steps.len()
            ),
            format!(
                "It gives {} of the pairs their label; with its attention fixed, {}. The AND gate tells {} of its answers, and \
                 {} of those with fixed attention.",
                percent(self.full.agrees),
                percent(self.fixed.agrees),
                percent(self.full.plane.gate.agreement()),
                percent(self.fixed.plane.gate.agreement())
            ),
        ]
    }

    fn figures(&self, story: &mut Story) {
        let full = self.full.agrees;
        story.figure("model.agreement_with_truth", full);
        // Where all mistakes are on the half that was held out.
        story.figure("challenge.test_accuracy", 1.0 - 2.0 * (1.0 - full));
        let kept = self.fixed_agrees_with_full();
        story.figure("fixed_attention.agreement_with_model", kept);
        story.figure("fixed_attention.agreement_with_truth", self.fixed.agrees);
        for (id, answered) in [("full_model", &self.full), ("fixed_attention", &self.fixed)] {
            let gate = &answered.plane.gate;
            story.figure(&format!("and_gate.{id}"), gate.agreement());
            let gate = &answered.plane.first_two.gate;
            story.figure(
                &format!("and_gate.{id}.first_two_components"),
                gate.agreement(),
            );
        }
        story.figure("filters.and.vs_fixed", self.filters.agrees_with_fixed);
        story.figure("filters.and.vs_full", self.filters.agrees_with_full);
        for (id, scrubs) in ["full_model", "fixed_attention"].iter().zip(&self.scrubs) {
            let left = scrubs.together().map(|t| t.scrubbed.scrubbed);
            story.figure(&format!("causal_scrubbing.{id}"), left);
        }
    }
}
