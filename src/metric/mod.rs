//! How good a model's answers are: what is read off the logits, at which positions, and which classes
//! are right there.

mod answers;
mod contrast;
mod grade;
mod standard;

pub use answers::{Answer, Answers};
pub use contrast::Contrast;
pub use grade::{Grade, grades};
pub use standard::{Kl, Standard};

use crate::error::{Error, Result};
use crate::tensor::{Scalar, Tensor};

/// A number read off the logits of one answer.
///
/// Values are in f64, whatever the model's precision: reading them off costs nothing beside the run.
///
/// ```
/// use pathsum::metric::{Answer, Answers, Metric, per_sequence};
/// use pathsum::{Tokens, fixture};
///
/// /// How far the first logit is above the second.
/// struct Lead;
///
/// impl Metric for Lead {
///     fn name(&self) -> String {
///         "lead".into()
///     }
///     fn of(&self, _: &Answer, logits: &[f64]) -> f64 {
///         logits[0] - logits[1]
///     }
/// }
///
/// let model = fixture::induction::<f64>();
/// let tokens = Tokens::random(model.config(), 8, 0);
/// let answers = Answers::at(8, &[3]);
/// let logits = answers.rows_of(&model.logits(&tokens)?);
/// assert_eq!(per_sequence(&Lead, &answers, &logits).len(), 8);
/// # Ok::<(), pathsum::Error>(())
/// ```
pub trait Metric: Sync {
    /// Its name, in tables and files.
    fn name(&self) -> String;

    /// Its value, from an answer's logits.
    fn of(&self, answer: &Answer, logits: &[f64]) -> f64;

    /// Writes its derivative by each logit, and gives its value: what both need is computed once.
    ///
    /// # Errors
    /// When it has none, as it is unless an implementation says otherwise.
    fn gradient(&self, answer: &Answer, logits: &[f64], d_logits: &mut [f64]) -> Result<f64> {
        let _ = (answer, logits, d_logits);
        Err(Error::Metric(format!(
            "the metric {} has no gradient",
            self.name()
        )))
    }

    /// Whether it can be read off these answers, from so many logits.
    ///
    /// # Errors
    /// When it cannot.
    fn check(&self, answers: &Answers, d_vocab_out: usize) -> Result<()> {
        let _ = (answers, d_vocab_out);
        Ok(())
    }
}

/// A metric's value for every sequence: the mean over its answers.
///
/// # Shapes
/// `logits` are the answers' alone, `[batch, answer, d_vocab_out]`: see [`Answers::rows_of`].
///
/// # Panics
/// When there are not as many rows as answers.
#[track_caller]
pub fn per_sequence<T: Scalar>(
    metric: &dyn Metric,
    answers: &Answers,
    logits: &Tensor<T>,
) -> Vec<f64> {
    let d = logits.shape()[2];
    values(metric, answers, 0..answers.batch(), logits.data(), d)
}

/// As [`per_sequence`], for some sequences, whose answers' logits are `rows`.
pub(crate) fn values<T: Scalar>(
    metric: &dyn Metric,
    answers: &Answers,
    sequences: impl IntoIterator<Item = usize>,
    rows: &[T],
    d_vocab_out: usize,
) -> Vec<f64> {
    let each = answers.positions().len();
    assert_eq!(
        rows.len() % (each * d_vocab_out),
        0,
        "rows of whole sequences"
    );
    let mut logits = vec![0.0; d_vocab_out];
    let of_sequence = |(sequence, rows): (usize, &[T])| {
        let of_answer = |(index, row): (usize, &[T])| {
            let to = logits.iter_mut().zip(row);
            to.for_each(|(to, x)| *to = x.to_f64());
            metric.of(&answers.get(sequence, index), &logits)
        };
        let rows = rows.chunks_exact(d_vocab_out).enumerate();
        rows.map(of_answer).sum::<f64>() / each as f64
    };
    let rows = rows.chunks_exact(each * d_vocab_out);
    sequences.into_iter().zip(rows).map(of_sequence).collect()
}

/// The derivative of a metric's mean over all sequences by the answers' logits, `[batch, answer, d_vocab_out]`.
///
/// # Errors
/// When the metric has none.
pub fn logit_gradient<T: Scalar>(
    metric: &dyn Metric,
    answers: &Answers,
    logits: &Tensor<T>,
) -> Result<Tensor<T>> {
    let share = 1.0 / (logits.shape()[0] * logits.shape()[1]) as f64;
    Ok(values_and_gradient(metric, answers, 0, logits, share)?.1)
}

/// For the sequences from `first` on: the metric of each, and `share` times its derivative by each answer's logits,
/// `[batch, answer, d_vocab_out]`.
pub(crate) fn values_and_gradient<T: Scalar>(
    metric: &dyn Metric,
    answers: &Answers,
    first: usize,
    logits: &Tensor<T>,
    share: f64,
) -> Result<(Vec<f64>, Tensor<T>)> {
    let &[batch, each, d] = logits.shape() else {
        panic!("{:?} is not [batch, answer, d_vocab_out]", logits.shape())
    };
    let mut gradient = Tensor::zeros(logits.shape());
    let mut values = vec![0.0; batch];
    let (mut row, mut d_row) = (vec![0.0; d], vec![0.0; d]);
    for i in 0..batch * each {
        let at = [i / each, i % each];
        let answer = answers.get(first + at[0], at[1]);
        let from = row.iter_mut().zip(logits.slice(&at));
        from.for_each(|(to, x)| *to = x.to_f64());
        values[at[0]] += metric.gradient(&answer, &row, &mut d_row)? / each as f64;
        let to = gradient.slice_mut(&at).iter_mut().zip(&d_row);
        to.for_each(|(to, d)| *to = T::from_f64(share * d));
    }
    Ok((values, gradient))
}

/// The mean of some values.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
