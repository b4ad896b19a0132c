//! The branch for a count that goes negative.

use super::pictures::{bars, number};
use crate::study::brackets::BracketsStudy;
use crate::study::words::percent;
use crate::study::{Bar, Cell, Chart, ChartAxis, Conclusion, Picture, Step, Table};
use crate::task::{Brackets, Task};

/// How far the attention must be from even (0) towards negative positions alone (1), on average.
const CLEARLY: f64 = 0.25;
/// How far the share of strings must be in which a negative position has the most attention.
const MOSTLY: f64 = 0.5;

impl BracketsStudy {
    /// What the negative head reads.
    pub(super) fn before_negative(&self) -> Step {
        let n = &self.negative;
        let most = n.components.iter().max_by(|a, b| a.1.total_cmp(&b.1));
        let (name, most) = most.expect("there are components");
        let mut table = Table::new(
            "Negative brackets less other brackets",
            ["component", "difference"],
        );
        for (component, difference) in &n.components {
            table.row([component.clone().into(), Cell::from(*difference)]);
        }
        let head = self.roles.negative;
        let places = ChartAxis::new("component", n.components.iter().map(|c| &c.0));
        let heights: Vec<f64> = n.components.iter().map(|c| c.1).collect();
        let chart = bars(
            places,
            "along what the head reads",
            &format!("head {head}"),
            &heights,
        );
        Step::new(
            "negative.before",
            "What the negative head reads",
            "What tells the negative head of the brackets from which on more open than close was written there by MLPs above all.",
            Conclusion::of(
                name.starts_with("mlp") && *most > 0.0,
                format!("the largest difference is that of {name}: {}", number(*most)),
            ),
        )
        .text(format!(
            "The unbalanced direction goes back through `W_OV[{head}]` and the norm before the last layer's heads, here fitted at all \
             brackets (r² {:.4}). MLPs do the same at every position: what they make of the count at position 1, they make of it at \
             each. Of strings that begin with `(`.",
            self.directions.at_brackets.r2
        ))
        .table(table)
        .picture(Picture::new(
            "negative.before",
            &format!("What head {head} reads at brackets where the count is negative"),
            Chart::Bars(vec![chart]),
        ))
    }

    /// Where the negative head looks, and what it takes from there.
    pub(super) fn negative_found(&self) -> Step {
        let n = self.negative.of(self.roles.negative);
        let mut table = Table::new(
            "From position 0, in strings that begin with ( and go negative",
            [
                "head",
                "attention on negative positions",
                "share of positions that are",
                "strings whose top position is",
                "worth of a negative bracket",
                "of another",
                "writes from negative positions",
                "from others",
                "writes in balanced strings",
            ],
        );
        for l in &self.negative.looks {
            table.row([
                l.head.to_string().into(),
                percent(l.on_negative).into(),
                percent(l.are_negative).into(),
                percent(l.top_negative).into(),
                l.worth[0].into(),
                l.worth[1].into(),
                l.written[0].into(),
                l.written[1].into(),
                Cell::from(l.written_if_balanced),
            ]);
        }
        let looks = n.beyond_even() >= CLEARLY && n.top_beyond_even() >= MOSTLY;
        let says = n.worth[0] > 0.0 && n.worth[0] > n.worth[1] && n.written[0] > n.written[1];
        Step::new(
            "negative",
            "The negative head looks where the count is negative",
            "In strings that go negative, the negative head attends most to brackets from which on more open than close, and what it takes from there says \"unbalanced\".",
            Conclusion::of(
                looks && says,
                format!(
                    "head {}: {} of its attention on negative positions, which are {} of all, and one of them is its first in {} of \
                     strings; it takes {} from these, {} from the others",
                    n.head,
                    percent(n.on_negative),
                    percent(n.are_negative),
                    percent(n.top_negative),
                    number(n.written[0]),
                    number(n.written[1])
                ),
            ),
        )
        .text(
            "The worth of a bracket is what its value adds along the unbalanced direction for all of a head's attention; what is written \
             is that times the attention, added up.",
        )
        .table(table)
        .picture(self.negative_picture())
    }

    /// The negative head's attention on a string that goes negative.
    fn negative_picture(&self) -> Picture {
        let (s, row) = &self.negative.shown;
        let task = Brackets::default();
        let below = self.data.negative_positions(*s);
        let of = |negative: bool| -> Vec<f64> {
            let places = row.iter().enumerate();
            let chosen = places.map(|(p, a)| {
                if below.contains(&p) == negative {
                    *a
                } else {
                    0.0
                }
            });
            chosen.collect()
        };
        let tokens = self.data.tokens.sequence(*s)[..row.len()]
            .iter()
            .enumerate();
        let labels = tokens.map(|(p, &t)| format!("{p}: {}", task.vocabulary().name(t)));
        let mut chart = bars(
            ChartAxis::new("position and token", labels),
            "attention from position 0",
            "where more open than close from here on",
            &of(true),
        );
        chart.bars.push(Bar::new("elsewhere", &of(false)));
        Picture::new(
            "negative",
            &format!(
                "Where head {} looks in a string that goes negative",
                self.roles.negative
            ),
            Chart::Bars(vec![chart]),
        )
    }
}
