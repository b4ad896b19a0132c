//! The right class against one that the answer names itself.

use super::{Answer, Answers, Metric};
use crate::error::{Error, Result};

/// The right class's logit less that of one other class, which each answer has its own of: of indirect objects the name
/// that would be right less the one that would be wrong.
///
/// ```
/// use pathsum::metric::{Answers, Contrast, Metric};
/// // Two sequences, read at position 4: 1 is right and 0 wrong, then 5 right and 2 wrong.
/// let answers = Answers::new(&[4], vec![1, 5]);
/// let metric = Contrast::against(&answers, vec![0, 2])?;
/// assert_eq!(metric.of(&answers.get(1, 0), &[0., 0., 3., 0., 0., 7.]), 4.0);
/// # Ok::<(), pathsum::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contrast {
    /// `[batch, answer]`
    wrong: Vec<usize>,
    answers: usize,
}

impl Contrast {
    /// Against these classes, `[batch, answer]`.
    ///
    /// # Errors
    /// When there are not as many as answers.
    pub fn against(answers: &Answers, wrong: Vec<usize>) -> Result<Self> {
        let each = answers.positions().len();
        match wrong.len() == answers.batch() * each {
            true => Ok(Contrast {
                wrong,
                answers: each,
            }),
            false => Err(Error::Mismatch(format!(
                "{} wrong classes, expected {}, one for each answer",
                wrong.len(),
                answers.batch() * each
            ))),
        }
    }

    fn classes(&self, answer: &Answer) -> [usize; 2] {
        let right = answer.class.expect("checked: the metric needs classes");
        [
            right,
            self.wrong[answer.sequence * self.answers + answer.index],
        ]
    }
}

impl Metric for Contrast {
    fn name(&self) -> String {
        "logit_diff".into()
    }

    fn of(&self, answer: &Answer, logits: &[f64]) -> f64 {
        let [right, wrong] = self.classes(answer);
        logits[right] - logits[wrong]
    }

    fn gradient(&self, answer: &Answer, logits: &[f64], d_logits: &mut [f64]) -> Result<f64> {
        d_logits.fill(0.0);
        let [right, wrong] = self.classes(answer);
        d_logits[right] += 1.0;
        d_logits[wrong] -= 1.0;
        Ok(self.of(answer, logits))
    }

    fn check(&self, answers: &Answers, d_vocab_out: usize) -> Result<()> {
        if answers.classes().is_none() {
            let reason = "logit_diff against a wrong class needs to know the right answers: labels are missing";
            return Err(Error::Metric(reason.into()));
        }
        let each = answers.positions().len();
        if self.wrong.len() != answers.batch() * each || self.answers != each {
            return Err(Error::Mismatch(format!(
                "{} wrong classes, expected {}, one for each answer",
                self.wrong.len(),
                answers.batch() * each
            )));
        }
        match self.wrong.iter().find(|&&c| c >= d_vocab_out) {
            None => Ok(()),
            Some(&class) => Err(Error::out_of_range(
                "wrong class",
                class,
                "",
                "this model's classes",
                0..d_vocab_out,
            )),
        }
    }
}
