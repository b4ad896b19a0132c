//! What the tests of several rooms need.

#[path = "../common/reference.rs"]
pub mod reference;

use pathsum::{Model, Run, RunOutput, Scalar, Tokens};
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestCaseResult, TestRunner};

/// So many cases, the same every time; `PROPTEST_CASES` and `PROPTEST_RNG_SEED` try others, and more.
pub fn cases(cases: u32) -> Config {
    let mut config = Config {
        // What fails is found again from the same seed; no file needs to remember it.
        failure_persistence: None,
        ..Config::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(0);
    }
    config
}

/// Tries a claim on so many cases, as [`cases`] says.
#[track_caller]
pub fn for_all<S: Strategy>(number: u32, strategy: S, claim: impl Fn(S::Value) -> TestCaseResult) {
    let outcome = TestRunner::new(cases(number)).run(&strategy, claim);
    outcome.unwrap_or_else(|e| panic!("{e}"));
}

/// A run that keeps everything.
pub fn full_run<T: Scalar>(model: &Model<T>, tokens: &Tokens) -> RunOutput<T> {
    model.run(tokens, Run::new().cache("*")).unwrap()
}

/// The numbers of a figure, in the order in which they stand.
pub fn numbers(value: &serde_json::Value) -> Vec<f64> {
    match value {
        serde_json::Value::Array(all) => all.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().expect("a number")],
    }
}

/// A matrix's entries, row by row.
pub fn rows(M: &faer::Mat<f64>) -> Vec<f64> {
    let each = |i: usize| (0..M.ncols()).map(move |j| (i, j));
    (0..M.nrows()).flat_map(each).map(|at| M[at]).collect()
}
