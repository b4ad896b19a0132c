//! Identities between the values of a run, each with a rigorous bound.

use super::evidence::Evidence;
use super::verdict::{BoundKind, Comparison, Finding, Verdict};
use super::{attention, mlp, paths, prove, stream};
use crate::decompose::nonlinear_logits;
use crate::error::Result;
use crate::eval::Source;
use crate::model::Config;
use crate::tensor::Scalar;

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
    /// A head's `z` from its pattern and values, and its result from those and `W_O`.
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
    /// The logits are the sum over paths.
    PathSum,
}

/// What has been compared so far, or why nothing is.
pub(super) type Collected = Option<Result<Comparison, &'static str>>;

const NO_MLPS: &str = "the model has no MLPs";
const NO_NORMS: &str = "the model has no LayerNorm";

impl RunIdentity {
    /// Every identity, in the order of the forward pass.
    pub const ALL: [RunIdentity; 15] = [
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
        RunIdentity::PathSum,
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
            RunIdentity::PathSum => "path_sum",
        }
    }

    /// What the identity says.
    pub fn statement(self) -> &'static str {
        match self {
            RunIdentity::Embeddings => "embed = W_E[token], pos_embed = W_pos[position]",
            RunIdentity::ResidualSum => {
                "resid = embed + pos_embed + Σ result[h] + Σ b_O + Σ mlp_out, at every layer"
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
            RunIdentity::HeadResults => {
                "z[h] = pattern[h] · v[h], result[h] = pattern[h] · v[h] · W_O[h]"
            }
            RunIdentity::AttnOut => "attn_out = Σ_h result[h] + b_O",
            RunIdentity::Neurons => {
                "pre = x W_in + b_in; gated, pre = x W_gate, pre_linear = x W_in"
            }
            RunIdentity::Activation => "post = act_fn(pre); gated, times pre_linear, plus b_in",
            RunIdentity::MlpOut => "mlp_out = Σ_i post[i] W_out[i] + b_out",
            RunIdentity::DirectAttribution => {
                "logits = Σ components through ln_final and W_U, + b_U"
            }
            RunIdentity::PathSum => {
                "logits = Σ paths through the heads, patterns and scales frozen"
            }
        }
    }

    /// Why the identity says nothing about such a model, if so.
    fn inapplicable(self, config: &Config) -> Option<&'static str> {
        match self {
            RunIdentity::LayerNorm
                if config.norm.is_none() && (!config.norms_neurons() || config.n_layers == 0) =>
            {
                Some(NO_NORMS)
            }
            RunIdentity::DirectAttribution | RunIdentity::PathSum => nonlinear_logits(config),
            RunIdentity::Neurons | RunIdentity::Activation | RunIdentity::MlpOut
                if config.mlp.is_none() =>
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
        let dims = Source::run(e.model, e.out, 0).dims();
        for statement in self.statements(&dims).unwrap_or_default() {
            prove::compare_numbers(&mut cmp, &statement, e)?;
        }
        match self {
            RunIdentity::LayerNorm => stream::layer_norm(e, &mut cmp)?,
            RunIdentity::Scores => attention::scores(e, &mut cmp)?,
            RunIdentity::Mask => attention::mask(e, &mut cmp)?,
            RunIdentity::Softmax => attention::softmax(e, &mut cmp)?,
            RunIdentity::PatternRows => attention::pattern_rows(e, &mut cmp)?,
            RunIdentity::Activation => mlp::activation(e, &mut cmp)?,
            RunIdentity::DirectAttribution => stream::direct_attribution(e, &mut cmp)?,
            RunIdentity::PathSum => paths::path_sum(e, &mut cmp)?,
            RunIdentity::Embeddings
            | RunIdentity::ResidualSum
            | RunIdentity::Projections
            | RunIdentity::HeadResults
            | RunIdentity::AttnOut
            | RunIdentity::Neurons
            | RunIdentity::MlpOut => {}
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
