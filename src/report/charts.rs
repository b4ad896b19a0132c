//! Charts of a kind on common scales.

use super::bars;
use super::heat::Colours;
use super::plane::{LINE, px, text_width};
use super::xy;
use crate::study::{Chart, HeatMap};
use maud::{Markup, html};

/// What all panels of a picture have in common, of all its frames.
pub struct AcrossPanels<'a> {
    /// From the least to the greatest horizontal value.
    pub x: (f64, f64),
    /// From the least to the greatest vertical value.
    pub y: (f64, f64),
    /// The names of classes and series; their places are their colours.
    pub names: Vec<&'a str>,
    colours: Option<Colours>,
}

impl<'a> AcrossPanels<'a> {
    /// Of these charts, which are of one kind.
    pub fn of(charts: &[&'a Chart]) -> Self {
        let mut spans = Spans::default();
        let mut names: Vec<&str> = Vec::new();
        let mut maps: Vec<&HeatMap> = Vec::new();
        let mut colours = None;
        for chart in charts {
            let here: Vec<&str> = match chart {
                Chart::HeatMaps { maps: m, .. } => {
                    maps.extend(m);
                    Vec::new()
                }
                Chart::Histograms(panels) => bars::histogram_spans(panels, &mut spans),
                Chart::Bars(panels) => bars::bar_spans(panels, &mut spans),
                Chart::Boxes(panels) => bars::box_spans(panels, &mut spans),
                Chart::Xy(panels) => xy::spans(panels, &mut spans),
            };
            for name in here {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        match charts.first() {
            Some(Chart::HeatMaps { scale, maps: first }) => {
                colours = Some(Colours::of(*scale, maps.into_iter(), first.len()));
            }
            Some(Chart::Xy(_)) => {
                spans.x.pad();
                spans.y.pad();
            }
            _ => spans.y.pad(),
        }
        AcrossPanels {
            x: spans.x.get(),
            y: spans.y.get(),
            names,
            colours,
        }
    }

    /// The colour of a name, as the style sheet calls it.
    pub fn class(&self, name: &str) -> String {
        // As many as the style sheet has.
        const COLOURS: usize = 8;
        let at = self.names.iter().position(|n| *n == name);
        format!("c{}", at.expect("every name is counted") % COLOURS)
    }

    /// A chart's panels.
    pub fn panels(&self, chart: &Chart) -> Markup {
        html! {
            @match chart {
                Chart::HeatMaps { maps, .. } => @if let Some(colours) = &self.colours {
                    @for map in maps { (colours.map(map)) }
                },
                Chart::Histograms(panels) => @for p in panels { (bars::histogram(p, self)) },
                Chart::Bars(panels) => @for p in panels { (bars::bars(p, self)) },
                Chart::Boxes(panels) => @for p in panels { (bars::boxes(p, self)) },
                Chart::Xy(panels) => @for p in panels { (xy::draw(p, self)) },
            }
        }
    }

    /// What the colours mean: a bar for heat maps, names for everything else that has more than one.
    pub fn legend(&self) -> Markup {
        if let Some(colours) = &self.colours {
            return colours.bar();
        }
        if self.names.len() < 2 {
            return html! {};
        }
        let wide = |name: &str| text_width(name) + 34.0;
        let longest = self.names.iter().map(|n| wide(n)).fold(0.0, f64::max);
        // In columns, so that long lists stay in the page's width.
        let columns = ((640.0 / longest) as usize).clamp(1, self.names.len());
        let (width, row) = (columns as f64 * longest, LINE + 4.0);
        let height = self.names.len().div_ceil(columns) as f64 * row;
        html! {
            div.legend {
                svg.panel width=(px(width)) height=(px(height)) viewBox={ "0 0 " (px(width)) " " (px(height)) } {
                    @for (i, name) in self.names.iter().enumerate() {
                        @let (x, y) = ((i % columns) as f64 * longest, (i / columns) as f64 * row);
                        rect class={ "fill " (self.class(name)) } x=(px(x + 4.0)) y=(px(y + 4.0)) width="12" height="10" {}
                        text x=(px(x + 22.0)) y=(px(y + 13.0)) { (name) }
                    }
                }
            }
        }
    }
}

/// The spans that charts' values cover.
#[derive(Default)]
pub struct Spans {
    /// Across.
    pub x: Extent,
    /// Upwards.
    pub y: Extent,
}

/// The least and the greatest of the values that were added.
#[derive(Default)]
pub struct Extent(Option<(f64, f64)>);

impl Extent {
    /// Covers one more value.
    pub fn add(&mut self, value: f64) {
        let (lo, hi) = self.0.unwrap_or((value, value));
        self.0 = Some((lo.min(value), hi.max(value)));
    }

    /// Leaves a little room at both ends, but not beyond 0 where nothing is.
    pub fn pad(&mut self) {
        const ROOM: f64 = 0.04;
        if let Some((lo, hi)) = self.0 {
            let room = (hi - lo) * ROOM;
            let end = |v: f64, room: f64| if v == 0.0 { v } else { v + room };
            self.0 = Some((end(lo, -room), end(hi, room)));
        }
    }

    /// The span, wide enough to be drawn.
    fn get(&self) -> (f64, f64) {
        match self.0 {
            None => (0.0, 1.0),
            Some((lo, hi)) if lo < hi => (lo, hi),
            Some((v, _)) => (v - v.abs().max(1.0) / 2.0, v + v.abs().max(1.0) / 2.0),
        }
    }
}
