//! Changes of the weights that leave what a model computes as it was.

use super::sensitivity::{Sensitivity, log_softmax, run};
use super::verdict::{BoundKind, Comparison, Finding, Verdict};
use crate::error::{Error, Result};
use crate::linalg::{Par, orthogonal_factor, product};
use crate::model::process::{Processed, Processing};
use crate::model::{Model, Tokens, Weights};
use crate::names::NormSite;
use crate::tensor::{Scalar, Tensor};
use faer::{Mat, MatRef};
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

/// A change of the weights under which a model's output is invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariance {
    /// A processing step.
    Processing(Processing),
    /// `W_V G`, `b_V G` and `G⁻¹ W_O`, for an invertible `G` a head.
    ValueBasis,
    /// `W_Q G`, `b_Q G` and `W_K G⁻ᵀ`, `b_K G⁻ᵀ`, for an invertible `G` a head.
    QueryBasis,
    /// The heads of every layer in another order.
    HeadOrder,
    /// The neurons of every layer in another order.
    NeuronOrder,
}

/// A changed model, or why the change does not apply.
pub enum Transformed<T: Scalar> {
    /// The changed model.
    Model(Box<Model<T>>),
    /// Why there is none.
    NotApplicable(&'static str),
}

/// The seed of the bases and orders: any will do, and the same ones make a check repeatable.
const SEED: u64 = 1;

impl Invariance {
    /// Every invariance that `check` looks at.
    pub const ALL: [Invariance; 9] = [
        Invariance::Processing(Processing::FoldLayerNorm),
        Invariance::Processing(Processing::CenterWritingWeights),
        Invariance::Processing(Processing::CenterUnembed),
        Invariance::Processing(Processing::FoldValueBiases),
        Invariance::Processing(Processing::RefactorFactoredAttnMatrices),
        Invariance::ValueBasis,
        Invariance::QueryBasis,
        Invariance::HeadOrder,
        Invariance::NeuronOrder,
    ];

    /// The invariance's name.
    pub fn id(self) -> &'static str {
        match self {
            Invariance::Processing(step) => step.name(),
            Invariance::ValueBasis => "value_basis",
            Invariance::QueryBasis => "query_basis",
            Invariance::HeadOrder => "head_order",
            Invariance::NeuronOrder => "neuron_order",
        }
    }

