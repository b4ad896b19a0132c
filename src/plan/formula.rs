//! A normal form folded back into sums and chains that share what they have in common.

use crate::expr::{Expr, Factor, Product, Rational, Space};
use std::collections::{BTreeMap, BTreeSet};

/// A circuit as it will be computed: chains of factors, and sums of chains.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Formula {
    Leaf(Factor),
    Identity(Space),
    /// Two or more that meet, from left to right.
    Chain(Vec<Formula>),
    /// Terms with their coefficients; none at all is zero.
    Sum {
        rows: Space,
        cols: Space,
        terms: Vec<(Rational, Formula)>,
    },
}

/// Products and their coefficients, all of one shape.
type Polynomial = BTreeMap<Product, Rational>;

/// With more terms than this, looking for what they share takes longer than it could gain.
const MAX_TERMS: usize = 512;

impl Formula {
    /// The circuit of an expression.
    ///
    /// `A B + A C` becomes `A (B + C)`, and `B D + B E + C D + C E` becomes `(B + C) (D + E)`: what terms
    /// share is computed once.
    pub fn of(expr: &Expr) -> Formula {
        let terms = expr.terms().map(|(p, c)| (p.clone(), *c)).collect();
        factorised(terms, expr.rows(), expr.cols())
    }

    pub fn rows(&self) -> Space {
        match self {
            Formula::Leaf(factor) => factor.spaces().0,
            Formula::Identity(space) => space.clone(),
            Formula::Chain(parts) => parts[0].rows(),
            Formula::Sum { rows, .. } => rows.clone(),
        }
    }

    pub fn cols(&self) -> Space {
        match self {
            Formula::Leaf(factor) => factor.spaces().1,
            Formula::Identity(space) => space.clone(),
            Formula::Chain(parts) => parts[parts.len() - 1].cols(),
            Formula::Sum { cols, .. } => cols.clone(),
        }
    }
}

/// The parts as one chain; `space` is what the identity is of, if they are nothing else.
pub(super) fn chain(parts: Vec<Formula>, space: &Space) -> Formula {
    let mut flat = Vec::new();
    for part in parts {
        match part {
            Formula::Chain(inner) => flat.extend(inner),
            Formula::Identity(_) => {}
            other => flat.push(other),
        }
    }
    match flat.len() {
        0 => Formula::Identity(space.clone()),
        1 => flat.remove(0),
        _ => Formula::Chain(flat),
    }
}

fn product(factors: &[Factor], rows: &Space) -> Formula {
    chain(factors.iter().cloned().map(Formula::Leaf).collect(), rows)
}

fn sum(terms: Vec<(Rational, Formula)>, rows: &Space, cols: &Space) -> Formula {
    let one = Rational::from_integer(1);
    let mut flat = Vec::new();
    for (x, term) in terms {
        match term {
            Formula::Sum { terms, .. } => flat.extend(terms.into_iter().map(|(y, t)| (x * y, t))),
            other => flat.push((x, other)),
        }
    }
    if flat.len() == 1 && flat[0].0 == one {
        return flat.remove(0).1;
    }
    Formula::Sum {
        rows: rows.clone(),
        cols: cols.clone(),
        terms: flat,
    }
}

