//! The checker: whether a certificate is of a model, and proves what it says.
//!
//! It searches nothing, and shares no arithmetic with what does: numbers are middles with radii instead of intervals, the
//! tables are formed from the weights by the plain definition (`tables.rs` has the formulas), sizes are counted from
//! Pascal's triangle, and of every proof in a tree the bound of `sets/mod.rs` is evaluated once. What it takes as given:
//! which inputs a space has and which answer is right ([`Space`], [`Task`]), and how a tree is written
//! ([`Forest::read`]).

use super::certificate::{Certificate, Method, hash};
use super::sets::{Forest, Node, Proof, Verdict};
use super::{Certified, Count};
use crate::error::{Error, Result};
use crate::linalg::Par;
use crate::model::{Mask, Model, Norm, NormWeight};
use crate::names::{Head, NormSite};
use crate::task::{Part, Space, Task, Values};
use rayon::prelude::*;

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub enum Checked {
    /// The certificate is of this model, and proves these figures, which are what it says.
    Accepted(Certified),
    /// It does not: why, and where.
    Refused(String),
}

/// A number within a distance of another.
#[derive(Clone, Copy, Debug)]
struct Ball {
    m: f64,
    r: f64,
}

/// A little more than a sum or product of a few positive numbers came out as.
fn pad(r: f64) -> f64 {
    r * (1.0 + 4.0 * f64::EPSILON) + f64::MIN_POSITIVE
}

impl Ball {
    const ZERO: Ball = Ball { m: 0.0, r: 0.0 };

    fn of(m: f64) -> Ball {
        Ball { m, r: 0.0 }
    }
    fn plus(self, b: Ball) -> Ball {
        let m = self.m + b.m;
        Ball { m, r: pad(self.r + b.r + f64::EPSILON * m.abs()) }
    }
    fn minus(self, b: Ball) -> Ball {
        self.plus(Ball { m: -b.m, r: b.r })
    }
    fn times(self, b: Ball) -> Ball {
        let m = self.m * b.m;
        Ball { m, r: pad(self.m.abs() * b.r + self.r * (b.m.abs() + b.r) + f64::EPSILON * m.abs()) }
    }
    fn inverse(self) -> Ball {
        let (m, size) = (1.0 / self.m, self.m.abs());
        let away = size * (1.0 - f64::EPSILON) - self.r;
        // |1/x - 1/m| = |x - m| / |x m|; a number that may be zero has no inverse.
        let r = if away > 0.0 { pad(pad(self.r / away) / size + f64::EPSILON * m.abs()) } else { f64::NAN };
        Ball { m, r }
    }
    fn root(self) -> Ball {
        let m = self.m.sqrt();
        // |√x - √m| = |x - m| / (√x + √m)
        Ball { m, r: pad(pad(self.r / m) + f64::EPSILON * m) }
    }
    fn exp(self) -> Ball {
        // e^x = (e^(x / 2^k))^(2^k), and Taylor's polynomial where |x| < 1: what is left out is below twice the next term.
        const TERMS: u32 = 24;
        let k = (self.m.abs() + self.r).max(1.0).log2().ceil() as i32;
        let half = 2f64.powi(-k);
        let x = Ball { m: self.m * half, r: self.r * half };
        let mut sum = Ball::of(1.0);
        for n in (1..=TERMS).rev() {
            sum = Ball::of(1.0).plus(x.times(sum).times(Ball::of(f64::from(n)).inverse()));
        }
        let next = (1..=TERMS + 1).fold(2.0, |t, n| t / f64::from(n));
        sum.r = pad(sum.r + next);
        (0..k).fold(sum, |power, _| power.times(power))
    }
    fn dot(a: &[Ball], b: &[Ball]) -> Ball {
        a.iter().zip(b).fold(Ball::ZERO, |sum, (&a, &b)| sum.plus(a.times(b)))
    }
    fn lo(self) -> f64 {
        let lo = self.m - self.r;
        if lo.is_nan() { f64::NEG_INFINITY } else { lo.next_down() }
    }
    fn hi(self) -> f64 {
        -Ball { m: -self.m, r: self.r }.lo()
    }
}

/// Tables of the model, all by head, position and token.
struct Tables {
    heads: usize,
    positions: usize,
    tokens: usize,
    d_model: usize,
    causal: bool,
    eps: Option<f64>,
    scale: f64,
    bias: Vec<Ball>,
    queries: Vec<Vec<Ball>>,
    keys: Vec<Vec<Ball>>,
    ov: Vec<Vec<Ball>>,
    stream: Vec<Vec<Ball>>,
    direct: Vec<Vec<Ball>>,
    direct_stream: Vec<Vec<Ball>>,
    /// By head a point, and how far from it all of `stream` is at most.
    amid: Vec<(Vec<f64>, f64)>,
}

