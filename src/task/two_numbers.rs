//! Sequences of two numbers and `=`.

use super::Vocabulary;
use crate::error::{Error, Result};
use crate::model::Tokens;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// Two numbers below that of the token `=`, and `=`.
pub(super) struct TwoNumbers<'a> {
    pub vocabulary: &'a Vocabulary,
    pub equals: i64,
    /// What a number is called, with its article.
    pub number: &'static str,
}

impl TwoNumbers<'_> {
    /// How many tokens there are in a sequence.
    pub const POSITIONS: usize = 3;
    /// Where the answer is read.
    pub const READ_AT: usize = 2;

    /// TwoNumbers drawn each as likely.
    pub fn tokens(&self, size: usize, seed: u64) -> Tokens {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut any = || rng.random_range(0..self.equals);
        let ids = (0..size).flat_map(|_| [any(), any(), self.equals]);
        Tokens::new(size, Self::POSITIONS, ids.collect())
    }

    /// All pairs, the first number by the second.
    pub fn all(&self) -> Tokens {
        let n = self.equals;
        let ids = (0..n * n).flat_map(|i| [i / n, i % n, n]);
        Tokens::new((n * n) as usize, Self::POSITIONS, ids.collect())
    }

    pub fn check(&self, sequence: &[i64]) -> Result<()> {
        self.vocabulary.check(sequence, Self::POSITIONS)?;
        self.vocabulary.expect(sequence, Self::READ_AT, "=")?;
        match (0..Self::READ_AT).find(|&p| sequence[p] == self.equals) {
            None => Ok(()),
            Some(p) => Err(Error::Sequence {
                sequence: None,
                message: format!(
                    "position {p} is =, expected {}, 0..={}",
                    self.number,
                    self.equals - 1
                ),
            }),
        }
    }

    /// Two numbers, with or without `=`.
    pub fn parse(&self, text: &str) -> Result<Vec<i64>> {
        let mut sequence = self.vocabulary.words(text)?;
        if sequence.len() == Self::READ_AT {
            sequence.push(self.equals);
        }
        self.check(&sequence)?;
        Ok(sequence)
    }
}
