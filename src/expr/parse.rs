//! Text to [`Ast`]: a recursive descent over the grammar of `docs/expressions.md`.

use super::ast::{Ast, AstNode, Index};
use super::normal::Rational;
use super::space::Space;
use super::symbol::{Indexed, Symbol};
use crate::error::{Error, Result, nearest_hint};
use crate::names::{Head, NormSite};
use std::ops::Range;

/// Deeper nesting than this is no circuit; and the descent's stack is finite.
const MAX_DEPTH: usize = 64;

/// An error at a place of the text.
pub(super) fn error(text: &str, span: Range<usize>, message: impl ToString) -> Error {
    // Of a long text the part that the place is in.
    const AROUND: usize = 60;
    let boundary = |mut i: usize| {
        while !text.is_char_boundary(i) {
            i -= 1;
        }
        i
    };
    let start = boundary(span.start.saturating_sub(AROUND));
    let end = boundary((span.end.min(span.start + AROUND) + AROUND).min(text.len()));
    // On one line, whatever was typed, so that the carets stand below it.
    let blank = |c: char| {
        if c.is_control() {
            " ".repeat(c.len_utf8())
        } else {
            c.to_string()
        }
    };
    Error::Expression {
        text: text[start..end].chars().map(blank).collect(),
        span: span.start - start..span.end.min(end) - start,
        message: message.to_string().replace(char::is_control, " "),
    }
}

/// Reads one expression.
pub(super) fn parse(text: &str) -> Result<Ast> {
    let mut parser = Parser::new(text);
    let ast = parser.sum()?;
    parser.end()?;
    Ok(ast)
}

