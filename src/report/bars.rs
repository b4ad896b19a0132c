//! Histograms, bars and boxes.

use super::charts::{AcrossPanels, Spans};
use super::plane::{Across, Plane, px};
use crate::study::{BarChart, BoxPlot, HistogramChart, Number};
use maud::{Markup, html};

/// The share of a place that its bars fill.
const FILLED: f64 = 0.8;

/// Covers the histograms' values, and names their classes.
pub fn histogram_spans<'a>(panels: &'a [HistogramChart], spans: &mut Spans) -> Vec<&'a str> {
    spans.y.add(0.0);
    for panel in panels {
        panel
            .edges
            .iter()
            .filter_map(|e| e.get())
            .for_each(|e| spans.x.add(e));
        let heights = panel.classes.iter().flat_map(|c| &c.heights);
        heights.filter_map(|h| h.get()).for_each(|h| spans.y.add(h));
    }
    let classes = panels.iter().flat_map(|p| &p.classes);
    classes.map(|c| c.name.as_str()).collect()
}

/// A histogram: each class as an area with a line around it, so that overlaid ones are told apart.
pub fn histogram(panel: &HistogramChart, common: &AcrossPanels) -> Markup {
    let across = Across::Numbers(&panel.x, common.x);
    let plane = Plane::new(&panel.title, across, 1, &panel.y, common.y);
    let edges: Vec<f64> = panel.edges.iter().filter_map(|e| e.get()).collect();
    let bottom = plane.y.at(0.0);
    let outline = |heights: &[Number]| {
        let mut path = format!("M{} {}", px(plane.x.at(edges[0])), px(bottom));
        for (height, edge) in heights.iter().zip(edges.windows(2)) {
            let y = plane.y.at(height.get().unwrap_or(0.0));
            path += &format!("V{}H{}", px(y), px(plane.x.at(edge[1])));
        }
        path + &format!("V{}", px(bottom))
    };
    let (_, top) = plane.y.pixels;
    plane.draw(html! {
        @for class in &panel.classes {
            path class={ "area " (common.class(&class.name)) } d=(outline(&class.heights)) {}
        }
        @for (bin, edge) in edges.windows(2).enumerate() {
            @let (x0, x1) = (plane.x.at(edge[0]), plane.x.at(edge[1]));
            rect.hit x=(px(x0)) y=(px(top)) width=(px(x1 - x0)) height=(px(bottom - top))
                data-tip={ (Number::from(edge[0])) " to " (Number::from(edge[1])) (tips(panel, bin)) } {}
        }
    })
}

fn tips(panel: &HistogramChart, bin: usize) -> String {
    let classes = panel.classes.iter();
    classes
        .map(|c| format!("\n{}: {}", c.name, c.heights[bin]))
        .collect()
}

/// Covers the charts' values, and names their bars.
pub fn bar_spans<'a>(panels: &'a [BarChart], spans: &mut Spans) -> Vec<&'a str> {
    spans.y.add(0.0);
    for bar in panels.iter().flat_map(|p| &p.bars) {
        for (i, height) in bar.heights.iter().enumerate() {
            let whisker = bar.whiskers.get(i).and_then(|w| w.get()).unwrap_or(0.0);
            if let Some(h) = height.get() {
                spans.y.add(h + whisker);
                spans.y.add(h - whisker);
            }
        }
    }
    let bars = panels.iter().flat_map(|p| &p.bars);
    bars.map(|b| b.name.as_str()).collect()
}

/// Bars, those of one place side by side.
pub fn bars(panel: &BarChart, common: &AcrossPanels) -> Markup {
    let n = panel.bars.len();
    let plane = Plane::new(
        &panel.title,
        Across::Places(&panel.x),
        n,
        &panel.y,
        common.y,
    );
    let wide = plane.place() * FILLED / n.max(1) as f64;
    let zero = plane.y.at(0.0);
    plane.draw(html! {
        @for (b, bar) in panel.bars.iter().enumerate() {
            @let class = common.class(&bar.name);
            @for (i, (height, place)) in bar.heights.iter().zip(&panel.x.labels).enumerate() {
                @if let Some(h) = height.get() {
                    @let left = plane.x.at(i as f64 + (1.0 - FILLED) / 2.0) + b as f64 * wide;
                    @let y = plane.y.at(h);
                    rect class={ "fill " (class) } x=(px(left)) y=(px(y.min(zero))) width=(px(wide)) height=(px((y - zero).abs()))
                        data-tip={ (panel.x.title) " " (place) "\n" (bar.name) ": " (height) (whisker_tip(bar.whiskers.get(i))) } {}
                    @if let Some(w) = bar.whiskers.get(i).and_then(|w| w.get()) {
                        path.whisker d={ "M" (px(left + wide / 2.0)) " " (px(plane.y.at(h - w))) "V" (px(plane.y.at(h + w))) } {}
                    }
                }
            }
        }
    })
}

fn whisker_tip(whisker: Option<&Number>) -> String {
    whisker.map_or(String::new(), |w| format!(" ± {w}"))
}

/// Covers the plots' values, and names their boxes.
pub fn box_spans<'a>(panels: &'a [BoxPlot], spans: &mut Spans) -> Vec<&'a str> {
    for five in panels.iter().flat_map(|p| &p.boxes).flat_map(|b| &b.fives) {
        let ends = [five.min, five.max].into_iter().filter_map(|v| v.get());
        ends.for_each(|v| spans.y.add(v));
    }
    let boxes = panels.iter().flat_map(|p| &p.boxes);
    boxes.map(|b| b.name.as_str()).collect()
}

/// Boxes from quartile to quartile, with whiskers to the ends.
pub fn boxes(panel: &BoxPlot, common: &AcrossPanels) -> Markup {
    let n = panel.boxes.len();
    let plane = Plane::new(
        &panel.title,
        Across::Places(&panel.x),
        n,
        &panel.y,
        common.y,
    );
    let wide = plane.place() * FILLED / n.max(1) as f64;
    plane.draw(html! {
        @for (b, boxes) in panel.boxes.iter().enumerate() {
            @let class = common.class(&boxes.name);
            @for (i, (five, place)) in boxes.fives.iter().zip(&panel.x.labels).enumerate() {
                @let numbers = [five.min, five.q1, five.median, five.q3, five.max];
                @if numbers.iter().all(|v| v.get().is_some()) {
                    @let left = plane.x.at(i as f64 + (1.0 - FILLED) / 2.0) + b as f64 * wide;
                    @let [min, q1, median, q3, max] = numbers.map(|v| plane.y.at(v.get().unwrap_or(0.0)));
                    g data-tip={ (panel.x.title) " " (place) "\n" (boxes.name) ": " (numbers.map(|v| v.to_string()).join(", ")) } {
                        path.whisker d={ "M" (px(left + wide / 2.0)) " " (px(min)) "V" (px(q1)) "M" (px(left + wide / 2.0)) " " (px(q3)) "V" (px(max)) } {}
                        rect class={ "fill edged " (class) } x=(px(left + wide * 0.1)) y=(px(q3)) width=(px(wide * 0.8)) height=(px(q1 - q3)) {}
                        path.median d={ "M" (px(left + wide * 0.1)) " " (px(median)) "h" (px(wide * 0.8)) } {}
                    }
                }
            }
        }
    })
}
