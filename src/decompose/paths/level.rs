//! A level of what paths pass: a layer's heads, or its neurons, frozen. What they do is linear.

use super::{Start, Station, frobenius, norm, row, times};
use crate::decompose::precision::{in_precision, norm_in_precision, tensor_in_precision};
use crate::error::Result;
use crate::model::{Cache, Model};
use crate::names::{Head, Hook, NormSite};
use crate::op::NormMap;
use crate::tensor::{Scalar, Tensor};
use faer::{Mat, MatRef};
use std::borrow::Cow;

/// What becomes of values before they are written.
enum Mixing<'a, T: Scalar> {
    /// `[head, query, key]`: each query's position gets a mix of the keys'.
    Patterns(Cow<'a, [T]>),
    /// `[pos, d_mlp]`: each position's own are multiplied.
    Gates(Tensor<T>),
}

/// What the stations of a level add to their values at every position.
pub(super) struct Bias<T: Scalar> {
    pub start: Start,
    /// `[station, width]`
    pub values: Tensor<T>,
    /// By station: the norm of the terms that they were computed from.
    pub sizes: Vec<T>,
}

/// A layer's heads, or its neurons, frozen: `mixing(x W_V / scale + b) W_O`.
pub(super) struct Level<'a, T: Scalar> {
    layer: usize,
    mixing: Mixing<'a, T>,
    /// `1 / scale` of the norm before it at each position; ones where there is no norm.
    pub inverse_scale: Vec<T>,
    /// With the norm's centring and `w` folded in, `[d_model, group, width]`: of neurons their `W_in`.
    W_V: Cow<'a, Tensor<T>>,
    /// `[station, width, d_model]`: of neurons their `W_out`.
    W_O: Cow<'a, Tensor<T>>,
    pub biases: Vec<Bias<T>>,
    /// By station: the norm of the terms of the folded `W_V`, for error bounds.
    pub V_sizes: Vec<T>,
}

impl<'a, T: Scalar> Level<'a, T> {
    /// A layer's heads in a run.
    pub fn heads<U: Scalar>(
        (model, cache, sequence): (&'a Model<U>, &'a Cache<U>, usize),
        l: usize,
    ) -> Result<Self> {
        let (c, attn) = (model.config(), &model.weights().blocks[l].attn);
        let norm = norm_in_precision::<U, T>(model, NormSite::Ln1(l));
        let W_V = tensor_in_precision(&attn.W_V);
        let patterns = cache.require(Hook::Pattern(l))?.slice(&[sequence]);
        let groups: Vec<usize> = (0..c.n_heads).map(|head| c.group(head)).collect();
        let start = Start::NormBias(l);
        Ok(Level {
            layer: l,
            mixing: Mixing::Patterns(in_precision(patterns)),
            inverse_scale: inverse_scale((model, cache, sequence), NormSite::Ln1(l))?,
            biases: norm_bias(start, norm.as_ref(), &W_V, &groups),
            V_sizes: groups
                .iter()
                .map(|&group| size_of_terms(W_V.of_head(group), norm.as_ref()))
                .collect(),
            W_V: match &norm {
                Some(norm) => Cow::Owned(norm.folded_into(&W_V)),
                None => W_V,
            },
            W_O: tensor_in_precision(&attn.W_O),
        })
    }

