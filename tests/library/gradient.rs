//! Derivatives, against differences of the metric itself, against formulas, and against the same in another precision.

use crate::common::for_all;
use pathsum::gradient::{
    ParameterGradient, attribution_patching, hook_gradients, integrated_gradients, sum_to,
};
use pathsum::metric::{Answer, Answers, Metric, Standard, mean, per_sequence};
use pathsum::model::ActFn;
use pathsum::strategies::{
    configs, masked_tokens_of, models_and_tokens, models_and_tokens_of, models_of,
};
use pathsum::{Cache, Config, Error, Hook, Model, Par, Run, Scalar, Tensor, Tokens, Weights};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

/// A metric with curvature in every logit, whatever their number.
struct Curved;

impl Metric for Curved {
    fn name(&self) -> String {
        "curved".into()
    }

    fn of(&self, answer: &Answer, logits: &[f64]) -> f64 {
        let term = |(i, x): (usize, &f64)| weight(answer, i) * x + x * x / 2.0;
        logits.iter().enumerate().map(term).sum()
    }

    fn gradient(&self, answer: &Answer, logits: &[f64], d: &mut [f64]) -> Result<f64, Error> {
        for (i, (d, x)) in d.iter_mut().zip(logits).enumerate() {
            *d = weight(answer, i) + x;
        }
        Ok(self.of(answer, logits))
    }
}

fn weight(answer: &Answer, i: usize) -> f64 {
    ((answer.sequence * 5 + answer.index * 3 + i) as f64 * 0.7).sin()
}

/// Some positions, of which one may come twice, and classes.
fn answers_for(config: &Config, tokens: &Tokens, choice: u64) -> Answers {
    let attended = |p: &usize| (0..tokens.batch()).all(|s| tokens.is_attended(s, *p));
    let places: Vec<usize> = (0..tokens.pos()).filter(attended).collect();
    let count = 1 + choice % 3;
    let positions: Vec<usize> = (0..count)
        .map(|i| places[(choice / 3 + i * i) as usize % places.len()])
        .collect();
    let n = tokens.batch() * positions.len();
    let class = |i: usize| (choice as usize + 7 * i) % config.d_vocab_out;
    Answers::new(&positions, (0..n).map(class).collect())
}

/// A direction to go in: of entries of size one, of both signs, no two alike.
fn direction(i: usize) -> f64 {
    (1.3 + i as f64 * 0.91).sin() + 0.1
}

/// The step of a central difference: its square, which truncation goes with, is about what rounding divided by it is.
fn step() -> f64 {
    f64::EPSILON.cbrt()
}

/// What part of its size a number may be off by rounding: a few units for every number that goes into an entry of a
/// layer, in every layer.
fn units(config: &Config, tokens: &Tokens) -> f64 {
    let c = config;
    let terms =
        c.d_model + c.n_heads * c.d_head + c.d_mlp().unwrap_or(0) + tokens.pos() + c.d_vocab_out;
    8.0 * (terms * (c.n_layers + 1)) as f64 * f64::EPSILON
}

/// How far the metric of a model's logits may be off by rounding.
fn rounding(config: &Config, tokens: &Tokens, logits: &Tensor<f64>) -> f64 {
    // There are none at tokens that are left out.
    let seen = logits.data().iter().filter(|x| !x.is_nan());
    let largest = seen.fold(0f64, |m, x| m.max(x.abs()));
    units(config, tokens) * (1.0 + largest).powi(2)
}

/// Holds a derivative to the metric's change over a step and over two: what these two disagree by is what truncation
/// makes of it. `change` gives the metric's change and the change that the derivative foretells for a step.
fn agrees(what: &str, rounding: f64, mut change: impl FnMut(f64) -> (f64, f64)) -> TestCaseResult {
    let h = step();
    let ((near, foretold), (far, far_foretold)) = (change(h), change(2.0 * h));
    // The error over a step is of third order: an eighth of that over two.
    let truncation = ((far - far_foretold) - 2.0 * (near - foretold)).abs();
    let bound = truncation + rounding;
    prop_assert!(
        (near - foretold).abs() <= bound,
        "{what}: {} over a step of {h}, foretold {}, bound {}",
        near / h,
        foretold / h,
        bound / h
    );
    Ok(())
}

