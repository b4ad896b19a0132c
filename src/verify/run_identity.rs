//! Identities between the values of a run, each with a rigorous bound.

use super::bounded::{Bounded, gamma, rounded_up, unit};
use super::verdict::{BoundKind, Comparison, Finding, Verdict};
use crate::decompose::{By, Logit, Stack, direct_logit_attribution, residual_stack};
use crate::error::Result;
use crate::model::{ActFn, AttentionDir, Config, Mlp, Model, Norm, PAD_SCORE, RunOutput, Tokens};
use crate::names::{Head, Hook};
use crate::tensor::{Scalar, Tensor};
use faer::{Mat, MatRef};

/// What identities are checked on: a model, a batch, and a run of it that kept every hook.
#[derive(Clone, Copy)]
pub struct Evidence<'a, T: Scalar> {
    /// The model.
    pub model: &'a Model<T>,
    /// The batch.
    pub tokens: &'a Tokens,
    /// What the model gave, with every hook in its cache.
    pub out: &'a RunOutput<T>,
    /// The number of the batch's first sequence in a larger batch, for the places in verdicts.
    pub first_sequence: usize,
}

/// An identity between values of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunIdentity {
    /// The embeddings are rows of `W_E` and `W_pos`.
    Embeddings,
    /// The stream is the sum of what wrote to it.
    ResidualSum,
    /// LayerNorm's formula.
    LayerNorm,
    /// Queries, keys and values from their weights.
    Projections,
    /// Scores from `W_QK`.
    Scores,
    /// Where scores are masked.
    Mask,
    /// Patterns are softmaxes.
    Softmax,
    /// Patterns' rows sum to one.
    PatternRows,
    /// A head's result from its pattern, values and `W_O`.
    HeadResults,
    /// Attention is the sum of its heads.
    AttnOut,
    /// Neurons from their weights.
    Neurons,
    /// The neurons' function.
    Activation,
    /// The MLP is the sum of its neurons.
    MlpOut,
    /// The logits are the sum of direct attributions.
    DirectAttribution,
}

/// What has been compared so far, or why nothing is.
pub(super) type Collected = Option<Result<Comparison, &'static str>>;

const NO_MLPS: &str = "the model has no MLPs";
const NO_NORMS: &str = "the model has no LayerNorm";

impl RunIdentity {
    /// Every identity, in the order of the forward pass.
    pub const ALL: [RunIdentity; 14] = [
        RunIdentity::Embeddings,
        RunIdentity::ResidualSum,
        RunIdentity::LayerNorm,
        RunIdentity::Projections,
        RunIdentity::Scores,
        RunIdentity::Mask,
        RunIdentity::Softmax,
        RunIdentity::PatternRows,
        RunIdentity::HeadResults,
        RunIdentity::AttnOut,
        RunIdentity::Neurons,
        RunIdentity::Activation,
        RunIdentity::MlpOut,
        RunIdentity::DirectAttribution,
    ];

