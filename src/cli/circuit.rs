//! `pathsum circuit`: how much of a behaviour some edges carry.

use super::args::{Common, ModelArg};
use super::edges::{EdgeFile, TaskArgs, read_json};
use super::output::{progress, report, table, text};
use anyhow::{Context, Result, bail};
use pathsum::edges::{
    Ablation, Edges, FaithfulnessCurve, SHARES, ScoreOrder, Scored, faithfulness,
};
use pathsum::tensor::write_file;
use pathsum::{Precision, Scalar};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

/// Run a circuit: the edges inside carry what the model computes, all others something else
///
/// EDGES is a circuit file as `edges` and the Mechanistic Interpretability Benchmark write it; the circuit is the edges
/// that it has in the graph, or with --top those of the largest scores. Faithfulness is the share of what the model does
/// more than an empty circuit that the circuit does; completeness that of what is left when the circuit is taken out, 0
/// where it is complete. --curve gives the benchmark's CPR and CMD. Scores of `edges` are effects of corruption: of a
/// metric that is to be large the edges that are needed most have the smallest, of a loss the largest.
#[derive(clap::Args)]
#[command(
    group = clap::ArgGroup::new("chosen_by_scores").args(["top", "curve"]),
    after_help = "Examples:\n  pathsum circuit model/ e.json --clean a.safetensors --corrupt b.safetensors --metric kl --top 9\n  pathsum circuit model/ e.json --clean a.safetensors --corrupt b.safetensors --metric kl --curve"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    /// A circuit file
    #[arg(value_name = "EDGES")]
    edges: PathBuf,
    #[command(flatten)]
    task: TaskArgs,
    /// What edges outside carry
    #[arg(long, value_enum, default_value = "corrupt")]
    ablate: AblateArg,
    /// The circuit is so many edges by their scores, less those on no way from the embeddings to the logits
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// Choose edges one by one from the logits back
    #[arg(long, requires = "chosen_by_scores")]
    greedy: bool,
    /// By what scores are put in order
    #[arg(long, value_enum, default_value = "absolute")]
    order: OrderArg,
    /// Faithfulness by size, at the benchmark's shares of all edges
    #[arg(long, conflicts_with = "top")]
    curve: bool,
    /// Prune the circuit: an edge stays out whose leaving changes the metric by less than this
    #[arg(long, value_name = "CHANGE", conflicts_with = "curve")]
    prune: Option<f64>,
    /// What the metric changes by when each edge alone leaves the circuit
    #[arg(long, conflicts_with = "curve")]
    minimality: bool,
    /// The circuit file to write
    #[arg(long, value_name = "FILE", conflicts_with = "curve")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum AblateArg {
    /// What the sender writes in the corrupted run
    Corrupt,
    /// The mean over the clean sequences of what it writes
    Mean,
    /// Nothing
    Zero,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum OrderArg {
    /// The largest first, whatever their sign
    Absolute,
    /// The largest first, negative ones last
    Largest,
    /// The smallest first, positive ones last
    Smallest,
}

/// What is told of a circuit.
#[derive(Serialize)]
struct Told {
    metric: String,
    ablation: Ablation,
    /// The metric of the whole model, and of an empty circuit.
    whole: f64,
    empty: f64,
    all_edges: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    circuit: Option<Circuit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    curve: Option<Points>,
}

#[derive(Serialize)]
struct Circuit {
    edges: usize,
    metric: f64,
    faithfulness: f64,
    /// The metric without the circuit, and its share.
    without: f64,
    completeness: f64,
    /// By edge, what the metric changes by when it leaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    needed: Option<Vec<(String, f64)>>,
}

#[derive(Serialize)]
struct Points {
    /// Share of all edges, edges inside, faithfulness.
    points: Vec<(f64, usize, f64)>,
    cpr: f64,
    cmd: f64,
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    match common.dtype() {
        Precision::F32 => circuit::<f32>(args, common),
        Precision::F64 => circuit::<f64>(args, common),
    }
}

