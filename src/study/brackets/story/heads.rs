//! From the logits back to the two heads of the last layer.

use super::pictures::{bars, number};
use crate::study::brackets::written::TALLY;
use crate::study::brackets::{BracketsStudy, LastHead, StringKind};
use crate::study::words::percent;
use crate::study::{Bar, BarChart, Cell, Chart, ChartAxis, Conclusion, Picture, Step, Table};

/// What counts as standing in for a norm, of its output's variance.
const GOOD_FIT: f64 = 0.9;
/// What counts as telling two kinds of strings apart, by one threshold: all but the odd one.
pub(super) const TELLS: f64 = 0.99;
/// "About a half" of a head's attention, where even attention gives a position a fortieth.
const ABOUT_HALF: std::ops::RangeInclusive<f64> = 1.0 / 3.0..=2.0 / 3.0;

impl BracketsStudy {
    /// The direction for "unbalanced", followed through the last norm.
    pub(super) fn followed_back(&self) -> Step {
        let d = &self.directions;
        let mut table = Table::new(
            "Affine maps in place of norms",
            [
                "norm",
                "fitted at positions",
                "r²",
                "directions of its input",
            ],
        );
        for fit in [
            &d.last,
            &d.before_heads,
            &d.at_brackets,
            &d.first,
            &d.second,
        ] {
            table.row([
                fit.norm.clone().into(),
                fit.positions.clone().into(),
                fit.r2.into(),
                Cell::from(fit.rank),
            ]);
        }
        Step::new(
            "direction",
            "The direction for \"unbalanced\"",
            "A LayerNorm is nearly an affine map on these strings, so the direction that the unembedding reads can be followed to before the last norm.",
            Conclusion::of(
                d.last.r2 > GOOD_FIT,
                format!("r² {:.4} of the last norm at position 0", d.last.r2),
            ),
        )
        .text(
            "After the norm, the logits' difference is the stream along `W_U[:,0] - W_U[:,1]`. The best affine map in the norm's \
             place carries that direction back to the stream before it: what writes along it says \"unbalanced\". The map is one \
             for all strings, and leaves the rest of the variance out.",
        )
        .table(table)
    }

    /// Ten components along the unbalanced direction.
    pub(super) fn taken_apart(&self) -> Step {
        let mut table = Table::new("Unbalanced less balanced", ["component", "difference"]);
        for a in &self.components {
            table.row([a.component.clone().into(), Cell::from(a.difference)]);
        }
        let mut order: Vec<_> = self.components.iter().collect();
        order.sort_by(|a, b| b.difference.total_cmp(&a.difference));
        let two = [self.roles.elevation, self.roles.negative].map(|h| format!("head {h}"));
        let first = order.iter().take(2).all(|a| two.contains(&a.component));
        let listed: Vec<String> = (order.iter().take(3))
            .map(|a| format!("{} {:.2}", a.component, a.difference))
            .collect();
        let step = Step::new(
            "components",
            "Which components say \"unbalanced\"",
            "Of all that is written at position 0, two heads of the last layer tell the classes apart most.",
            Conclusion::of(first, format!("the largest differences: {}", listed.join(", "))),
        )
        .text(format!(
            "The stream is the sum of the embeddings, the heads and the MLPs, and the attention's biases, which are the same for all \
             strings. The sum is off by at most {:.1e}.",
            self.sum_off
        ))
        .table(table);
        let chart = self.histograms(&self.components);
        // Where every component is the same for all strings, as in a model of zeros.
        if matches!(&chart, Chart::Histograms(all) if all.is_empty()) {
            return step;
        }
        let title = "The components along the unbalanced direction, at position 0";
        step.picture(
            Picture::new("components", title, chart)
                .caption("Each less its mean over balanced strings. What is the same for all strings is not shown."),
        )
    }

