//! Statements decided in a finite field: both sides with random entries modulo a prime.
//!
//! Two expressions that are different polynomials in their symbols' entries agree at a random point of a field of
//! `p` elements with probability at most `degree / p`.
//! *Source*: Schwartz (1980) and Zippel (1979); DeMillo and Lipton (1978).

use crate::expr::{Dims, Expr, Factor, Origin, Rational, Space, Symbol, definition};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The prime `2^61 - 1`.
pub(super) const P: u64 = (1 << 61) - 1;

fn add(a: u64, b: u64) -> u64 {
    let sum = a + b;
    if sum >= P { sum - P } else { sum }
}

fn mul(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    add((wide & u128::from(P)) as u64, (wide >> 61) as u64)
}

fn power(mut base: u64, mut exponent: u64) -> u64 {
    let mut result = 1;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = mul(result, base);
        }
        base = mul(base, base);
        exponent >>= 1;
    }
    result
}

/// By Fermat's little theorem.
fn inverse(a: u64) -> u64 {
    power(a, P - 2)
}

fn integer(x: i128) -> u64 {
    x.rem_euclid(i128::from(P)) as u64
}

/// `None` where the denominator is a multiple of the prime.
fn rational(x: &Rational) -> Option<u64> {
    let denominator = integer(*x.denom());
    (denominator != 0).then(|| mul(integer(*x.numer()), inverse(denominator)))
}

/// A matrix over the field, row-major.
#[derive(Clone, Debug, PartialEq)]
struct Matrix {
    rows: usize,
    cols: usize,
    entries: Vec<u64>,
}

impl Matrix {
    fn from_fn(rows: usize, cols: usize, mut f: impl FnMut(usize, usize) -> u64) -> Self {
        let entries = (0..rows)
            .flat_map(|i| (0..cols).map(move |j| (i, j)))
            .map(|(i, j)| f(i, j))
            .collect();
        Matrix {
            rows,
            cols,
            entries,
        }
    }

    fn at(&self, i: usize, j: usize) -> u64 {
        self.entries[i * self.cols + j]
    }

    fn t(&self) -> Self {
        Self::from_fn(self.cols, self.rows, |i, j| self.at(j, i))
    }

    fn times(&self, other: &Self) -> Self {
        assert_eq!(self.cols, other.rows);
        let mut entries = vec![0; self.rows * other.cols];
        for i in 0..self.rows {
            let out = &mut entries[i * other.cols..(i + 1) * other.cols];
            for k in 0..self.cols {
                let a = self.at(i, k);
                let row = &other.entries[k * other.cols..(k + 1) * other.cols];
                for (out, &b) in out.iter_mut().zip(row) {
                    *out = add(*out, mul(a, b));
                }
            }
        }
        Matrix {
            rows: self.rows,
            cols: other.cols,
            entries,
        }
    }
}

/// Where two sides differ, and their values there.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Difference {
    pub at: (usize, usize),
    pub left: u64,
    pub right: u64,
}

/// What a random point of the field says.
pub(super) struct Outcome {
    /// The first entry that differs; none where the two sides agree.
    pub difference: Option<Difference>,
    /// How likely different expressions are to agree all the same, at the most.
    pub error: f64,
    /// The sizes that it was decided at.
    pub dims: Dims,
}

/// Evaluates both sides at a random point. `None` where a coefficient has no value in the field.
pub(super) fn decide(left: &Expr, right: &Expr, dims: &Dims, seed: u64) -> Option<Outcome> {
    let degree = degree(left, dims).max(degree(right, dims));
    let (small, units) = reduced(left, right, dims, degree);
    let mut point = Point {
        dims: &small,
        units: &units,
        rng: ChaCha8Rng::seed_from_u64(seed),
        known: HashMap::new(),
    };
    let (a, b) = (point.expression(left)?, point.expression(right)?);
    let mut places = (0..a.rows).flat_map(|i| (0..a.cols).map(move |j| (i, j)));
    let different = places.find(|&(i, j)| a.at(i, j) != b.at(i, j));
    Some(Outcome {
        difference: different.map(|(i, j)| Difference {
            at: (i, j),
            left: a.at(i, j),
            right: b.at(i, j),
        }),
        error: degree as f64 / P as f64,
        dims: small,
    })
}

