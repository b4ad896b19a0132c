//! `pathsum man`: the manual, as `man` shows it.

use super::args::Common;
use super::output::report;
use anyhow::{Context, Result};
use clap::builder::{Resettable, Str};
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use pathsum::tensor::write_files;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Write the manual: a page for the program, and one for each subcommand
///
/// The pages are those that --help prints, for `man`: pathsum.1, pathsum-info.1 and so on. All of them are written, or none.
/// In share/man/man1 of where the program is installed, `man` finds them by name.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  pathsum man man1")]
pub struct Args {
    /// The folder to write them to
    #[arg(value_name = "DIR")]
    out: PathBuf,
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    // The version's long form says what this processor can do, which is no matter of a manual.
    let version: Resettable<Str> = Resettable::Reset;
    let mut program = super::Cli::command()
        .long_version(version)
        .disable_help_subcommand(true);
    program.build();
    let pages = [&program].into_iter().chain(program.get_subcommands());
    let pages: Vec<_> = pages.map(page).collect::<Result<_>>()?;
    let names: Vec<String> = pages.iter().map(|(name, _)| name.clone()).collect();
    write_files(&args.out, pages)?;
    let out = args.out.display().to_string();
    report(common, &json!({"out": out, "pages": names}), || {
        format!("wrote {} pages to {out}\n", names.len())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A page, and its file's name.
fn page(command: &Command) -> Result<(String, Vec<u8>)> {
    let version = concat!("pathsum ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone())
        .source(version)
        .manual("pathsum's manual");
    let mut text = Vec::new();
    man.render(&mut text).context("a manual page")?;
    Ok((man.get_filename(), text))
}
