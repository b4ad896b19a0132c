//! Circuits from scores, and how good they are.

use super::graph::EdgeGraph;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// By what edges are put in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoreOrder {
    /// The largest first, whatever their sign.
    Absolute,
    /// The largest first, negative ones last: of effects of corruption on a loss the edges that the model needs most.
    Largest,
    /// The smallest first, positive ones last: of effects of corruption on a metric that a model that is good at its task
    /// has large, as a difference of logits, the edges that it needs most.
    Smallest,
}

/// The shares of a model's edges at which the Mechanistic Interpretability Benchmark looks at circuits.
pub const SHARES: [f64; 10] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0];

impl EdgeGraph {
    /// The `n` first edges, in order of their scores; of equal ones the earlier. Of these only those are left that lie on a
    /// way from the embeddings to the logits.
    ///
    /// # Panics
    /// When there are not as many scores as edges, or not so many edges.
    #[track_caller]
    pub fn top(&self, scores: &[f64], n: usize, order: ScoreOrder) -> Vec<bool> {
        let first = self.in_order(scores, n, order);
        let mut inside = vec![false; self.len()];
        first.into_iter().take(n).for_each(|i| inside[i] = true);
        self.connected(&mut inside);
        inside
    }

    /// `n` edges, one after the other from the logits back: each time the first in order of those into what is inside
    /// already. As in the benchmark, edges that lead nowhere are left out then.
    ///
    /// # Panics
    /// As [`EdgeGraph::top`].
    #[track_caller]
    pub fn greedy(&self, scores: &[f64], n: usize, order: ScoreOrder) -> Vec<bool> {
        let in_order = self.in_order(scores, n, order);
        let mut inside = vec![false; self.len()];
        let receivers = self.receivers().len();
        // What is read there leads on to what is inside: at first the logits.
        let mut leads_on: Vec<bool> = (0..receivers)
            .map(|r| self.written_by(r).is_empty())
            .collect();
        for _ in 0..n {
            let open = |&&i: &&usize| !inside[i] && leads_on[self.receiver_of(i)];
            let Some(&next) = in_order.iter().find(open) else {
                break;
            };
            inside[next] = true;
            let from = next - self.edges_to(self.receiver_of(next)).start;
            for (r, leads_on) in leads_on.iter_mut().enumerate() {
                *leads_on |= self.written_by(r).contains(&from);
            }
        }
        self.connected(&mut inside);
        inside
    }

    /// Leaves out edges that lie on no way from the embeddings to the logits.
    pub fn connected(&self, inside: &mut [bool]) {
        loop {
            let (fed, read) = self.fed_and_read(inside);
            let mut left_out = false;
            for r in 0..self.receivers().len() {
                let leads_on = self.leads_on(r, &read);
                for (sender, i) in self.edges_to(r).enumerate() {
                    if inside[i] && !(fed[sender] && leads_on) {
                        inside[i] = false;
                        left_out = true;
                    }
                }
            }
            if !left_out {
                return;
            }
        }
    }

    /// Of each sender whether it is fed by an edge inside, as the embeddings are by the tokens, and whether one reads it.
    pub(super) fn fed_and_read(&self, inside: &[bool]) -> (Vec<bool>, Vec<bool>) {
        let senders = self.senders().len();
        let (mut fed, mut read) = (vec![false; senders], vec![false; senders]);
        fed[0] = true;
        for r in 0..self.receivers().len() {
            let own = &inside[self.edges_to(r)];
            if own.contains(&true) {
                fed[self.written_by(r)].fill(true);
            }
            let of = read.iter_mut().zip(own);
            of.for_each(|(read, inside)| *read |= inside);
        }
        (fed, read)
    }

    /// Whether something inside reads what the component writes that reads at the `r`-th receiver.
    pub(super) fn leads_on(&self, r: usize, read: &[bool]) -> bool {
        let written = self.written_by(r);
        written.is_empty() || read[written].contains(&true)
    }

