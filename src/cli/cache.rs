//! `pathsum cache`: the values at hooks.

use super::args::{Common, ModelArg};
use super::batch::SequenceArgs;
use super::output::{progress, report};
use anyhow::Result;
use pathsum::tensor::Saved;
use pathsum::{HookPattern, Precision, Run, Scalar, write_safetensors};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Run a model and write the values at hooks, the `logits` and the `tokens`
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  pathsum cache model/ --tokens dataset.safetensors --names '*.hook_z' --out cache.safetensors"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    sequences: SequenceArgs,
    /// Hooks by name; * stands for any characters, ? for one
    #[arg(long, value_name = "PATTERN", num_args = 1.., required = true)]
    names: Vec<String>,
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
    let mut run = Run::new();
    for name in &args.names {
        run = run.cache(name.parse::<HookPattern>()?);
    }
    let bar = progress(common, "running", tokens.batch());
    let advance = |n: usize| bar.inc(n as u64);
    let out = model.run(&tokens, run.progress(&advance))?;
    bar.finish_and_clear();
    let values = out
        .cache
        .iter()
        .map(|(hook, value)| (hook.to_string(), value));
    let logits = ("logits".to_string(), &out.logits);
    let values = values
        .chain([logits])
        .map(|(name, t)| (name, Saved::from(t)));
    let (ids, shape) = (tokens.tensors(), [tokens.batch(), tokens.pos()]);
    let ids = ids
        .iter()
        .map(|(name, ids)| (name.to_string(), Saved::integers(&shape, ids)));
    write_safetensors(&args.out, values.chain(ids))?;
    let hooks: Vec<_> = out
        .cache
        .iter()
        .map(|(h, t)| json!({"name": h.to_string(), "shape": t.shape()}))
        .collect();
    let result = json!({"hooks": hooks, "out": args.out.display().to_string(), "dtype": T::PRECISION.to_string()});
    report(common, &result, || {
        format!(
            "wrote {} hooks and logits in {} to {}\n",
            out.cache.len(),
            T::PRECISION,
            args.out.display()
        )
    })?;
    Ok(ExitCode::SUCCESS)
}
