//! The rules that bring a product to its normal form, each with its side condition and its source.

use super::normal::{Factor, Product};
use super::space::Space;
use super::symbol::Symbol;
use std::fmt;

/// A rule of the algebra.
///
/// That products distribute over sums, that a product's transpose is the product of the transposes in the
/// other order, and that the identity vanishes, hold for all matrices and have no entry here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// `C C = C`. *Condition*: none; `C = I - 1 1ᵀ / d_model` is an orthogonal projection.
    /// *Source*: Horn and Johnson, "Matrix Analysis" (2013), 0.9.
    CentringTwice,
    /// `C ones[model] = 0`, `ones[model]ᵀ C = 0`. *Condition*: none: a vector of equal entries is its own
    /// mean.
    CentringOnes,
    /// `scale scale⁻¹ = I`. *Condition*: no scale is zero; it is `sqrt(mean(x²) + eps)` with `eps > 0`.
    /// *Source*: Ba, Kiros and Hinton, "Layer Normalization" (2016).
    ScaleInverse,
    /// Diagonal matrices commute. *Condition*: both are diagonal, over one space.
    /// *Source*: Horn and Johnson, 0.9.
    DiagonalsCommute,
    /// `pattern ones[pos] = ones[pos]`. *Condition*: the pattern is a softmax's, so its rows sum to 1 (a
    /// row with no key to see is zero; no mask that the models here have leaves one).
    /// *Source*: Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021).
    PatternRows,
    /// `tokens ones[vocab] = ones[pos]`. *Condition*: every position has one token.
    TokenRows,
    /// `J_iᵀ J_j` is the identity where `i = j`, else 0: a part of a stack is what was put there.
    /// *Condition*: both are parts of the same stack.
    StackParts,
    /// `I[:,i]ᵀ I[:,j]` is 1 where `i = j`, else 0. *Condition*: both indices count from the same end.
    UnitVectors,
    /// `ones[s]ᵀ I[s][:,i] = 1`. *Condition*: none.
    OnesAtAnIndex,
    /// `R[i] R[j] = R[i+j]`. *Condition*: both turn one head's space, so that they are of one layer and turn by
    /// the same angles. *Source*: Su et al., "RoFormer" (2021), 3.2.
    RotationsAdd,
    /// `R[i]ᵀ = R[-i]`. *Condition*: none; rotations are orthogonal.
    RotationBack,
    /// `R[0] = I`. *Condition*: none.
    RotationByNothing,
    /// `F Fᵀ = I`, `Fᵀ F = I`, and so of `F_out`. *Condition*: none; a Fourier basis is orthonormal.
    FourierOrthogonal,
    /// Numbers commute with each other and are their own transposes. *Condition*: a part of the product
    /// between two spaces `one`.
    NumbersCommute,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Rule; 14] = [
        Rule::CentringTwice,
        Rule::CentringOnes,
        Rule::ScaleInverse,
        Rule::DiagonalsCommute,
        Rule::PatternRows,
        Rule::TokenRows,
        Rule::StackParts,
        Rule::UnitVectors,
        Rule::OnesAtAnIndex,
        Rule::RotationsAdd,
        Rule::RotationBack,
        Rule::RotationByNothing,
        Rule::FourierOrthogonal,
        Rule::NumbersCommute,
    ];

    /// What the rule says, short.
    pub fn statement(self) -> &'static str {
        match self {
            Rule::CentringTwice => "C C = C",
            Rule::CentringOnes => "C ones[model] = 0",
            Rule::ScaleInverse => "scale scale⁻¹ = I",
            Rule::DiagonalsCommute => "diagonal matrices commute",
            Rule::PatternRows => "pattern ones[pos] = ones[pos]",
            Rule::TokenRows => "tokens ones[vocab] = ones[pos]",
            Rule::StackParts => "a stack's parts are what was stacked",
            Rule::UnitVectors => "unit vectors are orthonormal",
            Rule::OnesAtAnIndex => "an entry of ones is 1",
            Rule::RotationsAdd => "R[i] R[j] = R[i+j]",
            Rule::RotationBack => "R[i]^T = R[-i]",
            Rule::RotationByNothing => "R[0] = I",
            Rule::FourierOrthogonal => "F F^T = I",
            Rule::NumbersCommute => "numbers commute and are their own transposes",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.statement())
    }
}

/// What a rule makes of two neighbouring factors.
enum Pair {
    Becomes(Product),
    Zero,
}

/// The product in normal form; `None` where it is zero. `rows` is what its rows are indexed by.
pub(super) fn simplify(
    product: Product,
    rows: &Space,
    used: &mut dyn FnMut(Rule),
) -> Option<Product> {
    let product = neighbours(product, used)?;
    Some(numbers_first(product, rows, used))
}

/// The rules that look at a factor or at two neighbouring ones, until none applies.
fn neighbours(product: Product, used: &mut dyn FnMut(Rule)) -> Option<Product> {
    // From the left, each new factor against the one before it; what a rule makes of the two is put
    // before the rest again, since its neighbours are new.
    let mut rest: Product = product.into_iter().rev().collect();
    let mut done: Product = Vec::new();
    while let Some(right) = rest.pop() {
        if let Some((rule, made)) = single(&right) {
            used(rule);
            rest.extend(made);
            continue;
        }
        let found = done.last().and_then(|left| pair(left, &right));
        match found {
            None => done.push(right),
            Some((rule, made)) => {
                used(rule);
                done.pop();
                match made {
                    Pair::Zero => return None,
                    Pair::Becomes(factors) => rest.extend(factors.into_iter().rev()),
                }
            }
        }
    }
    Some(done)
}