    /// A layer's neurons in a run, their gates held.
    pub fn neurons<U: Scalar>(
        (model, cache, sequence): (&'a Model<U>, &'a Cache<U>, usize),
        l: usize,
    ) -> Result<Self> {
        let c = model.config();
        let mlp = model.weights().blocks[l]
            .mlp
            .as_ref()
            .expect("a layer's MLP");
        let norm = norm_in_precision::<U, T>(model, NormSite::Ln2(l));
        let (d, d_mlp) = (c.d_model, mlp.b_in.len());
        let W_in = tensor_in_precision::<U, T>(&mlp.W_in).into_owned();
        let W_in = W_in.reshape(&[d, 1, d_mlp]);
        let pre = in_precision::<U, T>(cache.require(Hook::Pre(l))?.slice(&[sequence]));
        let mut gates = pre.to_vec();
        let act_fn = c.act_fn().expect("a layer's MLP");
        act_fn.apply(&mut gates, d_mlp);
        if !c.gated() {
            // Where the neuron is zero, so is what it gives, whatever its gate is.
            let both = gates.iter_mut().zip(&*pre);
            both.for_each(|(g, &x)| *g = if x == T::ZERO { T::ZERO } else { *g / x });
        }
        let pos = gates.len() / d_mlp;
        let mut biases = norm_bias(Start::NeuronNormBias(l), norm.as_ref(), &W_in, &[0]);
        if mlp.b_after().is_none() {
            let b_in = in_precision::<U, T>(mlp.b_in.data()).into_owned();
            biases.push(Bias {
                start: Start::NeuronBias(l),
                sizes: vec![super::norm(&b_in)],
                values: Tensor::from_vec(&[1, d_mlp], b_in),
            });
        }
        Ok(Level {
            layer: l,
            mixing: Mixing::Gates(Tensor::from_vec(&[pos, d_mlp], gates)),
            inverse_scale: inverse_scale((model, cache, sequence), NormSite::Ln2(l))?,
            V_sizes: vec![size_of_terms(W_in.of_head(0), norm.as_ref())],
            W_V: Cow::Owned(match &norm {
                Some(norm) => norm.folded_into(&W_in),
                None => W_in,
            }),
            W_O: Cow::Owned({
                let W_out = tensor_in_precision::<U, T>(&mlp.W_out).into_owned();
                W_out.reshape(&[1, d_mlp, d])
            }),
            biases,
        })
    }

    /// How many stations there are.
    pub fn stations(&self) -> usize {
        self.W_O.shape()[0]
    }

    /// One of them.
    pub fn station(&self, index: usize) -> Station {
        match self.mixing {
            Mixing::Patterns(_) => Station::Head(Head {
                layer: self.layer,
                head: index,
            }),
            Mixing::Gates(_) => Station::Neurons(self.layer),
        }
    }

    /// How many values each has.
    pub fn width(&self) -> usize {
        self.W_O.shape()[1]
    }

    /// A station's folded `W_V`: `[d_model, width]`.
    pub fn W_V(&self, index: usize) -> MatRef<'_, T> {
        let a_group = self.stations() / self.W_V.shape()[1];
        self.W_V.of_head(index / a_group)
    }

    /// A station's `W_O`: `[width, d_model]`.
    pub fn W_O(&self, index: usize) -> MatRef<'_, T> {
        self.W_O.mat(&[index])
    }

    /// All stations' `W_O`, one below the other.
    pub fn all_W_O(&self) -> MatRef<'_, T> {
        self.W_O.rows()
    }

    fn pos(&self) -> usize {
        self.inverse_scale.len()
    }

    /// A head's pattern, `[query, key]`.
    fn pattern<'p>(&self, patterns: &'p [T], head: usize) -> MatRef<'p, T> {
        let pos = self.pos();
        MatRef::from_row_major_slice(&patterns[head * pos * pos..][..pos * pos], pos, pos)
    }

    /// What is written of a station's values, `[pos, width]`, but for `W_O`.
    pub fn mix(&self, index: usize, values: Tensor<T>) -> Tensor<T> {
        match &self.mixing {
            Mixing::Patterns(patterns) => times(self.pattern(patterns, index), values.mat(&[])),
            Mixing::Gates(gates) => gated(values, gates),
        }
    }

    /// The same backwards: from a cotangent of what is mixed to that of the values.
    pub fn mix_back(&self, index: usize, cotangent: Tensor<T>) -> Tensor<T> {
        match &self.mixing {
            Mixing::Patterns(patterns) => {
                let pattern = self.pattern(patterns, index);
                times(pattern.transpose(), cotangent.mat(&[]))
            }
            Mixing::Gates(gates) => gated(cotangent, gates),
        }
    }

    /// Sizes of values as bounds on those of what is mixed.
    pub fn mixed(&self, index: usize, x: &[T]) -> Vec<T> {
        match &self.mixing {
            Mixing::Patterns(patterns) => {
                let pattern = self.pattern(patterns, index);
                let sum = |q: usize| {
                    let row = x.iter().enumerate();
                    row.map(|(k, &x)| pattern[(q, k)].abs() * x).sum()
                };
                (0..self.pos()).map(sum).collect()
            }
            Mixing::Gates(gates) => self.by_gates(gates, x),
        }
    }

    /// Sizes of cotangents of what is mixed as bounds on those of the values.
    pub fn mixed_back(&self, index: usize, x: &[T]) -> Vec<T> {
        match &self.mixing {
            Mixing::Patterns(patterns) => {
                let pattern = self.pattern(patterns, index);
                let sum = |k: usize| {
                    let column = x.iter().enumerate();
                    column.map(|(q, &x)| pattern[(q, k)].abs() * x).sum()
                };
                (0..self.pos()).map(sum).collect()
            }
            Mixing::Gates(gates) => self.by_gates(gates, x),
        }
    }

    /// No value grows by more than the largest of its position's gates.
    fn by_gates(&self, gates: &Tensor<T>, x: &[T]) -> Vec<T> {
        let largest = |row: &[T]| {
            row.iter()
                .fold(T::ZERO, |m, g| if g.abs() > m { g.abs() } else { m })
        };
        let rows = gates.data().chunks_exact(self.width());
        rows.zip(x).map(|(row, &x)| largest(row) * x).collect()
    }
}

