//! What the MLP does with the plane.

use super::gate::components;
use super::{GATE, plot};
use crate::study::two_integer::TwoIntegerStudy;
use crate::study::words::percent;
use crate::study::{Chart, Conclusion, Draw, Frame, Picture, Series, Step, View, XyPlot};

/// A slider's frames are many: of the pairs shown, every third.
pub(super) const EVERY: usize = 3;

impl TwoIntegerStudy {
    /// The MLP, bit by bit and neuron by neuron.
    pub(super) fn by_neuron(&self) -> Step {
        /// What one threshold has to tell after the MLP.
        const ONE: f64 = 0.97;
        let last = self.neurons[0].agrees.len() - 1;
        let enough = self.neurons.each_ref().map(|n| {
            let found = n.agrees.iter().position(|&a| a >= GATE);
            found.unwrap_or(last)
        });
        let added: Vec<f64> = (0..=last).map(|k| k as f64).collect();
        let curves = self.both().into_iter().zip(&self.neurons);
        let curves = curves.map(|((name, _), n)| Series::new(name, Draw::Line, &added, &n.agrees));
        let curve = XyPlot {
            title: String::new(),
            x: "neurons added".into(),
            y: "share of its answers told".into(),
            series: curves.collect(),
        };
        let line = self
            .both()
            .map(|(_, m)| [m.plane.one_line, m.after.one_line]);
        Step::new(
            "neurons",
            "The MLP: scaled, and neuron by neuron",
            "The MLP makes the gate's AND: where two lines were needed before it, one threshold along one direction is \
             enough after it.",
            Conclusion::of(
                line.iter().all(|[before, after]| *after >= ONE && after > before),
                format!(
                    "one line tells {} of the answers before the MLP, a threshold along the first component {} after it ({} and \
                     {} with fixed attention); expected more, and at least {}",
                    percent(line[0][0]),
                    percent(line[0][1]),
                    percent(line[1][0]),
                    percent(line[1][1]),
                    percent(ONE)
                ),
            ),
        )
        .text(format!(
            "Neurons are added to the stream in the order of how much they vary the difference of the logits; those not yet \
             added are at their means. Of {last} neurons {} do anything, and the first {} give {} of the model's answers ({}, {} \
             and {} with fixed attention).",
            self.neurons[0].active,
            enough[0],
            percent(self.neurons[0].agrees[enough[0]]),
            self.neurons[1].active,
            enough[1],
            percent(self.neurons[1].agrees[enough[1]]),
        ))
        .picture(
            Picture::new("mlp-scaled", "What the MLP adds, from none to all", self.scaled())
                .caption("In the plane of the stream after the MLP. The shares are those of either's own answers."),
        )
        .picture(
            Picture::new("neurons", "Neurons added to the stream at =", self.added())
                .caption("In the plane of the stream after the MLP. The shares are those of either's own answers."),
        )
        .picture(Picture::new(
            "neuron-count",
            "How many neurons it takes",
            Chart::Xy(vec![curve]),
        ))
    }

    /// The MLP's output times a number.
    fn scaled(&self) -> View {
        /// Steps from none to all.
        const STEPS: usize = 10;
        let frame = |step: usize| {
            let share = step as f64 / STEPS as f64;
            let mut told = Vec::new();
            let panels = (0..2).map(|which| {
                let (_, m) = self.both()[which];
                let (points, says) = m.after.scaled(share);
                told.push(percent(crate::study::two_integer::agreement(
                    &says, &m.says,
                )));
                let inputs = self.neurons[which].inputs.iter();
                self.panel(which, &inputs.map(|&i| (i, points[i])).collect::<Vec<_>>())
            });
            let panels = panels.collect();
            Frame {
                label: format!("{}: {}", percent(share), told.join(", ")),
                chart: Chart::Xy(panels),
            }
        };
        View::Frames {
            title: "of the MLP's output".into(),
            frames: (0..=STEPS).map(frame).collect(),
        }
    }

    /// Neurons added one by one.
    fn added(&self) -> View {
        let last = self.neurons[0].agrees.len() - 1;
        let frame = |step: usize| {
            let added = self.neurons[0].steps[step].0;
            let told = self.neurons.each_ref().map(|n| percent(n.agrees[added]));
            let panels = (0..2).map(|which| {
                let n = &self.neurons[which];
                let pairs = n
                    .inputs
                    .iter()
                    .copied()
                    .zip(n.steps[step].1.iter().copied());
                self.panel(which, &pairs.collect::<Vec<_>>())
            });
            Frame {
                label: format!("{added} of {last} neurons: {}", told.join(", ")),
                chart: Chart::Xy(panels.collect()),
            }
        };
        View::Frames {
            title: "neurons added".into(),
            frames: (0..self.neurons[0].steps.len()).map(frame).collect(),
        }
    }

    /// Some inputs in the plane after the MLP, with the decision.
    fn panel(&self, which: usize, pairs: &[(usize, [f64; 2])]) -> XyPlot {
        let (name, m) = self.both()[which];
        let few = |answer: bool| -> Vec<[f64; 2]> {
            let these = pairs.iter().step_by(EVERY);
            let these = these.filter(|(i, _)| m.says[*i] == answer);
            these.map(|(_, at)| *at).collect()
        };
        // Among the points past the whole MLP, so that it stays where it is.
        let decision = &m.after.decision;
        let line = plot::line_among(&m.after.points, decision.direction, decision.threshold);
        components(
            name,
            vec![
                plot::dots("answer 0", &few(false)),
                plot::dots("answer 1", &few(true)),
                plot::dashed("decision", &line),
            ],
        )
    }
}
