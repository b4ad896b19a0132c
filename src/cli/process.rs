//! `pathsum process`: TransformerLens's processing of weights.

use super::args::{Common, ModelArg};
use super::output::report;
use anyhow::Result;
use pathsum::model::process::{Processed, Processing};
use pathsum::{Precision, Scalar};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Process a model's weights as TransformerLens does
///
/// Steps: fold_layer_norm, center_writing_weights, center_unembed, fold_value_biases,
/// refactor_factored_attn_matrices. A step whose condition does not hold says so and changes nothing.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  pathsum process fixture:induction processed/ --steps fold_layer_norm,center_unembed"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    /// The folder to write
    #[arg(value_name = "OUT_DIR")]
    out: PathBuf,
    /// The steps, in order (the first four unless given)
    #[arg(long, value_name = "STEP", value_delimiter = ',')]
    steps: Option<Vec<String>>,
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    match common.dtype() {
        Precision::F32 => process::<f32>(args, common),
        Precision::F64 => process::<f64>(args, common),
    }
}

fn process<T: Scalar>(args: &Args, common: &Common) -> Result<ExitCode> {
    let steps = match &args.steps {
        None => Processing::DEFAULT.to_vec(),
        Some(names) => names
            .iter()
            .map(|n| n.trim().parse())
            .collect::<pathsum::Result<_>>()?,
    };
    let mut model = args.model.load::<T>()?;
    let mut lines = String::new();
    let mut outcomes = Vec::new();
    for step in steps {
        let outcome = step.apply(&mut model)?;
        let (said, skipped, left) = match outcome {
            Processed::Done => ("done".to_string(), None, None),
            Processed::Partly(left) => (format!("done but for {left}"), None, Some(left)),
            Processed::Skipped(reason) => (format!("skipped: {reason}"), Some(reason), None),
        };
        lines += &format!("{step}: {said}\n");
        outcomes.push(json!({"step": step.name(), "skipped": skipped, "left_alone": left}));
    }
    model.save(&args.out)?;
    let result = json!({"steps": outcomes, "out": args.out.display().to_string(), "dtype": T::PRECISION.to_string()});
    report(common, &result, || {
        format!("{lines}wrote {} in {}\n", args.out.display(), T::PRECISION)
    })?;
    Ok(ExitCode::SUCCESS)
}
