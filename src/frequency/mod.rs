//! Frequencies of a cyclic group: values over residues as sums of cosines and sines.
//!
//! ```
//! use pathsum::frequency::Fourier;
//! use pathsum::{Par, Tensor};
//!
//! // A wave of frequency 3 over the residues modulo 13, and half as much of frequency 5.
//! let wave = |k: f64, x: usize| (std::f64::consts::TAU * k * x as f64 / 13.0 + 0.4).cos();
//! let values = Tensor::from_fn(&[13, 1], |at| wave(3.0, at[0]) + 0.5 * wave(5.0, at[0]));
//! let fourier = Fourier::new(13);
//! let shares = fourier.shares(&fourier.along(&values, 0, Par::Seq));
//! assert!((shares[3] - 0.8).abs() < 1e-12 && (shares[5] - 0.2).abs() < 1e-12);
//! ```

mod pairs;

pub use pairs::{Pairs, Terms};

use crate::linalg::{Par, product_with};
use crate::tensor::{Scalar, Tensor};
use std::f64::consts::TAU;
use std::ops::Range;

/// The orthonormal real Fourier basis over the residues modulo `n`: the constant `1/sqrt(n)`, then for each frequency `k`
/// `sqrt(2/n) cos(2πkx/n)` and `sqrt(2/n) sin(2πkx/n)`; of an even `n` the last is `cos(πx)/sqrt(n)` alone.
///
/// Source: Nanda et al., "Progress measures for grokking via mechanistic interpretability" (2023), whose `F` it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Fourier {
    n: usize,
    basis: Tensor<f64>,
}

impl Fourier {
    /// Of the residues modulo `n`.
    ///
    /// # Panics
    /// When `n` is 0.
    #[track_caller]
    pub fn new(n: usize) -> Self {
        assert!(n > 0, "no residues");
        let basis = Tensor::from_fn(&[n, n], |at| entry(n, at[0], at[1]));
        Fourier { n, basis }
    }

    /// How many residues there are.
    pub fn n(&self) -> usize {
        self.n
    }

    /// The largest frequency: `n / 2`, rounded down.
    pub fn largest(&self) -> usize {
        self.n / 2
    }

    /// The basis, `[n, n]`: a row is a vector over the residues.
    pub fn basis(&self) -> &Tensor<f64> {
        &self.basis
    }

    /// The rows of a frequency: cosine and sine; the constant is that of frequency 0.
    ///
    /// # Panics
    /// When the frequency is larger than the largest.
    #[track_caller]
    pub fn rows(&self, frequency: usize) -> Range<usize> {
        assert!(frequency <= self.largest(), "frequency {frequency}");
        match frequency {
            0 => 0..1,
            k => 2 * k - 1..(2 * k + 1).min(self.n),
        }
    }

    /// The frequency of a row.
    pub fn frequency(&self, row: usize) -> usize {
        row.div_ceil(2)
    }

    /// An axis that runs over the residues, turned into one that runs over the basis: `F x` along it. The same shape.
    ///
    /// # Panics
    /// When there is no such axis, or it has another length.
    ///
    /// # Cost
    /// `n` multiplications a value.
    #[track_caller]
    pub fn along<T: Scalar>(&self, values: &Tensor<T>, axis: usize, par: Par) -> Tensor<T> {
        self.turn(values, axis, false, par)
    }

    /// The inverse of [`Fourier::along`]: `Fᵀ x`.
    ///
    /// # Panics
    /// As [`Fourier::along`].
    #[track_caller]
    pub fn back<T: Scalar>(&self, values: &Tensor<T>, axis: usize, par: Par) -> Tensor<T> {
        self.turn(values, axis, true, par)
    }

    #[track_caller]
    fn turn<T: Scalar>(&self, values: &Tensor<T>, axis: usize, back: bool, par: Par) -> Tensor<T> {
        let shape = values.shape();
        assert!(
            shape.get(axis) == Some(&self.n),
            "axis {axis} of {shape:?}, expected one of length {}",
            self.n
        );
        let (before, behind): (usize, usize) = (
            shape[..axis].iter().product(),
            shape[axis + 1..].iter().product(),
        );
        let basis = self.basis.cast::<T>();
        let basis = match back {
            true => basis.mat(&[]).transpose(),
            false => basis.mat(&[]),
        };
        let flat = |t: Tensor<T>| t.reshape(&[before, self.n, behind]);
        let values = flat(values.clone());
        let mut turned = flat(Tensor::zeros(shape));
        for i in 0..before {
            let product = product_with(basis, values.mat(&[i]), par);
            turned.mat_mut(&[i]).copy_from(product);
        }
        turned.reshape(shape)
    }

    /// The norms of a transform's rows, `[n, …]`, over all its other axes.
    ///
    /// # Panics
    /// When the first axis has another length.
    #[track_caller]
    pub fn norms(&self, transform: &Tensor<f64>) -> Vec<f64> {
        self.squares(transform).into_iter().map(f64::sqrt).collect()
    }

