//! The study told as a story.

mod behaviour;
mod figures;
mod fooling;
mod mechanism;
mod needed;
mod qk;

use super::{Judged, PalindromeStudy};
use crate::study::Story;
use crate::study::words::percent;
use crate::task::{Palindromes, Task};

/// The classes, in their order.
const CLASSES: [&str; 2] = ["no palindrome", "palindrome"];

/// The steps that make up the write-ups' mechanism.
const MECHANISM: [&str; 6] = ["heads", "attention", "qk", "differences", "keys", "values"];

impl PalindromeStudy {
    /// The study as a report's steps and figures. Heads go by their own names in the text, and by the write-ups' in
    /// the figures' ids: `0.0` is [`Roles::comparing`](super::Roles::comparing), `1.0` is
    /// [`Roles::collecting`](super::Roles::collecting). `model` says where the model is from.
    pub fn story(&self, model: &str) -> Story {
        let c = &self.config;
        let model = format!(
            "{model}: {} layers of {} heads, d_model {}, d_head {}; {} sequences",
            c.n_layers, c.n_heads, c.d_model, c.d_head, self.performance.sequences
        );
        let mut story = Story::new("palindrome", "Is it a palindrome?", &model);
        story.steps = vec![
            self.answers(),
            self.patterns(),
            self.hypotheses(),
            self.heads(),
            self.head_losses(),
            self.looking_for(),
            self.repeating(),
            self.first_helper(),
            self.blind_spots(),
            self.moved(),
            self.two_places(),
            self.end_looks(),
            self.keys(),
            self.values(),
            self.direction(),
            self.why_weak(),
            self.positions(),
            self.compositions(),
            self.inputs_needed(),
            self.helpers(),
            self.at_end(),
            self.new_sequences(),
        ];
        story.summary = self.summary(&story);
        self.figures(&mut story);
        story.publish(include_str!("../published.json"));
        story
    }

    fn summary(&self, story: &Story) -> Vec<String> {
        let p = &self.performance;
        if !p.tells() {
            return vec![format!(
                "This model does not tell palindromes from other sequences: {} of its answers are right, and {} would \
                 be with the same answer to all. There is no mechanism to be found.",
                percent(p.accuracy),
                percent(p.constant)
            )];
        }
        let (comparing, collecting) = (self.roles.comparing(), self.roles.collecting());
        let [first, second] = [self.roles.first_helper(), self.roles.second_helper()];
        let lacking: Vec<String> = MECHANISM
            .iter()
            .filter(|id| !story.holds(id))
            .map(|id| format!("\"{}\"", story.step(id).title))
            .collect();
        let compared = self.comparing.compared();
        let mut summary = vec![if lacking.is_empty() {
            format!(
                "The mechanism is there. Head {comparing} looks from the values of the second half for the same value \
                 at the mirrored position: it looks there if it finds it, and else at itself, at {} of {} positions. \
                 Because the two places differ, so does what it writes: \"here is no mirror\" is told by the position \
                 that it looked at. Head {collecting} looks from `END` for that, and turns it into the answer.",
                compared.len(),
                self.comparing.positions.len()
            )
        } else {
            format!(
                "Of the {} claims that make up the write-ups' mechanism {} hold on this model; those of {} do not. Of \
                 its first layer head {comparing} is needed most, of its second head {collecting}.",
                MECHANISM.len(),
                MECHANISM.len() - lacking.len(),
                lacking.join(", ")
            )
        }];
        let blind = &self.adversarial.blind;
        summary.push(if blind.is_empty() {
            "No position is blind: a single broken pair is noticed everywhere more often than not.".into()
        } else {
            let foretold = if story.holds("keys") {
                format!(
                    " The weights tell so beforehand: what they make weak is {}.",
                    list(&self.vectors.weak)
                )
            } else {
                String::new()
            };
            format!(
                "The model is blind at {}: where a sequence is broken there alone, it passes for a palindrome more \
                 often than not.{foretold}",
                list(blind)
            )
        });
        if story.holds("helpers") {
            summary.push(format!(
                "Heads {first} and {second} make up for position {} and are hardly needed anywhere else.",
                self.targeted.helped
            ));
        }
        if story.holds("first-helper") {
            summary.push(format!(
                "Head {first} does the reverse there of what head {comparing} does: it shuns the same value, and looks \
                 at the mirror more if that is another one."
            ));
        }
        summary
    }

    /// The second half's positions with their mirrors, as labels: `10, 11`.
    fn pairs(&self) -> Vec<String> {
        let task = Palindromes::default();
        let positions = self.vectors.positions.iter();
        positions
            .map(|&p| format!("{}, {p}", task.mirror(p)))
            .collect()
    }
}

/// The numbers of a few positions in a sentence.
fn list(positions: &[usize]) -> String {
    let names: Vec<String> = positions.iter().map(usize::to_string).collect();
    match names.split_last() {
        None => "no position".into(),
        Some((only, [])) => format!("position {only}"),
        Some((last, rest)) => format!("positions {} and {last}", rest.join(", ")),
    }
}

/// What a claim leaves out, in a sentence: nothing where there is no such position.
fn but_at(positions: &[usize]) -> String {
    if positions.is_empty() {
        return String::new();
    }
    format!(" but at {}", list(positions))
}

/// A sequence's values, those in brackets that are not their mirrors'.
fn written(judged: &Judged) -> String {
    let task = Palindromes::default();
    let values = 1..task.positions() - 1;
    let word = |p: usize| {
        let name = task.vocabulary().name(judged.tokens[p]);
        let broken = judged.tokens[p] != judged.tokens[task.mirror(p)];
        if broken {
            format!("[{name}]")
        } else {
            name.to_string()
        }
    };
    values.map(word).collect::<Vec<_>>().join(" ")
}
