//! Identities of a model, checked on its weights and on a run, with bounds that are computed.
//!
//! Two kinds. An identity between sums and products of values at hand ([`RunIdentity`]) is held to a
//! rigorous bound, from running error analysis: no order of evaluation in the model's precision can be
//! further off. An invariance of the whole nonlinear model ([`Invariance`]) is held to an estimate, from
//! the model's measured sensitivity to perturbations of rounding's size, and is labelled so.
//!
//! A NaN or an infinity where a number belongs is a refutation.

mod attention;
mod bounded;
mod catalogue;
mod dump;
mod evidence;
mod field;
mod invariance;
mod magnitude;
mod mlp;
mod paths;
mod prove;
mod run_identity;
mod sensitivity;
mod stream;
mod verdict;

pub use dump::{Compared, compare_dump};
pub use evidence::Evidence;
pub use invariance::{Invariance, Transformed};
pub use prove::{AnyStatement, Proof, Proven, compare_on, prove, prove_on};
#[doc(hidden)]
pub use prove::{Given, assert_given, assert_holds};
pub use run_identity::RunIdentity;
pub use verdict::{BoundKind, Finding, Measure, Verdict};

use crate::error::Result;
use crate::linalg::Par;
use crate::model::{Model, Run, Tokens};
use crate::tensor::Scalar;

/// How many positions are run and compared at a time, about: it bounds the memory that a check takes.
const POSITIONS_AT_A_TIME: usize = 2048;

/// Sequences for a check where the user names none: seeded random tokens.
pub fn default_tokens<T: Scalar>(model: &Model<T>) -> Tokens {
    // Enough positions for every position and, likely, every token of a small model to occur; few
    // enough for a large one to be checked in a minute.
    const SEQUENCES: usize = 16;
    const LONGEST: usize = 64;
    // A check keeps every value of the run.
    const MEMORY: usize = 1 << 30;
    const SEED: u64 = 0;
    let config = model.config();
    let pos = config.n_ctx.min(LONGEST);
    let shapes = config.hooks().into_iter();
    let entries = shapes.map(|hook| config.hook_shape(hook, 1, pos).iter().product::<usize>());
    let bytes = entries.sum::<usize>() * size_of::<T>();
    let most = SEQUENCES.min(POSITIONS_AT_A_TIME / pos);
    let sequences = (MEMORY / bytes.max(1)).clamp(1, most.max(1));
    Tokens::random_of_length(config, (sequences, pos), SEED)
}

/// Checks every identity of a model on a batch: those between the values of a run on all of it, the
/// invariances on its first 2,048 positions, in whole sequences.
///
/// `progress` is called after each part of the work with the parts done and the parts there are.
///
/// ```
/// use pathsum::{Par, fixture, verify};
/// let model = fixture::induction::<f64>();
/// let tokens = fixture::repeated_sequences(4, 8, 0);
/// let findings = verify::check(&model, &tokens, Par::Seq, &mut |_, _| {})?;
/// assert!(findings.iter().all(|f| !f.refuted()));
/// # Ok::<(), pathsum::Error>(())
/// ```
///
/// # Errors
/// When the model cannot run on these tokens.
pub fn check<T: Scalar>(
    model: &Model<T>,
    tokens: &Tokens,
    par: Par,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Finding>> {
    let each = (POSITIONS_AT_A_TIME / tokens.pos().max(1)).max(1);
    let batches = tokens.batch().div_ceil(each);
    let parts = batches + Invariance::ALL.len();
    let identities = RunIdentity::ALL;
    let mut collected: Vec<_> = identities.iter().map(|_| None).collect();
    for i in 0..batches {
        let first = i * each;
        let part = tokens.slice(first, each.min(tokens.batch() - first));
        let out = model.run(&part, Run::new().cache("*").par(par))?;
        let evidence = Evidence {
            model,
            out: &out,
            first_sequence: first,
        };
        for (identity, collected) in identities.iter().zip(&mut collected) {
            identity.collect(&evidence, collected)?;
        }
        progress(i + 1, parts);
    }
    let mut findings: Vec<Finding> = identities
        .iter()
        .zip(collected)
        .map(|(identity, collected)| identity.finding(collected))
        .collect();

    // Each invariance runs the model anew: on the batch's beginning, or a check of a long file would take
    // as long again for every one of them.
    let sample = tokens.slice(0, each.min(tokens.batch()));
    let sensitivity = sensitivity::Sensitivity::measure(model, &sample, par)?;
    for (i, invariance) in Invariance::ALL.into_iter().enumerate() {
        findings.push(invariance.finding(model, &sensitivity, par)?);
        progress(batches + i + 1, parts);
    }
    Ok(findings)
}
