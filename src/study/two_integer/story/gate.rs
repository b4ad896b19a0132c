//! The plane, the gate in it, and the MLP.

use super::{GATE, plot};
use crate::decompose::AndGate;
use crate::study::two_integer::{Answered, FirstTwo, TwoIntegerStudy};
use crate::study::words::percent;
use crate::study::{Cell, Chart, Conclusion, Picture, Series, Step, Table, XyPlot};

/// The two models, as pictures and tables call them.
pub(super) const MODELS: [&str; 2] = ["the model", "with fixed attention"];

/// Why there is no plane where the weights are all zero.
pub(super) const NO_VARIANCE: &str = "the stream at `=` is the same for all pairs";

impl Answered {
    /// Whether two thresholds tell the answers, and one does not; where the stream is no plane, there are many planes to
    /// choose from, and one in which this is so means little.
    pub(super) fn has_gate(&self) -> bool {
        /// Of the variance, that the first two components have to hold.
        const HALF: f64 = 0.5;
        let told = self.plane.gate.agreement();
        let (wrong, by_one) = (1.0 - told, 1.0 - self.plane.one_line);
        told >= GATE && by_one > 0.0 && wrong <= by_one / 2.0 && self.plane.first_two_hold() >= HALF
    }

    /// The share of the pairs that pass each filter.
    pub(super) fn passing(&self) -> [f64; 2] {
        let beyond = self.plane.all_beyond();
        [0, 1].map(|f| beyond.iter().filter(|b| b[f] > 0.0).count() as f64 / beyond.len() as f64)
    }
}

