//! `pathsum paths`: what each path adds to a logit, or to an attention score.

use super::args::{Common, ModelArg};
use super::batch::SequenceArgs;
use super::direction::Direction;
use super::output::{report, table, text};
use super::places::position;
use super::words::Words;
use anyhow::{Result, bail};
use pathsum::decompose::{
    By, LogitPaths, Paths, Score, ScoreParts, Side, Top, Unlisted, score_parts,
};
use pathsum::model::Config;
use pathsum::{Cache, Head, Hook, Model, Par, Precision, Run, Scalar, Tokens};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Show the paths that add most to a logit, and bound all others
///
/// A path starts at something that writes to the stream and passes any heads in ascending layers; attention
/// patterns, LayerNorm scales and MLP outputs are held at the run's. With --through-neurons paths pass the MLPs as well, whose
/// neurons' gates are held instead of what they write. Instead of the largest paths, --by shows sums over all of them. With --score and --key they are the paths to a head's attention score at the query
/// --position: those into its query, with the key held at the run's, and those into its key. All is computed in f64
/// from the run's own values, whatever its precision.
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
    /// How many paths to list
    #[arg(long, value_name = "K")]
    top: Option<usize>,
    /// Sums over all paths that pass so many heads, through each head, or from each start
    #[arg(long, value_enum)]
    by: Option<Group>,
    /// Let paths pass the MLPs, with each neuron's gate held at the run's
    #[arg(long)]
    through_neurons: bool,
    /// Sets of heads to look below before the search is given up
    #[arg(long, value_name = "N", default_value_t = 2000)]
    budget: usize,
    /// The head to whose score the paths lead
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

impl Args {
    /// What a run must keep.
    fn hooks(&self, c: &Config) -> Vec<Hook> {
        match self.through_neurons {
            false => Paths::<f64>::hooks(c),
            true => Paths::<f64>::hooks_through_neurons(c),
        }
    }

    /// The paths of a run, in f64 whatever its precision: its values are taken as they are.
    fn paths<'a, T: Scalar>(
        &self,
        model: &'a Model<T>,
        cache: &'a Cache<T>,
    ) -> pathsum::Result<Paths<'a, f64>> {
        match self.through_neurons {
            false => Paths::new(model, cache, 0, Par::Rayon),
            true => Paths::through_neurons(model, cache, 0, Par::Rayon),
        }
    }
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
            let to = Score {
                head,
                query: position,
                key,
            };
            score(args, common, &model, (&tokens, sequence, &words), to)
        }
        (_, _, Some(logit)) => {
            let logit = Direction::parse("--logit", logit, &words, model.config())?;
            let of = (&tokens, sequence, &words);
            paths(args, common, &model, of, (position, logit))
        }
        _ => bail!("expected --logit, or --score and --key"),
    }
}

fn paths<T: Scalar>(
    args: &Args,
    common: &Common,
    model: &Model<T>,
    (tokens, sequence, words): (&Tokens, usize, &Words),
    (position, direction): (usize, Direction),
) -> Result<ExitCode> {
    let hooks = args.hooks(model.config());
    let keep = hooks.iter().fold(Run::new(), |run, hook| run.cache(hook));
    let out = model.run(tokens, keep)?;
    let paths = args.paths(model, &out.cache)?;
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
        "paths": number(to_logit.count()),
    });
    if let Some((_, sums)) = &sums {
        result["sums"] = sums_json(sums);
    }
    if let Some(top) = &top {
        result["top"] = top_json(top);
        result["unlisted"] = unlisted_json(&top.unlisted);
    }
    report(common, &result, || {
        let mut out = format!(
            "{} at position {} of sequence {sequence}: {:.6}, the sum over {} paths\n",
            direction.shown(words),
            words.place(tokens, position),
            found.to_f64(),
            counted(to_logit.count())
        );
        if let Some((by, sums)) = &sums {
            out += &format!("\n{}", sums_text(*by, sums));
        }
        if let Some(top) = &top {
            out += &format!("\n{}", listing(top));
        }
        out
    })?;
    Ok(ExitCode::SUCCESS)
}

fn sums_json(sums: &[(String, f64)]) -> Value {
    let sums = sums.iter();
    sums.map(|(of, x)| json!({"of": of, "value": x})).collect()
}

fn top_json(top: &Top<f64>) -> Value {
    let listed = top.paths.iter();
    listed
        .map(|c| json!({"path": c.path, "value": c.value}))
        .collect()
}

fn unlisted_json(unlisted: &Unlisted<f64>) -> Value {
    json!({
        "count": number(unlisted.count),
        "together": unlisted.together,
        "rounding": unlisted.rounding,
        "each": unlisted.each,
        "complete": unlisted.complete,
        "expanded": unlisted.expanded,
    })
}

