//! The stream in a plane, before the MLP and after it.

use super::tilt::{basis, soft_and};
use crate::decompose::{AndGate, Boundary, and_gate, best_threshold};
use crate::error::Result;
use crate::linalg::{Par, pca, product};
use crate::model::Model;
use crate::study::correlation::correlation;
use crate::tensor::Tensor;
use faer::{Mat, MatRef};
use serde::Serialize;

/// The stream between attention and MLP, and the gate in a plane of it.
#[derive(Clone, Debug, Serialize)]
pub struct GatePlane {
    /// The share of the variance along each of the principal components that hold nearly all of it; at least two.
    pub shares: Vec<f64>,
    /// The plane of the first two components.
    pub first_two: FirstTwo,
    /// The inputs in the plane, whose axes are orthonormal directions among these components.
    #[serde(skip)]
    pub points: Vec<[f64; 2]>,
    /// The conjunction of two thresholds that agrees best with the answers.
    pub gate: AndGate,
    /// How many of the answers one threshold tells, for comparison: along the direction among these components that
    /// least squares find, at the best value.
    pub one_line: f64,
    /// The axes of the plane, then those orthogonal to it: `[d_model, d_model]`, orthonormal rows.
    #[serde(skip)]
    pub(super) axes: Mat<f64>,
    #[serde(skip)]
    pub(super) mean: Vec<f64>,
}

/// The plane of the first two principal components.
#[derive(Clone, Debug, Serialize)]
pub struct FirstTwo {
    /// The inputs in it.
    #[serde(skip)]
    pub points: Vec<[f64; 2]>,
    /// The inputs along the third and fourth component; 0 where there is none.
    #[serde(skip)]
    pub next: Vec<[f64; 2]>,
    /// The conjunction of two thresholds in it that agrees best with the answers.
    pub gate: AndGate,
    /// All principal components: `[d_model, d_model]`, orthonormal rows.
    #[serde(skip)]
    pub(super) components: Mat<f64>,
    #[serde(skip)]
    pub(super) mean: Vec<f64>,
}

/// How much of the variance the components hold among which the plane is looked for.
const NEARLY_ALL: f64 = 0.95;

impl GatePlane {
    /// The plane of the first two components; or, where more are needed to hold nearly all of the variance, one among
    /// these, if two thresholds in it tell more.
    pub(super) fn of(mid: &Tensor<f64>, says: &[bool], par: Par) -> Result<Self> {
        let pca = pca(mid.mat(&[]))?;
        let scores = pca.scores(mid.mat(&[]));
        let shares = nearly_all(&pca.explained_variance_ratio());
        let k = shares.len();
        let held = scores.as_ref().subcols(0, k);
        let mut gate = and_gate(held.subcols(0, 2), says, par)?;
        // The first filter is the one whose direction is nearer to the first component.
        if gate.directions[1][0].abs() > gate.directions[0][0].abs() {
            swap(&mut gate);
        }
        let first_two = FirstTwo {
            points: first_two_of(held),
            next: (0..scores.nrows())
                .map(|i| {
                    [2, 3].map(|c| {
                        if c < scores.ncols() {
                            scores[(i, c)]
                        } else {
                            0.0
                        }
                    })
                })
                .collect(),
            gate,
            components: pca.components.clone(),
            mean: pca.mean.clone(),
        };
        let mut plane = GatePlane {
            one_line: one_line(held, says)?,
            points: first_two.points.clone(),
            gate: first_two.gate.clone(),
            axes: pca.components,
            mean: pca.mean,
            shares,
            first_two,
        };
        if k == 2 {
            return Ok(plane);
        }
        let start = plane.gate.directions.map(|direction| {
            let rest = std::iter::repeat_n(0.0, k - 2);
            direction.into_iter().chain(rest).collect()
        });
        let turn = basis(&soft_and(held, says, start, par));
        let turned = product(held, turn.transpose());
        let mut gate = and_gate(turned.as_ref().subcols(0, 2), says, par)?;
        if gate.right > plane.gate.right {
            let points = first_two_of(turned.as_ref());
            order(&mut gate, &points, &plane.all_beyond());
            let among = product(turn.as_ref(), plane.axes.as_ref().subrows(0, k));
            plane.axes.as_mut().subrows_mut(0, k).copy_from(among);
            plane.points = points;
            plane.gate = gate;
        }
        Ok(plane)
    }

    /// The share of the variance along the first two components; NaN where there is no variance.
    pub fn first_two_hold(&self) -> f64 {
        self.shares[..2].iter().sum()
    }

    /// Whether the gate is in another plane than that of the first two components.
    pub fn is_tilted(&self) -> bool {
        self.gate.right > self.first_two.gate.right
    }

    /// How far a point is beyond each of the two thresholds.
    pub fn beyond(&self, point: [f64; 2]) -> [f64; 2] {
        [0, 1].map(|i| {
            let d = self.gate.directions[i];
            d[0] * point[0] + d[1] * point[1] - self.gate.thresholds[i]
        })
    }

    /// The same, of all inputs.
    pub fn all_beyond(&self) -> Vec<[f64; 2]> {
        self.points.iter().map(|&p| self.beyond(p)).collect()
    }

    /// A gate's direction in the stream, `[d_model]`.
    pub fn direction(&self, filter: usize) -> Vec<f64> {
        let [x, y] = self.gate.directions[filter];
        let row = |c: usize| self.axes.row(c).iter();
        row(0).zip(row(1)).map(|(e, f)| x * e + y * f).collect()
    }

    /// What of a vector of the stream lies in the plane.
    pub(super) fn coordinates(&self, vector: &[f64]) -> [f64; 2] {
        [0, 1].map(|c| {
            let row = self.axes.row(c).iter();
            row.zip(vector).map(|(e, x)| e * x).sum()
        })
    }

