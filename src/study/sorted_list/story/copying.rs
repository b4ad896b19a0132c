//! The steps on what is copied, and by which head.

use super::{CLEARLY, NEARLY_ALL};
use crate::study::sorted_list::{Elsewhere, SortedListStudy};
use crate::study::words::percent;
use crate::study::{
    Bar, BarChart, Chart, ChartAxis, Conclusion, Draw, Number, Picture, Series, Step, XyPlot,
};

impl SortedListStudy {
    pub(super) fn copying(&self) -> Step {
        let c = &self.circuits;
        let copied = c.copied();
        let tokens = ChartAxis::new("logit", self.names());
        let sources = ChartAxis::new("attended to", self.names());
        let offsets: Vec<i64> = c.neighbours.iter().map(|n| n.offset).collect();
        let means: Vec<f64> = c.neighbours.iter().map(|n| n.mean).collect();
        let neighbours = BarChart {
            title: String::new(),
            x: ChartAxis::new("how far above what is attended to", &offsets),
            y: "logit over the mean of all".into(),
            bars: vec![Bar::new("in the head that copies it", &means)],
        };
        let raised = |offsets: std::ops::RangeInclusive<i64>| {
            let near = c.neighbours.iter().filter(|n| offsets.contains(&n.offset));
            let raised: Vec<f64> = near.map(|n| n.raised).collect();
            percent(crate::metric::mean(&raised))
        };
        Step::new(
            "ov",
            "What is attended to is copied",
            "The heads copy: for every number there is a head in whose OV circuit its own logit is raised most.",
            Conclusion::of(
                self.copies(),
                format!(
                    "{copied} of {} numbers raise their own logit most, in the head that copies them most; by that, {}",
                    self.values,
                    self.split()
                ),
            ),
        )
        .text(format!(
            "By the write-up, numbers slightly below what is attended to are raised as well, and those slightly above \
             lowered. Over the mean of all logits are, of those 1 to 3 below, {}, and of those 1 to 3 above, {}.",
            raised(-3..=-1),
            raised(1..=3)
        ))
        .picture(
            Picture::new("ov", "OV circuits", self.matrices(&c.ov_full, &sources, &tokens))
                .caption("W_E W_OV W_U: what attending to a token adds to every logit."),
        )
        .picture(
            Picture::new(
                "neighbours",
                "What attending to a number adds to those around it",
                Chart::Bars(vec![neighbours]),
            )
            .caption("The mean over the numbers."),
        )
    }

    /// Whether nearly all numbers are copied.
    fn copies(&self) -> bool {
        self.circuits.copied() as f64 >= NEARLY_ALL * self.values as f64
    }

    pub(super) fn shared(&self) -> Step {
        let title = "The heads share the numbers out";
        let claim = "Each head deals with its own part of the vocabulary: to a number's logit that head adds most, where \
                     the number is right, whose OV circuit copies it.";
        let (s, heads) = (&self.shares, self.heads());
        let empty = (0..heads.len()).any(|h| self.circuits.ranges(h).is_empty());
        let because = format!(
            "so for {} of the numbers ({} by chance); {}",
            percent(s.agree),
            percent(1.0 / heads.len() as f64),
            self.split()
        );
        let verdict = if heads.len() == 1 {
            Conclusion::not_applicable("there is one head")
        } else {
            Conclusion::of(s.agree >= NEARLY_ALL && !empty, because)
        };
        let numbers: Vec<usize> = (0..self.values).collect();
        let lines = |title: &str, y: &str, of: &[Vec<f64>]| XyPlot {
            title: title.into(),
            x: "number to be written".into(),
            y: y.into(),
            series: heads
                .iter()
                .zip(of)
                .map(|(head, values)| {
                    let x: Vec<f64> = numbers.iter().map(|&v| v as f64).collect();
                    Series::new(&format!("head {head}"), Draw::Line, &x, values)
                })
                .collect(),
        };
        Step::new("shares", title, claim, verdict)
            .picture(Picture::new(
                "shares",
                "What each head adds to the right logit",
                Chart::Xy(vec![lines("", "logit", &s.attribution)]),
            ))
            .picture(Picture::new(
                "attention_by_value",
                "How much each head attends to the number to be written",
                Chart::Xy(vec![lines("", "attention", &s.attention)]),
            ))
    }

    pub(super) fn elsewhere(&self) -> Step {
        let title = "Anti-copying is on one side only";
        let claim = "The less important head takes from the numbers that the other copies; where it copies itself, the other \
                     takes nothing from them.";
        let rise = |head: usize| self.ablations[head].1;
        let mut heads: Vec<&Elsewhere> = self.circuits.elsewhere.iter().collect();
        heads.sort_by(|a, b| rise(a.head).total_cmp(&rise(b.head)));
        let verdict = match heads[..] {
            _ if !self.copies() => {
                Conclusion::not_applicable("the heads do not copy what they attend to")
            }
            [less, more] if less.values > 0 && more.values > 0 => {
                let takes = |e: &Elsewhere| e.negative > CLEARLY && e.mean < 0.0;
                let of = |e: &Elsewhere| {
                    format!(
                        "the diagonal of head {} is negative for {} of the {} numbers that the other copies (mean {})",
                        self.heads()[e.head],
                        percent(e.negative),
                        e.values,
                        Number::from(e.mean)
                    )
                };
                let because = format!("{}; {}; 50% by chance", of(less), of(more));
                Conclusion::of(takes(less) && !takes(more), because)
            }
            [_, _] => Conclusion::not_applicable("one head copies every number"),
            _ => Conclusion::not_applicable(format!(
                "there are {} heads, the claim is of two",
                heads.len()
            )),
        };
        let diagonal = |(head, ov): (String, &Vec<Vec<f64>>)| {
            let x: Vec<f64> = (0..self.values).map(|v| v as f64).collect();
            let y: Vec<f64> = (0..self.values).map(|v| ov[v][v]).collect();
            Series::new(&format!("head {head}"), Draw::Line, &x, &y)
        };
        let circuits = self.heads().into_iter().zip(&self.circuits.ov_full);
        let plot = XyPlot {
            title: String::new(),
            x: "number".into(),
            y: "its own logit, by attending to it".into(),
            series: circuits.map(diagonal).collect(),
        };
        Step::new("anti", title, claim, verdict)
            .text(
                "The write-up tried this as a reason why close numbers do not confuse the model, and dropped it because \
                 it is on one side only.",
            )
            .picture(Picture::new(
                "diagonal",
                "The diagonals of the OV circuits",
                Chart::Xy(vec![plot]),
            ))
    }
}
