//! The head that counts: where it looks, what it copies, and which neurons read that.

use super::pictures::{bars, number};
use crate::metric::mean;
use crate::study::brackets::negative::beyond_even;
use crate::study::brackets::{BracketsStudy, NeuronSide, Suffix};
use crate::study::words::percent;
use crate::study::{
    Bar, BarChart, Cell, Chart, ChartAxis, Conclusion, Draw, HeatMap, Picture, Scale, Series, Step,
    Table, XyPlot,
};
use std::ops::RangeInclusive;

/// "Evenly", as a share of the positions that follow.
const EVENLY: f64 = 0.9;
/// How far the attention to what follows must be from even attention to all (0) towards nothing else (1).
const MOSTLY: f64 = 0.25;
/// Queries and keys: where the write-up sees a patch of stronger attention, and a query where it sees none.
pub(super) const PATCHES: [(RangeInclusive<usize>, RangeInclusive<usize>); 2] =
    [(27..=31, 38..=40), (10..=10, 38..=40)];

impl BracketsStudy {
    /// Where the counting head looks.
    pub(super) fn counted(&self) -> Step {
        let (head, c) = (self.roles.counting, &self.counting);
        let first = c.suffixes.first().expect("there are positions");
        let over = |suffixes: &[Suffix], f: fn(&Suffix) -> f64| {
            mean(&suffixes.iter().map(f).collect::<Vec<_>>())
        };
        let share = over(&c.suffixes, |s| s.share);
        let even = over(&c.suffixes, |s| s.even);
        let closing = over(&c.closing_suffixes, |s| s.share);
        let least = c
            .suffixes
            .iter()
            .min_by(|a, b| a.evenness.total_cmp(&b.evenness));
        let least = least.expect("there are positions");
        let positions = c.patterns[0].opening.len();
        let places = |title| ChartAxis::new(title, 0..positions);
        let map = |title: &str, pattern: &[Vec<f64>]| {
            HeatMap::new(
                title,
                places("query position"),
                places("key position"),
                &pattern.concat(),
            )
        };
        let shares = |suffixes: &[Suffix]| suffixes.iter().map(|s| s.share).collect::<Vec<_>>();
        let suffixes = BarChart {
            title: String::new(),
            x: ChartAxis::new("query position", c.suffixes.iter().map(|s| s.position)),
            y: "share of attention".into(),
            bars: vec![
                Bar::new("of (, on what follows", &shares(&c.suffixes)),
                Bar::new("of ), on what follows", &shares(&c.closing_suffixes)),
                Bar::new(
                    "if even over all",
                    &c.suffixes.iter().map(|s| s.even).collect::<Vec<_>>(),
                ),
            ],
        };
        let mut evenness = Vec::new();
        for (name, suffixes) in [("of (", &c.suffixes), ("of )", &c.closing_suffixes)] {
            let x: Vec<f64> = suffixes.iter().map(|s| s.position as f64).collect();
            let y: Vec<f64> = suffixes.iter().map(|s| s.evenness).collect();
            evenness.push(Series::new(name, Draw::Line, &x, &y));
        }
        let evenness = XyPlot {
            title: String::new(),
            x: "query position".into(),
            y: "as even as over this share of what follows".into(),
            series: evenness,
        };
        let own = c.pattern(head);
        let patch = |(queries, keys): (RangeInclusive<usize>, RangeInclusive<usize>)| {
            let [there, if_even] = own.to_keys(queries, keys);
            format!(
                "{} ({} if even over what follows)",
                percent(there),
                percent(if_even)
            )
        };
        let [late, early] = PATCHES.map(patch);
        let patterns = c.patterns.iter().flat_map(|p| {
            let name = |query: &str| format!("head {}, query: {query}", p.head);
            [map(&name("("), &p.opening), map(&name(")"), &p.closing)]
        });
        let mut step = Step::new(
            "counting",
            "The counting head looks at what follows",
            "From an opening bracket at position 1, the counting head looks evenly at everything from there on, by position alone; opening brackets further on look at what follows more than at what precedes, most of them evenly.",
            Conclusion::of(
                first.evenness >= EVENLY && beyond_even(share, even) >= MOSTLY && over(&c.suffixes, |s| s.evenness) >= EVENLY,
                format!(
                    "head {head}: from position 1, as even as over {} of what follows; on average over positions {} on what \
                     follows, where {} would be even",
                    percent(first.evenness),
                    percent(share),
                    percent(even)
                ),
            ),
        )
        .text(format!(
            "Counting is even attention: the mean of what follows is the share of brackets that close, less those that open. To see \
             what position alone does, the queries are those of a string of opening brackets, and the keys lie halfway between those \
             of opening and closing ones. That position 1 has {} of its attention on what follows says nothing (even attention to all \
             gives {}); that it is spread evenly does. Evenness is the exponential of the entropy over the number of positions.",
            percent(first.share),
            percent(first.even)
        ))
        .text(format!(
            "Within the suffix the spread is that of {} of its positions, averaged, and least from position {}: {}. From positions \
             {}–{} to {}–{} there goes {}, from position {} {}. Closing brackets have {} on what follows, as even as over {} of it. In \
             strings of full length the patterns of opening brackets are {} off (half the sum of differences): what the keys say of the \
             bracket matters that much.",
            percent(over(&c.suffixes, |s| s.evenness)),
            least.position,
            percent(least.evenness),
            PATCHES[0].0.start(),
            PATCHES[0].0.end(),
            PATCHES[0].1.start(),
            PATCHES[0].1.end(),
            late,
            PATCHES[1].0.start(),
            early,
            percent(closing),
            percent(over(&c.closing_suffixes, |s| s.evenness)),
            percent(c.off_by_content)
        ))
        .picture(
            Picture::new(
                "counting",
                "Layer 0's attention by position",
                Chart::HeatMaps {
                    scale: Scale::Sequential,
                    maps: patterns.collect(),
                },
            )
            .caption("Keys halfway between those of ( and )."),
        )
        .picture(Picture::new(
            "suffixes",
            &format!("How much of head {head}'s attention is on what follows"),
            Chart::Bars(vec![suffixes]),
        ))
        .picture(Picture::new(
            "evenness",
            &format!("How evenly head {head}'s attention lies on what follows"),
            Chart::Xy(vec![evenness]),
        ));
        if !c.from_tally.is_empty() {
            let chart = bars(
                places("key position"),
                "mean attention",
                &format!("head {head}"),
                &c.from_tally,
            );
            step = step.picture(
                Picture::new("tally", &format!("Head {head} from position 1"), Chart::Bars(vec![chart]))
                    .caption("Mean over balanced strings of full length, with the query of an opening bracket."),
            );
        }
        step
    }

