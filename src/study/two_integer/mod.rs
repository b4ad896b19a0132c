//! How a one-layer transformer labels pairs of integers `(A, B)`: attention hardly depends on the input, so that what it
//! brings to `=` is a vector of `A` plus a vector of `B`; both lie nearly in a plane, in which two thresholds (the
//! filters) each cut off a half; and the MLP is an AND gate of the two.
//!
//! Done again on any model of the task: the plane, the two directions and their thresholds are found on it.
//!
//! # Source
//! "Solving the Mechanistic Interpretability challenges: EIS VII Challenge 2" by Stefan Heimersheim and Marius Hobbhahn
//! (2023), on the second challenge of Stephen Casper's "EIS VII: A Challenge for Mechanists".

mod attention;
mod between;
mod edges;
mod filters;
mod held_out;
mod integers;
mod margins;
mod neurons;
mod plane;
mod reading;
mod scrubs;
mod story;
mod tilt;
mod vectors;

pub use attention::{AttentionShares, Extended};
pub use between::Between;
pub use edges::{Edges, NEAR};
pub use filters::{Filter, Filters};
pub use held_out::HeldOut;
pub use integers::{Integers, Regular, wave_by_chance};
pub use margins::Margins;
pub use neurons::Neurons;
pub use plane::{After, Decision, FirstTwo, GatePlane};
pub use scrubs::{Scrubs, Test};
pub use vectors::{Foretold, Moved, Vectors};

use super::upper::Upper;
use super::{Announce, one_layer};
use crate::error::{Error, Result};
use crate::linalg::Par;
use crate::model::{Config, Model, Run};
use crate::names::Hook;
use crate::task::{LabelTable, Task, TwoIntegers};
use crate::tensor::Tensor;
use reading::MlpReading;
use serde::Serialize;

/// How many parts [`study`] reports.
pub const PARTS: usize = 5;

/// What the study found.
#[derive(Clone, Debug, Serialize)]
pub struct TwoIntegerStudy {
    /// The model's sizes.
    #[serde(skip)]
    pub config: Config,
    /// The labels, `A` by `A`.
    #[serde(skip)]
    pub labels: Vec<bool>,
    /// How the attention at `=` varies.
    pub attention: AttentionShares,
    /// The model as it is.
    pub full: Answered,
    /// The model with the attention at `=` fixed to its means.
    pub fixed: Answered,
    /// The filters from the weights alone.
    pub filters: Filters,
    /// How regular the filters' numbers of `A` and of `B` are.
    pub integers: Integers,
    /// The MLP of the model and of that with fixed attention, neuron by neuron.
    pub neurons: [Neurons; 2],
    /// What vectors do that are added to the stream of either.
    pub vectors: [Vectors; 2],
    /// Causal scrubbing of either, held against the labels; none where the gate has one direction twice.
    pub scrubs: [Option<Scrubs>; 2],
    /// The answers as the attention goes from its means to itself.
    pub between: Vec<Between>,
    /// Where the model is wrong.
    pub edges: Edges,
    /// How many of the pairs that the model was not trained on get their label, where it is known which these are.
    pub held_out: Option<HeldOut>,
    /// Where the model with fixed attention is wrong.
    pub margins: Margins,
}

/// One of the two models that are compared, on all pairs.
#[derive(Clone, Debug, Serialize)]
pub struct Answered {
    /// What it answers, `A` by `A`.
    #[serde(skip)]
    pub says: Vec<bool>,
    /// The share of pairs on which that is the label.
    pub agrees: f64,
    /// The stream between attention and MLP, and the gate in it.
    pub plane: GatePlane,
    /// The stream after the MLP.
    pub after: After,
}

impl TwoIntegerStudy {
    /// The integers are those below this.
    pub fn n(&self) -> usize {
        self.filters.n
    }

    /// The share of pairs on which fixing the attention changes nothing.
    pub fn fixed_agrees_with_full(&self) -> f64 {
        agreement(&self.fixed.says, &self.full.says)
    }
}

/// The share of places where both are the same.
fn agreement(a: &[bool], b: &[bool]) -> f64 {
    a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / a.len() as f64
}

