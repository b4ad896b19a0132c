//! How it works: what the comparing head writes, and how the second layer reads it.

use super::super::{HeadAblation, PUBLISHED_SHARE, PalindromeStudy};
use super::{CLASSES, but_at, list};
use crate::study::words::number;
use crate::study::{
    Bar, BarChart, Chart, ChartAxis, Class, Conclusion, Draw, HeatMap, HistogramChart, Picture,
    Scale, Series, Step, XyPlot,
};

/// How many standard deviations of random vectors' cosines a cosine is to be beyond, at each of several positions.
const BEYOND: f64 = 2.0;

impl PalindromeStudy {
    pub(super) fn keys(&self) -> Step {
        let v = &self.vectors;
        let blind = &self.adversarial.blind;
        let strong = v.strong();
        let least = strong.iter().map(|&n| v.key_cosines[0][n]);
        let least = least.fold(f64::INFINITY, f64::min);
        let verdict = Conclusion::of(
            least > BEYOND * v.key_chance
                && 2 * strong.len() > v.positions.len()
                && blind.iter().all(|p| v.weak.contains(p)),
            format!(
                "at least {} with the query of head {}{} (random vectors: 0, with a standard deviation of {}); what was \
                 seen to be blind: {}",
                number(least),
                v.heads[0],
                but_at(&v.weak),
                number(v.key_chance),
                list(blind)
            ),
        );
        let claim = "What the comparing head writes where it finds no mirror, less what it writes where it does, is a \
                     key that the collecting head's query at `END` looks for. Not so at the blind positions: the \
                     weights tell where they are.";
        Step::new("keys", "How `END` finds a broken pair", claim, verdict)
            .text(self.made_up_for())
            .text(format!(
                "Only the position tells where a head has looked, whatever the value. So the difference is taken \
                 between what head {} writes of the position itself and of its mirror, each in the norm's mean \
                 scale: the difference vector of that position.",
                self.roles.comparing()
            ))
            .picture(
                Picture::new(
                    "key-cosines",
                    "Cosine of `END`'s mean query with the difference vectors' keys",
                    self.by_pair(&v.key_cosines),
                )
                .caption("Framed: weak positions, where it is less than half of the median."),
            )
    }

    /// What the second layer's helper has at the weak positions.
    fn made_up_for(&self) -> String {
        let v = &self.vectors;
        let at = v.weak.iter().map(|p| {
            let n = self.comparing.place(*p);
            format!("{} at {p}", number(v.key_cosines[1][n]))
        });
        let at: Vec<String> = at.collect();
        if at.is_empty() {
            return format!(
                "No position is weak, and nothing is left for head {}.",
                v.heads[1]
            );
        }
        format!(
            "Where the vectors are weak, their keys' cosines with the query of the other head, {}: {}.",
            v.heads[1],
            at.join(", ")
        )
    }

    pub(super) fn values(&self) -> Step {
        let v = &self.vectors;
        let share = self.comparing.mean_to_self;
        let attribution = v.attribution_of(PUBLISHED_SHARE);
        let strong = v.strong();
        let [least, most] = strong
            .iter()
            .map(|&n| attribution[0][n])
            .fold([f64::INFINITY, f64::NEG_INFINITY], |[least, most], x| {
                [least.min(x), most.max(x)]
            });
        let verdict = Conclusion::of(
            least > 0.0 && 2 * strong.len() > v.positions.len(),
            format!(
                "{} to {} through head {}{}; the logit difference is {}",
                number(least),
                number(most),
                v.heads[0],
                but_at(&v.weak),
                number(self.performance.logit_diff)
            ),
        );
        let helper = v.weak.iter().map(|p| {
            let n = self.comparing.place(*p);
            format!(
                " Through head {} the vector of {p} adds {}.",
                v.heads[1],
                number(attribution[1][n])
            )
        });
        let helper: String = helper.collect();
        let claim = "Read through the collecting head's values, the same vectors speak for \"no palindrome\".";
        Step::new("values", "What `END` makes of it", claim, verdict)
            .text(format!(
                "Each difference vector, times {PUBLISHED_SHARE}, the share of its attention that the write-up's comparing \
                 head moves, is sent through the values of the second layer's heads to the logits, as if all attention \
                 were on it. This model's comparing head moves {}.{helper}",
                number(share)
            ))
            .picture(
                Picture::new(
                    "attribution",
                    "What the difference vectors add to \"no palindrome\" less \"palindrome\"",
                    self.by_pair(&attribution),
                )
                .caption("Framed: weak positions, at which `END` does not look."),
            )
    }

