//! What the elevation head reads: components, MLPs and neurons at position 1.

use super::pictures::{bars, number};
use crate::metric::mean;
use crate::study::brackets::{BracketsStudy, NeuronSide, Neurons, StringKind};
use crate::study::{Cell, Chart, ChartAxis, Conclusion, Frame, Number, Picture, Step, Table, View};

impl BracketsStudy {
    /// The components before the elevation head.
    pub(super) fn before_the_head(&self) -> Step {
        let head = self.roles.elevation;
        let mut table = Table::new(
            "Along what the head reads, less the mean over balanced strings",
            [
                "component",
                "unbalanced",
                "wrong total alone",
                "negative alone",
                "both",
            ],
        );
        for (a, by_kind) in self.components_before.iter().zip(self.before_by_kind()) {
            let [total, negative, both] = by_kind;
            table.row([
                a.component.clone().into(),
                a.difference.into(),
                total.into(),
                negative.into(),
                Cell::from(both),
            ]);
        }
        let most = self.components_before.iter();
        let most = most
            .max_by(|a, b| a.difference.total_cmp(&b.difference))
            .expect("there are components");
        let starts = self.data.starting_open();
        let mlps = self.neurons.iter().map(|n| {
            let name = format!("mlp {}", n.layer);
            let along = self.components_before.iter().find(|a| a.component == name);
            let values = &along.expect("every MLP is a component").values;
            let share = |s: usize| self.data.open_share[s];
            let axes = ["share of opening brackets", "along what the head reads"];
            let mut plot = self.scatter(&starts, axes, |s| [share(s), values[s]]);
            plot.title = name;
            plot
        });
        let step = Step::new(
            "before",
            "What the elevation head reads at position 1",
            "What the elevation head finds at position 1 was written by MLPs above all: they can make a step of a share.",
            Conclusion::of(
                most.component.starts_with("mlp"),
                format!(
                    "the largest difference is that of {}: {}",
                    most.component,
                    number(most.difference)
                ),
            ),
        )
        .text(format!(
            "The unbalanced direction goes back once more, through `W_OV[{head}]` and the norm before the last layer's heads, fitted \
             at position 1 (r² {:.4}).",
            self.directions.before_heads.r2
        ))
        .table(table)
        .picture(
            Picture::new("mlps", "MLPs and the share of opening brackets", Chart::Xy(mlps.collect()))
                .caption("What is low at ½ and high on both sides says that the total is wrong."),
        );
        let chart = self.histograms(&self.components_before);
        // Where every component is the same for all strings, as in a model of zeros.
        if matches!(&chart, Chart::Histograms(all) if all.is_empty()) {
            return step;
        }
        let title = format!("The components before head {head}, at position 1");
        step.picture(Picture::new("before", &title, chart).caption(
            "Along the direction that the head turns into \"unbalanced\", each less its mean over balanced strings.",
        ))
    }

    /// Each component before the elevation head, by how the strings fail that start with an opening bracket: a wrong
    /// total alone, a negative count alone, both.
    pub(super) fn before_by_kind(&self) -> Vec<[f64; 3]> {
        let kinds = [
            StringKind::Elevation,
            StringKind::Negative,
            StringKind::Both,
        ]
        .map(|kind| self.data.of_kind(kind));
        let mean_of =
            |values: &[f64], of: &[usize]| mean(&of.iter().map(|&s| values[s]).collect::<Vec<_>>());
        let each = self.components_before.iter();
        each.map(|a| kinds.each_ref().map(|of| mean_of(&a.values, of)))
            .collect()
    }

