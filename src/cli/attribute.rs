//! `pathsum attribute`: direct logit attribution.

use super::args::{Common, ModelArg};
use super::batch::SequenceArgs;
use super::direction::Direction;
use super::output::{progress, report, table, text};
use super::places::Places;
use anyhow::{Result, bail};
use pathsum::decompose::{
    By, Component, Stack, direct_logit_attribution, residual_stack, source_attribution,
};
use pathsum::model::Config;
use pathsum::names::NormSite;
use pathsum::{Hook, Model, Precision, Run, Scalar, Tensor, Tokens};
use serde_json::json;
use std::process::ExitCode;

/// Show what each component of the stream adds to a logit directly
///
/// LayerNorm is linear at the run's own scale. The numbers are means over the sequences, and over the positions
/// of each; `std` is the standard deviation between sequences. They add up to the logit.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  pathsum attribute model/ --tokens dataset.safetensors --logit 1-0 --by head"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    sequences: SequenceArgs,
    /// A logit, or one less another
    #[arg(long, value_name = "I[-J]")]
    logit: Direction,
    /// Where it is read: first, last, all, N, N-M, or several with commas
    #[arg(long, value_name = "PLACES", default_value = "last")]
    at: Places,
    /// How finely the stream is cut
    #[arg(long, value_enum, default_value = "head")]
    by: Cut,
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
    let model = args.model.load::<T>()?;
    let tokens = args
        .sequences
        .read(common, &args.model, model.config())?
        .tokens;
    let positions = args.at.of("--at: position", tokens.pos())?;
    let (whole, components) = components(args, common, &model, &tokens, &positions)?;
    let listed = components.iter();
    let result = json!({
        "model": args.model.model,
        "dtype": T::PRECISION.to_string(),
        "batch": tokens.batch(),
        "at": positions,
        "logit": args.logit.of,
        "less": args.logit.less,
        "mean": whole.mean,
        "std": whole.std(),
        "components": listed
            .map(|(component, spread)| json!({"component": component, "mean": spread.mean, "std": spread.std()}))
            .collect::<Vec<_>>(),
    });
    report(common, &result, || {
        let at: Vec<String> = positions.iter().map(usize::to_string).collect();
        format!(
            "{} at position {} of {} sequences: mean {:.4}, standard deviation {}\n\n{}",
            args.logit,
            at.join(", "),
            tokens.batch(),
            whole.mean,
            deviation(&whole),
            listing(components)
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
    positions: &[usize],
) -> Result<(Welford, Vec<(String, Welford)>)> {
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
    let mut components: Vec<(String, Welford)> = Vec::new();
    for first in (0..tokens.batch()).step_by(piece) {
        let tokens = tokens.slice(first, piece.min(tokens.batch() - first));
        let run = keep.iter().fold(Run::new(), |run, &hook| run.cache(hook));
        let out = model.run(&tokens, run)?;
        let stack = residual_stack(model, &out.cache, config.end_of_stream(), by)?;
        let parts = direct_logit_attribution(model, &out.cache, stack, &[args.logit.logit()])?;
        let parts = Attributed {
            sources: match args.by {
                Cut::Source => (0..config.n_layers)
                    .map(|l| source_attribution(model, &out.cache, l, args.logit.logit()))
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
            let logit = |p: &usize| args.logit.along(out.logits.slice(&[sequence, *p])).to_f64();
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

/// What a piece of the batch's components add to the logit.
struct Attributed<T: Scalar> {
    whole: Stack<T>,
    /// For each layer what its heads add by source, where they are cut so.
    sources: Vec<Tensor<T>>,
}

impl<T: Scalar> Attributed<T> {
    fn labels(&self) -> Vec<String> {
        let of = |label: &Component| match (label, self.sources.first()) {
            (Component::Head(_), Some(source)) => (0..source.shape()[3])
                .map(|from| format!("{label} from {from}"))
                .collect(),
            _ => vec![label.to_string()],
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
fn listing(mut components: Vec<(String, Welford)>) -> String {
    components.sort_by(|a, b| b.1.mean.abs().total_cmp(&a.1.mean.abs()));
    let rest = components.split_off(components.len().min(MAX_ROWS));
    let mut t = table(["component", "adds", "std"]);
    for (component, spread) in &components {
        t.add_row([
            component.clone(),
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