    /// The identity's name.
    pub fn id(self) -> &'static str {
        match self {
            RunIdentity::Embeddings => "embeddings",
            RunIdentity::ResidualSum => "residual_sum",
            RunIdentity::LayerNorm => "layer_norm",
            RunIdentity::Projections => "projections",
            RunIdentity::Scores => "scores",
            RunIdentity::Mask => "mask",
            RunIdentity::Softmax => "softmax",
            RunIdentity::PatternRows => "pattern_rows",
            RunIdentity::HeadResults => "head_results",
            RunIdentity::AttnOut => "attn_out",
            RunIdentity::Neurons => "neurons",
            RunIdentity::Activation => "activation",
            RunIdentity::MlpOut => "mlp_out",
            RunIdentity::DirectAttribution => "direct_attribution",
        }
    }

    /// What the identity says.
    pub fn statement(self) -> &'static str {
        match self {
            RunIdentity::Embeddings => "embed = W_E[token], pos_embed = W_pos[position]",
            RunIdentity::ResidualSum => {
                "resid = embed + pos_embed + Σ attn_out + Σ mlp_out, at every layer"
            }
            RunIdentity::LayerNorm => {
                "scale² = mean((x - mean)²) + eps, normalized = (x - mean) / scale · w + b"
            }
            RunIdentity::Projections => "q = x W_Q + b_Q, k = x W_K + b_K, v = x W_V + b_V",
            RunIdentity::Scores => {
                "scores = (x W_QK xᵀ + x W_Q b_Kᵀ + b_Q W_Kᵀ xᵀ + b_Q b_Kᵀ) / attn_scale"
            }
            RunIdentity::Mask => "scores are masked after the query and at pad tokens, there only",
            RunIdentity::Softmax => "pattern = softmax(scores) over the keys",
            RunIdentity::PatternRows => "Σ_key pattern = 1",
            RunIdentity::HeadResults => "result[h] = pattern[h] · v[h] · W_O[h]",
            RunIdentity::AttnOut => "attn_out = Σ_h result[h] + b_O",
            RunIdentity::Neurons => "pre = x W_in + b_in",
            RunIdentity::Activation => "post = act_fn(pre)",
            RunIdentity::MlpOut => "mlp_out = Σ_i post[i] W_out[i] + b_out",
            RunIdentity::DirectAttribution => {
                "logits = Σ components through ln_final and W_U, + b_U"
            }
        }
    }

    /// Why the identity says nothing about such a model, if so.
    fn inapplicable(self, config: &Config) -> Option<&'static str> {
        match self {
            RunIdentity::LayerNorm if config.normalization_type.is_none() && !config.solu() => {
                Some(NO_NORMS)
            }
            RunIdentity::Neurons | RunIdentity::Activation | RunIdentity::MlpOut
                if config.attn_only =>
            {
                Some(NO_MLPS)
            }
            RunIdentity::Projections
            | RunIdentity::Scores
            | RunIdentity::Mask
            | RunIdentity::Softmax
            | RunIdentity::PatternRows
            | RunIdentity::HeadResults
            | RunIdentity::AttnOut
            | RunIdentity::ResidualSum
            | RunIdentity::Neurons
            | RunIdentity::Activation
            | RunIdentity::MlpOut
                if config.n_layers == 0 =>
            {
                Some("the model has no layers")
            }
            _ => None,
        }
    }

    /// Checks the identity on one run.
    ///
    /// # Errors
    /// When the run did not keep a hook that the identity speaks of.
    pub fn check<T: Scalar>(self, evidence: &Evidence<'_, T>) -> Result<Finding> {
        let mut collected = None;
        self.collect(evidence, &mut collected)?;
        Ok(self.finding(collected))
    }

    /// Adds one run's comparisons to those collected.
    pub(super) fn collect<T: Scalar>(
        self,
        e: &Evidence<'_, T>,
        collected: &mut Collected,
    ) -> Result<()> {
        if let Some(reason) = self.inapplicable(e.model.config()) {
            *collected = Some(Err(reason));
            return Ok(());
        }
        let mut cmp = Comparison::new(BoundKind::Derived);
        match self {
            RunIdentity::Embeddings => embeddings(e, &mut cmp)?,
            RunIdentity::ResidualSum => residual_sum(e, &mut cmp)?,
            RunIdentity::LayerNorm => layer_norm(e, &mut cmp)?,
            RunIdentity::Projections => projections(e, &mut cmp)?,
            RunIdentity::Scores => scores(e, &mut cmp)?,
            RunIdentity::Mask => mask(e, &mut cmp)?,
            RunIdentity::Softmax => softmax(e, &mut cmp)?,
            RunIdentity::PatternRows => pattern_rows(e, &mut cmp)?,
            RunIdentity::HeadResults => head_results(e, &mut cmp)?,
            RunIdentity::AttnOut => attn_out(e, &mut cmp)?,
            RunIdentity::Neurons => neurons(e, &mut cmp)?,
            RunIdentity::Activation => activation(e, &mut cmp)?,
            RunIdentity::MlpOut => mlp_out(e, &mut cmp)?,
            RunIdentity::DirectAttribution => direct_attribution(e, &mut cmp)?,
        }
        match collected {
            Some(Ok(before)) => before.merge(cmp),
            _ => *collected = Some(Ok(cmp)),
        }
        Ok(())
    }

    /// The verdict on what was collected.
    pub(super) fn finding(self, collected: Collected) -> Finding {
        let verdict = match collected {
            Some(Ok(cmp)) => cmp.verdict(),
            Some(Err(reason)) => Some(Verdict::NotApplicable {
                reason: reason.into(),
            }),
            None => None,
        };
        let nothing = || Verdict::NotApplicable {
            reason: "there was nothing to compare".into(),
        };
        Finding {
            id: self.id(),
            statement: self.statement(),
            verdict: verdict.unwrap_or_else(nothing),
        }
    }
}

