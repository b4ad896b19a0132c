//! Rows times a matrix that is packed into whole vectors.

use crate::tensor::Scalar;
use faer::MatRef;
use pulp::Simd;

/// Writes the rows of `B` one after the other, each `width` from the next: whole vectors. What fills
/// them up is left as it was.
#[inline(always)]
pub(crate) fn pack<T: Scalar>(B: MatRef<'_, T>, packed: &mut [T], width: usize) {
    let (k, n) = (B.nrows(), B.ncols());
    if let Some(Bt) = B.try_as_col_major() {
        // A transpose, four columns at a time: each row then takes one store of four values.
        const COLUMNS: usize = 4;
        let column = |j: usize| &Bt.col(j).as_slice()[..k];
        let whole = n - n % COLUMNS;
        for j in (0..whole).step_by(COLUMNS) {
            let columns = [column(j), column(j + 1), column(j + 2), column(j + 3)];
            for (i, row) in packed.chunks_exact_mut(width).enumerate() {
                row[j..j + COLUMNS].copy_from_slice(&columns.map(|c| c[i]));
            }
        }
        for j in whole..n {
            let rows = packed.chunks_exact_mut(width);
            rows.zip(column(j)).for_each(|(row, &x)| row[j] = x);
        }
    } else if let Some(B) = B.try_as_row_major() {
        for (i, row) in packed.chunks_exact_mut(width).enumerate() {
            row[..n].copy_from_slice(B.row(i).as_slice());
        }
    } else {
        for (i, row) in packed.chunks_exact_mut(width).enumerate() {
            row[..n]
                .iter_mut()
                .enumerate()
                .for_each(|(j, x)| *x = B[(i, j)]);
        }
    }
}

/// `R` rows times `V` vectors of every row of a packed matrix, which is `width` vectors wide, from the
/// `first` on.
#[inline(always)]
pub(crate) fn row_sums<T: Scalar, S: Simd, const R: usize, const V: usize>(
    simd: S,
    mut rows: [&[T]; R],
    packed: &[T::V<S>],
    width: usize,
    first: usize,
) -> [[T::V<S>; V]; R] {
    // Of one length, so that no index needs a check of its own.
    let k = rows[0].len();
    rows.iter_mut().for_each(|row| *row = &row[..k]);
    let mut sums = [[T::splat(simd, T::ZERO); V]; R];
    for (i, b) in (0..k).zip(packed.chunks_exact(width)) {
        let b = &b[first..first + V];
        // Of rows and vectors the fewer are all in registers, next to the sums: the others come one by one.
        if R < V {
            let mut a = [T::splat(simd, T::ZERO); R];
            for (a, row) in a.iter_mut().zip(&rows) {
                *a = T::splat(simd, row[i]);
            }
            for v in 0..V {
                for r in 0..R {
                    sums[r][v] = T::mul_add(simd, a[r], b[v], sums[r][v]);
                }
            }
        } else {
            for r in 0..R {
                let a = T::splat(simd, rows[r][i]);
                for v in 0..V {
                    sums[r][v] = T::mul_add(simd, a, b[v], sums[r][v]);
                }
            }
        }
    }
    sums
}
