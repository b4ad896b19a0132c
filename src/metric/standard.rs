//! The metrics that write-ups use.

use super::{Answer, Answers, Metric};
use crate::error::{Error, Result};
use crate::tensor::{Scalar, Tensor};
use std::fmt;
use std::str::FromStr;

/// A metric of one answer's logits alone.
///
/// ```
/// use pathsum::metric::Standard;
/// let metric: Standard = "logit_diff:3-9".parse()?;
/// assert_eq!(metric, Standard::Difference(3, 9));
/// # Ok::<(), pathsum::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standard {
    /// `loss`: the right class's cross-entropy, in nats.
    Loss,
    /// `accuracy`: one where the right class has the largest logit (the first of several), else zero.
    Accuracy,
    /// `logit_diff`: the right class's logit minus the largest of the others.
    LogitDiff,
    /// `logit_diff:I-J`: one logit minus another.
    Difference(usize, usize),
    /// `probability`: that of the right class.
    RightProbability,
    /// `probability:I`: that of one class.
    Probability(usize),
}

use Standard::{Accuracy, Difference, LogitDiff, Loss, Probability, RightProbability};

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loss => f.write_str("loss"),
            Accuracy => f.write_str("accuracy"),
            LogitDiff => f.write_str("logit_diff"),
            Difference(i, j) => write!(f, "logit_diff:{i}-{j}"),
            RightProbability => f.write_str("probability"),
            Probability(i) => write!(f, "probability:{i}"),
        }
    }
}

impl FromStr for Standard {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let parse = || {
            Some(match s.split_once(':') {
                None => match s {
                    "loss" => Loss,
                    "accuracy" => Accuracy,
                    "logit_diff" => LogitDiff,
                    "probability" => RightProbability,
                    _ => return None,
                },
                Some(("logit_diff", pair)) => {
                    let (i, j) = pair.split_once('-')?;
                    Difference(i.parse().ok()?, j.parse().ok()?)
                }
                Some(("probability", class)) => Probability(class.parse().ok()?),
                Some(_) => return None,
            })
        };
        parse().ok_or_else(|| {
            let hint = ", expected loss, accuracy, logit_diff, logit_diff:I-J, probability or probability:I";
            Error::Unknown {
                kind: "metric",
                name: s.into(),
                hint: hint.into(),
            }
        })
    }
}

impl Metric for Standard {
    fn name(&self) -> String {
        self.to_string()
    }

    fn of(&self, answer: &Answer, logits: &[f64]) -> f64 {
        match *self {
            Loss => log_sum_exp(logits) - logits[right(answer)],
            Accuracy => (largest(logits) == right(answer)) as usize as f64,
            LogitDiff => logits[right(answer)] - logits[rival(logits, right(answer))],
            Difference(i, j) => logits[i] - logits[j],
            RightProbability => (logits[right(answer)] - log_sum_exp(logits)).exp(),
            Probability(i) => (logits[i] - log_sum_exp(logits)).exp(),
        }
    }

    fn gradient(&self, answer: &Answer, logits: &[f64], d_logits: &mut [f64]) -> Result<f64> {
        d_logits.fill(0.0);
        match *self {
            Loss => {
                let all = softmax(logits, d_logits);
                d_logits[right(answer)] -= 1.0;
                return Ok(all - logits[right(answer)]);
            }
            Accuracy => {
                return Err(Error::Metric(
                    "accuracy has no gradient: it is a step; expected loss, logit_diff or probability".into(),
                ));
            }
            LogitDiff => {
                d_logits[rival(logits, right(answer))] = -1.0;
                d_logits[right(answer)] = 1.0;
            }
            Difference(i, j) => {
                d_logits[i] += 1.0;
                d_logits[j] -= 1.0;
            }
            RightProbability => of_probability(logits, right(answer), d_logits),
            Probability(i) => of_probability(logits, i, d_logits),
        }
        Ok(self.of(answer, logits))
    }

