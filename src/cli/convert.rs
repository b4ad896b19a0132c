//! `pathsum convert`: a model becomes a folder of another format.

use super::args::{Common, ModelArg, ToArg};
use super::output::report;
use anyhow::Result;
use pathsum::{Precision, Scalar};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Write a model as a folder that TransformerLens or Hugging Face's transformers loads
///
/// The folder has a config.json and a model.safetensors. It holds the values that the model's file holds: in f32, or in
/// f64 where the file has f64, unless --dtype says otherwise.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pathsum convert model.pt --config config.json model/\n  pathsum convert gpt2/ lens/\n  pathsum convert edited/ back/ --to hugging_face"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    /// The folder to write
    #[arg(value_name = "OUT_DIR")]
    out: PathBuf,
    #[command(flatten)]
    to: ToArg,
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    let precision = match common.dtype {
        Some(precision) => precision,
        None => args.model.precision()?,
    };
    match precision {
        Precision::F32 => convert::<f32>(args)?,
        Precision::F64 => convert::<f64>(args)?,
    }
    let result = json!({"out": args.out.display().to_string(), "dtype": precision.to_string()});
    report(common, &result, || {
        format!("wrote {} in {precision}\n", args.out.display())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn convert<T: Scalar>(args: &Args) -> Result<()> {
    args.to
        .save(&args.model.load::<T>()?, &args.model, &args.out)
}
