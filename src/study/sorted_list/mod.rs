//! Sorted lists: a one-layer attention-only model that repeats a list of ten numbers in order.
//!
//! Each number attends to the smallest one above it, and copies it; the two heads share the numbers out
//! between them.
//!
//! # Source
//! The published solutions of the October 2023 monthly algorithmic challenge of mechanistic interpretability
//! (*sorted lists*), by Callum McDougall.

mod adversarial;
mod attention;
mod circuits;
mod direct;
mod lab;
mod performance;
mod story;
mod triples;
mod zero;

pub use adversarial::{Adversarial, BySize, Hard, Jump, PublishedJump, Smallest};
pub use attention::{Attending, Shares};
pub use circuits::{Circuits, Elsewhere, Neighbour, NextAbove, Scores};
pub use direct::Direct;
pub use lab::Shown;
pub use performance::{Example, Performance};
pub use triples::{CloseTriple, Triples};
pub use zero::Zero;

use super::data::Folder;
use super::{Announce, Provenance, Set};
use crate::error::Result;
use crate::model::{Model, Tokens};
use crate::task::{SortedLists, Task};
use lab::Lab;
use serde::Serialize;
use std::path::Path;
use triples::DrawnTriples;

/// Parts that [`study`] reports as it goes.
pub const PARTS: usize = 5;

/// The sequences that the study looks at.
#[derive(Clone, Debug)]
pub struct Data {
    /// A list, the separator, the list in order.
    pub dataset: Set<Tokens>,
}

impl Data {
    /// Lists generated with a fixed seed.
    pub fn generated() -> Self {
        const SEQUENCES: usize = 2000;
        Data {
            dataset: Set::generated(SortedLists::default().tokens(SEQUENCES, 0)),
        }
    }

    /// Sequences of one's own.
    pub fn of(tokens: Tokens) -> Self {
        Data {
            dataset: Set::given(tokens),
        }
    }

    /// The dataset of a folder, `tokens` of `dataset.safetensors`.
    ///
    /// # Errors
    /// When it is not there or not readable.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        const SET: &str = "dataset";
        let folder = Folder::open(folder.as_ref(), &[SET])?;
        Ok(Data::of(
            folder.tokens(SET, "tokens")?.expect("it is there"),
        ))
    }
}

/// What the study of a sorted-list model found.
#[derive(Clone, Debug, Serialize)]
pub struct SortedListStudy {
    /// Where the sequences come from.
    pub origin: Provenance,
    /// The values that are sorted, `0..values`; the separator comes after them.
    pub values: usize,
    /// The list's length.
    pub length: usize,
    /// How well the model does.
    pub performance: Performance,
    /// One sequence, and the probability of every token at each position that predicts.
    pub example: Example,
    /// How much the loss rises with each head's result replaced by its mean.
    pub ablations: Vec<(String, f64)>,
    /// What the heads attend to on runs.
    pub attending: Attending,
    /// What the heads add to the right answers.
    pub shares: Shares,
    /// The circuits, token by token.
    pub circuits: Circuits,
    /// Why large values do not attend to small ones.
    pub zero: Zero,
    /// The direct path; `None` where a list has not three values.
    pub direct: Option<Direct>,
    /// Lists that are hard by the circuit.
    pub adversarial: Adversarial,
    /// Lists with three values close together; `None` where a list has not three values.
    pub triples: Option<Triples>,
}

/// Studies a sorted-list model on sequences of its task: a list, the separator, the list in order.
///
/// # Errors
/// When the model or the sequences are not of the task.
///
/// # Cost
/// About as much as ten runs on the dataset and three thousand more sequences.
pub fn study(model: &Model<f64>, data: &Data, progress: Announce<'_>) -> Result<SortedListStudy> {
    progress("answers");
    let lab = Lab::new(model, &data.dataset.sequences)?;
    let ablations = performance::ablations(&lab)?;
    progress("circuits");
    let circuits = Circuits::of(&lab)?;
    progress("attention");
    let shares = Shares::of(&lab, &circuits)?;
    let zero = Zero::of(&lab, &circuits)?;
    progress("close values");
    let drawn = DrawnTriples::of(&lab)?;
    let of_drawn = drawn.as_ref();
    let direct = of_drawn.map(|d| Direct::of(&lab, &circuits, d));
    let triples = of_drawn.map(|d| Triples::of(&lab, &circuits, d));
    progress("hard lists");
    Ok(SortedListStudy {
        origin: data.dataset.origin,
        values: lab.values,
        length: lab.length,
        performance: performance::performance(&lab),
        example: performance::example(&lab),
        attending: Attending::of(&lab),
        adversarial: Adversarial::of(&lab)?,
        direct: direct.transpose()?,
        triples: triples.transpose()?,
        ablations,
        shares,
        circuits,
        zero,
    })
}
