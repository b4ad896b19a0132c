//! What is lost without induction heads, and without previous-token heads.

use super::Repeated;
use crate::decompose::PatternScores;
use crate::error::Result;
use crate::intervene::{Change, Each, Grid, GridAxis, Intervention, Over, Part, Sweep, intervene};
use crate::linalg::Par;
use crate::metric::{Answers, Standard, mean};
use crate::model::{Model, Run};
use crate::names::{Head, Hook};
use crate::tensor::Scalar;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use serde::Serialize;

/// As many times other heads are drawn at random, as many as there are induction heads.
pub const DRAWS: usize = 5;

/// What the loss rises by when heads write their mean over all sequences and positions, in nats.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ablated {
    /// Of the first copy's tokens but its first.
    pub first: f64,
    /// Of the second's.
    pub second: f64,
}

/// What is lost without heads of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Ablations {
    /// Without all induction heads.
    pub induction: Ablated,
    /// Without all previous-token heads before the last induction head, where there are any.
    pub previous: Option<Ablated>,
    /// Without as many other heads, on average over [`DRAWS`] draws.
    pub others: Ablated,
    /// What the second copy's loss rises by without each induction head alone, in their order.
    pub each: Vec<f64>,
    /// The mean induction score of the induction heads as they are.
    pub score: f64,
    /// The same without the previous-token heads, where there are any.
    pub score_without_previous: Option<f64>,
}

impl Ablations {
    pub(super) fn of<T: Scalar>(
        model: &Model<T>,
        repeated: &Repeated,
        heads: &[Head],
        (induction, previous): (&[Head], &[Head]),
        par: Par,
    ) -> Result<Self> {
        let last = induction.iter().map(|h| h.layer).max().unwrap_or(0);
        let previous: Vec<Head> = (previous.iter().copied())
            .filter(|h| h.layer < last && !induction.contains(h))
            .collect();
        let mut others: Vec<Head> = (heads.iter().copied())
            .filter(|h| !induction.contains(h) && !previous.contains(h))
            .collect();
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut draw = || {
            others.shuffle(&mut rng);
            others[..others.len().min(induction.len())].to_vec()
        };
        let mut cells = vec![induction.to_vec(), previous.clone()];
        cells.extend((0..DRAWS).map(|_| draw()));
        let first = rises(model, repeated, &cells, 0, par)?;
        let second = rises(model, repeated, &cells, 1, par)?;
        let both = |i: usize| Ablated {
            first: first[i],
            second: second[i],
        };
        let alone: Vec<Vec<Head>> = induction.iter().map(|&head| vec![head]).collect();
        let score = |without: &[Head]| score(model, repeated, induction, without, par);
        let any = !previous.is_empty();
        Ok(Ablations {
            induction: both(0),
            previous: any.then(|| both(1)),
            others: Ablated {
                first: mean(&first[2..]),
                second: mean(&second[2..]),
            },
            each: rises(model, repeated, &alone, 1, par)?,
            score: score(&[])?,
            score_without_previous: any.then(|| score(&previous)).transpose()?,
        })
    }
}

/// These heads write their mean.
fn ablation(heads: &[Head]) -> Vec<Intervention> {
    let mean = |head: &Head| {
        let part = Part::all().heads([head.head]);
        Intervention::new(Hook::Z(head.layer), part, Change::Mean(Over::Positions))
    };
    heads.iter().map(mean).collect()
}

/// What the loss of a copy rises by without some heads, of each cell.
fn rises<T: Scalar>(
    model: &Model<T>,
    repeated: &Repeated,
    cells: &[Vec<Head>],
    copy: usize,
    par: Par,
) -> Result<Vec<f64>> {
    let axis = GridAxis {
        by: Each::Head,
        labels: (0..cells.len()).map(|i| i.to_string()).collect(),
    };
    let cells = cells.iter().map(|heads| ablation(heads)).collect();
    let answers = Answers::next_tokens(&repeated.tokens, &repeated.before(copy))?;
    let sweep = Sweep::new(model, &repeated.tokens, &answers, &Standard::Loss);
    let found = sweep.par(par).run(&Grid::from_cells(vec![axis], cells))?;
    let rise = |value: &Option<f64>| value.expect("all cells are swept") - found.clean;
    Ok(found.values.iter().map(rise).collect())
}

/// The mean induction score of the induction heads, without some others.
fn score<T: Scalar>(
    model: &Model<T>,
    repeated: &Repeated,
    induction: &[Head],
    without: &[Head],
    par: Par,
) -> Result<f64> {
    let ablation = ablation(without);
    let tokens = &repeated.tokens;
    let mut layers: Vec<usize> = induction.iter().map(|h| h.layer).collect();
    layers.sort_unstable();
    layers.dedup();
    let run = intervene(Run::new().par(par), model, tokens, &ablation, None)?;
    let run = layers
        .iter()
        .fold(run, |run, &l| run.cache(Hook::Pattern(l)));
    let out = model.run(tokens, run)?;
    let mut scores = PatternScores::new(model.config());
    for &l in &layers {
        scores.add(tokens, l, &out.cache[Hook::Pattern(l)])?;
    }
    let each = induction
        .iter()
        .filter_map(|&head| scores.of(head).induction);
    Ok(mean(&each.collect::<Vec<_>>()))
}
