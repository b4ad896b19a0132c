//! Rotations by distances, in numbers.

use crate::tensor::Scalar;
use faer::Mat;

/// How a model turns queries and keys: the pairs of entries that are turned together, and by how much a position
/// turns each.
pub(crate) struct Rotation {
    d_head: usize,
    pairs: Vec<(usize, usize)>,
    /// Radians a position, for each pair.
    angles: Vec<f64>,
}

impl Rotation {
    /// # Panics
    /// When there is not one angle for every pair, or a pair lies outside a head.
    #[track_caller]
    pub fn new(d_head: usize, pairs: Vec<(usize, usize)>, angles: Vec<f64>) -> Self {
        assert_eq!(pairs.len(), angles.len(), "one angle a pair");
        assert!(pairs.iter().all(|&(a, b)| a < d_head && b < d_head));
        Rotation {
            d_head,
            pairs,
            angles,
        }
    }

    /// `[d_head, d_head]`: the matrix that turns a row by `n` positions, from the right. Of a pair `(a, b)` entry `a`
    /// becomes `a cos - b sin`, entry `b` becomes `b cos + a sin`. Angles are computed in f64, and entries rounded
    /// once.
    pub fn matrix<T: Scalar>(&self, n: i64) -> Mat<T> {
        let mut M = Mat::identity(self.d_head, self.d_head);
        for (&(a, b), &angle) in self.pairs.iter().zip(&self.angles) {
            let (sin, cos) = (n as f64 * angle).sin_cos();
            M[(a, a)] = T::from_f64(cos);
            M[(b, a)] = T::from_f64(-sin);
            M[(a, b)] = T::from_f64(sin);
            M[(b, b)] = T::from_f64(cos);
        }
        M
    }

    /// The pairs of entries that are turned together.
    pub fn pairs(&self) -> &[(usize, usize)] {
        &self.pairs
    }

    /// The largest angle by which `n` positions turn a pair, in radians.
    pub fn angle(&self, n: i64) -> f64 {
        let largest = self.angles.iter().fold(0.0, |x: f64, y| x.max(y.abs()));
        n.unsigned_abs() as f64 * largest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// LLaMA's angles for heads of six, of which four entries are turned.
    fn rotation() -> Rotation {
        Rotation::new(6, vec![(0, 2), (1, 3)], vec![1.0, 0.01])
    }

    #[test]
    fn rows_are_turned_as_transformers_turns_them() {
        let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let M = rotation().matrix::<f64>(3);
        let turned = |j: usize| (0..6).map(|i| x[i] * M[(i, j)]).sum::<f64>();
        // `x cos + rotate_half(x) sin`, where `rotate_half([a, b]) = [-b, a]` over the entries that are turned.
        for (f, angle) in [(0, 3.0f64), (1, 3.0 * 0.01)] {
            let (a, b) = (x[f], x[f + 2]);
            assert_eq!(turned(f), a * angle.cos() - b * angle.sin());
            assert_eq!(turned(f + 2), b * angle.cos() + a * angle.sin());
        }
        assert_eq!([turned(4), turned(5)], [5.0, 6.0]);
    }

    #[test]
    fn back_is_the_transpose_to_the_bit() {
        for n in [0, 1, 7, 1000] {
            let (there, back) = (rotation().matrix::<f32>(n), rotation().matrix::<f32>(-n));
            assert_eq!(there.transpose(), back.as_ref());
        }
        assert_eq!(rotation().matrix::<f64>(0), Mat::<f64>::identity(6, 6));
    }

    /// What the algebra says of rotations, as far as rounding lets it be true.
    #[test]
    fn turns_add_up() {
        let of = |n| rotation().matrix::<f64>(n);
        for (i, j) in [(2, 3), (100, -40), (7, -7)] {
            let error = (of(i) * of(j) - of(i + j)).norm_max();
            // The angles' roundings, and a few of products of numbers below one.
            let angles = rotation().angle(i) + rotation().angle(j) + rotation().angle(i + j);
            assert!(error <= (angles + 16.0) * f64::EPSILON, "{i} {j}: {error}");
        }
    }

    #[test]
    fn the_largest_angle_counts_whatever_its_sign() {
        let rotation = Rotation::new(4, vec![(0, 1), (2, 3)], vec![0.5, -2.0]);
        assert_eq!(rotation.angle(-3), 6.0);
    }
}
