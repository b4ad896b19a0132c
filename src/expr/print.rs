//! [`Expr`] to text that parses back to it.

use super::normal::{Expr, Factor, Product, Rational};
use super::space::Space;
use super::symbol::Symbol;
use std::collections::BTreeMap;
use std::fmt;

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut terms: Vec<(Rational, String)> = Vec::new();
        let one = Rational::from_integer(1);
        // Stacks first: their parts are gathered from all the terms that begin with a place in them.
        let mut stacks: BTreeMap<(bool, Vec<Space>), Vec<Expr>> = BTreeMap::new();
        for (product, coefficient) in self.terms() {
            let (first, last) = (product.first(), product.last());
            let inject = |f: Option<&Factor>, transposed: bool| {
                f.filter(|f| f.transposed == transposed)
                    .and_then(|f| match &f.symbol {
                        Symbol::Inject { stack, part } => Some((stack.clone(), *part)),
                        _ => None,
                    })
            };
            let (turned, (stack, part), inner) = if let Some(place) = inject(first, false) {
                (false, place, product[1..].to_vec())
            } else if let Some(place) = inject(last, true) {
                let inner: Product = product[..product.len() - 1].to_vec();
                (true, place, inner)
            } else {
                terms.push((*coefficient, product_text(product, self.rows())));
                continue;
            };
            let (rows, cols) = if turned {
                (self.cols(), self.rows())
            } else {
                (self.rows(), self.cols())
            };
            debug_assert_eq!(*rows, Space::Stack(stack.clone()));
            let parts = stacks
                .entry((turned, stack))
                .or_insert_with_key(|(_, stack)| {
                    let zero = |space: &Space| Expr::zero(space.clone(), cols.clone());
                    stack.iter().map(zero).collect()
                });
            let part = &mut parts[part];
            let inner = Expr::of_product(inner, *coefficient, part, turned);
            *part = &*part + inner;
        }
        for ((turned, _), parts) in stacks {
            let parts: Vec<String> = parts.iter().map(Expr::to_string).collect();
            let turn = if turned { "^T" } else { "" };
            terms.push((one, format!("[{}]{turn}", parts.join("; "))));
        }
        if terms.is_empty() {
            return match (self.rows(), self.cols()) {
                (Space::One, Space::One) => f.write_str("0"),
                (rows, cols) => write!(f, "0[{rows}, {cols}]"),
            };
        }
        for (i, (coefficient, text)) in terms.iter().enumerate() {
            let negative = *coefficient < Rational::from_integer(0);
            match (i, negative) {
                (0, true) => f.write_str("-")?,
                (0, false) => {}
                (_, true) => f.write_str(" - ")?,
                (_, false) => f.write_str(" + ")?,
            }
            let size = if negative { -coefficient } else { *coefficient };
            match (size == one, text.is_empty()) {
                (true, true) => f.write_str("1")?,
                (true, false) => f.write_str(text)?,
                (false, true) => write!(f, "{size}")?,
                (false, false) => write!(f, "{size} {text}")?,
            }
        }
        Ok(())
    }
}

impl Expr {
    /// A simplified product with its coefficient as a part of a stack, turned where the stack stands on the
    /// right.
    fn of_product(product: Product, coefficient: Rational, part: &Expr, turned: bool) -> Expr {
        let (rows, cols) = (part.rows().clone(), part.cols().clone());
        let start = if turned { cols } else { rows };
        let product = product
            .into_iter()
            .fold(Expr::identity(start), |e, factor| e * Expr::factor(factor));
        let scaled = product.scale(coefficient);
        if turned { scaled.t() } else { scaled }
    }
}

/// The empty text for the number 1.
fn product_text(product: &[Factor], rows: &Space) -> String {
    if product.is_empty() {
        return match rows {
            Space::One => String::new(),
            space => format!("I[{space}]"),
        };
    }
    let mut words = Vec::new();
    let mut i = 0;
    while i < product.len() {
        let unit = |f: &Factor, transposed: bool| match &f.symbol {
            Symbol::Unit(space, index) if f.transposed == transposed => {
                Some((space.clone(), *index))
            }
            _ => None,
        };
        // A row's number stands before the factor that it is a row of …
        let row = unit(&product[i], true);
        i += usize::from(row.is_some());
        let first = i;
        let (word, taken) = match product.get(i) {
            Some(f) if unit(f, true).is_none() && unit(f, false).is_none() => {
                let (word, taken) = folded(&product[i..]);
                (Some(word), taken)
            }
            _ => (None, 0),
        };
        i += taken;
        // … and a column's behind it.
        let col = product.get(i).and_then(|f| unit(f, false));
        i += usize::from(col.is_some());
        // What stands beside a rotation says which head's it is; not, what is selected of it.
        let by_neighbours = row.is_none() && col.is_none() && product.len() > 1;
        let word = match product.get(first) {
            Some(Factor {
                symbol: Symbol::R(_, n),
                ..
            }) if by_neighbours => Some(format!("R[{n}]")),
            _ => word,
        };
        let word = word.unwrap_or_else(|| {
            let (space, _) = row
                .as_ref()
                .or(col.as_ref())
                .expect("a unit vector at least");
            format!("I[{space}]")
        });
        words.push(match (row, col) {
            (Some((_, i)), Some((_, j))) => format!("{word}[{i},{j}]"),
            (Some((_, i)), None) => format!("{word}[{i}]"),
            (None, Some((_, j))) => format!("{word}[:,{j}]"),
            (None, None) => word,
        });
    }
    words.join(" ")
}

/// The first factor, or the two that make up a `W_QK` or `W_OV`, and how many were taken.
fn folded(product: &[Factor]) -> (String, usize) {
    if let [a, b, ..] = product {
        let turned = (a.transposed, b.transposed);
        let whole = match (&a.symbol, &b.symbol, turned) {
            (Symbol::WQ(h), Symbol::WK(g), (false, true)) if h.keys == *g => {
                Some(format!("W_QK[{h}]"))
            }
            (Symbol::WK(g), Symbol::WQ(h), (false, true)) if h.keys == *g => {
                Some(format!("W_QK[{h}]^T"))
            }
            (Symbol::WV(g), Symbol::WO(h), (false, false)) if h.keys == *g => {
                Some(format!("W_OV[{h}]"))
            }
            (Symbol::WO(h), Symbol::WV(g), (true, true)) if h.keys == *g => {
                Some(format!("W_OV[{h}]^T"))
            }
            _ => None,
        };
        if let Some(whole) = whole {
            return (whole, 2);
        }
    }
    let a = &product[0];
    let turn = if a.transposed { "^T" } else { "" };
    let inverse = if a.inverse { "^-1" } else { "" };
    (format!("{}{inverse}{turn}", a.symbol), 1)
}
