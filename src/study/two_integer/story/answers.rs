//! The model's answers, with attention as it is and fixed.

use super::plot;
use crate::study::two_integer::TwoIntegerStudy;
use crate::study::words::percent;
use crate::study::{
    AttentionView, Bar, BarChart, Cell, Chart, ChartAxis, Conclusion, Picture, Scale, Sequence,
    Step, Table, Weighting,
};

impl TwoIntegerStudy {
    /// How good the model is.
    pub(super) fn answered(&self) -> Step {
        /// "Nearly all."
        const NEARLY: f64 = 0.95;
        let pairs = self.labels.len();
        let wrong: Vec<bool> = (0..pairs)
            .map(|i| self.full.says[i] != self.labels[i])
            .collect();
        let wrongs = wrong.iter().filter(|&&w| w).count();
        let maps = vec![
            plot::yes_no("labels", self.n(), self.labels.iter().copied()),
            plot::yes_no(
                "the model's answers",
                self.n(),
                self.full.says.iter().copied(),
            ),
            plot::yes_no("where they differ", self.n(), wrong),
        ];
        let mut right = Table::new("Pairs that get their label", ["", "pairs", "right"]);
        right.row(["all".into(), pairs.into(), percent(self.full.agrees).into()]);
        if let Some(held_out) = self.held_out {
            right.row([
                "not trained on".into(),
                held_out.pairs.into(),
                percent(held_out.accuracy()).into(),
            ]);
        }
        right.row([
            "half of them, if the model is right on the other half".into(),
            (pairs / 2).into(),
            percent(self.challenge_accuracy()).into(),
        ]);
        Step::new(
            "labels",
            "What the model can do",
            "The model gives nearly all pairs their label.",
            Conclusion::of(
                self.full.agrees >= NEARLY,
                format!(
                    "{} of the {pairs} pairs ({wrongs} wrong), expected at least {}",
                    percent(self.full.agrees),
                    percent(NEARLY)
                ),
            ),
        )
        .text(
            "The input is `A`, `B` and `=`; the answer, 0 or 1, is read at `=`. The challenge states an accuracy on the half of \
             the pairs that its model was not trained on, taking it to be right on the other half: the last row.",
        )
        .table(right)
        .picture(
            Picture::new("labels", "Labels and answers", tables(maps))
                .caption("Dark is 1; in the third, dark is wrong."),
        )
    }

    /// Attention replaced by its means.
    pub(super) fn attention_fixed(&self) -> Step {
        /// What fixed attention has to keep of the labels, as published: to about five points.
        const KEPT: f64 = 0.88;
        let keys = ["A", "B", "="];
        let a = &self.attention;
        let heads: Vec<String> = (0..a.mean.len()).map(|h| format!("0.{h}")).collect();
        let bars = (0..3).map(|key| {
            let of = |all: &[[f64; 3]]| all.iter().map(|head| head[key]).collect::<Vec<f64>>();
            Bar::new(keys[key], &of(&a.mean)).whiskers(&of(&a.deviation))
        });
        let chart = Chart::Bars(vec![BarChart {
            title: String::new(),
            x: ChartAxis::new("head", &heads),
            y: "share of the attention".into(),
            bars: bars.collect(),
        }]);
        let mut table = Table::new(
            "Answers",
            ["", "agree with the labels", "agree with the model"],
        );
        table.row([
            "the model".into(),
            Cell::from(percent(self.full.agrees)),
            percent(1.0).into(),
        ]);
        table.row([
            "with fixed attention".into(),
            Cell::from(percent(self.fixed.agrees)),
            percent(self.fixed_agrees_with_full()).into(),
        ]);
        let common = more_frequent(&self.labels);
        let differ = (0..self.labels.len()).map(|i| self.fixed.says[i] != self.full.says[i]);
        let maps = vec![
            plot::yes_no(
                "with fixed attention",
                self.n(),
                self.fixed.says.iter().copied(),
            ),
            plot::yes_no("where the model says otherwise", self.n(), differ),
        ];
        Step::new(
            "attention",
            "Attention fixed",
            "The model barely uses how its attention varies: with every head's attention at `=` fixed to its mean over all \
             pairs, most answers stay right.",
            Conclusion::of(
                self.fixed.agrees >= KEPT && 2.0 * (self.fixed.agrees - common) >= self.full.agrees - common,
                format!(
                    "{} of the labels with fixed attention, {} without, {} for whoever always says the more frequent one; expected \
                     at least {}, and to keep more than half of what is above that",
                    percent(self.fixed.agrees),
                    percent(self.full.agrees),
                    percent(common),
                    percent(KEPT)
                ),
            ),
        )
        .text(
            "With fixed attention the stream at `=` is a vector of `A` plus a vector of `B`: the extended embeddings. In what \
             follows, the model with fixed attention is a second model, studied beside the first.",
        )
        .table(table)
        .picture(
            Picture::new("attention", "Attention at =, over all pairs", chart)
                .caption("Whiskers: a standard deviation to either side."),
        )
        .picture(Picture::new("patterns", "Attention of a few pairs", self.patterns()))
        .picture(Picture::new("fixed", "Answers with fixed attention", tables(maps)))
    }

    fn patterns(&self) -> AttentionView {
        let n = self.n();
        let shown = &self.attention.shown;
        let sequence = |&(i, _): &(usize, Vec<f64>)| {
            let tokens = [(i / n).to_string(), (i % n).to_string(), "=".into()];
            Sequence::new(format!("A = {}, B = {}", i / n, i % n), tokens)
        };
        let patterns = shown.iter().map(|(_, pattern)| pattern.iter().copied());
        let heads = 0..self.attention.mean.len();
        AttentionView {
            sequences: shown.iter().map(sequence).collect(),
            heads: heads.map(|h| format!("0.{h}")).collect(),
            weightings: vec![Weighting::new("attention", patterns)],
        }
    }

    /// How good the model is on half of the pairs, if it is right on the other half.
    pub(super) fn challenge_accuracy(&self) -> f64 {
        1.0 - 2.0 * (1.0 - self.full.agrees)
    }
}

/// What whoever always says the more frequent answer is right on.
pub(super) fn more_frequent(answers: &[bool]) -> f64 {
    let ones = answers.iter().filter(|&&x| x).count();
    ones.max(answers.len() - ones) as f64 / answers.len() as f64
}

/// Tables of zeros and ones.
pub(super) fn tables(maps: Vec<crate::study::HeatMap>) -> Chart {
    Chart::HeatMaps {
        scale: Scale::Sequential,
        maps,
    }
}
