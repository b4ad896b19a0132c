//! A tree, walked: every proof's bound, once, and the sizes of what it proves.

use super::ball::Ball;
use super::sets::{Decided, Pascal, Set};
use super::tables::Tables;
use crate::certify::Count;
use crate::certify::sets::{Node, Proof, Verdict};

/// By head `e (g - λ)`, and `e`, of a key.
type Cost = Vec<(Ball, Ball)>;

/// What a key costs, no more.
type Least<'a> = dyn Fn(&Cost) -> f64 + 'a;

/// A token that is there, or may be: how often, where that is known, and its keys.
struct Token<'a> {
    /// Which pool it is of; none, where it is there for certain.
    pool: Option<usize>,
    times: Option<usize>,
    token: usize,
    list: &'a [usize],
    ranks: Vec<usize>,
}

/// One tree, walked.
pub(super) struct Walk<'a> {
    pub(super) tables: &'a Tables,
    pub(super) pascal: &'a Pascal,
    pub(super) set: &'a Set,
    /// By head, position and token: `e` of the query's keys, where it was asked for.
    pub(super) e: &'a [Ball],
    pub(super) margin: f64,
    pub(super) step: f64,
}

impl Walk<'_> {
    /// The inputs proved right and wrong below a node, or what is wrong with it.
    pub(super) fn node(
        &self,
        node: &Node,
        decided: &mut Decided,
        beaten: &[bool],
    ) -> Result<Count, String> {
        let place = |decided: &Decided| {
            format!(
                "the query {:?}, the right class {}, chosen {decided:?}",
                self.set.query, self.set.right
            )
        };
        let mut beaten = beaten.to_vec();
        for proof in &node.proofs {
            if !self.holds(proof, false, decided) {
                return Err(format!(
                    "class {} is not shown to be beaten where {}",
                    proof.rival,
                    place(decided)
                ));
            }
            beaten[proof.rival] = true;
        }
        let size = self
            .pascal
            .size(self.set, decided)
            .ok_or("more than 2^128 inputs")?;
        match &node.verdict {
            Verdict::Open => Ok(Count::default()),
            Verdict::Right => match beaten.iter().position(|done| !done) {
                Some(w) => Err(format!("class {w} is not beaten where {}", place(decided))),
                None => Ok(Count {
                    right: size,
                    wrong: 0,
                }),
            },
            Verdict::Wrong(proof) => match self.holds(proof, true, decided) {
                true => Ok(Count {
                    right: 0,
                    wrong: size,
                }),
                false => Err(format!(
                    "class {} is not shown to win where {}",
                    proof.rival,
                    place(decided)
                )),
            },
            Verdict::Branch((g, i), children) => {
                let undecided = decided
                    .get(*g)
                    .is_some_and(|own| own.get(*i) == Some(&None));
                if !undecided {
                    return Err(format!(
                        "a branch on what there is nothing to decide of, where {}",
                        place(decided)
                    ));
                }
                let (mut count, mut parts, mut children) = (Count::default(), 0, children.iter());
                let most = if self.set.pools[*g].repeats {
                    self.set.pools[*g].choose
                } else {
                    1
                };
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
                    false => Err(format!(
                        "the parts of a branch are not the whole, where {}",
                        place(decided)
                    )),
                }
            }
        }
    }

    /// By head `e (g - λ)`, and `e`, of a key.
    fn cost(
        &self,
        key: (usize, usize),
        (a, b): (usize, usize),
        lambda: &[f64],
    ) -> Vec<(Ball, Ball)> {
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
        let pair = if swapped {
            (proof.rival, set.right)
        } else {
            (set.right, proof.rival)
        };
        // Every token that may be there, how often if that is known, and its keys: of the list, and of its ranks.
        let mut tokens: Vec<Token<'_>> = Vec::new();
        for (t, list) in &set.fixed {
            tokens.push(Token {
                pool: None,
                times: Some(1),
                token: *t,
                list,
                ranks: Vec::new(),
            });
        }
        for (g, (pool, own)) in set.pools.iter().zip(decided).enumerate() {
            for (i, &token) in pool.tokens.iter().enumerate() {
                let sure = |range: &[Option<usize>]| range.iter().flatten().sum::<usize>();
                let may = |range: &[Option<usize>]| {
                    sure(range) + range.iter().filter(|n| n.is_none()).count()
                };
                let fits = |r: &usize| {
                    let others = pool.choose - 1 - r;
                    (sure(&own[..i])..=may(&own[..i])).contains(r)
                        && (sure(&own[i + 1..])..=may(&own[i + 1..])).contains(&others)
                };
                let ranks: Vec<usize> = (0..pool.sorted.len())
                    .filter(fits)
                    .map(|r| pool.sorted[r])
                    .collect();
                // Where no rank is left to a token it is in none of these inputs.
                let none = !pool.sorted.is_empty() && ranks.is_empty();
                if own[i] != Some(0) && !none {
                    tokens.push(Token {
                        pool: Some(g),
                        times: own[i],
                        token,
                        list: &pool.list,
                        ranks,
                    });
                }
            }
        }
        let lambda: Vec<f64> = match proof.lambda.is_empty() {
            false => proof
                .lambda
                .iter()
                .map(|&l| f64::from(l) * self.step)
                .collect(),
            true => self.mean(pair, decided),
        };
        if lambda.len() != t.heads || lambda.iter().any(|l| !l.is_finite()) {
            return false;
        }
        let costs: Vec<[Vec<Cost>; 2]> = (tokens.iter())
            .map(|own| {
                [own.list, &own.ranks].map(|places| {
                    places
                        .iter()
                        .map(|&j| self.cost((own.token, j), pair, &lambda))
                        .collect()
                })
            })
            .collect();
        // The least sum over all choices of what a token's keys cost, each where that is least.
        let least = |cost: &Least<'_>| -> f64 {
            let of = |keys: &Vec<Cost>| match keys.is_empty() {
                true => 0.0,
                false => keys.iter().map(cost).fold(f64::INFINITY, f64::min),
            };
            let each: Vec<f64> = costs
                .iter()
                .map(|[list, ranks]| (of(list) + of(ranks)).next_down())
                .collect();
            let mut sum = 0.0;
            let mut add = |x: f64| sum = f64::next_down(sum + x);
            for (token, &cost) in tokens.iter().zip(&each) {
                (0..token.times.unwrap_or(0)).for_each(|_| add(cost));
            }
            for (g, pool) in set.pools.iter().enumerate() {
                let free = tokens
                    .iter()
                    .zip(&each)
                    .filter(|(t, _)| t.pool == Some(g) && t.times.is_none());
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
            // Where all keys may underflow nothing is above `1 / D`, and no corner is above zero.
            let most = match low > 0.0 {
                true => Ball::of(low).inverse().hi(),
                false => f64::INFINITY,
            };
            [Ball::of(high).inverse().lo().max(0.0), most]
        });
        let inverse: Vec<[f64; 2]> = inverse.collect();
        let corner = |corner: usize| {
            least(&|key| {
                let term = |h: usize| key[h].0.times(Ball::of(inverse[h][corner >> h & 1]));
                (0..t.heads)
                    .fold(Ball::ZERO, |sum, h| sum.plus(term(h)))
                    .lo()
            })
        };
        let least = (0..1 << t.heads)
            .map(corner)
            .fold(f64::INFINITY, |a, b| if b.is_nan() { b } else { a.min(b) });
        let at = t.at(0, set.query);
        let direct = t.direct[at][pair.0].minus(t.direct[at][pair.1]);
        let middle = (0..t.d_model).map(|i| {
            let amid = t.amid.iter().map(|amid| Ball::of(amid.0[i]));
            amid.fold(t.direct_stream[at][i], Ball::plus)
        });
        let middle: Vec<Ball> = middle.collect();
        let reach = t
            .amid
            .iter()
            .fold(Ball::ZERO, |sum, amid| sum.plus(Ball::of(amid.1)));
        let far = Ball::of(Ball::dot(&middle, &middle).hi())
            .root()
            .plus(reach);
        let sigma = t.sigma(far.times(far));
        let least_sigma = t
            .eps
            .map_or(Ball::of(1.0), |eps| Ball::of(Ball::of(eps).root().lo()));
        let rest = t.above(pair, self.margin, [least_sigma, sigma[1]]);
        let lambdas = lambda
            .iter()
            .fold(Ball::ZERO, |sum, &l| sum.plus(Ball::of(l)));
        direct
            .plus(lambdas)
            .plus(Ball::of(least))
            .plus(Ball::of(rest))
            .lo()
            > 0.0
    }

    /// The `λ` of proofs that have none of their own: by head the mean of `g`, weighted by `e`, of all keys not excluded.
    fn mean(&self, pair: (usize, usize), decided: &Decided) -> Vec<f64> {
        let (set, t) = (self.set, self.tables);
        let fixed = set
            .fixed
            .iter()
            .flat_map(|(token, list)| list.iter().map(|&j| (*token, j)));
        let pools = set.pools.iter().zip(decided).flat_map(|(pool, own)| {
            let kept = pool.tokens.iter().zip(own).filter(|(_, n)| **n != Some(0));
            kept.flat_map(|(&token, _)| {
                pool.list
                    .iter()
                    .chain(&pool.sorted)
                    .map(move |&j| (token, j))
            })
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
