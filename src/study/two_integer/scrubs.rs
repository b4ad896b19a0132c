//! Causal scrubbing of the stream at `=` between attention and MLP, as the write-up defines it.

use super::plane::FirstTwo;
use super::reading::{MlpReading, STRETCH, in_stretches};
use crate::linalg::{Par, product};
use crate::model::Model;
use crate::tensor::Tensor;
use faer::Mat;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

/// What is left of a model's agreement with the labels when all coordinates of its stream that the mechanism does not
/// look at come from other inputs.
#[derive(Clone, Debug, Serialize)]
pub struct Scrubs {
    /// The agreement with nothing exchanged.
    pub none: f64,
    /// One by one, and all together at last.
    pub tests: Vec<Test>,
    /// The agreement of the labels with other inputs' answers, drawn from all: what is left where everything is
    /// exchanged.
    pub chance: f64,
}

/// An exchange, and what it leaves.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Test {
    /// As the write-up calls it: `1`, `1*`, `2`, `3a`, `3b`; `together`.
    pub name: &'static str,
    /// The share of labels told.
    pub left: f64,
    /// The standard error of that.
    pub error: f64,
}

/// The name of the test of all of them.
pub(super) const TOGETHER: &str = "together";
/// The tests, in order.
const NAMES: [&str; 6] = ["1", "1*", "2", "3a", "3b", TOGETHER];

/// How often every input is given other inputs' coordinates: a standard error of a twentieth of a percent or so.
const DRAWS: usize = 12;
const SEED: u64 = 0;

impl Scrubs {
    /// How often every input is given other inputs' coordinates.
    pub const DRAWS: usize = DRAWS;

    /// Of the stream at `=` before the MLP, `[input, d_model]`; `None` where the gate's two directions are parallel, so
    /// that there are no two filters to tell apart.
    pub(super) fn of(
        model: &Model<f64>,
        mid: &Tensor<f64>,
        first_two: &FirstTwo,
        says: &[bool],
        labels: &[bool],
        par: Par,
    ) -> Option<Self> {
        let coordinates = Coordinates::of(mid, first_two)?;
        let reading = MlpReading::of(model).in_basis(coordinates.basis.as_ref(), &first_two.mean);
        let along = [0, 1, 2.min(mid.shape()[1] - 1)].map(|k| reading.push_along(k));
        let filters = coordinates.filters(first_two);
        let d = mid.shape()[1];
        let of = &coordinates.of;
        let hits = in_stretches(labels.len(), par, |stretch| {
            let (first, count) = (stretch.start, stretch.len());
            let mut rng = ChaCha8Rng::seed_from_u64(SEED);
            rng.set_stream((first / STRETCH) as u64);
            let own = reading.before(of.as_ref().subrows(first, count));
            let mut hits = vec![[0usize; NAMES.len()]; count];
            let mut count_hits = |test: usize, before| {
                let says = reading.says(before).into_iter();
                for ((hits, says), i) in hits.iter_mut().zip(says).zip(stretch.clone()) {
                    hits[test] += usize::from(says == labels[i]);
                }
            };
            for _ in 0..DRAWS {
                // All but the first two coordinates, each from an input of its own.
                let rest = Mat::from_fn(count, d, |_, k| match k {
                    0 | 1 => 0.0,
                    _ => of[(rng.random_range(0..of.nrows()), k)],
                });
                let rest_before = reading.before(rest.as_ref());
                let mut tests: [_; 6] = std::array::from_fn(|test| match NAMES[test] {
                    "1" | "1*" | TOGETHER => rest_before.clone(),
                    _ => own.clone(),
                });
                for (row, i) in stretch.clone().enumerate() {
                    let draw = filters.draw(i, &mut rng);
                    let at = [of[(i, 0)], of[(i, 1)]];
                    let mut put = |test: usize, to: [f64; 2], from: [f64; 2]| {
                        for f in 0..2 {
                            tests[test].add(row, to[f] - from[f], &along[f]);
                        }
                    };
                    put(0, at, [0.0; 2]);
                    put(1, at, [0.0; 2]);
                    put(2, draw.same_side, at);
                    put(3, [draw.freed[0], at[1]], at);
                    put(4, [at[0], draw.freed[1]], at);
                    put(5, draw.all, [0.0; 2]);
                    if d > 2 {
                        tests[1].add(row, of[(i, 2)] - rest[(row, 2)], &along[2]);
                    }
                }
                for (test, before) in tests.into_iter().enumerate() {
                    count_hits(test, before);
                }
            }
            hits
        });
        let hits = hits.concat();
        let share = |all: &[bool]| all.iter().filter(|&&x| x).count() as f64 / all.len() as f64;
        let (ones, said) = (share(labels), share(says));
        let test = |(test, name)| {
            let (left, error) = estimate(hits.iter().map(|h| h[test]));
            Test { name, left, error }
        };
        Some(Scrubs {
            none: super::agreement(says, labels),
            tests: NAMES.into_iter().enumerate().map(test).collect(),
            chance: ones * said + (1.0 - ones) * (1.0 - said),
        })
    }

    /// What an exchange leaves, by its name.
    ///
    /// # Panics
    /// When there is none of this name.
    #[track_caller]
    pub fn test(&self, name: &str) -> &Test {
        let found = self.tests.iter().find(|t| t.name == name);
        found.unwrap_or_else(|| panic!("no exchange is called {name}"))
    }

