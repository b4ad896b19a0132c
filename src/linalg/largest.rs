//! The largest entries of a whole product, most of which is never computed.
//!
//! Rows and columns stand in descending order of their norms, and the product is cut into tiles. An entry is at most the
//! product of two norms: the tiles come in the order of what their entries can be, until none of those that are left can be
//! among the largest.

use super::rounding::gamma;
use super::scale::exponent;
use super::{Par, product_into};
use crate::error::{Error, Result};
use crate::tensor::Scalar;
use faer::{Mat, MatMut, MatRef};
use rayon::prelude::*;
use std::cmp::Ordering;

/// An entry of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Entry<T> {
    /// Its row.
    pub row: usize,
    /// Its column.
    pub column: usize,
    /// What it is.
    pub value: T,
}

impl<T: Scalar> Entry<T> {
    /// The larger first; of equal ones the one further up, then further left.
    fn before(&self, other: &Self) -> Ordering {
        let by_value = other.value.partial_cmp(&self.value);
        let by_value = by_value.expect("factors are finite");
        by_value.then((self.row, self.column).cmp(&(other.row, other.column)))
    }
}

/// The rows of a tile.
const ROWS: usize = 256;

/// The columns of a tile, which stays in the second cache.
const COLUMNS: usize = 512;

/// So many tiles are computed before what they have found is looked at.
const AT_ONCE: usize = 32;

/// The `k` largest entries of `A B`, the largest first; of equal ones the one further up, then further left. Where `k` is more
/// than there are, all of them.
///
/// # Shapes
/// `A: [m, r]`, `B: [r, n]`
///
/// # Errors
/// When the factors hold a NaN or an infinity, or are so large that an entry could overflow.
///
/// # Panics
/// When the inner dimensions differ.
///
/// # Cost
/// At most `2 m r n` operations, far fewer where the norms of rows and columns differ; memory for a copy of both factors.
#[track_caller]
pub fn largest_of_product<T: Scalar>(
    A: MatRef<'_, T>,
    B: MatRef<'_, T>,
    k: usize,
    par: Par,
) -> Result<Vec<Entry<T>>> {
    let (m, r, n) = (A.nrows(), A.ncols(), B.ncols());
    assert!(r == B.nrows(), "[{m}, {r}] [{}, {n}]", B.nrows());
    let (Some(a), Some(b)) = (exponent(A), exponent(B)) else {
        return Err(Error::Numeric(
            "the largest entries of a matrix with a NaN or an infinity".into(),
        ));
    };
    // As for the sums of `top_k_of_product`; and squares of norms are to be in range too.
    let size = |e: i32| 2.0 * (e + 1) as f64 + (r.max(1) as f64).log2();
    if size(a).max(size(b)) > -T::MIN_POSITIVE.to_f64().log2() {
        return Err(Error::Numeric(
            "the largest entries of a product whose entries can overflow".into(),
        ));
    }
    if k == 0 || m == 0 || n == 0 {
        return Ok(Vec::new());
    }
    let rows = by_norm(m, r, |i, l| A[(i, l)]);
    let columns = by_norm(n, r, |j, l| B[(l, j)]);
    let A = Mat::from_fn(m, r, |i, l| A[(rows[i].0, l)]);
    let B = Mat::from_fn(r, n, |l, j| B[(l, columns[j].0)]);
    let tiles = (0..m).step_by(ROWS);
    let tiles = tiles.flat_map(|i| (0..n).step_by(COLUMNS).map(move |j| (i, j)));
    // An entry of a tile as it is computed is at most so large.
    let mut tiles: Vec<(T, usize, usize)> = tiles
        .map(|(i, j)| (rows[i].1 * columns[j].1, i, j))
        .collect();
    tiles.sort_by(|a, b| b.0.partial_cmp(&a.0).expect("factors are finite"));
    let mut best: Vec<Entry<T>> = Vec::new();
    for tiles in tiles.chunks(AT_ONCE) {
        let least = match best.get(k - 1) {
            Some(last) => last.value,
            None => -T::INFINITY,
        };
        let left = &tiles[..tiles.partition_point(|tile| tile.0 >= least)];
        let tile = |&(_, i, j): &(T, usize, usize)| {
            let A = A.subrows(i, ROWS.min(m - i));
            let B = B.subcols(j, COLUMNS.min(n - j));
            let mut found = entries_from(A, B, least);
            for entry in &mut found {
                entry.row = rows[i + entry.row].0;
                entry.column = columns[j + entry.column].0;
            }
            keep(&mut found, k);
            found
        };
        let found: Vec<Vec<Entry<T>>> = match par {
            Par::Seq => left.iter().map(tile).collect(),
            Par::Rayon => left.par_iter().with_max_len(1).map(tile).collect(),
        };
        best.extend(found.into_iter().flatten());
        keep(&mut best, k);
        if left.len() < tiles.len() {
            break;
        }
    }
    Ok(best)
}

