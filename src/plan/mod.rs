//! How a circuit is computed: the products that are made, their order, and what they cost. From sizes alone; no
//! weight is looked at.
//!
//! ```
//! use pathsum::expr::{Dims, Family};
//! use pathsum::plan::{Form, Plan};
//! let dims = Dims { d_vocab: 50257, d_model: 768, d_head: 64, d_vocab_out: 2, ..Dims::default() };
//! let circuit = Family::parse("W_E W_OV[0.0] W_U", &dims)?;
//! let plan = Plan::new(&circuit.members, &dims, Form::Dense);
//! let naive = Plan::naive(&circuit.members, &dims, Form::Dense);
//! // From the right, the vocabulary's 50,257 rows meet 2 columns instead of 64.
//! assert_eq!(plan.cost().flops, 2 * 64 * 768 * 2 + 2 * 768 * 64 * 2 + 2 * 50257 * 768 * 2);
//! assert!(naive.cost().flops > 30 * plan.cost().flops);
//! # Ok::<(), pathsum::Error>(())
//! ```

mod batch;
mod build;
mod chain;
mod cost;
mod explain;
mod form;
mod formula;

pub use cost::Cost;
pub use explain::Explained;
pub use form::Form;

use crate::expr::{Dims, Expr, Factor, Rational, Space};
use build::Ordering;
use chain::Order;

/// What an operation works on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operand {
    /// A matrix of the model or the run.
    Leaf(Factor),
    /// The identity.
    Identity(Space),
    /// What a step made.
    Step(usize),
    /// Columns of what a step made: the first, and how many.
    Columns(usize, usize, usize),
    /// Rows of what a step made: the first, and how many.
    Rows(usize, usize, usize),
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MatrixOp {
    /// The product.
    Product(Operand, Operand),
    /// The sum, with coefficients. Of nothing: zero.
    Sum(Vec<(Rational, Operand)>),
    /// One beside the other, with coefficients.
    Beside(Vec<(Rational, Operand)>),
    /// One below the other.
    Below(Vec<Operand>),
}

/// A step: it makes one dense matrix.
#[derive(Clone, Debug)]
pub struct PlanStep {
    /// What it does.
    pub op: MatrixOp,
    /// The rows and columns of what it makes.
    pub shape: [usize; 2],
    /// What it costs.
    pub cost: Cost,
}

/// What the form asked for is made from.
#[derive(Clone, Debug)]
pub enum Target {
    /// The matrix itself.
    Whole(Operand),
    /// The two factors of it.
    Pair(Operand, Operand),
}

/// One member of a family, computed.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its rows.
    pub rows: usize,
    /// Its columns.
    pub cols: usize,
    /// What the form is made from; more than one for forms that add up.
    pub terms: Vec<(Rational, Target)>,
    /// What making the form from it costs.
    pub finish: Cost,
}

/// How one circuit, or a family of them, is computed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The sizes it was made for.
    pub dims: Dims,
    /// The form that it gives.
    pub form: Form,
    /// The steps, each after those that it needs.
    pub steps: Vec<PlanStep>,
    /// The results, one a member.
    pub outputs: Vec<Output>,
}

impl Plan {
    /// The plan with the least work: chains in their best order, what terms share computed once, families in
    /// one product.
    ///
    /// # Panics
    /// When a symbol's space has no size here (neurons in a model without MLPs).
    pub fn new(members: &[Expr], dims: &Dims, form: Form) -> Plan {
        build::plan(members, dims, form, &Ordering::Best)
    }

    /// Every term by itself, from left to right, and the form from the dense matrix: what `A @ B @ C` does.
    pub fn naive(members: &[Expr], dims: &Dims, form: Form) -> Plan {
        build::plan(members, dims, form, &Ordering::Naive)
    }