fn metric_of(
    model: &Model<f64>,
    tokens: &Tokens,
    metric: &dyn Metric,
    answers: &Answers,
    run: Run<'_, f64>,
) -> f64 {
    let logits = model.run(tokens, run.par(Par::Seq)).unwrap().logits;
    mean(&per_sequence(metric, answers, &answers.rows_of(&logits)))
}

/// Models with a batch, or with one sequence of which some tokens are left out.
fn drawn() -> impl Strategy<Value = ((Model<f64>, Tokens), u64)> {
    let masked = configs().prop_flat_map(|c| (models_of(&c), masked_tokens_of(&c, 1..=1)));
    (
        prop_oneof![3 => models_and_tokens(), 1 => masked],
        any::<u64>(),
    )
}

#[test]
fn every_hooks_derivative_is_that_of_a_difference() {
    for_all(150, drawn(), |((model, tokens), choice)| {
        let answers = answers_for(model.config(), &tokens, choice % 1000);
        let metric: &dyn Metric = if choice % 2 == 0 {
            &Curved
        } else {
            &Standard::Loss
        };
        let found = hook_gradients(&model, &tokens, metric, &answers, &["*"], Par::Seq).unwrap();
        let clean = model
            .run(&tokens, Run::new().cache("*").par(Par::Seq))
            .unwrap();
        let own = mean(&per_sequence(
            metric,
            &answers,
            &answers.rows_of(&clean.logits),
        ));
        let rounding = rounding(model.config(), &tokens, &clean.logits);
        prop_assert!((own - mean(&found.metric)).abs() <= rounding);
        prop_assert_eq!(found.gradients.len(), clean.cache.len());
        for (hook, d) in found.gradients.iter() {
            let value = &clean.cache[hook];
            prop_assert_eq!(d.shape(), value.shape());
            agrees(&hook.to_string(), rounding, |h| {
                let side = |sign: f64| {
                    let moved = value.data().iter().enumerate();
                    let moved: Vec<f64> = moved.map(|(i, x)| x + sign * h * direction(i)).collect();
                    let run = Run::new().hook(hook, |v: &mut Tensor<f64>, _| {
                        v.data_mut().copy_from_slice(&moved);
                    });
                    (metric_of(&model, &tokens, metric, &answers, run), moved)
                };
                let ((up, above), (down, below)) = (side(1.0), side(-1.0));
                let moves = above.iter().zip(&below).zip(d.data());
                // What the mask hides stays infinite.
                let foretold = moves.map(|((a, b), d)| if a == b { 0.0 } else { (a - b) * d });
                (up - down, foretold.sum())
            })?;
        }
        Ok(())
    });
}

#[test]
fn every_parameters_derivative_is_that_of_a_difference() {
    for_all(150, drawn(), |((model, tokens), choice)| {
        let answers = answers_for(model.config(), &tokens, choice % 1000);
        let metric: &dyn Metric = if choice % 2 == 0 {
            &Curved
        } else {
            &Standard::Loss
        };
        let mut gradient = ParameterGradient::new(model.config());
        gradient
            .compute(&model, &tokens, metric, &answers, Par::Seq)
            .unwrap();
        let rounding = rounding(model.config(), &tokens, &model.logits(&tokens).unwrap());
        for (at, (name, d)) in gradient.weights().tensors().into_iter().enumerate() {
            agrees(&name, rounding, |h| {
                let side = |sign: f64| {
                    let mut weights = model.weights().clone();
                    let t = &mut weights.tensors_mut()[at];
                    for (i, x) in t.1.data_mut().iter_mut().enumerate() {
                        *x += sign * h * direction(i);
                    }
                    let moved = t.1.data().to_vec();
                    let model = Model::new(model.config().clone(), weights).unwrap();
                    (
                        metric_of(&model, &tokens, metric, &answers, Run::new()),
                        moved,
                    )
                };
                let ((up, above), (down, below)) = (side(1.0), side(-1.0));
                let moves = above.iter().zip(&below).zip(d.data());
                (up - down, moves.map(|((a, b), d)| (a - b) * d).sum())
            })?;
        }
        Ok(())
    });
}

