//! `pathsum weights`: what every head is by its weights alone.

mod directions;

use super::args::{Common, ModelArg};
use super::output::{progress, report, table, text};
use super::words::Words;
use anyhow::Result;
use directions::directions;
pub(super) use directions::most_along;
use pathsum::decompose::{Distance, TokenCircuits, query_key, value_output};
use pathsum::linalg::Entry;
use pathsum::{Error, Factored, Head, Model, Par, Precision, Scalar};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Show what heads are by their weights alone: singular values of W_QK and W_OV, and what tokens do to logits
///
/// Of every head: the largest singular values of W_QK and W_OV, how many make nine tenths of their squared norm, and the
/// largest entries of W_E W_OV W_U, "attended token → logit"; before them those of the direct path, W_E W_U. With --head the
/// singular directions of one head, in tokens: of W_OV those that it reads and what it writes for them, of W_QK those of a query
/// and the keys that it looks for.
///
/// Norms are in all of them but for their scales, which are values of a run; biases, positions and MLPs are not. Where
/// positions are rotary, W_QK is that of a distance of the key behind the query (--distance).
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pathsum weights gpt2/ --dtype f32 --top 5\n  pathsum weights fixture:induction --head 1.0\n  pathsum weights fixture:induction --head 1.0 --circuit qk"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    /// How many entries are listed of each head, or directions of the one
    #[arg(long, value_name = "K", default_value_t = 3)]
    top: usize,
    /// List the smallest entries
    #[arg(long, conflicts_with = "head")]
    smallest: bool,
    /// Show the singular directions of this head
    #[arg(long, value_name = "L.H")]
    head: Option<Head>,
    /// Whose directions they are
    #[arg(long, value_enum, default_value = "ov", requires = "head")]
    circuit: Which,
    /// How far the key is behind the query, in a model with rotary positions
    #[arg(long, value_name = "N", default_value_t = 0)]
    distance: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    /// What the head writes of what it reads
    Ov,
    /// What its queries look for in keys
    Qk,
}

/// How many singular values are printed of each matrix; all are in JSON.
const SHOWN: usize = 3;

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    match common.dtype() {
        Precision::F32 => execute::<f32>(args, common),
        Precision::F64 => execute::<f64>(args, common),
    }
}

fn execute<T: Scalar>(args: &Args, common: &Common) -> Result<ExitCode> {
    let model = args.model.load::<T>()?;
    let words = Words::of(&args.model)?;
    match args.head {
        Some(head) => directions(args, common, &model, &words, head),
        None => all_heads(args, common, &model, &words),
    }
}

/// A head's singular values, and its largest entries.
struct Row<T> {
    head: Head,
    QK: Vec<T>,
    OV: Vec<T>,
    entries: Option<Vec<Entry<T>>>,
}

