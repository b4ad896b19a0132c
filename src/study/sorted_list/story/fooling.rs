//! The steps on lists that are hard.

use crate::study::sorted_list::SortedListStudy;
use crate::study::{Axis, Chart, HeatMap, Picture, Scale, Step, Table, Verdict};

impl SortedListStudy {
    pub(super) fn fooled(&self) -> Step {
        let (plain, hard) = self
            .adversarial
            .split_first()
            .expect("lists of any values come first");
        let mut table = Table::new(
            "Probability of the right token",
            [
                "lists",
                "mean",
                "smallest",
                "in the list",
                "at position",
                "predicted",
            ],
        );
        for a in &self.adversarial {
            let words: Vec<String> = a.worst.iter().map(|&t| self.name(t)).collect();
            table.row([
                format!("{} ({})", a.kind, a.lists).into(),
                a.mean.into(),
                a.probability.into(),
                words.join(" ").into(),
                a.position.into(),
                self.name(a.predicted as i64).into(),
            ]);
        }
        Step::new(
            "adversarial",
            "Lists that are hard for the circuit",
            "A number whose successor is far above it finds no score that stands out, and at the upper end scores are flat: \
             lists with a large jump, and lists of large numbers only, are answered worse.",
            Verdict::of(
                hard.iter().all(|a| a.mean < plain.mean),
                format!(
                    "mean probability {:.3} on any lists; {}",
                    plain.mean,
                    hard.iter().map(|a| format!("{:.3} with {}", a.mean, a.kind)).collect::<Vec<_>>().join(", ")
                ),
            ),
        )
        .table(table)
    }

    pub(super) fn close(&self) -> Step {
        if self.close_triples.is_empty() {
            let why = "the write-up's lists do not fit this model's sequences";
            return Step::new(
                "close",
                "Close triples",
                CLOSE,
                Verdict::not_applicable(why),
            );
        }
        let helped = self
            .close_triples
            .iter()
            .filter(|t| t.attribution[0][0] > 0.0 && t.attribution[1][0] < 0.0)
            .count();
        let maps = self.close_triples.iter().map(|t| {
            let [x, y, z] = t.triple;
            let (rows, columns) = (Axis::new("logit", [y, z]), Axis::new("source", [y, z]));
            let title = format!("after {x}, head 0.{}", t.head);
            HeatMap::new(&title, rows, columns, &t.attribution.concat())
        });
        Step::new(
            "close",
            "Close triples",
            CLOSE,
            Verdict::of(
                helped == self.close_triples.len(),
                format!("so in {helped} of {} lists", self.close_triples.len()),
            ),
        )
        .picture(
            Picture::new(
                "close",
                "Direct logit attribution by source",
                Chart::HeatMaps { scale: Scale::Diverging, maps: maps.collect() },
            )
            .caption("What attending to a source adds to the logits of the two candidates, where the first of three close numbers is read."),
        )
    }
}

const CLOSE: &str = "Where a number is followed by two others close by, attention is split between them, but the smaller one pushes \
                     the logit of the larger down: the right answer wins.";
