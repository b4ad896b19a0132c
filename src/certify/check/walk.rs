//! A tree, walked: every proof's bound, once, and the sizes of what it proves.

use super::ball::{Ball, Row, total};
use super::sets::{Pool, Set, Token};
use super::tables::Tables;
use crate::certify::Count;
use crate::certify::sets::{Beaten, Decision, InputSet};

impl Pool {
    /// Where a token may stand once more: at the ranks that leave room for what is chosen below and above it.
    fn ranks(&self, i: usize) -> Vec<usize> {
        let room = |tokens: &[Token], n: usize| {
            let sure: usize = tokens.iter().filter_map(|t| t.times).sum();
            let free = tokens.iter().filter(|t| t.times.is_none()).count();
            (sure..=sure + free).contains(&n)
        };
        let (below, above) = (&self.tokens[..i], &self.tokens[i + 1..]);
        let fits = |&r: &usize| room(below, r) && room(above, self.choose - 1 - r);
        let ranks = (0..self.sorted.len()).filter(fits);
        ranks.map(|r| self.sorted[r]).collect()
    }

    /// No more than what the keys of the chosen cost together.
    fn least(&self, cost: &dyn Fn(usize, usize) -> f64) -> f64 {
        let (mut sum, mut free) = (0.0, Vec::new());
        for (i, t) in self.tokens.iter().enumerate() {
            let least = |places: &[usize]| {
                let costs = places.iter().map(|&j| cost(t.token, j));
                costs.fold(f64::INFINITY, f64::min)
            };
            let mut own = least(&t.list);
            if !self.sorted.is_empty() {
                // Where no rank is left to a token it is in none of these inputs.
                own = (own + least(&self.ranks(i))).next_down();
            }
            match t.times {
                Some(times) => (0..times).for_each(|_| sum = f64::next_down(sum + own)),
                None => free.push(own),
            }
        }
        free.sort_by(f64::total_cmp);
        free.truncate(if self.repeats { 1 } else { free.len() });
        let chosen = free.iter().cycle().take(self.left().unwrap_or(0));
        chosen.fold(sum, |sum, own| (sum + own).next_down())
    }
}

/// What the proofs of a certificate are evaluated with.
pub(super) struct Walk<'a> {
    pub tables: Tables<'a>,
    pub margin: f64,
    /// What `λ`s are counted in.
    pub step: f64,
}

