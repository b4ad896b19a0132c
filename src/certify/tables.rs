//! A model of one layer of attention alone, as tables.
//!
//! With `x(t, j)` the embedding of token `t` at position `j` (`W_E[t]`, plus `W_pos[j]` where positions are learned),
//! and `n(t, j)` the norm of it that the layer reads (`x` itself where there is none), head `h` gives the key `(t, j)`
//! of the query `(q, p)`
//!
//! - the score `s = (n(q, p) W_Q + b_Q) · (n(t, j) W_K + b_K) / attn_scale`, and
//! - the contribution `v = (n(t, j) W_V + b_V) W_O`, `d_model` wide.
//!
//! The stream before the unembedding is `r = x(q, p) + b_O + Σ_h Σ_j a_hj v_h(t_j, j)` with
//! `a_hj = e^{s_hj} / Σ_k e^{s_hk}`. The last norm divides `C r` (`C` takes the mean off, where the norm does) by
//! `σ = √(|C r|² / d_model + eps)`, multiplies by `w`, and adds `b`. So with the columns `U_c = C (w ∘ W_U[:, c])` and
//! `β_c = b · W_U[:, c] + b_U[c]` (without a norm: `C = 1`, `w = 1`, `b = 0`, `σ = 1`)
//!
//! ```text
//! σ logit_c = r · U_c + σ β_c
//!           = direct(q, p)[c] + Σ_h Σ_j a_hj ov_h(t_j, j)[c] + σ β_c
//! ```
//!
//! with `ov = v · U_c` and `direct = (x + b_O) · U_c`. `σ > 0`, so that *u beats w by more than m* is
//! `r · (U_u - U_w) + σ (β_u - β_w - m) > 0`: no division but those by the attention's sums. `|C r|²` is had from
//! `C v` and `C (x + b_O)`, which are kept as well ([`OneLayer::stream`], [`OneLayer::direct_stream`]).

use super::interval::Interval;
use crate::diagram::{NormKind, NormPlace, NormWeight, Order, Positions};
use crate::error::{Error, Result};
use crate::model::{Config, Mask, Model, Norm};
use crate::names::{Head, NormSite};
use faer::MatRef;

/// The tables of a model of one layer without MLP, by token and position.
///
/// *Cost*: `tokens · positions · heads · d_head · (2 d_model + classes)` products, and memory of
/// `16 · tokens · positions · heads · (d_model + classes)` bytes.
#[derive(Clone, Debug)]
pub struct OneLayer {
    /// Tokens of the vocabulary.
    pub tokens: usize,
    /// Positions from the first.
    pub positions: usize,
    /// Heads.
    pub heads: usize,
    /// Columns of the logits.
    pub classes: usize,
    /// Width of the stream.
    pub d_model: usize,
    /// Whether keys behind the query are hidden.
    pub causal: bool,
    /// By class `β`, what is added to a logit after the norm.
    pub bias: Vec<Interval>,
    /// What the last norm adds to the mean square, where there is one.
    pub eps: Option<Interval>,
    d_head: usize,
    scale: Interval,
    /// `[head, pos, token, d_head]`
    queries: Vec<Interval>,
    keys: Vec<Interval>,
    /// `[head, pos, token, class]`
    ov: Vec<Interval>,
    /// `[head, pos, token, d_model]`
    stream: Vec<Interval>,
    /// `[pos, token, class]`
    direct: Vec<Interval>,
    /// `[pos, token, d_model]`
    direct_stream: Vec<Interval>,
    /// By head, a point amid the keys' contributions to the stream; and how far from their sum the heads' sum is at most.
    amid: Vec<Vec<f64>>,
    reach: Interval,
}

/// The columns of a weight, exact.
fn columns(W: MatRef<'_, f64>) -> Vec<Vec<Interval>> {
    let column = |j: usize| (0..W.nrows()).map(|i| Interval::of(W[(i, j)])).collect();
    (0..W.ncols()).map(column).collect()
}

/// `x W + b`, of the columns of `W`.
fn affine(x: &[Interval], columns: &[Vec<Interval>], b: Option<&[f64]>) -> Vec<Interval> {
    let entry = |(j, column): (usize, &Vec<Interval>)| {
        let product = Interval::dot(x, column);
        b.map_or(product, |b| product + Interval::of(b[j]))
    };
    columns.iter().enumerate().map(entry).collect()
}