impl Tables {
    fn new(model: &Model<f64>, positions: usize) -> Result<Tables> {
        let (c, w) = (model.config(), model.weights());
        super::OneLayer::covers(c)?;
        let balls = |x: &[f64]| x.iter().map(|&x| Ball::of(x)).collect::<Vec<_>>();
        let columns = |W: faer::MatRef<'_, f64>| -> Vec<Vec<Ball>> {
            let column = |j| (0..W.nrows()).map(|i| Ball::of(W[(i, j)])).collect();
            (0..W.ncols()).map(column).collect()
        };
        let linear = |x: &[Ball], W: &[Vec<Ball>], b: &[f64]| -> Vec<Ball> {
            let bias = |j: usize| b.get(j).map_or(Ball::ZERO, |&b| Ball::of(b));
            W.iter().enumerate().map(|(j, column)| Ball::dot(x, column).plus(bias(j))).collect()
        };
        let inverse_width = Ball::of(c.d_model as f64).inverse();
        let centre = |x: Vec<Ball>| -> Vec<Ball> {
            if !c.norm.is_some_and(|norm| norm.centred) {
                return x;
            }
            let mean = x.iter().fold(Ball::ZERO, |sum, &x| sum.plus(x)).times(inverse_width);
            x.into_iter().map(|x| x.minus(mean)).collect()
        };
        let weight = |norm: Option<&Norm<f64>>, i: usize| {
            let own = norm.map_or(Ball::of(1.0), |norm| Ball::of(norm.w.data()[i]));
            match c.norm.map(|norm| norm.weight) {
                Some(NormWeight::OnePlus) => own.plus(Ball::of(1.0)),
                Some(NormWeight::Plain) => own,
                Some(NormWeight::Absent) | None => Ball::of(1.0),
            }
        };
        let added = |norm: Option<&Norm<f64>>, i: usize| {
            let b = norm.and_then(|norm| norm.b.as_ref());
            b.map_or(Ball::ZERO, |b| Ball::of(b.data()[i]))
        };
        let (first, last) = (w.norms.get(&NormSite::Ln1(0)), w.norms.get(&NormSite::Final));
        let attn = &w.blocks[0].attn;
        let W_U = columns(w.W_U.rows());
        let bias = W_U.iter().zip(w.b_U.data()).map(|(u, &b)| {
            let terms = u.iter().enumerate().map(|(i, &u)| added(last, i).times(u));
            terms.fold(Ball::of(b), Ball::plus)
        });
        let bias = bias.collect();
        let read_out: Vec<Vec<Ball>> = W_U
            .iter()
            .map(|u| centre(u.iter().enumerate().map(|(i, &u)| weight(last, i).times(u)).collect()))
            .collect();
        let by_class = |x: &[Ball]| linear(x, &read_out, &[]);
        let (mut read, mut direct, mut direct_stream) = (Vec::new(), Vec::new(), Vec::new());
        for place in 0..positions * c.d_vocab {
            let (j, t) = (place / c.d_vocab, place % c.d_vocab);
            let mut x = balls(w.W_E.slice(&[t]));
            if c.pos_embed() {
                let W_pos = w.W_pos.slice(&[j]);
                x.iter_mut().zip(W_pos).for_each(|(x, &p)| *x = x.plus(Ball::of(p)));
            }
            let own: Vec<Ball> = x.iter().zip(attn.b_O.data()).map(|(x, &b)| x.plus(Ball::of(b))).collect();
            direct.push(by_class(&own));
            direct_stream.push(centre(own));
            if c.norm.is_some() {
                x = centre(x);
                let scale = Ball::dot(&x, &x).times(inverse_width).plus(Ball::of(c.eps)).root().inverse();
                let entry = |(i, x): (usize, &Ball)| x.times(scale).times(weight(first, i)).plus(added(first, i));
                x = x.iter().enumerate().map(entry).collect();
            }
            read.push(x);
        }
        let (mut queries, mut keys, mut ov, mut stream, mut amid) = Default::default();
        for head in (0..c.n_heads).map(|head| Head { layer: 0, head }) {
            let [W_Q, W_K, W_V, W_O] = [w.W_Q(head), w.W_K(head), w.W_V(head), w.W_O(head)].map(columns);
            let all = |W: &[Vec<Ball>], b: &[f64]| read.iter().map(|n| linear(n, W, b)).collect::<Vec<_>>();
            Vec::extend(&mut queries, all(&W_Q, w.b_Q(head)));
            Vec::extend(&mut keys, all(&W_K, w.b_K(head)));
            let own: Vec<_> = all(&W_V, w.b_V(head)).iter().map(|v| linear(v, &W_O, &[])).collect();
            Vec::extend(&mut ov, own.iter().map(|v| by_class(v)));
            let own: Vec<_> = own.into_iter().map(centre).collect();
            let mean = |i: usize| own.iter().map(|v| v[i].m).sum::<f64>() / own.len() as f64;
            let point: Vec<f64> = (0..c.d_model).map(mean).collect();
            let away = |v: &Vec<Ball>| {
                let off: Vec<Ball> = v.iter().zip(&point).map(|(v, &p)| v.minus(Ball::of(p))).collect();
                Ball::of(Ball::dot(&off, &off).hi().max(f64::MIN_POSITIVE)).root().hi()
            };
            let most = own.iter().map(away).fold(0.0, f64::max);
            Vec::push(&mut amid, (point, most));
            Vec::extend(&mut stream, own);
        }
        Ok(Tables {
            heads: c.n_heads,
            positions,
            tokens: c.d_vocab,
            d_model: c.d_model,
            causal: c.mask == Mask::Causal,
            eps: c.norm.map(|_| c.eps),
            scale: c.score_scale(0),
            bias,
            queries,
            keys,
            ov,
            stream,
            direct,
            direct_stream,
            amid,
        })
    }

    fn at(&self, h: usize, (t, j): (usize, usize)) -> usize {
        (h * self.positions + j) * self.tokens + t
    }

    /// `e^(score - shift)`.
    fn e(&self, h: usize, query: (usize, usize), key: (usize, usize), shift: f64) -> Ball {
        let score = Ball::dot(&self.queries[self.at(h, query)], &self.keys[self.at(h, key)]);
        score.times(Ball::of(self.scale).inverse()).minus(Ball::of(shift)).exp()
    }

    /// The largest of some scores, about.
    fn shift(&self, h: usize, query: (usize, usize), keys: impl Iterator<Item = (usize, usize)>) -> f64 {
        let q = &self.queries[self.at(h, query)];
        let score = |key| q.iter().zip(&self.keys[self.at(h, key)]).map(|(q, k)| q.m * k.m).sum::<f64>();
        keys.map(score).fold(f64::NEG_INFINITY, f64::max) / self.scale
    }

    /// The least and the largest `σ` of a sequence's stream, given what it squares to.
    fn sigma(&self, squares: Ball) -> [Ball; 2] {
        let Some(eps) = self.eps else {
            return [Ball::of(1.0); 2];
        };
        let mean = squares.times(Ball::of(self.d_model as f64).inverse());
        let least = Ball::of(eps.max(mean.plus(Ball::of(eps)).lo())).root().lo();
        [Ball::of(least), Ball::of(mean.plus(Ball::of(eps)).hi()).root()]
    }

    /// `a` beats `b` by more than the margin, for what the stream gives each of the two besides; no more than by this.
    fn above(&self, (a, b): (usize, usize), margin: f64, sigma: [Ball; 2]) -> f64 {
        let over = self.bias[a].minus(self.bias[b]).minus(Ball::of(margin));
        sigma.map(|sigma| sigma.times(over).lo()).into_iter().fold(f64::INFINITY, f64::min)
    }

    /// Whether one input's answer is right or wrong.
    fn mark(&self, sequence: &[i64], p: usize, u: usize, margin: f64) -> Option<bool> {
        let key = |j: usize| (sequence[j] as usize, j);
        let (query, seen) = (key(p), 0..if self.causal { p + 1 } else { sequence.len() });
        let mut logits = self.direct[self.at(0, query)].clone();
        let mut stream = self.direct_stream[self.at(0, query)].clone();
        for h in 0..self.heads {
            let shift = self.shift(h, query, seen.clone().map(key));
            let e: Vec<Ball> = seen.clone().map(|j| self.e(h, query, key(j), shift)).collect();
            let inverse = e.iter().fold(Ball::ZERO, |sum, &e| sum.plus(e)).inverse();
            for (j, e) in seen.clone().zip(e) {
                let (a, at) = (e.times(inverse), self.at(h, key(j)));
                logits.iter_mut().zip(&self.ov[at]).for_each(|(to, &v)| *to = to.plus(a.times(v)));
                stream.iter_mut().zip(&self.stream[at]).for_each(|(to, &v)| *to = to.plus(a.times(v)));
            }
        }
        let sigma = self.sigma(Ball::dot(&stream, &stream));
        let beats = |a: usize, b: usize| {
            let rest = self.above((a, b), margin, sigma);
            logits[a].minus(logits[b]).plus(Ball::of(rest)).lo() > 0.0
        };
        let mut rivals = (0..logits.len()).filter(|&w| w != u);
        let right = rivals.clone().all(|w| beats(u, w));
        if right { Some(true) } else { rivals.any(|w| beats(w, u)).then_some(false) }
    }
}

