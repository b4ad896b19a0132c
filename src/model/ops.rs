//! The operations that the forward pass is made of, each over a batch's rows, split over threads
//! where asked.

use super::abreast::{self, Gather, LayerNorm, Linear};
use super::attend::Attend;
use super::scratch::Scratch;
use crate::linalg::{Par, affine_into, product_into};
use crate::model::{ActFn, Norm};
use crate::tensor::{
    Scalar, Tensor, add_assign, gather_rows, lanes, layer_norm_rows, softmax_rows,
    without_subnormals,
};
use faer::{MatMut, MatRef};
use pulp::Arch;
use rayon::prelude::*;

/// What keys at the pad token score.
pub(crate) const PAD_SCORE: f64 = -1e5;

/// How a stretch's values lie in memory; their shapes are the same.
#[derive(Clone, Copy)]
pub(crate) enum Layout {
    /// In the order of the axes, as hooks and caches have them; operations may be split over threads.
    Rows(Par),
    /// The sequences last, one in each of a vector's lanes, on the calling thread. There are as many sequences
    /// as lanes; the last one again where there are too few.
    Abreast,
}

impl Layout {
    /// In the order of the axes, on the calling thread.
    pub const ROWS: Layout = Layout::Rows(Par::Seq);

    /// Whether operations may be split over threads.
    pub fn par(self) -> Par {
        match self {
            Layout::Rows(par) => par,
            Layout::Abreast => Par::Seq,
        }
    }

    /// How many sequences the values of `batch` sequences have.
    pub fn batch<T: Scalar>(self, batch: usize) -> usize {
        match self {
            Layout::Rows(_) => batch,
            Layout::Abreast => lanes::<T>(),
        }
    }
}

/// Calls `f` on stretches of `out` that are whole multiples of `unit`, with the first unit's index.
fn split<T: Scalar>(par: Par, out: &mut [T], unit: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let units = out.len() / unit.max(1);
    match par {
        Par::Rayon if units > 1 => {
            let each = units.div_ceil(par.threads());
            out.par_chunks_mut(each * unit)
                .enumerate()
                .for_each(|(i, chunk)| f(i * each, chunk));
        }
        _ => f(0, out),
    }
}

/// The rows `first..first + n` of a row-major matrix.
fn rows_of<T: Scalar>(data: &[T], cols: usize, first: usize, n: usize) -> MatRef<'_, T> {
    MatRef::from_row_major_slice(&data[first * cols..(first + n) * cols], n, cols)
}

/// `out = table[ids]`, for `ids: [batch, pos]` and `table: [_, d]`.
pub(super) fn gather<T: Scalar>(layout: Layout, table: &[T], ids: &[i64], out: &mut Tensor<T>) {
    let (pos, d) = (out.shape()[1], out.shape()[2..].iter().product());
    match layout {
        Layout::Rows(_) => gather_rows(table, d, ids, out.data_mut()),
        Layout::Abreast => Arch::new().dispatch(Gather {
            table,
            d,
            ids,
            pos,
            out: out.data_mut(),
        }),
    }
}

/// `out = row` for every sequence, for `row: [pos, d]`.
pub(super) fn spread<T: Scalar>(layout: Layout, row: &[T], out: &mut Tensor<T>) {
    let batch = out.shape()[0];
    match layout {
        Layout::Rows(_) => {
            let sequences = out.data_mut().chunks_exact_mut(row.len());
            sequences.for_each(|out| out.copy_from_slice(row));
        }
        Layout::Abreast => {
            let sequences = out.data_mut().chunks_exact_mut(batch);
            sequences.zip(row).for_each(|(out, &x)| out.fill(x));
        }
    }
}

/// `out = value[:, at]`, for `value: [batch, pos, …]`.
pub(crate) fn at_positions<T: Scalar>(
    layout: Layout,
    value: &Tensor<T>,
    at: &[usize],
    out: &mut Tensor<T>,
) {
    let (batch, pos) = (value.shape()[0], value.shape()[1]);
    let width: usize = value.shape()[2..].iter().product();
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
}

/// `dst += src`
pub(super) fn add<T: Scalar>(layout: Layout, dst: &mut Tensor<T>, src: &Tensor<T>) {
    let src = src.data();
    split(layout.par(), dst.data_mut(), 1, |i, dst| {
        add_assign(dst, &src[i..i + dst.len()])
    });
}

/// `out = x W + b`, for `x: [n, d_in]`, `W: [d_in, d_out]`.
pub(super) fn linear<T: Scalar>(layout: Layout, x: &[T], W: &[T], b: &[T], out: &mut [T]) {
    let W = &*without_subnormals(W);
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
    let W = rows_of(W, d_out, 0, d_in);
    split(par, out, d_out, |first, out| {
        let n = out.len() / d_out;
        affine_into(out, rows_of(x, d_in, first, n), W, b);
    });
}

