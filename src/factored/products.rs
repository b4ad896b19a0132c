//! Products, sums and multiples of factored matrices.

use super::Factored;
use crate::error::Result;
use crate::linalg::{Par, product, product_with};
use crate::tensor::Scalar;
use faer::{Mat, MatRef};
use std::ops::{Mul, Neg};

/// `M x`.
pub(super) fn times<T: Scalar>(M: MatRef<'_, T>, x: &[T]) -> Vec<T> {
    let x = MatRef::from_column_major_slice(x, x.len(), 1);
    product(M, x).col(0).iter().copied().collect()
}

/// `M` with every entry multiplied.
fn scaled<T: Scalar>(M: MatRef<'_, T>, factor: T) -> Mat<T> {
    Mat::from_fn(M.nrows(), M.ncols(), |i, j| M[(i, j)] * factor)
}

impl<T: Scalar> Factored<T> {
    #[track_caller]
    fn assert_meets(left: (usize, usize), right: (usize, usize)) {
        let ((m, n), (p, q)) = (left, right);
        assert!(n == p, "[{m}, {n}] [{p}, {q}]: the inner dimensions differ");
    }

    /// `A B M`, with the smaller of `r` and `n` as its inner dimension.
    ///
    /// # Shapes
    /// `M: [n, p]`; the result is `[m, p]`.
    ///
    /// # Panics
    /// When the inner dimensions differ.
    ///
    /// # Cost
    /// `2 r n p` operations; where `n < r`, `2 m r n`.
    #[track_caller]
    pub fn times_dense(&self, M: MatRef<'_, T>, par: Par) -> Self {
        Self::assert_meets(self.shape(), M.shape());
        if self.inner() <= self.ncols() {
            Factored::new(self.A.clone(), product_with(self.B(), M, par))
        } else {
            Factored::new(self.AB(par), M.to_owned())
        }
    }

    /// `M A B`, with the smaller of `r` and `m` as its inner dimension.
    ///
    /// # Shapes
    /// `M: [p, m]`; the result is `[p, n]`.
    ///
    /// # Panics
    /// When the inner dimensions differ.
    ///
    /// # Cost
    /// `2 p m r` operations; where `m < r`, `2 m r n`.
    #[track_caller]
    pub fn dense_times(&self, M: MatRef<'_, T>, par: Par) -> Self {
        Self::assert_meets(M.shape(), self.shape());
        if self.inner() <= self.nrows() {
            Factored::new(product_with(M, self.A(), par), self.B.clone())
        } else {
            Factored::new(M.to_owned(), self.AB(par))
        }
    }

    /// `A B A' B'`, with the smallest of `r`, `r'` and `n` as its inner dimension.
    ///
    /// # Shapes
    /// `A' B': [n, p]`, of inner dimension `r'`; the result is `[m, p]`.
    ///
    /// # Panics
    /// When the inner dimensions differ.
    ///
    /// # Cost
    /// `2 r n r'` operations for `B A'`, and `2 r r' p` or `2 m r r'` to join it to the larger side.
    #[track_caller]
    pub fn times(&self, other: &Self, par: Par) -> Self {
        Self::assert_meets(self.shape(), other.shape());
        let (r, s, n) = (self.inner(), other.inner(), self.ncols());
        if n < r && n < s {
            return Factored::new(self.AB(par), other.AB(par));
        }
        let core = product_with(self.B(), other.A(), par);
        if r <= s {
            Factored::new(self.A.clone(), product_with(core.as_ref(), other.B(), par))
        } else {
            Factored::new(product_with(self.A(), core.as_ref(), par), other.B.clone())
        }
    }

    /// `A B x`: `[m]`.
    ///
    /// # Panics
    /// When `x` has not `n` values.
    ///
    /// # Cost
    /// `2 (m + n) r` operations.
    #[track_caller]
    pub fn times_vector(&self, x: &[T]) -> Vec<T> {
        Self::assert_meets(self.shape(), (x.len(), 1));
        times(self.A(), &times(self.B(), x))
    }

    /// `x A B`: `[n]`.
    ///
    /// # Panics
    /// When `x` has not `m` values.
    ///
    /// # Cost
    /// `2 (m + n) r` operations.
    #[track_caller]
    pub fn vector_times(&self, x: &[T]) -> Vec<T> {
        Self::assert_meets((1, x.len()), self.shape());
        times(self.B.transpose(), &times(self.A.transpose(), x))
    }

