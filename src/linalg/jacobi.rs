//! One-sided Jacobi: the slow singular value decomposition that always converges.

use super::Svd;
use crate::tensor::Scalar;
use faer::{Mat, MatRef};

/// The thin decomposition of a dense matrix by rotations of its columns.
///
/// Source: Demmel and Veselić, "Jacobi's method is more accurate than QR" (1992).
///
/// # Cost
/// `O(m n²)` a sweep; ten sweeps are many.
pub(super) fn jacobi_svd<T: Scalar>(M: MatRef<'_, T>) -> Svd<T> {
    if M.nrows() < M.ncols() {
        let Svd { U, S, V } = jacobi_svd(M.transpose());
        return Svd { U: V, S, V: U };
    }
    // Convergence is quadratic at the end; this many sweeps are never needed for finite input.
    const SWEEPS: usize = 60;
    let (m, n) = (M.nrows(), M.ncols());
    let mut W = M.to_owned();
    let mut V = Mat::<T>::identity(n, n);
    let threshold = T::EPSILON * T::from_f64(m as f64).sqrt();
    for _ in 0..SWEEPS {
        let mut rotated = false;
        for p in 0..n {
            for q in p + 1..n {
                let (app, aqq, apq) = (dot(&W, p, p), dot(&W, q, q), dot(&W, p, q));
                if apq.abs() <= threshold * (app.sqrt() * aqq.sqrt()) {
                    continue;
                }
                rotated = true;
                let zeta = (aqq - app) / (apq + apq);
                let sign = if zeta < T::ZERO { -T::ONE } else { T::ONE };
                let t = sign / (zeta.abs() + (T::ONE + zeta * zeta).sqrt());
                let c = T::ONE / (T::ONE + t * t).sqrt();
                rotate(&mut W, p, q, c, c * t);
                rotate(&mut V, p, q, c, c * t);
            }
        }
        if !rotated {
            break;
        }
    }
    let norms: Vec<T> = (0..n).map(|j| dot(&W, j, j).sqrt()).collect();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| {
        norms[j]
            .partial_cmp(&norms[i])
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    let mut U = Mat::from_fn(m, n, |i, j| W[(i, order[j])]);
    orthonormalise(&mut U);
    Svd {
        U,
        S: order.iter().map(|&j| norms[j]).collect(),
        V: Mat::from_fn(n, n, |i, j| V[(i, order[j])]),
    }
}

fn dot<T: Scalar>(M: &Mat<T>, p: usize, q: usize) -> T {
    M.col(p)
        .iter()
        .zip(M.col(q).iter())
        .map(|(&a, &b)| a * b)
        .sum()
}

fn rotate<T: Scalar>(M: &mut Mat<T>, p: usize, q: usize, c: T, s: T) {
    for i in 0..M.nrows() {
        let (a, b) = (M[(i, p)], M[(i, q)]);
        M[(i, p)] = c * a - s * b;
        M[(i, q)] = s * a + c * b;
    }
}

/// Normalises the columns; a column of a (numerically) zero singular value is replaced by a
/// direction orthogonal to the others.
fn orthonormalise<T: Scalar>(U: &mut Mat<T>) {
    let (m, n) = (U.nrows(), U.ncols());
    let largest = (0..n)
        .map(|j| dot(U, j, j).sqrt())
        .fold(T::ZERO, |a, b| if b > a { b } else { a });
    let zero = largest * T::EPSILON * T::from_f64(m as f64);
    for j in 0..n {
        let mut norm = dot(U, j, j).sqrt();
        let mut candidate = 0;
        // Some unit vector is far from fewer than `m` others. That none is found means that squares
        // overflowed, and the caller sees that the result reproduces nothing.
        while (norm <= zero || norm == T::ZERO) && candidate < m {
            // The unit vector that the columns so far leave most of; twice, for orthogonality.
            for i in 0..m {
                U[(i, j)] = if i == candidate { T::ONE } else { T::ZERO };
            }
            for _ in 0..2 {
                for k in 0..j {
                    let along = dot(U, k, j);
                    for i in 0..m {
                        let x = U[(i, k)];
                        U[(i, j)] -= along * x;
                    }
                }
            }
            norm = dot(U, j, j).sqrt();
            if norm < T::from_f64(0.5 / (m as f64).sqrt()) {
                norm = T::ZERO;
            }
            candidate += 1;
        }
        for i in 0..m {
            U[(i, j)] /= norm;
        }
    }
}
