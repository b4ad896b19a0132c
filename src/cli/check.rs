//! `pathsum check`: the identities of a model.

use super::args::{Common, ModelArg};
use super::batch::SequenceArgs;
use super::output::{progress, report, sequences, table, text};
use anyhow::Result;
use comfy_table::{Attribute, Cell, Color};
use pathsum::verify::{self, BoundKind, Finding, Measure, Verdict};
use pathsum::{Par, Precision, Scalar};
use serde_json::json;
use std::process::ExitCode;

/// Check a model's identities on its weights and on a batch
///
/// Each is said to hold, within a bound that is computed from sizes, magnitudes and precision (or
/// estimated, where it says so), or refuted, with the place. Invariances of the whole model are checked
/// on the first 2,048 positions of the batch; seeded random tokens where there are no sequences given. Exit status 1 if any is refuted.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  pathsum check fixture:induction --dtype f32")]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    sequences: SequenceArgs,
}

pub fn run(args: &Args, common: &Common) -> Result<ExitCode> {
    match common.dtype() {
        Precision::F32 => check::<f32>(args, common),
        Precision::F64 => check::<f64>(args, common),
    }
}

fn check<T: Scalar>(args: &Args, common: &Common) -> Result<ExitCode> {
    let model = args.model.load::<T>()?;
    let (tokens, source) = match args.sequences.given() {
        true => (
            args.sequences
                .read(common, &args.model, model.config())?
                .tokens,
            "given",
        ),
        false => (common.limited(verify::default_tokens(&model)), "random"),
    };
    let bar = progress(common, "checking", 1);
    let findings = verify::check(&model, &tokens, Par::Rayon, &mut |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();

    let refuted = findings.iter().filter(|f| f.refuted()).count();
    let result = json!({
        "model": args.model.model,
        "dtype": T::PRECISION.to_string(),
        "tokens": {"source": source, "batch": tokens.batch(), "pos": tokens.pos()},
        "refuted": refuted,
        "findings": findings,
    });
    report(common, &result, || {
        let batch = format!(
            "{} of {} tokens",
            sequences(tokens.batch(), source),
            tokens.pos()
        );
        format!(
            "{} in {}, {batch}\n\n{}",
            args.model.model,
            T::PRECISION,
            findings_text(&findings)
        )
    })?;
    Ok(if refuted > 0 {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    })
}

/// Three digits after the point, where there are not too many before it.
fn ratio(x: f64) -> String {
    if x < 1000.0 {
        format!("{x:.3}")
    } else {
        format!("{x:.1e}")
    }
}

fn findings_text(findings: &[Finding]) -> String {
    let colours = console::colors_enabled();
    let mut t = table([
        "identity",
        "verdict",
        "largest error",
        "bound",
        "ratio",
        "statement",
    ]);
    let mut notes = String::new();
    let (mut holds, mut refuted, mut inapplicable) = (0, 0, 0);
    for finding in findings {
        let cell = |text: &str, colour: Color| {
            let cell = Cell::new(text);
            if colours {
                cell.fg(colour).add_attribute(Attribute::Bold)
            } else {
                cell
            }
        };
        let bound = |m: &Measure| match m.kind {
            BoundKind::Derived => format!("{:.1e}", m.bound),
            BoundKind::Estimated => format!("{:.1e} (estimate)", m.bound),
        };
        let (verdict, measure) = match &finding.verdict {
            Verdict::Holds(m) => {
                holds += 1;
                (cell("holds", Color::Green), Some(m))
            }
            Verdict::Refuted(m) => {
                refuted += 1;
                notes += &format!(
                    "refuted: {}: at {} the left side is {:e}, the right side {:e}\n",
                    finding.id, m.place, m.left, m.right
                );
                (cell("refuted", Color::Red), Some(m))
            }
            Verdict::NotApplicable { reason } => {
                inapplicable += 1;
                notes += &format!("not applicable: {}: {reason}\n", finding.id);
                (cell("n/a", Color::DarkGrey), None)
            }
        };
        let (error, bound, ratio) = match measure {
            Some(m) => (format!("{:.1e}", m.error), bound(m), ratio(m.ratio)),
            None => Default::default(),
        };
        t.add_row(vec![
            Cell::new(finding.id),
            verdict,
            Cell::new(error),
            Cell::new(bound),
            Cell::new(ratio),
            Cell::new(finding.statement),
        ]);
    }
    let notes = if notes.is_empty() {
        notes
    } else {
        format!("\n{notes}")
    };
    let summary = format!("{holds} hold, {refuted} refuted, {inapplicable} not applicable");
    format!("{}{notes}\n{summary}\n", text(&t))
}
