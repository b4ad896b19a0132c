//! Matrices as circuits multiply them: the cheap ones are never formed.

use crate::linalg::{Par, product_with};
use crate::tensor::Scalar;
use faer::{Mat, MatMut, MatRef};

/// A matrix as it is multiplied with.
pub(crate) enum Matrix<'a, T> {
    View(MatRef<'a, T>),
    Owned(Mat<T>),
    Diagonal(Vec<T>),
    /// `I - 1 1ᵀ / n`
    Centring(usize),
    /// 1 at these places, 0 elsewhere.
    Selection {
        rows: usize,
        cols: usize,
        ones: Vec<(usize, usize)>,
    },
}

impl<'a, T: Scalar> Matrix<'a, T> {
    pub fn t(self) -> Self {
        match self {
            Matrix::View(M) => Matrix::View(M.transpose()),
            Matrix::Owned(M) => Matrix::Owned(M.transpose().to_owned()),
            Matrix::Selection { rows, cols, ones } => Matrix::Selection {
                rows: cols,
                cols: rows,
                ones: ones.into_iter().map(|(i, j)| (j, i)).collect(),
            },
            symmetric => symmetric,
        }
    }

    pub fn dense(&self) -> Option<MatRef<'_, T>> {
        match self {
            Matrix::View(M) => Some(*M),
            Matrix::Owned(M) => Some(M.as_ref()),
            _ => None,
        }
    }

    /// The matrix with all its entries.
    pub fn to_dense(&self) -> Mat<T> {
        match self {
            Matrix::View(M) => M.to_owned(),
            Matrix::Owned(M) => M.clone(),
            Matrix::Diagonal(d) => {
                Mat::from_fn(d.len(), d.len(), |i, j| if i == j { d[i] } else { T::ZERO })
            }
            Matrix::Centring(n) => {
                let mean = T::ONE / T::from_f64(*n as f64);
                Mat::from_fn(*n, *n, |i, j| if i == j { T::ONE - mean } else { -mean })
            }
            Matrix::Selection { rows, cols, ones } => {
                let mut M = Mat::zeros(*rows, *cols);
                ones.iter().for_each(|&at| M[at] = T::ONE);
                M
            }
        }
    }

    pub fn times(&self, right: &Matrix<'_, T>, par: Par) -> Mat<T> {
        match (self.dense(), right.dense()) {
            (Some(A), Some(B)) => product_with(A, B, par),
            (Some(A), None) => right.act_on_columns(A),
            // `A B = (Bᵀ Aᵀ)ᵀ`, where `A` is one of the cheap ones.
            (None, Some(B)) => self.act_on_rows(B),
            (None, None) => self.act_on_rows(right.to_dense().as_ref()),
        }
    }

    /// `self · B`
    fn act_on_rows(&self, B: MatRef<'_, T>) -> Mat<T> {
        match self {
            Matrix::Diagonal(d) => Mat::from_fn(B.nrows(), B.ncols(), |i, j| d[i] * B[(i, j)]),
            Matrix::Centring(_) => {
                let mut out = B.to_owned();
                for j in 0..out.ncols() {
                    center(out.col_mut(j).as_mat_mut());
                }
                out
            }
            Matrix::Selection { rows, ones, .. } => {
                let mut out = Mat::zeros(*rows, B.ncols());
                for &(i, j) in ones {
                    let to = out.row_mut(i).iter_mut();
                    to.zip(B.row(j).iter()).for_each(|(to, &x)| *to += x);
                }
                out
            }
            Matrix::View(_) | Matrix::Owned(_) => unreachable!("dense ones are multiplied"),
        }
    }

    /// `A · self`
    fn act_on_columns(&self, A: MatRef<'_, T>) -> Mat<T> {
        match self {
            Matrix::Diagonal(d) => Mat::from_fn(A.nrows(), A.ncols(), |i, j| A[(i, j)] * d[j]),
            Matrix::Centring(_) => {
                let mut out = A.to_owned();
                for i in 0..out.nrows() {
                    center(out.row_mut(i).as_mat_mut());
                }
                out
            }
            Matrix::Selection { cols, ones, .. } => {
                let mut out = Mat::zeros(A.nrows(), *cols);
                for &(i, j) in ones {
                    let to = out.col_mut(j).iter_mut();
                    to.zip(A.col(i).iter()).for_each(|(to, &x)| *to += x);
                }
                out
            }
            Matrix::View(_) | Matrix::Owned(_) => unreachable!("dense ones are multiplied"),
        }
    }
}

/// Less their mean.
fn center<T: Scalar>(mut x: MatMut<'_, T>) {
    let (rows, cols) = (x.nrows(), x.ncols());
    let all = || (0..rows).flat_map(move |i| (0..cols).map(move |j| (i, j)));
    let sum = all().map(|at| x[at]).sum::<T>();
    let mean = sum / T::from_f64((rows * cols) as f64);
    all().for_each(|at| x[at] -= mean);
}
