//! The forward pass of the palindrome model in f32: 2,500 sequences, one sequence, and a full cache of
//! the 2,500. `benches/peer/` runs the same in TransformerLens.
//!
//! With `PATHSUM_REFERENCE` set, on the reference checkpoint and its dataset; else on weights and tokens
//! of the same shapes, which is the same work.

mod palindrome;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use pathsum::{Hook, Model, Run};

fn forward(c: &mut Criterion) {
    let (model, tokens, _) = palindrome::model_and_data();
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
    group.bench_function("cache_2500", |b| {
        b.iter(|| model.run(&tokens, full()).unwrap());
    });
    // A model's first run has no memory of an earlier one.
    group.bench_function("cache_2500_first", |b| {
        let run = |model: Model<f32>| (model.run(&tokens, full()).unwrap(), model);
        b.iter_batched(|| model.clone(), run, BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, forward);
criterion_main!(benches);
