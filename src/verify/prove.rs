//! `LHS == RHS`, decided: by normal forms, in a finite field, or on a model's numbers.

use super::evidence::Evidence;
use super::field;
use super::magnitude::{Measuring, Probe};
use super::verdict::{BoundKind, Comparison, Measure, Verdict};
use crate::error::{Error, Result};
use crate::eval::Source;
use crate::expr::{Dims, Expr, Origin, Rule, Statement, Symbol, unfolded};
use crate::model::{Model, RunOutput};
use crate::tensor::Scalar;
use faer::Mat;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use std::collections::BTreeSet;

/// What became of a statement, and what decided it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub enum Proof {
    /// The two sides have the same normal form: equal for all weights and all inputs.
    Proved {
        /// The rules used, beside those that hold for all matrices.
        rules: Vec<&'static str>,
        /// Whether values of a run were replaced by what they are made of.
        by_definition: bool,
    },
    /// The two sides agree at a random point of a finite field.
    ProvedInField {
        /// The probability that different sides agree at one, at the most.
        probability_of_error: f64,
        /// The sizes that it was decided at.
        sizes: String,
    },
    /// The two sides agree on this model, within what rounding allows.
    Holds(Measure),
    /// The two sides differ on this model by more than rounding allows.
    Refuted(Measure),
    /// The two sides differ at a point of the finite field: they are not equal for all weights.
    RefutedInField {
        /// The entry where they differ, and for which member of a family.
        place: String,
        /// The left side there, modulo 2^61 - 1.
        left: u64,
        /// The right side there.
        right: u64,
        /// The sizes that it was decided at.
        sizes: String,
    },
}

impl Proof {
    /// Whether the statement was refuted.
    pub fn refuted(&self) -> bool {
        matches!(self, Proof::Refuted(_) | Proof::RefutedInField { .. })
    }

    /// How weak the verdict is: a family's is its weakest member's.
    fn rank(&self) -> usize {
        match self {
            Proof::Proved { .. } => 0,
            Proof::ProvedInField { .. } => 1,
            Proof::Holds(_) => 2,
            Proof::Refuted(_) | Proof::RefutedInField { .. } => 3,
        }
    }
}

/// A statement and its verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Proven {
    /// The statement, as it was written.
    pub statement: String,
    /// How many statements its `*` stand for.
    pub members: usize,
    /// What became of it.
    #[serde(flatten)]
    pub proof: Proof,
}

/// What a normal form says about a member of a statement.
struct Symbolic {
    equal: bool,
    rules: BTreeSet<Rule>,
    /// The values of a run that were replaced by what they are made of.
    replaced: BTreeSet<Symbol>,
}

fn symbolic(left: &Expr, right: &Expr, dims: &Dims) -> Result<Symbolic> {
    let too_large = |e: crate::expr::Mismatch| Error::Undecided(e.to_string());
    let mut replaced = BTreeSet::new();
    let mut difference = left.try_add(&-right).map_err(too_large)?;
    let mut rules: BTreeSet<Rule> = difference.rules().clone();
    while !difference.is_zero() {
        // Paths grow without end: what has too many terms is left to the field.
        let Ok(Some((next, symbols))) = unfolded(&difference, dims) else {
            break;
        };
        replaced.extend(symbols);
        difference = next;
        rules.extend(difference.rules());
    }
    Ok(Symbolic {
        equal: difference.is_zero(),
        rules,
        replaced,
    })
}

