//! The conjunction of two thresholded directions in a plane, fitted to labels.

use crate::error::{Error, Result};
use crate::linalg::Par;
use crate::tensor::Scalar;
use faer::MatRef;
use rayon::prelude::*;
use serde::Serialize;

/// The class of points that are above both of two thresholds, each along a direction of its own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AndGate {
    /// Two directions, of length one.
    pub directions: [[f64; 2]; 2],
    /// What each is compared with.
    pub thresholds: [f64; 2],
    /// How many of the points it was fitted to have the label that it gives them.
    pub right: usize,
    /// How many points it was fitted to.
    pub points: usize,
}

impl AndGate {
    /// The class of a point.
    pub fn classify(&self, point: [f64; 2]) -> bool {
        let above = |i: usize| dot(self.directions[i], point) > self.thresholds[i];
        above(0) && above(1)
    }

    /// The share of its points that it labels as they are labelled.
    pub fn agreement(&self) -> f64 {
        self.right as f64 / self.points as f64
    }
}

fn dot(a: [f64; 2], b: [f64; 2]) -> f64 {
    a[0] * b[0] + a[1] * b[1]
}

/// The directions of the first look: so many, all the way round.
const DIRECTIONS: usize = 120;
/// Into how many ranges of about as many points the first look cuts each direction.
const BINS: usize = 64;
/// How many pairs of directions are looked at closely, each at least two steps from the others.
const FINALISTS: usize = 8;
/// How often the close look halves its step: from 3 degrees to a hundredth of one.
const HALVINGS: u32 = 8;

/// The conjunction that agrees best with the labels, as far as the search finds it.
///
/// For two directions, the best two thresholds are found exactly. Directions are searched for: all pairs of 120 at
/// coarse thresholds, then, from the best eight pairs, in ever smaller steps down to a hundredth of a degree (of the
/// plane with both coordinates scaled to the same spread). What is found is a local optimum in the directions. The
/// result does not depend on the number of threads.
///
/// ```
/// use pathsum::Par;
/// use pathsum::decompose::and_gate;
/// use faer::Mat;
/// let points = Mat::from_fn(400, 2, |i, j| [(i / 20) as f64, (i % 20) as f64][j]);
/// let labels: Vec<bool> = (0..400).map(|i| points[(i, 0)] > 7.0 && points[(i, 0)] + points[(i, 1)] < 25.0).collect();
/// let gate = and_gate(points.as_ref(), &labels, Par::Seq)?;
/// assert_eq!(gate.agreement(), 1.0);
/// # Ok::<(), pathsum::Error>(())
/// ```
///
/// # Shapes
/// `points: [m, 2]`, a label each.
///
/// # Errors
/// When there are no points, or one is not finite.
///
/// # Panics
/// When there are not as many labels as points, or they are not in a plane.
///
/// # Cost
/// `7260 m` additions for the first look, about a thousand times `m log m` for the close one.
#[track_caller]
pub fn and_gate<T: Scalar>(points: MatRef<'_, T>, labels: &[bool], par: Par) -> Result<AndGate> {
    assert_eq!(points.shape(), (labels.len(), 2), "points in a plane");
    let points: Vec<[f64; 2]> = (0..labels.len())
        .map(|i| [points[(i, 0)].to_f64(), points[(i, 1)].to_f64()])
        .collect();
    if points.is_empty() || points.iter().flatten().any(|x| !x.is_finite()) {
        return Err(Error::Numeric(format!(
            "a gate for {} points, expected some, and finite ones",
            points.len()
        )));
    }
    let search = GateSearch::new(&points, labels);
    let finalists = search.first_look(par);
    let look = |&(i, j): &(usize, usize)| search.close_look([i, j].map(GateSearch::angle));
    let found: Vec<FoundThresholds> = match par {
        Par::Rayon => finalists.par_iter().map(look).collect(),
        Par::Seq => finalists.iter().map(look).collect(),
    };
    // The first of the best: the order of the finalists decides, not that in which they are done.
    let best = found
        .into_iter()
        .reduce(|best, f| if f.passing > best.passing { f } else { best });
    let best = best.expect("there is a finalist");
    let mut gate = search.gate(&best);
    let agrees = |&(&p, &label): &(&[f64; 2], &bool)| gate.classify(p) == label;
    gate.right = points.iter().zip(labels).filter(agrees).count();
    Ok(gate)
}

/// The points, scaled to the same spread along both axes.
struct GateSearch {
    points: Vec<[f64; 2]>,
    /// One for points that should pass, minus one for those that should not.
    weights: Vec<i32>,
    spread: [f64; 2],
}

