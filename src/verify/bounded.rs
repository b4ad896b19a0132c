//! Matrices with a rigorous bound on the rounding error of every entry.
//!
//! Running error analysis in the standard model `fl(a op b) = (a op b)(1 + δ)`, `|δ| <= u`, with
//! `γ_n = n u / (1 - n u)`. A sum of products of length `k` in any order, with or without fused
//! operations, is within `γ_k |A| |B|` of the exact one. That products are such sums is assumed of a BLAS too, where one is
//! linked, and looked at before it is used (`linalg/rounding.rs`).
//!
//! Source: Higham, "Accuracy and Stability of Numerical Algorithms" (2002), chapters 2 to 4.

use crate::linalg::product;
pub(super) use crate::linalg::rounding::{gamma, rounded_up, unit};
use crate::tensor::Scalar;
use faer::{Mat, MatRef};

/// A matrix whose entries are each within `error` of the exact value.
#[derive(Clone, Debug)]
pub(super) struct Bounded<T> {
    pub value: Mat<T>,
    pub error: Mat<T>,
}

impl<T: Scalar> Bounded<T> {
    /// Values that are exact by definition: parameters, and cached values that a statement starts from.
    pub fn exact(value: MatRef<'_, T>) -> Self {
        Bounded {
            value: value.to_owned(),
            error: Mat::zeros(value.nrows(), value.ncols()),
        }
    }

    /// A row vector that is exact by definition.
    pub fn exact_row(row: &[T]) -> Self {
        Self::exact(MatRef::from_row_major_slice(row, 1, row.len()))
    }

    /// A value found elsewhere for the same expression, evaluated in whatever order: its error is
    /// bounded as this one's is.
    pub fn claimed(&self, value: MatRef<'_, T>) -> Self {
        Bounded {
            value: value.to_owned(),
            error: self.error.clone(),
        }
    }

    pub fn nrows(&self) -> usize {
        self.value.nrows()
    }

    fn from_entries(rows: usize, cols: usize, f: impl Fn(usize, usize) -> (T, T)) -> Self {
        let value = Mat::from_fn(rows, cols, |i, j| f(i, j).0);
        let error = Mat::from_fn(rows, cols, |i, j| f(i, j).1);
        Bounded { value, error }
    }

    /// `A B`
    #[track_caller]
    pub fn times(&self, other: &Self) -> Self {
        let k = self.value.ncols();
        let (A, B) = (sizes(&self.value), sizes(&other.value));
        // (|A| + E_A) (|B| + E_B) - |A| |B| + γ_k (|A| + E_A) (|B| + E_B) in two products.
        let magnitude = product(A.as_ref(), B.as_ref());
        let with_errors = product((&A + &self.error).as_ref(), (&B + &other.error).as_ref());
        // The difference of the two products cancels; their own rounding is put back, unless there
        // are no errors to carry and the products are the same numbers.
        let carried = !is_zero(&self.error) || !is_zero(&other.error);
        let slack = if carried {
            gamma::<T>(2 * k + 4)
        } else {
            T::ZERO
        };
        let gamma_k = gamma::<T>(k + 1);
        let up = rounded_up::<T>(k + 8);
        let underflow = T::from_f64(k as f64) * T::MIN_POSITIVE;
        let value = product(self.value.as_ref(), other.value.as_ref());
        let error = Mat::from_fn(value.nrows(), value.ncols(), |i, j| {
            let (all, plain) = (with_errors[(i, j)], magnitude[(i, j)]);
            let carried = if carried {
                (all - plain) + slack * all
            } else {
                T::ZERO
            };
            (carried + gamma_k * all) * up + underflow
        });
        Bounded { value, error }
    }

