//! The largest entries of every row of a product, selected while the product is computed.
//!
//! A tile of the product is eight rows by three vectors: it stays in registers, and is compared with the
//! rows' thresholds (each row's k-th largest entry so far) there. Only a row of which an entry is above its
//! threshold is stored and looked at, which becomes rare after the first columns. So nothing of the product
//! goes to memory, and selecting costs a few instructions a tile.

use super::Par;
use super::scale::exponent;
use crate::error::{Error, Result};
use crate::tensor::Scalar;
use faer::MatRef;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// The vectors of a tile, side by side.
const VECTORS: usize = 3;

/// The most values of a row of a tile: a vector has 16 at the most.
const WIDEST: usize = 16 * VECTORS;

/// The most rows that are worked on together; each pass over them reads the right factor once.
const MAX_ROWS: usize = 256;

/// The bytes of left factor that are worked on together: they stay in the second cache.
const LEFT_BYTES: usize = 1 << 19;

/// The `k` largest entries of every row, the largest first; of equal ones, the one further left.
#[derive(Clone, Debug, PartialEq)]
pub struct TopK<T> {
    /// The entries of each row.
    pub k: usize,
    /// Where they stand: `k` columns for each row.
    pub columns: Vec<usize>,
    /// What they are: `k` values for each row.
    pub values: Vec<T>,
}

impl<T: Scalar> TopK<T> {
    /// A row's columns and values, the largest value first.
    ///
    /// # Panics
    /// When there is no such row.
    #[track_caller]
    pub fn row(&self, i: usize) -> impl ExactSizeIterator<Item = (usize, T)> + '_ {
        let range = i * self.k..(i + 1) * self.k;
        let columns = self.columns[range.clone()].iter().copied();
        columns.zip(self.values[range].iter().copied())
    }
}

/// The `k` largest entries of every row of `A B`, without forming the product.
///
/// # Shapes
/// `A: [m, r]`, `B: [r, n]`; where `k` is more than `n`, all `n` entries of each row.
///
/// # Errors
/// When the factors hold a NaN or an infinity, or are so large that an entry could overflow.
///
/// # Panics
/// When the inner dimensions differ.
///
/// # Cost
/// `2 m r n` operations; memory for one copy of `B`.
#[track_caller]
pub fn top_k_of_product<T: Scalar>(
    A: MatRef<'_, T>,
    B: MatRef<'_, T>,
    k: usize,
    par: Par,
) -> Result<TopK<T>> {
    let (m, r, n) = (A.nrows(), A.ncols(), B.ncols());
    assert!(r == B.nrows(), "[{m}, {r}] [{}, {n}]", B.nrows());
    let (Some(a), Some(b)) = (exponent(A), exponent(B)) else {
        return Err(Error::Numeric(
            "the largest entries of a matrix with a NaN or an infinity".into(),
        ));
    };
    // Every sum on the way is below r 2^(a+1) 2^(b+1).
    let bound = (a + b + 2) as f64 + (r.max(1) as f64).log2();
    if bound > -T::MIN_POSITIVE.to_f64().log2() {
        return Err(Error::Numeric(
            "the largest entries of a product whose entries can overflow".into(),
        ));
    }
    let k = k.min(n);
    let mut columns = vec![0; m * k];
    let mut values = vec![-T::INFINITY; m * k];
    if k == 0 || m == 0 {
        return Ok(TopK { k, columns, values });
    }
    let B = Panels::new(B);
    let rows = (LEFT_BYTES / (r.max(1) * size_of::<T>()))
        .min(MAX_ROWS)
        .min(m.div_ceil(par.threads()))
        .next_multiple_of(8);
    let block = |(i, (columns, values)): (usize, (&mut [usize], &mut [T]))| {
        let first = i * rows;
        let best = RowTops { k, columns, values };
        let A = A.subrows(first, rows.min(m - first));
        Arch::new().dispatch(RowBlock { A, B: &B, best });
    };
    match par {
        Par::Seq => columns
            .chunks_mut(rows * k)
            .zip(values.chunks_mut(rows * k))
            .enumerate()
            .for_each(block),
        Par::Rayon => columns
            .par_chunks_mut(rows * k)
            .zip(values.par_chunks_mut(rows * k))
            .enumerate()
            .for_each(block),
    }
    Ok(TopK { k, columns, values })
}

