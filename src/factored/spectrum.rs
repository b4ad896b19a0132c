//! Singular values, eigenvalues, and what is computed from them.

use super::Factored;
use crate::error::Result;
use crate::linalg::{
    Complex, Par, Svd, eigenvalues, modulus, norm_of_product, singular_values_of_product,
    svd_of_product,
};
use crate::tensor::Scalar;
use faer::{Mat, MatRef};

/// `M diag(d)`.
fn times_diagonal<T: Scalar>(M: MatRef<'_, T>, d: &[T]) -> Mat<T> {
    Mat::from_fn(M.nrows(), d.len(), |i, j| M[(i, j)] * d[j])
}

/// `diag(d) Mᵀ`
fn diagonal_times_transpose<T: Scalar>(d: &[T], M: MatRef<'_, T>) -> Mat<T> {
    Mat::from_fn(d.len(), M.nrows(), |i, j| d[i] * M[(j, i)])
}

impl<T: Scalar> Factored<T> {
    /// The thin singular value decomposition, `A B = U diag(S) Vᵀ`.
    ///
    /// # Shapes
    /// `U: [m, k]`, `S: [k]`, `V: [n, k]`, with `k` the smallest of `m`, `r` and `n`.
    ///
    /// # Errors
    /// When a factor holds a NaN or an infinity, a singular value overflows, or no decomposition was found that
    /// reproduces the matrix.
    ///
    /// # Cost
    /// `O((m + n) r²)`: thin QR decompositions of both factors, and the decomposition of a core of at most
    /// `[r, r]`.
    ///
    /// # Source
    /// `FactoredMatrix.svd`, which returns the same three; what it calls `Vh` is `V`.
    pub fn svd(&self) -> Result<Svd<T>> {
        svd_of_product(self.A(), self.B())
    }

    /// The left singular vectors: `[m, k]`. Errors and cost are those of [`Factored::svd`].
    pub fn U(&self) -> Result<Mat<T>> {
        Ok(self.svd()?.U)
    }

    /// The singular values, descending: `[k]`. Errors are those of [`Factored::svd`].
    ///
    /// # Cost
    /// Less than the whole decomposition: no factor `Q` is formed.
    pub fn S(&self) -> Result<Vec<T>> {
        singular_values_of_product(self.A(), self.B())
    }

    /// The right singular vectors, as columns: `[n, k]`. Errors and cost are those of [`Factored::svd`].
    pub fn V(&self) -> Result<Mat<T>> {
        Ok(self.svd()?.V)
    }

    /// The eigenvalues that can be other than zero, by modulus, the largest first: the smaller of `n` and `r` of
    /// them. Those of `A B` are those of `B A`, and zeros.
    ///
    /// Of equal moduli the one with the larger real part comes first, then the one with the larger imaginary
    /// part; moduli that are equal but for rounding come in either order.
    ///
    /// # Errors
    /// When an entry is NaN or infinite, or no eigenvalues were found that have the trace of `B A` and of its
    /// square.
    ///
    /// # Panics
    /// When the matrix is not square.
    ///
    /// # Cost
    /// `2 n r²` operations for `B A`, about `10 r³` for its eigenvalues.
    ///
    /// # Source
    /// `FactoredMatrix.eigenvalues`.
    ///
    /// ```
    /// use pathsum::Factored;
    /// use faer::Mat;
    /// // |x><y| has the eigenvalue <y, x>, and zeros.
    /// let (x, y) = (Mat::from_fn(4, 1, |i, _| i as f64), Mat::from_fn(1, 4, |_, j| 1.0 + j as f64));
    /// let found = Factored::new(x, y).eigenvalues()?;
    /// assert_eq!((found.len(), found[0].re, found[0].im), (1, 20.0, 0.0));
    /// # Ok::<(), pathsum::Error>(())
    /// ```
    #[track_caller]
    pub fn eigenvalues(&self) -> Result<Vec<Complex<T>>> {
        self.assert_square("eigenvalues");
        if self.inner() <= self.ncols() {
            eigenvalues(self.BA().as_ref())
        } else {
            eigenvalues(self.AB(Par::Seq).as_ref())
        }
    }

