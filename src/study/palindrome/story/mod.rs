//! The study told as a story.

mod behaviour;
mod fooling;
mod mechanism;

use super::{Judged, PUBLISHED_SHARE, PalindromeStudy};
use crate::study::{Outcome, Story};
use crate::task::{Palindromes, Task};
use serde_json::json;

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
            self.heads(),
            self.looking_for(),
            self.blind_spots(),
            self.moved(),
            self.end_looks(),
            self.keys(),
            self.values(),
            self.direction(),
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
        let (comparing, collecting) = (self.roles.comparing(), self.roles.collecting());
        let [first, second] = [self.roles.first_helper(), self.roles.second_helper()];
        let holds = |id: &str| {
            let step = story.steps.iter().find(|s| s.id == id);
            step.is_some_and(|s| s.verdict.outcome == Outcome::Holds)
        };
        let mechanism = ["heads", "qk", "differences", "keys", "values"];
        let found = mechanism.iter().filter(|id| holds(id)).count();
        let mut summary = vec![if found == mechanism.len() {
            format!(
                "The mechanism is there. Head {comparing} looks from every value of the second half for the same \
                 value at the mirrored position: it looks there if it finds it, and else at itself. Because the two \
                 places differ, so does what it writes: \"here is no mirror\" has a direction of its own. Head \
                 {collecting} looks from `END` for that direction, and turns it into the answer."
            )
        } else {
            format!(
                "Of the {} claims that make up the write-ups' mechanism {found} hold on this model. Head {comparing} \
                 is the one in its first layer that is needed most, head {collecting} in its second.",
                mechanism.len()
            )
        }];
        summary.push(if self.adversarial.blind.is_empty() {
            "No position is blind: a single broken pair is noticed everywhere more often than not.".into()
        } else {
            let blind = list(&self.adversarial.blind);
            format!(
                "The model is blind at {blind}: where a sequence is broken there alone, it passes for a palindrome. \
                 The weights tell so beforehand: the weak positions read off them are {}.",
                list(&self.vectors.weak)
            )
        });
        if holds("helpers") {
            summary.push(format!(
                "Heads {first} and {second} help at position {} and hardly anywhere else.",
                self.targeted.helped
            ));
        }
        summary
    }

    fn figures(&self, story: &mut Story) {
        let of = self.origins;
        let p = &self.performance;
        story.figure_of(of.dataset, "loss", p.loss);
        story.figure_of(of.dataset, "logit_diff", p.logit_diff);
        story.figure_of(of.dataset, "accuracy", p.accuracy);
        story.figure_of(of.five_hundred, "loss_500", p.loss_500);
        for (name, ablation) in self.roles.named() {
            story.figure_of(
                of.dataset,
                &format!("ablate.mean.{name}.logit_diff"),
                ablation.mean,
            );
            story.figure_of(
                of.dataset,
                &format!("ablate.zero.{name}.logit_diff"),
                ablation.zero,
            );
        }
        let t = &self.targeted;
        story.figure_of(of.dataset, "targeted.0.1.result.all.loss", t.result.all);
        story.figure_of(
            of.dataset,
            "targeted.0.1.result.except20.loss",
            t.result.but_one,
        );
        story.figure_of(of.dataset, "targeted.1.1.v.all.loss", t.values.all);
        story.figure_of(of.dataset, "targeted.1.1.v.except20.loss", t.values.but_one);

        let a = &self.adversarial;
        let natural: Vec<_> = a.natural.iter().map(|(_, judged)| &judged.tokens).collect();
        story.figure_of(of.dataset, "advex.counts", a.counts);
        story.figure_of(of.dataset, "advex.sequences", natural);
        let p_of = |judged: &[Judged]| judged.iter().map(|j| j.p_palindrome).collect::<Vec<_>>();
        let four = a.four.iter().map(|j| j.p_palindrome);
        story.figure("advex.four.p_palindrome", four.collect::<Vec<_>>());
        // The palindrome itself, and changed at the last four values.
        let flipped = p_of(&a.flipped);
        let last = flipped.len() - 4;
        story.figure_of(
            of.dataset,
            "flip.p_palindrome",
            [&flipped[..1], &flipped[last..]].concat(),
        );

        let v = &self.vectors;
        story.figure_of(of.dataset, "k_composition.cosine", &v.key_cosines);
        story.figure_of(
            of.dataset,
            "v_composition.dla",
            v.attribution_of(PUBLISHED_SHARE),
        );
        story.figure_of(of.dataset, "difference_vectors.cosine", &v.cosines);
        story.figure_of(
            of.dataset,
            "attn.end.1.0.palindromic",
            &self.end.palindromic[0],
        );
        story.figure_of(
            of.dataset,
            "attn.end.1.0.nonpalindromic",
            &self.end.nonpalindromic[0],
        );
        story.figure_of(of.pairs, "attn_diff.self", self.differences.mean_to_self);
        story.figure_of(
            of.pairs,
            "attn_diff.mirror",
            self.differences.mean_to_mirror,
        );

        let c = &self.circuits;
        story.figure_of(of.dataset, "ln1_scale.mean", &c.scale_mean);
        story.figure_of(of.dataset, "ln1_scale.std", &c.scale_std);
        story.figure("qk_full", &c.full);
        story.figure_of(of.hundred, "qk_embed.top1", c.top1);
        let s = &self.scores;
        story.figure("composition", json!({"Q": s.Q, "K": s.K, "V": s.V}));
        story.figure("composition.random_baseline", s.baseline.mean);
        story.figure_of(of.hundred, "v_composition.example", self.composed.example);
        story.figure_of(
            of.hundred,
            "v_composition.std",
            self.composed.values_spread(),
        );
        story.figure("v_composition.positions", &self.composed.to_logits);
        story.figure("k_composition.positions", &self.composed.to_attention);
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
