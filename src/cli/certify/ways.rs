//! How a claim is proved: every input, sets of them, or counterexamples alone.

use super::super::args::Common;
use super::super::output::progress;
use super::show::{Cases, Findings};
use super::{Args, Asked, checked};
use anyhow::{Result, bail};
use pathsum::Par;
use pathsum::certify::sets::{Curve, Forest, Found, Point, Problem, Search, Stop};
use pathsum::certify::{
    Certificate, Certified, Checked, Claim, Method, OneLayer, Seek, answers, hash, seek, walk,
};
use std::path::Path;
use std::time::{Duration, Instant};

/// Runs every input.
pub fn by_walk(args: &Args, common: &Common, asked: &Asked, claim: Claim) -> Result<Findings> {
    let deadline = args.time.map(|s| Instant::now() + Duration::from_secs(s));
    let bar = progress(common, "inputs", asked.space.size() as usize);
    let advance = |n: u64| {
        bar.inc(n);
        deadline.is_none_or(|deadline| Instant::now() < deadline)
    };
    let (task, space) = (asked.task.as_ref(), &asked.space);
    let walked = walk(&asked.model, task, space, args.margin, &advance)?;
    bar.finish_and_clear();
    let certificate = Certificate::enumeration(&asked.model, claim.clone(), walked.certified);
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
    let mut forest = match (&args.out, args.resume) {
        (Some(path), true) if path.exists() => resumed(common, path, asked, &claim, &search)?,
        _ => search.begin(),
    };
    let shard = args.shard.map_or((0, 1), |shard| shard.part());
    let roots: usize = problems.iter().map(|p| p.roots.len()).sum();
    let curve = Curve::new(&search, &forest);
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

/// What a certificate of the same claim holds, once it is checked: what is gone on with would else be said to be proved.
fn resumed(
    common: &Common,
    path: &Path,
    asked: &Asked,
    claim: &Claim,
    search: &Search<'_>,
) -> Result<Forest> {
    let certificate = Certificate::open(path)?;
    let header = &certificate.header;
    let weights = hash(&asked.model);
    if header.weights != weights || header.claim != *claim || header.method != Method::Sets {
        bail!(
            "--resume {}: it is of another model or claim",
            path.display()
        );
    }
    if let Checked::Refused(reason) = checked(common, &certificate, asked)? {
        bail!("--resume {}: {reason}", path.display());
    }
    Ok(search.resume(&certificate.body, header.step)?)
}
