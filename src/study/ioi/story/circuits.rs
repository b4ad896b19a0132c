//! How little of the model does it.

use super::maps;
use crate::edges::Sender;
use crate::intervene::Receiver;
use crate::names::Head;
use crate::study::ioi::{IoiStudy, Role, STEPS, TARGET};
use crate::study::words::{number, percent};
use crate::study::{
    Chart, Conclusion, Diagram, Draw, HeatMap, Picture, Scale, Series, Step, Table, XyPlot,
};
use std::collections::BTreeMap;

/// The share of GPT-2 small's heads that are in its published circuit: 26 of 144.
const PUBLISHED: f64 = 26.0 / 144.0;

impl IoiStudy {
    /// Circuits of edges.
    pub(super) fn few_edges(&self) -> Step {
        let c = &self.circuits;
        let all = self.heads.len();
        let verdict = match &c.smallest {
            None => Conclusion::of(
                false,
                format!("no circuit that was tried restores {}", percent(TARGET)),
            ),
            Some((size, _)) => Conclusion::of(
                size.heads as f64 <= PUBLISHED * all as f64,
                format!(
                    "{} of {} edges restore {}, with {} of {all} heads ({})",
                    size.edges,
                    c.graph.len(),
                    percent(size.faithfulness),
                    size.heads,
                    percent(size.heads as f64 / all as f64)
                ),
            ),
        };
        let edges: Vec<f64> = c
            .sizes
            .iter()
            .map(|s| (s.edges as f64).max(1.0).log10())
            .collect();
        let restored: Vec<f64> = c.sizes.iter().map(|s| s.faithfulness).collect();
        let said: Vec<String> = c
            .sizes
            .iter()
            .map(|s| format!("{} edges, {} heads", s.edges, s.heads))
            .collect();
        let plot = XyPlot {
            title: String::new(),
            x: "edges, as a power of ten".into(),
            y: "restored of the logit difference".into(),
            series: vec![
                Series::new("circuits", Draw::Line, &edges, &restored),
                Series::new("each", Draw::Points, &edges, &restored).labels(said),
                Series::new(
                    "GPT-2's circuit",
                    Draw::Dashed,
                    &[edges[0], edges[edges.len() - 1]],
                    &[TARGET, TARGET],
                ),
            ],
        };
        let mut sizes = Table::new(
            "Circuits of the edges that come first",
            ["edges", "heads", "layers' neurons", "restored"],
        );
        for s in &c.sizes {
            sizes.row([
                s.edges.into(),
                s.heads.into(),
                s.mlps.into(),
                s.faithfulness.into(),
            ]);
        }
        /// How many edges are listed.
        const LISTED: usize = 20;
        let mut largest = Table::new(
            "The edges that come first",
            ["edge", "effect, about", "as a share"],
        );
        for i in c.largest(LISTED) {
            let x = c.scores[i];
            largest.row([
                c.graph.edge(i).to_string().into(),
                x.into(),
                self.share(x).into(),
            ]);
        }
        let rest = c.completeness.map_or(String::new(), |rest| {
            format!(
                " All edges but the smallest circuit's restore {}.",
                percent(rest)
            )
        });
        Step::new(
            "circuit",
            "A circuit of edges",
            "A small part of the model does it: 18% of the heads restore 87% of the logit difference.",
            verdict,
        )
        .text(format!(
            "Edges are put in order by what derivatives at {STEPS} points say of each (EAP-IG by inputs), whatever the sign. In a circuit's \
             run every other edge carries what its sender writes in the corrupted prompt's run. The area under what circuits restore, \
             over shares of the edges from 0.1% to all (CPR), is {}; the area between it and 1 (CMD) {}.{rest}",
            number(c.cpr),
            number(c.cmd)
        ))
        .text(format!(
            "Beside {} edges that were patched exactly, into the logits and the queries of name movers, the approximation has a \
             correlation of {}. There is no bound on what an edge does that was not patched.",
            self.exact.edges,
            number(self.exact.correlation)
        ))
        .table(sizes)
        .table(largest)
        .picture(Picture::new("faithfulness", "What circuits restore, by their size", Chart::Xy(vec![plot])))
        .picture(
            Picture::new(
                "in-circuit",
                "What each head's edges add up to",
                maps(Scale::Sequential, vec![self.written_edges()]),
            )
            .caption(
                "The sizes of the effects of all edges out of a head, by derivatives, as a share of the logit difference. Heads of the \
                 smallest circuit that restores 87% have a frame.",
            ),
        )
    }

