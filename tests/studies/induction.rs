//! The study of induction heads: on the constructed models, whose heads are known; on one that has learned nothing; and on a
//! trained one.

use crate::common::{outcome, sound, untrained, with_fields};
use crate::reference;
use pathsum::study::Outcome;
use pathsum::study::induction::{self, InductionStudy, Repeated};
use pathsum::{Head, Hook, Model, Par, Run, Scalar, Tokens, fixture};
use serde_json::json;

const STEPS: [&str; 8] = [
    "loss",
    "induction",
    "previous",
    "composition",
    "matching",
    "copying",
    "without-induction",
    "without-previous",
];

fn study<T: Scalar>(model: &Model<T>, tokens: Tokens, period: usize) -> InductionStudy {
    let repeated = Repeated::of(tokens, period).unwrap();
    induction::study(model, repeated, Par::Rayon, &|_| {}).unwrap()
}

#[test]
fn every_claim_holds_of_the_constructed_models() {
    let learned = study(
        &fixture::induction::<f64>(),
        fixture::repeated_sequences(6, 12, 0),
        12,
    );
    let rotary = study(
        &fixture::rotary_induction::<f64>(),
        fixture::started_sequences(6, 12, 0),
        12,
    );
    let head = |name: &str| -> Head { name.parse().unwrap() };
    for found in [learned, rotary] {
        assert_eq!(found.induction, [head("1.0")]);
        assert_eq!(found.previous, [head("0.0")]);
        let story = found.story("a constructed model");
        sound(&story);
        for step in STEPS {
            let verdict = &story.step(step).verdict;
            assert_eq!(
                verdict.outcome,
                Outcome::Holds,
                "{step}: {}",
                verdict.because
            );
        }
    }
}

#[test]
fn a_model_that_has_learned_nothing_has_no_induction_heads() {
    let config = json!({
        "n_layers": 2, "n_heads": 2, "d_model": 12, "d_head": 6, "d_mlp": 10, "act_fn": "gelu", "n_ctx": 24, "d_vocab": 19
    });
    let model = untrained(&with_fields(config, &[]).unwrap(), 0.1, 5);
    let repeated = Repeated::draw(model.config(), 3, None, None, 1).unwrap();
    assert_eq!(repeated.period, 12);
    let found = induction::study(&model, repeated, Par::Seq, &|_| {}).unwrap();
    let story = found.story("a model that has learned nothing");
    sound(&story);
    assert!(found.induction.is_empty());
    for (step, expected) in STEPS.into_iter().zip([
        Outcome::DoesNotHold,
        Outcome::DoesNotHold,
        Outcome::NotApplicable,
        Outcome::NotApplicable,
        Outcome::NotApplicable,
        Outcome::NotApplicable,
        Outcome::NotApplicable,
        Outcome::NotApplicable,
    ]) {
        assert_eq!(outcome(&story, step), expected, "{step}");
    }
}

/// Losses, and what is lost without a head, by runs with a closure.
#[test]
fn losses_are_what_naive_runs_say() {
    let model = fixture::induction::<f64>();
    let tokens = fixture::repeated_sequences(4, 8, 3);
    let found = study(&model, tokens.clone(), 8);
    let c = model.config();
    // The mean over the sequences, and over the tokens of a copy but its first.
    let losses = |without: Option<usize>| {
        let mut run = Run::new();
        if let Some(l) = without {
            run = run.hook(Hook::Z(l), move |z, _| {
                let d = z.shape()[3];
                let rows = z.len() / d;
                let mean: Vec<f64> = (0..d)
                    .map(|j| z.data().iter().skip(j).step_by(d).sum::<f64>() / rows as f64)
                    .collect();
                z.data_mut()
                    .chunks_exact_mut(d)
                    .for_each(|row| row.copy_from_slice(&mean));
            });
        }
        let logits = model.run(&tokens, run).unwrap().logits;
        [0, 8].map(|first| {
            let mut sum = 0.0;
            for i in 0..4 {
                for p in first..first + 7 {
                    let row = logits.slice(&[i, p]);
                    let all: f64 = row.iter().map(|x| x.exp()).sum();
                    sum += all.ln() - row[tokens.sequence(i)[p + 1] as usize];
                }
            }
            sum / 28.0
        })
    };
    let clean = losses(None);
    // Logits are at most twice the gap that was built in; each is a sum over the stream and over two layers' positions.
    let tolerance = 24.0 * f64::EPSILON * (2 * (c.d_model + c.n_ctx) + c.d_vocab) as f64;
    let close = |a: f64, b: f64| assert!((a - b).abs() <= tolerance, "{a} {b}");
    let ablations = found.ablations.as_ref().unwrap();
    let without = [losses(Some(1)), losses(Some(0))];
    let previous = ablations.previous.unwrap();
    for copy in [0, 1] {
        close(found.losses.mean[copy], clean[copy]);
        let rises = |a: induction::Ablated| [a.first, a.second][copy];
        close(rises(ablations.induction), without[0][copy] - clean[copy]);
        close(rises(previous), without[1][copy] - clean[copy]);
    }
    close(ablations.each[0], without[0][1] - clean[1]);
    // There are no others.
    assert_eq!(
        [ablations.others.first, ablations.others.second],
        [0.0, 0.0]
    );
}

#[test]
fn sequences_that_are_not_repeated_are_refused() {
    let of = |rows: &[[i64; 5]], period| Repeated::of(Tokens::from_rows(rows), period);
    let repeated = of(&[[9, 1, 2, 1, 2], [9, 3, 3, 3, 3]], 2).unwrap();
    assert_eq!([repeated.before(0), repeated.before(1)], [[1], [3]]);
    for (rows, period) in [
        (&[[9, 1, 2, 1, 2], [9, 1, 2, 2, 1]][..], 2),
        (&[[9, 1, 2, 1, 2]][..], 3),
        (&[[9, 1, 2, 2, 2]][..], 1),
    ] {
        assert!(of(rows, period).is_err(), "{period}");
    }
    let c = fixture::induction::<f64>().config().clone();
    assert!(Repeated::draw(&c, 0, None, None, 0).is_err());
    assert!(Repeated::draw(&c, 1, Some(17), None, 0).is_err());
    assert!(Repeated::draw(&c, 1, Some(16), Some(3), 0).is_err());
    assert_eq!(
        Repeated::draw(&c, 2, Some(16), None, 0)
            .unwrap()
            .tokens
            .pos(),
        32
    );
}

#[test]
fn a_trained_model_is_studied() {
    let Some(root) = reference::root() else {
        return;
    };
    let model = Model::<f32>::load(root.join("language/stories260K")).unwrap();
    let repeated = Repeated::draw(model.config(), 4, Some(20), Some(1), 0).unwrap();
    let found = induction::study(&model, repeated, Par::Rayon, &|_| {}).unwrap();
    let story = found.story("stories260K");
    sound(&story);
    for step in &story.steps {
        println!(
            "{}: {}: {}",
            step.id, step.verdict.outcome, step.verdict.because
        );
    }
}
