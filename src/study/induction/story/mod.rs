//! The study of induction, told.

mod heads;
mod lost;
mod weights;

use super::InductionStudy;
use crate::names::Head;
use crate::study::words::number;
use crate::study::{Chart, Conclusion, Draw, HeatMap, Picture, Series, Step, Story, XyPlot};
use serde_json::json;

impl InductionStudy {
    /// The study as a story: steps, verdicts, pictures, and the figures by their ids.
    pub fn story(&self, model: &str) -> Story {
        let c = &self.config;
        let model = format!(
            "{model}: {} layers of {} heads, {} wide, {} tokens; {} sequences of {} tokens twice over, in {}",
            c.n_layers,
            c.n_heads,
            c.d_model,
            c.d_vocab,
            self.repeated.tokens.batch(),
            self.repeated.period,
            self.dtype
        );
        let mut story = Story::new("induction", "Induction heads of a language model", &model);
        story.steps = vec![
            self.foretold(),
            self.attending(),
            self.preceding(),
            self.composing(),
            self.matched(),
            self.copied(),
            self.without_induction(),
            self.without_previous(),
        ];
        let holds = story.steps.iter().filter(|s| story.holds(&s.id)).count();
        let found = match self.induction.is_empty() {
            true => "No head attends to what came after the same token, on average.".into(),
            false => format!("Its induction heads: {}.", listed(&self.induction)),
        };
        story.summary = vec![
            format!(
                "Random tokens cost {} nats each the first time, and {} when they come again.",
                number(self.losses.mean[0]),
                number(self.losses.mean[1])
            ),
            found,
            format!(
                "Of {} statements about induction heads {holds} hold here.",
                story.steps.len()
            ),
        ];
        self.figures(&mut story);
        story
    }

    fn figures(&self, story: &mut Story) {
        let words = |heads: &[Head]| heads.iter().map(Head::to_string).collect::<Vec<_>>();
        story.figure("loss", &self.losses);
        let scores: Vec<_> = self.scores.chunks_exact(self.config.n_heads).collect();
        story.figure("scores", scores);
        let copying = self.copying.as_deref();
        story.figure(
            "copying",
            copying.map(|all| all.chunks_exact(self.config.n_heads).collect::<Vec<_>>()),
        );
        story.figure("heads.induction", words(&self.induction));
        story.figure("heads.previous", words(&self.previous));
        story.figure("composition", json!(self.composed));
        story.figure("matching", json!(self.matching));
        story.figure("ablations", json!(self.ablations));
    }

    /// How well the second copy is foretold.
    fn foretold(&self) -> Step {
        let [first, second] = self.losses.mean;
        let plot = |name: &str, copy: usize| {
            let each = &self.losses.each[copy];
            let x: Vec<f64> = (1..=each.len()).map(|i| i as f64).collect();
            Series::new(name, Draw::Line, &x, each)
        };
        let chart = XyPlot {
            title: String::new(),
            x: "place within the copy".into(),
            y: "loss, in nats".into(),
            series: vec![plot("first copy", 0), plot("second copy", 1)],
        };
        Step::new(
            "loss",
            "What is foretold",
            "Tokens that came before are foretold when they come again: the loss is less than half.",
            Conclusion::of(
                second < 0.5 * first,
                format!("{} nats a token the second time, {} the first", number(second), number(first)),
            ),
        )
        .text(format!(
            "Sequences of {} random tokens, twice over. Nothing foretells a copy's first token; it is left out.",
            self.repeated.period
        ))
        .picture(Picture::new("losses", "The loss by place", Chart::Xy(vec![chart])))
    }

    fn index(&self, head: Head) -> usize {
        head.layer * self.config.n_heads + head.head
    }

    fn map(&self, of: impl Fn(usize) -> f64, marked: &[Head]) -> HeatMap {
        HeatMap::of_heads("", &self.config, of, marked)
    }
}

/// Heads in a row.
fn listed(heads: &[Head]) -> String {
    let all: Vec<String> = heads.iter().map(Head::to_string).collect();
    all.join(", ")
}
