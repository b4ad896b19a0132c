//! The sets that a space is divided into, and their sizes, counted anew.

use crate::task::{Part, Space, Values};

/// Tokens of which some are chosen; each stands at one of `list`, and where it has a rank once more there.
#[derive(Clone)]
pub(super) struct Pool {
    pub(super) tokens: Vec<usize>,
    pub(super) choose: usize,
    pub(super) repeats: bool,
    pub(super) list: Vec<usize>,
    pub(super) sorted: Vec<usize>,
}

/// Inputs of one query and one right class.
pub(super) struct Set {
    pub(super) query: (usize, usize),
    pub(super) right: usize,
    pub(super) fixed: Vec<(usize, Vec<usize>)>,
    pub(super) pools: Vec<Pool>,
    pub(super) orders: u128,
}

/// How often each token of each pool is chosen, where that is decided.
pub(super) type Decided = Vec<Vec<Option<usize>>>;

/// Counts in exact integers; `None` beyond 2^128.
pub(super) struct Pascal(Vec<Vec<Option<u128>>>);

impl Pascal {
    pub(super) fn new(rows: usize) -> Pascal {
        let mut all = vec![vec![Some(1u128)]];
        for n in 1..=rows {
            let above = |k: usize| all[n - 1].get(k).copied().unwrap_or(Some(0));
            let entry = |k: usize| {
                if k == 0 {
                    Some(1)
                } else {
                    above(k)?.checked_add(above(k - 1)?)
                }
            };
            let row = (0..=n).map(entry).collect();
            all.push(row);
        }
        Pascal(all)
    }

    fn choose(&self, n: usize, k: usize) -> Option<u128> {
        self.0[n].get(k).copied().unwrap_or(Some(0))
    }

    pub(super) fn size(&self, set: &Set, decided: &Decided) -> Option<u128> {
        let mut size = set.orders;
        for (pool, own) in set.pools.iter().zip(decided) {
            let free = own.iter().filter(|n| n.is_none()).count();
            let mut left = pool.choose;
            for &times in own.iter().flatten() {
                let ways = if pool.repeats {
                    self.choose(left, times)?
                } else {
                    1
                };
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
pub(super) fn sets(
    space: &Space,
    causal: bool,
    (p, rank): (usize, usize),
    pascal: &Pascal,
) -> Option<Vec<Set>> {
    let (mut tokens, count, repeats) = match space.values() {
        Values::Distinct { pool, len } => (pool.clone(), *len, false),
        Values::Product(sets) if !sets.is_empty() && sets.iter().all(|s| *s == sets[0]) => {
            (sets[0].clone(), sets.len(), true)
        }
        _ => return None,
    };
    tokens.sort_unstable();
    let tokens: Vec<usize> = tokens.into_iter().map(|t| t as usize).collect();
    let parts = space.parts().iter().flat_map(|&part| match part {
        Part::All => (0..count).map(Part::Value).collect(),
        part => vec![part],
    });
    let parts: Vec<(usize, Part)> = parts
        .enumerate()
        .filter(|&(j, _)| !causal || j <= p)
        .collect();
    let stands = |part: Part| {
        parts
            .iter()
            .filter(move |own| own.1 == part)
            .map(|own| own.0)
            .collect::<Vec<_>>()
    };
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
        Pool {
            tokens,
            choose,
            repeats,
            list,
            sorted,
        }
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
                    all.push((
                        q,
                        u,
                        own.to_vec(),
                        vec![below, above],
                        (1..=count as u128).product(),
                    ));
                }
            }
        }
        Part::Fixed(q) if !repeats && sorted.is_empty() => {
            for (j, &u) in tokens.iter().enumerate() {
                let below = pool(&tokens[..j], rank, &list, &[]);
                let above = pool(&tokens[j + 1..], count - 1 - rank, &list, &[]);
                let own = vec![(u, list.clone())];
                all.push((
                    q as usize,
                    u,
                    own,
                    vec![below, above],
                    (1..=count as u128).product(),
                ));
            }
        }
        Part::Fixed(_) | Part::Value(_) if repeats && sorted.is_empty() && rank + 1 == count => {
            let others: Vec<usize> = list.iter().copied().filter(|&j| j != p).collect();
            let queries: Vec<(usize, usize, Vec<_>)> = match query {
                Part::Fixed(q) => vec![(q as usize, 0, vec![])],
                _ => tokens
                    .iter()
                    .enumerate()
                    .map(|(i, &q)| (q, i, vec![(q, vec![p])]))
                    .collect(),
            };
            for (q, first, stand) in queries {
                for (j, &u) in tokens.iter().enumerate().skip(first) {
                    for m in usize::from(stand.is_empty() || j > first)..=others.len() {
                        let own = stand
                            .iter()
                            .cloned()
                            .chain(vec![(u, others.clone()); m])
                            .collect();
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
        Set {
            query: (q, p),
            right,
            fixed,
            pools,
            orders,
        }
    };
    let mut sets: Vec<Set> = all.into_iter().map(set).collect();
    sets.retain(|set| pascal.size(set, &nothing(set)) != Some(0));
    Some(sets)
}

/// Nothing is decided.
pub(super) fn nothing(set: &Set) -> Decided {
    set.pools
        .iter()
        .map(|pool| vec![None; pool.tokens.len()])
        .collect()
}