    #[track_caller]
    fn in_order(&self, scores: &[f64], n: usize, order: ScoreOrder) -> Vec<usize> {
        assert_eq!(scores.len(), self.len(), "a score for each edge");
        assert!(n <= self.len(), "{n} edges of {}", self.len());
        let size = |i: usize| match order {
            ScoreOrder::Absolute => scores[i].abs(),
            ScoreOrder::Largest => scores[i],
            ScoreOrder::Smallest => -scores[i],
        };
        let mut all: Vec<usize> = (0..self.len()).collect();
        all.sort_by(|&a, &b| size(b).total_cmp(&size(a)));
        all
    }
}

/// How much of what a model does more than an empty circuit a circuit does: `(m(C) - m(∅)) / (m(M) - m(∅))`.
pub fn faithfulness(circuit: f64, empty: f64, whole: f64) -> f64 {
    (circuit - empty) / (whole - empty)
}

/// The faithfulness of circuits by their size, and what the Mechanistic Interpretability Benchmark reads off it.
///
/// ```
/// use pathsum::edges::FaithfulnessCurve;
/// let curve = FaithfulnessCurve::new(&[0.2, 0.6, 1.0], &[0.0, 1.5, 1.0])?;
/// assert!((curve.cpr() - (0.4 * 0.75 + 0.4 * 1.25)).abs() < 1e-15);
/// assert!((curve.cmd() - (0.4 * 0.75 + 0.4 * 0.25)).abs() < 1e-15);
/// # Ok::<(), pathsum::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FaithfulnessCurve {
    /// Shares of the model's edges, in order.
    shares: Vec<f64>,
    /// At each of them.
    faithfulness: Vec<f64>,
}

impl FaithfulnessCurve {
    /// Of these shares and faithfulnesses.
    ///
    /// # Errors
    /// When they are not as many, fewer than two, or the shares not in order.
    pub fn new(shares: &[f64], faithfulness: &[f64]) -> Result<Self> {
        let fits = shares.len() == faithfulness.len() && shares.len() >= 2;
        if !fits || !shares.is_sorted() {
            return Err(Error::Experiment(format!(
                "{} shares and {} faithfulnesses, expected as many, two at least, and the shares in order",
                shares.len(),
                faithfulness.len()
            )));
        }
        Ok(FaithfulnessCurve {
            shares: shares.to_vec(),
            faithfulness: faithfulness.to_vec(),
        })
    }

    /// Each share with its faithfulness.
    pub fn points(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.shares
            .iter()
            .copied()
            .zip(self.faithfulness.iter().copied())
    }

    /// The circuit performance ratio: the area under the faithfulness, from the first share to the last, by trapezoids.
    pub fn cpr(&self) -> f64 {
        self.area(|f| f)
    }

    /// The circuit-model distance: the area between the faithfulness and 1.
    pub fn cmd(&self) -> f64 {
        self.area(|f| (1.0 - f).abs())
    }

    fn area(&self, of: impl Fn(f64) -> f64) -> f64 {
        let sides = self.shares.windows(2).zip(self.faithfulness.windows(2));
        sides
            .map(|(x, f)| (x[1] - x[0]) * (of(f[0]) + of(f[1])) / 2.0)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagram::Config;

    /// One layer of one head and neurons: input -> head (q, k, v), input and head -> neurons, all three -> logits.
    fn toy() -> EdgeGraph {
        let config = Config::from_json(
            r#"{"n_layers": 1, "n_heads": 1, "d_model": 4, "d_head": 4, "d_mlp": 8, "act_fn": "gelu", "d_vocab": 5,
                "n_ctx": 8}"#,
        );
        EdgeGraph::of(&config.unwrap()).unwrap()
    }

