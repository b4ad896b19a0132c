//! The study of modular addition, held to every published figure of a checkpoint, and to naive loops.

use crate::common::{outcome, sound, untrained, with_fields};
use crate::reference;
use pathsum::fixture::Fixture;
use pathsum::study::modular_addition::{self, Known, ModularAdditionStudy};
use pathsum::study::{Outcome, Story};
use pathsum::task::{BuiltIn, ModularAddition, Operation, Task};
use pathsum::train::Recipe;
use pathsum::{Config, Hook, Model, Par, Run, TensorFile, Tokens, Weights};
use serde_json::{Value, json};
use std::f64::consts::TAU;
use std::time::Instant;

/// A model's configuration for residues modulo `p`, but for these fields.
fn config(p: usize, other: &[(&str, Value)]) -> Config {
    let config = json!({
        "n_layers": 1, "n_heads": 2, "d_model": 6, "d_head": 3, "d_mlp": 9, "n_ctx": 3, "d_vocab": p + 1,
        "d_vocab_out": p, "act_fn": "relu", "normalization_type": null
    });
    with_fields(config, other).unwrap()
}

fn study(model: &Model<f64>, operation: Operation, seed: Option<u32>) -> ModularAdditionStudy {
    let task = ModularAddition::new(model.config().d_vocab_out, operation);
    modular_addition::study(model, &task, seed, Par::Rayon, &|_| {}).unwrap()
}

fn figure<'a>(story: &'a Story, id: &str) -> &'a Value {
    story
        .figures
        .get(id)
        .unwrap_or_else(|| panic!("no figure {id}"))
}

fn number(story: &Story, id: &str) -> f64 {
    figure(story, id).as_f64().unwrap()
}

/// To 1e-9, as the reference asks: of the number, where it is larger than one.
#[track_caller]
fn same(found: &Value, expected: &Value, id: &str) {
    match (found, expected) {
        (Value::Array(f), Value::Array(e)) => {
            assert_eq!(f.len(), e.len(), "{id}");
            for (i, (f, e)) in f.iter().zip(e).enumerate() {
                same(f, e, &format!("{id}/{i}"));
            }
        }
        (Value::Object(f), Value::Object(e)) => {
            assert_eq!(f.keys().collect::<Vec<_>>(), e.keys().collect::<Vec<_>>());
            for (key, e) in e {
                same(&f[key], e, &format!("{id}/{key}"));
            }
        }
        _ => {
            let (f, e) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
            let off = (f - e).abs();
            assert!(off <= 1e-9 * e.abs().max(1.0), "{id}: {f}, expected {e}");
        }
    }
}

/// How far apart two figures are, number by number.
fn off(found: &Value, expected: &Value) -> f64 {
    match (found, expected) {
        (Value::Array(f), Value::Array(e)) => {
            let each = f.iter().zip(e).map(|(f, e)| off(f, e));
            each.fold(0.0, f64::max)
        }
        _ => (found.as_f64().unwrap() - expected.as_f64().unwrap()).abs(),
    }
}

#[test]
fn every_figure_is_the_references() {
    let Some((folder, expected)) = reference::folder("algorithmic/mod_add") else {
        return;
    };
    let model = Model::<f64>::load(&folder).unwrap();
    // All logits, to the last digits: sums of some hundred products of this size.
    let file = TensorFile::open(folder.join("logits.safetensors")).unwrap();
    let (shape, ids) = file.integer("tokens").unwrap();
    let tokens = Tokens::new(shape[0], shape[1], ids);
    let logits = file.float::<f64>("logits").unwrap();
    let out = model.run(&tokens, Run::new()).unwrap().logits;
    let p = model.config().d_vocab_out;
    for i in 0..tokens.batch() {
        for (x, e) in out.slice(&[i, 2]).iter().zip(logits.slice(&[i])) {
            assert!((x - e).abs() <= 1e-11, "pair {i}: {x}, expected {e}");
        }
    }

    let began = Instant::now();
    let study = study(&model, Operation::Add, None);
    println!("{:.1?}", began.elapsed());
    // Which pairs it was trained on is found.
    assert!(matches!(study.split.known, Known::Found { .. }) && study.split.seed == 1);
    let story = study.story("the reference");
    sound(&story);
    let all = expected.as_object().unwrap();
    assert_eq!(all.len(), 170);
    for (id, figure_of) in all {
        let (found, recomputed) = (figure(&story, id), &figure_of["recomputed"]);
        same(found, recomputed, id);
        // What is published, to the digits on which the reference agrees with it.
        let published = &figure_of["published"];
        if !published.is_null() {
            let allowed = off(recomputed, published) + 1e-9;
            assert!(
                off(found, published) <= allowed,
                "{id}: {found}, published {published}"
            );
            let mut rows = story.published().filter(|row| row.figure == *id);
            assert!(rows.next().is_some(), "{id} is published");
        }
    }
    for step in &story.steps {
        let expected = match step.id.as_str() {
            "training" => Outcome::NotApplicable,
            _ => Outcome::Holds,
        };
        assert_eq!(
            step.verdict.outcome, expected,
            "{}: {}",
            step.id, step.verdict.because
        );
    }
    assert_eq!(p, 113);
}

