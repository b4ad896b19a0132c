//! A layer of one attention head, asked at the last position, on all sequences of a product of sets: by tables.
//!
//! With the query fixed each key adds its row `e^(s - m) (ov + direct)` to a sum, whose largest entry is the answer's: the
//! sum of the weights, which it would be divided by, is positive (see [`OneLayer`]). So an input costs one sum and one
//! comparison a class beyond what it shares with others, for the sums are kept along the tree of prefixes.
//!
//! Where a norm stands before the unembedding, `D σ` is what a margin is divided by, with `D` the sum of the weights, and
//! what is added after the norm is multiplied by: `√(|Σ w C v|² / d + eps D²)`, which is no further off than its arguments are
//! (its derivative is no longer than `1/√d` by the vector, and `√eps` by `D`).
//!
//! *Bounds*: a row is the middle of an interval, and off by its radius; a sum of `n` rows rounds by no more than
//! `γ_n` of the rows' largest entries, so that each row brings its share of the bound along.

use super::super::{InputSpace, Interval, OneLayer};
use super::{Course, Deep, Margin, Ranges, Walked};
use crate::error::Result;
use crate::linalg::rounding::gamma;
use crate::model::Model;
use crate::task::{InputPart, Task, Values};
use crate::tensor::Lanes;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Rows are as long as whole vectors of any machine.
const LANES: usize = 8;

/// A model of one head, a task and a space that are walked by tables.
pub(super) struct OneHead<'a> {
    task: &'a dyn Task,
    /// By position, the tokens that stand there.
    sets: Vec<Vec<i64>>,
    tables: OneLayer,
    deep: Deep<'a>,
}

/// Keys' rows of one query: what they add.
struct Keys {
    /// `[key, width]`: by class, then by entry of the stream where that is needed.
    rows: Vec<f64>,
    /// By key, and the query's own last.
    shares: Vec<Share>,
}

/// What a key's row adds beside its entries.
#[derive(Clone, Copy, Default)]
struct Share {
    /// Its weight.
    weight: f64,
    /// What the weight is off by.
    weight_error: f64,
    /// What an entry by class is off by.
    error: f64,
    /// What an entry of the stream is off by.
    stream_error: f64,
    /// The largest entry by class.
    size: f64,
}

impl std::ops::Add for Share {
    type Output = Share;
    fn add(self, other: Share) -> Share {
        Share {
            weight: self.weight + other.weight,
            weight_error: self.weight_error + other.weight_error,
            error: self.error + other.error,
            stream_error: self.stream_error + other.stream_error,
            size: self.size + other.size,
        }
    }
}

/// What a norm's scale multiplies.
struct Scaled {
    /// By class, the middle of `β`.
    bias: Vec<f64>,
    /// The largest radius, and the largest size.
    radius: f64,
    size: f64,
    eps: Interval,
    d_model: usize,
}

/// Sizes that all of a walk has in common.
struct Shape {
    classes: usize,
    width: usize,
    scaled: Option<Scaled>,
    /// `[class, padded classes]`: what hides a class, and nothing else, when it is added.
    hidden: Vec<f64>,
    /// Places of a sequence.
    positions: usize,
}

impl Shape {
    fn padded(&self) -> usize {
        self.classes.next_multiple_of(LANES)
    }
}

