//! Products of matrices whose entries are vectors: a number of each sequence.
//!
//! Every lane does the same, so that a width that is no multiple of anything wastes nothing, and no sum looks
//! across a vector. A few rows times a few columns stay in registers while the summed index runs.

use crate::tensor::Scalar;
use pulp::Simd;

/// How many rows are taken at a time.
pub(crate) const ROWS: usize = 4;

/// Rows from the `first` on; where there are too few, the last one again.
#[inline(always)]
pub(crate) fn block(first: usize, rows: usize) -> [usize; ROWS] {
    let mut block = [0; ROWS];
    let numbers = block.iter_mut().enumerate();
    numbers.for_each(|(r, row)| *row = (first + r).min(rows - 1));
    block
}

/// Some rows of vectors, each `len` long.
#[inline(always)]
pub(crate) fn rows_at<V>(data: &[V], starts: [usize; ROWS], len: usize) -> [&[V]; ROWS] {
    // A loop: an array's `map` is not inlined here.
    let mut rows: [&[V]; ROWS] = [&[]; ROWS];
    for (row, start) in rows.iter_mut().zip(starts) {
        *row = &data[start..start + len];
    }
    rows
}

/// What rows are multiplied by, and what becomes of the sums.
pub(crate) trait Right<T: Scalar, S: Simd> {
    /// Whether the sums are added to what is there.
    const ADDED: bool = false;

    /// `C` columns of the `i`-th row, from the `first` column on.
    fn entries<const C: usize>(&self, simd: S, i: usize, first: usize) -> [T::V<S>; C];
    /// What is stored in a column of a sum.
    fn finish(&self, simd: S, column: usize, sum: T::V<S>) -> T::V<S>;
}

/// Weights, the same for every sequence, and a bias.
pub(crate) struct Weights<'a, T> {
    /// `[inputs, outputs]`
    pub W: &'a [T],
    /// `[outputs]`
    pub b: &'a [T],
}

impl<T: Scalar, S: Simd> Right<T, S> for Weights<'_, T> {
    #[inline(always)]
    fn entries<const C: usize>(&self, simd: S, i: usize, first: usize) -> [T::V<S>; C] {
        let row = &self.W[i * self.b.len() + first..][..C];
        let mut entries = [T::splat(simd, T::ZERO); C];
        for (to, &x) in entries.iter_mut().zip(row) {
            *to = T::splat(simd, x);
        }
        entries
    }

    #[inline(always)]
    fn finish(&self, simd: S, column: usize, sum: T::V<S>) -> T::V<S> {
        T::vadd(simd, sum, T::splat(simd, self.b[column]))
    }
}

/// What rows are multiplied by, with the sums added to what is there.
pub(crate) struct Added<'a, B>(pub &'a B);

impl<T: Scalar, S: Simd, B: Right<T, S>> Right<T, S> for Added<'_, B> {
    const ADDED: bool = true;

    #[inline(always)]
    fn entries<const C: usize>(&self, simd: S, i: usize, first: usize) -> [T::V<S>; C] {
        self.0.entries(simd, i, first)
    }

    #[inline(always)]
    fn finish(&self, simd: S, column: usize, sum: T::V<S>) -> T::V<S> {
        self.0.finish(simd, column, sum)
    }
}

/// A head's keys, transposed and times a factor.
pub(crate) struct Keys<'a, T: Scalar, S: Simd> {
    /// `[pos, …]`, each key `stride` from the next.
    pub keys: &'a [T::V<S>],
    pub stride: usize,
    pub factor: T::V<S>,
}

impl<T: Scalar, S: Simd> Right<T, S> for Keys<'_, T, S> {
    #[inline(always)]
    fn entries<const C: usize>(&self, simd: S, i: usize, first: usize) -> [T::V<S>; C] {
        let mut entries = [T::splat(simd, T::ZERO); C];
        for (c, to) in entries.iter_mut().enumerate() {
            *to = self.keys[(first + c) * self.stride + i];
        }
        entries
    }

    #[inline(always)]
    fn finish(&self, simd: S, _: usize, sum: T::V<S>) -> T::V<S> {
        T::vmul(simd, self.factor, sum)
    }
}

/// A head's values.
pub(crate) struct Values<'a, T: Scalar, S: Simd> {
    /// `[pos, …]`, each value `stride` from the next.
    pub values: &'a [T::V<S>],
    pub stride: usize,
}

impl<T: Scalar, S: Simd> Right<T, S> for Values<'_, T, S> {
    #[inline(always)]
    fn entries<const C: usize>(&self, simd: S, i: usize, first: usize) -> [T::V<S>; C] {
        let row = &self.values[i * self.stride + first..][..C];
        let mut entries = [T::splat(simd, T::ZERO); C];
        entries.copy_from_slice(row);
        entries
    }

    #[inline(always)]
    fn finish(&self, _: S, _: usize, sum: T::V<S>) -> T::V<S> {
        sum
    }
}

/// Some rows times the first `columns` columns. The row `r` of the result begins at `starts[r]` of `out`.
#[inline(always)]
pub(crate) fn multiply<T: Scalar, S: Simd, B: Right<T, S>>(
    simd: S,
    mut rows: [&[T::V<S>]; ROWS],
    right: &B,
    columns: usize,
    out: &mut [T::V<S>],
    starts: [usize; ROWS],
) {
    // Of one length, so that no index needs a check of its own.
    let k = rows[0].len();
    rows.iter_mut().for_each(|row| *row = &row[..k]);
    // As many sums as there are registers for, next to a row of entries: 32 of the long vectors, 16 of others.
    let most = if size_of::<T::V<S>>() == 64 { 6 } else { 3 };
    let mut first = 0;
    while first < columns {
        let block = (columns - first).min(most);
        match block {
            1 => sums::<T, S, B, 1>(simd, rows, right, first, out, starts),
            2 => sums::<T, S, B, 2>(simd, rows, right, first, out, starts),
            3 => sums::<T, S, B, 3>(simd, rows, right, first, out, starts),
            4 => sums::<T, S, B, 4>(simd, rows, right, first, out, starts),
            5 => sums::<T, S, B, 5>(simd, rows, right, first, out, starts),
            _ => sums::<T, S, B, 6>(simd, rows, right, first, out, starts),
        }
        first += block;
    }
}

/// `C` columns from the `first` on.
// By index, so that the sums' fixed lengths are seen, and they stay in registers.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
fn sums<T: Scalar, S: Simd, B: Right<T, S>, const C: usize>(
    simd: S,
    rows: [&[T::V<S>]; ROWS],
    right: &B,
    first: usize,
    out: &mut [T::V<S>],
    starts: [usize; ROWS],
) {
    let mut sums = [[T::splat(simd, T::ZERO); C]; ROWS];
    for i in 0..rows[0].len() {
        let entries = right.entries::<C>(simd, i, first);
        for r in 0..ROWS {
            let a = rows[r][i];
            for c in 0..C {
                sums[r][c] = T::mul_add(simd, a, entries[c], sums[r][c]);
            }
        }
    }
    for r in 0..ROWS {
        // All before any is stored: the last row may be there more than once.
        let there = &out[starts[r] + first..][..C];
        for c in 0..C {
            sums[r][c] = right.finish(simd, first + c, sums[r][c]);
            if B::ADDED {
                sums[r][c] = T::vadd(simd, there[c], sums[r][c]);
            }
        }
    }
    for r in 0..ROWS {
        out[starts[r] + first..][..C].copy_from_slice(&sums[r]);
    }
}
