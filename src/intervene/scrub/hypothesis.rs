//! Hypotheses: which activations the output depends on, and which inputs they do not tell apart.

use super::site::Piece;
use crate::error::{Error, Result};
use crate::intervene::Part;
use crate::model::{Config, Tokens};
use crate::names::Hook;
use crate::tensor::Scalar;
use std::collections::BTreeMap;

/// Which inputs may stand for each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agree {
    /// Any for any: nothing of the input matters.
    Anything,
    /// None but itself.
    Itself,
    /// Those of the same class: a label for each input.
    Class(Vec<u64>),
}

impl Agree {
    /// Inputs on which a function has the same value.
    ///
    /// ```
    /// use pathsum::intervene::scrub::Agree;
    /// use pathsum::Tokens;
    /// let tokens = Tokens::from_rows(&[[5, 1], [2, 1], [5, 0]]);
    /// assert_eq!(Agree::on(&tokens, |sequence| sequence[0]), Agree::Class(vec![1, 0, 1]));
    /// ```
    pub fn on<K: Ord>(tokens: &Tokens, key: impl Fn(&[i64]) -> K) -> Self {
        let keys = || (0..tokens.batch()).map(|i| key(tokens.sequence(i)));
        let mut label: BTreeMap<K, u64> = keys().map(|key| (key, 0)).collect();
        label
            .values_mut()
            .zip(0..)
            .for_each(|(label, i)| *label = i);
        Agree::Class(keys().map(|key| label[&key]).collect())
    }
}

/// An activation that another depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    hook: Hook,
    part: Part,
    along: Option<Vec<Vec<f64>>>,
    agree: Agree,
    rest: Option<Agree>,
    children: Vec<Node>,
}

impl Node {
    /// A part of a hook's value, which does not tell apart the inputs that agree: it may be taken from any that
    /// agrees with the reference.
    pub fn new(hook: Hook, part: Part, agree: Agree) -> Self {
        Node {
            hook,
            part,
            along: None,
            agree,
            rest: None,
            children: Vec::new(),
        }
    }

    /// Only what of the value lies in the span of these directions, one number for each of the part's units; what
    /// is orthogonal to them is left.
    pub fn along(mut self, directions: Vec<Vec<f64>>) -> Self {
        self.along = Some(directions);
        self
    }

    /// What it depends on: for the child an input is drawn that agrees with this node's own.
    pub fn child(mut self, child: Node) -> Self {
        self.children.push(child);
        self
    }

    /// Where everything that this activation is computed from and no child names is taken from: one input that
    /// agrees with this node's own in this sense.
    ///
    /// Unless said otherwise, from any input where there are children, as nothing else is said to matter; and from
    /// the node's own input where there are none.
    pub fn rest(mut self, rest: Agree) -> Self {
        self.rest = Some(rest);
        self
    }
}

/// A hypothesis on the output: the root of the tree.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hypothesis {
    rest: Option<Agree>,
    children: Vec<Node>,
}

impl Hypothesis {
    /// The output depends on the input.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the output depends on: for the child an input is drawn that agrees with the reference.
    pub fn child(mut self, child: Node) -> Self {
        self.children.push(child);
        self
    }

    /// As [`Node::rest`], the reference being the output's own input.
    pub fn rest(mut self, rest: Agree) -> Self {
        self.rest = Some(rest);
        self
    }

    /// # Errors
    /// When the hypothesis says nothing that can be done on this model and these inputs.
    pub(super) fn check<T: Scalar>(&self, config: &Config, tokens: &Tokens) -> Result<Body<T>> {
        let hooks = config.hooks();
        body(
            &self.rest,
            &self.children,
            ("the output", hooks.len()),
            config,
            tokens,
        )
    }
}

/// A node's inputs, checked.
pub(super) struct Body<T: Scalar> {
    /// What all but the children's values are computed from.
    pub rest: Classes,
    pub children: Vec<Child<T>>,
}

pub(super) struct Child<T: Scalar> {
    pub site: Piece<T>,
    pub agree: Classes,
    pub body: Body<T>,
}

/// Inputs by what they agree on.
pub(super) struct Classes {
    /// Each input's.
    pub of: Vec<usize>,
    /// Each class's inputs, ascending.
    pub members: Vec<Vec<usize>>,
}

impl Classes {
    fn new(agree: &Agree, inputs: usize, whose: &str) -> Result<Self> {
        let of: Vec<usize> = match agree {
            Agree::Anything => vec![0; inputs],
            Agree::Itself => (0..inputs).collect(),
            Agree::Class(labels) if labels.len() != inputs => {
                return Err(Error::Mismatch(format!(
                    "{whose}: {} labels of what inputs agree on, expected {inputs}, as there are inputs",
                    labels.len()
                )));
            }
            Agree::Class(labels) => {
                let mut known = BTreeMap::new();
                let number = |label| {
                    let next = known.len();
                    *known.entry(label).or_insert(next)
                };
                labels.iter().map(number).collect()
            }
        };
        let classes = of.iter().max().map_or(0, |last| last + 1);
        let mut members = vec![Vec::new(); classes];
        of.iter()
            .enumerate()
            .for_each(|(input, &class)| members[class].push(input));
        Ok(Classes { of, members })
    }

    /// The inputs that agree with one.
    pub fn agreeing(&self, input: usize) -> &[usize] {
        &self.members[self.of[input]]
    }
}

/// `own` is the node's name, and its place in the forward pass.
fn body<T: Scalar>(
    rest: &Option<Agree>,
    children: &[Node],
    own: (&str, usize),
    config: &Config,
    tokens: &Tokens,
) -> Result<Body<T>> {
    let inputs = tokens.batch();
    let usual = match children.is_empty() {
        true => Agree::Itself,
        false => Agree::Anything,
    };
    let mut checked: Vec<Child<T>> = Vec::new();
    for node in children {
        let hook = node.hook;
        let Some(place) = config.hooks().iter().position(|h| *h == hook) else {
            return Err(Error::NotInModel(format!("`{hook}`")));
        };
        let name = format!("`{hook}`");
        if place >= own.1 {
            return Err(Error::NotUpstream(format!(
                "{} does not depend on {name}, which is not before it",
                own.0
            )));
        }
        let site = Piece::new(
            config,
            hook,
            &node.part,
            node.along.as_deref(),
            tokens.pos(),
        )?;
        if checked.iter().any(|other| other.site.overlaps(&site)) {
            return Err(Error::Experiment(format!(
                "two nodes below {} take the same part of {name}, or directions that are not orthogonal",
                own.0
            )));
        }
        checked.push(Child {
            site,
            agree: Classes::new(&node.agree, inputs, &name)?,
            body: body(&node.rest, &node.children, (&name, place), config, tokens)?,
        });
    }
    Ok(Body {
        rest: Classes::new(rest.as_ref().unwrap_or(&usual), inputs, own.0)?,
        children: checked,
    })
}
