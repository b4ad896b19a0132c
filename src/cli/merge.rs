//! `pathsum merge`: the shards of one sweep, put together.

use super::args::Common;
use super::sweep::SweepFile;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Put together the shards of a sweep that `ablate` or `patch` wrote with --shard and --out
///
/// What is printed and written is what the same command without --shard would have given. A file of a whole
/// sweep is printed as it is.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  pathsum merge 1.json 2.json")]
pub struct Args {
    /// The JSON files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The JSON file to write
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    let shards = args.files.iter().map(|path| {
        let name = path.display().to_string();
        let outcome = read(path).with_context(|| name.clone())?;
        Ok((name, outcome))
    });
    let merged = SweepFile::merge(shards.collect::<Result<_>>()?)?;
    merged.finish(common, args.out.as_deref())?;
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<SweepFile> {
    let json = std::fs::read_to_string(path)?;
    serde_json::from_str(&json).context("is not what ablate or patch writes")
}
