//! Which sets there are: a space divided by what the query is and which class is right.

use crate::error::{Error, Result};
use crate::task::{InputPart, InputSpace, Task, Values, choose};

/// Tokens of which some are chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The tokens there are, ascending.
    pub tokens: Vec<usize>,
    /// How many are chosen.
    pub choose: usize,
    /// Whether one may be chosen repeatedly.
    pub repeats: bool,
    /// The positions at one of which each of them stands.
    pub list: Vec<usize>,
    /// By rank among the chosen, the position at which each of them stands once more; empty where none does.
    pub sorted: Vec<usize>,
}

/// Inputs of one query and one right answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// The query's token and position.
    pub query: (usize, usize),
    /// The right class.
    pub right: usize,
    /// The keys that are there for certain: a token, and the positions at one of which it stands.
    pub fixed: Vec<(usize, Vec<usize>)>,
    /// What is chosen besides.
    pub groups: Vec<Group>,
    /// In how many orders the chosen can stand; of groups with repeats their own order is counted by the group.
    pub orders: u128,
}

/// What of a root's choice is decided: how often a token is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// By group and place in it.
    pub counts: Vec<Vec<Option<usize>>>,
    /// By group, how many are still to be chosen.
    pub left: Vec<usize>,
    /// By group, from how many tokens.
    pub free: Vec<usize>,
}

impl State {
    /// Nothing is decided.
    pub fn new(root: &Root) -> State {
        State {
            counts: root
                .groups
                .iter()
                .map(|g| vec![None; g.tokens.len()])
                .collect(),
            left: root.groups.iter().map(|g| g.choose).collect(),
            free: root.groups.iter().map(|g| g.tokens.len()).collect(),
        }
    }

    /// Decides that a token of a group is chosen so many times.
    pub fn decide(&mut self, (group, place): (usize, usize), times: usize) {
        self.counts[group][place] = Some(times);
        self.left[group] -= times;
        self.free[group] -= 1;
    }

    /// Takes that back.
    pub fn undo(&mut self, (group, place): (usize, usize)) {
        if let Some(times) = self.counts[group][place].take() {
            self.left[group] += times;
            self.free[group] += 1;
        }
    }

    /// How often an undecided token of a group may be chosen at most.
    pub fn most(&self, root: &Root, group: usize) -> usize {
        match root.groups[group].repeats {
            true => self.left[group],
            false => self.left[group].min(1),
        }
    }

    /// How many inputs there are: `orders`, times for each group the choices that are left, and, where tokens repeat, the
    /// orders of the group's own places. No more than the space has, which was counted in the same integers.
    pub fn size(&self, root: &Root) -> u128 {
        let groups = root.groups.iter().enumerate();
        groups.fold(root.orders, |size, (i, group)| {
            let (left, free) = (self.left[i] as u128, self.free[i] as u128);
            let own = match group.repeats {
                false => choose(free, left).expect("smaller than the space"),
                true => {
                    let mut places = group.choose as u128;
                    let mut own = free.pow(left as u32);
                    for &times in self.counts[i].iter().flatten() {
                        own *= choose(places, times as u128).expect("smaller than the space");
                        places -= times as u128;
                    }
                    own
                }
            };
            size * own
        })
    }

    /// The ranks that a token of a group may have among the group's chosen, given what is decided.
    pub fn ranks(
        &self,
        group: usize,
        place: usize,
        choose: usize,
    ) -> std::ops::RangeInclusive<usize> {
        let (mut least, mut most) = (0, 0);
        for (i, times) in self.counts[group].iter().enumerate() {
            let (sure, possible) = (times.unwrap_or(0), times.unwrap_or(1));
            if i < place {
                least += sure;
                most += possible;
            }
        }
        // As many again must find room above it.
        let mut above = (0, 0);
        for times in &self.counts[group][place + 1..] {
            above.0 += times.unwrap_or(0);
            above.1 += times.unwrap_or(1);
        }
        let least = least.max((choose - 1).saturating_sub(above.1));
        let most = most.min((choose - 1).saturating_sub(above.0));
        // A token that cannot be chosen has no rank; any will do.
        let least = least.min(choose - 1);
        least..=most.clamp(least, choose - 1)
    }
}

/// The roots of one answer of a task: disjoint, and together the whole space.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The position at which the answer is read.
    pub position: usize,
    /// The sets.
    pub roots: Vec<Root>,
}

/// Where an input's values stand in the sequence.
pub(super) struct Layout {
    /// By value, its position.
    pub(super) list: Vec<usize>,
    /// Tokens that always stand at a position.
    fixed: Vec<(usize, usize)>,
    /// By rank, its position, where it has one.
    sorted: Vec<Option<usize>>,
    /// By position, what is there.
    parts: Vec<InputPart>,
}

impl Layout {
    pub(super) fn of(space: &InputSpace, values: usize) -> Result<Layout> {
        let all = space.parts().iter().flat_map(|&part| match part {
            InputPart::All => (0..values).map(InputPart::Value).collect(),
            part => vec![part],
        });
        let parts: Vec<InputPart> = all.collect();
        let (mut list, mut sorted) = (vec![None; values], vec![None; values]);
        let mut fixed = Vec::new();
        for (position, &part) in parts.iter().enumerate() {
            let twice = match part {
                InputPart::Value(i) => list[i].replace(position).is_some(),
                InputPart::Sorted(rank) => sorted[rank].replace(position).is_some(),
                InputPart::Fixed(token) => {
                    fixed.push((token as usize, position));
                    false
                }
                InputPart::All => unreachable!("written out above"),
            };
            if twice {
                return Err(Error::NotCovered("a value stands at several places"));
            }
        }
        let list: Option<Vec<usize>> = list.into_iter().collect();
        Ok(Layout {
            list: list.ok_or(Error::NotCovered("a value is not in the sequence"))?,
            fixed,
            sorted,
            parts,
        })
    }
}

