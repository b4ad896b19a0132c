//! Draws: a reference, and an input for every node of the hypothesis.

use super::Scrub;
use super::hypothesis::Body;
use super::run::{Job, Read};
use crate::error::Result;
use crate::tensor::Scalar;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// How many samples are drawn at a time, whatever their number.
const AT_A_TIME: usize = 1 << 13;

/// The metric of each sample.
pub(super) fn values<T: Scalar>(
    scrub: &Scrub<'_, T>,
    body: &Body<T>,
    samples: usize,
    seed: u64,
) -> Result<Vec<f64>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let inputs = scrub.tokens.batch();
    let mut logits = vec![0.0; scrub.model.config().d_vocab_out];
    let mut values = Vec::with_capacity(samples);
    while values.len() < samples {
        let count = AT_A_TIME.min(samples - values.len());
        let references: Vec<usize> = (0..count).map(|_| rng.random_range(0..inputs)).collect();
        let rows = drawn(scrub, body, &Read::Answers, &references, &mut rng)?;
        let rows = rows.chunks_exact(scrub.width(&Read::Answers));
        let of = |(&reference, rows)| scrub.metric_of(reference, rows, &mut logits);
        values.extend(references.iter().zip(rows).map(of));
    }
    Ok(values)
}

/// A node's values for some inputs: everything that it depends on is drawn, then it is run.
fn drawn<T: Scalar>(
    scrub: &Scrub<'_, T>,
    body: &Body<T>,
    read: &Read<'_, T>,
    inputs: &[usize],
    rng: &mut ChaCha8Rng,
) -> Result<Vec<T>> {
    let mut draw = |from: &super::hypothesis::Classes, input: usize| {
        let agreeing = from.agreeing(input);
        agreeing[rng.random_range(0..agreeing.len())]
    };
    let bases: Vec<usize> = inputs.iter().map(|&i| draw(&body.rest, i)).collect();
    if body.children.is_empty() {
        return once_each(scrub, body, read, &bases);
    }
    let drawn_for: Vec<Vec<usize>> = (body.children.iter())
        .map(|child| inputs.iter().map(|&i| draw(&child.agree, i)).collect())
        .collect();
    let mut values = Vec::new();
    for (child, inputs) in body.children.iter().zip(&drawn_for) {
        let read = Read::Piece(&child.site);
        values.push(drawn(scrub, &child.body, &read, inputs, rng)?);
    }
    let job = |(i, &base): (usize, &usize)| Job {
        base,
        values: (values.iter().zip(&body.children))
            .map(|(values, child)| &values[i * child.site.width()..][..child.site.width()])
            .collect(),
    };
    let jobs: Vec<Job<'_, T>> = bases.iter().enumerate().map(job).collect();
    scrub.run(body, read, &jobs)
}

/// The values of inputs that nothing is changed of: each is run once, however often it was drawn.
fn once_each<T: Scalar>(
    scrub: &Scrub<'_, T>,
    body: &Body<T>,
    read: &Read<'_, T>,
    bases: &[usize],
) -> Result<Vec<T>> {
    let mut distinct = bases.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let job = |&base: &usize| Job {
        base,
        values: Vec::new(),
    };
    let found = scrub.run(body, read, &distinct.iter().map(job).collect::<Vec<_>>())?;
    let width = scrub.width(read);
    let mut values = Vec::with_capacity(bases.len() * width);
    for base in bases {
        let at = distinct.binary_search(base).expect("it is among them");
        values.extend_from_slice(&found[at * width..][..width]);
    }
    Ok(values)
}
