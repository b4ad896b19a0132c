//! A panel: its axes, and where a value stands between them.

use crate::study::ChartAxis;
use maud::{Markup, html};

/// How wide a letter of the axes' text is, on average and in pixels.
const LETTER: f64 = 6.2;
/// How high a line of it is.
pub const LINE: f64 = 14.0;
/// How high the panel of a chart is between its axes.
const HIGH: f64 = 210.0;
/// And how wide.
const WIDE: f64 = 350.0;
/// The widest panel: a desktop's column of text.
const WIDEST: f64 = 680.0;
/// Letters of a label; the rest is under the pointer.
const LONGEST: usize = 16;

/// A length or place in a drawing, with as many digits as the eye needs.
pub fn px(x: f64) -> String {
    let rounded = (x * 100.0).round() / 100.0;
    // Not `-0`.
    format!("{}", rounded + 0.0)
}

/// How wide a text is, roughly.
pub fn text_width(text: &str) -> f64 {
    text.chars().count() as f64 * LETTER
}

/// How wide a title is, roughly: it is bold.
pub fn title_width(title: &str) -> f64 {
    text_width(title) * 1.2
}

fn clipped(label: &str) -> String {
    if label.chars().count() <= LONGEST {
        return label.into();
    }
    label.chars().take(LONGEST - 1).chain(['…']).collect()
}

/// From values to pixels.
#[derive(Clone, Copy)]
pub struct LinearScale {
    /// The values at the two ends.
    pub values: (f64, f64),
    /// The pixels there.
    pub pixels: (f64, f64),
}

impl LinearScale {
    /// Where a value stands.
    pub fn at(&self, value: f64) -> f64 {
        let ((v0, v1), (p0, p1)) = (self.values, self.pixels);
        p0 + (value - v0) / (v1 - v0) * (p1 - p0)
    }

    /// Round values about this many pixels apart, with their words.
    pub fn ticks(&self, apart: f64) -> Vec<(f64, String)> {
        let (lo, hi) = self.values;
        let most = ((self.pixels.1 - self.pixels.0).abs() / apart).max(1.0);
        let rough = (hi - lo) / most;
        let power = 10f64.powf(rough.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|s| s * power);
        let step = steps.into_iter().find(|&s| s >= rough).unwrap_or(steps[3]);
        let first = (lo / step).ceil() as i64;
        let last = (hi / step).floor() as i64;
        (first..=last)
            .map(|i| {
                let value = i as f64 * step;
                (value, tick_text(value, step))
            })
            .collect()
    }
}

/// As many decimals as the step between ticks has.
fn tick_text(value: f64, step: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    // Beyond these, zeros are read less easily than powers of ten.
    if !(1e-4..1e6).contains(&step) {
        return format!("{value:.1e}");
    }
    let decimals = (-step.log10().floor()).max(0.0) as usize;
    format!("{value:.decimals$}")
}

/// The horizontal axis of a chart.
pub enum Across<'a> {
    /// Numbers from one to another, and what they are.
    Numbers(&'a str, (f64, f64)),
    /// Places with names.
    Places(&'a ChartAxis),
}

/// A chart's panel: the axes, and the scales of what is drawn between them.
pub struct Plane<'a> {
    title: &'a str,
    across: Across<'a>,
    y_title: &'a str,
    bottom: f64,
    /// From horizontal values to pixels; places stand at 0.5, 1.5 …
    pub x: LinearScale,
    /// From vertical values to pixels.
    pub y: LinearScale,
}