fn gated<T: Scalar>(mut values: Tensor<T>, gates: &Tensor<T>) -> Tensor<T> {
    let both = values.data_mut().iter_mut().zip(gates.data());
    both.for_each(|(x, &g)| *x *= g);
    values
}

/// `1 / scale` of a norm in a run; ones where the model has none there.
fn inverse_scale<U: Scalar, T: Scalar>(
    (model, cache, sequence): (&Model<U>, &Cache<U>, usize),
    site: NormSite,
) -> Result<Vec<T>> {
    let embed = cache.require(Hook::Embed)?;
    match model.norm_at(site) {
        None => Ok(vec![T::ONE; embed.shape()[1]]),
        Some(_) => {
            let scale = cache.require(Hook::Scale(site))?.slice(&[sequence]);
            Ok(in_precision::<U, T>(scale)
                .iter()
                .map(|&s| T::ONE / s)
                .collect())
        }
    }
}

/// A norm's `b` through each station's `W_V: [d_model, group, width]`, where it has one.
fn norm_bias<T: Scalar>(
    start: Start,
    norm_before: Option<&NormMap<'_, T>>,
    W_V: &Tensor<T>,
    groups: &[usize],
) -> Vec<Bias<T>> {
    let Some(b) = norm_before.and_then(|norm| norm.b()) else {
        return Vec::new();
    };
    let into = |&group: &usize| times(row(b), W_V.of_head(group)).into_data();
    let size = |&group: &usize| norm(b) * frobenius(W_V.of_head(group));
    vec![Bias {
        start,
        values: Tensor::from_vec(
            &[groups.len(), W_V.shape()[2]],
            groups.iter().flat_map(into).collect(),
        ),
        sizes: groups.iter().map(size).collect(),
    }]
}

/// The norm of the terms of `W_V` behind a norm: taking the mean off doubles them at most.
fn size_of_terms<T: Scalar>(W_V: MatRef<'_, T>, norm: Option<&NormMap<'_, T>>) -> T {
    let w = |i: usize| norm.and_then(|n| n.w()).map_or(T::ONE, |w| w[i]);
    let scaled = Mat::from_fn(W_V.nrows(), W_V.ncols(), |i, j| W_V[(i, j)] * w(i));
    let size = frobenius(scaled.as_ref());
    size + size
}