/// The entries of a product that are at least so large.
fn entries_from<T: Scalar>(A: MatRef<'_, T>, B: MatRef<'_, T>, least: T) -> Vec<Entry<T>> {
    let (m, n) = (A.nrows(), B.ncols());
    let mut product = vec![T::ZERO; m * n];
    product_into(
        MatMut::from_row_major_slice_mut(&mut product, m, n),
        T::ONE,
        A,
        B,
    );
    let mut found = Vec::new();
    for (row, values) in product.chunks_exact(n).enumerate() {
        // Most rows have none, and this much of a pass is vectors.
        if values
            .iter()
            .fold(-T::INFINITY, |m, &x| if x > m { x } else { m })
            < least
        {
            continue;
        }
        let own = values.iter().enumerate().filter(|&(_, &x)| x >= least);
        found.extend(own.map(|(column, &value)| Entry { row, column, value }));
    }
    found
}

fn keep<T: Scalar>(entries: &mut Vec<Entry<T>>, k: usize) {
    if entries.len() > k {
        entries.select_nth_unstable_by(k, Entry::before);
        entries.truncate(k);
    }
    entries.sort_unstable_by(Entry::before);
}

/// Vectors by their norms, the longest first. A norm is rounded up so far that the product of two is at least what their
/// product is computed as.
fn by_norm<T: Scalar>(n: usize, r: usize, x: impl Fn(usize, usize) -> T) -> Vec<(usize, T)> {
    let up = T::ONE + gamma::<T>(2 * r + 8);
    let norm = |i: usize| (0..r).map(|l| x(i, l) * x(i, l)).sum::<T>().sqrt();
    let mut all: Vec<(usize, T)> = (0..n)
        // Squares that underflow are each less than the smallest normal number.
        .map(|i| {
            (
                i,
                norm(i) * up + (T::from_f64(r as f64) * T::MIN_POSITIVE).sqrt(),
            )
        })
        .collect();
    all.sort_by(|a, b| b.1.partial_cmp(&a.1).expect("factors are finite"));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};

    /// Integers, whose products are exact and often equal; rows and columns of all sizes.
    #[test]
    fn they_are_those_of_the_whole_product() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for (m, r, n) in [
            (1, 1, 1),
            (7, 3, 5),
            (300, 2, 700),
            (600, 4, 1100),
            (3, 0, 4),
        ] {
            let mut entries = |rows: usize, cols: usize| {
                Mat::from_fn(rows, cols, |_, _| f64::from(rng.random_range(-6..=6)))
            };
            let (mut A, mut B) = (entries(m, r), entries(r, n));
            for i in 0..m {
                (0..r).for_each(|l| A[(i, l)] *= (i % 9) as f64);
            }
            for j in 0..n {
                (0..r).for_each(|l| B[(l, j)] *= (j % 7) as f64);
            }
            let all = &A * &B;
            let mut expected: Vec<Entry<f64>> = (0..m * n)
                .map(|at| (at / n, at % n))
                .map(|(row, column)| Entry {
                    row,
                    column,
                    value: all[(row, column)],
                })
                .collect();
            expected.sort_by(Entry::before);
            for k in [0, 1, 5, 40, m * n + 1] {
                for par in [Par::Seq, Par::Rayon] {
                    let found = largest_of_product(A.as_ref(), B.as_ref(), k, par).unwrap();
                    assert_eq!(found, expected[..k.min(m * n)], "{m} {r} {n}: {k}");
                }
            }
        }
    }

    #[test]
    fn what_has_no_order_is_refused() {
        let one = Mat::<f64>::identity(2, 2);
        for x in [f64::NAN, f64::INFINITY, 1e200] {
            let A = Mat::from_fn(2, 2, |_, _| x);
            assert!(largest_of_product(A.as_ref(), one.as_ref(), 1, Par::Seq).is_err());
        }
    }
}
