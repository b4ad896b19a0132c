//! Sequences abreast: a small model's forward pass with a sequence in each lane of a vector.
//!
//! The rows of a small model are a vector or two long, with heads of some odd width, and sums over them look
//! across vectors. Here a value lies in memory with the sequences last, `[pos, …, lane]`, from the embedding to
//! the logits: whatever the widths, every lane is at work.

mod attend;
pub(crate) mod back;
mod gather;
mod product;
mod rows;
mod turn;

pub(crate) use attend::Attend;
pub(crate) use gather::Gather;
pub(crate) use rows::Linear;
pub(crate) use turn::{from_rows, to_rows};

use crate::tensor::{Scalar, lanes};
use pulp::Arch;

/// One for a key at the pad token, zero for the others, `[pos, lane]`, from `[sequence, pos]`.
pub(crate) fn pad_lanes<T: Scalar>(pads: &[bool], pos: usize) -> Vec<T> {
    let is_pad: Vec<i64> = pads.iter().map(|&pad| i64::from(pad)).collect();
    let mut out = vec![T::ZERO; pos * lanes::<T>()];
    Arch::new().dispatch(Gather {
        table: &[T::ZERO, T::ONE],
        d: 1,
        ids: &is_pad,
        pos,
        out: &mut out,
    });
    out
}
