//! The four vectors that the filters are made of, and what that says of how the labels are kept.

use super::answers::more_frequent;
use crate::study::two_integer::{Regular, TwoIntegerStudy, wave_by_chance};
use crate::study::words::percent;
use crate::study::{Cell, Chart, Conclusion, Draw, Picture, Series, Step, Table, XyPlot};

/// The integers' names.
const INTEGERS: [&str; 2] = ["A", "B"];

impl TwoIntegerStudy {
    /// The four vectors.
    pub(super) fn over_integers(&self) -> Step {
        /// Half a standard deviation between the halves of the integers.
        const APART: f64 = 0.5;
        let (id, title) = ("integers", "Four vectors over the integers");
        let claim = "A filter's numbers show what it is for: one of the filters (the second, on the write-up's model) has negative \
                     ones for small `B` and positive ones for large `B`.";
        if let Some(verdict) = self.without_gate() {
            return Step::new(id, title, claim, verdict);
        }
        let b = [0, 1].map(|f| self.integers.regular[f][1]);
        let most = usize::from(b[1].halves > b[0].halves);
        let lines = [0, 1].map(|f| XyPlot {
            title: format!("filter {}", f + 1),
            x: "integer".into(),
            y: "adds along the direction".into(),
            series: (0..2).map(|i| self.vector(f, i)).collect(),
        });
        let mut table = Table::new(
            "How regular the numbers are",
            [
                "",
                "share of the filter's variance",
                "correlation with the integer",
                "told by a cubic",
                "told by the best wave",
                "by a cubic and a wave",
            ],
        );
        for f in 0..2 {
            for (i, integer) in INTEGERS.iter().enumerate() {
                let Regular {
                    share,
                    rises,
                    cubic,
                    wave,
                    both,
                    ..
                } = self.integers.regular[f][i];
                table.row([
                    Cell::from(format!("filter {}, {integer}", f + 1)),
                    percent(share).into(),
                    Cell::from(format!("{rises:.3}")),
                    percent(cubic).into(),
                    percent(wave).into(),
                    percent(both).into(),
                ]);
            }
        }
        Step::new(
            id,
            title,
            claim,
            Conclusion::of(
                b[most].halves >= APART,
                format!(
                    "filter {}'s numbers of the larger half of `B` are on average {:.2} standard deviations above those of the \
                     smaller half (filter {}: {:.2}); expected at least {APART} of one of them",
                    most + 1,
                    b[most].halves,
                    2 - most,
                    b[1 - most].halves
                ),
            ),
        )
        .text(
            "A filter adds a number of `A` to a number of `B`: two filters are four vectors with a number for each integer. \
             Centred here, as what is common to all integers belongs to the threshold.",
        )
        .table(table)
        .picture(Picture::new("vectors-lines", "The four vectors", Chart::Xy(lines.into())))
    }

    /// Whether the labels are kept as numbers or as a rule.
    pub(super) fn by_heart(&self) -> Step {
        /// "At least 91.5% of the data", to about what models of one training differ by.
        const FIT: f64 = 0.90;
        let (id, title) = ("by-heart", "Learnt by heart");
        let claim = "The model has learnt the shapes by heart and no equation: four vectors with a number for each integer hold most \
                     of the data, and these numbers follow no rule.";
        if let Some(verdict) = self.without_gate() {
            return Step::new(id, title, claim, verdict);
        }
        let f = &self.filters;
        let ruled = self.integers.ruled_agrees_with_full;
        let common = more_frequent(&self.full.says);
        let held_out = match self.held_out {
            Some(held_out) => format!(
                " Of the {} pairs that it was not trained on the model gives {} their label: each integer's numbers were learnt \
                 from other pairs.",
                held_out.pairs,
                percent(held_out.accuracy())
            ),
            None => String::new(),
        };
        Step::new(
            id,
            title,
            claim,
            Conclusion::of(
                f.agrees_with_full >= FIT && f.agrees_with_labels >= FIT && 1.0 - ruled >= 2.0 * (1.0 - f.agrees_with_full),
                format!(
                    "the four vectors tell {} of the model's answers ({} of the labels); with numbers as a cubic and a wave have them \
                     they tell {}, whoever always says the more frequent answer {}; expected at least {} of both, and twice as many mistakes \
                     with the rules",
                    percent(f.agrees_with_full),
                    percent(f.agrees_with_labels),
                    percent(ruled),
                    percent(common),
                    percent(FIT)
                ),
            ),
        )
        .text(format!(
            "This is the authors' conclusion: they did not find the labelling function, and do not think that it can be read off \
             the weights. What can be measured is whether the numbers follow a rule. Each vector's are replaced by what a cubic \
             polynomial of the integer tells of them together with the one wave (with a whole number of periods) that tells the most: \
             six parameters for {} numbers. Of as many random numbers the best wave alone tells {} on average. That they follow \
             no such rule does not prove that they follow none.{held_out}",
            self.n(),
            percent(wave_by_chance(self.n()))
        ))
    }

    fn centred(&self, filter: usize, integer: usize) -> Vec<f64> {
        let filter = &self.filters.filters[filter];
        let all = [&filter.of_a, &filter.of_b][integer];
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        all.iter().map(|x| x - mean).collect()
    }

    fn vector(&self, filter: usize, integer: usize) -> Series {
        let at: Vec<f64> = (0..self.n()).map(|i| i as f64).collect();
        let numbers = self.centred(filter, integer);
        Series::new(INTEGERS[integer], Draw::Line, &at, &numbers)
    }
}
