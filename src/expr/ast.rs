//! What a text says, before it is known whether it makes sense: every node with its place in the text.

use super::normal::Rational;
use super::space::Space;
use crate::names::{Head, NormSite};
use std::ops::Range;

/// A node and its place in the text, in bytes.
#[derive(Clone, Debug)]
pub(super) struct Ast {
    pub node: AstNode,
    pub span: Range<usize>,
}

/// An index in the brackets behind a name; `None` is a `*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Index {
    Layer(Option<usize>),
    Head(Option<usize>, Option<usize>),
    /// A norm of a layer, by its module's name.
    NormOf(Option<usize>, &'static str),
    /// A norm that stands once.
    Norm(NormSite),
    /// The distances from one to another, both included: more than one are an axis.
    Distance(i64, i64),
    /// Every distance that there is, from 0.
    AnyDistance,
}

#[derive(Clone, Debug)]
pub(super) enum AstNode {
    Number(Rational),
    Symbol {
        name: String,
        index: Option<Index>,
    },
    /// `R[3]`, `R[3,head 1.0]`: its distance, or those that it stands for; and the head whose space it turns, where the
    /// text says it.
    Rotation(Index, Option<Head>),
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
            AstNode::Symbol {
                index: Some(index), ..
            }
            | AstNode::Rotation(index, _) => {
                let axis = index.axis();
                into.extend(axis.filter(|a| !into.contains(a)));
            }
            AstNode::Negative(x)
            | AstNode::Transpose(x)
            | AstNode::Inverse(x)
            | AstNode::Select(x, ..) => x.wildcards(into),
            AstNode::Sum(all) | AstNode::Product(all) | AstNode::Stack(all) => {
                all.iter().for_each(|x| x.wildcards(into));
            }
            AstNode::Symbol { index: None, .. }
            | AstNode::Number(_)
            | AstNode::Identity(_)
            | AstNode::Ones(_)
            | AstNode::Zero(..)
            | AstNode::SumOver(_) => {}
        }
    }
}

impl Index {
    /// What the index runs over, if it is more than one: layers, some of the heads, or distances.
    pub fn axis(self) -> Option<Index> {
        match self {
            Index::Layer(None) | Index::NormOf(None, _) => Some(Index::Layer(None)),
            Index::Head(None, _) | Index::Head(_, None) | Index::AnyDistance => Some(self),
            Index::Distance(first, last) => (first != last).then_some(self),
            Index::Layer(Some(_))
            | Index::Head(Some(_), Some(_))
            | Index::NormOf(Some(_), _)
            | Index::Norm(_) => None,
        }
    }
}