fn all_heads<T: Scalar>(
    args: &Args,
    common: &Common,
    model: &Model<T>,
    words: &Words,
) -> Result<ExitCode> {
    let c = model.config();
    let (circuits, why) = match TokenCircuits::new(model) {
        Ok(circuits) => (Some(circuits), None),
        Err(Error::NotCovered(reason)) => (None, Some(reason)),
        Err(e) => return Err(e.into()),
    };
    let entries = |circuit: Factored<T>| match args.smallest {
        true => circuit.smallest(args.top, Par::Rayon),
        false => circuit.largest(args.top, Par::Rayon),
    };
    let heads: Vec<Head> = c.dims().heads().collect();
    let bar = progress(common, "heads", heads.len() + 1);
    let direct = circuits
        .as_ref()
        .map(|all| entries(all.direct()))
        .transpose()?;
    bar.inc(1);
    let mut rows = Vec::new();
    for head in heads {
        let own = circuits
            .as_ref()
            .map(|all| entries(all.of(head, Par::Rayon)?));
        rows.push(Row {
            head,
            QK: query_key(model, head, Distance::At(args.distance))?.S()?,
            OV: value_output(model, head)?.S()?,
            entries: own.transpose()?,
        });
        bar.inc(1);
    }
    bar.finish_and_clear();
    let tokens = Ends {
        words,
        logits_are_tokens: c.d_vocab_out == c.d_vocab,
    };
    let list = |entries: &Option<Vec<Entry<T>>>| {
        let all = entries.as_ref()?.iter();
        Some(all.map(|e| tokens.json(e)).collect::<Vec<Value>>())
    };
    let result = json!({
        "model": args.model.model,
        "dtype": T::PRECISION.to_string(),
        "distance": c.rotary().then_some(args.distance),
        "smallest": args.smallest,
        "direct": list(&direct),
        "heads": rows.iter().map(|row| json!({
            "head": row.head,
            "W_QK": numbers(&row.QK),
            "W_OV": numbers(&row.OV),
            "entries": list(&row.entries),
        })).collect::<Vec<_>>(),
    });
    report(common, &result, || {
        let mut out = match c.rotary() {
            true => format!("W_QK {}\n\n", Distance::At(args.distance)),
            false => String::new(),
        };
        let kind = if args.smallest { "smallest" } else { "largest" };
        if let Some(direct) = &direct {
            let mut t = table([&*format!("{kind} entries of W_E W_U")]);
            direct.iter().for_each(|e| {
                t.add_row([tokens.shown(e)]);
            });
            out += &format!("{}\n", text(&t));
        }
        let header = format!("{kind} entries of W_E W_OV W_U");
        let mut t = table([
            "head",
            "W_QK: singular values",
            "W_OV: singular values",
            &header,
        ]);
        for row in &rows {
            let own: Vec<String> = row
                .entries
                .iter()
                .flatten()
                .map(|e| tokens.shown(e))
                .collect();
            t.add_row([
                row.head.to_string(),
                spectrum(&row.QK),
                spectrum(&row.OV),
                own.join("\n"),
            ]);
        }
        out += &text(&t);
        if let Some(reason) = why {
            out += &format!("\nno entries: {reason}\n");
        }
        out
    })?;
    Ok(ExitCode::SUCCESS)
}

/// How the tokens at the ends of an entry are told.
struct Ends<'a> {
    words: &'a Words,
    logits_are_tokens: bool,
}

impl Ends<'_> {
    fn logit(&self, logit: usize) -> String {
        match self.logits_are_tokens {
            true => self.words.shown(logit),
            false => logit.to_string(),
        }
    }

    fn shown<T: Scalar>(&self, e: &Entry<T>) -> String {
        let (from, to) = (self.words.shown(e.row), self.logit(e.column));
        format!("{from} → {to} {:.3}", e.value.to_f64())
    }

    fn json<T: Scalar>(&self, e: &Entry<T>) -> Value {
        let to = self
            .words
            .exact(e.column)
            .filter(|_| self.logits_are_tokens);
        json!({
            "token": e.row,
            "word": self.words.exact(e.row),
            "logit": e.column,
            "logit_word": to,
            "value": e.value.to_f64(),
        })
    }
}

fn numbers<T: Scalar>(x: &[T]) -> Vec<f64> {
    x.iter().map(|x| x.to_f64()).collect()
}

/// The first singular values, and how many make nine tenths of the squared norm.
fn spectrum<T: Scalar>(S: &[T]) -> String {
    let all: f64 = S.iter().map(|s| s.to_f64().powi(2)).sum();
    let mut sum = 0.0;
    let most = S.iter().take_while(|s| {
        let before = sum < 0.9 * all;
        sum += s.to_f64().powi(2);
        before
    });
    let most = most.count();
    let shown: Vec<String> = S
        .iter()
        .take(SHOWN)
        .map(|s| format!("{:.3}", s.to_f64()))
        .collect();
    format!("{} ({most} of {})", shown.join(" "), S.len())
}
