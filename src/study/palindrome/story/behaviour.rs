//! What the model does: its answers, where its heads look, and what they write at `END`.

use super::super::comparing::MOST;
use super::super::{ComponentAttribution, PalindromeStudy, Views};
use super::{CLASSES, list};
use crate::study::words::{number, percent};
use crate::study::{
    AttentionView, Bar, BarChart, Cell, Chart, ChartAxis, Class, Conclusion, HistogramChart,
    Picture, Sequence, Step, Table, Weighting,
};

impl PalindromeStudy {
    pub(super) fn answers(&self) -> Step {
        let p = &self.performance;
        /// Nearly every sequence.
        const WELL: f64 = 0.99;
        let verdict = Conclusion::of(
            p.accuracy >= WELL,
            format!(
                "{} of {} sequences right, loss {}, logit difference {}; the same answer to all would be right for {}",
                percent(p.accuracy),
                p.sequences,
                number(p.loss),
                number(p.logit_diff),
                percent(p.constant)
            ),
        );
        let mut table = Table::new("On the dataset", ["", "value"]);
        table.row([Cell::from("loss"), p.loss.into()]);
        table.row([
            "logit difference, right less wrong".into(),
            p.logit_diff.into(),
        ]);
        table.row(["share right".into(), p.accuracy.into()]);
        table.row(["loss on 500 other sequences".into(), p.loss_500.into()]);
        for (s, &p) in p.first_five.iter().enumerate() {
            let name = format!("P(palindrome) of sequence {s} of 100 others");
            table.row([Cell::from(name), p.into()]);
        }
        let claim = "The model answers nearly every sequence rightly.";
        Step::new("performance", "How well it answers", claim, verdict)
            .text(
                "A sequence is `START`, twenty values and `END`. The answer is read at `END`: does the second half \
                 mirror the first?",
            )
            .table(table)
    }

    pub(super) fn patterns(&self) -> Step {
        let (c, e) = (&self.comparing, &self.end);
        let compared = c.compared();
        let verdict = Conclusion::of(
            2 * compared.len() > c.positions.len() && e.on_broken[0] > MOST.max(e.on_broken_evenly),
            format!(
                "head {} looks mostly at the mirror if it is the same, and mostly at itself if it is not, at {} of {} \
                 positions; from `END`, head {} has {} of its attention on broken values, {} if it looked everywhere \
                 alike",
                c.comparing().head,
                compared.len(),
                c.positions.len(),
                e.heads[0],
                number(e.on_broken[0]),
                number(e.on_broken_evenly)
            ),
        );
        let claim = "One head of the first layer looks from every value of the second half at its mirror if the two \
                     are the same, and else at itself; one head of the second layer looks from `END` at values of the \
                     second half that are not their mirrors'.";
        Step::new("attention", "Where the heads look", claim, verdict)
            .text(
                "Values that are not their mirrors' are marked. Weighted by the length of what a head writes, a \
                 pattern shows where it has something to say; plain attention also shows where it rests.",
            )
            .picture(
                Picture::new("attention", "Attention patterns", attention(&self.views))
                    .caption("Rows look, columns are looked at."),
            )
    }

    pub(super) fn end_looks(&self) -> Step {
        let e = &self.end;
        let v = &self.vectors;
        let evenly = 1.0 / e.palindromic[0].len() as f64;
        let at = |p: usize| e.nonpalindromic[0][p];
        let weak = v.weak.iter().map(|&p| at(p)).filter(|x| x.is_finite());
        let weak = weak.fold(0.0, f64::max);
        let gained = self.gained_at_end();
        let at_weak = if v.weak.is_empty() {
            String::new()
        } else {
            format!(
                "; at the weak positions ({}) it has {} at most",
                list(&v.weak),
                number(weak)
            )
        };
        let verdict = Conclusion::of(
            gained > 0.0 && e.on_broken[0] > MOST.max(e.on_broken_evenly) && weak < evenly,
            format!(
                "{} of head {}'s attention is on broken values, {} if it looked everywhere alike; a broken value \
                 gains {} on average{at_weak}",
                number(e.on_broken[0]),
                e.heads[0],
                number(e.on_broken_evenly),
                number(gained)
            ),
        );
        let panels = e.heads.iter().enumerate().map(|(n, head)| BarChart {
            title: format!("head {head}"),
            x: ChartAxis::new("position", 0..e.palindromic[n].len()),
            y: "attention from END".into(),
            bars: vec![
                Bar::new("value mirrored", &e.palindromic[n]),
                Bar::new("value not mirrored", &e.nonpalindromic[n]),
            ],
        });
        let mut table = Table::new(
            "Attention from END, on average",
            [
                "head",
                "on broken values, no palindromes",
                "on START, palindromes",
                "the most on one position, palindromes",
                "and no palindromes",
            ],
        );
        for (n, head) in e.heads.iter().enumerate() {
            table.row([
                Cell::from(format!("head {head}")),
                e.on_broken[n].into(),
                e.start[n].into(),
                e.largest[n][0].into(),
                e.largest[n][1].into(),
            ]);
        }
        let claim = "From `END`, the collecting head looks at values of the second half that are not mirrored, and \
                     never at the weak positions.";
        Step::new("end", "Where `END` looks", claim, verdict)
            .text(format!(
                "`START` would be the place to rest where nothing is broken: in palindromes head {} gives it {}; \
                 {} would be its even share.",
                e.heads[0],
                number(e.start[0]),
                number(evenly)
            ))
            .table(table)
            .picture(Picture::new(
                "end",
                "Mean attention from `END`",
                Chart::Bars(panels.collect()),
            ))
    }

