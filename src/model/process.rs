//! TransformerLens's processing of weights, in the model's own precision: each step leaves what the
//! model computes as it was, under a condition that it checks.

use crate::diagram::{Diagram, NormWeight, Op};
use crate::error::{Error, Result};
use crate::linalg::svd_of_product;
use crate::model::Model;
use crate::names::NormSite;
use crate::op::NormMap;
use crate::tensor::{Scalar, Tensor};
use faer::Mat;
use std::fmt;
use std::str::FromStr;

/// A processing step, by its TransformerLens name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processing {
    /// `fold_layer_norm`: [`fold_layer_norm`]
    FoldLayerNorm,
    /// `center_writing_weights`: [`center_writing_weights`]
    CenterWritingWeights,
    /// `center_unembed`: [`center_unembed`]
    CenterUnembed,
    /// `fold_value_biases`: [`fold_value_biases`]
    FoldValueBiases,
    /// `refactor_factored_attn_matrices`: [`refactor_factored_attn_matrices`]
    RefactorFactoredAttnMatrices,
}

impl Processing {
    /// Every step, in the order TransformerLens applies them.
    pub const ALL: [Processing; 5] = [
        Processing::FoldLayerNorm,
        Processing::CenterWritingWeights,
        Processing::CenterUnembed,
        Processing::FoldValueBiases,
        Processing::RefactorFactoredAttnMatrices,
    ];

    /// The steps that TransformerLens applies unless told otherwise.
    pub const DEFAULT: [Processing; 4] = [
        Processing::FoldLayerNorm,
        Processing::CenterWritingWeights,
        Processing::CenterUnembed,
        Processing::FoldValueBiases,
    ];

    /// The method's name in TransformerLens.
    pub fn name(self) -> &'static str {
        match self {
            Processing::FoldLayerNorm => "fold_layer_norm",
            Processing::CenterWritingWeights => "center_writing_weights",
            Processing::CenterUnembed => "center_unembed",
            Processing::FoldValueBiases => "fold_value_biases",
            Processing::RefactorFactoredAttnMatrices => "refactor_factored_attn_matrices",
        }
    }

    /// Applies the step.
    ///
    /// # Errors
    /// When a decomposition fails, which only weights with a NaN or an infinity should cause.
    pub fn apply<T: Scalar>(self, model: &mut Model<T>) -> Result<Processed> {
        match self {
            Processing::FoldLayerNorm => Ok(fold_layer_norm(model)),
            Processing::CenterWritingWeights => Ok(center_writing_weights(model)),
            Processing::CenterUnembed => Ok(center_unembed(model)),
            Processing::FoldValueBiases => Ok(fold_value_biases(model)),
            Processing::RefactorFactoredAttnMatrices => refactor_factored_attn_matrices(model),
        }
    }
}

impl fmt::Display for Processing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Processing {
    type Err = Error;

