//! Heat maps: one image each, of as many pixels as it has cells or a multiple, so that a hundred rows
//! and columns weigh a few kilobytes.

use super::plane::{
    LINE, Labels, LinearScale, px, row_labels, row_labels_width, title_width, titles,
};
use crate::study::{HeatMap, Number, Scale};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use maud::{Markup, html};

/// Colours of a scale; one more is for what is missing.
const LEVELS: usize = 255;
/// The narrowest and the widest cell, in pixels.
const CELL: (f64, f64) = (3.0, 48.0);
/// How wide a map is to be: alone, and so that two stand side by side.
const WIDE: (f64, f64) = (440.0, 350.0);
/// Pixels of an image's longer side, at least: so that no viewer that smooths images blurs the cells.
const SHARP: usize = 400;
/// Cells that have room for their number.
const WITH_NUMBERS: f64 = 42.0;

/// ColorBrewer's RdBu, from the lowest to the highest value.
const DIVERGING: [u32; 11] = [
    0x67001f, 0xb2182b, 0xd6604d, 0xf4a582, 0xfddbc7, 0xffffff, 0xd1e5f0, 0x92c5de, 0x4393c3,
    0x2166ac, 0x053061,
];
/// ColorBrewer's Blues, from white.
const SEQUENTIAL: [u32; 9] = [
    0xffffff, 0xdeebf7, 0xc6dbef, 0x9ecae1, 0x6baed6, 0x4292c6, 0x2171b5, 0x08519c, 0x08306b,
];

/// A scale with the value at its end.
#[derive(Clone, Copy)]
pub struct Colours {
    scale: Scale,
    end: f64,
    /// How wide a map is to be.
    wide: f64,
}

impl Colours {
    /// A scale on which all these maps' values fit; `abreast` of them stand side by side.
    pub fn of<'a>(scale: Scale, maps: impl Iterator<Item = &'a HeatMap>, abreast: usize) -> Self {
        let values = maps.flat_map(|m| &m.values).filter_map(|v| v.get());
        let end = values.fold(0f64, |end, v| end.max(v.abs()));
        Colours {
            scale,
            // Zeros alone are as good as missing ends of a scale.
            end: if end > 0.0 { end } else { 1.0 },
            wide: if abreast > 1 { WIDE.1 } else { WIDE.0 },
        }
    }

    fn low(&self) -> f64 {
        match self.scale {
            Scale::Diverging => -self.end,
            Scale::Sequential => 0.0,
        }
    }

    fn level(&self, value: f64) -> usize {
        let share = (value - self.low()) / (self.end - self.low());
        (share * (LEVELS - 1) as f64).round() as usize
    }

    /// Red, green and blue of each level.
    fn palette(&self) -> Vec<u8> {
        let stops: &[u32] = match self.scale {
            Scale::Diverging => &DIVERGING,
            Scale::Sequential => &SEQUENTIAL,
        };
        let mut palette = Vec::with_capacity(3 * (LEVELS + 1));
        for level in 0..LEVELS {
            let at = level as f64 / (LEVELS - 1) as f64 * (stops.len() - 1) as f64;
            let i = (at as usize).min(stops.len() - 2);
            for shift in [16, 8, 0] {
                let part = |stop: u32| f64::from(stop >> shift & 0xff);
                let mixed =
                    part(stops[i]) + (at - i as f64) * (part(stops[i + 1]) - part(stops[i]));
                palette.push(mixed.round() as u8);
            }
        }
        palette
    }

    /// Whether a number on its colour is read better in white.
    fn dark(&self, value: f64) -> bool {
        let share = value.abs() / self.end;
        share > 0.6
    }

    /// The scale itself, as a bar with its ends.
    pub fn bar(&self) -> Markup {
        const BAR: (f64, f64) = (14.0, 150.0);
        let levels: Vec<u8> = (0..LEVELS).rev().map(|l| l as u8).collect();
        let y = LinearScale {
            values: (self.low(), self.end),
            pixels: (BAR.1 + LINE, LINE),
        };
        let (width, height) = (72.0, BAR.1 + 2.0 * LINE);
        let ends: &[f64] = match self.scale {
            Scale::Diverging => &[-self.end, 0.0, self.end],
            Scale::Sequential => &[0.0, self.end],
        };
        html! {
            svg.panel width=(px(width)) height=(px(height)) viewBox={ "0 0 " (px(width)) " " (px(height)) } {
                (image(&self.palette(), 1, &levels, (0.5, LINE, BAR.0, BAR.1)))
                rect.edge x="0.5" y=(px(LINE)) width=(px(BAR.0)) height=(px(BAR.1)) {}
                @for &value in ends {
                    text x=(px(BAR.0 + 6.0)) y=(px(y.at(value) + 4.0)) { (Number::from(value)) }
                }
            }
        }
    }

    /// One map.
    pub fn map(&self, map: &HeatMap) -> Markup {
        let (rows, columns) = (map.rows.labels.len(), map.columns.labels.len());
        let cell = (self.wide / columns as f64).clamp(CELL.0, CELL.1);
        let top = LINE * if map.title.is_empty() { 0.5 } else { 1.7 };
        let left = row_labels_width(&map.rows)
            + 10.0
            + if map.rows.title.is_empty() {
                0.0
            } else {
                LINE + 4.0
            };
        // A title may be wider than its map.
        let beside = (title_width(&map.title) - cell * columns as f64) / 2.0;
        let left = left.max(beside);
        let x = LinearScale {
            values: (0.0, columns as f64),
            pixels: (left, left + cell * columns as f64),
        };
        let y = LinearScale {
            values: (0.0, rows as f64),
            pixels: (top, top + cell * rows as f64),
        };
        let labels = Labels::of(&map.columns, x.pixels.1 - left);
        let low = y.pixels.1;
        let height = low
            + labels.depth
            + if map.columns.title.is_empty() {
                6.0
            } else {
                LINE + 10.0
            };
        let width = x.pixels.1 + beside.max(8.0);
        let level = |v: &Number| v.get().map_or(LEVELS, |v| self.level(v)) as u8;
        let levels: Vec<u8> = map.values.iter().map(level).collect();
        let place = (left, top, cell * columns as f64, cell * rows as f64);
        let corners = [left, top, cell, cell].map(px).join(" ");
        html! {
            svg.panel width=(px(width)) height=(px(height)) viewBox={ "0 0 " (px(width)) " " (px(height)) }
                data-cells=(corners) data-shape={ (rows) " " (columns) } {
                rect.missing x=(px(place.0)) y=(px(place.1)) width=(px(place.2)) height=(px(place.3)) {}
                (image(&self.palette(), columns, &levels, place))
                rect.edge x=(px(place.0)) y=(px(place.1)) width=(px(place.2)) height=(px(place.3)) {}
                @if cell >= WITH_NUMBERS {
                    @for (i, value) in map.values.iter().enumerate() {
                        @if let Some(v) = value.get() {
                            text.number.light[self.dark(v)]
                                x=(px(x.at((i % columns) as f64 + 0.5))) y=(px(y.at((i / columns) as f64 + 0.5) + 4.0)) { (value) }
                        }
                    }
                }
                @for &[r, c] in &map.marked {
                    rect.mark x=(px(x.at(c as f64))) y=(px(y.at(r as f64))) width=(px(cell)) height=(px(cell)) {}
                }
                (row_labels(&map.rows, &y, left))
                (labels.draw(&map.columns, &x, low))
                (titles(&map.title, &map.columns.title, &map.rows.title, (left, x.pixels.1), (top, low), height))
            }
        }
    }
}

