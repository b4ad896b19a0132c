//! Where the comparison fails, and what can be made of it.

use super::super::{Broken, Judged, PalindromeStudy};
use super::behaviour::attention;
use super::{list, written};
use crate::decompose::Summary;
use crate::study::words::{number, percent};
use crate::study::{
    Bar, BarChart, BoxPlot, Boxes, Cell, Chart, ChartAxis, Conclusion, Five, Picture, Step, Table,
};
use std::cmp::Ordering;

impl PalindromeStudy {
    pub(super) fn blind_spots(&self) -> Step {
        let a = &self.adversarial;
        let [blindly, otherwise, noticed] = a.counts;
        let verdict = self.if_it_answers(|| {
            if a.blind.is_empty() {
                let most = a.rates().into_iter().fold(0.0, f64::max);
                let said = format!(
                    "broken at one position alone, at most {} pass",
                    percent(most)
                );
                return Conclusion::of(false, said);
            }
            Conclusion::of(
                2 * a.blind.len() < a.single.len(),
                format!(
                    "blind at {}; of the dataset's {} wrong answers {blindly} are broken there alone, {otherwise} \
                     are not; {noticed} such sequences are answered rightly",
                    list(&a.blind),
                    blindly + otherwise
                ),
            )
        });
        let chart = BarChart {
            title: String::new(),
            x: ChartAxis::new("positions of the broken pair", self.pairs()),
            y: "share that passes for a palindrome".into(),
            bars: vec![Bar::new("palindromes broken at one pair", &a.rates())],
        };
        let mut natural = sequences("The dataset's sequences that are answered wrongly");
        natural
            .rows
            .extend(a.natural.iter().map(|(_, judged)| row(judged)));
        let mut flipped =
            sequences("A palindrome, and with one added to a value of its second half");
        flipped.rows.extend(a.flipped.iter().map(row));
        let mut four = sequences("Sequences that the second write-up lists");
        four.rows.extend(a.four.iter().map(row));
        let claim = "At a few positions the comparison fails: a sequence that is broken there alone passes for a \
                     palindrome.";
        Step::new("blind-spots", "Blind spots", claim, verdict)
            .text("Values in brackets are not their mirrors'.")
            .text(self.foretold())
            .table(natural)
            .table(flipped)
            .table(four)
            .picture(Picture::new(
                "blind-spots",
                "How often one broken pair goes unnoticed",
                Chart::Bars(vec![chart]),
            ))
            .picture(
                Picture::new(
                    "flipped",
                    "Attention on a palindrome, and with one value changed",
                    attention(&self.flipped),
                )
                .caption("Rows look, columns are looked at."),
            )
    }

    /// How many wrong answers the weights foretell, and how rare such sequences are.
    fn foretold(&self) -> String {
        let a = &self.adversarial;
        if !self.performance.tells() {
            return "A model that tells nothing apart has no blind spots.".into();
        }
        let rarity = if a.blind.is_empty() {
            String::new()
        } else {
            format!(
                " Sequences to be broken are drawn with a coin for every pair: {} of them come out broken at {} alone.",
                percent(a.only_blind),
                list(&a.blind)
            )
        };
        format!(
            "Broken at weak positions only ({}), and so foretold by the weights, are {} of the dataset's {} wrong \
             answers.{rarity}",
            list(&self.vectors.weak),
            a.foreseen,
            a.natural.len()
        )
    }

    pub(super) fn why_weak(&self) -> Step {
        let (c, weak) = (&self.comparing, &self.vectors.weak);
        let looks = c.comparing();
        let claim = "Where the difference vectors are weak, it is the comparing head's attention that fails: it does \
                     not look at the mirror if that is the same and at itself if it is not.";
        let title = "Why the weak positions are weak";
        let told = |&p: &usize| {
            let n = c.place(p);
            format!(
                "at {p} it looks first at the mirror in {} where that is the same, first at itself in {} where it is \
                 not",
                percent(looks.mirror_first[n]),
                percent(looks.self_first[n])
            )
        };
        let verdict = self.if_it_answers(|| {
            if weak.is_empty() {
                return Conclusion::not_applicable("no position is weak by the weights");
            }
            let fails = |&p: &usize| !looks.compares(c.place(p));
            Conclusion::of(
                weak.iter().all(fails),
                weak.iter().map(told).collect::<Vec<_>>().join("; "),
            )
        });
        let to = |of: &[f64]| -> Vec<f64> { weak.iter().map(|&p| of[c.place(p)]).collect() };
        let chart = BarChart {
            title: String::new(),
            x: ChartAxis::new("weak position", weak),
            y: "mean attention".into(),
            bars: vec![
                Bar::new("to the mirror, the same value", &to(&looks.mirror_equal)),
                Bar::new("to the mirror, another value", &to(&looks.mirror_broken)),
                Bar::new("to itself, the same value", &to(&looks.self_equal)),
                Bar::new("to itself, another value", &to(&looks.self_broken)),
            ],
        };
        let step = Step::new("why-weak", title, claim, verdict).text(
            "A vector can be weak for two reasons: the comparing head does not look where it should, or what it \
             writes of the two places is not read.",
        );
        if weak.is_empty() {
            return step;
        }
        step.picture(Picture::new(
            "why-weak",
            &format!("Attention of head {} at the weak positions", looks.head),
            Chart::Bars(vec![chart]),
        ))
    }

