//! Attribution and exact patching at GPT-2 small's sizes, in f32, with random weights: `benches/peer/` runs the same in
//! PyTorch and TransformerLens.

mod random;

use criterion::{Criterion, criterion_group, criterion_main};
use pathsum::edges::{Attribution, Edges};
use pathsum::gradient::{attribution_patching, sum_to};
use pathsum::intervene::{Change, Each, Grid, Scope, Site, Sweep};
use pathsum::metric::{Answers, Standard};
use pathsum::{Hook, Par, Run, Tokens};
use random::{GPT2, model};

/// The logits that are compared.
const METRIC: Standard = Standard::Difference(5, 11);

/// Two batches that differ from the fifth token on, and where they are read.
fn pairs(batch: usize, pos: usize) -> (Tokens, Tokens, Answers) {
    let clean: Vec<i64> = (0..batch * pos)
        .map(|i| (i as i64 * 7919) % 49152)
        .collect();
    let other = |(i, &token): (usize, &i64)| match i % pos < 4 {
        true => token,
        false => token * 31 % 49152,
    };
    let corrupt = clean.iter().enumerate().map(other).collect();
    (
        Tokens::new(batch, pos, clean),
        Tokens::new(batch, pos, corrupt),
        Answers::at(batch, &[pos - 1]),
    )
}

fn patching(c: &mut Criterion) {
    let model = model(GPT2);
    let mut group = c.benchmark_group("patching");
    let (clean, corrupt, answers) = pairs(8, 16);
    group.bench_function("attribution", |b| {
        b.iter(|| {
            let hooks = &["*hook_z"];
            let par = Par::Rayon;
            let found =
                attribution_patching(&model, &clean, &corrupt, &METRIC, &answers, hooks, par);
            let found = found.unwrap();
            let heads = |l| sum_to(&found[Hook::Z(l)], &[1, 2]);
            (0..12).map(heads).collect::<Vec<_>>()
        })
    });
    group.bench_function("edge_attribution", |b| {
        b.iter(|| {
            let edges = Edges::new(&model, &clean, &corrupt, &answers, &METRIC).unwrap();
            edges.attribution(Attribution::Eap).unwrap()
        })
    });
    let (clean, corrupt, answers) = pairs(1, 16);
    let (scope, change) = (Scope::default(), Change::Patch);
    let by = [Each::Head, Each::Position];
    let grid = Grid::new(model.config(), 16, Site::Z, &by, &scope, &change).unwrap();
    group.bench_function("patch_z", |b| {
        b.iter(|| {
            let run = (0..12).fold(Run::new(), |run, l| run.cache(Hook::Z(l)));
            let source = model.run(&corrupt, run).unwrap().cache;
            let sweep = Sweep::new(&model, &clean, &answers, &METRIC);
            sweep.source(&source).run(&grid).unwrap()
        })
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = patching
}
criterion_main!(benches);
