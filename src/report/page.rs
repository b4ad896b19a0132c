//! The page: heading, table of contents with verdicts, the steps, the figures.

use super::model::{self, is_run};
use super::picture;
use crate::study::{
    Cell, Outcome, Page, Picture, Published, Section, Step, Story, Table, prose_parts,
};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;

const PAGE_STYLE: &str = include_str!("page.css");
const CHART_STYLE: &str = include_str!("chart.css");
const SCRIPT: &str = include_str!("page.js");

/// The story as a page: one file, which loads nothing.
///
/// # Panics
/// If the story's numbers do not fit together ([`Story::check`]).
#[track_caller]
pub fn html(story: &Story) -> String {
    if let Err(e) = story.check() {
        panic!("{e}");
    }
    let body = html! {
        header {
            h1 { (story.title) }
            p.model { (prose(&story.model)) }
            @for paragraph in &story.summary { p { (prose(paragraph)) } }
        }
        (contents(story))
        main { @for s in &story.steps { (step(story, s)) } }
        @if story.published().next().is_some() { (all_published(story)) }
        @if !story.figures.is_empty() { (figures(story)) }
    };
    let made = html! { ", study " code { (story.study) } };
    let mut pictures = story.steps.iter().flat_map(|s| &s.pictures);
    whole(&story.title, body, made, pictures.any(is_run))
}

/// What a model makes of a prompt as a page: one file, which loads nothing.
///
/// # Panics
/// If the story's numbers do not fit together ([`Page::check`]).
#[track_caller]
pub fn page_html(page: &Page) -> String {
    if let Err(e) = page.check() {
        panic!("{e}");
    }
    let title = shortened(&page.title);
    let body = html! {
        header {
            h1.prompt { (title) }
            p.model { (prose(&page.model)) }
            @for paragraph in &page.summary { p { (prose(paragraph)) } }
            p.places { @for s in &page.sections { a href={ "#" (s.id) } { (s.title) } " " } }
        }
        main { @for s in &page.sections { (section(s)) } }
    };
    let mut pictures = page.sections.iter().flat_map(|s| &s.pictures);
    whole(&title, body, html! {}, pictures.any(is_run))
}

/// A heading has room for so much of a text.
fn shortened(text: &str) -> String {
    const MOST: usize = 160;
    match text.chars().count() > MOST {
        true => text.chars().take(MOST - 1).chain(['…']).collect(),
        false => text.into(),
    }
}

fn section(section: &Section) -> Markup {
    html! {
        section #(section.id) {
            h2 { (prose(&section.title)) }
            (contained(&section.text, &section.tables, &section.pictures))
        }
    }
}

/// Paragraphs, tables and pictures, one below the other.
fn contained(text: &[String], tables: &[Table], pictures: &[Picture]) -> Markup {
    html! {
        @for paragraph in text { p { (prose(paragraph)) } }
        @for t in tables { (table(t)) }
        @for p in pictures { (picture::figure(p)) }
    }
}

/// A page around its body, with who made it at its end, and where something is run in it what runs it.
fn whole(title: &str, body: Markup, made: Markup, runs: bool) -> String {
    // What the page holds itself may be compiled, and nothing else.
    let compiles = if runs { " 'wasm-unsafe-eval'" } else { "" };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                // Nothing may be loaded, whatever a story's text says.
                meta http-equiv="Content-Security-Policy"
                    content={ "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'" (compiles) "; img-src data:" };
                link rel="icon" href="data:,";
                title { (title) }
                style { (PreEscaped(PAGE_STYLE)) }
                style #chart-style { (PreEscaped(CHART_STYLE)) }
            }
            body {
                (body)
                footer { "pathsum " (env!("CARGO_PKG_VERSION")) (made) }
                div #tip hidden {}
                script { (PreEscaped(SCRIPT)) }
                @if runs { (model::module()) }
            }
        }
    };
    page.into_string()
}

fn class(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Holds => "holds",
        Outcome::DoesNotHold => "fails",
        Outcome::NotApplicable => "none",
    }
}

fn badge(outcome: Outcome) -> Markup {
    html! { span class={ "verdict " (class(outcome)) } { (outcome) } }
}

fn contents(story: &Story) -> Markup {
    html! {
        nav aria-label="Steps" {
            table {
                @for step in &story.steps {
                    tr {
                        td { a href={ "#" (step.id) } { (prose(&step.title)) } }
                        td { (badge(step.verdict.outcome)) }
                        td.because { (prose(&step.verdict.because)) }
                    }
                }
            }
        }
    }
}

