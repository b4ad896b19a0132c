//! Where the models are wrong.

use super::answers::tables;
use super::gate::components;
use super::plot;
use crate::decompose::histogram_by_class;
use crate::study::two_integer::{Between, NEAR, TwoIntegerStudy, margins, spread_out};
use crate::study::words::percent;
use crate::study::{
    Chart, Class, Conclusion, Frame, HeatMap, HistogramChart, Number, Picture, Scale, Step, Table,
    View, XyPlot,
};

impl TwoIntegerStudy {
    /// Where the model with fixed attention is wrong.
    pub(super) fn at_the_edge(&self) -> Step {
        let (id, title) = ("edge", "Where fixed attention is wrong");
        let claim = "What the model with fixed attention gets wrong lies near the threshold of at least one of the filters.";
        if let Some(verdict) = self.without_gate() {
            return Step::new(id, title, claim, verdict);
        }
        let m = &self.margins;
        let wrongs = m.wrong.iter().filter(|&&w| w).count();
        let (Some(right), Some(wrong)) = (m.right_median, m.wrong_median) else {
            let because = format!("{wrongs} of {} pairs are wrong", m.wrong.len());
            return Step::new(id, title, claim, Conclusion::not_applicable(because));
        };
        let shown = spread_out(m.beyond.len());
        let rights: Vec<[f64; 2]> = (shown.iter().filter(|&&i| !m.wrong[i]))
            .map(|&i| m.beyond[i])
            .collect();
        let wrong_points: Vec<[f64; 2]> = (0..m.wrong.len())
            .filter(|&i| m.wrong[i])
            .map(|i| m.beyond[i])
            .collect();
        let scatter = XyPlot {
            title: String::new(),
            x: "beyond the threshold of filter 1".into(),
            y: "of filter 2".into(),
            series: vec![
                plot::dots("right (a seventh)", &rights),
                plot::dots("wrong", &wrong_points),
                plot::dashed("thresholds", &plot::line_among(&m.beyond, [1.0, 0.0], 0.0)),
                plot::dashed("thresholds", &plot::line_among(&m.beyond, [0.0, 1.0], 0.0)),
            ],
        };
        // Where it is wrong, what that filter is; elsewhere nothing.
        let only = |filter: usize| -> HeatMap {
            let of = |i: usize| match m.wrong[i] {
                true => Number::from(m.beyond[i][filter]),
                false => Number::MISSING,
            };
            let values: Vec<Number> = (0..m.wrong.len()).map(of).collect();
            let title = format!("filter {}, where the answer is wrong", filter + 1);
            plot::table(&title, self.n(), &values)
        };
        let all = |filter: usize| -> HeatMap {
            let values: Vec<f64> = m.beyond.iter().map(|b| b[filter]).collect();
            plot::table(&format!("filter {}", filter + 1), self.n(), &values)
        };
        let nearer = |filter: usize| {
            let here =
                (0..m.wrong.len()).map(|i| m.wrong[i] && margins::nearer(m.beyond[i]) == filter);
            plot::yes_no(
                &format!("wrong, and nearer to filter {}", filter + 1),
                self.n(),
                here,
            )
        };
        Step::new(
            id,
            title,
            claim,
            Conclusion::of(
                wrong < right / 2.0,
                format!(
                    "{wrongs} pairs are wrong, at a median distance of {} from the nearer threshold; the right ones are at {}; \
                     expected less than half of that",
                    Number::from(wrong),
                    Number::from(right)
                ),
            ),
        )
        .text(format!(
            "Fixing the attention shifts every pair a little, which matters where a threshold is near. Of the wrong pairs {} are \
             nearer to filter 1's threshold, {} to filter 2's: the maps show which.",
            m.wrong_by_filter[0], m.wrong_by_filter[1]
        ))
        .picture(
            Picture::new(
                "wrong-filters",
                "The filters at the pairs that are wrong",
                Chart::HeatMaps {
                    scale: Scale::Diverging,
                    maps: vec![all(0), only(0), all(1), only(1)],
                },
            )
            .caption("How far each pair is beyond the threshold (blue) or short of it (red); near it there is no colour."),
        )
        .picture(
            Picture::new("wrong-nearer", "Which filter's threshold is near", tables(vec![nearer(0), nearer(1)]))
                .caption("Dark: wrong with fixed attention."),
        )
        .picture(Picture::new("edge", "Pairs by how far they are beyond the thresholds", Chart::Xy(vec![scatter])))
        .picture(Picture::new("distances", "Distance from the nearer threshold", self.distances()))
    }

