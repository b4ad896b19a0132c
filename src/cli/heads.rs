//! `pathsum heads`: what every head is known by.

use super::args::{Common, ModelArg};
use super::batch::SequenceArgs;
use super::output::{progress, report, sequences, table, text};
use super::task::size;
use anyhow::{Result, bail};
use pathsum::decompose::{PatternScore, PatternScores, copying_scores};
use pathsum::model::Config;
use pathsum::{Error, Head, Model, Par, Precision, Run, Scalar, Tokens};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Score every head: where it looks, and whether it copies
///
/// Means over the queries of all sequences: `previous`, the attention to the token before; `duplicate`, to earlier places
/// of the query's own token; `induction`, to the tokens just after those (on repeated random tokens of period N the stripe
/// at offset N-1); `first`, to the first token; `entropy`, of the pattern, in nats. Where no query has such a place there
/// is no score.
///
/// `copying` is of the weights as they are, norms not folded: the sum of the eigenvalues of W_E W_OV W_U over the sum
/// of their moduli.
///
/// Without sequences they are random tokens, repeated.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pathsum heads gpt2/ --sort induction --top 10\n  pathsum heads gpt2/ --prompt \"When Mary and John went to the store, John gave a drink to\"\n  pathsum heads fixture:induction --repeated 8"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    sequences: SequenceArgs,
    /// Random tokens of this period, twice over, behind the beginning-of-text token where the model's folder has one; 50,
    /// or what the context has room for, where there are no sequences
    #[arg(long, value_name = "N", conflicts_with_all = ["tokens", "sequence", "prompt", "text"])]
    repeated: Option<usize>,
    /// How many sequences of random tokens
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = size)]
    size: usize,
    /// Their seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Show the heads with the largest of this score first (by layer and head unless given)
    #[arg(long, value_name = "SCORE", value_enum)]
    sort: Option<Score>,
    /// Show as many heads (all unless given)
    #[arg(long, value_name = "K")]
    top: Option<usize>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Score {
    Previous,
    Duplicate,
    Induction,
    First,
    Entropy,
    Copying,
}

/// A head with its scores.
struct Row {
    head: Head,
    pattern: PatternScore,
    copying: Option<f64>,
}

impl Row {
    fn score(&self, score: Score) -> Option<f64> {
        match score {
            Score::Previous => self.pattern.previous,
            Score::Duplicate => self.pattern.duplicate,
            Score::Induction => self.pattern.induction,
            Score::First => self.pattern.first,
            Score::Entropy => self.pattern.entropy,
            Score::Copying => self.copying,
        }
    }
}

/// In the order of the columns.
const SCORES: [(Score, &str); 6] = [
    (Score::Previous, "previous"),
    (Score::Duplicate, "duplicate"),
    (Score::Induction, "induction"),
    (Score::First, "first"),
    (Score::Entropy, "entropy"),
    (Score::Copying, "copying"),
];

/// The period of random tokens where nobody says another.
const PERIOD: usize = 50;

/// How much memory a layer's patterns may take, in bytes, where more than one sequence goes in.
const MEMORY: usize = 1 << 26;

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    match common.dtype() {
        Precision::F32 => execute::<f32>(args, common),
        Precision::F64 => execute::<f64>(args, common),
    }
}