    /// `fold_ln`, the flag's name in TransformerLens, is understood too.
    fn from_str(s: &str) -> Result<Self> {
        let named = Processing::ALL.into_iter().find(|step| step.name() == s);
        named
            .or((s == "fold_ln").then_some(Processing::FoldLayerNorm))
            .ok_or_else(|| Error::unknown("step", s, Processing::ALL.map(Processing::name)))
    }
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processed {
    /// The weights were changed.
    Done,
    /// The step's condition does not hold, for this reason; the weights were left alone.
    Skipped(&'static str),
}

/// Moves each LayerNorm's `w` and `b` into the weights that read its output, then centres those over
/// what they read, which is right because that input is centred.
///
/// The norms stay in place with `w = 1` and `b = 0`, so that the configuration holds as it was.
/// In a `solu_ln` model the norm over the neurons is folded into `W_out` likewise.
///
/// *Condition*: the norms are `LN`. *Invariant*: logits.
///
/// Source: `HookedTransformer.fold_layer_norm`.
pub fn fold_layer_norm<T: Scalar>(model: &mut Model<T>) -> Processed {
    match model.config.norm.map(|norm| norm.weight) {
        Some(NormWeight::Plain | NormWeight::OnePlus) => {}
        Some(NormWeight::Absent) => {
            return Processed::Skipped("the norms are LNPre: there are no w and b to fold");
        }
        None => return Processed::Skipped("the model has no LayerNorm"),
    }
    if model.config.gated() && model.config.norm.is_some_and(|norm| norm.bias) {
        return Processed::Skipped(
            "gated neurons have no bias that the norms' b could be folded into",
        );
    }
    for (site, readers) in norms_and_readers(&model.diagram) {
        let map = model.norm_at(site).filter(|map| map.affine.is_some());
        let Some(map) = map.map(NormMap::into_owned) else {
            continue;
        };
        let weights = model.weights_mut();
        for op in readers {
            let (W, b, _) = weights.affine_mut(op).expect("a linear map");
            if let (Some(b), Some(norm_b)) = (b, map.b()) {
                add_product(b.data_mut(), norm_b, W.data());
            }
            *W = map.folded_into(W);
        }
        if let Some(norm) = weights.norms.get_mut(&site) {
            norm.w.data_mut().fill(NormMap::identity_w(map.kind));
            norm.b.iter_mut().for_each(|b| b.data_mut().fill(T::ZERO));
        }
    }
    Processed::Done
}

/// Each norm, and the linear maps that read it.
fn norms_and_readers(diagram: &Diagram) -> Vec<(NormSite, Vec<Op>)> {
    let norms = diagram.steps.iter().filter_map(|step| match step.op {
        Op::Norm(site) => Some((site, diagram.linear_readers(step.gives[1]))),
        _ => None,
    });
    norms.collect()
}

/// `b += x W`
fn add_product<T: Scalar>(b: &mut [T], x: &[T], W: &[T]) {
    let rows = W.chunks_exact(b.len()).zip(x);
    for (row, &x) in rows {
        b.iter_mut().zip(row).for_each(|(b, &w)| *b += x * w);
    }
}

/// Centres over `d_model` everything that writes to the residual stream: `W_E`, `W_pos`, `W_O`, `b_O`,
/// `W_out`, `b_out`. The norms take that mean off in any case.
///
/// *Condition*: every reader of the stream is behind a LayerNorm. *Invariant*: logits.
///
/// Source: `HookedTransformer.center_writing_weights`.
pub fn center_writing_weights<T: Scalar>(model: &mut Model<T>) -> Processed {
    match model.config.norm {
        None => return Processed::Skipped("the model has no LayerNorm: the stream's mean is read"),
        Some(norm) if !norm.centred => {
            return Processed::Skipped("the norms leave the stream's mean: it is read");
        }
        Some(_) => {}
    }
    let d = model.config.d_model;
    let w = model.weights_mut();
    center_rows(&mut w.W_E, d);
    center_rows(&mut w.W_pos, d);
    for block in &mut w.blocks {
        center_rows(&mut block.attn.W_O, d);
        center_rows(&mut block.attn.b_O, d);
        if let Some(mlp) = &mut block.mlp {
            center_rows(&mut mlp.W_out, d);
            center_rows(&mut mlp.b_out, d);
        }
    }
    Processed::Done
}

/// Centres `W_U` and `b_U` over the logits.
///
/// *Condition*: none. *Invariant*: log-probabilities; the logits change by a constant at each position.
///
/// Source: `HookedTransformer.center_unembed`.
pub fn center_unembed<T: Scalar>(model: &mut Model<T>) -> Processed {
    let d_out = model.config.d_vocab_out;
    center_rows(&mut model.weights_mut().W_U, d_out);
    center_rows(&mut model.weights_mut().b_U, d_out);
    Processed::Done
}

fn center_rows<T: Scalar>(t: &mut Tensor<T>, d: usize) {
    let n = T::from_f64(d as f64);
    for row in t.data_mut().chunks_exact_mut(d) {
        let mean = row.iter().copied().sum::<T>() / n;
        row.iter_mut().for_each(|x| *x -= mean);
    }
}

/// `b_O += Σ_h b_V[h] W_O[h]`, and `b_V = 0`.
///
/// *Condition*: the patterns' rows sum to one, as a softmax's do; a hook that changes a pattern breaks
/// it. *Invariant*: logits.
///
/// Source: `HookedTransformer.fold_value_biases`.
pub fn fold_value_biases<T: Scalar>(model: &mut Model<T>) -> Processed {
    let config = model.config.clone();
    for block in &mut model.weights_mut().blocks {
        let attn = &mut block.attn;
        for h in 0..config.n_heads {
            let b_V = attn.b_V.slice(&[config.group(h)]);
            add_product(attn.b_O.data_mut(), b_V, attn.W_O.slice(&[h]));
        }
        attn.b_V.data_mut().fill(T::ZERO);
    }
    Processed::Done
}

/// Factors each head's QK and OV circuit evenly by singular values: with the biases as a further row,
/// `[W_Q; b_Q] [W_K; b_K]ᵀ = U S Vᵀ` becomes `W_Q = U √S`, `W_K = V √S`; and `W_V W_O = U S Vᵀ` becomes
/// `W_V = U S`, `W_O = Vᵀ`, after folding `b_V` into `b_O`.
///
/// Where `d_head` exceeds `d_model`, the columns left over are zero.
///
/// *Condition*: positions are added to the stream (so that one `W_QK` serves every pair of positions),
/// and that of [`fold_value_biases`]. *Invariant*: logits.
///
/// Source: `HookedTransformer.refactor_factored_attn_matrices`.
///
/// # Errors
/// When a decomposition fails; the weights are then left alone.
pub fn refactor_factored_attn_matrices<T: Scalar>(model: &mut Model<T>) -> Result<Processed> {
    if model.config.rotary() {
        let reason = "positions turn queries and keys, and factors of W_QK do not turn with them";
        return Ok(Processed::Skipped(reason));
    }
    if model.config.grouped() {
        let reason = "heads share keys and values, and each would need factors of its own";
        return Ok(Processed::Skipped(reason));
    }
    let mut refactored = model.clone();
    fold_value_biases(&mut refactored);
    for block in &mut refactored.weights_mut().blocks {
        let attn = &mut block.attn;
        let &[d_model, heads, _] = attn.W_Q.shape() else {
            unreachable!("checked at loading")
        };
        for h in 0..heads {
            let with_bias = |W: &Tensor<T>, b: &Tensor<T>| {
                let (W, b) = (W.of_head(h), b.slice(&[h]));
                Mat::from_fn(d_model + 1, b.len(), |i, j| {
                    if i < d_model { W[(i, j)] } else { b[j] }
                })
            };
            let (Q, K) = (
                with_bias(&attn.W_Q, &attn.b_Q),
                with_bias(&attn.W_K, &attn.b_K),
            );
            let svd = svd_of_product(Q.as_ref(), K.transpose())?;
            let even = |U: &Mat<T>, i: usize, j: usize| match svd.S.get(j) {
                Some(s) => U[(i, j)] * s.sqrt(),
                None => T::ZERO,
            };
            let into = |W: &mut Tensor<T>, b: &mut Tensor<T>, U: &Mat<T>| {
                let mut W = W.of_head_mut(h);
                for j in 0..W.ncols() {
                    (0..d_model).for_each(|i| W[(i, j)] = even(U, i, j));
                    b.slice_mut(&[h])[j] = even(U, d_model, j);
                }
            };
            into(&mut attn.W_Q, &mut attn.b_Q, &svd.U);
            into(&mut attn.W_K, &mut attn.b_K, &svd.V);

            let svd = svd_of_product(attn.W_V.of_head(h), attn.W_O.mat(&[h]))?;
            let (mut W_V, mut W_O) = (attn.W_V.of_head_mut(h), attn.W_O.mat_mut(&[h]));
            for j in 0..W_V.ncols() {
                let s = svd.S.get(j);
                for i in 0..d_model {
                    W_V[(i, j)] = s.map_or(T::ZERO, |&s| svd.U[(i, j)] * s);
                    W_O[(j, i)] = s.map_or(T::ZERO, |_| svd.V[(i, j)]);
                }
            }
        }
    }
    *model = refactored;
    Ok(Processed::Done)
}
