//! What the model loses without its parts: layers where the comparison could be made, heads, and what heads take in.

use super::super::losses::one_answer;
use super::super::{AllOrBut, HeadAblation, PalindromeStudy, PerHead};
use crate::names::Head;
use crate::study::words::{number, percent};
use crate::study::{Bar, BarChart, Cell, Chart, ChartAxis, Conclusion, Picture, Step, Table};

impl PalindromeStudy {
    /// A verdict on what a model does that answers; not applicable where it tells nothing apart.
    pub(super) fn if_it_answers(&self, verdict: impl FnOnce() -> Conclusion) -> Conclusion {
        let p = &self.performance;
        if p.tells() {
            return verdict();
        }
        Conclusion::not_applicable(format!(
            "{} of the answers are right, and {} would be with the same answer to all: there is nothing to lose",
            percent(p.accuracy),
            percent(p.constant)
        ))
    }

    pub(super) fn hypotheses(&self) -> Step {
        let (w, clean) = (&self.place, self.roles.clean);
        let verdict = self.if_it_answers(|| {
            Conclusion::of(
                w.at_end > clean / 2.0 && w.second_half < clean / 2.0,
                format!(
                    "of a logit difference of {}, {} is left with the first layer's means at the second half's values, \
                     {} with them at `END`",
                    number(clean),
                    number(w.second_half),
                    number(w.at_end)
                ),
            )
        });
        let chart = BarChart {
            title: String::new(),
            x: ChartAxis::new(
                "where the first layer's means are written instead",
                ["first half", "second half", "END"],
            ),
            y: "logit difference".into(),
            bars: vec![Bar::new(
                "what is left",
                &[w.first_half, w.second_half, w.at_end],
            )],
        };
        let claim = "Reflection, not aggregation: the comparison is made at the second half's values, which look back \
                     at their mirrors, and not at `END` over all values at once.";
        Step::new("hypotheses", "Where it is compared", claim, verdict)
            .text(
                "All that the first layer's heads write is replaced by its mean over the sequences, at some of the \
                 positions. What is compared there is lost.",
            )
            .picture(
                Picture::new(
                    "hypotheses",
                    "What is left without the first layer, by place",
                    Chart::Bars(vec![chart]),
                )
                .caption(format!("The model as it is has {}.", number(clean))),
            )
    }

    pub(super) fn heads(&self) -> Step {
        let r = &self.roles;
        let (needed, other): (Vec<&HeadAblation>, Vec<_>) = r
            .all()
            .partition(|a| [r.comparing(), r.collecting()].contains(&a.head));
        let half = r.clean / 2.0;
        let least_left = other
            .iter()
            .fold(f64::INFINITY, |least, a| least.min(a.mean));
        let verdict = self.if_it_answers(|| {
            Conclusion::of(
                needed.iter().all(|a| a.mean < half) && other.iter().all(|a| a.mean > half),
                format!(
                    "of a logit difference of {}, {} is left without head {} and {} without head {}; without any \
                     other at least {}",
                    number(r.clean),
                    number(r.first[0].mean),
                    r.comparing(),
                    number(r.second[0].mean),
                    r.collecting(),
                    number(least_left)
                ),
            )
        });
        let names = r.all().map(|a| a.head);
        let of = |f: fn(&HeadAblation) -> f64| r.all().map(f).collect::<Vec<f64>>();
        let chart = BarChart {
            title: String::new(),
            x: ChartAxis::new("head without which the model runs", names),
            y: "logit difference".into(),
            bars: vec![
                Bar::new("its mean instead", &of(|a| a.mean)),
                Bar::new("zero instead", &of(|a| a.zero)),
                Bar::new(
                    "its mean over all positions instead",
                    &of(|a| a.mean_of_all),
                ),
            ],
        };
        let told = |a: &&HeadAblation| {
            format!(
                "head {} ({} left with zero, {} with the mean)",
                a.head,
                number(a.zero),
                number(a.mean)
            )
        };
        let more: Vec<String> = r
            .all()
            .filter(|a| a.zero < a.mean)
            .map(|a| told(&a))
            .collect();
        let zeros = if !self.performance.tells() {
            "Zero in a head's place also takes away what the head always writes.".to_string()
        } else if more.is_empty() {
            "Zero in a head's place takes away less than the mean does, for every head.".to_string()
        } else {
            format!(
                "Zero in its place takes away more than the mean for {}: also what the head always writes, on which \
                 the later layer may rely. That is no sign that the head tells sequences apart.",
                more.join(", ")
            )
        };
        let claim = "In each layer one head does the work: without it most of the logit difference is lost, without \
                     the others little.";
        Step::new("heads", "Which heads are needed", claim, verdict)
            .text(
                "What a head writes is replaced by its mean over the sequences, at every position: position by \
                 position, since a mean over all positions would also take away what the position alone says.",
            )
            .text(zeros)
            .picture(
                Picture::new("ablations", "What is left without a head", Chart::Bars(vec![chart]))
                    .caption(format!("The model as it is has {}.", number(r.clean))),
            )
    }

