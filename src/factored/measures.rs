//! What one reads off a matrix entry by entry or row by row: trace, means, norms, angles, the largest entries.

use super::Factored;
use crate::error::Result;
use crate::linalg::{
    Entry, Par, TopK, cosines, largest_of_product, product, product_with, top_k_of_product,
    triangular_factor,
};
use crate::tensor::Scalar;
use faer::Mat;

impl<T: Scalar> Factored<T> {
    /// The trace, the sum of the diagonal.
    ///
    /// # Panics
    /// When the matrix is not square.
    ///
    /// # Cost
    /// `2 n r` operations.
    #[track_caller]
    pub fn trace(&self) -> T {
        self.assert_square("trace");
        let terms = self.A.col_iter().zip(self.B.row_iter());
        terms
            .map(|(a, b)| a.iter().zip(b.iter()).map(|(&a, &b)| a * b).sum())
            .sum()
    }

    /// The diagonal: as many entries as the shorter side.
    ///
    /// # Cost
    /// `2 min(m, n) r` operations.
    pub fn diagonal(&self) -> Vec<T> {
        let length = self.nrows().min(self.ncols());
        (0..length).map(|i| self.get(i, i)).collect()
    }

    /// The inner product `<X, Y>_F = tr(Xᵀ Y)`: the sum of the products of corresponding entries.
    ///
    /// # Panics
    /// When the shapes differ.
    ///
    /// # Cost
    /// `2 (m + n) r r'` operations: `tr((Aᵀ A') (B' Bᵀ))`.
    #[track_caller]
    pub fn inner_product(&self, other: &Self) -> T {
        let ((m, n), (p, q)) = (self.shape(), other.shape());
        assert!(
            (m, n) == (p, q),
            "[{m}, {n}] and [{p}, {q}]: the shapes differ"
        );
        let left = product(self.A.transpose(), other.A());
        let right = product(self.B(), other.B.transpose());
        let columns = left.col_iter().zip(right.col_iter());
        columns
            .map(|(a, b)| a.iter().zip(b.iter()).map(|(&a, &b)| a * b).sum())
            .sum()
    }

    /// The sum of each row: `[m]`.
    ///
    /// # Cost
    /// `2 (m + n) r` operations.
    pub fn row_sums(&self) -> Vec<T> {
        self.times_vector(&vec![T::ONE; self.ncols()])
    }

    /// The sum of each column: `[n]`.
    ///
    /// # Cost
    /// `2 (m + n) r` operations.
    pub fn column_sums(&self) -> Vec<T> {
        self.vector_times(&vec![T::ONE; self.nrows()])
    }

    /// The mean of each row: `[m]`; NaN where there are no columns.
    ///
    /// # Cost
    /// `2 (m + n) r` operations.
    pub fn row_means(&self) -> Vec<T> {
        let n = T::from_f64(self.ncols() as f64);
        self.row_sums().into_iter().map(|sum| sum / n).collect()
    }

    /// The mean of each column: `[n]`; NaN where there are no rows.
    ///
    /// # Cost
    /// `2 (m + n) r` operations.
    pub fn column_means(&self) -> Vec<T> {
        let m = T::from_f64(self.nrows() as f64);
        self.column_sums().into_iter().map(|sum| sum / m).collect()
    }

    /// The length of each row: `[m]`.
    ///
    /// # Cost
    /// `O((m + n) r²)`: from the triangular factor of `Bᵀ`, so that no length is the root of a difference.
    pub fn row_norms(&self) -> Vec<T> {
        self.rotated_rows(Par::Seq)
            .row_iter()
            .map(|row| row.norm_l2())
            .collect()
    }

    /// The cosine of the angle between every two rows: `[m, m]`. That with a row of zeros is zero.
    ///
    /// # Cost
    /// `2 m² r` operations and memory for `m²` values, which were asked for.
    pub fn cosine_similarity_of_rows(&self, par: Par) -> Mat<T> {
        let rows = self.rotated_rows(par);
        cosines(rows.as_ref(), rows.as_ref(), par)
    }

    /// The rows up to a rotation, in as few coordinates as they need: `[m, min(n, r)]`.
    fn rotated_rows(&self, par: Par) -> Mat<T> {
        let R = triangular_factor(self.B.transpose());
        product_with(self.A(), R.transpose(), par)
    }

    /// The `k` largest entries of every row, the largest first; of equal ones the one further left.
    ///
    /// # Shapes
    /// `k` columns and values for each of the `m` rows; where `k` is more than `n`, `n` of them.
    ///
    /// # Errors
    /// When a factor holds a NaN or an infinity, or the factors are so large that an entry could overflow.
    ///
    /// # Cost
    /// `2 m r n` operations; memory for one copy of `B`. Selecting costs little beside the product.
    ///
    /// # Source
    /// The usual `torch.topk` of one block of rows of `W_E W_OV W_U` after another.
    ///
    /// ```
    /// use pathsum::{Factored, Par};
    /// use faer::Mat;
    /// let X = Factored::new(Mat::from_fn(2, 1, |i, _| 1.0 - 2.0 * i as f64), Mat::from_fn(1, 5, |_, j| j as f64));
    /// let best = X.top_k(2, Par::Seq)?;
    /// assert!(best.row(0).eq([(4, 4.0), (3, 3.0)]));
    /// assert!(best.row(1).eq([(0, 0.0), (1, -1.0)]));
    /// # Ok::<(), pathsum::Error>(())
    /// ```
    pub fn top_k(&self, k: usize, par: Par) -> Result<TopK<T>> {
        top_k_of_product(self.A(), self.B(), k, par)
    }

    /// The `k` largest entries of all, the largest first; of equal ones the one further up, then further left. Where `k` is more
    /// than there are, all of them.
    ///
    /// # Errors
    /// As [`Factored::top_k`].
    ///
    /// # Cost
    /// At most `2 m r n` operations, far fewer where the norms of the factors' rows and columns differ: what cannot be among the
    /// largest is not computed. Memory for a copy of both factors.
    ///
    /// ```
    /// use pathsum::{Factored, Par};
    /// use faer::Mat;
    /// let X = Factored::new(Mat::from_fn(2, 1, |i, _| 1.0 - 2.0 * i as f64), Mat::from_fn(1, 5, |_, j| j as f64));
    /// let largest = X.largest(1, Par::Seq)?[0];
    /// assert_eq!((largest.row, largest.column, largest.value), (0, 4, 4.0));
    /// # Ok::<(), pathsum::Error>(())
    /// ```
    pub fn largest(&self, k: usize, par: Par) -> Result<Vec<Entry<T>>> {
        largest_of_product(self.A(), self.B(), k, par)
    }

    /// The `k` smallest entries of all, the smallest first. As [`Factored::largest`] otherwise.
    pub fn smallest(&self, k: usize, par: Par) -> Result<Vec<Entry<T>>> {
        let mut found = (-self).largest(k, par)?;
        found
            .iter_mut()
            .for_each(|entry| entry.value = -entry.value);
        Ok(found)
    }

    /// The `k` smallest entries of every row, the smallest first. As [`Factored::top_k`] otherwise.
    pub fn bottom_k(&self, k: usize, par: Par) -> Result<TopK<T>> {
        let mut found = (-self).top_k(k, par)?;
        found.values.iter_mut().for_each(|x| *x = -*x);
        Ok(found)
    }
}
