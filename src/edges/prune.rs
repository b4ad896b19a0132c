//! Circuits by pruning: an edge after the other is taken out, and stays out if that hardly matters.

use super::circuit::Ablation;
use super::pairs::Edges;
use crate::error::Result;
use crate::tensor::Scalar;

impl<T: Scalar> Edges<'_, T> {
    /// Takes edges out of a circuit, one by one, from the logits back and the latest sender first: an edge whose leaving
    /// changes the metric's mean by less than `threshold` stays out, and the next one is judged without it. Edges into
    /// what nothing inside reads any more leave with it.
    ///
    /// `done` is called with each edge that was judged.
    ///
    /// # Errors
    /// As [`Edges::circuit`].
    ///
    /// # Cost
    /// A circuit's run for each edge of the one begun with.
    ///
    /// # Source
    /// Conmy et al., "Towards Automated Circuit Discovery for Mechanistic Interpretability" (2023), with the metric itself
    /// for their divergence.
    pub fn pruned(
        &self,
        start: &[bool],
        ablation: Ablation,
        threshold: f64,
        done: &dyn Fn(usize),
    ) -> Result<Vec<bool>> {
        let mut inside = start.to_vec();
        let mut metric = self.circuit(&inside, ablation)?;
        for r in (0..self.graph.receivers().len()).rev() {
            let own = self.graph.edges_to(r);
            let read = self.graph.leads_on(r, &self.graph.fed_and_read(&inside).1);
            for i in own.rev().filter(|&i| start[i]) {
                inside[i] = false;
                if read {
                    let without = self.circuit(&inside, ablation)?;
                    match (without - metric).abs() < threshold {
                        true => metric = without,
                        false => inside[i] = true,
                    }
                }
                done(1);
            }
        }
        Ok(inside)
    }

    /// What the metric's mean changes by when each edge of a circuit alone is taken out of it, for every edge of the graph;
    /// none of those outside. A circuit is minimal as far as none of these is small.
    ///
    /// # Errors
    /// As [`Edges::circuit`].
    ///
    /// # Cost
    /// A circuit's run for each edge inside.
    pub fn needed(
        &self,
        inside: &[bool],
        ablation: Ablation,
        done: &dyn Fn(usize),
    ) -> Result<Vec<Option<f64>>> {
        let metric = self.circuit(inside, ablation)?;
        let mut without = inside.to_vec();
        let mut of = |i: usize| {
            if !inside[i] {
                return Ok(None);
            }
            without[i] = false;
            let found = self.circuit(&without, ablation)?;
            without[i] = true;
            done(1);
            Ok(Some(found - metric))
        };
        (0..inside.len()).map(&mut of).collect()
    }
}
