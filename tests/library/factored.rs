//! The algebra of factored matrices, held to dense computation and to nalgebra, on random factors: of full and of
//! deficient rank, zero, with repeated singular values, badly scaled, with an inner dimension larger than either side.

use crate::common::cases;
use faer::Mat;
use nalgebra::DMatrix;
use pathsum::{Factored, Par, Scalar};
use proptest::prelude::*;

/// Factors in f64, to be rounded to the precision under test.
#[derive(Clone, Debug)]
struct Case {
    A: Vec<Vec<f64>>,
    B: Vec<Vec<f64>>,
    m: usize,
    r: usize,
    n: usize,
    kind: u8,
}

/// Entries of modest size, and the exponents that the badly scaled kind multiplies them by.
fn any_cases() -> impl Strategy<Value = Case> {
    (0..9usize, 0..7usize, 0..9usize, 0..5u8)
        .prop_flat_map(|(m, r, n, kind)| of_shape(m, r, n, kind))
}

fn square_cases() -> impl Strategy<Value = Case> {
    (0..9usize, 0..11usize, 0..5u8).prop_flat_map(|(n, r, kind)| of_shape(n, r, n, kind))
}

fn of_shape(m: usize, r: usize, n: usize, kind: u8) -> impl Strategy<Value = Case> {
    let entries = |rows, columns| {
        prop::collection::vec(
            prop::collection::vec((-1.0..1.0f64, -12.0..12.0f64), columns),
            rows,
        )
    };
    (entries(m, r), entries(r, n)).prop_map(move |(A, B)| {
        let entry = |(x, e): (f64, f64), i: usize, l: usize| match kind {
            0 => x,
            // All columns of A, and rows of B, alike: of rank one.
            1 => (i as f64 + 1.0).sin(),
            2 => 0.0,
            // Orthonormal up to the sides' ends: all singular values are one, or zero.
            3 => f64::from(i == l),
            _ => x * 10f64.powf(e),
        };
        let A = A.iter().enumerate().map(|(i, row)| {
            row.iter()
                .enumerate()
                .map(|(l, &x)| entry(x, i, l))
                .collect()
        });
        let B = B.iter().enumerate().map(|(l, row)| {
            row.iter()
                .enumerate()
                .map(|(j, &x)| entry(x, j, l))
                .collect()
        });
        Case {
            A: A.collect(),
            B: B.collect(),
            m,
            r,
            n,
            kind,
        }
    })
}

impl Case {
    /// f32 squares of entries past 1e12 would be near its end: there the span is the cube root.
    fn factored<T: Scalar>(&self) -> Factored<T> {
        let narrow = self.kind == 4 && T::PRECISION == pathsum::Precision::F32;
        let value = |x: f64| T::from_f64(if narrow { x.cbrt() } else { x });
        Factored::new(
            Mat::from_fn(self.m, self.r, |i, l| value(self.A[i][l])),
            Mat::from_fn(self.r, self.n, |l, j| value(self.B[l][j])),
        )
    }
}

/// The whole matrix by nalgebra, in f64.
fn dense<T: Scalar>(X: &Factored<T>) -> DMatrix<f64> {
    let wide =
        |M: faer::MatRef<'_, T>| DMatrix::from_fn(M.nrows(), M.ncols(), |i, j| M[(i, j)].to_f64());
    wide(X.A()) * wide(X.B())
}

/// What rounding may do to anything computed from the factors: a backward-stable method's error,
/// a modest multiple of the sizes times `eps |A|_F |B|_F`.
fn error<T: Scalar>(X: &Factored<T>) -> f64 {
    let ((m, n), r) = (X.shape(), X.inner());
    let norms = X.A().norm_l2().to_f64() * X.B().norm_l2().to_f64();
    32.0 * (m + n + r) as f64 * T::EPSILON.to_f64() * norms + T::MIN_POSITIVE.to_f64()
}

fn close(found: f64, expected: f64, error: f64) -> Result<(), TestCaseError> {
    prop_assert!(
        (found - expected).abs() <= error,
        "{found:e}, expected {expected:e} to {error:e}"
    );
    Ok(())
}