    pub(super) fn head_losses(&self) -> Step {
        let l = &self.losses;
        let one = one_answer(l.sequences);
        let [first, second] = [self.roles.first_helper(), self.roles.second_helper()];
        let verdict = self.if_it_answers(|| {
            let nothing = |increase: f64| increase < one;
            let [by_mean, by_zero] = [&l.mean, &l.zero].map(|by| [by[0][1], by[1][1]]);
            let numbers = format!(
                "a loss of {}: head {second} adds {} with its mean and {} with zero, head {first} {} with its mean and {} \
                 with zero; one answer in {} at even odds is {}",
                number(l.clean),
                number(by_mean[1]),
                number(by_zero[1]),
                number(by_mean[0]),
                number(by_zero[0]),
                l.sequences,
                number(one)
            );
            if by_mean.into_iter().chain(by_zero).all(nothing) {
                return Conclusion::not_applicable(format!("neither of them matters: {numbers}"));
            }
            let claim = nothing(by_mean[1])
                && nothing(by_zero[1])
                && nothing(by_mean[0])
                && !nothing(by_zero[0]);
            Conclusion::of(claim, numbers)
        });
        let heads: Vec<Head> = l.heads.concat();
        let mut table = Table::new(
            "How much the loss grows with what a head writes replaced",
            ["head", "its mean", "zero", "noise"],
        );
        for (n, head) in heads.iter().enumerate() {
            let of = |losses: &PerHead| Cell::from(losses.concat()[n]);
            table.row([
                Cell::from(format!("head {head}")),
                of(&l.mean),
                of(&l.zero),
                of(&l.random),
            ]);
        }
        let claim = "The second layer's helper does nothing at all, and the first layer's helper always writes the \
                     same: its mean in its place costs nothing, zero does.";
        Step::new("head-losses", "Do the helpers matter?", claim, verdict)
            .text(format!(
                "On {} sequences. Noise is drawn anew at every place, normally distributed with variance one. A change \
                 counts as nothing if it is smaller than what one answer at even odds adds to the loss.",
                l.sequences
            ))
            .table(table)
    }

    pub(super) fn inputs_needed(&self) -> Step {
        let l = &self.losses;
        let one = one_answer(l.hundred);
        let collecting = self.roles.collecting();
        let verdict = self.if_it_answers(|| {
            Conclusion::of(
                l.queries_zero >= one && l.queries_mean < one,
                format!(
                    "on {} sequences the loss grows by {} with head {collecting}'s mean query for all, by {} without \
                     its queries; one answer at even odds is {}",
                    l.hundred,
                    number(l.queries_mean),
                    number(l.queries_zero),
                    number(one)
                ),
            )
        });
        let heads: Vec<Head> = l.heads.concat();
        let panel = |title: &str, by: &super::super::ByInput| BarChart {
            title: title.into(),
            x: ChartAxis::new("head", &heads),
            y: "increase of the loss".into(),
            bars: vec![
                Bar::new("queries", &by.q.concat()),
                Bar::new("keys", &by.k.concat()),
                Bar::new("values", &by.v.concat()),
            ],
        };
        let panels = vec![
            panel("their means instead", &l.input_mean),
            panel("zero instead", &l.input_zero),
        ];
        let mut table = Table::new(
            "How much the loss grows",
            [
                "head",
                "mean query",
                "mean keys",
                "mean values",
                "no query",
                "no keys",
                "no values",
            ],
        );
        for (n, head) in heads.iter().enumerate() {
            let (m, z) = (&l.input_mean, &l.input_zero);
            let cells = [&m.q, &m.k, &m.v, &z.q, &z.k, &z.v].map(|by| Cell::from(by.concat()[n]));
            table.row(
                [Cell::from(format!("head {head}"))]
                    .into_iter()
                    .chain(cells),
            );
        }
        let claim = "What the collecting head asks for is needed, and always the same: its mean query serves every \
                     sequence.";
        Step::new("inputs", "Queries, keys and values", claim, verdict)
            .text(format!(
                "A head's queries, keys or values are replaced by their means over the sequences, position by \
                 position, or by zero; on {} sequences. Without queries or without keys every score is zero: the two \
                 are the same.",
                l.input_sequences
            ))
            .table(table)
            .picture(Picture::new(
                "inputs",
                "What replacing a head's inputs costs",
                Chart::Bars(panels),
            ))
    }