/// The right factor, cut into panels as wide as a tile, each stored row by row and filled up with zeros.
struct Panels<T> {
    data: Vec<T>,
    /// Where the first panel begins, so that vectors do not straddle cache lines.
    start: usize,
    width: usize,
    r: usize,
    n: usize,
}

impl<T: Scalar> Panels<T> {
    fn new(B: MatRef<'_, T>) -> Self {
        const LINE: usize = 64;
        let (r, n) = (B.nrows(), B.ncols());
        let width = VECTORS * Arch::new().dispatch(Width(std::marker::PhantomData::<T>));
        let len = n.div_ceil(width) * width * r;
        let mut data = vec![T::ZERO; len + LINE / size_of::<T>()];
        let start = data.as_ptr().align_offset(LINE).min(LINE / size_of::<T>());
        for (p, panel) in data[start..start + len]
            .chunks_exact_mut((width * r).max(1))
            .enumerate()
        {
            let first = p * width;
            let columns = width.min(n - first);
            for (l, row) in panel.chunks_exact_mut(width).enumerate() {
                for (j, x) in row[..columns].iter_mut().enumerate() {
                    *x = B[(l, first + j)];
                }
            }
        }
        Panels {
            data,
            start,
            width,
            r,
            n,
        }
    }

    fn panels(&self) -> usize {
        self.n.div_ceil(self.width)
    }

    fn panel(&self, p: usize) -> &[T] {
        let len = self.width * self.r;
        &self.data[self.start + p * len..][..len]
    }
}

/// The number of values of a vector.
struct Width<T>(std::marker::PhantomData<T>);

impl<T: Scalar> WithSimd for Width<T> {
    type Output = usize;
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        size_of::<T::V<S>>() / size_of::<T>()
    }
}

/// The largest entries so far, for each of a few rows.
struct RowTops<'a, T> {
    k: usize,
    columns: &'a mut [usize],
    values: &'a mut [T],
}

impl<T: Scalar> RowTops<'_, T> {
    /// Takes those of `values`, which stand from column `first` on, that belong among a row's largest, and
    /// returns the row's threshold: what an entry must be above to belong among them.
    #[inline(never)]
    fn offer(&mut self, row: usize, first: usize, offered: &[T]) -> T {
        let range = row * self.k..(row + 1) * self.k;
        let (columns, values) = (&mut self.columns[range.clone()], &mut self.values[range]);
        let last = self.k - 1;
        for (j, &x) in offered.iter().enumerate() {
            if x > values[last] {
                // After its equals, which stand further left.
                let at = values.partition_point(|&y| y >= x);
                values.copy_within(at..last, at + 1);
                columns.copy_within(at..last, at + 1);
                (values[at], columns[at]) = (x, first + j);
            }
        }
        values[last]
    }
}

/// A few rows of the product.
struct RowBlock<'a, T> {
    A: MatRef<'a, T>,
    B: &'a Panels<T>,
    best: RowTops<'a, T>,
}

impl<T: Scalar> WithSimd for RowBlock<'_, T> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // The longest vectors come with 32 registers, the others with 16.
        if size_of::<T::V<S>>() >= 64 {
            self.run::<S, 8>(simd);
        } else {
            self.run::<S, 4>(simd);
        }
    }
}

