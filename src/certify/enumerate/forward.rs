//! Inputs run through a model abreast in f64, as many at a time as a vector has lanes, with a bound on their logits.
//!
//! Queries, keys and values of the first layer are looked up by token and position. In the last layer only the answers'
//! queries are computed, each head's turned through `W_Kᵀ` so that it meets the rows that the layer reads; of these the
//! pattern's mean is taken before `W_V`. Pads behind the last token of all are left out.

use super::bound::{Arithmetic, Extremes, LogitErrors, Seen};
use super::folded::{Folded, Map};
use crate::kernel::NormAbreast;
use crate::kernel::abreast::{Attend, Gather, Linear, pad_lanes};
use crate::tensor::{lanes, map_in_place, vectorize};
use pulp::Arch;

/// f64: exponentials by [`crate::tensor::Scalar::exp_lane`].
///
/// Its error, in roundoffs: `n ln 2` is taken off in two parts, of which the first is exact and the second off by half
/// of one (`|r| <= 0.35`); the polynomial leaves out `0.35^14 / 14! < 1e-17`; `r² p` and `r + r² p` are off by one of 0.42
/// each, and the last sum, of 0.7 at the least, by one. Together less than 3.
const F64: Arithmetic = Arithmetic {
    roundoff: f64::EPSILON / 2.0,
    exp_error: 2.0 * f64::EPSILON,
    turned: true,
};

/// A model, its first layer's queries, keys and values in tables.
pub(super) struct Abreast {
    pub folded: Folded,
    /// `[pos, token, …]`; none where the first layer is the last.
    first: Option<[Vec<f64>; 3]>,
    /// Of the embedding, over all tokens and positions.
    extremes: Extremes,
    lanes: usize,
}

/// What a run gives.
pub(super) struct Logits {
    /// `[answer, class, lane]`
    pub values: Vec<f64>,
    pub seen: Seen,
}

/// Memory that is used again for the next run.
#[derive(Default)]
pub(in crate::certify) struct Workspace {
    buffers: [Vec<f64>; 9],
}

/// A buffer of a length; what is in it is written over.
fn sized(buffer: &mut Vec<f64>, len: usize) -> &mut [f64] {
    // Never shorter, so that nothing is cleared twice.
    buffer.resize(buffer.len().max(len), 0.0);
    &mut buffer[..len]
}

impl Abreast {
    pub fn new(folded: Folded) -> Abreast {
        let c = &folded.config;
        let (d, lanes) = (c.d_model, lanes::<f64>());
        let mut extremes = Extremes::NONE;
        // Every row in all lanes: what is looked up is what would be computed.
        let spread = |rows: &[f64]| -> Vec<f64> {
            let each = rows.iter().map(|&x| std::iter::repeat_n(x, lanes));
            each.flatten().collect()
        };
        let x = spread(&folded.embedded);
        let mut read = vec![0.0; x.len()];
        normed(&folded, &x, &mut read, &mut extremes, lanes);
        let table = |map: &Map| {
            let mut out = vec![0.0; x.len() / d * map.b.len()];
            linear(map, &read, &mut out, false);
            out.into_iter().step_by(lanes).collect::<Vec<f64>>()
        };
        let layer = &folded.layers[0];
        let first = (folded.layers.len() > 1).then(|| [&layer.q, &layer.k, &layer.v].map(table));
        Abreast {
            first,
            extremes,
            lanes,
            folded,
        }
    }

