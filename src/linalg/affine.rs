//! Affine fits: least squares with an intercept.

use super::least_squares::solve;
use super::product;
use crate::error::{Error, Result};
use crate::tensor::Scalar;
use faer::{Mat, MatRef};

/// `output ≈ input coefficients + intercept`.
#[derive(Clone, Debug, PartialEq)]
pub struct AffineFit<T> {
    /// `[n, p]`: of all that fit as well, those of the smallest norm.
    pub coefficients: Mat<T>,
    /// `[p]`
    pub intercept: Vec<T>,
    /// `[p]`: of each output's variance, the share that the fit explains. A constant output has 1 where it is met
    /// exactly, else 0.
    pub r2: Vec<T>,
    /// How many directions of the `n` the input spreads in about its mean.
    pub rank: usize,
    /// Singular values of the centred input up to this are counted as zero.
    pub cutoff: T,
}

/// The affine map that fits best, of minimum norm.
///
/// The cut-off is that of [`least_squares`](super::least_squares()), from the size that the input has before it is
/// centred, as its entries are rounded there.
///
/// ```
/// use pathsum::linalg::affine_fit;
/// use faer::Mat;
/// let input = Mat::from_fn(4, 2, |i, j| (i * i + j) as f64);
/// let output = Mat::from_fn(4, 1, |i, _| 3.0 * input[(i, 0)] - 1.0);
/// let fit = affine_fit(input.as_ref(), output.as_ref())?;
/// // The two columns are the same but for a constant: one direction, shared by both.
/// assert_eq!(fit.rank, 1);
/// assert!((fit.coefficients[(0, 0)] - 1.5).abs() < 1e-12 && (fit.r2[0] - 1.0).abs() < 1e-12);
/// # Ok::<(), pathsum::Error>(())
/// ```
///
/// # Shapes
/// `input: [m, n]`, `output: [m, p]`.
///
/// # Errors
/// When there are no rows, an entry is NaN or infinite, or no singular value decomposition is found.
///
/// # Panics
/// When the numbers of rows differ.
///
/// # Cost
/// `2 m (n + p)²` operations.
///
/// # Source
/// scikit-learn's `LinearRegression`, and its `score`.
#[track_caller]
pub fn affine_fit<T: Scalar>(input: MatRef<'_, T>, output: MatRef<'_, T>) -> Result<AffineFit<T>> {
    if input.nrows() == 0 {
        return Err(Error::TooFew {
            found: 0,
            least: 1,
            message: "a fit to no data".into(),
        });
    }
    let (x, y) = (column_means(input), column_means(output));
    let centred = centred(input, &x);
    let outputs = self::centred(output, &y);
    let found = solve(centred.as_ref(), outputs.as_ref(), input.norm_l2())?;
    let C = found.coefficients;
    let intercept = (0..y.len())
        .map(|j| y[j] - (0..x.len()).map(|i| x[i] * C[(i, j)]).sum::<T>())
        .collect();
    let left = &outputs - product(centred.as_ref(), C.as_ref());
    let r2 = (0..y.len()).map(|j| {
        let (residual, total) = (square(&left, j), square(&outputs, j));
        if total > 0.0 {
            1.0 - residual / total
        } else {
            f64::from(residual == 0.0)
        }
    });
    Ok(AffineFit {
        r2: r2.map(T::from_f64).collect(),
        coefficients: C,
        intercept,
        rank: found.rank,
        cutoff: found.cutoff,
    })
}

impl<T: Scalar> AffineFit<T> {
    /// What the fit says of an input, `[m, p]`.
    ///
    /// # Panics
    /// When the input has another number of columns.
    #[track_caller]
    pub fn apply(&self, input: MatRef<'_, T>) -> Mat<T> {
        let mut fitted = product(input, self.coefficients.as_ref());
        for (j, &b) in self.intercept.iter().enumerate() {
            fitted.col_mut(j).iter_mut().for_each(|x| *x += b);
        }
        fitted
    }

    /// The outputs' `r2`, averaged uniformly.
    pub fn mean_r2(&self) -> T {
        let n = T::from_f64(self.r2.len() as f64);
        self.r2.iter().copied().sum::<T>() / n
    }

    /// The direction in the input along which lies what the fit has along a direction in the output:
    /// `input · carried = fit · direction`, but for a constant.
    ///
    /// # Panics
    /// When the direction has not one entry an output.
    #[track_caller]
    pub fn carry_back(&self, direction: &[T]) -> Vec<T> {
        let p = direction.len();
        let column = MatRef::from_column_major_slice(direction, p, 1);
        let carried = product(self.coefficients.as_ref(), column);
        carried.col(0).iter().copied().collect()
    }
}

/// The mean of each column, summed in f64.
pub(super) fn column_means<T: Scalar>(X: MatRef<'_, T>) -> Vec<T> {
    let m = X.nrows() as f64;
    let mean = |j| X.col(j).iter().map(|x| x.to_f64()).sum::<f64>() / m;
    (0..X.ncols()).map(|j| T::from_f64(mean(j))).collect()
}

/// Every row less the mean.
pub(super) fn centred<T: Scalar>(X: MatRef<'_, T>, mean: &[T]) -> Mat<T> {
    Mat::from_fn(X.nrows(), X.ncols(), |i, j| X[(i, j)] - mean[j])
}

/// The sum of a column's squares, in f64.
fn square<T: Scalar>(X: &Mat<T>, j: usize) -> f64 {
    X.col(j).iter().map(|x| x.to_f64().powi(2)).sum()
}
