//! The steps on lists that are hard.

use super::{MOST, OFTEN};
use crate::study::sorted_list::adversarial::AT_A_JUMP;
use crate::study::sorted_list::lab::total;
use crate::study::sorted_list::{BySize, Hard, Smallest, SortedListStudy};
use crate::study::words::percent;
use crate::study::{
    Bar, BarChart, Chart, ChartAxis, Conclusion, Draw, Number, Picture, Series, Step, Table, XyPlot,
};

impl SortedListStudy {
    pub(super) fn smallest(&self) -> Step {
        let a = &self.adversarial;
        let claim = "`SEP` finds the smallest number only up to about 30 of 50: of a list that is all above, the model fails \
                     to say which is the smallest.";
        let title = "Lists of large numbers";
        let [Some(plain), Some(upper)] = ["any", "upper"].map(|id| a.kind(id)) else {
            let why = "this model has not enough numbers for such lists";
            return Step::new("smallest", title, claim, Conclusion::not_applicable(why));
        };
        let verdict = if plain.right[0] < MOST {
            let why = format!(
                "of any list the smallest is found in {}",
                percent(plain.right[0])
            );
            Conclusion::not_applicable(why)
        } else {
            let because = format!(
                "right at `SEP`: {} of lists of any values, {} of lists {}",
                percent(plain.right[0]),
                percent(upper.right[0]),
                upper.kind
            );
            Conclusion::of(upper.right[0] < MOST, because)
        };
        let series = |name: &str, f: &dyn Fn(&Smallest) -> f64| {
            let of =
                |f: &dyn Fn(&Smallest) -> f64| a.by_smallest.iter().map(f).collect::<Vec<f64>>();
            Series::new(name, Draw::Line, &of(&|s| s.value as f64), &of(f))
        };
        let plot = XyPlot {
            title: String::new(),
            x: "smallest number of the list".into(),
            y: "at SEP".into(),
            series: vec![
                series("its probability", &|s| s.probability),
                series("attention to it, of the head with most", &|s| s.attention),
            ],
        };
        let mut step = Step::new("smallest", title, claim, verdict)
            .text(
                "Lists are drawn as in training, without repetition. Means over a list hide where it fails: the table is \
                 by step.",
            )
            .table(self.by_step(&["any", "upper", "highest"]))
            .table(self.worst(&["any", "upper", "highest"]))
            .picture(Picture::new(
                "smallest",
                "The first step, by the smallest number",
                Chart::Xy(vec![plot]),
            ));
        if let Some(shown) = &a.shown {
            let view = self.patterns(shown);
            step = step.picture(Picture::new(
                "upper_attention",
                "Attention on such lists",
                view,
            ));
        }
        step
    }