/// Decides a statement without a model: by normal forms, else in a finite field. What is refuted is not equal
/// for all weights; for one model's it may still be.
///
/// ```
/// use pathsum::expr::{Dims, Statement};
/// use pathsum::verify::{Proof, prove};
/// let dims = Dims::default();
/// let proof = |text: &str| Ok::<_, pathsum::Error>(prove(&Statement::parse(text, &dims)?, &dims, 0)?.proof);
/// assert!(matches!(proof("W_OV[0.0]^T == W_O[0.0]^T W_V[0.0]^T")?, Proof::Proved { .. }));
/// assert!(proof("W_OV[0.0] == W_OV[0.1]")?.refuted());
/// # Ok::<(), pathsum::Error>(())
/// ```
///
/// # Errors
/// When a coefficient is too large for the field.
pub fn prove(statement: &Statement, dims: &Dims, seed: u64) -> Result<Proven> {
    decide(statement, dims, |label, left, right| {
        let symbolic = symbolic(left, right, dims)?;
        without_model(&symbolic, label, left, right, dims, seed)
    })
}

fn without_model(
    symbolic: &Symbolic,
    label: &str,
    left: &Expr,
    right: &Expr,
    dims: &Dims,
    seed: u64,
) -> Result<Proof> {
    if symbolic.equal {
        return Ok(Proof::Proved {
            rules: symbolic.rules.iter().map(|r| r.statement()).collect(),
            by_definition: !symbolic.replaced.is_empty(),
        });
    }
    let point = field::decide(left, right, dims, seed).ok_or_else(|| {
        Error::Undecided("a coefficient's denominator is a multiple of 2^61 - 1".into())
    })?;
    let d = &point.dims;
    let mlp = d.d_mlp.map_or(String::new(), |n| format!(", d_mlp {n}"));
    let sizes = format!(
        "d_model {}, d_head {}, {} positions, d_vocab {}, d_vocab_out {}{mlp}",
        d.d_model, d.d_head, d.pos, d.d_vocab, d.d_vocab_out
    );
    Ok(match point.difference {
        None => Proof::ProvedInField {
            probability_of_error: point.error,
            sizes,
        },
        Some(difference) => {
            let (i, j) = difference.at;
            Proof::RefutedInField {
                place: format!("{label}[{i}, {j}]"),
                left: difference.left,
                right: difference.right,
                sizes,
            }
        }
    })
}

/// The verdicts of a statement's members as one.
fn decide(
    statement: &Statement,
    dims: &Dims,
    mut f: impl FnMut(&str, &Expr, &Expr) -> Result<Proof>,
) -> Result<Proven> {
    let mut all: Option<Proof> = None;
    for (member, (left, right)) in statement.members.iter().enumerate() {
        // Text was read for the model's groups; expressions made by functions know of none.
        let (left, right) = (left.grouped(dims), right.grouped(dims));
        let proof = f(&statement.label(member), &left, &right)?;
        all = Some(match all {
            None => proof,
            Some(before) => weakest(before, proof),
        });
        if all.as_ref().is_some_and(Proof::refuted) {
            break;
        }
    }
    Ok(Proven {
        statement: statement.text.clone(),
        members: statement.members.len(),
        proof: all.expect("a statement has members"),
    })
}

fn weakest(a: Proof, b: Proof) -> Proof {
    use Proof::{Holds, Proved, ProvedInField};
    match (a, b) {
        (
            Proved {
                rules,
                by_definition,
            },
            Proved {
                rules: more,
                by_definition: also,
            },
        ) => {
            let rules: BTreeSet<&str> = rules.into_iter().chain(more).collect();
            Proved {
                rules: rules.into_iter().collect(),
                by_definition: by_definition || also,
            }
        }
        (
            ProvedInField {
                probability_of_error,
                sizes,
            },
            ProvedInField {
                probability_of_error: more,
                ..
            },
        ) => ProvedInField {
            // That any of the members was wrongly proved.
            probability_of_error: probability_of_error + more,
            sizes,
        },
        (Holds(a), Holds(b)) => {
            let compared = a.compared + b.compared;
            let worst = if b.ratio > a.ratio { b } else { a };
            Holds(Measure { compared, ..worst })
        }
        (a, b) if b.rank() > a.rank() => b,
        (a, _) => a,
    }
}

