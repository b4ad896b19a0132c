//! `pathsum weights`: what every head is by its weights alone.

use super::args::{Common, ModelArg};
use super::output::{progress, report, table, text};
use super::words::Words;
use anyhow::{Result, anyhow};
use faer::MatRef;
use pathsum::decompose::{Distance, TokenCircuits, query_key, value_output};
use pathsum::linalg::{Entry, top_k_of_product};
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

/// How many tokens are listed at each end of a direction.
const TOKENS: usize = 5;

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

/// Both ends of a singular direction, at one of its two signs.
struct End {
    reads: Vec<(usize, f64)>,
    writes: Vec<(usize, f64)>,
}

fn directions<T: Scalar>(
    args: &Args,
    common: &Common,
    model: &Model<T>,
    words: &Words,
    head: Head,
) -> Result<ExitCode> {
    let c = model.config();
    let circuits = TokenCircuits::new(model)?;
    let (circuit, right) = match args.circuit {
        Which::Ov => (value_output(model, head)?, circuits.W_U()),
        Which::Qk => {
            let distance = Distance::At(args.distance);
            (
                query_key(model, head, distance)?,
                circuits.W_E().transpose(),
            )
        }
    };
    let svd = circuit.svd()?;
    let n = args.top.min(svd.S.len());
    if n == 0 {
        return Err(anyhow!("--top 0: expected at least one direction"));
    }
    let reads = circuits.W_E().transpose();
    let ends = |sign: f64| -> Result<Vec<End>> {
        let reads = most_along(svd.U.as_ref().subcols(0, n), reads, sign)?;
        let writes = most_along(svd.V.as_ref().subcols(0, n), right, sign)?;
        let both = reads.into_iter().zip(writes);
        Ok(both.map(|(reads, writes)| End { reads, writes }).collect())
    };
    let (plus, minus) = (ends(1.0)?, ends(-1.0)?);
    let tokens = Ends {
        words,
        logits_are_tokens: c.d_vocab_out == c.d_vocab || args.circuit == Which::Qk,
    };
    let list = |end: &[(usize, f64)], word: &dyn Fn(usize) -> Option<String>| -> Value {
        let all = end.iter();
        all.map(|&(i, x)| json!({"index": i, "word": word(i), "value": x}))
            .collect()
    };
    let word = |i: usize| words.exact(i);
    let logit = |i: usize| words.exact(i).filter(|_| tokens.logits_are_tokens);
    let end =
        |end: &End| json!({"reads": list(&end.reads, &word), "writes": list(&end.writes, &logit)});
    let both = |i: usize| {
        json!({
            "singular_value": svd.S[i].to_f64(),
            "ends": [end(&plus[i]), end(&minus[i])],
        })
    };
    let result = json!({
        "model": args.model.model,
        "dtype": T::PRECISION.to_string(),
        "head": head,
        "circuit": match args.circuit { Which::Ov => "W_OV", Which::Qk => "W_QK" },
        "distance": c.rotary().then_some(args.distance),
        "singular_values": numbers(&svd.S),
        "directions": (0..n).map(both).collect::<Vec<_>>(),
    });
    report(common, &result, || {
        let header = match args.circuit {
            Which::Ov => ["singular value", "tokens attended to", "logits written"],
            Which::Qk => ["singular value", "tokens of the query", "tokens of the key"],
        };
        let mut t = table(header);
        let line = |end: &[(usize, f64)], shown: &dyn Fn(usize) -> String| {
            let all: Vec<String> = end.iter().map(|&(i, _)| shown(i)).collect();
            all.join(" ")
        };
        for i in 0..n {
            for (end, first) in [(&plus[i], true), (&minus[i], false)] {
                t.add_row([
                    if first {
                        format!("{:.4}", svd.S[i].to_f64())
                    } else {
                        String::new()
                    },
                    line(&end.reads, &|i| words.shown(i)),
                    line(&end.writes, &|i| tokens.logit(i)),
                ]);
            }
        }
        let which = match (args.circuit, c.rotary()) {
            (Which::Ov, _) => format!("W_OV of head {head}\n\n"),
            (Which::Qk, false) => format!("W_QK of head {head}\n\n"),
            (Which::Qk, true) => {
                format!("W_QK of head {head} {}\n\n", Distance::At(args.distance))
            }
        };
        format!("{which}{}", text(&t))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Of each direction, `[d_model, direction]`, what of `all: [d_model, n]` is furthest along it at that sign.
pub(super) fn most_along<T: Scalar>(
    directions: MatRef<'_, T>,
    all: MatRef<'_, T>,
    sign: f64,
) -> Result<Vec<Vec<(usize, f64)>>> {
    let signed = directions.transpose() * faer::Scale(T::from_f64(sign));
    let top = top_k_of_product(signed.as_ref(), all, TOKENS, Par::Rayon)?;
    let row = |i: usize| top.row(i).map(|(j, x)| (j, x.to_f64())).collect();
    Ok((0..signed.nrows()).map(row).collect())
}
