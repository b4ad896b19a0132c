//! How the two heads agree: each picks up failures that are the other's, and the layer before helps.

use super::Roles;
use super::data::{Data, StringKind};
use super::silence::{Silence, answers, chosen};
use super::written::{ANSWER, Along, Written};
use crate::error::Result;
use crate::intervene::{Change, Intervention, Over, Part, intervene};
use crate::linalg::Par;
use crate::metric::mean;
use crate::model::{Model, Run};
use crate::names::{Head, Hook};
use serde::Serialize;

/// How far the elevation head answers to a negative count alone, and the negative head to a wrong total alone, in
/// strings that start with an opening bracket; each less what it writes to balanced ones, along the unbalanced direction.
///
/// Pairs are of the elevation head, then of the negative head.
#[derive(Clone, Debug, Serialize)]
pub struct Agreement {
    /// As the model is.
    pub as_is: [f64; 2],
    /// With the output of all heads of the layer before the last at its mean.
    pub without_layer: [f64; 2],
    /// The heads of that layer one by one.
    pub helpers: Vec<Helper>,
    /// The mean loss on the strings whose failure is not the head's.
    pub loss: [f64; 2],
    /// The same where the head writes what it writes to balanced strings: only the other one says "unbalanced".
    pub loss_without: [f64; 2],
}

/// A head of the layer before the last.
#[derive(Clone, Debug, Serialize)]
pub struct Helper {
    /// The head.
    pub head: Head,
    /// What it writes at position 1 along what the elevation head reads, less the mean over balanced strings: to a wrong
    /// total alone, to a negative count alone, to both.
    pub brings: [f64; 3],
    /// What the two heads answer to the failure that is not theirs with its output at its mean.
    pub without: [f64; 2],
}

impl Agreement {
    pub(super) fn new(
        model: &Model<f64>,
        data: &Data,
        written: &Written,
        unbalanced: &[f64],
        before: &[Along],
        roles: &Roles,
        par: Par,
    ) -> Result<Self> {
        let kinds = [
            StringKind::Balanced,
            StringKind::Negative,
            StringKind::Elevation,
        ];
        let of_kinds = kinds.map(|kind| data.of_kind(kind));
        let tokens = chosen(data, &of_kinds.concat());
        let last = roles.elevation.layer;
        let heads = [roles.elevation, roles.negative];
        let answered = |silent: &[usize]| -> Result<[f64; 2]> {
            let changes: Vec<Intervention> = match silent.is_empty() {
                true => Vec::new(),
                false => {
                    let part = Part::all().heads(silent.iter().copied());
                    let change = Change::Mean(Over::Sequences);
                    vec![Intervention::new(Hook::Result(last - 1), part, change)]
                }
            };
            let run = Run::new().par(par).cache(Hook::Result(last));
            let run = intervene(run, model, &tokens, &changes, None)?;
            let out = model.run(&tokens, run)?;
            let result = &out.cache[Hook::Result(last)];
            let mut ends = [0, of_kinds[0].len(), of_kinds[0].len() + of_kinds[1].len()]
                .into_iter()
                .zip(&of_kinds)
                .map(|(first, of)| first..first + of.len());
            let mut next = || ends.next().expect("there are three kinds");
            let (balanced, others) = (next(), [next(), next()]);
            let mut answers = [0.0; 2];
            for ((head, other), answer) in heads.iter().zip(others).zip(&mut answers) {
                let along = |s: usize| dot(result.slice(&[s, ANSWER, head.head]), unbalanced);
                let mean_of = |of: std::ops::Range<usize>| mean(&of.map(along).collect::<Vec<_>>());
                *answer = mean_of(other) - mean_of(balanced.clone());
            }
            Ok(answers)
        };
        let all: Vec<usize> = (0..model.config().n_heads).collect();
        let brings = |head: Head| {
            let name = format!("head {head}");
            let along = before.iter().find(|a| a.component == name);
            let values = &along.expect("every head is a component").values;
            [
                StringKind::Elevation,
                StringKind::Negative,
                StringKind::Both,
            ]
            .map(|kind| {
                let of = data.of_kind(kind);
                mean(&of.iter().map(|&s| values[s]).collect::<Vec<_>>())
            })
        };
        let helpers = all.iter().map(|&own| {
            let head = Head {
                layer: last - 1,
                head: own,
            };
            Ok(Helper {
                head,
                brings: brings(head),
                without: answered(&[own])?,
            })
        });
        let (mut loss, mut loss_without) = ([0.0; 2], [0.0; 2]);
        for (i, head) in heads.into_iter().enumerate() {
            let silent = [Silence::balanced(head, written, &of_kinds[0])];
            loss[i] = answers(model, data, &of_kinds[i + 1], &[], par)?.loss;
            loss_without[i] = answers(model, data, &of_kinds[i + 1], &silent, par)?.loss;
        }
        Ok(Agreement {
            as_is: answered(&[])?,
            without_layer: answered(&all)?,
            helpers: helpers.collect::<Result<_>>()?,
            loss,
            loss_without,
        })
    }

    /// The head that answers to a negative count rather than to a wrong total in what it brings to the elevation head.
    pub fn helper(&self) -> &Helper {
        let lean = |h: &Helper| h.brings[1] - h.brings[0];
        let most = self
            .helpers
            .iter()
            .max_by(|a, b| lean(a).total_cmp(&lean(b)));
        most.expect("checked: there are two heads")
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}
