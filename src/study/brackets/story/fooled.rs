//! Strings that fool the model.

use super::answers::{confidence, judged};
use super::pictures::bars;
use crate::study::brackets::{BracketsStudy, Cure, Judged, StringKind};
use crate::study::{
    Cell, Chart, ChartAxis, Conclusion, Draw, Picture, Series, Step, Table, XyPlot,
};

impl BracketsStudy {
    /// The known family, and the search.
    pub(super) fn fooled(&self) -> Step {
        let a = &self.adversarial;
        let n = a.family.last().map_or(0, |(i, _)| i + 2);
        let sizes: Vec<f64> = a.family.iter().map(|(i, _)| *i as f64).collect();
        let p: Vec<f64> = a.family.iter().map(|(_, p)| *p).collect();
        let fooled = p.iter().filter(|&&p| p > 0.5).count();
        let (best, best_p) =
            (a.family.iter()).fold((0, 0.0), |m, &(i, p)| if p > m.1 { (i, p) } else { m });
        let plot = XyPlot {
            title: String::new(),
            x: "i".into(),
            y: "P(balanced)".into(),
            series: vec![
                Series::new("of the string", Draw::Line, &sizes, &p),
                Series::new(
                    "½",
                    Draw::Dashed,
                    &[sizes[0], sizes[sizes.len() - 1]],
                    &[0.5, 0.5],
                ),
            ],
        };
        let mut step = Step::new(
            "adversarial",
            "Strings that fool the model",
            "Two tall balanced strings with `)(` between them are unbalanced at one place only: the model takes some of them for balanced.",
            Conclusion::of(
                fooled > 0,
                format!(
                    "{fooled} of {} such strings are taken for balanced; the write-up's own with {}, the best, i = {best}, with {}",
                    p.len(),
                    confidence(a.published.p_balanced),
                    confidence(best_p)
                ),
            ),
        )
        .text(format!(
            "`tall(i/2) + \")(\" + tall(({n}-i)/2)`, where `tall(k)` is k opening and k closing brackets. The exact solution says that \
             each is unbalanced.",
        ))
        .table(judged(
            "The write-up's own, and what it prints beside it",
            &[&a.beside[..], std::slice::from_ref(&a.published)].concat(),
        ))
        .picture(Picture::new("family", "The write-up's family", Chart::Xy(vec![plot])));
        let searched: Vec<String> = (StringKind::ALL.iter().zip(&a.found))
            .map(|(kind, found)| {
                let fooled = found.iter().filter(|j| j.fools()).count();
                match found.first() {
                    None => format!("{kind}: none"),
                    Some(first) => format!(
                        "{kind}: {fooled} of the {} likeliest fool it, the likeliest wrong with P = {}",
                        found.len(),
                        confidence(first.p_wrong())
                    ),
                }
            })
            .collect();
        step = step.text(format!(
            "A search starts from these and from random strings, and keeps what small changes bring nearer to a wrong answer, within \
             each kind of string: {} strings judged. {}.",
            a.judged,
            searched.join("; ")
        ));
        for (kind, found) in StringKind::ALL.iter().zip(&a.found) {
            let fooling: Vec<Judged> = found
                .iter()
                .filter(|j| j.fools())
                .take(4)
                .cloned()
                .collect();
            if !fooling.is_empty() {
                step = step.table(judged(&format!("Found: {kind}, taken wrongly"), &fooling));
            }
        }
        step
    }

    /// Whether it is the count that fails there, and where else.
    pub(super) fn why_fooled(&self) -> Step {
        /// Of the strings that fool the model, the share that must be cured for the cause to be theirs.
        const MOST: f64 = 0.5;
        let all = &self.adversarial.cures;
        let fooling: Vec<&Cure> = all.iter().filter(|c| c.fools()).collect();
        let cured = |by: fn(&Cure) -> f64| fooling.iter().filter(|c| by(c) <= 0.5).count();
        let [there, everywhere, looked] = [
            cured(|c| c.even_there),
            cured(|c| c.even_everywhere),
            cured(|c| c.looked_at),
        ];
        let broken = all
            .iter()
            .filter(|c| !c.fools() && c.even_everywhere > 0.5)
            .count();
        let refused = all.iter().filter(|c| c.balanced_looked_at <= 0.5).count();
        let (counting, negative) = (self.roles.counting, self.roles.negative);
        let mut table = Table::new(
            "P(balanced) of the family, as it is and with attention changed",
            [
                "i",
                "the bracket",
                "attention to it",
                "as it is",
                "counted evenly from there",
                "counted evenly everywhere",
                "looked at",
                "balanced, looked at",
            ],
        );
        for c in all {
            table.row([
                c.i.into(),
                c.bracket.into(),
                c.attention.into(),
                c.as_is.into(),
                c.even_there.into(),
                c.even_everywhere.into(),
                c.looked_at.into(),
                Cell::from(c.balanced_looked_at),
            ]);
        }
        let x: Vec<f64> = all.iter().map(|c| c.i as f64).collect();
        let line = |name: &str, draw, of: fn(&Cure) -> f64| {
            Series::new(name, draw, &x, &all.iter().map(of).collect::<Vec<_>>())
        };
        let plot = XyPlot {
            title: String::new(),
            x: "i".into(),
            y: "P(balanced)".into(),
            series: vec![
                line("as it is", Draw::Line, |c| c.as_is),
                line("counted evenly from the bracket", Draw::Dashed, |c| {
                    c.even_there
                }),
                line("counted evenly everywhere", Draw::Dashed, |c| {
                    c.even_everywhere
                }),
                line("bracket looked at", Draw::Line, |c| c.looked_at),
            ],
        };
        let looks = bars(
            ChartAxis::new("i", all.iter().map(|c| c.i)),
            "attention from position 0",
            &format!("head {negative} to the bracket that goes negative"),
            &all.iter().map(|c| c.attention).collect::<Vec<_>>(),
        );
        let verdict = if fooling.is_empty() {
            Conclusion::not_applicable("none of these strings fools the model")
        } else {
            Conclusion::of(
                there as f64 > MOST * fooling.len() as f64,
                format!(
                    "with head {counting}'s attention from that bracket made even, {there} of the {} strings that fool the model no longer \
                     do",
                    fooling.len()
                ),
            )
        };
        let step = Step::new(
            "adversarial.why",
            "Why they fool it",
            "The counting head's attention is uneven where these strings go negative: the bracket there miscounts, and takes its suffix for balanced.",
            verdict,
        )
        .text(
            "The claim is tested by doing it: the head's attention from the one bracket from which on more open than close is set to the \
             same for that bracket and all that follows.",
        );
        if fooling.is_empty() {
            return step;
        }
        step.text(format!(
            "Even attention from every bracket cures {everywhere} of the {}, and makes {broken} of the others fool the model. With all of \
             head {negative}'s attention from position 0 on the bracket, {looked} of the {} are cured; but the same done to balanced \
             strings, with `()` in place of `)(`, makes {refused} of {} unbalanced, so that this says nothing of the count.",
            fooling.len(),
            fooling.len(),
            all.len()
        ))
        .table(table)
        .picture(Picture::new("cures", "The family with attention changed", Chart::Xy(vec![plot])))
        .picture(Picture::new(
            "cures.attention",
            &format!("Head {negative}'s attention to the bracket that goes negative"),
            Chart::Bars(vec![looks]),
        ))
    }
}
