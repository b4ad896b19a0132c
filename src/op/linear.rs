//! Linear maps with a bias: everything that goes into heads and neurons, out of them, and out of the model.

use super::attend::capped;
use super::embed::spread_back;
use super::{Layout, Scratch, rows_of, split};
use crate::kernel::abreast::{self, Linear};
use crate::linalg::{
    Par, add_transposed_product, affine_into, column_blocks, product_into, row_blocks,
};
use crate::tensor::{Columns, Narrow, Scalar, Tensor, add_assign, map_in_place};
use faer::{MatMut, MatRef};
use pulp::Arch;
use rayon::prelude::*;
use std::borrow::Cow;

/// `x W + b`
#[derive(Clone, Copy)]
pub(crate) struct Affine<'a, T: Scalar> {
    /// `[inputs, outputs]`; either may stand in several axes.
    pub W: &'a Tensor<T>,
    /// `[outputs]`, in as many axes as those of `W`, where there is one.
    pub b: Option<&'a Tensor<T>>,
    /// How many of the first axes of `W` are inputs.
    pub input_axes: usize,
}

impl<T: Scalar> Affine<'_, T> {
    /// The axes of what it gives.
    pub fn outputs(&self) -> &[usize] {
        &self.W.shape()[self.input_axes..]
    }

    /// The bias, zeros where there is none.
    fn b(&self) -> Cow<'_, [T]> {
        match self.b {
            Some(b) => Cow::Borrowed(b.data()),
            None => Cow::Owned(vec![T::ZERO; self.outputs().iter().product()]),
        }
    }
}

/// `out = x W + b`, for `x: [n, inputs]`.
pub(crate) fn linear<T: Scalar>(layout: Layout, x: &[T], map: Affine<'_, T>, out: &mut [T]) {
    let b = &*map.b();
    if let (Layout::Rows(par), Some(narrow)) = (layout, map.W.narrow()) {
        return linear_of_narrow(par, x, narrow, b, out);
    }
    let W = map.W.data();
    let par = match layout {
        Layout::Rows(par) => par,
        Layout::Abreast => {
            return Arch::new().dispatch(Linear {
                x,
                W,
                b,
                add: false,
                out,
            });
        }
    };
    let d_out = b.len();
    let d_in = W.len() / d_out;
    let rows = out.len() / d_out;
    let (x, W) = (rows_of(x, d_in, 0, rows), rows_of(W, d_out, 0, d_in));
    let out = MatMut::from_row_major_slice_mut(out, rows, d_out);
    let parts = match rows * d_in * d_out >= WORTH_SPLITTING {
        true => par.threads(),
        false => 1,
    };
    // Each thread goes through all of the shorter side's matrix and its own part of the longer side's.
    if parts == 1 {
        affine_into(out, x, W, b);
    } else if rows >= d_out {
        let each = rows.div_ceil(parts);
        let blocks = row_blocks(out, each).into_par_iter();
        blocks.enumerate().for_each(|(i, out)| {
            let n = out.nrows();
            affine_into(out, x.subrows(i * each, n), W, b)
        });
    } else {
        let each = d_out.div_ceil(parts);
        let blocks = column_blocks(out, each).into_par_iter();
        blocks.enumerate().for_each(|(i, out)| {
            let (first, n) = (i * each, out.ncols());
            affine_into(out, x, W.subcols(first, n), &b[first..first + n]);
        });
    }
}

/// The same where the weights are kept in 16 bits: a block of columns is widened at a time.
fn linear_of_narrow<T: Scalar>(par: Par, x: &[T], W: &Narrow<T>, b: &[T], out: &mut [T]) {
    /// So many weights are wide at a time.
    const BLOCK: usize = 1 << 19;
    let (d_in, d_out) = (W.len() / b.len(), b.len());
    let rows = out.len() / d_out;
    let x = rows_of(x, d_in, 0, rows);
    let each = (BLOCK / d_in).clamp(1, d_out.div_ceil(par.threads()));
    let block = |wide: &mut Vec<T>, (i, out): (usize, MatMut<'_, T>)| {
        let (first, n) = (i * each, out.ncols());
        wide.clear();
        for row in 0..d_in {
            let start = row * d_out + first;
            W.widen(start..start + n, wide);
        }
        let W = MatRef::from_row_major_slice(wide, d_in, n);
        affine_into(out, x, W, &b[first..first + n]);
    };
    let mut out = MatMut::from_row_major_slice_mut(out, rows, d_out);
    match par {
        Par::Seq => {
            let mut wide = Vec::new();
            for (i, first) in (0..d_out).step_by(each).enumerate() {
                let n = each.min(d_out - first);
                block(&mut wide, (i, out.as_mut().subcols_mut(first, n)));
            }
        }
        Par::Rayon => {
            let blocks = column_blocks(out, each).into_par_iter();
            blocks.enumerate().for_each_init(Vec::new, block);
        }
    }
}

