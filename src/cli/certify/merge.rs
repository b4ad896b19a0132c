//! Certificates of one claim put together.

use super::super::args::{Common, ModelArg};
use super::show::Findings;
use super::ways::of_forest;
use super::{Asked, checked};
use anyhow::{Context, Result, bail};
use pathsum::certify::sets::{Forest, Problem, Search};
use pathsum::certify::{Certificate, Certified, Checked, OneLayer, Ranges, hash};
use std::path::Path;
use std::time::Instant;

/// Puts certificates of one claim together, and has the whole checked before it is written.
pub fn merge(
    common: &Common,
    model: &ModelArg,
    certificates: Vec<(String, Certificate)>,
    out: Option<&Path>,
) -> Result<()> {
    let started = Instant::now();
    let Some((first, one)) = certificates.first() else {
        bail!("no certificates to merge");
    };
    let header = &one.header;
    let walked = header.method.ranges().is_some();
    for (name, other) in &certificates {
        let other = &other.header;
        if other.weights != header.weights {
            bail!("{first} and {name} are of different models");
        }
        if other.claim != header.claim {
            bail!(
                "{first} and {name} are of different claims: {:?} and {:?}",
                header.claim,
                other.claim
            );
        }
        if other.method.ranges().is_some() != walked {
            bail!(
                "{first} and {name} are by different methods, expected all of sets or all of walks"
            );
        }
    }
    let claim = header.claim.clone();
    let task = claim.task.parse().with_context(|| first.clone())?;
    let asked = Asked::new(model, Some(task), &claim.space)?;
    if header.weights != hash(&asked.model) {
        bail!("--model {}: {first} is of another model", model.model);
    }
    let findings = match walked {
        true => of_walks(common, &asked, &certificates)?,
        false => of_sets(common, &asked, &certificates)?,
    };
    if let (Some(path), Some(certificate)) = (out, &findings.certificate) {
        certificate.save(path)?;
    }
    let findings = Findings {
        seconds: started.elapsed().as_secs_f64(),
        ..findings
    };
    findings.show(common, &model.model, &asked)
}

/// What was changed since it was written is no proof, and is not handed on.
fn ensure_holds(
    common: &Common,
    asked: &Asked,
    certificate: &Certificate,
    what: &str,
) -> Result<()> {
    match checked(common, certificate, asked)? {
        Checked::Refused(reason) => bail!("{what} does not hold: {reason}"),
        Checked::Accepted(_) => Ok(()),
    }
}

/// Of walks all that was gone through, each input once: the whole holds where each of them does.
fn of_walks(
    common: &Common,
    asked: &Asked,
    certificates: &[(String, Certificate)],
) -> Result<Findings> {
    let mut all = Ranges::default();
    for (name, certificate) in certificates {
        let own = certificate.header.method.ranges();
        all.add(own.unwrap_or(&Ranges::default()))
            .with_context(|| name.clone())?;
    }
    let mut certified: Option<Certified> = None;
    for (name, certificate) in certificates {
        ensure_holds(common, asked, certificate, name)?;
        let own = &certificate.header.certified;
        match &mut certified {
            Some(so_far) => *so_far += own,
            None => certified = Some(own.clone()),
        }
    }
    let certified = certified.expect("one certificate at least");
    let claim = certificates[0].1.header.claim.clone();
    Ok(Findings {
        certificate: Some(Certificate::enumeration(
            &asked.model,
            claim.clone(),
            certified,
            all,
        )),
        ..Findings::of(claim)
    })
}

/// Of sets the better proof of each.
fn of_sets(
    common: &Common,
    asked: &Asked,
    certificates: &[(String, Certificate)],
) -> Result<Findings> {
    let claim = certificates[0].1.header.claim.clone();
    let tables = OneLayer::new(&asked.model, asked.space.positions())?;
    let problems = Problem::all(asked.task.as_ref(), &asked.space, tables.causal)?;
    let search = Search {
        tables: &tables,
        problems: &problems,
        size: asked.space.size(),
        margin: claim.margin,
    };
    let mut merged: Option<Forest> = None;
    for (name, certificate) in certificates {
        let forest = search.resume(&certificate.body, certificate.header.step);
        let forest = forest.with_context(|| name.clone())?;
        merged = Some(match merged {
            Some(so_far) => search.merge(so_far, forest).with_context(|| name.clone())?,
            None => forest,
        });
    }
    let forest = merged.expect("one certificate at least");
    let certified = Certified::from_positions(search.size, search.counts(&forest));
    let certificate = Certificate::sets(&asked.model, claim.clone(), certified, &forest);
    ensure_holds(common, asked, &certificate, "what is put together")?;
    Ok(Findings {
        certificate: Some(certificate),
        ..of_forest(asked, &search, &forest, claim)?
    })
}
