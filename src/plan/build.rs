//! From circuits to steps: which products are made, in which order, each once.

use super::chain::{Best, Order};
use super::cost::{Cost, Side, size};
use super::form::Form;
use super::formula::{Formula, chain};
use super::{MatrixOp, Operand, Output, Plan, PlanStep, Target};
use crate::expr::{Dims, Expr, Factor, Rational, Space, Symbol};
use std::collections::HashMap;

/// How chains are ordered.
#[derive(Clone, Debug)]
pub(super) enum Ordering {
    /// For the least work, with sums folded.
    Best,
    /// From left to right, each term by itself, every result dense.
    Naive,
    /// In this order, for a single chain.
    Given(Order),
}

pub(super) fn plan(members: &[Expr], dims: &Dims, form: Form, ordering: &Ordering) -> Plan {
    let mut builder = Builder {
        dims,
        steps: Vec::new(),
        known: HashMap::new(),
        ordering,
    };
    let outputs = members.iter().map(|e| builder.output(e, form)).collect();
    let mut plan = Plan {
        dims: dims.clone(),
        form,
        steps: builder.steps,
        outputs,
    };
    if matches!(ordering, Ordering::Best) {
        super::batch::batch(&mut plan);
    }
    plan
}

/// A part of a chain: computed already, or still to be.
#[derive(Clone, Copy)]
enum Link<'c> {
    Ready(Side),
    Formula(&'c Formula),
}

struct Builder<'a> {
    dims: &'a Dims,
    steps: Vec<PlanStep>,
    known: HashMap<MatrixOp, usize>,
    ordering: &'a Ordering,
}

