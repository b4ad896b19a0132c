//! `pathsum certify`: how good a model is on every input there is.

mod merge;
mod show;
mod ways;

pub use merge::merge;

use super::args::{Common, ModelArg};
use super::batch::task_of;
use super::output::{progress, report};
use super::sweep::Shard;
use anyhow::{Result, anyhow, bail};
use pathsum::Model;
use pathsum::certify::sets::Problem;
use pathsum::certify::{Certificate, Checked, Claim, InputSpace, OneLayer, Restriction, check};
use pathsum::task::{BuiltIn, Task};
use serde_json::json;
use show::counts_text;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Prove how many of all inputs of a task a model answers rightly, and how many wrongly
///
/// What is proved is said of the real-valued function that the weights define, with all rounding accounted for. A small
/// space is walked through; of a large one, of lists whose answers are values of given ranks, sets of inputs are divided
/// until a bound decides them; of another that is too large, counterexamples are looked for. --check reads a certificate
/// that --out wrote, proves it anew by another way without searching, and exits with 1 where it does not hold. Shards, and
/// runs of sets that were stopped, are put together by `pathsum merge`. docs/certificates.md says what a certificate says.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pathsum certify fixture:max_of_k --space tokens=0-9\n  pathsum certify fixture:brackets --space length=0-6\n  pathsum certify fixture:sorted_list --space tokens=0-12 --cutoff 1e-3 --out cert --report a.html\n  pathsum certify --check cert fixture:sorted_list"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    /// The task (the one that the model's vocabulary fits unless given)
    #[arg(long, value_name = "TASK")]
    task: Option<BuiltIn>,
    /// Which of its inputs, as `tokens=0-9; length=2-8; mirrored; broken=1` (all unless given)
    #[arg(long, value_name = "SPEC", default_value = "")]
    space: String,
    /// By how much the right logit must be the largest
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = margin)]
    margin: f64,
    /// Sets of a smaller share of the space are not divided (1e-7 unless given)
    #[arg(long, value_name = "SHARE", value_parser = share)]
    cutoff: Option<f64>,
    /// Stop after so many seconds; what is proved by then is kept
    #[arg(long, value_name = "SECONDS")]
    time: Option<u64>,
    /// The certificate to write; of sets anew each time that the cutoff has been lowered tenfold, of a walk every five
    /// seconds
    #[arg(long, value_name = "CERT")]
    out: Option<PathBuf>,
    /// Go on from what --out holds, once it is checked
    #[arg(long, requires = "out")]
    resume: bool,
    /// Do only the I-th of N parts of the sets, or of the inputs that are walked through, I from 1: `pathsum merge` puts
    /// their certificates together
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// A page of what is proved to write: by position and right answer, against time, where the proof is thin, what is wrong
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Check this certificate instead
    #[arg(long, value_name = "CERT", conflicts_with_all = ["out", "resume", "shard", "space", "margin", "time", "cutoff", "report"])]
    check: Option<PathBuf>,
}

fn margin(s: &str) -> Result<f64, String> {
    let x = s.parse().ok().filter(|x: &f64| x.is_finite() && *x >= 0.0);
    x.ok_or_else(|| "expected a number of at least 0".into())
}

fn share(s: &str) -> Result<f64, String> {
    let x = s.parse().ok().filter(|x| (0.0..=1.0).contains(x));
    x.ok_or_else(|| "expected a share, from 0 to 1".into())
}

/// A model, and the inputs that it is asked.
struct Asked {
    model: Model<f64>,
    task: Box<dyn Task>,
    space: InputSpace,
}