/// Every row of what is published has a figure of the reference checkpoint, and says its digits.
#[test]
fn what_is_published_has_a_figure() {
    let Some((_, expected)) = reference::folder("algorithmic/mod_add") else {
        return;
    };
    let model = untrained(&config(7, &[]), 1.0, 1);
    let story = study(&model, Operation::Add, Some(0)).story("a model");
    let mut rows = 0;
    for row in story.published() {
        let figure = &expected[&row.figure]["published"];
        assert!(!figure.is_null(), "{}", row.figure);
        if let (Some(printed), Some(published)) =
            (row.published.parse::<f64>().ok(), figure.as_f64())
        {
            let digits = row
                .published
                .chars()
                .filter(char::is_ascii_digit)
                .count()
                .min(3);
            let half = 0.5 * 10f64.powi(1 - digits as i32) * published.abs().max(f64::MIN_POSITIVE);
            assert!(
                (printed - published).abs() <= half,
                "{}: {printed}",
                row.figure
            );
        }
        rows += 1;
    }
    let published = expected.as_object().unwrap().values();
    assert_eq!(
        rows,
        published.filter(|f| !f["published"].is_null()).count()
    );
}

/// The pairs' values by a run of their own: logits, and neurons.
struct Naive {
    p: usize,
    logits: Vec<Vec<f64>>,
    hidden: Vec<Vec<f64>>,
    W_L: Vec<Vec<f64>>,
}

impl Naive {
    fn of(model: &Model<f64>) -> Self {
        let p = model.config().d_vocab_out;
        let task = ModularAddition::new(p, Operation::Add);
        let tokens = task.inputs().unwrap();
        let out = model.run(&tokens, Run::new().cache(Hook::Post(0))).unwrap();
        let rows = |t: &pathsum::Tensor<f64>| -> Vec<Vec<f64>> {
            (0..p * p).map(|i| t.slice(&[i, 2]).to_vec()).collect()
        };
        let weights = model.weights();
        let mlp = weights.blocks[0].mlp.as_ref().unwrap();
        let d = model.config().d_model;
        let to = |n: usize, c: usize| {
            (0..d)
                .map(|i| mlp.W_out[[n, i]] * weights.W_U[[i, c]])
                .sum()
        };
        let W_L = (0..mlp.b_in.len()).map(|n| (0..p).map(|c| to(n, c)).collect());
        Naive {
            p,
            logits: rows(&out.logits),
            hidden: rows(&out.cache[Hook::Post(0)]),
            W_L: W_L.collect(),
        }
    }

    /// `cos` and `sin` of a frequency, of a number for each pair: orthonormal over the pairs.
    fn directions(&self, k: usize, of: impl Fn(usize, usize) -> usize) -> Vec<Vec<f64>> {
        let p = self.p;
        let angle = |i: usize| TAU * (k * of(i / p, i % p)) as f64 / p as f64;
        let unit = |values: Vec<f64>| {
            let norm = values.iter().map(|x| x * x).sum::<f64>().sqrt();
            values.iter().map(|x| x / norm).collect()
        };
        vec![
            unit((0..p * p).map(|i| angle(i).cos()).collect()),
            unit((0..p * p).map(|i| angle(i).sin()).collect()),
        ]
    }

    /// The projection of values over pairs on orthonormal directions.
    fn project(values: &[Vec<f64>], directions: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let mut part = vec![vec![0.0; values[0].len()]; values.len()];
        for direction in directions {
            for c in 0..values[0].len() {
                let along: f64 = values
                    .iter()
                    .zip(direction)
                    .map(|(row, d)| row[c] * d)
                    .sum();
                part.iter_mut()
                    .zip(direction)
                    .for_each(|(row, d)| row[c] += along * d);
            }
        }
        part
    }

