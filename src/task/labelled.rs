//! Sequences with their answers.

use super::Task;
use super::split::randperm;
use crate::error::Result;
use crate::metric::Answers;
use crate::model::Tokens;
use crate::tensor::{Saved, write_safetensors};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use std::path::Path;

/// Sequences, and where their answers are read and which are right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// The sequences.
    pub tokens: Tokens,
    /// Their answers.
    pub answers: Answers,
}

impl Labelled {
    /// Sequences.
    pub fn batch(&self) -> usize {
        self.tokens.batch()
    }

    /// These sequences, in this order.
    ///
    /// # Panics
    /// When one of them is not there.
    #[track_caller]
    pub fn select(&self, sequences: &[usize]) -> Self {
        let ids = sequences.iter().flat_map(|&i| self.tokens.sequence(i));
        Labelled {
            tokens: Tokens::new(sequences.len(), self.tokens.pos(), ids.copied().collect()),
            answers: self.answers.select(sequences),
        }
    }

    /// A seeded split into two halves, to train on and to hold out; the first has the odd one.
    pub fn halves(&self, seed: u64) -> (Self, Self) {
        let mut order: Vec<usize> = (0..self.batch()).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let (train, held_out) = order.split_at(self.batch().div_ceil(2));
        (self.select(train), self.select(held_out))
    }

    /// A seeded split of which the first part, to train on, has this share of the sequences, rounded down. Which they are,
    /// and in which order, is what `torch.manual_seed(seed); torch.randperm(batch)` says, as the write-ups of grokking
    /// split all pairs.
    ///
    /// # Panics
    /// When the share is none from 0 to 1.
    #[track_caller]
    pub fn share(&self, share: f64, seed: u32) -> (Self, Self) {
        assert!((0.0..=1.0).contains(&share), "a share of {share}");
        let order = randperm(self.batch(), seed);
        let (train, held_out) = order.split_at((share * self.batch() as f64) as usize);
        (self.select(train), self.select(held_out))
    }

    /// Writes `tokens`, `[batch, pos]`, and the classes under the task's name for them, as a safetensors file:
    /// `[batch]`, or where there are several answers `[batch, pos]`, with -1 where none is read.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, task: &dyn Task, path: impl AsRef<Path>) -> Result<()> {
        let (batch, pos) = (self.batch(), self.tokens.pos());
        let tokens_shape = [batch, pos];
        let tokens = Saved::integers(&tokens_shape, self.tokens.ids());
        let (shape, labels) = self.labels();
        let mut tensors = vec![("tokens".to_string(), tokens)];
        if let Some(key) = task.label_key() {
            tensors.push((key.to_string(), Saved::integers(&shape, &labels)));
        }
        write_safetensors(path, tensors)
    }

    /// The classes as a file has them, and their shape.
    fn labels(&self) -> (Vec<usize>, Vec<i64>) {
        let classes = self.answers.classes().unwrap_or_default();
        let positions = self.answers.positions();
        let (batch, pos) = (self.batch(), self.tokens.pos());
        if positions.len() == 1 {
            return (vec![batch], classes.iter().map(|&c| c as i64).collect());
        }
        let mut labels = vec![-1; batch * pos];
        for (i, &class) in classes.iter().enumerate() {
            let (sequence, index) = (i / positions.len(), i % positions.len());
            labels[sequence * pos + positions[index]] = class as i64;
        }
        (vec![batch, pos], labels)
    }
}