    /// Rows for the second layer's heads, columns for pairs of positions; weak ones framed.
    fn by_pair(&self, values: &[Vec<f64>]) -> Chart {
        let v = &self.vectors;
        let weak = v.is_weak().into_iter().enumerate();
        let weak = weak.filter(|(_, weak)| *weak).map(|(n, _)| [0, n]);
        let map = HeatMap::new(
            "",
            ChartAxis::new("head", &v.heads),
            ChartAxis::new("positions of the pair", self.pairs()),
            &values.concat(),
        );
        Chart::HeatMaps {
            scale: Scale::Diverging,
            maps: vec![map.marked(weak)],
        }
    }

    pub(super) fn direction(&self) -> Step {
        /// Vectors of such cosines share four fifths of their squares and more.
        const ONE_DIRECTION: f64 = 0.9;
        let v = &self.vectors;
        let strong = v.strong();
        let pairs = strong
            .iter()
            .flat_map(|&a| strong.iter().map(move |&b| v.cosines[a][b]));
        let least = pairs.fold(f64::INFINITY, f64::min);
        let verdict = Conclusion::of(
            least > ONE_DIRECTION.max(BEYOND * v.vector_chance)
                && 2 * strong.len() > v.positions.len(),
            format!(
                "cosines of {} or more among the {} positions that are not weak (random vectors: 0, with a standard \
                 deviation of {})",
                number(least),
                strong.len(),
                number(v.vector_chance)
            ),
        );
        let axis = || ChartAxis::new("positions of the pair", self.pairs());
        let map = HeatMap::new("", axis(), axis(), &v.cosines.concat());
        let chart = Chart::HeatMaps {
            scale: Scale::Diverging,
            maps: vec![map],
        };
        let claim = "One direction of the stream says \"no mirror\", the same for all positions but the weak ones.";
        Step::new(
            "direction",
            "One direction for all positions",
            claim,
            verdict,
        )
        .picture(Picture::new(
            "vector-cosines",
            "Cosines of the difference vectors with one another",
            chart,
        ))
    }