    fn loss(&self, logits: &[Vec<f64>], among: impl Fn(usize) -> bool) -> f64 {
        let own = |i: usize| {
            let right = (i / self.p + i % self.p) % self.p;
            let all: f64 = logits[i].iter().map(|l| (l - logits[i][right]).exp()).sum();
            all.ln()
        };
        let these: Vec<f64> = (0..logits.len()).filter(|&i| among(i)).map(own).collect();
        these.iter().sum::<f64>() / these.len() as f64
    }

    fn to_logits(&self, hidden: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let of = |row: &Vec<f64>, c: usize| row.iter().zip(&self.W_L).map(|(h, w)| h * w[c]).sum();
        hidden
            .iter()
            .map(|row| (0..self.p).map(|c| of(row, c)).collect())
            .collect()
    }
}

fn less(a: &[Vec<f64>], b: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let rows = a.iter().zip(b);
    rows.map(|(a, b)| a.iter().zip(b).map(|(a, b)| a - b).collect())
        .collect()
}

fn square(values: &[Vec<f64>]) -> f64 {
    values.iter().flatten().map(|x| x * x).sum()
}

/// A model of which nothing is known in advance, by projections on vectors over all pairs.
#[test]
fn a_random_models_figures_are_naive_ones() {
    let p = 7;
    let model = untrained(&config(p, &[]), 1.0, 4);
    let story = study(&model, Operation::Add, Some(3)).story("a model");
    let naive = Naive::of(&model);
    let trained: Vec<usize> = pathsum::task::randperm(p * p, 3)[..(0.3 * 49.0) as usize].to_vec();
    let is_trained = |i: usize| trained.contains(&i);
    // Some thousand roundings of numbers of size ten.
    let near = |id: &str, expected: f64| {
        let found = number(&story, id);
        let off = (found - expected).abs();
        assert!(
            off <= 1e4 * f64::EPSILON * expected.abs().max(1.0),
            "{id}: {found}, expected {expected}"
        );
    };
    near("train_loss", naive.loss(&naive.logits, is_trained));
    near("test_loss", naive.loss(&naive.logits, |i| !is_trained(i)));
    assert_eq!(figure(&story, "n_train"), 14);

    let list = |id: &str, k: usize| figure(&story, id)[k - 1].as_f64().unwrap();
    let near_list = |id: &str, k: usize, expected: f64| {
        let found = list(id, k);
        let off = (found - expected).abs();
        assert!(
            off <= 1e4 * f64::EPSILON * expected.abs().max(1.0),
            "{id} {k}: {found}, expected {expected}"
        );
    };
    // Neurons around their means, by frequency; and what is left of the loss with and without them.
    let mean = vec![vec![1.0 / p as f64; p * p]];
    let centred = less(&naive.hidden, &Naive::project(&naive.hidden, &mean));
    let rows: Vec<Vec<f64>> = naive
        .logits
        .iter()
        .map(|row| {
            let mean = row.iter().sum::<f64>() / p as f64;
            row.iter().map(|x| x - mean).collect()
        })
        .collect();
    for k in 1..=p / 2 {
        let whole = square(&centred);
        for (id, of) in [
            ("x", naive.directions(k, |a, _| a)),
            ("y", naive.directions(k, |_, b| b)),
            ("xy", naive.directions(k, |a, b| a + b)),
        ] {
            let share = square(&Naive::project(&centred, &of)) / whole;
            near_list(&format!("allfreq.percent_hidden_{id}"), k, share);
        }
        let part = Naive::project(&naive.hidden, &naive.directions(k, |a, b| a + b));
        let restricted = naive.loss(&naive.to_logits(&part), |_| true);
        near_list("allfreq.hidden_restricted_loss", k, restricted);
        let excluded = naive.to_logits(&less(&naive.hidden, &part));
        near_list(
            "allfreq.hidden_excluded_loss",
            k,
            naive.loss(&excluded, is_trained),
        );
        // The wave, as one vector over pairs and answers.
        let wave: Vec<Vec<f64>> = (0..p * p)
            .map(|i| {
                let at = |c: usize| TAU * (k * (i / p + i % p + p - c)) as f64 / p as f64;
                (0..p).map(|c| at(c).cos()).collect()
            })
            .collect();
        let inner: f64 = rows
            .iter()
            .flatten()
            .zip(wave.iter().flatten())
            .map(|(x, w)| x * w)
            .sum();
        let similarity = inner / (square(&rows) * square(&wave)).sqrt();
        near_list("allfreq.logit_trace_similarity", k, similarity);
        let amplitude = inner / square(&wave);
        let scaled: Vec<Vec<f64>> = wave
            .iter()
            .map(|r| r.iter().map(|x| amplitude * x).collect())
            .collect();
        near_list(
            "allfreq.logit_restricted_loss",
            k,
            naive.loss(&scaled, |_| true),
        );
        near_list(
            "allfreq.logit_excluded_loss",
            k,
            naive.loss(&less(&rows, &scaled), is_trained),
        );
    }
    // Of each neuron the frequency whose eight terms explain most.
    for n in 0..9 {
        let own: Vec<Vec<f64>> = centred.iter().map(|row| vec![row[n]]).collect();
        let whole = square(&own);
        let share = |k: usize| {
            let mut all = naive.directions(k, |a, _| a);
            all.extend(naive.directions(k, |_, b| b));
            all.extend(naive.directions(k, |a, b| a + b));
            all.extend(naive.directions(k, |a, b| a + p - b));
            square(&Naive::project(&own, &all)) / whole
        };
        let best = (1..=p / 2).map(share).fold(0.0, f64::max);
        let found = figure(&story, "nanda.neuron_best_fve")[n].as_f64().unwrap();
        let expected = if whole > 0.0 { best } else { 0.0 };
        assert!(
            (found - expected).abs() <= 1e4 * f64::EPSILON,
            "{n}: {found}, expected {expected}"
        );
    }
    // With the frequencies that the published code takes: of the sum, answer by answer, and the means.
    let keys: Vec<usize> =
        serde_json::from_value(figure(&story, "nanda.key_freqs_code").clone()).unwrap();
    let of_keys: Vec<Vec<f64>> = keys
        .iter()
        .flat_map(|&k| naive.directions(k, |a, b| a + b))
        .collect();
    let part = Naive::project(&naive.logits, &of_keys);
    near(
        "nanda.excluded_loss_codekeys_train",
        naive.loss(&less(&naive.logits, &part), is_trained),
    );
    let with_mean: Vec<Vec<f64>> = of_keys.into_iter().chain(mean).collect();
    let restricted = Naive::project(&naive.logits, &with_mean);
    near(
        "nanda.restricted_loss_codekeys_all",
        naive.loss(&restricted, |_| true),
    );
}

