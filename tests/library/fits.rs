//! Fits, components, boundaries and attributions, held to nalgebra, to enumeration and to plain loops.

use crate::common::{cases, full_run};
use faer::Mat;
use nalgebra::{DMatrix, DVector};
use pathsum::decompose::{
    Boundary, By, Component, Logit, best_threshold, direct_logit_attribution, histogram_by_class,
    info_weighted_pattern, norm_fit, residual_stack, source_attribution,
    source_attribution_through,
};
use pathsum::linalg::{Par, affine_fit, cosines, least_squares, pca};
use pathsum::model::NormWeight;
use pathsum::names::NormSite;
use pathsum::strategies::{models_and_tokens_of, toy_configs};
use pathsum::{Head, Hook, Model, Scalar, Tokens, fixture};
use proptest::prelude::*;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

fn random<T: Scalar>(rng: &mut ChaCha8Rng, m: usize, n: usize) -> Mat<T> {
    Mat::from_fn(m, n, |_, _| T::from_f64(rng.random_range(-1.0..1.0)))
}

fn dense<T: Scalar>(M: &Mat<T>) -> DMatrix<f64> {
    DMatrix::from_fn(M.nrows(), M.ncols(), |i, j| M[(i, j)].to_f64())
}

/// Shapes, and ranks below them.
const SHAPES: [(usize, usize, usize, usize); 8] = [
    (30, 6, 6, 2),
    (30, 6, 3, 4),
    (5, 9, 5, 3),
    (5, 9, 2, 1),
    (40, 12, 11, 12),
    (7, 7, 7, 1),
    (3, 1, 1, 1),
    (20, 4, 0, 2),
];

/// Two factors with so many columns and rows between them, and their product: data of a rank.
fn of_rank(rng: &mut ChaCha8Rng, m: usize, n: usize, rank: usize) -> [DMatrix<f64>; 3] {
    let mut factor = |m, n| DMatrix::from_fn(m, n, |_, _| rng.random_range(-1.0..1.0));
    let (A, B) = (factor(m, rank), factor(rank, n));
    let X = &A * &B;
    [A, B, X]
}

fn rounded<T: Scalar>(X: &DMatrix<f64>, size: f64) -> Mat<T> {
    Mat::from_fn(X.nrows(), X.ncols(), |i, j| T::from_f64(size * X[(i, j)]))
}

/// The pseudo-inverse of `A B`, of factors of full rank: by the normal equations of each. (nalgebra's singular value
/// decomposition does not reproduce every matrix of deficient rank.)
fn pseudo_inverse(A: &DMatrix<f64>, B: &DMatrix<f64>) -> DMatrix<f64> {
    let inverse = |gram: DMatrix<f64>| gram.try_inverse().expect("of full rank");
    B.transpose() * inverse(B * B.transpose()) * inverse(A.transpose() * A) * A.transpose()
}

/// The smallest and the largest of so many singular values, by nalgebra's eigenvalues of the Gram matrix.
fn extremes(X: &DMatrix<f64>, rank: usize) -> (f64, f64) {
    if rank == 0 {
        return (1.0, 1.0);
    }
    let gram = X.transpose() * X;
    let mut squares: Vec<f64> = gram.symmetric_eigenvalues().iter().copied().collect();
    squares.sort_by(|a, b| b.total_cmp(a));
    (squares[rank - 1].sqrt(), squares[0].sqrt())
}

