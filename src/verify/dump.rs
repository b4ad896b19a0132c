//! Activations from elsewhere against a model's own, hook by hook: which operation went another way.

use crate::error::{Error, Result};
use crate::model::{Config, Model, Run, Tokens};
use crate::names::Hook;
use crate::tensor::{Dtype, Scalar, Tensor, TensorFile};
use serde::Serialize;
use std::collections::HashMap;

/// One value of a dump, compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// Its name in the dump.
    pub name: String,
    /// Which value it is; none for the logits.
    pub hook: Option<Hook>,
    /// The largest difference of a row, as a share of its length or of the rows' mean length, whichever is larger.
    pub error: f64,
    /// What rounding may make of it in the dump's precision.
    pub tolerance: f64,
    /// The place of the row, `[sequence, position, …]`.
    pub place: Vec<usize>,
    /// The values of the dump that it is made of here, and what makes it; nothing for an embedding.
    pub from: Vec<String>,
}

impl Compared {
    /// Whether it is another value than the model's.
    pub fn differs(&self) -> bool {
        // A value that is no number is another one too.
        self.error > self.tolerance || self.error.is_nan()
    }
}

/// How many roundings of the dump's precision an operation may be off, as a share of a row's length: four times the root of
/// the number of terms in the model's longest sum, for roundings that are as often up as down.
///
/// Source: Higham and Mary, "A New Approach to Probabilistic Rounding Error Analysis" (2019), whose bound of a sum of `n`
/// terms holds but for a few in ten thousand with that factor.
fn roundings(c: &Config, pos: usize) -> f64 {
    let d_mlp = c.d_mlp().unwrap_or(0);
    let longest = [c.d_model, c.n_heads * c.d_head, d_mlp, pos];
    let n = longest.into_iter().max().unwrap_or(1);
    4.0 * (n as f64).sqrt()
}

/// Compares a dump's values, each under a hook, with what the model makes *of the dump's own values before it*: where two
/// implementations differ, the first operation that went another way is named, and what follows from it is not.
///
/// `values` are names in the file with the hooks that they are ([`None`] for the logits); a value's axes may be merged.
/// Values that the dump lacks are computed. Rows at pads are no one's business.
///
/// # Errors
/// As [`Model::run`], and when a value is no float or has another number of entries than the hook's.
pub fn compare_dump<T: Scalar>(
    model: &Model<T>,
    tokens: &Tokens,
    file: &TensorFile,
    values: &[(String, Option<Hook>)],
) -> Result<Vec<Compared>> {
    let config = model.config();
    let (batch, pos) = (tokens.batch(), tokens.pos());
    let mut theirs: HashMap<Hook, (String, Tensor<T>, f64)> = HashMap::new();
    let mut logits = None;
    for (name, hook) in values {
        let shape = match hook {
            Some(hook) => config.hook_shape(*hook, batch, pos),
            None => vec![batch, pos, config.d_vocab_out],
        };
        let value: Tensor<T> = file.float(name)?;
        if value.len() != shape.iter().product::<usize>() {
            return Err(Error::Shape {
                name: name.clone(),
                found: value.shape().to_vec(),
                expected: shape,
            });
        }
        let value = Tensor::from_vec(&shape, value.into_data());
        let unit = unit_of(file.dtype(name)).max(T::EPSILON.to_f64() / 2.0);
        match hook {
            Some(hook) => drop(theirs.insert(*hook, (name.clone(), value, unit))),
            None => logits = Some((name.clone(), value, unit)),
        }
    }

    let roundings = roundings(config, pos);
    let mut all = Vec::new();
    // How many operations lie between a value here and the dump's.
    let mut depth: HashMap<Hook, f64> = HashMap::new();
    let coarsest = theirs.values().map(|(_, _, unit)| *unit);
    let coarsest = coarsest.fold(0.0, f64::max);
    let made_of = |hook: Hook, depth: &HashMap<Hook, f64>, theirs: &HashMap<_, (String, _, _)>| {
        let before = model.diagram.made_of(hook);
        let steps = before.iter().map(|b| depth.get(b).copied().unwrap_or(0.0));
        let names = before
            .iter()
            .filter_map(|b| theirs.get(b))
            .map(|(name, ..)| name.clone());
        (1.0 + steps.fold(0.0, f64::max), names.collect::<Vec<_>>())
    };
    let out = model.run(
        tokens,
        Run::new().hook("*", |value, hook| {
            let (steps, from) = made_of(hook, &depth, &theirs);
            depth.insert(hook, steps);
            let Some((name, own, unit)) = theirs.get(&hook) else {
                return;
            };
            depth.insert(hook, 0.0);
            let (error, place) = furthest(value, own, tokens, hook.position_axis());
            all.push(Compared {
                name: name.clone(),
                hook: Some(hook),
                error,
                tolerance: roundings * unit.max(coarsest) * steps,
                place,
                from,
            });
            value.data_mut().copy_from_slice(own.data());
        }),
    )?;
    if let Some((name, own, unit)) = logits {
        let read = model.diagram.made_of_logits();
        let steps = 1.0 + read.map_or(0.0, |hook| depth.get(&hook).copied().unwrap_or(0.0));
        let (error, place) = furthest(&out.logits, &own, tokens, 1);
        all.push(Compared {
            name,
            hook: None,
            error,
            tolerance: roundings * unit.max(coarsest) * steps,
            place,
            from: read
                .and_then(|hook| theirs.get(&hook))
                .map(|(name, ..)| name.clone())
                .into_iter()
                .collect(),
        });
    }
    Ok(all)
}

/// Half the distance from one to the next number.
fn unit_of(dtype: Option<Dtype>) -> f64 {
    match dtype {
        Some(Dtype::F32) => f64::from(f32::EPSILON) / 2.0,
        Some(Dtype::F16) => 2f64.powi(-11),
        Some(Dtype::BF16) => 2f64.powi(-8),
        _ => f64::EPSILON / 2.0,
    }
}

/// The largest difference of a row, as a share of its length or of the rows' mean length, whichever is larger, and where
/// that is.
fn furthest<T: Scalar>(
    ours: &Tensor<T>,
    theirs: &Tensor<T>,
    tokens: &Tokens,
    position_axis: usize,
) -> (f64, Vec<usize>) {
    let shape = ours.shape();
    let d = shape[shape.len() - 1].max(1);
    let mut rows = Vec::new();
    let pairs = ours
        .data()
        .chunks_exact(d)
        .zip(theirs.data().chunks_exact(d));
    for (i, (a, b)) in pairs.enumerate() {
        let mut place = ours.place(i * d);
        place.pop();
        if !tokens.is_attended(place[0], place[position_axis]) {
            continue;
        }
        let (mut off, mut size) = (0.0, 0.0);
        for (&a, &b) in a.iter().zip(b) {
            let (a, b) = (a.to_f64(), b.to_f64());
            // What is masked is masked in both, by whatever number far below all scores.
            if a == b || a == f64::NEG_INFINITY && b < -1e4 {
                continue;
            }
            off += (a - b) * (a - b);
            size += a * a;
        }
        rows.push((off.sqrt(), size, place));
    }
    let mean = rows.iter().map(|(_, size, _)| size).sum::<f64>() / rows.len().max(1) as f64;
    let mut worst = (0.0, Vec::new());
    for (off, size, place) in rows {
        let share = match off == 0.0 {
            true => 0.0,
            false => off / size.max(mean).sqrt(),
        };
        if share > worst.0 || share.is_nan() {
            worst = (share, place);
        }
    }
    worst
}