fn dims<T: Scalar>(model: &Model<T>, run: Option<&RunOutput<T>>) -> Dims {
    match run {
        Some(out) => Source::run(model, out, 0).dims(),
        None => Source::of(model).dims(),
    }
}

/// Decides a statement for a model: by normal forms, else in a finite field, else by the numbers of its weights
/// and of the run, if there is one.
///
/// # Errors
/// When a value of a run is asked for and there is no run, or it did not keep it.
pub fn prove_on<T: Scalar>(
    statement: &Statement,
    model: &Model<T>,
    run: Option<&RunOutput<T>>,
    seed: u64,
) -> Result<Proven> {
    let dims = dims(model, run);
    decide(statement, &dims, |label, left, right| {
        let symbolic = symbolic(left, right, &dims)?;
        let proof = without_model(&symbolic, label, left, right, &dims, seed)?;
        let elsewhere = matches!(proof, Proof::ProvedInField { .. })
            && field::of_other_sizes(left, right, &dims);
        if !proof.refuted() && !elsewhere {
            return Ok(proof);
        }
        // Not for all weights; but these are a model's own.
        numeric(&symbolic, label, left, right, model, run, seed)
    })
}

/// Compares the two sides on a model's numbers, whatever the algebra says of them: for a test of the numbers.
///
/// # Errors
/// As [`prove_on`].
pub fn compare_on<T: Scalar>(
    statement: &Statement,
    model: &Model<T>,
    run: Option<&RunOutput<T>>,
    seed: u64,
) -> Result<Proven> {
    let dims = dims(model, run);
    decide(statement, &dims, |label, left, right| {
        let symbolic = symbolic(left, right, &dims)?;
        numeric(&symbolic, label, left, right, model, run, seed)
    })
}

/// What [`assert_identity`](crate::assert_identity) takes for a statement: text, a [`Statement`], or two expressions.
pub enum AnyStatement {
    /// As text, read with the model's sizes.
    Text(String),
    /// As it was read, or made.
    Statement(Statement),
    /// `(left, right)`
    Sides(Expr, Expr),
}

impl From<&str> for AnyStatement {
    fn from(text: &str) -> Self {
        AnyStatement::Text(text.to_string())
    }
}

impl From<String> for AnyStatement {
    fn from(text: String) -> Self {
        AnyStatement::Text(text)
    }
}

impl From<&String> for AnyStatement {
    fn from(text: &String) -> Self {
        AnyStatement::Text(text.clone())
    }
}

impl From<Statement> for AnyStatement {
    fn from(statement: Statement) -> Self {
        AnyStatement::Statement(statement)
    }
}

impl From<&Statement> for AnyStatement {
    fn from(statement: &Statement) -> Self {
        AnyStatement::Statement(statement.clone())
    }
}

impl From<(Expr, Expr)> for AnyStatement {
    fn from((left, right): (Expr, Expr)) -> Self {
        AnyStatement::Sides(left, right)
    }
}

/// What [`assert_identity`](crate::assert_identity) takes between the model and its last argument: a run, and then a
/// statement, or the left side of a statement, and then the right one.
#[doc(hidden)]
pub trait Given<T: Scalar, Last> {
    fn claim(&self, last: Last) -> (Option<&RunOutput<T>>, AnyStatement);
}

impl<T: Scalar, S: Into<AnyStatement>> Given<T, S> for RunOutput<T> {
    fn claim(&self, statement: S) -> (Option<&RunOutput<T>>, AnyStatement) {
        (Some(self), statement.into())
    }
}

impl<T: Scalar> Given<T, Expr> for Expr {
    fn claim(&self, right: Expr) -> (Option<&RunOutput<T>>, AnyStatement) {
        (None, AnyStatement::Sides(self.clone(), right))
    }
}