    /// For a single product of at most [`Plan::MAX_ORDERED`] factors, asked for as a matrix: one plan for every
    /// order in which it can be multiplied, the cheapest first. Else the best plan and the naive one.
    pub fn orders(expr: &Expr, dims: &Dims, form: Form) -> Vec<Plan> {
        let members = std::slice::from_ref(expr);
        let mut terms = expr.terms();
        let mut plans = match (terms.next(), terms.next()) {
            (Some((product, _)), None)
                if form == Form::Dense && (2..=Self::MAX_ORDERED).contains(&product.len()) =>
            {
                Order::all(0, product.len() - 1)
                    .into_iter()
                    .map(|order| build::plan(members, dims, form, &Ordering::Given(order)))
                    .collect()
            }
            _ => vec![
                Plan::new(members, dims, form),
                Plan::naive(members, dims, form),
            ],
        };
        plans.sort_by_key(|plan| plan.cost().work());
        plans
    }

    /// Products of more factors than this have too many orders to try them all.
    pub const MAX_ORDERED: usize = 7;

    /// What all steps and the forms cost together.
    pub fn cost(&self) -> Cost {
        let steps: Cost = self.steps.iter().map(|s| s.cost).sum();
        steps + self.outputs.iter().map(|o| o.finish).sum()
    }

    /// For every step the one after which it is no longer needed; none for the outputs.
    pub(crate) fn last_use(&self) -> Vec<usize> {
        let mut last_use: Vec<usize> = (0..self.steps.len()).collect();
        for (i, step) in self.steps.iter().enumerate() {
            let used = step.op.operands().filter_map(Operand::step);
            used.for_each(|s| last_use[s] = i);
        }
        for (_, target) in self.outputs.iter().flat_map(|output| &output.terms) {
            let operands = match target {
                Target::Whole(whole) => vec![whole],
                Target::Pair(left, right) => vec![left, right],
            };
            for step in operands.into_iter().filter_map(Operand::step) {
                last_use[step] = usize::MAX;
            }
        }
        last_use
    }

    /// The most entries that are kept at one time, the outputs among them, the model's own not.
    pub fn peak_entries(&self) -> u64 {
        let last_use = self.last_use();
        let of_forms = self.outputs.iter().map(|output| match self.form {
            Form::Top(k) => cost::size(&[2, output.rows, k]),
            Form::Diag => output.rows as u64,
            Form::Softmax => cost::size(&[output.rows, output.cols]),
            _ => 0,
        });
        let made: u64 = of_forms.sum();
        let (mut now, mut peak) = (0u64, 0);
        for (i, step) in self.steps.iter().enumerate() {
            now = now.saturating_add(cost::size(&step.shape));
            peak = peak.max(now);
            let freed = (0..=i).filter(|&s| last_use[s] == i);
            now -= freed.map(|s| cost::size(&self.steps[s].shape)).sum::<u64>();
        }
        peak.max(now + made)
    }
}

impl Operand {
    /// The step that it is, or is a part of.
    pub(crate) fn step(&self) -> Option<usize> {
        match self {
            Operand::Step(i) | Operand::Columns(i, ..) | Operand::Rows(i, ..) => Some(*i),
            _ => None,
        }
    }
}

impl MatrixOp {
    /// What it works on.
    pub(crate) fn operands(&self) -> Box<dyn Iterator<Item = &Operand> + '_> {
        match self {
            MatrixOp::Product(left, right) => Box::new([left, right].into_iter()),
            MatrixOp::Sum(terms) | MatrixOp::Beside(terms) => {
                Box::new(terms.iter().map(|(_, o)| o))
            }
            MatrixOp::Below(parts) => Box::new(parts.iter()),
        }
    }

    fn map(&self, f: &dyn Fn(&Operand) -> Operand) -> MatrixOp {
        let both = |terms: &[(Rational, Operand)]| terms.iter().map(|(x, o)| (*x, f(o))).collect();
        match self {
            MatrixOp::Product(left, right) => MatrixOp::Product(f(left), f(right)),
            MatrixOp::Sum(terms) => MatrixOp::Sum(both(terms)),
            MatrixOp::Beside(terms) => MatrixOp::Beside(both(terms)),
            MatrixOp::Below(parts) => MatrixOp::Below(parts.iter().map(f).collect()),
        }
    }
}
