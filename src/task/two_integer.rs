//! Two integers: the second challenge of "EIS VII".

use super::two_numbers::TwoNumbers;
use super::{LabelTable, Task, Vocabulary};
use crate::error::Result;
use crate::model::Tokens;

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

    fn numbers(&self) -> TwoNumbers<'_> {
        TwoNumbers {
            vocabulary: &self.vocabulary,
            equals: self.equals(),
            number: "an integer",
        }
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
        TwoNumbers::POSITIONS
    }

    fn form(&self) -> String {
        "two integers, =".into()
    }

    fn read_at(&self) -> Vec<usize> {
        vec![TwoNumbers::READ_AT]
    }

    fn tokens(&self, size: usize, seed: u64) -> Tokens {
        self.numbers().tokens(size, seed)
    }

    fn check(&self, sequence: &[i64]) -> Result<()> {
        self.numbers().check(sequence)
    }

    fn solve(&self, sequence: &[i64]) -> Vec<usize> {
        vec![self.table.label(sequence[0] as usize, sequence[1] as usize)]
    }

    /// All pairs, `A` by `A`.
    fn inputs(&self) -> Option<Tokens> {
        Some(self.numbers().all())
    }

    /// Two integers, with or without `=`.
    fn parse(&self, text: &str) -> Result<Vec<i64>> {
        self.numbers().parse(text)
    }
}
