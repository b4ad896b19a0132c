//! The checker's tables, formed from the weights by the plain definition.

use super::ball::Ball;
use crate::certify::OneLayer;
use crate::error::Result;
use crate::model::{Mask, Model, Norm, NormWeight};
use crate::names::{Head, NormSite};

/// Tables of the model, all by head, position and token.
pub(super) struct Tables {
    pub(super) heads: usize,
    pub(super) positions: usize,
    pub(super) tokens: usize,
    pub(super) d_model: usize,
    pub(super) causal: bool,
    pub(super) eps: Option<f64>,
    pub(super) scale: f64,
    pub(super) bias: Vec<Ball>,
    pub(super) queries: Vec<Vec<Ball>>,
    pub(super) keys: Vec<Vec<Ball>>,
    pub(super) ov: Vec<Vec<Ball>>,
    pub(super) stream: Vec<Vec<Ball>>,
    pub(super) direct: Vec<Vec<Ball>>,
    pub(super) direct_stream: Vec<Vec<Ball>>,
    /// By head a point, and how far from it all of `stream` is at most.
    pub(super) amid: Vec<(Vec<f64>, f64)>,
}

impl Tables {
    pub(super) fn new(model: &Model<f64>, positions: usize) -> Result<Tables> {
        let (c, w) = (model.config(), model.weights());
        OneLayer::covers(c)?;
        let balls = |x: &[f64]| x.iter().map(|&x| Ball::of(x)).collect::<Vec<_>>();
        let columns = |W: faer::MatRef<'_, f64>| -> Vec<Vec<Ball>> {
            let column = |j| (0..W.nrows()).map(|i| Ball::of(W[(i, j)])).collect();
            (0..W.ncols()).map(column).collect()
        };
        let linear = |x: &[Ball], W: &[Vec<Ball>], b: &[f64]| -> Vec<Ball> {
            let bias = |j: usize| b.get(j).map_or(Ball::ZERO, |&b| Ball::of(b));
            W.iter()
                .enumerate()
                .map(|(j, column)| Ball::dot(x, column).plus(bias(j)))
                .collect()
        };
        let inverse_width = Ball::of(c.d_model as f64).inverse();
        let centre = |x: Vec<Ball>| -> Vec<Ball> {
            if !c.norm.is_some_and(|norm| norm.centred) {
                return x;
            }
            let mean = x
                .iter()
                .fold(Ball::ZERO, |sum, &x| sum.plus(x))
                .times(inverse_width);
            x.into_iter().map(|x| x.minus(mean)).collect()
        };
        let weight = |norm: Option<&Norm<f64>>, i: usize| {
            let own = norm.map_or(Ball::of(1.0), |norm| Ball::of(norm.w.data()[i]));
            match c.norm.map(|norm| norm.weight) {
                Some(NormWeight::OnePlus) => own.plus(Ball::of(1.0)),
                Some(NormWeight::Plain) => own,
                Some(NormWeight::Absent) | None => Ball::of(1.0),
            }
        };
        let added = |norm: Option<&Norm<f64>>, i: usize| {
            let b = norm.and_then(|norm| norm.b.as_ref());
            b.map_or(Ball::ZERO, |b| Ball::of(b.data()[i]))
        };
        let (first, last) = (
            w.norms.get(&NormSite::Ln1(0)),
            w.norms.get(&NormSite::Final),
        );
        let attn = &w.blocks[0].attn;
        let W_U = columns(w.W_U.rows());
        let bias = W_U.iter().zip(w.b_U.data()).map(|(u, &b)| {
            let terms = u.iter().enumerate().map(|(i, &u)| added(last, i).times(u));
            terms.fold(Ball::of(b), Ball::plus)
        });
        let bias = bias.collect();
        let read_out: Vec<Vec<Ball>> = W_U
            .iter()
            .map(|u| {
                centre(
                    u.iter()
                        .enumerate()
                        .map(|(i, &u)| weight(last, i).times(u))
                        .collect(),
                )
            })
            .collect();
        let by_class = |x: &[Ball]| linear(x, &read_out, &[]);
        let (mut read, mut direct, mut direct_stream) = (Vec::new(), Vec::new(), Vec::new());
        for place in 0..positions * c.d_vocab {
            let (j, t) = (place / c.d_vocab, place % c.d_vocab);
            let mut x = balls(w.W_E.slice(&[t]));
            if c.pos_embed() {
                let W_pos = w.W_pos.slice(&[j]);
                x.iter_mut()
                    .zip(W_pos)
                    .for_each(|(x, &p)| *x = x.plus(Ball::of(p)));
            }
            let own: Vec<Ball> = x
                .iter()
                .zip(attn.b_O.data())
                .map(|(x, &b)| x.plus(Ball::of(b)))
                .collect();
            direct.push(by_class(&own));
            direct_stream.push(centre(own));
            if c.norm.is_some() {
                x = centre(x);
                let scale = Ball::dot(&x, &x)
                    .times(inverse_width)
                    .plus(Ball::of(c.eps))
                    .root()
                    .inverse();
                let entry = |(i, x): (usize, &Ball)| {
                    x.times(scale).times(weight(first, i)).plus(added(first, i))
                };
                x = x.iter().enumerate().map(entry).collect();
            }
            read.push(x);
        }
        let (mut queries, mut keys, mut ov, mut stream, mut amid) = Default::default();
        for head in (0..c.n_heads).map(|head| Head { layer: 0, head }) {
            let [W_Q, W_K, W_V, W_O] =
                [w.W_Q(head), w.W_K(head), w.W_V(head), w.W_O(head)].map(columns);
            let all = |W: &[Vec<Ball>], b: &[f64]| {
                read.iter().map(|n| linear(n, W, b)).collect::<Vec<_>>()
            };
            Vec::extend(&mut queries, all(&W_Q, w.b_Q(head)));
            Vec::extend(&mut keys, all(&W_K, w.b_K(head)));
            let own: Vec<_> = all(&W_V, w.b_V(head))
                .iter()
                .map(|v| linear(v, &W_O, &[]))
                .collect();
            Vec::extend(&mut ov, own.iter().map(|v| by_class(v)));
            let own: Vec<_> = own.into_iter().map(centre).collect();
            let mean = |i: usize| own.iter().map(|v| v[i].m).sum::<f64>() / own.len() as f64;
            let point: Vec<f64> = (0..c.d_model).map(mean).collect();
            let away = |v: &Vec<Ball>| {
                let off: Vec<Ball> = v
                    .iter()
                    .zip(&point)
                    .map(|(v, &p)| v.minus(Ball::of(p)))
                    .collect();
                Ball::of(Ball::dot(&off, &off).hi().max(f64::MIN_POSITIVE))
                    .root()
                    .hi()
            };
            let most = own.iter().map(away).fold(0.0, f64::max);
            Vec::push(&mut amid, (point, most));
            Vec::extend(&mut stream, own);
        }
        Ok(Tables {
            heads: c.n_heads,
            positions,
            tokens: c.d_vocab,
            d_model: c.d_model,
            causal: c.mask == Mask::Causal,
            eps: c.norm.map(|_| c.eps),
            scale: c.score_scale(0),
            bias,
            queries,
            keys,
            ov,
            stream,
            direct,
            direct_stream,
            amid,
        })
    }

    pub(super) fn at(&self, h: usize, (t, j): (usize, usize)) -> usize {
        (h * self.positions + j) * self.tokens + t
    }

    /// `e^(score - shift)`.
    pub(super) fn e(
        &self,
        h: usize,
        query: (usize, usize),
        key: (usize, usize),
        shift: f64,
    ) -> Ball {
        let score = Ball::dot(
            &self.queries[self.at(h, query)],
            &self.keys[self.at(h, key)],
        );
        score
            .times(Ball::of(self.scale).inverse())
            .minus(Ball::of(shift))
            .exp()
    }

    /// The largest of some scores, about.
    pub(super) fn shift(
        &self,
        h: usize,
        query: (usize, usize),
        keys: impl Iterator<Item = (usize, usize)>,
    ) -> f64 {
        let q = &self.queries[self.at(h, query)];
        let score = |key| {
            q.iter()
                .zip(&self.keys[self.at(h, key)])
                .map(|(q, k)| q.m * k.m)
                .sum::<f64>()
        };
        keys.map(score).fold(f64::NEG_INFINITY, f64::max) / self.scale
    }

    /// The least and the largest `σ` of a sequence's stream, given what it squares to.
    pub(super) fn sigma(&self, squares: Ball) -> [Ball; 2] {
        let Some(eps) = self.eps else {
            return [Ball::of(1.0); 2];
        };
        let mean = squares.times(Ball::of(self.d_model as f64).inverse());
        let least = Ball::of(eps.max(mean.plus(Ball::of(eps)).lo())).root().lo();
        [
            Ball::of(least),
            Ball::of(mean.plus(Ball::of(eps)).hi()).root(),
        ]
    }

    /// `a` beats `b` by more than the margin, for what the stream gives each of the two besides; no more than by this.
    pub(super) fn above(&self, (a, b): (usize, usize), margin: f64, sigma: [Ball; 2]) -> f64 {
        let over = self.bias[a].minus(self.bias[b]).minus(Ball::of(margin));
        sigma
            .map(|sigma| sigma.times(over).lo())
            .into_iter()
            .fold(f64::INFINITY, f64::min)
    }

    /// Whether one input's answer is right or wrong.
    pub(super) fn mark(&self, sequence: &[i64], p: usize, u: usize, margin: f64) -> Option<bool> {
        let key = |j: usize| (sequence[j] as usize, j);
        let (query, seen) = (key(p), 0..if self.causal { p + 1 } else { sequence.len() });
        let mut logits = self.direct[self.at(0, query)].clone();
        let mut stream = self.direct_stream[self.at(0, query)].clone();
        for h in 0..self.heads {
            let shift = self.shift(h, query, seen.clone().map(key));
            let e: Vec<Ball> = seen
                .clone()
                .map(|j| self.e(h, query, key(j), shift))
                .collect();
            let inverse = e.iter().fold(Ball::ZERO, |sum, &e| sum.plus(e)).inverse();
            for (j, e) in seen.clone().zip(e) {
                let (a, at) = (e.times(inverse), self.at(h, key(j)));
                logits
                    .iter_mut()
                    .zip(&self.ov[at])
                    .for_each(|(to, &v)| *to = to.plus(a.times(v)));
                stream
                    .iter_mut()
                    .zip(&self.stream[at])
                    .for_each(|(to, &v)| *to = to.plus(a.times(v)));
            }
        }
        let sigma = self.sigma(Ball::dot(&stream, &stream));
        let beats = |a: usize, b: usize| {
            let rest = self.above((a, b), margin, sigma);
            logits[a].minus(logits[b]).plus(Ball::of(rest)).lo() > 0.0
        };
        let mut rivals = (0..logits.len()).filter(|&w| w != u);
        let right = rivals.clone().all(|w| beats(u, w));
        if right {
            Some(true)
        } else {
            rivals.any(|w| beats(w, u)).then_some(false)
        }
    }
}
