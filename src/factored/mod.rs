//! Matrices kept as a product of two thin factors: circuits, `W_OV = W_V W_O` and `W_E W_OV W_U`.
//!
//! A circuit's matrix is large and of low rank. Kept as its factors it takes little memory, and whatever one
//! asks of it (singular values, eigenvalues, norms, the largest entries of each row) is computed from them:
//! nothing larger than the factors is formed unless it is what was asked for.
//!
//! ```
//! use pathsum::{Factored, Par};
//! use faer::Mat;
//!
//! // [1000, 1000], of rank 2; a million entries that are never formed.
//! let A = Mat::from_fn(1000, 2, |i, j| ((i * (j + 1)) as f64 * 0.01).sin());
//! let B = Mat::from_fn(2, 1000, |i, j| ((i + j) as f64 * 0.02).cos());
//! let X = Factored::new(A, B);
//! assert_eq!(X.S()?.len(), 2);
//! let best = X.top_k(1, Par::Rayon)?;
//! let (column, value) = best.row(7).next().unwrap();
//! assert!((X.get(7, column) - value).abs() <= 8.0 * f64::EPSILON * X.norm()?);
//! # Ok::<(), pathsum::Error>(())
//! ```

mod measures;
mod products;
mod spectrum;

use crate::linalg::{Par, product, product_with};
use crate::tensor::Scalar;
use faer::{Mat, MatRef};
use std::fmt;
use std::ops::Range;

/// A matrix as the product `A B` of two factors.
///
/// # Shapes
/// `A: [m, r]`, `B: [r, n]`; the matrix is `[m, n]`. The inner dimension `r` may be anything; it is worth the
/// trouble where it is smaller than both `m` and `n`.
///
/// # Source
/// TransformerLens's `FactoredMatrix`. Nothing is cached: whoever needs the singular value decomposition twice
/// keeps it.
#[derive(Clone, PartialEq)]
pub struct Factored<T: Scalar> {
    A: Mat<T>,
    B: Mat<T>,
}

impl<T: Scalar> Factored<T> {
    /// From its factors.
    ///
    /// # Panics
    /// When the inner dimensions differ.
    #[track_caller]
    pub fn new(A: Mat<T>, B: Mat<T>) -> Self {
        assert!(
            A.ncols() == B.nrows(),
            "factors of shapes [{}, {}] and [{}, {}]: the inner dimensions differ",
            A.nrows(),
            A.ncols(),
            B.nrows(),
            B.ncols()
        );
        Factored { A, B }
    }

    /// From views of its factors, which are copied.
    ///
    /// # Panics
    /// When the inner dimensions differ.
    ///
    /// ```
    /// use pathsum::{Factored, Head, fixture};
    /// let model = fixture::induction::<f64>();
    /// let h = Head { layer: 1, head: 0 };
    /// let W_OV = Factored::from_views(model.weights().W_V(h), model.weights().W_O(h));
    /// assert_eq!(W_OV.shape(), (model.config().d_model, model.config().d_model));
    /// ```
    #[track_caller]
    pub fn from_views(A: MatRef<'_, T>, B: MatRef<'_, T>) -> Self {
        Factored::new(A.to_owned(), B.to_owned())
    }

    /// Of zeros, with no inner dimension at all.
    pub fn zeros(m: usize, n: usize) -> Self {
        Factored::new(Mat::zeros(m, 0), Mat::zeros(0, n))
    }