/// The best thresholds for two directions.
#[derive(Clone, Copy)]
struct FoundThresholds {
    angles: [f64; 2],
    thresholds: [f64; 2],
    /// The weights of the points that pass, summed.
    passing: i32,
}

impl GateSearch {
    fn new(points: &[[f64; 2]], labels: &[bool]) -> Self {
        let n = points.len() as f64;
        let spread = [0, 1].map(|axis| {
            let of = || points.iter().map(|p| p[axis]);
            let mean = of().sum::<f64>() / n;
            let variance = of().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            if variance > 0.0 { variance.sqrt() } else { 1.0 }
        });
        GateSearch {
            points: (points.iter())
                .map(|p| [p[0] / spread[0], p[1] / spread[1]])
                .collect(),
            weights: labels.iter().map(|&l| if l { 1 } else { -1 }).collect(),
            spread,
        }
    }

    fn angle(step: usize) -> f64 {
        step as f64 * (std::f64::consts::TAU / DIRECTIONS as f64)
    }

    fn along(&self, angle: f64) -> Vec<f64> {
        let direction = [angle.cos(), angle.sin()];
        self.points.iter().map(|&p| dot(direction, p)).collect()
    }

    /// The pairs of directions that are worth a closer look.
    fn first_look(&self, par: Par) -> Vec<(usize, usize)> {
        let bins: Vec<Vec<u8>> = (0..DIRECTIONS)
            .map(|step| bins_of(&self.along(Self::angle(step))))
            .collect();
        let pairs: Vec<(usize, usize)> = (0..DIRECTIONS)
            .flat_map(|i| (i..DIRECTIONS).map(move |j| (i, j)))
            .collect();
        let score = |&(i, j): &(usize, usize)| (self.coarse(&bins[i], &bins[j]), (i, j));
        let mut scores: Vec<(i32, (usize, usize))> = match par {
            Par::Rayon => pairs.par_iter().map(score).collect(),
            Par::Seq => pairs.iter().map(score).collect(),
        };
        scores.sort_by_key(|&(passing, pair)| (-passing, pair));
        let mut chosen: Vec<(usize, usize)> = Vec::new();
        for (_, pair) in scores {
            let apart = |a: usize, b: usize| a.abs_diff(b).min(DIRECTIONS - a.abs_diff(b));
            let near = |c: &(usize, usize)| {
                apart(c.0, pair.0) < 2 && apart(c.1, pair.1) < 2
                    || apart(c.0, pair.1) < 2 && apart(c.1, pair.0) < 2
            };
            if !chosen.iter().any(near) {
                chosen.push(pair);
            }
            if chosen.len() == FINALISTS {
                break;
            }
        }
        chosen
    }

    /// The largest weight above two of the bins' ends.
    fn coarse(&self, first: &[u8], second: &[u8]) -> i32 {
        let mut above = [0i32; BINS * BINS];
        for ((&a, &b), &weight) in first.iter().zip(second).zip(&self.weights) {
            above[a as usize * BINS + b as usize] += weight;
        }
        let mut best = 0;
        for a in (0..BINS).rev() {
            let mut row = 0;
            for b in (0..BINS).rev() {
                row += above[a * BINS + b];
                let further = if a + 1 < BINS {
                    above[(a + 1) * BINS + b]
                } else {
                    0
                };
                above[a * BINS + b] = row + further;
                best = best.max(row + further);
            }
        }
        best
    }

    /// The best that small turns of the two directions lead to.
    fn close_look(&self, angles: [f64; 2]) -> FoundThresholds {
        let mut best = self.thresholds(angles);
        let mut step = Self::angle(1) / 2.0;
        for _ in 0..HALVINGS {
            loop {
                let turns = [-1.0, 0.0, 1.0].map(|x| x * step);
                let around = turns.into_iter().flat_map(|a| turns.map(|b| [a, b]));
                let from = best;
                for [a, b] in around.filter(|turn| *turn != [0.0, 0.0]) {
                    let found = self.thresholds([from.angles[0] + a, from.angles[1] + b]);
                    if found.passing > best.passing {
                        best = found;
                    }
                }
                if best.passing == from.passing {
                    break;
                }
            }
            step /= 2.0;
        }
        best
    }