fn sums_text(by: Group, sums: &[(String, f64)]) -> String {
    let header = match by {
        Group::Order => "passed",
        Group::Head => "through",
        Group::Start => "from",
    };
    let mut t = table([header, "adds"]);
    for (of, x) in sums {
        t.add_row([of.clone(), format!("{x:.6}")]);
    }
    text(&t)
}

/// So many paths; a count ends with the largest `u128`.
fn counted(n: u128) -> String {
    match n {
        u128::MAX => format!("{:.1e} or more", n as f64),
        n => n.to_string(),
    }
}

/// JSON's numbers end before a `u128` does.
fn number(n: u128) -> Value {
    u64::try_from(n).map_or_else(|_| json!(n as f64), |n| json!(n))
}

fn sums(to_logit: &LogitPaths<'_, '_, f64>, by: Group) -> Vec<(String, f64)> {
    match by {
        Group::Order => {
            let sums = to_logit.by_order().into_iter().enumerate();
            sums.map(|(n, x)| (n.to_string(), x)).collect()
        }
        Group::Head => {
            let sums = to_logit.by_station().into_iter();
            sums.map(|(s, x)| (s.to_string(), x)).collect()
        }
        Group::Start => {
            let sums = to_logit.by_start().into_iter();
            sums.map(|(s, x)| (s.to_string(), x)).collect()
        }
    }
}

/// The largest paths, and what is said of the others.
fn listing(top: &Top<f64>) -> String {
    let mut t = table(["path", "adds"]);
    for c in &top.paths {
        t.add_row([c.path.to_string(), format!("{:.6}", c.value)]);
    }
    let unlisted = &top.unlisted;
    let mut out = text(&t);
    if unlisted.count == 0 {
        return out + "\nThese are all.\n";
    }
    out += &format!(
        "\nThe {} others together add {:.6e}, to within {:.1e}; each adds at most {:.3e}.\n",
        counted(unlisted.count),
        unlisted.together,
        unlisted.rounding,
        unlisted.each,
    );
    if !unlisted.complete {
        out += &format!(
            "There may be larger ones than those listed: the search was given up after {} sets of heads (--budget).\n",
            unlisted.expanded
        );
    }
    out
}

fn score<T: Scalar>(
    args: &Args,
    common: &Common,
    model: &Model<T>,
    (tokens, sequence, words): (&Tokens, usize, &Words),
    score: Score,
) -> Result<ExitCode> {
    let c = model.config();
    let Score { head, query, key } = score;
    let hooks = args.hooks(c).into_iter();
    let hooks = hooks.chain(ScoreParts::hooks(c, head, By::Layer)?);
    let keep = hooks.fold(Run::new(), |run, hook| run.cache(hook));
    let out = model.run(tokens, keep)?;
    let paths = args.paths(model, &out.cache)?;
    let listed = args.top.or(args.by.is_none().then_some(LISTED));
    let mut found = Vec::new();
    for (name, side) in [("query", Side::Query), ("key", Side::Key)] {
        let to_score = paths.to_score((model, &out.cache, 0), score, side)?;
        let top = match listed {
            Some(k) => Some(to_score.top(k, args.budget)?),
            None => None,
        };
        let total = to_score.total();
        found.push((
            name,
            to_score.count(),
            total,
            args.by.map(|by| (by, sums(&to_score, by))),
            top,
        ));
    }
    let parts = score_parts(model, &out.cache, 0, score, By::Layer)?;
    let mut result = json!({
        "model": args.model.model,
        "dtype": T::PRECISION.to_string(),
        "sequence": sequence,
        "words": words.all(tokens.sequence(0)),
        "head": head.to_string(),
        "query": query,
        "key": key,
        "score": parts.run,
        "by_position": parts.by_position,
    });
    for (name, count, total, sums, top) in &found {
        result[format!("{name}_side")] = json!({
            "paths": number(*count),
            "total": total.value,
            "rounding": total.rounding,
            "sums": sums.as_ref().map(|(_, sums)| sums_json(sums)),
            "top": top.as_ref().map(top_json),
            "unlisted": top.as_ref().map(|top| unlisted_json(&top.unlisted)),
        });
    }
    report(common, &result, || {
        let mut out = format!(
            "score of head {head} at query {} and key {} of sequence {sequence}, before cap and mask: {:.6}\n",
            words.place(tokens, query),
            words.place(tokens, key),
            parts.run
        );
        if parts.by_position != 0.0 {
            out += &format!(
                "The key's position adds {:+.6} by itself.\n",
                parts.by_position
            );
        }
        for (name, count, total, sums, top) in &found {
            out += &format!(
                "\nInto the {name}, the other held at the run's: {} paths, {:.6} to within {:.1e}\n",
                counted(*count),
                total.value,
                total.rounding
            );
            if let Some((by, sums)) = sums {
                out += &format!("\n{}", sums_text(*by, sums));
            }
            if let Some(top) = top {
                out += &format!("\n{}", listing(top));
            }
        }
        out
    })?;
    Ok(ExitCode::SUCCESS)
}