/// Tokens of which some are chosen; each stands at one of `list`, and where it has a rank once more there.
#[derive(Clone)]
struct Pool {
    tokens: Vec<usize>,
    choose: usize,
    repeats: bool,
    list: Vec<usize>,
    sorted: Vec<usize>,
}

/// Inputs of one query and one right class.
struct Set {
    query: (usize, usize),
    right: usize,
    fixed: Vec<(usize, Vec<usize>)>,
    pools: Vec<Pool>,
    orders: u128,
}

/// How often each token of each pool is chosen, where that is decided.
type Decided = Vec<Vec<Option<usize>>>;

/// Counts in exact integers; `None` beyond 2^128.
struct Pascal(Vec<Vec<Option<u128>>>);

impl Pascal {
    fn new(rows: usize) -> Pascal {
        let mut all = vec![vec![Some(1u128)]];
        for n in 1..=rows {
            let above = |k: usize| all[n - 1].get(k).copied().unwrap_or(Some(0));
            let entry = |k: usize| if k == 0 { Some(1) } else { above(k)?.checked_add(above(k - 1)?) };
            let row = (0..=n).map(entry).collect();
            all.push(row);
        }
        Pascal(all)
    }

    fn choose(&self, n: usize, k: usize) -> Option<u128> {
        self.0[n].get(k).copied().unwrap_or(Some(0))
    }