    pub(super) fn moved(&self) -> Step {
        let d = &self.comparing;
        let blind = &self.adversarial.blind;
        let seeing = |of: &[Summary]| {
            let at = d.positions.iter().zip(of);
            at.filter(|(p, _)| !blind.contains(p))
                .all(|(_, s)| s.median > 0.0)
        };
        let verdict = Conclusion::of(
            blind.len() < d.positions.len() && seeing(&d.to_self) && seeing(&d.to_mirror),
            format!(
                "{} more to itself and {} less to the mirror, on average over the {} positions that are not blind",
                number(d.mean_to_self),
                number(d.mean_to_mirror),
                d.positions.len() - blind.len()
            ),
        );
        let plot = |title: &str, of: &[Summary]| BoxPlot {
            title: title.into(),
            x: ChartAxis::new("positions of the pair", self.pairs()),
            y: "attention".into(),
            boxes: vec![Boxes {
                name: "sequences".into(),
                fives: of.iter().map(five).collect(),
            }],
        };
        let chart = Chart::Boxes(vec![
            plot("to the value itself, broken less mirrored", &d.to_self),
            plot("to the mirror, mirrored less broken", &d.to_mirror),
        ]);
        let claim = "Where a value is not its mirror's, the comparing head looks more at the value itself and less at \
                     the mirror, at every position but the blind ones.";
        Step::new("differences", "How much attention moves", claim, verdict)
            .text(
                "Pairs of sequences with the same second half: a palindrome, and one in which no value of the first \
                 half is its mirror's.",
            )
            .picture(
                Picture::new(
                    "differences",
                    &format!("Attention of head {} that moves", self.roles.comparing()),
                    chart,
                )
                .caption("Boxes: the middle half of the sequences; lines: their median; whiskers: all of them."),
            )
    }

    pub(super) fn new_sequences(&self) -> Step {
        let a = &self.adversarial;
        let weak = &self.vectors.weak;
        let title = "New sequences that fool the model";
        let claim = "Knowing the weak positions, sequences that fool the model are made at once.";
        if weak.is_empty() {
            let why = "no position is weak by the weights";
            return Step::new("search", title, claim, Conclusion::not_applicable(why));
        }
        let at_weak = |b: &&Broken| b.positions.iter().all(|p| weak.contains(p));
        let (weakly, strongly): (Vec<&Broken>, Vec<&Broken>) = a.single.iter().partition(at_weak);
        let rate = |of: &[&Broken]| {
            let [fooled, tried] = of
                .iter()
                .fold([0, 0], |[f, t], b| [f + b.fooled, t + b.tried]);
            fooled as f64 / tried as f64
        };
        let (at_weak, elsewhere) = (rate(&weakly), rate(&strongly));
        let verdict = self.if_it_answers(|| {
            Conclusion::of(
                !a.found.is_empty() && at_weak.partial_cmp(&elsewhere).is_none_or(Ordering::is_gt),
                format!(
                    "broken at one weak position {} pass, at one of the others {}",
                    percent(at_weak),
                    percent(elsewhere)
                ),
            )
        });
        let mut table = Table::new(
            "Palindromes broken at weak positions only",
            ["broken at", "tried", "pass for a palindrome"],
        );
        for b in weakly.into_iter().chain(&a.several) {
            table.row([
                Cell::from(list(&b.positions)),
                b.tried.into(),
                b.fooled.into(),
            ]);
        }
        let mut found = sequences("Some of those found");
        found.rows.extend(a.found.iter().map(row));
        Step::new("search", title, claim, verdict)
            .text(format!(
                "Weak by the weights: {}. Random palindromes are broken there and run; what fools the model is \
                 checked to be no palindrome, and not to be in the dataset.",
                list(weak)
            ))
            .table(table)
            .table(found)
    }
}

/// A table for sequences and what the model makes of them.
fn sequences(title: &str) -> Table {
    Table::new(title, ["sequence", "broken at", "P(palindrome)"])
}

fn row(judged: &Judged) -> Vec<Cell> {
    let broken: Vec<String> = judged.broken.iter().map(usize::to_string).collect();
    let broken = if broken.is_empty() {
        "–".to_string()
    } else {
        broken.join(", ")
    };
    vec![
        written(judged).into(),
        broken.into(),
        judged.p_palindrome.into(),
    ]
}

fn five(s: &Summary) -> Five {
    Five {
        min: s.min.into(),
        q1: s.lower_quartile.into(),
        median: s.median.into(),
        q3: s.upper_quartile.into(),
        max: s.max.into(),
    }
}