    /// What the invariance says.
    pub fn statement(self) -> &'static str {
        match self {
            Invariance::Processing(Processing::FoldLayerNorm) => {
                "folding the LayerNorms changes no logit"
            }
            Invariance::Processing(Processing::CenterWritingWeights) => {
                "centring the writing weights changes no logit"
            }
            Invariance::Processing(Processing::CenterUnembed) => {
                "centring the unembedding changes no log-probability, the logits by a constant"
            }
            Invariance::Processing(Processing::FoldValueBiases) => {
                "folding b_V into b_O changes no logit"
            }
            Invariance::Processing(Processing::RefactorFactoredAttnMatrices) => {
                "refactoring QK and OV by singular values changes no logit"
            }
            Invariance::ValueBasis => "W_V G, G⁻¹ W_O changes no logit",
            Invariance::QueryBasis => "W_Q G, W_K G⁻ᵀ changes no logit",
            Invariance::HeadOrder => "another order of heads changes no logit",
            Invariance::NeuronOrder => "another order of neurons changes no logit",
        }
    }

    /// The changed model.
    ///
    /// # Errors
    /// When a decomposition fails.
    pub fn transform<T: Scalar>(self, model: &Model<T>) -> Result<Transformed<T>> {
        let mut changed = model.clone();
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        let c = model.config();
        if c.n_layers == 0 && !matches!(self, Invariance::Processing(_)) {
            return Ok(Transformed::NotApplicable("the model has no layers"));
        }
        match self {
            Invariance::Processing(step) => {
                if let Processed::Skipped(reason) = step.apply(&mut changed)? {
                    return Ok(Transformed::NotApplicable(reason));
                }
            }
            Invariance::ValueBasis => {
                for block in &mut changed.weights_mut().blocks {
                    let attn = &mut block.attn;
                    for g in 0..c.groups {
                        let (G, inverse) = random_basis(&mut rng, c.d_head);
                        into_basis(&mut attn.W_V, &mut attn.b_V, g, G.as_ref());
                        for h in (0..c.n_heads).filter(|&h| c.group(h) == g) {
                            let W_O = product(inverse.as_ref(), attn.W_O.mat(&[h]));
                            attn.W_O.mat_mut(&[h]).copy_from(W_O);
                        }
                    }
                }
            }
            Invariance::QueryBasis if c.rotary() => {
                return Ok(Transformed::NotApplicable(
                    "positions turn queries and keys, and another basis does not turn with them",
                ));
            }
            Invariance::QueryBasis if c.qk_norm.is_some() => {
                return Ok(Transformed::NotApplicable(
                    "queries and keys have norms, and another basis has others",
                ));
            }
            Invariance::HeadOrder if c.alibi_slopes().is_some() => {
                return Ok(Transformed::NotApplicable(
                    "each head has its own slope by position, and another place another one",
                ));
            }
            Invariance::HeadOrder if c.qk_norm.is_some_and(|norm| !norm.per_head) => {
                return Ok(Transformed::NotApplicable(
                    "a norm of queries and keys goes over all heads, each of which has a w of its own",
                ));
            }
            Invariance::QueryBasis => {
                for block in &mut changed.weights_mut().blocks {
                    let attn = &mut block.attn;
                    for g in 0..c.groups {
                        let (G, inverse) = random_basis(&mut rng, c.d_head);
                        for h in (0..c.n_heads).filter(|&h| c.group(h) == g) {
                            into_basis(&mut attn.W_Q, &mut attn.b_Q, h, G.as_ref());
                        }
                        into_basis(&mut attn.W_K, &mut attn.b_K, g, inverse.transpose());
                    }
                }
            }
            Invariance::HeadOrder => {
                if c.n_heads == 1 {
                    return Ok(Transformed::NotApplicable("there is one head a layer"));
                }
                for block in &mut changed.weights_mut().blocks {
                    // Heads that share keys and values go together; where all do, among themselves.
                    let a_group = c.n_heads / c.groups;
                    let (groups, heads) = match c.groups {
                        1 => (vec![0], derangement(&mut rng, c.n_heads)),
                        n => {
                            let groups = derangement(&mut rng, n);
                            let of = |g: &usize| g * a_group..(g + 1) * a_group;
                            let heads = groups.iter().flat_map(of).collect();
                            (groups, heads)
                        }
                    };
                    let attn = &mut block.attn;
                    for (W, order) in [
                        (&mut attn.W_Q, &heads),
                        (&mut attn.W_K, &groups),
                        (&mut attn.W_V, &groups),
                    ] {
                        let width: usize = W.shape()[1..].iter().product();
                        for row in W.data_mut().chunks_exact_mut(width) {
                            reorder(row, order);
                        }
                    }
                    reorder(attn.b_Q.data_mut(), &heads);
                    reorder(attn.b_K.data_mut(), &groups);
                    reorder(attn.b_V.data_mut(), &groups);
                    reorder(attn.W_O.data_mut(), &heads);
                }
            }
            Invariance::NeuronOrder => {
                if c.mlp.is_none() {
                    return Ok(Transformed::NotApplicable("the model has no MLPs"));
                }
                let Weights { blocks, norms, .. } = changed.weights_mut();
                let mlps = blocks.iter_mut().enumerate();
                for (l, mlp) in mlps.filter_map(|(l, b)| Some((l, b.mlp.as_mut()?))) {
                    let order = derangement(&mut rng, mlp.b_in.len());
                    let d_mlp = order.len();
                    for W in [Some(&mut mlp.W_in), mlp.W_gate.as_mut()]
                        .into_iter()
                        .flatten()
                    {
                        let rows = W.data_mut().chunks_exact_mut(d_mlp);
                        rows.for_each(|row| reorder(row, &order));
                    }
                    reorder(mlp.b_in.data_mut(), &order);
                    reorder(mlp.W_out.data_mut(), &order);
                    if let Some(ln) = norms.get_mut(&NormSite::Neurons(l)) {
                        reorder(ln.w.data_mut(), &order);
                        let b = ln.b.iter_mut();
                        b.for_each(|b| reorder(b.data_mut(), &order));
                    }
                }
            }
        }
        Ok(Transformed::Model(Box::new(changed)))
    }

    /// Whether a model that is said to compute the same does, on a batch.
    ///
    /// # Errors
    /// When either cannot run on these tokens.
    pub fn compare<T: Scalar>(
        self,
        model: &Model<T>,
        changed: &Model<T>,
        tokens: &Tokens,
        par: Par,
    ) -> Result<Finding> {
        let sensitivity = Sensitivity::measure(model, tokens, par)?;
        self.judge(changed, &sensitivity, par)
    }

    pub(super) fn finding<T: Scalar>(
        self,
        model: &Model<T>,
        sensitivity: &Sensitivity<T>,
        par: Par,
    ) -> Result<Finding> {
        let reason = match self.transform(model) {
            Ok(Transformed::Model(changed)) => return self.judge(&changed, sensitivity, par),
            Ok(Transformed::NotApplicable(reason)) => reason.to_string(),
            // There is no changed model, as for weights with a NaN. That must not keep the other
            // identities from being reported, which refute such a model and say where.
            Err(Error::Numeric(reason)) => reason,
            Err(e) => return Err(e),
        };
        Ok(Finding {
            id: self.id(),
            statement: self.statement(),
            verdict: Verdict::NotApplicable { reason },
        })
    }

    fn judge<T: Scalar>(
        self,
        changed: &Model<T>,
        sensitivity: &Sensitivity<T>,
        par: Par,
    ) -> Result<Finding> {
        let before = &sensitivity.logits;
        let after = run(changed, &sensitivity.tokens, par)?;
        let mut cmp = Comparison::new(BoundKind::Estimated);
        let mut compare = |what: &str, a: &Tensor<T>, b: &Tensor<T>, bound: f64| {
            for (flat, (x, y)) in a.data().iter().zip(b.data()).enumerate() {
                cmp.entry(x.to_f64(), y.to_f64(), bound, || {
                    format!("{what}{:?}", a.place(flat))
                });
            }
        };
        if self == Invariance::Processing(Processing::CenterUnembed) {
            let (before, after) = (log_softmax(before), log_softmax(&after));
            compare("log_probs", &before, &after, sensitivity.log_prob);
        } else {
            compare("logits", before, &after, sensitivity.logit);
        }
        let nothing = || Verdict::NotApplicable {
            reason: "there was nothing to compare".into(),
        };
        let verdict = cmp.verdict().unwrap_or_else(nothing);
        Ok(Finding {
            id: self.id(),
            statement: self.statement(),
            verdict,
        })
    }
}