    /// The MLPs by their neurons.
    pub(super) fn by_neuron(&self) -> Step {
        let mut table = Table::new(
            "Neurons by where they say that the total is wrong",
            [
                "layer",
                "where",
                "how many",
                "what they add there",
                "the strongest first",
            ],
        );
        for neurons in &self.neurons {
            for side in NeuronSide::ALL {
                let on = neurons.on(side);
                let names = on.iter().map(|i| format!("{}.{i}", neurons.layer));
                table.row([
                    neurons.layer.into(),
                    side.to_string().into(),
                    on.len().into(),
                    on.iter().map(|&i| neurons.size(i)).sum::<f64>().into(),
                    Cell::from(names.collect::<Vec<_>>().join(", ")),
                ]);
            }
        }
        let last = self.neurons.last().expect("checked: there are layers");
        let three = [NeuronSide::More, NeuronSide::Fewer, NeuronSide::Both];
        let counts = three.map(|side| last.on(side).len());
        let opposite: usize = self
            .neurons
            .iter()
            .map(|n| n.on(NeuronSide::Opposite).len())
            .sum();
        let sum = |side: &NeuronSide| last.on(*side).iter().map(|&i| last.size(i)).sum::<f64>();
        let [said, denied]: [f64; 2] = [three.iter().map(sum).sum(), sum(&NeuronSide::Opposite)];
        let off = self.neurons.iter().fold(0f64, |m, n| m.max(n.off));
        let mut step = Step::new(
            "neurons",
            "Neurons as keys and values",
            "Before the last layer some neurons fire where more than half of the brackets open, some where fewer do, and some on either side of one half.",
            Conclusion::of(
                // Neurons without a task say the opposite as often and as loudly.
                counts.iter().all(|&n| n > 0) && said > denied,
                format!(
                    "of mlp {}: {} where more open, {} where fewer do, {} on both sides, which add {} in all, {} is taken \
                     away; {opposite} of all MLPs' neurons say the opposite",
                    last.layer,
                    counts[0],
                    counts[1],
                    counts[2],
                    Number::from(said),
                    Number::from(denied)
                ),
            ),
        )
        .text(format!(
            "A neuron's key says when it fires, its value what it then writes. What it adds along the direction is its activation times \
             one number, so all neurons of all strings are looked at without making one output vector. With the bias they add up to \
             what the MLP writes, to {off:.1e}."
        ))
        .text(
            "A neuron is counted where it adds, on average over strings with that share, at least a twentieth of what the layer's \
             strongest neuron adds; to both sides if the smaller is at least a quarter of the larger, and to the opposite if it takes \
             away more than it adds.",
        )
        .table(table);
        for neurons in &self.neurons {
            let places = ChartAxis::new("neuron", 0..neurons.difference.len());
            let chart = bars(
                places,
                "unbalanced less balanced",
                "neuron",
                &neurons.difference,
            );
            step = step
                .picture(Picture::new(
                    &format!("neurons.{}", neurons.layer),
                    &format!("What each neuron of mlp {} adds", neurons.layer),
                    Chart::Bars(vec![chart]),
                ))
                .picture(self.slider(neurons));
        }
        step
    }

    /// Which layers have which neurons.
    pub(super) fn neurons_by_layer(&self) -> Step {
        let [first, last] = [0, self.neurons.len() - 1].map(|l| &self.neurons[l]);
        let counts = [NeuronSide::More, NeuronSide::Fewer, NeuronSide::Both]
            .map(|side| [first.on(side).len(), last.on(side).len()]);
        let [more, fewer, both] = counts;
        let sums = |side: NeuronSide| {
            let of = |n: &Neurons| number(n.on(side).iter().map(|&i| n.size(i)).sum());
            format!("{} and {}", of(first), of(last))
        };
        Step::new(
            "neurons.layers",
            "Which layer has which neurons",
            "Neurons for more than half are commoner in the last MLP before the heads than in the first, those for fewer than half are rarer there, and those for both sides are commoner: one neuron after a norm can hardly be of both.",
            Conclusion::of(
                more[1] > more[0] && fewer[1] < fewer[0] && both[1] > both[0],
                format!(
                    "in mlp {} and mlp {}: {} and {} for more than half, {} and {} for fewer, {} and {} for both",
                    first.layer, last.layer, more[0], more[1], fewer[0], fewer[1], both[0], both[1]
                ),
            ),
        )
        .text(format!(
            "By what they add rather than by their number: for more than half {}, for fewer {}, for both {}.",
            sums(NeuronSide::More),
            sums(NeuronSide::Fewer),
            sums(NeuronSide::Both)
        ))
    }

    /// The neurons that matter one by one against the share of opening brackets.
    fn slider(&self, neurons: &Neurons) -> Picture {
        /// Neurons with a place on the slider.
        const NEURONS: usize = 16;
        /// Strings of each kind in each: enough to see the shape.
        const STRINGS: usize = 60;
        let mut order: Vec<usize> = (0..neurons.difference.len()).collect();
        order.sort_by(|&i, &j| {
            neurons.difference[j]
                .abs()
                .total_cmp(&neurons.difference[i].abs())
        });
        order.truncate(NEURONS);
        let thinned: Vec<usize> = StringKind::ALL
            .into_iter()
            .flat_map(|kind| {
                let of = self.data.of_kind(kind);
                let every = of.len().div_ceil(STRINGS).max(1);
                of.into_iter().step_by(every).collect::<Vec<_>>()
            })
            .collect();
        let frames = order.into_iter().map(|i| {
            let values = &neurons.outputs[i];
            let axes = ["share of opening brackets", "along what the head reads"];
            let plot = self.scatter(&thinned, axes, |s| [self.data.open_share[s], values[s]]);
            Frame {
                label: format!("{}.{i}", neurons.layer),
                chart: Chart::Xy(vec![plot]),
            }
        });
        let view = View::Frames {
            title: "neuron".into(),
            frames: frames.collect(),
        };
        Picture::new(
            &format!("neurons.{}.share", neurons.layer),
            &format!(
                "Neurons of mlp {} and the share of opening brackets",
                neurons.layer
            ),
            view,
        )
        .caption("The strongest first.")
    }
}
