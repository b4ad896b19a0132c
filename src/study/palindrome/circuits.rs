//! What the first layer's heads look for: their QK circuits over tokens and positions; and how the heads compose.

use super::lab::{Lab, mean};
use super::roles::Roles;
use crate::decompose::{
    Composition, CompositionBaseline, Distance, composition_baseline, composition_scores,
};
use crate::error::Result;
use crate::model::Run;
use crate::names::{Head, Hook, NormSite};
use crate::study::circuit::rows;
use crate::tensor::{Tensor, softmax_rows};
use serde::Serialize;

/// The QK circuits of the first layer's heads.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QkCircuits {
    /// The heads, that which is needed most first.
    pub heads: Vec<Head>,
    /// For each: scores between all tokens and positions, `[W_E; W_pos] W_QK [W_E; W_pos]^T`, `[query, key]`.
    pub full: Vec<Vec<Vec<f64>>>,
    /// For each: the softmax of the scores between the value tokens, in the run's scale.
    pub tokens: Vec<Vec<Vec<f64>>>,
    /// For each: the softmax of the scores between the values' positions, what comes later masked.
    pub positions: Vec<Vec<Vec<f64>>>,
    /// The share of value tokens that the comparing head, by tokens alone, looks for above all others.
    pub top1: f64,
    /// For each head, the share of value tokens that it, by tokens alone, looks for below all others.
    pub own_last: Vec<f64>,
    /// The second half's positions that the comparing head, by positions alone, sends to their mirrors before all
    /// others.
    pub mirror_first: Vec<usize>,
    /// Those that it sends to themselves before all others.
    pub self_first: Vec<usize>,
    /// For each position, the first norm's mean scale, over the sequences.
    pub scale_mean: Vec<f64>,
    /// And its sample standard deviation.
    pub scale_std: Vec<f64>,
}

impl QkCircuits {
    pub(super) fn of(lab: &Lab<'_>, roles: &Roles) -> Result<Self> {
        let heads: Vec<Head> = roles.first.iter().map(|a| a.head).collect();
        let scales = (0..lab.positions())
            .map(|p| crate::decompose::summary(&lab.scales(Hook::Scale(NormSite::Ln1(0)), p)));
        let scales: Vec<_> = scales.collect::<Result<_>>()?;
        let scale: Vec<f64> = scales.iter().map(|s| s.mean).collect();
        let all = mean(scale.iter().copied());

        let values = lab.task.start() as usize;
        let within = lab.end() - 1;
        let (mut full, mut tokens, mut positions) = (Vec::new(), Vec::new(), Vec::new());
        let mut own_last = Vec::new();
        for &head in &heads {
            let both = format!("[W_E; W_pos] W_QK[{head}] [W_E; W_pos]^T");
            full.push(rows(&lab.circuit(&both)?));
            let by_tokens = lab.token_scores(head, all)?;
            own_last.push(share_of(values, |t| {
                (0..values).all(|k| k == t || by_tokens[[t, k]] > by_tokens[[t, t]])
            }));
            tokens.push(softmax(Tensor::from_fn(&[values, values], |at| {
                by_tokens[[at[0], at[1]]]
            })));
            let by_positions = lab.circuit(&format!("W_pos W_QK[{head}] W_pos^T"))?;
            let sharpness = lab.model.config().score_scale(head.layer);
            positions.push(softmax(Tensor::from_fn(&[within, within], |at| {
                let (q, k) = (at[0] + 1, at[1] + 1);
                let score = by_positions[[q, k]] / (scale[q] * scale[k] * sharpness);
                if k <= q { score } else { f64::NEG_INFINITY }
            })));
        }
        let first = |key: &dyn Fn(usize) -> usize| -> Vec<usize> {
            let at = |&p: &usize| {
                let (row, key) = (&positions[0][p - 1], key(p) - 1);
                (0..row.len()).all(|k| k == key || row[k] < row[key])
            };
            lab.second_half().filter(at).collect()
        };
        Ok(QkCircuits {
            top1: top1(lab, roles)?,
            own_last,
            mirror_first: first(&|p| lab.end() - p),
            self_first: first(&|p| p),
            heads,
            full,
            tokens,
            positions,
            scale_mean: scale,
            scale_std: scales.iter().map(|s| s.std).collect(),
        })
    }
}

impl Lab<'_> {
    /// The attention scores of a head of the first layer between tokens, without positions, at a scale of the norm.
    fn token_scores(&self, head: Head, scale: f64) -> Result<Tensor<f64>> {
        let mut scores = self.circuit(&format!("W_E W_QK[{head}] W_E^T"))?;
        let divisor = scale * scale * self.model.config().score_scale(head.layer);
        scores.data_mut().iter_mut().for_each(|x| *x /= divisor);
        Ok(scores)
    }
}

/// The second write-up's share of value tokens that look for themselves, at its own scale.
fn top1(lab: &Lab<'_>, roles: &Roles) -> Result<f64> {
    const FIRST: usize = 5;
    let few = lab.data.hundred.sequences.tokens.clone().truncate(FIRST);
    let out = lab
        .model
        .run(&few, Run::new().cache(Hook::Scale(NormSite::Ln1(0))))?;
    let scale = mean(
        out.cache[Hook::Scale(NormSite::Ln1(0))]
            .data()
            .iter()
            .copied(),
    );
    let scores = lab.token_scores(roles.comparing(), scale)?;
    let values = lab.task.start() as usize;
    Ok(share_of(values, |t| {
        (0..values).all(|k| k == t || scores[[t, k]] < scores[[t, t]])
    }))
}

/// The share of so many of which something is so.
fn share_of(n: usize, so: impl Fn(usize) -> bool) -> f64 {
    (0..n).filter(|&i| so(i)).count() as f64 / n as f64
}

/// The softmax of every row.
fn softmax(mut scores: Tensor<f64>) -> Vec<Vec<f64>> {
    let columns = scores.shape()[1];
    softmax_rows(scores.data_mut(), columns);
    rows(&scores)
}

/// How much of what each head of the first layer writes each head of the second reads, by each of its inputs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// By queries: `[earlier, later]`, in the order of the roles.
    pub Q: Vec<Vec<f64>>,
    /// By keys.
    pub K: Vec<Vec<f64>>,
    /// By values.
    pub V: Vec<Vec<f64>>,
    /// What random heads of these sizes have.
    pub baseline: Baseline,
}

/// The composition scores of random matrices.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Baseline {
    /// The mean score.
    pub mean: f64,
    /// The standard deviation of a score.
    pub std: f64,
}

impl Scores {
    pub(super) fn of(lab: &Lab<'_>, roles: &Roles) -> Result<Self> {
        const SAMPLES: usize = 300;
        let c = lab.model.config();
        let scores = composition_scores(&lab.model, Distance::At(0), lab.par)?;
        let of = |kind: Composition| -> Vec<Vec<f64>> {
            let later = |earlier: Head| -> Vec<f64> {
                let second = roles.second.iter();
                second
                    .map(|later| scores.score(kind, earlier, later.head))
                    .collect()
            };
            roles
                .first
                .iter()
                .map(|earlier| later(earlier.head))
                .collect()
        };
        let CompositionBaseline { mean, std, .. } =
            composition_baseline(c.d_model, c.d_head, SAMPLES, 0, lab.par)?;
        Ok(Scores {
            Q: of(Composition::Q),
            K: of(Composition::K),
            V: of(Composition::V),
            baseline: Baseline { mean, std },
        })
    }
}