/// `out = x W + b` as [`linear`], but in the order of the axes however `x` lies, and without the sequences that
/// are there again.
pub(super) fn unembed<T: Scalar>(
    layout: Layout,
    x: &Tensor<T>,
    W: &[T],
    b: &[T],
    scratch: &mut Scratch<T>,
    out: &mut [T],
) {
    match layout {
        Layout::Rows(_) => linear(layout, x.data(), W, b, out),
        Layout::Abreast => {
            let &[lanes, pos, _] = x.shape() else {
                unreachable!("a stream is [batch, pos, d]")
            };
            let mut all = scratch.take(&[lanes, pos, b.len()]);
            linear(layout, x.data(), W, b, all.data_mut());
            abreast::to_rows(all.data(), lanes, out);
            scratch.give(all);
        }
    }
}

/// `out[:, h] = x W[h] + b[h]` for every head, for `x: [n, d_model]`, `W: [head, d_model, d_head]`.
pub(super) fn project_heads<T: Scalar>(
    layout: Layout,
    x: &[T],
    W: &Tensor<T>,
    b: &Tensor<T>,
    out: &mut [T],
) {
    linear(layout, x, side_by_side(W).data(), b.data(), out);
}

/// The heads' matrices `[head, d_model, d_head]` side by side, `[d_model, head · d_head]`: one product is faster
/// than one a head, by more than the copy costs.
pub(crate) fn side_by_side<T: Scalar>(W: &Tensor<T>) -> Tensor<T> {
    let &[heads, d_model, d_head] = W.shape() else {
        unreachable!("checked at loading")
    };
    let mut side_by_side = Tensor::zeros(&[d_model, heads * d_head]);
    for h in 0..heads {
        let columns = side_by_side.data_mut().chunks_exact_mut(heads * d_head);
        for (to, from) in columns.zip(W.slice(&[h]).chunks_exact(d_head)) {
            to[h * d_head..(h + 1) * d_head].copy_from_slice(from);
        }
    }
    side_by_side
}

/// LayerNorm; with an `eps`, `scale` is computed too, else it is what to divide by.
pub(super) fn layer_norm<T: Scalar>(
    layout: Layout,
    x: &Tensor<T>,
    eps: Option<T>,
    scale: &mut Tensor<T>,
    norm: Option<&Norm<T>>,
    out: &mut Tensor<T>,
) {
    let d = x.shape()[2];
    let affine = norm.map(|n| (n.w.data(), n.b.data()));
    let par = match layout {
        Layout::Rows(par) => par,
        Layout::Abreast => {
            return Arch::new().dispatch(LayerNorm {
                x: x.data(),
                eps: eps.expect("no closure has changed the scale"),
                affine,
                scale: scale.data_mut(),
                out: out.data_mut(),
            });
        }
    };
    let rows = scale.len().div_ceil(par.threads()).max(1);
    let scales = scale.data_mut().chunks_mut(rows);
    let values = x
        .data()
        .chunks(rows * d)
        .zip(out.data_mut().chunks_mut(rows * d));
    let work = |(scale, (x, out)): (&mut [T], (&[T], &mut [T]))| {
        layer_norm_rows(x, eps, scale, affine, out);
    };
    match par {
        Par::Seq => scales.zip(values).for_each(work),
        Par::Rayon => scales.zip(values).par_bridge().for_each(work),
    }
}

/// Everything between the projections and `z` in one go, for short sequences and the queries at some positions;
/// `scores` and `pattern` where someone wants them. Abreast, any length will do.
pub(super) fn attend<T: Scalar>(
    layout: Layout,
    (q, queries): (&Tensor<T>, &[usize]),
    [k, v]: [&Tensor<T>; 2],
    scale: T,
    (causal, pad_keys): (bool, Option<&[bool]>),
    [scores, pattern]: [Option<&mut Tensor<T>>; 2],
    z: &mut Tensor<T>,
) {
    let &[batch, pos, heads, d_head] = k.shape() else {
        unreachable!("keys have four axes")
    };
    let par = match layout {
        Layout::Rows(par) => par,
        Layout::Abreast => {
            let pad_keys = pad_keys.map(|pads| abreast::pad_lanes(pads, pos));
            return Arch::new().dispatch(abreast::Attend {
                queries,
                pos,
                heads,
                d_head,
                q: q.data(),
                k: k.data(),
                v: v.data(),
                factor: T::ONE / scale,
                causal,
                pad_keys: pad_keys.as_deref(),
                scores: scores.map(Tensor::data_mut),
                pattern: pattern.map(Tensor::data_mut),
                z: z.data_mut(),
            });
        }
    };
    let each = batch.div_ceil(par.threads());
    let (rows, keys) = (each * queries.len() * heads, each * pos * heads * d_head);
    let mut scores = scores.map(|s| s.data_mut().chunks_mut(rows * pos));
    let mut pattern = pattern.map(|p| p.data_mut().chunks_mut(rows * pos));
    let values = k.data().chunks(keys).zip(v.data().chunks(keys));
    let rows = rows * d_head;
    let of_queries = q.data().chunks(rows).zip(z.data_mut().chunks_mut(rows));
    let mut parts = Vec::new();
    for (i, ((q, z), (k, v))) in of_queries.zip(values).enumerate() {
        parts.push(Attend {
            queries,
            pos,
            heads,
            d_head,
            q,
            k,
            v,
            factor: T::ONE / scale,
            causal,
            pad_keys: pad_keys.map(|pads| &pads[i * each * pos..]),
            scores: scores.as_mut().and_then(Iterator::next),
            pattern: pattern.as_mut().and_then(Iterator::next),
            z,
        });
    }
    let work = |part| Arch::new().dispatch(part);
    match par {
        Par::Seq => parts.into_iter().for_each(work),
        Par::Rayon => parts.into_par_iter().for_each(work),
    }
}

