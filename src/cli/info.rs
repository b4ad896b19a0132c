//! `pathsum info`: what a model is made of.

use super::args::{Common, ModelArg};
use super::output::{report, table, text};
use anyhow::Result;
use pathsum::format::layout;
use pathsum::{Precision, Scalar};
use serde_json::json;
use std::process::ExitCode;

/// Show a model's shapes, parameters and hooks
#[derive(clap::Args)]
#[command(after_help = "Example:\n  pathsum info fixture:induction")]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    match common.dtype() {
        Precision::F32 => show::<f32>(args, common),
        Precision::F64 => show::<f64>(args, common),
    }
}

fn show<T: Scalar>(args: &Args, common: &Common) -> Result<ExitCode> {
    // Loaded, not only its header read: info is also the quickest way to see that a checkpoint is sound.
    let model = args.model.load::<T>()?;
    let config = model.config();
    let hooks: Vec<(String, String)> = config
        .hooks()
        .into_iter()
        .map(|h| (h.to_string(), hook_shape(config, h)))
        .collect();
    let parameters = layout(config);
    let config_value: serde_json::Value = serde_json::from_str(&config.to_json())?;
    let result = json!({
        "config": config_value,
        "parameters": model.weights().len(),
        "tensors": parameters.iter().map(|(n, s)| json!({"name": n, "shape": s})).collect::<Vec<_>>(),
        "hooks": hooks.iter().map(|(n, s)| json!({"name": n, "shape": s})).collect::<Vec<_>>(),
    });
    report(common, &result, || {
        let mut out = String::new();
        if let serde_json::Value::Object(fields) = &config_value {
            let mut t = table(["config", ""]);
            for (name, value) in fields {
                t.add_row([
                    name.clone(),
                    value.to_string().trim_matches('"').to_string(),
                ]);
            }
            out += &text(&t);
        }
        let mut t = table(["parameters", "shape"]);
        for (name, shape) in &parameters {
            t.add_row([name.clone(), format!("{shape:?}")]);
        }
        out += &format!(
            "\n{}{} parameters in all\n",
            text(&t),
            model.weights().len()
        );
        let mut t = table(["hooks", "shape"]);
        for (name, shape) in &hooks {
            t.add_row([name, shape]);
        }
        out + "\n" + &text(&t)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The shape with the batch's own sizes by name.
fn hook_shape(config: &pathsum::Config, hook: pathsum::Hook) -> String {
    let axes = match hook {
        pathsum::Hook::AttnScores(_) | pathsum::Hook::Pattern(_) => {
            return format!("[batch, {}, pos, pos]", config.n_heads);
        }
        _ => config.hook_shape(hook, 0, 0),
    };
    let rest: Vec<String> = axes[2..].iter().map(usize::to_string).collect();
    format!("[batch, pos, {}]", rest.join(", "))
}