    pub(super) fn helpers(&self) -> Step {
        let t = &self.targeted;
        let verdict = self.if_it_answers(|| self.helped());
        let helpers = [t.result.head, t.values.head];
        let bars = t.heads.iter().zip(&t.result_at);
        let bars = bars
            .filter(|(h, _)| helpers.contains(h))
            .map(|(head, losses)| {
                let more: Vec<f64> = losses.iter().map(|loss| loss - t.clean).collect();
                Bar::new(&format!("head {head}"), &more)
            });
        let chart = BarChart {
            title: String::new(),
            x: ChartAxis::new(
                "position at which the head is ablated",
                0..t.result_at[0].len(),
            ),
            y: "increase of the loss".into(),
            bars: bars.collect(),
        };
        let mut table = Table::new(
            "With a helper's mean in its place",
            ["what, and where", "loss", "logit difference"],
        );
        table.row([
            Cell::from("the model as it is"),
            t.clean.into(),
            self.roles.clean.into(),
        ]);
        for (what, of) in [("results", &t.result), ("values", &t.values)] {
            let name = |but: &str| Cell::from(format!("head {}'s {what} everywhere{but}", of.head));
            table.row([name(""), of.all.into(), of.all_diff.into()]);
            let but = format!(" but at {}", t.helped);
            table.row([name(&but), of.but_one.into(), of.but_one_diff.into()]);
        }
        let claim =
            "The other two heads make up for one weak position, and are needed nowhere else.";
        Step::new("helpers", "What the other heads are for", claim, verdict)
            .text(
                "What the first layer's helper writes counts where it writes it; what the second layer's helper \
                 writes goes to `END`, so that what counts is where its values come from.",
            )
            .table(table)
            .picture(Picture::new(
                "targeted",
                "What a helper's mean in its place costs, position by position",
                Chart::Bars(vec![chart]),
            ))
    }

    /// Whether the helpers make up for one position: judged of those that are needed at all.
    fn helped(&self) -> Conclusion {
        /// What a helper may cost elsewhere, as a part of what it costs in all.
        const ELSEWHERE: f64 = 0.1;
        let t = &self.targeted;
        let one = one_answer(self.performance.sequences);
        let needed: Vec<&AllOrBut> = [&t.result, &t.values]
            .into_iter()
            .filter(|of| of.all - t.clean >= one)
            .collect();
        let numbers = format!(
            "the loss of {} is {} without what head {} writes, {} if it may write at position {}; {} without the \
             values of head {}, {} if it may read that one",
            number(t.clean),
            number(t.result.all),
            t.result.head,
            number(t.result.but_one),
            t.helped,
            number(t.values.all),
            t.values.head,
            number(t.values.but_one)
        );
        if needed.is_empty() {
            return Conclusion::not_applicable(format!(
                "no helper is needed: {numbers}; one answer at even odds is {}",
                number(one)
            ));
        }
        let there = |of: &&AllOrBut| of.but_one - t.clean <= ELSEWHERE * (of.all - t.clean);
        Conclusion::of(
            needed.iter().all(there) && self.vectors.weak.contains(&t.helped),
            numbers,
        )
    }
}
