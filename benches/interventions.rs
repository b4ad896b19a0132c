//! Sweeps of interventions in f32, on the reference checkpoints: `benches/peer/` runs the same in
//! TransformerLens. Without `PATHSUM_REFERENCE` there is nothing to sweep over.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use pathsum::intervene::{Change, Each, Grid, Over, Scope, Site, Sweep};
use pathsum::metric::{Answers, Standard};
use pathsum::{Model, Run, TensorFile, Tokens};
use std::path::Path;

/// The brackets model's token that fills sequences up.
const PAD: i64 = 1;

/// Sequences of each batch of brackets.
const SEQUENCES: usize = 100;

/// Which of the dataset's brackets.
#[derive(Clone, Copy, PartialEq)]
enum Brackets {
    /// As it has them: of all lengths, filled up with pads.
    Any,
    /// Those without pads.
    Whole,
}

fn ablate_heads(group: &mut BenchmarkGroup<WallTime>, root: &Path) {
    let folder = root.join("palindrome");
    let model: Model<f32> = Model::load(&folder).expect("a reference model");
    let file = TensorFile::open(folder.join("dataset.safetensors")).expect("its dataset");
    let tokens = Tokens::from_file(&file).expect("its tokens");
    let last = tokens.pos() - 1;
    let answers = Answers::from_file(&file, "is_palindrome", &tokens, &[last]).expect("its labels");
    let change = Change::Mean(Over::Sequences);
    let scope = Scope::default();
    let grid = Grid::new(
        model.config(),
        tokens.pos(),
        Site::Result,
        &[Each::Head],
        &scope,
        &change,
    );
    let grid = grid.expect("heads there are");
    group.bench_function("ablate_heads", |b| {
        b.iter(|| {
            let sweep = Sweep::new(&model, &tokens, &answers, &Standard::LogitDiff);
            sweep.run(&grid).expect("a sweep of its own heads")
        })
    });
}

/// The first and the last of the sequences, and where their answers are read.
fn brackets(file: &TensorFile, which: Brackets) -> (Tokens, Tokens, Answers) {
    let tokens = Tokens::from_file(file).expect("tokens");
    let all = (0..tokens.batch()).map(|i| tokens.sequence(i));
    let taken: Vec<&[i64]> = all
        .filter(|s| which == Brackets::Any || !s.contains(&PAD))
        .collect();
    let (clean, corrupt) = (&taken[..SEQUENCES], &taken[taken.len() - SEQUENCES..]);
    (
        Tokens::from_rows(clean),
        Tokens::from_rows(corrupt),
        Answers::at(SEQUENCES, &[0]),
    )
}

fn patch(group: &mut BenchmarkGroup<WallTime>, root: &Path, which: Brackets) {
    let folder = root.join("brackets");
    let model: Model<f32> = Model::load(&folder).expect("a reference model");
    let file = TensorFile::open(folder.join("dataset.safetensors")).expect("its dataset");
    let (clean, corrupt, answers) = brackets(&file, which);
    for (site, by) in [(Site::ResidPre, Each::Layer), (Site::Z, Each::Head)] {
        let scope = Scope::default();
        let by = [by, Each::Position];
        let grid = Grid::new(
            model.config(),
            clean.pos(),
            site,
            &by,
            &scope,
            &Change::Patch,
        );
        let grid = grid.expect("places there are");
        let suffix = match which {
            Brackets::Any => "",
            Brackets::Whole => "_whole",
        };
        group.bench_function(format!("patch_{site}{suffix}"), |b| {
            b.iter(|| {
                let run =
                    (0..model.config().n_layers).fold(Run::new(), |run, l| run.cache(site.hook(l)));
                let source = model.run(&clean, run).expect("tokens of its own").cache;
                let sweep = Sweep::new(&model, &corrupt, &answers, &Standard::Difference(1, 0));
                sweep
                    .source(&source)
                    .run(&grid)
                    .expect("a sweep of its own places")
            })
        });
    }
}

fn interventions(c: &mut Criterion) {
    let Some(root) = std::env::var_os("PATHSUM_REFERENCE") else {
        eprintln!("skipped: PATHSUM_REFERENCE is not set");
        return;
    };
    let mut group = c.benchmark_group("interventions");
    ablate_heads(&mut group, Path::new(&root));
    for which in [Brackets::Any, Brackets::Whole] {
        patch(&mut group, Path::new(&root), which);
    }
    group.finish();
}

criterion_group! {
    name = benches;
    // A grid takes long enough for ten to say how long.
    config = Criterion::default().sample_size(10);
    targets = interventions
}
criterion_main!(benches);