/// The rank is that of the construction, and the coefficients those of the pseudo-inverse: within
/// `κ (|W| + κ |r| / |X|)` roundings, as Wedin's bound has it, and those of the oracle's own, squared, inverses.
#[test]
fn least_squares_is_the_pseudo_inverse() {
    fn check<T: Scalar>() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..20 {
            for (m, n, rank, p) in SHAPES {
                let [A, B, X] = of_rank(&mut rng, m, n, rank);
                let Y = random::<T>(&mut rng, m, p);
                let y = dense(&Y);
                let expected = pseudo_inverse(&A, &B) * &y;
                let (least, most) = extremes(&X, rank);
                let residual = (&X * &expected - &y).norm();
                let roundings = 16.0 * (m + n + p) as f64;
                let bound = roundings
                    * T::EPSILON.to_f64()
                    * (most / least)
                    * (expected.norm() + residual / least);
                let squared = (extremes(&A, rank).1 * extremes(&B.transpose(), rank).1).powi(2)
                    / (extremes(&A, rank).0 * extremes(&B.transpose(), rank).0).powi(2);
                let oracle = roundings * f64::EPSILON * squared * expected.norm();
                // Powers of two are exact, so that one oracle does for all three.
                for size in [0, -40, 40].map(|e| 2f64.powi(e)) {
                    let found = least_squares(rounded::<T>(&X, size).as_ref(), Y.as_ref()).unwrap();
                    assert_eq!(found.rank, rank, "{m} x {n} of rank {rank}: {found:?}");
                    assert_eq!(found.singular_values.len(), m.min(n));
                    let off = (dense(&found.coefficients) * size - &expected).norm();
                    assert!(
                        off <= bound + oracle,
                        "{m} x {n} of rank {rank}: {off:e} {bound:e}"
                    );
                }
            }
        }
    }
    check::<f64>();
    check::<f32>();
    assert!(
        least_squares(
            Mat::from_fn(2, 2, |_, _| f64::NAN).as_ref(),
            Mat::zeros(2, 1).as_ref()
        )
        .is_err()
    );
}

/// With an intercept as a column of ones, by nalgebra; `r²` by its definition; and a constant input's direction is
/// none.
#[test]
fn affine_fits() {
    fn check<T: Scalar>() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for _ in 0..20 {
            let (m, n, p) = (60, 5, 3);
            let mut X = random::<T>(&mut rng, m, n);
            for i in 0..m {
                X[(i, 1)] = T::from_f64(3.0);
            }
            let Y = random::<T>(&mut rng, m, p);
            let fit = affine_fit(X.as_ref(), Y.as_ref()).unwrap();
            assert_eq!(fit.rank, n - 1);
            let (x, y) = (dense(&X), dense(&Y));
            let ones = DMatrix::from_fn(m, n, |i, j| if j == 1 { 1.0 } else { x[(i, j)] });
            let inverse = pseudo_inverse(&ones, &DMatrix::identity(n, n));
            let (least, most) = extremes(&ones, n);
            let expected = &ones * (inverse * &y);
            let found = dense(&fit.apply(X.as_ref()));
            let bound =
                16.0 * (m + n) as f64 * T::EPSILON.to_f64() * (most / least).powi(2) * y.norm();
            assert!((&found - &expected).norm() <= bound);
            assert!(fit.coefficients[(1, 0)].to_f64().abs() <= bound);
            for j in 0..p {
                let mean = y.column(j).mean();
                let total: f64 = y.column(j).iter().map(|y| (y - mean).powi(2)).sum();
                let left = (y.column(j) - expected.column(j)).norm_squared();
                let off = fit.r2[j].to_f64() - (1.0 - left / total);
                assert!(off.abs() <= bound / total.sqrt(), "{off:e}");
            }
            // What a direction finds in the fit, the direction carried back finds in the input.
            let direction: Vec<T> = (0..p).map(|j| T::from_f64(j as f64 - 0.7)).collect();
            let back = fit.carry_back(&direction);
            let difference = |i: usize, k: usize| {
                let out = (0..p).map(|j| (found[(i, j)] - found[(k, j)]) * direction[j].to_f64());
                let inn = (0..n).map(|j| (x[(i, j)] - x[(k, j)]) * back[j].to_f64());
                (out.sum::<f64>() - inn.sum::<f64>()).abs()
            };
            assert!((1..m).all(|i| difference(i, 0) <= bound));
        }
    }
    check::<f64>();
    check::<f32>();
    let constant = affine_fit(
        Mat::from_fn(3, 1, |i, _| i as f64).as_ref(),
        Mat::from_fn(3, 1, |_, _| 2.0).as_ref(),
    );
    assert_eq!(constant.unwrap().r2, [1.0]);
    assert!(affine_fit(Mat::<f64>::zeros(0, 2).as_ref(), Mat::zeros(0, 1).as_ref()).is_err());
}

