//! An expression's value in floating point, with what bounds its error in every order of evaluation.
//!
//! Multiplied out, an expression is a sum of products of numbers. Whatever the order in which it is computed,
//! each of them passes at most `n` roundings, so that the result is within `γ_n` times the sum of their
//! magnitudes of the exact value: the same expression over the absolute values of its numbers.
//! *Source*: Higham (2002), 3.1 to 3.5.

use super::bounded::{ELEMENTARY, gamma, rounded_up, sizes};
use crate::error::Result;
use crate::eval::{Matrix, Rotation, Source, coefficient};
use crate::expr::{Dims, Expr, Origin, Product, Rational, Symbol, definition};
use crate::linalg::product;
use crate::names::Hook;
use crate::tensor::Scalar;
use faer::{Mat, MatRef};
use std::collections::{BTreeSet, HashMap};

/// A value with the sum of its products' magnitudes, and how many roundings each passes at the most.
#[derive(Clone)]
pub(super) struct Measured<T> {
    pub value: Mat<T>,
    magnitude: Mat<T>,
    roundings: usize,
    /// Of a sum, the largest entry of any of its terms: what a difference is to be seen against.
    pub largest: T,
}

impl<T: Scalar> Measured<T> {
    fn exact(value: Mat<T>) -> Self {
        Measured {
            largest: value.norm_max(),
            magnitude: sizes(&value),
            value,
            roundings: 0,
        }
    }

    /// A rotation's matrix for `n` positions. Entries that turn are within the roundings of one: the angle's, relative to
    /// itself, the cosine's or sine's, both in f64, and one to the precision of the computation.
    fn rotation(rotation: &Rotation, n: i64) -> Self {
        let mut measured = Self::exact(rotation.matrix(n));
        for &(a, b) in rotation.pairs() {
            for at in [(a, a), (a, b), (b, a), (b, b)] {
                measured.magnitude[at] = T::ONE;
            }
        }
        let in_double = (rotation.angle(n) + ELEMENTARY) * f64::EPSILON / T::EPSILON.to_f64();
        // Whoever has no angles, or turns by none, has an identity, which is exact.
        if rotation.angle(n) > 0.0 {
            measured.roundings = 1 + in_double.ceil() as usize;
        }
        measured
    }

    /// The rows, each turned by its number.
    fn rows_turned(&self, rotation: &Rotation) -> Self {
        let mut turned = Measured {
            value: Mat::zeros(self.value.nrows(), self.value.ncols()),
            magnitude: Mat::zeros(self.value.nrows(), self.value.ncols()),
            roundings: 0,
            largest: T::ZERO,
        };
        for i in 0..self.value.nrows() {
            let row = |M: &Mat<T>| M.subrows(i, 1).to_owned();
            let row = Measured {
                value: row(&self.value),
                magnitude: row(&self.magnitude),
                ..*self
            };
            let row = row.times(&Self::rotation(rotation, i as i64));
            turned.value.subrows_mut(i, 1).copy_from(&row.value);
            turned.magnitude.subrows_mut(i, 1).copy_from(&row.magnitude);
            turned.roundings = turned.roundings.max(row.roundings);
        }
        turned
    }

    /// How far off an entry may be.
    pub fn error(&self, i: usize, j: usize) -> T {
        if self.roundings == 0 {
            return T::ZERO;
        }
        // The magnitudes are rounded themselves, as often as the values; and what underflows is lost.
        let n = self.roundings + 1;
        let lost = T::from_f64(n as f64) * T::MIN_POSITIVE;
        gamma::<T>(n) * self.magnitude[(i, j)] * rounded_up::<T>(n + 4) + lost
    }

    fn times(&self, other: &Self) -> Self {
        Measured {
            value: product(self.value.as_ref(), other.value.as_ref()),
            magnitude: product(self.magnitude.as_ref(), other.magnitude.as_ref()),
            roundings: self.roundings + other.roundings + self.value.ncols(),
            largest: T::ZERO,
        }
    }

    fn t(&self) -> Self {
        Measured {
            value: self.value.transpose().to_owned(),
            magnitude: self.magnitude.transpose().to_owned(),
            roundings: self.roundings,
            largest: self.largest,
        }
    }

    /// `C X`
    fn centred(&self) -> Self {
        let n = self.value.nrows();
        let less_mean = |M: &Mat<T>, sign: T| {
            let inverse = T::ONE / T::from_f64(n as f64);
            let means: Vec<T> = (0..M.ncols())
                .map(|j| (0..n).map(|i| M[(i, j)]).sum::<T>() * inverse)
                .collect();
            Mat::from_fn(n, M.ncols(), |i, j| M[(i, j)] + sign * means[j])
        };
        Measured {
            value: less_mean(&self.value, -T::ONE),
            magnitude: less_mean(&self.magnitude, T::ONE),
            // The sum, the mean's division, and the difference.
            roundings: self.roundings + n + 2,
            largest: T::ZERO,
        }
    }