    /// How many inputs a run takes.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// The logits of as many inputs as there are lanes, or fewer, at the answers' positions.
    ///
    /// *Shapes*: `ids: [input, pos]`.
    pub fn run(&self, ids: &[i64], pos: usize, answers: &[usize], work: &mut Workspace) -> Logits {
        let f = &self.folded;
        let (c, lanes) = (&f.config, self.lanes);
        let (d, stride) = (c.d_model, c.n_heads * c.d_head);
        let inputs = ids.len() / pos;

        // Where a norm bounds what stands at a pad, those behind the last token need not be known.
        let pad = c.pad_token.map(|t| t as i64);
        let ends = ids
            .chunks_exact(pos)
            .map(|s| s.iter().rposition(|&t| Some(t) != pad));
        let end = ends
            .map(|last| last.map_or(0, |p| p + 1))
            .max()
            .unwrap_or(pos);
        let read = answers.iter().max().map_or(0, |&p| p + 1);
        let used = if c.norm.is_some() { end.max(read) } else { pos };
        let ids: Vec<i64> = (ids.chunks_exact(pos))
            .flat_map(|s| &s[..used])
            .copied()
            .collect();
        let pads: Vec<bool> = ids.iter().map(|&t| Some(t) == pad).collect();
        let pad_keys = pads.contains(&true).then(|| pad_lanes::<f64>(&pads, used));
        debug_assert!(inputs <= lanes);
        let rows: Vec<i64> = (ids.iter().enumerate())
            .map(|(i, &t)| (i % used) as i64 * c.d_vocab as i64 + t)
            .collect();
        let gather = |table: &[f64], out: &mut [f64]| {
            Arch::new().dispatch(Gather {
                table,
                d: table.len() / (c.n_ctx * c.d_vocab),
                ids: &rows,
                pos: used,
                out,
            });
        };

        let [x, n, q, k, v, z, at, mean, pre] = &mut work.buffers;
        let mut seen = Seen::new(f.layers.len(), pos);
        // A query that sees pads alone looks at all of them alike: of that no bound is made.
        let blind = |s: &[bool]| {
            if f.causal() {
                s[0]
            } else {
                !s.contains(&false)
            }
        };
        if pads.chunks_exact(used).any(blind) {
            seen.attention(0).add(f64::NAN, f64::NAN);
        }
        let x = sized(x, used * d * lanes);
        gather(&f.embedded, x);
        let all: Vec<usize> = (0..used).collect();
        let (last, before) = f.layers.split_last().expect("one layer at least");
        for (l, layer) in before.iter().enumerate() {
            let [q, k, v, z] = [&mut *q, &mut *k, &mut *v, &mut *z]
                .map(|buffer| sized(buffer, used * stride * lanes));
            match &self.first {
                Some(tables) if l == 0 => {
                    seen.attention(0)
                        .add(self.extremes.squares, self.extremes.scale);
                    for (table, out) in tables.iter().zip([&mut *q, &mut *k, &mut *v]) {
                        gather(table, out);
                    }
                }
                _ => {
                    let n = sized(n, x.len());
                    normed(f, x, n, seen.attention(l), lanes);
                    linear(&layer.q, n, q, false);
                    linear(&layer.k, n, k, false);
                    linear(&layer.v, n, v, false);
                }
            }
            Arch::new().dispatch(Attend {
                queries: &all,
                pos: used,
                heads: c.n_heads,
                d_head: c.d_head,
                q,
                k,
                v,
                factor: layer.factor,
                causal: f.causal(),
                pad_keys: pad_keys.as_deref(),
                scores: None,
                pattern: None,
                z,
            });
            linear(&layer.o, z, x, true);
            neurons(f, &layer.mlp, x, [n, pre], seen.neurons(l), lanes);
        }

        // The last layer, at the answers.
        let n = sized(n, x.len());
        normed(f, x, n, seen.attention(before.len()), lanes);
        let at = sized(at, answers.len() * d * lanes);
        pick(n, answers, at);
        let [q, z] = [q, z].map(|buffer| sized(buffer, answers.len() * stride * lanes));
        linear(&last.q, at, q, false);
        let (own, turned) = (
            sized(k, answers.len() * c.d_head * lanes),
            sized(v, answers.len() * d * lanes),
        );
        let mean = sized(mean, answers.len() * d * lanes);
        let width = c.d_head * lanes;
        for h in 0..c.n_heads {
            for (own, q) in own
                .chunks_exact_mut(width)
                .zip(q.chunks_exact(stride * lanes))
            {
                own.copy_from_slice(&q[h * width..(h + 1) * width]);
            }
            linear(&last.k_transposed[h], own, turned, false);
            Arch::new().dispatch(Attend {
                queries: answers,
                pos: used,
                heads: 1,
                d_head: d,
                q: turned,
                k: n,
                v: n,
                factor: last.factor,
                causal: f.causal(),
                pad_keys: pad_keys.as_deref(),
                scores: None,
                pattern: None,
                z: mean,
            });
            linear(&last.v_by_head[h], mean, own, false);
            for (own, z) in own
                .chunks_exact(width)
                .zip(z.chunks_exact_mut(stride * lanes))
            {
                z[h * width..(h + 1) * width].copy_from_slice(own);
            }
        }
        pick(x, answers, at);
        linear(&last.o, z, at, true);
        neurons(
            f,
            &last.mlp,
            at,
            [v, pre],
            seen.neurons(before.len()),
            lanes,
        );
        let n = sized(v, at.len());
        normed(f, at, n, seen.unembed(), lanes);
        let mut values = vec![0.0; answers.len() * c.d_vocab_out * lanes];
        linear(&f.unembed, n, &mut values, false);
        Logits { values, seen }
    }

