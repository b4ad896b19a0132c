//! Expressions and statements, each perhaps one for every head, layer or distance.

use super::normal::{Expr, Mismatch};
use super::parse::{error, parse, parse_statement};
use super::space::{Dims, Space};
use super::typing::{FIRST, Meaning, Typing};
use crate::error::Result;

/// An expression, or one for every head or layer that its `*` stand for.
#[derive(Clone, Debug)]
pub struct Family {
    /// What the members are counted by, from the outermost: empty where there is one member.
    pub axes: Vec<FamilyAxis>,
    /// The members, in the axes' order: `[axes[0].labels, axes[1].labels, …]`, the last fastest.
    pub members: Vec<Expr>,
}

/// What a `*` stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyAxis {
    /// The heads (`0.1`) or layers (`0`).
    pub labels: Vec<String>,
}

impl Family {
    /// Reads an expression, for a model of these sizes.
    ///
    /// # Errors
    /// With the place in the text: where it is not written right, where two spaces do not meet, where the
    /// model has no such matrix.
    pub fn parse(text: &str, dims: &Dims) -> Result<Family> {
        let ast = parse(text)?;
        let typing = Typing { text, dims };
        let mut axes = Vec::new();
        ast.wildcards(&mut axes);
        let members = typing.members(&axes, &ast.span, None, |assigned| {
            typing.matrix(&ast, assigned, None)
        })?;
        Ok(Family {
            axes: typing.axes(&axes),
            members,
        })
    }

    /// A label for a member: `[0.1]`, or nothing where there is one.
    pub fn label(&self, member: usize) -> String {
        label(&self.axes, member)
    }
}

fn label(axes: &[FamilyAxis], mut member: usize) -> String {
    let mut labels = Vec::new();
    for axis in axes.iter().rev() {
        labels.push(axis.labels[member % axis.labels.len()].clone());
        member /= axis.labels.len();
    }
    labels.reverse();
    match labels.is_empty() {
        true => String::new(),
        false => format!("[{}]", labels.join(", ")),
    }
}

/// `LHS == RHS`, for every head or layer that its `*` stand for.
#[derive(Clone, Debug)]
pub struct Statement {
    /// As it was written.
    pub text: String,
    /// What the `*` stand for.
    pub axes: Vec<FamilyAxis>,
    /// The two sides, for each of them.
    pub members: Vec<(Expr, Expr)>,
}

impl Statement {
    /// Reads a statement, for a model of these sizes.
    ///
    /// # Errors
    /// As [`Family::parse`]; or when the two sides have different spaces.
    pub fn parse(text: &str, dims: &Dims) -> Result<Statement> {
        let (left, right) = parse_statement(text)?;
        let typing = Typing { text, dims };
        let mut axes = Vec::new();
        left.wildcards(&mut axes);
        right.wildcards(&mut axes);
        let span = left.span.start..right.span.end;
        let members = typing.members(&axes, &span, None, |assigned| {
            let (l, r) = (
                typing.meaning(&left, assigned)?,
                typing.meaning(&right, assigned)?,
            );
            // `I`, `0` and rotations are of the other side's shape.
            let shape = [&l, &r].into_iter().find_map(Meaning::shape);
            let turned = (Space::Head(FIRST), Space::Head(FIRST));
            let shape = shape.or((l.open() || r.open()).then_some(turned));
            let l = typing.shaped(l, &left, assigned, shape.as_ref())?;
            let r = typing.shaped(r, &right, assigned, shape.as_ref())?;
            match l.try_add(&-&r) {
                Ok(_) => Ok((l, r)),
                Err(Mismatch::Sum { .. }) => {
                    let turned = (r.cols(), r.rows()) == (l.rows(), l.cols());
                    let hint = match turned {
                        true => format!("; did you mean `{}`?", typing.transposed(&right)),
                        false => String::new(),
                    };
                    let message = format!(
                        "the left side is [{}, {}], the right side [{}, {}]{hint}",
                        l.rows(),
                        l.cols(),
                        r.rows(),
                        r.cols()
                    );
                    Err(error(text, right.span.clone(), message))
                }
                Err(e) => Err(error(text, span.clone(), e)),
            }
        })?;
        Ok(Statement {
            text: text.trim().to_string(),
            axes: typing.axes(&axes),
            members,
        })
    }

    /// The statement that two expressions are equal.
    ///
    /// # Panics
    /// When their spaces differ.
    #[track_caller]
    pub fn equal(left: Expr, right: Expr) -> Statement {
        let text = format!("{left} == {right}");
        if let Err(e) = left.try_add(&-&right) {
            panic!("{text}: {e}");
        }
        Statement {
            text,
            axes: Vec::new(),
            members: vec![(left, right)],
        }
    }

