//! What was asked of a sweep and what it found: what is printed as JSON, and written, and merged.

use super::Shard;
use anyhow::{Result, bail};
use pathsum::Precision;
use pathsum::intervene::{Each, GridAxis, SweepResult};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What an ablation puts in a value's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Ablation {
    /// The mean over the sequences, for each position
    Mean,
    /// The mean over sequences and positions
    MeanAll,
    /// Zero
    Zero,
    /// Another sequence's value, drawn at random
    Resample,
}

/// What is done in every cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum What {
    /// Something of the same run in a value's place.
    Ablate {
        /// The tokens' file.
        tokens: String,
        how: Ablation,
        /// What another sequence is drawn from, where one is.
        #[serde(skip_serializing_if = "Option::is_none")]
        seed: Option<u64>,
    },
    /// The clean run's value in its place in the corrupted run.
    Patch {
        clean_tokens: String,
        corrupted_tokens: String,
    },
}

/// Which places are changed; all of them where none are named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChosenPlaces {
    pub site: String,
    pub by: Vec<Each>,
    pub layers: Option<Vec<usize>>,
    pub heads: Option<Vec<String>>,
    pub positions: Option<Vec<usize>>,
    pub neurons: Option<Vec<usize>>,
}

/// All that was asked for. Two shards are of one sweep when they agree in this.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    #[serde(flatten)]
    pub what: What,
    pub model: String,
    pub dtype: String,
    /// Sequences.
    pub batch: usize,
    /// Positions of each.
    pub pos: usize,
    #[serde(flatten)]
    pub chosen: ChosenPlaces,
    pub metric: String,
    /// The positions at which it is read.
    pub at: Vec<usize>,
    pub labels: Option<String>,
}

/// A request and its results; of an ablation, all that a [`SweepResult`] has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SweepFile {
    #[serde(flatten)]
    pub request: Request,
    /// Which part of the cells this is, where it is not all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    pub axes: Vec<GridAxis>,
    /// The words at each position, where a tokenizer knows them and all sequences have the same one there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<Vec<Option<String>>>,
    /// The metric of the clean run.
    pub clean: f64,
    /// Of a patch: the metric of the corrupted run as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrupted: Option<f64>,
    /// The metric of each cell, in row-major order over the axes; none of another shard's cells.
    pub values: Vec<Option<f64>>,
    /// Of a patch: how much of the way from the corrupted run to the clean one each cell has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovered: Option<Vec<Option<f64>>>,
}

impl SweepFile {
    /// Of a sweep over one run.
    pub fn ablated(
        request: Request,
        words: Option<Vec<Option<String>>>,
        result: SweepResult,
    ) -> Self {
        SweepFile {
            request,
            shard: None,
            axes: result.axes,
            words,
            clean: result.clean,
            corrupted: None,
            values: result.values,
            recovered: None,
        }
    }

    /// Of a sweep over the corrupted run, when the metric of the clean one is `clean`.
    pub fn patched(
        request: Request,
        words: Option<Vec<Option<String>>>,
        clean: f64,
        result: SweepResult,
    ) -> Self {
        let corrupted = result.clean;
        let way = clean - corrupted;
        let differ = !request.may_be_rounding(way, clean.abs().max(corrupted.abs()));
        let share = |value: &Option<f64>| {
            value
                .filter(|_| differ)
                .map(|value| (value - corrupted) / way)
        };
        SweepFile {
            request,
            shard: None,
            axes: result.axes,
            words,
            clean,
            corrupted: Some(corrupted),
            recovered: Some(result.values.iter().map(share).collect()),
            values: result.values,
        }
    }

    /// The metric of the run that the cells' changes are made in.
    pub fn unchanged(&self) -> f64 {
        self.corrupted.unwrap_or(self.clean)
    }

    /// All shards of one sweep together, each by the name of its file.
    pub fn merge(shards: Vec<(String, SweepFile)>) -> Result<SweepFile> {
        let Some((first, all)) = shards.first().cloned() else {
            bail!("no results to merge");
        };
        for (name, shard) in &shards[1..] {
            if let Some(difference) = all.request.difference(&shard.request)? {
                bail!("{first} and {name} are of different requests: {difference}");
            }
            let found = all.values.iter().chain(&shard.values).flatten();
            let size = found.fold(all.clean.abs(), |size, x| size.max(x.abs()));
            let both = [
                (all.clean, shard.clean),
                (all.unchanged(), shard.unchanged()),
            ];
            let differs = both
                .iter()
                .find(|(a, b)| !all.request.may_be_rounding(a - b, size));
            if let Some((a, b)) = differs {
                bail!(
                    "{first} and {name} are of different models, tokens or labels: without a change the {} is {a} in one and {b} in the other",
                    all.request.metric
                );
            }
        }
        let results = shards.into_iter().map(|(_, shard)| SweepResult {
            metric: shard.request.metric.clone(),
            clean: shard.unchanged(),
            axes: shard.axes,
            values: shard.values,
        });
        let merged = SweepResult::merge(results)?;
        Ok(match all.corrupted {
            None => SweepFile::ablated(all.request, all.words, merged),
            Some(_) => SweepFile::patched(all.request, all.words, all.clean, merged),
        })
    }
}

impl Request {
    /// Whether two runs may differ so much in a metric of this size by their roundings, on two machines say: in the
    /// later half of their digits.
    fn may_be_rounding(&self, difference: f64, size: f64) -> bool {
        let single = self.dtype == Precision::F32.to_string();
        let epsilon = match single {
            true => f32::EPSILON as f64,
            false => f64::EPSILON,
        };
        difference.abs() <= epsilon.sqrt() * size
    }

    /// The first thing that differs, in words.
    fn difference(&self, other: &Request) -> Result<Option<String>> {
        if self == other {
            return Ok(None);
        }
        let (a, b) = (serde_json::to_value(self)?, serde_json::to_value(other)?);
        let fields = |value: &Value| value.as_object().cloned().unwrap_or_default();
        let (a, b) = (fields(&a), fields(&b));
        let differs = a
            .keys()
            .chain(b.keys())
            .find(|key| a.get(*key) != b.get(*key));
        let said = |value: Option<&Value>| value.map_or("not there".into(), Value::to_string);
        Ok(differs.map(|key| {
            format!(
                "`{key}` is {} in one and {} in the other",
                said(a.get(key)),
                said(b.get(key))
            )
        }))
    }
}
