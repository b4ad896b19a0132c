//! Charts as numbers: what is drawn of them is the report's affair.
//!
//! Nothing here bins, averages or takes quartiles: a study does that, and the numbers are kept.

use super::Number;
use crate::model::Config;
use crate::names::Head;
use serde::{Deserialize, Serialize};

/// Charts of one kind, side by side, on common scales.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Chart {
    /// Matrices as colours.
    HeatMaps {
        /// What the colours mean, in all of them.
        scale: Scale,
        /// The matrices.
        maps: Vec<HeatMap>,
    },
    /// How often values fall where.
    Histograms(Vec<HistogramChart>),
    /// Bars in groups.
    Bars(Vec<BarChart>),
    /// Five numbers of each of several samples.
    Boxes(Vec<BoxPlot>),
    /// Points and lines.
    Xy(Vec<XyPlot>),
}

/// What a heat map's colours mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// Two colours, from white at 0 to the largest magnitude on either side.
    Diverging,
    /// One colour, from white at 0 to the largest value. Values are not negative.
    Sequential,
}

/// An axis whose places have names: positions, tokens, heads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChartAxis {
    /// What the places are; may be empty.
    pub title: String,
    /// The places' names, in order.
    pub labels: Vec<String>,
}

impl ChartAxis {
    /// An axis with these labels: `ChartAxis::new("position", 0..22)`.
    pub fn new(title: &str, labels: impl IntoIterator<Item = impl ToString>) -> Self {
        ChartAxis {
            title: title.into(),
            labels: labels.into_iter().map(|l| l.to_string()).collect(),
        }
    }
}

/// A matrix as colours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeatMap {
    /// Above the map; may be empty.
    pub title: String,
    /// Names of the rows, from the top.
    pub rows: ChartAxis,
    /// Names of the columns.
    pub columns: ChartAxis,
    /// `[row, column]`, row-major.
    pub values: Vec<Number>,
    /// Cells with a frame: `[row, column]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marked: Vec<[usize; 2]>,
}

impl HeatMap {
    /// A heat map of values in row-major order (a tensor's `data()`).
    ///
    /// # Panics
    /// If there are not as many values as rows times columns.
    #[track_caller]
    pub fn new<N: Copy + Into<Number>>(
        title: &str,
        rows: ChartAxis,
        columns: ChartAxis,
        values: &[N],
    ) -> Self {
        assert_eq!(values.len(), rows.labels.len() * columns.labels.len());
        HeatMap {
            title: title.into(),
            rows,
            columns,
            values: numbers(values),
            marked: Vec::new(),
        }
    }

    /// With frames around these cells, `[row, column]`.
    pub fn marked(mut self, cells: impl IntoIterator<Item = [usize; 2]>) -> Self {
        self.marked.extend(cells);
        self
    }

    /// A number of every head of a model, numbered layer by layer: heads from the top, layers from the left, as there are
    /// more of these. Some heads have a frame.
    pub(super) fn of_heads(
        title: &str,
        config: &Config,
        of: impl Fn(usize) -> f64,
        marked: &[Head],
    ) -> Self {
        let (layers, heads) = (config.n_layers, config.n_heads);
        let rows = (0..heads).flat_map(|head| (0..layers).map(move |layer| layer * heads + head));
        let values: Vec<f64> = rows.map(of).collect();
        let map = HeatMap::new(
            title,
            ChartAxis::new("head", 0..heads),
            ChartAxis::new("layer", 0..layers),
            &values,
        );
        map.marked(marked.iter().map(|h| [h.head, h.layer]))
    }
}

/// How often values fall where, for one or several classes, overlaid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistogramChart {
    /// Above the histogram; may be empty.
    pub title: String,
    /// What the values are.
    pub x: String,
    /// What is counted.
    pub y: String,
    /// The bins' edges, ascending: one more than there are bins.
    pub edges: Vec<Number>,
    /// The classes.
    pub classes: Vec<Class>,
}

