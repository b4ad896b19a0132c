//! What a sweep found, and several shards of one put together.

use super::grid::GridAxis;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// What a sweep found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepResult {
    /// What was read.
    pub metric: String,
    /// What differs from cell to cell.
    pub axes: Vec<GridAxis>,
    /// The metric of the clean run, averaged over the sequences.
    pub clean: f64,
    /// The metric after each cell's interventions, in row-major order over the axes; none for the cells
    /// of other shards.
    pub values: Vec<Option<f64>>,
}

impl SweepResult {
    /// The cells of all shards of one sweep together.
    ///
    /// # Errors
    /// When they are not of one sweep, a cell is in none of them, or in two with different values.
    pub fn merge(shards: impl IntoIterator<Item = SweepResult>) -> Result<SweepResult> {
        let mut shards = shards.into_iter();
        let mut all = shards.next().ok_or_else(|| Error::TooFew {
            found: 0,
            least: 1,
            message: "no results to merge".into(),
        })?;
        for shard in shards {
            if (&shard.metric, &shard.axes, shard.values.len())
                != (&all.metric, &all.axes, all.values.len())
            {
                return Err(Error::Experiment(
                    "these are shards of different sweeps: another metric or other axes".into(),
                ));
            }
            for (i, (to, value)) in all.values.iter_mut().zip(shard.values).enumerate() {
                match (&to, value) {
                    (Some(a), Some(b)) if *a != b => {
                        return Err(Error::Experiment(format!(
                            "cell {i} is {a} in one shard and {b} in another: of different sweeps?"
                        )));
                    }
                    (None, Some(_)) => *to = value,
                    _ => {}
                }
            }
        }
        match all.values.iter().position(Option::is_none) {
            None => Ok(all),
            Some(i) => Err(Error::Experiment(format!(
                "cell {i} of {} is in none of these shards",
                all.values.len()
            ))),
        }
    }
}
