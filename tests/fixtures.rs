//! The embedded models: their files, and what they were made to do.

use pathsum::fixture::{self, Fixture};
use pathsum::{Hook, Run, Tokens};

/// How little the construction's softmaxes leave to the keys and tokens they do not mean: 31 keys at
/// `e^-24`, and the rounding of f32 weights.
const ATTENTION_LEFT: f64 = 1e-6;

#[test]
fn the_embedded_induction_model_is_the_constructed_one() {
    let constructed = fixture::induction::<f32>();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/induction");
    if std::env::var_os("PATHSUM_WRITE_FIXTURES").is_some() {
        constructed.save(&folder).unwrap();
    }
    assert_eq!(Fixture::Induction.load::<f32>(), constructed);
}

#[test]
fn induction_predicts_every_repeated_token() {
    let model = Fixture::Induction.load::<f64>();
    for period in 1..=16 {
        let tokens = fixture::repeated_sequences(20, period, period as u64);
        let logits = model.logits(&tokens).unwrap();
        for b in 0..tokens.batch() {
            for p in period..2 * period - 1 {
                let row = logits.slice(&[b, p]);
                let total: f64 = row.iter().map(|x| x.exp()).sum();
                let right = tokens.sequence(b)[p + 1] as usize;
                let probability = row[right].exp() / total;
                assert!(
                    probability > 0.99,
                    "period {period}, sequence {b}, position {p}: {probability}"
                );
            }
        }
    }
}

#[test]
fn induction_attends_as_it_was_constructed() {
    let model = Fixture::Induction.load::<f64>();
    let period = 9;
    let tokens = fixture::repeated_sequences(10, period, 3);
    let cache = model
        .run(&tokens, Run::new().cache("*.hook_pattern"))
        .unwrap()
        .cache;
    for b in 0..tokens.batch() {
        let previous = &cache[Hook::Pattern(0)];
        let induction = &cache[Hook::Pattern(1)];
        for query in 0..2 * period {
            let left = 1.0 - previous[[b, 0, query, query.saturating_sub(1)]];
            assert!(left < ATTENTION_LEFT, "0.0 at {query}: {left}");
            let row = induction.slice(&[b, 0, query]);
            if query >= period {
                // The key after the token's earlier occurrence.
                let left = 1.0 - row[query - period + 1];
                assert!(left < ATTENTION_LEFT, "1.0 at {query}: {left}");
            } else if query > 0 {
                // Nothing matches: even over all keys but the first.
                for &p in &row[1..=query] {
                    assert!(
                        (p - 1.0 / query as f64).abs() < ATTENTION_LEFT,
                        "1.0 at {query}: {row:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_first_token_that_never_returns_is_no_match() {
    let model = Fixture::Induction.load::<f64>();
    let logits = model.logits(&Tokens::from_rows(&[[5]])).unwrap();
    assert!(logits.data().iter().all(|x| x.is_finite()));
}
