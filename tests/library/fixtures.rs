//! The embedded models: their files, and what they were made to do.

use pathsum::fixture::{self, Fixture};
use pathsum::task::{BuiltIn, Labelled};
use pathsum::train::{Evaluation, Recipe, evaluate};
use pathsum::verify::{self, Verdict};
use pathsum::{Hook, Par, Run, TensorFile, Tokens};
use std::path::Path;

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

// ---- The trained models

/// Each trained model with the task that it was trained on.
const TRAINED: [(Fixture, BuiltIn); 6] = [
    (Fixture::Palindrome, BuiltIn::Palindrome),
    (Fixture::SortedList, BuiltIn::SortedList),
    (Fixture::Brackets, BuiltIn::Brackets),
    (Fixture::TwoInteger, BuiltIn::TwoInteger),
    (Fixture::MaxOfK, BuiltIn::MaxOfK),
    (Fixture::ModularAddition, BuiltIn::ModularAddition),
];

/// How good an embedded model is on sequences of a seed that no training draws from.
fn held_out(fixture: Fixture, task: BuiltIn, size: usize) -> Evaluation {
    let data = task.task().generate(size, u64::MAX);
    evaluate(&fixture.load::<f32>(), &data, Par::Rayon).unwrap()
}

#[test]
fn trained_models_do_what_they_were_trained_to_do() {
    let found = held_out(Fixture::Palindrome, BuiltIn::Palindrome, 5000);
    assert!(found.loss <= 0.02 && found.accuracy >= 0.995, "{found:?}");
    let found = held_out(Fixture::SortedList, BuiltIn::SortedList, 2000);
    assert!(
        found.loss <= 0.045 && found.probability >= 0.96,
        "{found:?}"
    );
    let found = held_out(Fixture::Brackets, BuiltIn::Brackets, 5000);
    assert!(found.accuracy >= 0.999, "{found:?}");
    let found = held_out(Fixture::MaxOfK, BuiltIn::MaxOfK, 5000);
    assert!(found.accuracy >= 0.9995, "{found:?}");

    let task = BuiltIn::TwoInteger.task();
    let all = task.label(task.inputs().unwrap()).unwrap();
    let model = Fixture::TwoInteger.load::<f32>();
    let found = evaluate(&model, &all, Par::Rayon).unwrap();
    assert!(
        all.batch() == 113 * 113 && found.accuracy >= 0.98,
        "{found:?}"
    );
    // Not by heart: the half that it was not trained on.
    let held_out = Recipe::built_in(BuiltIn::TwoInteger)
        .draw()
        .unwrap()
        .held_out;
    let found = evaluate(&model, &held_out, Par::Rayon).unwrap();
    assert!(found.accuracy >= 0.96, "{found:?}");

    // It has grokked: all pairs, of which it was trained on 30%.
    let recipe = Recipe::built_in(BuiltIn::ModularAddition);
    let (model, drawn) = (
        Fixture::ModularAddition.load::<f32>(),
        recipe.draw().unwrap(),
    );
    let trained = drawn.batch(0);
    assert_eq!(trained.batch() + drawn.held_out.batch(), 113 * 113);
    assert!(3 * trained.batch() < 113 * 113);
    for part in [&trained, &drawn.held_out] {
        let found = evaluate(&model, part, Par::Rayon).unwrap();
        assert!(found.accuracy == 1.0 && found.loss < 1e-5, "{found:?}");
    }
}

#[test]
fn trained_models_have_their_recipes_architecture() {
    for (fixture, task) in TRAINED {
        let (model, recipe) = (fixture.load::<f32>(), Recipe::built_in(task));
        assert_eq!(model.config(), &recipe.model, "{fixture}");
    }
    for fixture in [
        Fixture::TwoInteger,
        Fixture::MaxOfK,
        Fixture::ModularAddition,
    ] {
        let model = fixture.load::<f32>();
        for (name, t) in model.weights().tensors() {
            let zero = name == "unembed.b_U" || name.contains(".attn.b_");
            assert_eq!(t.max_abs() == 0.0, zero, "{fixture}: {name}");
        }
    }
}

#[test]
fn every_identity_holds_for_every_embedded_model() {
    for (fixture, task) in TRAINED {
        let model = fixture.load::<f64>();
        let tokens = task.task().tokens(12, 7);
        for finding in verify::check(&model, &tokens, Par::Rayon, &mut |_, _| {}).unwrap() {
            let refuted = matches!(finding.verdict, Verdict::Refuted(_));
            assert!(!refuted, "{fixture}: {finding:?}");
        }
    }
}

#[test]
fn the_datasets_beside_the_models_are_their_tasks() {
    for (fixture, task) in TRAINED {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        let path = folder.join(fixture.to_string()).join("dataset.safetensors");
        let file = TensorFile::open(path).unwrap();
        let tokens = Tokens::from_file(&file).unwrap();
        let task = task.task();
        let Labelled { answers, .. } = task.label(tokens).unwrap();
        if let Some(key) = task.label_key() {
            let (_, labels) = file.integer(key).unwrap();
            let labels: Vec<usize> = labels.into_iter().map(|l| l as usize).collect();
            assert_eq!(answers.classes(), Some(&labels[..]));
        }
    }
}
