//! Paths: what each way through the heads adds to a logit, with a run's patterns and scales frozen.
//!
//! With its attention patterns and LayerNorm scales held at a run's values, and each MLP's output taken as it
//! was, a transformer is linear: its logits are a sum over *paths*. A path starts at something that writes to
//! the stream ([`Start`]), passes any number of heads in ascending layers, and ends at the unembedding. Where the
//! neurons' gates are held too ([`Paths::through_neurons`]), paths pass the MLPs as they pass heads.
//!
//! What paths pass stands in levels ([`Level`]): each layer's heads, and behind them its neurons where these are held. A level
//! reads what all earlier ones have written.
//!
//! Source: Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021), "Path expansion trick".

mod enumerate;
mod level;
mod reach;
mod remainder;
mod search;
mod sums;

pub use enumerate::count;
pub use search::{Top, Unlisted};
pub use sums::{LogitPaths, Sum};

use super::logits::plain_stream;
use super::precision::{in_precision, norm_in_precision};
use super::scores::Side;
use crate::error::{Error, Result};
use crate::linalg::{Par, product_into};
use crate::model::{Cache, Config, Model, Order};
use crate::names::NormSite;
use crate::names::{Head, Hook};
use crate::op::NormMap;
use crate::tensor::{Scalar, Tensor, check_room};
use faer::MatRef;
use level::Level;
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
    /// Where neurons are held: the `b` of the norm that a layer's neurons read, read by them.
    NeuronNormBias(usize),
    /// Where neurons are held: their `b_in`, through their gates; as it is where it is added behind them.
    NeuronBias(usize),
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
            Start::NeuronNormBias(l) => write!(f, "ln2.b[{l}]"),
            Start::NeuronBias(l) => write!(f, "b_in[{l}]"),
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

/// What a path passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Station {
    /// A head.
    Head(Head),
    /// A layer's neurons, their gates held.
    Neurons(usize),
}

impl fmt::Display for Station {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Station::Head(head) => write!(f, "{head}"),
            Station::Neurons(l) => write!(f, "mlp {l}"),
        }
    }
}

impl Serialize for Station {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A path, written `W_E → 0.1 → 1.0`: what starts it and what it passes, to the unembedding.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// Where it starts.
    pub start: Start,
    /// The heads, in ascending layers, and neurons where these are held; none for a direct path. The head whose score it is, is
    /// none of them.
    pub stations: Vec<Station>,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.start)?;
        self.stations.iter().try_for_each(|s| write!(f, " → {s}"))
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

/// A station by its level, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    level: usize,
    index: usize,
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
    /// The first level that reads it.
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
/// assert!(top.unlisted.together.abs() + top.unlisted.rounding < 1e-6);
/// # Ok::<(), pathsum::Error>(())
/// ```
pub struct Paths<'a, T: Scalar> {
    config: &'a Config,
    pos: usize,
    par: Par,
    levels: Vec<Level<'a, T>>,
    /// In the order in which they are written: those that a level reads come first.
    starts: Vec<StreamWrite<'a, T>>,
    unembedding: Unembedding<'a, T>,
}

/// What is made of MLPs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Neurons {
    /// What each has written starts paths.
    Written,
    /// Their gates are held, and paths pass them.
    Held,
}

impl Neurons {
    fn hooks(self, config: &Config) -> Vec<Hook> {
        let needed = |h: &Hook| match h {
            Hook::Embed | Hook::PosEmbed | Hook::Pattern(_) => true,
            Hook::Scale(NormSite::Ln1(_) | NormSite::Final) => true,
            Hook::MlpOut(_) => self == Neurons::Written,
            Hook::Pre(_) | Hook::Scale(NormSite::Ln2(_)) => self == Neurons::Held,
            _ => false,
        };
        config.hooks().into_iter().filter(needed).collect()
    }
}

impl<'a, T: Scalar> Paths<'a, T> {
    /// The hooks that a run must keep.
    pub fn hooks(config: &Config) -> Vec<Hook> {
        Neurons::Written.hooks(config)
    }

    /// The hooks that a run must keep for [`Paths::through_neurons`].
    pub fn hooks_through_neurons(config: &Config) -> Vec<Hook> {
        Neurons::Held.hooks(config)
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
        Self::of((model, cache, sequence), par, Neurons::Written)
    }

