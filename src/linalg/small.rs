//! Small products: an attention head's over a short sequence, a projection of one sequence.
//!
//! On these faer's routine spends as long on its set-up as on the product. Here the right factor is packed
//! once into whole vectors and stays in the first cache while the rows of the left one pass by: for the
//! `[22, 14] [14, 22]` and `[22, 22] [22, 14]` of a small attention head that takes three quarters of
//! faer's time (`benches/products.rs` has both side by side). With more rows there is nothing to gain.

use crate::tensor::Scalar;
use faer::{MatMut, MatRef};
use pulp::{Arch, Simd, WithSimd};

/// The most rows of the left factor: with more, faer's set-up no longer counts.
const MAX_ROWS: usize = 64;

/// The widest right factor, in vectors: its accumulators must stay in registers.
const MAX_VECTORS: usize = 4;

/// The largest packed right factor, in values: it must stay in the first cache.
const MAX_PACKED: usize = 4096;

/// `dst = alpha A B` where all three are small and the rows of `A` and `dst` are
/// contiguous; else gives `dst` back untouched.
pub(super) fn small_product<'d, T: Scalar>(
    dst: MatMut<'d, T>,
    alpha: T,
    A: MatRef<'_, T>,
    B: MatRef<'_, T>,
) -> Option<MatMut<'d, T>> {
    let (k, n) = (B.nrows(), B.ncols());
    let contiguous = A.col_stride() == 1 && dst.col_stride() == 1;
    // A vector is 64 bytes at the most.
    let lanes = 64 / size_of::<T>();
    if !contiguous || A.nrows() > MAX_ROWS || k == 0 || n == 0 || n.div_ceil(lanes) > MAX_VECTORS {
        return Some(dst);
    }
    if k * n.next_multiple_of(lanes) > MAX_PACKED {
        return Some(dst);
    }
    Arch::new().dispatch(Small { dst, alpha, A, B })
}

struct Small<'a, 'd, T> {
    dst: MatMut<'d, T>,
    alpha: T,
    A: MatRef<'a, T>,
    B: MatRef<'a, T>,
}

impl<'d, T: Scalar> WithSimd for Small<'_, 'd, T> {
    type Output = Option<MatMut<'d, T>>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let lanes = size_of::<T::V<S>>() / size_of::<T>();
        let vectors = self.B.ncols().div_ceil(lanes);
        let packed = pack(self.B, vectors * lanes);
        let (packed, _) = T::split::<S>(&packed);
        match vectors {
            // Eight sums hide an addition's latency; eight rows' addresses still fit the registers.
            1 => self.rows::<S, 8, 1>(simd, packed),
            2 => self.rows::<S, 8, 2>(simd, packed),
            3 => self.rows::<S, 4, 3>(simd, packed),
            4 => self.rows::<S, 4, 4>(simd, packed),
            // On shorter vectors than the longest there are: not worth a kernel of its own.
            _ => return Some(self.dst),
        }
        None
    }
}

/// The rows of `B` one after the other, each filled up with zeros to whole vectors.
#[inline(always)]
fn pack<T: Scalar>(B: MatRef<'_, T>, width: usize) -> Vec<T> {
    let (k, n) = (B.nrows(), B.ncols());
    let mut packed = vec![T::ZERO; k * width];
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
    packed
}

impl<T: Scalar> Small<'_, '_, T> {
    /// All rows, `R` at a time.
    #[inline(always)]
    fn rows<S: Simd, const R: usize, const V: usize>(mut self, simd: S, packed: &[T::V<S>]) {
        let m = self.A.nrows();
        for first in (0..m).step_by(R) {
            if first + R <= m {
                self.block::<S, R, V>(simd, packed, first);
            } else if m >= R {
                // The last rows again, with some before them: that costs less than one by one.
                self.block::<S, R, V>(simd, packed, m - R);
            } else {
                (first..m).for_each(|row| self.block::<S, 1, V>(simd, packed, row));
            }
        }
    }

    #[inline(always)]
    fn block<S: Simd, const R: usize, const V: usize>(
        &mut self,
        simd: S,
        packed: &[T::V<S>],
        first: usize,
    ) {
        let k = self.B.nrows();
        let A = self.A.try_as_row_major().expect("checked by the caller");
        // A loop: `array::from_fn` is not inlined here.
        let mut rows: [&[T]; R] = [&[]; R];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = &A.row(first + r).as_slice()[..k];
        }
        let zero = T::splat(simd, T::ZERO);
        let mut sums = [[zero; V]; R];
        for (i, b) in packed.chunks_exact(V).enumerate() {
            for r in 0..R {
                let a = T::splat(simd, rows[r][i]);
                for v in 0..V {
                    sums[r][v] = T::mul_add(simd, a, b[v], sums[r][v]);
                }
            }
        }
        let alpha = T::splat(simd, self.alpha);
        for (r, sums) in sums.iter().enumerate() {
            let row = self.dst.as_mut().row_mut(first + r);
            let row = row
                .try_as_row_major_mut()
                .expect("checked by the caller")
                .as_slice_mut();
            let (whole, part) = T::split_mut::<S>(row);
            for (d, &sum) in whole.iter_mut().zip(sums) {
                *d = T::vmul(simd, alpha, sum);
            }
            if !part.is_empty() {
                T::store(simd, part, T::vmul(simd, alpha, sums[whole.len()]));
            }
        }
    }
}