impl<T: Scalar> Evidence<'_, T> {
    fn value(&self, hook: Hook) -> Result<&Tensor<T>> {
        self.out.cache.require(hook)
    }

    /// The input of a layer: its norm's output, or the stream itself.
    fn layer_input(&self, normalized: Hook, resid: Hook) -> Result<&Tensor<T>> {
        let normed = self.model.config().normalization_type.is_some();
        self.value(if normed { normalized } else { resid })
    }

    /// A row `[batch, pos]` flattened, and a column, as the place in a hook's value.
    fn place(&self, what: impl std::fmt::Display, row: usize, rest: &[usize]) -> String {
        let pos = self.tokens.pos();
        let rest: String = rest.iter().map(|i| format!(", {i}")).collect();
        format!(
            "{what}[{}, {}{rest}]",
            self.first_sequence + row / pos,
            row % pos
        )
    }

    /// Compares two sides of shape `[batch · pos, d]`.
    fn compare_rows(
        &self,
        cmp: &mut Comparison,
        hook: Hook,
        left: &Bounded<T>,
        right: &Bounded<T>,
    ) {
        compare(cmp, left, right, |i, j| self.place(hook, i, &[j]));
    }

    fn masked(&self, sequence: usize, query: usize, key: usize) -> Mask {
        let config = self.model.config();
        if config
            .pad_token
            .is_some_and(|pad| self.tokens.sequence(sequence)[key] == pad as i64)
        {
            Mask::Pad
        } else if config.attention_dir == AttentionDir::Causal && key > query {
            Mask::Future
        } else {
            Mask::Seen
        }
    }
}

/// What a key is to a query.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mask {
    Seen,
    Future,
    Pad,
}

fn compare<T: Scalar>(
    cmp: &mut Comparison,
    left: &Bounded<T>,
    right: &Bounded<T>,
    place: impl Fn(usize, usize) -> String,
) {
    for i in 0..left.nrows() {
        for j in 0..left.value.ncols() {
            let bound = left.error[(i, j)].to_f64() + right.error[(i, j)].to_f64();
            let (l, r) = (left.value[(i, j)].to_f64(), right.value[(i, j)].to_f64());
            cmp.entry(l, r, bound, || place(i, j));
        }
    }
}

/// Copies: nothing may differ.
fn embeddings<T: Scalar>(e: &Evidence<'_, T>, cmp: &mut Comparison) -> Result<()> {
    let weights = e.model.weights();
    let pos = e.tokens.pos();
    let (embed, pos_embed) = (e.value(Hook::Embed)?, e.value(Hook::PosEmbed)?);
    for (row, &token) in e.tokens.ids().iter().enumerate() {
        for (hook, found, expected) in [
            (Hook::Embed, embed, weights.W_E.slice(&[token as usize])),
            (Hook::PosEmbed, pos_embed, weights.W_pos.slice(&[row % pos])),
        ] {
            for (j, (f, x)) in found
                .slice(&[row / pos, row % pos])
                .iter()
                .zip(expected)
                .enumerate()
            {
                cmp.entry(f.to_f64(), x.to_f64(), 0.0, || e.place(hook, row, &[j]));
            }
        }
    }
    Ok(())
}

/// The sum of a stack's components and its bound: `γ_{n-1} Σ |x_i|` on each side.
fn stack_sum<T: Scalar>(stack: &Stack<T>) -> Bounded<T> {
    let n = stack.labels.len();
    let magnitude = Tensor::from_vec(
        stack.values.shape(),
        stack.values.data().iter().map(|x| x.abs()).collect(),
    );
    let magnitude = Stack {
        labels: stack.labels.clone(),
        values: magnitude,
    }
    .sum();
    let (g, up) = (gamma::<T>(n), rounded_up::<T>(n + 4));
    let magnitude = magnitude.rows();
    Bounded {
        value: stack.sum().rows().to_owned(),
        error: Mat::from_fn(magnitude.nrows(), magnitude.ncols(), |i, j| {
            g * magnitude[(i, j)] * up
        }),
    }
}

fn residual_sum<T: Scalar>(e: &Evidence<'_, T>, cmp: &mut Comparison) -> Result<()> {
    let c = e.model.config();
    for l in 0..c.n_layers {
        let mid = (!c.attn_only).then_some(Hook::ResidMid(l));
        for hook in [Some(Hook::ResidPre(l)), mid, Some(Hook::ResidPost(l))]
            .into_iter()
            .flatten()
        {
            let sum = stack_sum(&residual_stack(e.model, &e.out.cache, hook, By::Layer)?);
            e.compare_rows(cmp, hook, &sum.claimed(e.value(hook)?.rows()), &sum);
        }
    }
    Ok(())
}