    /// Heads with roles, and all neurons.
    pub(super) fn by_their_roles(&self) -> Step {
        let r = &self.by_roles;
        let mut table = Table::new(
            "Without the heads of one role, all others there",
            ["role", "heads", "restored"],
        );
        for (role, restored) in &r.without {
            table.row([
                role.name().into(),
                self.roles.of(*role).len().into(),
                (*restored).into(),
            ]);
        }
        let step = Step::new(
            "roles",
            "The roles together",
            "The heads with these roles, with the neurons, restore 87% of the logit difference.",
            Conclusion::of(
                r.faithfulness >= TARGET,
                format!(
                    "{} of {} heads have a role; with all neurons they restore {}",
                    r.heads,
                    self.heads.len(),
                    percent(r.faithfulness)
                ),
            ),
        )
        .text(
            "Every head without a role writes what it writes in the corrupted prompt's run; neurons are computed as they are. The \
             published circuit is tested so, with means over corrupted prompts in the place of one corrupted prompt.",
        );
        let step = match table.rows.is_empty() {
            true => step,
            false => step.table(table),
        };
        match self.diagram() {
            None => step,
            Some(diagram) => step.picture(
                Picture::new("diagram", "The roles, and what passes between them", diagram).caption(
                    "An arrow is the sum of the effects of all edges between two roles' heads, by derivatives, as a share of the logit \
                     difference; those of at least 2% are drawn.",
                ),
            ),
        }
    }

    fn written_edges(&self) -> HeatMap {
        let mut sums: BTreeMap<Head, f64> = BTreeMap::new();
        for (edge, score) in self.circuits.graph.edges().zip(&self.circuits.scores) {
            if let Sender::Head(head) = edge.from {
                *sums.entry(head).or_default() += score.abs();
            }
        }
        let inside: Vec<Head> = self
            .heads
            .iter()
            .copied()
            .filter(|&h| self.in_circuit(h))
            .collect();
        let of = |i: usize| self.share(sums.get(&self.heads[i]).copied().unwrap_or_default());
        self.map("", of, &inside)
    }

    /// Roles as boxes, and what edges between them add up to.
    fn diagram(&self) -> Option<Diagram> {
        /// The least share that is drawn.
        const DRAWN: f64 = 0.02;
        // A head with several roles stands for the first of them.
        let role = |head: Head| self.roles.of_head(head).first().copied();
        let mut sums: BTreeMap<(usize, usize), f64> = BTreeMap::new();
        // Boxes: the roles, the logits.
        let boxes = [
            (Role::PreviousToken.name(), 0, 0),
            (Role::DuplicateToken.name(), 1, 1),
            (Role::Induction.name(), 1, 0),
            (Role::SInhibition.name(), 2, 0),
            (Role::NameMover.name(), 3, 0),
            (Role::NegativeNameMover.name(), 3, 1),
            ("logits", 4, 0),
        ];
        let place = |role: Role| {
            boxes
                .iter()
                .position(|b| b.0 == role.name())
                .expect("a box each")
        };
        for (edge, score) in self.circuits.graph.edges().zip(&self.circuits.scores) {
            let from = match edge.from {
                Sender::Head(head) => role(head).map(place),
                Sender::Input | Sender::Mlp(_) | Sender::Neuron { .. } => None,
            };
            let to = match edge.to {
                Receiver::Q(head) | Receiver::K(head) | Receiver::V(head) => role(head).map(place),
                Receiver::Logits => Some(boxes.len() - 1),
                Receiver::Mlp(_) => None,
            };
            if let (Some(from), Some(to)) = (from, to) {
                *sums.entry((from, to)).or_default() += self.share(*score);
            }
        }
        let mut diagram = Diagram::default();
        let present = |name: &str| {
            let own = Role::ALL.into_iter().find(|role| role.name() == name);
            own.is_none_or(|role| !self.roles.of(role).is_empty())
        };
        let numbers = boxes.map(|(name, layer, column)| {
            let own = Role::ALL.into_iter().find(|role| role.name() == name);
            let words = own.map_or(String::new(), |role| super::listed(&self.roles.of(role)));
            present(name).then(|| diagram.node(name, &words, [layer, column]))
        });
        for ((from, to), sum) in sums {
            let down = boxes[from].1 < boxes[to].1;
            if let (Some(a), Some(b), true) =
                (numbers[from], numbers[to], down && sum.abs() >= DRAWN)
            {
                diagram.edge(a, b, percent_with_sign(sum));
            }
        }
        (!self.roles.all().is_empty()).then_some(diagram)
    }
}

fn percent_with_sign(share: f64) -> String {
    format!("{:+.0}%", 100.0 * share)
}
