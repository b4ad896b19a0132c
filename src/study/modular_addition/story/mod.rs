//! The study told as a story.

mod answers;
mod attention;
mod figures;
mod losses;
mod neurons;
mod trained;
mod weights;

use super::{ModularAdditionStudy, Way};
use crate::study::one_layer;
use crate::study::words::{number, percent};
use crate::study::{ChartAxis, HeatMap, Number, Outcome, Story};
use crate::task::{Operation, Task};

impl ModularAdditionStudy {
    /// The study as a report's steps and figures; `model` says where the model is from.
    pub fn story(&self, model: &str) -> Story {
        let model = one_layer::in_words(&self.config, model, self.split.trained.len());
        let title = format!("How a transformer {} modulo {}", self.does(), self.p());
        let mut story = Story::new("modular-addition", &title, &model);
        story.steps = vec![
            self.answered(),
            self.embedded(),
            self.unembedded(),
            self.in_waves(),
            self.one_by_one(),
            self.together(),
            self.written(),
            self.restricted(),
            self.attended(),
            self.past_the_neurons(),
            self.told_apart(),
            self.grokked(),
        ];
        story.summary = self.summary(&story);
        self.figures(&mut story);
        story.publish(include_str!("../published.json"));
        story
    }

    fn does(&self) -> &'static str {
        match self.task.operation() {
            Operation::Add => "adds",
            Operation::Subtract => "subtracts",
        }
    }

    /// The key frequencies as words: `16, 30 and 56`.
    fn keys_in_words(&self) -> String {
        let keys: Vec<String> = self.keys().iter().map(usize::to_string).collect();
        match keys.split_last() {
            None => "none".into(),
            Some((last, [])) => last.clone(),
            Some((last, others)) => format!("{} and {last}", others.join(", ")),
        }
    }

    /// What is told first: of the mechanism, what holds on this model.
    fn summary(&self, story: &Story) -> Vec<String> {
        let mut mechanism = Vec::new();
        // Of a model that does not add, it would be a mechanism of something else.
        if story.holds("answers") && story.holds("waves") {
            mechanism.push(format!(
                "The logits are waves `cos(w (a + b - c))` of {} frequencies, {}: they hold {} of the logits' squared norm, \
                 and on their own they answer with a loss of {}.",
                self.keys().len(),
                self.keys_in_words(),
                percent(self.logits.explained.by_pair),
                number(self.logits.restricted_keys.all)
            ));
            if story.holds("embedding") {
                mechanism.push(format!(
                    "These frequencies hold {} of `W_E`.",
                    percent(self.weights.embedding.share(self.keys()))
                ));
            }
            if story.holds("neurons") {
                mechanism.push(format!(
                    "Of {} neurons {} are made of one frequency's cosines, sines and products.",
                    self.neurons.explained.len(),
                    self.neurons.over()
                ));
            }
            match self.clock.way() {
                Way::Clock => mechanism.push("It adds as a clock does.".into()),
                Way::Pizza => mechanism.push("It adds as a pizza does.".into()),
                Way::Between => {}
            }
        }
        let holding = story
            .steps
            .iter()
            .filter(|s| s.verdict.outcome == Outcome::Holds);
        let numbers = format!(
            "This model is right on {} of the pairs; its loss is {} on those that it was trained on, and {} on the others. Of \
             the write-ups' {} claims {} hold on it.",
            percent(self.accuracy.all),
            number(self.loss.train),
            number(self.loss.test),
            story.steps.len(),
            holding.count()
        );
        match mechanism.is_empty() {
            true => vec![numbers],
            false => vec![mechanism.join(" "), numbers],
        }
    }

    /// A number for every pair, as a heat map.
    fn over_pairs<N: Copy + Into<Number>>(&self, title: &str, values: &[N]) -> HeatMap {
        let names = self.task.classes();
        let b = match self.task.operation() {
            Operation::Add => "b",
            Operation::Subtract => "-b",
        };
        HeatMap::new(
            title,
            ChartAxis::new("a", &names),
            ChartAxis::new(b, &names),
            values,
        )
    }
}
