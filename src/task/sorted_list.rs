//! Sorting lists: the October 2023 monthly algorithmic challenge.

use super::{InputPart, InputSpace, Labelled, Task, Values, Vocabulary};
use crate::error::{Error, Result};
use crate::model::Tokens;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;

/// Values, `SEP`, the values sorted; each position from `SEP` on is to predict the next token.
///
/// What it generates has distinct values, of which each choice in each order is as likely.
///
/// # Source
/// `SortedListDataset` of the challenge: 10 values of 0..=50, `SEP` 51.
///
/// ```
/// use pathsum::task::{SortedLists, Task};
/// let task = SortedLists::new(3, 50);
/// assert_eq!(task.describe(&task.parse("41 7 19")?), "41 7 19 SEP 7 19 41 → 7 19 41");
/// # Ok::<(), pathsum::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SortedLists {
    len: usize,
    max_value: usize,
    vocabulary: Vocabulary,
}

impl Default for SortedLists {
    /// The challenge's own: 10 values of 0..=50.
    fn default() -> Self {
        SortedLists::new(10, 50)
    }
}

impl SortedLists {
    /// `len` values of `0..=max_value`.
    ///
    /// # Panics
    /// When there are not so many values, or `len` is 0.
    #[track_caller]
    pub fn new(len: usize, max_value: usize) -> Self {
        assert!(
            (1..=max_value + 1).contains(&len),
            "{len} distinct values of 0..={max_value}"
        );
        SortedLists {
            len,
            max_value,
            vocabulary: Vocabulary::numbers(max_value + 1, &["SEP"]),
        }
    }

    /// The token between the two lists.
    pub fn sep(&self) -> i64 {
        self.max_value as i64 + 1
    }

    /// The sequence of a list of values; they need not be distinct.
    ///
    /// # Errors
    /// When their number is not the task's, or one of them is no value.
    pub fn sequence(&self, values: &[i64]) -> Result<Vec<i64>> {
        if values.len() != self.len {
            return Err(Error::Sequence {
                sequence: None,
                message: format!("{} values, expected {}", values.len(), self.len),
            });
        }
        let mut sequence = values.to_vec();
        sequence.push(self.sep());
        sequence.extend_from_slice(values);
        sequence[self.len + 1..].sort_unstable();
        self.check(&sequence)?;
        Ok(sequence)
    }

    /// Seeded lists whose values are all at least `smallest`.
    ///
    /// # Errors
    /// When there are not enough such values.
    pub fn all_at_least(&self, smallest: usize, size: usize, seed: u64) -> Result<Labelled> {
        let room = (self.max_value + 1).saturating_sub(smallest);
        if room < self.len {
            return Err(Error::TooFew {
                found: room,
                least: self.len,
                message: format!(
                    "{} distinct values of {smallest}..={}: there are {room}",
                    self.len, self.max_value
                ),
            });
        }
        self.label(self.draw(smallest, size, seed))
    }

    fn draw(&self, smallest: usize, size: usize, seed: u64) -> Tokens {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut ids = Vec::with_capacity(size * self.positions());
        for _ in 0..size {
            let mut values: Vec<i64> = (smallest as i64..self.sep()).collect();
            let (chosen, _) = values.partial_shuffle(&mut rng, self.len);
            ids.extend(self.sequence(chosen).expect("values of the task"));
        }
        Tokens::new(size, self.positions(), ids)
    }
}

impl Task for SortedLists {
    fn name(&self) -> String {
        "sorted_list".into()
    }

    fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    fn classes(&self) -> Vec<String> {
        self.vocabulary.names().to_vec()
    }

    fn positions(&self) -> usize {
        2 * self.len + 1
    }

    fn form(&self) -> String {
        format!("{0} values, SEP, the {0} values sorted", self.len)
    }

    fn read_at(&self) -> Vec<usize> {
        (self.len..2 * self.len).collect()
    }

    /// `None`: the next tokens.
    fn label_key(&self) -> Option<&str> {
        None
    }

    fn tokens(&self, size: usize, seed: u64) -> Tokens {
        self.draw(0, size, seed)
    }

    fn check(&self, sequence: &[i64]) -> Result<()> {
        self.vocabulary.check(sequence, self.positions())?;
        self.vocabulary.expect(sequence, self.len, "SEP")?;
        let (list, sorted) = (&sequence[..self.len], &sequence[self.len + 1..]);
        if let Some(p) = list.iter().position(|&v| v == self.sep()) {
            return Err(Error::Sequence {
                sequence: None,
                message: format!(
                    "position {p} is SEP, expected a value, 0..={}",
                    self.max_value
                ),
            });
        }
        let expected = sorted_by_counting(list, self.max_value + 1);
        match (0..self.len).find(|&i| sorted[i] != expected[i]) {
            None => Ok(()),
            Some(i) => Err(Error::Sequence {
                sequence: None,
                message: format!(
                    "position {} is {}, expected {}: the values sorted",
                    self.len + 1 + i,
                    self.vocabulary.name(sorted[i]),
                    expected[i]
                ),
            }),
        }
    }

    fn solve(&self, sequence: &[i64]) -> Vec<usize> {
        let sorted = sorted_by_counting(&sequence[..self.len], self.max_value + 1);
        sorted.into_iter().map(|v| v as usize).collect()
    }

    /// Every ordered list of distinct values.
    fn space(&self) -> Option<InputSpace> {
        let pool = (0..=self.max_value as i64).collect();
        let values = Values::Distinct {
            pool,
            len: self.len,
        };
        let sorted = (0..self.len).map(InputPart::Sorted);
        let list = [InputPart::All, InputPart::Fixed(self.sep())].into_iter();
        InputSpace::new(values, list.chain(sorted).collect(), None).ok()
    }

    fn ranks(&self) -> Option<Vec<usize>> {
        Some((0..self.len).collect())
    }

    /// The values, with or without `SEP` (or `|`) and the values sorted.
    fn parse(&self, text: &str) -> Result<Vec<i64>> {
        let tokens = self.vocabulary.words(&text.replace('|', " SEP "))?;
        if tokens.len() != self.positions() {
            return self.sequence(&tokens);
        }
        self.check(&tokens)?;
        Ok(tokens)
    }
}

/// Values below `n` in order: how often each occurs, from the smallest on.
fn sorted_by_counting(values: &[i64], n: usize) -> Vec<i64> {
    let mut times = vec![0; n];
    for &v in values {
        times[v as usize] += 1;
    }
    let repeated = |(v, &k): (usize, &usize)| std::iter::repeat_n(v as i64, k);
    times.iter().enumerate().flat_map(repeated).collect()
}
