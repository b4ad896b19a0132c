//! The circuit algebra from the outside: expressions, plans, values and proofs, held to the reference data, to
//! plain loops and to each other.

use crate::common::{cases, full_run, numbers, reference, rows};
use pathsum::eval::{Circuit, Source, Value, evaluate};
use pathsum::expr::{self, Dims, Expr, Family, Rational, Rule, Space, Statement, Symbol};
use pathsum::linalg::{Par, product};
use pathsum::model::NormKind;
use pathsum::model::process::Processing;
use pathsum::names::NormSite;
use pathsum::plan::{Form, Plan};
use pathsum::strategies::{configs, models_and_tokens_of, models_of};
use pathsum::verify::{self, Proof};
use pathsum::{Config, Head, Model, Scalar, Tokens, assert_identity, fixture};
use proptest::prelude::*;
use std::collections::BTreeSet;

type Mat = faer::Mat<f64>;

fn dense(values: Vec<Value<f64>>) -> Vec<Mat> {
    let one = |value| match value {
        Value::Dense(M) => M,
        other => panic!("{other:?}"),
    };
    values.into_iter().map(one).collect()
}

fn value(source: &Source<'_, f64>, text: &str) -> Vec<Mat> {
    let circuit = Circuit::parse(text, *source).unwrap();
    circuit.each_dense(Par::Seq).unwrap()
}

/// Every figure of the reference data that is one expression.
#[test]
fn published_circuits() {
    for (model, id, text) in [
        (
            "palindrome",
            "qk_full",
            "[W_E; W_pos] W_QK[0.*] [W_E; W_pos]^T",
        ),
        (
            "palindrome",
            "v_composition.positions",
            "W_pos W_OV[0.0] W_OV[1.0] (W_U[:,0] - W_U[:,1])",
        ),
        (
            "palindrome",
            "k_composition.positions",
            "W_pos[-1] W_QK[1.0] W_OV[0.0]^T W_pos^T",
        ),
        ("sorted_list", "ov_full", "W_E W_OV[0.*] W_U"),
        ("sorted_list", "qk_full", "W_E W_QK[0.*] W_E^T"),
        ("sorted_list", "qk_pos_emb", "W_pos W_QK[0.*] W_E^T"),
        ("sorted_list", "direct_path", "W_E W_U"),
    ] {
        let Some((folder, _)) = reference::folder(model) else {
            return;
        };
        let expected = std::fs::read_to_string(folder.join("expected.json")).unwrap();
        let expected: serde_json::Value = serde_json::from_str(&expected).unwrap();
        let expected = numbers(&expected[id]["recomputed"]);
        // The write-ups process the weights first, as TransformerLens does when it loads a model.
        let mut model = Model::<f64>::load(&folder).unwrap();
        for step in Processing::DEFAULT {
            step.apply(&mut model).unwrap();
        }
        let found: Vec<f64> = value(&Source::of(&model), text)
            .iter()
            .flat_map(rows)
            .collect();
        assert_eq!(found.len(), expected.len(), "{id}");
        let size = expected.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
        let off = found
            .iter()
            .zip(&expected)
            .fold(0.0, |m: f64, (a, b)| m.max((a - b).abs()));
        println!("{id}: {off:.1e} of {size:.2}, as `{text}`");
        // The issue's own figure.
        assert!(off <= 1e-10 * size.max(1.0), "{id}: {off:e}");
    }
}