#[test]
fn long_sequences_and_wide_heads_take_other_ways() {
    let config = config(
        r#"{"n_layers": 2, "d_model": 20, "n_ctx": 90, "d_head": 70, "n_heads": 2, "d_vocab": 9, "d_vocab_out": 40,
            "d_mlp": 130, "act_fn": "gelu_new"}"#,
    );
    let metric = Standard::Loss;
    for_all(
        2,
        models_and_tokens_of::<f64>(&config),
        |(model, tokens)| {
            let answers = answers_for(&config, &tokens, 8);
            let logits = model.logits(&tokens).unwrap();
            let found = hook_gradients(
                &model,
                &tokens,
                &metric,
                &answers,
                &["hook_embed"],
                Par::Seq,
            );
            let d = &found.unwrap().gradients[Hook::Embed];
            agrees("hook_embed", rounding(&config, &tokens, &logits), |h| {
                let side = |sign: f64| {
                    let run = Run::new().hook(Hook::Embed, move |v: &mut Tensor<f64>, _| {
                        let moved = v.data_mut().iter_mut().enumerate();
                        moved.for_each(|(i, x)| *x += sign * h * direction(i));
                    });
                    metric_of(&model, &tokens, &metric, &answers, run)
                };
                let products = d
                    .data()
                    .iter()
                    .enumerate()
                    .map(|(i, d)| 2.0 * h * direction(i) * d);
                (side(1.0) - side(-1.0), products.sum())
            })
        },
    );
}

#[test]
fn what_is_asked_for_alone_is_what_it_is_among_all() {
    for_all(
        30,
        (models_and_tokens::<f64>(), any::<u64>()),
        |((model, tokens), choice)| {
            let answers = answers_for(model.config(), &tokens, choice % 1000);
            let of = |hooks: &[Hook]| {
                let found = hook_gradients(&model, &tokens, &Curved, &answers, hooks, Par::Seq);
                found.unwrap().gradients
            };
            // Which values the forward pass keeps decides how it multiplies: the last bits may differ.
            let all = of(&model.config().hooks());
            let largest = all.iter().fold(0f64, |m, (_, d)| m.max(d.max_abs()));
            let bound = units(model.config(), &tokens) * largest;
            for (hook, d) in all.iter() {
                let alone = of(&[hook]);
                let pairs = alone[hook].data().iter().zip(d.data());
                let apart = pairs.fold(0f64, |m, (a, b)| m.max((a - b).abs()));
                prop_assert!(apart <= bound, "{hook}: {apart:e} apart, bound {bound:e}");
            }
            Ok(())
        },
    );
}