impl Builder<'_> {
    fn size(&self, space: &Space) -> usize {
        space.size(self.dims)
    }

    fn push(&mut self, op: MatrixOp, rows: Space, cols: Space, cost: Cost) -> Operand {
        if let Some(&known) = self.known.get(&op) {
            return Operand::Step(known);
        }
        let step = self.steps.len();
        let shape = [self.size(&rows), self.size(&cols)];
        self.known.insert(op.clone(), step);
        self.steps.push(PlanStep { op, shape, cost });
        Operand::Step(step)
    }

    fn output(&mut self, expr: &Expr, form: Form) -> Output {
        let naive = matches!(self.ordering, Ordering::Naive);
        let circuit = if naive {
            Formula::flat(expr)
        } else {
            Formula::of(expr)
        };
        let (rows, cols) = (self.size(expr.rows()), self.size(expr.cols()));
        let one = Rational::from_integer(1);
        if naive || matches!(form, Form::Dense | Form::Softmax) {
            let whole = self.dense(&circuit);
            let finish = form.of_dense(rows, cols);
            let terms = vec![(one, Target::Whole(whole))];
            return Output {
                rows,
                cols,
                terms,
                finish,
            };
        }
        if let (Formula::Sum { terms, .. }, true) = (&circuit, form.linear()) {
            let mut finish = Cost::default();
            let mut targets = Vec::new();
            for (x, term) in terms {
                let (target, cost) = self.target(term, form);
                finish = finish + cost;
                targets.push((*x, target));
            }
            return Output {
                rows,
                cols,
                terms: targets,
                finish,
            };
        }
        let (target, finish) = self.target(&circuit, form);
        Output {
            rows,
            cols,
            terms: vec![(one, target)],
            finish,
        }
    }

    /// A circuit in the shape that a form is best made from, and what making it costs then.
    fn target(&mut self, circuit: &Formula, form: Form) -> (Target, Cost) {
        let (rows, cols) = (circuit.rows(), circuit.cols());
        let (m, n) = (self.size(&rows), self.size(&cols));
        let whole = |builder: &mut Self| {
            let target = builder.dense(circuit);
            if form.linear() || form == Form::Norm {
                return (Target::Whole(target), form.of_dense(m, n));
            }
            // The narrower side's identity is a factor as well.
            let (left, right, k) = match m < n {
                true => (Operand::Identity(rows.clone()), target, m),
                false => (target, Operand::Identity(cols.clone()), n),
            };
            (Target::Pair(left, right), form.finish(m, k, n))
        };
        match circuit {
            Formula::Chain(parts) => {
                let sides: Vec<Link<'_>> = parts.iter().map(Link::Formula).collect();
                let best = self.best(&sides);
                let last = parts.len() - 1;
                let pair = |s: usize| {
                    let k = self.size(&parts[s].cols());
                    let form_raw = |i: usize| match &parts[i] {
                        Formula::Leaf(_) => Cost::default(),
                        other => self.forming(other),
                    };
                    let side = |i: usize, j: usize| match i == j {
                        true => form_raw(i),
                        false => best.cost(i, j),
                    };
                    let cost = side(0, s) + side(s + 1, last);
                    (k, cost + form.finish(m, k, n))
                };
                let narrowest = |s: &usize| match form {
                    Form::Factored => pair(*s).0,
                    _ => 0,
                };
                let s = (0..last)
                    .min_by_key(|s| (narrowest(s), pair(*s).1.work()))
                    .expect("a chain has two parts");
                let (k, cost) = pair(s);
                let dense = best.cost(0, last) + form.of_dense(m, n);
                let by_pair =
                    matches!(form, Form::Factored | Form::Top(_)) || cost.work() <= dense.work();
                if !by_pair {
                    return whole(self);
                }
                let left = self.ordered(&parts[..=s], &best.order(0, s));
                let right = self.ordered(&parts[s + 1..], &shifted(best.order(s + 1, last), s + 1));
                (Target::Pair(left, right), form.finish(m, k, n))
            }
            Formula::Sum { terms, .. } if form != Form::Norm && !terms.is_empty() => {
                // Side by side and one below the other, as long as that is narrower than the whole.
                let mut pairs = Vec::new();
                let mut k = 0;
                for (x, term) in terms {
                    let Formula::Chain(_) = term else {
                        return whole(self);
                    };
                    let (Target::Pair(left, right), _) = self.target(term, Form::Factored) else {
                        unreachable!("a chain's factors are a pair")
                    };
                    k += self.operand_side(&left).cols;
                    pairs.push((*x, left, right));
                }
                if k >= m.min(n) {
                    return whole(self);
                }
                let beside = pairs
                    .iter()
                    .map(|(x, left, _)| (*x, left.clone()))
                    .collect();
                let below = pairs.into_iter().map(|(_, _, right)| right).collect();
                let copy = |rows: usize, cols: usize| Cost {
                    flops: 0,
                    entries: 2 * size(&[rows, cols]),
                };
                let left = self.push_shaped(MatrixOp::Beside(beside), [m, k], copy(m, k));
                let right = self.push_shaped(MatrixOp::Below(below), [k, n], copy(k, n));
                (Target::Pair(left, right), form.finish(m, k, n))
            }
            _ => whole(self),
        }
    }

    fn push_shaped(&mut self, op: MatrixOp, shape: [usize; 2], cost: Cost) -> Operand {
        if let Some(&known) = self.known.get(&op) {
            return Operand::Step(known);
        }
        let step = self.steps.len();
        self.known.insert(op.clone(), step);
        self.steps.push(PlanStep { op, shape, cost });
        Operand::Step(step)
    }

    /// A circuit's value, as an operand of a product or an output.
    fn dense(&mut self, circuit: &Formula) -> Operand {
        match circuit {
            Formula::Leaf(factor) => Operand::Leaf(factor.clone()),
            Formula::Identity(space) => Operand::Identity(space.clone()),
            Formula::Chain(parts) => {
                let order = match self.ordering {
                    Ordering::Naive => Order::naive(0, parts.len() - 1),
                    Ordering::Given(order) => order.clone(),
                    Ordering::Best => {
                        let sides: Vec<Link<'_>> = parts.iter().map(Link::Formula).collect();
                        self.best(&sides).order(0, parts.len() - 1)
                    }
                };
                self.ordered(parts, &order)
            }
            Formula::Sum { rows, cols, terms } => {
                if let (Some((turned, parts)), Ordering::Best) = (stacked(terms), self.ordering) {
                    return self.placed(parts, turned, circuit);
                }
                let operands = terms
                    .iter()
                    .map(|(x, term)| (*x, self.dense(term)))
                    .collect();
                self.add(operands, rows, cols)
            }
        }
    }

    /// A stack's parts, one below the other; side by side where it is turned.
    fn placed(&mut self, parts: Vec<Formula>, turned: bool, whole: &Formula) -> Operand {
        let one = Rational::from_integer(1);
        let parts: Vec<Operand> = parts.iter().map(|part| self.dense(part)).collect();
        let shape = [self.size(&whole.rows()), self.size(&whole.cols())];
        let cost = Cost {
            flops: 0,
            entries: 2 * size(&shape),
        };
        let op = if turned {
            MatrixOp::Beside(parts.into_iter().map(|part| (one, part)).collect())
        } else {
            MatrixOp::Below(parts)
        };
        self.push_shaped(op, shape, cost)
    }

    fn add(&mut self, terms: Vec<(Rational, Operand)>, rows: &Space, cols: &Space) -> Operand {
        let cost = adding(terms.len(), self.size(rows), self.size(cols));
        self.push(MatrixOp::Sum(terms), rows.clone(), cols.clone(), cost)
    }

    /// The product of parts in an order.
    fn ordered(&mut self, parts: &[Formula], order: &Order) -> Operand {
        match order {
            Order::Part(i) => self.dense(&parts[*i]),
            Order::Product(left, right) => {
                let raw = |order: &Order| match order {
                    Order::Part(i) if matches!(parts[*i], Formula::Sum { .. }) => {
                        Some(parts[*i].clone())
                    }
                    _ => None,
                };
                let (left_sum, right_sum) = (raw(left), raw(right));
                let spread = self.spreads(
                    left_sum
                        .as_ref()
                        .map_or(Link::Ready(self.side_of(parts, left)), Link::Formula),
                    right_sum
                        .as_ref()
                        .map_or(Link::Ready(self.side_of(parts, right)), Link::Formula),
                );
                match (spread, left_sum, right_sum) {
                    (Spread::Left, Some(sum), _) => {
                        let other = self.ordered(parts, right);
                        self.distributed(&sum, other, true)
                    }
                    (Spread::Right, _, Some(sum)) => {
                        let other = self.ordered(parts, left);
                        self.distributed(&sum, other, false)
                    }
                    _ => {
                        let left = self.ordered(parts, left);
                        let right = self.ordered(parts, right);
                        self.multiply(left, right)
                    }
                }
            }
        }
    }

    fn side_of(&self, parts: &[Formula], order: &Order) -> Side {
        let (first, last) = order.ends();
        match (&parts[first], first == last) {
            (Formula::Leaf(factor), true) => Side::of(factor, self.dims),
            _ => Side::dense(
                self.size(&parts[first].rows()),
                self.size(&parts[last].cols()),
            ),
        }
    }

    fn operand_side(&self, operand: &Operand) -> Side {
        match operand {
            Operand::Leaf(factor) => Side::of(factor, self.dims),
            Operand::Identity(space) => Side::dense(self.size(space), self.size(space)),
            Operand::Step(step) | Operand::Columns(step, ..) | Operand::Rows(step, ..) => {
                let [rows, cols] = self.steps[*step].shape;
                Side::dense(rows, cols)
            }
        }
    }

    fn multiply(&mut self, left: Operand, right: Operand) -> Operand {
        match (left, right) {
            (Operand::Identity(_), other) | (other, Operand::Identity(_)) => other,
            (left, right) => {
                let (a, b) = (self.operand_side(&left), self.operand_side(&right));
                self.push_shaped(MatrixOp::Product(left, right), [a.rows, b.cols], a.times(b))
            }
        }
    }

    /// Every term of a sum times the other operand, added.
    fn distributed(&mut self, sum: &Formula, other: Operand, sum_on_left: bool) -> Operand {
        let Formula::Sum { terms, rows, cols } = sum else {
            unreachable!("only sums are spread")
        };
        let side = self.operand_side(&other);
        let products: Vec<(Rational, Operand)> = terms
            .iter()
            .map(|(x, term)| {
                let parts: Vec<Formula> = match term {
                    Formula::Chain(parts) => parts.clone(),
                    Formula::Identity(_) => Vec::new(),
                    term => vec![term.clone()],
                };
                let mut sides: Vec<Link<'_>> = parts.iter().map(Link::Formula).collect();
                let at = if sum_on_left { sides.len() } else { 0 };
                sides.insert(at, Link::Ready(side));
                let order = self.best(&sides).order(0, sides.len() - 1);
                (*x, self.around(&parts, &order, &other, at))
            })
            .collect();
        let (rows, cols) = match sum_on_left {
            true => (self.size(rows), side.cols),
            false => (side.rows, self.size(cols)),
        };
        let cost = adding(products.len(), rows, cols);
        self.push_shaped(MatrixOp::Sum(products), [rows, cols], cost)
    }

    /// The product of parts in an order, one of which is there already.
    fn around(&mut self, parts: &[Formula], order: &Order, ready: &Operand, at: usize) -> Operand {
        match order {
            Order::Part(i) if *i == at => ready.clone(),
            Order::Part(i) => self.dense(&parts[i - usize::from(*i > at)]),
            Order::Product(left, right) => {
                let left = self.around(parts, left, ready, at);
                let right = self.around(parts, right, ready, at);
                self.multiply(left, right)
            }
        }
    }

    fn best(&self, parts: &[Link<'_>]) -> Best {
        let side = |i: usize, j: usize| {
            if i == j {
                return parts[i];
            }
            let end = |part: Link<'_>, cols: bool| match part {
                Link::Ready(side) if cols => side.cols,
                Link::Ready(side) => side.rows,
                Link::Formula(c) if cols => self.size(&c.cols()),
                Link::Formula(c) => self.size(&c.rows()),
            };
            Link::Ready(Side::dense(end(parts[i], false), end(parts[j], true)))
        };
        Best::new(parts.len(), |i, j, s| {
            self.pair(side(i, s), side(s + 1, j)).0
        })
    }

    /// What a part is once it is formed, and what forming it costs.
    fn formed(&self, part: Link<'_>) -> (Side, Cost) {
        match part {
            Link::Ready(side) => (side, Cost::default()),
            Link::Formula(Formula::Leaf(factor)) => (Side::of(factor, self.dims), Cost::default()),
            Link::Formula(c) => {
                let side = Side::dense(self.size(&c.rows()), self.size(&c.cols()));
                (side, self.forming(c))
            }
        }
    }

    fn forming(&self, circuit: &Formula) -> Cost {
        match circuit {
            Formula::Leaf(_) | Formula::Identity(_) => Cost::default(),
            Formula::Chain(parts) => {
                let sides: Vec<Link<'_>> = parts.iter().map(Link::Formula).collect();
                self.best(&sides).cost(0, parts.len() - 1)
            }
            Formula::Sum { rows, cols, terms } => {
                let each: Cost = terms.iter().map(|(_, term)| self.forming(term)).sum();
                each + adding(terms.len(), self.size(rows), self.size(cols))
            }
        }
    }

    /// The cost of a product, and which of its sides is a sum that is better spread over the other.
    fn pair(&self, left: Link<'_>, right: Link<'_>) -> (Cost, Spread) {
        let ((a, form_a), (b, form_b)) = (self.formed(left), self.formed(right));
        let mut best = (form_a + form_b + a.times(b), Spread::Neither);
        let mut offer = |cost: Cost, spread: Spread| {
            if cost.work() < best.0.work() {
                best = (cost, spread);
            }
        };
        if let Link::Formula(Formula::Sum { terms, .. }) = left {
            offer(form_b + self.spreading(terms, b, true, a), Spread::Left);
        }
        if let Link::Formula(Formula::Sum { terms, .. }) = right {
            offer(form_a + self.spreading(terms, a, false, b), Spread::Right);
        }
        best
    }

    fn spreads(&self, left: Link<'_>, right: Link<'_>) -> Spread {
        match self.ordering {
            Ordering::Best => self.pair(left, right).1,
            _ => Spread::Neither,
        }
    }

    fn spreading(
        &self,
        terms: &[(Rational, Formula)],
        other: Side,
        sum_on_left: bool,
        sum: Side,
    ) -> Cost {
        let each = terms.iter().map(|(_, term)| {
            let mut parts: Vec<Link<'_>> = match term {
                Formula::Chain(parts) => parts.iter().map(Link::Formula).collect(),
                Formula::Identity(_) => Vec::new(),
                term => vec![Link::Formula(term)],
            };
            parts.insert(
                if sum_on_left { parts.len() } else { 0 },
                Link::Ready(other),
            );
            self.best(&parts).cost(0, parts.len() - 1)
        });
        let (rows, cols) = match sum_on_left {
            true => (sum.rows, other.cols),
            false => (other.rows, sum.cols),
        };
        each.sum::<Cost>() + adding(terms.len(), rows, cols)
    }
}