    /// How many of the labels an exchange loses.
    pub fn lost(&self, test: &Test) -> f64 {
        self.none - test.left
    }

    /// All of them together.
    pub fn together(&self) -> &Test {
        self.test(TOGETHER)
    }
}

/// The mean of shares, each of [`DRAWS`] independent draws of its own, and its standard error.
fn estimate(hits: impl Iterator<Item = usize>) -> (f64, f64) {
    let (mut count, mut sum, mut variance) = (0.0, 0.0, 0.0);
    let draws = DRAWS as f64;
    for hits in hits.map(|h| h as f64) {
        count += 1.0;
        sum += hits / draws;
        // Of the mean of draws that are 0 or 1.
        variance += hits * (draws - hits) / (draws * draws * (draws - 1.0));
    }
    (sum / count, variance.sqrt() / count)
}

/// The stream in coordinates of which the first two are what the gate's directions read of the plane of the first two
/// principal components, and the others are the other principal components.
struct Coordinates {
    /// `[input, d_model]`
    of: Mat<f64>,
    /// The vectors of the stream that they are multiples of, as rows.
    basis: Mat<f64>,
}

impl Coordinates {
    fn of(mid: &Tensor<f64>, first_two: &FirstTwo) -> Option<Self> {
        let [[a, b], [c, d]] = first_two.gate.directions;
        let det = a * d - b * c;
        // Unit vectors so close that what the inverse loses is half of all digits.
        if det.abs() < f64::EPSILON.sqrt() {
            return None;
        }
        let components = &first_two.components;
        let size = components.nrows();
        // What one of the directions reads as 1, and the other does not see.
        let inverse = [[d / det, -c / det], [-b / det, a / det]];
        let basis = Mat::from_fn(size, size, |i, j| match inverse.get(i) {
            Some([x, y]) => x * components[(0, j)] + y * components[(1, j)],
            None => components[(i, j)],
        });
        let centred = Mat::from_fn(mid.shape()[0], size, |i, j| mid[[i, j]] - first_two.mean[j]);
        let mut of = product(centred.as_ref(), components.transpose());
        for i in 0..of.nrows() {
            let [x, y] = [of[(i, 0)], of[(i, 1)]];
            of[(i, 0)] = a * x + b * y;
            of[(i, 1)] = c * x + d * y;
        }
        Some(Coordinates { of, basis })
    }

    fn filters(&self, first_two: &FirstTwo) -> Filtered {
        let values: [Vec<f64>; 2] = [0, 1].map(|f| self.of.col(f).iter().copied().collect());
        let passed = [0, 1].map(|f| {
            let threshold = first_two.gate.thresholds[f];
            values[f].iter().map(|&x| x > threshold).collect::<Vec<_>>()
        });
        let inputs = |f: usize, side: bool| {
            let all = 0..values[f].len();
            all.filter(|&i| passed[f][i] == side).collect()
        };
        let sides = [0, 1].map(|f| [inputs(f, false), inputs(f, true)]);
        Filtered {
            values,
            passed,
            sides,
        }
    }
}

/// The two filters' coordinates.
struct Filtered {
    values: [Vec<f64>; 2],
    passed: [Vec<bool>; 2],
    /// The inputs on either side of each threshold: `[filter][passed]`.
    sides: [[Vec<usize>; 2]; 2],
}

/// What an input's two coordinates become.
struct Resampled {
    /// \[2\]
    same_side: [f64; 2],
    /// \[3a\] of the first, \[3b\] of the second.
    freed: [f64; 2],
    /// \[2\], \[3a\], \[3b\] one after another.
    all: [f64; 2],
}

impl Filtered {
    fn draw(&self, input: usize, rng: &mut ChaCha8Rng) -> Resampled {
        let passed = [0, 1].map(|f| self.passed[f][input]);
        let own = [0, 1].map(|f| self.values[f][input]);
        let same_side = [0, 1].map(|f| self.on_side(f, passed[f], rng));
        let freed = [0, 1].map(|f| match passed[1 - f] {
            true => own[f],
            false => self.values[f][self.any_failing(1 - f, rng)],
        });
        // What an exchange brings has itself been exchanged before it, with others on its side: only the side is
        // its own. After [3a] the sides are others; but of the inputs that then fail the first filter, the shares on
        // either side of the second are what they were, as [3a] goes only among inputs that fail the second.
        let mut all = same_side;
        let mut first_passed = passed[0];
        if !passed[1] {
            first_passed = self.passed[0][self.any_failing(1, rng)];
            all[0] = self.on_side(0, first_passed, rng);
        }
        if !first_passed {
            let side = self.passed[1][self.any_failing(0, rng)];
            all[1] = self.on_side(1, side, rng);
        }
        Resampled {
            same_side,
            freed,
            all,
        }
    }

    /// A filter's coordinate of any input on a side of its threshold.
    fn on_side(&self, filter: usize, side: bool, rng: &mut ChaCha8Rng) -> f64 {
        let inputs = &self.sides[filter][usize::from(side)];
        self.values[filter][inputs[rng.random_range(0..inputs.len())]]
    }

    /// Any input that fails a filter.
    fn any_failing(&self, filter: usize, rng: &mut ChaCha8Rng) -> usize {
        let inputs = &self.sides[filter][0];
        inputs[rng.random_range(0..inputs.len())]
    }
}