    pub(super) fn jump(&self) -> Step {
        let a = &self.adversarial;
        let title = "A large jump";
        let claim = "Where the next number is far above, a number attends to itself rather than to the next one, and the \
                     answer is wrong. Such jumps are rare in training.";
        let (Some(j), [Some(plain), Some(hard)]) = (&a.jump, ["any", "jump"].map(|id| a.kind(id)))
        else {
            let why = "this model has not enough numbers for such lists";
            return Step::new("jump", title, claim, Conclusion::not_applicable(why));
        };
        let at = |k: &Hard| k.right[j.step];
        let of = |kind: usize| {
            j.attention
                .iter()
                .map(|head| head[kind])
                .collect::<Vec<f64>>()
        };
        let (itself, next) = (of(0), of(1));
        let rare = a.by_size.iter().filter(|s| s.size >= j.least);
        let rare = total(rare.map(|s| s.share));
        let because = format!(
            "right at the jump: {} (at that step of any lists {}), elsewhere in these lists {}; attention to itself {}; \
             to the next {}; jumps of {} or more are {} of the steps in the sequences studied",
            percent(at(hard)),
            percent(at(plain)),
            percent(elsewhere(hard, j.step)),
            self.by_head(&itself),
            self.by_head(&next),
            j.least,
            percent(rare)
        );
        let verdict = if at(plain) < MOST {
            let why = format!("of any lists that step is right in {}", percent(at(plain)));
            Conclusion::not_applicable(why)
        } else {
            let to_itself = itself.iter().zip(&next).all(|(own, next)| own > next);
            Conclusion::of(at(hard) < MOST && to_itself && rare < OFTEN, because)
        };
        let attention = BarChart {
            title: String::new(),
            x: ChartAxis::new("attention to", AT_A_JUMP),
            y: "mean weight".into(),
            bars: self
                .heads()
                .iter()
                .zip(&j.attention)
                .map(|(head, kinds)| Bar::new(&format!("head {head}"), kinds))
                .collect(),
        };
        let sizes = |f: &dyn Fn(&BySize) -> f64| a.by_size.iter().map(f).collect::<Vec<f64>>();
        let by_size = XyPlot {
            title: String::new(),
            x: "next number less this one".into(),
            y: "in the sequences studied".into(),
            series: vec![
                Series::new(
                    "probability of the right number",
                    Draw::Line,
                    &sizes(&|s| s.size as f64),
                    &sizes(&|s| s.probability),
                ),
                Series::new(
                    "share of the steps",
                    Draw::Dashed,
                    &sizes(&|s| s.size as f64),
                    &sizes(&|s| s.share),
                ),
            ],
        };
        let largest = a.by_size.last().map_or(0, |s| s.size);
        let mut step = Step::new("jump", title, claim, verdict)
            .text(format!(
                "{} lists of {}, each part without repetition. What is written at the jump is the number itself once more \
                 in {} of them, and a number that is not in the list in {}. Mean probabilities there: {} of the number \
                 itself, {} of the next, {} of the one after that. The largest jump in the sequences studied is of \
                 {largest}.",
                hard.lists,
                hard.kind,
                percent(j.repeated),
                percent(j.not_in_list),
                Number::from(j.p_itself),
                Number::from(j.p_next),
                Number::from(j.p_after_next)
            ))
            .table(self.by_step(&["any", "jump"]))
            .table(self.worst(&["jump"]));
        if !a.published.is_empty() {
            step = step.table(self.jumps_published());
        }
        step.picture(Picture::new(
            "jump",
            "What the number before the jump attends to",
            Chart::Bars(vec![attention]),
        ))
        .picture(Picture::new(
            "jump_attention",
            "Attention on such lists",
            self.patterns(&j.shown),
        ))
        .picture(Picture::new(
            "by_size",
            "Answers by the size of the jump",
            Chart::Xy(vec![by_size]),
        ))
    }

    /// The write-up's own lists with a jump.
    fn jumps_published(&self) -> Table {
        let mut table = Table::new(
            "The write-up's two lists (its first number is not legible in the text; 0 is ours)",
            [
                "list",
                "attention to itself",
                "to the next",
                "probability of itself",
                "of the next",
                "written",
            ],
        );
        for p in &self.adversarial.published {
            table.row([
                self.words(&p.list).into(),
                self.by_head(&p.to_itself).into(),
                self.by_head(&p.to_next).into(),
                p.p_itself.into(),
                p.p_next.into(),
                self.name(p.written as i64).into(),
            ]);
        }
        table
    }

    /// The right token's probability on lists of such kinds, step by step, and the worst answer.
    fn by_step(&self, kinds: &[&str]) -> Table {
        let kinds = || kinds.iter().filter_map(|id| self.adversarial.kind(id));
        let mut header = vec!["step, after".to_string()];
        for k in kinds() {
            header.extend([format!("{}: probability", k.kind), "right".into()]);
        }
        let mut table = Table::new(
            "Probability of the right number, and share of right answers",
            header,
        );
        for (i, step) in self.steps().labels.into_iter().enumerate() {
            let mut row = vec![step.into()];
            for k in kinds() {
                row.extend([k.by_step[i].into(), k.right[i].into()]);
            }
            table.row(row);
        }
        let mut row = vec!["all".into()];
        for k in kinds() {
            row.extend([k.mean.into(), k.accuracy.into()]);
        }
        table.row(row);
        table
    }

    /// The worst answer on lists of such kinds.
    fn worst(&self, kinds: &[&str]) -> Table {
        let mut table = Table::new(
            "The worst answers",
            [
                "lists",
                "list",
                "after",
                "position",
                "right",
                "its probability",
                "written",
            ],
        );
        for k in kinds.iter().filter_map(|id| self.adversarial.kind(id)) {
            let position = self.length + k.step;
            table.row([
                k.kind.as_str().into(),
                self.words(&k.worst[..self.length]).into(),
                self.name(k.worst[position]).into(),
                position.into(),
                self.name(k.worst[position + 1]).into(),
                k.probability.into(),
                self.name(k.written as i64).into(),
            ]);
        }
        table
    }
}

/// The share of right answers at all steps but one.
fn elsewhere(hard: &Hard, step: usize) -> f64 {
    let others = hard.right.iter().enumerate().filter(|(i, _)| *i != step);
    let others: Vec<f64> = others.map(|(_, right)| *right).collect();
    crate::metric::mean(&others)
}
