//! The steps on what the model does, and which parts it needs.

use super::listed;
use crate::study::sorted_list::SortedListStudy;
use crate::study::words::percent;
use crate::study::{Axis, Bar, BarChart, Chart, HeatMap, Picture, Scale, Step, Table, Verdict};

impl SortedListStudy {
    pub(super) fn performed(&self) -> Step {
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

    pub(super) fn ablated(&self) -> Step {
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
}

fn numbers(title: &str, rows: &[(&str, f64)]) -> Table {
    let mut table = Table::new(title, ["", "value"]);
    for &(name, value) in rows {
        table.row([name.into(), value.into()]);
    }
    table
}
