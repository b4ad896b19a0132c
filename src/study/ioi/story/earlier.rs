//! How it is known that a name is repeated.

use super::{heads_do, listed, maps};
use crate::study::ioi::{IoiStudy, LOOKS, MATTERS, Place, Role};
use crate::study::words::percent;
use crate::study::{Conclusion, Picture, Scale, Step, Table};

impl IoiStudy {
    pub(super) fn duplicated(&self) -> Step {
        let looks = |i: usize| self.seen.looks[i].s2_s1;
        self.early(
            ("duplicate", "Duplicate token heads"),
            "Heads look from the subject's second mention at its first: the name has been there before.",
            (Role::DuplicateToken, Place::S2),
            ("S2", "S1", &looks),
        )
    }

    pub(super) fn induced(&self) -> Step {
        let looks = |i: usize| self.seen.looks[i].s2_after;
        self.early(
            ("induction", "Induction heads"),
            "Heads look from the subject's second mention at the token after its first, as induction heads do.",
            (Role::Induction, Place::S2),
            ("S2", "S1+1", &looks),
        )
    }

    pub(super) fn preceded(&self) -> Step {
        let looks = |i: usize| self.seen.looks[i].after_s1;
        self.early(
            ("previous", "Previous token heads"),
            "Heads look from the token after the subject's first mention at that mention, for the induction heads to find it.",
            (Role::PreviousToken, Place::AfterS1),
            ("S1+1", "S1", &looks),
        )
    }

    fn early(
        &self,
        (id, title): (&str, &str),
        claim: &str,
        (role, place): (Role, Place),
        (from, to, looks): (&str, &str, &dyn Fn(usize) -> f64),
    ) -> Step {
        let own = self.roles.of(role);
        let there = |i: usize| {
            let there = self.patching.exactly[i][place as usize];
            there.map_or(f64::NAN, |x| self.share(x))
        };
        let looking: Vec<usize> = (0..self.heads.len())
            .filter(|&i| looks(i) >= LOOKS)
            .collect();
        let because = match own.is_empty() {
            true => format!(
                "{} look from {from} at {to}, none of which matters there by {} of the difference",
                looking.len(),
                percent(MATTERS)
            ),
            false => format!(
                "{}, and matter there: {}",
                heads_do(own.len()),
                listed(&own)
            ),
        };
        let mut table = Table::new(
            &format!("Heads that look from {from} at {to}"),
            [
                "head",
                "attention",
                "effect there",
                "effect at all positions",
            ],
        );
        let mut order = looking;
        order.sort_by(|&a, &b| there(b).abs().total_cmp(&there(a).abs()));
        /// How many are listed.
        const LISTED: usize = 10;
        for &i in order.iter().take(LISTED) {
            table.row([
                self.heads[i].to_string().into(),
                looks(i).into(),
                there(i).into(),
                self.share(self.patching.heads[i]).into(),
            ]);
        }
        let step = Step::new(id, title, claim, Conclusion::of(!own.is_empty(), because)).text(format!(
            "A head counts when its query at {from} gives {to} at least {LOOKS} of its attention on average, and what it writes at \
             {from}, patched to what it is in the corrupted run, changes the logit difference by at least {} of it, up or down.",
            percent(MATTERS)
        ));
        let step = match table.rows.is_empty() {
            true => step,
            false => step.table(table),
        };
        step.picture(Picture::new(
            &format!("looks-{id}"),
            &format!("Attention from {from} to {to}, by head"),
            maps(Scale::Sequential, vec![self.map("", looks, &own)]),
        ))
    }
}
