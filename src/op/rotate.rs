//! Rotary positions: pairs of a head's entries, turned by an angle for every position.

use super::{Layout, split};
use crate::diagram::RotaryPositions;
use crate::tensor::{Scalar, Tensor};

/// How far queries and keys at some positions are turned.
#[derive(Clone)]
pub(crate) struct Turns<T> {
    pairs: Vec<(usize, usize)>,
    /// Cosine and sine, `[rows, pairs]`: of each position, the same for all sequences, or of each row of theirs.
    turns: Vec<(T, T)>,
}

/// Where a row stands: at which position of a sequence of how many tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub position: usize,
    pub length: usize,
}

impl<T: Scalar> Turns<T> {
    /// At these places. Angles, sines and cosines are computed in f64 and rounded once.
    pub fn new(rotary: &RotaryPositions, places: impl IntoIterator<Item = Place>) -> Self {
        let (pairs, scale) = (rotary.pairs(), rotary.scale());
        let mut known = (0, Vec::new());
        let mut turns = Vec::new();
        for place in places {
            if known.0 != place.length {
                known = (place.length, rotary.angles(place.length));
            }
            turns.extend(known.1.iter().map(|angle| {
                let (sin, cos) = (place.position as f64 * angle).sin_cos();
                (T::from_f64(scale * cos), T::from_f64(scale * sin))
            }));
        }
        Turns { pairs, turns }
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
        let pairs = self.pairs.len().max(1);
        let rows = self.turns.len() / pairs;
        debug_assert!(rows.is_multiple_of(positions));
        split(layout.par(), x.data_mut(), heads * head, |first, x| {
            let turns = self.turns.chunks_exact(pairs).cycle();
            let turns = turns.skip(first % rows.max(1));
            for (row, turns) in x.chunks_exact_mut(heads * head).zip(turns) {
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
        });
    }
}