/// What is fixed, left out or replaced is what runs with hooks give.
#[test]
fn parts_left_out_are_runs_with_hooks() {
    let p = 5;
    let model = untrained(&config(p, &[]), 1.0, 8);
    let found = study(&model, Operation::Add, Some(0));
    let naive = Naive::of(&model);
    let task = ModularAddition::new(p, Operation::Add);
    let tokens = task.inputs().unwrap();
    let near = |found: f64, expected: f64| {
        let off = (found - expected).abs();
        assert!(
            off <= 1e4 * f64::EPSILON * expected.abs().max(1.0),
            "{found}, expected {expected}"
        );
    };
    let with_pattern = |weights: &[[f64; 3]]| {
        let weights = weights.to_vec();
        let set = move |pattern: &mut pathsum::Tensor<f64>, _: Hook| {
            for i in 0..pattern.shape()[0] {
                for (h, w) in weights.iter().enumerate() {
                    pattern.slice_mut(&[i, h, 2]).copy_from_slice(w);
                }
            }
        };
        let out = model
            .run(&tokens, Run::new().hook(Hook::Pattern(0), set))
            .unwrap();
        let logits: Vec<Vec<f64>> = (0..p * p)
            .map(|i| out.logits.slice(&[i, 2]).to_vec())
            .collect();
        naive.loss(&logits, |_| true)
    };
    near(
        found.replaced.mean_attention,
        with_pattern(&found.attention.mean),
    );
    near(
        found.replaced.half_attention,
        with_pattern(&[[0.5, 0.5, 0.0]; 2]),
    );
    let weights = model.weights();
    let mlp = weights.blocks[0].mlp.as_ref().unwrap();
    let mut logits = naive.to_logits(&naive.hidden);
    for row in &mut logits {
        for (c, l) in row.iter_mut().enumerate() {
            let written = (0..6).map(|i| mlp.b_out[[i]] * weights.W_U[[i, c]]);
            *l += written.sum::<f64>() + weights.b_U[[c]];
        }
    }
    near(found.replaced.no_skip, naive.loss(&logits, |_| true));
}

