//! Paths: what each way through the heads adds to a logit, with a run's patterns and scales frozen.
//!
//! With its attention patterns and LayerNorm scales held at a run's values, and each MLP's output taken as it
//! was, a transformer is linear: its logits are a sum over *paths*. A path starts at something that writes to
//! the stream ([`Start`]), passes any number of heads in ascending layers, and ends at the unembedding.
//!
//! Source: Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021), "Path expansion trick".

mod enumerate;
mod reach;
mod remainder;
mod search;
mod sums;

pub use enumerate::count;
pub use search::{Certificate, Top};
pub use sums::{LogitPaths, Sum};

use super::logits::plain_stream;
use super::precision::{in_precision, norm_in_precision, tensor_in_precision};
use super::scores::Side;
use crate::error::{Error, Result};
use crate::linalg::{Par, product_into};
use crate::model::{Cache, Config, Model};
use crate::names::NormSite;
use crate::names::{Head, Hook};
use crate::op::NormMap;
use crate::tensor::{Scalar, Tensor, check_room};
use faer::{Mat, MatRef};
use rayon::prelude::*;
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// Where a path starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Start {
    /// The tokens' rows of `W_E`.
    Embed,
    /// The positions' rows of `W_pos`.
    PosEmbed,
    /// The `b` of a layer's `ln1`, read by a head of that layer, which is the path's first; or by the query or key whose
    /// score it is.
    NormBias(usize),
    /// A head's `b_V` through its pattern and `W_O`. The head itself is none of the path's heads.
    ValueBias(Head),
    /// A layer's `b_O`.
    AttnBias(usize),
    /// A layer's MLP: what its neurons write, without `b_out`.
    Mlp(usize),
    /// A layer's `b_out`.
    MlpBias(usize),
    /// The `b` of `ln_final`, straight into the unembedding.
    FinalNormBias,
    /// `b_U`, straight into the logits.
    UnembedBias,
    /// Of paths to a score: the head's `b_Q` or `b_K`, straight into the query or key.
    ScoreBias(Head, Side),
    /// Of paths to a score: the `b` of a layer's norm of queries or keys.
    ScoreNormBias(usize, Side),
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Start::Embed => f.write_str("W_E"),
            Start::PosEmbed => f.write_str("W_pos"),
            Start::NormBias(l) => write!(f, "ln1.b[{l}]"),
            Start::ValueBias(h) => write!(f, "b_V[{h}]"),
            Start::AttnBias(l) => write!(f, "b_O[{l}]"),
            Start::Mlp(l) => write!(f, "mlp {l}"),
            Start::MlpBias(l) => write!(f, "b_out[{l}]"),
            Start::FinalNormBias => f.write_str("ln_final.b"),
            Start::UnembedBias => f.write_str("b_U"),
            Start::ScoreBias(h, Side::Query) => write!(f, "b_Q[{h}]"),
            Start::ScoreBias(h, Side::Key) => write!(f, "b_K[{h}]"),
            Start::ScoreNormBias(l, Side::Query) => write!(f, "q_norm.b[{l}]"),
            Start::ScoreNormBias(l, Side::Key) => write!(f, "k_norm.b[{l}]"),
        }
    }
}

impl Serialize for Start {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A path, written `W_E → 0.1 → 1.0`: what starts it and the heads it passes, to the unembedding.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// Where it starts.
    pub start: Start,
    /// The heads, in ascending layers; none for a direct path. The head whose score it is, is none of them.
    pub heads: Vec<Head>,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.start)?;
        self.heads.iter().try_for_each(|h| write!(f, " → {h}"))
    }
}

impl Serialize for Path {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A path and what it adds to a logit or a score.
#[derive(Clone, Debug, PartialEq)]
pub struct Contribution<T> {
    /// The path.
    pub path: Path,
    /// What it adds.
    pub value: T,
}

/// An attention layer, frozen: what its heads do is linear.
struct Layer<'a, T: Scalar> {
    /// `[head, query, key]`
    patterns: Cow<'a, [T]>,
    n_heads: usize,
    pos: usize,
    /// `1 / scale` of `ln1` at each position; ones where there is no norm.
    inverse_scale: Vec<T>,
    /// `W_V` with `ln1`'s centring and `w` folded in, `[d_model, group, d_head]`: a head's values are
    /// `x W_V / scale`.
    W_V: Cow<'a, Tensor<T>>,
    /// `[head, d_head, d_model]`
    W_O: Cow<'a, Tensor<T>>,
    /// `ln1.b W_V`, `[head, d_head]`, where the norm has a `b`.
    b: Option<Tensor<T>>,
    /// What its heads' values are computed from, for error bounds.
    sizes: Vec<ValueSizes<T>>,
}