impl Problem {
    /// The sets of every answer of a task on a space, for a model whose queries see earlier keys alone or all.
    ///
    /// # Errors
    /// When the space or the task are not of a kind that is divided so: distinct values, answers of which each is the
    /// value of a rank, read at a fixed token or at the value of the rank before; or values of one set, of which the
    /// largest is asked for.
    pub fn all(task: &dyn Task, space: &InputSpace, causal: bool) -> Result<Vec<Problem>> {
        let ranks = task.ranks().ok_or(Error::NotCovered(
            "cells and sets are of tasks whose answers are the values of given ranks",
        ))?;
        let places = task.read_at();
        if places.len() != ranks.len() || places.is_empty() {
            return Err(Error::NotCovered(
                "cells and sets are of tasks with a rank for every answer",
            ));
        }
        let problem = |(position, rank)| {
            let roots = Self::roots(space, causal, (position, rank))?;
            let problem = Problem { position, roots };
            match problem.size() == Some(space.size()) {
                true => Ok(problem),
                false => Err(Error::NotCovered(
                    "the sets of an answer are not the whole space",
                )),
            }
        };
        places.into_iter().zip(ranks).map(problem).collect()
    }

    fn roots(space: &InputSpace, causal: bool, answer: (usize, usize)) -> Result<Vec<Root>> {
        match space.values() {
            Values::Distinct { pool, len } => {
                let layout = Layout::of(space, *len)?;
                distinct(&layout, pool, causal, answer)
            }
            Values::Product(sets) if sets.windows(2).all(|w| w[0] == w[1]) && !sets.is_empty() => {
                let layout = Layout::of(space, sets.len())?;
                super::super::cells::roots(
                    &super::super::cells::Places {
                        list: &layout.list,
                        fixed: &layout.fixed,
                        query: layout.parts[answer.0],
                        sorted: layout.sorted.iter().flatten().count(),
                    },
                    &sets[0],
                    causal,
                    answer,
                )
            }
            _ => Err(Error::NotCovered(
                "cells and sets are of lists of distinct values, or of values of one set",
            )),
        }
    }

    /// The inputs of all roots together, if they can be counted.
    fn size(&self) -> Option<u128> {
        let mut sizes = self.roots.iter().map(|root| State::new(root).size(root));
        sizes.try_fold(0, u128::checked_add)
    }
}

/// `1 2 … n`
pub(super) fn factorial(n: usize) -> Option<u128> {
    (1..=n as u128).try_fold(1, u128::checked_mul)
}

fn distinct(
    layout: &Layout,
    pool: &[i64],
    causal: bool,
    (position, rank): (usize, usize),
) -> Result<Vec<Root>> {
    let refuse = |reason| Err(Error::NotCovered(reason));
    let sees = |p: usize| !causal || p <= position;
    let len = layout.list.len();
    let mut tokens: Vec<usize> = pool.iter().map(|&t| t as usize).collect();
    tokens.sort_unstable();
    if !layout.list.iter().all(|&p| sees(p)) {
        return refuse("a value stands behind where an answer is read");
    }
    let orders = factorial(len).ok_or(Error::NotCovered("there are more than 2^128 orders"))?;
    let seen = |rank: &usize| layout.sorted[*rank].is_some_and(sees);
    let seen: Vec<usize> = (0..len).filter(seen).collect();
    let place = |rank: usize| layout.sorted[rank].expect("only those that are seen are asked for");
    let stand: Vec<_> = (layout.fixed.iter())
        .filter(|&&(_, p)| sees(p))
        .map(|&(t, p)| (t, vec![p]))
        .collect();
    let group = |tokens: &[usize], choose: usize, sorted: Vec<usize>| Group {
        tokens: tokens.to_vec(),
        choose,
        repeats: false,
        list: layout.list.clone(),
        sorted,
    };
    let mut roots = Vec::new();
    match layout.parts[position] {
        InputPart::Fixed(query) if seen.is_empty() => {
            for (i, &u) in tokens.iter().enumerate() {
                let mut fixed = stand.clone();
                fixed.push((u, layout.list.clone()));
                roots.push(Root {
                    query: (query as usize, position),
                    right: u,
                    fixed,
                    groups: vec![
                        group(&tokens[..i], rank, Vec::new()),
                        group(&tokens[i + 1..], len - 1 - rank, Vec::new()),
                    ],
                    orders,
                });
            }
        }
        InputPart::Sorted(before)
            if before + 1 == rank && seen == (0..rank).collect::<Vec<_>>() =>
        {
            for (i, &q) in tokens.iter().enumerate() {
                for (j, &u) in tokens.iter().enumerate().skip(i + 1) {
                    let mut fixed = stand.clone();
                    fixed.push((q, vec![position]));
                    fixed.push((q, layout.list.clone()));
                    fixed.push((u, layout.list.clone()));
                    roots.push(Root {
                        query: (q, position),
                        right: u,
                        fixed,
                        groups: vec![
                            group(&tokens[..i], before, (0..before).map(place).collect()),
                            group(&tokens[j + 1..], len - 1 - rank, Vec::new()),
                        ],
                        orders,
                    });
                }
            }
        }
        _ => {
            return refuse(
                "an answer is read at neither a fixed token nor the value of the rank before",
            );
        }
    }
    roots.retain(|root| State::new(root).size(root) > 0);
    Ok(roots)
}
