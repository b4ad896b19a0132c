//! Pictures: a chart, charts in a row of steps, attention patterns to look through, or a diagram.

use super::{Chart, Diagram, HeadsView, ModelView, Number, WordGrid};
use serde::{Deserialize, Serialize};

/// A picture, with the numbers behind it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Picture {
    /// Its name among the story's pictures, which is also that of the files saved from it:
    /// letters, digits, `.`, `-` and `_`.
    pub id: String,
    /// Above the picture.
    pub title: String,
    /// Below it: what to look for. May be empty.
    pub caption: String,
    /// What is to be seen.
    pub view: View,
}

impl Picture {
    /// A picture.
    pub fn new(id: &str, title: &str, view: impl Into<View>) -> Self {
        Picture {
            id: id.into(),
            title: title.into(),
            caption: String::new(),
            view: view.into(),
        }
    }

    /// With words below it.
    pub fn caption(mut self, caption: impl Into<String>) -> Self {
        self.caption = caption.into();
        self
    }
}

/// What a picture shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// One chart.
    Chart(Chart),
    /// Charts of one kind on common scales, one at a time, with a slider.
    Frames {
        /// What changes from one to the next: `neurons of the MLP`.
        title: String,
        /// The charts, in order.
        frames: Vec<Frame>,
    },
    /// Attention patterns, one head and sequence at a time.
    Attention(AttentionView),
    /// Attention patterns of every head on one sequence.
    Heads(HeadsView),
    /// Words in rows and columns.
    Words(WordGrid),
    /// Boxes and arrows.
    Diagram(Diagram),
    /// A model to be run again in the page.
    Model(ModelView),
}

impl From<Chart> for View {
    fn from(chart: Chart) -> Self {
        View::Chart(chart)
    }
}

impl From<AttentionView> for View {
    fn from(attention: AttentionView) -> Self {
        View::Attention(attention)
    }
}

impl From<HeadsView> for View {
    fn from(heads: HeadsView) -> Self {
        View::Heads(heads)
    }
}

impl From<WordGrid> for View {
    fn from(words: WordGrid) -> Self {
        View::Words(words)
    }
}

impl From<ModelView> for View {
    fn from(model: ModelView) -> Self {
        View::Model(model)
    }
}

impl From<Diagram> for View {
    fn from(diagram: Diagram) -> Self {
        View::Diagram(diagram)
    }
}

/// One place of a slider.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frame {
    /// Which it is.
    pub label: String,
    /// What is to be seen there.
    pub chart: Chart,
}

/// Attention patterns, to be looked through by sequence, head and weighting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttentionView {
    /// The sequences.
    pub sequences: Vec<Sequence>,
    /// The heads' names: `0.1`.
    pub heads: Vec<String>,
    /// The patterns as they are, and weighted otherwise.
    pub weightings: Vec<Weighting>,
}

/// A sequence's tokens as words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sequence {
    /// How it is called where it is chosen: `12, a palindrome`.
    pub name: String,
    /// One for each position.
    pub tokens: Vec<String>,
    /// Positions whose tokens are marked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marked: Vec<usize>,
}

impl Sequence {
    /// A sequence of tokens as words.
    pub fn new(name: impl Into<String>, tokens: impl IntoIterator<Item = impl ToString>) -> Self {
        Sequence {
            name: name.into(),
            tokens: tokens.into_iter().map(|t| t.to_string()).collect(),
            marked: Vec::new(),
        }
    }

    /// With marks at these positions.
    pub fn marked(mut self, positions: impl IntoIterator<Item = usize>) -> Self {
        self.marked.extend(positions);
        self
    }
}

/// One way to weight attention patterns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weighting {
    /// `attention`, or `attention times the length of the value`.
    pub name: String,
    /// `[head, query, key]`, row-major, for each sequence; not negative.
    pub patterns: Vec<Vec<Number>>,
}

impl Weighting {
    /// Patterns by their name: for each sequence `[head, query, key]`, row-major.
    pub fn new<N: Into<Number>>(
        name: &str,
        patterns: impl IntoIterator<Item = impl IntoIterator<Item = N>>,
    ) -> Self {
        let patterns = patterns.into_iter();
        Weighting {
            name: name.into(),
            patterns: patterns
                .map(|values| values.into_iter().map(Into::into).collect())
                .collect(),
        }
    }
}
