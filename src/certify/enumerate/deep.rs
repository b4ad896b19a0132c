//! Margins of any model's answers, with a proved bound on what rounding does to them.

use super::Margin;
use super::careful;
use super::folded::Folded;
use super::forward::{Abreast, Workspace};
use crate::error::Result;
use crate::model::Model;

/// A model whose inputs are run one by one: several abreast in f64, and in twice the precision where that leaves a
/// doubt.
pub(in crate::certify) struct Deep<'a> {
    model: &'a Model<f64>,
    abreast: Abreast,
    /// Where answers are read.
    answers: Vec<usize>,
}

impl<'a> Deep<'a> {
    /// # Errors
    /// When the model is of a kind that no bound is known for.
    pub fn new(model: &'a Model<f64>, answers: Vec<usize>) -> Result<Deep<'a>> {
        Ok(Deep {
            model,
            abreast: Abreast::new(Folded::new(model)?),
            answers,
        })
    }

    /// How many inputs are run abreast.
    pub fn lanes(&self) -> usize {
        self.abreast.lanes()
    }

    /// By how much the right logits are the largest of some inputs, `[input, answer]`.
    ///
    /// *Shapes*: `ids: [input, pos]`, `right: [input, answer]`, as many inputs as are run abreast or fewer.
    pub fn margins(
        &self,
        ids: &[i64],
        pos: usize,
        right: &[usize],
        work: &mut Workspace,
        out: &mut Vec<Margin>,
    ) {
        let logits = self.abreast.run(ids, pos, &self.answers, work);
        let errors = self.abreast.errors(&logits);
        let (lanes, classes) = (self.lanes(), self.abreast.folded.config.d_vocab_out);
        out.clear();
        for (lane, right) in right.chunks_exact(self.answers.len()).enumerate() {
            for (answer, &right) in right.iter().enumerate() {
                let row = &logits.values[answer * classes * lanes..][..classes * lanes];
                let others = row.iter().skip(lane).step_by(lanes).enumerate();
                let others = others.filter(|&(class, _)| class != right).map(|(_, &x)| x);
                let value = least(others.map(|x| row[right * lanes + lane] - x));
                let error = errors.of(&self.abreast.folded, right);
                out.push(Margin::new(value, error));
            }
        }
    }

    /// The same of one input in twice the precision.
    pub fn carefully(&self, sequence: &[i64], right: &[usize]) -> Vec<Margin> {
        let folded = &self.abreast.folded;
        let answers: Vec<(usize, usize)> = self
            .answers
            .iter()
            .copied()
            .zip(right.iter().copied())
            .collect();
        let (apart, errors) = careful::differences(self.model, folded, sequence, &answers);
        let of = |(apart, &right): (&Vec<f64>, &usize)| {
            let others = apart
                .iter()
                .enumerate()
                .filter(|&(class, _)| class != right);
            Margin::new(least(others.map(|(_, &x)| x)), errors.of(folded, right))
        };
        apart.iter().zip(right).map(of).collect()
    }
}

/// The least of some numbers; a NaN where one is.
fn least(x: impl Iterator<Item = f64>) -> f64 {
    x.fold(f64::INFINITY, |least, x| {
        if least.is_nan() || x >= least {
            least
        } else {
            x
        }
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_nan_is_the_least() {
        let least = |x: &[f64]| super::least(x.iter().copied());
        assert_eq!(least(&[3.0, -1.0, 2.0]), -1.0);
        for x in [
            [f64::NAN, -3.0, 5.0],
            [-3.0, f64::NAN, 5.0],
            [-3.0, 5.0, f64::NAN],
        ] {
            assert!(least(&x).is_nan());
        }
    }
}