    /// `D X` for a diagonal `D`.
    fn rows_times(&self, d: &[T], inverse: bool) -> Self {
        let times = |M: &Mat<T>| {
            Mat::from_fn(M.nrows(), M.ncols(), |i, j| {
                if inverse {
                    M[(i, j)] / d[i]
                } else {
                    M[(i, j)] * d[i]
                }
            })
        };
        let sizes: Vec<T> = d.iter().map(|d| d.abs()).collect();
        let magnitude = Mat::from_fn(d.len(), self.value.ncols(), |i, j| {
            let m = self.magnitude[(i, j)];
            if inverse { m / sizes[i] } else { m * sizes[i] }
        });
        Measured {
            value: times(&self.value),
            magnitude,
            // Divided, or multiplied by the inverse: two at the most.
            roundings: self.roundings + 1 + usize::from(inverse),
            largest: T::ZERO,
        }
    }

    /// `S X` for a selection with ones at these places.
    fn rows_selected(&self, rows: usize, ones: &[(usize, usize)]) -> Self {
        let select = |M: &Mat<T>| {
            let mut out = Mat::zeros(rows, M.ncols());
            for &(i, j) in ones {
                for c in 0..M.ncols() {
                    out[(i, c)] += M[(j, c)];
                }
            }
            out
        };
        let mut added = vec![0; rows];
        ones.iter().for_each(|&(i, _)| added[i] += 1);
        let most: usize = added.into_iter().max().unwrap_or(0);
        Measured {
            value: select(&self.value),
            magnitude: select(&self.magnitude),
            roundings: self.roundings + most.saturating_sub(1),
            largest: T::ZERO,
        }
    }

    fn add(&mut self, x: &Rational, term: &Self) {
        let c: T = coefficient(x);
        let size = c.abs() * term.value.norm_max();
        if size > self.largest {
            self.largest = size;
        }
        let (rows, cols) = (self.value.nrows(), self.value.ncols());
        for at in (0..cols).flat_map(|j| (0..rows).map(move |i| (i, j))) {
            self.value[at] += c * term.value[at];
            self.magnitude[at] += c.abs() * term.magnitude[at];
        }
        let unit = *x.numer() == 1 || *x.numer() == -1;
        // A coefficient is rounded, and multiplied with.
        let scaled = if unit && *x.denom() == 1 { 0 } else { 4 };
        self.roundings = self.roundings.max(term.roundings + scaled);
    }
}

/// A factor on its way into a product: those that are cheap to multiply with are kept as what they are.
enum Item<'a, T: Scalar> {
    Dense(Measured<T>),
    /// Large, often, and perhaps only a few of its rows are needed.
    View(MatRef<'a, T>),
    Cheap(Matrix<'a, T>, bool),
}

/// What is looked at of a matrix that is too large to be compared entry by entry.
pub(super) enum Probe<T> {
    /// Some of its columns, of so many.
    Columns(Vec<usize>, usize),
    /// Its product with this matrix.
    Sums(Mat<T>),
}

impl<T: Scalar> Probe<T> {
    fn ncols(&self) -> usize {
        match self {
            Probe::Columns(chosen, _) => chosen.len(),
            Probe::Sums(signs) => signs.ncols(),
        }
    }

    fn item(&self) -> Item<'static, T> {
        match self {
            Probe::Columns(chosen, cols) => {
                let selection = Matrix::Selection {
                    rows: *cols,
                    cols: chosen.len(),
                    ones: chosen.iter().enumerate().map(|(n, &j)| (j, n)).collect(),
                };
                Item::Cheap(selection, false)
            }
            Probe::Sums(signs) => Item::Dense(Measured::exact(signs.clone())),
        }
    }
}

/// Measures expressions on a source.
pub(super) struct Measuring<'a, T: Scalar> {
    source: Source<'a, T>,
    dims: Dims,
    /// The values of the run that are taken for what they are; the others are what they are made of, as the run
    /// has them, with the error of their making.
    given: Option<BTreeSet<Symbol>>,
    known: HashMap<Symbol, Measured<T>>,
}

impl<'a, T: Scalar> Measuring<'a, T> {
    /// `replaced`: the values of the run that a proof replaced by what they are made of. Every other one is
    /// exact by definition. Without a proof only those are that nothing defines.
    pub fn new(source: Source<'a, T>, replaced: Option<BTreeSet<Symbol>>) -> Self {
        Measuring {
            dims: source.dims(),
            source,
            given: replaced,
            known: HashMap::new(),
        }
    }