    /// What the counting head copies of the two brackets.
    pub(super) fn opposite(&self) -> Step {
        /// "Opposite".
        const OPPOSITE: f64 = -0.9;
        let counter = self.counter();
        let mut table = Table::new(
            "Layer 0's heads, as counters",
            [
                "head",
                "variance that follows the share",
                "variance",
                "cosine of v_L, v_R",
                "length of v_L",
                "length of v_R",
            ],
        );
        for c in &self.counters {
            table.row([
                c.head.to_string().into(),
                c.follows.into(),
                c.variance.into(),
                c.cosine.into(),
                c.lengths[0].into(),
                Cell::from(c.lengths[1]),
            ]);
        }
        let chance = self.chance_cosine();
        let means = self.counting.mean_squared_cosines();
        let mut read = Table::new(
            "v_R and the neurons' input directions",
            ["layer", "mean squared cosine", "of random directions"],
        );
        for (layer, mean) in means.iter().enumerate() {
            read.row([
                format!("mlp {layer}").into(),
                (*mean).into(),
                Cell::from(chance),
            ]);
        }
        Step::new(
            "opposite",
            "Opening and closing brackets are opposite",
            "The counting head copies opposite vectors of the two brackets, so that their mean is the difference of their numbers, and neurons read along that line.",
            Conclusion::of(
                counter.cosine < OPPOSITE && means.iter().all(|&m| m > chance),
                format!(
                    "head {}: cosine {:.4}; mean squared cosines with the neurons' inputs {}, {chance:.4} by chance",
                    counter.head,
                    counter.cosine,
                    means.iter().map(|m| format!("{m:.4}")).collect::<Vec<_>>().join(" and ")
                ),
            ),
        )
        .text(
            "`v_L` and `v_R` are the brackets' embeddings through the first norm's affine map and the head's `W_OV`. The counting head \
             is the one of layer 0 whose output at position 1 follows the share of opening brackets most: the variance, summed over \
             the stream, that a line through the share explains.",
        )
        .table(table)
        .table(read)
    }

