//! What enters the stream: rows of tables, by token or by position.

use super::Layout;
use crate::kernel::abreast::{self, Gather};
use crate::tensor::{Scalar, Tensor, add_assign, gather_rows};
use pulp::Arch;

/// `out = table[ids]`, for `ids: [batch, pos]` and `table: [_, d]`.
pub(crate) fn embed<T: Scalar>(
    layout: Layout,
    table: &Tensor<T>,
    ids: &[i64],
    out: &mut Tensor<T>,
) {
    let (pos, d): (_, usize) = (out.shape()[1], out.shape()[2..].iter().product());
    match (layout, table.narrow()) {
        (Layout::Rows(_), Some(narrow)) => {
            let mut row = Vec::with_capacity(d);
            for (&id, out) in ids.iter().zip(out.data_mut().chunks_exact_mut(d)) {
                row.clear();
                narrow.widen(id as usize * d..(id as usize + 1) * d, &mut row);
                out.copy_from_slice(&row);
            }
        }
        (Layout::Rows(_), None) => gather_rows(table.data(), d, ids, out.data_mut()),
        (Layout::Abreast, _) => Arch::new().dispatch(Gather {
            table: table.data(),
            d,
            ids,
            pos,
            out: out.data_mut(),
        }),
    }
}

/// `d_table[ids] += d_out`
pub(crate) fn embed_back<T: Scalar>(
    layout: Layout,
    d_out: &Tensor<T>,
    ids: &[i64],
    d_table: &mut Tensor<T>,
) {
    let &[batch, pos, d] = d_out.shape() else {
        unreachable!("a stream is [batch, pos, d]")
    };
    match layout {
        Layout::Rows(_) => {
            for (&id, row) in ids.iter().zip(d_out.data().chunks_exact(d)) {
                add_assign(d_table.slice_mut(&[id as usize]), row);
            }
        }
        Layout::Abreast => {
            let table = d_table.data_mut();
            abreast::back::add_to_table(d_out.data(), batch, ids, pos, table);
        }
    }
}

/// `out = rows` for every sequence, for `rows: [pos, d]`.
pub(crate) fn spread<T: Scalar>(layout: Layout, rows: &[T], out: &mut Tensor<T>) {
    let batch = out.shape()[0];
    match layout {
        Layout::Rows(_) => {
            let sequences = out.data_mut().chunks_exact_mut(rows.len());
            sequences.for_each(|out| out.copy_from_slice(rows));
        }
        Layout::Abreast => {
            let sequences = out.data_mut().chunks_exact_mut(batch);
            sequences.zip(rows).for_each(|(out, &x)| out.fill(x));
        }
    }
}

/// `d_rows += Σ d_out` over the sequences; and so for any rows that others repeat.
pub(crate) fn spread_back<T: Scalar>(layout: Layout, d_out: &[T], d_rows: &mut [T]) {
    match layout {
        Layout::Rows(_) => {
            let rows = d_out.chunks_exact(d_rows.len());
            rows.for_each(|row| add_assign(d_rows, row));
        }
        Layout::Abreast => Arch::new().dispatch(abreast::back::SumLanes {
            x: d_out,
            sum: d_rows,
        }),
    }
}
