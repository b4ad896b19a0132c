//! `pathsum bilinear`: what a layer's gated neurons do along a logit, by the weights alone.

use super::args::{Common, ModelArg};
use super::direction::Direction;
use super::output::{report, table, text};
use super::weights::most_along;
use super::words::Words;
use anyhow::Result;
use pathsum::decompose::{TokenCircuits, bilinear_form};
use pathsum::{Par, Precision, Scalar};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Show what a layer's gated neurons add to a logit for which tokens: a quadratic form, by its eigenvectors
///
/// Without a function of the gate an MLP is bilinear in what it reads, and along a direction of what it writes it is
/// x M x^T = sum of eigenvalues times squares of x v^T: tokens far along an eigenvector, on either side, add to the logit or
/// take from it. Exact where the function is `linear`; of neurons with another, what they would do without it. Norms are in it
/// but for their scales, biases as far as they go with two tokens.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  pathsum bilinear stories260K/ --layer 1 --logit \" cat- mat\" --top 4"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    /// The layer, from 0
    #[arg(long, value_name = "L")]
    layer: usize,
    /// A logit, or one less another; by their numbers, or in words where the model's folder has a tokenizer
    #[arg(long, value_name = "I[-J]", allow_hyphen_values = true)]
    logit: String,
    /// How many eigenvectors are listed, the largest eigenvalues by modulus first
    #[arg(long, value_name = "K", default_value_t = 5)]
    top: usize,
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    match common.dtype() {
        Precision::F32 => execute::<f32>(args, common),
        Precision::F64 => execute::<f64>(args, common),
    }
}

fn execute<T: Scalar>(args: &Args, common: &Common) -> Result<ExitCode> {
    let model = args.model.load::<T>()?;
    let c = model.config();
    let words = Words::of(&args.model)?;
    let direction = Direction::parse("--logit", &args.logit, &words, c)?;
    let circuits = TokenCircuits::new(&model)?;
    let read = circuits.read_by(direction.logit())?;
    let form = bilinear_form(&model, args.layer, &read, Par::Rayon)?;
    let eigen = form.before_norm(&model, args.layer)?.eigen()?;
    let n = args.top.min(eigen.values.len());
    let vectors = eigen.vectors.subcols(0, n);
    let tokens = circuits.W_E().transpose();
    let (plus, minus) = (
        most_along(vectors, tokens, 1.0)?,
        most_along(vectors, tokens, -1.0)?,
    );
    let list = |side: &[(usize, f64)]| -> Value {
        let all = side.iter();
        all.map(|&(i, x)| json!({"token": i, "word": words.exact(i), "value": x}))
            .collect()
    };
    let each = |i: usize| {
        json!({
            "eigenvalue": eigen.values[i].to_f64(),
            "sides": [list(&plus[i]), list(&minus[i])],
        })
    };
    let exact = c.act_fn() == Some(pathsum::model::ActFn::Linear);
    let result = json!({
        "model": args.model.model,
        "dtype": T::PRECISION.to_string(),
        "layer": args.layer,
        "logit": direction.of,
        "logit_word": words.exact(direction.of),
        "less": direction.less,
        "less_word": direction.less.and_then(|less| words.exact(less)),
        "exact": exact,
        "eigenvalues": eigen.values.iter().map(|x| x.to_f64()).collect::<Vec<_>>(),
        "eigenvectors": (0..n).map(each).collect::<Vec<_>>(),
    });
    report(common, &result, || {
        let mut t = table(["eigenvalue", "tokens on one side", "tokens on the other"]);
        let line = |side: &[(usize, f64)]| {
            let all: Vec<String> = side.iter().map(|&(i, _)| words.shown(i)).collect();
            all.join(" ")
        };
        for i in 0..n {
            t.add_row([
                format!("{:+.4e}", eigen.values[i].to_f64()),
                line(&plus[i]),
                line(&minus[i]),
            ]);
        }
        let without = match exact {
            true => "",
            false => ", were there no function",
        };
        format!(
            "{} by the neurons of layer {}{without}\n\n{}",
            direction.shown(&words),
            args.layer,
            text(&t)
        )
    })?;
    Ok(ExitCode::SUCCESS)
}
