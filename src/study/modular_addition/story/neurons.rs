//! Neurons, one by one and together.

use crate::study::modular_addition::{ModularAdditionStudy, OWN};
use crate::study::words::{number, percent};
use crate::study::{
    Bar, BarChart, Chart, ChartAxis, Class, Conclusion, HistogramChart, Number, Picture, Scale,
    Step, Table,
};

impl ModularAdditionStudy {
    /// Neurons one by one.
    pub(super) fn one_by_one(&self) -> Step {
        /// "Most", of the neurons that do anything.
        const MOST: f64 = 0.75;
        let n = &self.neurons;
        let live = n.explained.len() - n.dead;
        let share = if live > 0 {
            n.over() as f64 / live as f64
        } else {
            0.0
        };
        let (all, over) = (n.counts(0.0), n.counts(OWN));
        let mut table = Table::new(
            "Neurons by the frequency that explains most of them",
            [
                "frequency",
                "key",
                "neurons",
                "of which it explains more than 85%",
            ],
        );
        for (k, count) in &all {
            let key = if self.keys().contains(k) { "yes" } else { "no" };
            let well = over.get(k).copied().unwrap_or_default();
            table.row([(*k).into(), key.into(), (*count).into(), well.into()]);
        }
        const BINS: usize = 20;
        let mut heights = vec![0usize; BINS];
        for share in &n.explained {
            heights[((share * BINS as f64) as usize).min(BINS - 1)] += 1;
        }
        let edges = (0..=BINS).map(|i| Number::from(i as f64 / BINS as f64));
        let histogram = HistogramChart {
            title: String::new(),
            x: "share that one frequency explains".into(),
            y: "neurons".into(),
            edges: edges.collect(),
            classes: vec![Class::new("neurons", &heights)],
        };
        let maps =
            self.shown.neurons.iter().map(|(k, n, values)| {
                self.over_pairs(&format!("neuron {n}: frequency {k}"), values)
            });
        let coded = &n.but_the_largest;
        let step = Step::new(
            "neurons",
            "Neurons, one by one",
            "Nearly every neuron is made of the cosines and sines of one frequency, of `a`, of `b`, and of their products.",
            Conclusion::of(
                share >= MOST,
                format!(
                    "{} of {live} neurons that vary are explained to more than {} by one frequency ({}), expected at least {}",
                    n.over(),
                    percent(OWN),
                    percent(share),
                    percent(MOST)
                ),
            ),
        )
        .text(format!(
            "Of a frequency these are eight terms: `cos`, `sin` of `a`, of `b`, and four products. On average they explain {} of a \
             neuron ({} where each counts by its variation). With each neuron that they explain well replaced by them and its mean, \
             the loss over all pairs is {}.",
            percent(n.mean),
            percent(n.weighted),
            number(self.replaced.fitted_neurons)
        ))
        .text(format!(
            "The published code never tries the largest frequency, {}; it would find {} neurons explained well, and take the key \
             frequencies to be {:?}.",
            self.p() / 2,
            coded.over,
            coded.keys
        ))
        .table(table)
        .picture(Picture::new("neuron-shares", "How well one frequency explains a neuron", Chart::Histograms(vec![histogram])));
        if self.shown.neurons.is_empty() {
            return step;
        }
        // Functions other than ReLU have negative values.
        let all = || self.shown.neurons.iter().flat_map(|(_, _, values)| values);
        let scale = match all().any(|x| *x < 0.0) {
            true => Scale::Diverging,
            false => Scale::Sequential,
        };
        let maps = Chart::HeatMaps {
            scale,
            maps: maps.collect(),
        };
        step.picture(
            Picture::new("neurons", "Neurons over all pairs", maps)
                .caption("Of each key frequency the neuron that varies most."),
        )
    }

    /// Neurons together.
    pub(super) fn together(&self) -> Step {
        /// What the key frequencies have to hold of the neurons' variation.
        const MOST: f64 = 0.85;
        let h = &self.hidden;
        let mut table = Table::new(
            "Shares of the neurons' variation",
            [
                "frequency",
                "functions of a",
                "functions of b",
                "functions of a + b",
                "together",
            ],
        );
        for &k in self.keys() {
            table.row([
                k.into(),
                h.of_a[k - 1].into(),
                h.of_b[k - 1].into(),
                h.of_sum[k - 1].into(),
                h.total(k).into(),
            ]);
        }
        let bars = BarChart {
            title: String::new(),
            x: ChartAxis::new("frequency", 1..=h.of_a.len()),
            y: "share of the neurons' variation".into(),
            bars: vec![
                Bar::new("of a", &h.of_a),
                Bar::new("of b", &h.of_b),
                Bar::new("of a + b", &h.of_sum),
            ],
        };
        let explained = self.hidden_explained();
        Step::new(
            "hidden",
            "Neurons, together",
            "The neurons vary with `a`, with `b` and with `a + b` at the key frequencies: the sum is made there.",
            Conclusion::of(
                explained >= MOST && self.hidden_sum_explained() > 0.0,
                format!(
                    "the key frequencies of `a`, `b` and `a + b` hold {} of the neurons' variation, {} of it of the sum; expected at least {}",
                    percent(explained),
                    percent(self.hidden_sum_explained()),
                    percent(MOST)
                ),
            ),
        )
        .text(format!(
            "With all products of the key frequencies' cosines and sines it is {}.",
            percent(h.in_key_blocks)
        ))
        .text(
            "The published shares and losses of neurons are larger. A frequency's functions of `a` have two dimensions; the published \
             code spans them by four vectors, and makes these orthonormal in single precision. Two of the results are the directions \
             of rounding errors, and what the neurons have along them is counted as well. The spans here are exact.",
        )
        .table(table)
        .picture(Picture::new("hidden-shares", "Neurons by frequency", Chart::Bars(vec![bars])))
    }

    /// What the neurons write.
    pub(super) fn written(&self) -> Step {
        /// How well a wave has to tell it.
        const WELL: f64 = 0.9;
        let all = || self.hidden.written.iter().flatten().map(|w| w.explained);
        let least = all().fold(f64::INFINITY, f64::min);
        let mut table = Table::new(
            "Neurons along what writes a wave",
            [
                "frequency",
                "cosine: share explained",
                "coefficient",
                "sine: share explained",
                "coefficient",
            ],
        );
        for (&k, [c, s]) in self.keys().iter().zip(&self.hidden.written) {
            table.row([
                k.into(),
                c.explained.into(),
                c.coefficient.into(),
                s.explained.into(),
                s.coefficient.into(),
            ]);
        }
        let said = match self.keys().is_empty() {
            true => "there is no key frequency".into(),
            false => format!(
                "at least {} of each is `cos(w (a + b))` or `sin(w (a + b))`, expected {}",
                percent(least),
                percent(WELL)
            ),
        };
        Step::new(
            "written",
            "What the neurons write",
            "Along the direction that writes `cos(w c)` into the logits, the neurons are `cos(w (a + b))`; along that of \
             `sin(w c)`, `sin(w (a + b))`.",
            Conclusion::of(!self.keys().is_empty() && least >= WELL, said),
        )
        .text("So that the logits are `cos(w (a + b)) cos(w c) + sin(w (a + b)) sin(w c)`, which is `cos(w (a + b - c))`.")
        .table(table)
    }
}