/// True statements, each beside one that a small change makes false. `run` ones speak of a run.
const PAIRS: [(&str, &str); 26] = [
    (
        "W_OV[0.0]^T == W_O[0.0]^T W_V[0.0]^T",
        "W_OV[0.0]^T == W_OV[0.0]",
    ),
    (
        "W_QK[0.1] == W_Q[0.1] W_K[0.1]^T",
        "W_QK[0.1] == W_K[0.1] W_Q[0.1]^T",
    ),
    (
        "W_QK[0.*]^T == W_K[0.*] W_Q[0.*]^T",
        "W_QK[0.*]^T == W_QK[0.*]",
    ),
    ("C C == C", "C C == 2 C"),
    ("C^T W_U == C W_U", "C W_U == W_U"),
    ("(W_E C)^T == C W_E^T", "W_E C == W_E"),
    (
        "C W_OV[0.0] C == C W_V[0.0] W_O[0.0] C",
        "C W_OV[0.0] C == C W_OV[0.0]",
    ),
    ("C ones[model] == 0", "C ones[model] == ones[model]"),
    (
        "(I + W_OV[0.0]) (I + W_OV[1.0]) == I + W_OV[0.0] + W_OV[1.0] + W_OV[0.0] W_OV[1.0]",
        "(I + W_OV[0.0]) (I + W_OV[1.0]) == I + W_OV[0.0] + W_OV[1.0] + W_OV[1.0] W_OV[0.0]",
    ),
    (
        "[W_E; W_pos] W_U == [W_E W_U; W_pos W_U]",
        "[W_E; W_pos] W_U == [W_E W_U; W_pos W_OV[0.0] W_U]",
    ),
    (
        "[W_E; W_pos]^T [W_E; W_pos] == W_E^T W_E + W_pos^T W_pos",
        "[W_E; W_pos]^T [W_E; W_pos] == W_E^T W_E - W_pos^T W_pos",
    ),
    (
        "W_U[:,0] - W_U[:,1] == W_U (I[out][:,0] - I[out][:,1])",
        "W_U[:,0] - W_U[:,1] == W_U (I[out][:,1] - I[out][:,0])",
    ),
    (
        "W_E[2] W_U[:,1] == (W_E W_U)[2,1]",
        "W_E[2] W_U[:,1] == (W_E W_U)[1,1]",
    ),
    (
        "b_Q[0.0] b_K[0.0]^T == b_K[0.0] b_Q[0.0]^T",
        "b_Q[0.0] b_K[0.0]^T == b_Q[0.1] b_K[0.1]^T",
    ),
    (
        "sum(W_V[0.*] W_O[0.*]) == sum(W_OV[0.*])",
        "sum(W_V[0.*] W_O[0.*]) == sum(W_OV[1.*])",
    ),
    ("1/2 W_E + 0.5 W_E == W_E", "1/2 W_E + 0.25 W_E == W_E"),
    (
        "result[1.0] == z[1.0] W_O[1.0]",
        "result[1.0] == z[1.1] W_O[1.1]",
    ),
    (
        "z[1.*] == pattern[1.*] v[1.*]",
        "z[1.*] == pattern[1.*]^T v[1.*]",
    ),
    (
        "v[1.1] == normalized[1,ln1] W_V[1.1] + ones b_V[1.1]",
        "v[1.1] == normalized[1,ln1] W_V[1.1]",
    ),
    (
        "normalized[0,ln1] == scale[0,ln1]^-1 resid_pre[0] C w[0,ln1] + ones b[0,ln1]",
        "normalized[0,ln1] == scale[0,ln1]^-1 resid_pre[0] w[0,ln1] + ones b[0,ln1]",
    ),
    (
        "resid_post[1] == resid_pre[1] + sum(result[1.*]) + ones b_O[1]",
        "resid_post[1] == resid_pre[1] + sum(result[1.*])",
    ),
    (
        "resid_post[1] == tokens W_E + W_pos + attn_out[0] + attn_out[1]",
        "resid_post[1] == tokens W_E + W_pos + attn_out[0] + attn_out[0]",
    ),
    (
        "result[0.1] == pattern[0.1] normalized[0,ln1] W_OV[0.1] + ones b_V[0.1] W_O[0.1]",
        "result[0.1] == pattern[0.1] normalized[0,ln1] W_OV[0.0] + ones b_V[0.1] W_O[0.1]",
    ),
    (
        "logits == normalized[ln_final] W_U + ones b_U",
        "logits == normalized[ln_final] W_U",
    ),
    (
        "resid_pre[1] == resid_post[0]",
        "resid_pre[1] == resid_post[1]",
    ),
    (
        "normalized[1,ln1] ones[model] == normalized[1,ln1] C ones[model] + scale[1,ln1]^-1 resid_pre[1] C w[1,ln1] ones[model] + ones b[1,ln1] ones[model]",
        "normalized[1,ln1] ones[model] == 0",
    ),
];

/// A random model of a configuration.
fn random_of<T: Scalar>(config: &Config, seed: u64) -> Model<T> {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::{Config as Cases, RngSeed, TestRunner};
    let mut runner = TestRunner::new(Cases {
        rng_seed: RngSeed::Fixed(seed),
        ..Cases::default()
    });
    models_of::<T>(config)
        .new_tree(&mut runner)
        .unwrap()
        .current()
}

/// A two-layer attention-only model with random weights, biases and norms.
fn random_model<T: Scalar>(seed: u64) -> (Model<T>, Tokens) {
    let config = Config::from_json(
        r#"{"n_layers": 2, "d_model": 12, "n_ctx": 7, "d_head": 4, "n_heads": 2, "d_vocab": 9,
            "d_vocab_out": 5, "attn_only": true, "normalization_type": "LN"}"#,
    )
    .unwrap();
    let model = random_of::<T>(&config, seed);
    (model, Tokens::random(&config, 2, seed))
}

fn dims_of<T: Scalar>(model: &Model<T>, tokens: &Tokens) -> Dims {
    Dims {
        pos: tokens.pos(),
        ..model.config().dims()
    }
}

