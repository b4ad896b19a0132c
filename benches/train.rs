//! Training in f32: an epoch of the palindrome model's 2,500 sequences, in batches of 100 and of 500; and an epoch of modular
//! addition, all of its 3,830 pairs at once. `benches/peer/` runs the same in TransformerLens and PyTorch.
//!
//! With `PATHSUM_REFERENCE` set, on the reference dataset; else on tokens of the same shape, which is the same work.

mod palindrome;

use criterion::{Criterion, criterion_group, criterion_main};
use pathsum::Par;
use pathsum::metric::Answers;
use pathsum::task::{BuiltIn, Labelled};
use pathsum::train::{Recipe, Settings, Trainer, TrainingSet};

fn train(c: &mut Criterion) {
    let (model, tokens, labels) = palindrome::model_and_data();
    let answers = Answers::new(&[tokens.pos() - 1], labels);
    let n = tokens.batch();
    let all = Labelled { tokens, answers };
    let mut group = c.benchmark_group("train");
    for size in [100, 500] {
        let set = TrainingSet::new(all.clone(), size, 0);
        let config = model.config().clone();
        let mut trainer = Trainer::<f32>::new(config, Settings::default()).unwrap();
        let mut step = 0;
        group.bench_function(format!("epoch_by_{size}"), |b| {
            b.iter(|| {
                for _ in 0..n / size {
                    trainer.step(&set.batch(step), Par::Rayon).unwrap();
                    step += 1;
                }
            });
        });
    }
    let recipe = Recipe::built_in(BuiltIn::ModularAddition);
    let all = recipe.draw().unwrap().batch(0);
    let mut trainer = Trainer::<f32>::new(recipe.model, recipe.settings).unwrap();
    group.bench_function("epoch_full_batch", |b| {
        b.iter(|| trainer.step(&all, Par::Rayon).unwrap());
    });
    group.finish();
}

criterion_group!(benches, train);
criterion_main!(benches);
