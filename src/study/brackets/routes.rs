//! What passes from the count to the elevation head: through which MLPs, and how much of it through one another.

use super::Roles;
use super::data::{Data, StringKind};
use super::silence::chosen;
use super::written::{TALLY, mean_where, times};
use crate::error::Result;
use crate::intervene::{Change, Intervention, Over, Part, Receiver, intervene, path_patch};
use crate::linalg::Par;
use crate::model::{Cache, Model, Run};
use crate::names::Hook;
use crate::tensor::Tensor;
use serde::Serialize;

/// What the MLPs before the last layer write at position 1 along what the elevation head reads: the mean over strings
/// whose total alone is wrong, less that over balanced ones, of the strings that start with an opening bracket.
#[derive(Clone, Debug, Serialize)]
pub struct Routes {
    /// By layer, as the model is.
    pub mlps: Vec<f64>,
    /// By layer, with the counting head's output at its mean at every position.
    pub uncounted: Vec<f64>,
    /// Of the last of these MLPs, where it alone reads the first one's output at its mean.
    pub last_without_first: f64,
}

impl Routes {
    pub(super) fn new(
        model: &Model<f64>,
        data: &Data,
        roles: &Roles,
        direction: &[f64],
        par: Par,
    ) -> Result<Self> {
        let [balanced, wrong] =
            [StringKind::Balanced, StringKind::Elevation].map(|kind| data.of_kind(kind));
        let tokens = chosen(data, &[&balanced[..], &wrong[..]].concat());
        let fine: Vec<bool> = (0..tokens.batch()).map(|s| s < balanced.len()).collect();
        let before = roles.elevation.layer;
        let run = || (0..before).fold(Run::new().par(par), |run, l| run.cache(Hook::MlpOut(l)));
        let difference = |mlp: &Tensor<f64>| {
            let (batch, pos) = (mlp.shape()[0], mlp.shape()[1]);
            let rows = times(mlp, direction);
            let there: Vec<f64> = (0..batch).map(|s| rows[s * pos + TALLY]).collect();
            mean_where(&there, &fine, false) - mean_where(&there, &fine, true)
        };
        let each = |cache: &Cache<f64>| -> Vec<f64> {
            (0..before)
                .map(|l| difference(&cache[Hook::MlpOut(l)]))
                .collect()
        };
        let mean = Change::Mean(Over::Sequences);
        let head = Part::all().heads([roles.counting.head]);
        let count = [Intervention::new(
            Hook::Result(roles.counting.layer),
            head,
            mean.clone(),
        )];
        let first = [Intervention::new(
            Hook::MlpOut(0),
            Part::all().positions([TALLY]),
            mean,
        )];
        let patched = path_patch(
            run(),
            model,
            &tokens,
            &first,
            &[Receiver::Mlp(before - 1)],
            None,
        )?;
        Ok(Routes {
            mlps: each(&model.run(&tokens, run())?.cache),
            uncounted: each(
                &model
                    .run(&tokens, intervene(run(), model, &tokens, &count, None)?)?
                    .cache,
            ),
            last_without_first: difference(&patched.cache[Hook::MlpOut(before - 1)]),
        })
    }

    /// What is left of what all of them write without the count.
    pub fn left_without_count(&self) -> f64 {
        let sum = |of: &[f64]| of.iter().sum::<f64>();
        sum(&self.uncounted) / sum(&self.mlps)
    }

    /// How much of what the last of them writes comes through the first.
    pub fn through_first(&self) -> f64 {
        let last = self.mlps.last().expect("checked: there are layers");
        1.0 - self.last_without_first / last
    }
}