fn factorised(terms: Polynomial, rows: &Space, cols: &Space) -> Formula {
    let flat = |terms: &Polynomial| {
        let all = terms.iter().map(|(p, c)| (*c, product(p, rows))).collect();
        sum(all, rows, cols)
    };
    if terms.len() <= 1 || terms.len() > MAX_TERMS {
        return flat(&terms);
    }
    // What every term begins or ends with.
    let first = terms.keys().next().expect("not empty");
    let shared = |from_end: bool| {
        let at = |p: &Product, i: usize| {
            let i = if from_end {
                p.len().checked_sub(i + 1)
            } else {
                Some(i)
            };
            i.and_then(|i| p.get(i)).cloned()
        };
        let same = |i: &usize| {
            let factor = at(first, *i);
            factor.is_some() && terms.keys().all(|p| at(p, *i) == factor)
        };
        (0..first.len()).take_while(same).count()
    };
    let shortest = terms.keys().map(Vec::len).min().unwrap_or(0);
    let prefix = shared(false);
    let suffix = shared(true).min(shortest - prefix);
    if prefix + suffix > 0 {
        let (before, after) = (&first[..prefix], &first[first.len() - suffix..]);
        let space = |factor: Option<&Factor>, end: &Space, cols: bool| {
            factor.map_or(
                end.clone(),
                |f| if cols { f.spaces().1 } else { f.spaces().0 },
            )
        };
        let (inner_rows, inner_cols) = (
            space(before.last(), rows, true),
            space(after.first(), cols, false),
        );
        let inner = terms
            .iter()
            .map(|(p, c)| (p[prefix..p.len() - suffix].to_vec(), *c))
            .collect();
        let inner = factorised(inner, &inner_rows, &inner_cols);
        let parts = vec![product(before, rows), inner, product(after, &inner_cols)];
        return chain(parts, rows);
    }
    let Some((left, right, rest)) = best_division(&terms) else {
        return flat(&terms);
    };
    let inner = right
        .keys()
        .find_map(|p| p.first().map(|f| f.spaces().0))
        .or_else(|| left.keys().find_map(|p| p.last().map(|f| f.spaces().1)))
        .unwrap_or(rows.clone());
    let divided = chain(
        vec![
            factorised(left, rows, &inner),
            factorised(right, &inner, cols),
        ],
        rows,
    );
    let one = Rational::from_integer(1);
    let rest = factorised(rest, rows, cols);
    sum(vec![(one, divided), (one, rest)], rows, cols)
}

/// The terms as `left · right + rest`, with as much as possible in the product; `None` where no two terms share
/// a beginning.
fn best_division(terms: &Polynomial) -> Option<(Polynomial, Polynomial, Polynomial)> {
    // Every sum that some beginning is followed by.
    let mut follow: BTreeMap<&[Factor], Polynomial> = BTreeMap::new();
    for (p, c) in terms {
        for i in 1..=p.len() {
            let rest = follow.entry(&p[..i]).or_default();
            rest.insert(p[i..].to_vec(), *c);
        }
    }
    let candidates: BTreeSet<Polynomial> = follow
        .into_values()
        .filter(|right| right.len() > 1)
        .map(|right| monic(&right))
        .collect();
    let best = candidates
        .into_iter()
        .map(|right| (quotient(terms, &right), right))
        .max_by_key(|(left, right)| {
            let (l, r) = (left.len() as i64, right.len() as i64);
            // Products saved; of equal ones the one that covers the most.
            (l * r - l - r, l * r)
        });
    let (left, right) = best.filter(|(left, _)| !left.is_empty())?;
    let mut rest = terms.clone();
    for a in left.keys() {
        for b in right.keys() {
            rest.remove(&[a.clone(), b.clone()].concat());
        }
    }
    Some((left, right, rest))
}

/// With the first coefficient 1, so that multiples of one sum are one candidate.
fn monic(terms: &Polynomial) -> Polynomial {
    let first = terms.values().next().copied();
    let first = first.unwrap_or(Rational::from_integer(1));
    terms.iter().map(|(p, c)| (p.clone(), c / first)).collect()
}

/// The largest `left` with `left · right` among the terms, each term taken once.
fn quotient(terms: &Polynomial, right: &Polynomial) -> Polynomial {
    let (first, _) = right.iter().next().expect("a candidate is not empty");
    let mut taken: BTreeSet<Product> = BTreeSet::new();
    let mut left = Polynomial::new();
    for (p, c) in terms {
        let Some(prefix) = p.strip_suffix(first.as_slice()) else {
            continue;
        };
        let products: Vec<Product> = right
            .keys()
            .map(|q| [prefix.to_vec(), q.clone()].concat())
            .collect();
        let there = products
            .iter()
            .zip(right.values())
            .all(|(p, x)| !taken.contains(p) && terms.get(p) == Some(&(c * x)));
        if there {
            taken.extend(products);
            left.insert(prefix.to_vec(), *c);
        }
    }
    left
}
