//! Forward passes at the sizes of GPT-2 small and SmolLM2-135M, in f32, with random weights: of whole sequences, and of 64
//! tokens one by one after a prompt of 16. `benches/peer/` runs the same in other implementations.
//!
//! `machine/` is what the processor gives at best, in the same run: a large product on each core at once, and reading memory.

mod random;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use faer::Mat;
use pathsum::Tokens;
use pathsum::linalg::product;
use random::{GPT2, model};
use rayon::prelude::*;

const SMOLLM2: &str = r#"{"n_layers": 30, "d_model": 576, "n_ctx": 8192, "d_head": 64, "n_heads": 9,
    "n_key_value_heads": 3, "d_vocab": 49152, "d_mlp": 1536, "act_fn": "silu", "gated_mlp": true,
    "normalization_type": "RMS", "eps": 1e-5, "positional_embedding_type": "rotary", "rotary_dim": 64,
    "rotary_base": 100000}"#;

fn tokens(batch: usize, pos: usize) -> Tokens {
    let ids = (0..batch * pos).map(|i| (i as i64 * 7919) % 49152);
    Tokens::new(batch, pos, ids.collect())
}

fn language(c: &mut Criterion) {
    for (name, config) in [("gpt2", GPT2), ("smollm2", SMOLLM2)] {
        // Made where it is measured, so that a filter leaves the other out, and its memory.
        let mut made = None;
        let mut group = c.benchmark_group(name);
        group.sample_size(10);
        for (batch, pos) in [(1, 16), (1, 128), (4, 256), (1, 1024)] {
            group.bench_function(format!("{batch}x{pos}"), |b| {
                let model = made.get_or_insert_with(|| model(config));
                let tokens = tokens(batch, pos);
                b.iter(|| model.logits(&tokens).unwrap());
            });
        }
        group.bench_function("64_one_by_one", |b| {
            let model = made.get_or_insert_with(|| model(config));
            let tokens = tokens(1, 80);
            let (prompt, rest) = tokens.sequence(0).split_at(16);
            b.iter_with_setup(
                || model.continuation(prompt).unwrap(),
                // Given back: to drop it is not timed.
                |mut text| {
                    rest.iter().for_each(|&token| text.push(token).unwrap());
                    text
                },
            );
        });
    }
}

fn machine(c: &mut Criterion) {
    let mut group = c.benchmark_group("machine");
    group.sample_size(10);
    let cores = rayon::current_num_threads();
    let n = 1024;
    group.throughput(Throughput::Elements((cores * 2 * n * n * n) as u64));
    group.bench_function("product", |b| {
        let A = Mat::from_fn(n, n, |i, j| ((i * 7 + j * 13) % 11) as f32);
        b.iter(|| {
            (0..cores)
                .into_par_iter()
                .for_each(|_| drop(product(A.as_ref(), A.as_ref())))
        });
    });
    let bytes = 1 << 29;
    group.throughput(Throughput::Bytes(bytes));
    group.bench_function("read", |b| {
        let data = vec![1u64; bytes as usize / 8];
        b.iter(|| {
            let parts = data.par_chunks(data.len() / cores);
            parts
                .map(|part| part.iter().fold(0u64, |a, &x| a ^ x))
                .sum::<u64>()
        });
    });
}

criterion_group!(benches, machine, language);
criterion_main!(benches);