#[test]
fn statements_are_decided_rightly() {
    let (model, tokens) = random_model::<f64>(1);
    let out = full_run(&model, &tokens);
    let dims = dims_of(&model, &tokens);
    let attn_only = Dims {
        d_mlp: None,
        ..Dims::default()
    };
    for (right, wrong) in PAIRS {
        let statement = Statement::parse(right, &attn_only).unwrap();
        let proof = verify::prove(&statement, &attn_only, 0).unwrap().proof;
        assert!(matches!(proof, Proof::Proved { .. }), "{right}: {proof:?}");
        let statement = Statement::parse(wrong, &attn_only).unwrap();
        let proof = verify::prove(&statement, &attn_only, 0).unwrap().proof;
        let Proof::RefutedInField { left, right, .. } = proof else {
            panic!("{wrong}: {proof:?}")
        };
        assert_ne!(left, right, "a witness differs");

        // And for one model.
        let statement = Statement::parse(wrong, &dims).unwrap();
        let proof = verify::prove_on(&statement, &model, Some(&out), 0)
            .unwrap()
            .proof;
        let Proof::Refuted(measure) = proof else {
            panic!("{wrong}: {proof:?}")
        };
        assert!(
            measure.error > measure.bound && measure.left != measure.right,
            "{measure:?}"
        );
    }
}

/// What a model's own numbers say never contradicts a proof, nor a refutation in the field.
#[test]
fn the_three_methods_agree() {
    fn check<T: Scalar>() {
        for seed in 0..6 {
            let (model, tokens) = random_model::<T>(seed);
            let out = full_run(&model, &tokens);
            let dims = dims_of(&model, &tokens);
            for (right, wrong) in PAIRS {
                for (text, holds) in [(right, true), (wrong, false)] {
                    let statement = Statement::parse(text, &dims).unwrap();
                    let proof = verify::compare_on(&statement, &model, Some(&out), 0);
                    let proof = proof.unwrap().proof;
                    assert_eq!(proof.refuted(), !holds, "{text}: {proof:?}");
                    let in_field = verify::prove(&statement, &dims, seed).unwrap().proof;
                    assert_eq!(in_field.refuted(), !holds, "{text}: {in_field:?}");
                }
            }
        }
    }
    check::<f64>();
    check::<f32>();
}

/// Statements that are true of what an expression means and that no rule knows.
#[test]
fn the_field_proves_what_the_rules_cannot() {
    let dims = Dims::default();
    for text in [
        "C + 1/13 ones[model] ones[model]^T == I",
        "13 C == 13 I - ones[model] ones[model]^T",
        "ones[model]^T ones[model] == 13",
    ] {
        let statement = Statement::parse(text, &dims).unwrap();
        let proof = verify::prove(&statement, &dims, 0).unwrap().proof;
        let Proof::ProvedInField {
            probability_of_error,
            ..
        } = proof
        else {
            panic!("{text}: {proof:?}")
        };
        assert!(probability_of_error < 1e-15, "{probability_of_error}");
    }
    let wrong = Statement::parse("12 C == 12 I - ones[model] ones[model]^T", &dims).unwrap();
    assert!(verify::prove(&wrong, &dims, 0).unwrap().proof.refuted());
}

/// A statement that is false of weights in general and true of one model's.
#[test]
fn a_models_own_numbers_can_hold() {
    let model = fixture::induction::<f64>();
    let dims = model.config().dims();
    for (text, holds) in [
        ("b_O[0] == 0", true),
        ("b_U == 0", true),
        ("W_U == 0", false),
    ] {
        let statement = Statement::parse(text, &dims).unwrap();
        assert!(verify::prove(&statement, &dims, 0).unwrap().proof.refuted());
        let proof = verify::prove_on(&statement, &model, None, 0).unwrap().proof;
        assert_eq!(matches!(proof, Proof::Holds(_)), holds, "{text}: {proof:?}");
    }
}

/// The field's own sizes prove nothing of a model that is larger.
#[test]
fn a_size_of_the_field_is_no_size_of_the_model() {
    let config = Config::from_json(
        r#"{"n_layers": 0, "d_model": 4, "n_ctx": 3, "d_head": 2, "n_heads": 1, "d_vocab": 100,
            "attn_only": true}"#,
    );
    let model = random_of::<f64>(&config.unwrap(), 0);
    let refuted = |n: usize| {
        let text = format!("ones[vocab]^T ones[vocab] == {n}");
        let statement = Statement::parse(&text, &model.config().dims()).unwrap();
        verify::prove_on(&statement, &model, None, 0)
            .unwrap()
            .proof
            .refuted()
    };
    assert_eq!([64, 99, 100].map(refuted), [true, true, false]);
}

/// A bound that would let anything pass decides nothing; and a zero that is left of large terms is decided.
#[test]
fn a_bound_without_a_meaning_is_no_verdict() {
    let (model, tokens) = random_model::<f32>(2);
    let out = full_run(&model, &tokens);
    assert_identity!(
        model,
        out,
        "attn_out[0] - sum(result[0.*]) - ones b_O[0] == 0"
    );
    // Through forty heads in f32 rounding may move the result by more than its size.
    let forty = vec!["W_OV[0.0]"; 40].join(" ");
    let long = format!("W_E {forty} W_U == W_E C {forty} W_U");
    let long = Statement::parse(&long, &dims_of(&model, &tokens)).unwrap();
    let error = verify::prove_on(&long, &model, None, 0)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("nothing is decided: rounding in f32"),
        "{error}"
    );
}