    fn distances(&self) -> Chart {
        const BINS: usize = 40;
        let m = &self.margins;
        let distances: Vec<f64> = m.beyond.iter().map(|&p| margins::distance(p)).collect();
        let bins = histogram_by_class(&distances, &m.wrong, BINS).expect("finite distances");
        let share = |class: &crate::decompose::OfClass<bool, crate::decompose::Counts>| {
            let total: usize = class.value.counts.iter().sum();
            let of = |&n: &usize| 100.0 * n as f64 / total as f64;
            let heights: Vec<f64> = class.value.counts.iter().map(of).collect();
            Class::new(if class.class { "wrong" } else { "right" }, &heights)
        };
        Chart::Histograms(vec![HistogramChart {
            title: String::new(),
            x: "distance from the nearer threshold".into(),
            y: "% of the pairs of this kind".into(),
            edges: bins.edges.iter().map(|&e| e.into()).collect(),
            classes: bins.classes.iter().map(share).collect(),
        }])
    }

    /// Attention between its mean and itself.
    pub(super) fn attention_between(&self) -> Step {
        let all = &self.between;
        let rises = all.windows(2).all(|w| w[1].agrees >= w[0].agrees);
        let (first, last) = (&all[0], &all[all.len() - 1]);
        let mut table = Table::new(
            "Answers with attention between its mean and itself",
            ["x", "right"],
        );
        for b in all {
            table.row([b.share.into(), percent(b.agrees).into()]);
        }
        let frame = |b: &Between| Frame {
            label: format!("{}: {} right", b.share, percent(b.agrees)),
            chart: Chart::Xy(vec![components("", plot::by_answer(&b.points, &b.says))]),
        };
        let frames = View::Frames {
            title: "x".into(),
            frames: all.iter().map(frame).collect(),
        };
        Step::new(
            "between",
            "Attention as a perturbation of its mean",
            "How the attention varies perturbs the stream a little, and the model has learnt to make up for it: with attention \
             `mean + x (attention - mean)`, the answers get better with `x`, from 0 to 1.",
            Conclusion::of(
                rises && last.agrees > first.agrees,
                format!(
                    "{} of the labels at 0, then {}; expected more at every step",
                    percent(first.agrees),
                    all[1..].iter().map(|b| percent(b.agrees)).collect::<Vec<_>>().join(", ")
                ),
            ),
        )
        .text(
            "The write-up proposes this as a first step, and shows the plane. What the heads bring is linear in their patterns, \
             so that the stream goes straight from one place to the other.",
        )
        .table(table)
        .picture(
            Picture::new("between", "The stream at = before the MLP, from fixed attention to its own", frames)
                .caption("A seventh of the pairs along the first two principal components of the model as it is, coloured by the answers at `x`."),
        )
    }

    /// Wrong answers and the curves.
    pub(super) fn at_curves(&self) -> Step {
        /// "Only near": most of them.
        const MOST: f64 = 0.5;
        /// How many times as many as by chance.
        const TIMES: f64 = 4.0;
        let e = &self.edges;
        let (id, title) = ("curves", "Wrong near the curves");
        let claim = "The model itself seems to be wrong only near the curved edges between labels; the irregular bars it has \
                     learnt well.";
        let Some(near) = e.wrong_near else {
            return Step::new(
                id,
                title,
                claim,
                Conclusion::not_applicable("no pair is wrong"),
            );
        };
        let integer = ["A", "B"][e.along];
        let wrong = |near: bool| {
            let all = 0..self.labels.len();
            all.map(move |i| self.full.says[i] != self.labels[i] && e.near[i] == near)
        };
        let maps = vec![
            plot::yes_no("near an edge", self.n(), e.near.iter().copied()),
            plot::yes_no("wrong near an edge", self.n(), wrong(true)),
            plot::yes_no("wrong elsewhere", self.n(), wrong(false)),
        ];
        Step::new(
            id,
            title,
            claim,
            Conclusion::of(
                near >= MOST && near >= TIMES * e.all_near,
                format!(
                    "of the {} wrong pairs {} are at most {NEAR} steps of `{integer}` from an edge, of all pairs {}; expected at \
                     least {}, and {TIMES} times as many",
                    e.wrong,
                    percent(near),
                    percent(e.all_near),
                    percent(MOST)
                ),
            ),
        )
        .text(format!(
            "This is the challenge's author's remark on the solution, who leaves it unexplained. An edge is where the label \
             changes along `{integer}`, the integer along which it changes less often; along the other the bars lie, and few \
             pairs are far from a change. Near an edge along `{integer}` a filter's numbers pass its threshold step by step, \
             and an error of one step is an error of a label; a bar's number may lie anywhere beyond it."
        ))
        .picture(Picture::new("curves", "Edges and wrong answers", tables(maps)))
    }
}
