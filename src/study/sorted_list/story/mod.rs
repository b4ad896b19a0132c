//! The study of sorted lists, told.

mod behaviour;
mod circuits;
mod fooling;

use super::{CloseTriple, SortedListStudy};
use crate::study::words::percent;
use crate::study::{Axis, Chart, HeatMap, Scale, Story};
use serde_json::json;

impl SortedListStudy {
    /// The study as a story: steps, verdicts, pictures, and the figures by their ids.
    pub fn story(&self, model: &str) -> Story {
        let mut story = Story::new("sorted_list", "How a one-layer model sorts a list", model);
        story.summary = vec![
            format!(
                "The model reads {} numbers and writes them down again in order. At each step the number just written attends to the \
                 smallest number of the list that is larger, and copies it. Its {} heads do the same for different numbers: together \
                 they cover the vocabulary.",
                self.length,
                self.ov_full.len()
            ),
            format!(
                "It gives the right number a probability of {} on average (loss {:.3}), and is least sure after a large jump \
                 and where several numbers stand close together.",
                percent(self.performance.mean),
                self.performance.loss
            ),
        ];
        story.steps = vec![
            self.performed(),
            self.ablated(),
            self.copying(),
            self.seeking(),
            self.attending(),
            self.by_position(),
            self.direct(),
            self.fooled(),
            self.close(),
        ];
        self.figures(&mut story);
        story.publish(include_str!("../published.json"));
        story
    }

    fn figures(&self, story: &mut Story) {
        let p = &self.performance;
        story.figure_of(self.origin, "loss", p.loss);
        story.figure_of(self.origin, "p_correct.mean", p.mean);
        story.figure_of(self.origin, "p_correct.median", p.median);
        story.figure_of(self.origin, "p_correct.min", p.min);
        for (head, rise) in &self.ablations {
            story.figure_of(
                self.origin,
                &format!("ablate.mean.{head}.loss_increase"),
                rise,
            );
        }
        story.figure("ov_full", &self.ov_full);
        story.figure("qk_full", &self.qk_full);
        story.figure("qk_pos_emb", &self.qk_pos_emb);
        story.figure("direct_path", &self.direct_path);
        story.figure(
            &format!("qk.{}.top2", self.attention.value),
            self.attention.top2,
        );
        let of = |f: fn(&CloseTriple) -> serde_json::Value| {
            self.close_triples.iter().map(f).collect::<Vec<_>>()
        };
        story.figure("dla.close_triples", of(|t| json!(t.attribution)));
        let close = json!({
            "lists": of(|t| json!(t.list)),
            "heads": of(|t| json!(t.head)),
            "x": of(|t| json!(t.triple[0])),
            "y": of(|t| json!(t.triple[1])),
            "z": of(|t| json!(t.triple[2])),
        });
        story.figure("close_triples", close);
    }

    /// The tokens' names: the values, and the separator.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = (0..self.values).map(|v| v.to_string()).collect();
        names.push("SEP".into());
        names
    }

    fn matrices(&self, per_head: &[Vec<Vec<f64>>], rows: &Axis, columns: &Axis) -> Chart {
        let map = |(h, matrix): (usize, &Vec<Vec<f64>>)| {
            HeatMap::new(
                &format!("head 0.{h}"),
                rows.clone(),
                columns.clone(),
                &matrix.concat(),
            )
        };
        Chart::HeatMaps {
            scale: Scale::Diverging,
            maps: per_head.iter().enumerate().map(map).collect(),
        }
    }

    fn name(&self, token: i64) -> String {
        self.names()
            .get(token as usize)
            .cloned()
            .unwrap_or_else(|| token.to_string())
    }
}

fn listed(values: &[f64]) -> String {
    let words: Vec<String> = values.iter().map(|v| format!("{v:.3}")).collect();
    words.join(" and ")
}
