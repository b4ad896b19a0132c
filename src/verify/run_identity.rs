//! Identities between the values of a run, each with a rigorous bound: the table of them.

use super::evidence::Evidence;
use super::verdict::{BoundKind, Comparison, Finding, Verdict};
use super::{attention, catalogue, mlp, paths, prove, stream};
use crate::decompose::nonlinear_logits;
use crate::error::Result;
use crate::eval::Source;
use crate::expr::{Dims, Statement};
use crate::model::Config;
use crate::tensor::Scalar;

/// An identity between values of a run: one of [`RunIdentity::ALL`].
#[derive(Clone, Copy, Debug)]
pub struct RunIdentity<T: Scalar> {
    id: &'static str,
    says: &'static str,
    /// Whether there is anything of which it speaks in such a model, else why not.
    applies: fn(&Config) -> Applies,
    sides: Sides<T>,
}

/// What an identity compares.
#[derive(Clone, Copy, Debug)]
enum Sides<T: Scalar> {
    /// What the language of [`crate::expr`] says: linear statements about a run's values.
    Statements(fn(&Dims) -> Vec<Statement>),
    /// What is beyond it: masks, softmaxes, scales, the neurons' function, and sums over all paths.
    Numbers(fn(&Evidence<'_, T>, &mut Comparison) -> Result<()>),
}

type Applies = Result<(), &'static str>;

fn always(_: &Config) -> Applies {
    Ok(())
}

fn with_layers(config: &Config) -> Applies {
    match config.n_layers {
        0 => Err("the model has no layers"),
        _ => Ok(()),
    }
}

fn with_mlps(config: &Config) -> Applies {
    match config.mlp {
        None => Err("the model has no MLPs"),
        Some(_) => with_layers(config),
    }
}

fn with_linear_logits(config: &Config) -> Applies {
    nonlinear_logits(config).map_or(Ok(()), Err)
}

fn with_paths(config: &Config) -> Applies {
    with_linear_logits(config).and_then(|()| with_layers(config))
}

fn with_nonlinear_logits(config: &Config) -> Applies {
    match (config.d_vocab_out, nonlinear_logits(config)) {
        (0, Some(none)) => Err(none),
        (_, Some(_)) => Ok(()),
        (_, None) => {
            Err("the logits are linear in the stream: `direct_attribution` speaks of them")
        }
    }
}

fn with_token_types(config: &Config) -> Applies {
    match config.token_types {
        0 => Err("the model's tokens have no types"),
        _ => Ok(()),
    }
}

fn with_norms(config: &Config) -> Applies {
    if config.norm.is_some()
        || config.embed_norm.is_some()
        || config.qk_norm.is_some() && config.n_layers > 0
        || config.mlm_head.is_some()
        || config.norms_neurons() && config.n_layers > 0
    {
        Ok(())
    } else {
        Err("the model has no LayerNorm")
    }
}

impl<T: Scalar> RunIdentity<T> {
    /// Every identity, in the order of the forward pass. What is added here is checked, listed and printed.
    pub const ALL: &'static [RunIdentity<T>] = &[
        RunIdentity {
            id: "embeddings",
            says: "embed = W_E[token], pos_embed = W_pos[position], and the stream begins with their sum",
            applies: always,
            sides: Sides::Statements(catalogue::embeddings),
        },
        RunIdentity {
            id: "token_types",
            says: "token_type_embed = W_token_type[type]",
            applies: with_token_types,
            sides: Sides::Numbers(stream::token_types),
        },
        RunIdentity {
            id: "residual_sum",
            says: "resid = embed + pos_embed + Σ result[h] + Σ b_O + Σ mlp_out, at every layer",
            applies: with_layers,
            sides: Sides::Statements(catalogue::residual_sums),
        },
        RunIdentity {
            id: "layer_norm",
            says: "scale² = mean((x - mean)²) + eps, normalized = (x - mean) / scale · w + b",
            applies: with_norms,
            sides: Sides::Numbers(stream::layer_norm),
        },
        RunIdentity {
            id: "projections",
            says: "q = x W_Q + b_Q, k = x W_K + b_K, v = x W_V + b_V",
            applies: with_layers,
            sides: Sides::Statements(catalogue::projections),
        },
        RunIdentity {
            id: "scores",
            says: "scores = (x W_QK xᵀ + x W_Q b_Kᵀ + b_Q W_Kᵀ xᵀ + b_Q b_Kᵀ) / attn_scale",
            applies: with_layers,
            sides: Sides::Numbers(attention::scores),
        },
        RunIdentity {
            id: "mask",
            says: "scores are masked after the query and at pad tokens, there only",
            applies: with_layers,
            sides: Sides::Numbers(attention::mask),
        },
        RunIdentity {
            id: "softmax",
            says: "pattern = softmax(scores) over the keys",
            applies: with_layers,
            sides: Sides::Numbers(attention::softmax),
        },
        RunIdentity {
            id: "pattern_rows",
            says: "Σ_key pattern = 1",
            applies: with_layers,
            sides: Sides::Numbers(attention::pattern_rows),
        },
        RunIdentity {
            id: "head_results",
            says: "z[h] = pattern[h] · v[h], result[h] = pattern[h] · v[h] · W_O[h]",
            applies: with_layers,
            sides: Sides::Statements(catalogue::head_results),
        },
        RunIdentity {
            id: "attn_out",
            says: "attn_out = Σ_h result[h] + b_O",
            applies: with_layers,
            sides: Sides::Statements(catalogue::attn_outs),
        },
        RunIdentity {
            id: "neurons",
            says: "pre = x W_in + b_in; gated, pre = x W_gate, pre_linear = x W_in, with their biases",
            applies: with_mlps,
            sides: Sides::Statements(catalogue::neurons),
        },
        RunIdentity {
            id: "activation",
            says: "post = act_fn(pre); gated, times pre_linear, plus b_in where that has no bias",
            applies: with_mlps,
            sides: Sides::Numbers(mlp::activation),
        },
        RunIdentity {
            id: "mlp_out",
            says: "mlp_out = Σ_i post[i] W_out[i] + b_out",
            applies: with_mlps,
            sides: Sides::Statements(catalogue::mlp_outs),
        },
        RunIdentity {
            id: "logits",
            says: "logits = x W_U + b_U, capped; x behind a dense layer, mlm_head_post = act_fn(x W + b), where there is one",
            applies: with_nonlinear_logits,
            sides: Sides::Numbers(stream::logits),
        },
        RunIdentity {
            id: "direct_attribution",
            says: "logits = Σ components through ln_final and W_U, + b_U",
            applies: with_linear_logits,
            sides: Sides::Numbers(stream::direct_attribution),
        },
        RunIdentity {
            id: "path_sum",
            says: "logits = Σ paths through the heads, patterns and scales frozen",
            applies: with_paths,
            sides: Sides::Numbers(paths::path_sum),
        },
    ];
}

/// What has been compared so far, or why nothing is.
pub(super) type Collected = Option<Result<Comparison, &'static str>>;

impl<T: Scalar> RunIdentity<T> {
    /// The identity's name.
    pub fn id(&self) -> &'static str {
        self.id
    }

