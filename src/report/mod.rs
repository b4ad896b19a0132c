//! A story or a [`Page`] as HTML: one file that opens anywhere, without a network, with every picture drawn
//! in it and the numbers behind it. Nothing is computed here but places and colours.

mod attention;
mod bars;
mod charts;
mod diagram;
mod heads;
mod heat;
mod model;
mod page;
mod picture;
mod plane;
mod words;
mod xy;

pub use page::{html, page_html};

use crate::error::{Error, Result};
use crate::study::{Page, Story};
use crate::tensor::Staged;
use std::path::Path;

/// Writes the story's page to a file, whole or not at all.
///
/// # Errors
/// If the story's numbers do not fit together, or the file cannot be written.
pub fn write_html(story: &Story, path: impl AsRef<Path>) -> Result<()> {
    story.check()?;
    Staged::new(path.as_ref(), html(story).as_bytes())?.commit()
}

/// Writes a page to a file, whole or not at all, and says how many bytes it has.
///
/// # Errors
/// If the page's numbers do not fit together, or the file cannot be written.
pub fn write_page(page: &Page, path: impl AsRef<Path>) -> Result<usize> {
    page.check()?;
    let html = page_html(page);
    Staged::new(path.as_ref(), html.as_bytes())?.commit()?;
    Ok(html.len())
}

/// Writes the story's page and its numbers, both or neither.
///
/// # Errors
/// If the story's numbers do not fit together, or a file cannot be written.
pub fn write_both(story: &Story, page: impl AsRef<Path>, numbers: impl AsRef<Path>) -> Result<()> {
    story.check()?;
    let page = Staged::new(page.as_ref(), html(story).as_bytes())?;
    let numbers = stage_json(story, numbers.as_ref())?;
    page.commit()?;
    numbers.commit()
}

/// Writes the story's numbers to a file, whole or not at all.
///
/// # Errors
/// As [`write_html`].
pub fn write_json(story: &Story, path: impl AsRef<Path>) -> Result<()> {
    story.check()?;
    stage_json(story, path.as_ref())?.commit()
}

fn stage_json(story: &Story, path: &Path) -> Result<Staged> {
    let mut json = serde_json::to_vec(story).map_err(|e| Error::format(path, e))?;
    json.push(b'\n');
    Staged::new(path, &json)
}