/// A well-conditioned invertible matrix and its inverse: a diagonal between 1/2 and 2 between two
/// orthogonal matrices.
fn random_basis<T: Scalar>(rng: &mut ChaCha8Rng, d: usize) -> (Mat<T>, Mat<T>) {
    let mut orthogonal = || {
        let M = Mat::<T>::from_fn(d, d, |_, _| T::from_f64(rng.random_range(-1.0..1.0)));
        orthogonal_factor(M.as_ref())
    };
    let (Q, R) = (orthogonal(), orthogonal());
    let stretch: Vec<T> = (0..d)
        .map(|_| T::from_f64(rng.random_range(0.5..2.0)))
        .collect();
    let QD = Mat::from_fn(d, d, |i, j| Q[(i, j)] * stretch[j]);
    let RD = Mat::from_fn(d, d, |i, j| R[(i, j)] / stretch[j]);
    (
        product(QD.as_ref(), R.transpose()),
        product(RD.as_ref(), Q.transpose()),
    )
}

/// `W[h] G` and `b[h] G`
fn into_basis<T: Scalar>(W: &mut Tensor<T>, b: &mut Tensor<T>, h: usize, G: MatRef<'_, T>) {
    let changed = product(W.of_head(h), G);
    W.of_head_mut(h).copy_from(changed);
    let row = b.slice(&[h]);
    let changed = product(MatRef::from_row_major_slice(row, 1, row.len()), G);
    let b = b.slice_mut(&[h]);
    b.iter_mut()
        .enumerate()
        .for_each(|(j, x)| *x = changed[(0, j)]);
}

/// A random order that is not the one there is, when there is another.
fn derangement(rng: &mut ChaCha8Rng, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(rng);
    if order.is_sorted() && n > 1 {
        order.rotate_left(1);
    }
    order
}

/// Equal pieces in another order.
fn reorder<T: Scalar>(x: &mut [T], order: &[usize]) {
    let each = x.len() / order.len();
    let old = x.to_vec();
    for (row, &from) in x.chunks_exact_mut(each).zip(order) {
        row.copy_from_slice(&old[from * each..(from + 1) * each]);
    }
}