    /// Puts the two directions in the order of another plane's on the same inputs: each is called what the other's
    /// direction is called that it goes along with.
    pub(super) fn in_the_order_of(&mut self, other: &GatePlane) {
        let others = other.all_beyond();
        order(&mut self.gate, &self.points, &others);
        order(&mut self.first_two.gate, &self.first_two.points, &others);
    }
}

/// Puts a gate's directions into the order of what they go along with.
fn order(gate: &mut AndGate, points: &[[f64; 2]], others: &[[f64; 2]]) {
    let along = |i: usize, p: &[f64; 2]| {
        let [x, y] = gate.directions[i];
        x * p[0] + y * p[1]
    };
    let r = |i: usize, j: usize| {
        correlation(points.iter().zip(others).map(|(p, o)| [along(i, p), o[j]]))
    };
    if r(0, 1) + r(1, 0) > r(0, 0) + r(1, 1) {
        swap(gate);
    }
}

fn swap(gate: &mut AndGate) {
    gate.directions.swap(0, 1);
    gate.thresholds.swap(0, 1);
}

/// The stream after the MLP.
#[derive(Clone, Debug, Serialize)]
pub struct After {
    /// The share of the variance along the first two components.
    pub shares: [f64; 2],
    /// The inputs along these.
    #[serde(skip)]
    pub points: Vec<[f64; 2]>,
    /// The same of the stream before the MLP.
    #[serde(skip)]
    pub before: Vec<[f64; 2]>,
    /// The difference of the logits without what the MLP adds, and with it.
    #[serde(skip)]
    pub differences: Vec<[f64; 2]>,
    /// How many of the answers a threshold along the first component tells.
    pub one_line: f64,
    /// Where both logits are the same, for a point in the plane of the first two: `direction · point = threshold`.
    pub decision: Decision,
    /// `[d_model, d_model]`
    #[serde(skip)]
    pub(super) components: Mat<f64>,
    #[serde(skip)]
    pub(super) mean: Vec<f64>,
}

/// A line in a plane.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Decision {
    /// Across the line.
    pub direction: [f64; 2],
    /// How far along the direction it is.
    pub threshold: f64,
}

impl After {
    /// Of the stream before the MLP, `[input, d_model]`, and after it, `[input, 1, d_model]`.
    pub(super) fn of(
        model: &Model<f64>,
        mid: &Tensor<f64>,
        post: &Tensor<f64>,
        says: &[bool],
    ) -> Result<Self> {
        let (inputs, d) = (post.shape()[0], model.config().d_model);
        let post = post.clone().reshape(&[inputs, d]);
        let pca = pca(post.mat(&[]))?;
        let scores = pca.scores(post.mat(&[]));
        let first: Vec<f64> = scores.col(0).iter().copied().collect();
        let right = best_threshold(&first, says)?.right;
        let towards = towards_one(model);
        let dot = |row: &[f64]| -> f64 { row.iter().zip(&towards).map(|(x, t)| x * t).sum() };
        let component = |c: usize| -> Vec<f64> { pca.components.row(c).iter().copied().collect() };
        let b_U = model.weights().b_U.data();
        let apart = b_U[1] - b_U[0];
        let difference = |i| [dot(mid.slice(&[i])) + apart, dot(post.slice(&[i])) + apart];
        let ratios = pca.explained_variance_ratio();
        Ok(After {
            shares: [ratios[0], ratios[1]],
            one_line: right as f64 / inputs as f64,
            decision: Decision {
                direction: [0, 1].map(|c| dot(&component(c))),
                threshold: -dot(&pca.mean) - apart,
            },
            before: first_two_of(pca.scores(mid.mat(&[])).as_ref()),
            differences: (0..inputs).map(difference).collect(),
            points: first_two_of(scores.as_ref()),
            components: pca.components,
            mean: pca.mean,
        })
    }
}

impl After {
    /// With this share of what the MLP adds: the inputs in the plane, and the answers.
    pub fn scaled(&self, share: f64) -> (Vec<[f64; 2]>, Vec<bool>) {
        let between = |[from, to]: [f64; 2]| from + share * (to - from);
        let both = self.before.iter().zip(&self.points);
        let points = both.map(|(p, q)| [0, 1].map(|c| between([p[c], q[c]])));
        let says = self.differences.iter().map(|&d| between(d) > 0.0);
        (points.collect(), says.collect())
    }
}

/// What raises the logit of class 1 above that of class 0.
pub(super) fn towards_one(model: &Model<f64>) -> Vec<f64> {
    let rows = model.weights().W_U.data().chunks_exact(2);
    rows.map(|row| row[1] - row[0]).collect()
}

/// The first two coordinates of points.
fn first_two_of(points: MatRef<'_, f64>) -> Vec<[f64; 2]> {
    let point = |i| [points[(i, 0)], points[(i, 1)]];
    (0..points.nrows()).map(point).collect()
}

/// The first shares, down to where they hold [`NEARLY_ALL`]; two at least.
fn nearly_all(ratios: &[f64]) -> Vec<f64> {
    let mut held = 0.0;
    let more = |share: &&f64| {
        let more = held < NEARLY_ALL;
        held += **share;
        more
    };
    let count = ratios.iter().take_while(more).count();
    ratios[..count.max(2)].to_vec()
}

fn one_line(points: MatRef<'_, f64>, says: &[bool]) -> Result<f64> {
    if says.iter().all(|&s| s == says[0]) {
        // Beyond all points.
        return Ok(1.0);
    }
    let fit = Boundary::least_squares(points, says)?;
    let line = Boundary::along(&fit.direction, points, says)?;
    Ok(super::agreement(&line.classify(points), says))
}
