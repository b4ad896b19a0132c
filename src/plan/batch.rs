//! Products of one matrix with several of the same kind, made one product.

use super::cost::{Cost, Side};
use super::{MatrixOp, Operand, Plan, PlanStep, Target};
use crate::expr::{Factor, Symbol};
use std::collections::HashMap;

/// Which side of a batched product is the same for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Shared {
    Left,
    Right,
}

/// Puts `X W_V[0.0]`, `X W_V[0.1]`, … into one product `X [W_V[0.0] W_V[0.1] …]`, and likewise
/// `W_O[0.0] X`, `W_O[0.1] X`, …: the same operations, with `X` read once.
pub(super) fn batch(plan: &mut Plan) {
    let mut groups: HashMap<(Shared, Operand, String), Vec<usize>> = HashMap::new();
    for (i, step) in plan.steps.iter().enumerate() {
        let MatrixOp::Product(left, right) = &step.op else {
            continue;
        };
        if let Some(kind) = of_a_head(right) {
            let key = (Shared::Left, left.clone(), kind);
            groups.entry(key).or_default().push(i);
        } else if let Some(kind) = of_a_head(left) {
            let key = (Shared::Right, right.clone(), kind);
            groups.entry(key).or_default().push(i);
        }
    }
    let mut batches: Vec<(Shared, Operand, Vec<usize>)> = groups
        .into_iter()
        .filter(|(_, steps)| steps.len() > 1)
        .map(|((shared, operand, _), steps)| (shared, operand, steps))
        .collect();
    if batches.is_empty() {
        return;
    }
    batches.sort_by_key(|(_, _, steps)| steps[0]);

    // The steps anew: a batch stands where its first product stood.
    let old = std::mem::take(&mut plan.steps);
    let mut place: Vec<Operand> = Vec::new();
    let mut taken: HashMap<usize, Operand> = HashMap::new();
    let mut gathers: HashMap<MatrixOp, usize> = HashMap::new();
    for (i, step) in old.iter().enumerate() {
        if let Some(operand) = taken.get(&i) {
            place.push(operand.clone());
            continue;
        }
        let found = batches.iter().find(|(_, _, steps)| steps[0] == i);
        let Some((shared, operand, members)) = found else {
            let op = step.op.map(&|o| moved(o, &place));
            plan.steps.push(PlanStep { op, ..step.clone() });
            place.push(Operand::Step(plan.steps.len() - 1));
            continue;
        };
        let operand = moved(operand, &place);
        let each = old[i].shape;
        let parts: Vec<Operand> = members
            .iter()
            .map(|&m| match (&old[m].op, shared) {
                (MatrixOp::Product(_, right), Shared::Left) => right.clone(),
                (MatrixOp::Product(left, _), Shared::Right) => left.clone(),
                _ => unreachable!("only products are batched"),
            })
            .collect();
        let n = members.len();
        let side = plan.side(&parts[0]);
        let (gathered, shape, whole) = match shared {
            Shared::Left => {
                let one = crate::expr::Rational::from_integer(1);
                let beside = parts.into_iter().map(|p| (one, p)).collect();
                let shape = [side.rows, n * side.cols];
                (MatrixOp::Beside(beside), shape, [each[0], n * each[1]])
            }
            Shared::Right => {
                let shape = [n * side.rows, side.cols];
                (MatrixOp::Below(parts), shape, [n * each[0], each[1]])
            }
        };
        let entries = 2 * (shape[0] * shape[1]) as u64;
        let cost = Cost { flops: 0, entries };
        let gathered = *gathers.entry(gathered.clone()).or_insert_with(|| {
            plan.steps.push(PlanStep {
                op: gathered,
                shape,
                cost,
            });
            plan.steps.len() - 1
        });
        let gathered = Operand::Step(gathered);
        let (left, right) = match shared {
            Shared::Left => (operand, gathered),
            Shared::Right => (gathered, operand),
        };
        let cost = plan.side(&left).times(plan.side(&right));
        let op = MatrixOp::Product(left, right);
        plan.steps.push(PlanStep {
            op,
            shape: whole,
            cost,
        });
        let product = plan.steps.len() - 1;
        for (nth, &member) in members.iter().enumerate() {
            let part = match shared {
                Shared::Left => Operand::Columns(product, nth * each[1], each[1]),
                Shared::Right => Operand::Rows(product, nth * each[0], each[0]),
            };
            taken.insert(member, part);
        }
        place.push(taken[&i].clone());
    }
    for output in &mut plan.outputs {
        for (_, target) in &mut output.terms {
            *target = match target {
                Target::Whole(whole) => Target::Whole(moved(whole, &place)),
                Target::Pair(left, right) => {
                    Target::Pair(moved(left, &place), moved(right, &place))
                }
            };
        }
    }
}

fn moved(operand: &Operand, place: &[Operand]) -> Operand {
    match operand {
        Operand::Step(i) => place[*i].clone(),
        other => other.clone(),
    }
}

/// For a head's weights: which kind, of which layer.
fn of_a_head(operand: &Operand) -> Option<String> {
    let Operand::Leaf(Factor {
        symbol, transposed, ..
    }) = operand
    else {
        return None;
    };
    let (name, head) = match symbol {
        Symbol::WQ(h) => ("q", &h.head),
        Symbol::WK(h) => ("k", h),
        Symbol::WV(h) => ("v", h),
        Symbol::WO(h) => ("o", &h.head),
        _ => return None,
    };
    Some(format!("{name}{}{transposed}", head.layer))
}

impl Plan {
    /// What an operand is to a product.
    pub(crate) fn side(&self, operand: &Operand) -> Side {
        match operand {
            Operand::Leaf(factor) => Side::of(factor, &self.dims),
            Operand::Identity(space) => {
                let n = space.size(&self.dims);
                Side::dense(n, n)
            }
            Operand::Step(i) => Side::dense(self.steps[*i].shape[0], self.steps[*i].shape[1]),
            Operand::Columns(i, _, cols) => Side::dense(self.steps[*i].shape[0], *cols),
            Operand::Rows(i, _, rows) => Side::dense(*rows, self.steps[*i].shape[1]),
        }
    }
}
