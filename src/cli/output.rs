//! What goes to the terminal: text on stdout, progress bars on stderr when it is a terminal.

use super::args::Common;
use anyhow::{Context, Result};
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::io::Write;

/// Prints a whole text.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes());
    written.and_then(|()| stdout.flush()).context("stdout")
}

/// Prints an error as one line, however much of a damaged file it quotes.
pub fn complain(message: &str) {
    // Room for two paths and a reason; the reason stands at the end.
    const MOST: usize = 2000;
    let mut line: Vec<char> = Vec::new();
    for c in message.chars() {
        // What a file calls its tensors must neither break the line nor command the terminal.
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    if line.len() > MOST {
        line.splice(MOST / 2..line.len() - MOST / 2, ['…']);
    }
    let line: String = line.into_iter().collect();
    // Where stderr is full or closed there is nobody left to tell; the exit status still says it.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Prints a result: as JSON when asked for, else as text, or not at all when quiet.
pub fn report(common: &Common, json: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
    if common.json() {
        print(&format!("{}\n", serde_json::to_string_pretty(json)?))
    } else if common.quiet {
        Ok(())
    } else {
        print(&text())
    }
}

/// So many sequences, in words.
pub fn sequences(n: usize, kind: &str) -> String {
    let blank = if kind.is_empty() { "" } else { " " };
    let plural = if n == 1 { "" } else { "s" };
    format!("{n}{blank}{kind} sequence{plural}")
}

/// Whether the reader of our output went away, as `head` does.
pub fn is_broken_pipe(e: &anyhow::Error) -> bool {
    e.downcast_ref::<std::io::Error>()
        .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// A progress bar for `n` pieces of work; none when quiet, with JSON, or when not on a terminal.
pub fn progress(common: &Common, what: &str, n: usize) -> ProgressBar {
    // A terminal is told by indicatif itself.
    let hidden = common.quiet || common.json();
    let target = if hidden {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let style =
        ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}").expect("a constant");
    ProgressBar::with_draw_target(Some(n as u64), target)
        .with_style(style)
        .with_message(what.to_string())
}

/// A table in the width of the terminal, without frames.
pub fn table<'a>(header: impl IntoIterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    table
}

/// The table's text, without the blanks at the ends of lines.
pub fn text(table: &Table) -> String {
    table
        .lines()
        .map(|l| format!("{}\n", l.trim_end()))
        .collect()
}