/// The covariance matrix's eigenvalues by nalgebra; orthonormal directions; and there and back.
#[test]
fn principal_components() {
    fn check<T: Scalar>() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for (m, d, rank) in [(50, 6, 6), (50, 6, 2), (4, 7, 3), (2, 3, 1), (9, 1, 1)] {
            let [_, _, X] = of_rank(&mut rng, m, d, rank);
            let shifted = DMatrix::from_fn(m, d, |i, j| X[(i, j)] + j as f64);
            let X = rounded::<T>(&shifted, 1.0);
            let found = pca(X.as_ref()).unwrap();
            let k = m.min(d);
            assert_eq!(
                (found.components.shape(), found.explained_variance.len()),
                ((k, d), k)
            );
            let x = dense(&X);
            let mean: DVector<f64> = x.row_mean().transpose();
            let centred = DMatrix::from_fn(m, d, |i, j| x[(i, j)] - mean[j]);
            let covariance = centred.transpose() * &centred / (m - 1) as f64;
            let mut expected: Vec<f64> = (covariance.symmetric_eigenvalues().iter())
                .copied()
                .collect();
            expected.sort_by(|a, b| b.total_cmp(a));
            let unit = 32.0 * (m + d) as f64 * T::EPSILON.to_f64() * x.norm().powi(2);
            for (v, e) in found.explained_variance.iter().zip(&expected) {
                assert!((v.to_f64() - e).abs() <= unit, "{v} {e}");
            }
            assert!(found.explained_variance.windows(2).all(|w| w[0] >= w[1]));
            let share: f64 = (found.explained_variance_ratio().iter())
                .map(|r| r.to_f64())
                .sum();
            assert!((share - 1.0).abs() <= 8.0 * k as f64 * T::EPSILON.to_f64());
            let C = dense(&found.components);
            let gram = &C * C.transpose() - DMatrix::identity(k, k);
            assert!(gram.norm() <= 64.0 * d as f64 * T::EPSILON.to_f64());
            for row in C.row_iter() {
                let largest = row
                    .iter()
                    .copied()
                    .fold(0f64, |m, x| if x.abs() > m.abs() { x } else { m });
                assert!(largest > 0.0);
            }
            let again = found.reconstruct(found.scores(X.as_ref()).as_ref());
            let off = (dense(&again) - &x).norm();
            assert!(off <= 64.0 * (m + d) as f64 * T::EPSILON.to_f64() * x.norm());
            // The first components are the best approximation of their rank: what is left has the others' variance.
            let scores = found.scores(X.as_ref());
            let first = found.reconstruct(scores.as_ref().subcols(0, 1));
            let left = (dense(&first) - &x).norm_squared() / (m - 1) as f64;
            let others: f64 = expected.iter().skip(1).sum();
            assert!((left - others).abs() <= 4.0 * unit);
        }
    }
    check::<f64>();
    check::<f32>();
    assert!(pca(Mat::<f64>::zeros(1, 2).as_ref()).is_err());
}

#[test]
fn cosines_are_those_of_plain_loops() {
    fn check<T: Scalar>() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let (A, mut B) = (random::<T>(&mut rng, 4, 7), random::<T>(&mut rng, 3, 7));
        B.row_mut(1).fill(T::ZERO);
        let found = cosines(A.as_ref(), B.as_ref(), Par::Seq);
        let (a, b) = (dense(&A), dense(&B));
        for i in 0..4 {
            for j in 0..3 {
                let lengths = a.row(i).norm() * b.row(j).norm();
                let expected = if j == 1 {
                    0.0
                } else {
                    a.row(i).dot(&b.row(j)) / lengths
                };
                let off = (found[(i, j)].to_f64() - expected).abs();
                assert!(off <= 16.0 * T::EPSILON.to_f64());
            }
        }
    }
    check::<f64>();
    check::<f32>();
}

