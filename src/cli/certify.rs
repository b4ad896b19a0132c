//! `pathsum certify`: how good a model is on every input there is.

use super::args::{Common, ModelArg};
use super::batch::task_of;
use super::output::{progress, report, table, text};
use anyhow::{Result, anyhow, bail};
use indicatif::ProgressBar;
use pathsum::certify::sets::{Forest, Problem, Search, Stop};
use pathsum::certify::{
    Case, Certificate, Certified, Checked, Claim, Count, Method, OneLayer, Restriction, Seek,
    Space, check, seek, walk,
};
use pathsum::study::Number;
use pathsum::task::{BuiltIn, Task};
use pathsum::{Model, Par};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Prove how many of all inputs of a task a model answers rightly, and how many wrongly
///
/// What is proved is said of the real-valued function that the weights define, with all rounding accounted for. A small
/// space is walked through; of a large one, of lists whose answers are values of given ranks, sets of inputs are divided
/// until a bound decides them; of another that is too large, counterexamples are looked for. --check reads a certificate
/// that --out wrote, proves it anew by another way without searching, and exits with 1 where it does not hold.
/// docs/certificates.md says what a certificate says.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pathsum certify fixture:max_of_k --space tokens=0-9\n  pathsum certify fixture:brackets --space length=0-6\n  pathsum certify fixture:sorted_list --space tokens=0-12 --cutoff 1e-3 --out certificate\n  pathsum certify --check certificate fixture:sorted_list"
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
    /// Stop dividing after so many seconds; what is proved by then is kept
    #[arg(long, value_name = "SECONDS")]
    time: Option<u64>,
    /// The certificate to write; of sets anew each time that the cutoff has been lowered tenfold
    #[arg(long, value_name = "CERT")]
    out: Option<PathBuf>,
    /// Go on from what --out holds
    #[arg(long, requires = "out")]
    resume: bool,
    /// Do only the I-th of N parts of the sets, counted from 1
    #[arg(long, value_name = "I/N", value_parser = shard)]
    shard: Option<(usize, usize)>,
    /// Check this certificate instead
    #[arg(long, value_name = "CERT", conflicts_with_all = ["out", "resume", "shard", "space", "margin", "time", "cutoff"])]
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

fn shard(s: &str) -> Result<(usize, usize), String> {
    let parsed = s
        .split_once('/')
        .and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    let parsed = parsed.filter(|&(i, n): &(usize, usize)| 1 <= i && i <= n);
    parsed
        .map(|(i, n)| (i - 1, n))
        .ok_or_else(|| "expected I/N, as 1/4".into())
}

/// A model, and the inputs that it is asked.
struct Asked {
    model: Model<f64>,
    task: Box<dyn Task>,
    space: Space,
}

