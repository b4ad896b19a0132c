//! What opens the report: what holds, and only that.

use crate::study::brackets::BracketsStudy;
use crate::study::words::percent;
use crate::study::{Outcome, Story};

impl BracketsStudy {
    /// A paragraph of the mechanism, as far as its steps hold, and one of how the model fares.
    pub(super) fn summary(&self, story: &Story) -> Vec<String> {
        let holds = |ids: &[&str]| ids.iter().all(|id| story.holds(id));
        let r = self.roles;
        let mut found = Vec::new();
        if holds(&["counting", "opposite"]) {
            found.push(format!(
                "Head {} counts: at every position it takes the mean of what follows, in which an opening and a closing bracket are \
                 opposite vectors.",
                r.counting
            ));
        }
        if holds(&["neurons"]) {
            found.push(
                "Neurons make steps of the share of opening brackets: some where it is more than one half, some where it is less, some on \
                 both sides."
                    .into(),
            );
        }
        if holds(&["failures", "copied", "before"]) {
            found.push(format!(
                "Head {} brings to position 0, where the answer is read, what MLPs wrote at position 1 about the whole string: whether \
                 its total is wrong.",
                r.elevation
            ));
        }
        if holds(&["failures", "negative.before", "negative"]) {
            found.push(format!(
                "Head {} finds brackets from which on more open than close: whether the count goes negative.",
                r.negative
            ));
        }
        if holds(&["helper"]) {
            found.push(format!(
                "Head {} tells head {} of negative counts as well.",
                self.agreement.helper().head,
                r.elevation
            ));
        }
        let p = &self.performance;
        let held = story
            .steps
            .iter()
            .filter(|s| s.verdict.outcome == Outcome::Holds)
            .count();
        let mut fares = format!(
            "The model is right on {} of {} strings, and {held} of the {} claims hold of it.",
            p.right,
            p.sequences,
            story.steps.len()
        );
        let a = &self.adversarial;
        let fooling = a.cures.iter().filter(|c| c.fools()).count();
        if holds(&["answers", "adversarial"]) {
            fares += &format!(
                " Strings that go negative at one bracket alone can fool it: {fooling} of {} of one family do, with a probability of up to \
                 {}.",
                a.cures.len(),
                percent(a.cures.iter().fold(0.0, |m, c| f64::max(m, c.as_is)))
            );
            let even = a
                .cures
                .iter()
                .filter(|c| c.fools() && c.even_there <= 0.5)
                .count();
            fares += &format!(
                " Made to count evenly from that bracket, it is right on {even} of these."
            );
        }
        let mechanism = match found.is_empty() {
            true => None,
            false => Some(format!(
                "A string of brackets is balanced if, read from the right, at every place at least as many brackets have closed as opened, \
                 and as many in the end. {}",
                found.join(" ")
            )),
        };
        mechanism.into_iter().chain([fares]).collect()
    }
}