/// Against every threshold and either side.
#[test]
fn the_best_threshold() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for _ in 0..300 {
        let n = rng.random_range(1..12);
        let values: Vec<f32> = (0..n).map(|_| rng.random_range(0..5) as f32).collect();
        let labels: Vec<bool> = (0..n).map(|_| rng.random_bool(0.5)).collect();
        let found = best_threshold(&values, &labels).unwrap();
        let right = |threshold: f64, above: bool| {
            let both = values.iter().zip(&labels);
            both.filter(|&(&v, &l)| (f64::from(v) > threshold) == (above == l))
                .count()
        };
        let every =
            (-1..6).flat_map(|t| [true, false].map(|above| right(f64::from(t) + 0.5, above)));
        assert_eq!(found.right, every.max().unwrap());
        assert_eq!(right(found.value, found.above), found.right);
        let classified = values.iter().zip(&labels);
        let agree = classified.filter(|&(&v, &l)| found.classify(f64::from(v)) == l);
        assert_eq!(agree.count(), found.right);
    }
    assert!(best_threshold::<f64>(&[], &[]).is_err());
    assert!(best_threshold(&[f64::NAN], &[true]).is_err());
}

/// Fisher's direction by nalgebra: the pooled covariance's inverse times the difference of the means.
#[test]
fn boundaries() {
    fn check<T: Scalar>() {
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let (m, d) = (200, 4);
        let labels: Vec<bool> = (0..m).map(|i| i % 3 == 0).collect();
        let X = Mat::<T>::from_fn(m, d, |i, j| {
            let shift = if labels[i] { 0.4 * j as f64 } else { 0.0 };
            T::from_f64(rng.random_range(-1.0..1.0) + shift)
        });
        let found = Boundary::least_squares(X.as_ref(), &labels).unwrap();
        let x = dense(&X);
        let of = |class: bool| {
            let rows: Vec<usize> = (0..m).filter(|&i| labels[i] == class).collect();
            x.select_rows(&rows)
        };
        let (yes, no) = (of(true), of(false));
        let scatter = |M: &DMatrix<f64>| {
            let mean = M.row_mean();
            let centred = DMatrix::from_fn(M.nrows(), d, |i, j| M[(i, j)] - mean[j]);
            centred.transpose() * centred
        };
        let pooled = scatter(&yes) + scatter(&no);
        let difference = (yes.row_mean() - no.row_mean()).transpose();
        let fisher = pooled.lu().solve(&difference).unwrap();
        let direction = DVector::from_vec(found.direction.clone());
        let cosine = fisher.dot(&direction) / (fisher.norm() * direction.norm());
        assert!((cosine - 1.0).abs() <= 64.0 * m as f64 * T::EPSILON.to_f64());

        // The best threshold along it is at least as good, and either sense of the direction is the same boundary.
        let right = |b: &Boundary| {
            let classes = b.classify(X.as_ref());
            classes.iter().zip(&labels).filter(|(a, b)| a == b).count()
        };
        let best = Boundary::along(
            &found.direction,
            Mat::from_fn(m, d, |i, j| x[(i, j)]).as_ref(),
            &labels,
        );
        let best = best.unwrap();
        assert!(right(&best) >= right(&found));
        let turned: Vec<f64> = found.direction.iter().map(|x| -x).collect();
        let turned = Boundary::along(
            &turned,
            Mat::from_fn(m, d, |i, j| x[(i, j)]).as_ref(),
            &labels,
        );
        assert_eq!(right(&turned.unwrap()), right(&best));
        assert!(Boundary::least_squares(X.as_ref(), &vec![true; m]).is_err());
    }
    check::<f64>();
    check::<f32>();
    let json = serde_json::to_value(histogram_by_class(&[1.0, 2.0, 2.5], &[0, 1, 1], 3).unwrap());
    assert_eq!(
        json.unwrap()["classes"][1]["counts"],
        serde_json::json!([0, 0, 2])
    );
}