/// A model without layers and norms: logits `(W_E[t] + W_pos[p]) W_U + b_U`, and everything by hand.
#[test]
fn cross_entropy_of_a_linear_model() {
    let config = config(LINEAR);
    for_all(
        20,
        models_and_tokens_of::<f64>(&config),
        |(model, tokens)| {
            let (batch, last) = (tokens.batch(), tokens.pos() - 1);
            let classes: Vec<usize> = (0..batch).map(|i| i % 3).collect();
            let answers = Answers::new(&[last], classes.clone());
            let mut gradient = ParameterGradient::new(&config);
            gradient
                .compute(&model, &tokens, &Standard::Loss, &answers, Par::Seq)
                .unwrap();
            let hooks = ["hook_embed"];
            let found =
                hook_gradients(&model, &tokens, &Standard::Loss, &answers, &hooks, Par::Seq);
            let d_embed = &found.unwrap().gradients[Hook::Embed];
            let (w, d) = (model.weights(), gradient.weights());
            let logits = model.logits(&tokens).unwrap();
            let mut d_b_U = [0.0; 3];
            let mut d_W_E = Tensor::<f64>::zeros(w.W_E.shape());
            // A few roundings of numbers of size one.
            let near =
                |a: f64, b: f64| (a - b).abs() <= 64.0 * f64::EPSILON * (1.0 + logits.max_abs());
            for b in 0..batch {
                let row = logits.slice(&[b, last]);
                let total: f64 = row.iter().map(|x| x.exp()).sum();
                let d_row: Vec<f64> = (0..3)
                    .map(|j| (row[j].exp() / total - f64::from(j == classes[b])) / batch as f64)
                    .collect();
                for i in 0..5 {
                    let expected: f64 = (0..3).map(|j| d_row[j] * w.W_U[[i, j]]).sum();
                    prop_assert!(near(d_embed[[b, last, i]], expected));
                    d_W_E[[tokens.sequence(b)[last] as usize, i]] += expected;
                }
                prop_assert!(d_embed.slice(&[b])[..last * 5].iter().all(|&d| d == 0.0));
                (0..3).for_each(|j| d_b_U[j] += d_row[j]);
            }
            prop_assert!((0..3).all(|j| near(d.b_U[[j]], d_b_U[j])));
            let mut pairs = d.W_E.data().iter().zip(d_W_E.data());
            prop_assert!(pairs.all(|(a, b)| near(*a, *b)));
            Ok(())
        },
    );
}

/// What f32 may be off by is what a change of every parameter by its rounding makes of the derivatives, with a margin
/// for the number of operations between.
#[test]
fn single_precision_agrees_with_double() {
    // A step of relu's derivative is no rounding error.
    let drawn = smooth().prop_flat_map(|config| models_and_tokens_of::<f32>(&config));
    for_all(60, (drawn, any::<u64>()), |((model, tokens), choice)| {
        let c = model.config();
        let answers = answers_for(c, &tokens, choice % 1000);
        let exact = model.cast::<f64>();
        let eps = f64::from(f32::EPSILON);
        let of = |model: &Model<f64>| {
            let found = hook_gradients(model, &tokens, &Curved, &answers, &["*"], Par::Seq);
            found.unwrap().gradients
        };
        let expected = of(&exact);
        let moved = [0, 1, 2].map(|phase| {
            let mut weights = exact.weights().clone();
            for (_, t) in weights.tensors_mut() {
                let values = t.data_mut().iter_mut().enumerate();
                values.for_each(|(i, x)| *x *= 1.0 + eps * direction(i * 3 + phase));
            }
            of(&Model::new(c.clone(), weights).unwrap())
        });
        let found = hook_gradients(&model, &tokens, &Curved, &answers, &["*"], Par::Seq).unwrap();
        let terms = c.d_model + c.n_heads * c.d_head + c.d_mlp().unwrap_or(0) + tokens.pos();
        // A norm's derivative is a difference of what it is given, over its scale, and may be far smaller.
        let run = exact
            .run(&tokens, Run::new().cache("*").par(Par::Seq))
            .unwrap();
        let scales = run
            .cache
            .iter()
            .filter(|(hook, _)| hook.to_string().ends_with("hook_scale"));
        let scale = scales
            .flat_map(|(_, t)| t.data())
            .copied()
            .fold(1.0, f64::min);
        let largest = expected
            .iter()
            .map(|(_, d)| d.max_abs())
            .fold(0.0, f64::max);
        let rounding = eps * largest / scale;
        for (hook, d) in found.gradients.iter() {
            let expected = &expected[hook];
            let moves = moved
                .iter()
                .flat_map(|m| m[hook].data().iter().zip(expected.data()));
            let moved = moves.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            let bound = (terms * (c.n_layers + 1)) as f64 * (moved + rounding);
            for (a, b) in d.data().iter().zip(expected.data()) {
                let off = (f64::from(*a) - b).abs();
                prop_assert!(off <= bound, "{hook}: {a} {b}, off by {off}, bound {bound}");
            }
        }
        Ok(())
    });
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let config = config(
        r#"{"n_layers": 2, "d_model": 12, "n_ctx": 10, "d_head": 6, "n_heads": 2, "d_vocab": 9, "d_mlp": 20,
            "act_fn": "relu"}"#,
    );
    let of = |threads: usize, seed: u64| {
        let model = random_model::<f32>(&config);
        let tokens = Tokens::random(&config, 301, seed);
        let answers = Answers::next_tokens(&tokens, &[2, 5, 8]).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let mut gradient = ParameterGradient::new(&config);
            // In memory that has been used before.
            gradient
                .compute(&model, &tokens, &Curved, &answers, Par::Rayon)
                .unwrap();
            let loss = gradient.compute(&model, &tokens, &Standard::Loss, &answers, Par::Rayon);
            (loss.unwrap(), gradient.weights().clone())
        })
    };
    assert_eq!(of(1, 3), of(2, 3));
    assert_ne!(of(1, 3), of(1, 4));
}