    fn check(&self, answers: &Answers, d_vocab_out: usize) -> Result<()> {
        let named = match *self {
            Loss | Accuracy | RightProbability => None,
            LogitDiff if d_vocab_out < 2 => {
                return Err(Error::Metric(
                    "logit_diff: this model has one logit, nothing to compare it with".into(),
                ));
            }
            LogitDiff => None,
            Difference(i, j) => Some(i.max(j)),
            Probability(i) => Some(i),
        };
        match named {
            None if answers.classes().is_none() => Err(Error::Metric(format!(
                "{self} needs to know the right answers: labels are missing"
            ))),
            Some(i) if i >= d_vocab_out => Err(Error::Metric(format!(
                "{self}: this model's logits are 0..={}",
                d_vocab_out - 1
            ))),
            _ => Ok(()),
        }
    }
}

/// How far an answer's distribution is from that of the clean run: `Σ p_clean (log p_clean - log p)`, in nats.
#[derive(Clone, Debug)]
pub struct Kl {
    /// The clean run's log-probabilities, answer by answer.
    clean: Vec<f64>,
    answers: usize,
    d_vocab_out: usize,
}

impl Kl {
    /// From the clean run's logits at the answers, `[batch, answer, d_vocab_out]`.
    ///
    /// # Panics
    /// When the logits have not three axes.
    #[track_caller]
    pub fn from_clean<T: Scalar>(logits: &Tensor<T>) -> Self {
        let &[_, answers, d_vocab_out] = logits.shape() else {
            panic!("{:?} is not [batch, answer, d_vocab_out]", logits.shape())
        };
        let mut clean: Vec<f64> = logits.data().iter().map(|x| x.to_f64()).collect();
        for row in clean.chunks_exact_mut(d_vocab_out) {
            let all = log_sum_exp(row);
            row.iter_mut().for_each(|x| *x -= all);
        }
        Kl {
            clean,
            answers,
            d_vocab_out,
        }
    }

    fn row(&self, answer: &Answer) -> &[f64] {
        let at = (answer.sequence * self.answers + answer.index) * self.d_vocab_out;
        &self.clean[at..at + self.d_vocab_out]
    }
}

impl Metric for Kl {
    fn name(&self) -> String {
        "kl".into()
    }

    fn of(&self, answer: &Answer, logits: &[f64]) -> f64 {
        let all = log_sum_exp(logits);
        let clean = self.row(answer).iter().zip(logits);
        // A class of probability zero adds nothing, whatever the other run makes of it.
        let term = |(&c, &l): (&f64, &f64)| match c.exp() {
            0.0 => 0.0,
            p => p * (c - (l - all)),
        };
        clean.map(term).sum()
    }

    fn gradient(&self, answer: &Answer, logits: &[f64], d_logits: &mut [f64]) -> Result<f64> {
        softmax(logits, d_logits);
        let clean = self.row(answer);
        d_logits
            .iter_mut()
            .zip(clean)
            .for_each(|(d, c)| *d -= c.exp());
        Ok(self.of(answer, logits))
    }

    fn check(&self, answers: &Answers, d_vocab_out: usize) -> Result<()> {
        let expected = answers.batch() * answers.positions().len() * d_vocab_out;
        if self.answers == answers.positions().len() && self.clean.len() == expected {
            return Ok(());
        }
        Err(Error::Mismatch(format!(
            "the clean run has {} answers of {} logits, expected {} of {d_vocab_out}",
            self.clean.len() / self.d_vocab_out,
            self.d_vocab_out,
            answers.batch() * answers.positions().len(),
        )))
    }
}

#[track_caller]
fn right(answer: &Answer) -> usize {
    answer.class.expect("checked: the metric needs classes")
}

/// The first of the largest logits.
pub(super) fn largest(logits: &[f64]) -> usize {
    let first = |best, i| if logits[i] > logits[best] { i } else { best };
    (1..logits.len()).fold(0, first)
}

/// The first of the largest logits of the other classes.
fn rival(logits: &[f64], right: usize) -> usize {
    let others = (0..logits.len()).filter(|&i| i != right);
    others
        .reduce(|best, i| if logits[i] > logits[best] { i } else { best })
        .expect("checked: two classes at least")
}

/// `log Σ exp`, of any size.
fn log_sum_exp(logits: &[f64]) -> f64 {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + logits.iter().map(|x| (x - max).exp()).sum::<f64>().ln()
}

/// Probabilities; gives `log Σ exp`. The exponentials are most of a loss's time: each is taken once.
fn softmax(logits: &[f64], out: &mut [f64]) -> f64 {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    out.iter_mut()
        .zip(logits)
        .for_each(|(p, x)| *p = (x - max).exp());
    let sum: f64 = out.iter().sum();
    out.iter_mut().for_each(|p| *p /= sum);
    max + sum.ln()
}

