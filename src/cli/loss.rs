//! `pathsum loss`: how well a model foretells a text.

use super::args::{Common, ModelArg};
use super::batch::TextArgs;
use super::output::{progress, report, table, text};
use super::words::Words;
use anyhow::{Context, Result, bail};
use pathsum::model::Loss;
use pathsum::{Precision, Scalar};
use serde_json::json;
use std::process::ExitCode;

/// The loss on a text: for each token, what the model gave the one that came, in nats
///
/// A text that is longer than the context is read in windows, each of which begins so many tokens after the one before;
/// a token counts in the first window that foretells it.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pathsum loss gpt2/ --text essay.txt\n  pathsum loss gpt2/ --prompt \"The cat sat on the mat.\" --each"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    texts: TextArgs,
    /// How many tokens a window has (the context, unless given)
    #[arg(long, value_name = "N")]
    window: Option<usize>,
    /// How many tokens a window begins after the one before (half a window, unless given)
    #[arg(long, value_name = "N")]
    stride: Option<usize>,
    /// Print each token's loss
    #[arg(long)]
    each: bool,
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    match common.dtype() {
        Precision::F32 => loss::<f32>(args, common),
        Precision::F64 => loss::<f64>(args, common),
    }
}

fn loss<T: Scalar>(args: &Args, common: &Common) -> Result<ExitCode> {
    if !args.texts.given() {
        bail!("no text was given, expected --text FILE or --prompt TEXT");
    }
    let tokenizer = args.model.tokenizer()?;
    let texts = args.texts.read()?;
    let special = args.texts.special();
    let model = args.model.load::<T>()?;
    let words = Words::of(&args.model)?;
    let n_ctx = model.config().n_ctx;
    let window = args.window.unwrap_or(n_ctx);
    let stride = args.stride.unwrap_or((window / 2).max(1));
    let mut losses: Vec<Loss> = Vec::new();
    for text in &texts {
        let tokens = tokenizer.encode(text, special)?;
        let bar = progress(common, "reading", tokens.len());
        let read = model.loss(&tokens, (window, stride), &|n| bar.inc(n as u64));
        bar.finish_and_clear();
        losses.push(read.context(args.texts.option())?);
    }
    let each = || losses.iter().flat_map(|loss| &loss.each);
    let n = each().count();
    let mean = each().sum::<f64>() / n as f64;
    let result = json!({
        "model": args.model.model,
        "dtype": T::PRECISION.to_string(),
        "tokens": n,
        "loss": mean,
        "perplexity": mean.exp(),
        "texts": losses.iter().map(|loss| json!({
            "tokens": loss.tokens,
            "words": loss.tokens.iter().map(|&t| words.exact(t as usize)).collect::<Vec<_>>(),
            "loss": loss.each,
        })).collect::<Vec<_>>(),
    });
    report(common, &result, || {
        let mut out = String::new();
        if args.each {
            let mut rows = table(["token", "loss"]);
            for loss in &losses {
                for (&token, x) in loss.tokens[1..].iter().zip(&loss.each) {
                    rows.add_row([words.shown(token as usize), format!("{x:.4}")]);
                }
            }
            out = format!("{}\n", text(&rows));
        }
        format!(
            "{out}loss {mean:.6} nats a token over {n} tokens, perplexity {:.4}\n",
            mean.exp()
        )
    })?;
    Ok(ExitCode::SUCCESS)
}