/// Expressions over two layers of two heads, every construct among them.
fn expressions() -> impl Strategy<Value = Expr> {
    let head = (0..2usize, 0..2usize).prop_map(|(layer, head)| Head { layer, head });
    let leaf = (head, 0..22usize, -2..4i64).prop_map(|(h, which, i)| match which {
        0 => expr::W_OV(h),
        1 => expr::W_QK(h),
        2 => expr::C(),
        3 => expr::I(Space::Model),
        4 => expr::W_E().t() * expr::W_E(),
        5 => expr::W_U() * expr::W_U().t(),
        6 => expr::W_pos().row(i).t() * expr::W_pos().row(0),
        7 => expr::W_U().col(i) * expr::W_U().col(1).t(),
        8 => expr::b_O(h.layer).t() * expr::b_O(0),
        9 => expr::ones(Space::Model) * expr::b_O(1),
        10 => expr::w(NormSite::Ln1(h.layer)),
        11 => expr::resid_pre(h.layer).t() * expr::pattern(h) * expr::result(h),
        12 => expr::normalized(NormSite::Final).t() * expr::attn_out(1),
        13 => {
            expr::stack(&[expr::W_E(), expr::W_pos()]).t()
                * expr::stack(&[expr::W_E(), expr::W_pos()])
        }
        14 => expr::W_Q(h) * expr::b_Q(h).t() * expr::b_O(0),
        15 => expr::resid_pre(0).t() * expr::scale(NormSite::Ln1(0)) * expr::resid_pre(1),
        16 => expr::ones(Space::Model) * expr::ones(Space::Model).t(),
        17 => expr::resid_post(0).t() * expr::tokens() * expr::W_E(),
        18 => expr::W_V(h) * expr::W_V(h).t(),
        19 => expr::b_V(h).t().t() * expr::W_O(h).col(2) * expr::ones(Space::One) * expr::b_O(0),
        20 => expr::embed().t() * expr::ones(Space::Pos) * expr::b(NormSite::Final),
        _ => expr::Expr::zero(Space::Model, Space::Model),
    });
    // Everything is [model, model], so that everything can be added and multiplied.
    let leaf = leaf.prop_map(|e| match (e.rows(), e.cols()) {
        (Space::One, _) => expr::ones(Space::Model) * e,
        _ => e,
    });
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a * b),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a + b),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a - b),
            (inner.clone(), -3..4i128, 1..4i128).prop_map(|(a, n, d)| a.scale(Rational::new(n, d))),
            inner.prop_map(|a| a.t()),
        ]
    })
}

fn any_shape() -> impl Strategy<Value = Expr> {
    (expressions(), 0..6usize).prop_map(|(e, shape)| match shape {
        0 => expr::W_E() * e * expr::W_U(),
        1 => e.row(1),
        2 => expr::stack(&[e.row(0), e.row(-1)]),
        3 => expr::stack(&[e.clone(), expr::W_E(), e]).t(),
        4 => e.row(1).col(2),
        _ => e,
    })
}

proptest! {
    #![proptest_config(cases(512))]

    /// Printing and parsing are inverse; a negative index is resolved by parsing.
    #[test]
    fn printed_expressions_parse_back(e in any_shape()) {
        let dims = Dims::default();
        let text = e.to_string();
        let parsed = Family::parse(&text, &dims);
        let parsed = parsed.map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(parsed.members.len(), 1);
        if text.contains(",-") || text.contains("[-") {
            let again = parsed.members[0].to_string();
            prop_assert_eq!(&Family::parse(&again, &dims).unwrap().members[0], &parsed.members[0]);
        } else {
            prop_assert_eq!(&parsed.members[0], &e, "{}", text);
        }
    }

    /// The algebra's laws hold of normal forms.
    #[test]
    fn laws((a, b, c) in (expressions(), expressions(), expressions())) {
        prop_assert_eq!(&(&a * &b) * &c, &a * (&b * &c));
        prop_assert_eq!((&a + &b) * &c, &a * &c + &b * &c);
        prop_assert_eq!((&a * &b).t(), b.t() * a.t());
        prop_assert_eq!(a.t().t(), a.clone());
        prop_assert_eq!(&a - &a, Expr::zero(Space::Model, Space::Model));
        prop_assert_eq!(&a + &b, &b + &a);
    }
}

/// The expression as it stands, from left to right, on matrices made of it by the simplest means.
fn plainly(source: &Source<'_, f64>, e: &Expr) -> (Mat, Mat) {
    let dims = source.dims();
    let (m, n) = (e.rows().size(&dims), e.cols().size(&dims));
    let mut sum = Mat::zeros(m, n);
    let mut magnitude = Mat::zeros(m, n);
    let abs = |M: &Mat| Mat::from_fn(M.nrows(), M.ncols(), |i, j| M[(i, j)].abs());
    for (factors, x) in e.terms() {
        let mut value = Mat::identity(m, m);
        let mut size = Mat::identity(m, m);
        for factor in factors {
            let M = single(source, factor);
            value = product(value.as_ref(), M.as_ref());
            size = product(size.as_ref(), abs(&M).as_ref());
        }
        let x = *x.numer() as f64 / *x.denom() as f64;
        sum += faer::Scale(x) * &value;
        magnitude += faer::Scale(x.abs()) * &size;
    }
    (sum, magnitude)
}