    /// The same with paths through the neurons: each is `gate · (x W_in + b_in)` of what it reads, with its gate held at the
    /// run's, `act_fn(pre) / pre`, or the function of the gate itself where the neurons are gated.
    ///
    /// # Errors
    /// As [`Paths::new`], of [`Paths::hooks_through_neurons`]; and when MLPs stand beside attention, or a norm over the neurons.
    ///
    /// # Panics
    /// As [`Paths::new`].
    ///
    /// # Cost
    /// As [`Paths::new`], and a copy of the MLPs' `W_in` and `W_out`.
    ///
    /// ```
    /// use pathsum::decompose::{Logit, Paths};
    /// use pathsum::{Config, Model, Par, Run, Tensor, Tokens, Weights};
    /// let config = Config::from_json(
    ///     r#"{"n_layers": 1, "d_model": 4, "n_ctx": 3, "d_head": 2, "n_heads": 2, "d_mlp": 5, "d_vocab": 6, "act_fn": "relu"}"#,
    /// )?;
    /// let weights = Weights::build(&config, |_, shape| {
    ///     Ok(Tensor::from_fn(shape, |at| (at.iter().sum::<usize>() * 7 % 11) as f64 / 5.0 - 1.0))
    /// });
    /// let model = Model::new(config, weights?)?;
    /// let out = model.run(&Tokens::from_rows(&[[0, 3, 4]]), Run::new().cache("*"))?;
    /// let paths = Paths::<f64>::through_neurons(&model, &out.cache, 0, Par::Seq)?;
    /// let to_1 = paths.to_logit(2, Logit::Of(1))?;
    /// // No MLP starts a path any more: all begin at embeddings and biases.
    /// let sum: f64 = to_1.by_start().iter().map(|(_, x)| x).sum();
    /// assert!((sum - out.logits[[0, 2, 1]]).abs() < 1e-9);
    /// # Ok::<(), pathsum::Error>(())
    /// ```
    #[track_caller]
    pub fn through_neurons<U: Scalar>(
        model: &'a Model<U>,
        cache: &'a Cache<U>,
        sequence: usize,
        par: Par,
    ) -> Result<Self> {
        let c = model.config();
        if c.mlp.is_some() && c.order != Order::Sequential {
            return Err(Error::NotCovered(
                "MLPs stand beside attention, and paths through neurons are for those behind it",
            ));
        }
        if c.norms_neurons() {
            return Err(Error::NotCovered(
                "a norm stands over the neurons, and none of them is a gate times what it reads",
            ));
        }
        Self::of((model, cache, sequence), par, Neurons::Held)
    }

    #[track_caller]
    fn of<U: Scalar>(
        (model, cache, sequence): (&'a Model<U>, &'a Cache<U>, usize),
        par: Par,
        neurons: Neurons,
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
        let &[batch, pos, _] = embed.shape() else {
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
        if T::PRECISION != U::PRECISION || neurons == Neurons::Held {
            let heads = (c.n_layers * c.n_heads) as u64;
            let each = (pos * pos + 3 * c.d_head * c.d_model) as u64;
            let mlps = match (neurons, c.d_mlp()) {
                (Neurons::Held, Some(d_mlp)) => c.n_layers * d_mlp * (2 * c.d_model + pos),
                _ => 0,
            };
            let bytes = (heads * each + mlps as u64) * size_of::<T>() as u64;
            check_room(bytes, "the patterns and weights that paths are made of")?;
        }
        let rows = |hook: Hook| Ok(in_precision(cache.require(hook)?.slice(&[sequence])));
        let embed = WrittenValue::Rows(rows(Hook::Embed)?);
        let pos_embed = match c.pos_embed() {
            true => Some(WrittenValue::Rows(rows(Hook::PosEmbed)?)),
            false => None,
        };
        let mut paths = Paths {
            config: c,
            pos,
            par,
            levels: Vec::new(),
            starts: Vec::new(),
            unembedding: Unembedding {
                W_U: Box::new(|i, j| T::from_f64(model.weights().W_U[[i, j]].to_f64())),
                b_U: in_precision(model.weights().b_U.data()),
                norm: norm_in_precision(model, NormSite::Final),
                scale: match c.norm {
                    Some(_) => Some(rows(Hook::Scale(NormSite::Final))?),
                    None => None,
                },
            },
        };
        paths.written(Start::Embed, embed, T::ZERO);
        if let Some(pos_embed) = pos_embed {
            paths.written(Start::PosEmbed, pos_embed, T::ZERO);
        }
        let of_run = (model, cache, sequence);
        for l in 0..c.n_layers {
            paths.pass_heads(of_run, l)?;
            match (c.mlp.is_some(), neurons) {
                (false, _) => {}
                (true, Neurons::Written) => paths.write_mlp(of_run, l)?,
                (true, Neurons::Held) => paths.pass_neurons(of_run, l)?,
            }
        }
        Ok(paths)
    }

    /// Adds something that all levels from here on read; `from` is the size, beside the value's own, of the terms that it was
    /// computed from.
    fn written(&mut self, start: Start, value: WrittenValue<'a, T>, from: T) {
        self.starts.push(StreamWrite {
            start,
            level: self.levels.len(),
            value,
            from,
        });
    }

    /// A row that is written at every position.
    fn everywhere<U: Scalar>(&self, b: &Tensor<U>) -> WrittenValue<'a, T> {
        WrittenValue::Multiples {
            of: in_precision(b.data()).into_owned(),
            by: vec![T::ONE; self.pos],
        }
    }

