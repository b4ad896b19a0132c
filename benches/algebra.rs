//! The algebra of circuits at GPT-2 small's sizes, on random weights, in f32: all composition scores, the singular
//! value decomposition of one `W_OV`, and the ten largest entries of every row of `W_E W_OV W_U`.
//! `benches/peer/` runs the same in TransformerLens and PyTorch.

use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use faer::Mat;
use pathsum::decompose::{Distance, composition_scores};
use pathsum::{Config, Factored, Model, Par, Tensor, Weights};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;

const D_VOCAB: usize = 50257;
const D_MODEL: usize = 768;
const D_HEAD: usize = 64;

/// Sums of four uniform numbers: near enough to normal, for which the time of nothing here depends on.
fn random(rng: &mut ChaCha8Rng) -> f32 {
    0.02 * (0..4).map(|_| rng.random_range(-1.0..1.0)).sum::<f32>()
}

fn matrix(rng: &mut ChaCha8Rng, m: usize, n: usize) -> Mat<f32> {
    Mat::from_fn(m, n, |_, _| random(rng))
}

fn model() -> Model<f32> {
    let config = Config::from_json(
        r#"{"n_layers": 12, "d_model": 768, "n_ctx": 8, "d_head": 64, "n_heads": 12, "d_vocab": 8,
            "attn_only": true}"#,
    );
    let config = config.expect("a constant");
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let weights = Weights::build(&config, |_, shape| {
        Ok(Tensor::from_fn(shape, |_| random(&mut rng)))
    });
    Model::new(config, weights.expect("nothing to fail")).expect("built from the configuration")
}

fn algebra(c: &mut Criterion) {
    let mut group = c.benchmark_group("algebra");
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    let model = model();
    group.bench_function("composition", |b| {
        b.iter(|| composition_scores(&model, Distance::At(0), Par::Rayon).unwrap())
    });

    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let W_OV = Factored::new(
        matrix(&mut rng, D_MODEL, D_HEAD),
        matrix(&mut rng, D_HEAD, D_MODEL),
    );
    group.bench_function("svd", |b| b.iter(|| W_OV.svd().unwrap()));
    group.bench_function("eigenvalues", |b| b.iter(|| W_OV.eigenvalues().unwrap()));

    let W_E = matrix(&mut rng, D_VOCAB, D_MODEL);
    let W_U = matrix(&mut rng, D_MODEL, D_VOCAB);
    group.measurement_time(Duration::from_secs(15));
    group.bench_function("top_10", |b| {
        b.iter(|| {
            let circuit = W_OV.dense_times(W_E.as_ref(), Par::Rayon);
            let circuit = circuit.times_dense(W_U.as_ref(), Par::Rayon);
            circuit.top_k(10, Par::Rayon).unwrap()
        });
    });
    group.finish();
}

criterion_group!(benches, algebra);
criterion_main!(benches);