/// `dp_i / dx_j = p_i (δ_ij - p_j)`
fn of_probability(logits: &[f64], class: usize, d_logits: &mut [f64]) {
    softmax(logits, d_logits);
    let p = d_logits[class];
    d_logits.iter_mut().for_each(|d| *d *= -p);
    d_logits[class] += p;
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f64; 4] = [0.3, -1.2, 2.1, 0.9];

    fn answer(class: usize) -> Answer {
        Answer {
            sequence: 0,
            index: 0,
            position: 0,
            class: Some(class),
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let clean = Tensor::from_vec(&[1, 1, 4], vec![1.0, 0.0, -0.5, 0.25]);
        let kl = Kl::from_clean(&clean);
        let metrics: [&dyn Metric; 6] = [
            &Loss,
            &LogitDiff,
            &Difference(1, 3),
            &RightProbability,
            &Probability(2),
            &kl,
        ];
        // Central differences err by h² times a third derivative, here below 1, and by rounding over h.
        let h = f64::EPSILON.cbrt();
        let bound = 8.0 * h * h;
        for metric in metrics {
            for class in 0..4 {
                let mut d = [0.0; 4];
                let value = metric.gradient(&answer(class), &LOGITS, &mut d).unwrap();
                let expected = metric.of(&answer(class), &LOGITS);
                assert!(
                    (value - expected).abs() <= 8.0 * f64::EPSILON,
                    "{}",
                    metric.name()
                );
                for i in 0..4 {
                    let at = |x: f64| {
                        let mut logits = LOGITS;
                        logits[i] += x;
                        metric.of(&answer(class), &logits)
                    };
                    let found = (at(h) - at(-h)) / (2.0 * h);
                    assert!(
                        (found - d[i]).abs() <= bound,
                        "{} {class} {i}: {found} {}",
                        metric.name(),
                        d[i]
                    );
                }
            }
        }
        assert!(
            Accuracy
                .gradient(&answer(0), &LOGITS, &mut [0.0; 4])
                .is_err()
        );
    }

    #[test]
    fn values_by_hand() {
        let all: f64 = LOGITS.iter().map(|x| x.exp()).sum();
        let near = |a: f64, b: f64| {
            assert!(
                (a - b).abs() <= 8.0 * f64::EPSILON * b.abs().max(1.0),
                "{a} {b}"
            )
        };
        near(Loss.of(&answer(3), &LOGITS), -(LOGITS[3].exp() / all).ln());
        near(
            RightProbability.of(&answer(1), &LOGITS),
            LOGITS[1].exp() / all,
        );
        near(
            Probability(1).of(&answer(0), &LOGITS),
            LOGITS[1].exp() / all,
        );
        assert_eq!(Accuracy.of(&answer(2), &LOGITS), 1.0);
        assert_eq!(Accuracy.of(&answer(3), &LOGITS), 0.0);
        assert_eq!(LogitDiff.of(&answer(2), &LOGITS), 2.1 - 0.9);
        assert_eq!(LogitDiff.of(&answer(0), &LOGITS), 0.3 - 2.1);
        assert_eq!(Difference(0, 1).of(&answer(2), &LOGITS), 0.3 + 1.2);
        let same = Tensor::from_vec(&[1, 1, 4], LOGITS.to_vec());
        near(Kl::from_clean(&same).of(&answer(0), &LOGITS), 0.0);
        // Two classes, of which the clean run is certain.
        let certain = Kl::from_clean(&Tensor::from_vec(&[1, 1, 2], vec![0.0, -f64::INFINITY]));
        near(certain.of(&answer(0), &[0.0, 0.0]), 2f64.ln());
    }

    #[test]
    fn names_round_trip() {
        for metric in [
            Loss,
            Accuracy,
            LogitDiff,
            Difference(3, 9),
            RightProbability,
            Probability(1),
        ] {
            assert_eq!(metric.to_string().parse::<Standard>().unwrap(), metric);
        }
        for wrong in ["", "los", "logit_diff:3", "probability:x", "loss:1"] {
            assert!(wrong.parse::<Standard>().is_err(), "{wrong}");
        }
    }
}
