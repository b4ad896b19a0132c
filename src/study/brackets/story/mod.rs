//! The study told: steps, tables and pictures.

mod answers;
mod counting;
mod elevation;
mod fooled;
mod heads;
mod pictures;

use super::{Along, BracketsStudy};
use crate::study::{Outcome, Step, Story};

impl BracketsStudy {
    /// The study as a story, with every figure of the write-up.
    pub fn story(&self) -> Story {
        let mut story = Story::new(
            "brackets",
            "How a transformer tells whether brackets are balanced",
            &self.model,
        );
        let roles = self.roles;
        let wrong = self
            .adversarial
            .found
            .iter()
            .flatten()
            .filter(|j| j.fools())
            .count();
        story.steps = vec![
            self.answered(),
            self.solved_by_hand(),
            self.followed_back(),
            self.taken_apart(),
            self.by_failure(),
            self.by_share(),
            self.copied_from_one(),
            self.before_the_head(),
            self.by_neuron(),
            self.counted(),
            self.opposite(),
            self.negative_found(),
            self.fooled(),
        ];
        let held = |s: &&Step| s.verdict.outcome == Outcome::Holds;
        story.summary = vec![
            format!(
                "Read from the right, a string of brackets is balanced if at every place at least as many brackets have closed as \
                 opened, and as many in the end. A head of layer 0, here {}, counts what follows each position; the MLPs turn that \
                 count into a yes or no; of the last layer's heads, one, here {}, brings the answer about the whole string to \
                 position 0, where the verdict is read, and one, here {}, looks for a place where the count went negative. So says \
                 the write-up; on this model {} of {} claims hold.",
                roles.counting,
                roles.elevation,
                roles.negative,
                story.steps.iter().filter(held).count(),
                story.steps.len()
            ),
            format!(
                "The model is right on {} of {} strings. Attention averages, so that its count is not exact: of the {} strings that \
                 a search ended with, {wrong} fool it.",
                self.performance.right,
                self.performance.sequences,
                self.adversarial.found.iter().map(Vec::len).sum::<usize>()
            ),
        ];
        self.figures(&mut story);
        story.publish(include_str!("../published.json"));
        story
    }

    /// Every figure by the name that it has for the write-up's model, whichever heads play its parts here.
    fn figures(&self, story: &mut Story) {
        let p = &self.performance;
        let differences = |all: &[Along]| -> serde_json::Map<String, serde_json::Value> {
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
        let failures =
            serde_json::json!({"total_elevation": p.wrong_total, "negative": p.negative});
        story.figure_of(self.data.origin, "failures", failures);
        for neurons in &self.neurons {
            let id = format!("neurons.{}.pre20_dir", neurons.layer);
            story.figure_of(self.data.origin, &id, &neurons.difference);
        }
    }
}