/// Reads `LHS == RHS`.
pub(super) fn parse_statement(text: &str) -> Result<(Ast, Ast)> {
    let mut parser = Parser::new(text);
    let left = parser.sum()?;
    if !parser.eat("==") {
        let at = parser.here();
        return Err(parser.fail(at, "expected `==` and the other side of the statement"));
    }
    let right = parser.sum()?;
    parser.end()?;
    Ok((left, right))
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn new(text: &'t str) -> Self {
        Parser {
            text,
            at: 0,
            depth: 0,
        }
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// The next character's place.
    fn here(&self) -> Range<usize> {
        let next = self.rest().chars().next();
        self.at..self.at + next.map_or(0, char::len_utf8)
    }

    /// Takes a token if it comes next, spaces before it skipped.
    fn eat(&mut self, token: &str) -> bool {
        let start = self.at;
        self.space();
        let there = self.rest().starts_with(token);
        if there {
            self.at += token.len();
        } else {
            self.at = start;
        }
        there
    }

    fn fail(&self, span: Range<usize>, message: impl ToString) -> Error {
        error(self.text, span, message)
    }

    fn expect(&mut self, token: &str, what: &str) -> Result<()> {
        if self.eat(token) {
            return Ok(());
        }
        self.space();
        Err(self.fail(self.here(), format!("expected `{token}` {what}")))
    }

    fn end(&mut self) -> Result<()> {
        self.space();
        if self.rest().is_empty() {
            return Ok(());
        }
        let message = if self.rest().starts_with('=') {
            "one expression was expected; statements `LHS == RHS` are for `prove`"
        } else {
            "expected an operator, a factor, or the end"
        };
        Err(self.fail(self.here(), message))
    }

    fn spanned(&self, start: usize, node: AstNode) -> Ast {
        Ast {
            node,
            span: start..self.at,
        }
    }

    fn sum(&mut self) -> Result<Ast> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.fail(
                self.here(),
                format!("nested deeper than {MAX_DEPTH} levels"),
            ));
        }
        self.space();
        let start = self.at;
        let mut terms = vec![self.term()?];
        loop {
            self.space();
            let sign = self.at;
            if self.eat("+") {
                terms.push(self.term()?);
            } else if self.eat("-") || self.eat("−") {
                let term = self.term()?;
                terms.push(self.spanned(sign, AstNode::Negative(Box::new(term))));
            } else {
                break;
            }
        }
        self.depth -= 1;
        Ok(match terms.len() {
            1 => terms.remove(0),
            _ => {
                let span = start..terms.last().map_or(start, |t| t.span.end);
                let node = AstNode::Sum(terms);
                Ast { node, span }
            }
        })
    }

    fn term(&mut self) -> Result<Ast> {
        self.space();
        let start = self.at;
        if self.eat("-") || self.eat("−") {
            let term = self.product()?;
            return Ok(self.spanned(start, AstNode::Negative(Box::new(term))));
        }
        self.product()
    }

    fn product(&mut self) -> Result<Ast> {
        self.space();
        let start = self.at;
        let mut factors = vec![self.factor()?];
        loop {
            let before = self.at;
            if self.eat("/") {
                self.space();
                let at = self.at;
                let divisor = self.number()?;
                let zero = divisor == Rational::from_integer(0);
                if zero {
                    return Err(self.fail(at..self.at, "division by zero"));
                }
                let node = AstNode::Number(divisor.recip());
                factors.push(self.spanned(at, node));
                continue;
            }
            let operator = ["·", "*", "@", "⋅"].iter().any(|token| self.eat(token));
            self.space();
            let begins = |c: char| c.is_alphanumeric() || "([".contains(c);
            if operator || self.rest().starts_with(begins) {
                factors.push(self.factor()?);
            } else {
                self.at = before;
                break;
            }
        }
        Ok(match factors.len() {
            1 => factors.remove(0),
            _ => self.spanned(start, AstNode::Product(factors)),
        })
    }

    /// An atom with what stands behind it.
    fn factor(&mut self) -> Result<Ast> {
        self.space();
        let start = self.at;
        let mut ast = self.atom()?;
        loop {
            let boxed = |ast| Box::new(ast);
            if self.eat("^T") || self.eat("ᵀ") {
                ast = self.spanned(start, AstNode::Transpose(boxed(ast)));
            } else if self.eat("^-1") || self.eat("⁻¹") {
                ast = self.spanned(start, AstNode::Inverse(boxed(ast)));
            } else if self.rest().starts_with('[') {
                let (rows, cols) = self.selection()?;
                ast = self.spanned(start, AstNode::Select(boxed(ast), rows, cols));
            } else if self.eat("^") {
                let span = self.at - 1..self.here().end;
                return Err(self.fail(span, "expected `^T` (transpose) or `^-1` (of a scale)"));
            } else {
                return Ok(ast);
            }
        }
    }

    fn atom(&mut self) -> Result<Ast> {
        self.space();
        let start = self.at;
        let next = self.rest().chars().next();
        let node = match next {
            Some('(') => {
                self.at += 1;
                let inner = self.sum()?;
                self.expect(")", "to close the parenthesis")?;
                // Its place is that of the parenthesis, for whoever points at it.
                return Ok(self.spanned(start, inner.node));
            }
            Some('[') => {
                self.at += 1;
                let mut parts = vec![self.sum()?];
                while self.eat(";") {
                    parts.push(self.sum()?);
                }
                let closed = self.expect("]", "or `;` and another part of the stack");
                closed?;
                AstNode::Stack(parts)
            }
            Some(c) if c.is_ascii_digit() => {
                let number = self.number()?;
                let zero = number == Rational::from_integer(0);
                if zero && self.rest().starts_with('[') {
                    self.at += 1;
                    let rows = self.space_name()?;
                    self.expect(",", "and the space of the columns")?;
                    let cols = self.space_name()?;
                    self.expect("]", "to close the zero's spaces")?;
                    AstNode::Zero(rows, cols)
                } else {
                    AstNode::Number(number)
                }
            }
            Some(c) if c.is_ascii_alphabetic() => self.named()?,
            Some(_) => {
                return Err(self.fail(
                    self.here(),
                    "expected a matrix, a number, `(`, or a stack `[A; B]`",
                ));
            }
            None => return Err(self.fail(self.here(), "the expression ends too early")),
        };
        Ok(self.spanned(start, node))
    }

    fn digits(&mut self) -> &'t str {
        let rest = self.rest();
        let len = rest.bytes().take_while(u8::is_ascii_digit).count();
        self.at += len;
        &rest[..len]
    }

    fn number(&mut self) -> Result<Rational> {
        let start = self.at;
        let whole = self.digits();
        let mut fraction = "";
        if self.rest().starts_with('.') {
            self.at += 1;
            fraction = self.digits();
        }
        let digits = format!("{whole}{fraction}");
        // Eighteen digits leave room for the products of two.
        const MAX_DIGITS: usize = 18;
        let ten = 10i128;
        match digits.parse::<i128>() {
            Ok(n) if digits.len() <= MAX_DIGITS => {
                Ok(Rational::new(n, ten.pow(fraction.len() as u32)))
            }
            _ => Err(self.fail(
                start..self.at.max(start + 1),
                format!("expected a number of at most {MAX_DIGITS} digits"),
            )),
        }
    }

    fn word(&mut self) -> &'t str {
        let rest = self.rest();
        let len = rest
            .bytes()
            .take_while(|b| b.is_ascii_alphanumeric() || *b == b'_')
            .count();
        self.at += len;
        &rest[..len]
    }

    fn named(&mut self) -> Result<AstNode> {
        let start = self.at;
        let name = self.word();
        let bracket = self.rest().starts_with('[');
        let space = |parser: &mut Self| {
            // `I[:,0]` asks for a column of an identity whose space is not known.
            let inner = parser.rest().strip_prefix('[');
            let named =
                inner.is_some_and(|r| r.starts_with(|c: char| c.is_alphabetic() || c == '['));
            if !named {
                return Ok(None);
            }
            parser.at += 1;
            let space = parser.space_name()?;
            parser.expect("]", "to close the space")?;
            Result::Ok(Some(space))
        };
        match name {
            "I" => return Ok(AstNode::Identity(space(self)?)),
            "ones" => return Ok(AstNode::Ones(space(self)?)),
            "R" => return self.rotation(start, bracket),
            "sum" => {
                self.expect("(", "and what to sum over its `*`")?;
                let inner = self.sum()?;
                self.expect(")", "to close the sum")?;
                return Ok(AstNode::SumOver(Box::new(inner)));
            }
            _ => {}
        }
        let composed = matches!(name, "W_QK" | "W_OV");
        let is = |indexed| Symbol::names(indexed).contains(&name);
        let index = if is(Indexed::Alone) {
            None
        } else if composed || is(Indexed::ByHead) {
            let example = format!("`{name}` needs a head: `{name}[0.0]`, or `{name}[0.*]` for all");
            Some(self.index(start, bracket, &example, Self::head)?)
        } else if is(Indexed::ByLayer) {
            let example = format!("`{name}` needs a layer: `{name}[0]`, or `{name}[*]` for all");
            Some(self.index(start, bracket, &example, Self::layer)?)
        } else if is(Indexed::BySite) {
            let example = format!("`{name}` needs a norm: `{name}[0,ln1]` or `{name}[ln_final]`");
            Some(self.index(start, bracket, &example, Self::site)?)
        } else {
            let all = [
                Indexed::Alone,
                Indexed::ByLayer,
                Indexed::ByHead,
                Indexed::BySite,
            ];
            let known = all.into_iter().flat_map(Symbol::names).copied();
            let hint = nearest_hint(name, known.chain(["W_QK", "W_OV", "R", "ones", "sum"]));
            let message = format!("there is no matrix called `{name}`{hint}");
            return Err(self.fail(start..self.at, message));
        };
        let name = name.to_string();
        Ok(AstNode::Symbol { name, index })
    }

    /// What stands behind an `R`: `[3]`, `[-3]`, `[0..15]`, `[*]`, and perhaps the head whose space it turns.
    fn rotation(&mut self, start: usize, bracket: bool) -> Result<AstNode> {
        let message = "`R` needs a distance: `R[3]`, or `R[0..15]` for several; with the head whose space it turns \
                       where nothing beside it says that, `R[3,head 1.0]`";
        let distance = self.open_index(start, bracket, message, Self::distance)?;
        let head = match self.eat(",").then(|| self.space_name()).transpose()? {
            None => None,
            Some(Space::Head(head)) => Some(head),
            Some(_) => return Err(self.fail(start..self.at, message)),
        };
        self.expect("]", "to close the index")?;
        Ok(AstNode::Rotation(distance, head))
    }

    fn distance(&mut self) -> Option<Index> {
        if self.eat("*") {
            return Some(Index::AnyDistance);
        }
        let first = self.integer()?;
        let last = if self.eat("..") {
            self.integer()?
        } else {
            first
        };
        (first <= last).then_some(Index::Distance(first, last))
    }

    /// Digits, with a minus before them or not.
    fn integer(&mut self) -> Option<i64> {
        let negative = self.eat("-") || self.eat("−");
        self.space();
        let digits: i64 = self.digits().parse().ok()?;
        Some(if negative { -digits } else { digits })
    }

    fn index(
        &mut self,
        start: usize,
        bracket: bool,
        message: &str,
        read: fn(&mut Self) -> Option<Index>,
    ) -> Result<Index> {
        let index = self.open_index(start, bracket, message, read)?;
        self.expect("]", "to close the index")?;
        Ok(index)
    }

    /// What the index is, its bracket not closed yet.
    fn open_index(
        &mut self,
        start: usize,
        bracket: bool,
        message: &str,
        read: fn(&mut Self) -> Option<Index>,
    ) -> Result<Index> {
        if !bracket {
            return Err(self.fail(start..self.at, message));
        }
        self.at += 1;
        let Some(index) = read(self) else {
            let rest = self.text[start..]
                .find(']')
                .map_or(self.text.len(), |i| start + i + 1);
            return Err(self.fail(start..rest, message));
        };
        Ok(index)
    }

    /// A number or a `*`.
    fn star(&mut self) -> Option<Option<usize>> {
        if self.eat("*") {
            return Some(None);
        }
        self.space();
        self.digits().parse().ok().map(Some)
    }

    fn layer(&mut self) -> Option<Index> {
        self.star().map(Index::Layer)
    }

    fn head(&mut self) -> Option<Index> {
        let layer = self.star()?;
        self.eat(".").then_some(())?;
        Some(Index::Head(layer, self.star()?))
    }

    fn site(&mut self) -> Option<Index> {
        let once = [NormSite::Final, NormSite::Embed];
        if let Some(site) = once.into_iter().find(|site| self.eat(&site.module())) {
            return Some(Index::Norm(site));
        }
        let layer = self.star()?;
        self.eat(",").then_some(())?;
        self.space();
        let word = self.word();
        let norms = ["ln1", "ln2", "ln1_post", "ln2_post"];
        let module = norms.into_iter().find(|own| *own == word);
        module.map(|module| Index::NormOf(layer, module))
    }

    fn space_name(&mut self) -> Result<Space> {
        self.depth += 1;
        self.space();
        let start = self.at;
        if self.depth <= MAX_DEPTH && self.eat("[") {
            let mut parts = vec![self.space_name()?];
            while self.eat(";") {
                parts.push(self.space_name()?);
            }
            self.expect("]", "to close the stack of spaces")?;
            self.depth -= 1;
            return Ok(Space::Stack(parts));
        }
        self.depth -= 1;
        let space = match self.word() {
            "vocab" => Some(Space::Vocab),
            "pos" => Some(Space::Pos),
            "model" => Some(Space::Model),
            "out" => Some(Space::Out),
            "one" => Some(Space::One),
            "mlp" => match self.star() {
                Some(Some(layer)) => Some(Space::Mlp(layer)),
                _ => None,
            },
            "head" => match self.head() {
                Some(Index::Head(Some(layer), Some(head))) => {
                    Some(Space::Head(Head { layer, head }))
                }
                _ => None,
            },
            _ => None,
        };
        space.ok_or_else(|| {
            let span = start..self.at.max(self.here().end);
            self.fail(
                span,
                "expected a space: vocab, pos, model, head 0.0, mlp 0, out or one",
            )
        })
    }

    /// `[i]`, `[:,j]`, `[i,:]`, `[i,j]`
    fn selection(&mut self) -> Result<(Option<i64>, Option<i64>)> {
        let start = self.at;
        self.at += 1;
        let one = |parser: &mut Self| {
            if parser.eat(":") {
                return Some(None);
            }
            parser.integer().map(Some)
        };
        let both = |parser: &mut Self| {
            let rows = one(parser)?;
            let cols = if parser.eat(",") { one(parser)? } else { None };
            parser.eat("]").then_some((rows, cols))
        };
        both(self).ok_or_else(|| {
            let end = self.text[start..]
                .find(']')
                .map_or(self.text.len(), |i| start + i + 1);
            self.fail(
                start..end,
                "expected a selection: a row `[0]`, a column `[:,0]` or an entry `[0,-1]`",
            )
        })
    }
}
