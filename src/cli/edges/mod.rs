//! `pathsum edges`: what each edge of a model does.

mod file;
mod show;
mod task;

pub use file::{EdgeFile, read_json};
pub use task::TaskArgs;

use super::args::{Common, ModelArg};
use super::output::progress;
use super::places::Places;
use super::sweep::Shard;
use anyhow::{Result, bail};
use file::{Found, Method, Request};
use pathsum::edges::{Attribution, Edges, ExactWork, Scored};
use pathsum::{Precision, Scalar};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The effect of every edge between components: what the metric changes by when one reads another's corrupted output
///
/// An edge joins the embeddings, a head or a layer's neurons with the queries, keys or values of a later head, with later
/// neurons, or with the logits: `a0.h3->a2.h1<k>`, as the Mechanistic Interpretability Benchmark writes them; with --neurons
/// each neuron of these layers is a sender of its own, `m2.n17`. Where heads share keys and values each reads its own copy. The metric is averaged over the pairs; an effect is its change when the
/// receiver sees what the sender writes in the corrupted run. --out writes a circuit file of the benchmark, with what was
/// asked beside it; of exact effects it is written while the work goes on, and --resume goes on from there.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pathsum edges gpt2/ --clean-prompt \"The cat sat\" --corrupt-prompt \"The mat sat\" --metric kl\n  pathsum edges model/ --clean a.safetensors --corrupt b.safetensors --metric kl --out e.json"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    task: TaskArgs,
    /// Layers of which each neuron is a sender, in place of all of the layer's together: all, first, last, N, N-M, or
    /// several of these with commas
    #[arg(long, value_name = "LAYERS")]
    neurons: Option<Places>,
    /// By what effects are found
    #[arg(long, value_enum, default_value = "exact")]
    method: Method,
    /// How many points of integrated gradients
    #[arg(long, value_name = "N", default_value_t = 5)]
    steps: usize,
    /// Of exact effects, those of the I-th of N parts of the receivers only, I from 1: `pathsum merge` puts the results
    /// together
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// The circuit file to write
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Go on from what --out has of the same work
    #[arg(long, requires = "out")]
    resume: bool,
    /// A file of the exact effects, or some of them: says how these compare
    #[arg(long, value_name = "FILE")]
    beside: Option<PathBuf>,
}

/// How often the file is written while exact effects are computed.
const EVERY: Duration = Duration::from_secs(5);

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    match common.dtype() {
        Precision::F32 => edges::<f32>(args, common),
        Precision::F64 => edges::<f64>(args, common),
    }
}

fn edges<T: Scalar>(args: &Args, common: &Common) -> Result<ExitCode> {
    if args.method != Method::Exact && (args.shard.is_some() || args.resume) {
        bail!("--shard and --resume are for --method exact");
    }
    let model = args.model.load::<T>()?;
    let task = args.task.read(common, &args.model, &model)?;
    let counted = match args.method {
        Method::Exact => "edges",
        _ => "derivatives",
    };
    // How much there is to do only the edges know.
    let bar = progress(common, counted, 0);
    let advance = |n: usize| bar.inc(n as u64);
    let edges = Edges::new(
        &model,
        &task.clean,
        &task.corrupt,
        &task.answers,
        &*task.metric,
    )?;
    let neurons = match &args.neurons {
        None => Vec::new(),
        Some(layers) => layers.of("layer", model.config().n_layers)?,
    };
    let edges = edges.neurons(&neurons)?.progress(&advance);
    let graph = edges.graph();
    let (at, steps) = match (args.method, args.steps) {
        (Method::Exact, _) => (None, None),
        (Method::Eap, _) => (Some(Attribution::Eap), None),
        (Method::EapIg, steps) => (Some(Attribution::Inputs { steps }), Some(steps)),
        (Method::EapIgActivations, steps) => {
            (Some(Attribution::Activations { steps }), Some(steps))
        }
        (Method::AtpStar, _) => (Some(Attribution::AtpStar), None),
        (Method::Relp, _) => {
            let hold_patterns = true;
            (Some(Attribution::Relp { hold_patterns }), None)
        }
        (Method::RelpQk, _) => {
            let hold_patterns = false;
            (Some(Attribution::Relp { hold_patterns }), None)
        }
    };
    let [clean, corrupted] = edges.ends()?;
    let found = Found {
        request: Request {
            method: args.method,
            steps,
            neurons,
            task: task.request,
        },
        shard: args.shard,
        clean,
        corrupted,
        work: None,
    };
    let file = |work: Option<&ExactWork>, scores| {
        let found = Found {
            work: work.cloned(),
            ..found.clone()
        };
        EdgeFile::new(found, &Scored::scores(scores), graph, model.config())
    };
    let all = match at {
        Some(at) => {
            bar.set_length(edges.derivatives(at)? as u64);
            let scores = edges.attribution(at)?;
            bar.finish_and_clear();
            file(None, scores.into_iter().map(Some).collect())?
        }
        None => {
            let mut work = match args.shard.map(Shard::part) {
                None => ExactWork::new(graph),
                Some((i, n)) => ExactWork::shard(graph, i, n),
            };
            if let Some(out) = args
                .out
                .as_deref()
                .filter(|out| args.resume && out.exists())
            {
                let before = EdgeFile::open(out)?;
                if (&before.found.request, before.found.shard) != (&found.request, found.shard) {
                    bail!("--resume: {} is of another work", out.display());
                }
                match before.found.work {
                    Some(done) => work = done,
                    None => {
                        return args.finish(common, before);
                    }
                }
            }
            let pairs = edges.pairs();
            bar.set_length(work.left(graph, pairs) as u64);
            let mut written = Instant::now();
            edges.exact_on(&mut work, &mut |work| {
                let Some(out) = args.out.as_deref().filter(|_| written.elapsed() >= EVERY) else {
                    return Ok(());
                };
                written = Instant::now();
                let kept = file(Some(work), work.effects(graph, pairs)).and_then(|f| f.write(out));
                kept.map_err(|e| pathsum::Error::Experiment(format!("{e:#}")))
            })?;
            bar.finish_and_clear();
            file(None, work.effects(graph, pairs))?
        }
    };
    args.finish(common, all)
}

impl Args {
    fn finish(&self, common: &Common, found: EdgeFile) -> Result<ExitCode> {
        let beside = self.beside.as_deref().map(EdgeFile::open).transpose()?;
        found.finish(common, self.out.as_deref(), beside.as_ref())?;
        Ok(ExitCode::SUCCESS)
    }
}
