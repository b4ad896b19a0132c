//! What a backward pass is made of, each over a stretch's rows or the positions of sequences abreast.

use super::abreast::{ParametersBack, SumLanes};
use crate::linalg::{add_transposed_product, product_into};
use crate::model::abreast::Linear;
use crate::model::{Layout, Scratch, at_positions};
use crate::tensor::{Columns, Scalar, Tensor, add_assign, without_subnormals};
use faer::{MatMut, MatRef};
use pulp::Arch;

/// `d_x = d_y Wᵀ`, for `d_y: [batch, pos, d_out]`, `W: [d_in, d_out]`; either may stand in several axes.
pub(super) fn linear_back<T: Scalar>(
    layout: Layout,
    d_y: &Tensor<T>,
    W: &Tensor<T>,
    d_x: &mut Tensor<T>,
) {
    let d_out: usize = d_y.shape()[2..].iter().product();
    match layout {
        Layout::Rows(_) => {
            let W = &*without_subnormals(W.data());
            let W = MatRef::from_row_major_slice(W, W.len() / d_out, d_out);
            let d_y = MatRef::from_row_major_slice(d_y.data(), d_y.len() / d_out, d_out);
            let d_x = MatMut::from_row_major_slice_mut(d_x.data_mut(), d_y.nrows(), W.nrows());
            product_into(d_x, T::ONE, d_y, W.transpose());
        }
        Layout::Abreast => linear_back_abreast(d_y, W, d_x, false),
    }
}

/// `d_x += d_y Wᵀ`, as [`linear_back`].
pub(super) fn add_linear_back<T: Scalar>(
    layout: Layout,
    d_y: &Tensor<T>,
    W: &Tensor<T>,
    d_x: &mut Tensor<T>,
    scratch: &mut Scratch<T>,
) {
    match layout {
        Layout::Rows(_) => {
            let mut part = scratch.take(d_x.shape());
            linear_back(layout, d_y, W, &mut part);
            add_assign(d_x.data_mut(), part.data());
            scratch.give(part);
        }
        Layout::Abreast => linear_back_abreast(d_y, W, d_x, true),
    }
}

fn linear_back_abreast<T: Scalar>(d_y: &Tensor<T>, W: &Tensor<T>, d_x: &mut Tensor<T>, add: bool) {
    let d_out: usize = d_y.shape()[2..].iter().product();
    let W = &*without_subnormals(W.data());
    let d_in = W.len() / d_out;
    let mut transposed = vec![T::ZERO; W.len()];
    for (i, row) in W.chunks_exact(d_out).enumerate() {
        let column = transposed[i..].iter_mut().step_by(d_in);
        column.zip(row).for_each(|(to, &x)| *to = x);
    }
    Arch::new().dispatch(Linear {
        x: d_y.data(),
        W: &transposed,
        b: &vec![T::ZERO; d_in],
        add,
        out: d_x.data_mut(),
    });
}

/// `d_W += xᵀ d_y`, `d_b += Σ d_y`.
pub(super) fn parameters_back<T: Scalar>(
    layout: Layout,
    x: &[T],
    d_y: &[T],
    d_W: &mut Tensor<T>,
    d_b: &mut Tensor<T>,
) {
    let (width, d_W) = (d_b.len(), d_W.data_mut());
    weights_back(layout, x, Columns::all(d_y, width), d_W);
    sum_back(layout, d_y, d_b.data_mut());
}

/// The same for heads: `d_W: [head, d_model, d_head]`, `d_y: [n, head, d_head]`.
pub(super) fn heads_back<T: Scalar>(
    layout: Layout,
    x: &[T],
    d_y: &[T],
    d_W: &mut Tensor<T>,
    d_b: &mut Tensor<T>,
) {
    let &[heads, _, d_head] = d_W.shape() else {
        unreachable!("as the weights")
    };
    for h in 0..heads {
        let of_head = Columns::some(d_y, heads * d_head, h * d_head, d_head);
        weights_back(layout, x, of_head, d_W.slice_mut(&[h]));
    }
    sum_back(layout, d_y, d_b.data_mut());
}

/// `d_W += xᵀ d_y`, for some columns of `d_y`.
fn weights_back<T: Scalar>(layout: Layout, x: &[T], d_y: Columns<'_, T>, d_W: &mut [T]) {
    let d_in = d_W.len() / d_y.cols;
    match layout {
        Layout::Rows(_) => {
            let d_W = MatMut::from_row_major_slice_mut(d_W, d_in, d_y.cols);
            add_transposed_product(d_W, T::ONE, Columns::all(x, d_in), d_y);
        }
        Layout::Abreast => Arch::new().dispatch(ParametersBack {
            x,
            d_y: d_y.data,
            width: d_y.width,
            first: d_y.first,
            outputs: d_y.cols,
            d_W,
        }),
    }
}

/// `sum += Σ rows`
pub(super) fn sum_back<T: Scalar>(layout: Layout, rows: &[T], sum: &mut [T]) {
    match layout {
        Layout::Rows(_) => {
            let rows = rows.chunks_exact(sum.len());
            rows.for_each(|row| add_assign(sum, row));
        }
        Layout::Abreast => Arch::new().dispatch(SumLanes { x: rows, sum }),
    }
}

/// The positions `at` of every sequence of `[batch, pos, …]`.
pub(super) fn gather<T: Scalar>(
    layout: Layout,
    value: &Tensor<T>,
    at: &[usize],
    scratch: &mut Scratch<T>,
) -> Tensor<T> {
    let mut shape = value.shape().to_vec();
    shape[1] = at.len();
    let mut kept = scratch.take(&shape);
    at_positions(layout, value, at, &mut kept);
    kept
}

/// Adds `rows: [batch, at, …]` at the positions `at` of every sequence to `to: [batch, pos, …]`.
pub(super) fn scatter<T: Scalar>(
    layout: Layout,
    rows: &Tensor<T>,
    at: &[usize],
    pos: usize,
    to: &mut [T],
) {
    let batch = rows.shape()[0];
    let width = to.len() / (batch * pos);
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
