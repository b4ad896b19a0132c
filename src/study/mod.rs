//! Write-ups of circuits as programs: each study does again, on a model, what a published analysis did,
//! and tells it as a [`Story`].

pub mod brackets;
#[cfg(feature = "certify")]
mod certified;
mod chart;
mod check;
mod circuit;
mod correlation;
mod data;
mod diagram;
mod heads_view;
pub mod induction;
pub mod ioi;
mod model_view;
pub mod modular_addition;
mod one_layer;
mod page;
pub mod palindrome;
mod picture;
mod prompt;
mod prose;
mod published;
pub mod sorted_list;
mod story;
pub mod two_integer;
mod upper;
mod word_grid;
mod words;

#[cfg(feature = "certify")]
pub use certified::Certification;
pub use chart::{
    Bar, BarChart, BoxPlot, Boxes, Chart, ChartAxis, Class, Draw, Five, HeatMap, HistogramChart,
    Scale, Series, XyPlot,
};
pub use data::{Provenance, Set};
pub use diagram::{Diagram, DiagramNode, Edge};
pub use heads_view::HeadsView;
pub use model_view::ModelView;
pub use page::{Page, Section};
pub use picture::{AttentionView, Frame, Picture, Sequence, View, Weighting};
pub use prompt::Question;
pub use prose::prose_parts;
pub use published::Published;
pub use story::{Cell, Conclusion, Number, Outcome, Step, Story, Table};
pub use word_grid::WordGrid;

/// Told the name of each part of a study as it begins.
pub type Announce<'a> = &'a (dyn Fn(&str) + Sync);
