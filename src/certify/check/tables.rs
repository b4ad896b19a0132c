//! What keys of a one-layer model are worth alone: the tables that bounds of sets are made of.

use super::ball::{Ball, Row, dot, each};
use super::plain::{Plain, exponentials};
use crate::model::Mask;
use crate::names::Head;

pub(super) struct Tables<'a> {
    pub plain: &'a Plain<'a>,
    /// By class, and by head, position and token, what a key adds before the last norm's division.
    pub ov: Vec<Row>,
    /// By position and token of a query and by class, what it adds itself; and between what `σ` is.
    pub direct: Vec<(Row, [Ball; 2])>,
    /// By class, what is added after the division.
    pub bias: Row,
}

/// No less than a vector's length.
fn length(x: &[Ball]) -> Ball {
    let squares = dot(x, x.iter().copied()).hi().max(f64::MIN_POSITIVE);
    Ball::of(Ball::of(squares).root().hi())
}

impl Tables<'_> {
    pub fn new<'a>(plain: &'a Plain<'a>) -> Tables<'a> {
        let c = plain.c;
        let mut ov = vec![Row::new(); c.d_vocab_out];
        // A point amid what the heads write, and how far from it they write at most: no mean of keys is further.
        let (mut amid, mut reach) = (vec![Ball::ZERO; c.d_model], Ball::ZERO);
        for (head, first) in plain.first.iter().enumerate() {
            let h = Head { layer: 0, head };
            let written: Vec<Row> = first.iter().map(|own| plain.written(h, &own[2])).collect();
            for x in &written {
                let read = plain.read_out(x);
                ov.iter_mut().zip(read).for_each(|(ov, x)| ov.push(x));
            }
            let written: Vec<Row> = written.iter().map(|x| plain.centred(x)).collect();
            let n = written.len() as f64;
            let mean = |i: usize| Ball::of(written.iter().map(|x| x[i].0 / n).sum());
            let point: Row = (0..c.d_model).map(mean).collect();
            let away = |x: &Row| length(&each(x, Ball::minus, &point)).0;
            reach = reach.plus(Ball::of(written.iter().map(away).fold(0.0, f64::max)));
            amid = each(&amid, Ball::plus, &point);
        }
        let direct = |x: &Row| {
            let x = plain.with_b_O(0, x);
            let far = length(&each(&plain.centred(&x), Ball::plus, &amid)).plus(reach);
            let [least, most] = [Ball::ZERO, far.times(far)].map(|far| plain.scale(far));
            let sigma = match c.norm.is_some() {
                true => [least.lo().max(0.0), most.hi()],
                false => [1.0, 1.0],
            };
            (plain.read_out(&x), sigma.map(Ball::of))
        };
        let direct = plain.embedded.iter().map(direct).collect();
        let bias = plain.bias();
        Tables {
            plain,
            ov,
            direct,
            bias,
        }
    }

    /// Where a token at a position stands among keys.
    pub fn key(&self, t: usize, j: usize) -> usize {
        j * self.plain.c.d_vocab + t
    }

    /// By head and key, what a query's keys weigh; zero for those that it does not see.
    pub fn weights(&self, (q, p): (usize, usize)) -> Vec<Row> {
        let seen = match self.plain.c.mask {
            Mask::Causal => self.key(0, p + 1),
            Mask::All => self.direct.len(),
        };
        let of = |own: &Vec<[Row; 3]>| {
            let query = &own[self.key(q, p)][0];
            let score = |own: &[Row; 3]| self.plain.score(0, query, &own[1]);
            let mut e = exponentials(&own[..seen].iter().map(score).collect::<Row>());
            e.resize(self.direct.len(), Ball::ZERO);
            e
        };
        self.plain.first.iter().map(of).collect()
    }

    /// No more than what `a` has over `b` and the margin, but for what keys add.
    pub fn rest(&self, (q, p): (usize, usize), (a, b): (usize, usize), margin: f64) -> Ball {
        let (direct, sigma) = &self.direct[self.key(q, p)];
        let over = self.bias[a].minus(self.bias[b]).minus(Ball::of(margin));
        let [least, most] = sigma.map(|sigma| sigma.times(over).lo());
        let own = direct[a].minus(direct[b]);
        own.plus(Ball::of(least.min(most)))
    }
}
