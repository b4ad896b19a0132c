//! The study told as a story.

mod answers;
mod figures;
mod fixed;
mod gate;
mod integers;
mod mlp;
mod plot;
mod scrubbed;
mod vectors;
mod wrong;

use super::TwoIntegerStudy;
use crate::study::one_layer;
use crate::study::words::percent;
use crate::study::{Outcome, Story};

/// What an AND gate has to tell of the answers to be what the model does.
const GATE: f64 = 0.93;

impl TwoIntegerStudy {
    /// The study as a report's steps and figures; `model` says where the model is from.
    pub fn story(&self, model: &str) -> Story {
        let model = one_layer::in_words(&self.config, model, self.labels.len());
        let title = "How a transformer labels pairs of integers";
        let mut story = Story::new("two-integer", title, &model);
        story.steps = vec![
            self.answered(),
            self.attention_fixed(),
            self.in_a_plane(),
            self.gated(),
            self.by_neuron(),
            self.weighed(),
            self.over_integers(),
            self.pushed(),
            self.shifted(),
            self.on_lines(),
            self.scrubbed(),
            self.by_heart(),
            self.at_curves(),
            self.at_the_edge(),
            self.attention_between(),
        ];
        story.summary = self.summary(&story);
        self.figures(&mut story);
        story.publish(include_str!("../published.json"));
        story
    }

    /// What is told first: of the mechanism, what holds on this model.
    fn summary(&self, story: &Story) -> Vec<String> {
        let mut mechanism = Vec::new();
        // Of a model that does not know the labels, it would be a mechanism of something else.
        if story.holds("labels") {
            let sentences = [
                ("attention", self.on_attention()),
                ("gate", self.on_gate()),
                (
                    "neurons",
                    "The MLP makes this AND: past it one threshold is enough.".into(),
                ),
                ("filters", self.on_filters()),
                ("scrubbing", self.on_scrubbing()),
                ("by-heart", self.on_learning()),
            ];
            let found = sentences.into_iter().filter(|(id, _)| story.holds(id));
            mechanism = found.map(|(_, sentence)| sentence).collect();
        }
        let told = mechanism.join(" ");
        let held_out = self.held_out.map_or(String::new(), |h| {
            format!(
                " Of the pairs that it was not trained on, {} get it.",
                percent(h.accuracy())
            )
        });
        let all = story
            .steps
            .iter()
            .filter(|s| s.verdict.outcome == Outcome::Holds);
        let numbers = format!(
            "This model gives {} of the pairs their label; with its attention fixed, {}.{held_out} Of the write-up's {} claims {} \
             hold on it.",
            percent(self.full.agrees),
            percent(self.fixed.agrees),
            story.steps.len(),
            all.count()
        );
        match told.is_empty() {
            true => vec![numbers],
            false => vec![told, numbers],
        }
    }

    fn on_attention(&self) -> String {
        format!(
            "Attention brings a vector of `A` and one of `B` to `=`; how it varies hardly matters: fixed to its mean, the model still \
             gives {} of its answers.",
            percent(self.fixed_agrees_with_full())
        )
    }

    fn on_gate(&self) -> String {
        let [first, second] = self.full.passing();
        format!(
            "The answer is 1 where the stream there passes two thresholds in a plane, the filters: their AND tells {} of the answers \
             ({} with fixed attention); {} and {} of the pairs pass them.",
            percent(self.full.plane.gate.agreement()),
            percent(self.fixed.plane.gate.agreement()),
            percent(first),
            percent(second)
        )
    }

    fn on_filters(&self) -> String {
        format!(
            "Each filter is a number of `A` plus a number of `B`, read off the weights; both tell {} of the answers with fixed \
             attention, and {} of the model's.",
            percent(self.filters.agrees_with_fixed),
            percent(self.filters.agrees_with_full)
        )
    }

    fn on_scrubbing(&self) -> String {
        let lost = self.scrubs.each_ref().map(|scrubs| {
            let lost = |s: &super::Scrubs| format!("{:.1}", 100.0 * s.lost(s.together()));
            scrubs.as_ref().map_or(String::new(), lost)
        });
        format!(
            "Everything else may be exchanged between inputs, at a cost of {} points ({} with fixed attention).",
            lost[0], lost[1]
        )
    }

    fn on_learning(&self) -> String {
        "So the labels are kept as four vectors with a number for each integer: learnt by heart, with no equation to be found in \
         the numbers."
            .into()
    }
}