fn same<T: Scalar>(
    found: &Factored<T>,
    expected: &DMatrix<f64>,
    error: f64,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(found.shape(), expected.shape());
    close((dense(found) - expected).norm(), 0.0, error)
}

fn singular_values(M: &DMatrix<f64>) -> Vec<f64> {
    if M.is_empty() {
        return Vec::new();
    }
    let mut S: Vec<f64> = M.singular_values().iter().copied().collect();
    S.sort_by(|a, b| b.total_cmp(a));
    S
}

fn spectrum<T: Scalar>(X: &Factored<T>) -> Result<(), TestCaseError> {
    let (M, e) = (dense(X), error(X));
    let svd = X.svd().unwrap();
    let k = X.nrows().min(X.inner()).min(X.ncols());
    prop_assert_eq!((svd.U.ncols(), svd.S.len(), svd.V.ncols()), (k, k, k));
    let US = Mat::from_fn(X.nrows(), k, |i, j| svd.U[(i, j)] * svd.S[j]);
    same(&Factored::from_views(US.as_ref(), svd.V.transpose()), &M, e)?;
    let expected = singular_values(&M);
    let only = X.S().unwrap();
    for i in 0..k {
        close(svd.S[i].to_f64(), expected[i], e)?;
        close(only[i].to_f64(), expected[i], e)?;
    }
    close(X.norm().unwrap().to_f64(), M.norm(), e)?;
    close(
        X.spectral_norm().unwrap().to_f64(),
        expected.first().copied().unwrap_or(0.0),
        e,
    )?;
    close(
        X.nuclear_norm().unwrap().to_f64(),
        expected.iter().sum(),
        e * (k + 1) as f64,
    )?;
    same(&X.make_even().unwrap(), &M, e)?;
    let compressed = X.recompress().unwrap();
    prop_assert!(compressed.inner() <= k);
    prop_assert_eq!(compressed.inner(), X.numerical_rank().unwrap());
    same(&compressed, &M, e * (k + 1) as f64)?;
    // Up to a rotation: the same angles and lengths.
    for M2 in [X.collapse_l().unwrap(), X.collapse_r().unwrap()] {
        close(M2.norm_l2().to_f64(), M.norm(), e)?;
    }
    Ok(())
}

fn reads<T: Scalar>(X: &Factored<T>) -> Result<(), TestCaseError> {
    let (M, e, (m, n)) = (dense(X), error(X), X.shape());
    let means = (
        X.row_means(),
        X.column_means(),
        X.row_sums(),
        X.column_sums(),
        X.row_norms(),
    );
    let cosines = X.cosine_similarity_of_rows(Par::Seq);
    for i in 0..m {
        let row = X.row(i);
        for j in 0..n {
            close(X.get(i, j).to_f64(), M[(i, j)], e)?;
            close(row[j].to_f64(), M[(i, j)], e)?;
            close(X.column(j)[i].to_f64(), M[(i, j)], e)?;
        }
        close(means.2[i].to_f64(), M.row(i).sum(), e * (n + 1) as f64)?;
        if n > 0 {
            close(means.0[i].to_f64(), M.row(i).mean(), e * (n + 1) as f64)?;
        }
        close(means.4[i].to_f64(), M.row(i).norm(), e)?;
        for j in 0..m {
            let lengths = (M.row(i).norm(), M.row(j).norm());
            // Where a row is lost in rounding its direction is, too.
            if lengths.0 > 0.0 && lengths.1 > 0.0 {
                let angle = M.row(i).dot(&M.row(j)) / lengths.0 / lengths.1;
                close(
                    cosines[(i, j)].to_f64(),
                    angle,
                    (2.0 * e / lengths.0 + 2.0 * e / lengths.1).max(64.0 * T::EPSILON.to_f64()),
                )?;
            }
        }
    }
    for j in 0..n {
        close(means.3[j].to_f64(), M.column(j).sum(), e * (m + 1) as f64)?;
        if m > 0 {
            close(means.1[j].to_f64(), M.column(j).mean(), e * (m + 1) as f64)?;
        }
    }
    for (i, x) in X.diagonal().into_iter().enumerate() {
        close(x.to_f64(), M[(i, i)], e)?;
    }
    let corner = X.corner(3);
    prop_assert_eq!(corner.shape(), (m.min(3), n.min(3)));
    if m > 1 {
        same(&X.rows(1..m), &M.rows(1, m - 1).into_owned(), e)?;
    }
    for par in [Par::Seq, Par::Rayon] {
        let (top, bottom) = (X.top_k(3, par).unwrap(), X.bottom_k(3, par).unwrap());
        for i in 0..m {
            let mut row: Vec<f64> = M.row(i).iter().copied().collect();
            row.sort_by(|a, b| b.total_cmp(a));
            prop_assert_eq!(top.row(i).len(), n.min(3));
            for (place, (j, x)) in top.row(i).enumerate() {
                close(x.to_f64(), row[place], e)?;
                close(x.to_f64(), M[(i, j)], e)?;
            }
            for (place, (j, x)) in bottom.row(i).enumerate() {
                close(x.to_f64(), row[n - 1 - place], e)?;
                close(x.to_f64(), M[(i, j)], e)?;
            }
        }
    }
    Ok(())
}

