//! `pathsum paths`: what each path adds to a logit, and what each pair of parts adds to a score.

use super::args::{Common, ModelArg};
use super::batch::SequenceArgs;
use super::direction::Direction;
use super::output::{report, table, text};
use super::words::Words;
use anyhow::{Result, bail};
use pathsum::decompose::{By, LogitPaths, Paths, Top, score_table};
use pathsum::names::NormSite;
use pathsum::{Head, Hook, Model, Par, Precision, Run, Scalar, Tokens};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Show the paths that add most to a logit, and bound all others
///
/// A path starts at something that writes to the stream and passes any heads in ascending layers; attention
/// patterns, LayerNorm scales and MLP outputs are held at the run's. Instead of the largest paths, --by shows
/// sums over all of them. With --score and --key it is a head's attention score that is taken apart, at the
/// query --position.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pathsum paths model/ --tokens dataset.safetensors --position -1 --logit 1-0 --top 5\n  pathsum paths gpt2/ --prompt \"The cat sat on the\" --position -1 --logit \" mat\" --top 5"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    sequences: SequenceArgs,
    /// The position, from 0; from the end where negative
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    position: isize,
    /// A logit, or one less another; by their numbers, or in words where the model's folder has a tokenizer
    #[arg(
        long,
        value_name = "I[-J]",
        required_unless_present = "score",
        allow_hyphen_values = true
    )]
    logit: Option<String>,
    /// How many paths, or parts of a score, to list
    #[arg(long, value_name = "K")]
    top: Option<usize>,
    /// Sums over all paths with so many heads, through each head, or from each start
    #[arg(long, value_enum, conflicts_with = "score")]
    by: Option<Group>,
    /// Sets of heads to look below before the search is given up
    #[arg(long, value_name = "N", default_value_t = 2000)]
    budget: usize,
    /// The head whose score is taken apart
    #[arg(long, value_name = "L.H", requires = "key", conflicts_with = "logit")]
    score: Option<Head>,
    /// The key's position, as --position
    #[arg(
        long,
        value_name = "P",
        requires = "score",
        allow_negative_numbers = true
    )]
    key: Option<isize>,
}

/// What the paths are summed by.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Group {
    Order,
    Head,
    Start,
}

/// How many paths are listed where nobody says.
const LISTED: usize = 10;

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    match common.dtype() {
        Precision::F32 => show::<f32>(args, common),
        Precision::F64 => show::<f64>(args, common),
    }
}

fn show<T: Scalar>(args: &Args, common: &Common) -> Result<ExitCode> {
    let model = args.model.load::<T>()?;
    let (tokens, sequence) = args
        .sequences
        .read_one(common, &args.model, model.config())?;
    let position = position(args.position, tokens.pos())?;
    let words = Words::of(&args.model)?;
    match (args.score, args.key, &args.logit) {
        (Some(head), Some(key), _) => {
            let key = self::position(key, tokens.pos())?;
            score(
                args,
                common,
                &model,
                (&tokens, sequence, &words),
                (head, position, key),
            )
        }
        (_, _, Some(logit)) => {
            let logit = Direction::parse("--logit", logit, &words, model.config())?;
            let of = (&tokens, sequence, &words);
            paths(args, common, &model, of, (position, logit))
        }
        _ => bail!("expected --logit, or --score and --key"),
    }
}

fn position(p: isize, pos: usize) -> Result<usize> {
    let from_start = match p < 0 {
        true => pos.checked_sub(p.unsigned_abs()),
        false => Some(p.unsigned_abs()).filter(|&p| p < pos),
    };
    match from_start {
        Some(p) => Ok(p),
        None => bail!(
            "position {p}: the sequence's positions are 0..={0}, or -{pos}..=-1",
            pos - 1
        ),
    }
}

fn paths<T: Scalar>(
    args: &Args,
    common: &Common,
    model: &Model<T>,
    (tokens, sequence, words): (&Tokens, usize, &Words),
    (position, direction): (usize, Direction),
) -> Result<ExitCode> {
    let hooks = Paths::<T>::hooks(model.config());
    let keep = hooks.iter().fold(Run::new(), |run, hook| run.cache(hook));
    let out = model.run(tokens, keep)?;
    let paths = Paths::new(model, &out.cache, 0, Par::Rayon)?;
    let to_logit = paths.to_logit(position, direction.logit())?;
    let found = direction.along(out.logits.slice(&[0, position]));

    let sums = args.by.map(|by| (by, sums(&to_logit, by)));
    let listed = args.top.or(args.by.is_none().then_some(LISTED));
    let top = match listed {
        Some(k) => Some(to_logit.top(k, args.budget)?),
        None => None,
    };
    let mut result = json!({
        "model": args.model.model,
        "dtype": T::PRECISION.to_string(),
        "sequence": sequence,
        "words": words.all(tokens.sequence(0)),
        "position": position,
        "logit": direction.of,
        "logit_word": words.exact(direction.of),
        "less": direction.less,
        "less_word": direction.less.and_then(|less| words.exact(less)),
        "value": found.to_f64(),
        "paths": number(paths.count()),
    });
    if let Some((_, sums)) = &sums {
        let sums = sums.iter();
        result["sums"] = sums.map(|(of, x)| json!({"of": of, "value": x})).collect();
    }
    if let Some(top) = &top {
        let certificate = &top.certificate;
        let listed = top.paths.iter();
        result["top"] = listed
            .map(|c| json!({"path": c.path, "value": c.value.to_f64()}))
            .collect();
        result["certificate"] = json!({
            "unlisted": number(certificate.unlisted),
            "together": certificate.together.to_f64(),
            "rounding": certificate.rounding.to_f64(),
            "each": certificate.each.to_f64(),
            "complete": certificate.complete,
            "expanded": certificate.expanded,
        });
    }
    report(common, &result, || {
        let mut out = format!(
            "{} at position {} of sequence {sequence}: {:.6}, the sum over {} paths\n",
            direction.shown(words),
            words.place(tokens, position),
            found.to_f64(),
            paths.count()
        );
        if let Some((by, sums)) = &sums {
            let header = match by {
                Group::Order => "heads",
                Group::Head => "through head",
                Group::Start => "from",
            };
            let mut t = table([header, "adds"]);
            for (of, x) in sums {
                t.add_row([of.clone(), format!("{x:.6}")]);
            }
            out += &format!("\n{}", text(&t));
        }
        if let Some(top) = &top {
            out += &format!("\n{}", listing(top));
        }
        out
    })?;
    Ok(ExitCode::SUCCESS)
}

