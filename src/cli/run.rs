//! `pathsum run`: a batch's logits, and what is likeliest to come next.

use super::args::{Common, ModelArg};
use super::batch::SequenceArgs;
use super::output::{progress, report, table, text};
use super::words::Words;
use anyhow::{Result, bail};
use pathsum::model::Standing;
use pathsum::{Precision, Run, Scalar, Tensor, Tokens, write_safetensors};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// Run a model on sequences: print the likeliest next tokens, or write all logits
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pathsum run gpt2/ --prompt \"The capital of France is\"\n  pathsum run model/ --tokens dataset.safetensors --out logits.safetensors"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    sequences: SequenceArgs,
    /// How many of the likeliest tokens to print
    #[arg(long, value_name = "K", default_value_t = 10)]
    top: usize,
    /// Write the `logits` to a safetensors file in their place
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    match common.dtype() {
        Precision::F32 => execute::<f32>(args, common),
        Precision::F64 => execute::<f64>(args, common),
    }
}

/// Without --out, more sequences than this are not printed.
const MOST: usize = 20;

fn execute<T: Scalar>(args: &Args, common: &Common) -> Result<ExitCode> {
    let model = args.model.load::<T>()?;
    let tokens = (args.sequences.read(common, &args.model, model.config())?).tokens;
    if args.out.is_none() && tokens.batch() > MOST {
        bail!(
            "{} sequences are too many to print, expected --out FILE or --limit N",
            tokens.batch()
        );
    }
    if model.config().d_vocab_out == 0 {
        bail!(
            "{}: this model has no unembedding, and no logits; `pathsum embed` and `pathsum cache` have its values",
            args.model.model
        );
    }
    let words = Words::of(&args.model)?;
    let bar = progress(common, "running", tokens.batch());
    let advance = |n: usize| bar.inc(n as u64);
    let out = model.run(&tokens, Run::new().progress(&advance))?;
    bar.finish_and_clear();
    let shape = out.logits.shape();
    let dtype = T::PRECISION.to_string();
    let Some(path) = &args.out else {
        let next: Vec<Next> = (0..tokens.batch())
            .map(|s| Next::of(&tokens, s, &out.logits, args.top))
            .collect();
        let sequences: Vec<Value> = next.iter().map(|next| next.json(&words)).collect();
        let result = json!({"model": args.model.model, "dtype": dtype, "sequences": sequences});
        report(common, &result, || {
            let all: Vec<String> = next.iter().map(|next| next.text(&words)).collect();
            all.join("\n")
        })?;
        return Ok(ExitCode::SUCCESS);
    };
    write_safetensors(path, [("logits".to_string(), &out.logits)])?;
    let result = json!({"logits": shape, "out": path.display().to_string(), "dtype": dtype});
    report(common, &result, || {
        format!("wrote logits {shape:?} in {dtype} to {}\n", path.display())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What is likeliest to come after a sequence.
struct Next {
    tokens: Vec<i64>,
    likeliest: Vec<Standing>,
}

impl Next {
    fn of<T: Scalar>(tokens: &Tokens, sequence: usize, logits: &Tensor<T>, top: usize) -> Self {
        let seen = (0..tokens.pos()).filter(|&p| tokens.is_attended(sequence, p));
        let last = tokens.last_attended(sequence);
        Next {
            tokens: seen.map(|p| tokens.sequence(sequence)[p]).collect(),
            likeliest: Standing::likeliest(logits.slice(&[sequence, last]), top),
        }
    }

    fn json(&self, words: &Words) -> Value {
        let likeliest = self.likeliest.iter().map(|next| {
            json!({"token": next.token, "word": words.exact(next.token), "logit": next.logit,
                "probability": next.probability})
        });
        json!({"tokens": self.tokens, "words": words.all(&self.tokens), "next": likeliest.collect::<Vec<_>>()})
    }

    fn text(&self, words: &Words) -> String {
        let mut rows = table(["next", "token", "logit", "probability"]);
        for next in &self.likeliest {
            rows.add_row([
                words.shown(next.token),
                next.token.to_string(),
                format!("{:.4}", next.logit),
                format!("{:.4}", next.probability),
            ]);
        }
        format!("{}\n{}", words.sequence(&self.tokens), text(&rows))
    }
}