    /// A label for a member: `[0.1]`, or nothing where there is one.
    pub fn label(&self, member: usize) -> String {
        label(&self.axes, member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::{Expr, R, Rotary, Rule, W_K, W_O, W_Q, W_V};
    use crate::names::Head;

    fn read(text: &str, dims: &Dims) -> Expr {
        let mut family = Family::parse(text, dims).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(family.members.len(), 1, "{text}");
        family.members.remove(0)
    }

    fn refused(text: &str, dims: &Dims) -> String {
        let error = match text.contains("==") {
            true => Statement::parse(text, dims).map(|_| ()),
            false => Family::parse(text, dims).map(|_| ()),
        };
        let error = error.expect_err(text).to_string();
        error.lines().next().expect("a line").to_string()
    }

    fn grouped() -> Dims {
        Dims {
            n_heads: 4,
            groups: 2,
            ..Dims::default()
        }
    }

    #[test]
    fn rotations_turn_the_space_of_what_stands_beside_them() {
        let dims = Dims::default();
        let h = Head { layer: 1, head: 2 };
        let between = W_Q(h) * R(h, 3) * W_K(h).t();
        for text in [
            "W_Q[1.2] R[3] W_K[1.2]^T",
            "(W_Q[1.2] R[3]) W_K[1.2]^T",
            "W_Q[1.2] (R[3] W_K[1.2]^T)",
            "W_Q[1.2] (R[1] R[2]) W_K[1.2]^T",
            "W_Q[1.2] R[3,head 1.2] W_K[1.2]^T",
            "W_Q[1.2] R[-3]^T W_K[1.2]^T",
            "W_Q[1.2] (2 R[3] - R[3]) W_K[1.2]^T",
            "(W_K[1.2] R[3]^T W_Q[1.2]^T)^T",
        ] {
            assert_eq!(read(text, &dims), between, "{text}");
        }
        assert_eq!(read("W_Q[1.2] R[3]", &dims), W_Q(h) * R(h, 3));
        assert_eq!(
            read("W_Q[1.2] R[0] W_K[1.2]^T", &dims),
            read("W_QK[1.2]", &dims)
        );
        let sum = read("W_Q[1.2] (I - R[1] + 2 R[-1]) W_K[1.2]^T", &dims);
        let turned = Expr::identity(crate::expr::Space::Head(h)) - R(h, 1) + 2 * R(h, -1);
        assert_eq!(sum, W_Q(h) * turned * W_K(h).t());
        // Alone they are those of the first head.
        let first = Head { layer: 0, head: 0 };
        assert_eq!(read("R[3]", &dims), R(first, 3));
    }

    #[test]
    fn rules_of_rotations_are_noted() {
        let h = Head { layer: 0, head: 1 };
        let used = |e: Expr| e.rules().iter().copied().collect::<Vec<_>>();
        assert_eq!(used(R(h, 2) * R(h, -5)), [Rule::RotationsAdd]);
        assert_eq!(used(R(h, 2).t()), [Rule::RotationBack]);
        assert_eq!(used(R(h, 0)), [Rule::RotationByNothing]);
        assert_eq!(
            used(R(h, 2) * R(h, 2).t()),
            [
                Rule::RotationsAdd,
                Rule::RotationBack,
                Rule::RotationByNothing
            ]
        );
        assert_eq!(R(h, 2) * R(h, -5), R(h, 3).t());
        // What no longer fits stays apart.
        let far = R(h, i64::MAX) * R(h, 1);
        assert_eq!(
            far.terms().next().map(|(product, _)| product.len()),
            Some(2)
        );
        assert_eq!(R(h, i64::MIN).t().t(), R(h, i64::MIN));
    }

    #[test]
    fn rotations_print_as_they_are_read() {
        let dims = Dims::default();
        for text in [
            "W_Q[1.2] R[3] W_K[1.2]^T",
            "R[-3] W_K[1.2]^T",
            "2 W_Q[0.0] R[1]",
            "R[3,head 1.2]",
            "R[3,head 1.2][0,1]",
            "W_E W_Q[1.2] R[3,head 1.2][:,0]",
            "R[3,head 0.0] - I[head 0.0]",
        ] {
            let e = read(text, &dims);
            assert_eq!(read(&e.to_string(), &dims), e, "{text} printed {e}");
        }
        assert_eq!(
            read("W_Q[1.2] R[3] W_K[1.2]^T", &dims).to_string(),
            "W_Q[1.2] R[3] W_K[1.2]^T"
        );
    }

    #[test]
    fn distances_make_families() {
        let dims = Dims::default();
        let labels = |text: &str| {
            let family = Family::parse(text, &dims).unwrap_or_else(|e| panic!("{e}"));
            let axes: Vec<usize> = family.axes.iter().map(|a| a.labels.len()).collect();
            (axes, family.label(family.members.len() - 1))
        };
        assert_eq!(
            labels("W_Q[0.0] R[0..4] W_K[0.0]^T"),
            (vec![5], "[4]".into())
        );
        assert_eq!(
            labels("W_Q[0.0] R[-2..-1] W_K[0.0]^T"),
            (vec![2], "[-1]".into())
        );
        assert_eq!(
            labels("W_Q[0.*] R[*] W_K[0.*]^T"),
            (vec![3, 11], "[0.2, 10]".into())
        );
        // The same range twice is the same distance.
        assert_eq!(labels("W_Q[0.0] R[0..4] R[0..4]"), (vec![5], "[4]".into()));
        let h = Head { layer: 0, head: 0 };
        assert_eq!(
            read("W_Q[0.0] sum(R[1..3]) W_K[0.0]^T", &dims),
            W_Q(h) * (R(h, 1) + R(h, 2) + R(h, 3)) * W_K(h).t()
        );
        assert!(refused("R[0..999999999999]", &dims).contains("more than 16384"));
    }

    #[test]
    fn what_rotations_cannot_mean_is_refused() {
        let dims = Dims::default();
        for (text, message) in [
            (
                "W_E R[3]",
                "`R[3]` turns a head's space, `W_E` beside it has model columns",
            ),
            (
                "R[3] W_U",
                "`R[3]` turns a head's space, `W_U` beside it has model rows",
            ),
            (
                "W_Q[0.0] R[3] W_K[0.1]^T",
                "has head 0.0 columns, `W_K[0.1]^T` has head 0.1 rows",
            ),
            (
                "W_E + R[1]",
                "turns a head's space and stands against [vocab, model]",
            ),
            ("R", "`R` needs a distance"),
            ("R[3..1]", "`R` needs a distance"),
            ("R[1,model]", "`R` needs a distance"),
            ("R[1,head 7.0]", "there is no layer 7"),
            ("R[1] + 3", "the identity is `I`"),
            ("R[1]^-1", "only a `scale` has an inverse"),
        ] {
            let found = refused(text, &dims);
            assert!(found.contains(message), "{text}: {found}");
        }
        let still = Dims {
            rotary: None,
            ..Dims::default()
        };
        for text in [
            "R[3]",
            "W_Q[0.0] R[0] W_K[0.0]^T",
            "rot_q[0.0]",
            "rot_k[1.2][0]",
        ] {
            assert!(
                refused(text, &still).contains("this model has no rotary positions"),
                "{text}"
            );
        }
        let unplaced = Dims {
            pos_embed: false,
            ..Dims::default()
        };
        assert!(refused("W_pos", &unplaced).contains("adds no embedding of positions"));
    }

    #[test]
    fn heads_of_a_group_share_keys_and_values() {
        let dims = grouped();
        for name in ["W_K", "W_V", "b_K", "b_V", "k", "v", "rot_k"] {
            let of = |head: usize| read(&format!("{name}[1.{head}]"), &dims);
            assert_eq!(of(0), of(1), "{name}");
            assert_ne!(of(1), of(2), "{name}");
            assert_eq!(of(3).to_string(), format!("{name}[1.2]"));
        }
        for name in ["W_Q", "b_Q", "q", "z", "W_O", "W_QK", "W_OV", "rot_q"] {
            let of = |head: usize| read(&format!("{name}[1.{head}]"), &dims);
            assert_ne!(of(0), of(1), "{name}");
            assert_eq!(of(1).to_string(), format!("{name}[1.1]"));
        }
        assert_eq!(read("W_V[0.0] W_O[0.1]", &dims), read("W_OV[0.1]", &dims));
        let h = Head { layer: 0, head: 3 };
        assert_eq!((W_V(h) * W_O(h)).grouped(&dims), read("W_OV[0.3]", &dims));
        assert_eq!(
            read("W_Q[0.3] R[2] W_K[0.3]^T", &dims),
            read("W_Q[0.3] R[2,head 0.3] W_K[0.2]^T", &dims)
        );
        assert_eq!(read("I[head 0.3]", &dims), read("I[head 0.2]", &dims));
        // In a model whose heads have keys of their own these are two spaces.
        assert!(refused("W_K[0.0] == W_K[0.1]", &Dims::default()).contains("head 0.1"));
    }

    #[test]
    fn pairs_lie_where_their_scheme_puts_them() {
        assert_eq!(Rotary::halves(6).pairs, [(0, 3), (1, 4), (2, 5)]);
        assert_eq!(Rotary::neighbours(6).pairs, [(0, 1), (2, 3), (4, 5)]);
    }
}
