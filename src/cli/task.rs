//! `pathsum task`: a task's examples, or a dataset of it.

use super::args::Common;
use super::output::{report, table, text};
use anyhow::{Result, bail};
use pathsum::task::{
    BuiltIn, LabelTable, Labelled, MaxOfK, ModularAddition, Operation, Task, TwoIntegers,
};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// Sequences of a task with their right answers: a few to look at, or a dataset
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pathsum task palindrome\n  pathsum task brackets --size 2500 --seed 1 --out brackets.safetensors\n  pathsum task two_integer --all --out pairs.safetensors"
)]
pub struct Args {
    /// palindrome, sorted_list, brackets, two_integer, max_of_k or modular_addition
    #[arg(value_name = "TASK")]
    task: BuiltIn,
    /// How many sequences. Those of two_integer are drawn with repeats: 20000 are some 10100 different pairs
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = size)]
    size: usize,
    /// All sequences that there are, each once, instead: the pairs of two_integer and modular_addition, A by A; the lists of max_of_k, up to
    /// a million
    #[arg(long, conflicts_with_all = ["size", "seed"])]
    all: bool,
    /// The seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// The safetensors file to write: `tokens`, and the classes (is_palindrome, is_balanced or labels)
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Of two_integer: a safetensors file with other `labels`, [A, B]
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Of max_of_k: how many numbers a list has
    #[arg(long, value_name = "K", value_parser = numbers)]
    k: Option<usize>,
    /// Of modular_addition: how many residues there are (113 unless given)
    #[arg(long, value_name = "P", value_parser = modulus)]
    modulus: Option<usize>,
    /// Of modular_addition: subtract instead of adding
    #[arg(long)]
    subtract: bool,
}

fn modulus(s: &str) -> Result<usize, String> {
    const MOST: usize = 1000;
    let n = s.parse().ok().filter(|n| (2..=MOST).contains(n));
    n.ok_or_else(|| format!("expected a whole number from 2 to {MOST}"))
}

fn numbers(s: &str) -> Result<usize, String> {
    const MOST: usize = 1000;
    let n = s.parse().ok().filter(|n| (1..=MOST).contains(n));
    n.ok_or_else(|| format!("expected a whole number from 1 to {MOST}"))
}

pub(super) fn size(s: &str) -> Result<usize, String> {
    // Some hundred megabytes of tokens.
    const MOST: usize = 1_000_000;
    let n = s.parse().ok().filter(|n| (1..=MOST).contains(n));
    n.ok_or_else(|| format!("expected a whole number from 1 to {MOST}"))
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    let residues = args.modulus.is_some() || args.subtract;
    let task: Box<dyn Task> = match (&args.labels, args.k, args.task) {
        (_, _, other) if residues && other != BuiltIn::ModularAddition => {
            bail!("--modulus and --subtract are of modular_addition, not of {other}")
        }
        (None, None, BuiltIn::ModularAddition) => {
            let operation = match args.subtract {
                true => Operation::Subtract,
                false => Operation::Add,
            };
            let modulus = args.modulus.unwrap_or(ModularAddition::MODULUS);
            Box::new(ModularAddition::new(modulus, operation))
        }
        (None, None, built_in) => built_in.task(),
        (Some(path), None, BuiltIn::TwoInteger) => {
            Box::new(TwoIntegers::new(LabelTable::open(path)?))
        }
        (None, Some(k), BuiltIn::MaxOfK) => Box::new(MaxOfK::of(k)),
        (Some(path), _, other) => bail!("--labels {}: {other} has its own", path.display()),
        (_, Some(k), other) => bail!("--k {k}: {other} has sequences of one length"),
    };
    let tokens = match (args.all, task.inputs()) {
        (false, _) => task.tokens(args.size, args.seed),
        (true, Some(all)) => all,
        (true, None) => bail!(
            "--all: the sequences of {} are too many to list, expected --size",
            task.name()
        ),
    };
    let data = task.label(common.limited(tokens))?;
    let mut json = about(task.as_ref());
    let words = match &args.out {
        None => {
            json["sequences"] = examples(task.as_ref(), &data);
            shown(task.as_ref(), &data)
        }
        Some(out) => {
            data.save(task.as_ref(), out)?;
            json["written"] = json!(data.batch());
            let written = (data.batch(), out.display());
            format!(
                "{} sequences of {} → {}\n",
                written.0,
                task.name(),
                written.1
            )
        }
    };
    report(common, &json, || words)?;
    Ok(ExitCode::SUCCESS)
}

fn about(task: &dyn Task) -> Value {
    json!({
        "task": task.name(),
        "positions": task.positions(),
        "vocabulary": task.vocabulary().names(),
        "classes": task.classes(),
        "read_at": task.read_at(),
    })
}

fn examples(task: &dyn Task, data: &Labelled) -> Value {
    let of = |i| {
        let tokens = data.tokens.sequence(i);
        json!({"tokens": tokens, "text": task.text(tokens), "classes": task.solve(tokens)})
    };
    (0..data.batch()).map(of).collect()
}

fn shown(task: &dyn Task, data: &Labelled) -> String {
    let classes = task.classes();
    let mut rows = table(["sequence", "right"]);
    for i in 0..data.batch() {
        let tokens = data.tokens.sequence(i);
        let right: Vec<&str> = (task.solve(tokens).into_iter())
            .map(|class| classes[class].as_str())
            .collect();
        rows.add_row([task.text(tokens), right.join(" ")]);
    }
    let positions: Vec<String> = task.read_at().iter().map(usize::to_string).collect();
    format!(
        "{}: {} positions of {} tokens, {} classes, read at {}\n{}",
        task.name(),
        task.positions(),
        task.vocabulary().len(),
        classes.len(),
        positions.join(", "),
        text(&rows)
    )
}