/// A norm of the model: its parameters, and the hooks of its input, scale and output.
fn norms<T: Scalar>(model: &Model<T>) -> Vec<(Option<&Norm<T>>, Hook, Hook, Hook)> {
    let (c, w) = (model.config(), model.weights());
    let mut all = Vec::new();
    for (l, block) in w.blocks.iter().enumerate() {
        if c.normalization_type.is_some() {
            all.push((
                block.ln1.as_ref(),
                Hook::ResidPre(l),
                Hook::Ln1Scale(l),
                Hook::Ln1Normalized(l),
            ));
            if !c.attn_only {
                all.push((
                    block.ln2.as_ref(),
                    Hook::ResidMid(l),
                    Hook::Ln2Scale(l),
                    Hook::Ln2Normalized(l),
                ));
            }
        }
        if c.solu() {
            let ln = block.mlp.as_ref().and_then(|m| m.ln.as_ref());
            all.push((
                ln,
                Hook::Mid(l),
                Hook::MlpLnScale(l),
                Hook::MlpLnNormalized(l),
            ));
        }
    }
    if c.normalization_type.is_some() {
        let last = if c.n_layers > 0 {
            Some(Hook::ResidPost(c.n_layers - 1))
        } else {
            None
        };
        if let Some(last) = last {
            all.push((
                w.ln_final.as_ref(),
                last,
                Hook::LnFinalScale,
                Hook::LnFinalNormalized,
            ));
        }
    }
    all
}

fn layer_norm<T: Scalar>(e: &Evidence<'_, T>, cmp: &mut Comparison) -> Result<()> {
    let eps = T::from_f64(e.model.config().eps);
    for (norm, input, scale_hook, normalized_hook) in norms(e.model) {
        let x = Bounded::exact(e.value(input)?.rows());
        let d = T::from_f64(x.value.ncols() as f64);
        let centered = x.centered();
        let mean_square = centered
            .squared()
            .row_sums()
            .scaled(T::ONE / d, unit::<T>());
        let expected = mean_square.plus(&Bounded::exact_row(&[eps])).sqrt();
        let scale = e.value(scale_hook)?;
        e.compare_rows(cmp, scale_hook, &expected.claimed(scale.rows()), &expected);

        let expected = affine(&centered, scale.data(), norm);
        let found = e.value(normalized_hook)?;
        e.compare_rows(
            cmp,
            normalized_hook,
            &expected.claimed(found.rows()),
            &expected,
        );
    }
    Ok(())
}

/// `centered / scale · w + b`
fn affine<T: Scalar>(centered: &Bounded<T>, scale: &[T], norm: Option<&Norm<T>>) -> Bounded<T> {
    let normalized = centered.divided_by_column(scale);
    match norm {
        Some(norm) => normalized
            .times_row(norm.w.data())
            .plus(&Bounded::exact_row(norm.b.data())),
        None => normalized,
    }
}

/// `x W + b` with the bound that holds for every order of its terms, evaluated term by term: row `i` of `W`
/// times column `i` of `x`, and no matrix product.
fn linear<T: Scalar>(x: MatRef<'_, T>, W: MatRef<'_, T>, b: &[T]) -> Bounded<T> {
    let mut sum = Mat::from_fn(x.nrows(), b.len(), |_, j| b[j]);
    for j in 0..b.len() {
        let sum = sum
            .col_mut(j)
            .try_as_col_major_mut()
            .expect("a matrix's own column")
            .as_slice_mut();
        for term in 0..x.ncols() {
            let w = W[(term, j)];
            sum.iter_mut()
                .enumerate()
                .for_each(|(i, s)| *s += x[(i, term)] * w);
        }
    }
    Bounded::exact(x)
        .times_plus(&Bounded::exact(W), b)
        .claimed(sum.as_ref())
}

fn projections<T: Scalar>(e: &Evidence<'_, T>, cmp: &mut Comparison) -> Result<()> {
    let c = e.model.config();
    for (l, block) in e.model.weights().blocks.iter().enumerate() {
        let x = e.layer_input(Hook::Ln1Normalized(l), Hook::ResidPre(l))?;
        let attn = &block.attn;
        for (hook, W, b) in [
            (Hook::Q(l), &attn.W_Q, &attn.b_Q),
            (Hook::K(l), &attn.W_K, &attn.b_K),
            (Hook::V(l), &attn.W_V, &attn.b_V),
        ] {
            let found = e.value(hook)?;
            for h in 0..c.n_heads {
                let expected = linear(x.rows(), W.mat(&[h]), b.slice(&[h]));
                let rows = found.len() / (c.n_heads * c.d_head);
                let flat = MatRef::from_row_major_slice(found.data(), rows, c.n_heads * c.d_head);
                let found = expected.claimed(flat.subcols(h * c.d_head, c.d_head));
                compare(cmp, &found, &expected, |i, j| e.place(hook, i, &[h, j]));
            }
        }
    }
    Ok(())
}