impl<T: Scalar, Last, G: Given<T, Last>> Given<T, Last> for &G {
    fn claim(&self, last: Last) -> (Option<&RunOutput<T>>, AnyStatement) {
        (**self).claim(last)
    }
}

/// What [`assert_identity`](crate::assert_identity) calls.
///
/// # Panics
/// As [`assert_holds`].
#[doc(hidden)]
#[track_caller]
pub fn assert_given<T: Scalar, Last>(model: &Model<T>, given: &impl Given<T, Last>, last: Last) {
    let (run, claim) = given.claim(last);
    assert_holds(model, run, claim);
}

/// What [`assert_identity`](crate::assert_identity) calls.
///
/// # Panics
/// When the numbers refute the statement; and when it cannot be read, or speaks of what the run did not keep.
#[doc(hidden)]
#[track_caller]
pub fn assert_holds<T: Scalar>(
    model: &Model<T>,
    run: Option<&RunOutput<T>>,
    claim: impl Into<AnyStatement>,
) {
    const SEED: u64 = 0;
    let dims = dims(model, run);
    let statement = match claim.into() {
        AnyStatement::Text(text) => {
            Statement::parse(&text, &dims).unwrap_or_else(|e| panic!("{e}"))
        }
        AnyStatement::Statement(statement) => statement,
        AnyStatement::Sides(left, right) => Statement::equal(left, right),
    };
    let proven = compare_on(&statement, model, run, SEED).unwrap_or_else(|e| panic!("{e}"));
    if let Proof::Refuted(m) = proven.proof {
        panic!(
            "not so: {}\n  at {}: left {:e}, right {:e}\n  error {:e}, allowed {:e}",
            proven.statement, m.place, m.left, m.right, m.error, m.bound
        );
    }
}

/// Asserts that a circuit identity holds of a model's numbers, within the bound that rounding sets: for tests.
///
/// It is of the weights alone, or of what a run has kept, which is then named after the model. The statement is text (or
/// a [`Statement`](crate::expr::Statement)), or two expressions. A failure says which statement, at which entry, by how
/// much, and how much was allowed.
///
/// ```
/// use pathsum::expr::{W_K, W_O, W_Q, W_QK, result, z};
/// use pathsum::{Head, Run, Tokens, assert_identity, fixture};
///
/// // Of the weights.
/// let model = fixture::induction::<f64>();
/// assert_identity!(model, "W_OV[*.*]^T == W_O[*.*]^T W_V[*.*]^T");
/// assert_identity!(model, "b_U == 0");
/// let head = Head { layer: 1, head: 0 };
/// assert_identity!(model, W_QK(head).t(), W_K(head) * W_Q(head).t());
///
/// // Of a run.
/// let run = model.run(&Tokens::from_rows(&[[1, 2, 1]]), Run::new().cache("*"))?;
/// assert_identity!(model, run, "resid_post[1] == resid_pre[1] + sum(result[1.*]) + ones b_O[1]");
/// assert_identity!(model, run, result(head), z(head) * W_O(head));
/// # Ok::<(), pathsum::Error>(())
/// ```
///
/// # Panics
/// When the statement is refuted; and when it cannot be read, or speaks of what the run did not keep.
#[macro_export]
macro_rules! assert_identity {
    ($model:expr, $statement:expr $(,)?) => {
        $crate::verify::assert_holds(&$model, None, $statement)
    };
    // A run and a statement, or the two sides of one: which, their types say.
    ($model:expr, $given:expr, $last:expr $(,)?) => {
        $crate::verify::assert_given(&$model, &$given, $last)
    };
    ($model:expr, $run:expr, $left:expr, $right:expr $(,)?) => {
        $crate::verify::assert_holds(&$model, Some(&$run), ($left, $right))
    };
}

/// More entries than this are not all compared: random columns are, which see what is wrong everywhere, and random
/// sums of every row, which see what is wrong at one entry.
const MAX_ENTRIES: usize = 1 << 22;