/// The norms of the terms that a head's values are computed from.
struct ValueSizes<T> {
    /// Of the folded `W_V`.
    W_V: T,
    /// Of `ln1.b W_V`.
    b: T,
}

impl<T: Scalar> Layer<'_, T> {
    /// A head's folded `W_V`: `[d_model, d_head]`.
    fn W_V(&self, head: usize) -> MatRef<'_, T> {
        let a_group = self.n_heads / self.W_V.shape()[1];
        self.W_V.of_head(head / a_group)
    }

    /// A head's pattern, `[query, key]`.
    fn pattern(&self, head: usize) -> MatRef<'_, T> {
        let each = self.pos * self.pos;
        let pattern = &self.patterns[head * each..][..each];
        MatRef::from_row_major_slice(pattern, self.pos, self.pos)
    }
}

/// What makes logits of the stream's end.
struct Unembedding<'a, T: Scalar> {
    /// An entry of `W_U`.
    W_U: Box<dyn Fn(usize, usize) -> T + Send + Sync + 'a>,
    b_U: Cow<'a, [T]>,
    norm: Option<NormMap<'static, T>>,
    /// The scale of `ln_final` at each position, where there is that norm.
    scale: Option<Cow<'a, [T]>>,
}

/// Something written to the stream.
struct StreamWrite<'a, T: Scalar> {
    start: Start,
    /// The first layer whose heads read it.
    level: usize,
    value: WrittenValue<'a, T>,
    /// The size, beside the value's own, of the terms that it was computed from: for error bounds.
    from: T,
}

enum WrittenValue<'a, T: Scalar> {
    /// A row for every position.
    Rows(Cow<'a, [T]>),
    /// One row, and how much of it each position gets.
    Multiples { of: Vec<T>, by: Vec<T> },
}

impl<T: Scalar> WrittenValue<'_, T> {
    /// What is written at a position: a row, and a factor.
    fn at(&self, position: usize, d: usize) -> (&[T], T) {
        match self {
            WrittenValue::Rows(rows) => (&rows[position * d..][..d], T::ONE),
            WrittenValue::Multiples { of, by } => (of, by[position]),
        }
    }

    /// The sum over positions of the products with a cotangent's rows, `[pos, d]`.
    fn along(&self, cotangent: MatRef<'_, T>) -> T {
        let d = cotangent.ncols();
        let at = |p: usize| {
            let (row, by) = self.at(p, d);
            let row = row.iter().enumerate();
            by * row.map(|(i, &x)| x * cotangent[(p, i)]).sum::<T>()
        };
        (0..cotangent.nrows()).map(at).sum()
    }
}

/// The paths of one sequence's run: its patterns, scales and MLP outputs, held fixed.
///
/// The run may be of another precision than what is done with its paths: `Paths::<f64>` of a run in f32 takes its values
/// and the weights as they are, and multiplies and adds in f64, so that its bounds on rounding are those of f64.
///
/// ```
/// use pathsum::decompose::{Logit, Paths};
/// use pathsum::{Par, Run, Tokens, fixture};
/// let model = fixture::induction::<f64>();
/// let out = model.run(&Tokens::from_rows(&[[7, 3, 9, 7]]), Run::new().cache("*"))?;
/// let paths = Paths::<f64>::new(&model, &out.cache, 0, Par::Seq)?;
/// let to_3 = paths.to_logit(3, Logit::Difference(3, 9))?;
/// // The induction head copies the token's own embedding, and that is the whole of it.
/// let top = to_3.top(1, 1000)?;
/// assert_eq!(top.paths[0].path.to_string(), "W_E → 1.0");
/// assert!(top.certificate.together.abs() + top.certificate.rounding < 1e-6);
/// # Ok::<(), pathsum::Error>(())
/// ```
pub struct Paths<'a, T: Scalar> {
    config: &'a Config,
    pos: usize,
    par: Par,
    layers: Vec<Layer<'a, T>>,
    /// In the order in which they are written: those that a layer reads come first.
    starts: Vec<StreamWrite<'a, T>>,
    unembedding: Unembedding<'a, T>,
}

impl<'a, T: Scalar> Paths<'a, T> {
    /// The hooks that a run must keep.
    pub fn hooks(config: &Config) -> Vec<Hook> {
        let needed = |h: &Hook| {
            matches!(
                h,
                Hook::Embed
                    | Hook::PosEmbed
                    | Hook::Pattern(_)
                    | Hook::MlpOut(_)
                    | Hook::Scale(NormSite::Ln1(_))
                    | Hook::Scale(NormSite::Final)
            )
        };
        config.hooks().into_iter().filter(needed).collect()
    }

