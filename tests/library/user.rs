//! What a user's own test looks like: circuit identities of a model and a run, in a dozen lines.

use pathsum::expr::{Statement, W_K, W_O, W_Q, W_QK, attn_out, pattern, result, v};
use pathsum::{Head, Run, Tokens, assert_identity, fixture};

#[test]
fn my_circuit_is_what_i_think_it_is() {
    let model = fixture::induction::<f64>();
    let tokens = Tokens::from_rows(&[[7, 3, 9, 7], [1, 2, 1, 2]]);
    let run = model.run(&tokens, Run::new().cache("*")).unwrap();
    let head = Head { layer: 1, head: 0 };
    assert_identity!(model, "W_E W_OV[1.0] W_U == (W_U^T W_OV[1.0]^T W_E^T)^T");
    assert_identity!(
        model,
        run,
        "resid_post[1] == embed + pos_embed + attn_out[0] + attn_out[1]"
    );
    assert_identity!(
        model,
        run,
        result(head),
        pattern(head) * v(head) * W_O(head)
    );
}

/// Without a run: a model's weights are enough for what is said of them alone.
#[test]
fn my_weights_are_what_i_think_they_are() {
    let model = fixture::induction::<f32>();
    assert_identity!(model, "W_OV[*.*]^T == W_O[*.*]^T W_V[*.*]^T");
    let dims = model.config().dims();
    for head in dims.heads() {
        assert_identity!(model, W_QK(head).t(), W_K(head) * W_Q(head).t());
        assert_identity!(&model, &W_QK(head).t(), W_K(head) * W_Q(head).t());
        assert_identity!(model, format!("b_V[{head}] == 0"));
    }
    assert_identity!(model, Statement::parse("b_U == 0", &dims).unwrap());
}

#[test]
#[should_panic(expected = "not so: W_OV[0.0] == W_OV[1.0]")]
fn wrong_weights_fail() {
    let model = fixture::induction::<f64>();
    assert_identity!(model, "W_OV[0.0] == W_OV[1.0]");
}

#[test]
#[should_panic(expected = "not so: W_QK[0.0] == W_QK[0.0]^T")]
fn wrong_weights_as_expressions_fail() {
    let model = fixture::induction::<f64>();
    let head = Head { layer: 0, head: 0 };
    assert_identity!(model, W_QK(head), W_QK(head).t());
}

/// What a run alone knows is no statement about weights.
#[test]
#[should_panic(expected = "z[1.0]")]
fn a_value_of_a_run_needs_one() {
    let model = fixture::induction::<f64>();
    assert_identity!(model, "result[1.0] == z[1.0] W_O[1.0]");
}

#[test]
#[should_panic(expected = "not so: attn_out[1] == 1/2 attn_out[1]")]
fn a_wrong_one_fails() {
    let model = fixture::induction::<f64>();
    let run = Run::new().cache("*");
    let run = model.run(&Tokens::from_rows(&[[7, 3, 7]]), run).unwrap();
    let half = attn_out(1).scale(pathsum::expr::Rational::new(1, 2));
    assert_identity!(model, run, attn_out(1), half);
}

/// The numbers are looked at, whatever the algebra says: a run that a hook has changed is caught.
#[test]
#[should_panic(expected = "not so: result[1.0] == z[1.0] W_O[1.0]")]
fn a_changed_run_fails() {
    let model = fixture::induction::<f64>();
    let run = Run::new()
        .hook("blocks.1.attn.hook_result", |t, _| t.data_mut()[5] += 1e-6)
        .cache("*");
    let run = model.run(&Tokens::from_rows(&[[7, 3, 7]]), run).unwrap();
    assert_identity!(model, run, "result[1.0] == z[1.0] W_O[1.0]");
}
