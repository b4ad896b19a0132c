//! Training, against PyTorch's numbers, against itself interrupted and on other threads, and on a task that is learned.

use pathsum::metric::Answers;
use pathsum::task::{BuiltIn, Labelled};
use pathsum::train::{
    AdamW, Decay, Evaluation, Goal, Progress, Recipe, Schedule, Settings, Trainer, TrainingSet,
    evaluate, snapshots, training_curve,
};
use pathsum::{Config, Model, Par, TensorFile, Tokens};
use std::path::Path;

fn config() -> Config {
    Config::from_json(
        r#"{"n_layers": 1, "d_model": 16, "n_ctx": 6, "d_head": 8, "n_heads": 2, "d_vocab": 5, "d_mlp": 12,
            "act_fn": "relu"}"#,
    )
    .unwrap()
}

/// To say the token before the last.
fn data(step: usize) -> Labelled {
    let tokens = Tokens::random(&config(), 50, step as u64);
    let before = |i: usize| tokens.sequence(i)[4] as usize;
    let answers = Answers::new(&[5], (0..50).map(before).collect());
    Labelled { tokens, answers }
}

fn settings(steps: usize) -> Settings {
    Settings {
        seed: 1,
        steps,
        schedule: Schedule {
            peak: 0.01,
            warm_up: 5,
            decay: Decay::Cosine { to: 0.1 },
        },
        evaluate_every: 10,
        checkpoint_every: 7,
        ..Settings::default()
    }
}

fn run(trainer: &mut Trainer<f32>, folder: Option<&Path>, par: Par) -> (Evaluation, Vec<Progress>) {
    let mut seen = Vec::new();
    let progress = &mut |p: &Progress| seen.push(*p);
    let outcome = trainer.run(&data, &data(10_000), folder, progress, par);
    (outcome.unwrap(), seen)
}

/// `tests/data/train/make.py` made the numbers.
#[test]
fn ten_steps_are_pytorchs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/train");
    let model = Model::<f64>::load(&folder).unwrap();
    let file = TensorFile::open(folder.join("steps.safetensors")).unwrap();
    let (shape, tokens) = file.integer("tokens").unwrap();
    let (_, classes) = file.integer("classes").unwrap();
    let losses = file.float::<f64>("losses").unwrap();
    let &[steps, batch, pos] = shape.as_slice() else {
        panic!("{shape:?}")
    };
    let settings = Settings {
        steps,
        schedule: Schedule {
            peak: 0.02,
            warm_up: 3,
            decay: Decay::Cosine { to: 0.1 },
        },
        optimiser: AdamW {
            beta2: 0.98,
            eps: 1e-6,
            weight_decay: 0.3,
            ..AdamW::default()
        },
        ..Settings::default()
    };
    let mut trainer = Trainer::from_model(model, settings).unwrap();
    // Every step may multiply what it was given by some tens (the first divides each gradient by itself), on top of
    // some hundred roundings of its own; after ten steps digits are left to tell.
    let bound = 1e-9;
    for step in 0..steps {
        let ids = tokens[step * batch * pos..][..batch * pos].to_vec();
        let right = classes[step * batch * 2..][..batch * 2].iter();
        let answers = Answers::new(&[2, 4], right.map(|&c| c as usize).collect());
        let tokens = Tokens::new(batch, pos, ids);
        let loss = trainer
            .step(&Labelled { tokens, answers }, Par::Seq)
            .unwrap();
        let expected = losses[[step]];
        assert!(
            (loss - expected).abs() <= bound,
            "step {step}: {loss} {expected}"
        );
    }
    for (name, t) in trainer.model().weights().state_dict() {
        let expected = file.float::<f64>(&format!("after.{name}")).unwrap();
        let pairs = t.data().iter().zip(expected.data());
        let off = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(off <= bound, "{name} is off by {off}");
    }
}

#[test]
fn a_tiny_task_is_learned() {
    let mut trainer = Trainer::new(config(), settings(300)).unwrap();
    let before = evaluate(trainer.model(), &data(10_000), Par::Seq).unwrap();
    let (after, seen) = run(&mut trainer, None, Par::Rayon);
    assert!(
        before.accuracy < 0.6 && after.accuracy > 0.95,
        "{before:?} {after:?}"
    );
    assert!(after.loss < 0.2 && after.probability > 0.85, "{after:?}");
    assert_eq!(seen.len(), 300);
    assert!(
        seen.iter()
            .all(|p| p.held_out.is_some() == p.step.is_multiple_of(10))
    );
    assert!(seen[299].loss < seen[0].loss / 4.0);
}

