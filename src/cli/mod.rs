//! The command line: one file a subcommand, and the only place where strings become options.

mod ablate;
mod args;
mod attribute;
mod batch;
mod bilinear;
mod cache;
mod certify;
mod check;
mod circuit;
mod completions;
mod compose;
mod convert;
mod diff;
mod direction;
mod edges;
mod embed;
mod eval;
mod generate;
mod heads;
mod info;
mod lens;
mod loss;
mod man;
mod merge;
mod output;
mod pairs;
mod panic;
mod patch;
mod paths;
mod places;
mod plan;
mod process;
mod prove;
mod report;
mod run;
mod score;
mod study;
mod sweep;
mod task;
mod train;
mod version;
mod weights;
mod words;

use anyhow::Result;
use args::Common;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// What bad input exits with. 1 is for a refuted check.
const BAD_INPUT: u8 = 2;

#[derive(Parser)]
#[command(
    name = "pathsum",
    version,
    long_version = version::long(),
    about = "Reverse-engineer transformers, exactly and fast.",
    after_help = "MODEL is a folder with config.json and weights (TransformerLens's or Hugging Face's), a .pt state dict (with --config, or a config.json beside it), or fixture:NAME.\n\nExample:\n  pathsum check fixture:induction",
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand)]
enum Command {
    Info(info::Args),
    Convert(convert::Args),
    Process(process::Args),
    Run(run::Args),
    Generate(generate::Args),
    Loss(loss::Args),
    Cache(cache::Args),
    Embed(embed::Args),
    Check(check::Args),
    Certify(certify::Args),
    Diff(diff::Args),
    Eval(eval::Args),
    Plan(plan::Args),
    Prove(prove::Args),
    Compose(compose::Args),
    Heads(heads::Args),
    Weights(weights::Args),
    Bilinear(bilinear::Args),
    Paths(paths::Args),
    Ablate(ablate::Args),
    Patch(patch::Args),
    Edges(edges::Args),
    Circuit(circuit::Args),
    Merge(merge::Args),
    Attribute(attribute::Args),
    Lens(lens::Args),
    Report(report::Args),
    Task(task::Args),
    Score(score::Args),
    Study(study::Args),
    Train(train::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// Runs the program: 0 when all is well, 1 when a check is refuted, 2 on bad input.
pub fn main() -> ExitCode {
    panic::say_where_to_report();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e)
            if e.use_stderr()
                && e.kind() != clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand =>
        {
            // One line, as every other error; the usage is a `--help` away.
            let rendered = e.render().to_string();
            let lines = rendered
                .lines()
                .map(str::trim)
                .take_while(|l| !l.starts_with("Usage:"));
            let line = lines
                .filter(|l| !l.is_empty())
                .collect::<Vec<_>>()
                .join(" ");
            let line = line
                .split(" For more information,")
                .next()
                .unwrap_or_default();
            output::complain(&format!("{line} (see pathsum --help)"));
            return ExitCode::from(BAD_INPUT);
        }
        Err(e) => e.exit(),
    };
    match dispatch(&cli) {
        Ok(code) => code,
        Err(e) if output::is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            // One line; of an expression also where in it, below.
            let message = format!("error: {e:#}");
            let lines: Vec<&str> = match e.downcast_ref() {
                Some(pathsum::Error::Expression { .. }) => message.lines().collect(),
                _ => vec![&message],
            };
            lines.into_iter().for_each(output::complain);
            ExitCode::from(BAD_INPUT)
        }
    }
}

fn dispatch(cli: &Cli) -> Result<ExitCode> {
    // Before anything is computed with it.
    #[cfg(feature = "blas")]
    pathsum::linalg::check_blas()?;
    let common = &cli.common;
    common.in_pool(|| match &cli.command {
        Command::Info(args) => info::run(args, common),
        Command::Convert(args) => convert::run(args, common),
        Command::Process(args) => process::run(args, common),
        Command::Run(args) => run::run(args, common),
        Command::Generate(args) => generate::run(args, common),
        Command::Loss(args) => loss::run(args, common),
        Command::Cache(args) => cache::run(args, common),
        Command::Embed(args) => embed::run(args, common),
        Command::Check(args) => check::run(args, common),
        Command::Certify(args) => certify::run(args, common),
        Command::Diff(args) => diff::run(args, common),
        Command::Eval(args) => eval::run(args, common),
        Command::Plan(args) => plan::run(args, common),
        Command::Prove(args) => prove::run(args, common),
        Command::Compose(args) => compose::run(args, common),
        Command::Heads(args) => heads::run(args, common),
        Command::Weights(args) => weights::run(args, common),
        Command::Bilinear(args) => bilinear::run(args, common),
        Command::Paths(args) => paths::run(args, common),
        Command::Ablate(args) => ablate::run(args, common),
        Command::Patch(args) => patch::run(args, common),
        Command::Edges(args) => edges::run(args, common),
        Command::Circuit(args) => circuit::run(args, common),
        Command::Merge(args) => merge::run(args, common),
        Command::Attribute(args) => attribute::run(args, common),
        Command::Lens(args) => lens::run(args, common),
        Command::Report(args) => report::run(args, common),
        Command::Task(args) => task::run(args, common),
        Command::Score(args) => score::run(args, common),
        Command::Study(args) => study::run(args, common),
        Command::Train(args) => train::run(args, common),
        Command::Completions(args) => completions::run(args, common),
        Command::Man(args) => man::run(args, common),
    })
}
