//! The sequences that the study looks at, and what is true of each.

use crate::error::{Error, Result};
use crate::metric::Answers;
use crate::model::Tokens;
use crate::study::Provenance;
use crate::study::data::Folder;
use crate::task::{Brackets, Task};
use serde::Serialize;
use std::fmt;
use std::path::Path;

/// How a string of brackets fails, if it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StringKind {
    /// It does not.
    Balanced,
    /// There are not as many closing brackets as opening ones, and nothing else is wrong.
    Elevation,
    /// Read from the right, more brackets were opened somewhere than closed; the total is right.
    Negative,
    /// Both.
    Both,
}

impl StringKind {
    /// All of them, in the order of tables and pictures.
    pub const ALL: [StringKind; 4] = [
        StringKind::Balanced,
        StringKind::Elevation,
        StringKind::Negative,
        StringKind::Both,
    ];

    /// That of a sequence of tokens.
    pub fn of(sequence: &[i64]) -> StringKind {
        let failures = Brackets::failures(sequence);
        match (failures.total_elevation, failures.negative) {
            (false, false) => StringKind::Balanced,
            (true, false) => StringKind::Elevation,
            (false, true) => StringKind::Negative,
            (true, true) => StringKind::Both,
        }
    }
}

impl fmt::Display for StringKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StringKind::Balanced => "balanced",
            StringKind::Elevation => "wrong total",
            StringKind::Negative => "goes negative",
            StringKind::Both => "both failures",
        })
    }
}

/// The sequences that the study looks at.
#[derive(Clone, Debug)]
pub struct Data {
    /// `[start]`, brackets, `[end]`, padding.
    pub tokens: Tokens,
    /// The right answers, read at position 0.
    pub answers: Answers,
    /// How each fails.
    pub kinds: Vec<StringKind>,
    /// Which are balanced.
    pub balanced: Vec<bool>,
    /// Which start with an opening bracket: the others are wrong at once.
    pub starts_open: Vec<bool>,
    /// Each one's share of opening brackets; NaN of none.
    pub open_share: Vec<f64>,
    /// Each one's positions without the padding.
    pub lengths: Vec<usize>,
    /// Where they come from.
    pub origin: Provenance,
}

impl Data {
    /// As many sequences as the write-up has, generated with a fixed seed.
    ///
    /// # Errors
    /// As [`Data::of`].
    pub fn generated() -> Result<Self> {
        const SEQUENCES: usize = 5000;
        Ok(Data {
            origin: Provenance::Generated,
            ..Data::of(Brackets::default().tokens(SEQUENCES, 0))?
        })
    }

    /// The dataset of a folder, `tokens` of `dataset.safetensors`.
    ///
    /// # Errors
    /// When it is not there or not readable, and as [`Data::of`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        const SET: &str = "dataset";
        let folder = Folder::open(folder.as_ref(), &[SET])?;
        let tokens = folder.tokens(SET, "tokens")?.expect("it is there");
        Data::of(tokens).map_err(|e| folder.of(SET, e))
    }

    /// Sequences of one's own.
    ///
    /// # Errors
    /// When a sequence has not the task's form, or there are none of one [`StringKind`] that start with an opening bracket.
    pub fn of(tokens: Tokens) -> Result<Self> {
        let task = Brackets::default();
        let labelled = task.label(tokens)?;
        let open = open();
        let each = |s| labelled.tokens.sequence(s);
        let all = || (0..labelled.batch()).map(each);
        let brackets = |sequence: &[i64]| task.text(sequence).len();
        let opens = |sequence: &[i64]| sequence.iter().filter(|&&t| t == open).count();
        let kinds: Vec<StringKind> = all().map(StringKind::of).collect();
        let data = Data {
            balanced: kinds.iter().map(|&k| k == StringKind::Balanced).collect(),
            starts_open: all().map(|s| s[1] == open).collect(),
            open_share: all()
                .map(|s| opens(s) as f64 / brackets(s) as f64)
                .collect(),
            lengths: all().map(|s| brackets(s) + 2).collect(),
            answers: labelled.answers.clone(),
            tokens: labelled.tokens.clone(),
            kinds,
            origin: Provenance::Given,
        };
        for kind in StringKind::ALL {
            if data.of_kind(kind).is_empty() {
                return Err(Error::TooFew {
                    found: 0,
                    least: 1,
                    message: format!(
                        "none of the {} sequences that start with ( is of the kind \"{kind}\", expected some of each",
                        data.starting_open().len()
                    ),
                });
            }
        }
        Ok(data)
    }

    /// The sequences that start with an opening bracket.
    pub fn starting_open(&self) -> Vec<usize> {
        (0..self.kinds.len())
            .filter(|&s| self.starts_open[s])
            .collect()
    }

    /// Those of one kind among them.
    pub fn of_kind(&self, kind: StringKind) -> Vec<usize> {
        let starts = self.starting_open().into_iter();
        starts.filter(|&s| self.kinds[s] == kind).collect()
    }

    /// A string of a kind, of a length that is easy to see.
    pub(super) fn shown(&self, kind: StringKind) -> usize {
        const EASY: usize = 16;
        let of = self.of_kind(kind).into_iter();
        of.min_by_key(|&s| self.lengths[s].abs_diff(EASY))
            .expect("there are some of each")
    }

    /// The sequences without padding.
    pub(super) fn full(&self) -> Vec<usize> {
        let full = self.tokens.pos();
        (0..self.kinds.len())
            .filter(|&s| self.lengths[s] == full)
            .collect()
    }

    /// The positions of brackets from which on more brackets open than close.
    pub(super) fn negative_positions(&self, s: usize) -> Vec<usize> {
        let elevation = Brackets::elevation(self.tokens.sequence(s));
        (1..self.lengths[s] - 1)
            .filter(|&p| elevation[p] < 0)
            .collect()
    }
}

/// The token of an opening bracket.
pub(super) fn open() -> i64 {
    bracket("(")
}

/// The token of a bracket.
pub(super) fn bracket(bracket: &str) -> i64 {
    let names = Brackets::default();
    let names = names.vocabulary().names();
    let token = names.iter().position(|name| name == bracket);
    token.expect("a bracket of the vocabulary") as i64
}

/// The longest sequence of one bracket.
pub(super) fn all_of(bracket: &str) -> Tokens {
    let task = Brackets::default();
    let brackets = bracket.repeat(task.positions() - 2);
    Tokens::from_rows(&[task.sequence(&brackets).expect("brackets within bounds")])
}
