//! `pathsum convert`: a PyTorch state dict becomes a model folder.

use super::args::{Common, ModelArg};
use super::output::report;
use anyhow::Result;
use pathsum::model::open_checkpoint;
use pathsum::tensor::Dtype;
use pathsum::{Model, Precision, Scalar, TensorFile};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Turn a .pt state dict into a folder with config.json and model.safetensors
///
/// The folder holds the values that the file holds: in f32, or in f64 where the file has f64.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  pathsum convert model.pt --config config.json model/")]
pub struct Args {
    #[command(flatten)]
    input: ModelArg,
    /// The folder to write
    #[arg(value_name = "OUT_DIR")]
    out: PathBuf,
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    let path = Path::new(&args.input.model);
    let file = open_checkpoint(path)?;
    let precision = if file.names().any(|n| file.dtype(n) == Some(Dtype::F64)) {
        Precision::F64
    } else {
        Precision::F32
    };
    match precision {
        Precision::F32 => convert::<f32>(args, path, &file)?,
        Precision::F64 => convert::<f64>(args, path, &file)?,
    }
    let result = json!({"out": args.out.display().to_string(), "dtype": precision.to_string()});
    report(common, &result, || {
        format!("wrote {} in {precision}\n", args.out.display())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn convert<T: Scalar>(args: &Args, path: &Path, file: &TensorFile) -> Result<()> {
    use anyhow::Context;
    let config = args.input.config_of(path)?;
    let model = Model::<T>::from_file(config, file).with_context(|| path.display().to_string())?;
    Ok(model.save(&args.out)?)
}
