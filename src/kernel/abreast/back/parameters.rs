//! The derivatives by parameters: sums over positions and sequences.

use crate::kernel::abreast::product::{ROWS, block};
use crate::tensor::Scalar;
use pulp::{Simd, WithSimd};

/// `d_W += xᵀ d_y`, summed over positions and lanes.
pub(crate) struct ParametersBack<'a, T> {
    /// `[pos, inputs, lane]`
    pub x: &'a [T],
    /// `[pos, outputs, lane]`
    pub d_y: &'a [T],
    /// `[inputs, outputs]`
    pub d_W: &'a mut [T],
    /// How many inputs there are.
    pub d_in: usize,
}

impl<T: Scalar> WithSimd for ParametersBack<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (x, d_y) = (T::split::<S>(self.x).0, T::split::<S>(self.d_y).0);
        let inputs = self.d_in;
        let outputs = self.d_W.len() / inputs;
        // As many sums as there are registers for, next to a row of entries.
        let most = if size_of::<T::V<S>>() == 64 { 6 } else { 3 };
        for row in (0..inputs).step_by(ROWS) {
            let own = ROWS.min(inputs - row);
            let rows = block(row, inputs);
            let mut column = 0;
            while column < outputs {
                let columns = (outputs - column).min(most);
                let d_y = d_y.chunks_exact(outputs).map(|d_y| &d_y[column..]);
                let positions = x.chunks_exact(inputs).zip(d_y);
                let to = &mut self.d_W[row * outputs + column..];
                let to = to.chunks_mut(outputs).take(own);
                match columns {
                    1 => add_sums::<T, S, 1>(simd, positions, rows, to),
                    2 => add_sums::<T, S, 2>(simd, positions, rows, to),
                    3 => add_sums::<T, S, 3>(simd, positions, rows, to),
                    4 => add_sums::<T, S, 4>(simd, positions, rows, to),
                    5 => add_sums::<T, S, 5>(simd, positions, rows, to),
                    _ => add_sums::<T, S, 6>(simd, positions, rows, to),
                }
                column += columns;
            }
        }
    }
}

/// Some rows of `x` times the first `C` columns of `d_y`, summed over the positions and lanes, and added to the rows
/// of the result that there are.
// By index, so that the sums' fixed lengths are seen, and they stay in registers.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
fn add_sums<'a, T: Scalar, S: Simd, const C: usize>(
    simd: S,
    positions: impl Iterator<Item = (&'a [T::V<S>], &'a [T::V<S>])>,
    rows: [usize; ROWS],
    to: impl Iterator<Item = &'a mut [T]>,
) {
    let mut sums = [[T::splat(simd, T::ZERO); C]; ROWS];
    for (x, d_y) in positions {
        let d_y = &d_y[..C];
        for r in 0..ROWS {
            let x = x[rows[r]];
            for c in 0..C {
                sums[r][c] = T::mul_add(simd, x, d_y[c], sums[r][c]);
            }
        }
    }
    for (to, sums) in to.zip(&sums) {
        for c in 0..C {
            to[c] += T::reduce_sum(simd, sums[c]);
        }
    }
}

/// `sum[i] += Σ x[…, i, lane]`, over lanes and whatever stands before the last axis but the lanes'.
pub(crate) struct SumLanes<'a, T> {
    /// `[…, sum's length, lane]`
    pub x: &'a [T],
    pub sum: &'a mut [T],
}

impl<T: Scalar> WithSimd for SumLanes<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (x, _) = T::split::<S>(self.x);
        let n = self.sum.len();
        for (i, to) in self.sum.iter_mut().enumerate() {
            let zero = T::splat(simd, T::ZERO);
            let rows = x.chunks_exact(n);
            let sum = rows.fold(zero, |sum, row| T::vadd(simd, sum, row[i]));
            *to += T::reduce_sum(simd, sum);
        }
    }
}