/// `scores[b, h] = q k^T / scale`, masked, for `k: [batch, pos, head, d_head]` and the queries at some positions.
///
/// The causal mask is `-inf`; then keys at the pad token get [`PAD_SCORE`], whatever the mask says, as a
/// hook on TransformerLens's scores would have it.
pub(super) fn scores<T: Scalar>(
    par: Par,
    (q, queries): (&Tensor<T>, &[usize]),
    k: &Tensor<T>,
    scale: T,
    (causal, pad_keys): (bool, Option<&[bool]>),
    out: &mut Tensor<T>,
) {
    let &[_, pos, heads, _] = k.shape() else {
        unreachable!("keys have four axes")
    };
    let inverse = T::ONE / scale;
    let square = queries.len() * pos;
    split(par, out.data_mut(), square, |first, out| {
        for (i, out) in out.chunks_exact_mut(square).enumerate() {
            let (b, h) = ((first + i) / heads, (first + i) % heads);
            let scores = MatMut::from_row_major_slice_mut(out, queries.len(), pos);
            product_into(scores, inverse, q.head(b, h), k.head(b, h).transpose());
            if causal {
                for (query, row) in queries.iter().zip(out.chunks_exact_mut(pos)) {
                    row[query + 1..].fill(-T::INFINITY);
                }
            }
            if let Some(pad) = pad_keys {
                let pad = &pad[b * pos..(b + 1) * pos];
                for row in out.chunks_exact_mut(pos) {
                    for (score, _) in row.iter_mut().zip(pad).filter(|(_, pad)| **pad) {
                        *score = T::from_f64(PAD_SCORE);
                    }
                }
            }
        }
    });
}

/// The softmax of the scores over the keys, in place.
pub(super) fn softmax<T: Scalar>(par: Par, scores: &mut Tensor<T>) {
    let keys = scores.shape()[3];
    split(par, scores.data_mut(), keys, |_, rows| {
        softmax_rows(rows, keys)
    });
}

/// `z[:, h] = pattern[h] v[:, h]`, for `pattern: [batch, head, query, key]`, `v: [batch, pos, head, d_head]`.
pub(super) fn mix<T: Scalar>(par: Par, pattern: &Tensor<T>, v: &Tensor<T>, out: &mut Tensor<T>) {
    let &[_, heads, queries, _] = pattern.shape() else {
        unreachable!("patterns have four axes")
    };
    let d_head = v.shape()[3];
    let width = heads * d_head;
    split(par, out.data_mut(), width, |first, out| {
        // A stretch of rows may begin and end inside sequences.
        let mut row = first;
        let mut rest = out;
        while !rest.is_empty() {
            let (b, p) = (row / queries, row % queries);
            let n = (queries - p).min(rest.len() / width);
            let (own, others) = rest.split_at_mut(n * width);
            for h in 0..heads {
                let z =
                    MatMut::from_row_major_slice_mut(own, n, width).subcols_mut(h * d_head, d_head);
                let pattern = pattern.mat(&[b, h]).subrows(p, n);
                product_into(z, T::ONE, pattern, v.head(b, h));
            }
            rest = others;
            row += n;
        }
    });
}

/// `result[:, h] = z[:, h] W_O[h]`, for `z: [batch, pos, head, d_head]`.
pub(super) fn head_results<T: Scalar>(
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

/// `out = b + Σ_h result[:, h]`, for `result: [batch, pos, head, d_model]`.
pub(super) fn sum_heads<T: Scalar>(par: Par, result: &Tensor<T>, b: &[T], out: &mut Tensor<T>) {
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

/// The activation function of `[batch, pos, d_mlp]` neurons, in place.
pub(super) fn activate<T: Scalar>(layout: Layout, act_fn: ActFn, x: &mut Tensor<T>) {
    let d_mlp = x.shape()[2];
    split(layout.par(), x.data_mut(), d_mlp, |_, x| {
        act_fn.apply(x, d_mlp)
    });
}