/// JSON's numbers end before a `u128` does.
fn number(n: u128) -> Value {
    u64::try_from(n).map_or_else(|_| json!(n as f64), |n| json!(n))
}

fn sums<T: Scalar>(to_logit: &LogitPaths<'_, '_, T>, by: Group) -> Vec<(String, f64)> {
    match by {
        Group::Order => {
            let sums = to_logit.by_order().into_iter().enumerate();
            sums.map(|(n, x)| (n.to_string(), x.to_f64())).collect()
        }
        Group::Head => {
            let sums = to_logit.by_head().into_iter();
            sums.map(|(h, x)| (h.to_string(), x.to_f64())).collect()
        }
        Group::Start => {
            let sums = to_logit.by_start().into_iter();
            sums.map(|(s, x)| (s.to_string(), x.to_f64())).collect()
        }
    }
}

/// The largest paths, and what is said of the others.
fn listing<T: Scalar>(top: &Top<T>) -> String {
    let mut t = table(["path", "adds"]);
    for c in &top.paths {
        t.add_row([c.path.to_string(), format!("{:.6}", c.value.to_f64())]);
    }
    let certificate = &top.certificate;
    let mut out = text(&t);
    if certificate.unlisted == 0 {
        return out + "\nThese are all.\n";
    }
    out += &format!(
        "\nThe {} others together add {:.6e}, to within {:.1e}; each adds at most {:.3e}.\n",
        certificate.unlisted,
        certificate.together.to_f64(),
        certificate.rounding.to_f64(),
        certificate.each.to_f64(),
    );
    if !certificate.complete {
        out += &format!(
            "There may be larger ones than those listed: the search was given up after {} sets of heads (--budget).\n",
            certificate.expanded
        );
    }
    out
}

fn score<T: Scalar>(
    args: &Args,
    common: &Common,
    model: &Model<T>,
    (tokens, sequence, words): (&Tokens, usize, &Words),
    (head, query, key): (Head, usize, usize),
) -> Result<ExitCode> {
    let c = model.config();
    let hooks = By::Head.hooks(c);
    let mut keep = hooks.iter().fold(Run::new(), |run, hook| run.cache(hook));
    let scale = Hook::Scale(NormSite::Ln1(head.layer));
    if c.hooks().contains(&scale) {
        keep = keep.cache(scale);
    }
    let out = model.run(tokens, keep)?;
    let parts = score_table(model, &out.cache, 0, head, query, key)?;
    let sum = parts.sum().to_f64();
    let mut entries = Vec::new();
    for (i, q) in parts.query.iter().enumerate() {
        for (j, k) in parts.key.iter().enumerate() {
            entries.push((q, k, parts.values[[i, j]].to_f64()));
        }
    }
    entries.sort_by(|a, b| b.2.abs().total_cmp(&a.2.abs()));
    let all = entries.len();
    entries.truncate(args.top.unwrap_or(LISTED));
    let listed = entries.iter();
    let result = json!({
        "model": args.model.model,
        "dtype": T::PRECISION.to_string(),
        "sequence": sequence,
        "words": words.all(tokens.sequence(0)),
        "head": head.to_string(),
        "query": query,
        "key": key,
        "score": sum,
        "by_query": parts.by_query().into_iter().map(|(part, x)| json!({"part": part, "value": x.to_f64()})).collect::<Vec<_>>(),
        "by_key": parts.by_key().into_iter().map(|(part, x)| json!({"part": part, "value": x.to_f64()})).collect::<Vec<_>>(),
        "parts": all,
        "top": listed.map(|(q, k, x)| json!({"query": q, "key": k, "value": x})).collect::<Vec<_>>(),
    });
    report(common, &result, || {
        let mut t = table(["query", "key", "adds"]);
        for (q, k, x) in &entries {
            t.add_row([q.to_string(), k.to_string(), format!("{x:.6}")]);
        }
        let rest = sum - entries.iter().map(|e| e.2).sum::<f64>();
        let left = all - entries.len();
        format!(
            "score of head {head} at query {} and key {} of sequence {sequence}, before the mask: {sum:.6}\n\n{}\nThe {left} others together add {rest:.3e}.\n",
            words.place(tokens, query),
            words.place(tokens, key),
            text(&t)
        )
    })?;
    Ok(ExitCode::SUCCESS)
}