/// The vector, and its mean taken off where the norm does so.
fn centred(x: &[Interval], centre: bool) -> Vec<Interval> {
    if !centre {
        return x.to_vec();
    }
    let n = Interval::of(x.len() as f64);
    let mean = x.iter().copied().sum::<Interval>() / n;
    x.iter().map(|&x| x - mean).collect()
}

/// What a norm multiplies by.
fn norm_weight(kind: NormKind, own: Option<&Norm<f64>>, i: usize) -> Interval {
    match (kind.weight, own) {
        (NormWeight::Absent, _) | (_, None) => Interval::ONE,
        (NormWeight::Plain, Some(norm)) => Interval::of(norm.w.data()[i]),
        (NormWeight::OnePlus, Some(norm)) => Interval::ONE + Interval::of(norm.w.data()[i]),
    }
}

/// What a norm adds.
fn norm_bias(own: Option<&Norm<f64>>, i: usize) -> Interval {
    let b = own.and_then(|norm| norm.b.as_ref());
    b.map_or(Interval::ZERO, |b| Interval::of(b.data()[i]))
}

fn normed(x: &[Interval], kind: NormKind, own: Option<&Norm<f64>>, eps: f64) -> Vec<Interval> {
    let x = centred(x, kind.centred);
    let squares: Interval = x.iter().map(|x| x.squared()).sum();
    let scale = (squares / Interval::of(x.len() as f64) + Interval::of(eps)).sqrt();
    let entry =
        |(i, &x): (usize, &Interval)| x / scale * norm_weight(kind, own, i) + norm_bias(own, i);
    x.iter().enumerate().map(entry).collect()
}

impl OneLayer {
    /// Whether a model of this configuration is one that the tables are of.
    ///
    /// # Errors
    /// When it is not: why.
    pub fn covers(config: &Config) -> Result<()> {
        let c = config;
        let learned_or_none = matches!(c.positions, Positions::Learned | Positions::None);
        for (fits, reason) in [
            (c.n_layers == 1, "tables are of models of one layer"),
            (c.mlp.is_none(), "tables are of models without MLPs"),
            (learned_or_none, "tables are of learned positions or none"),
            (c.token_types == 0, "tables have no kinds of tokens"),
            (
                c.embed_norm.is_none(),
                "tables have no norm of the embedding",
            ),
            (
                c.norm.is_none() || c.norm_place == NormPlace::Before,
                "tables have norms before the layer alone",
            ),
            (
                c.order == Order::Sequential,
                "tables are of blocks in sequence",
            ),
            (
                c.qk_norm.is_none(),
                "tables have no norms of queries and keys",
            ),
            (
                c.windows.iter().all(Option::is_none),
                "tables have no windows",
            ),
            (
                c.score_cap.is_none() && c.logit_cap.is_none(),
                "tables have no soft caps",
            ),
            (
                c.mlm_head.is_none(),
                "tables have no dense layer before the unembedding",
            ),
            (c.pad_token.is_none(), "tables have no pads"),
        ] {
            if !fits {
                return Err(Error::NotCovered(reason));
            }
        }
        Ok(())
    }

