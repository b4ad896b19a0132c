//! From a change at one hook to the answers' logits, recomputing only what lies downstream of it.

use super::change::{Change, Intervention, Prepared};
use super::part::Window;
use crate::model::Model;
use crate::names::Hook;
use crate::resume::{Reach, Resume};
use crate::tensor::Scalar;
use std::borrow::Cow;

/// Whether a run can go on from a change of this hook's value.
pub(super) fn resumes_from(hook: Hook) -> bool {
    matches!(
        hook,
        Hook::ResidPre(_)
            | Hook::Q(_)
            | Hook::K(_)
            | Hook::V(_)
            | Hook::RotQ(_)
            | Hook::RotK(_)
            | Hook::AttnScores(_)
            | Hook::Pattern(_)
            | Hook::Z(_)
            | Hook::Result(_)
            | Hook::AttnOut(_)
            | Hook::ResidMid(_)
            | Hook::Post(_)
            | Hook::MlpOut(_)
            | Hook::ResidPost(_)
    )
}

/// The values of the clean run that changes of one hook at some positions need.
pub(super) fn needed<T: Scalar>(
    model: &Model<T>,
    interventions: &[Intervention],
    positions: &[usize],
    answers: &[usize],
    pos: usize,
) -> Vec<Hook> {
    let hook = interventions[0].hook;
    let mut needed = match hook {
        // What the heads write is not kept: it is made from `z`.
        Hook::Result(l) => vec![Hook::Z(l)],
        Hook::Post(_) => vec![hook],
        _ => Vec::new(),
    };
    // But for the results of other sequences, which a change may want.
    let resampled = |i: &Intervention| matches!(i.change, Change::Resample { .. });
    let kept = matches!(hook, Hook::Result(_)) && interventions.iter().any(resampled);
    needed.extend(kept.then_some(hook));
    let from = runs_on_from(model, hook);
    needed.push(from);
    let of = (model.config(), &model.diagram);
    needed.extend(Reach::of(of, from, positions, answers, pos).needed);
    needed
}

/// The value that a run goes on from after a change: of heads' results or neurons, what they write together, to which
/// the change is added.
fn runs_on_from<T: Scalar>(model: &Model<T>, hook: Hook) -> Hook {
    let diagram = &model.diagram;
    let value = diagram.value(hook).expect("a hook of this model");
    let written = match hook {
        Hook::Result(_) => diagram.steps[diagram.made_by(value)].gives.last(),
        Hook::Post(_) => diagram
            .readers(value)
            .next()
            .and_then(|step| step.gives.last()),
        _ => None,
    };
    written.map_or(hook, |&sum| diagram.values[sum])
}

/// Whether a change of this hook's value may give pads some weight.
pub(super) fn may_show_pads(hook: Hook) -> bool {
    matches!(hook, Hook::AttnScores(_) | Hook::Pattern(_))
}

/// The answers' logits after each cell's changes, `[cell, sequence, answer, d_vocab_out]`, if the run has them.
///
/// The changes are all of one hook, and every cell's at the same positions. The run is of these sequences of the whole
/// batch, once for each cell.
pub(super) fn logits<T: Scalar>(
    mut run: Resume<'_, T>,
    hook: Hook,
    cells: &[Vec<Prepared<'_, T>>],
    sequences: &[usize],
) -> Option<Vec<T>> {
    let mut positions: Vec<usize> = cells[0]
        .iter()
        .flat_map(|c| c.positions())
        .copied()
        .collect();
    positions.sort_unstable();
    positions.dedup();
    let from = runs_on_from(run.model(), hook);
    let value = run.model().diagram.value(from);
    let reach = run.reach(from, &positions);
    let positions = reach.positions[value.expect("a hook of this model")].clone();
    let mut logits = run.clean_logits();
    if positions.is_empty() {
        return Some(logits);
    }
    let window = Window {
        sequences: Cow::Borrowed(sequences),
        positions: Cow::Borrowed(&positions),
        heads: None,
    };
    if let Hook::Result(l) = hook {
        let mut written = run.clean_rows(from, &positions);
        let each = written.values.len() / cells.len();
        for (changes, to) in cells
            .iter()
            .zip(written.values.data_mut().chunks_exact_mut(each))
        {
            let mut heads: Vec<usize> =
                (changes.iter().filter_map(|c| c.heads()).flatten().copied()).collect();
            heads.sort_unstable();
            heads.dedup();
            for head in heads {
                let clean = run.head_result(l, head, sequences.len(), &positions);
                let mut changed = clean.clone();
                let window = Window {
                    heads: Some(&[head]),
                    ..window.clone()
                };
                changes
                    .iter()
                    .for_each(|c| c.apply(&window, changed.data_mut()));
                add_difference(to, changed.data(), clean.data());
            }
        }
        return run.run_on(from, written, &reach);
    }
    let mut rows = run.clean_rows(hook, &positions);
    let each = rows.values.len() / cells.len();
    for (changes, to) in cells
        .iter()
        .zip(rows.values.data_mut().chunks_exact_mut(each))
    {
        changes.iter().for_each(|c| c.apply(&window, to));
    }
    // Where nothing has changed, neither have the logits.
    let places = run.keep_changed(hook, &mut rows);
    if places.is_empty() {
        return Some(logits);
    }
    if let Hook::Post(l) = hook {
        let mut written = run.clean_rows(from, &rows.positions);
        let clean = run.clean_rows(hook, &rows.positions).values;
        run.add_neurons(l, &mut written, &rows.values, &clean);
        rows = written;
    }
    let each = logits.len() / (cells.len() * sequences.len());
    let found = run.run_on(from, rows, &reach)?;
    for (place, found) in places.into_iter().zip(found.chunks_exact(each)) {
        logits[place * each..(place + 1) * each].copy_from_slice(found);
    }
    Some(logits)
}

/// `to += changed - clean`
fn add_difference<T: Scalar>(to: &mut [T], changed: &[T], clean: &[T]) {
    for (to, (&changed, &clean)) in to.iter_mut().zip(changed.iter().zip(clean)) {
        *to += changed - clean;
    }
}
