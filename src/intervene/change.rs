//! Interventions as values: what is done to which part of a hook's value.

use super::part::{Part, Selection, ValueAxis, Window};
use crate::error::{Error, Result};
use crate::model::{Cache, Model};
use crate::names::Hook;
use crate::tensor::{Scalar, Tensor};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// What a mean is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Over {
    /// The sequences of the batch: one mean for each position.
    Sequences,
    /// The sequences and their positions: one mean for all.
    Positions,
}

/// What is done to a value.
///
/// Means are those of the value as it arrives, over the whole batch, whatever part of it is changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Zero instead.
    Zero,
    /// The mean instead.
    Mean(Over),
    /// Another sequence's value instead: each sequence gives its own to one other, at random.
    Resample {
        /// What the choice is drawn from.
        seed: u64,
    },
    /// These values instead, in the order of the value's axes; as many as the part has, or as its last
    /// axes have, and then the same along the others.
    Set(Vec<f64>),
    /// The source run's value instead.
    Patch,
    /// Adds a multiple of a direction: one number for each of the part's units.
    Add {
        /// Along the last axis.
        direction: Vec<f64>,
        /// How often.
        times: f64,
    },
    /// Takes a direction out: `x - (x · d / |d|²) d`.
    ProjectOut {
        /// Along the last axis.
        direction: Vec<f64>,
    },
    /// `mean + x (value - mean)`: the mean where `x` is 0, the value itself where it is 1.
    Interpolate {
        /// What the mean is taken over.
        over: Over,
        /// How much of the deviation is left.
        x: f64,
    },
}

/// A change of a part of a hook's value.
///
/// ```
/// use pathsum::intervene::{Change, Intervention, Part};
/// use pathsum::Hook;
/// let ablation = Intervention::new(Hook::Result(0), Part::all().heads([1]), Change::Zero);
/// let json = r#"{"hook": "blocks.0.attn.hook_result", "part": {"heads": [1]}, "change": "zero"}"#;
/// assert_eq!(serde_json::from_str::<Intervention>(json).unwrap(), ablation);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intervention {
    /// Where.
    pub hook: Hook,
    /// On what of it.
    #[serde(default)]
    pub part: Part,
    /// What happens to it.
    pub change: Change,
}

impl Intervention {
    /// A change of a part of a hook's value.
    pub fn new(hook: Hook, part: Part, change: Change) -> Self {
        Intervention { hook, part, change }
    }

    /// Checked against a model, a batch's size, and the source run where there is one.
    ///
    /// # Errors
    /// When the model has no such hook, the value no such part, the numbers given are not as many as the part
    /// has, or the source run's value is missing or of another shape.
    pub(super) fn check<T: Scalar>(
        &self,
        model: &Model<T>,
        batch: usize,
        pos: usize,
        source: Option<&Cache<T>>,
    ) -> Result<Selection> {
        let (hook, config) = (self.hook, model.config());
        if !model.diagram.hooks().contains(&hook) {
            return Err(Error::NotInModel(format!("`{hook}`")));
        }
        let selection = Selection::new(config, hook, &self.part, batch, pos)?;
        let direction = |direction: &[f64]| {
            let units = selection.last().len();
            if direction.len() != units {
                return Err(Error::Intervention {
                    hook,
                    reason: format!(
                        "a direction of {} numbers, expected {units}",
                        direction.len()
                    ),
                });
            }
            finite(hook, direction)
        };
        match &self.change {
            Change::Zero | Change::Mean(_) => {}
            Change::Resample { .. } if batch < 2 => {
                return Err(Error::Intervention {
                    hook,
                    reason: "there is no other sequence to resample from".into(),
                });
            }
            Change::Resample { .. } => {}
            Change::Set(values) => {
                let counts = selection.counts();
                let fits = (0..=counts.len())
                    .any(|i| counts[i..].iter().product::<usize>() == values.len());
                if !fits {
                    return Err(Error::Intervention {
                        hook,
                        reason: format!(
                            "{} values to set, expected as many as the part {counts:?} or its last axes have",
                            values.len()
                        ),
                    });
                }
                finite(hook, values)?;
            }
            Change::Patch => {
                let Some(source) = source else {
                    return Err(Error::Intervention {
                        hook,
                        reason: "there is no source run to patch from".into(),
                    });
                };
                let (found, expected) = (
                    source.require(hook)?.shape(),
                    config.hook_shape(hook, batch, pos),
                );
                if found != expected {
                    return Err(Error::Mismatch(format!(
                        "the source run's `{hook}` has shape {found:?}, expected {expected:?}"
                    )));
                }
            }
            Change::Add {
                direction: d,
                times,
            } => {
                direction(d)?;
                finite(hook, &[*times])?;
            }
            Change::ProjectOut { direction: d } => {
                direction(d)?;
                if d.iter().all(|&x| x == 0.0) {
                    return Err(Error::Intervention {
                        hook,
                        reason: "the zero vector is no direction".into(),
                    });
                }
            }
            Change::Interpolate { x, .. } => finite(hook, &[*x])?,
        }
        Ok(selection)
    }
}

