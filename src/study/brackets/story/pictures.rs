//! The kinds of picture that several steps show.

use crate::decompose::histogram_by_class;
use crate::study::brackets::{Along, BracketsStudy, StringKind};
use crate::study::{
    Bar, BarChart, Chart, ChartAxis, Class, Draw, HistogramChart, Number, Series, XyPlot,
};

impl BracketsStudy {
    /// Components along a direction, by class, on one set of bins. Those that are the same for all sequences are left
    /// out.
    pub(super) fn histograms(&self, components: &[Along]) -> Chart {
        const BINS: usize = 40;
        let varies = |a: &&Along| a.values.iter().any(|x| *x != 0.0);
        let shown: Vec<&Along> = components.iter().filter(varies).collect();
        let all: Vec<f64> = shown
            .iter()
            .flat_map(|a| a.values.iter().copied())
            .collect();
        let ends = [f64::min, f64::max].map(|pick| all.iter().copied().reduce(pick).unwrap_or(0.0));
        let panel = |a: &&Along| {
            // The ends of all components' values with each, so that all have the same bins; they are not counted.
            let values: Vec<f64> = a.values.iter().copied().chain(ends).collect();
            let class = |s: usize| if self.data.balanced[s] { 0 } else { 1 };
            let classes: Vec<usize> = (0..a.values.len()).map(class).chain([2, 2]).collect();
            let bins = histogram_by_class(&values, &classes, BINS).expect("finite values and bins");
            let share = |of: usize| -> Vec<f64> {
                let counts = bins.classes.iter().find(|c| c.class == of);
                let counts = counts.map_or(vec![0; BINS], |c| c.value.counts.clone());
                let total: usize = counts.iter().sum();
                counts
                    .iter()
                    .map(|&n| 100.0 * n as f64 / total.max(1) as f64)
                    .collect()
            };
            HistogramChart {
                title: a.component.clone(),
                x: "along the direction".into(),
                y: "% of the class".into(),
                edges: bins.edges.iter().map(|&e| e.into()).collect(),
                classes: vec![
                    Class::new("balanced", &share(0)),
                    Class::new("unbalanced", &share(1)),
                ],
            }
        };
        Chart::Histograms(shown.iter().map(panel).collect())
    }

    /// A point for each of these sequences, coloured by how it fails.
    pub(super) fn scatter(
        &self,
        sequences: &[usize],
        axes: [&str; 2],
        place: impl Fn(usize) -> [f64; 2],
    ) -> XyPlot {
        let series = StringKind::ALL.map(|kind| {
            let of = sequences.iter().filter(|&&s| self.data.kinds[s] == kind);
            let (x, y): (Vec<f64>, Vec<f64>) = of.map(|&s| place(s)).map(|[x, y]| (x, y)).unzip();
            Series::new(&kind.to_string(), Draw::Points, &x, &y)
        });
        XyPlot {
            title: String::new(),
            x: axes[0].into(),
            y: axes[1].into(),
            series: series.into(),
        }
    }
}

/// A number in a sentence, with the digits that say something.
pub(super) fn number(x: f64) -> String {
    Number::from(x).to_string()
}

/// One bar at each place.
pub(super) fn bars(x: ChartAxis, y: &str, name: &str, heights: &[f64]) -> BarChart {
    BarChart {
        title: String::new(),
        x,
        y: y.into(),
        bars: vec![Bar::new(name, heights)],
    }
}