    fn size(&self, set: &Set, decided: &Decided) -> Option<u128> {
        let mut size = set.orders;
        for (pool, own) in set.pools.iter().zip(decided) {
            let free = own.iter().filter(|n| n.is_none()).count();
            let mut left = pool.choose;
            for &times in own.iter().flatten() {
                let ways = if pool.repeats { self.choose(left, times)? } else { 1 };
                (size, left) = (size.checked_mul(ways)?, left.checked_sub(times)?);
            }
            let rest = match pool.repeats {
                true => (free as u128).checked_pow(left as u32)?,
                false => self.choose(free, left)?,
            };
            size = size.checked_mul(rest)?;
        }
        Some(size)
    }
}

/// The sets of one answer, in the order in which trees are written.
fn sets(space: &Space, causal: bool, (p, rank): (usize, usize), pascal: &Pascal) -> Option<Vec<Set>> {
    let (mut tokens, count, repeats) = match space.values() {
        Values::Distinct { pool, len } => (pool.clone(), *len, false),
        Values::Product(sets) if sets.iter().all(|s| *s == sets[0]) => (sets[0].clone(), sets.len(), true),
        _ => return None,
    };
    tokens.sort_unstable();
    let tokens: Vec<usize> = tokens.into_iter().map(|t| t as usize).collect();
    let parts = space.parts().iter().flat_map(|&part| match part {
        Part::All => (0..count).map(Part::Value).collect(),
        part => vec![part],
    });
    let parts: Vec<(usize, Part)> = parts.enumerate().filter(|&(j, _)| !causal || j <= p).collect();
    let stands = |part: Part| parts.iter().filter(move |own| own.1 == part).map(|own| own.0).collect::<Vec<_>>();
    let list: Vec<usize> = (0..count).flat_map(|i| stands(Part::Value(i))).collect();
    let sorted: Vec<usize> = (0..count).flat_map(|r| stands(Part::Sorted(r))).collect();
    let fixed = parts.iter().filter_map(|&(j, part)| match part {
        Part::Fixed(t) => Some((t as usize, vec![j])),
        _ => None,
    });
    let fixed: Vec<_> = fixed.collect();
    if list.len() != count {
        return None;
    }
    let pool = |tokens: &[usize], choose, list: &[usize], sorted: &[usize]| {
        let (tokens, list, sorted) = (tokens.to_vec(), list.to_vec(), sorted.to_vec());
        Pool { tokens, choose, repeats, list, sorted }
    };
    let query = parts.iter().find(|own| own.0 == p)?.1;
    let mut all = Vec::new();
    match query {
        Part::Sorted(r) if !repeats && r + 1 == rank && sorted.len() == rank && sorted[r] == p => {
            for i in 0..tokens.len() {
                for j in i + 1..tokens.len() {
                    let (q, u) = (tokens[i], tokens[j]);
                    let own = [(q, vec![p]), (q, list.clone()), (u, list.clone())];
                    let below = pool(&tokens[..i], r, &list, &sorted[..r]);
                    let above = pool(&tokens[j + 1..], count - 1 - rank, &list, &[]);
                    all.push((q, u, own.to_vec(), vec![below, above], (1..=count as u128).product()));
                }
            }
        }
        Part::Fixed(q) if !repeats && sorted.is_empty() => {
            for (j, &u) in tokens.iter().enumerate() {
                let below = pool(&tokens[..j], rank, &list, &[]);
                let above = pool(&tokens[j + 1..], count - 1 - rank, &list, &[]);
                let own = vec![(u, list.clone())];
                all.push((q as usize, u, own, vec![below, above], (1..=count as u128).product()));
            }
        }
        Part::Fixed(_) | Part::Value(_) if repeats && sorted.is_empty() && rank + 1 == count => {
            let others: Vec<usize> = list.iter().copied().filter(|&j| j != p).collect();
            let queries: Vec<(usize, usize, Vec<_>)> = match query {
                Part::Fixed(q) => vec![(q as usize, 0, vec![])],
                _ => tokens.iter().enumerate().map(|(i, &q)| (q, i, vec![(q, vec![p])])).collect(),
            };
            for (q, first, stand) in queries {
                for (j, &u) in tokens.iter().enumerate().skip(first) {
                    for m in usize::from(stand.is_empty() || j > first)..=others.len() {
                        let own = stand.iter().cloned().chain(vec![(u, others.clone()); m]).collect();
                        let rest = pool(&tokens[..j], others.len() - m, &others, &[]);
                        all.push((q, u, own, vec![rest], pascal.choose(others.len(), m)?));
                    }
                }
            }
        }
        _ => return None,
    }
    let set = |(q, right, own, pools, orders): (usize, usize, Vec<_>, Vec<Pool>, u128)| {
        let fixed = fixed.iter().cloned().chain(own).collect();
        Set { query: (q, p), right, fixed, pools, orders }
    };
    let mut sets: Vec<Set> = all.into_iter().map(set).collect();
    sets.retain(|set| pascal.size(set, &nothing(set)) != Some(0));
    Some(sets)
}