    /// The last layer's heads by kind of failure.
    pub(super) fn by_failure(&self) -> Step {
        let (e, n) = (self.elevation_head(), self.negative_head());
        let holds = e.elevation > e.negative
            && n.negative > n.elevation
            && e.tells_elevation >= TELLS
            && n.tells_negative >= TELLS;
        let mut table = Table::new(
            "What each head of the last layer writes, unbalanced less balanced",
            [
                "head",
                "wrong total",
                "goes negative",
                "both failures",
                "tells a wrong total",
                "tells going negative",
            ],
        );
        for h in &self.last_heads {
            table.row([
                h.head.to_string().into(),
                h.elevation.into(),
                h.negative.into(),
                h.both.into(),
                percent(h.tells_elevation).into(),
                Cell::from(percent(h.tells_negative)),
            ]);
        }
        let kinds = ChartAxis::new("", StringKind::ALL);
        let without = |h: &LastHead| {
            let heights: Vec<f64> = h
                .accuracy_without
                .iter()
                .map(|a| 100.0 * (1.0 - a))
                .collect();
            Bar::new(&format!("without {}", h.head), &heights)
        };
        let ablated = BarChart {
            title: String::new(),
            x: kinds,
            y: "% wrong".into(),
            bars: self.last_heads.iter().map(without).collect(),
        };
        let starts = self.data.starting_open();
        let names = [e, n].map(|h| format!("head {}", h.head));
        let scatter = self.scatter(&starts, [&names[0], &names[1]], |s| {
            [e.writes[s], n.writes[s]]
        });
        Step::new(
            "failures",
            "Two heads, two ways to fail",
            "One of the two heads is sure of strings whose total is wrong, the other of strings that go negative.",
            Conclusion::of(
                holds,
                format!(
                    "head {}: {:.2} at a wrong total, {:.2} at going negative; head {}: {:.2} and {:.2}; alone each tells its own \
                     failure from balanced strings in {} and {} of cases",
                    e.head,
                    e.elevation,
                    e.negative,
                    n.head,
                    n.elevation,
                    n.negative,
                    percent(e.tells_elevation),
                    percent(n.tells_negative)
                ),
            ),
        )
        .text(
            "The roles are given to the heads by what they write: to a wrong total alone, and to going negative alone, each less what \
             they write to balanced strings. A head that tells a failure separates those strings from balanced ones by one threshold. \
             Strings that start with `)` are left out: they are wrong at once.",
        )
        .table(table)
        .picture(
            Picture::new("failures", "The two heads at position 0", Chart::Xy(vec![scatter]))
                .caption("One point for each string, along the unbalanced direction, less the mean over balanced strings."),
        )
        .picture(
            Picture::new("without", "Wrong answers with a head's output replaced by its mean", Chart::Bars(vec![ablated]))
                .caption("The fewer, the more the heads stand in for one another."),
        )
    }

    /// The two heads against the share of opening brackets.
    pub(super) fn by_share(&self) -> Step {
        let (e, n) = (self.elevation_head(), self.negative_head());
        let starts = self.data.starting_open();
        let share = |s: usize| self.data.open_share[s];
        let plot = |h: &LastHead| {
            let name = format!("head {}", h.head);
            self.scatter(&starts, ["share of opening brackets", &name], |s| {
                [share(s), h.writes[s]]
            })
        };
        let [half, not_half] = e.half_and_not;
        Step::new(
            "share",
            "The two heads and the share of opening brackets",
            "The elevation head writes \"unbalanced\" wherever the share of opening brackets is not exactly one half, and the negative head does not go by that share alone.",
            Conclusion::of(
                e.tells_share >= TELLS && not_half > half && n.tells_share < e.tells_share,
                format!(
                    "head {} writes {} on average where the share is not ½, {} where it is; one threshold tells the former from \
                     balanced strings in {} of cases, and one on head {} in {}",
                    e.head,
                    number(not_half),
                    number(half),
                    percent(e.tells_share),
                    n.head,
                    percent(n.tells_share)
                ),
            ),
        )
        .picture(
            Picture::new("share", "The two heads and the share of opening brackets", Chart::Xy(vec![plot(e), plot(n)]))
                .caption("A line through the share could not say \"not one half\": that takes neurons before the head."),
        )
    }

    /// Where the elevation head looks.
    pub(super) fn copied_from_one(&self) -> Step {
        let e = self.elevation_head();
        let attention = &e.attention;
        let most = (0..attention.len()).max_by(|&i, &j| attention[i].total_cmp(&attention[j]));
        let at_one = attention.get(TALLY).copied().unwrap_or(f64::NAN);
        let positions = ChartAxis::new("key position", 0..attention.len());
        let mut chart = bars(
            positions,
            "mean attention",
            "strings that begin with (",
            attention,
        );
        let closing = self.closing.of(e.head);
        if let Some(closing) = closing {
            chart
                .bars
                .push(Bar::new("strings that begin with )", &closing.attention));
        }
        let in_closing = closing.map_or(String::new(), |c| {
            format!(
                "; in strings that begin with `)`, {}",
                percent(c.attention[TALLY])
            )
        });
        Step::new(
            "copied",
            "The elevation head reads position 1",
            "In strings that begin with an opening bracket, the elevation head looks from position 0 at position 1 above all, with about half of its attention, and hardly at the others: it copies what was found out there.",
            Conclusion::of(
                most == Some(TALLY) && ABOUT_HALF.contains(&at_one),
                format!(
                    "{} on position 1, {} on the next{in_closing}",
                    percent(at_one),
                    percent(next(attention))
                ),
            ),
        )
        .text(format!(
            "The write-up takes this attention for constant. It is not quite: over the strings that begin with `(` its standard \
             deviation is {}.",
            number(e.attention_spread)
        ))
        .picture(
            Picture::new("attention.mean", &format!("Where head {} looks from position 0", e.head), Chart::Bars(vec![chart]))
                .caption("Means over the strings."),
        )
        .picture(
            Picture::new("attention", "The heads' attention on some strings", self.attention.clone())
                .caption("Marked: positions from which on more brackets open than close."),
        )
    }
}

/// The second largest.
fn next(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    sorted.get(1).copied().unwrap_or(f64::NAN)
}
