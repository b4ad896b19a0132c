//! `pathsum compose`: composition scores.

use super::args::{Common, ModelArg};
use super::output::{report, table, text};
use anyhow::{Result, anyhow};
use pathsum::decompose::{Composition, Distance, composition_baseline, composition_scores};
use pathsum::{Head, Par, Precision, Scalar, write_safetensors};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// How much of what a head writes a later head reads, for all pairs, beside random weights of the same shapes
///
/// Where queries and keys are turned by their positions, by queries and by keys the scores are those at a distance of the
/// key behind the query (--distance), or of the mean of W_QK over distances (--mean).
#[derive(clap::Args)]
#[command(after_help = "Example:\n  pathsum compose fixture:induction --kind k")]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    /// By the later head's queries, keys or values: q, k or v
    #[arg(long, value_name = "KIND", value_parser = kind)]
    kind: Composition,
    /// How far the key is behind the query, in a model with rotary positions; 0 unless given
    #[arg(long, value_name = "N", conflicts_with = "mean")]
    distance: Option<usize>,
    /// The mean of W_QK over the distances from 0 to N instead
    #[arg(long, value_name = "N")]
    mean: Option<usize>,
    /// The safetensors file to write: `value`, [layer, head, layer, head], the earlier head first
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The seed of the random weights
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

fn kind(s: &str) -> Result<Composition, String> {
    match s {
        "q" => Ok(Composition::Q),
        "k" => Ok(Composition::K),
        "v" => Ok(Composition::V),
        _ => Err("expected q, k or v".into()),
    }
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    match common.dtype() {
        Precision::F32 => execute::<f32>(args, common),
        Precision::F64 => execute::<f64>(args, common),
    }
}

/// How many random pairs the baseline is the mean of.
const SAMPLES: usize = 300;

/// With more pairs than this the table has the largest.
const MAX_ROWS: usize = 20;

fn execute<T: Scalar>(args: &Args, common: &Common) -> Result<ExitCode> {
    let model = args.model.load::<T>()?;
    let c = model.config();
    let distance = match args.mean {
        Some(n) => Distance::MeanTo(n),
        None => Distance::At(args.distance.unwrap_or(0)),
    };
    let scores = composition_scores(&model, distance, Par::Rayon)?;
    let turned = c.rotary() && args.kind != Composition::V;
    let baseline = composition_baseline(c.d_model, c.d_head, SAMPLES, args.seed, Par::Rayon)?;
    let values = scores.of(args.kind);
    if let Some(out) = &args.out {
        write_safetensors(out, [("value".to_string(), values)])?;
    }
    let heads: Vec<Head> = c.dims().heads().collect();
    let pairs = heads
        .iter()
        .flat_map(|&a| heads.iter().map(move |&b| (a, b)));
    let mut pairs: Vec<(Head, Head, f64)> = pairs
        .filter(|(a, b)| a.layer < b.layer)
        .map(|(a, b)| (a, b, scores.score(args.kind, a, b).to_f64()))
        .collect();
    if pairs.is_empty() {
        return Err(anyhow!(
            "{}: composition needs two layers, this model has {}",
            args.model.model,
            c.n_layers
        ));
    }
    pairs.sort_by(|x, y| y.2.total_cmp(&x.2));
    let deviations = |score: f64| (score - baseline.mean) / baseline.std;
    let listed: Vec<_> = pairs
        .iter()
        .map(|(a, b, score)| {
            json!({"earlier": a.to_string(), "later": b.to_string(), "score": score, "deviations": deviations(*score)})
        })
        .collect();
    let result = json!({
        "model": args.model.model,
        "kind": args.kind,
        "dtype": T::PRECISION.to_string(),
        "distance": turned.then(|| distance.to_string()),
        "baseline": baseline,
        "pairs": listed,
        "out": args.out.as_ref().map(|o| o.display().to_string()),
    });
    report(common, &result, || {
        let mut t = table(["earlier", "later", "score", "deviations from random"]);
        for (a, b, score) in pairs.iter().take(MAX_ROWS) {
            t.add_row(vec![
                a.to_string(),
                b.to_string(),
                format!("{score:.4}"),
                format!("{:+.1}", deviations(*score)),
            ]);
        }
        let more = match pairs.len().checked_sub(MAX_ROWS + 1) {
            Some(_) => format!("and {} more\n", pairs.len() - MAX_ROWS),
            None => String::new(),
        };
        let written = args
            .out
            .as_ref()
            .map(|out| format!("wrote all to {}\n", out.display()));
        let which = match turned {
            true => format!("W_QK {distance}\n\n"),
            false => String::new(),
        };
        format!(
            "{which}{}{more}\nrandom weights of these shapes: {:.4}, standard deviation {:.4} ({} pairs)\n{}",
            text(&t),
            baseline.mean,
            baseline.std,
            baseline.samples,
            written.unwrap_or_default()
        )
    })?;
    Ok(ExitCode::SUCCESS)
}