impl<'a> Plane<'a> {
    /// A panel, as wide as its places need. `marks` is how many bars stand at each.
    pub fn new(
        title: &'a str,
        across: Across<'a>,
        marks: usize,
        y_title: &'a str,
        y: (f64, f64),
    ) -> Self {
        let wide = match &across {
            Across::Numbers(..) => WIDE,
            Across::Places(axis) => {
                let each = (marks as f64 * 9.0 + 6.0).max(16.0);
                (axis.labels.len() as f64 * each).clamp(WIDE, WIDEST)
            }
        };
        let top = LINE * if title.is_empty() { 0.5 } else { 1.7 };
        let y = LinearScale {
            values: y,
            pixels: (top + HIGH, top),
        };
        let ticks = y.ticks(36.0);
        let label = ticks.iter().map(|t| text_width(&t.1)).fold(0.0, f64::max);
        let left = label + 10.0 + if y_title.is_empty() { 0.0 } else { LINE + 4.0 };
        let values = match &across {
            Across::Numbers(_, range) => *range,
            Across::Places(axis) => (0.0, axis.labels.len() as f64),
        };
        let x = LinearScale {
            values,
            pixels: (left, left + wide),
        };
        let bottom = match &across {
            Across::Numbers(..) => LINE,
            Across::Places(axis) => Labels::of(axis, wide).depth,
        };
        Plane {
            title,
            across,
            y_title,
            bottom,
            x,
            y,
        }
    }

    /// How wide a place is.
    pub fn place(&self) -> f64 {
        self.x.at(1.0) - self.x.at(0.0)
    }

    /// The panel with its axes below the marks.
    pub fn draw(&self, marks: Markup) -> Markup {
        let (left, right) = self.x.pixels;
        let (low, high) = self.y.pixels;
        let (x_title, places) = match &self.across {
            Across::Numbers(title, _) => (*title, None),
            Across::Places(axis) => (axis.title.as_str(), Some(axis)),
        };
        let height = low + self.bottom + if x_title.is_empty() { 6.0 } else { LINE + 10.0 };
        // Half of the last tick's words stand beyond the axis.
        let width = right + 16.0;
        let scales = [self.x, self.y].map(|s| {
            [s.values.0, s.values.1, s.pixels.0, s.pixels.1]
                .map(|v| v.to_string())
                .join(" ")
        });
        html! {
            svg.panel width=(px(width)) height=(px(height)) viewBox={ "0 0 " (px(width)) " " (px(height)) }
                data-x=(scales[0]) data-y=(scales[1]) {
                @for (value, text) in self.y.ticks(36.0) {
                    @let at = px(self.y.at(value));
                    path.grid d={ "M" (px(left)) " " (at) "H" (px(right)) } {}
                    text.end x=(px(left - 6.0)) y=(px(self.y.at(value) + 4.0)) { (text) }
                }
                @match places {
                    Some(axis) => (Labels::of(axis, right - left).draw(axis, &self.x, low)),
                    None => @for (value, text) in self.x.ticks(60.0) {
                        @let at = px(self.x.at(value));
                        path.grid d={ "M" (at) " " (px(low)) "V" (px(high)) } {}
                        text.middle x=(at) y=(px(low + LINE)) { (text) }
                    }
                }
                (marks)
                path.axis d={ "M" (px(left)) " " (px(high)) "V" (px(low)) "H" (px(right)) } {}
                @if self.y.values.0 < 0.0 && self.y.values.1 > 0.0 {
                    path.axis d={ "M" (px(left)) " " (px(self.y.at(0.0))) "H" (px(right)) } {}
                }
                (titles(self.title, x_title, self.y_title, (left, right), (high, low), height))
            }
        }
    }
}

/// The words around a panel: above it, below it and, upright, at its left.
pub fn titles(
    title: &str,
    x: &str,
    y: &str,
    (left, right): (f64, f64),
    (top, low): (f64, f64),
    height: f64,
) -> Markup {
    let middle = px((left + right) / 2.0);
    html! {
        @if !title.is_empty() {
            text.title x=(middle) y=(px(LINE)) { (title) }
        }
        @if !x.is_empty() {
            text.middle x=(middle) y=(px(height - 6.0)) { (x) }
        }
        @if !y.is_empty() {
            text.middle transform={ "translate(" (px(LINE - 2.0)) " " (px((top + low) / 2.0)) ") rotate(-90)" } { (y) }
        }
    }
}