    /// The sum of the eigenvalues over the sum of their moduli: 1 where all are positive, -1 where all are
    /// negative, 0 where there are none but zeros.
    ///
    /// The sum is real, since complex eigenvalues come in conjugate pairs. For `W_E W_OV W_U` this says how far
    /// a head copies the tokens that it attends to.
    ///
    /// # Errors, panics, cost
    /// As [`Factored::eigenvalues`].
    ///
    /// # Source
    /// "A Mathematical Framework for Transformer Circuits", *Detecting copying behavior*.
    #[track_caller]
    pub fn copying_score(&self) -> Result<T> {
        let found = self.eigenvalues()?;
        // Divided by the largest first, so that no sum overflows.
        let largest = found.first().map_or(T::ZERO, |z| modulus(*z));
        if largest == T::ZERO {
            return Ok(T::ZERO);
        }
        let sum: T = found.iter().map(|z| z.re / largest).sum();
        let moduli: T = found.iter().map(|z| modulus(*z) / largest).sum();
        Ok(sum / moduli)
    }

    /// The Frobenius norm, the root of the sum of all squared entries.
    ///
    /// # Errors
    /// When a factor holds a NaN or an infinity, or the norm overflows.
    ///
    /// # Cost
    /// `O((m + n) r²)`: QR decompositions of both factors, without their `Q`.
    ///
    /// # Source
    /// `FactoredMatrix.norm`.
    pub fn norm(&self) -> Result<T> {
        norm_of_product(self.A(), self.B())
    }

    /// The spectral norm: the largest singular value, zero for an empty matrix. Errors and cost are those of
    /// [`Factored::S`].
    pub fn spectral_norm(&self) -> Result<T> {
        Ok(self.S()?.first().copied().unwrap_or(T::ZERO))
    }

    /// The nuclear norm: the sum of the singular values. Errors and cost are those of [`Factored::S`].
    pub fn nuclear_norm(&self) -> Result<T> {
        Ok(self.S()?.into_iter().sum())
    }

    /// The number of singular values that rounding cannot account for: those above
    /// `max(m, n, r) eps Σ_l |a_l| |b_l|`, with `a_l` the columns of `A` and `b_l` the rows of `B`.
    ///
    /// The sum bounds the size of what is added up in `A B`, so that terms that cancel leave rounding errors of
    /// that size times `eps`; it does not change when `a_l` is multiplied and `b_l` divided by the same number.
    ///
    /// # Errors, cost
    /// As [`Factored::S`].
    pub fn numerical_rank(&self) -> Result<usize> {
        Ok(self.rank_of(&self.S()?))
    }

    fn rank_of(&self, S: &[T]) -> usize {
        let (m, n) = self.shape();
        let size = m.max(n).max(self.inner()) as f64;
        let norms = self.A.col_iter().zip(self.B.row_iter());
        let added: f64 = norms
            .map(|(a, b)| a.norm_l2().to_f64() * b.norm_l2().to_f64())
            .sum();
        let noise = size * T::EPSILON.to_f64() * added;
        S.iter().filter(|s| s.to_f64() > noise).count()
    }

    /// The same matrix with its numerical rank as the inner dimension, and each factor with the roots of the
    /// singular values: `(U √S) (√S Vᵀ)`.
    ///
    /// # Errors, cost
    /// As [`Factored::svd`].
    pub fn recompress(&self) -> Result<Self> {
        let svd = self.svd()?;
        let rank = self.rank_of(&svd.S);
        Ok(even(&svd, rank))
    }

    /// The same matrix as `(U √S) (√S Vᵀ)`: orthogonal columns on the left and rows on the right, with the
    /// singular values spread over both alike.
    ///
    /// # Errors, cost
    /// As [`Factored::svd`].
    ///
    /// # Source
    /// `FactoredMatrix.make_even`.
    pub fn make_even(&self) -> Result<Self> {
        let svd = self.svd()?;
        Ok(even(&svd, svd.S.len()))
    }

    /// `diag(S) Vᵀ`: the matrix up to a rotation of its rows, `[k, n]`. Errors and cost are those of
    /// [`Factored::svd`].
    pub fn collapse_l(&self) -> Result<Mat<T>> {
        let Svd { S, V, .. } = self.svd()?;
        Ok(diagonal_times_transpose(&S, V.as_ref()))
    }

    /// `U diag(S)`: the matrix up to a rotation of its columns, `[m, k]`. Errors and cost are those of
    /// [`Factored::svd`].
    pub fn collapse_r(&self) -> Result<Mat<T>> {
        let Svd { U, S, .. } = self.svd()?;
        Ok(times_diagonal(U.as_ref(), &S))
    }
}

fn even<T: Scalar>(svd: &Svd<T>, rank: usize) -> Factored<T> {
    let roots: Vec<T> = svd.S[..rank].iter().map(|s| s.sqrt()).collect();
    Factored::new(
        times_diagonal(svd.U.as_ref(), &roots),
        diagonal_times_transpose(&roots, svd.V.as_ref()),
    )
}
