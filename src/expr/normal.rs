//! Expressions in normal form: sums of products over a noncommutative algebra, transposes at the leaves.
//!
//! An [`Expr`] is made by constructors that simplify as they build, with the rules of [`super::Rule`]; so two
//! expressions that the rules can show to be equal *are* equal, and `==` is a proof.

use super::rules::{self, Rule};
use super::space::{Dims, Space};
use super::symbol::Symbol;
use num_rational::Ratio;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Add, Mul, Neg, Sub};

/// An exact coefficient.
pub type Rational = Ratio<i128>;

/// A symbol as it stands in a product: itself, transposed, or inverted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Factor {
    /// The matrix.
    pub symbol: Symbol,
    /// Whether it is transposed. Never set for a symmetric one, and of a rotation only until it is simplified.
    pub transposed: bool,
    /// Whether it is inverted. Only `scale` can be.
    pub inverse: bool,
}

impl Factor {
    /// The symbol itself.
    pub fn of(symbol: Symbol) -> Self {
        Factor {
            symbol,
            transposed: false,
            inverse: false,
        }
    }

    /// Its transpose.
    pub fn t(self) -> Self {
        let transposed = !self.transposed && !self.symbol.symmetric();
        Factor { transposed, ..self }
    }

    /// What the rows and the columns are indexed by.
    pub fn spaces(&self) -> (Space, Space) {
        let (rows, cols) = self.symbol.spaces();
        if self.transposed {
            (cols, rows)
        } else {
            (rows, cols)
        }
    }
}

/// Factors that meet, from left to right. None at all is the identity.
pub type Product = Vec<Factor>;

/// A matrix expression in normal form, with the spaces of its rows and columns.
///
/// ```
/// use pathsum::expr::{W_E, W_OV, W_U};
/// use pathsum::Head;
/// let head = Head { layer: 0, head: 1 };
/// let circuit = W_E() * W_OV(head) * W_U();
/// assert_eq!(circuit.to_string(), "W_E W_OV[0.1] W_U");
/// assert_eq!(circuit.t().t(), circuit);
/// ```
///
/// Two expressions are equal where their spaces and terms are, whatever rules were used on the way.
#[derive(Clone, Debug)]
pub struct Expr {
    rows: Space,
    cols: Space,
    terms: BTreeMap<Product, Rational>,
    rules: BTreeSet<Rule>,
}

impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        (&self.rows, &self.cols, &self.terms) == (&other.rows, &other.cols, &other.terms)
    }
}

impl Eq for Expr {}

/// Why two expressions have no product or sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The left one's columns are not the right one's rows.
    Product {
        /// The left one's columns.
        left: Space,
        /// The right one's rows.
        right: Space,
    },
    /// The shapes of two terms.
    Sum {
        /// The first one's rows and columns.
        left: (Space, Space),
        /// The second one's.
        right: (Space, Space),
    },
    /// A coefficient that no longer fits.
    Coefficient,
    /// More terms than can be kept.
    Terms,
}

/// The most terms of an expression: multiplied out, sums of sums grow without end.
const MAX_TERMS: usize = 1 << 16;

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Mismatch::Product { left, right } => {
                write!(
                    f,
                    "the columns on the left are {left}, the rows on the right {right}"
                )
            }
            Mismatch::Sum { left, right } => write!(
                f,
                "[{}, {}] and [{}, {}] cannot be added",
                left.0, left.1, right.0, right.1
            ),
            Mismatch::Terms => write!(f, "multiplied out, this has more than {MAX_TERMS} terms"),
            Mismatch::Coefficient => write!(f, "a coefficient is too large to be kept exactly"),
        }
    }
}

impl Expr {
    /// What the rows are indexed by.
    pub fn rows(&self) -> &Space {
        &self.rows
    }

    /// What the columns are indexed by.
    pub fn cols(&self) -> &Space {
        &self.cols
    }

    /// The products and their coefficients, none of which is zero.
    pub fn terms(&self) -> impl ExactSizeIterator<Item = (&Product, &Rational)> {
        self.terms.iter()
    }

    /// The rules that were used to bring it to its normal form.
    pub fn rules(&self) -> &BTreeSet<Rule> {
        &self.rules
    }

    /// Whether this is zero by the rules.
    pub fn is_zero(&self) -> bool {
        self.terms.is_empty()
    }

    /// The symbols that occur.
    pub fn symbols(&self) -> BTreeSet<&Symbol> {
        let factors = self.terms.keys().flatten();
        factors.map(|factor| &factor.symbol).collect()
    }

