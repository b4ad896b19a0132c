//! What rounding may do: the constants of error analysis, and norms that are bounded from above.
//!
//! The standard model `fl(a op b) = (a op b)(1 + δ)`, `|δ| <= u`, with `γ_n = n u / (1 - n u)`: a sum of
//! products in which no term meets more than `n` roundings is within `γ_n` of the sum of its terms' moduli.
//!
//! Of products of matrices it is assumed that each entry is such a sum, in whatever order, with or without fused operations:
//! faer's products and ours are. A BLAS (feature `blas`) is where it multiplies conventionally, not by Strassen's method or
//! another that adds up before it multiplies, and each number in its own precision, not in bf16, TF32 or as a sum of a few
//! numbers of fewer bits. `blas.rs` looks at one product before it is used.
//!
//! Source: Higham, "Accuracy and Stability of Numerical Algorithms" (2002), chapters 2 to 4.

use super::product;
use crate::tensor::Scalar;
use faer::{Mat, MatRef};

/// The unit roundoff.
pub(crate) fn unit<T: Scalar>() -> T {
    T::EPSILON / T::from_f64(2.0)
}

/// `γ_n = n u / (1 - n u)`; infinite where `n u >= 1` and nothing can be said.
pub(crate) fn gamma<T: Scalar>(n: usize) -> T {
    let nu = T::from_f64(n as f64) * unit::<T>();
    if nu < T::ONE {
        nu / (T::ONE - nu)
    } else {
        T::INFINITY
    }
}

/// What a bound computed in `n` operations is to be multiplied by, for its own rounding.
pub(crate) fn rounded_up<T: Scalar>(n: usize) -> T {
    T::ONE + gamma::<T>(n)
}

/// At least the root of the sum of the entries' squares, underflow aside.
pub(crate) fn frobenius_at_most<T: Scalar>(M: MatRef<'_, T>) -> T {
    let squares: T = (0..M.ncols())
        .flat_map(|j| (0..M.nrows()).map(move |i| (i, j)))
        .map(|at| M[at] * M[at])
        .sum();
    squares.sqrt() * rounded_up::<T>(M.nrows() * M.ncols() + 4)
}

/// At least the largest singular value, underflow aside, and about as large: a Gram matrix squared twice.
///
/// `‖M‖² = ‖MᵀM‖`, and `‖A‖² = ‖A²‖ <= ‖A²‖_F` for a symmetric `A`. Of `n` singular values as a random
/// matrix has them, the result is too large by a few hundredths.
///
/// # Cost
/// Two products of the smaller side's square matrices beside the Gram matrix itself.
pub(crate) fn spectral_at_most<T: Scalar>(M: MatRef<'_, T>) -> T {
    const SQUARINGS: usize = 2;
    let M = if M.ncols() > M.nrows() {
        M.transpose()
    } else {
        M
    };
    let size = frobenius_at_most(M);
    if size == T::ZERO || !size.is_finite() {
        return size;
    }
    // Of Frobenius norm one, so that nothing over- or underflows; each entry is then off by one rounding.
    let unit_size = Mat::from_fn(M.nrows(), M.ncols(), |i, j| M[(i, j)] / size);
    let gram = mirrored(product(unit_size.transpose(), unit_size.as_ref()));
    // What the entries of the Gram matrix are off by, as a Frobenius norm: |M|ᵀ|M| has norm one at most.
    let error = gamma::<T>(M.nrows() + 4);
    let squared = symmetric_at_most(gram, SQUARINGS) + error;
    size * squared.sqrt() * rounded_up::<T>(8)
}

/// The largest modulus of an eigenvalue of a symmetric matrix, from above.
fn symmetric_at_most<T: Scalar>(A: Mat<T>, squarings: usize) -> T {
    let size = frobenius_at_most(A.as_ref());
    if squarings == 0 {
        return size;
    }
    let square = mirrored(product(A.as_ref(), A.as_ref()));
    let error = gamma::<T>(A.nrows() + 1) * size * size;
    let squared = symmetric_at_most(square, squarings - 1) + error;
    // By the Frobenius norm itself where the roundings outweigh the gain.
    let root = squared.sqrt() * rounded_up::<T>(8);
    if root < size { root } else { size }
}

/// The matrix with its upper triangle below the diagonal too: exactly symmetric.
fn mirrored<T: Scalar>(A: Mat<T>) -> Mat<T> {
    Mat::from_fn(A.nrows(), A.ncols(), |i, j| A[(i.min(j), i.max(j))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::svd_of_product;
    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn the_largest_singular_value_is_bounded_and_closely() {
        fn check<T: Scalar>() {
            let mut rng = ChaCha8Rng::seed_from_u64(3);
            for (m, n) in [(1, 1), (5, 1), (1, 5), (7, 4), (4, 7), (40, 40), (90, 30)] {
                let M = Mat::from_fn(m, n, |_, _| T::from_f64(rng.random_range(-1.0..1.0)));
                let svd = svd_of_product(M.as_ref(), Mat::<T>::identity(n, n).as_ref()).unwrap();
                let (largest, bound) = (svd.S[0].to_f64(), spectral_at_most(M.as_ref()).to_f64());
                // The decomposition itself is off by γ of about the matrix's size.
                let slack = gamma::<T>(16 * m * n).to_f64() * largest;
                assert!(bound >= largest - slack, "{m} x {n}: {bound} {largest}");
                assert!(bound <= 1.3 * largest, "{m} x {n}: {bound} {largest}");
            }
            assert_eq!(spectral_at_most(Mat::<T>::zeros(3, 2).as_ref()), T::ZERO);
        }
        check::<f64>();
        check::<f32>();
    }
}