/// Nothing is decided.
fn nothing(set: &Set) -> Decided {
    set.pools.iter().map(|pool| vec![None; pool.tokens.len()]).collect()
}

/// One tree, walked.
struct Walk<'a> {
    tables: &'a Tables,
    pascal: &'a Pascal,
    set: &'a Set,
    /// By head, position and token: `e` of the query's keys, where it was asked for.
    e: &'a [Ball],
    margin: f64,
    step: f64,
}

impl Walk<'_> {
    /// The inputs proved right and wrong below a node, or what is wrong with it.
    fn node(&self, node: &Node, decided: &mut Decided, beaten: &[bool]) -> Result<Count, String> {
        let place = |decided: &Decided| {
            format!("the query {:?}, the right class {}, chosen {decided:?}", self.set.query, self.set.right)
        };
        let mut beaten = beaten.to_vec();
        for proof in &node.proofs {
            if !self.holds(proof, false, decided) {
                return Err(format!("class {} is not shown to be beaten where {}", proof.rival, place(decided)));
            }
            beaten[proof.rival] = true;
        }
        let size = self.pascal.size(self.set, decided).ok_or("more than 2^128 inputs")?;
        match &node.verdict {
            Verdict::Open => Ok(Count::default()),
            Verdict::Right => match beaten.iter().position(|done| !done) {
                Some(w) => Err(format!("class {w} is not beaten where {}", place(decided))),
                None => Ok(Count { right: size, wrong: 0 }),
            },
            Verdict::Wrong(proof) => match self.holds(proof, true, decided) {
                true => Ok(Count { right: 0, wrong: size }),
                false => Err(format!("class {} is not shown to win where {}", proof.rival, place(decided))),
            },
            Verdict::Branch((g, i), children) => {
                let undecided = decided.get(*g).is_some_and(|own| own.get(*i) == Some(&None));
                if !undecided {
                    return Err(format!("a branch on what there is nothing to decide of, where {}", place(decided)));
                }
                let (mut count, mut parts, mut children) = (Count::default(), 0, children.iter());
                let most = if self.set.pools[*g].repeats { self.set.pools[*g].choose } else { 1 };
                for times in 0..=most {
                    decided[*g][*i] = Some(times);
                    let own = self.pascal.size(self.set, decided).unwrap_or(0);
                    if own > 0 {
                        let child = children.next().ok_or("a branch without all its parts")?;
                        count += self.node(child, decided, &beaten)?;
                        parts += own;
                    }
                }
                decided[*g][*i] = None;
                match parts == size && children.next().is_none() {
                    true => Ok(count),
                    false => Err(format!("the parts of a branch are not the whole, where {}", place(decided))),
                }
            }
        }
    }

    /// By head `e (g - λ)`, and `e`, of a key.
    fn cost(&self, key: (usize, usize), (a, b): (usize, usize), lambda: &[f64]) -> Vec<(Ball, Ball)> {
        let of = |h: usize| {
            let at = self.tables.at(h, key);
            let g = self.tables.ov[at][a].minus(self.tables.ov[at][b]);
            (self.e[at].times(g.minus(Ball::of(lambda[h]))), self.e[at])
        };
        (0..self.tables.heads).map(of).collect()
    }

    /// Whether the bound with a proof's `λ` is above zero on the inputs of which this is decided.
    fn holds(&self, proof: &Proof, swapped: bool, decided: &Decided) -> bool {
        let (t, set) = (self.tables, self.set);
        if proof.rival >= t.bias.len() || proof.rival == set.right {
            return false;
        }
        let pair = if swapped { (proof.rival, set.right) } else { (set.right, proof.rival) };
        // Every token that may be there, how often if that is known, and its keys: of the list, and of its ranks.
        let mut tokens: Vec<(usize, Option<usize>, usize, &[usize], Vec<usize>)> = Vec::new();
        for (t, list) in &set.fixed {
            tokens.push((usize::MAX, Some(1), *t, list, vec![]));
        }
        for (g, (pool, own)) in set.pools.iter().zip(decided).enumerate() {
            for (i, &token) in pool.tokens.iter().enumerate() {
                let sure = |range: &[Option<usize>]| range.iter().flatten().sum::<usize>();
                let may = |range: &[Option<usize>]| sure(range) + range.iter().filter(|n| n.is_none()).count();
                let fits = |r: &usize| {
                    let others = pool.choose - 1 - r;
                    (sure(&own[..i])..=may(&own[..i])).contains(r) && (sure(&own[i + 1..])..=may(&own[i + 1..])).contains(&others)
                };
                let ranks: Vec<usize> = (0..pool.sorted.len()).filter(fits).map(|r| pool.sorted[r]).collect();
                // Where no rank is left to a token it is in none of these inputs.
                let none = !pool.sorted.is_empty() && ranks.is_empty();
                if own[i] != Some(0) && !none {
                    tokens.push((g, own[i], token, &pool.list, ranks));
                }
            }
        }
        let lambda: Vec<f64> = match proof.lambda.is_empty() {
            false => proof.lambda.iter().map(|&l| f64::from(l) * self.step).collect(),
            true => self.mean(pair, decided),
        };
        if lambda.len() != t.heads || lambda.iter().any(|l| !l.is_finite()) {
            return false;
        }
        let costs: Vec<[Vec<Vec<(Ball, Ball)>>; 2]> = (tokens.iter())
            .map(|(_, _, token, list, ranks)| {
                [&list[..], ranks].map(|places| places.iter().map(|&j| self.cost((*token, j), pair, &lambda)).collect())
            })
            .collect();
        // The least sum over all choices of what a token's keys cost, each where that is least.
        let least = |cost: &dyn Fn(&[(Ball, Ball)]) -> f64| -> f64 {
            let of = |keys: &Vec<Vec<(Ball, Ball)>>| keys.iter().map(|key| cost(key)).fold(f64::INFINITY, f64::min);
            let of = |keys: &Vec<Vec<(Ball, Ball)>>| if keys.is_empty() { 0.0 } else { of(keys) };
            let each: Vec<f64> = costs.iter().map(|[list, ranks]| (of(list) + of(ranks)).next_down()).collect();
            let mut sum = 0.0;
            let mut add = |x: f64| sum = f64::next_down(sum + x);
            for (token, &cost) in tokens.iter().zip(&each) {
                (0..token.1.unwrap_or(0)).for_each(|_| add(cost));
            }
            for (g, pool) in set.pools.iter().enumerate() {
                let free = tokens.iter().zip(&each).filter(|(t, _)| t.0 == g && t.1.is_none());
                let mut free: Vec<f64> = free.map(|(_, &cost)| cost).collect();
                free.sort_by(f64::total_cmp);
                let left = pool.choose - decided[g].iter().flatten().sum::<usize>();
                match pool.repeats {
                    true => (0..left).for_each(|_| add(free.first().copied().unwrap_or(0.0))),
                    false => free.iter().take(left).for_each(|&cost| add(cost)),
                }
            }
            sum
        };
        let inverse = (0..t.heads).map(|h| {
            let (low, high) = (least(&|key| key[h].1.lo()), -least(&|key| -key[h].1.hi()));
            [Ball::of(high).inverse().lo().max(0.0), Ball::of(low).inverse().hi()]
        });
        let inverse: Vec<[f64; 2]> = inverse.collect();
        let corner = |corner: usize| {
            least(&|key| {
                let term = |h: usize| key[h].0.times(Ball::of(inverse[h][corner >> h & 1]));
                (0..t.heads).fold(Ball::ZERO, |sum, h| sum.plus(term(h))).lo()
            })
        };
        let least = (0..1 << t.heads).map(corner).fold(f64::INFINITY, |a, b| if b.is_nan() { b } else { a.min(b) });
        let at = t.at(0, set.query);
        let direct = t.direct[at][pair.0].minus(t.direct[at][pair.1]);
        let middle = (0..t.d_model).map(|i| {
            let amid = t.amid.iter().map(|amid| Ball::of(amid.0[i]));
            amid.fold(t.direct_stream[at][i], Ball::plus)
        });
        let middle: Vec<Ball> = middle.collect();
        let reach = t.amid.iter().fold(Ball::ZERO, |sum, amid| sum.plus(Ball::of(amid.1)));
        let far = Ball::of(Ball::dot(&middle, &middle).hi()).root().plus(reach);
        let sigma = t.sigma(far.times(far));
        let least_sigma = t.eps.map_or(Ball::of(1.0), |eps| Ball::of(Ball::of(eps).root().lo()));
        let rest = t.above(pair, self.margin, [least_sigma, sigma[1]]);
        let lambdas = lambda.iter().fold(Ball::ZERO, |sum, &l| sum.plus(Ball::of(l)));
        direct.plus(lambdas).plus(Ball::of(least)).plus(Ball::of(rest)).lo() > 0.0
    }

    /// The `λ` of proofs that have none of their own: by head the mean of `g`, weighted by `e`, of all keys not excluded.
    fn mean(&self, pair: (usize, usize), decided: &Decided) -> Vec<f64> {
        let (set, t) = (self.set, self.tables);
        let fixed = set.fixed.iter().flat_map(|(token, list)| list.iter().map(|&j| (*token, j)));
        let pools = set.pools.iter().zip(decided).flat_map(|(pool, own)| {
            let kept = pool.tokens.iter().zip(own).filter(|(_, n)| **n != Some(0));
            kept.flat_map(|(&token, _)| pool.list.iter().chain(&pool.sorted).map(move |&j| (token, j)))
        });
        let keys: Vec<(usize, usize)> = fixed.chain(pools).collect();
        let of = |h: usize| {
            let sums = keys.iter().fold((0.0, 0.0), |sums, &key| {
                let (e, ov) = (self.e[t.at(h, key)].m, &t.ov[t.at(h, key)]);
                (sums.0 + e * (ov[pair.0].m - ov[pair.1].m), sums.1 + e)
            });
            sums.0 / sums.1
        };
        (0..t.heads).map(of).collect()
    }
}