/// No layers, no norms.
const LINEAR: &str = r#"{"n_layers": 0, "d_model": 5, "n_ctx": 4, "d_head": 2, "n_heads": 1, "d_vocab": 6,
    "d_vocab_out": 3, "attn_only": true, "normalization_type": null}"#;

fn config(json: &str) -> Config {
    Config::from_json(json).unwrap()
}

/// Configurations whose neurons have a derivative everywhere.
fn smooth() -> impl Strategy<Value = Config> {
    configs().prop_map(|mut config| {
        config.mlp.iter_mut().for_each(|m| m.act_fn = ActFn::Silu);
        config.mlm_head = config.mlm_head.map(|_| ActFn::Gelu);
        config
    })
}

fn random_model<T: Scalar>(config: &Config) -> Model<T> {
    let entry = |i: usize| T::from_f64((i as f64 * 1.7).sin() * 0.4);
    let weights = Weights::build(config, |_, shape| {
        let n = shape.iter().product();
        Ok(Tensor::from_vec(shape, (0..n).map(entry).collect()))
    });
    Model::new(config.clone(), weights.unwrap()).unwrap()
}

// ---- Attribution -----------------------------------------------------------------------------------

/// Without norms and neurons, and with patterns that depend on nothing, logits are linear in every value: what
/// attribution patching foretells is what patching does.
#[test]
fn attribution_patching_is_exact_where_the_model_is_linear() {
    let config = config(
        r#"{"n_layers": 2, "d_model": 7, "n_ctx": 5, "d_head": 3, "n_heads": 2, "d_vocab": 6, "d_vocab_out": 3,
            "attn_only": true, "normalization_type": null}"#,
    );
    let drawn = (models_and_tokens_of::<f64>(&config), any::<u64>());
    for_all(20, drawn, |((model, tokens), seed)| {
        let mut weights = model.into_weights();
        for block in &mut weights.blocks {
            block.attn.W_Q.data_mut().fill(0.0);
            block.attn.b_Q.data_mut().fill(0.0);
        }
        let model = Model::new(config.clone(), weights).unwrap();
        let (batch, pos) = (tokens.batch(), tokens.pos());
        let long = Tokens::random(&config, batch, seed);
        let ids = (0..batch).flat_map(|b| long.sequence(b)[..pos].to_vec());
        let source = Tokens::new(batch, pos, ids.collect());
        let metric = Standard::Difference(0, 2);
        let answers = Answers::at(batch, &[pos - 1]);
        let hooks = [
            "hook_embed",
            "*hook_resid_*",
            "*hook_v",
            "*hook_z",
            "*hook_attn_out",
        ];
        let effects = attribution_patching(
            &model,
            &tokens,
            &source,
            &metric,
            &answers,
            &hooks,
            Par::Seq,
        );
        let effects = effects.unwrap();
        let clean = model.logits(&tokens).unwrap();
        let own = mean(&per_sequence(&metric, &answers, &answers.rows_of(&clean)));
        let other = model.run(&source, Run::new().cache("*")).unwrap().cache;
        let bound = rounding(&config, &tokens, &clean);
        prop_assert_eq!(effects.len(), 1 + 2 * 5);
        for (hook, effect) in effects.iter() {
            let run = Run::new().hook(hook, |v: &mut Tensor<f64>, _| {
                v.data_mut().copy_from_slice(other[hook].data());
            });
            let exact = metric_of(&model, &tokens, &metric, &answers, run) - own;
            let foretold = sum_to(effect, &[]).data()[0];
            prop_assert!(
                (exact - foretold).abs() <= bound,
                "{hook}: {exact} {foretold}"
            );
        }
        // One head at one position.
        let by_place = sum_to(&effects[Hook::Z(1)], &[1, 2]);
        let (p, h) = (pos - 1, 1);
        let run = Run::new().hook(Hook::Z(1), |v: &mut Tensor<f64>, _| {
            for b in 0..batch {
                let from = other[Hook::Z(1)].slice(&[b, p, h]);
                v.slice_mut(&[b, p, h]).copy_from_slice(from);
            }
        });
        let exact = metric_of(&model, &tokens, &metric, &answers, run) - own;
        prop_assert!((exact - by_place[[p, h]]).abs() <= bound);
        Ok(())
    });
}

