//! What the checker's numbers lie between, for the tests that hold them to exact rationals.

use super::ball::{Ball, Row};
use super::plain::Plain;
use super::run::Run;
use super::tables::Tables;
use crate::model::Model;
use faer::MatRef;

pub(in crate::certify) struct Own<'a>(Plain<'a>);

type Range = (f64, f64);

fn range(x: Ball) -> Range {
    (x.lo(), x.hi())
}

pub(in crate::certify) fn tables(model: &Model<f64>, positions: usize) -> Own<'_> {
    Own(Plain::new(model, positions))
}

/// `e` to what is no further than so much from a number.
pub(in crate::certify) fn exp(x: f64, off: f64) -> Range {
    range(Ball(x, off).exp())
}

/// No less than what a matrix lengthens a vector by, and than its entries' length.
pub(in crate::certify) fn norm(W: MatRef<'_, f64>) -> [f64; 2] {
    super::run::norm(W)
}

/// By sequence, position and class, of sequences that are run abreast.
pub(in crate::certify) fn logits(model: &Model<f64>, tokens: &[Vec<i64>]) -> Vec<Vec<Vec<Range>>> {
    let places: Vec<usize> = (0..tokens[0].len()).collect();
    let plain = Plain::new(model, tokens[0].len());
    let all = Run::new(&plain).logits(tokens, &places);
    let ranges = |row: Row| row.into_iter().map(range).collect();
    let each = |rows: Vec<Row>| rows.into_iter().map(ranges).collect();
    all.into_iter().map(each).collect()
}

impl Own<'_> {
    fn tables(&self) -> Tables<'_> {
        Tables::new(&self.0)
    }
    pub fn direct(&self, (t, j): (usize, usize), class: usize) -> Range {
        let tables = self.tables();
        range(tables.direct[tables.key(t, j)].0[class])
    }
    pub fn sigma(&self, (t, j): (usize, usize)) -> Range {
        let tables = self.tables();
        let [least, most] = tables.direct[tables.key(t, j)].1;
        (least.lo(), most.hi())
    }
    pub fn ov(&self, h: usize, (t, j): (usize, usize), class: usize) -> Range {
        let tables = self.tables();
        let keys = self.0.embedded.len();
        range(tables.ov[class][h * keys + tables.key(t, j)])
    }
    pub fn bias(&self, class: usize) -> Range {
        range(self.tables().bias[class])
    }
    pub fn score(&self, h: usize, query: (usize, usize), key: (usize, usize)) -> Range {
        let tables = self.tables();
        let own = |(t, j): (usize, usize)| &self.0.first[h][tables.key(t, j)];
        range(self.0.score(0, &own(query)[0], &own(key)[1]))
    }
    /// What a key of a query weighs.
    pub fn weights(&self, query: (usize, usize), h: usize) -> impl Fn((usize, usize)) -> Range {
        let (weights, tokens) = (self.tables().weights(query), self.0.c.d_vocab);
        move |(t, j)| range(weights[h][j * tokens + t])
    }
}