    /// Zero.
    pub fn zero(rows: Space, cols: Space) -> Self {
        Expr {
            rows,
            cols,
            terms: BTreeMap::new(),
            rules: BTreeSet::new(),
        }
    }

    /// The identity.
    pub fn identity(space: Space) -> Self {
        if let Space::Stack(parts) = &space {
            // The parts' own identities, each in its place: so that a stack has one normal form.
            let mut sum = Expr::zero(space.clone(), space.clone());
            for part in 0..parts.len() {
                let J = Expr::from(Symbol::Inject {
                    stack: parts.clone(),
                    part,
                });
                sum = sum + &J * J.t();
            }
            return sum;
        }
        let terms = BTreeMap::from([(Vec::new(), Rational::from_integer(1))]);
        Expr {
            rows: space.clone(),
            cols: space,
            terms,
            rules: BTreeSet::new(),
        }
    }

    /// A column of ones.
    pub fn ones(space: Space) -> Self {
        match &space {
            Space::One => Expr::identity(space),
            Space::Stack(parts) => {
                let columns: Vec<Expr> = parts.iter().map(|s| Expr::ones(s.clone())).collect();
                stack(&columns)
            }
            _ => Expr::from(Symbol::Ones(space)),
        }
    }

    /// The column that is 1 at an index and 0 elsewhere; a negative index counts from the end.
    ///
    /// # Panics
    /// For the space of a stack: select from its parts.
    #[track_caller]
    pub fn unit(space: Space, index: i64) -> Self {
        match space {
            Space::One => Expr::identity(space),
            Space::Stack(_) => panic!("select from the parts of a stack, before they are stacked"),
            _ => Expr::from(Symbol::Unit(space, index)),
        }
    }

    /// One product with a coefficient, simplified.
    fn term(rows: Space, cols: Space, product: Product, coefficient: Rational) -> Self {
        let mut expr = Expr::zero(rows, cols);
        if let Some(product) = expr.simplified(product) {
            expr.terms.insert(product, coefficient);
        }
        expr
    }

    /// A single factor.
    pub(crate) fn factor(factor: Factor) -> Self {
        let (rows, cols) = factor.spaces();
        Expr::term(rows, cols, vec![factor], Rational::from_integer(1))
    }

    /// The product in normal form, where it is not zero; the rules used are noted.
    fn simplified(&mut self, product: Product) -> Option<Product> {
        let rules = &mut self.rules;
        rules::simplify(product, &self.rows, &mut |rule| {
            rules.insert(rule);
        })
    }

    /// The product, where the spaces meet.
    ///
    /// # Errors
    /// Where they do not.
    pub fn try_mul(&self, other: &Expr) -> Result<Expr, Mismatch> {
        if self.cols != other.rows {
            return Err(Mismatch::Product {
                left: self.cols.clone(),
                right: other.rows.clone(),
            });
        }
        let mut sum = Expr::zero(self.rows.clone(), other.cols.clone());
        sum.rules = self.rules.union(&other.rules).copied().collect();
        for (a, x) in &self.terms {
            for (b, y) in &other.terms {
                let product = a.iter().chain(b).cloned().collect();
                let coefficient = checked(x, y, num_traits::CheckedMul::checked_mul)?;
                if let Some(product) = sum.simplified(product) {
                    sum.accumulate(product, coefficient)?;
                }
            }
        }
        Ok(sum)
    }

    /// The sum, where the spaces are the same.
    ///
    /// # Errors
    /// Where they are not.
    pub fn try_add(&self, other: &Expr) -> Result<Expr, Mismatch> {
        if (&self.rows, &self.cols) != (&other.rows, &other.cols) {
            return Err(Mismatch::Sum {
                left: (self.rows.clone(), self.cols.clone()),
                right: (other.rows.clone(), other.cols.clone()),
            });
        }
        let mut sum = self.clone();
        sum.rules.extend(&other.rules);
        for (product, coefficient) in &other.terms {
            sum.accumulate(product.clone(), *coefficient)?;
        }
        Ok(sum)
    }

