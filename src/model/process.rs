//! TransformerLens's processing of weights, in the model's own precision: each step leaves what the
//! model computes as it was, under a condition that it checks.

use crate::diagram::{Op, Value};
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Processed {
    /// The weights were changed.
    Done,
    /// They were changed, but for some parts of which the step's condition does not hold: which, and why.
    Partly(String),
    /// The step's condition does not hold, for this reason; the weights were left alone.
    Skipped(&'static str),
}

impl Processed {
    /// Done, but for some parts, each with its reason.
    fn all_but(left: impl Iterator<Item = (String, &'static str)>) -> Self {
        let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
        for (name, reason) in left {
            match reasons.iter_mut().find(|(own, _)| *own == reason) {
                Some((_, names)) => names.push(name),
                None => reasons.push((reason, vec![name])),
            }
        }
        let said =
            |(reason, names): &(&str, Vec<String>)| format!("{}: {reason}", names.join(", "));
        match reasons.is_empty() {
            true => Processed::Done,
            false => Processed::Partly(reasons.iter().map(said).collect::<Vec<_>>().join("; ")),
        }
    }
}

/// Moves each norm's `w` and `b` into the weights that read its output, and where the norm takes off the mean centres those
/// over what they read, which is right because that input is centred.
///
/// The norms stay in place with `w = 1` and `b = 0`, so that the configuration holds as it was.
/// In a `solu_ln` model the norm over the neurons is folded into `W_out` likewise.
///
/// *Condition*: the norm has parameters, and linear maps alone read it (not the stream, behind which post-norm blocks and
/// norms of what is written stand, nor attention, behind which norms of queries and keys do); where it has a `b`, maps
/// with a bias. Norms that do not meet it are left alone, and named. *Invariant*: logits.
///
/// Source: `HookedTransformer.fold_layer_norm`.
pub fn fold_layer_norm<T: Scalar>(model: &mut Model<T>) -> Processed {
    let steps = model.diagram.steps.iter();
    let norms = steps.filter_map(|step| match step.op {
        Op::Norm(site) => Some((site, step.gives[1])),
        _ => None,
    });
    let norms: Vec<(NormSite, Value)> = norms.collect();
    if norms.is_empty() {
        return Processed::Skipped("the model has no LayerNorm");
    }
    let mut left = Vec::new();
    let mut folded = 0;
    let mut with_parameters = 0;
    for (site, output) in norms {
        let map = model.norm_at(site).filter(|map| map.affine.is_some());
        let Some(map) = map.map(NormMap::into_owned) else {
            continue;
        };
        with_parameters += 1;
        let readers = model.diagram.linear_readers(output);
        let takes_b = |op: &Op| model.weights.affine(*op).is_some_and(|map| map.b.is_some());
        if !model.diagram.read_linearly(output) {
            left.push((site, "what reads it is not linear"));
            continue;
        }
        if map.b().is_some() && !readers.iter().all(takes_b) {
            let reason = "gated neurons have no bias that its b could be folded into";
            left.push((site, reason));
            continue;
        }
        folded += 1;
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
    match (with_parameters, folded) {
        (0, _) => Processed::Skipped("the norms are LNPre: there are no w and b to fold"),
        (_, 0) => Processed::Skipped("no norm is read by linear maps alone"),
        _ => Processed::all_but(left.iter().map(|(site, reason)| (site.module(), *reason))),
    }
}

/// `b += x W`
fn add_product<T: Scalar>(b: &mut [T], x: &[T], W: &[T]) {
    let rows = W.chunks_exact(b.len()).zip(x);
    for (row, &x) in rows {
        b.iter_mut().zip(row).for_each(|(b, &w)| *b += x * w);
    }
}

/// Centres over `d_model` what writes to the residual stream: `W_E`, `W_pos`, `W_token_type`, `W_O`, `b_O`, `W_out`,
/// `b_out`. The norms take that mean off in any case.
///
/// *Condition*: whatever reads what is written, alone or in a sum, is a norm that takes off the mean. What is read
/// otherwise is left alone, and named. *Invariant*: logits.
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
    let centred = |site| model.config.norm_at(site).is_some_and(|norm| norm.centred);
    let writers = model.diagram.steps.iter().filter_map(|step| match step.op {
        Op::Embed | Op::PosEmbed | Op::TokenTypeEmbed | Op::WriteHeads(_) | Op::WriteNeurons(_) => {
            let value = *step.gives.last().expect("it gives a value");
            Some((step.op, model.diagram.read_by_norms(value, &centred)))
        }
        _ => None,
    });
    let writers: Vec<(Op, bool)> = writers.collect();
    if writers.iter().all(|(_, behind)| !behind) {
        return Processed::Skipped("what is written is read before a norm takes off its mean");
    }
    let w = model.weights_mut();
    let mut left = Vec::new();
    for (op, behind) in writers {
        if !behind {
            let name = match op {
                Op::Embed => "embed.W_E".to_string(),
                Op::PosEmbed => "pos_embed.W_pos".to_string(),
                Op::TokenTypeEmbed => "token_type_embed.W_token_type".to_string(),
                Op::WriteHeads(l) => format!("blocks.{l}.attn.W_O"),
                Op::WriteNeurons(l) => format!("blocks.{l}.mlp.W_out"),
                _ => unreachable!("it writes nothing"),
            };
            left.push((name, "is read before a norm takes off its mean"));
            continue;
        }
        match op {
            Op::Embed => center_rows(&mut w.W_E, d),
            Op::PosEmbed => center_rows(&mut w.W_pos, d),
            Op::TokenTypeEmbed => center_rows(&mut w.W_token_type, d),
            _ => {
                let (W, b, _) = w.affine_mut(op).expect("a linear map");
                center_rows(W, d);
                b.into_iter().for_each(|b| center_rows(b, d));
            }
        }
    }
    Processed::all_but(left.into_iter())
}

/// Centres `W_U` and `b_U` over the logits.
///
/// *Condition*: the logits are not capped. *Invariant*: log-probabilities; the logits change by a constant at each
/// position.
///
/// Source: `HookedTransformer.center_unembed`.
pub fn center_unembed<T: Scalar>(model: &mut Model<T>) -> Processed {
    if model.config.logit_cap.is_some() {
        return Processed::Skipped("the logits are capped: a constant moves them unevenly");
    }
    let d_out = model.config.d_vocab_out;
    center_rows(&mut model.weights_mut().W_U, d_out);
    center_rows(&mut model.weights_mut().b_U, d_out);
    Processed::Done
}

fn center_rows<T: Scalar>(t: &mut Tensor<T>, d: usize) {
    let n = T::from_f64(d as f64);
    for row in t.data_mut().chunks_exact_mut(d.max(1)) {
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
    if model.config.qk_norm.is_some() {
        let reason = "queries and keys have norms, and factors of W_QK have others";
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
