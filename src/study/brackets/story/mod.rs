//! The study told: steps, tables and pictures.

mod agreement;
mod answers;
mod beyond;
mod circuit;
mod counting;
mod elevation;
mod figures;
mod fooled;
mod heads;
mod negative;
mod pictures;
mod summary;

use super::BracketsStudy;
use crate::study::{Conclusion, Outcome, Story};

impl BracketsStudy {
    /// The study as a story, with every figure of the write-up. `model` says where the model is from.
    pub fn story(&self, model: &str) -> Story {
        let model = format!(
            "{model}: {}; {} strings",
            self.model, self.performance.sequences
        );
        let mut story = Story::new(
            "brackets",
            "How a transformer tells whether brackets are balanced",
            &model,
        );
        story.steps = vec![
            self.answered(),
            self.solved_by_hand(),
            self.lengths(),
            self.followed_back(),
            self.taken_apart(),
            self.by_failure(),
            self.agreed(),
            self.by_share(),
            self.copied_from_one(),
            self.begins_closing(),
            self.before_the_head(),
            self.helped(),
            self.by_neuron(),
            self.neurons_by_layer(),
            self.counted(),
            self.opposite(),
            self.read_and_said(),
            self.before_negative(),
            self.negative_found(),
            self.fooled(),
            self.why_fooled(),
        ];
        if !self.performance.tells() {
            // Numbers of a model that tells nothing apart may be as a claim has them; they say nothing of how it tells.
            const OF_ANY_MODEL: [&str; 4] = ["answers", "solutions", "lengths", "direction"];
            let mechanism = story.steps.iter_mut();
            for step in mechanism.filter(|s| !OF_ANY_MODEL.contains(&s.id.as_str())) {
                if step.verdict.outcome == Outcome::Holds {
                    step.verdict = Conclusion::not_applicable(
                        "the model tells balanced strings from others little better than one answer for all would",
                    );
                }
            }
        }
        // After what it is made of, before what fools it.
        let circuit = self.circuit(&story);
        let at = story.steps.iter().position(|s| s.id == "adversarial");
        story.steps.insert(at.expect("it is there"), circuit);
        story.summary = self.summary(&story);
        self.figures(&mut story);
        story.publish(include_str!("../published.json"));
        story
    }
}