fn eigen<T: Scalar>(X: &Factored<T>) -> Result<(), TestCaseError> {
    let (M, e, n) = (dense(X), error(X), X.ncols());
    close(X.trace().to_f64(), M.trace(), e * (n + 1) as f64)?;
    let found = X.eigenvalues().unwrap();
    prop_assert_eq!(found.len(), n.min(X.inner()));
    let moduli: Vec<f64> = found
        .iter()
        .map(|z| z.re.to_f64().hypot(z.im.to_f64()))
        .collect();
    prop_assert!(
        moduli
            .windows(2)
            .all(|w| w[0] >= w[1] * (1.0 - T::EPSILON.to_f64())),
        "{moduli:?}"
    );
    // The characteristic polynomial's first coefficients, which unlike single eigenvalues are well conditioned.
    let sum: f64 = found.iter().map(|z| z.re.to_f64()).sum();
    close(sum, M.trace(), e * (n + 1) as f64)?;
    let squares: f64 = found
        .iter()
        .map(|z| z.re.to_f64().powi(2) - z.im.to_f64().powi(2))
        .sum();
    let size = X.A().norm_l2().to_f64() * X.B().norm_l2().to_f64();
    close(
        squares,
        (&M * &M).trace(),
        4.0 * e * (size + e) * (n + 1) as f64,
    )?;
    let copying = X.copying_score().unwrap().to_f64();
    prop_assert!(copying.abs() <= 1.0 + 16.0 * (n + 1) as f64 * T::EPSILON.to_f64());
    Ok(())
}

/// `X: [m, n]` with `Y: [m, n]` and with `Z: [n, p]`.
fn products<T: Scalar>(
    X: &Factored<T>,
    Y: &Factored<T>,
    Z: &Factored<T>,
) -> Result<(), TestCaseError> {
    let (M, N, P) = (dense(X), dense(Y), dense(Z));
    let e = error(X) + error(Y);
    for (found, expected) in [(X.sum(Y), &M + &N), (X.difference(Y), &M - &N)] {
        let found = found.unwrap();
        prop_assert!(found.inner() <= X.nrows().min(X.ncols()));
        same(&found, &expected, 8.0 * e)?;
    }
    close(X.distance(Y).unwrap().to_f64(), (&M - &N).norm(), 8.0 * e)?;
    let norm = |X: &Factored<T>| X.A().norm_l2().to_f64() * X.B().norm_l2().to_f64();
    let sizes = |X: &Factored<T>| (X.nrows() + X.ncols() + X.inner()) as f64;
    let of_product = |X: &Factored<T>, Y: &Factored<T>| {
        32.0 * (sizes(X) + sizes(Y)) * T::EPSILON.to_f64() * norm(X) * norm(Y)
            + T::MIN_POSITIVE.to_f64()
    };
    close(X.inner_product(Y).to_f64(), M.dot(&N), of_product(X, Y))?;
    let e = of_product(X, Z);
    let product = X * Z;
    prop_assert!(product.inner() <= X.inner().min(Z.inner()));
    same(&product, &(&M * &P), e)?;
    let whole = (X.AB(Par::Seq), Z.AB(Par::Rayon));
    same(&(X * whole.1.as_ref()), &(&M * &P), e)?;
    same(&(whole.0.as_ref() * Z), &(&M * &P), e)?;
    same(&X.transpose(), &M.transpose(), error(X))?;
    same(&(X * T::from_f64(-2.0)), &(&M * -2.0), 2.0 * error(X))?;
    same(&-X, &-&M, error(X))?;
    let ones = vec![T::ONE; X.ncols()];
    let sums = X.times_vector(&ones);
    let back = X.transpose().vector_times(&ones);
    for i in 0..X.nrows() {
        close(
            sums[i].to_f64(),
            back[i].to_f64(),
            error(X) * (X.ncols() + 1) as f64,
        )?;
    }
    Ok(())
}

