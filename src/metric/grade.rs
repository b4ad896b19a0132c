//! Answers as a teacher marks them: what was said, how surely, and whether it is right.

use super::standard::{Standard, largest};
use super::{Answers, Metric};
use crate::tensor::{Scalar, Tensor};

/// One answer, marked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grade {
    /// Where it is read.
    pub position: usize,
    /// The class with the largest logit (the first of several).
    pub said: usize,
    /// The right class.
    pub right: usize,
    /// The probability of the class that was said.
    pub p_said: f64,
    /// The probability of the right class.
    pub p_right: f64,
    /// The right class's cross-entropy, in nats.
    pub loss: f64,
}

impl Grade {
    /// Whether the answer is right.
    pub fn is_right(&self) -> bool {
        self.said == self.right
    }
}

/// Every sequence's answers, marked.
///
/// # Shapes
/// `logits` are the answers' alone, `[batch, answer, d_vocab_out]`: see [`Answers::rows_of`].
///
/// # Panics
/// When the right classes are not known, or there are not as many rows as answers.
///
/// ```
/// use pathsum::fixture::Fixture;
/// use pathsum::metric::grades;
/// use pathsum::task::{Brackets, Task};
///
/// let (model, task) = (Fixture::Brackets.load::<f64>(), Brackets::default());
/// let typed = pathsum::Tokens::from_rows(&[task.parse("(())")?, task.parse("())(")?]);
/// let answers = task.label(typed.clone())?.answers;
/// let grades = grades(&answers, &answers.rows_of(&model.logits(&typed)?));
/// assert!(grades.iter().all(|of_sequence| of_sequence[0].is_right()));
/// # Ok::<(), pathsum::Error>(())
/// ```
#[track_caller]
pub fn grades<T: Scalar>(answers: &Answers, logits: &Tensor<T>) -> Vec<Vec<Grade>> {
    let each = answers.positions().len();
    assert_eq!(logits.shape()[..2], [answers.batch(), each]);
    let grade = |sequence: usize, index: usize| {
        let answer = answers.get(sequence, index);
        let row = logits.slice(&[sequence, index]);
        let row: Vec<f64> = row.iter().map(|x| x.to_f64()).collect();
        let said = largest(&row);
        Grade {
            position: answer.position,
            said,
            right: answer.class.expect("the right classes are known"),
            p_said: Standard::Probability(said).of(&answer, &row),
            p_right: Standard::RightProbability.of(&answer, &row),
            loss: Standard::Loss.of(&answer, &row),
        }
    };
    (0..answers.batch())
        .map(|sequence| (0..each).map(|index| grade(sequence, index)).collect())
        .collect()
}