/// Checks a certificate of a model: that the model is the one it names, and that what it says follows.
///
/// `space` is the task's, restricted as the certificate's claim says.
///
/// *Cost*: for an enumeration that of every input, some microseconds each; for sets one bound a proof.
///
/// # Errors
/// When the model is of a kind that the checker has no tables of.
pub fn check(
    certificate: &Certificate,
    model: &Model<f64>,
    task: &dyn Task,
    space: &Space,
    par: Par,
) -> Result<Checked> {
    let refused = |reason: String| Ok(Checked::Refused(reason));
    let header = &certificate.header;
    let found = hash(model);
    if header.weights != found {
        return refused(format!("it is of the model {}, this one is {found}", header.weights));
    }
    if header.certified.size != space.size() || header.claim.task != task.name() {
        return refused("it is of another task or space".into());
    }
    if !header.claim.margin.is_finite() || header.claim.margin < 0.0 {
        return refused("its margin is no number of at least zero".into());
    }
    let tables = Tables::new(model, space.positions())?;
    let places = task.read_at();
    let proved = match header.method {
        Method::Enumeration => enumerated(&tables, task, space, header.claim.margin, par),
        Method::Sets => match walked(&tables, certificate, task, space, par)? {
            Ok(counts) => Certified::from_positions(space.size(), places.into_iter().zip(counts).collect()),
            Err(reason) => return refused(reason),
        },
    };
    let no_more = |said: Count, found: Count| said.right <= found.right && said.wrong <= found.wrong;
    let said = &header.certified;
    let same = said.positions.len() == proved.positions.len();
    let mut pairs = said.positions.iter().zip(&proved.positions);
    match same && pairs.all(|(a, b)| a.0 == b.0 && no_more(a.1, b.1)) && no_more(said.all, proved.all) {
        true => Ok(Checked::Accepted(proved)),
        false => refused(format!("it says {said:?}, and {proved:?} is what follows")),
    }
}