/// Levels as an image of so many columns, at a place: left, top, width, height.
fn image(palette: &[u8], columns: usize, levels: &[u8], place: (f64, f64, f64, f64)) -> Markup {
    let rows = levels.len() / columns;
    let times = SHARP.div_ceil(rows.max(columns));
    let wide = columns * times;
    let mut pixels = Vec::with_capacity(levels.len() * times * times);
    for row in levels.chunks_exact(columns) {
        let line: Vec<u8> = row
            .iter()
            .flat_map(|&l| std::iter::repeat_n(l, times))
            .collect();
        for _ in 0..times {
            pixels.extend_from_slice(&line);
        }
    }
    let mut colours = palette.to_vec();
    // What is missing lets the ground through.
    colours.extend([0; 3]);
    let mut alpha = vec![255; LEVELS];
    alpha.push(0);
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, wide as u32, (rows * times) as u32);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(colours);
    encoder.set_trns(alpha);
    // Rows repeat: that is what the filter `Up` turns into zeros.
    encoder.set_filter(png::Filter::Up);
    encoder.set_compression(png::Compression::High);
    let written = encoder
        .write_header()
        .and_then(|mut w| w.write_image_data(&pixels));
    written.expect("memory takes every image");
    let (left, top, width, height) = place;
    html! {
        image x=(px(left)) y=(px(top)) width=(px(width)) height=(px(height)) preserveAspectRatio="none"
            href={ "data:image/png;base64," (BASE64_STANDARD.encode(file)) } {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::ChartAxis;

    #[test]
    fn zero_is_white_and_signs_are_told_apart() {
        for scale in [Scale::Diverging, Scale::Sequential] {
            let colours = Colours {
                scale,
                end: 2.0,
                wide: WIDE.0,
            };
            let palette = colours.palette();
            let at = |v: f64| &palette[3 * colours.level(v)..][..3];
            assert_eq!(at(0.0), [255, 255, 255]);
            assert!(at(2.0)[2] > at(2.0)[0], "the largest is blue");
        }
        let colours = Colours {
            scale: Scale::Diverging,
            end: 2.0,
            wide: WIDE.0,
        };
        let palette = colours.palette();
        assert!(palette[0] > palette[2], "the lowest is red");
    }

    #[test]
    fn a_large_map_is_small() {
        let values: Vec<f64> = (0..113 * 113).map(|i| (i as f64 * 0.7).sin()).collect();
        let axis = || ChartAxis::new("a", 0..113);
        let map = HeatMap::new("113", axis(), axis(), &values);
        let drawn = Colours::of(Scale::Diverging, [&map].into_iter(), 1)
            .map(&map)
            .into_string();
        assert!(drawn.len() < 60_000, "{}", drawn.len());
    }
}