    fn accumulate(&mut self, product: Product, coefficient: Rational) -> Result<(), Mismatch> {
        use std::collections::btree_map::Entry;
        match self.terms.entry(product) {
            Entry::Vacant(entry) => {
                entry.insert(coefficient);
                if self.terms.len() > MAX_TERMS {
                    return Err(Mismatch::Terms);
                }
            }
            Entry::Occupied(mut entry) => {
                let sum = checked(entry.get(), &coefficient, |x, y| {
                    num_traits::CheckedAdd::checked_add(x, y)
                })?;
                if sum == Rational::from_integer(0) {
                    entry.remove();
                } else {
                    entry.insert(sum);
                }
            }
        }
        Ok(())
    }

    /// The product with a number.
    ///
    /// # Errors
    /// When a coefficient no longer fits.
    pub fn try_scale(&self, factor: Rational) -> Result<Expr, Mismatch> {
        let mut scaled = Expr::zero(self.rows.clone(), self.cols.clone());
        scaled.rules = self.rules.clone();
        if factor == Rational::from_integer(0) {
            return Ok(scaled);
        }
        for (product, x) in &self.terms {
            let x = checked(x, &factor, num_traits::CheckedMul::checked_mul)?;
            scaled.terms.insert(product.clone(), x);
        }
        Ok(scaled)
    }

    /// The product with a number.
    ///
    /// # Panics
    /// When a coefficient no longer fits.
    #[track_caller]
    pub fn scale(&self, factor: Rational) -> Expr {
        self.try_scale(factor).unwrap_or_else(|e| panic!("{e}"))
    }

    /// The transpose.
    pub fn t(&self) -> Expr {
        let mut transposed = Expr::zero(self.cols.clone(), self.rows.clone());
        transposed.rules = self.rules.clone();
        for (product, coefficient) in &self.terms {
            let product = product.iter().rev().map(|f| f.clone().t()).collect();
            if let Some(product) = transposed.simplified(product) {
                transposed.terms.insert(product, *coefficient);
            }
        }
        transposed
    }

    /// The inverse, for a single `scale`.
    pub(super) fn inverse(&self) -> Option<Expr> {
        let mut terms = self.terms.iter();
        let (Some((product, coefficient)), None) = (terms.next(), terms.next()) else {
            return None;
        };
        let inverted = |f: &Factor| {
            f.symbol.is_scale().then(|| Factor {
                inverse: !f.inverse,
                ..f.clone()
            })
        };
        let product: Option<Product> = product.iter().rev().map(inverted).collect();
        let (rows, cols) = (self.cols.clone(), self.rows.clone());
        product.map(|product| Expr::term(rows, cols, product, coefficient.recip()))
    }

    /// Row `i`, `[one, cols]`; a negative index counts from the end.
    ///
    /// # Panics
    /// For a stack: select from its parts.
    #[track_caller]
    pub fn row(&self, i: i64) -> Expr {
        Expr::unit(self.rows.clone(), i).t() * self
    }

    /// Column `j`, `[rows, one]`; a negative index counts from the end.
    ///
    /// # Panics
    /// For a stack: select from its parts.
    #[track_caller]
    pub fn col(&self, j: i64) -> Expr {
        self * Expr::unit(self.cols.clone(), j)
    }

    /// The sum of expressions of one shape, of none at all zero.
    ///
    /// # Errors
    /// When it has too many terms, or a coefficient no longer fits.
    pub(super) fn try_sum(
        rows: Space,
        cols: Space,
        all: impl IntoIterator<Item = Expr>,
    ) -> Result<Expr, Mismatch> {
        let mut sum = Expr::zero(rows, cols);
        for expr in all {
            sum.rules.extend(&expr.rules);
            for (product, coefficient) in expr.terms {
                sum.accumulate(product, coefficient)?;
            }
        }
        Ok(sum)
    }

    /// The expression as a model of these sizes has it: keys and values that several heads share are one, by the
    /// name of the first of these heads. What is read for a model from text is so already.
    ///
    /// ```
    /// use pathsum::Head;
    /// use pathsum::expr::{Dims, W_K};
    /// let dims = Dims { n_heads: 4, groups: 2, ..Dims::default() };
    /// let W_K = |head| W_K(Head { layer: 0, head }).grouped(&dims);
    /// assert_eq!(W_K(2), W_K(3));
    /// assert_ne!(W_K(1), W_K(2));
    /// ```
    pub fn grouped(&self, dims: &Dims) -> Expr {
        if dims.groups == dims.n_heads {
            return self.clone();
        }
        let mut grouped = Expr::zero(self.rows.grouped(dims), self.cols.grouped(dims));
        grouped.rules = self.rules.clone();
        for (product, coefficient) in &self.terms {
            let of_group = |f: &Factor| Factor {
                symbol: f.symbol.clone().grouped(dims),
                ..*f
            };
            if let Some(product) = grouped.simplified(product.iter().map(of_group).collect()) {
                let added = grouped.accumulate(product, *coefficient);
                added.expect("no more terms than before, and sums of coefficients that fit");
            }
        }
        grouped
    }