    /// The tables for sequences of up to so many positions.
    ///
    /// # Errors
    /// When the model is of another kind, or has fewer positions.
    pub fn new(model: &Model<f64>, positions: usize) -> Result<OneLayer> {
        let (c, w) = (model.config(), model.weights());
        Self::covers(c)?;
        if positions == 0 || positions > c.n_ctx {
            return Err(Error::SequenceLength {
                len: positions,
                n_ctx: c.n_ctx,
            });
        }
        let (first, last) = (
            w.norms.get(&NormSite::Ln1(0)),
            w.norms.get(&NormSite::Final),
        );
        let centre = c.norm.is_some_and(|kind| kind.centred);
        // U_c, by class, and β.
        let attn = &w.blocks[0].attn;
        let W_U = w.W_U.rows();
        let read_out: Vec<Vec<Interval>> = (0..c.d_vocab_out)
            .map(|class| {
                let scaled = (0..c.d_model).map(|i| {
                    let u = Interval::of(W_U[(i, class)]);
                    c.norm.map_or(u, |kind| norm_weight(kind, last, i) * u)
                });
                centred(&scaled.collect::<Vec<_>>(), centre)
            })
            .collect();
        let bias = (0..c.d_vocab_out).map(|class| {
            let own = Interval::of(w.b_U.data()[class]);
            let terms = 0..c.d_model;
            terms.fold(own, |sum, i| {
                sum + norm_bias(last, i) * Interval::of(W_U[(i, class)])
            })
        });
        let bias = bias.collect();
        let by_class = |v: &[Interval]| {
            read_out
                .iter()
                .map(|u| Interval::dot(v, u))
                .collect::<Vec<_>>()
        };

        let embedded = |t: usize, j: usize| -> Vec<Interval> {
            let own = w.W_E.slice(&[t]);
            let add = |(i, &e): (usize, &f64)| match c.pos_embed() {
                true => Interval::of(e) + Interval::of(w.W_pos[[j, i]]),
                false => Interval::of(e),
            };
            own.iter().enumerate().map(add).collect()
        };
        let places = || (0..positions).flat_map(|j| (0..c.d_vocab).map(move |t| (t, j)));
        let (mut direct, mut direct_stream, mut read) = (Vec::new(), Vec::new(), Vec::new());
        for (t, j) in places() {
            let x = embedded(t, j);
            let with_bias = x
                .iter()
                .zip(attn.b_O.data())
                .map(|(&x, &b)| x + Interval::of(b));
            let own = with_bias.collect::<Vec<_>>();
            direct.extend(by_class(&own));
            direct_stream.extend(centred(&own, centre));
            read.push(
                c.norm
                    .map_or_else(|| x.clone(), |kind| normed(&x, kind, first, c.eps)),
            );
        }
        let (mut queries, mut keys) = (Vec::new(), Vec::new());
        let (mut ov, mut stream) = (Vec::new(), Vec::new());
        for head in (0..c.n_heads).map(|h| Head { layer: 0, head: h }) {
            let (W_Q, W_K) = (columns(w.W_Q(head)), columns(w.W_K(head)));
            let (W_V, W_O) = (columns(w.W_V(head)), columns(w.W_O(head)));
            for n in &read {
                queries.extend(affine(n, &W_Q, Some(w.b_Q(head))));
                keys.extend(affine(n, &W_K, Some(w.b_K(head))));
                let written = affine(&affine(n, &W_V, Some(w.b_V(head))), &W_O, None);
                ov.extend(by_class(&written));
                stream.extend(centred(&written, centre));
            }
        }
        let mut tables = OneLayer {
            amid: Vec::new(),
            reach: Interval::ZERO,
            tokens: c.d_vocab,
            positions,
            heads: c.n_heads,
            classes: c.d_vocab_out,
            d_model: c.d_model,
            causal: c.mask == Mask::Causal,
            bias,
            eps: c.norm.map(|_| Interval::of(c.eps)),
            d_head: c.d_head,
            scale: Interval::of(c.score_scale(0)),
            queries,
            keys,
            ov,
            stream,
            direct,
            direct_stream,
        };
        tables.measure();
        Ok(tables)
    }

    /// Finds [`amid`](OneLayer::amid) and [`reach`](OneLayer::reach).
    fn measure(&mut self) {
        let n = self.positions * self.tokens;
        let rows = |h: usize| {
            self.stream[h * n * self.d_model..][..n * self.d_model].chunks_exact(self.d_model)
        };
        for h in 0..self.heads {
            let mut amid = vec![0.0; self.d_model];
            for row in rows(h) {
                amid.iter_mut()
                    .zip(row)
                    .for_each(|(sum, x)| *sum += x.middle() / n as f64);
            }
            // A head's output is a mean of rows, no further from a point than the furthest of them.
            let far = |row: &[Interval]| -> f64 {
                let squares = row
                    .iter()
                    .zip(&amid)
                    .map(|(&x, &a)| (x - Interval::of(a)).squared());
                squares.sum::<Interval>().sqrt().hi
            };
            let furthest = rows(h).map(far).fold(0.0, f64::max);
            self.reach = self.reach + Interval::of(furthest);
            self.amid.push(amid);
        }
    }

