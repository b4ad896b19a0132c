//! What a text says, before it is known whether it makes sense: every node with its place in the text.

use super::normal::Rational;
use super::space::Space;
use std::ops::Range;

/// A node and its place in the text, in bytes.
#[derive(Clone, Debug)]
pub(super) struct Ast {
    pub node: Node,
    pub span: Range<usize>,
}

/// An index in the brackets behind a name; `None` is a `*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Index {
    Layer(Option<usize>),
    Head(Option<usize>, Option<usize>),
    Ln1(Option<usize>),
    Ln2(Option<usize>),
    LnFinal,
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    Number(Rational),
    Symbol {
        name: String,
        index: Option<Index>,
    },
    /// `I`, `I[model]`
    Identity(Option<Space>),
    /// `ones`, `ones[vocab]`
    Ones(Option<Space>),
    /// `0[vocab, out]`
    Zero(Space, Space),
    Negative(Box<Ast>),
    Sum(Vec<Ast>),
    Product(Vec<Ast>),
    Transpose(Box<Ast>),
    Inverse(Box<Ast>),
    /// `X[i]`, `X[:,j]`, `X[i,j]`; `None` is a `:`.
    Select(Box<Ast>, Option<i64>, Option<i64>),
    /// `[A; B]`
    Stack(Vec<Ast>),
    /// `sum(X)`
    SumOver(Box<Ast>),
}

impl Ast {
    /// The indices with a `*` that are not inside a `sum(…)`, each once, in the order of the text.
    pub fn wildcards(&self, into: &mut Vec<Index>) {
        match &self.node {
            Node::Symbol {
                index: Some(index), ..
            } => {
                let axis = index.axis();
                into.extend(axis.filter(|a| !into.contains(a)));
            }
            Node::Negative(x) | Node::Transpose(x) | Node::Inverse(x) | Node::Select(x, ..) => {
                x.wildcards(into)
            }
            Node::Sum(all) | Node::Product(all) | Node::Stack(all) => {
                all.iter().for_each(|x| x.wildcards(into));
            }
            _ => {}
        }
    }
}

impl Index {
    /// What the index runs over, if it has a `*`: layers, or some of the heads.
    pub fn axis(self) -> Option<Index> {
        match self {
            Index::Layer(None) | Index::Ln1(None) | Index::Ln2(None) => Some(Index::Layer(None)),
            Index::Head(None, _) | Index::Head(_, None) => Some(self),
            _ => None,
        }
    }
}