impl Walk<'_> {
    /// The inputs proved right and wrong in a set.
    pub fn tree(&self, mut set: Set, node: &InputSet) -> Result<Count, String> {
        let e = self.tables.weights(set.query);
        let mut beaten = vec![false; self.tables.ov.len()];
        beaten[set.right] = true;
        self.node(node, &mut set, &e, beaten)
    }

    fn node(
        &self,
        node: &InputSet,
        set: &mut Set,
        e: &[Row],
        mut beaten: Vec<bool>,
    ) -> Result<Count, String> {
        let size = set.size().ok_or("more than 2^128 inputs")?;
        let inverse: Vec<[f64; 2]> = e.iter().map(|e| self.inverse(set, e)).collect();
        let chosen = set.chosen();
        let (query, right) = (set.query, set.right);
        let refuse = |what: &str| {
            Err(format!(
                "{what}, where the query is {query:?}, {right} right, and {chosen:?} chosen"
            ))
        };
        let count = |right, wrong| Ok(Count { right, wrong });
        for proof in &node.proofs {
            if !self.holds(proof, false, set, e, &inverse) {
                return refuse(&format!("class {} is not shown to be beaten", proof.rival));
            }
            beaten[proof.rival] = true;
        }
        match &node.decision {
            Decision::Open => count(0, 0),
            Decision::Right if beaten.iter().all(|&beaten| beaten) => count(size, 0),
            Decision::Right => refuse("a class is not beaten"),
            Decision::Wrong(proof) if self.holds(proof, true, set, e, &inverse) => count(0, size),
            Decision::Wrong(proof) => refuse(&format!("class {} is not shown to win", proof.rival)),
            Decision::Branch((g, i), children) => {
                let token = |set: &Set| Some(set.pools.get(*g)?.tokens.get(*i)?.times);
                if token(set) != Some(None) {
                    return refuse("there is nothing to divide by");
                }
                let most = if set.pools[*g].repeats {
                    set.pools[*g].choose
                } else {
                    1
                };
                let (mut sum, mut parts, mut children) = (Count::default(), 0, children.iter());
                for times in 0..=most {
                    set.pools[*g].tokens[*i].times = Some(times);
                    let own = set.size().unwrap_or(0);
                    if own > 0 {
                        let child = children.next().ok_or("a part is missing")?;
                        sum += self.node(child, set, e, beaten.clone())?;
                        parts += own;
                    }
                }
                set.pools[*g].tokens[*i].times = None;
                if parts != size || children.next().is_some() {
                    return refuse("the parts are not the whole");
                }
                Ok(sum)
            }
        }
    }

    /// No more than what the keys of any of the inputs cost together.
    fn least(&self, set: &Set, cost: impl Fn(usize) -> f64) -> f64 {
        let cost = |t: usize, j: usize| cost(self.tables.key(t, j));
        let each = set.pools.iter().map(|pool| pool.least(&cost));
        each.fold(0.0, |sum, own| (sum + own).next_down())
    }

    /// Between what one over the sum of a head's weights is.
    fn inverse(&self, set: &Set, e: &[Ball]) -> [f64; 2] {
        let least = self.least(set, |key| e[key].lo());
        let most = -self.least(set, |key| -e[key].hi());
        // Where all keys may underflow nothing is above it, and no corner is above zero.
        let above = Ball::of(least.max(0.0)).inverse().hi();
        [Ball::of(most).inverse().lo().max(0.0), above]
    }

    /// Whether a proof's bound is above zero: of the right class over the rival, or where that wins the other way round.
    fn holds(
        &self,
        proof: &Beaten,
        wins: bool,
        set: &Set,
        e: &[Row],
        inverse: &[[f64; 2]],
    ) -> bool {
        let (t, heads, keys) = (&self.tables, e.len(), e[0].len());
        if proof.rival >= t.ov.len() || proof.rival == set.right {
            return false;
        }
        let pair = if wins {
            (proof.rival, set.right)
        } else {
            (set.right, proof.rival)
        };
        let g = |h: usize, key: usize| {
            let at = h * keys + key;
            t.ov[pair.0][at].minus(t.ov[pair.1][at])
        };
        // Of proofs that have no λ of their own: the mean of g, weighted by e, of all keys that are not excluded.
        let mean = |h: usize| {
            let mut sums = (0.0, 0.0);
            for pool in &set.pools {
                for token in pool.tokens.iter().filter(|t| t.times != Some(0)) {
                    for &j in token.list.iter().chain(&pool.sorted) {
                        let key = t.key(token.token, j);
                        sums.0 += e[h][key].0 * g(h, key).0;
                        sums.1 += e[h][key].0;
                    }
                }
            }
            sums.0 / sums.1
        };
        let own = |h: usize| proof.lambda.get(h).map(|&l| f64::from(l) * self.step);
        let lambda: Row = (0..heads)
            .map(|h| Ball::of(own(h).unwrap_or_else(|| mean(h))))
            .collect();
        let cost = |h: usize, key: usize| e[h][key].times(g(h, key).minus(lambda[h]));
        let costs: Vec<Row> = (0..heads)
            .map(|h| (0..keys).map(|key| cost(h, key)).collect())
            .collect();
        let rest = t.rest(set.query, pair, self.margin).plus(total(&lambda));
        (0..1 << heads).all(|corner: usize| {
            let term =
                |h: usize, key: usize| costs[h][key].times(Ball::of(inverse[h][corner >> h & 1]));
            let joint = |key| {
                (0..heads)
                    .map(|h| term(h, key))
                    .fold(Ball::ZERO, Ball::plus)
            };
            let least = self.least(set, |key| joint(key).lo());
            rest.plus(Ball::of(least)).lo() > 0.0
        })
    }
}
