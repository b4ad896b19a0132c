//! A model lends the memory of values that are no longer needed to the next ones: nobody may see what was in it.

use pathsum::gradient::{HookGradients, hook_gradients};
use pathsum::metric::{Answers, Standard};
use pathsum::{Cache, Config, Hook, Model, Par, Run, RunOutput, Scalar, Tensor, Tokens, Weights};

/// Enough sequences for a stream to have pages of its own.
const BATCH: usize = 1001;

const MODELS: [&str; 4] = [
    r#"{"n_layers": 2, "attn_only": true}"#,
    r#"{"n_layers": 2, "attn_only": true, "pad_token": 2}"#,
    r#"{"n_layers": 1, "d_mlp": 30, "act_fn": "gelu_new", "attention_dir": "bidirectional"}"#,
    r#"{"n_layers": 2, "d_mlp": 30, "act_fn": "solu_ln", "normalization_type": "LNPre"}"#,
];

fn model<T: Scalar>(kind: &str) -> Model<T> {
    let sizes =
        r#""d_model": 28, "n_ctx": 22, "d_head": 14, "n_heads": 2, "d_vocab": 9, "d_vocab_out": 3"#;
    let config = Config::from_json(&kind.replace('{', &format!("{{{sizes}, "))).unwrap();
    let wave = |shape: &[usize]| {
        let sum = |at: &[usize]| at.iter().fold(0, |sum, i| 7 * sum + i) as f64;
        Tensor::from_fn(shape, |at| T::from_f64(sum(at).sin()))
    };
    let weights = Weights::build(&config, |_, shape| Ok(wave(shape))).unwrap();
    Model::new(config, weights).unwrap()
}

/// Leaves NaN in the memory of all values.
fn spoil<T: Scalar>(mut cache: Cache<T>) {
    let hooks: Vec<Hook> = cache.iter().map(|(hook, _)| hook).collect();
    let nan = T::from_f64(f64::NAN);
    for hook in hooks {
        cache.get_mut(hook).unwrap().data_mut().fill(nan);
    }
}

fn all_equal<T: Scalar>(a: &Cache<T>, b: &Cache<T>) -> bool {
    a.len() > 5 && a == b && a.iter().all(|(_, t)| !t.max_abs().is_nan())
}

#[test]
fn a_run_writes_all_of_its_values() {
    fn check<T: Scalar>(kind: &str) {
        let model = model::<T>(kind);
        let hooks = model.config().hooks();
        let small = |hook: &Hook| !matches!(hook, Hook::Result(_));
        // With closures, by rows, and abreast.
        let all = || Run::new().cache("*");
        let few = || {
            hooks
                .iter()
                .filter(|h| small(h))
                .fold(Run::new(), Run::cache)
        };
        let changed = || {
            all().hook("*hook_z", |z: &mut Tensor<T>, _| {
                z.data_mut()[..100].fill(T::ONE)
            })
        };
        let runs: [&dyn Fn() -> Run<'static, T>; 3] = [&all, &few, &changed];
        for run in runs {
            let of = |model: &Model<T>, seed: u64| -> RunOutput<T> {
                let tokens = Tokens::random(model.config(), BATCH, seed);
                model.run(&tokens, run()).unwrap()
            };
            spoil(of(&model, 0).cache);
            let again = of(&model, 1);
            // A clone has no memory yet.
            let fresh = of(&model.clone(), 1);
            assert!(all_equal(&again.cache, &fresh.cache), "{kind}");
            assert!(again.logits == fresh.logits, "{kind}");
            // What somebody has is nobody else's.
            of(&model, 2);
            of(&model, 3);
            assert!(again.cache == fresh.cache, "{kind}");
        }
    }
    for kind in MODELS {
        check::<f32>(kind);
        check::<f64>(kind);
    }
}

#[test]
fn derivatives_are_all_written() {
    fn check<T: Scalar>(kind: &str) {
        let model = model::<T>(kind);
        for read in [&[21][..], &[5, 0, 5]] {
            let classes = (0..BATCH * read.len()).map(|i| i % 3).collect();
            let answers = Answers::new(read, classes);
            let of = |model: &Model<T>, seed: u64| -> HookGradients<T> {
                let tokens = Tokens::random(model.config(), BATCH, seed);
                let loss = &Standard::Loss;
                hook_gradients(model, &tokens, loss, &answers, &["*"], Par::Rayon).unwrap()
            };
            spoil(of(&model, 0).gradients);
            let again = of(&model, 1);
            let fresh = of(&model.clone(), 1);
            assert!(
                all_equal(&again.gradients, &fresh.gradients),
                "{kind} {read:?}"
            );
            assert_eq!(again.metric, fresh.metric);
        }
    }
    for kind in MODELS {
        check::<f32>(kind);
        check::<f64>(kind);
    }
}

#[test]
fn one_value_under_two_names_is_two_once_one_is_changed() {
    let model = model::<f64>(MODELS[0]);
    let tokens = Tokens::random(model.config(), 3, 0);
    let mut cache = model.run(&tokens, Run::new().cache("*")).unwrap().cache;
    let [before, after] = [Hook::ResidPost(0), Hook::ResidPre(1)];
    let place = |cache: &Cache<f64>, hook| cache[hook].data().as_ptr();
    assert_eq!(place(&cache, before), place(&cache, after));
    let kept = cache.clone();
    cache.get_mut(after).unwrap().data_mut().fill(0.0);
    assert_eq!(cache[before], kept[before]);
    assert_eq!(kept[after], kept[before]);
    assert_eq!(cache[after].max_abs(), 0.0);

    // A closure between the two makes them two.
    let run = Run::new().cache("*hook_resid_*");
    let run = run.hook(after, |t: &mut Tensor<f64>, _| t.data_mut().fill(1.0));
    let cache = model.run(&tokens, run).unwrap().cache;
    assert!(cache[before].data().iter().all(|&x| x != 1.0));
    assert!(cache[after].data().iter().all(|&x| x == 1.0));
}