impl<'a> OneHead<'a> {
    /// Where the model, the task and the space are of the kind that tables are of.
    ///
    /// # Errors
    /// When no bound is known for the model.
    pub fn of(
        model: &'a Model<f64>,
        task: &'a dyn Task,
        space: &InputSpace,
    ) -> Result<Option<OneHead<'a>>> {
        let Values::Product(values) = space.values() else {
            return Ok(None);
        };
        let mut sets = Vec::new();
        for part in space.parts() {
            match *part {
                InputPart::Fixed(token) => sets.push(vec![token]),
                InputPart::All => sets.extend(values.iter().cloned()),
                InputPart::Value(_) | InputPart::Sorted(_) => return Ok(None),
            }
        }
        let at = task.read_at();
        let fits = space.pad().is_none() && sets.len() >= 2 && at == [sets.len() - 1];
        // Each value once, and no other: else a prefix would not be what its inputs share.
        let once = space
            .parts()
            .iter()
            .filter(|p| **p == InputPart::All)
            .count()
            == 1;
        let c = model.config();
        if !fits || !once || OneLayer::covers(c).is_err() || c.n_heads != 1 || c.d_vocab_out < 2 {
            return Ok(None);
        }
        Ok(Some(OneHead {
            tables: OneLayer::new(model, sets.len())?,
            deep: Deep::new(model, at)?,
            task,
            sets,
        }))
    }

    /// The answers of some inputs. Of a query they are a range of *prefixes*, what stands before it: the last place counts
    /// fastest, so that the input of prefix `p` and the query at `i` of `n` is the one of number `p n + i`.
    pub fn run(
        &self,
        by: f64,
        ranges: &Ranges,
        none: &(dyn Fn() -> Walked + Sync),
        course: &Course<'_>,
    ) {
        /// Inputs that are finished together, every query's: beside them, making rows of keys for each query is little.
        const PASS: u64 = 1 << 26;
        /// So many parts of a query's prefixes are walked side by side, of whole leaves.
        const PARTS: u64 = 64;
        let shape = self.shape();
        let [.., inner, queries] = &self.sets[..] else {
            unreachable!("two places at least")
        };
        let passes = ranges.0.iter().flat_map(|r| {
            let starts = (r.start..r.end).step_by(PASS as usize);
            starts.map(|start| start..r.end.min(start + PASS))
        });
        for pass in passes {
            let mut found = none();
            for (digit, &query) in queries.iter().enumerate() {
                if course.is_stopped() {
                    return;
                }
                let before = |number: u64| {
                    let behind = number.saturating_sub(digit as u64);
                    behind.div_ceil(queries.len() as u64)
                };
                let (from, to) = (before(pass.start), before(pass.end));
                if from == to {
                    continue;
                }
                let keys = self.keys(&shape, query as usize);
                let part = ((to - from) / PARTS).max(inner.len() as u64);
                let parts = (0..(to - from).div_ceil(part)).into_par_iter();
                let each = parts.map(|i| {
                    let start = from + i * part;
                    let mut branch = Branch::new(self, &shape, &keys, (digit, query), by, none());
                    if course.goes_on() {
                        branch.walk(0, start..to.min(start + part));
                    }
                    branch.found
                });
                found.take_in(each.reduce(none, Walked::with));
            }
            if !course.is_stopped() {
                course.finished(pass, found);
            }
        }
    }

    fn shape(&self) -> Shape {
        let t = &self.tables;
        let padded = t.classes.next_multiple_of(LANES);
        let scaled = t.eps.map(|eps| {
            let largest =
                |of: fn(Interval) -> f64| t.bias.iter().map(|&b| of(b)).fold(0.0, f64::max);
            let middles = t.bias.iter().map(|b| b.middle());
            Scaled {
                bias: middles.chain(std::iter::repeat(0.0)).take(padded).collect(),
                radius: largest(Interval::radius),
                size: largest(Interval::magnitude),
                eps,
                d_model: t.d_model,
            }
        });
        let stream = if scaled.is_some() {
            t.d_model.next_multiple_of(LANES)
        } else {
            0
        };
        let mut hidden = vec![0.0; t.classes * padded];
        for (class, row) in hidden.chunks_exact_mut(padded).enumerate() {
            row[class] = f64::NEG_INFINITY;
            row[t.classes..].fill(f64::NEG_INFINITY);
        }
        Shape {
            classes: t.classes,
            width: padded + stream,
            scaled,
            hidden,
            positions: self.sets.len(),
        }
    }

    /// Where a key's row stands: the sets one after the other, and then the query's own.
    fn offsets(&self) -> Vec<usize> {
        let ends = self.sets.iter().scan(0, |end, set| {
            let start = *end;
            *end += set.len();
            Some(start)
        });
        ends.collect()
    }

    fn keys(&self, shape: &Shape, query: usize) -> Keys {
        let (t, last) = (&self.tables, self.sets.len() - 1);
        let weights = t.exponentials((query, last));
        let direct = t.direct(query, last);
        let direct_stream = t.direct_stream(query, last);
        let mut keys = Keys {
            rows: Vec::new(),
            shares: Vec::new(),
        };
        let own = [(query as i64, last)];
        let places = self.sets[..last].iter().enumerate();
        let others = places.flat_map(|(j, set)| set.iter().map(move |&token| (token, j)));
        for (token, j) in others.chain(own) {
            let token = token as usize;
            let weight = weights[t.key(0, token, j)];
            let rounding = gamma::<f64>(shape.positions + 2);
            let mut share = Share {
                weight: weight.middle(),
                weight_error: weight.radius() + rounding * weight.magnitude(),
                ..Share::default()
            };
            let mut add = |entries: &mut dyn Iterator<Item = Interval>, width: usize| -> f64 {
                let (start, mut error) = (keys.rows.len(), 0.0f64);
                for x in entries {
                    // A middle that is none leaves everything open.
                    let off = x.radius() + rounding * x.magnitude();
                    error = if off.is_finite() {
                        error.max(off)
                    } else {
                        f64::INFINITY
                    };
                    keys.rows.push(x.middle());
                    share.size = share.size.max(x.magnitude());
                }
                keys.rows.resize(start + width, 0.0);
                error
            };
            // After no norm, the bias is multiplied by nothing.
            let plain = |class: usize| match t.eps {
                None => t.bias[class],
                Some(_) => Interval::ZERO,
            };
            let ov = t.ov(0, token, j).iter().zip(direct).enumerate();
            let mut by_class =
                ov.map(|(class, (&ov, &direct))| weight * (ov + direct + plain(class)));
            let error = add(&mut by_class, shape.padded());
            let mut stream_error = 0.0;
            if shape.scaled.is_some() {
                let stream = t.stream(0, token, j).iter().zip(direct_stream);
                let mut stream = stream.map(|(&v, &direct)| weight * (v + direct));
                stream_error = add(&mut stream, shape.width - shape.padded());
            }
            share.error = error;
            share.stream_error = stream_error;
            keys.shares.push(share);
        }
        keys
    }
}

