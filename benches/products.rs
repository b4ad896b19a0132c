//! The products of a small attention head and of a narrow projection, beside faer's own routine.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use pathsum::linalg::product_into;

fn products(c: &mut Criterion) {
    for (name, m, k, n, transposed) in [
        ("scores", 22, 14, 22, true),
        ("z", 22, 22, 14, false),
        ("projection", 512, 28, 28, false),
        ("wide", 512, 256, 256, false),
    ] {
        let (a, b) = (vec![0.5f32; m * k], vec![0.25f32; k * n]);
        let mut out = vec![0.0f32; m * n];
        let A = MatRef::from_row_major_slice(&a, m, k);
        let B = if transposed {
            MatRef::from_row_major_slice(&b, n, k).transpose()
        } else {
            MatRef::from_row_major_slice(&b, k, n)
        };
        let mut group = c.benchmark_group(format!("product/{name}"));
        let shape = format!("{m}x{k}x{n}");
        group.bench_function(BenchmarkId::new("pathsum", &shape), |bench| {
            bench
                .iter(|| product_into(MatMut::from_row_major_slice_mut(&mut out, m, n), 2.0, A, B));
        });
        group.bench_function(BenchmarkId::new("faer", &shape), |bench| {
            bench.iter(|| {
                let dst = MatMut::from_row_major_slice_mut(&mut out, m, n);
                matmul(dst, Accum::Replace, A, B, 2.0, Par::Seq);
            });
        });
        group.finish();
    }
}

criterion_group!(benches, products);
criterion_main!(benches);
