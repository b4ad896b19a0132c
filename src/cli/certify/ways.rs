//! How a claim is proved: every input, sets of them, or counterexamples alone.

use super::super::args::Common;
use super::super::output::progress;
use super::show::{Cases, Findings};
use super::{Args, Asked, checked};
use anyhow::{Result, bail};
use pathsum::Par;
use pathsum::certify::sets::{Forest, Found, Point, Problem, ProofCurve, Search, Stop};
use pathsum::certify::{
    Certificate, Certified, Checked, Claim, Method, OneLayer, Ranges, Seek, Walked, answers, hash,
    seek, walk,
};
use std::time::{Duration, Instant};

/// What is proved one by one is written so often.
const EVERY: Duration = Duration::from_secs(5);

/// Runs every input, or those of a shard, that are not proved yet.
pub fn by_walk(args: &Args, common: &Common, asked: &Asked, claim: Claim) -> Result<Findings> {
    let deadline = args.time.map(|s| Instant::now() + Duration::from_secs(s));
    let (task, space) = (asked.task.as_ref(), &asked.space);
    let walks = |method: &Method| method.ranges().is_some();
    let before = resumed(args, common, asked, &claim, walks)?.map(|held| held.header);
    let gone = before.as_ref().and_then(|header| header.method.ranges());
    let gone = gone.cloned().unwrap_or_default();
    let left = Ranges::part(space, part(args))?.without(&gone);
    let certificate = |walked: &Walked| -> pathsum::Result<Certificate> {
        let (mut ranges, mut certified) = (walked.ranges.clone(), walked.certified.clone());
        ranges.add(&gone)?;
        if let Some(header) = &before {
            certified += &header.certified;
        }
        let claim = claim.clone();
        Ok(Certificate::enumeration(
            &asked.model,
            claim,
            certified,
            ranges,
        ))
    };
    let bar = progress(common, "inputs", left.count() as usize);
    let mut written: Option<Instant> = None;
    let walked = walk(
        &asked.model,
        task,
        space,
        args.margin,
        &left,
        &mut |so_far| {
            let n = so_far.ranges.count();
            bar.set_position(n);
            // The first as soon as there is something: what cannot be written is said early.
            let due = n > 0 && written.is_none_or(|at| at.elapsed() >= EVERY);
            if let Some(path) = args.out.as_ref().filter(|_| due) {
                certificate(so_far)?.save(path)?;
                written = Some(Instant::now());
            }
            Ok(deadline.is_none_or(|deadline| Instant::now() < deadline))
        },
    )?;
    bar.finish_and_clear();
    let certificate = certificate(&walked)?;
    if let Some(path) = &args.out {
        certificate.save(path)?;
    }
    Ok(Findings {
        cases: Cases {
            closest: walked.closest,
            wrong: walked.wrong,
            open: walked.open,
        },
        by_right: walked.by_right,
        certificate: Some(certificate),
        ..Findings::of(claim)
    })
}

/// Which of how many parts is asked for.
fn part(args: &Args) -> (usize, usize) {
    args.shard.map_or((0, 1), |shard| shard.part())
}

/// Looks for counterexamples.
pub fn by_seek(args: &Args, common: &Common, asked: &Asked, claim: Claim) -> Result<Findings> {
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
    Ok(Findings {
        cases: Cases {
            wrong,
            ..Cases::default()
        },
        ..Findings::of(claim)
    })
}

/// Lowers the cutoff tenfold until it is the one asked for, and keeps what is proved each time.
pub fn by_sets(
    args: &Args,
    common: &Common,
    asked: &Asked,
    tables: &OneLayer,
    claim: Claim,
) -> Result<Findings> {
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
    let divides = |method: &Method| *method == Method::Sets;
    let mut forest = match resumed(args, common, asked, &claim, divides)? {
        Some(certificate) => search.resume(&certificate.body, certificate.header.step)?,
        None => search.begin(),
    };
    let shard = part(args);
    let roots: usize = problems.iter().map(|p| p.roots.len()).sum();
    let curve = ProofCurve::new(&search, &forest);
    let mut cutoff = wanted.max(FIRST);
    let certificate = loop {
        let bar = progress(common, &format!("sets of {cutoff:.0e}"), roots / shard.1);
        let stop = Stop {
            cutoff,
            deadline,
            shard,
        };
        search.refine(&mut forest, stop, Par::Rayon, &|done| {
            let Point { right, wrong, .. } = curve.add(&done, cutoff);
            bar.set_message(format!(
                "right {right:.4}, wrong {wrong:.4}; sets of {cutoff:.0e}"
            ));
            bar.inc(done.roots as u64);
        })?;
        bar.finish_and_clear();
        curve.finish(cutoff);
        let certified = Certified::from_positions(asked.space.size(), search.counts(&forest));
        let certificate = Certificate::sets(&asked.model, claim.clone(), certified, &forest);
        if let Some(path) = &args.out {
            certificate.save(path)?;
        }
        let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if cutoff <= wanted || late {
            break certificate;
        }
        cutoff = wanted.max(cutoff / 10.0);
    };
    let mut findings = of_forest(asked, &search, &forest, claim)?;
    if args.report.is_some() {
        findings.thickness = Some(search.thickness(&forest, &asked.space, LISTED)?);
    }
    findings.curve = curve.points();
    findings.certificate = Some(certificate);
    Ok(findings)
}

/// Of the sets of a kind so many are listed.
const LISTED: usize = 20;

/// What there is to show of a forest.
pub fn of_forest(
    asked: &Asked,
    search: &Search<'_>,
    forest: &Forest,
    claim: Claim,
) -> Result<Findings> {
    let space = &asked.space;
    let mut wrong = Vec::new();
    let refuted = search.widest(forest, space, Found::Wrong, LISTED);
    for region in &refuted {
        // Every order of the list is wrong where the set is; one is shown, with its own margin.
        let cases = answers(&asked.model, asked.task.as_ref(), &region.example)?;
        wrong.extend(cases.into_iter().filter(|c| c.position == region.position));
    }
    Ok(Findings {
        cases: Cases {
            wrong,
            ..Cases::default()
        },
        by_right: search.by_right(forest),
        refuted,
        open: search.widest(forest, space, Found::Open, LISTED),
        ..Findings::of(claim)
    })
}

/// The certificate of the same claim that is gone on with, where there is one, once it is checked: what it says would else be
/// said to be proved.
fn resumed(
    args: &Args,
    common: &Common,
    asked: &Asked,
    claim: &Claim,
    by: impl Fn(&Method) -> bool,
) -> Result<Option<Certificate>> {
    let held = args.out.as_ref();
    let Some(path) = held.filter(|path| args.resume && path.exists()) else {
        return Ok(None);
    };
    let certificate = Certificate::open(path)?;
    let header = &certificate.header;
    if header.weights != hash(&asked.model) || header.claim != *claim || !by(&header.method) {
        bail!(
            "--resume {}: it is of another model or claim",
            path.display()
        );
    }
    if let Checked::Refused(reason) = checked(common, &certificate, asked)? {
        bail!("--resume {}: {reason}", path.display());
    }
    Ok(Some(certificate))
}