    /// The matrix times a number, which goes into the left factor.
    pub fn scale(&self, factor: T) -> Self {
        Factored::new(scaled(self.A(), factor), self.B.clone())
    }

    /// `A B + A' B'`, with the sum's numerical rank as its inner dimension.
    ///
    /// # Shapes
    /// Both `[m, n]`; the result's inner dimension is at most the smaller of `m`, `n` and `r + r'`.
    ///
    /// # Errors
    /// As [`Factored::recompress`].
    ///
    /// # Panics
    /// When the shapes differ.
    ///
    /// # Cost
    /// `O((m + n) (r + r')²)`.
    #[track_caller]
    pub fn sum(&self, other: &Self) -> Result<Self> {
        self.beside(other, T::ONE).recompress()
    }

    /// `A B - A' B'`; shapes, errors, panics and cost are those of [`Factored::sum`].
    #[track_caller]
    pub fn difference(&self, other: &Self) -> Result<Self> {
        self.beside(other, -T::ONE).recompress()
    }

    /// The Frobenius norm of `A B - A' B'`, without forming either.
    ///
    /// # Errors
    /// When a factor holds a NaN or an infinity, or the norm overflows.
    ///
    /// # Panics
    /// When the shapes differ.
    ///
    /// # Cost
    /// `O((m + n) (r + r')²)`.
    #[track_caller]
    pub fn distance(&self, other: &Self) -> Result<T> {
        self.beside(other, -T::ONE).norm()
    }

    /// `A B + factor A' B'`, as `[A, factor A'] [B; B']`.
    #[track_caller]
    fn beside(&self, other: &Self, factor: T) -> Self {
        let ((m, n), (p, q)) = (self.shape(), other.shape());
        assert!(
            (m, n) == (p, q),
            "[{m}, {n}] and [{p}, {q}]: the shapes differ"
        );
        let (r, s) = (self.inner(), other.inner());
        let mut A = Mat::zeros(m, r + s);
        A.as_mut().subcols_mut(0, r).copy_from(self.A());
        let right = scaled(other.A(), factor);
        A.as_mut().subcols_mut(r, s).copy_from(&right);
        let mut B = Mat::zeros(r + s, n);
        B.as_mut().subrows_mut(0, r).copy_from(self.B());
        B.as_mut().subrows_mut(r, s).copy_from(other.B());
        Factored::new(A, B)
    }
}

/// On the calling thread; [`Factored::times`] takes threads.
impl<T: Scalar> Mul<&Factored<T>> for &Factored<T> {
    type Output = Factored<T>;

    #[track_caller]
    fn mul(self, other: &Factored<T>) -> Factored<T> {
        self.times(other, Par::Seq)
    }
}

/// On the calling thread; [`Factored::times_dense`] takes threads.
impl<T: Scalar> Mul<MatRef<'_, T>> for &Factored<T> {
    type Output = Factored<T>;

    #[track_caller]
    fn mul(self, M: MatRef<'_, T>) -> Factored<T> {
        self.times_dense(M, Par::Seq)
    }
}

/// On the calling thread; [`Factored::dense_times`] takes threads.
impl<T: Scalar> Mul<&Factored<T>> for MatRef<'_, T> {
    type Output = Factored<T>;

    #[track_caller]
    fn mul(self, X: &Factored<T>) -> Factored<T> {
        X.dense_times(self, Par::Seq)
    }
}

impl<T: Scalar> Mul<T> for &Factored<T> {
    type Output = Factored<T>;

    fn mul(self, factor: T) -> Factored<T> {
        self.scale(factor)
    }
}

impl Mul<&Factored<f64>> for f64 {
    type Output = Factored<f64>;

    fn mul(self, X: &Factored<f64>) -> Factored<f64> {
        X.scale(self)
    }
}

impl Mul<&Factored<f32>> for f32 {
    type Output = Factored<f32>;

    fn mul(self, X: &Factored<f32>) -> Factored<f32> {
        X.scale(self)
    }
}

impl<T: Scalar> Neg for &Factored<T> {
    type Output = Factored<T>;

    fn neg(self) -> Factored<T> {
        self.scale(-T::ONE)
    }
}
