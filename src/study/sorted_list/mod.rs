//! Sorted lists: a one-layer attention-only model that repeats a list of ten numbers in order.
//!
//! Each number attends to the smallest one above it, and copies it; the two heads share the numbers out
//! between them.
//!
//! Source: the published solutions of the October 2023 monthly algorithmic challenge of mechanistic
//! interpretability ("Sorted lists").

mod adversarial;
mod circuits;
mod direct;
mod performance;
mod story;
mod triples;

pub use adversarial::Adversarial;
pub use circuits::{Attention, NextAbove};
pub use performance::{Example, Performance};
pub use triples::CloseTriple;

use super::circuit::{circuit, circuits, rows};
use super::data::Folder;
use super::{Origin, Progress, Set};
use crate::error::{Error, Result};
use crate::intervene::{By, Change, Grid, Over, Scope, Site, Sweep};
use crate::metric::{Answers, Standard};
use crate::model::process::Step;
use crate::model::{Model, Run, Tokens};
use crate::task::{SortedLists, Task};
use adversarial::adversarial;
use circuits::{next_above, top2};
use direct::pushes;
use performance::{example, performance};
use serde::Serialize;
use std::path::Path;
use triples::close_triples;

/// The value whose attention the write-up shows.
const SHOWN: usize = 25;

/// Parts that [`study`] reports as it goes.
pub const PARTS: usize = 3;

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
    pub origin: Origin,
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
    /// `W_E W_OV[h] W_U` of each head.
    pub ov_full: Vec<Vec<Vec<f64>>>,
    /// `W_E W_QK[h] W_E^T` of each head.
    pub qk_full: Vec<Vec<Vec<f64>>>,
    /// `W_pos W_QK[h] W_E^T` of each head.
    pub qk_pos_emb: Vec<Vec<Vec<f64>>>,
    /// `W_E W_U`.
    pub direct_path: Vec<Vec<f64>>,
    /// How far apart each component pushes the logits, where answers are read: the standard deviation of what it adds
    /// directly, averaged.
    pub pushes: Vec<(String, f64)>,
    /// For each value the head that copies it most, by the diagonal of `ov_full`.
    pub owners: Vec<usize>,
    /// The value whose attention is shown, the head that copies it, and the two tokens it attends to most.
    pub attention: Attention,
    /// Whether each head prefers, of all values above a number, those just above it.
    pub next_above: Vec<NextAbove>,
    /// How the model does on lists that are hard by the circuit.
    pub adversarial: Vec<Adversarial>,
    /// Direct logit attributions in lists with three values close together.
    pub close_triples: Vec<CloseTriple>,
}

/// Studies a sorted-list model on sequences of its task: a list, the separator, the list in order.
///
/// # Errors
/// When the model or the sequences are not of the task.
pub fn study(model: &Model<f64>, data: &Data, progress: Progress<'_>) -> Result<SortedListStudy> {
    let tokens = &data.dataset.sequences;
    progress("answers");
    let mut model = model.clone();
    for step in Step::DEFAULT {
        step.apply(&mut model)?;
    }
    let model = &model;
    let c = model.config();
    let (pos, values) = (tokens.pos(), c.d_vocab - 1);
    let refused = |what: String| Err(Error::Request(format!("the study of sorted lists: {what}")));
    if c.n_layers != 1 || !c.attn_only || c.d_vocab_out != c.d_vocab {
        return refused("expected one layer of heads alone, and a logit for every token".into());
    }
    let length = pos / 2;
    let is_of_task = |s: &[i64]| {
        let mut sorted = s[..length].to_vec();
        sorted.sort_unstable();
        pos % 2 == 1 && s[length] == values as i64 && s[length + 1..] == sorted
    };
    if let Some(i) = (0..tokens.batch()).find(|&i| !is_of_task(tokens.sequence(i))) {
        return refused(format!(
            "sequence {i} is not a list, the separator {values}, and the list in order"
        ));
    }
    let positions: Vec<usize> = (length..pos - 1).collect();
    let answers = Answers::next_tokens(tokens, &positions)?;
    let out = model.run(tokens, Run::new())?;
    let at_answers = answers.rows_of(&out.logits);

    let change = Change::Mean(Over::Sequences);
    let grid = Grid::new(
        c,
        pos,
        Site::Result,
        &[By::Head],
        &Scope::default(),
        &change,
    )?;
    let ablated = Sweep::new(model, tokens, &answers, &Standard::Loss).run(&grid)?;
    let rise = |v: &Option<f64>| v.expect("no shards") - ablated.clean;
    let ablations = ablated.axes[0]
        .labels
        .iter()
        .cloned()
        .zip(ablated.values.iter().map(rise));

    progress("circuits");
    let per_head = |expression: &str| -> Result<Vec<Vec<Vec<f64>>>> {
        Ok(circuits(model, expression)?.iter().map(rows).collect())
    };
    let ov_full = per_head("W_E W_OV[0.*] W_U")?;
    let qk_full = per_head("W_E W_QK[0.*] W_E^T")?;
    let owner = |v: usize| {
        (1..c.n_heads).fold(0, |best, h| {
            if ov_full[h][v][v] > ov_full[best][v][v] {
                h
            } else {
                best
            }
        })
    };
    let owners: Vec<usize> = (0..values).map(owner).collect();
    let shown = SHOWN.min(values - 1);
    let scores = qk_full[owners[shown]][shown].clone();
    progress("hard lists");
    Ok(SortedListStudy {
        origin: data.dataset.origin,
        values,
        length,
        performance: performance(&answers, &at_answers),
        example: example(tokens.sequence(0), &at_answers, length),
        ablations: ablations.collect(),
        qk_pos_emb: per_head("W_pos W_QK[0.*] W_E^T")?,
        direct_path: rows(&circuit(model, "W_E W_U")?),
        pushes: pushes(model, tokens, &positions)?,
        attention: Attention {
            value: shown,
            head: owners[shown],
            top2: top2(&scores[..values]),
            scores,
        },
        next_above: (0..c.n_heads)
            .map(|h| next_above(h, &owners, &qk_full[h]))
            .collect(),
        adversarial: adversarial(model, values, length)?,
        close_triples: close_triples(model, values, length, &owners)?,
        ov_full,
        qk_full,
        owners,
    })
}
