//! Statements decided in a finite field: both sides with random entries modulo a prime.
//!
//! Two expressions that are different polynomials in their symbols' entries agree at a random point of a field of
//! `p` elements with probability at most `degree / p`.
//! *Source*: Schwartz (1980) and Zippel (1979); DeMillo and Lipton (1978).

use crate::expr::{Dims, Expr, Factor, Origin, Rational, Rotary, Space, Symbol, definition};
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
struct FieldMatrix {
    rows: usize,
    cols: usize,
    entries: Vec<u64>,
}

impl FieldMatrix {
    fn from_fn(rows: usize, cols: usize, mut f: impl FnMut(usize, usize) -> u64) -> Self {
        let entries = (0..rows)
            .flat_map(|i| (0..cols).map(move |j| (i, j)))
            .map(|(i, j)| f(i, j))
            .collect();
        FieldMatrix {
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
        FieldMatrix {
            rows: self.rows,
            cols: other.cols,
            entries,
        }
    }
}

/// So many reflections make an orthogonal matrix that is neither its own transpose nor near the identity.
const REFLECTIONS: u64 = 4;

/// Where two sides differ, and their values there.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Difference {
    pub at: (usize, usize),
    pub left: u64,
    pub right: u64,
}

/// What a random point of the field says.
pub(super) struct FieldVerdict {
    /// The first entry that differs; none where the two sides agree.
    pub difference: Option<Difference>,
    /// How likely different expressions are to agree all the same, at the most.
    pub error: f64,
    /// The sizes that it was decided at.
    pub dims: Dims,
}

/// Evaluates both sides at a random point. `None` where a coefficient has no value in the field.
pub(super) fn decide(left: &Expr, right: &Expr, dims: &Dims, seed: u64) -> Option<FieldVerdict> {
    let degree = degree(left, dims).max(degree(right, dims));
    let (small, units) = reduced(left, right, dims, degree);
    let mut point = Point {
        dims: &small,
        units: &units,
        positions: positions(&small, dims, &units),
        rng: ChaCha8Rng::seed_from_u64(seed),
        known: HashMap::new(),
        turns: HashMap::new(),
    };
    let (a, b) = (point.expression(left)?, point.expression(right)?);
    let mut places = (0..a.rows).flat_map(|i| (0..a.cols).map(move |j| (i, j)));
    let different = places.find(|&(i, j)| a.at(i, j) != b.at(i, j));
    Some(FieldVerdict {
        difference: different.map(|(i, j)| Difference {
            at: (i, j),
            left: a.at(i, j),
            right: b.at(i, j),
        }),
        error: degree.whole(dims) as f64 / P as f64,
        dims: small,
    })
}

/// Whether a statement speaks of a size (`ones[s]ᵀ ones[s]` is one, `C` divides by one) and would be decided at
/// others than the model's: what holds there says nothing of the model.
pub(super) fn of_other_sizes(left: &Expr, right: &Expr, dims: &Dims) -> bool {
    let symbols = left.symbols().into_iter().chain(right.symbols());
    // Queries and keys are turned by as many positions as there are.
    let mut sizes = symbols.filter(|s| matches!(s, Symbol::Ones(_) | Symbol::C) || s.is_turned());
    let degree = degree(left, dims).max(degree(right, dims));
    sizes.next().is_some() && reduced(left, right, dims, degree).0 != *dims
}

/// The degree of a polynomial: in the entries of what is random, and how far its rotations turn.
#[derive(Clone, Copy, Default)]
struct Degree {
    /// In the entries of generic matrices, rotations counted as one of them each.
    entries: u64,
    /// The positions by which one product's rotations turn, all in all.
    turns: u64,
}

impl Degree {
    fn times(self, other: Self) -> Self {
        Degree {
            entries: self.entries.saturating_add(other.entries),
            turns: self.turns.saturating_add(other.turns),
        }
    }

    fn max(self, other: Self) -> Self {
        Degree {
            entries: self.entries.max(other.entries),
            turns: self.turns.max(other.turns),
        }
    }