/// Below this many multiplications a product is done before another thread is awake.
const WORTH_SPLITTING: usize = 1 << 17;

/// `out = x W + b` as [`linear`], but in the order of the axes however `x` lies, and without the sequences that
/// are there again; capped where there is a cap.
pub(crate) fn unembed<T: Scalar>(
    layout: Layout,
    x: &Tensor<T>,
    (map, cap): (Affine<'_, T>, Option<T>),
    scratch: &mut Scratch<T>,
    out: &mut [T],
) {
    match layout {
        // A model without an unembedding.
        _ if out.is_empty() => {}
        Layout::Rows(_) => linear(layout, x.data(), map, out),
        Layout::Abreast => {
            let &[lanes, pos, _] = x.shape() else {
                unreachable!("a stream is [batch, pos, d]")
            };
            let mut all = scratch.take(&[lanes, pos, map.b().len()]);
            linear(layout, x.data(), map, all.data_mut());
            abreast::to_rows(all.data(), lanes, out);
            scratch.give(all);
        }
    }
    if let Some(cap) = cap {
        map_in_place(out, |x| capped(x, cap));
    }
}

/// `d_x = d_y Wᵀ`, for `d_y: [batch, pos, outputs]`, `W: [inputs, outputs]`; either may stand in several axes.
pub(crate) fn linear_back<T: Scalar>(
    layout: Layout,
    d_y: &Tensor<T>,
    W: &Tensor<T>,
    d_x: &mut Tensor<T>,
) {
    let d_out: usize = d_y.shape()[2..].iter().product();
    match layout {
        Layout::Rows(par) => {
            let W = W.data();
            let W = MatRef::from_row_major_slice(W, W.len() / d_out, d_out);
            let d_y = d_y.data();
            split(par, d_x.data_mut(), W.nrows(), |first, d_x| {
                let n = d_x.len() / W.nrows();
                let d_y = rows_of(d_y, d_out, first, n);
                let d_x = MatMut::from_row_major_slice_mut(d_x, n, W.nrows());
                product_into(d_x, T::ONE, d_y, W.transpose());
            });
        }
        Layout::Abreast => linear_back_abreast(d_y, W, d_x, false),
    }
}

/// `d_x += d_y Wᵀ`, as [`linear_back`].
pub(crate) fn add_linear_back<T: Scalar>(
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
    let W = W.data();
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
pub(crate) fn parameters_back<T: Scalar>(
    layout: Layout,
    x: &[T],
    d_y: &[T],
    d_W: &mut Tensor<T>,
    d_b: Option<&mut Tensor<T>>,
    d_in: usize,
) {
    let d_W = d_W.data_mut();
    let width = d_W.len() / d_in;
    match layout {
        Layout::Rows(_) => {
            let d_W = MatMut::from_row_major_slice_mut(d_W, d_in, width);
            let (x, d_y) = (Columns::all(x, d_in), Columns::all(d_y, width));
            add_transposed_product(d_W, T::ONE, x, d_y);
        }
        Layout::Abreast => {
            Arch::new().dispatch(abreast::back::ParametersBack { x, d_y, d_W, d_in })
        }
    }
    if let Some(d_b) = d_b {
        spread_back(layout, d_y, d_b.data_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Integers, whose sums are exact: split by rows, by columns, and with weights in 16 bits a block at a time.
    #[test]
    fn splits_are_the_whole() {
        let entry = |i: usize, j: usize| ((i * 7 + j * 13) % 11) as f32 - 5.0;
        for (rows, d_in, d_out) in [(1, 400, 700), (5, 700, 1600), (40, 90, 170), (300, 40, 50)] {
            let x: Vec<f32> = (0..rows * d_in)
                .map(|i| entry(i / d_in, i % d_in))
                .collect();
            let W = Tensor::from_fn(&[d_in, d_out], |at| entry(at[1], at[0]));
            let b = Tensor::from_fn(&[d_out], |at| entry(at[0], 3));
            let expected: Vec<f32> = (0..rows * d_out)
                .map(|at| {
                    let (r, j) = (at / d_out, at % d_out);
                    let products = (0..d_in).map(|i| x[r * d_in + i] * W[[i, j]]);
                    products.sum::<f32>() + b[[j]]
                })
                .collect();
            for W in [W.clone(), W.narrowed()] {
                assert!(rows * d_in * d_out >= WORTH_SPLITTING);
                for par in [Par::Seq, Par::Rayon] {
                    let map = Affine {
                        W: &W,
                        b: Some(&b),
                        input_axes: 1,
                    };
                    let mut out = vec![0.0; rows * d_out];
                    linear(Layout::Rows(par), &x, map, &mut out);
                    assert_eq!(out, expected);
                }
            }
        }
    }
}
