//! A diagram of what passes from part to part, as boxes and arrows.

use serde::{Deserialize, Serialize};

/// Boxes in layers, and what passes from an earlier layer's to a later one's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Diagram {
    /// The boxes.
    pub nodes: Vec<DiagramNode>,
    /// The arrows.
    pub edges: Vec<Edge>,
}

/// A box.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiagramNode {
    /// Its name.
    pub name: String,
    /// What it does, in a few words; may be empty.
    pub words: String,
    /// Its layer, from the top.
    pub layer: usize,
    /// Its place in the layer, from the left. Boxes of one place in several layers stand below one another.
    pub column: usize,
}

/// An arrow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edge {
    /// The box that it leaves, by its place in the list.
    pub from: usize,
    /// The box that it leads to, of a later layer.
    pub to: usize,
    /// What passes, or how much.
    pub label: String,
}

impl Diagram {
    /// One more box; its place in the list.
    pub fn node(&mut self, name: &str, words: &str, [layer, column]: [usize; 2]) -> usize {
        self.nodes.push(DiagramNode {
            name: name.into(),
            words: words.into(),
            layer,
            column,
        });
        self.nodes.len() - 1
    }

    /// One more arrow.
    pub fn edge(&mut self, from: usize, to: usize, label: impl Into<String>) {
        self.edges.push(Edge {
            from,
            to,
            label: label.into(),
        });
    }
}
