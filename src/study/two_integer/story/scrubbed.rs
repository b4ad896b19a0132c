//! Causal scrubbing.

use super::gate::MODELS;
use crate::study::two_integer::{Scrubs, TwoIntegerStudy};
use crate::study::words::percent;
use crate::study::{Bar, BarChart, Cell, Chart, ChartAxis, Conclusion, Picture, Step, Table};

/// What each exchange is, by its name.
const EXCHANGES: [(&str, &str); 6] = [
    (
        "1",
        "all components but the first two, each from an input of its own, any",
    ),
    ("1*", "all components but the first three, likewise"),
    (
        "2",
        "each filter's coordinate, from any input on the same side of that filter's threshold",
    ),
    (
        "3a",
        "the first filter's coordinate of inputs that fail the second, from any input that fails the second",
    ),
    (
        "3b",
        "the second filter's coordinate of inputs that fail the first, from any input that fails the first",
    ),
    (
        "together",
        "[1], [2], [3a] and then [3b], with the first filter as [3a] has left it",
    ),
];

impl TwoIntegerStudy {
    /// What the exchanges leave.
    pub(super) fn scrubbed(&self) -> Step {
        /// "Around 4%", which is all that may be lost.
        const LOST: f64 = 0.05;
        let (id, title) = ("scrubbing", "Causal scrubbing");
        let claim = "The answer depends on two filters' being passed or not, and on both being passed alone: all that this says \
                     does not matter may come from other inputs, and around 4 points are lost.";
        let [Some(full), Some(fixed)] = &self.scrubs else {
            let because = "the gate's two directions are the same: there are not two filters";
            return Step::new(id, title, claim, Conclusion::not_applicable(because));
        };
        let both = [full, fixed];
        if both.iter().any(|s| s.none - s.chance <= LOST) {
            let because = format!(
                "{} of the labels are told with nothing exchanged ({} with fixed attention), {} ({}) with other inputs' answers: \
                 there is not enough to lose",
                percent(full.none),
                percent(fixed.none),
                percent(full.chance),
                percent(fixed.chance)
            );
            return Step::new(id, title, claim, Conclusion::not_applicable(because));
        }
        let lost = |s: &Scrubs| s.lost(s.together());
        let points = |x: f64| format!("{:.1}", 100.0 * x);
        let verdict = Conclusion::of(
            both.iter().all(|s| lost(s) <= LOST),
            format!(
                "all together leave {} of {} ({} points lost), and with fixed attention {} of {} ({} points); with other inputs' \
                 answers it would be {} and {}; expected to lose at most {:.0} points",
                percent(full.together().left),
                percent(full.none),
                points(lost(full)),
                percent(fixed.together().left),
                percent(fixed.none),
                points(lost(fixed)),
                percent(full.chance),
                percent(fixed.chance),
                100.0 * LOST
            ),
        );
        let mut what = Table::new("The exchanges", ["", "what is exchanged"]);
        for (name, exchange) in EXCHANGES {
            what.row([Cell::from(called(name)), exchange.into()]);
        }
        let mut step = Step::new(id, title, claim, verdict)
            .text(format!(
                "The stream at `=` before the MLP is written in all {} principal components of it, of the model in question. In \
                 the plane of the first two, the coordinates are what the two directions of the gate in this plane read; each \
                 is exchanged along the vector that the other direction does not read. The answers are held against the labels. \
                 Every one of the {} pairs is given {} times coordinates drawn at random from other pairs.",
                self.config.d_model,
                self.labels.len(),
                Scrubs::DRAWS
            ))
            .table(what);
        for (name, scrubs) in MODELS.iter().zip(both) {
            let header = ["", "labels told", "standard error", "points lost"];
            let mut table = Table::new(&format!("Labels told: {name}"), header);
            let none = percent(scrubs.none).into();
            table.row(["nothing exchanged".into(), none, "".into(), "".into()]);
            for test in &scrubs.tests {
                table.row([
                    called(test.name).into(),
                    Cell::from(format!("{:.2}%", 100.0 * test.left)),
                    Cell::from(format!("{:.2}%", 100.0 * test.error)),
                    Cell::from(format!("{:.2}", 100.0 * scrubs.lost(test))),
                ]);
            }
            step = step.table(table);
        }
        step.picture(
            Picture::new("scrubbing", "Points lost by each exchange", losses(both))
                .caption("Whiskers: two standard errors to either side."),
        )
    }
}

/// `[1*]`, as the write-up has it.
fn called(name: &str) -> String {
    match name {
        "together" => name.into(),
        _ => format!("[{name}]"),
    }
}

fn losses(both: [&Scrubs; 2]) -> Chart {
    let names = both[0].tests.iter().map(|t| called(t.name));
    let bars = MODELS.iter().zip(both).map(|(name, scrubs)| {
        let lost: Vec<f64> = scrubs
            .tests
            .iter()
            .map(|t| 100.0 * scrubs.lost(t))
            .collect();
        let error: Vec<f64> = scrubs.tests.iter().map(|t| 200.0 * t.error).collect();
        Bar::new(name, &lost).whiskers(&error)
    });
    Chart::Bars(vec![BarChart {
        title: String::new(),
        x: ChartAxis::new("exchange", names),
        y: "percentage points lost".into(),
        bars: bars.collect(),
    }])
}
