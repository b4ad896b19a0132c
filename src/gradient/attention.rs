//! The backward pass through an attention layer, from `z` to queries, keys and values.

use crate::linalg::{add_transposed_product, product_into};
use crate::names::Hook;
use crate::tensor::{Columns, Scalar, Tensor, softmax_rows_back};
use faer::MatMut;

use super::sink::Sink;

/// What an attention layer's backward pass reads.
pub(super) struct AttentionBack<'a, T: Scalar> {
    pub layer: usize,
    /// The positions of the queries, where not all are there.
    pub queries: Option<&'a [usize]>,
    /// `[batch, queries, head, d_head]`, as is the derivative by `z`.
    pub q: &'a Tensor<T>,
    pub d_z: &'a Tensor<T>,
    /// `[batch, pos, head, d_head]`, as is `v`.
    pub k: &'a Tensor<T>,
    pub v: &'a Tensor<T>,
    /// `[batch, head, queries, key]`
    pub pattern: &'a Tensor<T>,
    /// What `q kᵀ` was multiplied by.
    pub factor: T,
    /// `[batch, pos]`: the keys whose score is a constant.
    pub pad_keys: Option<&'a [bool]>,
}

impl<T: Scalar> AttentionBack<'_, T> {
    /// Writes the derivatives by the queries that there are, `[batch, queries, head, d_head]`, and by all keys and
    /// values, `[batch, pos, head, d_head]`; those by pattern and scores go to the sink.
    pub fn run(&self, [d_q, d_k, d_v]: [&mut Tensor<T>; 3], sink: &mut Sink<'_, T>) {
        let &[batch, pos, heads, d_head] = self.k.shape() else {
            unreachable!("keys have four axes")
        };
        let n = self.d_z.shape()[1];
        let width = heads * d_head;
        d_k.data_mut().fill(T::ZERO);
        d_v.data_mut().fill(T::ZERO);
        let mut d_scores = vec![T::ZERO; n * pos];
        for b in 0..batch {
            let own = b * pos * width..(b + 1) * pos * width;
            let (q, d_z) = (self.q.slice(&[b]), self.d_z.slice(&[b]));
            for h in 0..heads {
                let pattern = self.pattern.slice(&[b, h]);
                let of_head = |x| Columns::some(x, width, h * d_head, d_head);
                let square = || [b, h];
                let d_pattern = MatMut::from_row_major_slice_mut(&mut d_scores, n, pos);
                let v = self.v.head(b, h).transpose();
                product_into(d_pattern, T::ONE, of_head(d_z).mat(), v);
                self.show(Hook::Pattern(self.layer), square(), &d_scores, sink);
                softmax_rows_back(pattern, &mut d_scores, pos);
                self.show(Hook::AttnScores(self.layer), square(), &d_scores, sink);
                if let Some(pads) = self.pad_keys {
                    let pads = &pads[b * pos..(b + 1) * pos];
                    for row in d_scores.chunks_exact_mut(pos) {
                        let constant = row.iter_mut().zip(pads).filter(|(_, pad)| **pad);
                        constant.for_each(|(d, _)| *d = T::ZERO);
                    }
                }

                let head_of = |to: &mut Tensor<T>| -> std::ops::Range<usize> {
                    let each = to.len() / batch;
                    b * each..(b + 1) * each
                };
                let range = head_of(d_q);
                let to = MatMut::from_row_major_slice_mut(&mut d_q.data_mut()[range], n, width)
                    .subcols_mut(h * d_head, d_head);
                let d = Columns::all(&d_scores[..], pos);
                product_into(to, self.factor, d.mat(), self.k.head(b, h));
                let to =
                    MatMut::from_row_major_slice_mut(&mut d_k.data_mut()[own.clone()], pos, width)
                        .subcols_mut(h * d_head, d_head);
                add_transposed_product(to, self.factor, d, of_head(q));
                let to =
                    MatMut::from_row_major_slice_mut(&mut d_v.data_mut()[own.clone()], pos, width)
                        .subcols_mut(h * d_head, d_head);
                add_transposed_product(to, T::ONE, Columns::all(pattern, pos), of_head(d_z));
            }
        }
    }

    /// Writes one head's rows to where someone wants them.
    fn show(&self, hook: Hook, [b, h]: [usize; 2], rows: &[T], sink: &mut Sink<'_, T>) {
        let Some(slot) = sink.slot(hook) else { return };
        let &[_, heads, _, pos] = self.pattern.shape() else {
            unreachable!("patterns have four axes")
        };
        let head = b * heads + h;
        match self.queries {
            None => slot.to[head * rows.len()..][..rows.len()].copy_from_slice(rows),
            Some(at) => slot.write_rows(head..head + 1, at, [pos, pos], rows),
        }
    }
}