/// A part of the tree of prefixes.
struct Branch<'a> {
    walk: &'a OneHead<'a>,
    shape: &'a Shape,
    keys: &'a Keys,
    offsets: Vec<usize>,
    by: f64,
    /// `[depth, width]`: the sums so far.
    sums: Vec<f64>,
    shares: Vec<Share>,
    /// By position, which token of its set stands there.
    digits: Vec<usize>,
    sequence: Vec<i64>,
    right: Vec<usize>,
    values: Vec<f64>,
    scales: Vec<f64>,
    found: Walked,
}

impl<'a> Branch<'a> {
    fn new(
        walk: &'a OneHead<'a>,
        shape: &'a Shape,
        keys: &'a Keys,
        (digit, query): (usize, i64),
        by: f64,
        found: Walked,
    ) -> Branch<'a> {
        let last = walk.sets.len() - 1;
        let mut sums = vec![0.0; last * shape.width];
        let (_, own) = keys.rows.split_at(keys.rows.len() - shape.width);
        sums[..shape.width].copy_from_slice(own);
        let mut branch = Branch {
            walk,
            shape,
            keys,
            offsets: walk.offsets(),
            by,
            sums,
            shares: vec![*keys.shares.last().expect("the query's own"); last],
            digits: vec![0; last + 1],
            sequence: walk.sets.iter().map(|set| set[0]).collect(),
            right: Vec::new(),
            values: Vec::new(),
            scales: Vec::new(),
            found,
        };
        branch.digits[last] = digit;
        branch.sequence[last] = query;
        branch
    }

    /// Prefixes of those that begin with the tokens before a place.
    fn walk(&mut self, depth: usize, prefixes: Range<u64>) {
        let [places @ .., _] = &self.walk.sets[depth + 1..] else {
            unreachable!("a place before the query")
        };
        if places.is_empty() {
            return self.leaves(depth, prefixes.start as usize..prefixes.end as usize);
        }
        let each: u64 = places.iter().map(|set| set.len() as u64).product();
        for token in prefixes.start / each..prefixes.end.div_ceil(each) {
            let own = |prefix: u64| prefix.saturating_sub(token * each).min(each);
            self.step(depth, token as usize);
            self.walk(depth + 1, own(prefixes.start)..own(prefixes.end));
        }
    }

    /// The sums with a token at a place.
    fn step(&mut self, depth: usize, token: usize) {
        let width = self.shape.width;
        let key = self.offsets[depth] + token;
        let row = &self.keys.rows[key * width..(key + 1) * width];
        let (before, after) = self.sums.split_at_mut((depth + 1) * width);
        let sums = before[depth * width..].iter().zip(row).zip(after);
        sums.for_each(|((&s, &x), to)| *to = s + x);
        self.shares[depth + 1] = self.shares[depth] + self.keys.shares[key];
        self.digits[depth] = token;
        self.sequence[depth] = self.walk.sets[depth][token];
    }

    /// Tokens at the last place before the query.
    fn leaves(&mut self, depth: usize, which: Range<usize>) {
        let (walk, width, first) = (self.walk, self.shape.width, which.start);
        let key = self.offsets[depth] + first;
        let tokens = &walk.sets[depth][which];
        self.right.clear();
        walk.task
            .solve_along(&mut self.sequence, depth, tokens, &mut self.right);
        self.values.resize(tokens.len(), 0.0);
        self.scales.resize(tokens.len(), 0.0);
        let shares = &self.keys.shares[key..key + tokens.len()];
        Arch::new().dispatch(Leaves {
            shape: self.shape,
            sum: &self.sums[depth * width..(depth + 1) * width],
            weight: self.shares[depth].weight,
            rows: &self.keys.rows[key * width..(key + tokens.len()) * width],
            shares,
            right: &self.right,
            values: &mut self.values,
            scales: &mut self.scales,
        });
        let mut right = 0u64;
        let before = self.shares[depth];
        let up = 1.0 + 8.0 * f64::EPSILON;
        for (token, &added) in shares.iter().enumerate() {
            let (value, share) = (self.values[token], before + added);
            // Of both logits, and their difference.
            let mut error = 2.0 * share.error;
            let mut divisor = (share.weight, share.weight_error);
            if let Some(scaled) = &self.shape.scaled {
                divisor = (self.scales[token], scaled.off(&share, self.scales[token]));
                error += 2.0 * scaled.error(&share, divisor);
            }
            let error = (error + f64::EPSILON * value.abs()) * up;
            let most = divisor.0 + divisor.1;
            let least = self
                .found
                .closest
                .as_ref()
                .map_or(f64::INFINITY, |c| c.margin.at_least());
            // Where the quotient could be a new least margin it is made, else not.
            if value - error > self.by * most * up && value - error > least * most * (up * up) {
                let own = &mut self.found.by_right[0].1[self.right[token]];
                own.inputs += 1;
                own.count.right += 1;
                right += 1;
                continue;
            }
            let right = self.right[token];
            self.decide(depth, (first + token, right), (value, error), divisor);
        }
        let certified = &mut self.found.certified;
        certified.positions[0].1.right += u128::from(right);
        certified.all.right += u128::from(right);
    }

    /// An input that is to be looked at alone.
    fn decide(
        &mut self,
        depth: usize,
        (token, right): (usize, usize),
        (value, error): (f64, f64),
        divisor: (f64, f64),
    ) {
        self.digits[depth] = token;
        self.sequence[depth] = self.walk.sets[depth][token];
        let up = 1.0 + 4.0 * f64::EPSILON;
        let divisor = Interval {
            lo: (divisor.0 - divisor.1 * up).next_down().max(0.0),
            hi: (divisor.0 + divisor.1 * up).next_up(),
        };
        let numerator = Interval {
            lo: (value - error).next_down(),
            hi: (value + error).next_up(),
        };
        let margin = match numerator.lo <= numerator.hi && divisor.lo > 0.0 {
            true => numerator / divisor,
            false => Interval::ALL,
        };
        let mut margin = Margin {
            value: margin.middle(),
            error: margin.radius(),
        };
        if margin.is_right(self.by).is_none() {
            self.found.again += 1;
            margin = self.walk.deep.carefully(&self.sequence, &[right])[0];
        }
        let sets = self.walk.sets.iter().zip(&self.digits);
        let input = sets.fold(0u128, |n, (set, &digit)| {
            n * set.len() as u128 + digit as u128
        });
        let input = (input, &self.sequence[..]);
        self.found.add(self.by, input, &[right], &[margin]);
    }
}

