//! Boundaries between two classes: thresholds and hyperplanes.

use crate::error::{Error, Result};
use crate::linalg::{affine_fit, product};
use crate::tensor::Scalar;
use faer::{Mat, MatRef};
use serde::Serialize;

/// A threshold that tells two classes apart by one number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Threshold {
    /// The threshold.
    pub value: f64,
    /// Whether the class `true` lies above it.
    pub above: bool,
    /// How many values it puts on the right side.
    pub right: usize,
}

impl Threshold {
    /// The class of a value.
    pub fn classify(&self, value: f64) -> bool {
        (value > self.value) == self.above
    }
}

/// The threshold that puts the most values on the right side: the best there is. It lies in the middle between two
/// values, of several as good in the widest gap (the lowest of these); or beyond all, where one class is best for all.
///
/// # Errors
/// When there are no values, or one is NaN or infinite.
///
/// # Panics
/// When there are not as many labels as values.
///
/// # Cost
/// Sorting the values.
#[track_caller]
pub fn best_threshold<T: Scalar>(values: &[T], labels: &[bool]) -> Result<Threshold> {
    assert_eq!(values.len(), labels.len(), "a label for each value");
    let mut sorted: Vec<(f64, bool)> = values
        .iter()
        .map(|x| x.to_f64())
        .zip(labels.iter().copied())
        .collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (Some(&(low, _)), Some(&(high, _))) = (sorted.first(), sorted.last()) else {
        return Err(Error::TooFew {
            found: 0,
            least: 1,
            message: "a threshold for no values".into(),
        });
    };
    if !low.is_finite() || !high.is_finite() {
        return Err(Error::Numeric(
            "a threshold for values of which one is NaN or infinite".into(),
        ));
    }
    // Beyond all values: the whole of their range further down.
    let beyond = if high > low {
        high - low
    } else {
        low.abs().max(1.0)
    };
    let n = sorted.len();
    let mut right_above = labels.iter().filter(|&&l| l).count();
    let mut best: Option<(Threshold, f64)> = None;
    let mut consider = |value: f64, gap: f64, right_above: usize| {
        for (above, right) in [(true, right_above), (false, n - right_above)] {
            let better = best.is_none_or(|(b, widest)| (right, gap) > (b.right, widest));
            if better {
                let threshold = Threshold {
                    value,
                    above,
                    right,
                };
                best = Some((threshold, gap));
            }
        }
    };
    consider(low - beyond, 0.0, right_above);
    for (i, &(value, label)) in sorted.iter().enumerate() {
        // Below the threshold now.
        right_above = right_above + usize::from(!label) - usize::from(label);
        if let Some(&(next, _)) = sorted.get(i + 1).filter(|next| next.0 > value) {
            consider(value + (next - value) / 2.0, next - value, right_above);
        }
    }
    let (best, _) = best.expect("one was considered");
    Ok(best)
}

/// A hyperplane: `true` is where `x · direction > threshold`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Boundary {
    /// `[d]`
    pub direction: Vec<f64>,
    /// What the direction is compared with.
    pub threshold: f64,
}

impl Boundary {
    /// The hyperplane by least squares: where the affine fit of the labels, as 0 and 1, is a half.
    ///
    /// Its direction is that of Fisher's linear discriminant. Where the threshold should be the best there is along
    /// it, [`Boundary::along`] finds it.
    ///
    /// # Shapes
    /// `X: [m, d]`, a label each.
    ///
    /// # Errors
    /// When there are no points, one is not finite, or all are of one class.
    ///
    /// # Panics
    /// When there are not as many labels as points.
    ///
    /// # Cost
    /// `2 m d²` operations.
    #[track_caller]
    pub fn least_squares<T: Scalar>(X: MatRef<'_, T>, labels: &[bool]) -> Result<Self> {
        assert_eq!(X.nrows(), labels.len(), "a label for each point");
        if labels.iter().all(|&l| l) || !labels.contains(&true) {
            return Err(Error::TooFew {
                found: 1,
                least: 2,
                message: "a boundary for points of one class, expected two".into(),
            });
        }
        let classes = Mat::from_fn(
            labels.len(),
            1,
            |i, _| {
                if labels[i] { T::ONE } else { T::ZERO }
            },
        );
        let fit = affine_fit(X, classes.as_ref())?;
        Ok(Boundary {
            direction: (0..X.ncols())
                .map(|i| fit.coefficients[(i, 0)].to_f64())
                .collect(),
            threshold: 0.5 - fit.intercept[0].to_f64(),
        })
    }

    /// The hyperplane across a direction at the best threshold along it; the direction is turned round where `true`
    /// lies below.
    ///
    /// # Errors
    /// As [`best_threshold`].
    ///
    /// # Panics
    /// When there are not as many labels as points, or the direction is of another length.
    #[track_caller]
    pub fn along<T: Scalar>(direction: &[T], X: MatRef<'_, T>, labels: &[bool]) -> Result<Self> {
        let direction: Vec<f64> = direction.iter().map(|x| x.to_f64()).collect();
        let best = best_threshold(&along(&direction, X), labels)?;
        let sign = if best.above { 1.0 } else { -1.0 };
        Ok(Boundary {
            direction: direction.iter().map(|x| sign * x).collect(),
            threshold: sign * best.value,
        })
    }

    /// The class of every row of `X: [m, d]`.
    ///
    /// # Panics
    /// When the rows are of another length.
    #[track_caller]
    pub fn classify<T: Scalar>(&self, X: MatRef<'_, T>) -> Vec<bool> {
        let values = along(&self.direction, X).into_iter();
        values.map(|value| value > self.threshold).collect()
    }
}

/// `X · direction`, in f64.
#[track_caller]
fn along<T: Scalar>(direction: &[f64], X: MatRef<'_, T>) -> Vec<f64> {
    let X = Mat::from_fn(X.nrows(), X.ncols(), |i, j| X[(i, j)].to_f64());
    let column = MatRef::from_column_major_slice(direction, direction.len(), 1);
    product(X.as_ref(), column).col(0).iter().copied().collect()
}
