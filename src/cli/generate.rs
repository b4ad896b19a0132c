//! `pathsum generate`: a model goes on with a text.

use super::args::{Common, ModelArg};
use super::batch::SpecialArgs;
use super::output::print;
use anyhow::{Result, bail};
use pathsum::model::Sampling;
use pathsum::text::Tokenizer;
use pathsum::{Precision, Scalar};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use serde_json::json;
use std::process::ExitCode;

/// Go on with a text, token by token
///
/// What is written to the standard output is the text and nothing else. It ends with an end-of-text token, which is not
/// written, or when it is long enough.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  pathsum generate stories260K/ --prompt \"Once upon a time\" -n 100"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    /// How the text begins; an empty one begins with the beginning-of-text token alone
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// How many tokens at most
    #[arg(short, value_name = "N", default_value_t = 64)]
    n: usize,
    /// What logits are divided by before a token is drawn; at 0 the likeliest is taken
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = not_negative)]
    temperature: f64,
    /// Draw from the likeliest tokens that have this share of the probability
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = share)]
    top_p: f64,
    /// The seed of what is drawn
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    special: SpecialArgs,
}

fn not_negative(s: &str) -> Result<f64, String> {
    let x = s.parse().ok().filter(|x: &f64| *x >= 0.0 && x.is_finite());
    x.ok_or_else(|| "expected a number that is not negative".into())
}

fn share(s: &str) -> Result<f64, String> {
    let x = s.parse().ok().filter(|x: &f64| *x > 0.0 && *x <= 1.0);
    x.ok_or_else(|| "expected a number above 0, at most 1".into())
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    match common.dtype() {
        Precision::F32 => generate::<f32>(args, common),
        Precision::F64 => generate::<f64>(args, common),
    }
}

fn generate<T: Scalar>(args: &Args, common: &Common) -> Result<ExitCode> {
    let tokenizer = args.model.tokenizer()?;
    let model = args.model.load::<T>()?;
    let beginning = beginning(args, &tokenizer)?;
    let room = model.config().n_ctx.saturating_sub(beginning.len());
    let mut text = model.continuation(&beginning)?;
    let sampling = Sampling {
        temperature: args.temperature,
        top_p: args.top_p,
    };
    let mut rng = ChaCha8Rng::seed_from_u64(args.seed);
    let mut told = Told::of(&tokenizer, &beginning);
    if !common.json() {
        print(&told.start(args))?;
    }
    let mut new = Vec::new();
    for i in 0..args.n {
        let token = sampling.choose(text.logits(), &mut rng) as i64;
        if tokenizer.ends(token) || i == room {
            break;
        }
        new.push(token);
        let more = told.more(token);
        if !common.json() {
            print(&more)?;
        }
        if i + 1 < args.n && i + 1 < room {
            text.push(token)?;
        }
    }
    let rest = told.rest();
    match common.json() {
        true => {
            let result = json!({"prompt": beginning, "tokens": new, "text": told.text()});
            print(&format!("{}\n", serde_json::to_string_pretty(&result)?))?;
        }
        false => print(&format!("{rest}\n"))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The tokens that a text begins with.
fn beginning(args: &Args, tokenizer: &Tokenizer) -> Result<Vec<i64>> {
    match (args.prompt.is_empty(), tokenizer.beginning()) {
        (false, _) => Ok(tokenizer.encode(&args.prompt, args.special.special())?),
        (true, Some(token)) => Ok(vec![token]),
        (true, None) => {
            bail!("--prompt: is empty, and the tokenizer has no beginning-of-text token")
        }
    }
}

/// What has been written of a text.
struct Told<'t> {
    tokenizer: &'t Tokenizer,
    tokens: Vec<i64>,
    written: String,
}

impl<'t> Told<'t> {
    fn of(tokenizer: &'t Tokenizer, beginning: &[i64]) -> Self {
        Told {
            tokenizer,
            tokens: beginning.to_vec(),
            written: String::new(),
        }
    }

    /// The prompt, as it was given.
    fn start(&mut self, args: &Args) -> String {
        self.written = self.tokenizer.decode(&self.tokens);
        args.prompt.clone()
    }

    /// What a token adds. A character of several tokens is written when it is whole.
    fn more(&mut self, token: i64) -> String {
        self.tokens.push(token);
        let all = self.tokenizer.decode(&self.tokens);
        match all.ends_with('\u{fffd}') {
            true => String::new(),
            false => self.write(all),
        }
    }

    /// What is left at the end.
    fn rest(&mut self) -> String {
        let all = self.tokenizer.decode(&self.tokens);
        self.write(all)
    }

    fn write(&mut self, all: String) -> String {
        let more = all
            .strip_prefix(&self.written)
            .unwrap_or_default()
            .to_string();
        self.written = all;
        more
    }

    fn text(&self) -> &str {
        &self.written
    }
}