/// The recipe of an embedded model with other seeds, and less asked for than of the embedded model.
#[test]
fn sorting_is_learned_anew() {
    let mut recipe = Recipe::built_in(BuiltIn::SortedList);
    recipe.settings.seed = 1;
    recipe.settings.steps = 250;
    recipe.settings.evaluate_every = 50;
    let target = Goal {
        loss: Some(0.15),
        probability: Some(0.9),
        ..Goal::default()
    };
    recipe.settings.target = Some(target);
    let drawn = recipe.draw().unwrap();
    let mut trainer = Trainer::<f32>::new(recipe.model, recipe.settings).unwrap();
    let batch = |step| drawn.batch(step);
    let outcome = trainer
        .run(&batch, &drawn.held_out, None, &mut |_| {}, Par::Rayon)
        .unwrap();
    assert!(target.met(&outcome), "{outcome:?}");
}

#[test]
fn an_interruption_changes_no_bit() {
    let mut whole = Trainer::new(config(), settings(20)).unwrap();
    let expected = run(&mut whole, None, Par::Seq);
    let folder = tempfile::tempdir().unwrap();
    let mut first = Trainer::<f32>::new(config(), settings(20)).unwrap();
    assert!(!Trainer::<f32>::can_resume(folder.path()));
    // It gets to step 16, of which the checkpoint at 14 is left.
    for step in 0..16 {
        first.step(&data(step), Par::Seq).unwrap();
        if step == 13 {
            first.save(folder.path()).unwrap();
        }
    }
    drop(first);
    assert!(Trainer::<f32>::can_resume(folder.path()));
    let mut resumed = Trainer::resume(folder.path(), config(), settings(20)).unwrap();
    assert_eq!(resumed.steps_done(), 14);
    let (outcome, seen) = run(&mut resumed, Some(folder.path()), Par::Seq);
    assert_eq!((outcome, &seen[..]), (expected.0, &expected.1[14..]));
    assert_eq!(resumed.model(), whole.model());
    // What stands in the folder now is the model, and the end of the training.
    assert_eq!(&Model::load(folder.path()).unwrap(), whole.model());
    let done = Trainer::<f32>::resume(folder.path(), config(), settings(20)).unwrap();
    assert_eq!(done.steps_done(), 20);
}

/// Losses on the way are those of all of it, and weights that are kept those of their step.
#[test]
fn what_is_kept_of_a_training_outlives_interruptions() {
    let settings = Settings {
        snapshot_every: Some(6),
        ..settings(20)
    };
    let folder = tempfile::tempdir().unwrap();
    let stop = |step: usize| Settings {
        steps: step,
        schedule: Schedule::constant(0.01),
        ..settings.clone()
    };
    let mut first = Trainer::<f32>::new(config(), stop(14)).unwrap();
    run(&mut first, Some(folder.path()), Par::Seq);
    let mut rest = Trainer::<f32>::resume(folder.path(), config(), stop(20)).unwrap();
    assert_eq!(rest.curve(), first.curve());
    run(&mut rest, Some(folder.path()), Par::Seq);
    let mut whole = Trainer::<f32>::new(config(), stop(20)).unwrap();
    let (_, seen) = run(&mut whole, None, Par::Seq);
    let tried: Vec<Progress> = seen.into_iter().filter(|p| p.held_out.is_some()).collect();
    assert_eq!(rest.curve(), tried);
    assert_eq!(training_curve(folder.path()).unwrap(), tried);
    let kept = snapshots(folder.path()).unwrap();
    assert_eq!(
        kept.iter().map(|(step, _)| *step).collect::<Vec<_>>(),
        [6, 12, 18]
    );
    let mut again = Trainer::<f32>::new(config(), stop(20)).unwrap();
    for step in 0..12 {
        again.step(&data(step), Par::Seq).unwrap();
    }
    let file = TensorFile::open(&kept[1].1).unwrap();
    assert_eq!(&Model::from_file(config(), &file).unwrap(), again.model());
    // A folder of something else has none.
    let empty = tempfile::tempdir().unwrap();
    assert!(
        training_curve(empty.path()).unwrap().is_empty()
            && snapshots(empty.path()).unwrap().is_empty()
    );
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let of = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let mut trainer = Trainer::new(config(), settings(12)).unwrap();
            let outcome = run(&mut trainer, None, Par::Rayon);
            (outcome, trainer.model().clone())
        })
    };
    let mut alone = Trainer::new(config(), settings(12)).unwrap();
    let expected = (run(&mut alone, None, Par::Seq), alone.model().clone());
    assert_eq!(of(1), expected);
    assert_eq!(of(2), expected);
}

