//! Restricted and excluded losses, and what goes past the MLP.

use crate::study::modular_addition::{Losses, ModularAdditionStudy};
use crate::study::words::{number, percent};
use crate::study::{Cell, Conclusion, Step, Table};

impl ModularAdditionStudy {
    /// With the key frequencies alone, and without them.
    pub(super) fn restricted(&self) -> Step {
        let l = &self.logits;
        // Guessing among all answers.
        let chance = (self.p() as f64).ln();
        let (restricted, excluded) = (&l.sums.restricted, &l.sums.excluded);
        let mut table = Table::new(
            "Losses, in nats",
            ["", "all pairs", "trained on", "not trained on"],
        );
        let row =
            |name: &str, l: &Losses| [name.into(), l.all.into(), l.train.into(), l.test.into()];
        table.row(row("the model", &self.loss));
        table.row(row(
            "logits: functions of a + b at the key frequencies, and means",
            restricted,
        ));
        table.row(row("without them", excluded));
        for (k, l) in self.keys().iter().zip(&l.sums.excluded_each) {
            table.row(row(&format!("without those of frequency {k}"), l));
        }
        table.row(row(
            "logits: all products of the key frequencies, and means",
            &l.products.restricted,
        ));
        table.row(row("without them", &l.products.excluded));
        table.row(row(
            "logits: key waves cos(w (a + b - c)) alone",
            &l.restricted_keys,
        ));
        let none = || Cell::from(f64::NAN);
        let excluded_row = |name: &str, x: f64| [name.into(), none(), x.into(), none()];
        table.row(excluded_row("without them", l.excluded_keys));
        let h = &self.hidden;
        table.row([
            "neurons: functions of a + b at the key frequencies".into(),
            h.restricted_keys.into(),
            none(),
            none(),
        ]);
        table.row(excluded_row("without them", h.excluded_keys));
        Step::new(
            "losses",
            "With the key frequencies alone, and without them",
            "The key frequencies are all that the model needs, and all that it has: with them alone it answers as well, without them \
             worse than by guessing.",
            Conclusion::of(
                restricted.all <= self.loss.all && excluded.train > chance,
                format!(
                    "with them alone the loss is {} ({} of the model), without them {} on the pairs trained on; expected no more than the \
                     model's, and more than the {} of guessing",
                    number(restricted.all),
                    number(self.loss.all),
                    number(excluded.train),
                    number(chance)
                ),
            ),
        )
        .text(
            "The first write-up projects each answer's logits on `cos(w (a + b))` and `sin(w (a + b))` over the pairs; the second \
             fits the waves `cos(w (a + b - c))`, and does the same with the neurons, whose part is then sent through `W_out W_U` \
             without biases.",
        )
        .text(format!(
            "With neurons restricted to functions of `a + b` at the key frequencies the loss is {}. The published figure is that of a \
             projection on rounding errors as well (the step on all neurons says why).",
            number(h.restricted_keys)
        ))
        .table(table)
    }

    /// What goes past the MLP.
    pub(super) fn past_the_neurons(&self) -> Step {
        /// What may go past it, of the logits' norm.
        const LITTLE: f64 = 0.25;
        let r = &self.replaced;
        Step::new(
            "past",
            "Past the neurons",
            "What reaches the logits past the MLP hardly matters.",
            Conclusion::of(
                r.skip_norm > 0.0 && r.skip_norm <= LITTLE,
                format!(
                    "it has {} of the logits' norm, expected at most {}; the loss without it is {}",
                    percent(r.skip_norm),
                    percent(LITTLE),
                    number(r.no_skip)
                ),
            ),
        )
    }
}
