//! `pathsum attribute`: direct logit attribution, and what a score is made of.

mod score;

use super::args::{Common, ModelArg};
use super::batch::SequenceArgs;
use super::direction::Direction;
use super::output::{progress, report, sequences, table, text};
use super::places::Places;
use super::words::{Words, placed};
use anyhow::{Result, bail};
use pathsum::decompose::{
    By, Component, Stack, direct_logit_attribution, residual_stack, source_attribution,
};
use pathsum::model::Config;
use pathsum::names::NormSite;
use pathsum::{Head, Hook, Model, Precision, Run, Scalar, Tensor, Tokens};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Show what each component of the stream adds to a logit directly, or each pair of them to an attention score
///
/// LayerNorm is linear at the run's own scale. The numbers are means over the sequences, and over the positions
/// of each; `std` is the standard deviation between sequences. They add up to the logit. With --score it is a
/// head's attention score that is taken apart: the table of what the query is made of by what the key is made of,
/// through the norms at the run's scales and the rotation; in f64 whatever the precision of the run.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pathsum attribute gpt2/ --prompt \"The capital of France is\" --logit \" of- time\"\n  pathsum attribute model/ --tokens dataset.safetensors --logit 1-0 --by head\n  pathsum attribute gpt2/ --prompt \"The cat sat on the mat\" --score 1.0 --query -1 --key 1"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    sequences: SequenceArgs,
    /// A logit, or one less another; by their numbers, or in words where the model's folder has a tokenizer
    #[arg(
        long,
        value_name = "I[-J]",
        required_unless_present = "score",
        allow_hyphen_values = true
    )]
    logit: Option<String>,
    /// Where it is read: first, last, all, N, N-M, or several with commas
    #[arg(long, value_name = "PLACES", default_value = "last")]
    at: Places,
    /// How finely the stream is cut
    #[arg(long, value_enum, default_value = "head")]
    by: Cut,
    /// The head whose attention score is taken apart
    #[arg(long, value_name = "L.H", requires_all = ["query", "key"], conflicts_with_all = ["logit", "at"])]
    score: Option<Head>,
    /// The query's position, from 0; from the end where negative
    #[arg(
        long,
        value_name = "P",
        requires = "score",
        allow_negative_numbers = true
    )]
    query: Option<isize>,
    /// The key's position, likewise
    #[arg(
        long,
        value_name = "P",
        requires = "score",
        allow_negative_numbers = true
    )]
    key: Option<isize>,
    /// How many pairs to list
    #[arg(long, value_name = "K", requires = "score")]
    top: Option<usize>,
    /// The safetensors file to write: `value`, [part of the query, part of the key]
    #[arg(long, value_name = "FILE", requires = "score")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Cut {
    /// Embeddings, attention layers, MLPs
    Component,
    /// Each head on its own
    Head,
    /// Each head and each neuron on its own
    Neuron,
    /// Each head from each position that it attends to
    Source,
}

impl Cut {
    fn by(self) -> By {
        match self {
            Cut::Component => By::Layer,
            Cut::Head | Cut::Source => By::Head,
            Cut::Neuron => By::Neuron,
        }
    }
}

/// With more components than this the table has the largest.
const MAX_ROWS: usize = 30;

/// How much memory the components of a piece of the batch may take, in bytes.
const MEMORY: usize = 1 << 28;

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    match common.dtype() {
        Precision::F32 => attribute::<f32>(args, common),
        Precision::F64 => attribute::<f64>(args, common),
    }
}

fn attribute<T: Scalar>(args: &Args, common: &Common) -> Result<ExitCode> {
    match (args.score, args.query, args.key, &args.logit) {
        (Some(head), Some(query), Some(key), _) => {
            score::attribute::<T>(args, common, (head, query, key))
        }
        (_, _, _, Some(logit)) => to_logit::<T>(args, common, logit),
        _ => bail!("expected --logit, or --score with --query and --key"),
    }
}

