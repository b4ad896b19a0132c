//! The sequences that the study looks at: the write-ups' own sets, or generated ones.

use crate::error::{Error, Result};
use crate::model::Tokens;
use crate::study::data::Folder;
use crate::study::{Provenance, Set};
use crate::task::{Labelled, Palindromes, Task};
use serde::Serialize;
use std::path::Path;

/// The sequences that the study looks at.
#[derive(Clone, Debug)]
pub struct Data {
    /// What most of the study is about: the write-ups' `dataset`.
    pub dataset: Set<Labelled>,
    /// The second write-up's own hundred sequences: `dataset_100`.
    pub hundred: Set<Labelled>,
    /// Its five hundred: `dataset_500`.
    pub five_hundred: Set<Labelled>,
    /// Sequences whose second halves are the same, palindromes and such that no value matches its mirror: `pairs`.
    pub pairs: Set<Pairs>,
}

/// Sequences in pairs that differ in their first halves.
#[derive(Clone, Debug)]
pub struct Pairs {
    /// Palindromes.
    pub palindromic: Tokens,
    /// The same second halves, and first halves of which no value is that of its mirror.
    pub nonpalindromic: Tokens,
}

impl Data {
    /// The write-ups' numbers of sequences, generated with fixed seeds.
    ///
    /// # Errors
    /// Never: what is generated has the task's form.
    pub fn generated() -> Result<Self> {
        const SEQUENCES: usize = 2500;
        const PAIRS: usize = 1000;
        let task = Palindromes::default();
        let first_half: Vec<usize> = (1..task.positions() / 2).collect();
        let pairs = task.broken_at(&first_half, PAIRS, 3)?;
        Ok(Data {
            dataset: Set::generated(task.generate(SEQUENCES, 0)),
            hundred: Set::generated(task.generate(100, 1)),
            five_hundred: Set::generated(task.generate(500, 2)),
            pairs: Set::generated(Pairs {
                palindromic: pairs.palindromes.tokens,
                nonpalindromic: pairs.broken.tokens,
            }),
        })
    }

    /// A dataset of one's own, and the rest generated with fixed seeds.
    ///
    /// # Errors
    /// When a sequence has not the task's form.
    pub fn of(dataset: Tokens) -> Result<Self> {
        Ok(Data {
            dataset: Set::given(Palindromes::default().label(dataset)?),
            ..Data::generated()?
        })
    }

    /// The sets of a folder, `dataset.safetensors`, `dataset_100.safetensors`, `dataset_500.safetensors` (each with
    /// `tokens`) and `pairs.safetensors` (with `palindromic` and `nonpalindromic`); what is not there is generated.
    ///
    /// # Errors
    /// When none of them is there, one is not readable, or a sequence has not the task's form.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        const PAIRS: &str = "pairs";
        let sets = ["dataset", "dataset_100", "dataset_500", PAIRS];
        let folder = Folder::open(folder.as_ref(), &sets)?;
        let task = Palindromes::default();
        let labelled = |set: &str, otherwise: Set<Labelled>| match folder.tokens(set, "tokens")? {
            Some(tokens) => {
                let labelled = task.label(tokens).map_err(|e| folder.of(set, e))?;
                Ok(Set::given(labelled))
            }
            None => Ok(otherwise),
        };
        let other = Data::generated()?;
        let side = |name: &str| -> Result<Option<Tokens>> {
            let Some(tokens) = folder.tokens(PAIRS, name)? else {
                return Ok(None);
            };
            task.label(tokens.clone())
                .map_err(|e| folder.of(PAIRS, e))?;
            Ok(Some(tokens))
        };
        let pairs = match (side("palindromic")?, side("nonpalindromic")?) {
            (Some(palindromic), Some(nonpalindromic)) => {
                if palindromic.batch() != nonpalindromic.batch() {
                    let uneven = Error::Mismatch(format!(
                        "{} palindromic and {} nonpalindromic sequences, expected as many",
                        palindromic.batch(),
                        nonpalindromic.batch()
                    ));
                    return Err(folder.of(PAIRS, uneven));
                }
                Set::given(Pairs {
                    palindromic,
                    nonpalindromic,
                })
            }
            _ => other.pairs,
        };
        Ok(Data {
            dataset: labelled("dataset", other.dataset)?,
            hundred: labelled("dataset_100", other.hundred)?,
            five_hundred: labelled("dataset_500", other.five_hundred)?,
            pairs,
        })
    }
}

/// Where each of the sets comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Origins {
    /// The dataset.
    pub dataset: Provenance,
    /// The hundred.
    pub hundred: Provenance,
    /// The five hundred.
    pub five_hundred: Provenance,
    /// The pairs.
    pub pairs: Provenance,
}

impl Origins {
    pub(super) fn of(data: &Data) -> Self {
        Origins {
            dataset: data.dataset.origin,
            hundred: data.hundred.origin,
            five_hundred: data.five_hundred.origin,
            pairs: data.pairs.origin,
        }
    }
}
