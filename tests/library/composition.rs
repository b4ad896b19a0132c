//! Composition scores of heads that share keys, turn them, and norm them: against copied keys and explicit rotations.

use nalgebra::DMatrix;
use pathsum::decompose::{Composition, Distance, composition_scores};
use pathsum::{Config, Error, Head, Model, Par, Tensor, Weights};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

const D_MODEL: usize = 12;
const D_HEAD: usize = 6;
const HEADS: usize = 4;
const GROUPS: usize = 2;
/// Of a head's entries so many are turned.
const TURNED: usize = 4;
const BASE: f64 = 100.0;

fn model(extra: &str, seed: u64) -> Model<f64> {
    let config = Config::from_json(&format!(
        r#"{{"n_layers": 3, "d_model": {D_MODEL}, "n_ctx": 32, "d_head": {D_HEAD}, "n_heads": {HEADS},
            "n_key_value_heads": {GROUPS}, "d_vocab": 5, "attn_only": true,
            "positional_embedding_type": "rotary", "rotary_dim": {TURNED}, "rotary_base": {BASE}{extra}}}"#
    ))
    .unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let weights = Weights::build(&config, |_, shape| {
        Ok(Tensor::from_fn(shape, |_| rng.random_range(-1.0..1.0)))
    });
    Model::new(config, weights.unwrap()).unwrap()
}

/// `R[n]` as `transformers` turns a row: `x cos + rotate_half(x) sin` over the entries that are turned.
fn rotation(n: usize) -> DMatrix<f64> {
    let mut R = DMatrix::identity(D_HEAD, D_HEAD);
    let half = TURNED / 2;
    for f in 0..half {
        let angle = n as f64 * BASE.powf(-(2.0 * f as f64) / TURNED as f64);
        let (a, b) = (f, f + half);
        R[(a, a)] = angle.cos();
        R[(b, b)] = angle.cos();
        R[(b, a)] = -angle.sin();
        R[(a, b)] = angle.sin();
    }
    R
}

/// Every head with keys and values of its own: `W_Q`, `W_K`, `W_V`, `W_O`.
fn copied(model: &Model<f64>, h: Head) -> [DMatrix<f64>; 4] {
    let attn = &model.weights().blocks[h.layer].attn;
    let group = h.head / (HEADS / GROUPS);
    let columns =
        |W: &Tensor<f64>, own: usize| DMatrix::from_fn(D_MODEL, D_HEAD, |i, j| W[[i, own, j]]);
    [
        columns(&attn.W_Q, h.head),
        columns(&attn.W_K, group),
        columns(&attn.W_V, group),
        DMatrix::from_fn(D_HEAD, D_MODEL, |j, i| attn.W_O[[h.head, j, i]]),
    ]
}

fn every_score_is_naive(model: &Model<f64>, w: impl Fn(usize, bool) -> DMatrix<f64>) {
    let distances = [
        (Distance::At(0), vec![0]),
        (Distance::At(7), vec![7]),
        (Distance::MeanTo(9), (0..=9).collect()),
    ];
    for (distance, all) in distances {
        let R = all.iter().map(|&n| rotation(n)).sum::<DMatrix<f64>>() / all.len() as f64;
        let scores = composition_scores(model, distance, Par::Seq).unwrap();
        for (l1, l2) in [(0, 1), (0, 2), (1, 2)] {
            for (a, b) in (0..HEADS).flat_map(|a| (0..HEADS).map(move |b| (a, b))) {
                let (a, b) = (Head { layer: l1, head: a }, Head { layer: l2, head: b });
                let [_, _, W_V, W_O] = copied(model, a);
                let L = W_V * W_O;
                let [W_Q, W_K, W_V, W_O] = copied(model, b);
                let QK = W_Q * w(l2, true) * &R * w(l2, false) * W_K.transpose();
                for (kind, M) in [
                    (Composition::Q, QK.clone()),
                    (Composition::K, QK.transpose()),
                    (Composition::V, W_V * W_O),
                ] {
                    let expected = (&L * &M).norm() / L.norm() / M.norm();
                    let found = scores.score(kind, a, b);
                    // Products over the stream and a head, and the stated error of the square, halved by the root.
                    let roundings = (8 * D_MODEL + 2 * 128 * 128) as f64 * f64::EPSILON;
                    let off = (found - expected).abs();
                    assert!(
                        off <= roundings / expected,
                        "{kind:?} {a} {b} {distance}: {found} {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn shared_and_turned_keys_compose_as_copied_ones_do() {
    for seed in 0..3 {
        let one = |_: usize, _: bool| DMatrix::identity(D_HEAD, D_HEAD);
        every_score_is_naive(&model("", seed), one);
    }
}

#[test]
fn norms_of_queries_and_keys_are_in_the_scores_but_for_their_scale() {
    let model = model(r#", "normalization_type": "RMS", "use_qk_norm": true"#, 5);
    let norms = &model.weights().norms;
    every_score_is_naive(&model, |l, query| {
        let site = match query {
            true => pathsum::names::NormSite::Q(l),
            false => pathsum::names::NormSite::K(l),
        };
        let w = norms[&site].w.data();
        DMatrix::from_fn(D_HEAD, D_HEAD, |i, j| if i == j { w[i] } else { 0.0 })
    });
}

#[test]
fn distances_that_a_model_does_not_have_are_refused() {
    let beyond = composition_scores(&model("", 0), Distance::At(32), Par::Seq).unwrap_err();
    assert!(
        matches!(
            beyond,
            Error::OutOfRange {
                what: "distance",
                ..
            }
        ),
        "{beyond}"
    );
    let straight = pathsum::fixture::induction::<f64>();
    let none = composition_scores(&straight, Distance::At(3), Par::Seq).unwrap_err();
    assert!(none.to_string().contains("no rotary positions"), "{none}");
}