/// A single factor, by definition.
fn single(source: &Source<'_, f64>, factor: &expr::Factor) -> Mat {
    let dims = source.dims();
    let M = match &factor.symbol {
        Symbol::C => {
            let n = dims.d_model;
            Mat::from_fn(n, n, |i, j| f64::from(u8::from(i == j)) - 1.0 / n as f64)
        }
        Symbol::Inject { stack, part } => {
            let before: usize = stack[..*part].iter().map(|s| s.size(&dims)).sum();
            let rows = stack.iter().map(|s| s.size(&dims)).sum();
            Mat::from_fn(rows, stack[*part].size(&dims), |i, j| {
                f64::from(u8::from(i == before + j))
            })
        }
        // What the library says of a symbol that is alone, which the reference data holds it to.
        symbol => {
            let plan = Plan::naive(&[Expr::from(symbol.clone())], &dims, Form::Dense);
            dense(evaluate(&plan, source, Par::Seq).unwrap()).remove(0)
        }
    };
    let M = match factor.inverse {
        true => Mat::from_fn(M.nrows(), M.ncols(), |i, j| {
            if i == j { 1.0 / M[(i, j)] } else { 0.0 }
        }),
        false => M,
    };
    if factor.transposed {
        M.transpose().to_owned()
    } else {
        M
    }
}

/// More roundings than any of these tests' expressions takes.
const ROUNDINGS: f64 = 4096.0 * f64::EPSILON;

fn assert_close(found: &Mat, expected: &Mat, magnitude: &Mat, what: &str) {
    assert_eq!(
        (found.nrows(), found.ncols()),
        (expected.nrows(), expected.ncols()),
        "{what}"
    );
    for j in 0..found.ncols() {
        for i in 0..found.nrows() {
            let off = (found[(i, j)] - expected[(i, j)]).abs();
            assert!(
                off <= ROUNDINGS * magnitude[(i, j)],
                "{what} at [{i}, {j}]: {} {}",
                found[(i, j)],
                expected[(i, j)]
            );
        }
    }
}

proptest! {
    #![proptest_config(cases(96))]

    /// Plans compute what the expression says, by whatever order and form.
    #[test]
    fn plans_compute_the_expression(e in any_shape(), seed in 0..8u64) {
        let (model, tokens) = random_model::<f64>(seed);
        let out = full_run(&model, &tokens);
        let source = Source::run(&model, &out, 1);
        let dims = source.dims();
        let (expected, magnitude) = plainly(&source, &e);
        let members = std::slice::from_ref(&e);
        let all = [Plan::new(members, &dims, Form::Dense), Plan::naive(members, &dims, Form::Dense)];
        for plan in all.into_iter().chain(Plan::orders(&e, &dims, Form::Dense)) {
            let found = dense(evaluate(&plan, &source, Par::Seq).unwrap());
            assert_close(&found[0], &expected, &magnitude, &e.to_string());
        }
        // And every form says the same of it.
        let total = magnitude.norm_l2() * ROUNDINGS;
        let form = |form: Form| evaluate(&Plan::new(members, &dims, form), &source, Par::Seq).unwrap().remove(0);
        if let Value::Factored(M) = form(Form::Factored) {
            assert_close(&M.AB(Par::Seq), &expected, &magnitude, &e.to_string());
        }
        let Value::Number(norm) = form(Form::Norm) else { panic!() };
        prop_assert!((norm - expected.norm_l2()).abs() <= total, "{norm}");
        let Value::Svd(svd) = form(Form::Svd) else { panic!() };
        let by_values = svd.S.iter().map(|s| s * s).sum::<f64>().sqrt();
        prop_assert!((by_values - expected.norm_l2()).abs() <= total, "{by_values}");
        if expected.nrows() == expected.ncols() {
            let trace: f64 = (0..expected.nrows()).map(|i| expected[(i, i)]).sum();
            let Value::Number(found) = form(Form::Trace) else { panic!() };
            prop_assert!((found - trace).abs() <= total, "{found} {trace}");
            let Value::Diag(diagonal) = form(Form::Diag) else { panic!() };
            for (i, d) in diagonal.iter().enumerate() {
                prop_assert!((d - expected[(i, i)]).abs() <= total);
            }
        }
        let Value::Top(top) = form(Form::Top(2)) else { panic!() };
        for i in 0..expected.nrows() {
            let largest = (0..expected.ncols()).map(|j| expected[(i, j)]).fold(f64::NEG_INFINITY, f64::max);
            let (_, found) = top.row(i).next().unwrap();
            prop_assert!((found - largest).abs() <= total);
        }
        let Value::Dense(soft) = form(Form::Softmax) else { panic!() };
        for i in 0..soft.nrows() {
            let sum: f64 = (0..soft.ncols()).map(|j| soft[(i, j)]).sum();
            prop_assert!((sum - 1.0).abs() <= ROUNDINGS);
        }
    }

    /// The normal form means what the factors meant that it was made of.
    #[test]
    fn simplifying_keeps_the_value((a, b) in (expressions(), expressions()), seed in 0..8u64) {
        keeps_the_value(&a, &b, seed);
    }
}

