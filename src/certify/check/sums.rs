//! One head and nothing else: every input by sums of what its keys are worth.
//!
//! Behind one head, with no norm and no neurons, a logit is `d_c + Σ e_j ov_j[c] / Σ e_j` over the keys `j`, with `d` what
//! does not depend on them. So `u` beats `w` by more than `m` where `S_u - S_w > m Σ e_j`, with
//! `S_c = Σ e_j (ov_j[c] + d_c)`: a sum of one row a key. What any entry of such a sum is off by is no more than the rows'
//! largest radii, and what the additions round.

// Lanes by their number: so the compiler makes vectors of them.
#![allow(clippy::needless_range_loop)]

use super::ball::{Ball, each};
use super::tables::Tables;
use crate::certify::Count;
use crate::model::Config;
use crate::task::{InputPart, InputSpace, Task, Values};
use crate::tensor::vectorize;
use rayon::prelude::*;
use std::ops::Range;

/// So many classes are added at once; behind the last one stands what loses to all.
const TOGETHER: usize = 8;

/// By class.
type Sums = Vec<[f64; TOGETHER]>;

/// The sets that the inputs are a product of, where they are and the model is of this kind.
pub(super) fn sets<'a>(
    c: &Config,
    task: &dyn Task,
    space: &'a InputSpace,
) -> Option<&'a [Vec<i64>]> {
    let Values::Product(sets) = space.values() else {
        return None;
    };
    let bare = c.n_layers == 1 && c.n_heads == 1 && c.mlp.is_none() && c.norm.is_none();
    let whole = space.parts() == [InputPart::All] && space.pad().is_none() && c.pad_token.is_none();
    let last = sets.len() > 1 && task.read_at() == [sets.len() - 1];
    (bare && whole && last).then_some(sets)
}

/// What a key is worth to a query.
#[derive(Clone)]
struct Key {
    sums: Sums,
    e: f64,
    /// Its part of what may be lost of `S_u - S_w - m Σ e_j` to radii and rounding.
    slack: f64,
}

impl Key {
    fn new(row: &[Ball], e: Ball, keys: usize, margin: f64) -> Key {
        let mut sums = vec![[f64::NEG_INFINITY; TOGETHER]; row.len().div_ceil(TOGETHER)];
        let entries = sums.as_flattened_mut().iter_mut();
        entries.zip(row).for_each(|(sum, x)| *sum = x.0);
        let all = || row.iter().chain([&e]);
        let largest = |of: fn(&Ball) -> f64| Ball::of(all().map(of).fold(0.0, f64::max));
        // Each of two sums and of m times a third. The additions have half of what `keys` are counted for; of what is
        // spare, comparisons and sums of these take a part.
        let rounding = Ball::of((keys + 8) as f64 * f64::EPSILON);
        let off = largest(|x| x.1).plus(largest(|x| x.0.abs()).times(rounding));
        let slack = off.times(Ball::of(margin).plus(Ball::of(2.0)));
        let known = all().all(|x| x.0.is_finite() && x.1.is_finite());
        Key {
            sums,
            e: e.0,
            slack: if known {
                slack.times(Ball::ONE.plus(rounding)).hi()
            } else {
                f64::NAN
            },
        }
    }
}

/// How many inputs of some ranges are right and wrong: each by one addition and comparison a class. From one to the next
/// the query changes first, then the token before it; inputs that differ in this alone have one sum of what is before.
pub(super) fn summed(
    t: &Tables<'_>,
    task: &dyn Task,
    space: &InputSpace,
    sets: &[Vec<i64>],
    ranges: &[Range<u64>],
    margin: f64,
) -> Count {
    let [.., inner, queries] = sets else {
        return Count::default();
    };
    let n = sets.len();
    // By query, and by position and token of a key.
    let keys = |&q: &i64| -> Vec<Key> {
        let query = (q as usize, n - 1);
        let e = &t.weights(query)[0];
        let d = each(&t.direct[t.key(query.0, query.1)].0, Ball::plus, &t.bias);
        let worth = |key: usize| {
            let of = |(ov, &d): (&Vec<Ball>, &Ball)| e[key].times(ov[key].plus(d));
            let row: Vec<Ball> = t.ov.iter().zip(&d).map(of).collect();
            Key::new(&row, e[key], n, margin)
        };
        (0..e.len()).map(worth).collect()
    };
    let keys: Vec<Vec<Key>> = queries.par_iter().map(keys).collect();
    let each = queries.len() as u64;
    let block = inner.len() as u64 * each;
    let of = |query: u64, i: u64, range: &Range<u64>| {
        let key = |token: i64, j: usize| &keys[query as usize][t.key(token as usize, j)];
        let first = i * block + query;
        let mut input = space.sequence(first.into());
        // How many of the tokens before the query are of inputs below a number.
        let below = |number: u64| number.saturating_sub(first).div_ceil(each) as usize;
        let [from, to] = [range.start, range.end].map(|number| below(number).min(inner.len()));
        // The query is a key itself.
        let mut base = key(input[n - 1], n - 1).clone();
        let mut count = Count::default();
        vectorize(
            #[inline(always)]
            || {
                for (j, &token) in input[..n - 2].iter().enumerate() {
                    let own = key(token, j);
                    for (x, y) in base.sums.iter_mut().zip(&own.sums) {
                        x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
                    }
                    (base.e, base.slack) = (base.e + own.e, base.slack + own.slack);
                }
                for &token in &inner[from..to] {
                    input[n - 2] = token;
                    let (last, u) = (key(token, n - 2), task.solve(&input)[0]);
                    let own = base.sums.as_flattened()[u] + last.sums.as_flattened()[u];
                    let over = margin * (base.e + last.e) + (base.slack + last.slack);
                    // Of all that are not below, the right one itself is one.
                    let (mut not_below, mut above) = ([0.0; TOGETHER], [0.0; TOGETHER]);
                    let (low, high) = (own - over, own + over);
                    for (x, y) in base.sums.iter().zip(&last.sums) {
                        for i in 0..TOGETHER {
                            let sum = x[i] + y[i];
                            not_below[i] += if sum < low { 0.0 } else { 1.0 };
                            above[i] += if sum > high { 1.0 } else { 0.0 };
                        }
                    }
                    count.right += u128::from(not_below.iter().sum::<f64>() == 1.0);
                    count.wrong += u128::from(above.iter().sum::<f64>() > 0.0);
                }
            },
        );
        count
    };
    let all = ranges.par_iter().flat_map(|range| {
        let start = range.start / block;
        let blocks = range.end.div_ceil(block) - start;
        let numbers = (0..each * blocks).into_par_iter();
        numbers.map(move |i| of(i / blocks, start + i % blocks, range))
    });
    all.reduce(Count::default, super::sum)
}
