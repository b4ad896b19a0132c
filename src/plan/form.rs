//! The forms in which a result can be asked for, and what making one of two factors costs.

use super::cost::{Cost, size};
use crate::error::Error;
use std::fmt;
use std::str::FromStr;

/// What is wanted of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// The matrix.
    Dense,
    /// Two factors, over the narrowest space there is between them.
    Factored,
    /// The singular values and vectors.
    Svd,
    /// The eigenvalues that are not zero for want of rank.
    Eig,
    /// The Frobenius norm.
    Norm,
    /// The sum of the diagonal.
    Trace,
    /// The diagonal.
    Diag,
    /// The largest entries of every row, and where they are.
    Top(usize),
    /// The softmax of every row.
    Softmax,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Form::Dense => f.write_str("dense"),
            Form::Factored => f.write_str("factored"),
            Form::Svd => f.write_str("svd"),
            Form::Eig => f.write_str("eig"),
            Form::Norm => f.write_str("norm"),
            Form::Trace => f.write_str("trace"),
            Form::Diag => f.write_str("diag"),
            Form::Top(k) => write!(f, "top={k}"),
            Form::Softmax => f.write_str("softmax"),
        }
    }
}

impl FromStr for Form {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        let names = [
            ("dense", Form::Dense),
            ("factored", Form::Factored),
            ("svd", Form::Svd),
            ("eig", Form::Eig),
            ("norm", Form::Norm),
            ("trace", Form::Trace),
            ("diag", Form::Diag),
            ("softmax", Form::Softmax),
        ];
        if let Some((_, form)) = names.iter().find(|(name, _)| *name == s) {
            return Ok(*form);
        }
        if let Some(k) = s.strip_prefix("top=") {
            return match k.parse() {
                Ok(k) if k > 0 => Ok(Form::Top(k)),
                _ => Err(Error::Malformed {
                    kind: "form",
                    text: s.into(),
                    expected: "a positive number, as in top=10",
                }),
            };
        }
        let known = names.iter().map(|(name, _)| *name).chain(["top=10"]);
        Err(Error::unknown("form", s, known))
    }
}

impl Form {
    /// Whether the form is of a sum the sum of the forms.
    pub(super) fn linear(self) -> bool {
        matches!(self, Form::Trace | Form::Diag)
    }

    /// Whether the rows and columns must be as many.
    pub(crate) fn square(self) -> bool {
        matches!(self, Form::Eig | Form::Trace | Form::Diag)
    }

    /// What the form costs from two factors `[m, k] [k, n]`.
    pub(super) fn finish(self, m: usize, k: usize, n: usize) -> Cost {
        let r = k.min(m).min(n);
        let flops = match self {
            Form::Factored => 0,
            // Two thin QR decompositions, and Golub and Reinsch's on the core.
            Form::Svd => size(&[4, m + n, k, r]) + size(&[22, r, r, r]),
            // The small product and Francis's iteration on it.
            Form::Eig => size(&[2, m, k, k]) + size(&[10, k, k, k]),
            // The two Gram matrices and their inner product.
            Form::Norm => size(&[2, m + n, k, k]) + size(&[2, k, k]),
            Form::Trace | Form::Diag => size(&[2, m, k]),
            Form::Dense | Form::Softmax | Form::Top(_) => size(&[2, m, k, n]),
        };
        let entries = size(&[m, k]) + size(&[k, n]);
        Cost { flops, entries }
    }

    /// What the form costs from the dense matrix.
    pub(super) fn of_dense(self, m: usize, n: usize) -> Cost {
        let r = m.min(n);
        let flops = match self {
            Form::Dense | Form::Factored => 0,
            Form::Svd => size(&[4, m, n, r]) + size(&[22, r, r, r]),
            Form::Eig => size(&[25, m, m, m]),
            Form::Norm => size(&[2, m, n]),
            Form::Trace | Form::Diag => r as u64,
            Form::Top(_) => size(&[m, n]),
            Form::Softmax => size(&[4, m, n]),
        };
        let entries = match self {
            Form::Dense | Form::Factored => 0,
            Form::Trace | Form::Diag => r as u64,
            _ => size(&[m, n]),
        };
        Cost { flops, entries }
    }
}
