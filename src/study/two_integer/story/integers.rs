//! The four vectors that the filters are made of, and what that says of how the labels are kept.

use super::answers::more_frequent;
use crate::study::two_integer::{Regular, TwoIntegerStudy, wave_by_chance};
use crate::study::words::percent;
use crate::study::{
    Axis, Cell, Chart, Draw, HeatMap, Picture, Scale, Series, Step, Table, Verdict, XyPlot,
};

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
        let b = [0, 1].map(|f| self.regular[f][1]);
        let most = usize::from(b[1].halves > b[0].halves);
        let lines = [0, 1].map(|f| XyPlot {
            title: format!("filter {}", f + 1),
            x: "integer".into(),
            y: "adds along the direction".into(),
            series: (0..2).map(|i| self.vector(f, i)).collect(),
        });
        let rows: Vec<String> = (0..4)
            .map(|k| format!("filter {}, {}", k / 2 + 1, INTEGERS[k % 2]))
            .collect();
        let values: Vec<f64> = (0..4).flat_map(|k| self.centred(k / 2, k % 2)).collect();
        let map = HeatMap::new(
            "",
            Axis::new("", rows),
            Axis::new("integer", 0..self.n()),
            &values,
        );
        let mut table = Table::new(
            "How regular the numbers are",
            [
                "",
                "share of the filter's variance",
                "correlation with the integer",
                "told by a cubic",
                "told by the best wave",
            ],
        );
        for f in 0..2 {
            for (i, integer) in INTEGERS.iter().enumerate() {
                let Regular {
                    share,
                    rises,
                    cubic,
                    wave,
                    ..
                } = self.regular[f][i];
                table.row([
                    Cell::from(format!("filter {}, {integer}", f + 1)),
                    percent(share).into(),
                    Cell::from(format!("{rises:.3}")),
                    percent(cubic).into(),
                    percent(wave).into(),
                ]);
            }
        }
        Step::new(
            id,
            title,
            claim,
            Verdict::of(
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
        .picture(
            Picture::new(
                "vectors-map",
                "The four vectors",
                Chart::HeatMaps { scale: Scale::Diverging, maps: vec![map] },
            )
            .caption("Blue counts towards 1, red towards 0."),
        )
        .picture(Picture::new("vectors-lines", "The four vectors as lines", Chart::Xy(lines.into())))
    }

    /// Whether the labels are kept as numbers or as a rule.
    pub(super) fn by_heart(&self) -> Step {
        /// The four vectors "fit at least 91.5% of the data", to the points that models of one training differ by.
        const FIT: f64 = 0.90;
        /// A vector is irregular if neither a cubic nor a wave tells half of it.
        const HALF: f64 = 0.5;
        let (id, title) = ("by-heart", "Learnt by heart");
        let claim = "The model has learnt the shapes by heart and no equation: four vectors with a number for each integer hold most \
                     of the data, and what rule the labels were made by cannot be read off them.";
        if let Some(verdict) = self.without_gate() {
            return Step::new(id, title, claim, verdict);
        }
        let f = &self.filters;
        let irregular = |r: &Regular| r.cubic < HALF && r.wave < HALF;
        // Of each filter the integer that it depends on more.
        let main = self
            .regular
            .each_ref()
            .map(|[a, b]| if a.share >= b.share { (0, a) } else { (1, b) });
        let common = more_frequent(&self.full.says);
        let held_out = match self.held_out {
            Some(held_out) => format!(
                " On the {} pairs that it was not trained on the model gives {} their label: that is what the numbers, learnt from \
                 other pairs with the same integers, are good for.",
                held_out.pairs,
                percent(held_out.accuracy())
            ),
            None => String::new(),
        };
        let said = |f: usize| {
            let (i, r) = main[f];
            format!(
                "filter {} depends most on `{}`, of whose numbers a cubic tells {} and one wave {}",
                f + 1,
                INTEGERS[i],
                percent(r.cubic),
                percent(r.wave)
            )
        };
        Step::new(
            id,
            title,
            claim,
            Verdict::of(
                f.agrees_with_full >= FIT && f.agrees_with_full > common && main.iter().all(|(_, r)| irregular(r)),
                format!(
                    "the four vectors tell {} of the model's answers ({} of the labels, {} is the more frequent answer); {}; {}; \
                     expected at least {} of the answers, and less than {} of the vectors",
                    percent(f.agrees_with_full),
                    percent(f.agrees_with_labels),
                    percent(common),
                    said(0),
                    said(1),
                    percent(FIT),
                    percent(HALF)
                ),
            ),
        )
        .text(format!(
            "The authors conclude this from what they found; they did not find the labelling function, and Casper's comment agrees. What can be \
             measured is whether the numbers follow a rule: a smooth one (a cubic polynomial), or one wave with a whole number of \
             periods, as models of modular addition have; of {} random numbers the best wave tells {} on average. That no rule \
             of these two kinds is in them does not prove that there is none.{held_out}",
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