    /// The left factor: `[m, r]`.
    pub fn A(&self) -> MatRef<'_, T> {
        self.A.as_ref()
    }

    /// The right factor: `[r, n]`.
    pub fn B(&self) -> MatRef<'_, T> {
        self.B.as_ref()
    }

    /// Both factors.
    pub fn pair(&self) -> (MatRef<'_, T>, MatRef<'_, T>) {
        (self.A(), self.B())
    }

    /// Both factors, given away.
    pub fn into_pair(self) -> (Mat<T>, Mat<T>) {
        (self.A, self.B)
    }

    /// The rows and columns of the matrix.
    pub fn shape(&self) -> (usize, usize) {
        (self.nrows(), self.ncols())
    }

    /// `m`, the rows of the matrix.
    pub fn nrows(&self) -> usize {
        self.A.nrows()
    }

    /// `n`, the columns of the matrix.
    pub fn ncols(&self) -> usize {
        self.B.ncols()
    }

    /// `r`, the inner dimension: TransformerLens's `mdim`.
    pub fn inner(&self) -> usize {
        self.A.ncols()
    }

    /// The transpose, `Bᵀ Aᵀ`.
    pub fn transpose(&self) -> Self {
        Factored::from_views(self.B.transpose(), self.A.transpose())
    }

    /// The whole matrix, `A B`: `[m, n]`.
    ///
    /// # Cost
    /// `2 m r n` operations, and memory for `m n` values: what the factors are there to avoid.
    pub fn AB(&self, par: Par) -> Mat<T> {
        product_with(self.A(), self.B(), par)
    }

    /// The product the other way round, `B A`: `[r, r]`.
    ///
    /// # Panics
    /// When the matrix is not square.
    ///
    /// # Cost
    /// `2 n r²` operations.
    #[track_caller]
    pub fn BA(&self) -> Mat<T> {
        self.assert_square("B A");
        product(self.B(), self.A())
    }

    /// One entry.
    ///
    /// # Panics
    /// When it is outside the matrix.
    ///
    /// # Cost
    /// `2 r` operations.
    #[track_caller]
    pub fn get(&self, i: usize, j: usize) -> T {
        let (m, n) = self.shape();
        assert!(i < m && j < n, "entry ({i}, {j}) of a [{m}, {n}] matrix");
        (0..self.inner())
            .map(|l| self.A[(i, l)] * self.B[(l, j)])
            .sum()
    }

    /// One row: `[n]`.
    ///
    /// # Panics
    /// When there is no such row.
    ///
    /// # Cost
    /// `2 r n` operations.
    #[track_caller]
    pub fn row(&self, i: usize) -> Vec<T> {
        assert!(i < self.nrows(), "row {i} of {}", self.nrows());
        let a: Vec<T> = self.A.row(i).iter().copied().collect();
        products::times(self.B.transpose(), &a)
    }

    /// One column: `[m]`.
    ///
    /// # Panics
    /// When there is no such column.
    ///
    /// # Cost
    /// `2 m r` operations.
    #[track_caller]
    pub fn column(&self, j: usize) -> Vec<T> {
        assert!(j < self.ncols(), "column {j} of {}", self.ncols());
        let b: Vec<T> = self.B.col(j).iter().copied().collect();
        products::times(self.A(), &b)
    }

    /// Some of the rows, still factored.
    ///
    /// # Panics
    /// When they are not all rows of this matrix.
    #[track_caller]
    pub fn rows(&self, range: Range<usize>) -> Self {
        let A = self.A.subrows(range.start, range.len());
        Factored::from_views(A, self.B())
    }

    /// Some of the columns, still factored.
    ///
    /// # Panics
    /// When they are not all columns of this matrix.
    #[track_caller]
    pub fn columns(&self, range: Range<usize>) -> Self {
        let B = self.B.subcols(range.start, range.len());
        Factored::from_views(self.A(), B)
    }

    /// The first `k` rows and columns, or all there are: `[k, k]`. TransformerLens's `get_corner`.
    pub fn corner(&self, k: usize) -> Mat<T> {
        let A = self.A.subrows(0, k.min(self.nrows()));
        product(A, self.B.subcols(0, k.min(self.ncols())))
    }

    #[track_caller]
    fn assert_square(&self, what: &str) {
        let (m, n) = self.shape();
        assert!(m == n, "{what} of a [{m}, {n}] matrix: it must be square");
    }
}

impl<T: Scalar> fmt::Debug for Factored<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((m, n), r) = (self.shape(), self.inner());
        write!(f, "Factored[{m}, {r}][{r}, {n}]")
    }
}