    /// The expression with symbols replaced by what they are defined as.
    pub(super) fn substitute(
        &self,
        of: &dyn Fn(&Symbol) -> Option<Expr>,
    ) -> Result<Expr, Mismatch> {
        let mut sum = Expr::zero(self.rows.clone(), self.cols.clone());
        sum.rules = self.rules.clone();
        for (product, coefficient) in &self.terms {
            let mut value = Expr::identity(self.rows.clone()).try_scale(*coefficient)?;
            for factor in product {
                let defined = of(&factor.symbol).map(|e| if factor.transposed { e.t() } else { e });
                let next = defined.unwrap_or_else(|| Expr::factor(factor.clone()));
                value = value.try_mul(&next)?;
            }
            sum = sum.try_add(&value)?;
        }
        Ok(sum)
    }
}

fn checked(
    x: &Rational,
    y: &Rational,
    f: impl Fn(&Rational, &Rational) -> Option<Rational>,
) -> Result<Rational, Mismatch> {
    f(x, y).ok_or(Mismatch::Coefficient)
}

/// The expressions one below the other: `[A; B]`.
///
/// # Panics
/// When there is none, or their columns differ.
#[track_caller]
pub fn stack(parts: &[Expr]) -> Expr {
    try_stack(parts).unwrap_or_else(|e| panic!("{e}"))
}

pub(super) fn try_stack(parts: &[Expr]) -> Result<Expr, Mismatch> {
    let spaces: Vec<Space> = parts.iter().map(|e| e.rows.clone()).collect();
    let first = parts.first().expect("a stack has parts");
    let mut sum = Expr::zero(Space::Stack(spaces.clone()), first.cols.clone());
    for (part, expr) in parts.iter().enumerate() {
        let J = Expr::from(Symbol::Inject {
            stack: spaces.clone(),
            part,
        });
        sum = sum.try_add(&J.try_mul(expr)?)?;
    }
    Ok(sum)
}

impl From<Symbol> for Expr {
    fn from(symbol: Symbol) -> Self {
        Expr::factor(Factor::of(symbol))
    }
}

macro_rules! operators {
    ($($left:ty, $right:ty;)*) => {$(
        /// # Panics
        /// When the left one's columns are not the right one's rows.
        impl Mul<$right> for $left {
            type Output = Expr;
            #[track_caller]
            fn mul(self, other: $right) -> Expr {
                self.try_mul(&other).unwrap_or_else(|e| panic!("{e}"))
            }
        }
        /// # Panics
        /// When the rows or the columns differ.
        impl Add<$right> for $left {
            type Output = Expr;
            #[track_caller]
            fn add(self, other: $right) -> Expr {
                self.try_add(&other).unwrap_or_else(|e| panic!("{e}"))
            }
        }
        /// # Panics
        /// When the rows or the columns differ.
        impl Sub<$right> for $left {
            type Output = Expr;
            #[track_caller]
            fn sub(self, other: $right) -> Expr {
                self.try_add(&-other).unwrap_or_else(|e| panic!("{e}"))
            }
        }
    )*};
}
operators! {
    Expr, Expr;
    Expr, &Expr;
    &Expr, Expr;
    &Expr, &Expr;
}

impl Neg for &Expr {
    type Output = Expr;
    fn neg(self) -> Expr {
        self.scale(Rational::from_integer(-1))
    }
}

impl Neg for Expr {
    type Output = Expr;
    fn neg(self) -> Expr {
        -&self
    }
}

/// # Panics
/// When a coefficient no longer fits.
impl Mul<Expr> for i64 {
    type Output = Expr;
    #[track_caller]
    fn mul(self, expr: Expr) -> Expr {
        expr.scale(Rational::from_integer(self.into()))
    }
}

/// The sum of expressions of one shape.
///
/// # Panics
/// When there is none, or the shapes differ.
impl std::iter::Sum for Expr {
    #[track_caller]
    fn sum<I: Iterator<Item = Expr>>(iter: I) -> Expr {
        iter.reduce(|a, b| a + b)
            .expect("a sum of at least one expression")
    }
}