    fn names(graph: &EdgeGraph, inside: &[bool]) -> Vec<String> {
        let own = graph.edges().zip(inside).filter(|(_, inside)| **inside);
        own.map(|(edge, _)| edge.to_string()).collect()
    }

    #[test]
    fn circuits_are_chosen_as_by_hand() {
        let graph = toy();
        let names_of_all = names(&graph, &vec![true; graph.len()]);
        let all = [
            "input->a0.h0<q>",
            "input->a0.h0<k>",
            "input->a0.h0<v>",
            "input->m0",
            "a0.h0->m0",
            "input->logits",
            "a0.h0->logits",
            "m0->logits",
        ];
        assert_eq!(names_of_all, all);
        let scores = [0.1, -0.9, 0.8, 0.7, -0.6, 0.05, 0.3, 0.2];
        // The five largest are the head's keys and values, both edges into the neurons, and the head into the logits: nothing
        // reads the neurons.
        let top = graph.top(&scores, 5, ScoreOrder::Absolute);
        assert_eq!(names(&graph, &top), [all[1], all[2], all[6]]);
        // With their sign the values, the neurons' input, the head and the neurons into the logits, and the queries.
        let top = graph.top(&scores, 5, ScoreOrder::Largest);
        assert_eq!(
            names(&graph, &top),
            [all[0], all[2], all[3], all[6], all[7]]
        );
        let top = graph.top(&scores, 2, ScoreOrder::Smallest);
        assert_eq!(names(&graph, &top), [""; 0]);
        // From the logits back: the head, its keys, its values, the neurons, then what goes into these.
        for (n, expected) in [
            (1, vec![]),
            (2, vec![1, 6]),
            (4, vec![1, 2, 6]),
            (5, vec![1, 2, 3, 6, 7]),
            (6, vec![1, 2, 3, 4, 6, 7]),
            (8, vec![0, 1, 2, 3, 4, 5, 6, 7]),
        ] {
            let greedy = graph.greedy(&scores, n, ScoreOrder::Absolute);
            let expected: Vec<&str> = expected.into_iter().map(|i| all[i]).collect();
            assert_eq!(names(&graph, &greedy), expected, "{n}");
        }
    }

    /// A model that does the sum of what four edges into the logits carry, 8, 4, 2 and -6, where an empty circuit does 0; its
    /// circuits are the first edges by size. By hand: with a quarter of the edges 8 of 8, with half of them 2 of 8 (8 - 6),
    /// with three quarters 6 of 8, with all 8 of 8.
    #[test]
    fn areas_are_those_by_hand() {
        let carried = [8.0, 4.0, 2.0, -6.0];
        let mut by_size: Vec<f64> = carried.to_vec();
        by_size.sort_by(|a: &f64, b: &f64| b.abs().total_cmp(&a.abs()));
        let whole: f64 = carried.iter().sum();
        let faithful: Vec<f64> = (1..=4)
            .map(|n| faithfulness(by_size[..n].iter().sum(), 0.0, whole))
            .collect();
        assert_eq!(faithful, [1.0, 0.25, 0.75, 1.0]);
        let curve = FaithfulnessCurve::new(&[0.25, 0.5, 0.75, 1.0], &faithful).unwrap();
        assert_eq!(curve.cpr(), 0.25 * (0.625 + 0.5 + 0.875));
        assert_eq!(curve.cmd(), 0.25 * (0.375 + 0.5 + 0.125));
        // Where a circuit does more than the model, the ratio gains and the distance too.
        let curve = FaithfulnessCurve::new(&[0.0, 0.5, 1.0], &[0.0, 2.0, 1.0]).unwrap();
        assert_eq!((curve.cpr(), curve.cmd()), (0.5 + 0.75, 0.5 + 0.25));
        assert!(FaithfulnessCurve::new(&[0.5, 0.1], &[0.0, 1.0]).is_err());
        assert!(FaithfulnessCurve::new(&[0.5], &[0.0]).is_err());
    }
}