/// How many random columns are compared.
const COLUMNS: usize = 32;

/// How many random sums of a row are compared.
const SUMS: usize = 8;

fn numeric<T: Scalar>(
    symbolic: &Symbolic,
    label: &str,
    left: &Expr,
    right: &Expr,
    model: &Model<T>,
    run: Option<&RunOutput<T>>,
    seed: u64,
) -> Result<Proof> {
    let mut cmp = Comparison::new(BoundKind::Derived);
    let telling = both_sides(
        &mut cmp,
        symbolic,
        label,
        (left, right),
        (model, run, 0),
        seed,
    )?;
    Ok(match cmp.verdict() {
        Some(Verdict::Holds(measure)) if !telling => {
            return Err(Error::Undecided(format!(
                "nothing is decided: rounding in {} may move every entry by more than its own size (by {:.1e} at {}); a wider precision would tell",
                T::PRECISION,
                measure.bound,
                measure.place
            )));
        }
        Some(Verdict::Holds(measure)) => Proof::Holds(measure),
        Some(Verdict::Refuted(measure)) => Proof::Refuted(measure),
        _ => return Err(Error::Undecided("there is nothing to compare".into())),
    })
}

/// Adds a statement's comparison on a run to those collected.
pub(super) fn compare_numbers<T: Scalar>(
    cmp: &mut Comparison,
    statement: &Statement,
    e: &Evidence<'_, T>,
) -> Result<()> {
    // No statement of the catalogue has so many entries that sums of them are compared.
    const SEED: u64 = 0;
    let dims = Source::run(e.model, e.out, 0).dims();
    for (left, right) in &statement.members {
        let symbolic = symbolic(left, right, &dims)?;
        let label = left.to_string();
        let on = (e.model, Some(e.out), e.first_sequence);
        both_sides(cmp, &symbolic, &label, (left, right), on, SEED)?;
    }
    Ok(())
}

/// A model, a run of it, and the number of the run's first sequence in a larger batch.
type On<'a, T> = (&'a Model<T>, Option<&'a RunOutput<T>>, usize);

fn both_sides<T: Scalar>(
    cmp: &mut Comparison,
    symbolic: &Symbolic,
    label: &str,
    (left, right): (&Expr, &Expr),
    (model, run, first_sequence): On<'_, T>,
    seed: u64,
) -> Result<bool> {
    let replaced = symbolic.equal.then(|| symbolic.replaced.clone());
    let symbols = left.symbols().into_iter().chain(right.symbols());
    let of_run = symbols.into_iter().any(|s| s.origin() == Origin::Run);
    let mut telling = false;
    match run {
        Some(out) if of_run => {
            for b in 0..out.tokens.batch() {
                let source = Source::run(model, out, b);
                let place = (label, format!(" of sequence {}", first_sequence + b));
                telling |= side_by_side(cmp, &place, left, right, source, &replaced, seed)?;
            }
        }
        _ => {
            let source = Source::of(model);
            let place = (label, String::new());
            telling |= side_by_side(cmp, &place, left, right, source, &replaced, seed)?;
        }
    }
    Ok(telling)
}

