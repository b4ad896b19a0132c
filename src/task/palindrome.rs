//! Palindromes: the July 2023 monthly algorithmic challenge.

use super::{InputPart, InputSpace, Labelled, Task, Values, Vocabulary};
use crate::error::{Error, Result};
use crate::model::Tokens;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

/// `START`, values, `END`; class 1 where the values read the same from both ends, read at `END`.
///
/// Half of what it generates are palindromes. For the others every mirrored pair is broken or not by a coin:
/// if so, the second value is drawn anew, and may come out as it was.
///
/// # Source
/// `PalindromeDataset` of the challenge: 20 values of 0..=30, `START` 31, `END` 32.
///
/// ```
/// use pathsum::task::{Palindromes, Task};
/// let task = Palindromes::new(2, 9);
/// assert_eq!(task.describe(&task.parse("4 7 7 4")?), "START 4 7 7 4 END → palindrome");
/// # Ok::<(), pathsum::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Palindromes {
    half: usize,
    values: i64,
    vocabulary: Vocabulary,
}

/// Palindromes, and the same sequences with some values changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrored {
    /// The palindromes.
    pub palindromes: Labelled,
    /// Each with other values at the positions asked for, in the same order.
    pub broken: Labelled,
}

impl Default for Palindromes {
    /// The challenge's own: 20 values of 0..=30.
    fn default() -> Self {
        Palindromes::new(10, 30)
    }
}

impl Palindromes {
    /// `2 half` values of `0..=max_value`.
    ///
    /// # Panics
    /// When `half` is 0 or there is only one value: every sequence would be a palindrome.
    #[track_caller]
    pub fn new(half: usize, max_value: usize) -> Self {
        assert!(half > 0 && max_value > 0, "no sequence could be broken");
        Palindromes {
            half,
            values: max_value as i64 + 1,
            vocabulary: Vocabulary::numbers(max_value + 1, &["START", "END"]),
        }
    }

    /// The token before the values.
    pub fn start(&self) -> i64 {
        self.values
    }

    /// The token after the values.
    pub fn end(&self) -> i64 {
        self.values + 1
    }

    /// The position that a position is compared with.
    pub fn mirror(&self, position: usize) -> usize {
        self.positions() - 1 - position
    }

    /// The first positions of the pairs that are broken.
    pub fn broken_pairs(&self, sequence: &[i64]) -> Vec<usize> {
        let broken = |&p: &usize| sequence[p] != sequence[self.mirror(p)];
        (1..=self.half).filter(broken).collect()
    }

    /// Seeded palindromes, and the same with another value at each of `positions`; these are broken exactly
    /// at the pairs of which one position was changed.
    ///
    /// # Errors
    /// When a position is not a value's, or it or its mirror is given twice.
    pub fn broken_at(&self, positions: &[usize], size: usize, seed: u64) -> Result<Mirrored> {
        for (i, &p) in positions.iter().enumerate() {
            if !(1..=2 * self.half).contains(&p) {
                return Err(Error::out_of_range(
                    "position",
                    p,
                    "",
                    "the values' positions",
                    1..2 * self.half + 1,
                ));
            }
            if positions[..i].contains(&p) || positions[..i].contains(&self.mirror(p)) {
                return Err(Error::Sequence {
                    sequence: None,
                    message: format!("position {p}: its pair is to be broken already"),
                });
            }
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (mut palindromes, mut broken) = (Vec::new(), Vec::new());
        for _ in 0..size {
            let sequence = self.palindrome(&mut rng);
            palindromes.extend_from_slice(&sequence);
            let at = broken.len();
            broken.extend_from_slice(&sequence);
            for &p in positions {
                // Any value but the one that is there.
                let shift = rng.random_range(1..self.values);
                broken[at + p] = (sequence[p] + shift) % self.values;
            }
        }
        let label = |ids| self.label(Tokens::new(size, self.positions(), ids));
        Ok(Mirrored {
            palindromes: label(palindromes)?,
            broken: label(broken)?,
        })
    }

    fn palindrome(&self, rng: &mut ChaCha8Rng) -> Vec<i64> {
        let mut sequence = vec![self.start(); self.positions()];
        sequence[2 * self.half + 1] = self.end();
        for p in 1..=self.half {
            sequence[p] = rng.random_range(0..self.values);
            sequence[self.mirror(p)] = sequence[p];
        }
        sequence
    }
}

impl Task for Palindromes {
    fn name(&self) -> String {
        "palindrome".into()
    }

    fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    fn classes(&self) -> Vec<String> {
        vec!["no palindrome".into(), "palindrome".into()]
    }

    fn positions(&self) -> usize {
        2 * self.half + 2
    }

    fn form(&self) -> String {
        format!("START, {} values, END", 2 * self.half)
    }

    fn read_at(&self) -> Vec<usize> {
        vec![self.positions() - 1]
    }

    fn label_key(&self) -> Option<&str> {
        Some("is_palindrome")
    }

    fn tokens(&self, size: usize, seed: u64) -> Tokens {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut rows: Vec<Vec<i64>> = (0..size).map(|_| self.palindrome(&mut rng)).collect();
        for row in &mut rows[size.div_ceil(2)..] {
            for p in 1..=self.half {
                if rng.random() {
                    row[self.mirror(p)] = rng.random_range(0..self.values);
                }
            }
        }
        rows.shuffle(&mut rng);
        Tokens::new(size, self.positions(), rows.concat())
    }

    fn check(&self, sequence: &[i64]) -> Result<()> {
        let last = self.positions() - 1;
        self.vocabulary.check(sequence, self.positions())?;
        self.vocabulary.expect(sequence, 0, "START")?;
        self.vocabulary.expect(sequence, last, "END")?;
        match (1..last).find(|&p| sequence[p] >= self.values) {
            None => Ok(()),
            Some(p) => Err(Error::Sequence {
                sequence: None,
                message: format!(
                    "position {p} is {}, expected a value, 0..={}",
                    self.vocabulary.name(sequence[p]),
                    self.values - 1
                ),
            }),
        }
    }

    fn solve(&self, sequence: &[i64]) -> Vec<usize> {
        vec![usize::from(self.broken_pairs(sequence).is_empty())]
    }

    /// Every sequence of values; the palindromes, or those that so many pairs are in the way of, are had by restricting it.
    fn space(&self) -> Option<InputSpace> {
        let values = Values::Product(vec![(0..self.values).collect(); 2 * self.half]);
        let parts = vec![
            InputPart::Fixed(self.start()),
            InputPart::All,
            InputPart::Fixed(self.end()),
        ];
        InputSpace::new(values, parts, None).ok()
    }

    /// The values, with or without `START` and `END`.
    fn parse(&self, text: &str) -> Result<Vec<i64>> {
        let mut sequence = self.vocabulary.words(text)?;
        if sequence.len() == 2 * self.half {
            sequence.insert(0, self.start());
            sequence.push(self.end());
        }
        self.check(&sequence)?;
        Ok(sequence)
    }
}
