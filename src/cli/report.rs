//! `pathsum report`: a study's page, from its numbers; or what a model makes of a prompt, as a page.

use super::args::{Common, ModelArg};
use super::batch::{SequenceArgs, task_of};
use super::output::{progress, report, table, text};
use super::words::Words;
use anyhow::{Result, bail};
use comfy_table::{Attribute, Cell, Color};
use pathsum::report::{write_html, write_page};
use pathsum::study::{Outcome, Page, Question, Story, prose_parts};
use pathsum::{Precision, Scalar};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Write a page: what a model makes of a prompt, or a study's report again
///
/// With a prompt it is the page of one sequence: the likeliest next tokens, the attention of every head, what each head and
/// layer adds to the answer, and what each layer would say. A toy model's page carries the model: tokens are changed and heads
/// ablated in the browser. Without a prompt it is a study's, from its results.json alone. A
/// page is one file that any browser opens, and loads nothing.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pathsum report gpt2/ --prompt \"The capital of France is\" --out france.html\n  pathsum report fixture:brackets --sequence \"(()())\" --out brackets.html\n  pathsum report results.json --out report.html"
)]
pub struct Args {
    /// With a prompt a model: a folder, a .pt state dict, or fixture:NAME; else a results.json that `pathsum study` wrote
    #[arg(value_name = "MODEL|RESULTS")]
    of: String,
    /// The config.json of a .pt (the one beside it unless given)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    sequences: SequenceArgs,
    /// The token whose logit is taken apart: the first one of a text, or a token's number where the model's folder has no
    /// tokenizer (the one that the model finds likeliest, unless given)
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    answer: Option<String>,
    /// The position after which it is asked what comes (unless given the last, or where a toy model's task reads its answer)
    #[arg(long, value_name = "P")]
    position: Option<usize>,
    /// The page to write
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    if args.sequences.given() {
        return match common.dtype() {
            Precision::F32 => prompt::<f32>(args, common),
            Precision::F64 => prompt::<f64>(args, common),
        };
    }
    if args.of.starts_with("fixture:") || Path::new(&args.of).is_dir() {
        bail!(
            "{}: of a model a page shows a prompt, expected --prompt TEXT, --tokens FILE or --sequence SEQUENCE",
            args.of
        );
    }
    let alone = [
        ("--answer", args.answer.is_some()),
        ("--position", args.position.is_some()),
        ("--config", args.config.is_some()),
    ];
    if let Some((name, _)) = alone.iter().find(|(_, given)| *given) {
        bail!("{name}: is for a model and a prompt, expected --prompt TEXT with it");
    }
    let story = Story::open(&args.of)?;
    write_html(&story, &args.out)?;
    let out = args.out.display().to_string();
    let result = json!({"study": story.study, "out": out, "steps": verdicts(&story)});
    report(common, &result, || {
        format!("{}\nwrote {out}\n", summary(&story))
    })?;
    Ok(ExitCode::SUCCESS)
}

fn prompt<T: Scalar>(args: &Args, common: &Common) -> Result<ExitCode> {
    let from = ModelArg::of(args.of.clone(), args.config.clone());
    let model = from.load::<T>()?;
    let (tokens, _) = args.sequences.read_one(common, &from, model.config())?;
    let words = Words::of(&from)?;
    let answer = words.answer(args.answer.as_deref(), model.config())?;
    // A toy model's tokens are called what its task calls them, and it is asked where its task reads the answers.
    let task = task_of(model.config()).filter(|_| !words.known());
    let names = task.as_deref().map(|task| task.vocabulary().names());
    let word = |token: usize| match names {
        Some(names) => format!(" {}", names[token]),
        None => words.exact(token).unwrap_or_else(|| format!(" {token}")),
    };
    let classes = task.as_deref().map(|task| task.classes());
    let read_at = task.as_deref().and_then(|task| task.read_at().pop());
    let read_at = read_at.filter(|&p| p < tokens.pos());
    let bar = progress(common, "reading", tokens.pos());
    let question = Question {
        model: &args.of,
        title: args.sequences.one_text(),
        position: args.position.or(read_at),
        answer,
        word: &word,
        classes: &classes.unwrap_or_default(),
        progress: &|n| bar.inc(n as u64),
    };
    let story = Page::of_prompt(&model, &tokens, &question)?;
    bar.finish_and_clear();
    let bytes = write_page(&story, &args.out)?;
    let out = args.out.display().to_string();
    let result = json!({
        "model": args.of,
        "dtype": T::PRECISION.to_string(),
        "tokens": tokens.sequence(0),
        "words": words.all(tokens.sequence(0)),
        "summary": story.summary,
        "out": out,
        "bytes": bytes,
    });
    report(common, &result, || {
        let said = prose_parts(&story.summary.join("\n")).join("\"");
        let size = match bytes as f64 {
            small if small < 1e6 => format!("{:.0} kB", small / 1e3),
            large => format!("{:.1} MB", large / 1e6),
        };
        let tokens = words.sequence(tokens.sequence(0));
        format!("{tokens}\n{said}\nwrote {out}, {size}\n")
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Every step with its verdict, for programs.
pub fn verdicts(story: &Story) -> Vec<serde_json::Value> {
    let steps = story.steps.iter();
    steps
        .map(|s| json!({"id": s.id, "title": s.title, "verdict": s.verdict}))
        .collect()
}

/// Every step with its verdict, for the terminal.
pub fn summary(story: &Story) -> String {
    let colours = console::colors_enabled();
    let mut t = table(["step", "verdict", "because"]);
    for step in &story.steps {
        let cell = Cell::new(step.verdict.outcome);
        let colour = match step.verdict.outcome {
            Outcome::Holds => Color::Green,
            Outcome::DoesNotHold => Color::Red,
            Outcome::NotApplicable => Color::DarkGrey,
        };
        let verdict = if colours {
            cell.fg(colour).add_attribute(Attribute::Bold)
        } else {
            cell
        };
        t.add_row(vec![
            Cell::new(&step.title),
            verdict,
            Cell::new(&step.verdict.because),
        ]);
    }
    let count = |outcome| {
        let steps = story.steps.iter();
        steps.filter(|s| s.verdict.outcome == outcome).count()
    };
    let [holds, fails, none] =
        [Outcome::Holds, Outcome::DoesNotHold, Outcome::NotApplicable].map(count);
    let text = text(&t);
    format!(
        "{}\n\n{text}\n{holds} hold, {fails} do not hold, {none} not applicable\n",
        story.title
    )
}
