//! The last layer's two heads: which failure each answers to, where it looks, and what is lost without it.

use super::adversarial::EXAMPLES;
use super::data::{Data, StringKind};
use super::written::{Along, TALLY, Written};
use crate::decompose::best_threshold;
use crate::error::Result;
use crate::intervene::{Change, Each, Grid, Over, Scope, Site, Sweep};
use crate::linalg::Par;
use crate::metric::{Standard, mean};
use crate::model::{Model, Run, Tokens};
use crate::names::{Head, Hook};
use crate::study::{AttentionView, Sequence, Weighting};
use crate::task::{Brackets, Task};
use serde::Serialize;

/// What a last-layer head does, over the sequences that start with an opening bracket: the others are wrong at once.
#[derive(Clone, Debug, Serialize)]
pub struct LastHead {
    /// The head.
    pub head: Head,
    /// What it writes along the unbalanced direction at position 0, for each sequence, less the mean over balanced ones.
    pub writes: Vec<f64>,
    /// Its mean over the sequences whose total is wrong and nothing else.
    pub elevation: f64,
    /// Its mean over the sequences that go negative and whose total is right.
    pub negative: f64,
    /// Its mean over the sequences with both failures.
    pub both: f64,
    /// Of the balanced sequences and those whose total alone is wrong, the share that one threshold tells apart.
    pub tells_elevation: f64,
    /// The same with those that only go negative.
    pub tells_negative: f64,
    /// Of the balanced sequences and those whose share of opening brackets is not one half, the share that one threshold
    /// tells apart.
    pub tells_share: f64,
    /// What it writes on average where that share is one half, and where it is not.
    pub half_and_not: [f64; 2],
    /// Its mean attention from position 0, by key.
    pub attention: Vec<f64>,
    /// The standard deviation of its attention from position 0 to position 1.
    pub attention_spread: f64,
    /// The share of right answers of each [`StringKind`], in their order, with the mean in place of what it writes.
    pub accuracy_without: Vec<f64>,
}

/// Every head of the last layer, from what the components have along the unbalanced direction.
pub(super) fn last_heads(
    model: &Model<f64>,
    data: &Data,
    written: &Written,
    unbalanced: &[Along],
    par: Par,
) -> Result<Vec<LastHead>> {
    let c = model.config();
    let layer = c.n_layers - 1;
    let starts = data.starting_open();
    let [balanced, elevation, negative, both] = StringKind::ALL.map(|kind| data.of_kind(kind));
    let half = |s: &usize| data.open_share[*s] == 0.5;
    let (half, not_half): (Vec<usize>, Vec<usize>) = starts.iter().copied().partition(half);
    let without = without_each(model, data, layer, par)?;
    (0..c.n_heads)
        .zip(without)
        .map(|(head, accuracy_without)| {
            let head = Head { layer, head };
            let name = format!("head {head}");
            let along = unbalanced.iter().find(|a| a.component == name);
            let writes = &along.expect("every head is a component").values;
            let mean_of =
                |which: &[usize]| mean(&which.iter().map(|&s| writes[s]).collect::<Vec<_>>());
            let tells = |failing: &[usize]| told(writes, &balanced, failing);
            let row = |s: usize| written.attention.slice(&[s, head.head]);
            let attention = (0..data.tokens.pos())
                .map(|key| mean(&starts.iter().map(|&s| row(s)[key]).collect::<Vec<_>>()));
            let at_tally: Vec<f64> = starts.iter().map(|&s| row(s)[TALLY]).collect();
            Ok(LastHead {
                head,
                elevation: mean_of(&elevation),
                negative: mean_of(&negative),
                both: mean_of(&both),
                tells_elevation: tells(&elevation)?,
                tells_negative: tells(&negative)?,
                tells_share: tells(&not_half)?,
                half_and_not: [mean_of(&half), mean_of(&not_half)],
                attention: attention.collect(),
                attention_spread: deviation(&at_tally),
                accuracy_without,
                writes: writes.clone(),
            })
        })
        .collect()
}

