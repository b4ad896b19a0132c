//! Products at a language model's sizes by the BLAS that is linked, beside faer: medians of rounds in which each has its turn,
//! on one thread and on two. All three matrices are row-major, as a model's are; both are split over threads in the same way, so
//! that the library should use one of its own.
//!
//! `OPENBLAS_NUM_THREADS=1 RUSTFLAGS="-l openblas" cargo bench --bench blas --features blas`

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use pathsum::Scalar;
use pathsum::linalg::product_into;
use rayon::prelude::*;
use std::time::Instant;

const ROUNDS: usize = 5;
const SIZES: [[usize; 3]; 5] = [
    [128, 768, 768],
    [128, 768, 3072],
    [1024, 768, 3072],
    [1024, 768, 50257],
    [2048, 2048, 2048],
];

fn main() {
    if let Err(e) = pathsum::linalg::check_blas() {
        panic!("{e}");
    }
    println!("instructions: {}", pathsum::tensor::instructions());
    println!("| product | precision | threads | faer | linked BLAS | times as fast |");
    println!("|---|---|---|---|---|---|");
    for size in SIZES {
        race::<f32>(size);
        race::<f64>(size);
    }
}

fn race<T: Scalar>([m, k, n]: [usize; 3]) {
    let entry = |i: usize| T::from_f64(((i * 7919) % 1013) as f64 / 1013.0 - 0.5);
    let values = |length| (0..length).map(entry).collect::<Vec<T>>();
    let (a, b, mut c) = (values(m * k), values(k * n), vec![T::ZERO; m * n]);
    let A = MatRef::from_row_major_slice(&a, m, k);
    let B = MatRef::from_row_major_slice(&b, k, n);
    let faer = |C: MatMut<'_, T>, B: MatRef<'_, T>| {
        matmul(C, Accum::Replace, A, B, T::ONE, Par::Seq);
    };
    let linked = |C: MatMut<'_, T>, B: MatRef<'_, T>| product_into(C, T::ONE, A, B);
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let pool = pool.build().expect("two threads can be had");
        let mut times = [Vec::new(), Vec::new()];
        for round in 0..=ROUNDS {
            let mut C = MatMut::from_row_major_slice_mut(&mut c, m, n);
            let faer = time(|| pool.install(|| split(C.as_mut(), B, threads, faer)));
            let linked = time(|| pool.install(|| split(C.as_mut(), B, threads, linked)));
            // The first round finds the memory and the clock as they were left.
            if round > 0 {
                times[0].push(faer);
                times[1].push(linked);
            }
        }
        let [faer, blas] = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[ROUNDS / 2]
        });
        let ratio = faer / blas;
        let precision = T::PRECISION;
        println!(
            "| {m} x {k} x {n} | {precision} | {threads} | {faer:.3} ms | {blas:.3} ms | {ratio:.2} |"
        );
    }
}

/// Milliseconds.
fn time(f: impl FnOnce()) -> f64 {
    let start = Instant::now();
    f();
    1e3 * start.elapsed().as_secs_f64()
}

/// By columns, in more pieces than there are threads.
fn split<T: Scalar>(
    C: MatMut<'_, T>,
    B: MatRef<'_, T>,
    threads: usize,
    multiply: impl Fn(MatMut<'_, T>, MatRef<'_, T>) + Sync,
) {
    if threads == 1 {
        return multiply(C, B);
    }
    let chunk = B.ncols().div_ceil(4 * threads);
    let (mut pieces, mut rest) = (Vec::new(), C);
    while rest.ncols() > 0 {
        let wide = chunk.min(rest.ncols());
        let (piece, more) = rest.split_at_col_mut(wide);
        pieces.push(piece);
        rest = more;
    }
    pieces.into_par_iter().enumerate().for_each(|(c, C)| {
        let B = B.subcols(c * chunk, C.ncols());
        multiply(C, B);
    });
}