fn circuit<T: Scalar>(args: &Args, common: &Common) -> Result<ExitCode> {
    let model = args.model.load::<T>()?;
    let task = args.task.read(common, &args.model, &model)?;
    let edges = Edges::new(
        &model,
        &task.clean,
        &task.corrupt,
        &task.answers,
        &*task.metric,
    )?;
    let json = read_json(&args.edges)?;
    let edges = edges.neurons(&Scored::layers_of_neurons(&json))?;
    let graph = edges.graph();
    let name = || args.edges.display().to_string();
    let scored = Scored::from_json(&json, graph, model.config()).with_context(name)?;
    if EdgeFile::is(&json) && EdgeFile::of(json)?.found.work.is_some() {
        bail!(
            "{}: the work there is not done: `edges --resume` goes on with it",
            name()
        );
    }
    let ablation = match args.ablate {
        AblateArg::Corrupt => Ablation::Corrupt,
        AblateArg::Mean => Ablation::Mean,
        AblateArg::Zero => Ablation::Zero,
    };
    let order = match args.order {
        OrderArg::Absolute => ScoreOrder::Absolute,
        OrderArg::Largest => ScoreOrder::Largest,
        OrderArg::Smallest => ScoreOrder::Smallest,
    };
    let by_scores = |n: usize| -> Result<Vec<bool>> {
        if n > graph.len() {
            bail!("--top {n}: this model has {} edges", graph.len());
        }
        let scores: Option<Vec<f64>> = scored.scores.iter().copied().collect();
        let Some(scores) = scores else {
            bail!("{}: not every edge has a score", name());
        };
        Ok(match args.greedy {
            true => graph.greedy(&scores, n, order),
            false => graph.top(&scores, n, order),
        })
    };
    let n = graph.len();
    let whole = edges.circuit(&vec![true; n], ablation)?;
    let empty = edges.circuit(&vec![false; n], ablation)?;
    let mut told = Told {
        metric: task.request.metric.clone(),
        ablation,
        whole,
        empty,
        all_edges: n,
        circuit: None,
        curve: None,
    };
    if args.curve {
        let bar = progress(common, "circuits", SHARES.len());
        let mut points = Vec::new();
        for share in SHARES {
            let inside = by_scores((share * n as f64) as usize)?;
            let found = edges.circuit(&inside, ablation)?;
            let size = inside.iter().filter(|&&inside| inside).count();
            points.push((share, size, faithfulness(found, empty, whole)));
            bar.inc(1);
        }
        bar.finish_and_clear();
        let faithfulness: Vec<f64> = points.iter().map(|p| p.2).collect();
        let curve = FaithfulnessCurve::new(&SHARES, &faithfulness)?;
        told.curve = Some(Points {
            points,
            cpr: curve.cpr(),
            cmd: curve.cmd(),
        });
    } else {
        let mut inside = match args.top {
            Some(n) => by_scores(n)?,
            None => scored.inside.clone(),
        };
        let size = |inside: &[bool]| inside.iter().filter(|&&inside| inside).count();
        if size(&inside) == 0 {
            bail!(
                "{}: no edge is in the circuit: --top N takes the first N by their scores",
                name()
            );
        }
        if let Some(threshold) = args.prune {
            let bar = progress(common, "pruning", size(&inside));
            inside = edges.pruned(&inside, ablation, threshold, &|n| bar.inc(n as u64))?;
            bar.finish_and_clear();
        }
        let found = edges.circuit(&inside, ablation)?;
        let outside: Vec<bool> = inside.iter().map(|inside| !inside).collect();
        let without = edges.circuit(&outside, ablation)?;
        let needed = match args.minimality {
            false => None,
            true => {
                let bar = progress(common, "leaving out", size(&inside));
                let needed = edges.needed(&inside, ablation, &|n| bar.inc(n as u64))?;
                bar.finish_and_clear();
                let named = graph.edges().zip(needed);
                let named = named.filter_map(|(edge, change)| Some((edge.to_string(), change?)));
                Some(named.collect())
            }
        };
        told.circuit = Some(Circuit {
            edges: size(&inside),
            metric: found,
            faithfulness: faithfulness(found, empty, whole),
            without,
            completeness: faithfulness(without, empty, whole),
            needed,
        });
        if let Some(out) = &args.out {
            let circuit = Scored {
                scores: scored.scores,
                inside,
            };
            let json = circuit.to_json(graph, model.config());
            write_file(out, format!("{json}\n").as_bytes())?;
        }
    }
    report(common, &told, || told.text(args.out.as_deref()))?;
    Ok(ExitCode::SUCCESS)
}

impl Told {
    fn text(&self, out: Option<&std::path::Path>) -> String {
        let ablation = match self.ablation {
            Ablation::Corrupt => "what the corrupted run has",
            Ablation::Mean => "the mean over the clean sequences",
            Ablation::Zero => "zero",
        };
        let mut said = format!(
            "{}: {:.4} of the whole model, {:.4} of an empty circuit; edges outside carry {ablation}\n",
            self.metric, self.whole, self.empty
        );
        if let Some(c) = &self.circuit {
            said += &format!(
                "\n{} of {} edges: {:.4}, faithfulness {:.4}\nwithout them: {:.4}, completeness {:.4}\n",
                c.edges, self.all_edges, c.metric, c.faithfulness, c.without, c.completeness
            );
            if let Some(needed) = &c.needed {
                let mut needed = needed.clone();
                needed.sort_by(|a, b| a.1.abs().total_cmp(&b.1.abs()));
                let mut t = table(["edge", "change without it"]);
                for (edge, change) in &needed {
                    t.add_row([edge.clone(), format!("{change:+.4}")]);
                }
                said += &format!("\n{}", text(&t));
            }
        }
        if let Some(curve) = &self.curve {
            let mut t = table(["share", "edges", "faithfulness"]);
            for (share, edges, f) in &curve.points {
                t.add_row([share.to_string(), edges.to_string(), format!("{f:.4}")]);
            }
            said += &format!(
                "\n{}\nCPR {:.4}, CMD {:.4}\n",
                text(&t),
                curve.cpr,
                curve.cmd
            );
        }
        if let Some(out) = out {
            said += &format!("\nwrote {}\n", out.display());
        }
        said
    }
}