    /// A layer's heads, and what they write of themselves.
    fn pass_heads<U: Scalar>(
        &mut self,
        of_run: (&'a Model<U>, &'a Cache<U>, usize),
        l: usize,
    ) -> Result<()> {
        let (c, attn) = (self.config, &of_run.0.weights().blocks[l].attn);
        let level = Level::heads(of_run, l)?;
        let b_V = in_precision::<U, T>(attn.b_V.data());
        let ones = Tensor::from_fn(&[self.pos, 1], |_| T::ONE);
        let mut values = Vec::new();
        for head in 0..c.n_heads {
            let b_V = &b_V[c.group(head) * c.d_head..][..c.d_head];
            let W_O = level.W_O(head);
            let value = WrittenValue::Multiples {
                of: times(row(b_V), W_O).into_data(),
                by: level.mix(head, ones.clone()).into_data(),
            };
            values.push((Head { layer: l, head }, value, norm(b_V) * frobenius(W_O)));
        }
        self.levels.push(level);
        for (head, value, from) in values {
            self.written(Start::ValueBias(head), value, from);
        }
        self.written(Start::AttnBias(l), self.everywhere(&attn.b_O), T::ZERO);
        Ok(())
    }

    /// What a layer's MLP has written.
    fn write_mlp<U: Scalar>(
        &mut self,
        (model, cache, sequence): (&'a Model<U>, &'a Cache<U>, usize),
        l: usize,
    ) -> Result<()> {
        let mlp = model.weights().blocks[l]
            .mlp
            .as_ref()
            .expect("a layer's MLP");
        let out = cache.require(Hook::MlpOut(l))?.slice(&[sequence]);
        let mut neurons = in_precision(out).into_owned();
        let b_out = in_precision::<U, T>(mlp.b_out.data());
        for row in neurons.chunks_exact_mut(b_out.len()) {
            row.iter_mut().zip(&*b_out).for_each(|(x, &b)| *x -= b);
        }
        let neurons = WrittenValue::Rows(neurons.into());
        self.written(Start::Mlp(l), neurons, norm(&b_out));
        self.written(Start::MlpBias(l), self.everywhere(&mlp.b_out), T::ZERO);
        Ok(())
    }

    /// A layer's neurons, held, and what they write of themselves.
    fn pass_neurons<U: Scalar>(
        &mut self,
        of_run: (&'a Model<U>, &'a Cache<U>, usize),
        l: usize,
    ) -> Result<()> {
        let mlp = of_run.0.weights().blocks[l]
            .mlp
            .as_ref()
            .expect("a layer's MLP");
        let level = Level::neurons(of_run, l)?;
        let after = mlp.b_after().map(|b| {
            let b = in_precision::<U, T>(b.data());
            let W_out = level.W_O(0);
            let written = times(row(&b), W_out).into_data();
            (written, norm(&b) * frobenius(W_out))
        });
        self.levels.push(level);
        if let Some((of, from)) = after {
            let by = vec![T::ONE; self.pos];
            let value = WrittenValue::Multiples { of, by };
            self.written(Start::NeuronBias(l), value, from);
        }
        self.written(Start::MlpBias(l), self.everywhere(&mlp.b_out), T::ZERO);
        Ok(())
    }

    fn d_model(&self) -> usize {
        self.config.d_model
    }

    /// The level of a layer's heads.
    fn level_of_heads(&self, layer: usize) -> usize {
        let first = Station::Head(Head { layer, head: 0 });
        let found = self
            .levels
            .iter()
            .position(|level| level.station(0) == first);
        found.expect("every layer has heads")
    }

    fn station(&self, place: Place) -> Station {
        self.levels[place.level].station(place.index)
    }

    /// The places of all stations before a level.
    fn places_before(&self, level: usize) -> Vec<Place> {
        let of = |level: usize| {
            let stations = 0..self.levels[level].stations();
            stations.map(move |index| Place { level, index })
        };
        (0..level).flat_map(of).collect()
    }

    /// The starts that are in the stream before a level.
    fn written_before(&self, level: usize) -> &[StreamWrite<'a, T>] {
        &self.starts[..self.starts.partition_point(|w| w.level <= level)]
    }

    /// What the cotangent of the stream after a station's level is at the station's values: `[pos, width]`, through the mixing
    /// of `G W_Oᵀ`.
    fn values_of(&self, place: Place, cotangent: MatRef<'_, T>) -> Tensor<T> {
        let level = &self.levels[place.level];
        let out = times(cotangent, level.W_O(place.index).transpose());
        level.mix_back(place.index, out)
    }

    /// What the cotangent of a station's values is at the stream that it reads: `[pos, d_model]`.
    fn read_by(&self, place: Place, values: &Tensor<T>) -> Tensor<T> {
        let level = &self.levels[place.level];
        let mut read = times(values.mat(&[]), level.W_V(place.index).transpose());
        scale_rows(&mut read, &level.inverse_scale);
        read
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