    /// The paths of one of a run's sequences, in `T` whatever the run's precision `U`.
    ///
    /// `par` says whether this and what is then asked of the paths is split over threads, by head.
    ///
    /// # Errors
    /// When the cache lacks one of [`Paths::hooks`], there is no such sequence, the model's stream is no plain sum behind
    /// one norm, or there is no memory for the copies.
    ///
    /// # Panics
    /// When `T` is less precise than the run: its values would not be what they are.
    ///
    /// # Cost
    /// A copy of `W_V` where there are norms, and of one row a bias; in another precision than the run's, of `W_O` and the
    /// patterns too.
    #[track_caller]
    pub fn new<U: Scalar>(
        model: &'a Model<U>,
        cache: &'a Cache<U>,
        sequence: usize,
        par: Par,
    ) -> Result<Self> {
        let c = model.config();
        assert!(
            T::EPSILON.to_f64() <= U::EPSILON.to_f64(),
            "paths in {} of a run in {}",
            T::PRECISION,
            U::PRECISION
        );
        plain_stream(c)?;
        let embed = cache.require(Hook::Embed)?;
        let &[batch, pos, d] = embed.shape() else {
            unreachable!("a stream is [batch, pos, d]")
        };
        if sequence >= batch {
            return Err(Error::out_of_range(
                "sequence",
                sequence,
                "",
                "the run's sequences",
                0..batch,
            ));
        }
        if T::PRECISION != U::PRECISION {
            let heads = (c.n_layers * c.n_heads) as u64;
            let each = (pos * pos + 3 * c.d_head * d) as u64;
            let bytes = heads * each * size_of::<T>() as u64;
            check_room(bytes, "the patterns and weights in another precision")?;
        }
        let rows = |hook: Hook| Ok(in_precision(cache.require(hook)?.slice(&[sequence])));
        let scale = |hook: Hook| match c.norm {
            Some(_) => rows(hook).map(Some),
            None => Result::Ok(None),
        };
        let mut starts: Vec<StreamWrite<'a, T>> = Vec::new();
        let mut layers = Vec::new();
        let mut write = |start: Start, level: usize, value: WrittenValue<'a, T>, from: T| {
            starts.push(StreamWrite {
                start,
                level,
                value,
                from,
            });
        };
        write(
            Start::Embed,
            0,
            WrittenValue::Rows(rows(Hook::Embed)?),
            T::ZERO,
        );
        if c.pos_embed() {
            let pos_embed = WrittenValue::Rows(rows(Hook::PosEmbed)?);
            write(Start::PosEmbed, 0, pos_embed, T::ZERO);
        }
        for (l, block) in model.weights().blocks.iter().enumerate() {
            let attn = &block.attn;
            let scale = scale(Hook::Scale(NormSite::Ln1(l)))?;
            let ln1 = norm_in_precision::<U, T>(model, NormSite::Ln1(l));
            let W_V = tensor_in_precision(&attn.W_V);
            let b_V = in_precision::<U, T>(attn.b_V.data());
            let b = ln1.as_ref().and_then(|norm| norm.b());
            let layer = Layer {
                patterns: rows(Hook::Pattern(l))?,
                n_heads: c.n_heads,
                pos,
                inverse_scale: match scale {
                    Some(scale) => scale.iter().map(|&s| T::ONE / s).collect(),
                    None => vec![T::ONE; pos],
                },
                sizes: (0..c.n_heads)
                    .map(|h| value_sizes(W_V.of_head(c.group(h)), ln1.as_ref()))
                    .collect(),
                b: b.map(|b| {
                    let into = |h| times(row(b), W_V.of_head(c.group(h))).into_data();
                    let data = (0..c.n_heads).flat_map(into).collect();
                    Tensor::from_vec(&[c.n_heads, c.d_head], data)
                }),
                W_V: match &ln1 {
                    Some(norm) => Cow::Owned(norm.folded_into(&W_V)),
                    None => W_V,
                },
                W_O: tensor_in_precision(&attn.W_O),
            };
            for head in 0..c.n_heads {
                let h = Head { layer: l, head };
                let b_V = &b_V[c.group(head) * c.d_head..][..c.d_head];
                let (pattern, W_O) = (layer.pattern(head), layer.W_O.mat(&[head]));
                let value = WrittenValue::Multiples {
                    of: times(row(b_V), W_O).into_data(),
                    by: (0..pos)
                        .map(|q| (0..pos).map(|k| pattern[(q, k)]).sum())
                        .collect(),
                };
                let start = Start::ValueBias(h);
                write(start, l + 1, value, norm(b_V) * frobenius(W_O));
            }
            let everywhere = |b: &Tensor<U>| WrittenValue::Multiples {
                of: in_precision(b.data()).into_owned(),
                by: vec![T::ONE; pos],
            };
            write(Start::AttnBias(l), l + 1, everywhere(&attn.b_O), T::ZERO);
            if let Some(mlp) = &block.mlp {
                let mut neurons = rows(Hook::MlpOut(l))?.into_owned();
                let b_out = in_precision::<U, T>(mlp.b_out.data());
                for row in neurons.chunks_exact_mut(d) {
                    row.iter_mut().zip(&*b_out).for_each(|(x, &b)| *x -= b);
                }
                write(
                    Start::Mlp(l),
                    l + 1,
                    WrittenValue::Rows(neurons.into()),
                    norm(&b_out),
                );
                write(Start::MlpBias(l), l + 1, everywhere(&mlp.b_out), T::ZERO);
            }
            layers.push(layer);
        }
        let W_U = &model.weights().W_U;
        Ok(Paths {
            config: c,
            pos,
            par,
            layers,
            starts,
            unembedding: Unembedding {
                W_U: Box::new(|i, j| T::from_f64(W_U[[i, j]].to_f64())),
                b_U: in_precision(model.weights().b_U.data()),
                norm: norm_in_precision(model, NormSite::Final),
                scale: scale(Hook::Scale(NormSite::Final))?,
            },
        })
    }

    fn d_model(&self) -> usize {
        self.config.d_model
    }

    /// The starts that are in the stream before layer `l`.
    fn written_before(&self, l: usize) -> &[StreamWrite<'a, T>] {
        &self.starts[..self.starts.partition_point(|w| w.level <= l)]
    }

    /// What the cotangent of the stream after a head's layer is at the head's values:
    /// `patternᵀ G W_Oᵀ`, `[pos, d_head]`.
    fn values_of(&self, head: Head, cotangent: MatRef<'_, T>) -> Tensor<T> {
        let layer = &self.layers[head.layer];
        let out = times(cotangent, layer.W_O.mat(&[head.head]).transpose());
        times(layer.pattern(head.head).transpose(), out.mat(&[]))
    }

    /// What the cotangent of a head's values is at the stream that the head reads: `[pos, d_model]`.
    fn read_by(&self, head: Head, values: &Tensor<T>) -> Tensor<T> {
        let layer = &self.layers[head.layer];
        let mut read = times(values.mat(&[]), layer.W_V(head.head).transpose());
        scale_rows(&mut read, &layer.inverse_scale);
        read
    }
}

