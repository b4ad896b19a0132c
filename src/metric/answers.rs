//! Where a task's answer is read, and which class is right there.

use crate::error::{Error, Result};
use crate::model::{Config, Tokens};
use crate::tensor::{Scalar, Tensor, TensorFile};

/// The positions at which a batch's answers are read, and the right classes where they are known.
///
/// ```
/// use pathsum::metric::Answers;
/// // Two sequences, each read at its last position, 4: the first is of class 1, the second of class 0.
/// let answers = Answers::new(&[4], vec![1, 0]);
/// assert_eq!(answers.get(0, 0).class, Some(1));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    batch: usize,
    positions: Vec<usize>,
    classes: Option<Vec<usize>>,
}

/// One answer of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its sequence.
    pub sequence: usize,
    /// Which of the sequence's answers it is.
    pub index: usize,
    /// Where it is read.
    pub position: usize,
    /// The right class, where it is known.
    pub class: Option<usize>,
}

impl Answers {
    /// Answers read at these positions of every sequence, with their classes `[batch, answer]`.
    ///
    /// # Panics
    /// When there are no positions, or the classes are not a multiple of them.
    #[track_caller]
    pub fn new(positions: &[usize], classes: Vec<usize>) -> Self {
        assert!(!positions.is_empty(), "answers are read at some position");
        assert_eq!(
            classes.len() % positions.len(),
            0,
            "a class for each answer"
        );
        Answers {
            batch: classes.len() / positions.len(),
            positions: positions.to_vec(),
            classes: Some(classes),
        }
    }

    /// Answers read at these positions of `batch` sequences, of which no class is known to be right.
    ///
    /// # Panics
    /// When there are no positions.
    #[track_caller]
    pub fn at(batch: usize, positions: &[usize]) -> Self {
        assert!(!positions.is_empty(), "answers are read at some position");
        Answers {
            batch,
            positions: positions.to_vec(),
            classes: None,
        }
    }

    /// Every token of `positions + 1` as the right class at `positions`.
    ///
    /// # Errors
    /// When there is no token after one of the positions.
    pub fn next_tokens(tokens: &Tokens, positions: &[usize]) -> Result<Self> {
        if let Some(p) = positions.iter().find(|&&p| p + 1 >= tokens.pos()) {
            return Err(Error::Metric(format!(
                "position {p} has no next token: the sequences have {} positions",
                tokens.pos()
            )));
        }
        let next = |row: usize| {
            positions
                .iter()
                .map(move |p| tokens.sequence(row)[p + 1] as usize)
        };
        Ok(Answers::new(
            positions,
            (0..tokens.batch()).flat_map(next).collect(),
        ))
    }

    /// Classes read from a tensor of a safetensors file: `[batch]`, the same class at every position; or
    /// `[batch, pos]`, of which the answers' positions are taken.
    ///
    /// # Errors
    /// When there is no such tensor of integers, or it is of another shape.
    pub fn from_file(
        file: &TensorFile,
        key: &str,
        tokens: &Tokens,
        positions: &[usize],
    ) -> Result<Self> {
        let (shape, labels) = file.integer(key)?;
        let (batch, pos) = (tokens.batch(), tokens.pos());
        let by_position = match *shape.as_slice() {
            [n] if n == batch => false,
            [n, p] if n == batch && p == pos => true,
            _ => {
                return Err(Error::Mismatch(format!(
                    "labels `{key}` have shape {shape:?}, expected [{batch}] or [{batch}, {pos}], as there are tokens"
                )));
            }
        };
        let mut classes = Vec::with_capacity(batch * positions.len());
        for sequence in 0..batch {
            for &p in positions {
                let at = if by_position {
                    sequence * pos + p
                } else {
                    sequence
                };
                let class = labels.get(at).copied().unwrap_or(-1);
                classes.push(usize::try_from(class).map_err(|_| {
                    Error::Metric(format!(
                        "label {class} of sequence {sequence} in `{key}`: expected a class, from 0"
                    ))
                })?);
            }
        }
        Ok(Answers::new(positions, classes))
    }

