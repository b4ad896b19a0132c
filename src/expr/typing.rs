//! [`Ast`] to [`Expr`]: what the names mean, and whether the spaces meet.

use super::ast::{Ast, AstNode, Index};
use super::family::FamilyAxis;
use super::normal::{Expr, Mismatch, Rational, try_stack};
use super::parse::error;
use super::space::{Dims, Space};
use super::symbol::Symbol;
use super::{W_OV, W_QK};
use crate::error::{Error, Result};
use crate::names::{Head, NormSite};

/// The most members of a family.
const MAX_MEMBERS: usize = 1 << 14;

/// The head whose space rotations turn where nothing says whose: those of all heads are equal.
pub(super) const FIRST: Head = Head { layer: 0, head: 0 };

/// What a `*`, or a range of distances, stands for in one member of a family.
#[derive(Clone, Copy)]
pub(super) enum Assigned {
    Layer(usize),
    Head(Head),
    Distance(i64),
}

/// What is decided of an expression before it is read.
#[derive(Clone, Default)]
pub(super) struct Assignment {
    chosen: Vec<(Index, Assigned)>,
    /// The head whose space rotations turn that do not say it themselves; `None` while that is open.
    turned: Option<Head>,
}

/// A part of an expression whose space may still be open.
pub(super) enum Meaning {
    Number(Rational),
    /// A multiple of the identity, of whatever space fits.
    Identity(Rational),
    /// Rotations, of whatever head stands beside them: to be read again when that is known.
    Rotations,
    Matrix(Expr),
}

impl Assignment {
    /// What an axis stands for here.
    fn to(&self, axis: Index) -> Assigned {
        let found = self.chosen.iter().find(|(a, _)| *a == axis);
        found.expect("every axis of the text is assigned").1
    }

    /// The same, with rotations turning a head's space.
    fn turning(&self, head: Head) -> Assignment {
        Assignment {
            turned: Some(head),
            ..self.clone()
        }
    }
}

impl Meaning {
    /// Whether it is to be read again, once its head is known.
    pub fn open(&self) -> bool {
        matches!(self, Meaning::Rotations)
    }

    /// The spaces of a matrix.
    pub fn shape(&self) -> Option<(Space, Space)> {
        match self {
            Meaning::Matrix(e) => Some((e.rows().clone(), e.cols().clone())),
            Meaning::Number(_) | Meaning::Identity(_) | Meaning::Rotations => None,
        }
    }
}

pub(super) struct Typing<'a> {
    pub text: &'a str,
    pub dims: &'a Dims,
}