    /// What the last norm divides by, for every input with this query; one where there is no norm.
    ///
    /// `σ >= √eps`; and `C r` is no further from the query's own part and the heads' middles together than
    /// the heads' furthest contributions are.
    pub fn sigma(&self, (q, p): (usize, usize)) -> Interval {
        let Some(eps) = self.eps else {
            return Interval::ONE;
        };
        let point = self.direct_stream(q, p).iter().enumerate().map(|(i, &x)| {
            let amid = self.amid.iter().map(|amid| Interval::of(amid[i]));
            (x + amid.sum::<Interval>()).squared()
        });
        let most = point.sum::<Interval>().sqrt() + self.reach;
        let mean = most.squared() / Interval::of(self.d_model as f64);
        Interval {
            lo: eps.sqrt().lo,
            hi: (mean + eps).sqrt().hi,
        }
    }

    fn row<'a>(
        &self,
        table: &'a [Interval],
        (h, t, j): (usize, usize, usize),
        width: usize,
    ) -> &'a [Interval] {
        let row = (h * self.positions + j) * self.tokens + t;
        &table[row * width..(row + 1) * width]
    }

    /// By class, what token `t` at position `j` adds through head `h`, before the division by `σ`: `ov_h(t, j)`.
    pub fn ov(&self, h: usize, t: usize, j: usize) -> &[Interval] {
        self.row(&self.ov, (h, t, j), self.classes)
    }

    /// The same in the stream, `d_model` wide, the mean taken off where the last norm does so: `C v_h(t, j)`.
    pub fn stream(&self, h: usize, t: usize, j: usize) -> &[Interval] {
        self.row(&self.stream, (h, t, j), self.d_model)
    }

    /// By class, what the query token `t` at position `j` adds itself: `direct(t, j)`.
    pub fn direct(&self, t: usize, j: usize) -> &[Interval] {
        self.row(&self.direct, (0, t, j), self.classes)
    }

    /// The same in the stream: `C (x(t, j) + b_O)`.
    pub fn direct_stream(&self, t: usize, j: usize) -> &[Interval] {
        self.row(&self.direct_stream, (0, t, j), self.d_model)
    }

    /// The score that head `h` gives the key `(t, j)` of the query `(q, p)`.
    pub fn score(&self, h: usize, (q, p): (usize, usize), (t, j): (usize, usize)) -> Interval {
        let query = self.row(&self.queries, (h, q, p), self.d_head);
        let key = self.row(&self.keys, (h, t, j), self.d_head);
        Interval::dot(query, key) / self.scale
    }

    /// `e^(s - m)` of every key of a query, `[head, pos, token]`, with `m` the same for all keys of a head, a number near
    /// the largest of their scores: a pattern is the same whatever is taken off all of its scores. Positions behind the
    /// query have no weight where the mask is causal.
    pub fn exponentials(&self, query: (usize, usize)) -> Vec<Interval> {
        let mut all = Vec::with_capacity(self.heads * self.positions * self.tokens);
        let seen = |j: usize| !self.causal || j <= query.1;
        for h in 0..self.heads {
            let places = (0..self.positions).flat_map(|j| (0..self.tokens).map(move |t| (t, j)));
            let scores: Vec<_> = places
                .map(|(t, j)| seen(j).then(|| self.score(h, query, (t, j))))
                .collect();
            let most = scores.iter().flatten().map(|s| s.middle());
            let most = most.fold(f64::NEG_INFINITY, f64::max);
            // Scores that are not finite bound nothing, and must not be made to by what is taken off.
            let shift = Interval::of(if most.is_finite() { most } else { 0.0 });
            all.extend(
                scores
                    .iter()
                    .map(|s| s.map_or(Interval::ZERO, |s| (s - shift).exp())),
            );
        }
        all
    }

    /// Where a key's entry stands in [`exponentials`](OneLayer::exponentials).
    pub fn key(&self, h: usize, t: usize, j: usize) -> usize {
        (h * self.positions + j) * self.tokens + t
    }
}