impl Asked {
    fn new(args: &Args, task: Option<BuiltIn>, spec: &str) -> Result<Asked> {
        let model = args.model.load::<f64>()?;
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
    let asked = Asked::new(args, args.task, &args.space)?;
    let claim = Claim {
        task: asked.task.name(),
        space: args.space.clone(),
        margin: args.margin,
    };
    let started = Instant::now();
    let mut cases = Cases::default();
    let way = Way::of(&asked);
    if !matches!(way, Way::Sets(_)) {
        // Sets alone are divided.
        for (given, name) in [
            (args.cutoff.is_some(), "--cutoff"),
            (args.shard.is_some(), "--shard"),
            (args.resume, "--resume"),
        ] {
            if given {
                bail!(
                    "{name}: these inputs are not divided into sets, but gone through one by one; expected none"
                );
            }
        }
    }
    let certificate = match way {
        Way::Walk => by_walk(args, common, &asked, claim, &mut cases)?,
        Way::Sets(tables) => by_sets(args, common, &asked, &tables, claim)?,
        Way::Seek => return by_seek(args, common, &asked),
    };
    show(
        args,
        common,
        &asked,
        (&certificate, &cases),
        started.elapsed(),
    )?;
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

/// Answers that are worth showing.
#[derive(Default)]
struct Cases {
    closest: Option<Case>,
    wrong: Vec<Case>,
    open: Vec<Case>,
}

impl Cases {
    fn json(&self, task: &dyn Task) -> [(&str, Value); 3] {
        let each = |cases: &[Case]| cases.iter().map(|case| case_json(task, case)).collect();
        let closest = self.closest.as_ref().map(|case| case_json(task, case));
        [
            ("closest", json!(closest)),
            ("counterexamples", each(&self.wrong)),
            ("open", each(&self.open)),
        ]
    }

    fn text(&self, task: &dyn Task) -> String {
        let mut said = String::new();
        if let Some(case) = &self.closest {
            let margin = Number::from(case.margin.at_least());
            said += &format!(
                "right by {margin} at the least: {}\n",
                task.text(&case.sequence)
            );
        }
        for (what, cases) in [("wrong", &self.wrong), ("undecided", &self.open)] {
            if let Some(rows) = cases_table(task, cases) {
                said += &format!("{what}, the first of them:\n{rows}");
            }
        }
        said
    }
}

fn case_json(task: &dyn Task, case: &Case) -> Value {
    json!({
        "tokens": case.sequence,
        "text": task.text(&case.sequence),
        "position": case.position,
        "margin": [case.margin.at_least(), case.margin.at_most()],
    })
}

fn cases_table(task: &dyn Task, cases: &[Case]) -> Option<String> {
    const SHOWN: usize = 5;
    let mut rows = table(["sequence", "position", "right logit less the largest other"]);
    for case in cases.iter().take(SHOWN) {
        rows.add_row([
            task.text(&case.sequence),
            case.position.to_string(),
            Number::from(case.margin.value).to_string(),
        ]);
    }
    (!cases.is_empty()).then(|| text(&rows))
}

/// Runs every input.
fn by_walk(
    args: &Args,
    common: &Common,
    asked: &Asked,
    claim: Claim,
    cases: &mut Cases,
) -> Result<Certificate> {
    let deadline = args.time.map(|s| Instant::now() + Duration::from_secs(s));
    let bar = progress(common, "inputs", asked.space.size() as usize);
    let advance = |n: u64| {
        bar.inc(n);
        deadline.is_none_or(|deadline| Instant::now() < deadline)
    };
    let (task, space) = (asked.task.as_ref(), &asked.space);
    let walked = walk(&asked.model, task, space, args.margin, &advance)?;
    bar.finish_and_clear();
    *cases = Cases {
        closest: walked.closest,
        wrong: walked.wrong,
        open: walked.open,
    };
    let certificate = Certificate::enumeration(&asked.model, claim, walked.certified);
    if let Some(path) = &args.out {
        certificate.save(path)?;
    }
    Ok(certificate)
}

/// Looks for counterexamples, and says what was found.
fn by_seek(args: &Args, common: &Common, asked: &Asked) -> Result<ExitCode> {
    if let Some(path) = &args.out {
        bail!(
            "--out {}: the space has {} inputs, too many to prove anything of all of them",
            path.display(),
            asked.space.size()
        );
    }
    let started = Instant::now();
    let how = Seek {
        margin: args.margin,
        ..Seek::default()
    };
    let deadline = args.time.map(|s| started + Duration::from_secs(s));
    let bar = progress(common, "searching", how.starts);
    let advance = || {
        bar.inc(1);
        deadline.is_none_or(|deadline| Instant::now() < deadline)
    };
    let task = asked.task.as_ref();
    let wrong = seek(&asked.model, task, &asked.space, how, &advance)?;
    bar.finish_and_clear();
    let result = json!({
        "model": args.model.model,
        "task": task.name(),
        "space": args.space,
        "size": asked.space.size().to_string(),
        "method": "search",
        "refuted": !wrong.is_empty(),
        "counterexamples": wrong.iter().map(|case| case_json(task, case)).collect::<Value>(),
        "seconds": started.elapsed().as_secs_f64(),
    });
    report(common, &result, || match cases_table(task, &wrong) {
        None => format!(
            "{} inputs, too many to walk through; no wrong answer was found, which proves nothing\n",
            asked.space.size()
        ),
        Some(rows) => format!(
            "refuted: of {} inputs, {} that were found are proved wrong, the furthest first:\n{rows}",
            asked.space.size(),
            wrong.len()
        ),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Lowers the cutoff tenfold until it is the one asked for, and keeps what is proved each time.
fn by_sets(
    args: &Args,
    common: &Common,
    asked: &Asked,
    tables: &OneLayer,
    claim: Claim,
) -> Result<Certificate> {
    const FIRST: f64 = 1e-3;
    let wanted = args.cutoff.unwrap_or(1e-7);
    let deadline = args.time.map(|s| Instant::now() + Duration::from_secs(s));
    let problems = Problem::all(asked.task.as_ref(), &asked.space, tables.causal)?;
    let search = Search {
        tables,
        problems: &problems,
        size: asked.space.size(),
        margin: args.margin,
    };
    let mut forest = match (&args.out, args.resume) {
        (Some(path), true) if path.exists() => resumed(common, path, asked, &claim, &search)?,
        _ => search.begin(),
    };
    let shard = args.shard.unwrap_or((0, 1));
    let roots: usize = problems.iter().map(|p| p.roots.len()).sum();
    let mut cutoff = wanted.max(FIRST);
    loop {
        let bar = sets_bar(common, roots / shard.1, &forest, &search, cutoff);
        let stop = Stop {
            cutoff,
            deadline,
            shard,
        };
        search.refine(&mut forest, stop, Par::Rayon, &|done| bar.inc(done.roots as u64))?;
        bar.finish_and_clear();
        let certified = Certified::from_positions(asked.space.size(), search.counts(&forest));
        let certificate = Certificate::sets(&asked.model, claim.clone(), certified, &forest);
        if let Some(path) = &args.out {
            certificate.save(path)?;
        }
        let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if cutoff <= wanted || late {
            return Ok(certificate);
        }
        cutoff = wanted.max(cutoff / 10.0);
    }
}

fn sets_bar(
    common: &Common,
    roots: usize,
    forest: &Forest,
    search: &Search<'_>,
    cutoff: f64,
) -> ProgressBar {
    let so_far = Certified::from_positions(search.size, search.counts(forest));
    let (right, wrong) = (
        so_far.share(so_far.all.right),
        so_far.share(so_far.all.wrong),
    );
    progress(
        common,
        &format!("right {right:.4}, wrong {wrong:.4}; sets of {cutoff:.0e}"),
        roots,
    )
}

/// What a certificate of the same claim holds, once it is checked: what is gone on with would else be said to be proved.
fn resumed(
    common: &Common,
    path: &PathBuf,
    asked: &Asked,
    claim: &Claim,
    search: &Search<'_>,
) -> Result<Forest> {
    let certificate = Certificate::open(path)?;
    let header = &certificate.header;
    let weights = pathsum::certify::hash(&asked.model);
    if header.weights != weights || header.claim != *claim || header.method != Method::Sets {
        bail!(
            "--resume {}: it is of another model or claim",
            path.display()
        );
    }
    let bar = progress(common, "checking what is gone on with", 1);
    let checked = check(&certificate, &asked.model, asked.task.as_ref())?;
    bar.finish_and_clear();
    if let Checked::Refused(reason) = checked {
        bail!("--resume {}: {reason}", path.display());
    }
    Ok(search.resume(&certificate.body, header.step)?)
}

fn method_name(method: Method) -> &'static str {
    match method {
        Method::Enumeration => "enumeration",
        Method::Sets => "sets",
    }
}

fn figures(certified: &Certified, count: Count) -> [String; 3] {
    let undecided = certified.size - count.right - count.wrong;
    [count.right, count.wrong, undecided].map(|n| format!("{n} ({})", percent(n, certified.size)))
}

/// A share, cut off: what is not quite all is never said to be all.
fn percent(count: u128, size: u128) -> String {
    const PARTS: u128 = 1_000_000;
    let parts = match count.checked_mul(PARTS) {
        Some(parts) => parts / size.max(1),
        None => count / (size / PARTS),
    };
    let parts = match count < size {
        true => parts.min(PARTS - 1),
        false => parts,
    };
    format!("{}.{:04} %", parts / 10_000, parts % 10_000)
}

fn show(
    args: &Args,
    common: &Common,
    asked: &Asked,
    (certificate, cases): (&Certificate, &Cases),
    took: Duration,
) -> Result<()> {
    let (header, certified) = (&certificate.header, &certificate.header.certified);
    let task = asked.task.as_ref();
    let mut result = json!({
        "model": args.model.model,
        "claim": header.claim,
        "method": header.method,
        "certified": certified,
        "share": certified.share(certified.all.right),
        "seconds": took.as_secs_f64(),
        "bytes": certificate.write().len(),
    });
    for (name, value) in cases.json(task) {
        result[name] = value;
    }
    report(common, &result, || {
        let space = if header.claim.space.is_empty() {
            "all".to_string()
        } else {
            header.claim.space.clone()
        };
        format!(
            "{}: {} ({space}), {} inputs, by {}\n\n{}{}",
            args.model.model,
            header.claim.task,
            certified.size,
            method_name(header.method),
            counts_text(certified),
            cases.text(task)
        )
    })
}

fn counts_text(certified: &Certified) -> String {
    let mut rows = table([
        "position",
        "certified right",
        "certified wrong",
        "undecided",
    ]);
    let all = ("all".to_string(), certified.all);
    let positions = certified
        .positions
        .iter()
        .map(|(p, count)| (p.to_string(), *count));
    for (place, count) in positions.chain([all]) {
        let [right, wrong, rest] = figures(certified, count);
        rows.add_row([place, right, wrong, rest]);
    }
    text(&rows)
}

fn run_check(args: &Args, common: &Common, path: &PathBuf) -> Result<ExitCode> {
    let certificate = Certificate::open(path)?;
    let header = &certificate.header;
    let named = || header.claim.task.parse().ok();
    let own = Asked::new(args, args.task.or_else(named), "")?;
    let bar = progress(common, "checking", 1);
    let checked = check(&certificate, &own.model, own.task.as_ref())?;
    bar.finish_and_clear();
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