impl Typing<'_> {
    fn range(&self, axis: Index) -> Vec<Assigned> {
        match axis {
            Index::Head(layer, head) => {
                let fits = |h: &Head| {
                    layer.is_none_or(|l| l == h.layer) && head.is_none_or(|n| n == h.head)
                };
                self.dims.heads().filter(fits).map(Assigned::Head).collect()
            }
            Index::Distance(first, last) => {
                // One more than a family can have is enough to refuse it.
                let distances = (first..=last).take(MAX_MEMBERS + 1);
                distances.map(Assigned::Distance).collect()
            }
            Index::AnyDistance => {
                let distances = (0..).take(self.dims.pos.min(MAX_MEMBERS + 1));
                distances.map(Assigned::Distance).collect()
            }
            Index::Layer(_) | Index::NormOf(..) | Index::Norm(_) => {
                (0..self.dims.n_layers).map(Assigned::Layer).collect()
            }
        }
    }

    pub fn axes(&self, axes: &[Index]) -> Vec<FamilyAxis> {
        let label = |a: Assigned| match a {
            Assigned::Layer(l) => l.to_string(),
            Assigned::Head(h) => h.to_string(),
            Assigned::Distance(n) => n.to_string(),
        };
        let labels = |&axis| self.range(axis).into_iter().map(label).collect();
        axes.iter()
            .map(|axis| FamilyAxis {
                labels: labels(axis),
            })
            .collect()
    }

    /// `f` for every assignment of the axes, the last fastest.
    pub fn members<R>(
        &self,
        axes: &[Index],
        span: &std::ops::Range<usize>,
        turned: Option<Head>,
        mut f: impl FnMut(&Assignment) -> Result<R>,
    ) -> Result<Vec<R>> {
        let mut assignments = vec![Assignment {
            turned,
            ..Assignment::default()
        }];
        for &axis in axes {
            let range = self.range(axis);
            if range.is_empty() {
                let message = "a `*` stands for nothing here: this model has no such layer or head";
                return Err(error(self.text, span.clone(), message));
            }
            if assignments.len() * range.len() > MAX_MEMBERS {
                let message = format!("the `*` stand for more than {MAX_MEMBERS} expressions");
                return Err(error(self.text, span.clone(), message));
            }
            let extended = |a: &Assignment| {
                let a = a.clone();
                range.clone().into_iter().map(move |r| Assignment {
                    chosen: [a.chosen.clone(), vec![(axis, r)]].concat(),
                    turned: a.turned,
                })
            };
            assignments = assignments.iter().flat_map(extended).collect();
        }
        assignments.iter().map(&mut f).collect()
    }

    fn text_of(&self, ast: &Ast) -> &str {
        self.text[ast.span.clone()].trim()
    }

    /// How the transpose of a part would be written.
    pub fn transposed(&self, ast: &Ast) -> String {
        let text = self.text_of(ast);
        let bare = text.strip_suffix("^T").or_else(|| text.strip_suffix("ᵀ"));
        match (&ast.node, bare) {
            (AstNode::Transpose(_), Some(bare)) => bare.trim_end().to_string(),
            (AstNode::Sum(_) | AstNode::Product(_) | AstNode::Negative(_), _) => {
                format!("({text})^T")
            }
            _ => format!("{text}^T"),
        }
    }

    fn mismatch(&self, e: Mismatch, left: &Ast, right: &Ast, turned: [bool; 2]) -> Error {
        let hint = match turned {
            [_, true] => format!("; did you mean `{}`?", self.transposed(right)),
            [true, _] => format!("; did you mean `{}`?", self.transposed(left)),
            _ => String::new(),
        };
        let (a, b) = (self.text_of(left), self.text_of(right));
        let message = match &e {
            Mismatch::Product { left, right } => {
                format!("`{a}` has {left} columns, `{b}` has {right} rows{hint}")
            }
            Mismatch::Sum { left: l, right: r } => {
                format!(
                    "`{a}` is [{}, {}], `{b}` is [{}, {}]{hint}",
                    l.0, l.1, r.0, r.1
                )
            }
            Mismatch::Coefficient | Mismatch::Terms => e.to_string(),
        };
        error(self.text, right.span.clone(), message)
    }

    /// The value as a matrix; `shape` is what an `I`, a `0` or rotations would be.
    pub fn shaped(
        &self,
        value: Meaning,
        ast: &Ast,
        assigned: &Assignment,
        shape: Option<&(Space, Space)>,
    ) -> Result<Expr> {
        let fail = |message: String| Err(error(self.text, ast.span.clone(), message));
        match (value, shape) {
            (Meaning::Matrix(e), _) => Ok(e),
            (Meaning::Number(x), shape) => {
                let (rows, cols) = shape.cloned().unwrap_or((Space::One, Space::One));
                if x == Rational::from_integer(0) {
                    return Ok(Expr::zero(rows, cols));
                }
                if (&rows, &cols) == (&Space::One, &Space::One) {
                    return Ok(Expr::identity(Space::One).scale(x));
                }
                fail(format!(
                    "a number stands against a matrix [{rows}, {cols}]; the identity is `I`"
                ))
            }
            (Meaning::Identity(x), Some((rows, cols))) if rows == cols => {
                let identity = Expr::identity(rows.clone()).try_scale(x);
                identity.map_err(|e| error(self.text, ast.span.clone(), e))
            }
            (Meaning::Identity(_), Some((rows, cols))) => fail(format!(
                "`I` stands against [{rows}, {cols}], which is not square"
            )),
            (Meaning::Rotations, Some((Space::Head(head), cols)))
                if Space::Head(*head) == *cols =>
            {
                self.matrix(ast, &assigned.turning(*head), shape)
            }
            (Meaning::Rotations, Some((rows, cols))) => fail(format!(
                "`{}` turns a head's space and stands against [{rows}, {cols}]",
                self.text_of(ast)
            )),
            (Meaning::Rotations, None) => self.matrix(ast, &assigned.turning(FIRST), None),
            (Meaning::Identity(_), None) => {
                fail("`I` of which space? Say `I[model]`, `I[vocab]`, …".into())
            }
        }
    }

    pub fn matrix(
        &self,
        ast: &Ast,
        assigned: &Assignment,
        shape: Option<&(Space, Space)>,
    ) -> Result<Expr> {
        self.shaped(self.meaning(ast, assigned)?, ast, assigned, shape)
    }

    pub fn meaning(&self, ast: &Ast, assigned: &Assignment) -> Result<Meaning> {
        let at = |e: Mismatch| error(self.text, ast.span.clone(), e);
        let named = |space: &Space| space.grouped(self.dims);
        Ok(match &ast.node {
            AstNode::Number(x) => Meaning::Number(*x),
            AstNode::Identity(None) => Meaning::Identity(Rational::from_integer(1)),
            AstNode::Identity(Some(space)) => Meaning::Matrix(Expr::identity(named(space))),
            AstNode::Ones(None) => Meaning::Matrix(Expr::ones(Space::Pos)),
            AstNode::Ones(Some(space)) => Meaning::Matrix(Expr::ones(named(space))),
            AstNode::Zero(rows, cols) => Meaning::Matrix(Expr::zero(named(rows), named(cols))),
            AstNode::Rotation(distance, head) => match head.or(assigned.turned) {
                Some(head) => Meaning::Matrix(self.rotation(ast, *distance, head, assigned)?),
                None => {
                    // What is wrong whoever's it is, is said before the head is known.
                    self.rotation(ast, *distance, FIRST, assigned)?;
                    Meaning::Rotations
                }
            },
            AstNode::Symbol { name, index } => {
                Meaning::Matrix(self.symbol(ast, name, *index, assigned)?)
            }
            AstNode::Negative(x) => {
                let minus = Rational::from_integer(-1);
                match self.meaning(x, assigned)? {
                    Meaning::Number(x) => Meaning::Number(-x),
                    Meaning::Identity(x) => Meaning::Identity(-x),
                    Meaning::Rotations => Meaning::Rotations,
                    Meaning::Matrix(e) => Meaning::Matrix(e.try_scale(minus).map_err(at)?),
                }
            }
            AstNode::Transpose(x) => match self.meaning(x, assigned)? {
                Meaning::Matrix(e) => Meaning::Matrix(e.t()),
                symmetric @ (Meaning::Number(_) | Meaning::Identity(_)) => symmetric,
                Meaning::Rotations => Meaning::Rotations,
            },
            AstNode::Inverse(x) => {
                let inverse = self.matrix(x, assigned, None)?.inverse();
                let message = "only a `scale` has an inverse here";
                Meaning::Matrix(inverse.ok_or_else(|| error(self.text, ast.span.clone(), message))?)
            }
            AstNode::Product(factors) => self.product(factors, assigned)?,
            AstNode::Sum(terms) => self.sum(terms, assigned)?,
            AstNode::Select(x, row, col) => {
                let mut e = self.matrix(x, assigned, None)?;
                if let Some(i) = *row {
                    e = self.row(ast, e, i, "row")?;
                }
                if let Some(j) = *col {
                    e = self.row(ast, e.t(), j, "column")?.t();
                }
                Meaning::Matrix(e)
            }
            AstNode::Stack(parts) => {
                let mut matrices = Vec::new();
                for part in parts {
                    let e = self.matrix(part, assigned, None)?;
                    if let Some(first) = matrices.first().map(Expr::cols)
                        && first != e.cols()
                    {
                        let message = format!(
                            "the stack's parts have {first} columns above, {} here",
                            e.cols()
                        );
                        return Err(error(self.text, part.span.clone(), message));
                    }
                    matrices.push(e);
                }
                Meaning::Matrix(try_stack(&matrices).map_err(at)?)
            }
            AstNode::SumOver(x) => {
                let mut axes = Vec::new();
                x.wildcards(&mut axes);
                if axes.is_empty() {
                    let message = "there is no `*` to sum over, as in `sum(W_OV[0.*])`";
                    return Err(error(self.text, ast.span.clone(), message));
                }
                let values =
                    self.members(&axes, &ast.span, assigned.turned, |a| self.meaning(x, a))?;
                if values.iter().any(Meaning::open) {
                    return Ok(Meaning::Rotations);
                }
                let matrix = |value| self.shaped(value, x, assigned, None);
                let members = values.into_iter().map(matrix);
                let members: Vec<Expr> = members.collect::<Result<_>>()?;
                let mut members = members.into_iter();
                let first = members.next().expect("an axis is not empty");
                let sum = members.try_fold(first, |a, b| a.try_add(&b));
                Meaning::Matrix(sum.map_err(|e| match e {
                    Mismatch::Sum { .. } => {
                        let message = "the members that `*` stands for have different spaces";
                        error(self.text, x.span.clone(), message)
                    }
                    e => at(e),
                })?)
            }
        })
    }

    fn row(&self, ast: &Ast, e: Expr, index: i64, what: &str) -> Result<Expr> {
        let size = e.rows().size(self.dims) as i64;
        let resolved = if index < 0 { index + size } else { index };
        if !(0..size).contains(&resolved) {
            let message = format!("{what} {index} is out of range: {} has {size}", e.rows());
            return Err(error(self.text, ast.span.clone(), message));
        }
        let (mut space, mut i) = (e.rows().clone(), resolved);
        let mut selected = e;
        // In a stack, the part that the row falls into.
        while let Space::Stack(parts) = &space {
            let mut part = 0;
            while i >= parts[part].size(self.dims) as i64 {
                i -= parts[part].size(self.dims) as i64;
                part += 1;
            }
            let stack = parts.clone();
            let next = parts[part].clone();
            let J = Expr::from(Symbol::Inject { stack, part });
            selected = J.t() * selected;
            space = next;
        }
        Ok(selected.row(i))
    }

    fn product(&self, factors: &[Ast], assigned: &Assignment) -> Result<Meaning> {
        let values = factors.iter().map(|factor| self.meaning(factor, assigned));
        let mut values: Vec<Meaning> = values.collect::<Result<_>>()?;
        // The nearest matrix beside a rotation says which head's it is.
        while let Some(i) = values.iter().position(Meaning::open) {
            let left = values[..i].iter().enumerate().rev();
            let left = left.filter_map(|(n, v)| Some((n, v.shape()?.1))).next();
            let right = values.iter().enumerate().skip(i + 1);
            let right = right.filter_map(|(n, v)| Some((n, v.shape()?.0))).next();
            let (n, space) = match (left, right) {
                (Some(beside), _) | (None, Some(beside)) => beside,
                (None, None) => return Ok(Meaning::Rotations),
            };
            let Space::Head(head) = space else {
                let (this, beside) = (self.text_of(&factors[i]), self.text_of(&factors[n]));
                let side = if n < i { "columns" } else { "rows" };
                let message = format!(
                    "`{this}` turns a head's space, `{beside}` beside it has {space} {side}"
                );
                return Err(error(self.text, factors[i].span.clone(), message));
            };
            values[i] = self.meaning(&factors[i], &assigned.turning(head))?;
        }
        let mut values = factors.iter().zip(values).enumerate();
        let (_, (_, mut left)) = values.next().expect("a product has factors");
        for (i, (factor, right)) in values {
            let at = |e: Mismatch| error(self.text, factor.span.clone(), e);
            left = match (left, right) {
                (Meaning::Number(x), Meaning::Number(y)) => {
                    let product = num_traits::CheckedMul::checked_mul(&x, &y);
                    Meaning::Number(product.ok_or_else(|| at(Mismatch::Coefficient))?)
                }
                (Meaning::Number(x) | Meaning::Identity(x), Meaning::Matrix(e))
                | (Meaning::Matrix(e), Meaning::Number(x) | Meaning::Identity(x)) => {
                    Meaning::Matrix(e.try_scale(x).map_err(at)?)
                }
                (
                    Meaning::Number(x) | Meaning::Identity(x),
                    Meaning::Identity(y) | Meaning::Number(y),
                ) => {
                    let product = num_traits::CheckedMul::checked_mul(&x, &y);
                    Meaning::Identity(product.ok_or_else(|| at(Mismatch::Coefficient))?)
                }
                (Meaning::Matrix(a), Meaning::Matrix(b)) => match a.try_mul(&b) {
                    Ok(product) => Meaning::Matrix(product),
                    Err(e) => {
                        let turned = [*a.rows() == *b.rows(), a.cols() == b.cols()];
                        return Err(self.mismatch(e, &factors[i - 1], factor, turned));
                    }
                },
                (Meaning::Rotations, _) | (_, Meaning::Rotations) => {
                    unreachable!("no rotation is left whose head is not known")
                }
            };
        }
        Ok(left)
    }

    fn sum(&self, terms: &[Ast], assigned: &Assignment) -> Result<Meaning> {
        let values = terms.iter().map(|term| self.meaning(term, assigned));
        let mut values: Vec<Meaning> = values.collect::<Result<_>>()?;
        let known = values.iter().find_map(Meaning::shape);
        for (value, term) in values.iter_mut().zip(terms) {
            if value.open() {
                let Some(known) = &known else {
                    return Ok(Meaning::Rotations);
                };
                let shaped = self.shaped(Meaning::Rotations, term, assigned, Some(known))?;
                *value = Meaning::Matrix(shaped);
            }
        }
        let mut values = terms.iter().zip(values).enumerate();
        let (_, (_, mut left)) = values.next().expect("a sum has terms");
        for (i, (term, right)) in values {
            let at = |e: Mismatch| error(self.text, term.span.clone(), e);
            let shape = |e: &Expr| (e.rows().clone(), e.cols().clone());
            let add = |x: Rational, y: Rational| {
                let sum = num_traits::CheckedAdd::checked_add(&x, &y);
                sum.ok_or_else(|| at(Mismatch::Coefficient))
            };
            left = match (left, right) {
                (Meaning::Number(x), Meaning::Number(y)) => Meaning::Number(add(x, y)?),
                (Meaning::Identity(x), Meaning::Identity(y)) => Meaning::Identity(add(x, y)?),
                (Meaning::Number(x), Meaning::Identity(y))
                | (Meaning::Identity(y), Meaning::Number(x)) => {
                    if x != Rational::from_integer(0) {
                        let message = "a number cannot be added to `I`; write a multiple of `I`";
                        return Err(error(self.text, term.span.clone(), message));
                    }
                    Meaning::Identity(y)
                }
                (Meaning::Matrix(a), b) => {
                    let b = self.shaped(b, term, assigned, Some(&shape(&a)))?;
                    match a.try_add(&b) {
                        Ok(sum) => Meaning::Matrix(sum),
                        Err(e) => {
                            let turned = (b.cols(), b.rows()) == (a.rows(), a.cols());
                            return Err(self.mismatch(e, &terms[i - 1], term, [false, turned]));
                        }
                    }
                }
                (a, Meaning::Matrix(b)) => {
                    let a = self.shaped(a, &terms[i - 1], assigned, Some(&shape(&b)))?;
                    Meaning::Matrix(a.try_add(&b).map_err(at)?)
                }
                (Meaning::Rotations, _) | (_, Meaning::Rotations) => {
                    unreachable!("no rotation is left whose head is not known")
                }
            };
        }
        Ok(left)
    }

    fn symbol(
        &self,
        ast: &Ast,
        name: &str,
        index: Option<Index>,
        assigned: &Assignment,
    ) -> Result<Expr> {
        let layer = |l: Option<usize>| match l {
            Some(l) => l,
            None => match assigned.to(Index::Layer(None)) {
                Assigned::Layer(l) => l,
                Assigned::Head(_) | Assigned::Distance(_) => {
                    unreachable!("an axis of layers has layers")
                }
            },
        };
        let expr = match index {
            None => Symbol::alone(name).map(Expr::from),
            Some(Index::Layer(l)) => Symbol::by_layer(name, layer(l)).map(Expr::from),
            Some(Index::NormOf(l, module)) => {
                let site = NormSite::of_module(&format!("blocks.{}.{module}", layer(l)));
                let site = site.expect("the parser knows the modules");
                Symbol::by_site(name, site).map(Expr::from)
            }
            Some(Index::Norm(site)) => Symbol::by_site(name, site).map(Expr::from),
            Some(Index::Distance(..) | Index::AnyDistance) => {
                unreachable!("only rotations have distances")
            }
            Some(Index::Head(l, h)) => {
                let head = match (l, h) {
                    (Some(layer), Some(head)) => Head { layer, head },
                    _ => match assigned.to(Index::Head(l, h)) {
                        Assigned::Head(head) => head,
                        Assigned::Layer(_) | Assigned::Distance(_) => {
                            unreachable!("an axis of heads has heads")
                        }
                    },
                };
                match name {
                    "W_QK" => Some(W_QK(head)),
                    "W_OV" => Some(W_OV(head)),
                    _ => Symbol::by_head(name, head).map(Expr::from),
                }
            }
        };
        let expr = expr.expect("the parser knows the name and its index");
        let absent = expr.symbols().into_iter().find_map(|s| s.absent(self.dims));
        match absent {
            Some(message) => Err(error(self.text, ast.span.clone(), message)),
            None => Ok(expr.grouped(self.dims)),
        }
    }

    /// The rotation of a head's space by a distance.
    fn rotation(
        &self,
        ast: &Ast,
        distance: Index,
        head: Head,
        assigned: &Assignment,
    ) -> Result<Expr> {
        let n = match distance {
            Index::Distance(n, last) if n == last => n,
            axis => match assigned.to(axis) {
                Assigned::Distance(n) => n,
                Assigned::Layer(_) | Assigned::Head(_) => {
                    unreachable!("an axis of distances has distances")
                }
            },
        };
        let symbol = Symbol::R(head, n);
        match symbol.absent(self.dims) {
            Some(message) => Err(error(self.text, ast.span.clone(), message)),
            None => Ok(Expr::from(symbol.grouped(self.dims))),
        }
    }
}