impl TwoIntegerStudy {
    /// Either model by its name.
    pub(super) fn both(&self) -> [(&'static str, &Answered); 2] {
        let [full, fixed] = MODELS;
        [(full, &self.full), (fixed, &self.fixed)]
    }

    /// Principal components before and after the MLP.
    pub(super) fn in_a_plane(&self) -> Step {
        /// "Largely": what is left is a third of it at the most.
        const MOSTLY: f64 = 0.75;
        let least = self.both().map(|(_, m)| m.plane.first_two_hold());
        let mut table = Table::new(
            "Share of the variance",
            ["", "before: first", "second", "after: first", "second"],
        );
        for (name, m) in self.both() {
            let (before, [c, d]) = (&m.plane.shares, m.after.shares);
            let cells = [before[0], before[1], c, d].map(|x| Cell::from(percent(x)));
            table.row([Cell::from(name)].into_iter().chain(cells));
        }
        let before = self.both().map(|(name, m)| before_mlp(name, m));
        let by_label = self.both().map(|(name, m)| {
            let series = plot::coloured("label", &m.plane.first_two.points, &self.labels);
            components(name, series)
        });
        let third = self.both().map(|(name, m)| XyPlot {
            x: "third component".into(),
            y: "fourth component".into(),
            ..components(name, plot::by_answer(&m.plane.first_two.next, &m.says))
        });
        let after = self.both().map(|(name, m)| after_mlp(name, m));
        let verdict = if least.iter().any(|s| s.is_nan()) {
            Conclusion::not_applicable(NO_VARIANCE)
        } else {
            Conclusion::of(
                least.iter().all(|&s| s >= MOSTLY),
                format!(
                    "two components hold {} of the variance before the MLP ({} with fixed attention); expected at least {}",
                    percent(least[0]),
                    percent(least[1]),
                    percent(MOSTLY)
                ),
            )
        };
        Step::new(
            "plane",
            "The stream at = in a plane",
            "What differs from pair to pair in the stream at `=`, before the MLP, is largely two directions.",
            verdict,
        )
        .table(table)
        .picture(
            Picture::new("before", "Before the MLP (resid_mid)", Chart::Xy(before.into())).caption(
                "A seventh of the pairs, along the first two principal components. Dashed: the two thresholds whose AND tells most of the answers in this plane.",
            ),
        )
        .picture(
            Picture::new("before-labels", "Before the MLP, by label", Chart::Xy(by_label.into()))
                .caption("The same, coloured by the label rather than by the model's answer."),
        )
        .picture(
            Picture::new("third-fourth", "Before the MLP, components 3 and 4", Chart::Xy(third.into()))
                .caption("The next two components, coloured by the model's answers."),
        )
        .picture(
            Picture::new("after", "After the MLP (resid_post)", Chart::Xy(after.into()))
                .caption("Dashed: where both logits are the same, for a stream in this plane."),
        )
    }

    /// Two thresholds and an AND.
    pub(super) fn gated(&self) -> Step {
        let mut table = Table::new(
            "Answers told by two thresholds",
            [
                "",
                "in the plane of the first two components",
                "components that hold 95%",
                "in a plane among these",
                "angle between the two directions",
                "told by one threshold",
                "of the pairs pass filter 1",
                "pass filter 2",
            ],
        );
        for (name, m) in self.both() {
            let plane = &m.plane;
            let [[a, b], [c, d]] = plane.gate.directions;
            let angle = (a * c + b * d).clamp(-1.0, 1.0).acos().to_degrees();
            table.row([
                name.into(),
                percent(plane.first_two.gate.agreement()).into(),
                plane.shares.len().into(),
                percent(plane.gate.agreement()).into(),
                Cell::from(format!("{angle:.0}°")),
                percent(plane.one_line).into(),
                percent(m.passing()[0]).into(),
                percent(m.passing()[1]).into(),
            ]);
        }
        let agreement = |m: &Answered| m.plane.gate.agreement();
        let mut step = Step::new(
            "gate",
            "An AND gate in a plane",
            "The answer is 1 where the stream before the MLP is beyond two thresholds, along two directions: both, and not \
             one of them.",
            Conclusion::of(
                self.both().iter().all(|(_, m)| m.has_gate()),
                format!(
                    "the gate tells {} of the model's answers, and {} of those with fixed attention, one threshold {} and {}; \
                     expected at least {} of both, to halve \
                     what one threshold gets wrong, and that two components hold half of the variance",
                    percent(agreement(&self.full)),
                    percent(agreement(&self.fixed)),
                    percent(self.full.plane.one_line),
                    percent(self.fixed.plane.one_line),
                    percent(GATE)
                ),
            ),
        )
        .text(
            "The write-up finds both directions in the plane of the first two components. So does this study where these hold \
             95% of the variance. Where it takes more components, it looks for the plane among them in which two thresholds \
             tell the most. In a plane, for each pair of directions the best two thresholds are found exactly, the directions \
             by a search. From here on, the plane is this one, and a filter is one of the two thresholds: it lets a pair pass \
             or not.",
        )
        .table(table);
        if self.both().iter().any(|(_, m)| m.plane.is_tilted()) {
            let panels = self.both().map(|(name, m)| {
                let points = plot::by_answer(&m.plane.points, &m.says);
                plane(name, [points, filter_lines(m).into()].concat())
            });
            let picture = Picture::new("gate", "The planes of the gates", Chart::Xy(panels.into()));
            let caption = "A seventh of the pairs before the MLP, in the plane of the gate.";
            step = step.picture(picture.caption(caption));
        }
        step
    }
}

pub(super) fn components(title: &str, series: Vec<Series>) -> XyPlot {
    XyPlot {
        title: title.into(),
        x: "first component".into(),
        y: "second component".into(),
        series,
    }
}

/// Points in the plane of the gate.
pub(super) fn plane(title: &str, series: Vec<Series>) -> XyPlot {
    XyPlot {
        title: title.into(),
        x: "first axis of the plane".into(),
        y: "second axis".into(),
        series,
    }
}

fn before_mlp(name: &str, m: &Answered) -> XyPlot {
    let FirstTwo { points, gate, .. } = &m.plane.first_two;
    let mut series = plot::by_answer(points, &m.says);
    series.extend(lines(points, gate));
    components(name, series)
}

/// The thresholds of the two filters in the plane.
pub(super) fn filter_lines(m: &Answered) -> [Series; 2] {
    lines(&m.plane.points, &m.plane.gate)
}

fn lines(points: &[[f64; 2]], gate: &AndGate) -> [Series; 2] {
    [0, 1].map(|i| {
        let line = plot::line_among(points, gate.directions[i], gate.thresholds[i]);
        plot::dashed(&format!("filter {}", i + 1), &line)
    })
}

fn after_mlp(name: &str, m: &Answered) -> XyPlot {
    let after = &m.after;
    let mut series = plot::by_answer(&after.points, &m.says);
    let line = plot::line_among(
        &after.points,
        after.decision.direction,
        after.decision.threshold,
    );
    series.push(plot::dashed("decision", &line));
    components(name, series)
}
