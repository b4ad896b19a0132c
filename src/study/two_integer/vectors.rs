//! Vectors added to the stream before the MLP: random ones, and along the filters' directions.

use super::GatePlane;
use super::reading::{MlpReading, Push, in_stretches};
use crate::linalg::Par;
use crate::tensor::Tensor;
use faer::Mat;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

/// What the gate foretells of a model's answers after a vector has been added.
#[derive(Clone, Debug, Serialize)]
pub struct Vectors {
    /// How far the pairs lie from their mean: the root of the mean square. The lengths are in these units.
    pub spread: f64,
    /// How many random directions there are.
    pub directions: usize,
    /// Random vectors, each direction of the stream as likely, by their length.
    pub random: Vec<Foretold>,
    /// Vectors along each filter's direction, forwards and backwards, by their length.
    pub along: [Vec<Foretold>; 2],
    /// The pairs that this was done on.
    #[serde(skip)]
    pub inputs: Vec<usize>,
    /// The first random vector, then one along each filter's direction, by length: where the pairs are in the plane,
    /// and the answers.
    #[serde(skip)]
    pub shown: [Vec<Moved>; 3],
}

/// The answers after vectors of one length, on average.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Foretold {
    /// The vectors' length.
    pub length: f64,
    /// The share of answers that are what the gate says of the moved point.
    pub foretold: f64,
    /// The share of answers that are what they were.
    pub kept: f64,
    /// Of the pairs that the vector moves to the gate's other side, the share whose answer is then what the gate says;
    /// where there are any.
    pub crossing: Option<f64>,
}

/// The pairs after a vector was added.
#[derive(Clone, Debug)]
pub struct Moved {
    /// The vector's length.
    pub length: f64,
    /// Where they are in the plane.
    pub points: Vec<[f64; 2]>,
    /// The answers.
    pub says: Vec<bool>,
}

/// The lengths that are tried, in units of the pairs' own spread.
const LENGTHS: [f64; 8] = [0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0];
/// Up to this length the pairs are shown.
const SHOWN: f64 = 2.0;
/// Random directions.
const RANDOM: usize = 12;

impl Vectors {
    /// Of the stream before the MLP, `[input, d_model]`, with the gate in its plane.
    pub(super) fn of(
        reading: &MlpReading,
        mid: &Tensor<f64>,
        plane: &GatePlane,
        says: &[bool],
        inputs: &[usize],
        par: Par,
    ) -> Self {
        let d = mid.shape()[1];
        let rows = Mat::from_fn(inputs.len(), d, |i, j| mid[[inputs[i], j]]);
        let spread = spread(mid, &plane.mean);
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut directions: Vec<Vec<f64>> = (0..RANDOM).map(|_| random(d, &mut rng)).collect();
        for filter in 0..2 {
            let direction = plane.direction(filter);
            directions.push(direction.clone());
            directions.push(direction.iter().map(|x| -x).collect());
        }
        let pushes: Vec<Push> = directions.iter().map(|x| reading.push(x)).collect();
        // [stretch][direction][length][input]
        let answers = in_stretches(inputs.len(), par, |stretch| {
            let before = reading.before(rows.as_ref().subrows(stretch.start, stretch.len()));
            let each = |push: &Push| {
                let at = |length: f64| {
                    let mut moved = before.clone();
                    moved.add_to_all(length * spread, push);
                    reading.says(moved)
                };
                LENGTHS.map(at)
            };
            pushes.iter().map(each).collect::<Vec<_>>()
        });
        let moved = |direction: usize, step: usize| {
            let in_plane = plane.coordinates(&directions[direction]);
            let by = in_plane.map(|x| x * LENGTHS[step] * spread);
            let points = inputs.iter().map(|&i| plane.points[i]);
            let says = answers.iter().map(|s| s[direction][step].as_slice());
            Moved {
                length: LENGTHS[step],
                points: points.map(|[x, y]| [x + by[0], y + by[1]]).collect(),
                says: says.collect::<Vec<_>>().concat(),
            }
        };
        let own: Vec<bool> = inputs.iter().map(|&i| says[i]).collect();
        let gate = |p: &[f64; 2]| plane.gate.classify(*p);
        let before: Vec<bool> = (inputs.iter()).map(|&i| gate(&plane.points[i])).collect();
        let by_length = |directions: std::ops::Range<usize>| -> Vec<Foretold> {
            let of = |step: usize| {
                let (mut foretold, mut kept, mut crossed, mut crossing) = (0, 0, 0, 0);
                for direction in directions.clone() {
                    let after = moved(direction, step);
                    for (i, (point, &says)) in after.points.iter().zip(&after.says).enumerate() {
                        let told = gate(point);
                        foretold += usize::from(says == told);
                        kept += usize::from(says == own[i]);
                        if told != before[i] {
                            crossed += 1;
                            crossing += usize::from(says == told);
                        }
                    }
                }
                let all = (directions.len() * inputs.len()) as f64;
                Foretold {
                    length: LENGTHS[step],
                    foretold: foretold as f64 / all,
                    kept: kept as f64 / all,
                    crossing: (crossed > 0).then(|| crossing as f64 / crossed as f64),
                }
            };
            (0..LENGTHS.len()).map(of).collect()
        };
        // Beyond this the pairs are far outside their own plane's picture.
        let near = LENGTHS.iter().filter(|&&length| length <= SHOWN).count();
        let shown = |direction| (0..near).map(|s| moved(direction, s)).collect();
        Vectors {
            spread,
            directions: RANDOM,
            random: by_length(0..RANDOM),
            along: [0, 1].map(|f| by_length(RANDOM + 2 * f..RANDOM + 2 * f + 2)),
            shown: [0, RANDOM, RANDOM + 2].map(shown),
            inputs: inputs.to_vec(),
        }
    }
}

/// The root of the mean square distance from the mean.
fn spread(mid: &Tensor<f64>, mean: &[f64]) -> f64 {
    let squares = mid.data().chunks_exact(mean.len()).map(|row| {
        let off = row.iter().zip(mean).map(|(x, m)| (x - m).powi(2));
        off.sum::<f64>()
    });
    (squares.sum::<f64>() / mid.shape()[0] as f64).sqrt()
}

/// A vector of length one in a direction that is as likely as any other.
fn random(dimensions: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
    // The sum of twelve uniform numbers is normal enough for no direction to be preferred.
    let mut normal = || (0..12).map(|_| rng.random_range(-0.5..0.5f64)).sum::<f64>();
    let x: Vec<f64> = (0..dimensions).map(|_| normal()).collect();
    let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
    x.iter().map(|x| x / norm).collect()
}