fn execute<T: Scalar>(args: &Args, common: &Common) -> Result<ExitCode> {
    let model = args.model.load::<T>()?;
    let c = model.config();
    if c.n_layers == 0 {
        bail!("{}: this model has no layers", args.model.model);
    }
    let (tokens, period) = match args.sequences.given() {
        true => ((args.sequences.read(common, &args.model, c)?).tokens, None),
        false => {
            let (tokens, period) = random(args, c)?;
            (common.limited(tokens), Some(period))
        }
    };
    let patterns = patterns(common, &model, &tokens)?;
    let heads: Vec<Head> = c.dims().heads().collect();
    let bar = progress(common, "copying", heads.len());
    let copying = copying_scores(&model, Par::Rayon, &|n| bar.inc(n as u64));
    bar.finish_and_clear();
    let (copying, why) = match copying {
        Ok(scores) => (Some(scores), None),
        Err(Error::NotCovered(reason)) => (None, Some(reason)),
        Err(e) => return Err(e.into()),
    };
    let row = |(i, &head): (usize, &Head)| Row {
        head,
        pattern: patterns.of(head),
        copying: copying.as_ref().map(|scores| scores[i]),
    };
    let mut rows: Vec<Row> = heads.iter().enumerate().map(row).collect();
    if let Some(by) = args.sort {
        let key = |row: &Row| row.score(by).unwrap_or(f64::NEG_INFINITY);
        rows.sort_by(|a, b| key(b).total_cmp(&key(a)));
    }
    rows.truncate(args.top.unwrap_or(usize::MAX));
    let listed = rows.iter().map(|row| {
        let mut own = serde_json::Map::new();
        own.insert("head".into(), row.head.to_string().into());
        own.extend(SCORES.map(|(score, name)| (name.to_string(), json!(row.score(score)))));
        Value::Object(own)
    });
    let result = json!({
        "model": args.model.model,
        "dtype": T::PRECISION.to_string(),
        "batch": tokens.batch(),
        "pos": tokens.pos(),
        "repeated": period,
        "seed": period.map(|_| args.seed),
        "heads": listed.collect::<Vec<_>>(),
    });
    report(common, &result, || {
        let what = match period {
            Some(n) => format!(
                "{} sequences of {n} random tokens, twice over",
                tokens.batch()
            ),
            None => sequences(tokens.batch(), ""),
        };
        let why = why.map(|reason| format!("\nno copying scores: {reason}\n"));
        format!("{what}\n\n{}{}", listing(&rows), why.unwrap_or_default())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Random tokens, repeated, and their period.
fn random(args: &Args, c: &Config) -> Result<(Tokens, usize)> {
    let tokenizer = args.model.tokenizer_if_any()?;
    let beginning = tokenizer.and_then(|t| t.beginning());
    let beginning = beginning.filter(|&token| (token as usize) < c.d_vocab);
    let most = c.n_ctx.saturating_sub(usize::from(beginning.is_some())) / 2;
    let period = match args.repeated {
        None => PERIOD.min((c.n_ctx - 1) / 2),
        Some(n) => n,
    };
    if period == 0 || period > most {
        bail!(
            "--repeated {period}: expected 1 to {most}, of which this model's context, {}, has room for two",
            c.n_ctx
        );
    }
    let tokens = Tokens::repeated(c, args.size, period, beginning, args.seed);
    Ok((tokens, period))
}

/// What the patterns say. Each layer's are read as the run goes by, and none is kept.
fn patterns<T: Scalar>(
    common: &Common,
    model: &Model<T>,
    tokens: &Tokens,
) -> Result<PatternScores> {
    let c = model.config();
    let mut scores = PatternScores::new(c);
    let each = c.n_heads * tokens.pos() * tokens.pos() * size_of::<T>();
    let piece = (MEMORY / each.max(1)).clamp(1, tokens.batch());
    let bar = progress(common, "running", tokens.batch());
    for first in (0..tokens.batch()).step_by(piece) {
        let own = tokens.slice(first, piece.min(tokens.batch() - first));
        let mut added = Ok(());
        let run = Run::new().hook("blocks.*.attn.hook_pattern", |pattern, hook| {
            let layer = hook.layer().expect("a layer's pattern");
            let own = scores.add(&own, layer, pattern);
            added = std::mem::replace(&mut added, Ok(())).and(own);
        });
        model.run(&own, run)?;
        added?;
        bar.inc(own.batch() as u64);
    }
    bar.finish_and_clear();
    Ok(scores)
}

fn listing(rows: &[Row]) -> String {
    let names = SCORES.map(|(_, name)| name);
    let mut t = table(["head"].into_iter().chain(names));
    for row in rows {
        let shown = |(score, _)| match row.score(score) {
            Some(x) => format!("{x:.4}"),
            None => "-".into(),
        };
        t.add_row([row.head.to_string()].into_iter().chain(SCORES.map(shown)));
    }
    text(&t)
}