fn side_by_side<T: Scalar>(
    cmp: &mut Comparison,
    (label, sequence): &(&str, String),
    left: &Expr,
    right: &Expr,
    source: Source<'_, T>,
    replaced: &Option<BTreeSet<Symbol>>,
    seed: u64,
) -> Result<bool> {
    let dims = source.dims();
    let (rows, cols) = (left.rows().size(&dims), left.cols().size(&dims));
    let mut measuring = Measuring::new(source, replaced.clone());
    let mut probes = vec![None];
    if rows.saturating_mul(cols) > MAX_ENTRIES && cols > COLUMNS {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let columns = (0..COLUMNS).map(|_| rng.random_range(0..cols)).collect();
        let signs = Mat::from_fn(cols, SUMS, |_, _| {
            if rng.random_bool(0.5) {
                T::ONE
            } else {
                -T::ONE
            }
        });
        probes = vec![
            Some(Probe::Columns(columns, cols)),
            Some(Probe::Sums(signs)),
        ];
    }
    // Whether a difference as large as the terms themselves would have been seen.
    let mut telling = false;
    for probe in &probes {
        let l = measuring.expression(left, probe.as_ref())?;
        let r = measuring.expression(right, probe.as_ref())?;
        let at = |i: usize, j: usize| match probe {
            None => format!("[{i}, {j}]"),
            Some(Probe::Columns(chosen, _)) => format!("[{i}, {}]", chosen[j]),
            Some(Probe::Sums(_)) => format!("[{i}, :] summed with random signs"),
        };
        // Of the terms: the sides themselves may be the zero that is left of them.
        let largest = l.largest.to_f64().max(r.largest.to_f64());
        let mut least = f64::INFINITY;
        for i in 0..l.value.nrows() {
            for j in 0..l.value.ncols() {
                let bound = l.error(i, j).to_f64() + r.error(i, j).to_f64();
                let (a, b) = (l.value[(i, j)].to_f64(), r.value[(i, j)].to_f64());
                least = least.min(bound);
                cmp.entry(a, b, bound, || format!("{label}{}{sequence}", at(i, j)));
            }
        }
        telling |= least < largest || least == 0.0 || largest == 0.0;
    }
    Ok(telling)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::Rotary;

    fn decided(text: &str, dims: &Dims) -> Proof {
        let statement = Statement::parse(text, dims).unwrap_or_else(|e| panic!("{e}"));
        prove(&statement, dims, 0)
            .unwrap_or_else(|e| panic!("{e}"))
            .proof
    }

    /// Positions that turn all but one entry of a head.
    fn turning(pairing: fn(usize) -> Rotary) -> Dims {
        Dims {
            rotary: Some(pairing(4)),
            ..Dims::default()
        }
    }

    #[test]
    fn rotations_are_proved_by_their_rules() {
        let dims = turning(Rotary::halves);
        for (text, rules) in [
            (
                "W_Q[0.0] R[2] R[3] W_K[0.0]^T == W_Q[0.0] R[5] W_K[0.0]^T",
                vec!["R[i] R[j] = R[i+j]"],
            ),
            (
                "(W_Q[1.0] R[2] W_K[1.0]^T)^T == W_K[1.0] R[-2] W_Q[1.0]^T",
                vec!["R[i]^T = R[-i]"],
            ),
            ("W_Q[0.1] R[0] W_K[0.1]^T == W_QK[0.1]", vec!["R[0] = I"]),
        ] {
            let proof = decided(text, &dims);
            let by_definition = false;
            assert_eq!(
                proof,
                Proof::Proved {
                    rules,
                    by_definition
                },
                "{text}"
            );
        }
    }

    #[test]
    fn the_field_turns_as_rotations_do() {
        for dims in [turning(Rotary::halves), turning(Rotary::neighbours)] {
            let (a, b) = dims.rotary.as_ref().expect("positions turn").pairs[1];
            // Beyond the rules: what one pair's entries are to each other, and what is not turned at all.
            for text in [
                format!("R[3][{a},{a}] == R[3][{b},{b}]"),
                format!("R[3][{a},{b}] == -R[3][{b},{a}]"),
                format!("R[3][{a},{b}] R[3][{a},{b}] + R[3][{a},{a}] R[3][{a},{a}] == 1"),
                format!("R[2][{a},{a}] == 2 R[1][{a},{a}] R[1][{a},{a}] - 1"),
                "R[7][4,4] == 1".into(),
                "R[7][4,0] == 0".into(),
                "R[2,head 0.0][0,0] == R[2,head 1.1][0,0]".into(),
            ] {
                let proof = decided(&text, &dims);
                let Proof::ProvedInField {
                    probability_of_error,
                    ..
                } = proof
                else {
                    panic!("{text}: {proof:?}")
                };
                assert!(probability_of_error * (field::P as f64) < 1000.0, "{text}");
            }
            for text in [
                "R[1] == R[-1]",
                "R[1] == I",
                "R[2] == R[1]",
                "R[1][0,0] == R[1][1,1] R[1][4,4] R[2][4,4] + R[1][0,4]",
                "W_Q[0.0] R[2] W_K[0.0]^T == W_QK[0.0]",
                "(W_Q[0.0] R[2] W_K[0.0]^T)^T == W_K[0.0] R[2] W_Q[0.0]^T",
            ] {
                let neighbours = dims.rotary == Some(Rotary::neighbours(4));
                if neighbours && text.starts_with("R[1][0,0]") {
                    // There the first two entries are one pair.
                    continue;
                }
                let proof = decided(text, &dims);
                assert!(
                    matches!(proof, Proof::RefutedInField { .. }),
                    "{text}: {proof:?}"
                );
            }
        }
    }

    #[test]
    fn layers_with_a_window_turn_by_angles_of_their_own() {
        let windows = |windowed: Vec<bool>| {
            let mut dims = turning(Rotary::halves);
            dims.rotary.as_mut().expect("positions turn").windowed = windowed;
            dims
        };
        let (alike, mixed) = (windows(vec![]), windows(vec![false, true]));
        let across = "R[2,head 0.0][0,0] == R[2,head 1.1][0,0]";
        assert!(matches!(
            decided(across, &alike),
            Proof::ProvedInField { .. }
        ));
        assert!(decided(across, &mixed).refuted());
        // What is said of each layer by itself stays true.
        for text in [
            "R[2,head 0.0][0,0] == R[2,head 0.1][0,0]",
            "R[2,head 1.0][0,0] == R[2,head 1.1][2,2]",
            "rot_q[1.1][9] rot_q[1.1][9]^T + R[1,head 1.0][0,0] R[1,head 1.0][0,0] == q[1.1][9] q[1.1][9]^T + 1 - R[1,head 1.0][0,2] R[1,head 1.0][0,2]",
        ] {
            let proof = decided(text, &mixed);
            let in_field = matches!(proof, Proof::ProvedInField { .. });
            assert!(in_field, "{text}: {proof:?}");
        }
    }

    #[test]
    fn a_norm_of_queries_stands_before_their_rotation() {
        let dims = Dims {
            qk_norm: Some(crate::diagram::NormKind::RMS),
            ..turning(Rotary::halves)
        };
        for text in [
            "rot_q[0.1][7] rot_k[0.1][3]^T == q[0.1][7] R[4] k[0.1][3]^T",
            "rot_q[1.0][0] == q[1.0][0]",
        ] {
            assert!(decided(text, &dims).refuted(), "{text}");
        }
    }

    /// What no expression defines is not replaced, however late it is.
    #[test]
    fn what_has_no_definition_stays() {
        let dims = Dims {
            qk_norm: Some(crate::diagram::NormKind::RMS),
            ends_plain: false,
            ..turning(Rotary::halves)
        };
        for text in ["logits == 2 logits", "rot_q[0.1] == 2 rot_q[0.1]"] {
            assert!(decided(text, &dims).refuted(), "{text}");
        }
    }

    #[test]
    fn scores_see_how_far_a_key_is_behind_a_query() {
        let dims = turning(Rotary::halves);
        let by_definition = |text: &str, dims: &Dims| {
            let proof = decided(text, dims);
            let Proof::Proved { by_definition, .. } = proof else {
                panic!("{text}: {proof:?}")
            };
            by_definition
        };
        let text = "rot_q[0.1][7] rot_k[0.1][3]^T == q[0.1][7] R[4] k[0.1][3]^T";
        assert!(by_definition(text, &dims));
        assert!(by_definition("rot_k[1.0][5] == k[1.0][5] R[5]", &dims));
        assert!(by_definition("rot_q[1.0][0] == q[1.0][0]", &dims));
        // However long the context is, a row is one term.
        let long = Dims {
            pos: 1 << 20,
            ..dims.clone()
        };
        let text = "rot_q[0.1][900000] rot_k[0.1][3]^T == q[0.1][900000] R[899997] k[0.1][3]^T";
        assert!(by_definition(text, &long));
        // In the field a selected row is turned by the position that it had.
        let medium = Dims {
            pos: 100,
            ..dims.clone()
        };
        let text = "rot_q[0.1][90] rot_q[0.1][90]^T + R[1][0,0] R[1][0,0] == q[0.1][90] q[0.1][90]^T + 1 - R[1][0,2] R[1][0,2]";
        assert!(matches!(
            decided(text, &medium),
            Proof::ProvedInField { .. }
        ));
        let text = "rot_q[0.1][90] ones[head 0.1] == q[0.1][90] R[89] ones[head 0.1]";
        assert!(decided(text, &medium).refuted());
        for text in [
            "rot_q[0.1] == q[0.1]",
            "rot_q[0.1] == q[0.1] R[1]",
            "rot_q[0.1] rot_k[0.1]^T == q[0.1] k[0.1]^T",
            "rot_q[0.1][7] rot_k[0.1][3]^T == q[0.1][7] R[3] k[0.1][3]^T",
        ] {
            assert!(decided(text, &dims).refuted(), "{text}");
        }
    }

    #[test]
    fn heads_of_a_group_have_one_key() {
        let own = Dims {
            n_heads: 4,
            groups: 4,
            ..Dims::default()
        };
        let shared = Dims {
            groups: 2,
            ..own.clone()
        };
        for (text, with_groups) in [
            ("W_K[0.0] W_K[0.0]^T == W_K[0.1] W_K[0.1]^T", true),
            ("pattern[0.1] v[0.0] W_O[0.1] == result[0.1]", true),
            ("W_K[0.0] == W_K[0.1]", true),
            ("b_V[1.2] == b_V[1.3]", true),
            ("result[0.1] == result[0.0]", false),
            ("W_QK[0.0] == W_QK[0.1]", false),
            ("W_K[0.1] W_K[0.1]^T == W_K[0.2] W_K[0.2]^T", false),
        ] {
            let proof = decided(text, &shared);
            assert_eq!(
                matches!(proof, Proof::Proved { .. }),
                with_groups,
                "{text}: {proof:?}"
            );
            // Without groups these are other spaces, or other matrices.
            let not = match Statement::parse(text, &own) {
                Ok(statement) => prove(&statement, &own, 0).is_ok_and(|p| p.proof.refuted()),
                Err(_) => true,
            };
            assert!(not, "{text}");
        }
        // Made by functions, of heads that know of no groups.
        let h = crate::names::Head { layer: 0, head: 1 };
        let (left, right) = (
            crate::expr::z(h),
            crate::expr::pattern(h) * crate::expr::v(h),
        );
        let statement = Statement::equal(left, right);
        let proof = prove(&statement, &shared, 0).unwrap().proof;
        assert!(matches!(proof, Proof::Proved { .. }), "{proof:?}");
    }

    #[test]
    fn every_definition_holds_in_the_field_with_groups_and_rotations() {
        let dims = Dims {
            n_heads: 4,
            groups: 2,
            pos_embed: false,
            ..Dims::default()
        };
        for identity in crate::verify::RunIdentity::<f64>::ALL {
            for statement in identity.statements(&dims).unwrap_or_default() {
                let proof = prove(&statement, &dims, 0).unwrap().proof;
                assert!(
                    matches!(proof, Proof::Proved { .. }),
                    "{}: {proof:?}",
                    statement.text
                );
            }
        }
    }
}
