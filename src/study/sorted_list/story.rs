//! The study of sorted lists, told.

use super::{SortedListStudy, spread};
use crate::study::words::percent;
use crate::study::{
    Axis, Bar, BarChart, Chart, HeatMap, Picture, Scale, Step, Story, Table, Verdict,
};
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
        story.publish(include_str!("published.json"));
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
        let of = |f: fn(&super::CloseTriple) -> serde_json::Value| {
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

    fn performed(&self) -> Step {
        let p = &self.performance;
        let e = &self.example;
        let rows = Axis::new(
            "after",
            e.tokens[e.first..e.tokens.len() - 1]
                .iter()
                .map(|&t| self.name(t)),
        );
        let right = e.tokens[e.first + 1..]
            .iter()
            .enumerate()
            .map(|(i, &t)| [i, t as usize]);
        let map = HeatMap::new(
            "",
            rows,
            Axis::new("predicted token", self.names()),
            &e.probabilities.concat(),
        )
        .marked(right);
        let list: Vec<String> = e.tokens.iter().map(|&t| self.name(t)).collect();
        Step::new(
            "performance",
            "What the model can do",
            "The model writes the list in order, nearly always with confidence.",
            Verdict::of(
                p.accuracy > 0.95,
                format!(
                    "{} of {} × {} answers are right",
                    percent(p.accuracy),
                    p.sequences,
                    self.length
                ),
            ),
        )
        .table(numbers(
            "Probability of the right token",
            &[
                ("mean", p.mean),
                ("median", p.median),
                ("smallest", p.min),
                ("loss", p.loss),
            ],
        ))
        .picture(
            Picture::new(
                "prediction",
                "One list, step by step",
                Chart::HeatMaps {
                    scale: Scale::Sequential,
                    maps: vec![map],
                },
            )
            .caption(format!(
                "The sequence {}. Each row is a step; the right token has a frame.",
                list.join(" ")
            )),
        )
    }

    fn name(&self, token: i64) -> String {
        self.names()
            .get(token as usize)
            .cloned()
            .unwrap_or_else(|| token.to_string())
    }

    fn ablated(&self) -> Step {
        let heads: Vec<&String> = self.ablations.iter().map(|(head, _)| head).collect();
        let rises: Vec<f64> = self.ablations.iter().map(|(_, rise)| *rise).collect();
        let all = rises.iter().all(|&r| r > self.performance.loss);
        let chart = BarChart {
            title: String::new(),
            x: Axis::new("head", &heads),
            y: "rise of the loss".into(),
            bars: vec![Bar::new("mean-ablated", &rises)],
        };
        Step::new(
            "ablation",
            "Both heads are needed",
            "Replacing any head's output by its mean over the lists costs far more than the model's loss.",
            Verdict::of(all, format!("the loss of {:.4} rises by {}", self.performance.loss, listed(&rises))),
        )
        .picture(Picture::new("ablation", "Loss without each head", Chart::Bars(vec![chart])))
    }

    fn copying(&self) -> Step {
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

    fn seeking(&self) -> Step {
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

    fn attending(&self) -> Step {
        let a = &self.attention;
        let just_above = a
            .top2
            .iter()
            .all(|&v| v > a.value && v <= a.value + super::JUST_ABOVE);
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

    fn by_position(&self) -> Step {
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

    fn direct(&self) -> Step {
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

    fn fooled(&self) -> Step {
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

    fn close(&self) -> Step {
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

fn numbers(title: &str, rows: &[(&str, f64)]) -> Table {
    let mut table = Table::new(title, ["", "value"]);
    for &(name, value) in rows {
        table.row([name.into(), value.into()]);
    }
    table
}

fn listed(values: &[f64]) -> String {
    let words: Vec<String> = values.iter().map(|v| format!("{v:.3}")).collect();
    words.join(" and ")
}
