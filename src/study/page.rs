//! A page without a write-up: sections of what there is to see.

use super::{Picture, Table};
use crate::model::Config;
use serde::{Deserialize, Serialize};

/// What there is to see of a model at a prompt ([`Page::of_prompt`]), or of a certificate ([`Page::of_certificate`]):
/// sections with words, tables and pictures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// The page's heading: of a prompt its text.
    pub title: String,
    /// The model, in a line: where it is from, and its sizes.
    pub model: String,
    /// What is said first, a paragraph each.
    pub summary: Vec<String>,
    /// What there is to see.
    pub sections: Vec<Section>,
}

/// One thing to look at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// The place in the page's address: `attention`.
    pub id: String,
    /// The heading.
    pub title: String,
    /// What is to be seen, a paragraph each.
    pub text: Vec<String>,
    /// Tables, after the text.
    pub tables: Vec<Table>,
    /// Pictures, after the tables.
    pub pictures: Vec<Picture>,
}

impl Section {
    pub(super) fn new(id: &str, title: &str) -> Self {
        Section {
            id: id.into(),
            title: title.into(),
            text: Vec::new(),
            tables: Vec::new(),
            pictures: Vec::new(),
        }
    }

    pub(super) fn text(mut self, paragraph: impl Into<String>) -> Self {
        self.text.push(paragraph.into());
        self
    }
}

/// The model in a line.
pub(super) fn line(c: &Config, name: &str, precision: String) -> String {
    let heads = match (c.n_layers, c.n_heads) {
        (1, 1) => "1 head".to_string(),
        (1, heads) => format!("1 layer of {heads} heads"),
        (layers, heads) => format!("{layers} layers of {heads} heads"),
    };
    format!("{name}: {heads}, `d_model` {}, {precision}", c.d_model)
}