    /// What the logits of a run may be off by.
    pub fn errors(&self, logits: &Logits) -> LogitErrors {
        self.folded.errors(F64, &logits.seen)
    }
}

/// `out = x W + b`, or `out += x W + b`.
fn linear(map: &Map, x: &[f64], out: &mut [f64], add: bool) {
    Arch::new().dispatch(Linear {
        x,
        W: &map.W,
        b: &map.b,
        add,
        out,
    });
}

/// The rows at some positions.
fn pick(x: &[f64], positions: &[usize], out: &mut [f64]) {
    let row = out.len() / positions.len();
    for (out, &p) in out.chunks_exact_mut(row).zip(positions) {
        out.copy_from_slice(&x[p * row..(p + 1) * row]);
    }
}

/// What reads the stream: the norm without its weights, or the stream; what it meets is noted.
fn normed(f: &Folded, x: &[f64], out: &mut [f64], seen: &mut Extremes, lanes: usize) {
    let d = f.config.d_model;
    let mut scale = vec![f64::INFINITY; x.len() / d];
    match f.config.norm {
        Some(kind) => Arch::new().dispatch(NormAbreast {
            x,
            centred: kind.centred,
            eps: f.config.eps,
            affine: None,
            scale: &mut scale,
            out,
        }),
        None => out.copy_from_slice(x),
    }
    let mut squares = vec![0.0; x.len() / d];
    vectorize(
        #[inline(always)]
        || {
            let rows = x
                .chunks_exact(d * lanes)
                .zip(squares.chunks_exact_mut(lanes));
            for (x, squares) in rows {
                for x in x.chunks_exact(lanes) {
                    squares.iter_mut().zip(x).for_each(|(s, &x)| *s += x * x);
                }
            }
        },
    );
    for (&squares, &scale) in squares.iter().zip(&scale) {
        seen.add(squares, scale);
    }
}

/// Adds what a layer's neurons write.
fn neurons(
    f: &Folded,
    mlp: &Option<(Map, Map)>,
    x: &mut [f64],
    [n, pre]: [&mut Vec<f64>; 2],
    seen: &mut Extremes,
    lanes: usize,
) {
    let Some((into, out)) = mlp else { return };
    let n = sized(n, x.len());
    normed(f, x, n, seen, lanes);
    let pre = sized(pre, x.len() / f.config.d_model * into.b.len());
    linear(into, n, pre, false);
    // A NaN stays one.
    map_in_place(pre, |x| if x < 0.0 { 0.0 } else { x });
    linear(out, pre, x, true);
}