fn finite(hook: Hook, numbers: &[f64]) -> Result<()> {
    match numbers.iter().find(|x| !x.is_finite()) {
        None => Ok(()),
        Some(x) => Err(Error::Intervention {
            hook,
            reason: format!("{x} is not a number to compute with"),
        }),
    }
}

/// A change whose numbers are known, so that it can be made sequence by sequence.
pub(super) struct Prepared<'a, T: Scalar> {
    selection: Selection,
    how: Prepare<'a, T>,
}

enum Prepare<'a, T: Scalar> {
    Zero,
    /// `mean + x (value - mean)`, with the mean of each place of one sequence; the mean itself without `x`.
    Mean(Cow<'a, Tensor<T>>, Option<T>),
    /// For each sequence the one whose value it takes.
    Permute(Cow<'a, Tensor<T>>, Vec<usize>),
    /// Repeated along the part.
    Set(Vec<T>),
    Add(Vec<T>),
    /// The direction, and the direction over its square.
    ProjectOut(Vec<T>, Vec<T>),
}

impl<'a, T: Scalar> Prepared<'a, T> {
    /// From what the change looks at: the mean of the whole batch's value as it arrives, `[1, its other axes]`, that
    /// value itself, or the source run's.
    pub fn new(
        intervention: &Intervention,
        selection: Selection,
        mean: impl FnOnce(Over) -> Cow<'a, Tensor<T>>,
        arriving: impl FnOnce() -> Cow<'a, Tensor<T>>,
        source: Option<&'a Cache<T>>,
    ) -> Self {
        let narrow = |xs: &[f64]| xs.iter().map(|&x| T::from_f64(x)).collect::<Vec<T>>();
        let how = match &intervention.change {
            Change::Zero => Prepare::Zero,
            Change::Mean(over) => Prepare::Mean(mean(*over), None),
            Change::Interpolate { over, x } => Prepare::Mean(mean(*over), Some(T::from_f64(*x))),
            Change::Resample { seed } => {
                let values = arriving();
                let from = one_cycle(values.shape()[0], *seed);
                Prepare::Permute(values, from)
            }
            Change::Patch => {
                let value = &source.expect("checked: there is a source")[intervention.hook];
                let own = (0..value.shape()[0]).collect();
                Prepare::Permute(Cow::Borrowed(value), own)
            }
            Change::Set(values) => Prepare::Set(narrow(values)),
            Change::Add { direction, times } => {
                Prepare::Add(direction.iter().map(|d| T::from_f64(times * d)).collect())
            }
            Change::ProjectOut { direction } => {
                let square: f64 = direction.iter().map(|d| d * d).sum();
                let over_square: Vec<f64> = direction.iter().map(|d| d / square).collect();
                Prepare::ProjectOut(narrow(direction), narrow(&over_square))
            }
        };
        Prepared { selection, how }
    }

    /// The positions that are changed.
    pub fn positions(&self) -> &[usize] {
        self.selection.positions()
    }

    /// The heads that are changed, where the value has heads.
    pub fn heads(&self) -> Option<&[usize]> {
        self.selection.chosen(ValueAxis::Head)
    }

    /// Makes the change in a piece of the value.
    pub fn apply(&self, window: &Window<'_>, data: &mut [T]) {
        let units = self.selection.last();
        self.selection
            .rows(window, data, |whole, rank, row| match &self.how {
                Prepare::Zero => units.iter().for_each(|&u| row[u] = T::ZERO),
                Prepare::Mean(mean, x) => {
                    let mean = &mean.data()[whole * row.len() % mean.len()..];
                    match x {
                        None if units.len() == row.len() => row.copy_from_slice(&mean[..row.len()]),
                        None => units.iter().for_each(|&u| row[u] = mean[u]),
                        Some(x) => units
                            .iter()
                            .for_each(|&u| row[u] = mean[u] + *x * (row[u] - mean[u])),
                    }
                }
                Prepare::Permute(values, from) => {
                    let each = values.len() / from.len();
                    let at = whole * row.len();
                    let there = &values.data()[from[at / each] * each + at % each..];
                    units.iter().for_each(|&u| row[u] = there[u]);
                }
                Prepare::Set(values) => {
                    let at = |i: usize| values[(rank * units.len() + i) % values.len()];
                    units.iter().enumerate().for_each(|(i, &u)| row[u] = at(i));
                }
                Prepare::Add(by) => units.iter().zip(by).for_each(|(&u, &by)| row[u] += by),
                Prepare::ProjectOut(direction, over_square) => {
                    let along: T = units
                        .iter()
                        .zip(over_square)
                        .map(|(&u, &d)| row[u] * d)
                        .sum();
                    units
                        .iter()
                        .zip(direction)
                        .for_each(|(&u, &d)| row[u] -= along * d);
                }
            });
    }
}

/// A random permutation of one cycle (Sattolo's): nobody keeps their own, and each is taken once.
fn one_cycle(n: usize, seed: u64) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut from: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        from.swap(i, rng.random_range(0..i));
    }
    from
}
