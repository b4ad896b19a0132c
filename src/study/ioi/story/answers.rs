//! How well the model answers, and at which layer it would say so.

use crate::study::ioi::{IoiStudy, Place};
use crate::study::prose::quoted;
use crate::study::words::{number, percent};
use crate::study::{
    Bar, BarChart, Chart, ChartAxis, Conclusion, Draw, Picture, Series, Step, Table, XyPlot,
};

/// How many prompts are listed.
const LISTED: usize = 6;

impl IoiStudy {
    pub(super) fn answered(&self) -> Step {
        /// "Nearly always".
        const ALWAYS: f64 = 0.95;
        let (b, p) = (&self.seen.behaviour, &self.prompts);
        let verdict = Conclusion::of(
            b.accuracy >= ALWAYS && b.logit_diff > 0.0,
            format!(
                "the right name is above the wrong one on {} of {} prompts, expected {}; by {} on average",
                percent(b.accuracy),
                p.count(),
                percent(ALWAYS),
                number(b.logit_diff)
            ),
        );
        let drawn = match (p.templates, p.names_of_one_token) {
            (Some([own, all]), Some(names)) => format!(
                "Of the {all} published templates, {own} have prompts of {} tokens here, the length that most of them can have; names \
                 are drawn from {names} that are one token of this model. ",
                p.clean.pos()
            ),
            _ => String::new(),
        };
        let mut table = Table::new(
            "Prompts",
            ["prompt", "corrupted", "right", "logit difference"],
        );
        for i in 0..p.count().min(LISTED) {
            table.row([
                quoted(p.words[0][i].concat().trim()).into(),
                quoted(p.words[1][i].concat().trim()).into(),
                quoted(&p.words[0][i][p.at(i, Place::Io)]).into(),
                b.logit_diffs[i].into(),
            ]);
        }
        let bars = BarChart {
            title: String::new(),
            x: ChartAxis::new("prompt", 0..p.count()),
            y: "logit difference".into(),
            bars: vec![Bar::new("IO less S", &b.logit_diffs)],
        };
        Step::new(
            "answers",
            "What the model can do",
            "The model goes on with the indirect object rather than the subject, nearly always.",
            verdict,
        )
        .text(format!(
            "{drawn}A prompt names the indirect object (IO) once and the subject twice (S1, S2). In a corrupted prompt the three are \
             three other names, so that nothing is repeated. The answer is read after the last token (END), as the logit of IO less \
             that of S; it is {} on average over the corrupted prompts.",
            number(b.corrupted)
        ))
        .text(format!(
            "The right name has a probability of {}, and is the likeliest of all tokens on {} of the prompts.",
            percent(b.probability),
            percent(b.first)
        ))
        .table(table)
        .picture(Picture::new("logit-diffs", "The logit difference of each prompt", Chart::Bars(vec![bars])))
    }

    pub(super) fn by_layer(&self) -> Step {
        /// GPT-2's name movers are in its layers 9 to 11 of 12.
        const LATE: f64 = 0.75;
        let lens = &self.seen.lens;
        let n = lens.logit_diff.len() - 1;
        let late = (LATE * n as f64).round() as usize;
        let all = lens.logit_diff[n];
        let made = (all - lens.logit_diff[late]) / all;
        let layers: Vec<usize> = (0..=n).collect();
        let plot = |title: &str, y: &str, values: &[f64]| XyPlot {
            title: title.into(),
            x: "layers passed".into(),
            y: y.into(),
            series: vec![Series::new(
                y,
                Draw::Line,
                &layers.iter().map(|&l| l as f64).collect::<Vec<_>>(),
                values,
            )],
        };
        Step::new(
            "lens",
            "When the answer is there",
            "The difference is made by the last quarter of the layers, where the name movers are.",
            Conclusion::of(
                made > 0.5,
                format!(
                    "{} of the difference is made past layer {late} of {n}, expected more than half",
                    percent(made)
                ),
            ),
        )
        .text("The logit lens: what the model's own end would make of the stream at END behind each layer.")
        .picture(Picture::new(
            "lens",
            "The logit difference, were each layer the last",
            Chart::Xy(vec![plot("", "logit difference", &lens.logit_diff)]),
        ))
        .picture(Picture::new(
            "lens-accuracy",
            "The share of prompts with IO above S, were each layer the last",
            Chart::Xy(vec![plot("", "share of prompts", &lens.accuracy)]),
        ))
    }
}