/// Fit and remainder add up; without a remainder where the norm is affine; and what is not there is refused.
#[test]
fn fits_of_norms() {
    fn check<T: Scalar>() {
        let model = fixture::induction::<T>();
        let out = full_run(&model, &fixture::repeated_sequences(30, 9, 0));
        for (site, hook) in [
            (NormSite::Ln1(0), Hook::Normalized(NormSite::Ln1(0))),
            (NormSite::Ln1(1), Hook::Normalized(NormSite::Ln1(1))),
            (NormSite::Final, Hook::Normalized(NormSite::Final)),
        ] {
            let positions = [0, 3, 4, 11, 17];
            let fit = norm_fit(model.config(), &out.cache, site, &positions).unwrap();
            let (fitted, remainder) = (fit.fitted.data(), fit.remainder.data());
            for (i, (&f, &r)) in fitted.iter().zip(remainder).enumerate() {
                let at = fit.fitted.place(i);
                let y = out.cache[hook][[at[0], positions[at[1]], at[2]]];
                let larger = if f.abs() > y.abs() { f.abs() } else { y.abs() };
                assert!((f + r - y).abs() <= (T::ONE + T::ONE) * T::EPSILON * larger);
            }
            // The remainder is orthogonal to the input: the fit is the best there is.
            assert!(fit.map.mean_r2() > T::ZERO && fit.map.rank < model.config().d_model);
        }
        let refused = |site, positions: &[usize]| {
            let error = norm_fit(model.config(), &out.cache, site, positions);
            error.unwrap_err().to_string()
        };
        assert!(refused(NormSite::Ln2(0), &[0]).contains("no norm `0,ln2`"));
        assert!(refused(NormSite::Ln1(2), &[0]).contains("no norm `2,ln1`"));
        assert_eq!(
            refused(NormSite::Ln1(0), &[18]),
            "position 18: the run's are 0..=17"
        );
        assert_eq!(refused(NormSite::Ln1(0), &[]), "a fit to no data");
    }
    check::<f64>();
    check::<f32>();
}

/// Over the sources, a head's attribution is its direct one; through another head it is what plain loops make of
/// the two patterns; and a source's weight is the length of what is written of it.
#[test]
fn attributions_by_source() {
    let models = toy_configs().prop_filter("has layers", |c| c.n_layers > 0);
    let models = models.prop_flat_map(|c| models_and_tokens_of::<f64>(&c));
    proptest!(cases(64), |((model, tokens) in models)| {
        check_attributions(&model, &tokens);
        check_attributions(&model.cast::<f32>(), &tokens);
    });
}

fn check_attributions<T: Scalar>(model: &Model<T>, tokens: &Tokens) {
    let c = model.config();
    let out = full_run(model, tokens);
    let (cache, pos) = (&out.cache, tokens.pos());
    let logit = Logit::Difference(0, c.d_vocab_out - 1);
    let query = pos - 1;
    let stack = residual_stack(model, cache, Hook::ResidPost(c.n_layers - 1), By::Head).unwrap();
    let direct = direct_logit_attribution(model, cache, stack, &[logit]).unwrap();
    for layer in 0..c.n_layers {
        let by_source = source_attribution(model, cache, layer, logit).unwrap();
        let info = info_weighted_pattern(model, cache, layer).unwrap();
        let heads = (0..c.n_heads).map(|head| Head { layer, head });
        for (h, head) in heads.enumerate() {
            let whole = direct.component(Component::Head(head)).unwrap();
            for sequence in 0..tokens.batch() {
                let written = &cache[Hook::V(layer)];
                let v = |s: usize| written.slice(&[sequence, s, c.group(h)]);
                for q in 0..pos {
                    let row = by_source.slice(&[sequence, h, q]);
                    let sum: f64 = row.iter().map(|x| x.to_f64()).sum();
                    let expected = whole[[sequence, q, 0]].to_f64();
                    let pattern = cache[Hook::Pattern(layer)].slice(&[sequence, h, q]);
                    // What the terms of either way add up to without their signs.
                    let terms: Vec<f64> = (0..pos)
                        .map(|s| size(model, cache, head, v(s), sequence, q))
                        .collect();
                    let all: f64 = pattern
                        .iter()
                        .zip(&terms)
                        .map(|(p, t)| p.to_f64() * t)
                        .sum();
                    let bound = roundings(model, pos) * T::EPSILON.to_f64() * all;
                    assert!(
                        (sum - expected).abs() <= bound,
                        "{sum} {expected} {bound:e}"
                    );
                    for (s, &p) in pattern.iter().enumerate() {
                        let W_O = model.weights().W_O(head);
                        let length: f64 = (0..c.d_model)
                            .map(|j| {
                                (0..c.d_head)
                                    .map(|i| v(s)[i].to_f64() * W_O[(i, j)].to_f64())
                                    .sum::<f64>()
                                    .powi(2)
                            })
                            .sum::<f64>()
                            .sqrt();
                        let off = (info[[sequence, h, q, s]].to_f64() - p.to_f64() * length).abs();
                        let sizes: f64 = v(s)
                            .iter()
                            .enumerate()
                            .map(|(i, x)| x.to_f64().abs() * W_O.row(i).norm_l2().to_f64())
                            .sum();
                        assert!(
                            off <= roundings(model, pos) * T::EPSILON.to_f64() * p.to_f64() * sizes
                        );
                    }
                }
            }
        }
    }
    let (earlier, later) = (
        Head { layer: 0, head: 0 },
        Head {
            layer: c.n_layers - 1,
            head: c.n_heads - 1,
        },
    );
    let through = source_attribution_through(model, cache, earlier, later, query, logit);
    if c.n_layers == 1 {
        assert!(
            through
                .unwrap_err()
                .to_string()
                .contains("expected one of a later layer")
        );
        return;
    }
    let through = through.unwrap();
    for sequence in 0..tokens.batch() {
        for between in 0..pos {
            for source in 0..pos {
                let (expected, size) = by_loops(
                    model,
                    cache,
                    earlier,
                    later,
                    [sequence, source, between, query],
                );
                let found = through[[sequence, between, source]].to_f64();
                let bound = roundings(model, pos) * T::EPSILON.to_f64() * size;
                assert!(
                    (found - expected).abs() <= bound,
                    "{found} {expected} {bound:e}"
                );
            }
        }
    }
}