/// Does the write-up's analysis again on a model of the task with these labels.
///
/// # Errors
/// When the model is not of the task's shape: one layer with an MLP, no norms, a token for each of the table's integers
/// and one for `=`, two classes; or its weights are not finite.
///
/// # Cost
/// One run on all pairs, two to four searches for gates, and about ten times the MLP on all pairs.
pub fn study(
    model: &Model<f64>,
    table: &LabelTable,
    par: Par,
    progress: Announce<'_>,
) -> Result<TwoIntegerStudy> {
    let task = TwoIntegers::new(table.clone());
    check(model.config(), &task)?;
    let labels: Vec<bool> = table.labels().iter().map(|&label| label == 1).collect();
    progress("running the model");
    let tokens = task.inputs().expect("there are finitely many pairs");
    let run = Run::new().par(par).cache(Hook::Pattern(0));
    let out = model.run(&tokens, run.cache(Hook::ResidMid(0)))?;
    let attention = AttentionShares::of(&out.cache[Hook::Pattern(0)]);
    let extended = Extended::of(model, &attention, table.n())?;
    let mid = [at_equals(&out.cache[Hook::ResidMid(0)]), extended.sums()];
    progress("finding the gates");
    let uppers = [Upper::new(model, &mid[0])?, Upper::new(model, &mid[1])?];
    let mut full = Answered::of(&uppers[0], &mid[0], &labels, par)?;
    let fixed = Answered::of(&uppers[1], &mid[1], &labels, par)?;
    full.plane.in_the_order_of(&fixed.plane);
    let filters = Filters::of(&extended, &fixed, &full, &labels);
    let integers = Integers::of(&filters, &full)?;
    progress("adding neurons");
    let shown = spread_out(labels.len());
    let answered = [&full, &fixed];
    let neurons = [0, 1].map(|i| Neurons::of(model, &uppers[i], answered[i], &shown, par));
    let [of_full, of_fixed] = neurons;
    progress("adding vectors");
    let reading = MlpReading::of(model);
    let vectors = [0, 1].map(|i| {
        let m = answered[i];
        Vectors::of(&reading, &mid[i], &m.plane, &m.says, &shown, par)
    });
    let between = Between::all(&reading, &mid, &full, &labels, par);
    progress("scrubbing");
    let scrubs = [0, 1].map(|i| {
        let m = answered[i];
        Scrubs::of(model, &mid[i], &m.plane.first_two, &m.says, &labels, par)
    });
    Ok(TwoIntegerStudy {
        config: model.config().clone(),
        margins: Margins::of(&fixed.plane, &fixed.says, &labels),
        edges: Edges::of(&full, &labels, table.n()),
        labels,
        attention,
        filters,
        integers,
        neurons: [of_full?, of_fixed?],
        vectors,
        scrubs,
        between,
        held_out: None,
        full,
        fixed,
    })
}

impl Answered {
    fn of(upper: &Upper, mid: &Tensor<f64>, labels: &[bool], par: Par) -> Result<Self> {
        let run = Run::new().par(par).cache(Hook::ResidPost(0));
        let out = upper.model.run(&upper.all(), run)?;
        let says: Vec<bool> = out
            .logits
            .data()
            .chunks_exact(2)
            .map(|row| row[1] > row[0])
            .collect();
        Ok(Answered {
            agrees: agreement(&says, labels),
            plane: GatePlane::of(mid, &says, par)?,
            after: After::of(&upper.model, mid, &out.cache[Hook::ResidPost(0)], &says)?,
            says,
        })
    }
}

/// What the stream holds at `=`, input by input: `[input, d_model]` of `[input, pos, d_model]`.
fn at_equals(stream: &Tensor<f64>) -> Tensor<f64> {
    let (inputs, d) = (stream.shape()[0], stream.shape()[2]);
    let rows = (0..inputs).flat_map(|i| stream.slice(&[i, EQUALS]).iter().copied());
    Tensor::from_vec(&[inputs, d], rows.collect())
}

/// The position of `=`, after `A` and `B`.
const EQUALS: usize = 2;

/// About a seventh of the inputs, evenly: where a picture of all would be too much.
fn spread_out(inputs: usize) -> Vec<usize> {
    const EVERY: usize = 7;
    (0..inputs).step_by(EVERY).collect()
}

/// Whether the study can be made of such a model.
fn check(config: &Config, task: &TwoIntegers) -> Result<()> {
    task.check_model(config)?;
    one_layer::check(config)?;
    let pairs = task.table().labels().len();
    if !(2..=pairs).contains(&config.d_model) {
        let reason = format!(
            "{}, expected from 2 to {pairs}, the number of pairs, for this study",
            config.d_model
        );
        let field = "d_model";
        return Err(Error::Config { field, reason });
    }
    Ok(())
}