/// Every input, marked.
fn enumerated(tables: &Tables, task: &dyn Task, space: &Space, margin: f64, par: Par) -> Certified {
    let places = task.read_at();
    let one = |index: u64| -> Vec<Count> {
        let sequence = space.sequence(u128::from(index));
        let answers = places.iter().zip(task.solve(&sequence));
        let mut found: Vec<_> = answers.map(|(&p, u)| tables.mark(&sequence, p, u, margin)).collect();
        let right = found.iter().all(|f| *f == Some(true)).then_some(true);
        found.push(if found.contains(&Some(false)) { Some(false) } else { right });
        let count = |f: Option<bool>| Count { right: u128::from(f == Some(true)), wrong: u128::from(f == Some(false)) };
        found.into_iter().map(count).collect()
    };
    let add = |mut a: Vec<Count>, b: Vec<Count>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    let (none, size) = (|| vec![Count::default(); places.len() + 1], space.size() as u64);
    let mut counts = match par {
        Par::Seq => (0..size).map(one).fold(none(), add),
        Par::Rayon => (0..size).into_par_iter().map(one).reduce(none, add),
    };
    let all = counts.pop().unwrap_or_default();
    Certified { size: space.size(), positions: places.iter().copied().zip(counts).collect(), all }
}

/// Every tree, walked: by answer what it proves.
fn walked(
    tables: &Tables,
    certificate: &Certificate,
    task: &dyn Task,
    space: &Space,
    par: Par,
) -> Result<Result<Vec<Count>, String>> {
    let header = &certificate.header;
    let (places, ranks) = (task.read_at(), task.ranks().unwrap_or_default());
    let pascal = Pascal::new(tables.tokens.max(tables.positions));
    let answers = places.iter().copied().zip(ranks);
    let all: Option<Vec<Vec<Set>>> = answers.map(|a| sets(space, tables.causal, a, &pascal)).collect();
    let Some(all) = all.filter(|all| all.len() == places.len()) else {
        return Err(Error::NotCovered("cells and sets are of another kind of task"));
    };
    let sum = |sets: &Vec<Set>| sets.iter().try_fold(0u128, |sum, s| sum.checked_add(pascal.size(s, &nothing(s))?));
    if all.iter().any(|sets| sum(sets) != Some(space.size())) {
        return Ok(Err("the sets of an answer are not the whole space".into()));
    }
    let counts: Vec<usize> = all.iter().map(Vec::len).collect();
    let forest = match Forest::read(&certificate.body, header.step, &counts, tables.heads) {
        Ok(forest) => forest,
        Err(e) => return Ok(Err(e.to_string())),
    };
    // The trees of one query are walked with the same exponentials.
    let mut trees: Vec<(usize, &Set, &Node)> = Vec::new();
    for (answer, (sets, nodes)) in all.iter().zip(&forest.answers).enumerate() {
        let begun = sets.iter().zip(nodes).filter_map(|(set, node)| Some((answer, set, node.as_ref()?)));
        trees.extend(begun);
    }
    trees.sort_by_key(|(_, set, _)| set.query);
    let walk = |trees: &[(usize, &Set, &Node)]| -> Result<Vec<(usize, Count)>, String> {
        let query = trees[0].1.query;
        let keys = || (0..tables.positions).flat_map(|j| (0..tables.tokens).map(move |t| (t, j)));
        let seen = |key: &(usize, usize)| !tables.causal || key.1 <= query.1;
        let mut e = Vec::new();
        for h in 0..tables.heads {
            let shift = tables.shift(h, query, keys().filter(seen));
            let own = keys().map(|key| if seen(&key) { tables.e(h, query, key, shift) } else { Ball::ZERO });
            e.extend(own);
        }
        let one = |&(answer, set, node): &(usize, &Set, &Node)| {
            let walk = Walk { tables, pascal: &pascal, set, e: &e, margin: header.claim.margin, step: header.step };
            let mut beaten = vec![false; tables.bias.len()];
            beaten[set.right] = true;
            Ok((answer, walk.node(node, &mut nothing(set), &beaten)?))
        };
        trees.iter().map(one).collect()
    };
    let parts: Vec<_> = trees.chunk_by(|a, b| a.1.query == b.1.query).collect();
    let found: Result<Vec<_>, String> = match par {
        Par::Seq => parts.into_iter().map(walk).collect(),
        Par::Rayon => parts.into_par_iter().map(walk).collect(),
    };
    Ok(found.map(|found| {
        let mut counts = vec![Count::default(); all.len()];
        found.into_iter().flatten().for_each(|(answer, count)| counts[answer] += count);
        counts
    }))
}