fn scores<T: Scalar>(e: &Evidence<'_, T>, cmp: &mut Comparison) -> Result<()> {
    let c = e.model.config();
    for (l, block) in e.model.weights().blocks.iter().enumerate() {
        let x = e.layer_input(Hook::Ln1Normalized(l), Hook::ResidPre(l))?;
        let found = e.value(Hook::AttnScores(l))?;
        let inverse = T::ONE / T::from_f64(c.score_scale(l));
        for h in 0..c.n_heads {
            let head = Head { layer: l, head: h };
            let W_Q = Bounded::exact(e.model.weights().W_Q(head));
            let W_K = Bounded::exact(e.model.weights().W_K(head));
            let b_Q = Bounded::exact_row(block.attn.b_Q.slice(&[h]));
            let b_K = Bounded::exact_row(block.attn.b_K.slice(&[h]));
            let W_QK = W_Q.times(&W_K.transposed());
            let query_bias = W_Q.times(&b_K.transposed());
            let key_bias = b_Q.times(&W_K.transposed());
            let constant = b_Q.times(&b_K.transposed());
            for b in 0..e.tokens.batch() {
                let x = Bounded::exact(x.mat(&[b]));
                // As the forward pass has it, for the bound on what it found…
                let q = x.times_plus(&W_Q, block.attn.b_Q.slice(&[h]));
                let k = x.times_plus(&W_K, block.attn.b_K.slice(&[h]));
                let from_qk = q.times(&k.transposed()).scaled(inverse, unit::<T>());
                let left = from_qk.claimed(found.mat(&[b, h]));
                // … and through W_QK.
                let right = x
                    .times(&W_QK)
                    .times(&x.transposed())
                    .plus(&x.times(&query_bias))
                    .plus(&key_bias.times(&x.transposed()))
                    .plus(&constant)
                    .scaled(inverse, unit::<T>());
                for query in 0..e.tokens.pos() {
                    for key in 0..e.tokens.pos() {
                        if e.masked(b, query, key) != Mask::Seen {
                            continue;
                        }
                        let at = (query, key);
                        let bound = left.error[at].to_f64() + right.error[at].to_f64();
                        let (found, expected) = (left.value[at].to_f64(), right.value[at].to_f64());
                        cmp.entry(found, expected, bound, || {
                            scores_place(e, Hook::AttnScores(l), b, h, at)
                        });
                    }
                }
            }
        }
    }
    Ok(())
}

fn scores_place<T: Scalar>(
    e: &Evidence<'_, T>,
    hook: Hook,
    b: usize,
    h: usize,
    (query, key): (usize, usize),
) -> String {
    format!("{hook}[{}, {h}, {query}, {key}]", e.first_sequence + b)
}

/// Every score is what the mask says it is: 1 where it is masked, 0 where it is not.
fn mask<T: Scalar>(e: &Evidence<'_, T>, cmp: &mut Comparison) -> Result<()> {
    let c = e.model.config();
    let is = |condition: bool| f64::from(u8::from(condition));
    for l in 0..c.n_layers {
        let (scores, pattern) = (e.value(Hook::AttnScores(l))?, e.value(Hook::Pattern(l))?);
        for (flat, (&score, &weight)) in scores.data().iter().zip(pattern.data()).enumerate() {
            let &[b, h, query, key] = scores.place(flat).as_slice() else {
                unreachable!("four axes")
            };
            let place = |hook| scores_place(e, hook, b, h, (query, key));
            let mask = e.masked(b, query, key);
            let future = score == -T::INFINITY;
            cmp.entry(is(future), is(mask == Mask::Future), 0.0, || {
                place(Hook::AttnScores(l))
            });
            if mask == Mask::Pad {
                cmp.entry(score.to_f64(), PAD_SCORE, 0.0, || {
                    place(Hook::AttnScores(l))
                });
            }
            if mask == Mask::Future {
                cmp.entry(weight.to_f64(), 0.0, 0.0, || place(Hook::Pattern(l)));
            }
        }
    }
    Ok(())
}

/// The error of an elementary function of this crate or the system's, in units of roundoff; each is
/// documented or tested to be within 2 units in the last place, that is 4 of roundoff.
const ELEMENTARY: f64 = 4.0;