    /// The expression's value, or what the probe sees of it.
    pub fn expression(&mut self, expr: &Expr, probe: Option<&Probe<T>>) -> Result<Measured<T>> {
        let rows = expr.rows().size(&self.dims);
        let cols = probe.map_or(expr.cols().size(&self.dims), Probe::ncols);
        let mut sum = Measured::exact(Mat::zeros(rows, cols));
        for (product, x) in expr.terms() {
            let term = self.product(product, rows, probe)?;
            sum.add(x, &term);
        }
        // In whatever order the terms are added.
        sum.roundings += expr.terms().len().saturating_sub(1);
        Ok(sum)
    }

    fn product(
        &mut self,
        product: &Product,
        rows: usize,
        probe: Option<&Probe<T>>,
    ) -> Result<Measured<T>> {
        let mut items = Vec::new();
        for factor in product {
            let symbol = &factor.symbol;
            let defined = match &self.given {
                Some(replaced) => replaced.contains(symbol),
                None => true,
            };
            let turned = symbol.is_turned();
            let dense = symbol.origin() == Origin::Run
                && defined
                && (turned || definition(symbol, &self.dims).is_some());
            items.push(if let Symbol::R(head, n) = *symbol {
                let turned = Measured::rotation(&self.source.rotation(head.layer), n);
                Item::Dense(if factor.transposed {
                    turned.t()
                } else {
                    turned
                })
            } else if dense {
                let value = self.made(symbol)?;
                Item::Dense(if factor.transposed { value.t() } else { value })
            } else {
                // The inverse is divided by, rather than made.
                let plain = crate::expr::Factor {
                    inverse: false,
                    ..factor.clone()
                };
                match self.source.matrix(&plain)? {
                    Matrix::View(M) => Item::View(M),
                    Matrix::Owned(M) => Item::Dense(Measured::exact(M)),
                    cheap => Item::Cheap(cheap, factor.inverse),
                }
            });
        }
        if let Some(probe) = probe {
            items.push(probe.item());
        }
        // From the end that is narrower, which for a selection is next to nothing.
        let width = |item: &Item<'_, T>, cols: bool| match item {
            Item::Dense(m) if cols => m.value.ncols(),
            Item::Dense(m) => m.value.nrows(),
            Item::View(M) if cols => M.ncols(),
            Item::View(M) => M.nrows(),
            Item::Cheap(Matrix::Selection { rows, cols: n, .. }, _) => {
                if cols {
                    *n
                } else {
                    *rows
                }
            }
            Item::Cheap(..) => usize::MAX,
        };
        let from_right = match (items.first(), items.last()) {
            (Some(first), Some(last)) => width(last, true) < width(first, false),
            _ => {
                let identity =
                    Mat::from_fn(rows, rows, |i, j| if i == j { T::ONE } else { T::ZERO });
                return Ok(Measured::exact(identity));
            }
        };
        let joined = if from_right {
            items
                .into_iter()
                .rev()
                .reduce(|right, left| join(left, right))
        } else {
            items.into_iter().reduce(join)
        };
        Ok(dense(joined.expect("one factor at least")))
    }

    /// A value of the run, with the error of its making: what the run has is as good as any other order's.
    fn made(&mut self, symbol: &Symbol) -> Result<Measured<T>> {
        if let Some(known) = self.known.get(symbol) {
            return Ok(known.clone());
        }
        let mut measured = match symbol.unturned(&self.dims) {
            // Row by row, rather than as a sum of one term a row.
            Some(straight) => {
                let straight = self.expression(&Expr::from(straight), None)?;
                let layer = symbol
                    .hook()
                    .and_then(Hook::layer)
                    .expect("queries or keys");
                straight.rows_turned(&self.source.rotation(layer))
            }
            None => {
                let expr = definition(symbol, &self.dims).expect("asked for one that has one");
                self.expression(&expr, None)?
            }
        };
        let plain = crate::expr::Factor::of(symbol.clone());
        // A run that did not keep the value has none to take its place.
        if let Ok(value) = self.source.matrix(&plain) {
            measured.value = value.to_dense();
        }
        self.known.insert(symbol.clone(), measured.clone());
        Ok(measured)
    }
}

fn dense<T: Scalar>(item: Item<'_, T>) -> Measured<T> {
    match item {
        Item::Dense(m) => m,
        Item::View(M) => Measured::exact(M.to_owned()),
        Item::Cheap(Matrix::Centring(n), _) => {
            let identity = Mat::from_fn(n, n, |i, j| if i == j { T::ONE } else { T::ZERO });
            Measured::exact(identity).centred()
        }
        Item::Cheap(matrix, inverse) => {
            let mut M = matrix.to_dense();
            if inverse {
                (0..M.nrows()).for_each(|i| M[(i, i)] = T::ONE / M[(i, i)]);
            }
            let mut measured = Measured::exact(M);
            measured.roundings += usize::from(inverse);
            measured
        }
    }
}

