//! Two integers: the second challenge of "EIS VII".

use super::{LabelTable, Task, Vocabulary};
use crate::error::{Error, Result};
use crate::model::Tokens;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// `A`, `B`, `=`; the class is a table's, read at `=`.
///
/// What it generates are pairs each as likely; [`Task::inputs`] are all of them.
///
/// # Source
/// "EIS VII: A Challenge for Mechanists" by Stephen Casper, second challenge: integers below 113 and 113
/// for `=`. Its own labels can be read from a file ([`LabelTable::open`]).
///
/// ```
/// use pathsum::task::{LabelTable, Task, TwoIntegers};
/// let task = TwoIntegers::new(LabelTable::from_fn(10, |a, b| a < b));
/// assert_eq!(task.describe(&task.parse("3 7")?), "3 7 = → 1");
/// let (train, held_out) = task.label(task.inputs().unwrap())?.halves(0);
/// assert_eq!((train.batch(), held_out.batch()), (50, 50));
/// # Ok::<(), pathsum::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TwoIntegers {
    table: LabelTable,
    vocabulary: Vocabulary,
}

impl Default for TwoIntegers {
    /// With the labels of [`LabelTable::bands`].
    fn default() -> Self {
        TwoIntegers::new(LabelTable::bands())
    }
}

impl TwoIntegers {
    /// With these labels.
    pub fn new(table: LabelTable) -> Self {
        let vocabulary = Vocabulary::numbers(table.n(), &["="]);
        TwoIntegers { table, vocabulary }
    }

    /// The labels.
    pub fn table(&self) -> &LabelTable {
        &self.table
    }

    /// The token at which the answer is read.
    pub fn equals(&self) -> i64 {
        self.table.n() as i64
    }
}

impl Task for TwoIntegers {
    fn name(&self) -> String {
        "two_integer".into()
    }

    fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    fn classes(&self) -> Vec<String> {
        vec!["0".into(), "1".into()]
    }

    fn positions(&self) -> usize {
        3
    }

    fn form(&self) -> String {
        "two integers, =".into()
    }

    fn read_at(&self) -> Vec<usize> {
        vec![2]
    }

    fn tokens(&self, size: usize, seed: u64) -> Tokens {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut any = || rng.random_range(0..self.equals());
        let ids = (0..size).flat_map(|_| [any(), any(), self.equals()]);
        Tokens::new(size, 3, ids.collect())
    }

    fn check(&self, sequence: &[i64]) -> Result<()> {
        self.vocabulary.check(sequence, 3)?;
        self.vocabulary.expect(sequence, 2, "=")?;
        match (0..2).find(|&p| sequence[p] == self.equals()) {
            None => Ok(()),
            Some(p) => Err(Error::Sequence {
                sequence: None,
                message: format!(
                    "position {p} is =, expected an integer, 0..={}",
                    self.equals() - 1
                ),
            }),
        }
    }

    fn solve(&self, sequence: &[i64]) -> Vec<usize> {
        vec![self.table.label(sequence[0] as usize, sequence[1] as usize)]
    }

    /// All pairs, `A` by `A`.
    fn inputs(&self) -> Option<Tokens> {
        let n = self.equals();
        let ids = (0..n * n).flat_map(|i| [i / n, i % n, n]);
        Some(Tokens::new((n * n) as usize, 3, ids.collect()))
    }

    /// Two integers, with or without `=`.
    fn parse(&self, text: &str) -> Result<Vec<i64>> {
        let mut sequence = self.vocabulary.words(text)?;
        if sequence.len() == 2 {
            sequence.push(self.equals());
        }
        self.check(&sequence)?;
        Ok(sequence)
    }
}
