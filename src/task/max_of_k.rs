//! The largest of some numbers: the task of compact proofs.

use super::{InputPart, InputSpace, Task, Values, Vocabulary};
use crate::error::{Error, Result};
use crate::model::Tokens;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// `k` numbers; the class is the largest of them, read at the last.
///
/// Half of what it generates are numbers that are each as likely. The others are of an interval of their own, whose two
/// ends are drawn: among many uniform numbers small maxima and close ones are hardly ever seen. [`Task::inputs`] are
/// all lists, where there are not more than a million.
///
/// # Source
/// Gross et al., "Compact Proofs of Model Performance via Mechanistic Interpretability" (arXiv 2406.11779): four of
/// 64 numbers.
///
/// ```
/// use pathsum::task::{MaxOfK, Task};
/// let task = MaxOfK::new(3, 10);
/// assert_eq!(task.describe(&task.parse("4 9 7")?), "4 9 7 → 9");
/// assert_eq!(task.inputs().unwrap().batch(), 1000);
/// # Ok::<(), pathsum::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MaxOfK {
    k: usize,
    vocabulary: Vocabulary,
}

impl Default for MaxOfK {
    /// The paper's: four numbers of 64.
    fn default() -> Self {
        MaxOfK::of(Self::K)
    }
}

impl MaxOfK {
    /// How many numbers the paper's lists have.
    const K: usize = 4;
    /// How many numbers there are in the paper.
    const D_VOCAB: usize = 64;

    /// Lists of `k` of the paper's numbers.
    ///
    /// # Panics
    /// When `k` is 0.
    #[track_caller]
    pub fn of(k: usize) -> Self {
        MaxOfK::new(k, Self::D_VOCAB)
    }

    /// Lists of `k` of the numbers below `d_vocab`.
    ///
    /// # Panics
    /// When `k` is 0 or there is only one number: there would be nothing to find.
    #[track_caller]
    pub fn new(k: usize, d_vocab: usize) -> Self {
        assert!(k > 0 && d_vocab > 1, "{k} of {d_vocab} numbers");
        MaxOfK {
            k,
            vocabulary: Vocabulary::numbers(d_vocab, &[]),
        }
    }
}

impl Task for MaxOfK {
    fn name(&self) -> String {
        "max_of_k".into()
    }

    fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    fn classes(&self) -> Vec<String> {
        self.vocabulary.names().to_vec()
    }

    fn positions(&self) -> usize {
        self.k
    }

    fn form(&self) -> String {
        format!("{} numbers", self.k)
    }

    fn read_at(&self) -> Vec<usize> {
        vec![self.k - 1]
    }

    fn tokens(&self, size: usize, seed: u64) -> Tokens {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let all = self.vocabulary.len() as i64;
        let mut ids = Vec::with_capacity(size * self.k);
        for _ in 0..size {
            let (mut low, mut high) = (0, all - 1);
            if rng.random() {
                low = rng.random_range(0..all);
                high = rng.random_range(0..all);
            }
            let numbers = low.min(high)..=low.max(high);
            ids.extend((0..self.k).map(|_| rng.random_range(numbers.clone())));
        }
        Tokens::new(size, self.k, ids)
    }

    fn check(&self, sequence: &[i64]) -> Result<()> {
        self.vocabulary.check(sequence, self.k)
    }

    fn solve(&self, sequence: &[i64]) -> Vec<usize> {
        let largest = sequence.iter().max().expect("one number at least");
        vec![*largest as usize]
    }

    fn solve_along(
        &self,
        sequence: &mut [i64],
        place: usize,
        tokens: &[i64],
        classes: &mut Vec<usize>,
    ) {
        sequence[place] = i64::MIN;
        let others = sequence.iter().fold(i64::MIN, |largest, &t| largest.max(t));
        classes.extend(tokens.iter().map(|&t| t.max(others) as usize));
    }

    fn inputs(&self) -> Option<Tokens> {
        const MOST: usize = 1_000_000;
        let n = self.vocabulary.len();
        let all = u32::try_from(self.k).ok().and_then(|k| n.checked_pow(k))?;
        if all > MOST {
            return None;
        }
        let digit = |i: usize, p: usize| (i / n.pow((self.k - 1 - p) as u32) % n) as i64;
        let ids = (0..all).flat_map(|i| (0..self.k).map(move |p| digit(i, p)));
        Some(Tokens::new(all, self.k, ids.collect()))
    }

    /// All lists.
    fn space(&self) -> Option<InputSpace> {
        let all = (0..self.vocabulary.len() as i64).collect();
        InputSpace::new(
            Values::Product(vec![all; self.k]),
            vec![InputPart::All],
            None,
        )
        .ok()
    }

    /// The last.
    fn ranks(&self) -> Option<Vec<usize>> {
        Some(vec![self.k - 1])
    }

    fn parse(&self, text: &str) -> Result<Vec<i64>> {
        let sequence = self.vocabulary.words(text)?;
        if sequence.len() != self.k {
            return Err(Error::Sequence {
                sequence: None,
                message: format!("{} numbers, expected {}", sequence.len(), self.k),
            });
        }
        Ok(sequence)
    }
}