#[test]
fn a_met_target_ends_it_and_what_is_frozen_stays() {
    let settings = Settings {
        target: Some(Goal {
            accuracy: Some(0.5),
            ..Goal::default()
        }),
        frozen: vec!["*.attn.b_*".into(), "unembed.b_U".into()],
        ..settings(300)
    };
    let mut trainer = Trainer::new(config(), settings).unwrap();
    let (outcome, seen) = run(&mut trainer, None, Par::Seq);
    assert!(outcome.accuracy >= 0.5 && seen.len() < 300 && seen.len() % 10 == 0);
    let w = trainer.model().weights();
    for (name, t) in w.tensors() {
        let frozen = name == "unembed.b_U" || name.contains(".attn.b_");
        assert_eq!(t.max_abs() == 0.0, frozen, "{name}");
    }
}

#[test]
fn a_fixed_set_is_learned_by_heart() {
    let all = data(3);
    let set = TrainingSet::new(all.clone(), 20, 5);
    let mut trainer = Trainer::<f32>::new(config(), settings(200)).unwrap();
    let shown = |step: usize| set.batch(step);
    let outcome = trainer
        .run(&shown, &all, None, &mut |_| {}, Par::Seq)
        .unwrap();
    assert!(outcome.accuracy > 0.95, "{outcome:?}");
}

#[test]
fn what_cannot_be_is_said_in_one_line() {
    let error = |settings: Settings| {
        let trainer = Trainer::<f32>::new(config(), settings);
        trainer.err().expect("it cannot be").to_string()
    };
    let frozen = vec!["blocks.0.attn.b_q".to_string()];
    let found = error(Settings {
        frozen,
        ..settings(1)
    });
    assert!(
        found.contains("blocks.0.attn.b_q") && found.contains("did you mean"),
        "{found}"
    );
    let found = error(Settings {
        evaluate_every: 0,
        ..settings(1)
    });
    assert!(found.contains("one step at least"), "{found}");
    let wild = Settings {
        schedule: Schedule::constant(1e30),
        ..settings(10)
    };
    let mut trainer = Trainer::<f32>::new(config(), wild).unwrap();
    let found = trainer
        .run(&data, &data(0), None, &mut |_| {}, Par::Seq)
        .unwrap_err();
    assert!(found.to_string().contains("learning rate"), "{found}");
    let folder = tempfile::tempdir().unwrap();
    let found = Trainer::<f32>::resume(folder.path(), config(), settings(1));
    assert!(
        found
            .err()
            .unwrap()
            .to_string()
            .contains("training.safetensors")
    );
    trainer.save(folder.path()).unwrap();
    let other = Config {
        d_model: 8,
        ..config()
    };
    let found = Trainer::<f32>::resume(folder.path(), other, settings(1))
        .err()
        .unwrap();
    assert!(found.to_string().contains("expected [5, 8]"), "{found}");
}

/// `pathsum train`, from outside.
#[cfg(feature = "cli")]
mod program {
    use super::*;
    use serde_json::{Value, json};
    use std::process::{Command, Output, Stdio};
    use std::time::{Duration, Instant};

    struct Folder(tempfile::TempDir);

