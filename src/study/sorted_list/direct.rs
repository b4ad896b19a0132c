//! What each component adds to the logits directly.

use crate::decompose::{self, Logit, direct_logit_attribution, residual_stack};
use crate::error::Result;
use crate::metric::mean;
use crate::model::{Model, Run, Tokens};
use crate::names::Hook;

/// Sequences whose components are taken apart.
const TAKEN_APART: usize = 100;

pub(super) fn pushes(
    model: &Model<f64>,
    tokens: &Tokens,
    positions: &[usize],
) -> Result<Vec<(String, f64)>> {
    let tokens = tokens.clone().truncate(TAKEN_APART);
    let out = model.run(&tokens, Run::new().cache("*"))?;
    let stack = residual_stack(model, &out.cache, Hook::ResidPost(0), decompose::By::Head)?;
    let logits: Vec<Logit<'_, f64>> = (0..model.config().d_vocab_out).map(Logit::Of).collect();
    let parts = direct_logit_attribution(model, &out.cache, stack, &logits)?;
    let of = |(i, label): (usize, &decompose::Component)| {
        let places = (0..tokens.batch()).flat_map(|b| positions.iter().map(move |&p| (b, p)));
        let spreads: Vec<f64> = places
            .map(|(b, p)| spread(parts.values.slice(&[i, b, p])))
            .collect();
        (label.to_string(), mean(&spreads))
    };
    Ok(parts.labels.iter().enumerate().map(of).collect())
}

/// The standard deviation of some values.
pub(super) fn spread(values: &[f64]) -> f64 {
    let middle = mean(values);
    let squares: Vec<f64> = values.iter().map(|x| (x - middle) * (x - middle)).collect();
    mean(&squares).sqrt()
}
