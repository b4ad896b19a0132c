//! Principal components.

use super::affine::{centred, column_means};
use super::scale::{exponent, scaled, times_power};
use super::svd::svd;
use super::{product, triangular_factor};
use crate::error::{Error, Result};
use crate::tensor::Scalar;
use faer::{Mat, MatRef};

/// The principal components of some points: the directions of their spread about the mean, the widest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Pca<T> {
    /// `[d]`
    pub mean: Vec<T>,
    /// `[k, d]`, orthonormal rows; in each the entry of the largest modulus is positive (the first of several).
    pub components: Mat<T>,
    /// `[k]`, descending: the sample variance along each component.
    pub explained_variance: Vec<T>,
}

/// The principal components of the rows of `X: [m, d]`: `min(m, d)` of them, which is all there can be.
///
/// ```
/// use pathsum::linalg::pca;
/// use faer::Mat;
/// let points = Mat::from_fn(9, 2, |i, j| i as f64 * [3.0, -4.0][j]);
/// let pca = pca(points.as_ref())?;
/// assert!((pca.components[(0, 1)] - 0.8).abs() < 1e-12, "the larger entry is positive");
/// assert!((pca.explained_variance_ratio()[0] - 1.0).abs() < 1e-12);
/// let again = pca.reconstruct(pca.scores(points.as_ref()).as_ref());
/// assert!((again - points).norm_max() < 1e-12);
/// # Ok::<(), pathsum::Error>(())
/// ```
///
/// # Errors
/// When there are fewer than two points, an entry is NaN or infinite, or no singular value decomposition is found.
///
/// # Cost
/// One QR decomposition of the centred points, without its `Q`: `2 m d²`.
pub fn pca<T: Scalar>(X: MatRef<'_, T>) -> Result<Pca<T>> {
    let (m, d) = X.shape();
    if m < 2 {
        return Err(Error::TooFew {
            found: m,
            least: 2,
            message: format!("principal components of {m} points, expected at least two"),
        });
    }
    let mean = column_means(X);
    let points = centred(X, &mean);
    let Some(e) = exponent(points.as_ref()) else {
        return Err(Error::Numeric(
            "principal components of points with a NaN or an infinity".into(),
        ));
    };
    let R = triangular_factor(scaled(points.as_ref(), -e).as_ref());
    let found = svd(R.as_ref())?;
    let sign = |j: usize| {
        let column = found.V.col(j);
        let largest = column
            .iter()
            .fold(T::ZERO, |m, &x| if x.abs() > m.abs() { x } else { m });
        if largest < T::ZERO { -T::ONE } else { T::ONE }
    };
    let signs: Vec<T> = (0..found.S.len()).map(sign).collect();
    let degrees = T::from_f64((m - 1) as f64).sqrt();
    Ok(Pca {
        mean,
        components: Mat::from_fn(signs.len(), d, |i, j| found.V[(j, i)] * signs[i]),
        explained_variance: (found.S.iter())
            .map(|&s| times_power(s / degrees, e))
            .map(|s| s * s)
            .collect(),
    })
}

impl<T: Scalar> Pca<T> {
    /// The points along each component, `[m, k]`, the mean being the origin.
    ///
    /// # Panics
    /// When the points have another number of coordinates.
    #[track_caller]
    pub fn scores(&self, X: MatRef<'_, T>) -> Mat<T> {
        assert_eq!(X.ncols(), self.mean.len(), "coordinates");
        let points = centred(X, &self.mean);
        product(points.as_ref(), self.components.transpose())
    }

    /// The points of these scores: of all components, the points themselves; of the first few, what those
    /// components say of them.
    ///
    /// # Shapes
    /// `scores: [m, j]` with `j <= k`; the points are `[m, d]`.
    ///
    /// # Panics
    /// When there are more scores than components.
    #[track_caller]
    pub fn reconstruct(&self, scores: MatRef<'_, T>) -> Mat<T> {
        let components = self.components.as_ref().subrows(0, scores.ncols());
        let mut points = product(scores, components);
        for (j, &mean) in self.mean.iter().enumerate() {
            points.col_mut(j).iter_mut().for_each(|x| *x += mean);
        }
        points
    }

    /// Of the whole variance, the share along each component; NaN where the points are all the same.
    pub fn explained_variance_ratio(&self) -> Vec<T> {
        let all: T = self.explained_variance.iter().copied().sum();
        self.explained_variance.iter().map(|&v| v / all).collect()
    }
}
