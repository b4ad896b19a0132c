//! `pathsum merge`: the shards of one sweep, or of the work on edges, put together.

use super::args::Common;
use super::edges::{EdgeFile, read_json};
use super::sweep::SweepFile;
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::ExitCode;

/// Put together the shards that `ablate`, `patch` or `edges` wrote with --shard and --out
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
    let (mut sweeps, mut edges) = (Vec::new(), Vec::new());
    for path in &args.files {
        let (name, json) = (path.display().to_string(), read_json(path)?);
        match EdgeFile::is(&json) {
            true => edges.push((name.clone(), EdgeFile::of(json).context(name)?)),
            false => {
                let sweep = serde_json::from_value(json)
                    .context("is not what ablate, patch or edges writes");
                sweeps.push((name.clone(), sweep.context(name)?));
            }
        }
    }
    match (sweeps.first(), edges.first()) {
        (Some((a, _)), Some((b, _))) => {
            anyhow::bail!("{a} and {b} are of different requests: a sweep and edges")
        }
        (None, Some(_)) => {
            EdgeFile::merge(edges)?.finish(common, args.out.as_deref(), None)?;
        }
        _ => SweepFile::merge(sweeps)?.finish(common, args.out.as_deref())?,
    }
    Ok(ExitCode::SUCCESS)
}