    pub(super) fn positions(&self) -> Step {
        let (c, v) = (&self.composed, &self.vectors);
        let last = c.to_logits.len() - 1;
        let above = |of: &[f64], p: usize| of[p] > of[last - p];
        let both = |p: usize| above(&c.to_logits, p) && above(&c.to_attention, p);
        let strong: Vec<usize> = v.strong().into_iter().map(|n| v.positions[n]).collect();
        let so = strong.iter().filter(|&&p| both(p)).count();
        let weak = match v.weak.len() {
            0 => "; none is weak".to_string(),
            n => format!(
                ", and at {} of the {n} weak ones",
                v.weak.iter().filter(|&&p| both(p)).count()
            ),
        };
        let verdict = Conclusion::of(
            so == strong.len() && 2 * so > v.positions.len(),
            format!(
                "both above their mirrors at {so} of the {} positions that are not weak{weak}",
                strong.len()
            ),
        );
        let x: Vec<f64> = (0..=last).map(|p| p as f64).collect();
        let panel = |title: &str, y: &str, series: Vec<Series>| XyPlot {
            title: title.into(),
            x: "position".into(),
            y: y.into(),
            series,
        };
        let plain = |values: &[f64]| vec![Series::new("", Draw::Points, &x, values)];
        let chart = Chart::Xy(vec![
            panel(
                "to the logits",
                "\"no palindrome\" less \"palindrome\"",
                plain(&c.to_logits),
            ),
            panel("to the attention from END", "score", plain(&c.to_attention)),
        ]);
        let values = Bar::new("mean and standard deviation", &c.values).whiskers(&c.values_std);
        let values = BarChart {
            title: String::new(),
            x: ChartAxis::new("position", 0..=last),
            y: "\"no palindrome\" less \"palindrome\"".into(),
            bars: vec![values],
        };
        let classes = c.written_bins.classes.iter();
        let written = HistogramChart {
            title: String::new(),
            x: "\"no palindrome\" less \"palindrome\", the mean over positions".into(),
            y: "sequences".into(),
            edges: c.written_bins.edges.iter().map(|&e| e.into()).collect(),
            classes: classes
                .map(|of| Class::new(CLASSES[of.class.min(1)], &of.value.counts))
                .collect(),
        };
        let claim = "Through both heads, the second half's positions draw `END`'s attention and speak for \"no \
                     palindrome\" more than the first half's do, but for the weak ones.";
        let (a, b) = (self.roles.comparing(), self.roles.collecting());
        Step::new("positions", "Positions through both heads", claim, verdict)
            .text(format!(
                "`W_pos W_OV[{a}] W_OV[{b}] (W_U[:,0] - W_U[:,1])` and `W_pos[-1] W_QK[{b}] W_OV[{a}]^T W_pos^T`: \
                 products of weights alone."
            ))
            .text(format!(
                "With the tokens in it, as values of a run on a hundred sequences, the push on the logits varies by \
                 {} at a position (the standard deviation, the mean over the positions), and by {} between positions.",
                number(c.values_spread()),
                number(c.positions_spread())
            ))
            .text(format!(
                "What head {a} writes in these sequences, through head {b}, the mean over a sequence's positions: {}.",
                c.written.iter().map(|of| format!(
                    "{} for {}",
                    number(of.value.mean),
                    CLASSES[of.class.min(1)]
                )).collect::<Vec<_>>().join(", ")
            ))
            .picture(Picture::new("composed", "The composed circuits", chart))
            .picture(Picture::new(
                "composed-values",
                &format!("Head {a}'s values at each position, through head {b} to the logits"),
                Chart::Bars(vec![values]),
            ))
            .picture(Picture::new(
                "composed-written",
                &format!("What head {a} writes, through head {b} to the logits"),
                Chart::Histograms(vec![written]),
            ))
    }

    pub(super) fn compositions(&self) -> Step {
        let s = &self.scores;
        /// Random heads score higher once in a thousand.
        const DEVIATIONS: f64 = 3.0;
        let high = s.baseline.mean + DEVIATIONS * s.baseline.std;
        let largest =
            |of: &[Vec<f64>]| of.iter().flatten().all(|&x| x <= of[0][0]) && of[0][0] > high;
        let verdict = Conclusion::of(
            largest(&s.K) && largest(&s.V),
            format!(
                "by keys {}, by values {}; random heads {}, with a standard deviation of {}",
                number(s.K[0][0]),
                number(s.V[0][0]),
                number(s.baseline.mean),
                number(s.baseline.std)
            ),
        );
        let map = |title: &str, values: &[Vec<f64>]| {
            let names = |heads: &[HeadAblation]| heads.iter().map(|a| a.head).collect::<Vec<_>>();
            HeatMap::new(
                title,
                ChartAxis::new("earlier head", names(&self.roles.first)),
                ChartAxis::new("later head", names(&self.roles.second)),
                &values.concat(),
            )
        };
        let maps = vec![
            map("by queries", &s.Q),
            map("by keys", &s.K),
            map("by values", &s.V),
        ];
        let claim = "The collecting head reads the comparing head by its keys and by its values, more than random \
                     heads would and more than any other pair does.";
        Step::new("composition", "How the heads compose", claim, verdict)
            .text("The score is `|W_OV X| / (|W_OV| |X|)`, with the later head's `W_QK`, `W_QK^T` or `W_OV` for `X`.")
            .picture(Picture::new(
                "composition",
                "Composition scores",
                Chart::HeatMaps {
                    scale: Scale::Sequential,
                    maps,
                },
            ))
    }
}
