//! What a product costs, from the sizes of its two sides and what they are.

use crate::expr::{Dims, Factor, Symbol};

/// What a matrix is, as far as multiplying by it is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Dense,
    /// One number a row.
    Diagonal,
    /// Subtracts a mean.
    Centring,
    /// Picks or places rows, and computes nothing.
    Selection,
}

/// A matrix's kind and shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Side {
    pub kind: Kind,
    pub rows: usize,
    pub cols: usize,
}

/// Operations, and numbers read and written.
///
/// ```
/// use pathsum::plan::Cost;
/// let cost = Cost { flops: 4096, entries: 768 } + Cost { flops: 1, entries: 1 };
/// assert_eq!(cost, Cost { flops: 4097, entries: 769 });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Cost {
    /// Additions and multiplications.
    pub flops: u64,
    /// Matrix entries read and written.
    pub entries: u64,
}

/// How many operations take as long as moving one entry to or from memory: a core of today does some ten
/// operations a byte. Without it a product with a vector would look as cheap as it is short.
const FLOPS_PER_ENTRY: u64 = 48;

impl Cost {
    /// What plans are compared by: operations, and what moving the entries takes, in operations.
    pub fn work(self) -> u64 {
        self.flops
            .saturating_add(self.entries.saturating_mul(FLOPS_PER_ENTRY))
    }
}

impl std::ops::Add for Cost {
    type Output = Cost;
    fn add(self, other: Cost) -> Cost {
        Cost {
            flops: self.flops.saturating_add(other.flops),
            entries: self.entries.saturating_add(other.entries),
        }
    }
}

impl std::iter::Sum for Cost {
    fn sum<I: Iterator<Item = Cost>>(iter: I) -> Cost {
        iter.fold(Cost::default(), |a, b| a + b)
    }
}

/// The product of sizes, as far as 64 bits go.
pub(super) fn size(sizes: &[usize]) -> u64 {
    sizes.iter().fold(1, |n, &m| n.saturating_mul(m as u64))
}

impl Side {
    pub fn dense(rows: usize, cols: usize) -> Self {
        Side {
            kind: Kind::Dense,
            rows,
            cols,
        }
    }

    pub fn of(factor: &Factor, dims: &Dims) -> Self {
        let (rows, cols) = factor.spaces();
        let kind = match factor.symbol {
            Symbol::C => Kind::Centring,
            ref s if s.diagonal() => Kind::Diagonal,
            Symbol::Unit(..) | Symbol::Inject { .. } | Symbol::Tokens => Kind::Selection,
            _ => Kind::Dense,
        };
        Side {
            kind,
            rows: rows.size(dims),
            cols: cols.size(dims),
        }
    }

    /// How many numbers it is.
    pub fn entries(self) -> u64 {
        match self.kind {
            Kind::Dense => size(&[self.rows, self.cols]),
            Kind::Diagonal => self.rows as u64,
            Kind::Centring => 0,
            Kind::Selection => self.rows.min(self.cols) as u64,
        }
    }

    /// The cost of the product, whose result is dense.
    pub fn times(self, right: Side) -> Cost {
        let (m, k, n) = (self.rows, self.cols, right.cols);
        let result = size(&[m, n]);
        let flops = match (self.kind, right.kind) {
            (Kind::Dense, Kind::Dense) => size(&[2, m, k, n]),
            (Kind::Selection, _) | (_, Kind::Selection) => 0,
            (Kind::Centring, _) | (_, Kind::Centring) => 2 * result,
            (Kind::Diagonal, _) | (_, Kind::Diagonal) => result,
        };
        // What is picked is read; what is not is left alone.
        let read = |side: Side| match (self.kind, right.kind) {
            (Kind::Selection, _) | (_, Kind::Selection) => side.entries().min(result),
            _ => side.entries(),
        };
        Cost {
            flops,
            entries: read(self) + read(right) + result,
        }
    }
}
