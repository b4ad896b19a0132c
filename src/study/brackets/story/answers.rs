//! The task, the model's answers, and the solutions by hand.

use crate::study::brackets::{BracketsStudy, Judged, StringKind};
use crate::study::{Cell, Chart, Conclusion, Draw, Number, Picture, Series, Step, Table, XyPlot};
use crate::task::{Brackets, Task};

impl BracketsStudy {
    /// How good the model is.
    pub(super) fn answered(&self) -> Step {
        /// "Nearly always".
        const NEARLY: f64 = 0.99;
        let p = &self.performance;
        let share = p.right as f64 / p.sequences as f64;
        let mut table = Table::new(
            "Answers by how the strings fail",
            ["strings", "how many", "right", "mean P(balanced)"],
        );
        for (kind, &(count, right, mean)) in StringKind::ALL.iter().zip(&p.by_kind) {
            table.row([
                kind.to_string().into(),
                count.into(),
                right.into(),
                Cell::from(mean),
            ]);
        }
        Step::new(
            "answers",
            "What the model can do",
            "The classifier nearly always knows whether a string of brackets is balanced.",
            Conclusion::of(
                share >= NEARLY,
                format!("{} of {} right, mean loss {}", p.right, p.sequences, Number::from(p.loss)),
            ),
        )
        .text(
            "The string stands between `[start]` and `[end]`, and the answer is read at `[start]`, position 0. Every position sees \
             every other one, but padding.",
        )
        .text(format!(
            "Of {} strings that were generated in the same way {} are wrong; the write-up says about one in ten thousand.",
            p.many, p.many_wrong
        ))
        .table(table)
        .table(judged("Some strings", &p.examples))
    }

    /// The two ways to solve the task by hand.
    pub(super) fn solved_by_hand(&self) -> Step {
        let p = &self.performance;
        let series = StringKind::ALL.map(|kind| {
            let s = self.data.shown(kind);
            let sequence = self.data.tokens.sequence(s);
            let elevation = Brackets::elevation(sequence);
            let x: Vec<f64> = (1..self.data.lengths[s]).map(|p| p as f64).collect();
            let y: Vec<f64> = (1..self.data.lengths[s])
                .map(|p| elevation[p] as f64)
                .collect();
            let text = Brackets::default().text(sequence);
            Series::new(&format!("{kind}: {text}"), Draw::Line, &x, &y)
        });
        let plot = XyPlot {
            title: String::new(),
            x: "position".into(),
            y: "closed less opened from here on".into(),
            series: series.into(),
        };
        Step::new(
            "solutions",
            "Two solutions by hand",
            "Going through the string from the left with a counter, or adding up what closes and opens from the right, gives the same answer.",
            Conclusion::of(
                p.solutions_agree == p.sequences,
                format!("they agree on {} of {}", p.solutions_agree, p.sequences),
            ),
        )
        .text(format!(
            "The second is what a transformer can do at once: at each position, count what follows. A string fails in two ways. Its \
             total may be wrong ({} strings), or the count goes negative somewhere ({}): a bracket opens that nothing closes.",
            p.wrong_total, p.negative
        ))
        .picture(
            Picture::new("elevation", "The elevation, read from the right", Chart::Xy(vec![plot]))
                .caption("A balanced string ends at 0 on the left and nowhere goes below."),
        )
    }
}

/// A probability in percent, with the write-up's four decimals, and more where they say nothing.
pub(super) fn confidence(p: f64) -> String {
    const DECIMALS: i32 = 4;
    let percent = 100.0 * p;
    let from_end = percent.min(100.0 - percent);
    if from_end == 0.0 || from_end >= 0.5 * 0.1f64.powi(DECIMALS) {
        return format!("{percent:.4}%");
    }
    match p < 0.5 {
        true => format!("{}%", Number::from(percent)),
        false => format!("100% less {}%", Number::from(from_end)),
    }
}

/// Strings and what the model says of them.
pub(super) fn judged(title: &str, all: &[Judged]) -> Table {
    let mut table = Table::new(title, ["string", "is", "P(balanced)"]);
    for j in all {
        table.row([
            format!("`{}`", j.brackets).into(),
            j.kind.to_string().into(),
            Cell::from(confidence(j.p_balanced)),
        ]);
    }
    table
}
