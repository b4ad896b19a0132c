//! The steps on the circuits: what is copied, what is looked for, and what is added directly.

use crate::study::sorted_list::SortedListStudy;
use crate::study::sorted_list::circuits::JUST_ABOVE;
use crate::study::sorted_list::direct::spread;
use crate::study::{Axis, Bar, BarChart, Chart, HeatMap, Picture, Scale, Step, Table, Verdict};

impl SortedListStudy {
    pub(super) fn copying(&self) -> Step {
        let runs = self.runs();
        let copied = self.copied();
        let tokens = Axis::new("logit", self.names());
        Step::new(
            "ov",
            "What is attended to is copied, and the heads share the numbers out",
            "Each head's OV circuit has its positive diagonal in its own part of the vocabulary; together the parts cover it.",
            Verdict::of(
                copied >= self.values * 9 / 10 && runs.len() > 1,
                format!(
                    "{copied} of {} values are their own column's largest logit in the OV circuit of the head that copies them most; \
                     by that, {}",
                    self.values,
                    self.split()
                ),
            ),
        )
        .picture(
            Picture::new("ov", "OV circuits", self.matrices(&self.ov_full, &Axis::new("attended to", self.names()), &tokens))
                .caption("W_E W_OV W_U: what attending to a token adds to every logit."),
        )
    }

    /// Values that are the largest logit of their own row, in the head that copies them most.
    fn copied(&self) -> usize {
        let largest = |&v: &usize| {
            let row = &self.ov_full[self.owners[v]][v][..self.values];
            row.iter().all(|x| *x <= row[v])
        };
        (0..self.values).filter(largest).count()
    }

    /// Stretches of values with one owner: the first, the last, and the head.
    fn runs(&self) -> Vec<(usize, usize, usize)> {
        let mut runs: Vec<(usize, usize, usize)> = Vec::new();
        for (v, &head) in self.owners.iter().enumerate() {
            match runs.last_mut() {
                Some(run) if run.2 == head => run.1 = v,
                _ => runs.push((v, v, head)),
            }
        }
        runs
    }

    fn split(&self) -> String {
        let words = self
            .runs()
            .into_iter()
            .map(|(a, b, h)| format!("0.{h} has {a}–{b}"));
        words.collect::<Vec<_>>().join(", ")
    }

    pub(super) fn seeking(&self) -> Step {
        let tokens = self.names();
        let worst = self
            .next_above
            .iter()
            .map(|n| n.share.min(n.above_below))
            .fold(1.0, f64::min);
        let mut table = Table::new(
            "Of a head's own values, which scores higher",
            [
                "head",
                "just above before further above",
                "above before below",
            ],
        );
        for n in &self.next_above {
            table.row([
                format!("0.{}", n.head).into(),
                n.share.into(),
                n.above_below.into(),
            ]);
        }
        let (rows, columns) = (Axis::new("query", &tokens), Axis::new("key", &tokens));
        Step::new(
            "qk",
            "Each number looks for the next larger one",
            "A number's scores are highest for the values just above it, lower further up, and lowest for those below.",
            Verdict::of(worst > 0.75, format!("true of at least {:.0}% of the pairs of values", 100.0 * worst)),
        )
        .table(table)
        .picture(
            Picture::new("qk", "QK circuits", self.matrices(&self.qk_full, &rows, &columns))
                .caption("W_E W_QK W_E^T: how a query's token scores a key's."),
        )
    }

    pub(super) fn attending(&self) -> Step {
        let a = &self.attention;
        let just_above = a
            .top2
            .iter()
            .all(|&v| v > a.value && v <= a.value + JUST_ABOVE);
        let chart = BarChart {
            title: String::new(),
            x: Axis::new("key", self.names()),
            y: "score".into(),
            bars: vec![Bar::new(&format!("head 0.{}", a.head), &a.scores)],
        };
        Step::new(
            "one_token",
            &format!("What {} attends to", a.value),
            "The scores peak a little above the number itself.",
            Verdict::of(
                just_above,
                format!(
                    "in head 0.{}, {} attends most to {} and {}",
                    a.head, a.value, a.top2[0], a.top2[1]
                ),
            ),
        )
        .picture(Picture::new(
            "one_token",
            &format!("Scores of {}", a.value),
            Chart::Bars(vec![chart]),
        ))
    }

    pub(super) fn by_position(&self) -> Step {
        let of_tokens = |m: &[Vec<Vec<f64>>]| {
            let all: Vec<f64> = m
                .iter()
                .flatten()
                .flat_map(|row| &row[..self.values])
                .copied()
                .collect();
            spread(&all)
        };
        let (positions, tokens) = (of_tokens(&self.qk_pos_emb), of_tokens(&self.qk_full));
        let rows = Axis::new("query's position", 0..2 * self.length + 1);
        Step::new(
            "position",
            "Positions matter less than tokens",
            "What a query's position adds to the scores of tokens is small beside what its own token adds.",
            Verdict::of(
                positions < tokens,
                format!("standard deviation of the scores by position {positions:.4}, by token {tokens:.4}"),
            ),
        )
        .picture(
            Picture::new("qk_pos", "Position to token", self.matrices(&self.qk_pos_emb, &rows, &Axis::new("key", self.names())))
                .caption("W_pos W_QK W_E^T."),
        )
    }

    pub(super) fn direct(&self) -> Step {
        let tokens = self.names();
        let by_head = |label: &str| label.starts_with("head ");
        let of = |wanted: fn(&str) -> bool| {
            let all = self.pushes.iter().filter(move |(label, _)| wanted(label));
            all.map(|(_, push)| *push).fold(0.0, f64::max)
        };
        let (direct, through) = (of(|l| l == "embed"), of(|l| l.starts_with("head ")));
        let shown: Vec<&(String, f64)> = self
            .pushes
            .iter()
            .filter(|(l, _)| by_head(l) || l == "embed")
            .collect();
        let heights: Vec<f64> = shown.iter().map(|(_, push)| *push).collect();
        let bars = BarChart {
            title: String::new(),
            x: Axis::new("component", shown.iter().map(|(label, _)| label)),
            y: "standard deviation over the logits".into(),
            bars: vec![Bar::new("directly", &heights)],
        };
        let map = HeatMap::new(
            "",
            Axis::new("token", &tokens),
            Axis::new("logit", &tokens),
            &self.direct_path.concat(),
        );
        Step::new(
            "direct",
            "The direct path adds little",
            "Without the heads a token says little about the next: what its own embedding adds to the logits is small beside what the heads add.",
            Verdict::of(direct < through, format!("the embedding spreads the logits by {direct:.2}, a head by {through:.2}")),
        )
        .picture(Picture::new("pushes", "What each adds to the logits directly", Chart::Bars(vec![bars])))
        .picture(Picture::new(
            "direct",
            "W_E W_U",
            Chart::HeatMaps { scale: Scale::Diverging, maps: vec![map] },
        ))
    }
}
