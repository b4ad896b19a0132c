//! What a write-up publishes, to stand beside what is found here.

use super::Story;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A figure that a write-up publishes of its own model.
///
/// Ours is not kept here a second time: [`Published::found`] looks it up among the story's figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// What it is, in words.
    pub what: String,
    /// As it is printed there; a picture in words.
    pub published: String,
    /// Where it stands in the write-up.
    pub place: String,
    /// The figure's id; empty where a model's weights do not tell it (an accuracy on data that is not to be had).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub figure: String,
    /// Where in the figure, as a JSON pointer (`/0/1`); empty for all of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub at: String,
}

impl Published {
    /// Ours, where this model and these sequences have one.
    pub fn found<'a>(&self, story: &'a Story) -> Option<&'a Value> {
        let found = story.figures.get(&self.figure)?.pointer(&self.at)?;
        (!found.is_null()).then_some(found)
    }
}

/// A row of a study's `published.json`: a published figure, and the step that speaks of it.
#[derive(Deserialize)]
pub(super) struct Row {
    pub step: String,
    #[serde(flatten)]
    pub published: Published,
}
