//! Which heads attend to what came after the same token, and which to the token before.

use super::listed;
use crate::decompose::PatternScore;
use crate::names::Head;
use crate::study::induction::{InductionStudy, LOOKS};
use crate::study::words::number;
use crate::study::{Chart, Conclusion, Picture, Scale, Step, Table};

impl InductionStudy {
    pub(super) fn attending(&self) -> Step {
        let of = |score: &PatternScore| score.induction.unwrap_or(f64::NAN);
        let because = self.highest(&self.induction, &of);
        self.known(
            Step::new(
                "induction",
                "Induction heads",
                "There are heads that attend to what came after the same token before.",
                Conclusion::of(!self.induction.is_empty(), because),
            ),
            (&self.induction, "induction"),
            &of,
        )
    }

    pub(super) fn preceding(&self) -> Step {
        let (id, title) = ("previous", "Previous-token heads");
        let claim =
            "Before the first induction head there are heads that attend to the token before.";
        let of = |score: &PatternScore| score.previous.unwrap_or(f64::NAN);
        let Some(first) = self.induction.iter().map(|h| h.layer).min() else {
            return Step::new(
                id,
                title,
                claim,
                Conclusion::not_applicable("there are no induction heads"),
            );
        };
        let before: Vec<Head> = (self.previous.iter().copied())
            .filter(|h| h.layer < first)
            .collect();
        let because = match before.is_empty() {
            true => format!(
                "none of layers before {first}, {}",
                self.highest(&self.previous, &of)
            ),
            false => format!("{}, before layer {first}", listed(&before)),
        };
        self.known(
            Step::new(
                id,
                title,
                claim,
                Conclusion::of(!before.is_empty(), because),
            ),
            (&self.previous, "previous"),
            &of,
        )
    }

    /// Those found, or how far the highest score is from being one.
    fn highest(&self, own: &[Head], of: &dyn Fn(&PatternScore) -> f64) -> String {
        if !own.is_empty() {
            return format!(
                "{} of {} heads: {}",
                own.len(),
                self.heads.len(),
                listed(own)
            );
        }
        let most = self.scores.iter().map(of).fold(f64::NEG_INFINITY, f64::max);
        format!("the highest score is {}, expected {LOOKS}", number(most))
    }

    fn known(
        &self,
        step: Step,
        (own, name): (&[Head], &str),
        of: &dyn Fn(&PatternScore) -> f64,
    ) -> Step {
        let mut table = Table::new(
            "The heads with the highest score",
            [
                "head",
                "score",
                "induction",
                "previous",
                "duplicate",
                "first",
                "copying",
            ],
        );
        let mut order: Vec<usize> = (0..self.heads.len()).collect();
        order.sort_by(|&a, &b| of(&self.scores[b]).total_cmp(&of(&self.scores[a])));
        /// How many are listed.
        const LISTED: usize = 10;
        for &i in order.iter().take(LISTED) {
            let s = self.scores[i];
            let number = |x: Option<f64>| x.unwrap_or(f64::NAN).into();
            table.row([
                self.heads[i].to_string().into(),
                of(&s).into(),
                number(s.induction),
                number(s.previous),
                number(s.duplicate),
                number(s.first),
                number(self.copying.as_ref().map(|all| all[i])),
            ]);
        }
        step.text(format!(
            "A head is called one when its score, the attention to such tokens on average over the queries that have any, is at \
             least {LOOKS}. Scores are means over the sequences."
        ))
        .table(table)
        .picture(
            Picture::new(
                &format!("scores-{name}"),
                "The score of every head",
                Chart::HeatMaps {
                    scale: Scale::Sequential,
                    maps: vec![self.map(|i| of(&self.scores[i]), own)],
                },
            )
            .caption("Those that are called so have a frame."),
        )
    }
}