impl<T: Scalar> RowBlock<'_, T> {
    #[inline(always)]
    fn run<S: Simd, const R: usize>(mut self, simd: S) {
        let (m, r) = (self.A.nrows(), self.A.ncols());
        let tiles = m.div_ceil(R);
        // Tile by tile, and in each the R entries of a column together, in the order of their use.
        let mut A = vec![[T::ZERO; R]; tiles * r];
        for i in 0..m {
            for l in 0..r {
                A[i / R * r + l][i % R] = self.A[(i, l)];
            }
        }
        let mut thresholds = vec![[T::INFINITY; R]; tiles];
        for i in 0..m {
            thresholds[i / R][i % R] = -T::INFINITY;
        }
        let mut row = [T::ZERO; WIDEST];
        let width = self.B.width;
        for p in 0..self.B.panels() {
            let first = p * width;
            // What fills the last panel up is not offered.
            let columns = width.min(self.B.n - first);
            let (panel, _) = T::split::<S>(self.B.panel(p));
            let (panel, _) = panel.as_chunks::<VECTORS>();
            for (t, thresholds) in thresholds.iter_mut().enumerate() {
                let sums = tile::<T, S, R>(simd, &A[t * r..(t + 1) * r], panel);
                let mut above = T::splat(simd, -T::INFINITY);
                for i in 0..R {
                    above = T::vmax(simd, above, excess::<T, S>(simd, &sums[i], thresholds[i]));
                }
                // The sign of a difference is exact.
                if T::reduce_max(simd, above) > T::ZERO {
                    for i in 0..R {
                        let above = excess::<T, S>(simd, &sums[i], thresholds[i]);
                        if T::reduce_max(simd, above) > T::ZERO {
                            let (vectors, _) = T::split_mut::<S>(&mut row);
                            vectors[..VECTORS].copy_from_slice(&sums[i]);
                            thresholds[i] = self.best.offer(t * R + i, first, &row[..columns]);
                        }
                    }
                }
            }
        }
    }
}

/// By how much the largest values of a row of a tile, lane by lane, are above its threshold.
#[inline(always)]
fn excess<T: Scalar, S: Simd>(simd: S, sums: &[T::V<S>; VECTORS], threshold: T) -> T::V<S> {
    let max = T::vmax(simd, T::vmax(simd, sums[0], sums[1]), sums[2]);
    T::vsub(simd, max, T::splat(simd, threshold))
}

/// `R` rows of the product by the vectors of a panel.
#[inline(always)]
fn tile<T: Scalar, S: Simd, const R: usize>(
    simd: S,
    A: &[[T; R]],
    panel: &[[T::V<S>; VECTORS]],
) -> [[T::V<S>; VECTORS]; R] {
    let mut sums = [[T::splat(simd, T::ZERO); VECTORS]; R];
    for (a, b) in A.iter().zip(panel) {
        for i in 0..R {
            let a = T::splat(simd, a[i]);
            for v in 0..VECTORS {
                sums[i][v] = T::mul_add(simd, a, b[v], sums[i][v]);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use faer::Mat;

    /// Small integers, so that every order of summing gives the same, and ties abound.
    #[test]
    fn agrees_with_sorting_every_row() {
        fn check<T: Scalar>(m: usize, r: usize, n: usize, k: usize, par: Par) {
            let entry = |i: usize, j: usize| T::from_f64(((i * 7 + j * 13) % 11) as f64 - 5.0);
            let (A, B) = (
                Mat::from_fn(m, r, entry),
                Mat::from_fn(r, n, |i, j| entry(j, i + 1)),
            );
            let found = top_k_of_product(A.as_ref(), B.as_ref(), k, par).unwrap();
            let M = super::super::product(A.as_ref(), B.as_ref());
            assert_eq!(found.k, k.min(n));
            for i in 0..m {
                let mut expected: Vec<(usize, T)> = (0..n).map(|j| (j, M[(i, j)])).collect();
                expected.sort_by(|a, b| b.1.to_f64().total_cmp(&a.1.to_f64()));
                expected.truncate(k);
                assert!(found.row(i).eq(expected), "{m} {r} {n} {k}: row {i}");
            }
        }
        for (m, r, n) in [
            (1, 1, 1),
            (3, 0, 5),
            (9, 4, 47),
            (8, 3, 48),
            (70, 5, 49),
            (300, 2, 200),
            (5, 9, 1),
        ] {
            for k in [0, 1, 3, 50] {
                for par in [Par::Seq, Par::Rayon] {
                    check::<f64>(m, r, n, k, par);
                    check::<f32>(m, r, n, k, par);
                }
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_an_error() {
        let one = Mat::from_fn(2, 2, |_, _| 1f32);
        for x in [f32::NAN, f32::INFINITY, f32::MAX] {
            let bad = Mat::from_fn(2, 2, |_, _| x);
            assert!(top_k_of_product(one.as_ref(), bad.as_ref(), 1, Par::Seq).is_err());
        }
    }
}