fn keeps_the_value(a: &Expr, b: &Expr, seed: u64) {
    let (model, tokens) = random_model::<f64>(seed);
    let out = full_run(&model, &tokens);
    let source = Source::run(&model, &out, 0);
    let ((x, x_size), (y, y_size)) = (plainly(&source, a), plainly(&source, b));
    let text = format!("({a}) ({b})");
    let expected = product(x.as_ref(), y.as_ref());
    let magnitude = product(x_size.as_ref(), y_size.as_ref());
    assert_close(&plainly(&source, &(a * b)).0, &expected, &magnitude, &text);
    let (sum, size) = (&x + &y, &x_size + &y_size);
    assert_close(&plainly(&source, &(a + b)).0, &sum, &size, &text);
}

/// One that random expressions once failed on: a product and the same product continued.
#[test]
fn a_product_and_its_beginning_are_two_terms() {
    let a = expr::W_OV(Head { layer: 0, head: 0 });
    let b = &a * expr::W_pos().row(1).t() * expr::W_pos().row(0);
    keeps_the_value(&a, &b, 0);
}

/// Both sides of every rule, on random weights.
#[test]
fn rules_hold_of_numbers() {
    let (model, tokens) = random_model::<f64>(3);
    let out = full_run(&model, &tokens);
    let source = Source::run(&model, &out, 0);
    let head = Head { layer: 0, head: 1 };
    let site = NormSite::Ln1(1);
    let scale = expr::scale(site);
    let stacked = expr::stack(&[expr::W_E(), expr::W_pos()]);
    let J = |part| {
        Expr::from(Symbol::Inject {
            stack: vec![Space::Vocab, Space::Pos],
            part,
        })
    };
    let number = |bias: Expr, other: Expr| bias * other.t();
    let inverse = Family::parse("scale[1,ln1]^-1", &source.dims())
        .unwrap()
        .members
        .remove(0);
    let sides: Vec<(Rule, Expr, Expr)> = vec![
        (Rule::CentringTwice, expr::C(), expr::C() * expr::W_U()),
        (Rule::CentringOnes, expr::C(), expr::ones(Space::Model)),
        (
            Rule::FourierOrthogonal,
            expr::F(),
            expr::F().t() * expr::W_E(),
        ),
        (Rule::FourierOrthogonal, expr::F_out().t(), expr::F_out()),
        (Rule::CentringOnes, expr::ones(Space::Model).t(), expr::C()),
        (Rule::ScaleInverse, scale.clone(), inverse.clone()),
        (Rule::ScaleInverse, inverse, scale),
        (
            Rule::DiagonalsCommute,
            expr::w(NormSite::Final),
            expr::w(site),
        ),
        (
            Rule::PatternRows,
            expr::pattern(head),
            expr::ones(Space::Pos),
        ),
        (
            Rule::PatternRows,
            expr::ones(Space::Pos).t(),
            expr::pattern(head).t(),
        ),
        (Rule::TokenRows, expr::tokens(), expr::ones(Space::Vocab)),
        (
            Rule::TokenRows,
            expr::ones(Space::Vocab).t(),
            expr::tokens().t(),
        ),
        (Rule::StackParts, J(1).t(), stacked.clone()),
        (
            Rule::UnitVectors,
            Expr::unit(Space::Out, 2).t(),
            Expr::unit(Space::Out, 2),
        ),
        (
            Rule::UnitVectors,
            Expr::unit(Space::Out, 2).t(),
            Expr::unit(Space::Out, 1),
        ),
        (
            Rule::OnesAtAnIndex,
            expr::ones(Space::Out).t(),
            Expr::unit(Space::Out, 1),
        ),
        (
            Rule::NumbersCommute,
            number(expr::b_O(1), expr::b_O(0)),
            number(expr::b_Q(head), expr::b_K(head)) * expr::b_V(head),
        ),
    ];
    let mut seen = BTreeSet::new();
    for (rule, a, b) in sides {
        let simplified = &a * &b;
        assert!(
            simplified.rules().contains(&rule),
            "{rule:?}: {a} times {b}"
        );
        seen.insert(rule);
        let ((x, x_size), (y, y_size)) = (plainly(&source, &a), plainly(&source, &b));
        let expected = product(x.as_ref(), y.as_ref());
        let magnitude = product(x_size.as_ref(), y_size.as_ref());
        assert_close(
            &plainly(&source, &simplified).0,
            &expected,
            &magnitude,
            &format!("{rule:?}"),
        );
    }
    // No model here turns its queries and keys: rotations' own tests are beside them, in `eval`.
    let of_rotations = [
        Rule::RotationsAdd,
        Rule::RotationBack,
        Rule::RotationByNothing,
    ];
    seen.extend(of_rotations);
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), Rule::ALL);
}

