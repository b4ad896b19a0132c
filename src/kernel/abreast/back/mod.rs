//! The backward pass of sequences abreast: its operations where a value lies in memory with the sequences last,
//! `[pos, …, lane]`.

mod attention;
mod parameters;

pub(crate) use attention::AttentionBack;
pub(crate) use parameters::{ParametersBack, SumLanes};

use crate::tensor::Scalar;

/// `table[ids[lane, p]] += d[p, :, lane]`, for as many sequences as there are ids of.
pub(crate) fn add_to_table<T: Scalar>(
    d: &[T],
    lanes: usize,
    ids: &[i64],
    pos: usize,
    table: &mut [T],
) {
    let width = d.len() / (lanes * pos);
    for (lane, ids) in ids.chunks_exact(pos).enumerate() {
        for (&id, d) in ids.iter().zip(d.chunks_exact(width * lanes)) {
            let row = &mut table[id as usize * width..][..width];
            let values = d.chunks_exact(lanes).map(|d| d[lane]);
            row.iter_mut().zip(values).for_each(|(to, x)| *to += x);
        }
    }
}