    /// The mean squared cosine of a direction with random ones.
    pub(super) fn chance_cosine(&self) -> f64 {
        1.0 / self.directions.unbalanced.len() as f64
    }

    /// Whether the neurons that read the count are those that matter.
    pub(super) fn read_and_said(&self) -> Step {
        let mut table = Table::new(
            "Mean |cosine| of neurons' input directions with v_R",
            [
                "layer",
                "of those that say where the total is wrong",
                "of the others",
            ],
        );
        let mut found = Vec::new();
        for (neurons, cosines) in self.neurons.iter().zip(&self.counting.neuron_cosines) {
            let of = |says: bool| {
                let chosen = neurons.sides.iter().zip(cosines);
                let chosen = chosen.filter(|(side, _)| (**side != NeuronSide::Neither) == says);
                mean(&chosen.map(|(_, c)| c.abs()).collect::<Vec<_>>())
            };
            found.push([of(true), of(false)]);
            table.row([
                format!("mlp {}", neurons.layer).into(),
                of(true).into(),
                Cell::from(of(false)),
            ]);
        }
        let plots =
            self.neurons
                .iter()
                .zip(&self.counting.neuron_cosines)
                .map(|(neurons, cosines)| {
                    let of = |side: NeuronSide| {
                        let on = neurons.on(side);
                        let x: Vec<f64> = on.iter().map(|&i| cosines[i]).collect();
                        let y: Vec<f64> = on.iter().map(|&i| neurons.size(i)).collect();
                        Series::new(&side.to_string(), Draw::Points, &x, &y)
                            .labels(on.iter().map(|i| format!("{}.{i}", neurons.layer)))
                    };
                    XyPlot {
                        title: format!("mlp {}", neurons.layer),
                        x: "cosine of the input direction with v_R".into(),
                        y: "the most it adds or takes away".into(),
                        series: NeuronSide::ALL
                            .into_iter()
                            .chain([NeuronSide::Neither])
                            .map(of)
                            .collect(),
                    }
                });
        let words: Vec<String> = (self.neurons.iter().zip(&found))
            .map(|(n, [says, rest])| {
                format!(
                    "mlp {}: {} against {}",
                    n.layer,
                    number(*says),
                    number(*rest)
                )
            })
            .collect();
        Step::new(
            "inputs",
            "Neurons that read the count are those that say where the total is wrong",
            "The neurons whose input directions have a high cosine with `v_R` are those that write to the elevation head where the share is not one half.",
            Conclusion::of(
                found.iter().all(|[says, rest]| says > rest),
                format!("mean |cosine| of those that do and those that do not: {}", words.join("; ")),
            ),
        )
        .text(
            "What a neuron adds or takes away is the mean where fewer than half of the brackets open, or where more do, whichever is \
             larger, less that over balanced strings. A neuron that reads what other neurons wrote has no cosine with `v_R`.",
        )
        .table(table)
        .picture(Picture::new("inputs", "What neurons read of v_R, and what they write", Chart::Xy(plots.collect())))
    }
}
