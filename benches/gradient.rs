//! Derivatives of the palindrome model's loss in f32, by every hook's value. `benches/peer/` runs the same in
//! TransformerLens.
//!
//! With `PATHSUM_REFERENCE` set, on the reference checkpoint and its dataset; else on weights and tokens
//! of the same shapes, which is the same work.

mod palindrome;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use pathsum::gradient::hook_gradients;
use pathsum::metric::{Answers, Standard};
use pathsum::{Hook, Model, Par};

fn gradient(c: &mut Criterion) {
    let (model, tokens, labels) = palindrome::model_and_data();
    let answers = Answers::new(&[tokens.pos() - 1], labels);
    let mut group = c.benchmark_group("gradient");
    // TransformerLens has hook_result only where it is asked for.
    let hooks: Vec<Hook> = model
        .config()
        .hooks()
        .into_iter()
        .filter(|h| !matches!(h, Hook::Result(_)))
        .collect();
    let every_hook = |model: &Model<f32>| {
        let loss = &Standard::Loss;
        hook_gradients(model, &tokens, loss, &answers, &hooks, Par::Rayon).unwrap()
    };
    group.bench_function("every_hook_2500", |b| b.iter(|| every_hook(&model)));
    // A model's first derivatives have no memory of earlier ones.
    group.bench_function("every_hook_2500_first", |b| {
        let first = |model: Model<f32>| (every_hook(&model), model);
        b.iter_batched(|| model.clone(), first, BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, gradient);
criterion_main!(benches);
