//! The model's answers, and its logits as waves.

use crate::study::modular_addition::{KEY, Known, ModularAdditionStudy, SEEDS};
use crate::study::words::{number, percent};
use crate::study::{
    Bar, BarChart, Chart, ChartAxis, Conclusion, Draw, Picture, Scale, Series, Step, Table, XyPlot,
};

impl ModularAdditionStudy {
    /// How good the model is.
    pub(super) fn answered(&self) -> Step {
        /// "All", but for a pair in a thousand.
        const ALL: f64 = 0.999;
        let mut table = Table::new("Loss and accuracy", ["", "pairs", "right", "loss, in nats"]);
        let trained = self.split.order.len();
        let others = self.split.trained.len() - trained;
        let mut row = |name: &str, pairs: usize, right: f64, loss: f64| {
            table.row([
                name.into(),
                pairs.into(),
                percent(right).into(),
                loss.into(),
            ]);
        };
        let (right, loss) = (&self.accuracy, &self.loss);
        row("trained on", trained, right.train, loss.train);
        row("not trained on", others, right.test, loss.test);
        row("all", trained + others, right.all, loss.all);
        let known = match self.split.known {
            Known::Told => "which was told".to_string(),
            Known::Found { deviations } => format!(
                "which was found: of the seeds below {SEEDS} it is the one whose pairs are answered best, by {deviations:.0} standard errors"
            ),
            Known::Assumed => format!(
                "the published one: of the seeds below {SEEDS} none has pairs that are answered better than the others by more than \
                 chance, so that nothing tells which pairs the model was trained on"
            ),
        };
        let mean = crate::metric::mean(&self.shown.right);
        let around: Vec<f64> = self.shown.right.iter().map(|x| x - mean).collect();
        Step::new(
            "answers",
            "What the model can do",
            "A model that was trained on 30% of all pairs adds the others as well.",
            Conclusion::of(
                self.accuracy.test >= ALL,
                format!(
                    "{} of the pairs that it was not trained on, expected at least {}",
                    percent(self.accuracy.test),
                    percent(ALL)
                ),
            ),
        )
        .text(format!(
            "The input is `a`, `b` and `=`; the answer is read at `=`. The pairs trained on are the first 30% of a permutation, as \
             `torch.manual_seed({}); torch.randperm({})` draws it, {known}.",
            self.split.seed,
            trained + others
        ))
        .table(table)
        .picture(
            Picture::new(
                "right-logits",
                "The right answer's logit, over all pairs",
                Chart::HeatMaps {
                    scale: Scale::Diverging,
                    maps: vec![self.over_pairs("", &around)],
                },
            )
            .caption(format!("Less its mean, {}. Stripes along which `a - b` stays the same would be those of a model that adds as a pizza does.", number(mean))),
        )
    }

    /// Logits as waves.
    pub(super) fn in_waves(&self) -> Step {
        /// What the key waves have to hold of the logits.
        const MOST: f64 = 0.9;
        /// Key frequencies are few.
        const FEW: usize = 10;
        let l = &self.logits;
        let mut table = Table::new(
            "Key frequencies",
            [
                "frequency",
                "cosine with the logits",
                "amplitude",
                "loss of the wave alone",
                "loss without it, pairs trained on",
            ],
        );
        for (&k, amplitude) in self.keys().iter().zip(&l.amplitudes) {
            table.row([
                k.into(),
                l.similarities[k - 1].into(),
                (*amplitude).into(),
                l.restricted[k - 1].into(),
                l.excluded[k - 1].into(),
            ]);
        }
        let bars = BarChart {
            title: String::new(),
            x: ChartAxis::new("frequency", 1..=l.similarities.len()),
            y: "cosine with the logits".into(),
            bars: vec![Bar::new("cosine", &l.similarities)],
        };
        let p = self.p();
        let rest: Vec<f64> = (0..p).map(|r| r as f64 - (p / 2) as f64).collect();
        let line = |name: &str, draw, values: &[f64]| {
            // From the middle, so that a right answer is in the centre.
            let turned: Vec<f64> = (0..p).map(|i| values[(i + p - p / 2) % p]).collect();
            Series::new(name, draw, &rest, &turned)
        };
        let waves: Vec<f64> = (0..p)
            .map(|r| {
                let each = self.keys().iter().zip(&l.amplitudes);
                each.map(|(&k, a)| a * crate::study::modular_addition::logits::wave(p, k, r))
                    .sum()
            })
            .collect();
        let plot = XyPlot {
            title: String::new(),
            x: "a + b - c".into(),
            y: "logit".into(),
            series: vec![
                line("mean logit", Draw::Line, &l.by_rest),
                line("sum of the key waves", Draw::Dashed, &waves),
            ],
        };
        let holds =
            l.explained.by_pair >= MOST && self.keys().len() <= FEW && !self.keys().is_empty();
        Step::new(
            "waves",
            "Logits as waves",
            "The logits are a sum of waves `cos(w (a + b - c))` of a few key frequencies.",
            Conclusion::of(
                holds,
                format!(
                    "{} key frequencies ({}) hold {} of the logits' squared norm; expected at least {} in at most {FEW}",
                    self.keys().len(),
                    self.keys_in_words(),
                    percent(l.explained.by_pair),
                    percent(MOST)
                ),
            ),
        )
        .text(format!(
            "A frequency `k` stands for `w = 2πk/{p}`. It is key where the cosine of its wave with the logits, each pair's mean over the \
             answers removed, is above {KEY}: the rule of the second write-up. All {} waves together hold {}. With each answer's mean \
             over the pairs removed as well, the key ones hold {}; of the logits as they are, {}.",
            l.similarities.len(),
            percent(l.explained.all_waves),
            percent(l.explained.by_pair_and_answer),
            percent(l.explained.uncentred)
        ))
        .text(format!(
            "Answer by answer, what is a function of `a + b` at the key frequencies holds {} of what varies with the pair, and all \
             products of their cosines and sines of `a` and `b` hold {}. The key waves alone have a loss of {}, the same for every pair.",
            percent(l.sums.explained),
            percent(l.products.explained),
            number(l.restricted_keys.all)
        ))
        .table(table)
        .picture(Picture::new("similarities", "Logits by frequency", Chart::Bars(vec![bars])))
        .picture(Picture::new("waves", "Logits by how far an answer is from the right one", Chart::Xy(vec![plot])))
    }
}