/// Costs at GPT-2-small's sizes, written down.
#[test]
fn costs_are_pinned() {
    let dims = Dims {
        n_layers: 12,
        n_heads: 12,
        groups: 12,
        d_vocab: 50257,
        pos: 1024,
        d_model: 768,
        d_head: 64,
        d_mlp: Some(3072),
        d_vocab_out: 50257,
        norm: Some(NormKind::LN),
        pos_embed: true,
        rotary: None,
        ..Dims::default()
    };
    let flops = |text: &str, form: Form| {
        let family = Family::parse(text, &dims).unwrap();
        let [best, naive] =
            [Plan::new, Plan::naive].map(|f| f(&family.members, &dims, form).cost().flops);
        (best, naive)
    };
    let (v, d, h) = (50257u64, 768u64, 64u64);
    // Never through [model, model]; from both ends, the middle last.
    assert_eq!(
        flops("W_E W_OV[0.0] W_U", Form::Dense),
        (
            2 * v * d * h * 2 + 2 * v * h * v,
            2 * v * d * h * 2 + 2 * v * d * v
        )
    );
    assert_eq!(
        flops("W_OV[0.7] W_OV[1.2]", Form::Dense).0,
        // The two heads' [64, 64] first.
        2 * h * d * h + 2 * h * h * d.min(d) + 2 * d * h * d
    );
    assert_eq!(flops("W_OV[0.7]", Form::Trace).0, 2 * d * h);
    assert_eq!(flops("W_OV[0.7]", Form::Factored).0, 0);
    assert_eq!(
        flops("W_OV[0.7]", Form::Norm).0,
        2 * (d + d) * h * h + 2 * h * h
    );
    assert_eq!(
        flops(
            "W_pos W_OV[0.0] W_OV[1.0] (W_U[:,0] - W_U[:,1])",
            Form::Dense
        )
        .0,
        // A vector all the way: the difference, four products, the positions.
        4 * d + 4 * 2 * d * h + 2 * 1024 * d
    );
    // A family's W_E is read once, and its heads side by side.
    let family = Family::parse("W_E W_V[0.*]", &dims).unwrap();
    let plan = Plan::new(&family.members, &dims, Form::Dense);
    assert_eq!(plan.steps.len(), 2);
    assert_eq!(plan.steps[1].shape, [50257, 768]);
    assert_eq!(plan.cost().flops, 12 * 2 * v * d * h);
    // What terms share is computed once.
    let (best, _) = flops("(I + W_OV[0.0]) (I + W_OV[1.0]) W_U[:,3]", Form::Dense);
    assert_eq!(best, 4 * 2 * d * h + 2 * 4 * d);
}

#[test]
fn errors_point_into_the_text() {
    let dims = Dims::default();
    for (text, expected) in [
        (
            "W_E W_U^T",
            "`W_E` has model columns, `W_U^T` has out rows; did you mean `W_U`?\n  W_E W_U^T\n      ^^^^^",
        ),
        (
            "W_U + W_U^T",
            "`W_U` is [model, out], `W_U^T` is [out, model]; did you mean `W_U`?\n  W_U + W_U^T\n        ^^^^^",
        ),
        (
            "W_E W_QK[0.3] W_E^T",
            "there is no head 0.3: this model has 3 a layer\n  W_E W_QK[0.3] W_E^T\n      ^^^^^^^^^",
        ),
        (
            "W_E W_QK W_E^T",
            "`W_QK` needs a head: `W_QK[0.0]`, or `W_QK[0.*]` for all\n  W_E W_QK W_E^T\n      ^^^^",
        ),
        (
            "W_E (W_OV[0.0] W_U",
            "expected `)` to close the parenthesis",
        ),
        (
            "W_OV[0.0 == W_U",
            "expected `]` to close the index\n  W_OV[0.0 == W_U\n           ^",
        ),
        ("", "the expression ends too early"),
        ("W_E W_X", "there is no matrix called `W_X`"),
        (
            "W_E WU",
            "there is no matrix called `WU`; did you mean `W_U`?",
        ),
        ("W_pos[11]", "row 11 is out of range: pos has 11"),
        ("W_U[:,-8]", "column -8 is out of range: out has 7"),
        ("sum(W_E)", "there is no `*` to sum over"),
        ("I", "`I` of which space? Say `I[model]`"),
        (
            "W_E + 1",
            "a number stands against a matrix [vocab, model]; the identity is `I`",
        ),
        (
            "W_E + I",
            "`I` stands against [vocab, model], which is not square",
        ),
        ("W_E^-1", "only a `scale` has an inverse here"),
        ("W_E^2", "expected `^T` (transpose) or `^-1` (of a scale)"),
        (
            "W_E == W_E",
            "one expression was expected; statements `LHS == RHS` are for `prove`",
        ),
        (
            "[W_E; W_U]",
            "the stack's parts have model columns above, out here",
        ),
        ("1/0 W_E", "division by zero"),
        (
            "W_E € W_U",
            "expected an operator, a factor, or the end\n  W_E € W_U\n      ^",
        ),
        (
            "1234567890123456789",
            "expected a number of at most 18 digits",
        ),
        ("resid_post[2]", "there is no layer 2: this model has 2"),
    ] {
        let error = Family::parse(text, &dims).map(|f| f.members[0].to_string());
        let error = error.expect_err(text).to_string();
        assert!(error.starts_with(expected), "{text}:\n{error}");
    }
    // No nesting, no size and no sequence of operators brings it down.
    for text in [
        "(".repeat(100_000),
        "[".repeat(100_000),
        "-".repeat(100_000),
        "sum(".repeat(9999),
    ] {
        assert!(Family::parse(&text, &dims).is_err());
    }
    let power = vec!["(W_OV[0.0] + W_OV[0.1] + C)"; 40].join(" ");
    let error = Family::parse(&power, &dims).unwrap_err().to_string();
    assert!(error.contains("more than 65536 terms"), "{error}");
    let many = "sum(W_OV[*.*]) ".repeat(12);
    assert!(Family::parse(&many, &dims).is_err());
    let large = ["999999999999999999"; 9].join(" ") + " W_E";
    let error = Family::parse(&large, &dims).unwrap_err().to_string();
    assert!(error.contains("too large to be kept exactly"), "{error}");
}

