//! `pathsum completions`: what a shell needs to complete command lines.

use super::args::Common;
use super::output::report;
use anyhow::Result;
use clap::CommandFactory;
use clap_complete::{Shell, generate};
use serde_json::json;
use std::process::ExitCode;

/// Print a shell's script that completes the command lines of this program
///
/// Where the script goes is the shell's own matter: for bash it is the file pathsum in
/// ~/.local/share/bash-completion/completions, for zsh the file _pathsum in a folder of $fpath, for fish pathsum.fish in
/// ~/.config/fish/completions.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pathsum completions bash > pathsum.bash\n  pathsum completions zsh > _pathsum"
)]
pub struct Args {
    /// Whose script
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    let mut script = Vec::new();
    let mut command = super::Cli::command();
    let name = command.get_name().to_string();
    generate(args.shell, &mut command, name, &mut script);
    let script = String::from_utf8(script)?;
    let result = json!({"shell": args.shell.to_string(), "script": script});
    report(common, &result, || script.clone())?;
    Ok(ExitCode::SUCCESS)
}
