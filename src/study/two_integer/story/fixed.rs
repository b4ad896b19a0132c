//! The filters from the weights, and what they are good for.

use super::answers::{more_frequent, tables};
use super::gate::{NO_VARIANCE, filter_lines, plane};
use super::{GATE, plot};
use crate::study::two_integer::{Filter, TwoIntegerStudy};
use crate::study::words::percent;
use crate::study::{Chart, Conclusion, Picture, Scale, Series, Step, XyPlot};

impl TwoIntegerStudy {
    /// The filters from the weights alone.
    pub(super) fn weighed(&self) -> Step {
        let f = &self.filters;
        let n = self.n();
        let common = more_frequent(&self.full.says);
        let [first, second] = &f.filters;
        let real = vec![
            plot::table("filter 1: beyond its threshold", n, &first.all_beyond()),
            plot::table("filter 2: beyond its threshold", n, &second.all_beyond()),
        ];
        let real = Chart::HeatMaps {
            scale: Scale::Diverging,
            maps: real,
        };
        let passes = |filter: &Filter| filter.all_beyond().into_iter().map(|x| x > 0.0);
        let and = f.passes();
        let whole = vec![
            plot::yes_no("filter 1 passed", n, passes(first)),
            plot::yes_no("filter 2 passed", n, passes(second)),
            plot::yes_no("both passed", n, and),
            plot::yes_no(
                "answers with fixed attention",
                n,
                self.fixed.says.iter().copied(),
            ),
            plot::yes_no("the model's answers", n, self.full.says.iter().copied()),
        ];
        let embedded = |name: &str, of: fn(&Filter) -> &[f64]| {
            let points: Vec<[f64; 2]> = (0..n).map(|i| [of(first)[i], of(second)[i]]).collect();
            plot::dots(name, &points).labels((0..n).map(|i| format!("{name} = {i}")))
        };
        let embeddings = XyPlot {
            title: String::new(),
            x: "adds to filter 1".into(),
            y: "adds to filter 2".into(),
            series: vec![
                embedded("A", |filter| &filter.of_a),
                embedded("B", |filter| &filter.of_b),
            ],
        };
        Step::new(
            "filters",
            "Two filters from the weights",
            "Each filter is a number of `A` plus a number of `B`, computed from the weights and the mean attention alone; where \
             both are passed the answer is 1.",
            Conclusion::of(
                f.agrees_with_fixed >= GATE && self.fixed.has_gate() && f.agrees_with_full > common,
                format!(
                    "both passed tells {} of the answers with fixed attention, {} of the model's and {} of the labels; expected \
                     at least {} of those with fixed attention, twice as few mistakes as one threshold's, and more of the \
                     model's than the {} that are its more frequent one",
                    percent(f.agrees_with_fixed),
                    percent(f.agrees_with_full),
                    percent(f.agrees_with_labels),
                    percent(GATE),
                    percent(common)
                ),
            ),
        )
        .text(
            "The extended embedding of an integer is `Σ_h p_h (W_E + W_pos) W_OV[0.h]`, its embedding and position through every \
             head, with the head's mean attention `p_h` to that position. Along a gate's direction that is a number. A pair \
             passes a filter where the number of `A`, that of `B` and a constant add up to more than the threshold.",
        )
        .picture(
            Picture::new("extended", "Extended embeddings along the two directions", Chart::Xy(vec![embeddings]))
                .caption("`B` with what is there in any case, less the thresholds: a pair passes where the sum of its two points is above 0 on both axes."),
        )
        .picture(
            Picture::new("filters", "The filters", real)
                .caption("How far each pair is beyond the threshold (blue) or short of it (red)."),
        )
        .picture(Picture::new("and", "The filters, their AND, and the answers", tables(whole)).caption("Dark is yes, and 1."))
    }

    /// What becomes of claims about filters where there are none.
    pub(super) fn without_gate(&self) -> Option<Conclusion> {
        let missing = self.both().into_iter().find(|(_, m)| !m.has_gate());
        missing.map(|(name, m)| {
            let (two, one) = (m.plane.gate.agreement(), m.plane.one_line);
            if m.plane.first_two_hold().is_nan() {
                return Conclusion::not_applicable(NO_VARIANCE);
            }
            Conclusion::not_applicable(format!(
                "there are no two filters ({name}): two thresholds tell {} of the answers, one tells {}; two components \
                 hold {} of the variance",
                percent(two),
                percent(one),
                percent(m.plane.first_two_hold())
            ))
        })
    }

    /// Pairs at which a filter is the same, in the full model's plane.
    pub(super) fn on_lines(&self) -> Step {
        /// "Goes along with."
        const ALONG: f64 = 0.9;
        let panels = [0, 1].map(|i| {
            let mut series = levels(&self.filters.filters[i], &self.full.plane.points);
            let mut threshold = filter_lines(&self.full)[i].clone();
            threshold.name = "threshold".into();
            series.push(threshold);
            plane(&format!("filter {}", i + 1), series)
        });
        let [r1, r2] = [0, 1].map(|i| self.filters.filters[i].correlation);
        let (id, title) = ("lines", "Equal filters are lines");
        let claim = "Pairs at which a filter has the same value lie on a line in the plane of the model's own stream, parallel to \
                     the threshold.";
        if let Some(verdict) = self.without_gate() {
            return Step::new(id, title, claim, verdict);
        }
        Step::new(
            id,
            title,
            claim,
            Conclusion::of(
                r1 >= ALONG && r2 >= ALONG,
                format!(
                    "a pair's place across the threshold and the filter from the weights have correlations of {r1:.3} and \
                     {r2:.3}, expected at least {ALONG}"
                ),
            ),
        )
        .text(
            "With fixed attention they lie on lines by construction. The model's own attention varies, which widens the lines \
             and may bend them; and its gate is fitted without any knowledge of the filters.",
        )
        .picture(
            Picture::new("lines", "Pairs of five values of each filter", Chart::Xy(panels.into())).caption(
                "The stream before the MLP with attention as it is. Each colour is one value of the filter from the weights, by how many pairs have less, to a \
                 hundredth of its range.",
            ),
        )
    }
}

/// Points of the plane where a filter is near one of five values, a series each.
fn levels(filter: &Filter, points: &[[f64; 2]]) -> Vec<Series> {
    let values = filter.all_beyond();
    let mut sorted = values.clone();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len() - 1;
    let half = (sorted[last] - sorted[0]) / 200.0;
    let level = |tenth: usize| {
        let middle = sorted[last * tenth / 10];
        let near = (0..points.len()).filter(|&i| (values[i] - middle).abs() <= half);
        let near: Vec<[f64; 2]> = near.map(|i| points[i]).collect();
        plot::dots(&format!("{tenth}0% of the pairs below"), &near)
    };
    [1, 3, 5, 7, 9].map(level).into()
}
