//! Certificates of one claim put together.

use super::super::args::{Common, ModelArg};
use super::show::Findings;
use super::ways::of_forest;
use super::{Asked, checked};
use anyhow::{Context, Result, bail};
use pathsum::certify::sets::{Forest, Problem, Search};
use pathsum::certify::{Certificate, Certified, Checked, Method, OneLayer, hash};
use std::path::Path;
use std::time::Instant;

/// Puts certificates of sets together, of each set the better proof, and has the whole checked before it is written.
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
    for (name, other) in &certificates {
        let other = &other.header;
        if other.method != Method::Sets {
            bail!("{name}: is of an enumeration, whose figures are of all inputs; expected sets");
        }
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
    }
    let claim = header.claim.clone();
    let task = claim.task.parse().with_context(|| first.clone())?;
    let asked = Asked::new(model, Some(task), &claim.space)?;
    if header.weights != hash(&asked.model) {
        bail!("--model {}: {first} is of another model", model.model);
    }
    let tables = OneLayer::new(&asked.model, asked.space.positions())?;
    let problems = Problem::all(asked.task.as_ref(), &asked.space, tables.causal)?;
    let search = Search {
        tables: &tables,
        problems: &problems,
        size: asked.space.size(),
        margin: claim.margin,
    };
    let mut merged: Option<Forest> = None;
    for (name, certificate) in &certificates {
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
    // What was changed since it was written is no proof, and is not handed on.
    if let Checked::Refused(reason) = checked(common, &certificate, &asked)? {
        bail!("what is put together does not hold: {reason}");
    }
    if let Some(path) = out {
        certificate.save(path)?;
    }
    let findings = Findings {
        certificate: Some(certificate),
        seconds: started.elapsed().as_secs_f64(),
        ..of_forest(&asked, &search, &forest, claim)?
    };
    findings.show(common, &model.model, &asked)
}
