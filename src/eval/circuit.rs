//! From text to values.

use super::{Source, Value, evaluate};
use crate::error::{Error, Result};
use crate::expr::Family;
use crate::linalg::Par;
use crate::plan::{Form, Plan};
use crate::tensor::Scalar;
use faer::Mat;

/// A circuit of a model: an expression read for it, or one a head or layer where it has a `*`.
///
/// ```
/// use pathsum::eval::Circuit;
/// use pathsum::{Par, fixture};
///
/// let model = fixture::induction::<f64>();
/// let copies = Circuit::parse("W_E W_OV[1.0] W_U", &model)?.dense(Par::Seq)?;
/// assert_eq!((copies.nrows(), copies.ncols()), (16, 16));
/// let of_heads = Circuit::parse("W_QK[1.*]", &model)?.each_dense(Par::Seq)?;
/// assert_eq!(of_heads.len(), model.config().n_heads);
/// # Ok::<(), pathsum::Error>(())
/// ```
pub struct Circuit<'a, T: Scalar> {
    source: Source<'a, T>,
    family: Family,
}

impl<'a, T: Scalar> Circuit<'a, T> {
    /// Reads an expression for a model, or for a model and a sequence of a run of it ([`Source::run`]).
    ///
    /// # Errors
    /// As [`Family::parse`]: with the place in the text.
    pub fn parse(text: &str, of: impl Into<Source<'a, T>>) -> Result<Self> {
        let source = of.into();
        let family = Family::parse(text, &source.dims())?;
        Ok(Circuit { source, family })
    }

    /// The members, and what they are counted by.
    pub fn family(&self) -> &Family {
        &self.family
    }

    /// Where the values come from.
    pub fn source(&self) -> &Source<'a, T> {
        &self.source
    }

    /// How the members are computed in a form.
    pub fn plan(&self, form: Form) -> Plan {
        Plan::new(&self.family.members, &self.source.dims(), form)
    }

    /// The members' values in a form, in the order of the family.
    ///
    /// # Errors
    /// As [`evaluate`].
    ///
    /// # Cost
    /// What [`Circuit::plan`] says; nothing is kept between calls.
    pub fn values(&self, form: Form, par: Par) -> Result<Vec<Value<T>>> {
        evaluate(&self.plan(form), &self.source, par)
    }

    /// Every member as a matrix with all its entries.
    ///
    /// # Errors
    /// As [`evaluate`].
    pub fn each_dense(&self, par: Par) -> Result<Vec<Mat<T>>> {
        let values = self.values(Form::Dense, par)?.into_iter();
        let matrices = values.map(|value| match value {
            Value::Dense(M) => M,
            _ => unreachable!("a dense form is a matrix"),
        });
        Ok(matrices.collect())
    }

    /// The matrix of a circuit that has one member.
    ///
    /// # Errors
    /// When it has none or several, and as [`evaluate`].
    pub fn dense(&self, par: Par) -> Result<Mat<T>> {
        match self.family.members.len() {
            1 => Ok(self.each_dense(par)?.swap_remove(0)),
            n => Err(Error::Form(format!(
                "the expression stands for {n} matrices, expected one"
            ))),
        }
    }
}
