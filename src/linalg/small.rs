//! Small products: an attention head's over a short sequence, a projection of one sequence.
//!
//! On these faer's routine spends as long on its set-up as on the product. Here the right factor is packed
//! once into whole vectors and stays in the first cache while the rows of the left one pass by: for the
//! `[22, 14] [14, 22]` and `[22, 22] [22, 14]` of a small attention head that takes three quarters of
//! faer's time (`benches/products.rs` has both side by side). With more rows there is nothing to gain.

use crate::tensor::{Scalar, store_over};
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
        let mut packed = vec![T::ZERO; self.B.nrows() * vectors * lanes];
        pack(self.B, &mut packed, vectors * lanes);
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
        for r in 0..R {
            let a = T::splat(simd, rows[r][i]);
            for v in 0..V {
                sums[r][v] = T::mul_add(simd, a, b[v], sums[r][v]);
            }
        }
    }
    sums
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
        let mut sums = row_sums::<T, S, R, V>(simd, rows, packed, V, 0);
        let alpha = T::splat(simd, self.alpha);
        for (r, sums) in sums.iter_mut().enumerate() {
            sums.iter_mut()
                .for_each(|sum| *sum = T::vmul(simd, alpha, *sum));
            let row = self.dst.as_mut().row_mut(first + r);
            let row = row
                .try_as_row_major_mut()
                .expect("checked by the caller")
                .as_slice_mut();
            let (whole, part) = T::split_mut::<S>(row);
            whole.copy_from_slice(&sums[..whole.len()]);
            if !part.is_empty() {
                T::store(simd, part, sums[whole.len()]);
            }
        }
    }
}

/// `out = A B + bias`, the bias added to every row, where `B` is small and the rows of `A` are contiguous;
/// else leaves `out` alone and says so. On any number of rows it saves the pass that would add the bias.
pub(super) fn narrow_affine<T: Scalar>(
    out: &mut [T],
    A: MatRef<'_, T>,
    B: MatRef<'_, T>,
    bias: &[T],
) -> bool {
    let (k, n) = (B.nrows(), B.ncols());
    let lanes = 64 / size_of::<T>();
    let fits = n.div_ceil(lanes) <= MAX_VECTORS && k * n.next_multiple_of(lanes) <= MAX_PACKED;
    if !fits || A.nrows() == 0 || k == 0 || n == 0 || A.col_stride() != 1 {
        return false;
    }
    Arch::new().dispatch(Affine { out, A, B, bias })
}

struct Affine<'a, T> {
    out: &'a mut [T],
    A: MatRef<'a, T>,
    B: MatRef<'a, T>,
    bias: &'a [T],
}

impl<T: Scalar> WithSimd for Affine<'_, T> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) -> bool {
        let lanes = size_of::<T::V<S>>() / size_of::<T>();
        let vectors = self.B.ncols().div_ceil(lanes);
        let end = self.B.nrows() * vectors * lanes;
        let mut packed = vec![T::ZERO; end + vectors * lanes];
        pack(self.B, &mut packed[..end], vectors * lanes);
        packed[end..][..self.bias.len()].copy_from_slice(self.bias);
        let (packed, _) = T::split::<S>(&packed);
        match vectors {
            1 => self.rows::<S, 8, 1>(simd, packed),
            2 => self.rows::<S, 8, 2>(simd, packed),
            3 => self.rows::<S, 4, 3>(simd, packed),
            4 => self.rows::<S, 4, 4>(simd, packed),
            _ => return false,
        }
        true
    }
}

impl<T: Scalar> Affine<'_, T> {
    /// All rows, `R` at a time; `packed` ends with the bias.
    #[inline(always)]
    fn rows<S: Simd, const R: usize, const V: usize>(&mut self, simd: S, packed: &[T::V<S>]) {
        let (m, k, n) = (self.A.nrows(), self.B.nrows(), self.B.ncols());
        let A = self.A.try_as_row_major().expect("checked by the caller");
        let lanes = size_of::<T::V<S>>() / size_of::<T>();
        let (packed, bias) = packed.split_at(k * V);
        for first in (0..m).step_by(R) {
            // At the end some rows again, so that there are enough.
            let first = first.min(m.saturating_sub(R));
            let mut rows: [&[T]; R] = [&[]; R];
            for (r, row) in rows.iter_mut().enumerate() {
                *row = &A.row((first + r).min(m - 1)).as_slice()[..k];
            }
            let sums = row_sums::<T, S, R, V>(simd, rows, packed, V, 0);
            for (r, sums) in sums.iter().enumerate() {
                // In this order, each row's last vector may run over into the next row.
                let row = (first + r).min(m - 1) * n;
                for v in 0..V {
                    let at = v * lanes;
                    let sum = T::vadd(simd, sums[v], bias[v]);
                    store_over::<T, S>(simd, &mut self.out[row + at..], lanes.min(n - at), sum);
                }
            }
        }
    }
}
