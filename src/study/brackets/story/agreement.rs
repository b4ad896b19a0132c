//! Why the heads agree: each says "unbalanced" at failures that are the other's.

use super::pictures::number;
use crate::study::brackets::BracketsStudy;
use crate::study::words::percent;
use crate::study::{Bar, BarChart, Cell, Chart, ChartAxis, Conclusion, Picture, Step, Table};

impl BracketsStudy {
    /// The two heads at the failure that is not theirs.
    pub(super) fn agreed(&self) -> Step {
        let a = &self.agreement;
        let roles = [self.roles.elevation, self.roles.negative];
        let helped = |i: usize| a.without_layer[i] < a.as_is[i];
        let paid = |i: usize| a.loss_without[i] > a.loss[i];
        let holds = (0..2).all(|i| a.as_is[i] > 0.0 && helped(i) && paid(i));
        let mut table = Table::new(
            "At the failure that is the other head's",
            [
                "head",
                "strings",
                "writes",
                "without the layer before",
                "loss",
                "loss if it said nothing",
            ],
        );
        for (i, strings) in ["only go negative", "only have a wrong total"]
            .into_iter()
            .enumerate()
        {
            table.row([
                roles[i].to_string().into(),
                strings.into(),
                a.as_is[i].into(),
                a.without_layer[i].into(),
                a.loss[i].into(),
                Cell::from(a.loss_without[i]),
            ]);
        }
        let layer = roles[0].layer - 1;
        Step::new(
            "agreement",
            "The heads agree",
            "Both heads also say \"unbalanced\" at the failure that is the other's: the loss is lower for it, and the heads of the layer before help.",
            Conclusion::of(
                holds,
                format!(
                    "head {}: {} at going negative alone ({} without layer {layer}'s heads); head {}: {} at a wrong total alone ({}); \
                     losses {} and {} would be {} and {} without it",
                    roles[0],
                    number(a.as_is[0]),
                    number(a.without_layer[0]),
                    roles[1],
                    number(a.as_is[1]),
                    number(a.without_layer[1]),
                    number(a.loss[0]),
                    number(a.loss[1]),
                    number(a.loss_without[0]),
                    number(a.loss_without[1])
                ),
            ),
        )
        .text(
            "What a head writes is along the unbalanced direction, less the mean over balanced strings. The loss without is that with \
             the head's output at position 0 set to its mean over balanced strings; the layer before is taken out by setting its heads \
             to their means.",
        )
        .table(table)
    }

    /// The head that tells the elevation head of negative counts.
    pub(super) fn helped(&self) -> Step {
        /// What must be lost for the head to be what brings it.
        const HALF: f64 = 0.5;
        let (a, h) = (&self.agreement, self.agreement.helper());
        let [total, negative, _] = h.brings;
        let left = h.without[0] / a.as_is[0];
        let mut table = Table::new(
            "What the heads of the layer before bring to the elevation head, and what it answers without them",
            [
                "head",
                "wrong total alone",
                "negative alone",
                "both",
                "answer to negative alone",
            ],
        );
        for helper in &a.helpers {
            table.row([
                helper.head.to_string().into(),
                helper.brings[0].into(),
                helper.brings[1].into(),
                helper.brings[2].into(),
                Cell::from(helper.without[0]),
            ]);
        }
        let elevation = self.roles.elevation;
        Step::new(
            "helper",
            "A head tells the elevation head of negative counts",
            "One head of the layer before brings negative failures into the elevation head's branch.",
            if a.as_is[0] > 0.0 {
                Conclusion::of(
                    negative > 0.0 && negative > total && left < HALF,
                    format!(
                        "head {}: {} where the count goes negative alone, {} where the total alone is wrong; without it head {elevation} \
                         says {} of the former instead of {}",
                        h.head,
                        number(negative),
                        number(total),
                        number(h.without[0]),
                        number(a.as_is[0])
                    ),
                )
            } else {
                Conclusion::of(
                    false,
                    format!("head {elevation} does not say \"unbalanced\" of what only goes negative"),
                )
            },
        )
        .table(table)
    }

    /// Strings that begin with a closing bracket.
    pub(super) fn begins_closing(&self) -> Step {
        let c = &self.closing;
        let claim = "The head that reads position 1 answers to every string that begins with a closing bracket.";
        let title = "Strings that begin with a closing bracket";
        let Some(e) = c.of(self.roles.elevation) else {
            let none =
                Conclusion::not_applicable("none of the strings begins with a closing bracket");
            return Step::new("closing", title, claim, none);
        };
        let mut table = Table::new(
            "The last layer's heads and strings that begin with )",
            [
                "head",
                "writes",
                "at least",
                "tells them from balanced ones",
                "right without it",
                "right with it alone",
            ],
        );
        for h in &c.heads {
            table.row([
                h.head.to_string().into(),
                h.mean.into(),
                h.least.into(),
                percent(h.tells).into(),
                percent(h.right_without).into(),
                Cell::from(percent(h.right_alone)),
            ]);
        }
        let places = ChartAxis::new("key position", 0..e.attention.len());
        let chart = BarChart {
            title: String::new(),
            x: places,
            y: "mean attention".into(),
            bars: c
                .heads
                .iter()
                .map(|h| Bar::new(&format!("head {}", h.head), &h.attention))
                .collect(),
        };
        let [own, balanced] = e.from_first;
        Step::new(
            "closing",
            title,
            claim,
            Conclusion::of(
                e.tells >= super::heads::TELLS && e.least > 0.0,
                format!(
                    "head {} writes {} on average and at least {} on {} such strings; one threshold tells them from balanced ones in {} of \
                     cases",
                    e.head,
                    number(e.mean),
                    number(e.least),
                    c.strings,
                    percent(e.tells)
                ),
            ),
        )
        .text(format!(
            "From position 1 head {} takes {} along the unbalanced direction in these strings, and {} in balanced ones. \
             Is it what makes the answer? The model has {} of them right; with this head's output at its mean over balanced strings \
             {}, with all other heads of the layer at theirs {}.",
            e.head,
            number(own),
            number(balanced),
            percent(c.right),
            percent(e.right_without),
            percent(e.right_alone)
        ))
        .table(table)
        .picture(Picture::new(
            "closing",
            "Where the last layer looks from position 0 in strings that begin with )",
            Chart::Bars(vec![chart]),
        ))
    }
}
