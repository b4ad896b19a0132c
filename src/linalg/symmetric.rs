//! Eigenvalues and eigenvectors of a symmetric matrix.

use super::product;
use crate::error::{Error, Result};
use crate::tensor::Scalar;
use faer::{Mat, MatRef};

/// Eigenvalues and eigenvectors.
#[derive(Clone, Debug)]
pub struct SymmetricEigen<T> {
    /// The eigenvalues, by modulus, the largest first.
    pub values: Vec<T>,
    /// `[n, n]`: the eigenvectors, of norm one, as columns.
    pub vectors: Mat<T>,
}

/// The eigenvalues and eigenvectors of a symmetric matrix, of which the lower triangle is read.
///
/// # Errors
/// When an entry is NaN or infinite, or what was found does not multiply to the matrix.
///
/// # Panics
/// When the matrix is not square.
///
/// # Cost
/// About `20 n³` operations.
///
/// # Source
/// The singular value decomposition of `M + c I`, with `c` so large that no eigenvalue is negative: there the two are one,
/// whatever signs `M` has. Eigenvalues are then `vᵀ M v`, which loses nothing to `c`.
#[track_caller]
pub fn symmetric_eigen<T: Scalar>(M: MatRef<'_, T>) -> Result<SymmetricEigen<T>> {
    let n = M.nrows();
    assert!(
        n == M.ncols(),
        "eigenvectors of a [{n}, {}] matrix",
        M.ncols()
    );
    let M = Mat::from_fn(n, n, |i, j| M[(i.max(j), i.min(j))]);
    let size = M.norm_l2();
    if !size.is_finite() {
        let reason = "eigenvectors of a matrix with a NaN or an infinity, or whose norm overflows";
        return Err(Error::Numeric(reason.into()));
    }
    let shift = size + size;
    let shifted = Mat::from_fn(n, n, |i, j| {
        M[(i, j)] + if i == j { shift } else { T::ZERO }
    });
    let failed = || Error::Numeric(format!("no eigenvectors found for a {n} x {n} matrix"));
    let (_, _, V) = T::thin_svd(shifted.as_ref()).ok_or_else(failed)?;
    let MV = product(M.as_ref(), V.as_ref());
    let quotient = |j: usize| (0..n).map(|i| V[(i, j)] * MV[(i, j)]).sum::<T>();
    let mut found: Vec<(T, usize)> = (0..n).map(|j| (quotient(j), j)).collect();
    // A decomposition that is backward stable leaves no more than this of `M V - V D`.
    let allowed = T::from_f64((64 * n) as f64) * T::EPSILON * (size + shift);
    for &(value, j) in &found {
        let left = (0..n).map(|i| MV[(i, j)] - value * V[(i, j)]);
        let residual = left.map(|x| x * x).sum::<T>().sqrt();
        if residual.is_nan() || residual > allowed {
            return Err(failed());
        }
    }
    found.sort_by(|a, b| b.0.abs().to_f64().total_cmp(&a.0.abs().to_f64()));
    Ok(SymmetricEigen {
        values: found.iter().map(|f| f.0).collect(),
        vectors: Mat::from_fn(n, n, |i, j| V[(i, found[j].1)]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};

    /// Against nalgebra's, also where two eigenvalues differ in nothing but their sign.
    #[test]
    fn eigenvalues_are_those_of_nalgebra_and_vectors_are_eigenvectors() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut cases = vec![
            Mat::from_fn(2, 2, |i, j| f64::from(i != j)),
            Mat::zeros(3, 3),
            Mat::identity(4, 4),
        ];
        for n in [1, 2, 5, 17, 40] {
            let M = Mat::from_fn(n, n, |_, _| rng.random_range(-1.0..1.0));
            cases.push(Mat::from_fn(n, n, |i, j| M[(i, j)] + M[(j, i)]));
        }
        for M in cases {
            let n = M.nrows();
            let found = symmetric_eigen(M.as_ref()).unwrap();
            let oracle = nalgebra::DMatrix::from_fn(n, n, |i, j| M[(i, j)]);
            let mut expected: Vec<f64> = oracle.symmetric_eigenvalues().iter().copied().collect();
            let mut values = found.values.clone();
            expected.sort_by(f64::total_cmp);
            values.sort_by(f64::total_cmp);
            let bound = 128.0 * n as f64 * f64::EPSILON * (1.0 + M.norm_l2());
            for (a, b) in values.iter().zip(&expected) {
                assert!((a - b).abs() <= bound, "{a} {b}");
            }
            let back = Mat::from_fn(n, n, |i, j| {
                let V = &found.vectors;
                (0..n)
                    .map(|k| V[(i, k)] * found.values[k] * V[(j, k)])
                    .sum::<f64>()
            });
            assert!((back - &M).norm_max() <= bound);
            assert!(found.values.is_sorted_by(|a, b| a.abs() >= b.abs()));
        }
        let nan = Mat::from_fn(2, 2, |_, _| f64::NAN);
        assert!(symmetric_eigen(nan.as_ref()).is_err());
    }
}
