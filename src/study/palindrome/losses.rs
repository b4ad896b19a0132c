//! What ablations cost in loss, on the second write-up's own sequences: heads, and each head's queries, keys and values.

use super::lab::Lab;
use super::roles::Roles;
use crate::error::Result;
use crate::intervene::{Change, Each, Over, Scope, Site};
use crate::linalg::Normal;
use crate::metric::{Standard, mean, per_sequence};
use crate::model::Run;
use crate::names::{Head, Hook};
use crate::task::Labelled;
use serde::Serialize;

/// On how many of the five hundred the second write-up ablates queries, keys and values.
const FIRST: usize = 200;

/// The loss of one sequence with both answers equally likely, as a part of the mean over so many: a change that is
/// smaller moves less than one answer.
pub fn one_answer(sequences: usize) -> f64 {
    std::f64::consts::LN_2 / sequences as f64
}

/// Increases of the loss, one for each head: `[layer][head]`, each layer's heads that which is needed most first.
pub type PerHead = Vec<Vec<f64>>;

/// Increases of the loss with a head's queries, keys or values replaced.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ByInput {
    /// With its queries replaced.
    pub q: PerHead,
    /// With its keys replaced.
    pub k: PerHead,
    /// With its values replaced.
    pub v: PerHead,
}

/// Increases of the loss.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Losses {
    /// The heads, in the same order.
    pub heads: Vec<Vec<Head>>,
    /// The loss on the five hundred, with the model as it is.
    pub clean: f64,
    /// How many sequences these are.
    pub sequences: usize,
    /// What each head writes replaced by its mean over the sequences, at each position.
    pub mean: PerHead,
    /// By zero.
    pub zero: PerHead,
    /// By independent numbers, normally distributed around zero with variance one.
    pub random: PerHead,
    /// How many sequences queries, keys and values are ablated on.
    pub input_sequences: usize,
    /// Queries, keys or values replaced by their means.
    pub input_mean: ByInput,
    /// By zero.
    pub input_zero: ByInput,
    /// How many sequences the second write-up's own hundred are.
    pub hundred: usize,
    /// On these the collecting head's queries: replaced by their means.
    pub queries_mean: f64,
    /// By zero.
    pub queries_zero: f64,
}

const MEAN: Change = Change::Mean(Over::Sequences);

impl Losses {
    pub(super) fn of(lab: &Lab<'_>, roles: &Roles) -> Result<Self> {
        let heads: Vec<Vec<Head>> = [&roles.first, &roles.second]
            .map(|layer| layer.iter().map(|a| a.head).collect())
            .into();
        let all = &lab.data.five_hundred.sequences;
        let few = all.select(&(0..all.batch().min(FIRST)).collect::<Vec<_>>());
        let hundred = &lab.data.hundred.sequences;
        let ablate = |data: &Labelled, site: Site, change: &Change| -> Result<(f64, PerHead)> {
            let scope = Scope::default();
            let found = lab.sweep_on(data, site, &[Each::Head], &scope, change, Standard::Loss)?;
            let n = lab.model.config().n_heads;
            let of = |h: &Head| {
                let loss = found.values[h.layer * n + h.head];
                loss.unwrap_or(f64::NAN) - found.clean
            };
            let layers = heads.iter().map(|layer| layer.iter().map(of).collect());
            Ok((found.clean, layers.collect()))
        };
        let inputs = |change: &Change| -> Result<ByInput> {
            Ok(ByInput {
                q: ablate(&few, Site::Q, change)?.1,
                k: ablate(&few, Site::K, change)?.1,
                v: ablate(&few, Site::V, change)?.1,
            })
        };
        let queries =
            |change: &Change| -> Result<f64> { Ok(ablate(hundred, Site::Q, change)?.1[1][0]) };
        let (clean, by_mean) = ablate(all, Site::Result, &MEAN)?;
        let noise = |head: &Head| Ok(loss_with_noise(lab, all, *head)? - clean);
        let random = heads
            .iter()
            .map(|layer| layer.iter().map(noise).collect::<Result<Vec<f64>>>());
        Ok(Losses {
            clean,
            sequences: all.batch(),
            mean: by_mean,
            zero: ablate(all, Site::Result, &Change::Zero)?.1,
            random: random.collect::<Result<_>>()?,
            input_sequences: few.batch(),
            input_mean: inputs(&MEAN)?,
            input_zero: inputs(&Change::Zero)?,
            hundred: hundred.batch(),
            queries_mean: queries(&MEAN)?,
            queries_zero: queries(&Change::Zero)?,
            heads,
        })
    }
}

/// The loss with noise in the place of what a head writes.
fn loss_with_noise(lab: &Lab<'_>, data: &Labelled, head: Head) -> Result<f64> {
    const SEED: u64 = 0;
    let mut normal = Normal::new(SEED, head.head as u64);
    let run = Run::new()
        .par(lab.par)
        .hook(Hook::Result(head.layer), |written, _| {
            let &[batch, pos, ..] = written.shape() else {
                unreachable!("what heads write has four axes")
            };
            for (s, p) in (0..batch).flat_map(|s| (0..pos).map(move |p| (s, p))) {
                let row = written.slice_mut(&[s, p, head.head]);
                row.iter_mut().for_each(|x| *x = normal.draw());
            }
        });
    let logits = lab.model.run(&data.tokens, run)?.logits;
    let rows = data.answers.rows_of(&logits);
    Ok(mean(&per_sequence(&Standard::Loss, &data.answers, &rows)))
}
