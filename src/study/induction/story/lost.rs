//! What is lost without the heads.

use crate::study::induction::{DRAWS, InductionStudy};
use crate::study::words::number;
use crate::study::{Conclusion, Step, Table};

impl InductionStudy {
    pub(super) fn without_induction(&self) -> Step {
        let (id, title) = ("without-induction", "Without the induction heads");
        let claim = "Without them the second copy is foretold worse: by more than the first, and than without as many other heads.";
        let Some(a) = &self.ablations else {
            return Step::new(
                id,
                title,
                claim,
                Conclusion::not_applicable("there are no induction heads"),
            );
        };
        let own = a.induction;
        let mut table = Table::new(
            "What the loss rises by, in nats",
            ["without", "first copy", "second copy"],
        );
        let mut row = |name: &str, first: f64, second: f64| {
            table.row([name.into(), first.into(), second.into()])
        };
        row("all induction heads", own.first, own.second);
        row("as many other heads", a.others.first, a.others.second);
        if let Some(previous) = a.previous {
            row(
                "all previous-token heads before the last induction head",
                previous.first,
                previous.second,
            );
        }
        for (head, rise) in self.induction.iter().zip(&a.each) {
            row(&format!("head {head}"), f64::NAN, *rise);
        }
        Step::new(
            id,
            title,
            claim,
            Conclusion::of(
                own.second > own.first && own.second > 2.0 * a.others.second.max(0.0),
                format!(
                    "the second copy's loss rises by {} nats, the first's by {}; without as many other heads the second's by {}",
                    number(own.second),
                    number(own.first),
                    number(a.others.second)
                ),
            ),
        )
        .text(format!(
            "A head that is taken out writes its mean over all sequences and positions. Other heads are drawn at random among those that are \
             neither induction nor previous-token heads, {DRAWS} times."
        ))
        .table(table)
    }

    pub(super) fn without_previous(&self) -> Step {
        let (id, title) = ("without-previous", "Without the previous-token heads");
        let claim = "Without previous-token heads induction heads do not find what they look for: their score falls to less than half.";
        let found = self.ablations.as_ref();
        let found = found.and_then(|a| Some((a.score, a.score_without_previous?)));
        let Some((score, without)) = found else {
            let because = "there is no induction head behind a previous-token head";
            return Step::new(id, title, claim, Conclusion::not_applicable(because));
        };
        Step::new(
            id,
            title,
            claim,
            Conclusion::of(
                without < 0.5 * score,
                format!(
                    "the induction heads' mean score falls from {} to {}",
                    number(score),
                    number(without)
                ),
            ),
        )
        .text("All previous-token heads before the last induction head write their mean.")
    }
}
