//! The circuit as a diagram: of what holds on this model, with its numbers.

use super::pictures::number;
use crate::study::brackets::BracketsStudy;
use crate::study::words::percent;
use crate::study::{Conclusion, Diagram, Picture, Step, Story};

/// What may be left of what the MLPs write without the count, if it is the count that they read.
const HALF: f64 = 0.5;
/// How much of an MLP's output must come through an earlier one for the diagram to show it.
const WORTH_SHOWING: f64 = 0.1;

/// Which parts of the circuit hold.
struct Parts {
    counts: bool,
    mlps_read_it: bool,
    elevation: bool,
    elevation_reads: bool,
    helper: bool,
    negative: bool,
    negative_reads: bool,
}

impl Parts {
    /// What is missing, in words.
    fn missing(&self, study: &BracketsStudy) -> Vec<String> {
        let r = study.roles;
        [
            (
                self.counts,
                format!(
                    "head {} does not count what follows at every position",
                    r.counting
                ),
            ),
            (self.mlps_read_it, "the MLPs do not read the count".into()),
            (
                self.elevation_reads,
                format!("MLPs are not what head {} reads", r.elevation),
            ),
            (
                self.elevation,
                format!(
                    "head {} does not carry a wrong total to position 0",
                    r.elevation
                ),
            ),
            (
                self.negative_reads,
                format!("MLPs are not what head {} reads", r.negative),
            ),
            (
                self.negative,
                format!(
                    "head {} does not find where the count is negative",
                    r.negative
                ),
            ),
        ]
        .into_iter()
        .filter(|(holds, _)| !holds)
        .map(|(_, words)| words)
        .collect()
    }
}

impl BracketsStudy {
    fn parts(&self, story: &Story) -> Parts {
        let holds = |ids: &[&str]| ids.iter().all(|id| story.holds(id));
        let counts = holds(&["counting", "opposite"]);
        // A NaN is no part.
        let left = self.routes.left_without_count();
        Parts {
            counts,
            mlps_read_it: counts && left < HALF,
            elevation: holds(&["failures", "copied"]),
            elevation_reads: holds(&["before"]),
            helper: holds(&["failures", "copied", "helper"]),
            negative: holds(&["failures", "negative"]),
            negative_reads: holds(&["negative.before"]),
        }
    }

    /// The circuit, from what the other steps say.
    pub(super) fn circuit(&self, story: &Story) -> Step {
        let parts = self.parts(story);
        let missing = parts.missing(self);
        let routes = &self.routes;
        let step = Step::new(
            "circuit",
            "The circuit",
            "One head counts, MLPs make a yes or no of the count at every position, one head of the last layer carries that of the whole string to position 0, and the other looks for a negative one.",
            Conclusion::of(
                missing.is_empty(),
                match missing.is_empty() {
                    true => format!(
                        "every part of it holds; without head {}'s count the MLPs write {} of what they tell head {} of a wrong total",
                        self.roles.counting,
                        percent(routes.left_without_count()),
                        self.roles.elevation
                    ),
                    false => missing.join("; "),
                },
            ),
        );
        let diagram = self.diagram(&parts);
        if diagram.edges.is_empty() {
            return step;
        }
        step.text(
            "The diagram has the parts that hold on this model, and its numbers: what a component adds along what the next one reads, \
             failing strings less balanced ones (for the elevation head wrong totals alone, for the negative head brackets from which on \
             more open than close). A percentage is the part of what is written that is lost if the earlier component is read at its mean.",
        )
        .picture(
            Picture::new("circuit", "What passes from part to part", diagram)
                .caption("Layers from the top; position 0 is where the answer is read."),
        )
    }

    fn diagram(&self, parts: &Parts) -> Diagram {
        let r = self.roles;
        let mut diagram = Diagram::default();
        let mlps = self.neurons.len();
        // The rows: brackets, the counting head, the first MLP, the helper, the other MLPs, the heads, the answer.
        let heads = mlps + 3;
        let brackets = parts
            .counts
            .then(|| diagram.node("brackets", "[start] ( ( ) … [end]", [0, 1]));
        let counting = brackets.map(|from| {
            let first = &self.counting.suffixes[0];
            let words = "at every position: the mean of what follows, ( and ) opposite";
            let to = diagram.node(&format!("head {}", r.counting), words, [1, 1]);
            let evenness = percent(first.evenness);
            diagram.edge(
                from,
                to,
                format!("from position 1 as even as over {evenness}"),
            );
            to
        });
        let reads =
            (parts.elevation && parts.elevation_reads) || (parts.negative && parts.negative_reads);
        let mlp_nodes: Vec<usize> = match parts.mlps_read_it && reads {
            false => Vec::new(),
            true => (0..mlps)
                .map(|l| {
                    let row = if l == 0 { 2 } else { l + 3 };
                    diagram.node(&format!("mlp {l}"), "a yes or no of the count", [row, 1])
                })
                .collect(),
        };
        if let (Some(&first), Some(from)) = (mlp_nodes.first(), counting) {
            let lost = 1.0 - self.routes.left_without_count();
            diagram.edge(
                from,
                first,
                format!("the count: {} of what MLPs write", percent(lost)),
            );
        }
        if let [first, .., last] = mlp_nodes[..]
            && self.routes.through_first() >= WORTH_SHOWING
        {
            diagram.edge(first, last, percent(self.routes.through_first()));
        }
        let answer = (parts.elevation || parts.negative)
            .then(|| diagram.node("\"unbalanced\"", "the logits at position 0", [heads + 1, 1]));
        let mlp_names: Vec<String> = self
            .neurons
            .iter()
            .map(|n| format!("mlp {}", n.layer))
            .collect();
        if parts.elevation {
            let words = "at position 0: reads position 1, is the total wrong?";
            let to = diagram.node(&format!("head {}", r.elevation), words, [heads, 0]);
            if parts.elevation_reads {
                for (&from, name) in mlp_nodes.iter().zip(&mlp_names) {
                    let all = self.components_before.iter().zip(self.before_by_kind());
                    let found = all.into_iter().find(|(a, _)| a.component == *name);
                    let [total, ..] = found.expect("every MLP is a component").1;
                    if total > 0.0 {
                        diagram.edge(from, to, number(total));
                    }
                }
            }
            if parts.helper {
                let helper = self.agreement.helper();
                let words = "at position 1: does the count go negative?";
                let from = diagram.node(&format!("head {}", helper.head), words, [3, 0]);
                diagram.edge(from, to, number(helper.brings[1]));
            }
            let answer = answer.expect("there is one of the two heads");
            diagram.edge(to, answer, number(self.elevation_head().elevation));
        }
        if parts.negative {
            let words = "at position 0: looks for brackets from which on more open than close";
            let to = diagram.node(&format!("head {}", r.negative), words, [heads, 2]);
            if parts.negative_reads {
                for (&from, name) in mlp_nodes.iter().zip(&mlp_names) {
                    let found = self.negative.components.iter().find(|(n, _)| n == name);
                    let (_, difference) = found.expect("every MLP is a component");
                    if *difference > 0.0 {
                        diagram.edge(from, to, number(*difference));
                    }
                }
            }
            let answer = answer.expect("there is one of the two heads");
            diagram.edge(to, answer, number(self.negative_head().negative));
        }
        diagram
    }
}