    /// The best thresholds for two directions, exactly: the first threshold is lowered past point after point, and
    /// a tree over the points' order along the second direction keeps the best second threshold.
    fn thresholds(&self, angles: [f64; 2]) -> FoundThresholds {
        let along = angles.map(|angle| self.along(angle));
        let [first, second] = [Ranking::of(&along[0]), Ranking::of(&along[1])];
        let mut tree = SuffixSums::new(second.values.len());
        // Beyond all points nothing passes.
        let mut best = FoundThresholds {
            angles,
            thresholds: [first.end(0), second.end(0)],
            passing: 0,
        };
        let mut points = first.sorted.iter().rev().peekable();
        while let Some(&point) = points.next() {
            tree.add(second.rank[point], self.weights[point]);
            let rank = first.rank[point];
            // Points at the same place pass together.
            if points.peek().is_some_and(|&&next| first.rank[next] == rank) {
                continue;
            }
            if tree.best() > best.passing {
                best.passing = tree.best();
                best.thresholds = [first.below(rank), second.below(tree.best_start())];
            }
        }
        best
    }

    /// The gate in the plane's own coordinates.
    fn gate(&self, found: &FoundThresholds) -> AndGate {
        let scaled = found
            .angles
            .map(|a| [a.cos() / self.spread[0], a.sin() / self.spread[1]]);
        let lengths = scaled.map(|d| d[0].hypot(d[1]));
        AndGate {
            directions: [0, 1].map(|i| scaled[i].map(|x| x / lengths[i])),
            thresholds: [0, 1].map(|i| found.thresholds[i] / lengths[i]),
            right: 0,
            points: self.points.len(),
        }
    }
}

/// Each value's bin, of about as many values each; equal values share one.
fn bins_of(values: &[f64]) -> Vec<u8> {
    let order = Ranking::of(values);
    let mut below = vec![0usize; order.values.len() + 1];
    for &rank in &order.rank {
        below[rank + 1] += 1;
    }
    for i in 1..below.len() {
        below[i] += below[i - 1];
    }
    let bin = |&rank: &usize| (below[rank] * BINS / values.len()) as u8;
    order.rank.iter().map(bin).collect()
}

/// Some numbers in order.
struct Ranking {
    /// Which number comes when.
    sorted: Vec<usize>,
    /// The distinct values, ascending.
    values: Vec<f64>,
    /// Where each number stands among them.
    rank: Vec<usize>,
}

impl Ranking {
    fn of(numbers: &[f64]) -> Self {
        let mut keyed: Vec<(f64, usize)> = numbers.iter().copied().zip(0..).collect();
        keyed.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let (mut values, mut rank) = (Vec::new(), vec![0; numbers.len()]);
        for &(value, i) in &keyed {
            if values.last() != Some(&value) {
                values.push(value);
            }
            rank[i] = values.len() - 1;
        }
        Ranking {
            sorted: keyed.into_iter().map(|(_, i)| i).collect(),
            values,
            rank,
        }
    }

    /// A threshold between a value and the one before.
    fn below(&self, rank: usize) -> f64 {
        match rank.checked_sub(1) {
            Some(before) => self.values[before] + (self.values[rank] - self.values[before]) / 2.0,
            None => self.end(1),
        }
    }

    /// A threshold beyond all values: above (0) or below (1) them, by their whole range.
    fn end(&self, side: usize) -> f64 {
        let (low, high) = (self.values[0], self.values[self.values.len() - 1]);
        let range = if high > low {
            high - low
        } else {
            low.abs().max(1.0)
        };
        [high + range, low - range][side]
    }
}

/// Numbers at places, and where to start for the largest sum of all from there on: a tree of sums.
struct SuffixSums {
    leaves: usize,
    /// Of each node's places: the sum, and the largest sum of its last ones (of none, zero).
    nodes: Vec<(i32, i32)>,
}

impl SuffixSums {
    fn new(places: usize) -> Self {
        let leaves = places.next_power_of_two();
        SuffixSums {
            leaves,
            nodes: vec![(0, 0); 2 * leaves],
        }
    }

    fn add(&mut self, place: usize, x: i32) {
        let mut node = self.leaves + place;
        self.nodes[node].0 += x;
        self.nodes[node].1 = self.nodes[node].0.max(0);
        while node > 1 {
            node /= 2;
            let ((left, left_best), (right, right_best)) =
                (self.nodes[2 * node], self.nodes[2 * node + 1]);
            self.nodes[node] = (left + right, right_best.max(right + left_best));
        }
    }

    fn best(&self) -> i32 {
        self.nodes[1].1
    }