/// `softmax(row)` on the system's `exp`, with the bound of either evaluation.
///
/// `exp(s - max)` is off by `|s - max| u`, from the difference, and by the function's own error; the
/// quotient by that of its own exponential, the weighted mean of the others', and the sum's `γ_n`.
fn bounded_softmax<T: Scalar>(row: &[T]) -> (Vec<T>, Vec<T>) {
    let max = row
        .iter()
        .copied()
        .fold(-T::INFINITY, |a, b| if b > a { b } else { a });
    let exps: Vec<T> = row.iter().map(|&s| (s - max).exp()).collect();
    let total: T = exps.iter().copied().sum();
    let u = unit::<T>();
    let relative = |s: T| ((s - max).abs() + T::from_f64(ELEMENTARY)) * u;
    let seen = || row.iter().zip(&exps).filter(|(_, e)| **e > T::ZERO);
    let mean: T = seen().map(|(&s, &e)| e / total * relative(s)).sum();
    let others = mean + gamma::<T>(row.len() + 4);
    let up = rounded_up::<T>(row.len() + 16);
    let values: Vec<T> = exps.iter().map(|&e| e / total).collect();
    let errors = row
        .iter()
        .zip(&values)
        // What underflows is off by less than the smallest normal number.
        .map(|(&s, &p)| {
            let own = if p > T::ZERO { relative(s) } else { T::ZERO };
            p * (own + others) * up + T::MIN_POSITIVE
        })
        .collect();
    (values, errors)
}

fn softmax<T: Scalar>(e: &Evidence<'_, T>, cmp: &mut Comparison) -> Result<()> {
    for l in 0..e.model.config().n_layers {
        let (scores, pattern) = (e.value(Hook::AttnScores(l))?, e.value(Hook::Pattern(l))?);
        let keys = e.tokens.pos();
        let rows = scores
            .data()
            .chunks_exact(keys)
            .zip(pattern.data().chunks_exact(keys));
        for (row, (scores_row, found)) in rows.enumerate() {
            let (expected, error) = bounded_softmax(scores_row);
            for key in 0..keys {
                let bound = 2.0 * error[key].to_f64();
                cmp.entry(found[key].to_f64(), expected[key].to_f64(), bound, || {
                    let at = scores.place(row * keys + key);
                    scores_place(e, Hook::Pattern(l), at[0], at[1], (at[2], at[3]))
                });
            }
        }
    }
    Ok(())
}

/// Each weight is its exponential over their sum, with three roundings; the sums here and there are
/// within `γ_n` each.
fn pattern_rows<T: Scalar>(e: &Evidence<'_, T>, cmp: &mut Comparison) -> Result<()> {
    for l in 0..e.model.config().n_layers {
        let pattern = e.value(Hook::Pattern(l))?;
        let keys = e.tokens.pos();
        let bound = (gamma::<T>(2 * keys + 4) * rounded_up::<T>(4)).to_f64()
            + keys as f64 * T::MIN_POSITIVE.to_f64();
        for (row, weights) in pattern.data().chunks_exact(keys).enumerate() {
            let sum: T = weights.iter().copied().sum();
            cmp.entry(sum.to_f64(), 1.0, bound, || {
                let at = pattern.place(row * keys);
                format!(
                    "{}[{}, {}, {}, :]",
                    Hook::Pattern(l),
                    e.first_sequence + at[0],
                    at[1],
                    at[2]
                )
            });
        }
    }
    Ok(())
}

fn head_results<T: Scalar>(e: &Evidence<'_, T>, cmp: &mut Comparison) -> Result<()> {
    let c = e.model.config();
    for l in 0..c.n_layers {
        let hook = Hook::Result(l);
        let (pattern, v, found) = (
            e.value(Hook::Pattern(l))?,
            e.value(Hook::V(l))?,
            e.value(hook)?,
        );
        for h in 0..c.n_heads {
            let W_O = Bounded::exact(e.model.weights().W_O(Head { layer: l, head: h }));
            for b in 0..e.tokens.batch() {
                let pattern = Bounded::exact(pattern.mat(&[b, h]));
                let v = Bounded::exact(v.head(b, h));
                // The forward pass mixes the values first; here each is written out first.
                let left = pattern.times(&v).times(&W_O).claimed(found.head(b, h));
                let right = pattern.times(&v.times(&W_O));
                compare(cmp, &left, &right, |i, j| {
                    e.place(hook, b * e.tokens.pos() + i, &[h, j])
                });
            }
        }
    }
    Ok(())
}

