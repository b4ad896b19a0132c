//! `pathsum merge`: the shards of one sweep, of the work on edges, or of a certificate, put together.

use super::args::{Common, ModelArg};
use super::certify;
use super::edges::{EdgeFile, read_json};
use super::sweep::SweepFile;
use anyhow::{Context, Result};
use pathsum::certify::Certificate;
use std::path::PathBuf;
use std::process::ExitCode;

/// Put together the shards that `ablate`, `patch`, `edges` or `certify` wrote with --shard and --out
///
/// What is printed and written is what the same command without --shard would have given. A file of a whole
/// sweep is printed as it is. Certificates of sets, of one claim about one model, need not be shards: of each set the better
/// proof is taken. Those of walks may be of any inputs, each of other ones. All is checked before it is written.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pathsum merge 1.json 2.json\n  pathsum merge 1.cert 2.cert --model fixture:sorted_list --out cert"
)]
pub struct Args {
    /// The files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Of certificates, the model that they are of: a folder, a .pt state dict, or fixture:NAME
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// The config.json of a .pt (the one beside it unless given)
    #[arg(long, value_name = "FILE", requires = "model")]
    config: Option<PathBuf>,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    if let Some(model) = &args.model {
        let open = |path: &PathBuf| Ok((path.display().to_string(), Certificate::open(path)?));
        let certificates = args.files.iter().map(open).collect::<Result<_>>()?;
        let model = ModelArg::of(model.clone(), args.config.clone());
        certify::merge(common, &model, certificates, args.out.as_deref())?;
        return Ok(ExitCode::SUCCESS);
    }
    let (mut sweeps, mut edges) = (Vec::new(), Vec::new());
    for path in &args.files {
        if Certificate::open(path).is_ok() {
            anyhow::bail!(
                "{}: is a certificate, which is checked as it is merged; expected --model MODEL",
                path.display()
            );
        }
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
