//! `pathsum train`: a model of an algorithmic task.

use super::args::Common;
use super::output::{print, progress, report};
use anyhow::{Context, Result, bail};
use pathsum::study::Number;
use pathsum::task::BuiltIn;
use pathsum::train::{Drawn, Evaluation, Progress, Recipe, Trainer, evaluate};
use pathsum::{Par, Precision, Scalar};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The recipe's file in a folder of a training.
pub(super) const RECIPE: &str = "recipe.json";

/// Sequences of the held-out data that are written beside the model.
const SAMPLE: usize = 200;

/// Train a model on a built-in task
///
/// Without --config by the recipe of the task's embedded model (--recipe prints it). With --out checkpoints are
/// written, and an interrupted training goes on with --resume, as if it had not been interrupted; in the end the
/// folder is a MODEL, with some held-out sequences in dataset.safetensors. What comes out depends on the recipe alone,
/// not on the number of threads. In f32 unless --dtype says otherwise.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pathsum train palindrome --out palindrome\n  pathsum train two_integer --recipe > recipe.json\n  pathsum train two_integer --config recipe.json --out model --resume"
)]
pub struct Args {
    /// palindrome, sorted_list, brackets, two_integer, max_of_k or modular_addition
    #[arg(value_name = "TASK")]
    task: BuiltIn,
    /// A recipe: task, data, settings and model
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder for checkpoints and the model
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The seed of weights and data (the recipe's unless given)
    #[arg(long, value_name = "N")]
    seed: Option<u32>,
    /// Go on from the last checkpoint in --out
    #[arg(long, requires = "out")]
    resume: bool,
    /// Print the recipe, and train nothing
    #[arg(long, conflicts_with_all = ["out", "resume"])]
    recipe: bool,
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    let mut recipe = match &args.config {
        Some(path) => Recipe::open(path)?,
        None => Recipe::built_in(args.task),
    };
    if recipe.task.built_in() != args.task {
        bail!(
            "the recipe is one for {}, expected {}",
            recipe.task.built_in(),
            args.task
        );
    }
    if let Some(seed) = args.seed {
        recipe.settings.seed = seed.into();
    }
    if args.recipe {
        print(&format!("{}\n", recipe.to_json()))?;
        return Ok(ExitCode::SUCCESS);
    }
    match common.dtype.unwrap_or(Precision::F32) {
        Precision::F32 => train::<f32>(args, &recipe, common),
        Precision::F64 => train::<f64>(args, &recipe, common),
    }
}

fn train<T: Scalar>(args: &Args, recipe: &Recipe, common: &Common) -> Result<ExitCode> {
    let drawn = recipe.draw()?;
    let mut trainer = start::<T>(args, recipe)?;
    let begun = trainer.steps_done();
    let bar = progress(common, "training", recipe.settings.steps);
    let mut held_out = None;
    let mut loss = f64::NAN;
    let mut show = |p: &Progress| {
        held_out = p.held_out.or(held_out);
        loss = p.loss;
        let tried = held_out.map_or(String::new(), |e: Evaluation| {
            let loss = Number::from(e.loss);
            format!(", held out {loss} {:.2}%", 100.0 * e.accuracy)
        });
        bar.set_message(format!("loss {}{tried}", Number::from(loss)));
        bar.set_position(p.step as u64);
    };
    let batch = |step| drawn.batch(step);
    let out = args.out.as_deref();
    let outcome = trainer.run(&batch, &drawn.held_out, out, &mut show, Par::Rayon)?;
    bar.finish_and_clear();
    if let Some(out) = out {
        write_sample(&drawn, out)?;
    }
    let everything = match drawn.task.inputs() {
        Some(inputs) => Some(evaluate(
            trainer.model(),
            &drawn.task.label(inputs)?,
            Par::Rayon,
        )?),
        None => None,
    };
    let curve: Vec<_> = (trainer.curve().iter())
        .map(|p| json!({"step": p.step, "loss": p.loss, "held_out": p.held_out}))
        .collect();
    let target_met = recipe.settings.target.map(|t| t.met(&outcome));
    let steps = trainer.steps_done();
    let result = json!({
        "task": args.task.to_string(),
        "dtype": T::PRECISION.to_string(),
        "begun_at_step": begun,
        "steps": steps,
        "loss": loss,
        "curve": curve,
        "held_out": outcome,
        "all_inputs": everything,
        "target_met": target_met,
        "out": out,
    });
    report(common, &result, || {
        let line = |what: &str, e: &Evaluation| {
            format!(
                "{what}: loss {}, accuracy {:.2}%, mean probability of the right class {:.4}\n",
                Number::from(e.loss),
                100.0 * e.accuracy,
                e.probability
            )
        };
        let all = everything.map_or(String::new(), |e| line("all inputs", &e));
        let missed = match target_met {
            Some(false) => "the recipe's target was not met\n",
            _ => "",
        };
        format!(
            "{} steps\n{}{all}{missed}",
            steps,
            line("held out", &outcome)
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A training from its beginning, or from the last checkpoint.
fn start<T: Scalar>(args: &Args, recipe: &Recipe) -> Result<Trainer<T>> {
    let (config, settings) = (recipe.model.clone(), recipe.settings.clone());
    let Some(out) = &args.out else {
        return Ok(Trainer::new(config, settings)?);
    };
    let there = out.join(RECIPE);
    if args.resume {
        if Recipe::open(&there)? != *recipe {
            bail!("{}: another recipe than the one asked for", there.display());
        }
        // An interruption before the first checkpoint left none: that is the beginning.
        if Trainer::<T>::can_resume(out) {
            return Ok(Trainer::resume(out, config, settings)?);
        }
    } else if there.exists() {
        bail!(
            "{}: holds a training, expected --resume or another folder",
            out.display()
        );
    }
    let trainer = Trainer::new(config, settings)?;
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    recipe.save(&there)?;
    Ok(trainer)
}

/// Some held-out sequences, for whoever looks at the model.
fn write_sample(drawn: &Drawn, out: &Path) -> Result<()> {
    let sample = drawn.held_out.batch().min(SAMPLE);
    let sample = drawn.held_out.select(&(0..sample).collect::<Vec<_>>());
    Ok(sample.save(&*drawn.task, out.join("dataset.safetensors"))?)
}