    /// Sequences.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Where each sequence's answers are read.
    pub fn positions(&self) -> &[usize] {
        &self.positions
    }

    /// The right classes, `[batch, answer]`, where they are known.
    pub fn classes(&self) -> Option<&[usize]> {
        self.classes.as_deref()
    }

    /// One answer.
    ///
    /// # Panics
    /// When there is no such answer.
    #[track_caller]
    pub fn get(&self, sequence: usize, index: usize) -> Answer {
        assert!(
            sequence < self.batch,
            "sequence {sequence} of {}",
            self.batch
        );
        let each = self.positions.len();
        Answer {
            sequence,
            index,
            position: self.positions[index],
            class: self.classes.as_ref().map(|c| c[sequence * each + index]),
        }
    }

    /// `count` sequences' answers from `first` on.
    ///
    /// # Panics
    /// When there are not so many.
    #[track_caller]
    pub fn slice(&self, first: usize, count: usize) -> Self {
        self.select(&(first..first + count).collect::<Vec<_>>())
    }

    /// The answers of these sequences.
    ///
    /// # Panics
    /// When one of them is not there.
    #[track_caller]
    pub fn select(&self, sequences: &[usize]) -> Self {
        let each = self.positions.len();
        let of = |&s: &usize| {
            assert!(s < self.batch, "sequence {s} of {}", self.batch);
            s * each..(s + 1) * each
        };
        let ranges = sequences.iter().map(of);
        Answers {
            batch: sequences.len(),
            positions: self.positions.clone(),
            classes: (self.classes.as_ref()).map(|c| ranges.flat_map(|r| &c[r]).copied().collect()),
        }
    }

    /// The answers' rows of logits, `[batch, answer, d_vocab_out]`, of logits `[batch, pos, d_vocab_out]`.
    ///
    /// # Panics
    /// When the logits are of other sequences.
    #[track_caller]
    pub fn rows_of<T: Scalar>(&self, logits: &Tensor<T>) -> Tensor<T> {
        let d = logits.shape()[2];
        assert_eq!(logits.shape()[0], self.batch, "logits of as many sequences");
        let mut rows = Vec::with_capacity(self.batch * self.positions.len() * d);
        for sequence in 0..self.batch {
            for &p in &self.positions {
                rows.extend_from_slice(logits.slice(&[sequence, p]));
            }
        }
        Tensor::from_vec(&[self.batch, self.positions.len(), d], rows)
    }

    /// Whether a batch has these answers.
    ///
    /// # Errors
    /// When it has another number of sequences, a position is not there or a pad, or a class is not among the
    /// model's logits.
    pub fn check(&self, config: &Config, tokens: &Tokens) -> Result<()> {
        if self.batch != tokens.batch() {
            return Err(Error::Mismatch(format!(
                "answers for {} sequences, expected {}, as there are tokens",
                self.batch,
                tokens.batch()
            )));
        }
        if let Some(p) = self.positions.iter().find(|&&p| p >= tokens.pos()) {
            return Err(Error::out_of_range(
                "position",
                *p,
                "",
                "the sequences' positions",
                0..tokens.pos(),
            ));
        }
        let read = |s: usize| self.positions.iter().map(move |&p| (s, p));
        let mut places = (0..tokens.batch()).flat_map(read);
        if let Some((s, p)) = places.find(|&(s, p)| !tokens.is_attended(s, p)) {
            return Err(Error::Mismatch(format!(
                "position {p} of sequence {s} is a pad, and has no logits to answer with"
            )));
        }
        let outside = |c: &[usize]| c.iter().position(|&c| c >= config.d_vocab_out);
        match self.classes.as_deref().and_then(|c| Some((c, outside(c)?))) {
            None => Ok(()),
            Some((classes, i)) => Err(Error::out_of_range(
                "label",
                classes[i],
                format!(" of sequence {}", i / self.positions.len()),
                "this model's classes",
                0..config.d_vocab_out,
            )),
        }
    }
}
