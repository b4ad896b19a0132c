//! Modular addition: the task on which grokking was found.

use super::two_numbers::TwoNumbers;
use super::{InputPart, InputSpace, Task, Values, Vocabulary};
use crate::error::Result;
use crate::model::Tokens;
use serde::{Deserialize, Serialize};

/// What is done with two residues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// `a + b`
    #[default]
    Add,
    /// `a - b`
    Subtract,
}

impl Operation {
    /// What it makes of two residues.
    pub fn apply(self, a: usize, b: usize, modulus: usize) -> usize {
        match self {
            Operation::Add => (a + b) % modulus,
            Operation::Subtract => (a + modulus - b) % modulus,
        }
    }
}

/// `a`, `b`, `=`; the class is `a + b` (or `a - b`) modulo a number, read at `=`.
///
/// What it generates are pairs each as likely; [`Task::inputs`] are all of them, `a` by `a`.
///
/// # Source
/// Power et al., "Grokking: Generalization Beyond Overfitting on Small Algorithmic Datasets" (2022); Nanda et al.,
/// "Progress measures for grokking via mechanistic interpretability" (2023): addition modulo 113.
///
/// ```
/// use pathsum::task::{ModularAddition, Operation, Task};
/// let task = ModularAddition::default();
/// assert_eq!(task.describe(&task.parse("100 20")?), "100 20 = → 7");
/// let task = ModularAddition::new(10, Operation::Subtract);
/// assert_eq!(task.describe(&task.parse("3 7")?), "3 7 = → 6");
/// // 30% of all pairs are trained on.
/// let (train, held_out) = task.label(task.inputs().unwrap())?.share(0.3, 0);
/// assert_eq!((train.batch(), held_out.batch()), (30, 70));
/// # Ok::<(), pathsum::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ModularAddition {
    modulus: usize,
    operation: Operation,
    vocabulary: Vocabulary,
}

impl Default for ModularAddition {
    /// The paper's: addition modulo 113.
    fn default() -> Self {
        ModularAddition::new(Self::MODULUS, Operation::Add)
    }
}

impl ModularAddition {
    /// The paper's modulus.
    pub const MODULUS: usize = 113;
    /// The share of all pairs that the paper trains on.
    pub const SHARE: f64 = 0.3;

    /// Of residues below `modulus`.
    ///
    /// # Panics
    /// When there are fewer than two.
    #[track_caller]
    pub fn new(modulus: usize, operation: Operation) -> Self {
        assert!(modulus > 1, "residues modulo {modulus}");
        ModularAddition {
            modulus,
            operation,
            vocabulary: Vocabulary::numbers(modulus, &["="]),
        }
    }

    /// The residues are those below this.
    pub fn modulus(&self) -> usize {
        self.modulus
    }

    /// What is done with them.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The token at which the answer is read.
    pub fn equals(&self) -> i64 {
        self.modulus as i64
    }

    fn numbers(&self) -> TwoNumbers<'_> {
        TwoNumbers {
            vocabulary: &self.vocabulary,
            equals: self.equals(),
            number: "a residue",
        }
    }
}

impl Task for ModularAddition {
    fn name(&self) -> String {
        "modular_addition".into()
    }

    fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    fn classes(&self) -> Vec<String> {
        self.vocabulary.names()[..self.modulus].to_vec()
    }

    fn positions(&self) -> usize {
        TwoNumbers::POSITIONS
    }

    fn form(&self) -> String {
        "two residues, =".into()
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
        let (a, b) = (sequence[0] as usize, sequence[1] as usize);
        vec![self.operation.apply(a, b, self.modulus)]
    }

    /// All pairs, `a` by `a`.
    fn inputs(&self) -> Option<Tokens> {
        Some(self.numbers().all())
    }

    /// All pairs.
    fn space(&self) -> Option<InputSpace> {
        let residues: Vec<i64> = (0..self.equals()).collect();
        let parts = vec![InputPart::All, InputPart::Fixed(self.equals())];
        InputSpace::new(Values::Product(vec![residues; 2]), parts, None).ok()
    }

    /// Two residues, with or without `=`.
    fn parse(&self, text: &str) -> Result<Vec<i64>> {
        self.numbers().parse(text)
    }
}
