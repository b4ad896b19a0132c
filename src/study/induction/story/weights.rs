//! What the weights alone say.

use crate::metric::mean;
use crate::study::induction::InductionStudy;
use crate::study::words::{number, percent};
use crate::study::{Chart, ChartAxis, Conclusion, HeatMap, Number, Picture, Scale, Step, Table};

impl InductionStudy {
    /// Whom induction heads read.
    pub(super) fn composing(&self) -> Step {
        let (id, title) = ("composition", "Composition by keys");
        let claim = "By their keys induction heads read previous-token heads more than other heads before them.";
        let Some(c) = &self.composed else {
            let because = "there is no induction head behind a previous-token head";
            return Step::new(id, title, claim, Conclusion::not_applicable(because));
        };
        /// Clearly above: than three quarters of the others, where chance is half.
        const ABOVE: f64 = 0.75;
        let by_keys = c.by[1];
        let mut table = Table::new(
            "Composition scores with induction heads",
            [
                "by",
                "of previous-token heads",
                "of other earlier heads",
                "above so many of the others",
            ],
        );
        for (name, reads) in ["queries", "keys", "values"].iter().zip(&c.by) {
            table.row([
                (*name).into(),
                reads.previous.into(),
                reads.others.into(),
                percent(reads.above).into(),
            ]);
        }
        let keys = c.keys.iter().flatten();
        let keys: Vec<Number> = keys
            .map(|x| x.map_or(Number::MISSING, Number::from))
            .collect();
        let [previous, later] = &c.heads;
        let map = HeatMap::new(
            "",
            ChartAxis::new("previous-token head", previous),
            ChartAxis::new("induction head", later),
            &keys,
        );
        Step::new(
            id,
            title,
            claim,
            Conclusion::of(
                by_keys.above >= ABOVE,
                format!(
                    "a previous-token head's score is above that of {} of the others on average, expected {}; {} against {}",
                    percent(by_keys.above),
                    percent(ABOVE),
                    number(by_keys.previous),
                    number(by_keys.others)
                ),
            ),
        )
        .text(format!(
            "The score of an earlier head's `W_OV` with a later one's `W_QKᵀ`, from the weights alone. Where positions are rotary `W_QK` \
             is that of a key {} positions behind its query, as far as an induction head looks.",
            c.distance
        ))
        .table(table)
        .picture(Picture::new(
            "composition-keys",
            "Composition by keys",
            Chart::HeatMaps {
                scale: Scale::Sequential,
                maps: vec![map],
            },
        ))
    }

    /// Whether a token is found by the one before it, from the weights alone.
    pub(super) fn matched(&self) -> Step {
        let (id, title) = ("matching", "Finding a token by the weights alone");
        let claim = "Through a previous-token head, an induction head's query finds its own token: it scores highest.";
        let Some(m) = &self.matching else {
            let because = "there is no induction head behind a previous-token head, or a norm hides what tokens write";
            return Step::new(id, title, claim, Conclusion::not_applicable(because));
        };
        /// For most tokens.
        const MOST: f64 = 0.5;
        let best = m.found.iter().map(|found| found.share).fold(0.0, f64::max);
        let mut table = Table::new(
            "Tokens that are found",
            ["induction head", "through", "of the tokens"],
        );
        for found in &m.found {
            let cells = [&found.induction, &found.previous].map(|head| head.as_str().into());
            table.row(cells.into_iter().chain([percent(found.share).into()]));
        }
        Step::new(
            id,
            title,
            claim,
            Conclusion::of(
                best > MOST,
                format!("the best pair of heads finds {} of {} tokens, by chance {}", percent(best), m.tokens, percent(1.0 / m.tokens as f64)),
            ),
        )
        .text(
            "A query is made of a token's embedding alone, a key of what a previous-token head would write of a token's embedding: \
             `W_E W_QK` with `(W_E W_OV)ᵀ`, norms but for their scales. Neurons and other heads are left out. Of each induction head \
             the previous-token head with which it finds most is listed.",
        )
        .table(table)
    }

    /// Whether induction heads copy.
    pub(super) fn copied(&self) -> Step {
        let (id, title) = ("copying", "Copying");
        let claim = "Induction heads copy what they attend to: the eigenvalues of `W_E W_OV W_U` are positive.";
        let own = self.copying.as_ref().filter(|_| !self.induction.is_empty());
        let Some(scores) = own else {
            let because = match self.copying.is_some() {
                true => "there are no induction heads",
                false => "its logits are not of its tokens",
            };
            return Step::new(id, title, claim, Conclusion::not_applicable(because));
        };
        /// Mostly positive: halfway from as many on either side to all.
        const MOSTLY: f64 = 0.5;
        let own: Vec<f64> = self
            .induction
            .iter()
            .map(|&h| scores[self.index(h)])
            .collect();
        let (own, all) = (mean(&own), mean(scores));
        Step::new(
            id,
            title,
            claim,
            Conclusion::of(
                own >= MOSTLY && own > all,
                format!("their mean score is {}, that of all heads {}", number(own), number(all)),
            ),
        )
        .text(
            "The copying score is the sum of the eigenvalues' real parts over the sum of their moduli: 1 where all are positive, -1 \
             where all are negative. It is of the weights as they are, norms not folded.",
        )
        .picture(
            Picture::new(
                "copying",
                "The copying score of every head",
                Chart::HeatMaps {
                    scale: Scale::Diverging,
                    maps: vec![self.map(|i| scores[i], &self.induction)],
                },
            )
            .caption("Induction heads have a frame."),
        )
    }
}