/// Whether a statement speaks of a size (`ones[s]ᵀ ones[s]` is one, `C` divides by one) and would be decided at
/// others than the model's: what holds there says nothing of the model.
pub(super) fn of_other_sizes(left: &Expr, right: &Expr, dims: &Dims) -> bool {
    let symbols = left.symbols().into_iter().chain(right.symbols());
    let mut sizes = symbols.filter(|s| matches!(s, Symbol::Ones(_) | Symbol::C));
    let degree = degree(left, dims).max(degree(right, dims));
    sizes.next().is_some() && reduced(left, right, dims, degree).0 != *dims
}

/// The degree in the symbols' entries, those of a run counted as what they are made of. An inverse counts
/// twice: multiplied out, it raises every other term's degree.
fn degree(expr: &Expr, dims: &Dims) -> u64 {
    fn of(symbol: &Symbol, dims: &Dims, known: &mut HashMap<Symbol, u64>) -> u64 {
        if symbol.origin() == Origin::Constant {
            return 0;
        }
        if let Some(&degree) = known.get(symbol) {
            return degree;
        }
        let degree = definition(symbol, dims).map_or(1, |e| whole(&e, dims, known));
        known.insert(symbol.clone(), degree);
        degree
    }
    fn whole(expr: &Expr, dims: &Dims, known: &mut HashMap<Symbol, u64>) -> u64 {
        let mut largest = 0;
        for (product, _) in expr.terms() {
            let each = product.iter().map(|f| {
                let twice = if f.inverse { 2 } else { 1 };
                of(&f.symbol, dims, known).saturating_mul(twice)
            });
            largest = largest.max(each.fold(0, u64::saturating_add));
        }
        largest
    }
    whole(expr, dims, &mut HashMap::new()).max(1)
}

/// The largest size that a space is given here: enough for every statement about a small model to be decided at
/// the model's own sizes.
const LARGE: usize = 64;

/// Sizes at which the statement can be evaluated in no time, and new numbers for the rows and columns that it
/// selects.
///
/// A polynomial in generic matrices of degree below `2 n` that vanishes at size `n` vanishes at every size
/// (Amitsur and Levitzki, 1950): so sizes above the degree decide for all larger ones. Smaller ones than the
/// model's are only taken where they are above it.
fn reduced(
    left: &Expr,
    right: &Expr,
    dims: &Dims,
    degree: u64,
) -> (Dims, BTreeMap<(Space, i64), usize>) {
    let mut selected: BTreeMap<Space, BTreeSet<i64>> = BTreeMap::new();
    for symbol in left.symbols().into_iter().chain(right.symbols()) {
        if let Symbol::Unit(space, index) = symbol {
            let size = space.size(dims) as i64;
            let resolved = if *index < 0 { index + size } else { *index };
            selected.entry(space.clone()).or_default().insert(resolved);
        }
    }
    let degree = usize::try_from(degree).unwrap_or(usize::MAX);
    let enough = |space: Space, size: usize| {
        // One more than the statement selects: so that a selection is never the whole.
        let selections = selected.get(&space).map_or(0, BTreeSet::len);
        size.min(LARGE.max(degree.saturating_add(1)).max(selections + 1))
    };
    let small = Dims {
        d_vocab: enough(Space::Vocab, dims.d_vocab),
        pos: enough(Space::Pos, dims.pos),
        d_model: enough(Space::Model, dims.d_model),
        d_head: dims.d_head.min(LARGE.max(degree.saturating_add(1))),
        d_mlp: dims
            .d_mlp
            .map(|n| n.min(LARGE.max(degree.saturating_add(1)))),
        d_vocab_out: enough(Space::Out, dims.d_vocab_out),
        ..dims.clone()
    };
    let mut units = BTreeMap::new();
    for (space, indices) in selected {
        let (size, new_size) = (space.size(dims), space.size(&small));
        for (nth, index) in indices.into_iter().enumerate() {
            // Where nothing was cut, an index stays what it is.
            let new = if size == new_size {
                index as usize
            } else {
                nth
            };
            units.insert((space.clone(), index), new);
            units.insert((space.clone(), index - size as i64), new);
        }
    }
    (small, units)
}

/// A random value for every symbol.
struct Point<'a> {
    dims: &'a Dims,
    units: &'a BTreeMap<(Space, i64), usize>,
    rng: ChaCha8Rng,
    known: HashMap<Symbol, Matrix>,
}