impl Asked {
    fn new(model: &ModelArg, task: Option<BuiltIn>, spec: &str) -> Result<Asked> {
        let model = model.load::<f64>()?;
        let fitting = || {
            task_of(model.config())
                .ok_or_else(|| anyhow!("the model fits no task, expected --task TASK"))
        };
        let task = task.map_or_else(fitting, |task| Ok(task.sized(model.config())))?;
        task.check_model(model.config())?;
        let all = task.space().ok_or_else(|| {
            anyhow!(
                "{}: its inputs are no space that could be counted",
                task.name()
            )
        })?;
        let space = all.restricted(&Restriction::parse(spec, task.vocabulary())?)?;
        Ok(Asked { model, task, space })
    }
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    if let Some(path) = &args.check {
        return run_check(args, common, path);
    }
    let asked = Asked::new(&args.model, args.task, &args.space)?;
    let claim = Claim {
        task: asked.task.name(),
        space: args.space.clone(),
        margin: args.margin,
    };
    let started = Instant::now();
    let way = Way::of(&asked);
    let cutoff = (args.cutoff.is_some(), "--cutoff");
    let shard = (args.shard.is_some(), "--shard");
    let (what, refused) = match way {
        Way::Sets(_) => ("", vec![]),
        Way::Walk => ("are gone through one by one", vec![cutoff]),
        Way::Seek => (
            "are too many to prove anything of all of them",
            vec![cutoff, shard, (args.resume, "--resume")],
        ),
    };
    if let Some((_, name)) = refused.into_iter().find(|(given, _)| *given) {
        bail!("{name}: these inputs are not divided into sets, but {what}; expected none");
    }
    let mut findings = match way {
        Way::Walk => ways::by_walk(args, common, &asked, claim)?,
        Way::Sets(tables) => ways::by_sets(args, common, &asked, &tables, claim)?,
        Way::Seek => ways::by_seek(args, common, &asked, claim)?,
    };
    findings.seconds = started.elapsed().as_secs_f64();
    if let Some(path) = &args.report {
        findings.write_page(&args.model.model, &asked, path)?;
    }
    findings.show(common, &args.model.model, &asked)?;
    Ok(ExitCode::SUCCESS)
}

/// Spaces of up to so many inputs are walked whatever else could be done.
const ENUMERABLE: u128 = 1 << 21;

/// The same of a layer of one head, which takes some ten nanoseconds an input.
const ENUMERABLE_BY_TABLES: u128 = 1 << 31;

/// Spaces of up to so many inputs are walked where nothing else can be done: an hour or two on two cores, of a model of three
/// layers, which takes some forty microseconds of a processor an input. In larger ones counterexamples are looked for.
const WALKABLE: u128 = 1 << 28;

/// What is done with a space.
enum Way {
    Walk,
    Sets(Box<OneLayer>),
    /// It is too large, and of another kind than sets are: counterexamples can be looked for.
    Seek,
}

impl Way {
    fn of(asked: &Asked) -> Way {
        let (size, config) = (asked.space.size(), asked.model.config());
        let by_tables = OneLayer::covers(config).is_ok() && config.n_heads == 1;
        let most = if by_tables {
            ENUMERABLE_BY_TABLES
        } else {
            ENUMERABLE
        };
        if size <= most {
            return Way::Walk;
        }
        if let Ok(tables) = OneLayer::new(&asked.model, asked.space.positions())
            && Problem::all(asked.task.as_ref(), &asked.space, tables.causal).is_ok()
        {
            return Way::Sets(Box::new(tables));
        }
        if size <= WALKABLE {
            Way::Walk
        } else {
            Way::Seek
        }
    }
}

/// What the checker finds, behind a bar.
fn checked(common: &Common, certificate: &Certificate, asked: &Asked) -> Result<Checked> {
    let bar = progress(common, "checking", 1);
    let found = check(certificate, &asked.model, asked.task.as_ref())?;
    bar.finish_and_clear();
    Ok(found)
}

fn run_check(args: &Args, common: &Common, path: &Path) -> Result<ExitCode> {
    let certificate = Certificate::open(path)?;
    let header = &certificate.header;
    let named = || header.claim.task.parse().ok();
    let own = Asked::new(&args.model, args.task.or_else(named), "")?;
    let checked = checked(common, &certificate, &own)?;
    let (accepted, reason, certified) = match checked {
        Checked::Accepted(certified) => (true, None, Some(certified)),
        Checked::Refused(reason) => (false, Some(reason), None),
    };
    let result = json!({
        "model": args.model.model,
        "claim": header.claim,
        "accepted": accepted,
        "reason": reason,
        "certified": certified,
    });
    report(common, &result, || match (&reason, &certified) {
        (Some(reason), _) => format!("refused: {reason}\n"),
        (None, certified) => {
            let figures = certified.as_ref().map(counts_text).unwrap_or_default();
            format!("accepted: {} inputs\n\n{figures}", header.certified.size)
        }
    })?;
    Ok(if accepted {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}
