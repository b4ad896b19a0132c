//! `pathsum score`: a model's answers to a task, marked.

use super::args::{Common, ModelArg};
use super::batch::{SequenceArgs, task_of};
use super::output::{progress, report, table, text};
use anyhow::{Result, anyhow, bail};
use pathsum::metric::{Grade, grades};
use pathsum::study::Number;
use pathsum::task::{BuiltIn, LabelTable, Labelled, Task, TwoIntegers};
use pathsum::{Precision, Run, Scalar};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// Mark a model's answers to a task: what it says, how surely, and whether that is right
///
/// Without --tokens, --sequence or --all it is asked ten sequences of the task's own drawing. Of more than twenty
/// sequences the text lists those with wrong answers alone; --json has all of them.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pathsum score fixture:brackets --sequence \"(())\" --sequence \"())(\"\n  pathsum score fixture:sorted_list --sequence \"3 1 4 15 9 26 5 35 8 50\"\n  pathsum score fixture:two_integer --all"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    /// palindrome, sorted_list, brackets, two_integer, max_of_k or modular_addition (the one that the model's vocabulary fits unless given)
    #[arg(long, value_name = "TASK")]
    task: Option<BuiltIn>,
    #[command(flatten)]
    sequences: SequenceArgs,
    /// Every input there is, of a task whose inputs can be enumerated
    #[arg(long, conflicts_with_all = ["tokens", "sequence"])]
    all: bool,
    /// Of two_integer: a safetensors file with other `labels`, [A, B]
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    match common.dtype() {
        Precision::F32 => score::<f32>(args, common),
        Precision::F64 => score::<f64>(args, common),
    }
}

fn score<T: Scalar>(args: &Args, common: &Common) -> Result<ExitCode> {
    let model = args.model.load::<T>()?;
    let config = model.config();
    let fitting =
        || task_of(config).ok_or_else(|| anyhow!("the model fits no task, expected --task TASK"));
    let mut task = args
        .task
        .map_or_else(fitting, |task| Ok(task.sized(config)))?;
    if let Some(path) = &args.labels {
        if task.name() != BuiltIn::TwoInteger.to_string() {
            bail!("--labels {}: {} has its own", path.display(), task.name());
        }
        task = Box::new(TwoIntegers::new(LabelTable::open(path)?));
    }
    task.check_model(config)?;
    let data = asked(args, task.as_ref(), common, config)?;

    let bar = progress(common, "running", data.batch());
    let advance = |n: usize| bar.inc(n as u64);
    let out = model.run(&data.tokens, Run::new().progress(&advance))?;
    bar.finish_and_clear();
    let grades = grades(&data.answers, &data.answers.rows_of(&out.logits));

    let all = || grades.iter().flatten();
    let right = all().filter(|g| g.is_right()).count();
    let loss = all().map(|g| g.loss).sum::<f64>() / all().count() as f64;
    let marked = Marked {
        task: task.as_ref(),
        data: &data,
        grades: &grades,
    };
    let result = json!({
        "model": args.model.model,
        "task": task.name(),
        "dtype": T::PRECISION.to_string(),
        "answers": all().count(),
        "right": right,
        "accuracy": right as f64 / all().count() as f64,
        "loss": loss,
        "sequences": (0..data.batch()).map(|s| marked.json(s)).collect::<Value>(),
    });
    report(common, &result, || {
        format!(
            "{}{right} of {} answers right, loss {}\n",
            marked.text(),
            all().count(),
            Number::from(loss)
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The sequences that the model is asked, with their right answers.
fn asked(
    args: &Args,
    task: &dyn Task,
    common: &Common,
    config: &pathsum::Config,
) -> Result<Labelled> {
    const DRAWN: usize = 10;
    let tokens =
        if args.all {
            let inputs = task.inputs();
            common.limited(inputs.ok_or_else(|| {
                anyhow!("--all: the inputs of {} are too many to list", task.name())
            })?)
        } else if args.sequences.given() {
            let read = (args.sequences).read_of(task, common, &args.model, config)?;
            read.tokens
        } else {
            common.limited(task.tokens(DRAWN, 0))
        };
    Ok(task.label(tokens)?)
}

/// Sequences with their marked answers.
struct Marked<'a> {
    task: &'a dyn Task,
    data: &'a Labelled,
    grades: &'a [Vec<Grade>],
}

impl Marked<'_> {
    fn json(&self, s: usize) -> Value {
        let tokens = self.data.tokens.sequence(s);
        let classes = self.task.classes();
        let answer = |g: &Grade| {
            json!({
                "position": g.position,
                "said": classes[g.said],
                "right": classes[g.right],
                "is_right": g.is_right(),
                "p_said": g.p_said,
                "p_right": g.p_right,
            })
        };
        let answers: Value = self.grades[s].iter().map(answer).collect();
        json!({"tokens": tokens, "text": self.task.text(tokens), "answers": answers})
    }

    fn text(&self) -> String {
        const LISTED: usize = 20;
        let wrong = |s: &usize| !self.grades[*s].iter().all(Grade::is_right);
        let all = 0..self.data.batch();
        let few = self.data.batch() <= LISTED;
        let shown: Vec<usize> = all.filter(|s| few || wrong(s)).collect();
        if shown.is_empty() {
            return String::new();
        }
        let classes = self.task.classes();
        let mut rows = table(["sequence", "says", "right is", "probability of that", ""]);
        for &s in shown.iter().take(LISTED) {
            let grades = &self.grades[s];
            let words = |class: fn(&Grade) -> usize| {
                let words = grades.iter().map(|g| classes[class(g)].as_str());
                words.collect::<Vec<_>>().join(" ")
            };
            let least = grades
                .iter()
                .min_by(|a, b| a.p_right.total_cmp(&b.p_right))
                .expect("answers are read at some position");
            let p = Number::from(least.p_right);
            let wrong = grades.iter().filter(|g| !g.is_right()).count();
            rows.add_row([
                self.task.text(self.data.tokens.sequence(s)),
                words(|g| g.said),
                words(|g| g.right),
                match grades.len() {
                    1 => p.to_string(),
                    _ => format!("{p} or more, least at position {}", least.position),
                },
                match (wrong, grades.len()) {
                    (0, _) => "right".into(),
                    (_, 1) => "wrong".into(),
                    (wrong, all) => format!("{wrong} of {all} wrong"),
                },
            ]);
        }
        let more = shown.len().saturating_sub(LISTED);
        let more = match more {
            0 => String::new(),
            more => format!("and {more} more sequences with wrong answers\n"),
        };
        format!("{}{more}\n", text(&rows))
    }
}
