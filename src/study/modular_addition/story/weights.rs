//! Frequencies of the weights.

use crate::study::modular_addition::{ByFrequency, ModularAdditionStudy};
use crate::study::words::{number, percent};
use crate::study::{
    Bar, BarChart, Chart, ChartAxis, Conclusion, Draw, Picture, Series, Step, XyPlot,
};

impl ModularAdditionStudy {
    /// The embedding.
    pub(super) fn embedded(&self) -> Step {
        /// What the key frequencies have to hold of it.
        const MOST: f64 = 0.75;
        let of = &self.weights.embedding;
        let share = of.share(self.keys());
        let order = of.in_order();
        let next = order.iter().find(|k| !self.keys().contains(k));
        let next = next.map_or(String::new(), |&k| {
            format!(" The next, {k}, has {}.", percent(of.shares[k]))
        });
        let step = Step::new(
            "embedding",
            "Residues as angles",
            "The embedding turns a residue into cosines and sines of a few frequencies: the key ones hold most of it.",
            Conclusion::of(
                share >= MOST,
                format!(
                    "the key frequencies ({}) hold {} of the squared norm of `W_E`, expected at least {}",
                    self.keys_in_words(),
                    percent(share),
                    percent(MOST)
                ),
            ),
        )
        .text(format!(
            "`F` is the orthonormal basis of a constant, cosines and sines over the residues; the norms are those of the rows of \
             `F W_E`. Their Gini coefficient, 0 where all are equal and 1 where one has all, is {}.{next}",
            number(of.gini)
        ))
        .picture(Picture::new(
            "embedding-norms",
            "W_E by frequency",
            norms(of, "norm over the stream"),
        ));
        if self.keys().is_empty() {
            return step;
        }
        step.picture(
            Picture::new("circles", "Residues on circles", self.circles())
                .caption("Each residue's embedding along the two directions of a key frequency's cosine and sine; the line goes through them by their angle `w x`."),
        )
    }

    /// From the neurons to the logits.
    pub(super) fn unembedded(&self) -> Step {
        /// What the key frequencies have to hold of it.
        const MOST: f64 = 0.95;
        let of = &self.weights.neurons_to_logits;
        let share = of.share(self.keys());
        let rank = 2 * self.keys().len();
        Step::new(
            "unembedding",
            "From neurons to waves",
            "What neurons write into the logits, `W_out W_U`, is waves of the key frequencies.",
            Conclusion::of(
                share >= MOST,
                format!(
                    "the key frequencies hold {} of the squared norm of `W_out W_U`, expected at least {}; no {rank} dimensions hold \
                     more than {}",
                    percent(share),
                    percent(MOST),
                    percent(self.weights.best_rank(rank))
                ),
            ),
        )
        .text(format!(
            "Along the answers, {} of the norm is left beside them. With `W_out W_U` at the key frequencies alone the loss is {}, and \
             {} without what goes past the MLP.",
            percent((1.0 - share).max(0.0).sqrt()),
            number(self.replaced.keys_alone),
            number(self.replaced.keys_alone_no_skip)
        ))
        .picture(Picture::new(
            "unembedding-norms",
            "W_out W_U by frequency",
            norms(of, "norm over the neurons"),
        ))
    }

    /// The embeddings in the plane of each key frequency's two directions.
    fn circles(&self) -> Chart {
        let p = self.p();
        let transform = &self.weights.embedding.transform;
        let basis = crate::frequency::Fourier::new(p);
        let plot = |&k: &usize| {
            let rows = basis.rows(k);
            // Along a direction, all rows of the transform: the residues come back from them.
            let along = |row: usize| -> Vec<f64> {
                let direction = transform.slice(&[row]);
                let norm = direction.iter().map(|x| x * x).sum::<f64>().sqrt();
                let inner: Vec<f64> = (0..p)
                    .map(|r| {
                        let both = transform.slice(&[r]).iter().zip(direction);
                        both.map(|(x, d)| x * d).sum::<f64>() / norm
                    })
                    .collect();
                (0..p)
                    .map(|x| (0..p).map(|r| basis.basis()[[r, x]] * inner[r]).sum())
                    .collect()
            };
            let (x, y) = (along(rows.start), along(rows.end - 1));
            // Around the circle, and back to where it began.
            let mut order: Vec<usize> = (0..p).collect();
            order.sort_by_key(|x| k * x % p);
            order.push(order[0]);
            let around = |v: &[f64]| order.iter().map(|&x| v[x]).collect::<Vec<f64>>();
            XyPlot {
                title: format!("frequency {k}"),
                x: "along the cosine's direction".into(),
                y: "along the sine's".into(),
                series: vec![
                    Series::new("by their angle", Draw::Line, &around(&x), &around(&y)),
                    Series::new("residues", Draw::Points, &x, &y).labels(0..p),
                ],
            }
        };
        Chart::Xy(self.keys().iter().map(plot).collect())
    }
}

/// Bars of cosines and of sines.
fn norms(of: &ByFrequency, y: &str) -> Chart {
    let largest = of.norms.len() - 1;
    let rows = &of.row_norms;
    let cosines: Vec<f64> = (0..=largest)
        .map(|k| rows[(2 * k).saturating_sub(1)])
        .collect();
    // The constant has no sine, nor has half the modulus.
    let sines: Vec<f64> = (0..=largest)
        .map(|k| {
            if k == 0 {
                0.0
            } else {
                rows.get(2 * k).copied().unwrap_or(0.0)
            }
        })
        .collect();
    Chart::Bars(vec![BarChart {
        title: String::new(),
        x: ChartAxis::new("frequency", 0..=largest),
        y: y.into(),
        bars: vec![Bar::new("cosine", &cosines), Bar::new("sine", &sines)],
    }])
}
