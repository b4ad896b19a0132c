//! Words in rows and columns: a table, whose cells the style sheet colours by their shares.

use crate::study::WordGrid;
use maud::{Markup, html};

/// The table. What else a cell's words are, the script shows.
pub fn draw(grid: &WordGrid) -> Markup {
    let columns = grid.columns.labels.len();
    let marked = |row: usize, column: usize| grid.marked.contains(&[row, column]);
    html! {
        div.words data-column=(grid.column) tabindex="0" {
            table {
                thead { tr {
                    th { (grid.columns.title) }
                    @for label in &grid.columns.labels { th { (label) } }
                } }
                tbody {
                    @for (r, (label, cells)) in grid.rows.labels.iter().zip(grid.cells.chunks_exact(columns)).enumerate() {
                        tr {
                            th { (label) }
                            @for (c, cell) in cells.iter().enumerate() {
                                @let (word, share) = first(grid, cell);
                                td.framed[marked(r, c)] style={ "--p:" (share) } { (word) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A cell's first word, and its share in percent.
fn first<'a>(grid: &'a WordGrid, cell: &[(usize, crate::study::Number)]) -> (&'a str, u32) {
    match cell.first() {
        Some((word, share)) => {
            let percent = 100.0 * share.get().unwrap_or(0.0).clamp(0.0, 1.0);
            (&grid.words[*word], percent.round() as u32)
        }
        None => ("", 0),
    }
}