/// Of two sets of sequences, the share that one threshold on their values tells apart.
pub(super) fn told(values: &[f64], one: &[usize], other: &[usize]) -> Result<f64> {
    let both = one.iter().chain(other);
    let values: Vec<f64> = both.map(|&s| values[s]).collect();
    let labels: Vec<bool> = (0..values.len()).map(|i| i >= one.len()).collect();
    Ok(best_threshold(&values, &labels)?.right as f64 / values.len() as f64)
}

/// The standard deviation of some values.
fn deviation(values: &[f64]) -> f64 {
    let centre = mean(values);
    let squares = values.iter().map(|x| (x - centre).powi(2));
    mean(&squares.collect::<Vec<_>>()).sqrt()
}

/// The share of right answers by kind with each head of a layer mean-ablated.
fn without_each(model: &Model<f64>, data: &Data, layer: usize, par: Par) -> Result<Vec<Vec<f64>>> {
    let heads = (0..model.config().n_heads).map(|head| Head { layer, head });
    let scope = Scope {
        heads: Some(heads.collect()),
        ..Scope::default()
    };
    let change = Change::Mean(Over::Sequences);
    let grid = Grid::new(
        model.config(),
        data.tokens.pos(),
        Site::Result,
        &[Each::Head],
        &scope,
        &change,
    )?;
    let sweep = Sweep::new(model, &data.tokens, &data.answers, &Standard::Accuracy).par(par);
    let (_, cells) = sweep.per_sequence(&grid)?;
    let by_kind = |right: Vec<f64>| {
        let share = |kind: StringKind| {
            let of_kind = right.iter().zip(&data.kinds).filter(|(_, k)| **k == kind);
            mean(&of_kind.map(|(x, _)| *x).collect::<Vec<_>>())
        };
        StringKind::ALL.map(share).to_vec()
    };
    Ok(cells.into_iter().flatten().map(by_kind).collect())
}

/// The head that answers most to a wrong total rather than to going negative, and the other way round.
pub(super) fn roles(heads: &[LastHead]) -> [Head; 2] {
    let lean = |h: &&LastHead| h.elevation - h.negative;
    let by = |a: &&LastHead, b: &&LastHead| lean(a).total_cmp(&lean(b));
    let elevation = heads
        .iter()
        .max_by(by)
        .expect("checked: there are two heads");
    let others = heads.iter().filter(|h| h.head != elevation.head);
    let negative = others.min_by(by).expect("checked: there are two heads");
    [elevation.head, negative.head]
}

/// Every head's attention on the write-up's examples, without the padding.
pub(super) fn attention(model: &Model<f64>, par: Par) -> Result<AttentionView> {
    let (task, c) = (Brackets::default(), model.config());
    let rows = EXAMPLES
        .iter()
        .map(|e| task.sequence(e))
        .collect::<Result<Vec<_>>>()?;
    let run = (0..c.n_layers).fold(Run::new().par(par), |run, l| run.cache(Hook::Pattern(l)));
    let out = model.run(&Tokens::from_rows(&rows), run)?;
    let heads =
        (0..c.n_layers).flat_map(|layer| (0..c.n_heads).map(move |head| Head { layer, head }));
    let heads: Vec<Head> = heads.collect();
    let pattern = |s: usize| -> Vec<f64> {
        let length = EXAMPLES[s].len() + 2;
        let mut all = Vec::new();
        for head in &heads {
            for query in 0..length {
                let row = out.cache[Hook::Pattern(head.layer)].slice(&[s, head.head, query]);
                all.extend(&row[..length]);
            }
        }
        all
    };
    let sequence = |(example, row): (&&str, &Vec<i64>)| {
        let elevation = Brackets::elevation(row);
        let inside = 1..=example.len();
        let words = row[..example.len() + 2]
            .iter()
            .map(|&t| task.vocabulary().name(t));
        let name = format!("{example}, {}", StringKind::of(row));
        Sequence::new(name, words).marked(inside.filter(|&p| elevation[p] < 0))
    };
    Ok(AttentionView {
        sequences: EXAMPLES.iter().zip(&rows).map(sequence).collect(),
        heads: heads.iter().map(Head::to_string).collect(),
        weightings: vec![Weighting::new(
            "attention",
            (0..EXAMPLES.len()).map(pattern),
        )],
    })
}