impl Scaled {
    /// What `D σ` is off by.
    fn off(&self, share: &Share, scale: f64) -> f64 {
        let rounding = gamma::<f64>(self.d_model + 12);
        (share.stream_error + self.eps.hi.sqrt() * share.weight_error + rounding * scale)
            * (1.0 + 8.0 * f64::EPSILON)
    }

    /// What it adds, times a bias, to the error of an entry.
    fn error(&self, share: &Share, (scale, off): (f64, f64)) -> f64 {
        let largest = share.size + scale * self.size;
        (off * (self.size + self.radius) + scale * self.radius + gamma::<f64>(4) * largest)
            * (1.0 + 16.0 * f64::EPSILON)
    }
}

/// Inputs that differ in one token.
struct Leaves<'a> {
    shape: &'a Shape,
    sum: &'a [f64],
    weight: f64,
    rows: &'a [f64],
    shares: &'a [Share],
    right: &'a [usize],
    /// Written: the right entry less the largest other.
    values: &'a mut [f64],
    /// Written where it is needed: `D σ`.
    scales: &'a mut [f64],
}

impl WithSimd for Leaves<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let padded = self.shape.padded();
        let width = self.shape.width;
        let (classes, stream) = self.sum.split_at(padded);
        let (sums, _) = f64::split::<S>(classes);
        let (stream, _) = f64::split::<S>(stream);
        let hidden = &self.shape.hidden;
        let lowest = f64::splat(simd, f64::NEG_INFINITY);
        let leaves = self.rows.chunks_exact(width).zip(self.right);
        let out = self.values.iter_mut().zip(self.scales).zip(self.shares);
        for ((row, &right), ((value, scale), share)) in leaves.zip(out) {
            let (own, rest) = row.split_at(padded);
            let (own, _) = f64::split::<S>(own);
            let (hide, _) = f64::split::<S>(&hidden[right * padded..(right + 1) * padded]);
            let mut most = lowest;
            let mut entry = self.sum[right] + row[right];
            match &self.shape.scaled {
                None => {
                    for ((&s, &x), &hide) in sums.iter().zip(own).zip(hide) {
                        let y = f64::vadd(simd, f64::vadd(simd, s, x), hide);
                        most = f64::vmax(simd, most, y);
                    }
                }
                Some(scaled) => {
                    let mut squares = f64::splat(simd, 0.0);
                    let (rest, _) = f64::split::<S>(rest);
                    for (&s, &x) in stream.iter().zip(rest) {
                        let y = f64::vadd(simd, s, x);
                        squares = <f64 as Lanes>::mul_add(simd, y, y, squares);
                    }
                    let weight = self.weight + share.weight;
                    let mean = f64::reduce_sum(simd, squares) / scaled.d_model as f64;
                    *scale = (mean + scaled.eps.middle() * weight * weight).sqrt();
                    let by = f64::splat(simd, *scale);
                    let (bias, _) = f64::split::<S>(&scaled.bias);
                    for (((&s, &x), &hide), &bias) in sums.iter().zip(own).zip(hide).zip(bias) {
                        let y = <f64 as Lanes>::mul_add(simd, by, bias, f64::vadd(simd, s, x));
                        most = f64::vmax(simd, most, f64::vadd(simd, y, hide));
                    }
                    entry += *scale * scaled.bias[right];
                }
            }
            *value = entry - f64::reduce_max(simd, most);
        }
    }
}