proptest! {
    #![proptest_config(cases(4096))]

    /// Whatever is typed, there is an answer; and what an error says can be printed.
    #[test]
    fn any_text_is_answered(
        words in proptest::collection::vec(
            proptest::sample::select(vec![
                "W_E", "W_U", "W_OV[0.*]", "W_QK[1.0]", "^T", "ᵀ", "(", ")", "[", "]", ";", ",", ":", "-1", "0",
                "+", "-", "*", "@", "·", "sum(", "I", "C", "ones", "1/2", "==", " ", "resid_post[1]", "[0]", "R", "R[2]", "[0..3]",
                "[:,1]", "scale[0,ln1]", "^-1", "é", "\u{85}", "\n", "W_", "[0.", "3.5", "I[model]", "0[",
            ]),
            0..14,
        ),
    ) {
        let dims = Dims::default();
        let text = words.concat();
        match Family::parse(&text, &dims) {
            Ok(family) => prop_assert!(!family.members.is_empty()),
            Err(e) => prop_assert!(e.to_string().lines().count() <= 3),
        }
        let _ = Statement::parse(&text, &dims).map_err(|e| e.to_string());
    }
}

/// Models of every kind: the definitions of a run's values hold of its numbers.
#[test]
fn definitions_hold_on_random_models() {
    let models = configs().prop_flat_map(|c| models_and_tokens_of::<f64>(&c));
    proptest!(cases(48), |((model, tokens) in models)| {
        let out = full_run(&model, &tokens);
        let dims = dims_of(&model, &tokens);
        let mut statements: Vec<Statement> = Vec::new();
        let mut define = |symbol: Symbol| {
            let symbol = symbol.grouped(&dims);
            if let Some(definition) = expr::definition(&symbol, &dims) {
                statements.push(Statement::equal(Expr::from(symbol), definition));
            }
        };
        // What a model does not have, nothing is said of.
        define(Symbol::Embed);
        define(Symbol::PosEmbed);
        define(Symbol::EmbedSum);
        define(Symbol::Normalized(NormSite::Embed));
        define(Symbol::Normalized(NormSite::Final));
        define(Symbol::Logits);
        for l in 0..=dims.n_layers {
            define(Symbol::ResidPre(l));
            define(Symbol::Normalized(NormSite::Ln1(l)));
            define(Symbol::AttnSum(l));
            define(Symbol::AttnOut(l));
            define(Symbol::ResidMid(l));
            define(Symbol::Normalized(NormSite::Ln2(l)));
            define(Symbol::Pre(l));
            define(Symbol::PreLinear(l));
            define(Symbol::MlpSum(l));
            define(Symbol::MlpOut(l));
            define(Symbol::ResidPost(l));
            for site in [NormSite::Q(l), NormSite::Neurons(l), NormSite::Ln1Post(l)] {
                define(Symbol::Normalized(site));
            }
        }
        for h in dims.heads() {
            define(Symbol::Q(h.into()));
            define(Symbol::K(h));
            define(Symbol::V(h));
            define(Symbol::RotQ(h.into()));
            define(Symbol::RotK(h));
            define(Symbol::Z(h.into()));
            define(Symbol::Result(h));
        }
        for statement in statements {
            assert_identity!(model, out, statement);
        }
    });
}