    impl Folder {
        /// With the recipe of a small model in `recipe.json`.
        fn new(steps: usize, target: Option<Value>) -> Self {
            let folder = Folder(tempfile::tempdir().unwrap());
            let mut recipe = Recipe::built_in(BuiltIn::Palindrome);
            recipe.model = Config {
                d_model: 8,
                d_head: 4,
                ..recipe.model
            };
            let mut recipe: Value = serde_json::from_str(&recipe.to_json()).unwrap();
            recipe["data"] = json!({"fresh": {"batch": 40, "held_out": 300}});
            let settings = &mut recipe["settings"];
            settings["steps"] = json!(steps);
            settings["checkpoint_every"] = json!(10);
            settings["evaluate_every"] = json!(50);
            if let Some(target) = target {
                settings["target"] = target;
            }
            std::fs::write(folder.0.path().join("recipe.json"), recipe.to_string()).unwrap();
            folder
        }

        fn command(&self, args: &str) -> Command {
            let mut command = Command::new(env!("CARGO_BIN_EXE_pathsum"));
            command.args(args.split(' ')).current_dir(self.0.path());
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command
        }

        fn ok(&self, args: &str) -> Value {
            let Output { status, stdout, .. } = self.command(args).output().unwrap();
            assert!(status.success(), "{args}");
            serde_json::from_slice(&stdout).unwrap()
        }

        fn refused(&self, args: &str, said: &str) {
            let output = self.command(args).output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{args}: {stderr}");
            assert!(stderr.contains(said), "{args}: {stderr}");
            assert_eq!(stderr.lines().count(), 1, "{stderr}");
        }

        fn read(&self, file: &str) -> Vec<u8> {
            std::fs::read(self.0.path().join(file)).unwrap()
        }
    }

    const TRAIN: &str = "train palindrome --config recipe.json --json";

    #[test]
    fn a_training_that_was_killed_goes_on_where_it_was() {
        let f = Folder::new(300, None);
        let whole = f.ok(&format!("{TRAIN} --out whole"));
        assert_eq!(whole["begun_at_step"], 0);
        assert_eq!(whole["curve"].as_array().unwrap().len(), 6);

        let mut killed = f.command(&format!("{TRAIN} --out killed")).spawn().unwrap();
        let state = f.0.path().join("killed/training.safetensors");
        let begun = Instant::now();
        while !state.exists() {
            assert!(begun.elapsed() < Duration::from_secs(60), "no checkpoint");
            std::thread::sleep(Duration::from_millis(1));
        }
        killed.kill().unwrap();
        killed.wait().unwrap();
        let resumed = f.ok(&format!("{TRAIN} --out killed --resume --threads 1"));
        assert!(resumed["begun_at_step"].as_u64().unwrap() >= 10);
        assert_eq!(resumed["held_out"], whole["held_out"]);
        for file in ["model.safetensors", "config.json", "dataset.safetensors"] {
            assert_eq!(
                f.read(&format!("killed/{file}")),
                f.read(&format!("whole/{file}"))
            );
        }
        // What is left behind is a model, its data, its recipe and where it stands: nothing half-written.
        let left = std::fs::read_dir(f.0.path().join("killed")).unwrap();
        let temporary = |name: &String| name.starts_with(".pathsum-");
        let mut left: Vec<String> = left
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|name| !temporary(name))
            .collect();
        left.sort();
        assert_eq!(
            left,
            [
                "config.json",
                "dataset.safetensors",
                "model.safetensors",
                "recipe.json",
                "training.safetensors"
            ]
        );
    }

    #[test]
    fn a_target_ends_it() {
        let f = Folder::new(300, Some(json!({"accuracy": 0.2})));
        let result = f.ok(TRAIN);
        assert_eq!(
            (&result["steps"], &result["target_met"]),
            (&json!(50), &json!(true))
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let f = Folder::new(20, None);
        f.refused("train chess", "chess");
        f.refused(
            "train brackets --config recipe.json",
            "the recipe is one for palindrome, expected brackets",
        );
        f.refused("train palindrome --config none.json", "none.json");
        std::fs::write(f.0.path().join("empty.json"), "").unwrap();
        f.refused("train palindrome --config empty.json", "empty.json");
        f.ok(&format!("{TRAIN} --out out"));
        let before = f.read("out/model.safetensors");
        f.refused(
            &format!("{TRAIN} --out out"),
            "holds a training, expected --resume",
        );
        f.refused(
            &format!("{TRAIN} --out out --seed 3 --resume"),
            "another recipe",
        );
        f.refused(&format!("{TRAIN} --resume"), "--out");
        assert_eq!(f.read("out/model.safetensors"), before);
    }
}