/// A name, and a number for each bin of a histogram, or each place of a bar chart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// The class's name.
    pub name: String,
    /// How high it is in each bin.
    pub heights: Vec<Number>,
}

impl Class {
    /// A class by its name.
    pub fn new<N: Copy + Into<Number>>(name: &str, heights: &[N]) -> Self {
        Class {
            name: name.into(),
            heights: numbers(heights),
        }
    }
}

/// Bars, in groups where there are several of a place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BarChart {
    /// Above the chart; may be empty.
    pub title: String,
    /// The places where bars stand.
    pub x: ChartAxis,
    /// What their heights are.
    pub y: String,
    /// One bar of each at every place.
    pub bars: Vec<Bar>,
}

/// A bar at every place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bar {
    /// What these bars are.
    pub name: String,
    /// Their heights.
    pub heights: Vec<Number>,
    /// How far the whiskers reach to either side (a standard deviation); none where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub whiskers: Vec<Number>,
}

impl Bar {
    /// Bars without whiskers.
    pub fn new<N: Copy + Into<Number>>(name: &str, heights: &[N]) -> Self {
        Bar {
            name: name.into(),
            heights: numbers(heights),
            whiskers: Vec::new(),
        }
    }

    /// With whiskers of these lengths, to either side.
    pub fn whiskers<N: Copy + Into<Number>>(mut self, lengths: &[N]) -> Self {
        self.whiskers = numbers(lengths);
        self
    }
}

/// Samples by five numbers each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoxPlot {
    /// Above the plot; may be empty.
    pub title: String,
    /// The places where boxes stand.
    pub x: ChartAxis,
    /// What the values are.
    pub y: String,
    /// One box of each at every place.
    pub boxes: Vec<Boxes>,
}

/// A box at every place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boxes {
    /// What these samples are.
    pub name: String,
    /// One for each place.
    pub fives: Vec<Five>,
}

/// Five numbers of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Five {
    /// The smallest value.
    pub min: Number,
    /// A quarter of the values are smaller.
    pub q1: Number,
    /// Half of them are.
    pub median: Number,
    /// Three quarters are.
    pub q3: Number,
    /// The largest value.
    pub max: Number,
}

/// Points and lines in a plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct XyPlot {
    /// Above the plot; may be empty.
    pub title: String,
    /// What the horizontal axis is.
    pub x: String,
    /// What the vertical axis is.
    pub y: String,
    /// What is drawn, later ones on top.
    pub series: Vec<Series>,
}

/// Points of one kind, or a line through them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Series {
    /// The name: a class, or what a line means.
    pub name: String,
    /// How it is drawn.
    pub draw: Draw,
    /// Horizontal places.
    pub x: Vec<Number>,
    /// Vertical places.
    pub y: Vec<Number>,
    /// What each point is, shown under the pointer; nothing where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Draw {
    /// A dot at each place.
    Points,
    /// A line through them, broken where a number is missing.
    Line,
    /// A dashed line through them: a threshold, a decision line.
    Dashed,
}

impl Series {
    /// A series of points with nothing to say under the pointer but their places.
    ///
    /// # Panics
    /// If there are not as many `y` as `x`.
    #[track_caller]
    pub fn new<N: Copy + Into<Number>>(name: &str, draw: Draw, x: &[N], y: &[N]) -> Self {
        assert_eq!(x.len(), y.len());
        Series {
            name: name.into(),
            draw,
            x: numbers(x),
            y: numbers(y),
            labels: Vec::new(),
        }
    }

    /// With these words for the points.
    ///
    /// # Panics
    /// If there are not as many as points.
    #[track_caller]
    pub fn labels(mut self, labels: impl IntoIterator<Item = impl ToString>) -> Self {
        self.labels = labels.into_iter().map(|l| l.to_string()).collect();
        assert_eq!(self.labels.len(), self.x.len());
        self
    }
}

fn numbers<N: Copy + Into<Number>>(values: &[N]) -> Vec<Number> {
    values.iter().map(|&x| x.into()).collect()
}
