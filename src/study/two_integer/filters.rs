//! The two filters from the weights alone, as functions of `A` plus functions of `B`.

use super::{Answered, Extended, GatePlane, agreement};
use crate::study::correlation::correlation;
use serde::Serialize;

/// The two filters of the model with fixed attention.
#[derive(Clone, Debug, Serialize)]
pub struct Filters {
    /// The integers are those below this.
    pub n: usize,
    /// The filters, each of which has to be passed.
    pub filters: [Filter; 2],
    /// On how many pairs their conjunction is what the model with fixed attention says.
    pub agrees_with_fixed: f64,
    /// And what the full model says.
    pub agrees_with_full: f64,
    /// And the label.
    pub agrees_with_labels: f64,
}

/// One filter: passed where `of_a + of_b > 0`.
#[derive(Clone, Debug, Serialize)]
pub struct Filter {
    /// Of each `A`: what its extended embedding adds along the gate's direction.
    pub of_a: Vec<f64>,
    /// Of each `B`; with everything that depends on neither, and less the threshold.
    pub of_b: Vec<f64>,
    /// The correlation, over all pairs, with how far the full model's stream lies beyond the threshold of its own gate.
    pub correlation: f64,
}

impl Filter {
    /// How far a pair is beyond the threshold.
    pub fn beyond(&self, a: usize, b: usize) -> f64 {
        self.of_a[a] + self.of_b[b]
    }

    /// The same of all pairs, `A` by `A`.
    pub fn all_beyond(&self) -> Vec<f64> {
        let n = self.of_b.len();
        (0..self.of_a.len() * n)
            .map(|i| self.beyond(i / n, i % n))
            .collect()
    }
}

impl Filters {
    pub(super) fn of(
        extended: &Extended,
        fixed: &Answered,
        full: &Answered,
        labels: &[bool],
    ) -> Self {
        let beyond_full = full.plane.all_beyond();
        let filters = [0, 1].map(|i| {
            let mut filter = Filter::of(extended, &fixed.plane, i);
            let both = filter.all_beyond().into_iter().zip(&beyond_full);
            filter.correlation = correlation(both.map(|(own, full)| [own, full[i]]));
            filter
        });
        let mut found = Filters {
            n: extended.a.shape()[0],
            filters,
            agrees_with_fixed: 0.0,
            agrees_with_full: 0.0,
            agrees_with_labels: 0.0,
        };
        let passes = found.passes();
        found.agrees_with_fixed = agreement(&passes, &fixed.says);
        found.agrees_with_full = agreement(&passes, &full.says);
        found.agrees_with_labels = agreement(&passes, labels);
        found
    }

    /// Which pairs pass both, `A` by `A`.
    pub fn passes(&self) -> Vec<bool> {
        let [first, second] = &self.filters;
        let both = first.all_beyond().into_iter().zip(second.all_beyond());
        both.map(|(x, y)| x > 0.0 && y > 0.0).collect()
    }
}

impl Filter {
    fn of(extended: &Extended, plane: &GatePlane, filter: usize) -> Self {
        let direction = plane.direction(filter);
        let along = |row: &[f64]| -> f64 { row.iter().zip(&direction).map(|(x, d)| x * d).sum() };
        let constant = along(&extended.rest) - along(&plane.mean) - plane.gate.thresholds[filter];
        let d = direction.len();
        Filter {
            of_a: extended.a.data().chunks_exact(d).map(along).collect(),
            of_b: (extended.b.data().chunks_exact(d))
                .map(|row| along(row) + constant)
                .collect(),
            correlation: 0.0,
        }
    }
}
