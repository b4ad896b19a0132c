//! What was found of edges: a circuit file of the Mechanistic Interpretability Benchmark, with what was asked beside it.

use super::task::TaskRequest;
use crate::cli::sweep::Shard;
use anyhow::{Context, Result, bail};
use pathsum::edges::{EdgeGraph, ExactWork, Scored};
use pathsum::model::Config;
use pathsum::tensor::write_file;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// By what effects are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Each edge patched, and what lies past it computed anew
    Exact,
    /// Edge attribution patching: derivatives in the clean run
    Eap,
    /// With integrated gradients, on the way from the corrupted embeddings to the clean ones
    EapIg,
    /// With integrated gradients, on the way of each component's output
    EapIgActivations,
    /// Derivatives by exactly patched attention, and the mean of their sizes with each layer left out
    #[serde(rename = "atp*")]
    #[value(name = "atp*")]
    AtpStar,
    /// Relevance patching: norms, patterns and functions are linear, as they stand in the clean run
    Relp,
    /// The same, with the derivatives of attention
    RelpQk,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    pub method: Method,
    /// Of integrated gradients, how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// Layers whose neurons are senders one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub neurons: Vec<usize>,
    #[serde(flatten)]
    pub task: TaskRequest,
}

/// What stands beside the edges.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Found {
    #[serde(flatten)]
    pub request: Request,
    /// Which part of the receivers this is, where it is not all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// The metric of the clean sequences, and of the corrupted ones.
    pub clean: f64,
    pub corrupted: f64,
    /// How far the work is, where it is not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<ExactWork>,
}

/// The key of a circuit file under which pathsum keeps what was asked.
const KEY: &str = "pathsum";

/// A circuit file with scores.
#[derive(Clone, Debug)]
pub struct EdgeFile {
    pub found: Found,
    /// The benchmark's `cfg`, `nodes` and `edges`, and ours.
    json: Value,
}

impl EdgeFile {
    /// Of these scores.
    pub fn new(found: Found, scored: &Scored, graph: &EdgeGraph, config: &Config) -> Result<Self> {
        let mut json = scored.to_json(graph, config);
        json[KEY] = serde_json::to_value(&found)?;
        Ok(EdgeFile { found, json })
    }

    /// Whether a JSON is such a file.
    pub fn is(json: &Value) -> bool {
        json.get(KEY).is_some() && json.get("edges").is_some()
    }

    /// From what was written.
    pub fn of(json: Value) -> Result<Self> {
        let own = json.get(KEY).context("is not what edges writes")?;
        let found = Found::deserialize(own).context("is not what edges writes")?;
        Ok(EdgeFile { found, json })
    }

    /// Reads one.
    pub fn open(path: &Path) -> Result<Self> {
        Self::of(read_json(path)?).with_context(|| path.display().to_string())
    }

    /// As it is written.
    pub fn json(&self) -> &Value {
        &self.json
    }

    /// Writes it, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        Ok(write_file(path, format!("{}\n", self.json).as_bytes())?)
    }

    /// Every edge by its name, with its score where it has one.
    pub fn scores(&self) -> impl Iterator<Item = (&str, Option<f64>)> {
        let edges = self.json["edges"].as_object().into_iter().flatten();
        edges.map(|(name, entry)| (name.as_str(), entry["score"].as_f64()))
    }

    /// The shards of one work together, each by the name of its file.
    pub fn merge(shards: Vec<(String, EdgeFile)>) -> Result<Self> {
        let mut shards = shards.into_iter();
        let Some((first, mut all)) = shards.next() else {
            bail!("no results to merge");
        };
        for (name, shard) in shards {
            if all.found.request != shard.found.request {
                bail!("{first} and {name} are of different requests");
            }
            let ends = |file: &EdgeFile| [file.found.clean, file.found.corrupted];
            let (own, other) = (ends(&all), ends(&shard));
            // Two machines may round otherwise, in the later half of the digits.
            let size = own.iter().fold(0f64, |size, x| size.max(x.abs()));
            let rounding = all.found.request.task.epsilon().sqrt() * size;
            let differ = own
                .iter()
                .zip(&other)
                .any(|(a, b)| (a - b).abs() > rounding);
            if differ {
                bail!(
                    "{first} and {name} are of different models, tokens or answers: the metric is {:?} in one and {:?} in the other",
                    own,
                    other
                );
            }
            let edges = shard.json["edges"].as_object().context("no edges")?;
            for (edge, entry) in edges {
                let to = &mut all.json["edges"][edge.as_str()]["score"];
                match (to.as_f64(), entry["score"].as_f64()) {
                    (Some(a), Some(b)) if a != b => {
                        bail!("{edge} is {a} in one shard and {b} in {name}: of different works?")
                    }
                    (None, Some(b)) => *to = b.into(),
                    _ => {}
                }
            }
        }
        if let Some((edge, _)) = all.scores().find(|(_, score)| score.is_none()) {
            bail!("{edge} is done in none of these shards");
        }
        (all.found.shard, all.found.work) = (None, None);
        all.json[KEY] = serde_json::to_value(&all.found)?;
        Ok(all)
    }
}

/// A file's JSON.
pub fn read_json(path: &Path) -> Result<Value> {
    let name = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(name)?;
    serde_json::from_str(&text)
        .context("is no JSON")
        .with_context(name)
}