/// Whether a selection has exactly one 1 in each row, in order.
fn picks(rows: usize, ones: &[(usize, usize)]) -> bool {
    ones.len() == rows && ones.iter().enumerate().all(|(n, one)| one.0 == n)
}

fn viewed<T: Scalar>(item: Item<'_, T>) -> Item<'_, T> {
    match item {
        Item::View(_) => Item::Dense(dense(item)),
        other => other,
    }
}

fn join<'a, T: Scalar>(left: Item<'a, T>, right: Item<'a, T>) -> Item<'a, T> {
    let act = |matrix: &Matrix<'a, T>, inverse: bool, x: &Measured<T>| match matrix {
        Matrix::Diagonal(d) => x.rows_times(d, inverse),
        Matrix::Centring(_) => x.centred(),
        Matrix::Selection { rows, ones, .. } => x.rows_selected(*rows, ones),
        Matrix::View(_) | Matrix::Owned(_) => unreachable!("these are no cheap ones"),
    };
    let (left, right) = match (left, right) {
        // Of a large matrix only what is selected.
        (Item::Cheap(Matrix::Selection { rows, ones, .. }, _), Item::View(M))
            if picks(rows, &ones) =>
        {
            let picked = Mat::from_fn(rows, M.ncols(), |i, j| M[(ones[i].1, j)]);
            return Item::Dense(Measured::exact(picked));
        }
        (Item::View(M), Item::Cheap(Matrix::Selection { cols, ones, .. }, _))
            if ones.len() == cols && ones.iter().enumerate().all(|(n, one)| one.1 == n) =>
        {
            let picked = Mat::from_fn(M.nrows(), cols, |i, j| M[(i, ones[j].0)]);
            return Item::Dense(Measured::exact(picked));
        }
        (left, right) => (viewed(left), viewed(right)),
    };
    Item::Dense(match (left, right) {
        (Item::Dense(a), Item::Dense(b)) => a.times(&b),
        (Item::Cheap(m, inverse), Item::Dense(x)) => act(&m, inverse, &x),
        // `X M = (Mᵀ Xᵀ)ᵀ`
        (Item::Dense(x), Item::Cheap(m, inverse)) => act(&m.t(), inverse, &x.t()).t(),
        (Item::Cheap(m, inverse), right) => act(&m, inverse, &dense(right)),
        (Item::View(_), _) | (_, Item::View(_)) => unreachable!("made dense just before"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Neighbours of a head of five, of which one entry is not turned.
    fn rotation() -> Rotation {
        Rotation::new(5, vec![(0, 1), (2, 3)], vec![1.0, 0.01])
    }

    /// Products of rotations, computed in f32, are the rotation by the sum within the bounds, and f64's rotation by
    /// another distance is not.
    #[test]
    fn bounds_of_rotations_hold_and_tell() {
        fn check<T: Scalar>() {
            let of = |n| Measured::<T>::rotation(&rotation(), n);
            let outside = |a: &Measured<T>, b: &Measured<T>| {
                let places = (0..5).flat_map(|i| (0..5).map(move |j| (i, j)));
                let apart = |&(i, j): &(usize, usize)| {
                    (a.value[(i, j)] - b.value[(i, j)]).abs() > a.error(i, j) + b.error(i, j)
                };
                places.filter(apart).count()
            };
            for (i, j) in [(2, 3), (500, -37), (12, -12), (0, 4)] {
                let product = of(i).times(&of(j));
                assert_eq!(outside(&product, &of(i + j)), 0, "{i} {j}");
                assert!(outside(&product, &of(i + j + 1)) >= 8, "{i} {j}");
            }
            assert_eq!(of(0).roundings, 0);
        }
        check::<f32>();
        check::<f64>();
    }

    #[test]
    fn rows_are_turned_by_their_numbers() {
        let x = Measured::exact(Mat::<f64>::from_fn(4, 5, |i, j| (i + 2 * j) as f64 - 3.0));
        let turned = x.rows_turned(&rotation());
        for i in 0..4 {
            let by_hand = x.value.subrows(i, 1) * rotation().matrix::<f64>(i as i64);
            for j in 0..5 {
                assert!((turned.value[(i, j)] - by_hand[(0, j)]).abs() <= turned.error(i, j));
                assert!(turned.error(i, j) < 1000.0 * f64::EPSILON);
            }
        }
    }
}