/// What a rule makes of one factor: another, or nothing where it is the identity.
fn single(factor: &Factor) -> Option<(Rule, Option<Factor>)> {
    match factor.symbol {
        Symbol::R(_, 0) => Some((Rule::RotationByNothing, None)),
        Symbol::R(head, n) if factor.transposed => {
            let back = Factor::of(Symbol::R(head, n.checked_neg()?));
            Some((Rule::RotationBack, Some(back)))
        }
        _ => None,
    }
}

fn pair(left: &Factor, right: &Factor) -> Option<(Rule, Pair)> {
    use Symbol::{C, Inject, Ones, Pattern, R, Tokens, Unit};
    let one_if = |equal: bool| {
        if equal {
            Pair::Becomes(Vec::new())
        } else {
            Pair::Zero
        }
    };
    // A rule for `A B` is one for `Bᵀ Aᵀ` as well.
    let either = |a: &Factor, b: &Factor| match (&a.symbol, &b.symbol) {
        (C, Ones(Space::Model)) => Some((Rule::CentringOnes, Pair::Zero)),
        (Pattern(_), Ones(Space::Pos)) => Some((Rule::PatternRows, Pair::Becomes(vec![b.clone()]))),
        (Tokens, Ones(Space::Vocab)) => Some((
            Rule::TokenRows,
            Pair::Becomes(vec![Factor {
                symbol: Ones(Space::Pos),
                ..b.clone()
            }]),
        )),
        _ => None,
    };
    match (&left.symbol, &right.symbol) {
        (C, C) => Some((Rule::CentringTwice, Pair::Becomes(vec![left.clone()]))),
        (a, b) if a.is_scale() && a == b && left.inverse != right.inverse => {
            Some((Rule::ScaleInverse, one_if(true)))
        }
        (a, b) if a.orthogonal() && a == b && left.transposed != right.transposed => {
            Some((Rule::FourierOrthogonal, one_if(true)))
        }
        (a, b) if a.diagonal() && b.diagonal() && left > right => Some((
            Rule::DiagonalsCommute,
            Pair::Becomes(vec![right.clone(), left.clone()]),
        )),
        (&R(head, i), &R(other, j)) if head == other && left.transposed == right.transposed => {
            let sum = Factor {
                symbol: R(head, i.checked_add(j)?),
                ..left.clone()
            };
            Some((Rule::RotationsAdd, Pair::Becomes(vec![sum])))
        }
        (Inject { stack: s, part: i }, Inject { stack: t, part: j })
            if left.transposed && !right.transposed && s == t =>
        {
            Some((Rule::StackParts, one_if(i == j)))
        }
        (Unit(s, i), Unit(t, j))
            if left.transposed && !right.transposed && s == t && (*i < 0) == (*j < 0) =>
        {
            Some((Rule::UnitVectors, one_if(i == j)))
        }
        (Ones(s), Unit(t, _)) | (Unit(s, _), Ones(t))
            if left.transposed && !right.transposed && s == t =>
        {
            Some((Rule::OnesAtAnIndex, one_if(true)))
        }
        _ if !left.transposed && !right.transposed => either(left, right),
        _ if right.symbol.symmetric() || right.transposed => {
            // Transposed, the ones are on the left.
            either(right, left).filter(|_| left.transposed)
        }
        _ => None,
    }
}

/// The parts of the product that are numbers, each the lesser of itself and its transpose, in order, at the
/// first place where they can stand.
fn numbers_first(product: Product, rows: &Space, used: &mut dyn FnMut(Rule)) -> Product {
    if product.iter().all(|f| f.spaces().1 != Space::One) && *rows != Space::One {
        return product;
    }
    let mut left = rows.clone();
    let mut parts: Vec<(bool, Product)> = Vec::new();
    let mut part = Vec::new();
    for factor in product.iter().cloned() {
        let (_, cols) = factor.spaces();
        part.push(factor);
        if cols == Space::One {
            parts.push((left == Space::One, std::mem::take(&mut part)));
            left = Space::One;
        }
    }
    // What is left does not end in `one`.
    let last = part;
    let (numbers, others): (Vec<_>, Vec<_>) = parts.into_iter().partition(|(number, _)| *number);
    let mut numbers: Vec<Product> = numbers
        .into_iter()
        .map(|(_, number)| {
            let transposed = number.iter().rev().map(|f| f.clone().t()).collect();
            let transposed = neighbours(transposed, &mut |_| {});
            number.min(transposed.expect("zero would have been found before it was turned"))
        })
        .collect();
    numbers.sort();
    let others = others.into_iter().map(|(_, part)| part);
    let ordered: Product = others.chain(numbers).flatten().chain(last).collect();
    if ordered != product {
        used(Rule::NumbersCommute);
    }
    ordered
}