    /// Where to start for the best sum.
    fn best_start(&self) -> usize {
        let mut node = 1;
        while node < self.leaves {
            let (right, right_best) = self.nodes[2 * node + 1];
            let from_left = right + self.nodes[2 * node].1;
            node = 2 * node + usize::from(right_best >= from_left);
        }
        node - self.leaves
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use faer::Mat;
    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};

    /// Points on a small grid, so that many share a coordinate, with random labels.
    fn random(seed: u64, n: usize) -> (Vec<[f64; 2]>, Vec<bool>) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let points = (0..n)
            .map(|_| [0, 1].map(|_| rng.random_range(0..6) as f64))
            .collect();
        let labels = (0..n).map(|_| rng.random_bool(0.5)).collect();
        (points, labels)
    }

    fn agreeing(gate: &AndGate, points: &[[f64; 2]], labels: &[bool]) -> usize {
        let both = points.iter().zip(labels);
        both.filter(|&(&p, &l)| gate.classify(p) == l).count()
    }

    /// For given directions, every pair of thresholds that makes a difference, one after another.
    #[test]
    fn thresholds_are_the_best_there_are() {
        for seed in 0..40 {
            let (points, labels) = random(seed, 30);
            let search = GateSearch::new(&points, &labels);
            let negatives = labels.iter().filter(|&&l| !l).count();
            for angles in [[0.0, 1.7], [2.0, 5.5], [0.3, 0.3]] {
                let found = search.thresholds(angles);
                let [a, b] = angles.map(|angle| search.along(angle));
                let ends = |v: &[f64]| [v.to_vec(), vec![-1e9]].concat();
                let mut best = 0;
                for &s in &ends(&a) {
                    for &t in &ends(&b) {
                        let right = |&i: &usize| (a[i] > s && b[i] > t) == labels[i];
                        best = best.max((0..30).filter(right).count());
                    }
                }
                assert_eq!(found.passing + negatives as i32, best as i32);
                // And the thresholds themselves do it.
                let gate = search.gate(&found);
                assert_eq!(agreeing(&gate, &points, &labels), best);
            }
        }
    }

    /// Of a few points, every gate there is: both boundaries run close by two of the points.
    #[test]
    fn no_gate_is_much_better() {
        for seed in 0..6 {
            let (points, labels) = random(seed, 12);
            let mat = Mat::from_fn(12, 2, |i, j| points[i][j]);
            let found = and_gate(mat.as_ref(), &labels, Par::Seq).unwrap();
            let mut planes: Vec<Vec<bool>> = vec![vec![true; 12]];
            for p in &points {
                for q in &points {
                    for turn in [0.0, 0.01, -0.01] {
                        for shift in [1e-6, -1e-6] {
                            let angle = (q[1] - p[1]).atan2(q[0] - p[0]) + turn;
                            let normal = [-angle.sin(), angle.cos()];
                            let at = dot(normal, *p) + shift;
                            planes.push(points.iter().map(|&x| dot(normal, x) > at).collect());
                        }
                    }
                }
            }
            planes.sort();
            planes.dedup();
            let mut best = 0;
            for a in &planes {
                for b in &planes {
                    let right = (0..12).filter(|&i| (a[i] && b[i]) == labels[i]).count();
                    best = best.max(right);
                }
            }
            println!("seed {seed}: {} of {best}", found.right);
            assert_eq!(found.right, best, "seed {seed}");
        }
    }

    /// A gate's own labels on many points are found again, whatever the axes' scales, on any number of threads.
    #[test]
    fn a_gate_is_found_again() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for scale in [1.0, 1e-3, 1e4] {
            let points: Vec<[f64; 2]> = (0..3000)
                .map(|_| {
                    [
                        rng.random_range(-1.0..1.0),
                        scale * rng.random_range(-1.0..1.0),
                    ]
                })
                .collect();
            let own = |p: &[f64; 2]| {
                let y = p[1] / scale;
                0.9 * p[0] + 0.4 * y > -0.2 && 0.1 * p[0] - y > -0.3
            };
            let labels: Vec<bool> = points.iter().map(own).collect();
            let mat = Mat::from_fn(3000, 2, |i, j| points[i][j]);
            let found = and_gate(mat.as_ref(), &labels, Par::Rayon).unwrap();
            println!("scale {scale:e}: {} of 3000", found.right);
            assert_eq!(found.right, agreeing(&found, &points, &labels));
            assert!(found.agreement() >= 0.997, "{found:?}");
            assert_eq!(found, and_gate(mat.as_ref(), &labels, Par::Seq).unwrap());
        }
    }
}
