//! Circuit files of the Mechanistic Interpretability Benchmark: every edge by its name, with its score, inside or not.

use super::graph::{Edge, EdgeGraph, Sender};
use crate::diagram::{Config, Order};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The edges of a model with their scores, and which of them are in a circuit.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// For each edge of the graph its score, where it has one.
    pub scores: Vec<Option<f64>>,
    /// Whether it is in the circuit.
    pub inside: Vec<bool>,
}

#[derive(Serialize, Deserialize)]
struct EdgeEntry {
    score: Option<f64>,
    in_graph: bool,
}

impl Scored {
    /// Scores alone, of a circuit without edges.
    pub fn scores(scores: Vec<Option<f64>>) -> Self {
        Scored {
            inside: vec![false; scores.len()],
            scores,
        }
    }

    /// As the benchmark's code writes and reads it: `cfg`, `nodes` and `edges`.
    pub fn to_json(&self, graph: &EdgeGraph, config: &Config) -> Value {
        let (fed, read) = graph.fed_and_read(&self.inside);
        let node = |(sender, (fed, read)): (&Sender, (&bool, &bool))| {
            (sender.to_string(), json!({ "in_graph": *fed && *read }))
        };
        let ends = fed.iter().zip(&read);
        let mut nodes: Map<String, Value> = graph.senders().iter().zip(ends).map(node).collect();
        nodes.insert("logits".into(), json!({ "in_graph": true }));
        let edge = |(edge, (&score, &in_graph)): (Edge, (&Option<f64>, &bool))| {
            let entry = EdgeEntry { score, in_graph };
            (
                edge.to_string(),
                serde_json::to_value(entry).expect("numbers"),
            )
        };
        let edges = graph
            .edges()
            .zip(self.scores.iter().zip(&self.inside))
            .map(edge);
        json!({
            "cfg": own_config(config),
            "nodes": nodes,
            "edges": edges.collect::<Map<String, Value>>(),
        })
    }

    /// The layers of which a file has each neuron as a node of its own ([`EdgeGraph::with_neurons`]).
    pub fn layers_of_neurons(file: &Value) -> Vec<usize> {
        let nodes = file.get("nodes").and_then(Value::as_object);
        let layer = |name: &String| match name.parse() {
            Ok(Sender::Neuron { layer, .. }) => Some(layer),
            _ => None,
        };
        let layers = nodes.iter().flat_map(|nodes| nodes.keys());
        let layers: BTreeSet<usize> = layers.filter_map(layer).collect();
        layers.into_iter().collect()
    }

    /// Read for a model. Edges that the file does not have are outside, and have no score.
    ///
    /// # Errors
    /// When it is not such a file, or of a model of other sizes, or has an edge that this one has not.
    pub fn from_json(file: &Value, graph: &EdgeGraph, config: &Config) -> Result<Self> {
        let malformed = |what: &str| {
            Error::Experiment(format!(
                "{what}: expected a circuit file with `cfg`, `nodes` and `edges`"
            ))
        };
        let cfg = file.get("cfg").and_then(Value::as_object);
        let cfg = cfg.ok_or_else(|| malformed("no `cfg`"))?;
        for (key, own) in own_config(config).as_object().expect("an object") {
            if let Some(found) = cfg.get(key).filter(|found| *found != own) {
                return Err(Error::Experiment(format!(
                    "the circuit is of a model with {key} {found}, expected {own}"
                )));
            }
        }
        let edges = file.get("edges").and_then(Value::as_object);
        let edges = edges.ok_or_else(|| malformed("no `edges`"))?;
        let mut all = Scored::scores(vec![None; graph.len()]);
        for (name, entry) in edges {
            let number = graph.number(name.parse()?);
            let i = number.ok_or_else(|| Error::NotInModel(format!("edge `{name}`")))?;
            let entry = EdgeEntry::deserialize(entry)
                .map_err(|e| malformed(&format!("edge `{name}`: {e}")))?;
            all.scores[i] = entry.score;
            all.inside[i] = entry.in_graph;
        }
        Ok(all)
    }
}

/// What the benchmark's graphs know of a model.
fn own_config(config: &Config) -> Value {
    json!({
        "n_layers": config.n_layers,
        "n_heads": config.n_heads,
        "parallel_attn_mlp": config.order != Order::Sequential,
        "d_model": config.d_model,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_the_benchmarks_and_come_back() {
        let config = Config::from_json(
            r#"{"n_layers": 1, "n_heads": 1, "d_model": 4, "d_head": 4, "d_mlp": 8, "act_fn": "gelu", "d_vocab": 5,
                "n_ctx": 8}"#,
        );
        let config = config.unwrap();
        let graph = EdgeGraph::of(&config).unwrap();
        let mut all = Scored::scores((0..graph.len()).map(|i| Some(0.1 * i as f64)).collect());
        for i in [0, 6] {
            all.inside[i] = true;
        }
        let json = all.to_json(&graph, &config);
        assert_eq!(
            json["cfg"],
            json!({"n_layers": 1, "n_heads": 1, "parallel_attn_mlp": false, "d_model": 4})
        );
        assert_eq!(
            json["nodes"],
            json!({"input": {"in_graph": true}, "a0.h0": {"in_graph": true}, "m0": {"in_graph": false},
                "logits": {"in_graph": true}})
        );
        assert_eq!(
            json["edges"]["a0.h0->logits"],
            json!({"score": 0.1 * 6.0, "in_graph": true})
        );
        let read = |json: &Value| Scored::from_json(json, &graph, &config);
        assert_eq!(read(&json).unwrap(), all);
        for (at, to) in [
            ("/cfg/n_layers", json!(2)),
            ("/cfg", json!(null)),
            (
                "/edges",
                json!({"m0->a0.h0<q>": {"score": 0, "in_graph": true}}),
            ),
            (
                "/edges",
                json!({"m0->logit": {"score": 0, "in_graph": true}}),
            ),
            ("/edges", json!({"m0->logits": {"score": 0}})),
        ] {
            let mut wrong = json.clone();
            *wrong.pointer_mut(at).unwrap() = to;
            assert!(read(&wrong).is_err(), "{at}");
        }
    }
}