/// More than any number met on the way is rounded.
fn roundings<T: Scalar>(model: &Model<T>, pos: usize) -> f64 {
    let c = model.config();
    4.0 * (2 * c.d_head + 3 * c.d_model + pos + 16) as f64
}

/// The logit's direction, by its two columns of `W_U`.
fn direction<T: Scalar>(model: &Model<T>) -> Vec<f64> {
    let (W_U, last) = (model.weights().W_U.mat(&[]), model.config().d_vocab_out - 1);
    let entry = |i: usize| W_U[(i, 0)].to_f64() - W_U[(i, last)].to_f64();
    (0..model.config().d_model).map(entry).collect()
}

/// A vector of a head's values through `W_O`, forwards: the entries, and the sizes of what they are sums of.
fn written<T: Scalar>(model: &Model<T>, head: Head, v: &[T]) -> (Vec<f64>, Vec<f64>) {
    let W_O = model.weights().W_O(head);
    let sum = |j: usize, f: fn(f64) -> f64| {
        v.iter()
            .enumerate()
            .map(|(i, x)| f(x.to_f64() * W_O[(i, j)].to_f64()))
            .sum()
    };
    let d = model.config().d_model;
    (
        (0..d).map(|j| sum(j, |x| x)).collect(),
        (0..d).map(|j| sum(j, f64::abs)).collect(),
    )
}

/// What a norm multiplies by, from its parameter.
fn factor(c: &pathsum::Config, w: f64) -> f64 {
    match c.norm.map(|norm| norm.weight) {
        Some(NormWeight::OnePlus) => 1.0 + w,
        _ => w,
    }
}

/// Centred, divided by the scale and multiplied by `w`; the sizes without the signs.
fn normed(
    c: &pathsum::Config,
    norm: Option<&pathsum::model::Norm<impl Scalar>>,
    scale: Option<f64>,
    x: (Vec<f64>, Vec<f64>),
) -> (Vec<f64>, Vec<f64>) {
    let Some(scale) = scale else { return x };
    let centred = c.norm.is_some_and(|norm| norm.centred);
    let mean = |x: &[f64]| match centred {
        true => x.iter().sum::<f64>() / x.len() as f64,
        false => 0.0,
    };
    let w = |i: usize| norm.map_or(1.0, |n| factor(c, n.w.data()[i].to_f64()));
    let (m, m_size) = (mean(&x.0), mean(&x.1));
    let value =
        x.0.iter()
            .enumerate()
            .map(|(i, x)| (x - m) / scale * w(i))
            .collect();
    (
        value,
        x.1.iter()
            .enumerate()
            .map(|(i, x)| (x + m_size) / scale * w(i).abs())
            .collect(),
    )
}

