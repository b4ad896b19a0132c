//! Rotary positions: pairs of a head's entries, turned by an angle for every position.

use super::Layout;
use crate::diagram::Config;
use crate::tensor::{Scalar, Tensor};

/// How far queries and keys at some positions are turned.
#[derive(Clone)]
pub(crate) struct Turns<T> {
    pairs: Vec<(usize, usize)>,
    /// Cosine and sine, `[positions, pairs]`.
    turns: Vec<(T, T)>,
}

impl<T: Scalar> Turns<T> {
    /// At these positions. Angles, sines and cosines are computed in f64 and rounded once.
    pub fn new(c: &Config, positions: impl IntoIterator<Item = usize>) -> Self {
        let (pairs, angles) = (c.rotary_pairs(), c.rotary_angles());
        let at = |position: usize| {
            let turn = move |angle: &f64| {
                let (sin, cos) = (position as f64 * angle).sin_cos();
                (T::from_f64(cos), T::from_f64(sin))
            };
            angles.iter().map(turn).collect::<Vec<_>>()
        };
        let turns = positions.into_iter().flat_map(at).collect();
        Turns { pairs, turns }
    }

    /// Those at some of the positions, by their places.
    pub fn at(&self, places: &[usize]) -> Self {
        let n = self.pairs.len();
        let of = |&p: &usize| &self.turns[p * n..(p + 1) * n];
        Turns {
            pairs: self.pairs.clone(),
            turns: places.iter().flat_map(of).copied().collect(),
        }
    }

    /// Turns `x: [batch, positions, head, d_head]` in place: of a pair `(a, b)` entry `a` becomes `a cos - b sin`, entry
    /// `b` becomes `b cos + a sin`.
    pub fn turn(&self, layout: Layout, x: &mut Tensor<T>) {
        self.rows(layout, x, T::ONE);
    }

    /// Turns a derivative back, which is the transpose.
    pub fn turn_back(&self, layout: Layout, d: &mut Tensor<T>) {
        self.rows(layout, d, -T::ONE);
    }

    fn rows(&self, layout: Layout, x: &mut Tensor<T>, sign: T) {
        let &[batch, positions, heads, d_head] = x.shape() else {
            unreachable!("queries and keys have four axes")
        };
        // Abreast the sequences come last.
        let inner = match layout {
            Layout::Rows(_) => 1,
            Layout::Abreast => batch,
        };
        let head = d_head * inner;
        let turns = self.turns.chunks_exact(self.pairs.len().max(1));
        for rows in x.data_mut().chunks_exact_mut(positions * heads * head) {
            for (row, turns) in rows.chunks_exact_mut(heads * head).zip(turns.clone()) {
                for head in row.chunks_exact_mut(head) {
                    for (&(a, b), &(cos, sin)) in self.pairs.iter().zip(turns) {
                        for i in 0..inner {
                            let (x, y) = (head[a * inner + i], head[b * inner + i]);
                            head[a * inner + i] = x * cos - y * (sign * sin);
                            head[b * inner + i] = y * cos + x * (sign * sin);
                        }
                    }
                }
            }
        }
    }
}