    /// `A B + b`, with `b` repeated for every row, the bias added at whatever point of the sum.
    #[track_caller]
    pub fn times_plus(&self, other: &Self, b: &[T]) -> Self {
        let (k, n) = (other.value.nrows(), other.value.ncols());
        // The product of [A 1] and [B; b]: its bound holds for every order of its terms.
        let ones = |M: &Mat<T>, one: T| {
            Mat::from_fn(M.nrows(), k + 1, |i, j| if j < k { M[(i, j)] } else { one })
        };
        let below = |M: &Mat<T>, b: &dyn Fn(usize) -> T| {
            Mat::from_fn(k + 1, n, |i, j| if i < k { M[(i, j)] } else { b(j) })
        };
        let left = Bounded {
            value: ones(&self.value, T::ONE),
            error: ones(&self.error, T::ZERO),
        };
        let right = Bounded {
            value: below(&other.value, &|j| b[j]),
            error: below(&other.error, &|_| T::ZERO),
        };
        left.times(&right)
    }

    /// `Aᵀ`
    pub fn transposed(&self) -> Self {
        Bounded {
            value: self.value.transpose().to_owned(),
            error: self.error.transpose().to_owned(),
        }
    }

    /// `A + B`
    #[track_caller]
    pub fn plus(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    /// `A - B`
    #[track_caller]
    pub fn minus(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    /// `f` is a sum or a difference of its two arguments; a single row or column is repeated.
    #[track_caller]
    fn zip(&self, other: &Self, f: impl Fn(T, T) -> T) -> Self {
        let (rows, cols) = (self.value.nrows(), self.value.ncols());
        let fits = |n: usize, m: usize| n == m || m == 1;
        assert!(
            fits(rows, other.value.nrows()) && fits(cols, other.value.ncols()),
            "{rows} x {cols} and {} x {}",
            other.value.nrows(),
            other.value.ncols()
        );
        let pick = |M: &Mat<T>, i: usize, j: usize| {
            M[(
                if M.nrows() == 1 { 0 } else { i },
                if M.ncols() == 1 { 0 } else { j },
            )]
        };
        let (u, up) = (unit::<T>(), rounded_up::<T>(4));
        Self::from_entries(rows, cols, |i, j| {
            let value = f(self.value[(i, j)], pick(&other.value, i, j));
            let error = self.error[(i, j)] + pick(&other.error, i, j) + u * value.abs();
            (value, error * up)
        })
    }

    /// The product with a number known to within the relative error `relative`.
    pub fn scaled(&self, factor: T, relative: T) -> Self {
        let (u, up) = (unit::<T>(), rounded_up::<T>(8));
        Self::from_entries(self.value.nrows(), self.value.ncols(), |i, j| {
            let value = factor * self.value[(i, j)];
            let error = factor.abs() * self.error[(i, j)] * (T::ONE + relative)
                + (relative + u + relative * u) * value.abs();
            (value, error * up + T::MIN_POSITIVE)
        })
    }

    /// The product of every row with an exact row of factors.
    #[track_caller]
    pub fn times_row(&self, row: &[T]) -> Self {
        assert_eq!(self.value.ncols(), row.len());
        let (u, up) = (unit::<T>(), rounded_up::<T>(4));
        Self::from_entries(self.value.nrows(), row.len(), |i, j| {
            let value = self.value[(i, j)] * row[j];
            let error = self.error[(i, j)] * row[j].abs() + u * value.abs();
            (value, error * up + T::MIN_POSITIVE)
        })
    }

    /// The quotient of every row by an exact number of its own, divided or multiplied by its inverse:
    /// two roundings at the most.
    #[track_caller]
    pub fn divided_by_column(&self, column: &[T]) -> Self {
        assert_eq!(self.value.nrows(), column.len());
        let (two_u, up) = (gamma::<T>(2), rounded_up::<T>(4));
        Self::from_entries(column.len(), self.value.ncols(), |i, j| {
            let value = self.value[(i, j)] / column[i];
            let error = self.error[(i, j)] / column[i].abs() + two_u * value.abs();
            (value, error * up + T::MIN_POSITIVE)
        })
    }

    /// The sum of every row, as a column.
    pub fn row_sums(&self) -> Self {
        let n = self.value.ncols();
        let (g, up) = (gamma::<T>(n), rounded_up::<T>(n + 4));
        Self::from_entries(self.value.nrows(), 1, |i, _| {
            let sum = (0..n).map(|j| self.value[(i, j)]).sum::<T>();
            let errors = (0..n).map(|j| self.error[(i, j)]).sum::<T>();
            let magnitude = (0..n)
                .map(|j| self.value[(i, j)].abs() + self.error[(i, j)])
                .sum::<T>();
            (sum, (errors + g * magnitude) * up)
        })
    }

    /// Every row less its mean.
    pub fn centered(&self) -> Self {
        let d = T::from_f64(self.value.ncols() as f64);
        let mean = self.row_sums().scaled(T::ONE / d, unit::<T>());
        self.minus(&mean)
    }

    /// The squares of the entries.
    pub fn squared(&self) -> Self {
        let (u, up) = (unit::<T>(), rounded_up::<T>(8));
        Self::from_entries(self.value.nrows(), self.value.ncols(), |i, j| {
            let (x, e) = (self.value[(i, j)].abs(), self.error[(i, j)]);
            let value = x * x;
            (
                (value),
                ((x + x + e) * e + u * value) * up + T::MIN_POSITIVE,
            )
        })
    }

    /// The square roots of the entries, which are positive.
    pub fn sqrt(&self) -> Self {
        let (u, up) = (unit::<T>(), rounded_up::<T>(8));
        Self::from_entries(self.value.nrows(), self.value.ncols(), |i, j| {
            let (x, e) = (self.value[(i, j)], self.error[(i, j)]);
            let value = x.sqrt();
            // |√x - √y| = |x - y| / (√x + √y), and at most √|x - y|.
            let apart = e.sqrt();
            let carried = if value > T::ZERO && e / value < apart {
                e / value
            } else {
                apart
            };
            (value, (carried + u * value) * up)
        })
    }
}

/// What the entries count in a bound on products: their moduli. A run takes zeros for subnormal weights (see
/// `tensor::without_subnormals`): these count for so much that a rounding of it is as much as they are.
pub(super) fn sizes<T: Scalar>(M: &Mat<T>) -> Mat<T> {
    let lost = (T::ONE + T::ONE) * T::MIN_POSITIVE / T::EPSILON;
    Mat::from_fn(M.nrows(), M.ncols(), |i, j| match M[(i, j)] {
        x if x.is_subnormal() => lost,
        x => x.abs(),
    })
}

fn is_zero<T: Scalar>(M: &Mat<T>) -> bool {
    M.col_iter().all(|c| c.iter().all(|&x| x == T::ZERO))
}

/// The error of an elementary function of this crate or the system's, in units of roundoff; each is
/// documented or tested to be within 2 units in the last place, that is 4 of roundoff.
pub(super) const ELEMENTARY: f64 = 4.0;

/// `softmax(row)` on the system's `exp`, with the bound of either evaluation.
///
/// `exp(s - max)` is off by `|s - max| u`, from the difference, and by the function's own error; the
/// quotient by that of its own exponential, the weighted mean of the others', and the sum's `γ_n`.
pub(super) fn bounded_softmax<T: Scalar>(row: &[T]) -> (Vec<T>, Vec<T>) {
    let max = row
        .iter()
        .copied()
        .fold(-T::INFINITY, |a, b| if b > a { b } else { a });
    let exps: Vec<T> = row.iter().map(|&s| (s - max).exp()).collect();
    let total: T = exps.iter().copied().sum();
    let u = unit::<T>();
    let relative = |s: T| ((s - max).abs() + T::from_f64(ELEMENTARY)) * u;
    let seen = || row.iter().zip(&exps).filter(|(_, e)| **e > T::ZERO);
    let mean: T = seen().map(|(&s, &e)| e / total * relative(s)).sum();
    let others = mean + gamma::<T>(row.len() + 4);
    let up = rounded_up::<T>(row.len() + 16);
    let values: Vec<T> = exps.iter().map(|&e| e / total).collect();
    let errors = row
        .iter()
        .zip(&values)
        // What underflows, or is taken for nothing just above, is off by less than twice the smallest
        // normal number.
        .map(|(&s, &p)| {
            let own = if p > T::ZERO { relative(s) } else { T::ZERO };
            p * (own + others) * up + T::MIN_POSITIVE + T::MIN_POSITIVE
        })
        .collect();
    (values, errors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};

    fn random(rng: &mut ChaCha8Rng, rows: usize, cols: usize) -> Mat<f32> {
        // Magnitudes from 1e-3 to 1e3, so that sums cancel.
        Mat::from_fn(rows, cols, |_, _| {
            let size = 10f32.powf(rng.random_range(-3.0..3.0));
            if rng.random_bool(0.5) { size } else { -size }
        })
    }

    /// What is lost where zeros stand for subnormal weights.
    #[test]
    fn subnormal_weights_may_be_zeros() {
        let x = Bounded::exact(Mat::from_fn(1, 60, |_, _| 1e6f32).as_ref());
        let W = Bounded::exact(Mat::from_fn(60, 1, |_, _| 1e-40f32).as_ref());
        let product = x.times(&W);
        assert!(product.error[(0, 0)] >= product.value[(0, 0)]);
    }

    /// f32 expressions against the same in f64, whose error is far below the bounds.
    #[test]
    fn bounds_contain_the_exact_value() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        for round in 0..200 {
            let (m, k, n) = (1 + round % 4, 1 + round % 17, 1 + round % 5);
            let (A, B, C) = (
                random(&mut rng, m, k),
                random(&mut rng, k, n),
                random(&mut rng, n, k),
            );
            let row: Vec<f32> = (0..k).map(|j| C[(0, j)]).collect();
            let wide = |M: &Mat<f32>| Mat::from_fn(M.nrows(), M.ncols(), |i, j| M[(i, j)] as f64);

            let (a, b, c) = (
                Bounded::exact(A.as_ref()),
                Bounded::exact(B.as_ref()),
                Bounded::exact(C.as_ref()),
            );
            let narrow = a
                .times(&b)
                .times(&c)
                .plus(&a)
                .minus(&Bounded::exact_row(&row))
                .times_row(&row)
                .scaled(1.0 / 3.0, 2.0 * f32::EPSILON)
                .centered();
            let roots = narrow.squared().row_sums().sqrt();

            let exact = &(&wide(&A) * &wide(&B)) * &wide(&C) + wide(&A);
            let exact = Mat::from_fn(m, k, |i, j| {
                (exact[(i, j)] - row[j] as f64) * row[j] as f64 / 3.0
            });
            for i in 0..m {
                let mean = (0..k).map(|j| exact[(i, j)]).sum::<f64>() / k as f64;
                for j in 0..k {
                    let off = (narrow.value[(i, j)] as f64 - (exact[(i, j)] - mean)).abs();
                    assert!(
                        off <= narrow.error[(i, j)] as f64,
                        "{round}: {off:e} > {:e}",
                        narrow.error[(i, j)]
                    );
                }
                let root = (0..k)
                    .map(|j| (exact[(i, j)] - mean).powi(2))
                    .sum::<f64>()
                    .sqrt();
                let off = (roots.value[(i, 0)] as f64 - root).abs();
                assert!(off <= roots.error[(i, 0)] as f64, "{round}: {off:e}");
            }
        }
    }

    #[test]
    fn bounds_are_not_idle() {
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        let (A, B) = (random(&mut rng, 8, 30), random(&mut rng, 30, 8));
        let product = Bounded::exact(A.as_ref()).times(&Bounded::exact(B.as_ref()));
        let scale = sizes(&A) * sizes(&B);
        for i in 0..8 {
            for j in 0..8 {
                let relative = product.error[(i, j)] / scale[(i, j)];
                assert!(relative < 40.0 * f32::EPSILON, "{relative:e}");
            }
        }
    }

    #[test]
    fn a_nan_has_no_bound() {
        let mut A: Mat<f64> = Mat::identity(2, 2);
        A[(0, 0)] = f64::NAN;
        let product = Bounded::exact(A.as_ref()).times(&Bounded::exact(A.as_ref()));
        assert!(product.error[(0, 0)].is_nan());
    }
}