/// Which side of a product is a sum whose terms are multiplied one by one.
enum Spread {
    Neither,
    Left,
    Right,
}

fn adding(terms: usize, rows: usize, cols: usize) -> Cost {
    let entries = size(&[rows, cols]);
    Cost {
        flops: entries.saturating_mul(2 * terms as u64),
        entries: entries.saturating_mul(terms as u64 + 1),
    }
}

/// The parts of a sum that is a whole stack, every place filled by one term; whether it is turned, and stands on
/// its side.
fn stacked(terms: &[(Rational, Formula)]) -> Option<(bool, Vec<Formula>)> {
    let place = |circuit: &Formula| match circuit {
        Formula::Leaf(Factor {
            symbol: Symbol::Inject { stack, part },
            transposed,
            ..
        }) => Some((stack.clone(), *part, *transposed)),
        _ => None,
    };
    let split = |circuit: &Formula| {
        let parts = match circuit {
            Formula::Chain(parts) => parts.clone(),
            other => vec![other.clone()],
        };
        let (first, last) = (place(&parts[0]), place(&parts[parts.len() - 1]));
        match (first, last) {
            (Some((stack, part, false)), _) => {
                let inner = chain(parts[1..].to_vec(), &stack[part]);
                Some((stack, part, false, inner))
            }
            (_, Some((stack, part, true))) => {
                let inner = chain(parts[..parts.len() - 1].to_vec(), &stack[part]);
                Some((stack, part, true, inner))
            }
            _ => None,
        }
    };
    let one = Rational::from_integer(1);
    let (stack, _, turned, _) = split(&terms.first()?.1)?;
    let mut places: Vec<Option<Formula>> = vec![None; stack.len()];
    for (x, term) in terms {
        let (other, part, way, inner) = split(term)?;
        if *x != one || other != stack || way != turned || places[part].is_some() {
            return None;
        }
        places[part] = Some(inner);
    }
    let filled: Option<Vec<Formula>> = places.into_iter().collect();
    filled.map(|parts| (turned, parts))
}

/// The order with its parts counted from 0 again.
fn shifted(order: Order, by: usize) -> Order {
    match order {
        Order::Part(i) => Order::Part(i - by),
        Order::Product(left, right) => {
            Order::Product(Box::new(shifted(*left, by)), Box::new(shifted(*right, by)))
        }
    }
}

impl Formula {
    /// Every term by itself.
    fn flat(expr: &Expr) -> Formula {
        let leaf = |f: &Factor| Formula::Leaf(f.clone());
        let one = Rational::from_integer(1);
        let mut terms: Vec<(Rational, Formula)> = expr
            .terms()
            .map(|(product, x)| {
                let circuit = match product.len() {
                    0 => Formula::Identity(expr.rows().clone()),
                    1 => leaf(&product[0]),
                    _ => Formula::Chain(product.iter().map(leaf).collect()),
                };
                (*x, circuit)
            })
            .collect();
        if terms.len() == 1 && terms[0].0 == one {
            return terms.remove(0).1;
        }
        Formula::Sum {
            rows: expr.rows().clone(),
            cols: expr.cols().clone(),
            terms,
        }
    }
}
