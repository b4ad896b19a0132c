//! Where the model with fixed attention is wrong.

use super::GatePlane;
use crate::decompose::summary;
use serde::Serialize;

/// How far from the filters' thresholds the model with fixed attention is right and wrong.
///
/// The distance of a pair is that from the nearer of the two thresholds.
#[derive(Clone, Debug, Serialize)]
pub struct Margins {
    /// How far each pair is beyond either threshold, `A` by `A`.
    #[serde(skip)]
    pub beyond: Vec<[f64; 2]>,
    /// Whether the model with fixed attention is wrong there.
    #[serde(skip)]
    pub wrong: Vec<bool>,
    /// The median distance of the right pairs, where there are any.
    pub right_median: Option<f64>,
    /// And of the wrong ones.
    pub wrong_median: Option<f64>,
    /// How many of the wrong pairs are nearer to each filter's threshold than to the other's.
    pub wrong_by_filter: [usize; 2],
}

impl Margins {
    pub(super) fn of(plane: &GatePlane, says: &[bool], labels: &[bool]) -> Self {
        let beyond = plane.all_beyond();
        let wrong: Vec<bool> = says.iter().zip(labels).map(|(s, l)| s != l).collect();
        let median = |of: bool| {
            let here = beyond.iter().zip(&wrong).filter(|&(_, &w)| w == of);
            let distances: Vec<f64> = here.map(|(p, _)| distance(*p)).collect();
            summary(&distances).ok().map(|s| s.median)
        };
        let mut wrong_by_filter = [0; 2];
        for (&beyond, _) in beyond.iter().zip(&wrong).filter(|&(_, &w)| w) {
            wrong_by_filter[nearer(beyond)] += 1;
        }
        Margins {
            wrong_by_filter,
            right_median: median(false),
            wrong_median: median(true),
            beyond,
            wrong,
        }
    }
}

/// The filter whose threshold is nearer.
pub(super) fn nearer([x, y]: [f64; 2]) -> usize {
    usize::from(y.abs() < x.abs())
}

/// From the nearer of the two thresholds.
pub(super) fn distance([x, y]: [f64; 2]) -> f64 {
    x.abs().min(y.abs())
}
