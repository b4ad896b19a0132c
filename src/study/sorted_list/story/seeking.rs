//! The steps on what is looked for: the QK circuits, by tokens and by position.

use super::{CLEARLY, MOST};
use crate::study::sorted_list::SortedListStudy;
use crate::study::sorted_list::circuits::JUST_ABOVE;
use crate::study::words::percent;
use crate::study::{
    Bar, BarChart, Chart, ChartAxis, Conclusion, Draw, Picture, Series, Step, Table, XyPlot,
};

/// "Cancels": at least half of the attention that there would be is gone.
const CANCELS: f64 = 2.0;

impl SortedListStudy {
    pub(super) fn seeking(&self) -> Step {
        let c = &self.circuits;
        let above = c.next_above.iter().map(|n| n.above_below);
        let above = above.filter(|x| x.is_finite()).fold(1.0, f64::min);
        let mut table = Table::new(
            "By the tokens alone",
            [
                "head",
                "highest score just above",
                "just above before further above",
                "above before below",
            ],
        );
        for (n, head) in c.next_above.iter().zip(self.heads()) {
            table.row([
                head.into(),
                c.just_above[n.head].into(),
                n.share.into(),
                n.above_below.into(),
            ]);
        }
        let tokens = self.names();
        let (rows, columns) = (
            ChartAxis::new("query", &tokens),
            ChartAxis::new("key", &tokens),
        );
        Step::new(
            "qk",
            "Numbers look for what is slightly above them",
            "By their tokens, numbers attend to what is larger than themselves, and most of them most to numbers slightly \
             above them.",
            Conclusion::of(
                c.just_above_by_copier > MOST && above > CLEARLY,
                format!(
                    "{} of the numbers have their highest score 1 to {JUST_ABOVE} above them, in the head that copies the \
                     next ({} by chance); of a head's own values one above scores higher than one below in at least {} \
                     of the pairs (50% by chance)",
                    percent(c.just_above_by_copier),
                    percent(c.just_above_chance),
                    percent(above)
                ),
            ),
        )
        .text(format!(
            "{} of the numbers score the second or third number above them higher than the first. The table's pairs are of \
             a head's own values: one at most {JUST_ABOVE} above and one further above, and one above and one below.",
            percent(c.skips)
        ))
        .table(table)
        .picture(
            Picture::new("qk", "QK circuits", self.matrices(&c.qk_full, &rows, &columns))
                .caption("W_E W_QK W_E^T: how a query's token scores a key's."),
        )
    }

    pub(super) fn attending(&self) -> Step {
        let Some(a) = self.circuits.shown.first() else {
            let why = "the number that the write-up shows is none of this model's";
            return Step::new(
                "one_token",
                "One number's scores",
                ONE,
                Conclusion::not_applicable(why),
            );
        };
        let top = a.top2[a.head];
        let above = top
            .iter()
            .all(|&v| v > a.value + 1 && v <= a.value + JUST_ABOVE);
        let charts = self.circuits.shown.iter().map(|s| BarChart {
            title: format!("{} as query", s.value),
            x: ChartAxis::new("key", self.names()),
            y: "score".into(),
            bars: self
                .heads()
                .iter()
                .zip(&s.scores)
                .map(|(head, scores)| Bar::new(&format!("head {head}"), scores))
                .collect(),
        });
        Step::new(
            "one_token",
            &format!("What {} attends to", a.value),
            ONE,
            Conclusion::of(
                above,
                format!(
                    "in head {}, which copies it, {} scores {} and {} highest",
                    self.heads()[a.head],
                    a.value,
                    top[0],
                    top[1]
                ),
            ),
        )
        .picture(Picture::new(
            "one_token",
            "Scores by token",
            Chart::Bars(charts.collect()),
        ))
    }

