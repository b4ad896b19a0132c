//! The eigenvalues of a small dense matrix.

use super::product;
use super::scale::{exponent, scaled, times_power};
use crate::error::{Error, Result};
use crate::tensor::Scalar;
use faer::MatRef;
use faer::complex::Complex;
use std::cmp::Ordering;

/// The eigenvalues of a square matrix, by modulus, the largest first.
///
/// Of equal moduli the one with the larger real part comes first, then the one with the larger imaginary part:
/// of a conjugate pair the one above the axis. Moduli that are equal but for rounding come in either order.
///
/// # Errors
/// When an entry is NaN or infinite, or the eigenvalues that were found do not have the matrix's trace and the
/// trace of its square.
///
/// # Panics
/// When the matrix is not square.
///
/// # Cost
/// About `10 n³` operations.
///
/// # Source
/// Francis's QR algorithm, of faer.
#[track_caller]
pub fn eigenvalues<T: Scalar>(M: MatRef<'_, T>) -> Result<Vec<Complex<T>>> {
    let (m, n) = (M.nrows(), M.ncols());
    assert!(m == n, "eigenvalues of a [{m}, {n}] matrix");
    let Some(e) = exponent(M) else {
        return Err(Error::Numeric(
            "eigenvalues of a matrix with a NaN or an infinity".into(),
        ));
    };
    let M = scaled(M, -e);
    // The transpose has the same eigenvalues, and takes the algorithm another way.
    let found = [M.as_ref(), M.transpose()].into_iter().find_map(|M| {
        let found = T::eigenvalues(M)?;
        let found: Vec<_> = found
            .into_iter()
            .map(|(re, im)| Complex::new(re, im))
            .collect();
        Some(found).filter(|found| traces_agree(M, found))
    });
    let Some(mut found) = found else {
        return Err(Error::Numeric(format!(
            "no eigenvalues found for a {n} x {n} matrix"
        )));
    };
    for z in &mut found {
        *z = Complex::new(times_power(z.re, e), times_power(z.im, e));
    }
    if found.iter().any(|z| !modulus(*z).is_finite()) {
        return Err(Error::Numeric("eigenvalues that overflow".into()));
    }
    let descending = |a: T, b: T| b.partial_cmp(&a).unwrap_or(Ordering::Equal);
    found.sort_by(|a, b| {
        descending(modulus(*a), modulus(*b))
            .then(descending(a.re, b.re))
            .then(descending(a.im, b.im))
    });
    Ok(found)
}

/// The modulus of a complex number, without overflow on the way.
pub fn modulus<T: Scalar>(z: Complex<T>) -> T {
    // In f64 through `hypot`, which is right at any scale.
    T::from_f64(z.re.to_f64().hypot(z.im.to_f64()))
}

/// Whether the eigenvalues are those of a matrix within a backward-stable method's error `E` of this one.
///
/// `|E|_F <= c n eps |M|_F`; it moves the trace by at most `sqrt(n) |E|_F`, that of the square by `2 |M|_F |E|_F`.
fn traces_agree<T: Scalar>(M: MatRef<'_, T>, found: &[Complex<T>]) -> bool {
    let n = M.nrows();
    let size = M.norm_l2().to_f64();
    // Householder's reduction and a few sweeps for each eigenvalue: a modest multiple of the size.
    let E = 16.0 * n as f64 * T::EPSILON.to_f64() * size;
    let square = product(M, M);
    let (mut trace, mut trace_of_square) = (0.0, 0.0);
    for i in 0..n {
        trace += M[(i, i)].to_f64();
        trace_of_square += square[(i, i)].to_f64();
    }
    let (mut sum, mut sum_im, mut squares) = (0.0, 0.0, 0.0);
    for z in found {
        let (re, im) = (z.re.to_f64(), z.im.to_f64());
        sum += re;
        sum_im += im;
        squares += re * re - im * im;
    }
    (sum - trace).abs() <= (n as f64).sqrt() * E
        && sum_im.abs() <= (n as f64).sqrt() * E
        && (squares - trace_of_square).abs() <= 2.0 * size * E
}

#[cfg(test)]
mod tests {
    use super::*;
    use faer::Mat;

    #[test]
    fn a_rotation_and_a_triangle() {
        let M = Mat::from_fn(3, 3, |i, j| {
            [[0.0, -2.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, -1.0]][i][j]
        });
        let found = eigenvalues::<f64>(M.as_ref()).unwrap();
        let expected = [(0.0, 2.0), (0.0, -2.0), (-1.0, 0.0)];
        for (z, (re, im)) in found.iter().zip(expected) {
            assert!(
                (z.re - re).abs() + (z.im - im).abs() <= 16.0 * f64::EPSILON,
                "{found:?}"
            );
        }
        for scale in [1e-300, 1e300] {
            let M = Mat::from_fn(4, 4, |i, j| {
                if i <= j {
                    scale * (1 + i + j) as f64
                } else {
                    0.0
                }
            });
            let found = eigenvalues::<f64>(M.as_ref()).unwrap();
            assert_eq!(found.len(), 4);
            assert!((found[0].re / scale - 7.0).abs() <= 64.0 * f64::EPSILON);
        }
    }

    #[test]
    fn empty_and_not_finite() {
        assert!(
            eigenvalues::<f32>(Mat::zeros(0, 0).as_ref())
                .unwrap()
                .is_empty()
        );
        let M = Mat::from_fn(2, 2, |_, _| f32::NAN);
        assert!(eigenvalues(M.as_ref()).is_err());
    }
}
