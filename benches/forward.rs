//! The forward pass of the palindrome model in f32: 2,500 sequences, one sequence, and a full cache of
//! the 2,500. `benches/peer/` runs the same in TransformerLens.
//!
//! With `PATHSUM_REFERENCE` set, on the reference checkpoint and its dataset; else on weights and tokens
//! of the same shapes, which is the same work.

use criterion::{Criterion, criterion_group, criterion_main};
use pathsum::{Config, Hook, Model, Run, Tensor, TensorFile, Tokens, Weights};
use std::path::Path;

const SEQUENCES: usize = 2500;

fn model_and_tokens() -> (Model<f32>, Tokens) {
    if let Some(reference) = std::env::var_os("PATHSUM_REFERENCE") {
        let folder = Path::new(&reference).join("palindrome");
        let model = Model::load(&folder).expect("a reference model");
        let file = TensorFile::open(folder.join("dataset.safetensors")).expect("its dataset");
        return (model, Tokens::from_file(&file).expect("its tokens"));
    }
    let config = Config::from_json(
        r#"{"n_layers": 2, "d_model": 28, "n_ctx": 22, "d_head": 14, "n_heads": 2, "d_vocab": 33,
            "d_vocab_out": 2, "attn_only": true}"#,
    );
    let config = config.expect("a constant");
    // Small and of both signs, so that no pattern is one-hot and no exponential underflows.
    let wave = |shape: &[usize]| {
        Tensor::from_fn(shape, |at| (at.iter().sum::<usize>() as f32).sin() * 0.3)
    };
    let weights = Weights::build(&config, |_, shape| Ok(wave(shape))).expect("nothing to fail");
    let tokens = Tokens::random(&config, SEQUENCES, 0);
    (
        Model::new(config, weights).expect("built from the configuration"),
        tokens,
    )
}

fn forward(c: &mut Criterion) {
    let (model, tokens) = model_and_tokens();
    let one = tokens.slice(0, 1);
    let mut group = c.benchmark_group("palindrome");
    group.bench_function("forward_2500", |b| {
        b.iter(|| model.logits(&tokens).unwrap())
    });
    group.bench_function("forward_1", |b| b.iter(|| model.logits(&one).unwrap()));
    // TransformerLens's default cache has no hook_result.
    let hooks: Vec<Hook> = model
        .config()
        .hooks()
        .into_iter()
        .filter(|h| !matches!(h, Hook::Result(_)))
        .collect();
    let full = || hooks.iter().fold(Run::new(), |run, hook| run.cache(hook));
    // As a loop over batches does it: each run in the memory of the one before.
    let mut last = Some(model.run(&tokens, full()).unwrap());
    group.bench_function("cache_2500", |b| {
        b.iter(|| {
            let run = full().reuse(last.take().expect("the one before"));
            last = Some(model.run(&tokens, run).unwrap());
        });
    });
    drop(last);
    group.bench_function("cache_2500_fresh", |b| {
        b.iter_with_large_drop(|| model.run(&tokens, full()).unwrap());
    });
    group.finish();
}

criterion_group!(benches, forward);
criterion_main!(benches);