fn attn_out<T: Scalar>(e: &Evidence<'_, T>, cmp: &mut Comparison) -> Result<()> {
    let c = e.model.config();
    for (l, block) in e.model.weights().blocks.iter().enumerate() {
        let hook = Hook::AttnOut(l);
        let (result, found) = (e.value(Hook::Result(l))?, e.value(hook)?.rows());
        let rows = found.nrows();
        let flat = MatRef::from_row_major_slice(result.data(), rows, c.n_heads * c.d_model);
        let mut sum = Bounded::exact(Mat::<T>::zeros(rows, c.d_model).as_ref());
        for h in 0..c.n_heads {
            sum = sum.plus(&Bounded::exact(flat.subcols(h * c.d_model, c.d_model)));
        }
        let sum = sum.plus(&Bounded::exact_row(block.attn.b_O.data()));
        // Another order's error: by the magnitudes of the terms, not of this order's partial sums.
        let b_O = block.attn.b_O.data();
        let g = gamma::<T>(c.n_heads + 1) * rounded_up::<T>(c.n_heads + 4);
        let error = Mat::from_fn(rows, c.d_model, |i, j| {
            let heads: T = (0..c.n_heads)
                .map(|h| flat[(i, h * c.d_model + j)].abs())
                .sum();
            g * (heads + b_O[j].abs())
        });
        let left = Bounded {
            value: found.to_owned(),
            error,
        };
        e.compare_rows(cmp, hook, &left, &sum);
    }
    Ok(())
}

/// The MLPs, with their layers.
fn mlps<'a, T: Scalar>(e: &Evidence<'a, T>) -> impl Iterator<Item = (usize, &'a Mlp<T>)> {
    let blocks = e.model.weights().blocks.iter().enumerate();
    blocks.filter_map(|(l, block)| block.mlp.as_ref().map(|mlp| (l, mlp)))
}

fn neurons<T: Scalar>(e: &Evidence<'_, T>, cmp: &mut Comparison) -> Result<()> {
    for (l, mlp) in mlps(e) {
        let x = e.layer_input(Hook::Ln2Normalized(l), Hook::ResidMid(l))?;
        let expected = linear(x.rows(), mlp.W_in.mat(&[]), mlp.b_in.data());
        let found = expected.claimed(e.value(Hook::Pre(l))?.rows());
        e.compare_rows(cmp, Hook::Pre(l), &found, &expected);
    }
    Ok(())
}

/// The function of one neuron, in f64.
fn act<T: Scalar>(act_fn: ActFn, x: T) -> f64 {
    let x = x.to_f64();
    let gelu = |k: f64| 0.5 * x * (1.0 + (k * (x + 0.044715 * x * x * x)).tanh());
    match act_fn {
        ActFn::Relu => x.max(0.0),
        ActFn::Gelu => 0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
        ActFn::GeluNew | ActFn::GeluPytorchTanh => gelu((2.0 / std::f64::consts::PI).sqrt()),
        ActFn::GeluFast => gelu(0.7978845608),
        ActFn::Silu => x / (1.0 + (-x).exp()),
        ActFn::Solu | ActFn::SoluLn => unreachable!("SoLU is no function of one neuron"),
    }
}

/// How far `x · g(x)` may be off, in units of roundoff of `x`, for `g` a sigmoid, a `(1 + tanh)/2` or a
/// `(1 + erf)/2` of an argument with six roundings. The argument's error moves `g` by at most
/// `6 |y g'(y)| u`, and `|y g'(y)| < 1/2` for all of them; `1 + tanh` and the elementary function add
/// one unit each and [`ELEMENTARY`]; the products two. In f64 the reference has the same.
const SIGMOIDAL: f64 = 2.0 * (6.0 * 0.5 + 1.0 + 1.0 + ELEMENTARY + 2.0);

fn activation<T: Scalar>(e: &Evidence<'_, T>, cmp: &mut Comparison) -> Result<()> {
    let act_fn = e
        .model
        .config()
        .mlp_act()
        .expect("a model with MLPs names their function");
    for (l, mlp) in mlps(e) {
        let pre = e.value(Hook::Pre(l))?;
        let d_mlp = mlp.b_in.len();
        // Where a LayerNorm follows, it is `layer_norm` that speaks of the rest; but its output is `post`.
        let hook = if e.model.config().solu() {
            Hook::Mid(l)
        } else {
            Hook::Post(l)
        };
        let found = e.value(hook)?;
        for (row, (x, y)) in pre
            .data()
            .chunks_exact(d_mlp)
            .zip(found.data().chunks_exact(d_mlp))
            .enumerate()
        {
            let solu = matches!(act_fn, ActFn::Solu | ActFn::SoluLn).then(|| bounded_softmax(x));
            for j in 0..d_mlp {
                let (expected, bound) = match &solu {
                    Some((p, error)) => {
                        let value = x[j] * p[j];
                        let error =
                            x[j].abs() * error[j] + T::EPSILON * value.abs() + T::MIN_POSITIVE;
                        (value.to_f64(), 2.0 * error.to_f64())
                    }
                    None if act_fn == ActFn::Relu => (act(act_fn, x[j]), 0.0),
                    None => {
                        let size = x[j].to_f64().abs();
                        let bound =
                            SIGMOIDAL * unit::<T>().to_f64() * size + T::MIN_POSITIVE.to_f64();
                        (act(act_fn, x[j]), bound)
                    }
                };
                cmp.entry(y[j].to_f64(), expected, bound, || e.place(hook, row, &[j]));
            }
        }
        if e.model.config().solu() {
            let (post, normalized) = (e.value(Hook::Post(l))?, e.value(Hook::MlpLnNormalized(l))?);
            for (flat, (p, n)) in post.data().iter().zip(normalized.data()).enumerate() {
                cmp.entry(p.to_f64(), n.to_f64(), 0.0, || {
                    e.place(Hook::Post(l), flat / d_mlp, &[flat % d_mlp])
                });
            }
        }
    }
    Ok(())
}