    pub(super) fn zero(&self) -> Step {
        let z = &self.zero;
        let heads = self.heads();
        let (small, large) = (z.small.end.saturating_sub(1), z.large.start);
        let puzzling = z.puzzling();
        let cancelled = |&h: &usize| {
            let bias = z.bias(h);
            let (first, last) = (bias.get(1).copied(), bias.last().copied());
            let falls = last < first && last.is_some_and(|x| x < 0.0);
            falls && z.exchanged[h] >= CANCELS * z.attended[h]
        };
        let measured = format!(
            "attention of numbers from {large} on to those up to {small}: {}; with the queries where the first number is \
             written: {}",
            self.by_head(&z.attended),
            self.by_head(&z.exchanged)
        );
        let verdict = if puzzling.is_empty() || z.queries == 0 {
            let why = "most large numbers score no small one highest";
            let none = "there are no such queries in the sequences";
            Conclusion::not_applicable(if z.queries == 0 { none } else { why })
        } else {
            Conclusion::of(puzzling.iter().all(cancelled), measured)
        };
        let mut table = Table::new(
            "Queries of large numbers, in lists with a small one",
            [
                "head",
                "large numbers whose token scores a small one highest",
                "attention to small ones",
                "with the position exchanged",
                "largest weight in the list is right",
                "with the position exchanged",
            ],
        );
        for (h, head) in heads.iter().enumerate() {
            let such = z.to_small[h].iter().filter(|v| z.large.contains(v)).count();
            table.row([
                head.as_str().into(),
                format!("{such} of {}", z.large.len()).into(),
                z.attended[h].into(),
                z.exchanged[h].into(),
                z.hits[h].into(),
                z.hits_exchanged[h].into(),
            ]);
        }
        let steps: Vec<f64> = (0..self.length).map(|i| (self.length + i) as f64).collect();
        let line = |(h, head): (usize, &String)| {
            Series::new(&format!("head {head}"), Draw::Line, &steps, &z.bias(h))
        };
        let bias = XyPlot {
            title: String::new(),
            x: "query's position".into(),
            y: format!("score of keys up to {small}, over all"),
            series: heads.iter().enumerate().map(line).collect(),
        };
        let bars = BarChart {
            title: String::new(),
            x: ChartAxis::new("head", &heads),
            y: format!("attention to numbers up to {small}"),
            bars: vec![
                Bar::new("as it is", &z.attended),
                Bar::new("at the first number's position", &z.exchanged),
            ],
        };
        let positions = self.circuits.qk_pos_emb.first().map_or(0, Vec::len);
        let rows = ChartAxis::new("query's position", 0..positions);
        let keys = ChartAxis::new("key", self.names());
        Step::new(
            "zero",
            "Why large numbers do not attend to small ones",
            "By their tokens alone large numbers attend to very small ones, such as 0. Queries near the end of a sequence, \
             where large numbers are, have a bias against these by their position, and that cancels it.",
            verdict,
        )
        .text(format!(
            "By doing it: the position embedding of every later query is exchanged for that of the first number in order, \
             and nothing else is changed. {} queries. Positions shift the scores of small keys, relative to all, by {} \
             at the first number and {} at the last query.",
            z.queries,
            self.by_head(&self.bias_at(1)),
            self.by_head(&self.bias_at(self.length - 1)),
        ))
        .table(table)
        .picture(Picture::new(
            "zero",
            "Attention of large numbers to small ones",
            Chart::Bars(vec![bars]),
        ))
        .picture(Picture::new(
            "zero_bias",
            "What a query's position adds to the scores of small numbers",
            Chart::Xy(vec![bias]),
        ))
        .picture(
            Picture::new(
                "qk_pos",
                "Position to token",
                self.matrices(&self.circuits.qk_pos_emb, &rows, &keys),
            )
            .caption("W_pos W_QK W_E^T."),
        )
    }

    /// Each head's bias at a step; NaN where there is none.
    fn bias_at(&self, step: usize) -> Vec<f64> {
        let heads = 0..self.ablations.len();
        let at = |h: usize| self.zero.bias(h).get(step).copied().unwrap_or(f64::NAN);
        heads.map(at).collect()
    }
}

const ONE: &str = "The scores of 25 are highest not for 26 but a little further above.";