    /// The norm of each frequency of a transform, `[n, …]`, from 0 to the largest: of its rows together.
    ///
    /// # Panics
    /// As [`Fourier::norms`].
    #[track_caller]
    pub fn frequency_norms(&self, transform: &Tensor<f64>) -> Vec<f64> {
        let squares = self.by_frequency(&self.squares(transform));
        squares.into_iter().map(f64::sqrt).collect()
    }

    /// The share of a transform's squared norm that each frequency has, from 0 to the largest; zeros where all is zero.
    ///
    /// # Panics
    /// As [`Fourier::norms`].
    #[track_caller]
    pub fn shares(&self, transform: &Tensor<f64>) -> Vec<f64> {
        let squares = self.by_frequency(&self.squares(transform));
        let all: f64 = squares.iter().sum();
        squares.into_iter().map(|s| share(s, all)).collect()
    }

    fn by_frequency(&self, squares: &[f64]) -> Vec<f64> {
        let of = |k| squares[self.rows(k)].iter().sum();
        (0..=self.largest()).map(of).collect()
    }

    #[track_caller]
    fn squares(&self, transform: &Tensor<f64>) -> Vec<f64> {
        assert_eq!(transform.shape().first(), Some(&self.n), "rows");
        let each = transform.len() / self.n;
        let rows = transform.data().chunks(each.max(1));
        let mut squares: Vec<f64> = rows.map(|row| row.iter().map(|x| x * x).sum()).collect();
        squares.resize(self.n, 0.0);
        squares
    }
}

/// An entry of the basis of `n` residues; the angle from the exact remainder, so that no digit is lost of it.
pub(crate) fn entry(n: usize, row: usize, x: usize) -> f64 {
    let k = row.div_ceil(2);
    let angle = TAU * (k * x % n) as f64 / n as f64;
    let unit = (1.0 / n as f64).sqrt();
    match row {
        0 => unit,
        // The frequency n/2 has a cosine alone, of twice the mean square.
        _ if 2 * k == n => unit * if x.is_multiple_of(2) { 1.0 } else { -1.0 },
        _ if row % 2 == 1 => std::f64::consts::SQRT_2 * unit * angle.cos(),
        _ => std::f64::consts::SQRT_2 * unit * angle.sin(),
    }
}

/// A share of all; none of nothing.
pub(crate) fn share(part: f64, all: f64) -> f64 {
    if all > 0.0 { part / all } else { 0.0 }
}

/// How unequal numbers that are not negative are: the Gini coefficient, 0 where all are equal, nearly 1 where one has all.
///
/// `Σ (2i - n - 1) x_i / (n Σ x)` of the sorted numbers, `i` from 1; 0 where all are zero.
pub fn gini(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len() as f64;
    let weighted = sorted.iter().enumerate();
    let weighted: f64 = weighted
        .map(|(i, x)| (2.0 * (i + 1) as f64 - n - 1.0) * x)
        .sum();
    share(weighted, n * sorted.iter().sum::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `F Fᵀ = I`, for odd and even numbers of residues.
    #[test]
    fn the_basis_is_orthonormal() {
        for n in [1, 2, 3, 7, 12, 113] {
            let fourier = Fourier::new(n);
            let F = fourier.basis().mat(&[]);
            let I = product_with(F, F.transpose(), Par::Seq);
            for i in 0..n {
                for j in 0..n {
                    let expected = f64::from(u8::from(i == j));
                    // n products of entries up to sqrt(2/n), each with some roundings.
                    let bound = 16.0 * f64::EPSILON;
                    assert!((I[(i, j)] - expected).abs() <= bound, "{n}: {i} {j}");
                }
            }
            let rows = (0..=fourier.largest()).flat_map(|k| fourier.rows(k).map(move |r| (r, k)));
            let rows: Vec<(usize, usize)> = rows.collect();
            assert!(rows.iter().all(|&(r, k)| fourier.frequency(r) == k));
            assert_eq!(
                rows.iter().map(|r| r.0).collect::<Vec<_>>(),
                (0..n).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn a_transform_of_any_axis_comes_back() {
        let fourier = Fourier::new(6);
        let values = Tensor::from_fn(&[2, 6, 3], |at| {
            ((at[0] * 7 + at[1] * 5 + at[2]) as f64).sin()
        });
        let there = fourier.along(&values, 1, Par::Seq);
        let naive = |i: usize, r: usize, j: usize| -> f64 {
            (0..6).map(|x| entry(6, r, x) * values[[i, x, j]]).sum()
        };
        let bound = 64.0 * f64::EPSILON;
        for i in 0..2 {
            for r in 0..6 {
                for j in 0..3 {
                    assert!((there[[i, r, j]] - naive(i, r, j)).abs() <= bound);
                }
            }
        }
        let back = fourier.back(&there, 1, Par::Seq);
        let off = back
            .data()
            .iter()
            .zip(values.data())
            .map(|(a, b)| (a - b).abs());
        assert!(off.fold(0.0, f64::max) <= bound);
    }

    #[test]
    fn inequality_is_ginis() {
        assert_eq!(gini(&[2.0; 5]), 0.0);
        assert_eq!(gini(&[0.0, 0.0, 0.0, 1.0]), 0.75);
        assert_eq!(gini(&[0.0; 3]), 0.0);
    }
}