fn three() -> impl Strategy<Value = (Case, Case, Case)> {
    let sizes = (
        0..8usize,
        0..8usize,
        0..8usize,
        0..6usize,
        0..6usize,
        0..6usize,
    );
    (sizes, 0..5u8).prop_flat_map(|((m, n, p, r, s, t), kind)| {
        (
            of_shape(m, r, n, kind),
            of_shape(m, s, n, kind),
            of_shape(n, t, p, kind),
        )
    })
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn singular_values_and_norms(case in any_cases()) {
        spectrum::<f64>(&case.factored())?;
        spectrum::<f32>(&case.factored())?;
    }

    #[test]
    fn entries_rows_and_the_largest(case in any_cases()) {
        reads::<f64>(&case.factored())?;
        reads::<f32>(&case.factored())?;
    }

    #[test]
    fn eigenvalues_of_square_ones(case in square_cases()) {
        eigen::<f64>(&case.factored())?;
        eigen::<f32>(&case.factored())?;
    }

    #[test]
    fn sums_and_products((x, y, z) in three()) {
        products::<f64>(&x.factored(), &y.factored(), &z.factored())?;
        products::<f32>(&x.factored(), &y.factored(), &z.factored())?;
    }
}

#[test]
fn a_matrix_less_itself_has_rank_zero() {
    let wave = |m, n, f: f64| Mat::from_fn(m, n, |i, j| (f * ((i * n + j) as f64).powi(2)).sin());
    let X = Factored::new(wave(9, 3, 1.1), wave(3, 8, 0.7));
    assert_eq!(X.difference(&X).unwrap().inner(), 0);
    assert_eq!(X.sum(&X).unwrap().inner(), 3);
    // The scale is divided between the factors however one likes.
    let Y = Factored::new(
        wave(9, 3, 1.1) * faer::Scale(1e150),
        wave(3, 8, 0.7) * faer::Scale(1e-150),
    );
    assert_eq!(X.difference(&Y).unwrap().inner(), 0);
}

#[test]
fn copying() {
    let basis = |sign: f64| Mat::from_fn(5, 2, |i, j| if i == j { sign } else { 0.0 });
    let score =
        |sign| Factored::from_views(basis(sign).as_ref(), basis(1.0).transpose()).copying_score();
    assert_eq!(
        (
            score(1.0).unwrap(),
            score(-1.0).unwrap(),
            score(0.0).unwrap()
        ),
        (1.0, -1.0, 0.0)
    );
}

#[test]
fn not_finite_is_an_error_wherever_a_decomposition_is_asked() {
    for bad in [f64::NAN, f64::INFINITY] {
        let X = Factored::new(
            Mat::from_fn(3, 2, |_, _| bad),
            Mat::from_fn(2, 3, |_, _| 1.0),
        );
        assert!(
            X.svd().is_err() && X.S().is_err() && X.eigenvalues().is_err() && X.norm().is_err()
        );
        assert!(X.sum(&X).is_err() && X.top_k(1, Par::Seq).is_err() && X.copying_score().is_err());
    }
}

#[test]
#[should_panic(expected = "[3, 2] [3, 2]: the inner dimensions differ")]
fn shapes_must_meet() {
    let X = Factored::<f32>::zeros(3, 2);
    let _ = &X * &X;
}
