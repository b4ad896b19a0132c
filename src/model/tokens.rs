//! A batch of token sequences of one length.

use crate::error::{Error, Result};
use crate::model::Config;
use crate::tensor::{Saved, TensorFile, write_safetensors};
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use std::path::Path;
use std::sync::Arc;

/// The tensor's name in files.
const NAME: &str = "tokens";

/// `[batch, pos]` tokens.
///
/// ```
/// use pathsum::Tokens;
/// let tokens = Tokens::from_rows(&[[0, 1, 2], [2, 1, 0]]);
/// assert_eq!((tokens.batch(), tokens.pos()), (2, 3));
/// assert_eq!(tokens.sequence(1), &[2, 1, 0]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    batch: usize,
    pos: usize,
    /// Shared: a run keeps what it ran on.
    ids: Arc<[i64]>,
}

impl Tokens {
    /// From ids in row-major order.
    ///
    /// # Panics
    /// When their number is not `batch * pos`.
    #[track_caller]
    pub fn new(batch: usize, pos: usize, ids: Vec<i64>) -> Self {
        assert_eq!(
            batch * pos,
            ids.len(),
            "[{batch}, {pos}] tokens from {} ids",
            ids.len()
        );
        let ids = ids.into();
        Tokens { batch, pos, ids }
    }

    /// From sequences of one length.
    ///
    /// # Panics
    /// When their lengths differ.
    #[track_caller]
    pub fn from_rows(rows: &[impl AsRef<[i64]>]) -> Self {
        let pos = rows.first().map_or(0, |r| r.as_ref().len());
        let ids: Vec<i64> = rows.iter().flat_map(|r| r.as_ref()).copied().collect();
        assert!(
            rows.iter().all(|r| r.as_ref().len() == pos),
            "sequences of several lengths"
        );
        Tokens::new(rows.len(), pos, ids)
    }

    /// Seeded random tokens of a model's vocabulary, of its full context.
    pub fn random(config: &Config, batch: usize, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let ids = (0..batch * config.n_ctx)
            .map(|_| rng.random_range(0..config.d_vocab as i64))
            .collect();
        Tokens {
            batch,
            pos: config.n_ctx,
            ids,
        }
    }

    /// Reads `tokens`, `[batch, pos]` integers, of a safetensors file; one sequence may be `[pos]`.
    ///
    /// # Errors
    /// When there is no such tensor, or it is of another type or rank.
    pub fn from_file(file: &TensorFile) -> Result<Self> {
        let (shape, ids) = file.integer(NAME)?;
        match *shape.as_slice() {
            [batch, pos] => Ok(Tokens::new(batch, pos, ids)),
            [pos] => Ok(Tokens::new(1, pos, ids)),
            _ => Err(Error::Axes {
                name: NAME.into(),
                found: shape,
                expected: "[batch, pos]",
            }),
        }
    }

    /// Writes `tokens`, `[batch, pos]`, as a safetensors file that [`Tokens::from_file`] reads.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let shape = [self.batch, self.pos];
        write_safetensors(
            path,
            [(NAME.to_string(), Saved::integers(&shape, &self.ids))],
        )
    }

    /// Sequences.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Positions of each.
    pub fn pos(&self) -> usize {
        self.pos
    }

    /// One sequence.
    ///
    /// # Panics
    /// When there is no such sequence.
    #[track_caller]
    pub fn sequence(&self, i: usize) -> &[i64] {
        self.range(i, 1)
    }

    /// All ids, sequence by sequence.
    pub fn ids(&self) -> &[i64] {
        &self.ids
    }

    /// The ids of `count` sequences from `first` on.
    #[track_caller]
    pub(crate) fn range(&self, first: usize, count: usize) -> &[i64] {
        assert!(
            first + count <= self.batch,
            "sequence {first} + {count} of {}",
            self.batch
        );
        &self.ids[first * self.pos..(first + count) * self.pos]
    }

    /// `count` sequences from `first` on.
    ///
    /// # Panics
    /// When there are not so many.
    #[track_caller]
    pub fn slice(&self, first: usize, count: usize) -> Self {
        Tokens {
            batch: count,
            pos: self.pos,
            ids: self.range(first, count).into(),
        }
    }

    /// The first `n` sequences, or all when there are fewer.
    pub fn truncate(self, n: usize) -> Self {
        if n < self.batch {
            self.slice(0, n)
        } else {
            self
        }
    }

    /// Whether a model can run on these.
    ///
    /// # Errors
    /// When the sequences are empty or too long, or a token is not in the vocabulary.
    pub fn check(&self, config: &Config) -> Result<()> {
        if self.pos == 0 || self.pos > config.n_ctx {
            return Err(Error::SequenceLength {
                len: self.pos,
                n_ctx: config.n_ctx,
            });
        }
        let wrong = self
            .ids
            .iter()
            .position(|&t| t < 0 || t >= config.d_vocab as i64);
        wrong.map_or(Ok(()), |i| {
            Err(Error::Token {
                token: self.ids[i],
                sequence: i / self.pos,
                position: i % self.pos,
                max: config.d_vocab - 1,
            })
        })
    }
}