    /// How much more of the collecting head's attention from `END` a value has when it is broken, on average over the
    /// positions that are not weak.
    fn gained_at_end(&self) -> f64 {
        let positions = self.vectors.positions.iter();
        let gained = positions
            .filter(|p| !self.vectors.weak.contains(p))
            .map(|&p| self.end.nonpalindromic[0][p] - self.end.palindromic[0][p]);
        let gained: Vec<f64> = gained.filter(|x| x.is_finite()).collect();
        gained.iter().sum::<f64>() / gained.len() as f64
    }

    pub(super) fn at_end(&self) -> Step {
        let apart = |c: &ComponentAttribution| match c.summaries.as_slice() {
            [other, palindrome] => other.value.mean - palindrome.value.mean,
            _ => f64::NAN,
        };
        let all: f64 = self.components.iter().map(|c| apart(c).abs()).sum();
        let collecting = format!("head {}", self.roles.collecting());
        let its = self
            .components
            .iter()
            .find(|c| c.component.to_string() == collecting);
        let its = its.map_or(f64::NAN, apart);
        let verdict = self.if_it_answers(|| {
            Conclusion::of(
                its > MOST * all,
                format!(
                    "the classes lie {} apart in what {collecting} writes, of {} in all components together",
                    number(its),
                    number(all)
                ),
            )
        });
        let mut table = Table::new(
            "What each component adds to the logit of \"no palindrome\" less that of \"palindrome\"",
            ["component", "mean, others", "mean, palindromes", "apart"],
        );
        for c in &self.components {
            let means = c.summaries.iter().map(|of| Cell::from(of.value.mean));
            let cells = [Cell::from(c.component.to_string())].into_iter();
            table.row(cells.chain(means).chain([apart(c).into()]));
        }
        let panel = |c: &ComponentAttribution| {
            let classes = c.histogram.classes.iter().map(|of| {
                let heights: Vec<usize> = of.value.counts.clone();
                Class::new(CLASSES[of.class.min(1)], &heights)
            });
            HistogramChart {
                title: c.component.to_string(),
                x: "added to the logit difference".into(),
                y: "sequences".into(),
                edges: c.histogram.edges.iter().map(|&e| e.into()).collect(),
                classes: classes.collect(),
            }
        };
        let claim = "At `END` it is what the collecting head writes that tells the classes apart.";
        Step::new("components", "What decides at `END`", claim, verdict)
            .text(
                "The logits are a sum over everything that was written to the stream at `END`, with the last norm's \
                 own scale.",
            )
            .table(table)
            .picture(Picture::new(
                "components",
                "What each component adds, by class",
                Chart::Histograms(self.components.iter().map(panel).collect()),
            ))
    }
}

/// Patterns to look through, with words for the sequences.
pub(super) fn attention(v: &Views) -> AttentionView {
    let sequences = v.sequences.iter().map(|s| {
        let what = if s.broken.is_empty() {
            "a palindrome"
        } else {
            "no palindrome"
        };
        let taken = if s.p_palindrome > 0.5 { "yes" } else { "no" };
        let name = format!("{}, {what}, the model says {taken}", s.name);
        Sequence::new(name, &s.words).marked(s.broken.iter().copied())
    });
    AttentionView {
        sequences: sequences.collect(),
        heads: v.heads.iter().map(ToString::to_string).collect(),
        weightings: vec![
            Weighting::new("attention times what is written", v.info_weighted.clone()),
            Weighting::new("attention", v.patterns.clone()),
        ],
    }
}
