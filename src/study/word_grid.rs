//! Words in rows and columns, each with its share.

use super::{ChartAxis, Number};
use serde::{Deserialize, Serialize};

/// A table of words, of which each cell shows the first of a few and is coloured by that one's share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WordGrid {
    /// Names of the rows, from the top.
    pub rows: ChartAxis,
    /// Names of the columns.
    pub columns: ChartAxis,
    /// The words that the cells speak of, each once.
    pub words: Vec<String>,
    /// `[row, column]`, row-major: the cell's words by their place in `words`, each with its share, from 0 to 1.
    pub cells: Vec<Vec<(usize, Number)>>,
    /// Cells with a frame: `[row, column]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marked: Vec<[usize; 2]>,
    /// The column that is in view first.
    pub column: usize,
}

impl WordGrid {
    /// A table without words.
    pub fn new(rows: ChartAxis, columns: ChartAxis) -> Self {
        WordGrid {
            cells: Vec::with_capacity(rows.labels.len() * columns.labels.len()),
            column: columns.labels.len().saturating_sub(1),
            rows,
            columns,
            words: Vec::new(),
            marked: Vec::new(),
        }
    }
}
