//! The sets that a space is divided into, and their sizes, counted anew.

use crate::task::{InputPart, InputSpace, Values};

/// A token that is there, or may be.
#[derive(Clone)]
pub(super) struct Token {
    pub token: usize,
    /// At one of which positions.
    pub list: Vec<usize>,
    /// How often, where that is decided.
    pub times: Option<usize>,
}

/// Tokens of which some are chosen.
pub(super) struct Pool {
    pub tokens: Vec<Token>,
    pub choose: usize,
    pub repeats: bool,
    /// By rank, where the chosen stand once more; empty where they do not.
    pub sorted: Vec<usize>,
}

/// Inputs of one query and one right class.
pub(super) struct Set {
    pub query: (usize, usize),
    pub right: usize,
    /// What is chosen from, and last of all what is there for certain.
    pub pools: Vec<Pool>,
    /// In how many orders the chosen can stand.
    orders: u128,
}

/// The binomial coefficient by Pascal's triangle, row after row; `None` beyond 2^128.
fn choose(n: usize, k: usize) -> Option<u128> {
    let k = k.min(n.checked_sub(k).unwrap_or(n + 1));
    let mut row = vec![0u128; k + 1];
    row[0] = 1;
    for _ in 0..n {
        for j in (1..=k).rev() {
            row[j] = row[j].checked_add(row[j - 1])?;
        }
    }
    Some(row[k])
}

impl Pool {
    /// How many are still to be chosen; `None` where too many are.
    pub fn left(&self) -> Option<usize> {
        let chosen = self.tokens.iter().filter_map(|t| t.times).sum();
        self.choose.checked_sub(chosen)
    }

    fn size(&self) -> Option<u128> {
        let free = self.tokens.iter().filter(|t| t.times.is_none()).count();
        let left = self.left()?;
        if !self.repeats {
            return choose(free, left);
        }
        let (mut size, mut places) = ((free as u128).checked_pow(left as u32)?, self.choose);
        for times in self.tokens.iter().filter_map(|t| t.times) {
            size = size.checked_mul(choose(places, times)?)?;
            places -= times;
        }
        Some(size)
    }
}

impl Set {
    /// Which tokens are chosen, and how often, as far as that is decided.
    pub fn chosen(&self) -> Vec<(usize, usize)> {
        let tokens = self.pools.iter().flat_map(|pool| &pool.tokens);
        tokens.filter_map(|t| Some((t.token, t.times?))).collect()
    }

    /// How many inputs there are; `None` beyond 2^128, or where more are chosen than can be.
    pub fn size(&self) -> Option<u128> {
        let mut sizes = self.pools.iter().map(Pool::size);
        sizes.try_fold(self.orders, |size, own| size.checked_mul(own?))
    }
}

/// The sets of one answer, read at `p`, that is the value of a rank, in the order in which trees are written.
pub(super) fn sets(
    space: &InputSpace,
    causal: bool,
    (p, rank): (usize, usize),
) -> Option<Vec<Set>> {
    let (mut tokens, count, repeats) = match space.values() {
        Values::Distinct { pool, len } => (pool.clone(), *len, false),
        Values::Product(sets) if sets.iter().all(|set| *set == sets[0]) => {
            (sets.first()?.clone(), sets.len(), true)
        }
        _ => return None,
    };
    tokens.sort_unstable();
    // What the query sees: every value once, and where it is itself one in order, it and the smaller ones once more.
    let parts = space.parts().iter().flat_map(|&part| match part {
        InputPart::All => (0..count).map(InputPart::Value).collect(),
        part => vec![part],
    });
    let seen = if causal { p + 1 } else { usize::MAX };
    let parts: Vec<InputPart> = parts.take(seen).collect();
    let query = *parts.get(p)?;
    let in_order = matches!(query, InputPart::Sorted(r) if r + 1 == rank && !repeats);
    match query {
        InputPart::Fixed(_) => {}
        InputPart::Value(_) if repeats => {}
        _ if in_order => {}
        _ => return None,
    }
    let place = |part| parts.iter().position(|&own| own == part);
    let values = (0..count).map(|i| place(InputPart::Value(i)));
    let values: Vec<usize> = values.collect::<Option<_>>()?;
    let ranks = (0..if in_order { rank } else { 0 }).map(|r| place(InputPart::Sorted(r)));
    let ranks: Vec<usize> = ranks.collect::<Option<_>>()?;
    let there = |t: i64, list: &[usize]| Token {
        token: t as usize,
        list: list.to_vec(),
        times: Some(1),
    };
    let fixed = parts
        .iter()
        .enumerate()
        .filter_map(|(j, &part)| match part {
            InputPart::Fixed(t) => Some(there(t, &[j])),
            _ => None,
        });
    let fixed: Vec<Token> = fixed.collect();
    let each_once = parts.len() == values.len() + ranks.len() + fixed.len();
    if !each_once || rank >= count || repeats && rank + 1 < count {
        return None;
    }
    let list: Vec<usize> = values.into_iter().filter(|&j| j != p).collect();
    let pool = |tokens: &[i64], choose: usize, sorted: &[usize]| {
        let may = |&t: &i64| Token {
            times: None,
            ..there(t, &list)
        };
        let (tokens, sorted) = (tokens.iter().map(may).collect(), sorted.to_vec());
        Pool {
            tokens,
            choose,
            repeats,
            sorted,
        }
    };
    let orders = (1..=count as u128).try_fold(1, u128::checked_mul);
    let queries: Vec<(i64, Option<usize>)> = match query {
        InputPart::Fixed(q) => vec![(q, None)],
        _ => tokens
            .iter()
            .enumerate()
            .map(|(i, &q)| (q, Some(i)))
            .collect(),
    };
    let mut all = Vec::new();
    for (q, i) in queries {
        let first = i.map_or(0, |i| i + usize::from(in_order));
        for (j, &u) in tokens.iter().enumerate().skip(first) {
            // Where tokens repeat, in how many places but the query's the largest stands.
            let least = usize::from(!repeats || i != Some(j));
            for m in least..=if repeats { list.len() } else { 1 } {
                let mut own = fixed.clone();
                own.extend(i.map(|_| there(q, &[p])));
                own.extend(vec![there(q, &list); usize::from(in_order)]);
                own.extend(vec![there(u, &list); m]);
                let (end, below) = i.filter(|_| in_order).map_or((j, rank), |i| (i, rank - 1));
                let below = if repeats { list.len() - m } else { below };
                let larger = if repeats { &[] } else { &tokens[j + 1..] };
                let pools = vec![
                    pool(&tokens[..end], below, &ranks[..ranks.len().min(below)]),
                    pool(larger, count - 1 - rank, &[]),
                    Pool {
                        choose: own.len(),
                        tokens: own,
                        repeats: false,
                        sorted: Vec::new(),
                    },
                ];
                let orders = if repeats {
                    choose(list.len(), m)?
                } else {
                    orders?
                };
                let (query, right) = ((q as usize, p), u as usize);
                all.push(Set {
                    query,
                    right,
                    pools,
                    orders,
                });
            }
        }
    }
    all.retain(|set: &Set| set.size() != Some(0));
    Some(all)
}
