//! The steps on what the model does, where its heads look, and which of them it needs.

use super::{MOST, NEARLY_ALL};
use crate::study::sorted_list::SortedListStudy;
use crate::study::sorted_list::attention::KINDS;
use crate::study::words::percent;
use crate::study::{
    Bar, BarChart, Chart, ChartAxis, Conclusion, HeatMap, Number, Picture, Scale, Step, Table,
};

/// The share of right answers from which on a model can sort: but for one in twenty.
const SORTS: f64 = 0.95;

impl SortedListStudy {
    pub(super) fn performed(&self) -> Step {
        let p = &self.performance;
        let e = &self.example;
        let after = &e.tokens[e.first..e.tokens.len() - 1];
        let right = e.tokens[e.first + 1..].iter().enumerate();
        let map = HeatMap::new(
            "",
            ChartAxis::new("after", after.iter().map(|&t| self.name(t))),
            ChartAxis::new("predicted token", self.names()),
            &e.probabilities.concat(),
        )
        .marked(right.map(|(i, &t)| [i, t as usize]));
        let mut table = Table::new("Probability of the right token", ["", "value"]);
        for (name, value) in [
            ("mean", p.mean),
            ("median", p.median),
            ("smallest", p.min),
            ("loss", p.loss),
        ] {
            table.row([name.into(), value.into()]);
        }
        let chart = Chart::HeatMaps {
            scale: Scale::Sequential,
            maps: vec![map],
        };
        Step::new(
            "performance",
            "What the model can do",
            "The model writes the list in order, nearly always with confidence.",
            Conclusion::of(
                p.accuracy > SORTS && p.median > NEARLY_ALL,
                format!(
                    "{} of {} × {} answers are right, half of them with a probability above {}",
                    percent(p.accuracy),
                    p.sequences,
                    self.length,
                    Number::from(p.median)
                ),
            ),
        )
        .table(table)
        .picture(
            Picture::new("prediction", "One list, step by step", chart).caption(format!(
                "The sequence {}. Each row is a step; the right token has a frame.",
                self.words(&e.tokens)
            )),
        )
    }

    pub(super) fn attended(&self) -> Step {
        let a = &self.attending;
        let [either, chance] = a.after_the_separator();
        let (head, first) = a.at_the_separator();
        let because = if either.is_nan() {
            None
        } else {
            Some(format!(
                "from a number the largest weight of at least one head is on the next larger one in {} of the steps ({} \
                 if each head chose any of those still to be written); from `SEP` that of head {} is on the smallest \
                 in {}",
                percent(either),
                percent(chance),
                self.heads()[head],
                percent(first)
            ))
        };
        let verdict = match because {
            Some(because) => Conclusion::of(
                either > MOST && either > chance && first > NEARLY_ALL,
                because,
            ),
            None => Conclusion::not_applicable("the lists are of one number"),
        };
        let otherwise =
            self.heads()
                .into_iter()
                .enumerate()
                .map(|(h, head)| match a.otherwise(h) {
                    Some((kind, share)) => format!(
                        "that of head {head} is most often on `{kind}` ({} of these steps)",
                        percent(share)
                    ),
                    None => format!("head {head} has no such step"),
                });
        let otherwise: Vec<String> = otherwise.collect();
        let mut header = vec!["step, after".to_string()];
        header.extend(self.heads().into_iter().map(|h| format!("head {h}")));
        header.extend(["either".into(), "chance".into()]);
        header.extend(
            self.heads()
                .into_iter()
                .map(|h| format!("{h}, in the list")),
        );
        header.push("either, in the list".into());
        let mut table = Table::new(
            "How often the largest weight is on the number to be written",
            header,
        );
        for (i, step) in self.steps().labels.into_iter().enumerate() {
            let mut row = vec![step.into()];
            row.extend(a.hits.iter().map(|h| h[i].into()));
            row.extend([a.either[i].into(), a.chance[i].into()]);
            row.extend(a.hits_in_list.iter().map(|h| h[i].into()));
            row.push(a.either_in_list[i].into());
            table.row(row);
        }
        let map = |(head, steps): (String, &Vec<Vec<f64>>)| {
            let columns = ChartAxis::new("largest weight on", KINDS);
            let n = self.performance.sequences as f64;
            let lists: Vec<f64> = steps.concat().iter().map(|x| (x * n).round()).collect();
            HeatMap::new(&format!("head {head}"), self.steps(), columns, &lists)
        };
        let chart = Chart::HeatMaps {
            scale: Scale::Sequential,
            maps: self.heads().into_iter().zip(&a.kinds).map(map).collect(),
        };
        Step::new(
            "attention",
            "Where the heads look",
            "Most of the time a number attends to the smallest number that is larger, in at least one of the heads; `SEP` \
             consistently attends to the smallest of all.",
            verdict,
        )
        .text(
            "The largest weight of every step that writes a number, of all keys up to the query's own, and of the keys in \
             the unsorted list alone, which is where the write-up looks.",
        )
        .text(format!("Where it is not on the next larger one, {}.", otherwise.join("; ")))
        .table(table)
        .picture(
            Picture::new("attention", "Attention patterns", self.patterns(&a.shown))
                .caption("Rows look, columns are looked at; numbers are written from the row of `SEP` on."),
        )
        .picture(
            Picture::new("kinds", "What the largest weight lies on", chart)
                .caption("In how many of the lists, at each step: on the number to be written next, the one after it, one further above, the query's own, one below, `SEP`."),
        )
    }

    pub(super) fn ablated(&self) -> Step {
        let title = "One head matters more than the others";
        // What matters at least doubles the loss.
        let claim = "The head that copies more of the numbers is the one that is missed most: its output replaced by its \
                     mean costs more than that of any other, and more than the loss itself.";
        let heads = self.heads();
        let rises: Vec<f64> = self.ablations.iter().map(|(_, rise)| *rise).collect();
        let copies = |h: usize| self.circuits.owners.iter().filter(|&&o| o == h).count();
        let most = |key: &dyn Fn(usize) -> f64| {
            (1..heads.len()).fold(0, |best, h| if key(h) > key(best) { h } else { best })
        };
        let (covers, needed) = (most(&|h| copies(h) as f64), most(&|h| rises[h]));
        let each = heads.iter().enumerate().map(|(h, head)| {
            format!(
                "by {} without {head}, which copies {}",
                Number::from(rises[h]),
                copies(h)
            )
        });
        let because = format!(
            "the loss of {} rises {}",
            Number::from(self.performance.loss),
            each.collect::<Vec<_>>().join(", ")
        );
        let verdict = if heads.len() == 1 {
            Conclusion::not_applicable(format!("there is one head; {because}"))
        } else {
            Conclusion::of(
                covers == needed && rises[needed] > self.performance.loss,
                because,
            )
        };
        let chart = BarChart {
            title: String::new(),
            x: ChartAxis::new("head", &heads),
            y: "rise of the loss".into(),
            bars: vec![Bar::new("mean-ablated", &rises)],
        };
        Step::new("ablation", title, claim, verdict).picture(Picture::new(
            "ablation",
            "Loss without each head",
            Chart::Bars(vec![chart]),
        ))
    }
}