fn step(story: &Story, step: &Step) -> Markup {
    html! {
        section #(step.id) {
            h2 { (prose(&step.title)) }
            blockquote { (prose(&step.claim)) }
            p.because { (badge(step.verdict.outcome)) " " (prose(&step.verdict.because)) }
            (contained(&step.text, &step.tables, &step.pictures))
            @if !step.published.is_empty() {
                (published("Published of the write-up's model, and found on this one", story, &mut step.published.iter()))
            }
        }
    }
}

fn all_published(story: &Story) -> Markup {
    html! {
        section #published {
            h2 { "What was published, and what is found here" }
            p {
                "Every figure that the write-up publishes. What was published is of the write-up's model and data, \
                 whatever model this page is about; what is found is of this page's model, in full. Ids that end in "
                code { ".generated" } " are of sequences that were generated, not of the write-up's."
            }
            (published("", story, &mut story.published()))
        }
    }
}

fn published(title: &str, story: &Story, rows: &mut dyn Iterator<Item = &Published>) -> Markup {
    html! {
        div.wide {
            table.numbers.published {
                @if !title.is_empty() { caption { (title) } }
                thead { tr { th { "figure" } th { "published" } th { "found here" } th { "where it stands" } } }
                tbody {
                    @for row in rows {
                        tr {
                            td { (prose(&row.what)) @if !row.figure.is_empty() { br; code { (row.figure) (row.at) } } }
                            td { (prose(&row.published)) }
                            td { (row.found(story).map_or("–".into(), in_full)) }
                            td { (prose(&row.place)) }
                        }
                    }
                }
            }
        }
    }
}

/// A number in full digits, a few of them one after the other, many by their count.
fn in_full(value: &Value) -> String {
    const FEW: usize = 12;
    fn leaves<'a>(value: &'a Value, all: &mut Vec<&'a Value>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| leaves(item, all)),
            Value::Object(items) => items.values().for_each(|item| leaves(item, all)),
            leaf => all.push(leaf),
        }
    }
    let mut all = Vec::new();
    leaves(value, &mut all);
    match value {
        _ if all.len() > FEW => format!("{} numbers, in the results' file", all.len()),
        Value::Object(items) => {
            let each = items.iter().map(|(k, v)| format!("{k}: {}", in_full(v)));
            each.collect::<Vec<_>>().join(", ")
        }
        Value::String(text) => text.clone(),
        _ => all
            .iter()
            .map(|v| v.to_string())
            .collect::<Vec<_>>()
            .join(", "),
    }
}

fn table(table: &Table) -> Markup {
    // A column of numbers has its heading where the numbers are.
    let numeric = |column: usize| {
        let mut cells = table.rows.iter().map(|r| &r[column]);
        cells.all(|c| matches!(c, Cell::Number(_)))
    };
    html! {
        div.wide {
            table.numbers {
                @if !table.title.is_empty() { caption { (prose(&table.title)) } }
                thead { tr {
                    @for (i, h) in table.header.iter().enumerate() { th.number[numeric(i)] { (prose(h)) } }
                } }
                tbody {
                    @for row in &table.rows {
                        tr { @for cell in row { (self::cell(cell)) } }
                    }
                }
            }
        }
    }
}

fn cell(cell: &Cell) -> Markup {
    match cell {
        Cell::Text(text) => html! { td { (prose(text)) } },
        Cell::Number(number) => html! {
            td.number title=[number.get()] { (number) }
        },
    }
}

fn figures(story: &Story) -> Markup {
    html! {
        section #figures {
            h2 { "Figures" }
            p { "Every figure by its id; those that are arrays stand in full in the results' file." }
            details {
                summary { (story.figures.len()) " figures" }
                div.wide { table.numbers { tbody {
                    @for (id, value) in &story.figures {
                        tr { td { code { (id) } } td.number { (figure(value)) } }
                    }
                } } }
            }
        }
    }
}

/// A number or word in full, an array by its lengths.
fn figure(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let mut lengths = vec![items.len().to_string()];
            let mut first = items.first();
            while let Some(Value::Array(items)) = first {
                lengths.push(items.len().to_string());
                first = items.first();
            }
            format!("[{}]", lengths.join(", "))
        }
        Value::Object(fields) => format!("{} values", fields.len()),
        other => other.to_string(),
    }
}

/// Text, with code between `backticks`.
pub fn prose(text: &str) -> Markup {
    html! {
        @for (i, part) in prose_parts(text).into_iter().enumerate() {
            @if i % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}