fn to_logit<T: Scalar>(args: &Args, common: &Common, logit: &str) -> Result<ExitCode> {
    let model = args.model.load::<T>()?;
    let tokens = args
        .sequences
        .read(common, &args.model, model.config())?
        .tokens;
    let positions = args.at.of("--at: position", tokens.pos())?;
    attended(&tokens, &positions)?;
    let words = Words::of(&args.model)?;
    let logit = Direction::parse("--logit", logit, &words, model.config())?;
    let there = words.positions(&tokens);
    let there = |p: usize| there.as_ref().and_then(|words| words[p].as_deref());
    let asked = (positions.as_slice(), logit);
    let (whole, components) = components(args, common, &model, &tokens, asked)?;
    let listed = components.iter();
    let result = json!({
        "model": args.model.model,
        "dtype": T::PRECISION.to_string(),
        "batch": tokens.batch(),
        "at": positions,
        "words": words.positions(&tokens),
        "logit": logit.of,
        "logit_word": words.exact(logit.of),
        "less": logit.less,
        "less_word": logit.less.and_then(|less| words.exact(less)),
        "mean": whole.mean,
        "std": whole.std(),
        "components": listed
            .map(|(part, spread)| json!({"component": part.label(), "mean": spread.mean, "std": spread.std()}))
            .collect::<Vec<_>>(),
    });
    report(common, &result, || {
        let at: Vec<String> = positions.iter().map(|&p| placed(p, there(p))).collect();
        format!(
            "{} at position {} of {}: mean {:.4}, standard deviation {}\n\n{}",
            logit.shown(&words),
            at.join(", "),
            sequences(tokens.batch(), ""),
            whole.mean,
            deviation(&whole),
            listing(components, &there)
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The logit itself, and each component's part of it.
fn components<T: Scalar>(
    args: &Args,
    common: &Common,
    model: &Model<T>,
    tokens: &Tokens,
    (positions, direction): (&[usize], Direction),
) -> Result<(Welford, Vec<(Part, Welford)>)> {
    let config = model.config();
    let by = args.by.by();
    if config.n_layers == 0 {
        bail!("{}: this model has no layers", args.model.model);
    }
    let mut keep = by.hooks(config);
    let last = Hook::Scale(NormSite::Final);
    keep.extend(config.hooks().contains(&last).then_some(last));
    if let Cut::Source = args.by {
        let of_layer = |l| [Hook::Pattern(l), Hook::V(l)];
        keep.extend((0..config.n_layers).flat_map(of_layer));
    }
    let each = count(config, by) * tokens.pos() * config.d_model * size_of::<T>();
    let piece = (MEMORY / each.max(1)).clamp(1, tokens.batch());
    let bar = progress(common, "running", tokens.batch());
    let mut whole = Welford::default();
    let mut components: Vec<(Part, Welford)> = Vec::new();
    for first in (0..tokens.batch()).step_by(piece) {
        let tokens = tokens.slice(first, piece.min(tokens.batch() - first));
        let run = keep.iter().fold(Run::new(), |run, &hook| run.cache(hook));
        let out = model.run(&tokens, run)?;
        let stack = residual_stack(model, &out.cache, config.end_of_stream(), by)?;
        let parts = direct_logit_attribution(model, &out.cache, stack, &[direction.logit()])?;
        let parts = Attributed {
            sources: match args.by {
                Cut::Source => (0..config.n_layers)
                    .map(|l| source_attribution(model, &out.cache, l, direction.logit()))
                    .collect::<pathsum::Result<_>>()?,
                _ => Vec::new(),
            },
            whole: parts,
        };
        if components.is_empty() {
            let labels = parts.labels().into_iter();
            components = labels.map(|label| (label, Welford::default())).collect();
        }
        for sequence in 0..tokens.batch() {
            let logit = |p: &usize| direction.along(out.logits.slice(&[sequence, *p])).to_f64();
            whole.add(positions.iter().map(logit).sum::<f64>() / positions.len() as f64);
            let values = parts.of(sequence, positions);
            for ((_, spread), value) in components.iter_mut().zip(values) {
                spread.add(value);
            }
        }
        bar.inc(tokens.batch() as u64);
    }
    bar.finish_and_clear();
    Ok((whole, components))
}

/// That all sequences have tokens there, and no pads.
fn attended(tokens: &Tokens, positions: &[usize]) -> Result<()> {
    let places = |s: usize| positions.iter().map(move |&p| (s, p));
    let mut all = (0..tokens.batch()).flat_map(places);
    match all.find(|&(s, p)| !tokens.is_attended(s, p)) {
        None => Ok(()),
        Some((s, p)) => bail!(
            "position {p} of sequence {s} is a pad, where nothing is said: expected sequences of one length, or --at with positions that all have"
        ),
    }
}

/// A component, or what of a head comes from one position.
#[derive(Clone, Copy)]
struct Part {
    component: Component,
    from: Option<usize>,
}

impl Part {
    fn label(self) -> String {
        match self.from {
            Some(from) => format!("{} from {from}", self.component),
            None => self.component.to_string(),
        }
    }
}

/// What a piece of the batch's components add to the logit.
struct Attributed<T: Scalar> {
    whole: Stack<T>,
    /// For each layer what its heads add by source, where they are cut so.
    sources: Vec<Tensor<T>>,
}

impl<T: Scalar> Attributed<T> {
    fn labels(&self) -> Vec<Part> {
        let part = |&component: &Component, from| Part { component, from };
        let of = |component: &Component| match (component, self.sources.first()) {
            (Component::Head(_), Some(source)) => (0..source.shape()[3])
                .map(|from| part(component, Some(from)))
                .collect(),
            _ => vec![part(component, None)],
        };
        self.whole.labels.iter().flat_map(of).collect()
    }

    /// A sequence's, averaged over the positions.
    fn of(&self, sequence: usize, positions: &[usize]) -> Vec<f64> {
        let mean = |of: &dyn Fn(usize) -> T| {
            let sum: f64 = positions.iter().map(|&p| of(p).to_f64()).sum();
            sum / positions.len() as f64
        };
        let mut values = Vec::new();
        for (i, label) in self.whole.labels.iter().enumerate() {
            match (label, self.sources.is_empty()) {
                (Component::Head(head), false) => {
                    let source = &self.sources[head.layer];
                    let from = 0..source.shape()[3];
                    values
                        .extend(from.map(|from| mean(&|p| source[[sequence, head.head, p, from]])));
                }
                _ => values.push(mean(&|p| self.whole.values[[i, sequence, p, 0]])),
            }
        }
        values
    }
}

/// About how many components there are.
fn count(config: &Config, by: By) -> usize {
    let of_layer = match by {
        By::Layer => 2,
        By::Head => config.n_heads + 2,
        By::Neuron => config.n_heads + config.d_mlp().unwrap_or(0) + 2,
    };
    3 + config.n_layers * of_layer
}

/// Mean and standard deviation of numbers that come one by one (Welford's recurrence).
#[derive(Clone, Copy, Default)]
struct Welford {
    n: f64,
    mean: f64,
    /// The sum of the squared deviations from the mean.
    squares: f64,
}

impl Welford {
    fn add(&mut self, x: f64) {
        self.n += 1.0;
        let before = x - self.mean;
        self.mean += before / self.n;
        self.squares += before * (x - self.mean);
    }

    /// Of the sample; none of a single number.
    fn std(&self) -> Option<f64> {
        (self.n > 1.0).then(|| (self.squares / (self.n - 1.0)).sqrt())
    }
}

fn deviation(spread: &Welford) -> String {
    spread.std().map_or("-".into(), |std| format!("{std:.4}"))
}

/// The largest first.
fn listing<'w>(
    mut components: Vec<(Part, Welford)>,
    word: &dyn Fn(usize) -> Option<&'w str>,
) -> String {
    components.sort_by(|a, b| b.1.mean.abs().total_cmp(&a.1.mean.abs()));
    let rest = components.split_off(components.len().min(MAX_ROWS));
    let mut t = table(["component", "adds", "std"]);
    for (part, spread) in &components {
        t.add_row([
            match part.from {
                Some(from) => format!("{} from {}", part.component, placed(from, word(from))),
                None => part.label(),
            },
            format!("{:+.4}", spread.mean),
            deviation(spread),
        ]);
    }
    if rest.is_empty() {
        return text(&t);
    }
    let together: f64 = rest.iter().map(|(_, spread)| spread.mean).sum();
    let n = rest.len();
    format!(
        "{}\nThe {n} others together add {together:+.4}; --json has all.\n",
        text(&t)
    )
}