/// Of every hook, whichever way its values were come by, abreast or at some positions only.
#[test]
fn attribution_patching_is_the_difference_times_the_derivative() {
    for_all(200, drawn(), |((model, tokens), choice)| {
        let config = model.config();
        let answers = answers_for(config, &tokens, choice % 1000);
        let source = Tokens::random(config, tokens.batch(), choice);
        let ids = (0..tokens.batch()).flat_map(|s| source.sequence(s)[..tokens.pos()].to_vec());
        let source = Tokens::new(tokens.batch(), tokens.pos(), ids.collect());
        let par = Par::Seq;
        let found = attribution_patching(&model, &tokens, &source, &Curved, &answers, &["*"], par);
        let (effects, hooks) = (found.unwrap(), config.hooks());
        let found = hook_gradients(&model, &tokens, &Curved, &answers, &["*"], par).unwrap();
        let all = |tokens| model.run(tokens, Run::new().cache("*")).unwrap().cache;
        let (own, other) = (all(&tokens), all(&source));
        let values = [&own, &other].into_iter().flat_map(Cache::iter);
        let seen = values
            .flat_map(|(_, value)| value.data())
            .filter(|x| x.is_finite());
        let largest = seen.fold(0f64, |m, x| m.max(x.abs()));
        // What values and derivatives are made of may be larger than they are, and either pass may take another way.
        let rounding = units(config, &tokens) * (1.0 + largest).powi(2);
        prop_assert_eq!(effects.len(), hooks.len());
        for hook in hooks {
            let pairs = own[hook].data().iter().zip(other[hook].data());
            let d = found.gradients[hook].data();
            for ((effect, d), (own, other)) in effects[hook].data().iter().zip(d).zip(pairs) {
                if (*effect, *d) == (0.0, 0.0) {
                    continue;
                }
                let (expected, bound) = (d * (other - own), d.abs() + (other - own).abs());
                prop_assert!(
                    *effect == expected || (effect - expected).abs() <= bound * rounding,
                    "{hook}: {effect} {expected}"
                );
            }
        }
        Ok(())
    });
}