fn scale<T: Scalar>(cache: &pathsum::Cache<T>, hook: Hook, at: [usize; 2]) -> Option<f64> {
    cache.get(hook).map(|s| s[[at[0], at[1], 0]].to_f64())
}

/// How large the terms are that a source's attribution is made of, before the pattern.
fn size<T: Scalar>(
    model: &Model<T>,
    cache: &pathsum::Cache<T>,
    head: Head,
    v: &[T],
    sequence: usize,
    q: usize,
) -> f64 {
    let last = scale(cache, Hook::Scale(NormSite::Final), [sequence, q]);
    let (_, sizes) = normed(
        model.config(),
        model.weights().norms.get(&NormSite::Final),
        last,
        written(model, head, v),
    );
    let (W_U, out) = (model.weights().W_U.mat(&[]), model.config().d_vocab_out - 1);
    let weights = |i: usize| W_U[(i, 0)].to_f64().abs() + W_U[(i, out)].to_f64().abs();
    sizes.iter().enumerate().map(|(i, s)| s * weights(i)).sum()
}

/// One entry of the attribution through two heads, forwards: from the values at the source to the logit; and its size.
fn by_loops<T: Scalar>(
    model: &Model<T>,
    cache: &pathsum::Cache<T>,
    earlier: Head,
    later: Head,
    at: [usize; 4],
) -> (f64, f64) {
    let [sequence, source, between, query] = at;
    let w = model.weights();
    let v = cache[Hook::V(earlier.layer)].slice(&[
        sequence,
        source,
        model.config().group(earlier.head),
    ]);
    let ln1 = scale(
        cache,
        Hook::Scale(NormSite::Ln1(later.layer)),
        [sequence, between],
    );
    let (x, x_size) = normed(
        model.config(),
        w.norms.get(&NormSite::Ln1(later.layer)),
        ln1,
        written(model, earlier, v),
    );
    let W_V = w.W_V(later);
    let value = |j: usize| -> f64 {
        x.iter()
            .enumerate()
            .map(|(i, x)| x * W_V[(i, j)].to_f64())
            .sum()
    };
    let value_size = |j: usize| -> f64 {
        x_size
            .iter()
            .enumerate()
            .map(|(i, x)| x * W_V[(i, j)].to_f64().abs())
            .sum()
    };
    let W_O = w.W_O(later);
    let d_head = model.config().d_head;
    let out = |j: usize| (0..d_head).map(|i| value(i) * W_O[(i, j)].to_f64()).sum();
    let out_size = |j: usize| {
        (0..d_head)
            .map(|i| value_size(i) * W_O[(i, j)].to_f64().abs())
            .sum()
    };
    let d = model.config().d_model;
    let result = ((0..d).map(out).collect(), (0..d).map(out_size).collect());
    let last = scale(cache, Hook::Scale(NormSite::Final), [sequence, query]);
    let (y, y_size) = normed(model.config(), w.norms.get(&NormSite::Final), last, result);
    let patterns = cache[Hook::Pattern(earlier.layer)][[sequence, earlier.head, between, source]]
        .to_f64()
        * cache[Hook::Pattern(later.layer)][[sequence, later.head, query, between]].to_f64();
    let along: f64 = y.iter().zip(direction(model)).map(|(y, u)| y * u).sum();
    let (W_U, end) = (w.W_U.mat(&[]), model.config().d_vocab_out - 1);
    let weights = |i: usize| W_U[(i, 0)].to_f64().abs() + W_U[(i, end)].to_f64().abs();
    let size: f64 = y_size.iter().enumerate().map(|(i, y)| y * weights(i)).sum();
    (patterns * along, patterns * size)
}
