//! `pathsum embed`: a vector for each sequence.

use super::args::{Common, ModelArg};
use super::batch::SequenceArgs;
use super::output::{progress, report};
use anyhow::Result;
use pathsum::{Precision, Scalar, write_safetensors};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Embed sequences: the mean of each one's last hidden state over its tokens
///
/// What is written, `embeddings`, is `[sequence, d_model]`. Tokens that the file's `attention_mask` leaves out do not
/// count.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  pathsum embed minilm/ --tokens sentences.safetensors --unit --out embeddings.safetensors"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    sequences: SequenceArgs,
    /// Scale each vector to length 1
    #[arg(long)]
    unit: bool,
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
    let tokens = args
        .sequences
        .read(common, &args.model, model.config())?
        .tokens;
    let bar = progress(common, "embedding", tokens.batch());
    let mut embeddings = model.sentence_embeddings(&tokens, &|n| bar.inc(n as u64))?;
    bar.finish_and_clear();
    if args.unit {
        let d = model.config().d_model;
        for row in embeddings.data_mut().chunks_exact_mut(d) {
            let length = row.iter().map(|&x| x * x).sum::<T>().sqrt();
            row.iter_mut().for_each(|x| *x /= length);
        }
    }
    write_safetensors(&args.out, [("embeddings".to_string(), &embeddings)])?;
    let shape = embeddings.shape();
    let result = json!({"embeddings": shape, "out": args.out.display().to_string(), "dtype": T::PRECISION.to_string()});
    report(common, &result, || {
        format!(
            "wrote embeddings {shape:?} in {} to {}\n",
            T::PRECISION,
            args.out.display()
        )
    })?;
    Ok(ExitCode::SUCCESS)
}
