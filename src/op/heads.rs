//! What heads write to the stream.

use super::{rows_of, split};
use crate::linalg::{Par, product_into};
use crate::tensor::{Scalar, Tensor};
use faer::{MatMut, MatRef};

/// `result[:, h] = z[:, h] W_O[h]`, for `z: [batch, pos, head, d_head]`.
pub(crate) fn head_results<T: Scalar>(
    par: Par,
    z: &Tensor<T>,
    W_O: &Tensor<T>,
    out: &mut Tensor<T>,
) {
    let &[heads, d_head, d_model] = W_O.shape() else {
        unreachable!("checked at loading")
    };
    let width = heads * d_model;
    split(par, out.data_mut(), width, |first, out| {
        let n = out.len() / width;
        let z = rows_of(z.data(), heads * d_head, first, n);
        for h in 0..heads {
            let out =
                MatMut::from_row_major_slice_mut(out, n, width).subcols_mut(h * d_model, d_model);
            product_into(out, T::ONE, z.subcols(h * d_head, d_head), W_O.mat(&[h]));
        }
    });
}

/// `out = z W_O`, of one head: `z: [n, d_head]`.
pub(crate) fn head_result<T: Scalar>(z: &[T], W_O: MatRef<'_, T>, out: &mut [T]) {
    let (d_head, d_model) = (W_O.nrows(), W_O.ncols());
    let n = z.len() / d_head;
    let to = MatMut::from_row_major_slice_mut(out, n, d_model);
    product_into(to, T::ONE, rows_of(z, d_head, 0, n), W_O);
}

/// `out = b + Σ_h result[:, h]`, for `result: [batch, pos, head, d_model]`.
pub(crate) fn sum_heads<T: Scalar>(par: Par, result: &Tensor<T>, b: &[T], out: &mut Tensor<T>) {
    let d_model = b.len();
    let width = result.shape()[2] * d_model;
    let result = result.data();
    split(par, out.data_mut(), d_model, |first, out| {
        let rows = result[first * width..].chunks_exact(width);
        for (out, result) in out.chunks_exact_mut(d_model).zip(rows) {
            out.copy_from_slice(b);
            result
                .chunks_exact(d_model)
                .for_each(|r| out.iter_mut().zip(r).for_each(|(o, &r)| *o += r));
        }
    });
}
