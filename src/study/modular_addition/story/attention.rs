//! Attention, and the two ways to add.

use crate::study::modular_addition::clock::{BY_DISTANCE, SYMMETRIC};
use crate::study::modular_addition::{ModularAdditionStudy, Way};
use crate::study::words::{number, percent};
use crate::study::{Bar, BarChart, Chart, ChartAxis, Conclusion, Picture, Scale, Step, Table};

impl ModularAdditionStudy {
    /// How attention depends on the tokens.
    pub(super) fn attended(&self) -> Step {
        /// What one frequency has to tell of a head's attention.
        const MOST: f64 = 0.8;
        let a = &self.attention;
        let least = a
            .to_a
            .iter()
            .map(|h| h.explained)
            .fold(f64::INFINITY, f64::min);
        let heads: Vec<String> = (0..a.mean.len()).map(|h| format!("0.{h}")).collect();
        let mut table = Table::new(
            "Attention to a",
            [
                "head",
                "frequency",
                "explains",
                "by a alone",
                "by b alone",
                "scores of a: frequency",
                "its share",
            ],
        );
        for (h, name) in heads.iter().enumerate() {
            let (to_a, scores) = (&a.to_a[h], &a.scores[0][h]);
            table.row([
                name.as_str().into(),
                to_a.frequency.into(),
                to_a.explained.into(),
                to_a.by_a.into(),
                to_a.by_b.into(),
                scores.frequency.into(),
                scores.share.into(),
            ]);
        }
        let bars = ["a", "b", "="].iter().enumerate().map(|(key, name)| {
            let of = |all: &[[f64; 3]]| all.iter().map(|head| head[key]).collect::<Vec<f64>>();
            Bar::new(name, &of(&a.mean)).whiskers(&of(&a.deviation))
        });
        let chart = Chart::Bars(vec![BarChart {
            title: String::new(),
            x: ChartAxis::new("head", &heads),
            y: "share of the attention".into(),
            bars: bars.collect(),
        }]);
        let r = &self.replaced;
        Step::new(
            "attention",
            "Attention as a wave",
            "How much a head looks at `a` and at `b` is a wave of one frequency of each.",
            Conclusion::of(
                least >= MOST,
                format!(
                    "one frequency explains at least {} of how each head's attention to `a` varies, expected {}",
                    percent(least),
                    percent(MOST)
                ),
            ),
        )
        .text(format!(
            "The score of a token hangs on that token alone, the attention on both. With every head's attention fixed to its mean \
             over all pairs the loss is {}, and {} of the answers are right; with half at `a` and half at `b` the loss is {}.",
            number(r.mean_attention),
            percent(r.mean_attention_accuracy),
            number(r.half_attention)
        ))
        .table(table)
        .picture(
            Picture::new("attention", "Attention from =, over all pairs", chart)
                .caption("Whiskers: a standard deviation to either side."),
        )
        .picture(Picture::new(
            "attention-to-a",
            "Head 0.0's attention to a, over all pairs",
            Chart::HeatMaps {
                scale: Scale::Sequential,
                maps: vec![self.over_pairs("", &self.shown.attention)],
            },
        ))
    }

    /// A clock or a pizza.
    pub(super) fn told_apart(&self) -> Step {
        let c = &self.clock;
        let way = match c.way() {
            Way::Clock => "a clock",
            Way::Pizza => "a pizza",
            Way::Between => "neither",
        };
        let mut table = Table::new(
            "What tells them apart",
            ["", "this model", "a clock", "a pizza"],
        );
        table.row([
            "cosine of a logit's derivatives by the embeddings of a and of b".into(),
            c.gradient_symmetry.into(),
            format!("at most {SYMMETRIC}").into(),
            format!("more than {SYMMETRIC}").into(),
        ]);
        table.row([
            "spread of the right logit among pairs of one difference, over that of all".into(),
            c.distance_irrelevance.into(),
            format!("at least {BY_DISTANCE}").into(),
            format!("less than {BY_DISTANCE}").into(),
        ]);
        table.row([
            "share of the right logit's variation that is a function of a - b".into(),
            c.by_difference.into(),
            "little".into(),
            "much".into(),
        ]);
        Step::new(
            "clock",
            "A clock or a pizza",
            "A transformer whose attention depends on its tokens adds as a clock does: it multiplies cosines and sines, and does not \
             just add up the embeddings.",
            Conclusion::of(
                c.way() == Way::Clock,
                format!(
                    "{way}: the derivatives' mean cosine is {}, a clock's at most {SYMMETRIC}; the right logit's spread among pairs of one difference is \
                     {} of that among all, a clock's at least {BY_DISTANCE}",
                    number(c.gradient_symmetry),
                    number(c.distance_irrelevance)
                ),
            ),
        )
        .text(format!(
            "A pizza's answer comes from the sum of the two embeddings, so that both have the same derivative; and the length of that sum \
             is `2 cos(w (a - b) / 2)`, so that its logits hang on the difference. The derivatives are of {} random pairs and answers. The \
             write-up gives both measures, and no thresholds: those here lie between its clocks and its pizzas.",
            c.sampled
        ))
        .table(table)
    }
}