/// The shares add up to the change: the midpoint rule's error falls with the square of the number of steps.
#[test]
fn integrated_gradients_are_complete() {
    let drawn = smooth().prop_flat_map(|config| models_and_tokens_of::<f64>(&config));
    for_all(25, (drawn, any::<u64>()), |((model, tokens), choice)| {
        let answers = answers_for(model.config(), &tokens, choice % 1000);
        let clean = model.run(&tokens, Run::new().cache("*")).unwrap();
        let bound = rounding(model.config(), &tokens, &clean.logits);
        let hooks = model.config().hooks();
        let hook = hooks[choice as usize % hooks.len()];
        // Half of the value, so that the way leads through no norm's origin.
        let mut baseline = clean.cache[hook].clone();
        baseline.data_mut().iter_mut().for_each(|x| *x *= 0.5);
        let of = |steps| {
            let at = (hook, &baseline);
            integrated_gradients(&model, &tokens, &Curved, &answers, at, steps, Par::Seq).unwrap()
        };
        let (few, many) = (of(25), of(100));
        for found in [&few, &many] {
            let shares: f64 = found.attributions.data().iter().sum();
            let change = found.metric - found.baseline;
            prop_assert!((shares - change - found.gap).abs() <= bound);
        }
        // A sixteenth, where 25 steps are fine enough for the error to be of second order.
        let (few, many) = (few.gap.abs(), many.gap.abs());
        prop_assert!(many <= few / 8.0 + bound, "{hook}: {few} {many}");
        Ok(())
    });
}

#[test]
fn one_step_is_enough_for_a_linear_model() {
    let config = config(LINEAR);
    let (model, tokens) = (random_model::<f64>(&config), Tokens::random(&config, 3, 0));
    let answers = Answers::at(3, &[1]);
    let zero = Tensor::zeros(&[3, 4, 5]);
    let (of, metric) = ((Hook::Embed, &zero), Standard::Difference(0, 1));
    let found = integrated_gradients(&model, &tokens, &metric, &answers, of, 1, Par::Seq).unwrap();
    assert!(found.metric != found.baseline);
    assert!(found.gap.abs() <= 64.0 * f64::EPSILON, "{}", found.gap);
}

#[test]
fn what_cannot_be_asked_is_said_in_one_line() {
    let config = config(
        r#"{"n_layers": 1, "d_model": 4, "n_ctx": 4, "d_head": 2, "n_heads": 1, "d_vocab": 6, "attn_only": true}"#,
    );
    let (model, tokens) = (random_model::<f64>(&config), Tokens::random(&config, 3, 0));
    let labelled = Answers::new(&[3], vec![0, 1, 2]);
    let of = |metric: Standard, answers: &Answers, hook: &str| {
        let found = hook_gradients(&model, &tokens, &metric, answers, &[hook], Par::Seq);
        found.unwrap_err().to_string()
    };
    let (unlabelled, outside) = (Answers::at(3, &[3]), Answers::new(&[4], vec![0, 1, 2]));
    let fewer = Answers::new(&[3], vec![0, 1]);
    for (found, expected) in [
        (
            of(Standard::Accuracy, &labelled, "*"),
            "accuracy has no gradient",
        ),
        (of(Standard::Loss, &labelled, "*hook_pre"), "unknown hook"),
        (of(Standard::Loss, &unlabelled, "*"), "labels are missing"),
        (of(Standard::Loss, &outside, "*"), "position 4"),
        (of(Standard::Loss, &fewer, "*"), "answers for 2 sequences"),
    ] {
        assert!(found.contains(expected) && !found.contains('\n'), "{found}");
    }
    let found = |baseline: Tensor<f64>, steps| {
        let at = (Hook::ResidPre(0), &baseline);
        let loss = Standard::Loss;
        let found = integrated_gradients(&model, &tokens, &loss, &labelled, at, steps, Par::Seq);
        found.unwrap_err().to_string()
    };
    assert!(found(Tensor::zeros(&[3, 4, 3]), 1).contains("[3, 4, 4]"));
    assert!(found(Tensor::zeros(&[3, 4, 4]), 0).contains("0 steps"));
    let (other, loss) = (tokens.slice(0, 2), Standard::Loss);
    let found = attribution_patching(&model, &tokens, &other, &loss, &labelled, &["*"], Par::Seq);
    assert!(found.unwrap_err().to_string().contains("[2, 4] tokens"));
}