/// A model that subtracts is one that adds, with `b` counted backwards.
#[test]
fn subtraction_is_addition_of_what_is_negative() {
    let p = 7;
    let model = untrained(&config(p, &[]), 1.0, 5);
    let found = study(&model, Operation::Subtract, Some(2));
    let task = ModularAddition::new(p, Operation::Subtract);
    let all = task.label(task.inputs().unwrap()).unwrap();
    let loss = pathsum::train::evaluate(&model, &all, Par::Seq).unwrap();
    assert!((found.loss.all - loss.loss).abs() <= 64.0 * f64::EPSILON * loss.loss);
    assert!((found.accuracy.all - loss.accuracy).abs() <= f64::EPSILON);
    sound(&found.story("a model"));
}

/// Models that have learned nothing: claims are refuted, nothing breaks, odd moduli or even ones.
#[test]
fn models_that_know_nothing() {
    for p in [5, 6, 9, 10] {
        for other in [
            vec![],
            vec![("act_fn", json!("gelu")), ("n_heads", json!(1))],
            vec![("attention_dir", json!("bidirectional"))],
        ] {
            let config = config(p, &other);
            let zeros = Model::new(config.clone(), Weights::zeros(&config)).unwrap();
            for model in [untrained(&config, 1.0, 1), zeros] {
                let found = study(&model, Operation::Add, None);
                assert_eq!(found.split.known, Known::Assumed);
                let story = found.story("a model");
                sound(&story);
                assert_eq!(outcome(&story, "answers"), Outcome::DoesNotHold);
                assert_eq!(outcome(&story, "training"), Outcome::NotApplicable);
                assert_eq!(story.summary.len(), 1, "{:?}", story.summary);
            }
        }
    }
}

#[test]
fn models_of_another_shape_are_refused() {
    for (field, value, expected) in [
        (
            "n_layers",
            json!(2),
            "config field `n_layers`: 2, expected 1 for this study",
        ),
        (
            "attn_only",
            json!(true),
            "config field `attn_only`: true, expected an MLP for this study",
        ),
        (
            "normalization_type",
            json!("LN"),
            "config field `normalization_type`: expected none for this study",
        ),
        (
            "d_vocab",
            json!(7),
            "config field `d_vocab`: 7, expected 6 for the task modular_addition",
        ),
    ] {
        let config = config(5, &[(field, value)]);
        let model = Model::new(config.clone(), Weights::zeros(&config)).unwrap();
        let task = ModularAddition::new(5, Operation::Add);
        let found = modular_addition::study(&model, &task, None, Par::Seq, &|_| {});
        assert_eq!(found.unwrap_err().to_string(), expected);
    }
}

/// On the embedded model: the study runs to its end, in time, and says what is so.
#[test]
fn the_embedded_model() {
    let model = Fixture::ModularAddition.load::<f64>();
    let recipe = Recipe::built_in(BuiltIn::ModularAddition);
    let seed = recipe.settings.seed as u32;
    let began = Instant::now();
    let found = study(&model, Operation::Add, None);
    println!("{:.1?}", began.elapsed());
    // The pairs of its recipe are those that it knows best.
    assert_eq!(found.split.seed, seed);
    assert!(
        found.accuracy.all == 1.0 && found.loss.test < 1e-5,
        "{:?}",
        found.loss
    );
    let training = Fixture::ModularAddition.training().unwrap();
    let found = found.trained(serde_json::from_str(training).unwrap());
    let story = found.story("fixture:modular_addition");
    sound(&story);
    for step in &story.steps {
        println!(
            "{}: {} ({})",
            step.title, step.verdict.outcome, step.verdict.because
        );
    }
    // The curve ends where the model is.
    let trials = &found.training.as_ref().unwrap().curve;
    let end = trials.last().unwrap().test;
    assert!(
        (end.ln() - found.loss.test.ln()).abs() < 0.1,
        "{end} {}",
        found.loss.test
    );
    for id in [
        "answers",
        "embedding",
        "unembedding",
        "waves",
        "written",
        "losses",
        "training",
    ] {
        assert_eq!(outcome(&story, id), Outcome::Holds, "{id}");
    }
    assert!(story.summary[0].starts_with("The logits are waves"));
}