impl Point<'_> {
    fn expression(&mut self, expr: &Expr) -> Option<Matrix> {
        let (rows, cols) = (expr.rows().size(self.dims), expr.cols().size(self.dims));
        let mut sum = vec![0; rows * cols];
        for (product, coefficient) in expr.terms() {
            let x = rational(coefficient)?;
            let mut value: Option<Matrix> = None;
            for factor in product {
                let next = self.factor(factor)?;
                value = Some(match value {
                    None => next,
                    Some(value) => value.times(&next),
                });
            }
            let one = |i: usize, j: usize| u64::from(i == j);
            let value = value.unwrap_or_else(|| Matrix::from_fn(rows, cols, one));
            for (sum, v) in sum.iter_mut().zip(&value.entries) {
                *sum = add(*sum, mul(x, *v));
            }
        }
        Some(Matrix {
            rows,
            cols,
            entries: sum,
        })
    }

    fn factor(&mut self, factor: &Factor) -> Option<Matrix> {
        let value = self.symbol(&factor.symbol)?;
        let value = if factor.inverse {
            // Only diagonal ones have one here, and none of their entries is zero.
            let diagonal = |i, j| if i == j { inverse(value.at(i, j)) } else { 0 };
            Matrix::from_fn(value.rows, value.cols, diagonal)
        } else {
            value
        };
        Some(if factor.transposed { value.t() } else { value })
    }

    fn symbol(&mut self, symbol: &Symbol) -> Option<Matrix> {
        if let Some(known) = self.known.get(symbol) {
            return Some(known.clone());
        }
        let value = match definition(symbol, self.dims) {
            Some(expr) => self.expression(&expr)?,
            None => self.random(symbol),
        };
        self.known.insert(symbol.clone(), value.clone());
        Some(value)
    }

    fn random(&mut self, symbol: &Symbol) -> Matrix {
        let (rows, cols) = symbol.spaces();
        let (m, n) = (rows.size(self.dims), cols.size(self.dims));
        let one = |yes: bool| u64::from(yes);
        match symbol {
            Symbol::C => {
                let mean = P - inverse(n as u64 % P);
                Matrix::from_fn(m, n, |i, j| add(one(i == j), mean))
            }
            Symbol::Ones(_) => Matrix::from_fn(m, n, |_, _| 1),
            Symbol::Unit(space, index) => {
                let at = self.units[&(space.clone(), *index)];
                Matrix::from_fn(m, n, |i, _| one(i == at))
            }
            Symbol::Inject { stack, part } => {
                let before: usize = stack[..*part].iter().map(|s| s.size(self.dims)).sum();
                Matrix::from_fn(m, n, |i, j| one(i == before + j))
            }
            s if s.diagonal() => {
                let rng = &mut self.rng;
                Matrix::from_fn(m, n, |i, j| match i == j {
                    true => rng.random_range(1..P),
                    false => 0,
                })
            }
            // All that is known of a pattern, or of the tokens, is that every row's sum is 1.
            Symbol::Pattern(_) | Symbol::Tokens => {
                let rng = &mut self.rng;
                let mut matrix = Matrix::from_fn(m, n, |_, _| rng.random_range(0..P));
                for row in matrix.entries.chunks_exact_mut(n) {
                    let (last, others) = row.split_last_mut().expect("a space is not empty");
                    let sum = others.iter().fold(0, |sum, &x| add(sum, x));
                    *last = add(1, P - sum);
                }
                matrix
            }
            _ => {
                let rng = &mut self.rng;
                Matrix::from_fn(m, n, |_, _| rng.random_range(0..P))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_of_the_field() {
        assert_eq!(add(P - 1, 1), 0);
        assert_eq!(mul(P - 1, P - 1), 1);
        for a in [1, 2, 3, 1 << 60, P - 1] {
            assert_eq!(mul(a, inverse(a)), 1);
        }
        assert_eq!(
            rational(&Rational::new(-1, 2)),
            Some(mul(P - 1, inverse(2)))
        );
        assert_eq!(rational(&Rational::new(1, i128::from(P))), None);
        // Against 128-bit remainders.
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..1000 {
            let (a, b) = (rng.random_range(0..P), rng.random_range(0..P));
            let exact = (u128::from(a) * u128::from(b) % u128::from(P)) as u64;
            assert_eq!(mul(a, b), exact);
        }
    }
}