    /// The degree in all that is chosen at random. A rotation by `n` positions turns pair `f` by an entry of degree
    /// `2 n` in `t_f`, over `(1 + t_f²)^n`: multiplied by what all denominators have in common, no term has more than
    /// `2 n` of each `t_f`.
    fn whole(self, dims: &Dims) -> u64 {
        let chosen = |r: &Rotary| match r.windowed.is_empty() {
            true => r.pairs.len(),
            false => 2 * r.pairs.len(),
        };
        let chosen = dims.rotary.as_ref().map_or(0, chosen) as u64;
        let of_turns = self.turns.saturating_mul(2).saturating_mul(chosen);
        self.entries.saturating_add(of_turns).max(1)
    }
}

/// The degree in the symbols' entries, those of a run counted as what they are made of. An inverse counts
/// twice: multiplied out, it raises every other term's degree.
fn degree(expr: &Expr, dims: &Dims) -> Degree {
    fn of(symbol: &Symbol, dims: &Dims, known: &mut HashMap<Symbol, Degree>) -> Degree {
        let single = Degree {
            entries: 1,
            turns: 0,
        };
        if symbol.orthogonal() {
            // Each reflection is of degree two, over a square of degree two.
            return Degree {
                entries: 2 * REFLECTIONS,
                turns: 0,
            };
        }
        if symbol.origin() == Origin::Constant {
            return Degree::default();
        }
        if let Symbol::R(_, n) = *symbol {
            return Degree {
                turns: n.unsigned_abs(),
                ..single
            };
        }
        if let Some(&degree) = known.get(symbol) {
            return degree;
        }
        let degree = match symbol.unturned(dims) {
            Some(straight) => of(&straight, dims, known).times(Degree {
                turns: dims.pos as u64,
                ..single
            }),
            None => definition(symbol, dims).map_or(single, |e| whole(&e, dims, known)),
        };
        known.insert(symbol.clone(), degree);
        degree
    }
    fn whole(expr: &Expr, dims: &Dims, known: &mut HashMap<Symbol, Degree>) -> Degree {
        let mut largest = Degree::default();
        for (product, _) in expr.terms() {
            let each = product.iter().map(|f| {
                let once = of(&f.symbol, dims, known);
                if f.inverse { once.times(once) } else { once }
            });
            largest = largest.max(each.fold(Degree::default(), Degree::times));
        }
        largest
    }
    whole(expr, dims, &mut HashMap::new())
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
    degree: Degree,
) -> (Dims, BTreeMap<(Space, i64), usize>) {
    let mut selected: BTreeMap<Space, BTreeSet<i64>> = BTreeMap::new();
    for symbol in left.symbols().into_iter().chain(right.symbols()) {
        if let Symbol::Unit(space, index) = symbol {
            let size = space.size(dims) as i64;
            let resolved = if *index < 0 { index + size } else { *index };
            selected.entry(space.clone()).or_default().insert(resolved);
        }
    }
    let enough_entries = usize::try_from(degree.entries.saturating_add(1)).unwrap_or(usize::MAX);
    let enough_entries = LARGE.max(enough_entries);
    let turning = |symbol: &&Symbol| matches!(symbol, Symbol::R(..)) || symbol.is_turned();
    let turned = left
        .symbols()
        .into_iter()
        .chain(right.symbols())
        .find(turning)
        .is_some();
    let enough = |space: Space, size: usize| {
        // One more than the statement selects: so that a selection is never the whole.
        let selections = selected.get(&space).map_or(0, BTreeSet::len);
        size.min(enough_entries.max(selections + 1))
    };
    let small = Dims {
        d_vocab: enough(Space::Vocab, dims.d_vocab),
        pos: enough(Space::Pos, dims.pos),
        d_model: enough(Space::Model, dims.d_model),
        // A rotation is no generic matrix: it turns its pairs, and stays whole.
        d_head: match turned {
            true => dims.d_head,
            false => dims.d_head.min(enough_entries),
        },
        d_mlp: dims.d_mlp.map(|n| n.min(enough_entries)),
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

/// The positions that the rows of a run's values stand for: those that the statement selects keep their own.
fn positions(small: &Dims, dims: &Dims, units: &BTreeMap<(Space, i64), usize>) -> Vec<i64> {
    let mut positions: Vec<Option<i64>> = vec![None; small.pos];
    for ((space, index), &new) in units {
        if *space == Space::Pos && *index >= 0 {
            positions[new] = Some(*index);
        }
    }
    let taken: BTreeSet<i64> = positions.iter().flatten().copied().collect();
    let mut free = (0..dims.pos as i64).filter(|i| !taken.contains(i));
    let position = |chosen: Option<i64>| {
        let next = || free.next().expect("no more rows than positions");
        chosen.unwrap_or_else(next)
    };
    positions.into_iter().map(position).collect()
}

/// A number and another in its place `i`, where `i² = -1`: of modulus one, a point of the circle.
type Turn = (u64, u64);

fn after((c, s): Turn, (d, t): Turn) -> Turn {
    let minus = P - mul(s, t);
    (add(mul(c, d), minus), add(mul(c, t), mul(s, d)))
}

/// The turn, `n` times; the other way where `n` is negative.
fn turned((c, s): Turn, n: i64) -> Turn {
    let mut base = if n < 0 { (c, add(0, P - s)) } else { (c, s) };
    let mut rest = n.unsigned_abs();
    let mut result = (1, 0);
    while rest > 0 {
        if rest & 1 == 1 {
            result = after(result, base);
        }
        base = after(base, base);
        rest >>= 1;
    }
    result
}

/// A random value for every symbol.
struct Point<'a> {
    dims: &'a Dims,
    units: &'a BTreeMap<(Space, i64), usize>,
    /// What position each row of a run's values has.
    positions: Vec<i64>,
    /// By what one position turns each pair of queries and keys, in layers with a window or in others, where it is asked
    /// for: what is said of both at once is to hold of any two angles.
    turns: HashMap<bool, Vec<Turn>>,
    rng: ChaCha8Rng,
    known: HashMap<Symbol, FieldMatrix>,
}

impl Point<'_> {
    fn expression(&mut self, expr: &Expr) -> Option<FieldMatrix> {
        let (rows, cols) = (expr.rows().size(self.dims), expr.cols().size(self.dims));
        let mut sum = vec![0; rows * cols];
        for (product, coefficient) in expr.terms() {
            let x = rational(coefficient)?;
            let mut value: Option<FieldMatrix> = None;
            for factor in product {
                let next = self.factor(factor)?;
                value = Some(match value {
                    None => next,
                    Some(value) => value.times(&next),
                });
            }
            let one = |i: usize, j: usize| u64::from(i == j);
            let value = value.unwrap_or_else(|| FieldMatrix::from_fn(rows, cols, one));
            for (sum, v) in sum.iter_mut().zip(&value.entries) {
                *sum = add(*sum, mul(x, *v));
            }
        }
        Some(FieldMatrix {
            rows,
            cols,
            entries: sum,
        })
    }

    fn factor(&mut self, factor: &Factor) -> Option<FieldMatrix> {
        let value = self.symbol(&factor.symbol)?;
        let value = if factor.inverse {
            // Only diagonal ones have one here, and none of their entries is zero.
            let diagonal = |i, j| if i == j { inverse(value.at(i, j)) } else { 0 };
            FieldMatrix::from_fn(value.rows, value.cols, diagonal)
        } else {
            value
        };
        Some(if factor.transposed { value.t() } else { value })
    }

    fn symbol(&mut self, symbol: &Symbol) -> Option<FieldMatrix> {
        if let Some(known) = self.known.get(symbol) {
            return Some(known.clone());
        }
        let value = if let Symbol::R(head, n) = *symbol {
            self.rotation(head.layer, n)
        } else if let Some(straight) = symbol.unturned(self.dims) {
            let layer = match straight.spaces().1 {
                Space::Head(head) => head.layer,
                _ => unreachable!("queries and keys have a head's columns"),
            };
            let mut rows = self.symbol(&straight)?;
            for i in 0..rows.rows {
                let rotation = self.rotation(layer, self.positions[i]);
                let at = i * rows.cols..(i + 1) * rows.cols;
                let row = FieldMatrix {
                    rows: 1,
                    cols: rows.cols,
                    entries: rows.entries[at.clone()].to_vec(),
                };
                rows.entries[at].copy_from_slice(&row.times(&rotation).entries);
            }
            rows
        } else {
            match definition(symbol, self.dims) {
                Some(expr) => self.expression(&expr)?,
                None => self.random(symbol),
            }
        };
        self.known.insert(symbol.clone(), value.clone());
        Some(value)
    }

    /// A rotation, of which every pair turns by its own rational point of the circle, so that what is true of all
    /// rotations is true of it.
    fn rotation(&mut self, layer: usize, n: i64) -> FieldMatrix {
        let rotary = self.dims.rotary.as_ref();
        let pairs = rotary.map_or(&[][..], |r| &r.pairs);
        let windowed = rotary.is_some_and(|r| r.windowed(layer));
        let rng = &mut self.rng;
        let turns = self.turns.entry(windowed).or_insert_with(|| {
            let mut point = || {
                let t = rng.random_range(0..P);
                let square = mul(t, t);
                // -1 is no square modulo a prime that is 3 modulo 4: the denominator is not zero.
                let denominator = inverse(add(1, square));
                (
                    mul(add(1, P - square), denominator),
                    mul(add(t, t), denominator),
                )
            };
            pairs.iter().map(|_| point()).collect()
        });
        let d = self.dims.d_head;
        let mut matrix = FieldMatrix::from_fn(d, d, |i, j| u64::from(i == j));
        for (&(a, b), &turn) in pairs.iter().zip(&*turns) {
            let (c, s) = turned(turn, n);
            matrix.entries[a * d + a] = c;
            matrix.entries[b * d + a] = add(0, P - s);
            matrix.entries[a * d + b] = s;
            matrix.entries[b * d + b] = c;
        }
        matrix
    }

    /// An orthogonal matrix: a product of reflections `I - 2 v vᵀ / vᵀ v`.
    fn orthogonal(&mut self, n: usize) -> FieldMatrix {
        let mut matrix = FieldMatrix::from_fn(n, n, |i, j| u64::from(i == j));
        for _ in 0..REFLECTIONS {
            let v: Vec<u64> = (0..n).map(|_| self.rng.random_range(0..P)).collect();
            let square = v.iter().fold(0, |sum, &x| add(sum, mul(x, x)));
            // A vector of square zero reflects nothing.
            if square == 0 {
                continue;
            }
            let factor = mul(P - 2, inverse(square));
            let reflection = FieldMatrix::from_fn(n, n, |i, j| {
                add(u64::from(i == j), mul(factor, mul(v[i], v[j])))
            });
            matrix = matrix.times(&reflection);
        }
        matrix
    }

    fn random(&mut self, symbol: &Symbol) -> FieldMatrix {
        let (rows, cols) = symbol.spaces();
        let (m, n) = (rows.size(self.dims), cols.size(self.dims));
        let one = |yes: bool| u64::from(yes);
        match symbol {
            Symbol::C => {
                let mean = P - inverse(n as u64 % P);
                FieldMatrix::from_fn(m, n, |i, j| add(one(i == j), mean))
            }
            // All that is known of a Fourier basis is that it is orthogonal.
            s if s.orthogonal() => self.orthogonal(n),
            Symbol::Ones(_) => FieldMatrix::from_fn(m, n, |_, _| 1),
            Symbol::Unit(space, index) => {
                let at = self.units[&(space.clone(), *index)];
                FieldMatrix::from_fn(m, n, |i, _| one(i == at))
            }
            Symbol::Inject { stack, part } => {
                let before: usize = stack[..*part].iter().map(|s| s.size(self.dims)).sum();
                FieldMatrix::from_fn(m, n, |i, j| one(i == before + j))
            }
            s if s.diagonal() => {
                let rng = &mut self.rng;
                FieldMatrix::from_fn(m, n, |i, j| match i == j {
                    true => rng.random_range(1..P),
                    false => 0,
                })
            }
            // All that is known of a pattern, or of the tokens, is that every row's sum is 1.
            Symbol::Pattern(_) | Symbol::Tokens => {
                let rng = &mut self.rng;
                let mut matrix = FieldMatrix::from_fn(m, n, |_, _| rng.random_range(0..P));
                for row in matrix.entries.chunks_exact_mut(n) {
                    let (last, others) = row.split_last_mut().expect("a space is not empty");
                    let sum = others.iter().fold(0, |sum, &x| add(sum, x));
                    *last = add(1, P - sum);
                }
                matrix
            }
            _ => {
                let rng = &mut self.rng;
                FieldMatrix::from_fn(m, n, |_, _| rng.random_range(0..P))
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
