//! `pathsum run`: a batch's logits.

use super::args::{Common, ModelArg};
use super::batch::SequenceArgs;
use super::output::{progress, report};
use anyhow::Result;
use pathsum::{Precision, Run, Scalar, write_safetensors};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Run a model on sequences and write its `logits`
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  pathsum run model/ --tokens dataset.safetensors --out logits.safetensors"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    sequences: SequenceArgs,
    /// The safetensors file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    match common.dtype() {
        Precision::F32 => execute::<f32>(args, common),
        Precision::F64 => execute::<f64>(args, common),
    }
}

fn execute<T: Scalar>(args: &Args, common: &Common) -> Result<ExitCode> {
    let model = args.model.load::<T>()?;
    let tokens = args.sequences.read(common, model.config())?.tokens;
    let bar = progress(common, "running", tokens.batch());
    let advance = |n: usize| bar.inc(n as u64);
    let out = model.run(&tokens, Run::new().progress(&advance))?;
    bar.finish_and_clear();
    write_safetensors(&args.out, [("logits".to_string(), &out.logits)])?;
    let shape = out.logits.shape();
    let result = json!({"logits": shape, "out": args.out.display().to_string(), "dtype": T::PRECISION.to_string()});
    report(common, &result, || {
        format!(
            "wrote logits {shape:?} in {} to {}\n",
            T::PRECISION,
            args.out.display()
        )
    })?;
    Ok(ExitCode::SUCCESS)
}