/// How the places' names stand below an axis: every one or every few, level or upright.
pub struct Labels {
    every: usize,
    upright: bool,
    /// How far they reach down.
    pub depth: f64,
}

impl Labels {
    /// For places of this axis on so many pixels.
    pub fn of(axis: &ChartAxis, wide: f64) -> Self {
        let each = wide / axis.labels.len().max(1) as f64;
        let longest = axis.labels.iter().map(|l| text_width(&clipped(l)));
        let longest = longest.fold(0.0, f64::max);
        let every = |room: f64| {
            let needed = (room / each).ceil() as usize;
            let round = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];
            round.into_iter().find(|&n| n >= needed).unwrap_or(needed)
        };
        // Numbers may be left out, since they are missed by nobody; words not, while they fit upright.
        let words = axis.labels.iter().any(|l| l.parse::<f64>().is_err());
        let level = every(longest + 6.0);
        if level == 1 || !words {
            return Labels {
                every: level,
                upright: false,
                depth: LINE,
            };
        }
        Labels {
            every: every(LINE - 2.0),
            upright: true,
            depth: longest + 6.0,
        }
    }

    /// The names below the axis at `low`.
    pub fn draw(&self, axis: &ChartAxis, x: &LinearScale, low: f64) -> Markup {
        html! {
            @for (i, label) in axis.labels.iter().enumerate().step_by(self.every) {
                @let at = x.at(i as f64 + 0.5);
                @if self.upright {
                    text.end transform={ "translate(" (px(at + 4.0)) " " (px(low + 5.0)) ") rotate(-90)" } { (clipped(label)) }
                } @else {
                    text.middle x=(px(at)) y=(px(low + LINE)) { (clipped(label)) }
                }
            }
        }
    }
}

/// The names of rows, at the left of `left`; and how far they reach.
pub fn row_labels(axis: &ChartAxis, y: &LinearScale, left: f64) -> Markup {
    let each = (y.at(1.0) - y.at(0.0)).abs();
    let needed = ((LINE - 3.0) / each).ceil() as usize;
    let every = [1, 2, 5, 10, 20, 50, 100]
        .into_iter()
        .find(|&n| n >= needed);
    html! {
        @for (i, label) in axis.labels.iter().enumerate().step_by(every.unwrap_or(needed)) {
            text.end x=(px(left - 5.0)) y=(px(y.at(i as f64 + 0.5) + 4.0)) { (clipped(label)) }
        }
    }
}

/// How wide the longest of the names of rows is.
pub fn row_labels_width(axis: &ChartAxis) -> f64 {
    let widths = axis.labels.iter().map(|l| text_width(&clipped(l)));
    widths.fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let words = |values, apart| -> Vec<String> {
            let scale = LinearScale {
                values,
                pixels: (200.0, 0.0),
            };
            let ticks = scale.ticks(apart);
            let inside = |p: f64| (0.0..=200.0).contains(&p.round());
            assert!(ticks.iter().all(|t| inside(scale.at(t.0))));
            ticks.into_iter().map(|t| t.1).collect()
        };
        assert_eq!(
            words((0.0, 1.0), 36.0),
            ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]
        );
        assert_eq!(words((-13.0, 7.0), 50.0), ["-10", "-5", "0", "5"]);
        assert_eq!(
            words((0.0, 3e-9), 60.0),
            ["0", "1.0e-9", "2.0e-9", "3.0e-9"]
        );
    }

    #[test]
    fn names_that_do_not_fit_stand_upright_or_are_left_out() {
        let numbers = Labels::of(&ChartAxis::new("", 0..113), 452.0);
        assert!(!numbers.upright && numbers.every == 10);
        let words = Labels::of(&ChartAxis::new("", ["START"; 22]), 350.0);
        assert!(words.upright && words.every == 1);
        assert_eq!(
            clipped("a token that is very long").chars().count(),
            LONGEST
        );
    }
}