/// The norms of the terms of a head's values, which reads a norm's output through `W_V`: taking the mean off doubles them at
/// most.
fn value_sizes<T: Scalar>(W_V: MatRef<'_, T>, ln1: Option<&NormMap<'_, T>>) -> ValueSizes<T> {
    let w = |i: usize| ln1.and_then(|n| n.w()).map_or(T::ONE, |w| w[i]);
    let scaled = Mat::from_fn(W_V.nrows(), W_V.ncols(), |i, j| W_V[(i, j)] * w(i));
    let size = frobenius(scaled.as_ref());
    ValueSizes {
        W_V: size + size,
        b: ln1.and_then(|n| n.b()).map_or(T::ZERO, norm) * frobenius(W_V),
    }
}

fn row<T: Scalar>(row: &[T]) -> MatRef<'_, T> {
    MatRef::from_row_major_slice(row, 1, row.len())
}

/// `A B`, row-major.
fn times<T: Scalar>(A: MatRef<'_, T>, B: MatRef<'_, T>) -> Tensor<T> {
    let mut out = Tensor::zeros(&[A.nrows(), B.ncols()]);
    product_into(out.mat_mut(&[]), T::ONE, A, B);
    out
}

fn scale_rows<T: Scalar>(x: &mut Tensor<T>, factors: &[T]) {
    let d = x.shape()[1];
    for (row, &factor) in x.data_mut().chunks_exact_mut(d).zip(factors) {
        row.iter_mut().for_each(|x| *x *= factor);
    }
}

fn norm<T: Scalar>(x: &[T]) -> T {
    x.iter().map(|&x| x * x).sum::<T>().sqrt()
}

fn frobenius<T: Scalar>(M: MatRef<'_, T>) -> T {
    crate::linalg::rounding::frobenius_at_most(M)
}

/// `f` of `0..n`, over threads where asked.
fn map<R: Send>(par: Par, n: usize, f: impl Fn(usize) -> R + Sync + Send) -> Vec<R> {
    match par {
        Par::Rayon => (0..n).into_par_iter().map(f).collect(),
        Par::Seq => (0..n).map(f).collect(),
    }
}
