//! Points and lines in a plane.

use super::charts::{AcrossPanels, Spans};
use super::plane::{Across, LinearScale, Plane, px};
use crate::study::{Draw, Series, XyPlot};
use maud::{Markup, html};
use std::fmt::Write;

/// Covers the plots' values, and names their series.
pub fn spans<'a>(panels: &'a [XyPlot], spans: &mut Spans) -> Vec<&'a str> {
    for series in panels.iter().flat_map(|p| &p.series) {
        for (x, y) in places(series).flatten() {
            spans.x.add(x);
            spans.y.add(y);
        }
    }
    let series = panels.iter().flat_map(|p| &p.series);
    series.map(|s| s.name.as_str()).collect()
}

/// Where a series is, and where it is not.
fn places(series: &Series) -> impl Iterator<Item = Option<(f64, f64)>> {
    let both = series.x.iter().zip(&series.y);
    both.map(|(x, y)| Some((x.get()?, y.get()?)))
}

/// A plot. A series is one path, be it of thousands of points.
pub fn draw(panel: &XyPlot, common: &AcrossPanels) -> Markup {
    let across = Across::Numbers(&panel.x, common.x);
    let plane = Plane::new(&panel.title, across, 1, &panel.y, common.y);
    plane.draw(html! {
        @for series in &panel.series {
            @let class = common.class(&series.name);
            @match series.draw {
                Draw::Points => path class={ (points(series)) " " (class) } d=(dots(series, &plane.x, &plane.y)) {},
                Draw::Line => path class={ "line " (class) } d=(line(series, &plane.x, &plane.y)) {},
                Draw::Dashed => path class={ "line dashed " (class) } d=(line(series, &plane.x, &plane.y)) {},
            }
        }
    })
}

/// Many points are drawn smaller than few.
fn points(series: &Series) -> &'static str {
    const MANY: usize = 300;
    if series.x.len() > MANY {
        "points many"
    } else {
        "points"
    }
}

/// A line of hardly any length at each place: the pen's round end is the dot.
fn dots(series: &Series, x: &LinearScale, y: &LinearScale) -> String {
    let mut path = String::new();
    for (vx, vy) in places(series).flatten() {
        let _ = write!(path, "M{:.1} {:.1}h.1", x.at(vx), y.at(vy));
    }
    path
}

/// A line, broken where a number is missing.
fn line(series: &Series, x: &LinearScale, y: &LinearScale) -> String {
    let mut path = String::new();
    let mut pen = 'M';
    for place in places(series) {
        match place {
            Some((vx, vy)) => {
                let _ = write!(path, "{pen}{} {}", px(x.at(vx)), px(y.at(vy)));
                pen = 'L';
            }
            None => pen = 'M',
        }
    }
    path
}
