//! How the model came to it.

use crate::study::modular_addition::{Measures, ModularAdditionStudy, Training, Trial};
use crate::study::words::number;
use crate::study::{Chart, Conclusion, Draw, Picture, Series, Step, XyPlot};

impl ModularAdditionStudy {
    /// Grokking.
    pub(super) fn grokked(&self) -> Step {
        let title = "How it was learned";
        let claim = "The model first learns the pairs that it is shown by heart, and much later, suddenly, all others; what it then answers with \
                     grows before that.";
        let Some(training) = self.training.as_ref().filter(|t| !t.curve.is_empty()) else {
            let why = "nothing is known of this model's training";
            return Step::new("training", title, claim, Conclusion::not_applicable(why));
        };
        // As large as by guessing, on a logarithmic scale half way to nothing.
        let below = |of: fn(&Trial) -> f64| {
            const LEARNED: f64 = 0.01;
            training
                .curve
                .iter()
                .find(|t| of(t) < LEARNED)
                .map(|t| t.step)
        };
        let (seen, others) = (below(|t| t.train), below(|t| t.test));
        let verdict = match (seen, others) {
            (Some(seen), Some(others)) => Conclusion::of(
                others >= 2 * seen,
                format!(
                    "the loss of the pairs trained on is below 0.01 after {seen} steps, that of the others after {others}; expected at \
                     least twice as many"
                ),
            ),
            _ => Conclusion::of(false, "one of the losses never is below 0.01"),
        };
        let step = Step::new("training", title, claim, verdict).picture(Picture::new(
            "curve",
            "Losses along the training",
            losses(training),
        ));
        if training.measures.is_empty() {
            return step;
        }
        let last = training.measures.last().map_or(0.0, |m| m.squares);
        step.text(format!(
            "The restricted loss is that of functions of `a + b` at the key frequencies of the end, the excluded loss that of all else, on the \
             pairs trained on. The first falls, and the second rises, while the loss of the other pairs is still high. The squared norm of \
             the weights is {} in the end.",
            number(last)
        ))
        .picture(Picture::new(
            "measures",
            "Progress measures",
            along(
                training,
                "log10 of the loss",
                &[
                    ("pairs trained on", |m| m.train.log10()),
                    ("other pairs", |m| m.test.log10()),
                    ("restricted", |m| m.restricted.log10()),
                    ("excluded", |m| m.excluded.log10()),
                ],
            ),
        ))
        .picture(Picture::new(
            "inequality",
            "How unequal the frequencies are",
            along(
                training,
                "Gini coefficient",
                &[
                    ("W_E", |m| m.gini_embedding),
                    ("W_out W_U", |m| m.gini_neurons),
                ],
            ),
        ))
        .picture(Picture::new(
            "squares",
            "The weights' size",
            along(training, "squared norm", &[("all parameters", |m| m.squares)]),
        ))
    }
}

fn losses(training: &Training) -> Chart {
    let series = |name: &str, of: fn(&Trial) -> f64| {
        let curve = training.curve.iter();
        let steps: Vec<f64> = curve.clone().map(|t| t.step as f64).collect();
        let values: Vec<f64> = curve.map(|t| of(t).log10()).collect();
        Series::new(name, Draw::Line, &steps, &values)
    };
    Chart::Xy(vec![XyPlot {
        title: String::new(),
        x: "steps".into(),
        y: "log10 of the loss".into(),
        series: vec![
            series("pairs trained on", |t| t.train),
            series("other pairs", |t| t.test),
        ],
    }])
}

/// A progress measure by its name.
type Measure = (&'static str, fn(&Measures) -> f64);

/// Measures along the training.
fn along(training: &Training, y: &str, measures: &[Measure]) -> Chart {
    let steps: Vec<f64> = (training.measures.iter()).map(|m| m.step as f64).collect();
    let series = |(name, of): &Measure| {
        let values: Vec<f64> = training.measures.iter().map(of).collect();
        Series::new(name, Draw::Line, &steps, &values)
    };
    Chart::Xy(vec![XyPlot {
        title: String::new(),
        x: "steps".into(),
        y: y.into(),
        series: measures.iter().map(series).collect(),
    }])
}
