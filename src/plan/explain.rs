//! A plan in words and figures.

use super::{Cost, MatrixOp, Operand, Plan, Target};
use crate::expr::Expr;
use serde::Serialize;

/// A plan's steps, as text and figures.
#[derive(Clone, Debug, Serialize)]
pub struct Explained {
    /// The steps in order: what each makes, from what, its shape and its cost.
    pub steps: Vec<ExplainedStep>,
    /// What making the form from them costs.
    pub finish: Cost,
    /// All of it.
    pub total: Cost,
    /// The most entries kept at one time.
    pub peak_entries: u64,
}

/// One step.
#[derive(Clone, Debug, Serialize)]
pub struct ExplainedStep {
    /// What it makes, as an expression of earlier steps (`#1`) and matrices.
    pub makes: String,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// What it costs.
    pub cost: Cost,
}

impl Plan {
    /// The plan in words and figures.
    pub fn explain(&self) -> Explained {
        let steps = self
            .steps
            .iter()
            .map(|step| ExplainedStep {
                makes: words(&step.op),
                shape: step.shape,
                cost: step.cost,
            })
            .collect();
        Explained {
            steps,
            finish: self.outputs.iter().map(|o| o.finish).sum(),
            total: self.cost(),
            peak_entries: self.peak_entries(),
        }
    }

    /// The order in which a plan's products are made, in parentheses: `(W_E (W_V[0.0] W_O[0.0])) W_U`.
    pub fn parenthesised(&self) -> String {
        let texts: Vec<String> = self
            .outputs
            .iter()
            .map(|output| {
                let terms = output.terms.iter().map(|(_, target)| match target {
                    Target::Whole(whole) => self.nested(whole, false),
                    Target::Pair(left, right) => {
                        format!(
                            "{} | {}",
                            self.nested(left, false),
                            self.nested(right, false)
                        )
                    }
                });
                terms.collect::<Vec<_>>().join(" + ")
            })
            .collect();
        texts.join(", ")
    }

    fn nested(&self, operand: &Operand, inside: bool) -> String {
        let Operand::Step(i) = operand else {
            return word(operand);
        };
        let (text, single) = match &self.steps[*i].op {
            MatrixOp::Product(left, right) => (
                format!("{} {}", self.nested(left, true), self.nested(right, true)),
                false,
            ),
            MatrixOp::Sum(terms) => {
                let terms: Vec<_> = terms.iter().map(|(_, t)| self.nested(t, true)).collect();
                (terms.join(" + "), terms.len() == 1)
            }
            op => (words(op), true),
        };
        if inside && !single {
            format!("({text})")
        } else {
            text
        }
    }
}

fn word(operand: &Operand) -> String {
    match operand {
        Operand::Leaf(factor) => Expr::factor(factor.clone()).to_string(),
        Operand::Identity(space) => format!("I[{space}]"),
        Operand::Step(i) => format!("#{}", i + 1),
        Operand::Columns(i, first, n) => format!("#{}[:,{first}:{}]", i + 1, first + n),
        Operand::Rows(i, first, n) => format!("#{}[{first}:{}]", i + 1, first + n),
    }
}

fn words(op: &MatrixOp) -> String {
    // A family's operands are many: the first and the last say which.
    let listed = |words: Vec<String>, between: &str| match words.len() {
        0 => "0".to_string(),
        1..=4 => words.join(between),
        n => format!("{}{between}…{between}{}", words[0], words[n - 1]),
    };
    let with_coefficient = |(x, o): &(crate::expr::Rational, Operand)| {
        let one = crate::expr::Rational::from_integer(1);
        match *x == one {
            true => word(o),
            false => format!("{x} {}", word(o)),
        }
    };
    match op {
        MatrixOp::Product(left, right) => format!("{} {}", word(left), word(right)),
        MatrixOp::Sum(terms) => listed(terms.iter().map(with_coefficient).collect(), " + "),
        MatrixOp::Beside(terms) => {
            format!(
                "[{}]",
                listed(terms.iter().map(with_coefficient).collect(), ", ")
            )
        }
        MatrixOp::Below(parts) => format!("[{}]", listed(parts.iter().map(word).collect(), "; ")),
    }
}
