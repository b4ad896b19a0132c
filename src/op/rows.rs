//! Values at some positions of every sequence.

use super::{Layout, Scratch};
use crate::kernel::abreast;
use crate::tensor::{Scalar, Tensor, add_assign, gather_rows};

/// `value[:, at]`, for `value: [batch, pos, …]`.
pub(crate) fn gather_positions<T: Scalar>(
    layout: Layout,
    value: &Tensor<T>,
    at: &[usize],
    scratch: &mut Scratch<T>,
) -> Tensor<T> {
    let mut shape = value.shape().to_vec();
    let (batch, pos) = (shape[0], shape[1]);
    let width: usize = shape[2..].iter().product();
    shape[1] = at.len();
    let mut out = scratch.take(&shape);
    match layout {
        Layout::Rows(_) => {
            let rows = (0..batch).flat_map(|sequence| at.iter().map(move |p| sequence * pos + p));
            let rows: Vec<i64> = rows.map(|row| row as i64).collect();
            gather_rows(value.data(), width, &rows, out.data_mut());
        }
        Layout::Abreast => {
            let each = width * batch;
            for (to, p) in out.data_mut().chunks_exact_mut(each).zip(at) {
                to.copy_from_slice(&value.data()[p * each..][..each]);
            }
        }
    }
    out
}

/// Adds `rows: [batch, at, …]` at the positions `at` of every sequence to `to: [batch, pos, …]`.
pub(crate) fn scatter_positions<T: Scalar>(
    layout: Layout,
    rows: &Tensor<T>,
    at: &[usize],
    to: &mut Tensor<T>,
) {
    let (batch, pos) = (to.shape()[0], to.shape()[1]);
    let width: usize = to.shape()[2..].iter().product();
    let to = to.data_mut();
    match layout {
        Layout::Rows(_) => {
            let first = (0..batch).flat_map(|s| at.iter().map(move |p| s * pos + p));
            for (row, i) in rows.data().chunks_exact(width).zip(first) {
                add_assign(&mut to[i * width..][..width], row);
            }
        }
        Layout::Abreast => {
            let each = width * batch;
            for (row, p) in rows.data().chunks_exact(each).zip(at) {
                add_assign(&mut to[p * each..][..each], row);
            }
        }
    }
}

/// A value of `count` sequences in the order of the axes, without the sequences that are there again; nothing where it lies
/// so already.
pub(crate) fn in_order<T: Scalar>(
    layout: Layout,
    value: &Tensor<T>,
    count: usize,
    scratch: &mut Scratch<T>,
) -> Option<Tensor<T>> {
    let Layout::Abreast = layout else { return None };
    let mut shape = value.shape().to_vec();
    let lanes = std::mem::replace(&mut shape[0], count);
    let mut rows = scratch.take(&shape);
    abreast::to_rows(value.data(), lanes, rows.data_mut());
    Some(rows)
}