    /// What the identity says.
    pub fn statement(&self) -> &'static str {
        self.says
    }

    /// What the identity says of a model of these sizes, where the language can say it.
    ///
    /// Each is true by the rules, so that `prove` proves it; `check` holds the run's numbers to it.
    ///
    /// ```
    /// use pathsum::expr::Dims;
    /// use pathsum::verify::{Proof, RunIdentity, prove};
    /// let dims = Dims::default();
    /// for identity in RunIdentity::<f64>::ALL {
    ///     for statement in identity.statements(&dims).unwrap_or_default() {
    ///         assert!(matches!(prove(&statement, &dims, 0)?.proof, Proof::Proved { .. }));
    ///     }
    /// }
    /// # Ok::<(), pathsum::Error>(())
    /// ```
    pub fn statements(&self, dims: &Dims) -> Option<Vec<Statement>> {
        match self.sides {
            Sides::Statements(of) => Some(of(dims)),
            Sides::Numbers(_) => None,
        }
    }

    /// Checks the identity on one run.
    ///
    /// # Errors
    /// When the run did not keep a hook that the identity speaks of.
    pub fn check(&self, evidence: &Evidence<'_, T>) -> Result<Finding> {
        let mut collected = None;
        self.collect(evidence, &mut collected)?;
        Ok(self.finding(collected))
    }

    /// Adds one run's comparisons to those collected.
    pub(super) fn collect(&self, e: &Evidence<'_, T>, collected: &mut Collected) -> Result<()> {
        if let Err(reason) = (self.applies)(e.model.config()) {
            *collected = Some(Err(reason));
            return Ok(());
        }
        let mut cmp = Comparison::new(BoundKind::Derived);
        match self.sides {
            Sides::Statements(of) => {
                let mut dims = Source::run(e.model, e.out, 0).dims();
                if e.out.tokens.attention_mask().is_some() {
                    // Statements turn rows by their positions in the batch, the run by those that are left: `scores`
                    // speaks of these.
                    dims.rotary = None;
                }
                for statement in of(&dims) {
                    prove::compare_numbers(&mut cmp, &statement, e)?;
                }
            }
            Sides::Numbers(compare) => compare(e, &mut cmp)?,
        }
        match collected {
            Some(Ok(before)) => before.merge(cmp),
            _ => *collected = Some(Ok(cmp)),
        }
        Ok(())
    }

    /// The verdict on what was collected.
    pub(super) fn finding(&self, collected: Collected) -> Finding {
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
            id: self.id,
            statement: self.says,
            verdict: verdict.unwrap_or_else(nothing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_found_by_its_name() {
        let mut ids: Vec<_> = RunIdentity::<f64>::ALL.iter().map(|i| i.id).collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all);
    }
}
