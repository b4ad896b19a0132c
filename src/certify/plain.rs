//! Every input of a small space, one by one, by the tables.

use super::{Certified, Count, Interval, OneLayer};
use crate::error::Result;
use crate::linalg::Par;
use crate::task::{Space, Task};
use rayon::prelude::*;

/// Marks every input of a space, for claims with a margin.
///
/// *Cost*: for each input and answer `heads · positions · (classes + d_model)` sums of intervals.
///
/// # Errors
/// When a sequence has not the task's form.
pub fn enumerate(
    tables: &OneLayer,
    task: &dyn Task,
    space: &Space,
    margin: f64,
    par: Par,
    done: &(dyn Fn(u128) + Sync),
) -> Result<Certified> {
    /// Inputs between two words of progress.
    const STRETCH: u128 = 4096;
    let places = task.read_at();
    let stretch = |first: u128| -> Result<Vec<Count>> {
        let mut counts = vec![Count::default(); places.len() + 1];
        let last = (first + STRETCH).min(space.size());
        for index in first..last {
            let sequence = space.sequence(index);
            task.check(&sequence)?;
            let right = task.solve(&sequence);
            let answers = places.iter().zip(right);
            let found: Vec<_> = answers
                .map(|(&p, u)| mark(tables, &sequence, (p, u), margin))
                .collect();
            let all = match () {
                () if found.contains(&Some(false)) => Some(false),
                () if found.contains(&None) => None,
                () => Some(true),
            };
            for (count, found) in counts.iter_mut().zip(found.into_iter().chain([all])) {
                count.right += u128::from(found == Some(true));
                count.wrong += u128::from(found == Some(false));
            }
        }
        done(last - first);
        Ok(counts)
    };
    let add = |mut a: Vec<Count>, b: Vec<Count>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    let none = || vec![Count::default(); places.len() + 1];
    let stretches = space.size().div_ceil(STRETCH);
    let firsts = (0..stretches as u64).map(|i| u128::from(i) * STRETCH);
    let mut counts = match par {
        Par::Seq => firsts.map(stretch).try_fold(none(), |a, b| Ok(add(a, b?))),
        Par::Rayon => {
            let firsts: Vec<u128> = firsts.collect();
            firsts
                .into_par_iter()
                .map(stretch)
                .try_reduce(none, |a, b| Ok(add(a, b)))
        }
    }?;
    let all = counts.pop().unwrap_or_default();
    Ok(Certified {
        size: space.size(),
        positions: places.into_iter().zip(counts).collect(),
        all,
    })
}

/// Whether the answer at a position is right or wrong, where the bounds say so.
fn mark(t: &OneLayer, sequence: &[i64], (p, u): (usize, usize), margin: f64) -> Option<bool> {
    let tokens: Vec<usize> = sequence.iter().map(|&t| t as usize).collect();
    let query = (tokens[p], p);
    let keys = 0..if t.causal { p + 1 } else { tokens.len() };
    let mut logits = t.direct(query.0, p).to_vec();
    let mut stream = t.direct_stream(query.0, p).to_vec();
    for h in 0..t.heads {
        let scores: Vec<Interval> = keys
            .clone()
            .map(|j| t.score(h, query, (tokens[j], j)))
            .collect();
        let most = scores
            .iter()
            .map(|s| s.middle())
            .fold(f64::NEG_INFINITY, f64::max);
        let shift = Interval::of(if most.is_finite() { most } else { 0.0 });
        let e: Vec<Interval> = scores.iter().map(|&s| (s - shift).exp()).collect();
        let sum: Interval = e.iter().copied().sum();
        for (j, &e) in keys.clone().zip(&e) {
            let weight = e / sum;
            let add = |to: &mut [Interval], row: &[Interval]| {
                to.iter_mut()
                    .zip(row)
                    .for_each(|(to, &x)| *to = *to + weight * x);
            };
            add(&mut logits, t.ov(h, tokens[j], j));
            add(&mut stream, t.stream(h, tokens[j], j));
        }
    }
    let sigma = t.eps.map_or(Interval::ONE, |eps| {
        let squares: Interval = stream.iter().map(|x| x.squared()).sum();
        (squares / Interval::of(t.d_model as f64) + eps).sqrt()
    });
    // How far class a's logit is above b's, by more than the margin, times σ.
    let above = |a: usize, b: usize| {
        let bias = t.bias[a] - t.bias[b] - Interval::of(margin);
        logits[a] - logits[b] + sigma * bias
    };
    let mut rivals = (0..t.classes).filter(|&w| w != u);
    if rivals.clone().all(|w| above(u, w).lo > 0.0) {
        return Some(true);
    }
    rivals.any(|w| above(w, u).lo > 0.0).then_some(false)
}
