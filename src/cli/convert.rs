//! `pathsum convert`: a PyTorch state dict becomes a model folder.

use super::args::{Common, config_of};
use super::output::report;
use anyhow::{Context, Result};
use pathsum::format::open_checkpoint;
use pathsum::tensor::Dtype;
use pathsum::{Model, Precision, Scalar, TensorFile};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Turn a .pt state dict into a folder with config.json and model.safetensors
///
/// The folder holds the values that the file holds: in f32, or in f64 where the file has f64,
/// unless --dtype says otherwise.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  pathsum convert model.pt --config config.json model/")]
pub struct Args {
    /// A .pt state dict
    #[arg(value_name = "STATE_DICT")]
    input: PathBuf,
    /// Its config.json (the one beside it unless given)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder to write
    #[arg(value_name = "OUT_DIR")]
    out: PathBuf,
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    let file = open_checkpoint(&args.input)?;
    let of_file = if file.names().any(|n| file.dtype(n) == Some(Dtype::F64)) {
        Precision::F64
    } else {
        Precision::F32
    };
    let precision = common.dtype.unwrap_or(of_file);
    match precision {
        Precision::F32 => convert::<f32>(args, &file)?,
        Precision::F64 => convert::<f64>(args, &file)?,
    }
    let result = json!({"out": args.out.display().to_string(), "dtype": precision.to_string()});
    report(common, &result, || {
        format!("wrote {} in {precision}\n", args.out.display())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn convert<T: Scalar>(args: &Args, file: &TensorFile) -> Result<()> {
    let config = config_of(&args.input, args.config.as_deref())?;
    let model =
        Model::<T>::from_file(config, file).with_context(|| args.input.display().to_string())?;
    Ok(model.save(&args.out)?)
}
