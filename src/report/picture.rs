//! A picture on the page: its panels, the words around it, and the numbers behind it.

use super::attention;
use super::charts::AcrossPanels;
use super::diagram;
use super::heads;
use super::model;
use super::page::prose;
use super::words;
use crate::study::{Frame, Picture, View};
use maud::{Markup, PreEscaped, html};
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};
use std::io;

/// Numbers of a picture that are kept in full, in bytes of JSON; of larger ones, five digits are.
const IN_FULL: usize = 200_000;

/// A picture with everything that belongs to it.
pub fn figure(picture: &Picture) -> Markup {
    html! {
        figure #{ "picture-" (picture.id) } data-name=(picture.id) {
            figcaption { (prose(&picture.title)) }
            @match &picture.view {
                View::Chart(chart) => {
                    @let common = AcrossPanels::of(&[chart]);
                    div.panels { (common.panels(chart)) (common.legend()) }
                }
                View::Frames { title, frames } => (slider(title, frames)),
                View::Attention(view) => (attention::controls(view)),
                View::Heads(view) => (heads::controls(view)),
                View::Words(grid) => (words::draw(grid)),
                View::Model(view) => (model::controls(view)),
                View::Diagram(view) => (diagram::draw(view)),
            }
            @if !picture.caption.is_empty() { p.caption { (prose(&picture.caption)) } }
            p.save {
                "Save: "
                // A table of words is no drawing.
                @if !matches!(picture.view, View::Words(_)) { button type="button" data-save="svg" { "SVG" } " " }
                button type="button" data-save="csv" { "CSV" } " "
                @if !model::is_run(picture) { button type="button" data-save="json" { "JSON" } }
            }
            script.numbers type="application/json" { (PreEscaped(numbers(&picture.view))) }
        }
    }
}

/// Every frame is drawn; the slider chooses which one is seen.
fn slider(title: &str, frames: &[Frame]) -> Markup {
    let charts: Vec<_> = frames.iter().map(|f| &f.chart).collect();
    let common = AcrossPanels::of(&charts);
    html! {
        div.frames {
            p.controls {
                button type="button" data-play { "Play" } " "
                label { (title) " " input type="range" min="0" max=(frames.len() - 1) value="0" autocomplete="off"; } " "
                output { (frames[0].label) }
            }
            div.panels {
                @for (i, frame) in frames.iter().enumerate() {
                    div.frame data-label=(frame.label) hidden[i > 0] { (common.panels(&frame.chart)) }
                }
                (common.legend())
            }
        }
    }
}

/// The numbers as JSON that may stand in a page.
fn numbers(view: &View) -> String {
    let mut json = serde_json::to_vec(view).expect("a picture is JSON");
    if json.len() > IN_FULL {
        json.clear();
        let mut short = Serializer::with_formatter(&mut json, Short);
        view.serialize(&mut short).expect("a picture is JSON");
    }
    let json = String::from_utf8(json).expect("JSON is UTF-8");
    // A token may say `</script>`.
    json.replace('<', "\\u003c")
}

/// Writes numbers with five significant digits.
struct Short;

impl Formatter for Short {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        let rounded: f64 = format!("{value:.4e}")
            .parse()
            .expect("a number that was printed");
        if rounded == rounded.trunc() && rounded.abs() < 1e15 {
            write!(writer, "{rounded:.0}")
        } else {
            CompactFormatter.write_f64(writer, rounded)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::*;

    fn map(n: usize) -> View {
        let values: Vec<f64> = (0..n * n).map(|i| (i as f64).sqrt()).collect();
        let maps = vec![HeatMap::new(
            "",
            ChartAxis::new("", 0..n),
            ChartAxis::new("", 0..n),
            &values,
        )];
        Chart::HeatMaps {
            scale: Scale::Sequential,
            maps,
        }
        .into()
    }

    #[test]
    fn small_pictures_keep_their_numbers_in_full_and_large_ones_five_digits() {
        let small = numbers(&map(3));
        assert!(small.contains(&2f64.sqrt().to_string()), "{small}");
        assert_eq!(serde_json::from_str::<View>(&small).unwrap(), map(3));
        let large = numbers(&map(200));
        assert!(large.contains(",1.4142,1.7321,2,"));
        assert!(large.len() < 8 * 200 * 200);
    }
}
