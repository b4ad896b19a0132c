//! The model by its plain definition, in balls.

use super::ball::{Ball, Row, dot, each, exact, scaled, through, total};
use crate::model::{Config, Model, NormWeight, Weights};
use crate::names::{Head, NormSite};

/// A model, and all that its first layer reads.
pub(super) struct Plain<'a> {
    pub c: &'a Config,
    pub w: &'a Weights<f64>,
    /// By position and token the embedding,
    pub embedded: Vec<Row>,
    /// and by head the first layer's queries, keys and values.
    pub first: Vec<Vec<[Row; 3]>>,
}

/// What keys weigh, up to a factor: `e^(score - about the largest)`.
pub(super) fn exponentials(scores: &[Ball]) -> Row {
    let most = scores.iter().map(|s| s.0).fold(f64::MIN, f64::max);
    let of = |s: &Ball| s.minus(Ball::of(most)).exp();
    scores.iter().map(of).collect()
}

impl<'a> Plain<'a> {
    /// Of a model for sequences of up to so many positions.
    pub fn new(model: &'a Model<f64>, positions: usize) -> Plain<'a> {
        let (c, w) = (model.config(), model.weights());
        let mut plain = Plain {
            c,
            w,
            embedded: Vec::new(),
            first: vec![Vec::new(); c.n_heads],
        };
        for (j, t) in (0..positions).flat_map(|j| (0..c.d_vocab).map(move |t| (j, t))) {
            let mut x = exact(w.W_E.slice(&[t]));
            if c.pos_embed() {
                x = each(&x, Ball::plus, &exact(w.W_pos.slice(&[j])));
            }
            let read = plain.norm(NormSite::Ln1(0), &x);
            for head in 0..c.n_heads {
                let own = plain.projected(Head { layer: 0, head }, &read);
                plain.first[head].push(own);
            }
            plain.embedded.push(x);
        }
        plain
    }

    /// The mean taken off, where norms do so.
    pub fn centred(&self, x: &[Ball]) -> Row {
        let mean = total(x).times(Ball::of(x.len() as f64).inverse());
        match self.c.norm.is_some_and(|norm| norm.centred) {
            true => x.iter().map(|x| x.minus(mean)).collect(),
            false => x.to_vec(),
        }
    }

    /// What a norm multiplies by, and what it adds.
    pub fn of_norm(&self, site: NormSite) -> [Row; 2] {
        let [mut w, mut b] = [Ball::ONE, Ball::ZERO].map(|x| vec![x; self.c.d_model]);
        if let (Some(kind), Some(own)) = (self.c.norm, self.w.norms.get(&site)) {
            match kind.weight {
                NormWeight::Absent => {}
                NormWeight::Plain => w = exact(own.w.data()),
                NormWeight::OnePlus => w = each(&w, Ball::plus, &exact(own.w.data())),
            }
            b = own.b.as_ref().map_or(b, |b| exact(b.data()));
        }
        [w, b]
    }

    /// What a norm divides by, of the squares of a mean-free row.
    pub fn scale(&self, squares: Ball) -> Ball {
        let mean = squares.times(Ball::of(self.c.d_model as f64).inverse());
        mean.plus(Ball::of(self.c.eps)).root()
    }

    fn norm(&self, site: NormSite, x: &[Ball]) -> Row {
        if self.c.norm.is_none() {
            return x.to_vec();
        }
        let (x, [w, b]) = (self.centred(x), self.of_norm(site));
        let x = scaled(&x, self.scale(dot(&x, x.iter().copied())).inverse());
        each(&each(&x, Ball::times, &w), Ball::plus, &b)
    }

    /// A head's query, key and value.
    fn projected(&self, h: Head, n: &[Ball]) -> [Row; 3] {
        let w = self.w;
        [
            each(&through(n, w.W_Q(h)), Ball::plus, &exact(w.b_Q(h))),
            each(&through(n, w.W_K(h)), Ball::plus, &exact(w.b_K(h))),
            each(&through(n, w.W_V(h)), Ball::plus, &exact(w.b_V(h))),
        ]
    }

    /// What a head writes of a value.
    pub fn written(&self, h: Head, value: &[Ball]) -> Row {
        through(value, self.w.W_O(h))
    }

    /// With what attention adds whatever it sees.
    pub fn with_b_O(&self, l: usize, x: &[Ball]) -> Row {
        each(x, Ball::plus, &exact(self.w.blocks[l].attn.b_O.data()))
    }

    /// By class, what of the stream is in a logit before the last norm's division.
    pub fn read_out(&self, x: &[Ball]) -> Row {
        let [w, _] = self.of_norm(NormSite::Final);
        through(&each(&self.centred(x), Ball::times, &w), self.w.W_U.rows())
    }

    /// By class, what is added to a logit after it.
    pub fn bias(&self) -> Row {
        let [_, b] = self.of_norm(NormSite::Final);
        let b_U = exact(self.w.b_U.data());
        each(&through(&b, self.w.W_U.rows()), Ball::plus, &b_U)
    }

    pub fn score(&self, l: usize, query: &[Ball], key: &[Ball]) -> Ball {
        let mut scale = Ball::of(self.c.attn_scale);
        if self.c.scale_attn_by_inverse_layer_idx {
            scale = scale.times(Ball::of((l + 1) as f64));
        }
        dot(query, key.iter().copied()).times(scale.inverse())
    }
}