fn mlp_out<T: Scalar>(e: &Evidence<'_, T>, cmp: &mut Comparison) -> Result<()> {
    for (l, mlp) in mlps(e) {
        let post = e.value(Hook::Post(l))?.rows();
        let neurons = linear(post, mlp.W_out.mat(&[]), mlp.b_out.data());
        let found = neurons.claimed(e.value(Hook::MlpOut(l))?.rows());
        e.compare_rows(cmp, Hook::MlpOut(l), &found, &neurons);
    }
    Ok(())
}

/// At most this many logits are compared: with a real vocabulary all of them would take minutes.
const LOGITS: usize = 64;

fn direct_attribution<T: Scalar>(e: &Evidence<'_, T>, cmp: &mut Comparison) -> Result<()> {
    let (c, w) = (e.model.config(), e.model.weights());
    let Some(last) = c.n_layers.checked_sub(1).map(Hook::ResidPost) else {
        return Ok(());
    };
    let step = c.d_vocab_out.div_ceil(LOGITS);
    let chosen: Vec<usize> = (0..c.d_vocab_out).step_by(step).collect();
    let W_U = w.W_U.mat(&[]);
    let W_U = Mat::from_fn(c.d_model, chosen.len(), |i, j| W_U[(i, chosen[j])]);
    let W_U = Bounded::exact(W_U.as_ref());
    let b_U: Vec<T> = chosen.iter().map(|&i| w.b_U.data()[i]).collect();

    let norm = w.ln_final.as_ref();
    let scale = match c.normalization_type {
        Some(_) => Some(e.value(Hook::LnFinalScale)?.data()),
        None => None,
    };
    let stack = residual_stack(e.model, &e.out.cache, last, By::Layer)?;

    // What the run computed: from the stream, which is the components' sum to within rounding.
    let stream = stack_sum(&stack).claimed(e.value(last)?.rows());
    let normalized = scale.map_or(stream.clone(), |s| affine(&stream.centered(), s, norm));
    let found = e.out.logits.rows();
    let found = Mat::from_fn(found.nrows(), chosen.len(), |i, j| found[(i, chosen[j])]);
    let left = normalized.times_plus(&W_U, &b_U).claimed(found.as_ref());

    // The sum of attributions, and its bound from each component's.
    let mut bounded: Option<Bounded<T>> = None;
    for i in 0..stack.labels.len() {
        let rows = left.nrows();
        let component = MatRef::from_row_major_slice(stack.values.slice(&[i]), rows, c.d_model);
        let component = Bounded::exact(component);
        let component = match scale {
            Some(scale) => {
                let x = component.centered().divided_by_column(scale);
                norm.map_or(x.clone(), |n| x.times_row(n.w.data()))
            }
            None => component,
        };
        let attributed = component.times(&W_U);
        bounded = Some(bounded.map_or(attributed.clone(), |sum| sum.plus(&attributed)));
    }
    let mut bounded = bounded
        .expect("the embedding is a component")
        .plus(&Bounded::exact_row(&b_U));
    if let Some(norm) = norm {
        bounded = bounded.plus(&Bounded::exact_row(norm.b.data()).times(&W_U));
    }
    let logits: Vec<Logit> = chosen.iter().map(|&i| Logit::Of(i)).collect();
    let attributions = direct_logit_attribution(e.model, &e.out.cache, stack, &logits)?;
    // The library adds in another order than the bound was carried: by magnitudes, both are covered.
    let by_magnitude = stack_sum(&attributions);
    let error = Mat::from_fn(left.nrows(), chosen.len(), |i, j| {
        bounded.error[(i, j)] + by_magnitude.error[(i, j)]
    });
    let right = Bounded {
        value: by_magnitude.value,
        error,
    };
    compare(cmp, &left, &right, |i, j| {
        e.place("logits", i, &[chosen[j]])
    });
    Ok(())
}
