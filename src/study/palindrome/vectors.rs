//! The difference vectors: what the comparing head writes at a value when it finds no mirror, less what it writes
//! when it does; and what the second layer makes of them.

use super::lab::{Lab, OTHER, mean};
use super::roles::Roles;
use crate::decompose::{
    Histogram, OfClass, Summary, histogram_by_class, summary, summary_by_class,
};
use crate::error::Result;
use crate::eval::Source;
use crate::linalg::{Par, cosines, product};
use crate::model::Run;
use crate::names::{Head, Hook, NormSite};
use crate::study::circuit::{circuits_of, rows};
use crate::tensor::Tensor;
use faer::Mat;
use serde::Serialize;

/// The share of attention that the write-up takes the comparing head to move, on pairs of its own.
pub const PUBLISHED_SHARE: f64 = 0.373;

/// Which place a value sequence and a position the second write-up prints a single value of.
const EXAMPLE: [usize; 2] = [2, 13];

/// As many bins as the second write-up's histograms have.
const BINS: usize = 50;

/// The difference vectors of the second half's positions, and where they lead.
///
/// `v_i = (W_pos[i] / s_i - W_pos[m] / s_m) W_OV` of the comparing head, with `m` the mirror of `i` and `s` the mean
/// scales of the first layer's norm: what the position alone tells of where the head looked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Vectors {
    /// The second half's positions, in whose order all else is.
    pub positions: Vec<usize>,
    /// The second layer's heads, that which is needed most first.
    pub heads: Vec<Head>,
    /// The cosine of each head's mean query at `END` with its key of each vector.
    pub key_cosines: Vec<Vec<f64>>,
    /// What one unit of each vector, read through each head's values, adds to the logit difference, "other" less
    /// "palindrome".
    pub attribution: Vec<Vec<f64>>,
    /// The vectors' cosines with one another.
    pub cosines: Vec<Vec<f64>>,
    /// Positions whose vectors do not raise the collecting head's attention as most do.
    pub weak: Vec<usize>,
    /// The standard deviation of the cosine of two random vectors as long as keys are, `1 / sqrt(d_head)`.
    pub key_chance: f64,
    /// And of two that are as long as the stream is, `1 / sqrt(d_model)`.
    pub vector_chance: f64,
}

impl Vectors {
    pub(super) fn of(lab: &Lab<'_>, roles: &Roles) -> Result<Self> {
        let positions: Vec<usize> = lab.second_half().collect();
        let written = lab.circuit(&format!("W_pos W_OV[{}]", roles.comparing()))?;
        let scale = |p: usize| lab.mean_scale(Hook::Scale(NormSite::Ln1(0)), p);
        let vectors = Mat::from_fn(positions.len(), written.shape()[1], |n, j| {
            let (i, mirror) = (positions[n], lab.end() - positions[n]);
            written[[i, j]] / scale(i) - written[[mirror, j]] / scale(mirror)
        });
        // As the second layer sees them.
        let seen_at: Vec<f64> = (positions.iter())
            .map(|&i| lab.mean_scale(Hook::Scale(NormSite::Ln1(1)), i))
            .collect();
        let seen = Mat::from_fn(positions.len(), vectors.ncols(), |n, j| {
            vectors[(n, j)] / seen_at[n]
        });
        let classes = lab.classes();
        let at_end = lab.scales(Hook::Scale(NormSite::Final), lab.end());
        let others = at_end.iter().zip(classes).filter(|(_, c)| **c == OTHER);
        let last = mean(others.map(|(&scale, _)| scale));

        let query = &lab.out.cache[Hook::Q(1)];
        let heads: Vec<Head> = roles.second.iter().map(|a| a.head).collect();
        let (mut key_cosines, mut attribution) = (Vec::new(), Vec::new());
        for &head in &heads {
            let keys = product(seen.as_ref(), lab.model.weights().W_K(head));
            let mean_query = Mat::from_fn(1, keys.ncols(), |_, j| {
                mean((0..query.shape()[0]).map(|s| query[[s, lab.end(), head.head, j]]))
            });
            let cosine = cosines(mean_query.as_ref(), keys.as_ref(), Par::Seq);
            key_cosines.push(cosine.row(0).iter().copied().collect::<Vec<f64>>());
            let reader = lab.circuit(&format!("W_OV[{head}] (W_U[:,0] - W_U[:,1])"))?;
            let along = product(seen.as_ref(), reader.mat(&[]));
            attribution.push(along.col(0).iter().map(|x| x / last).collect());
        }
        let weak = weak(&positions, &key_cosines[0]);
        let chance = |n: usize| 1.0 / (n as f64).sqrt();
        Ok(Vectors {
            key_chance: chance(lab.model.config().d_head),
            vector_chance: chance(lab.model.config().d_model),
            cosines: rows(&Tensor::from_mat(
                cosines(vectors.as_ref(), vectors.as_ref(), Par::Seq).as_ref(),
            )),
            positions,
            heads,
            key_cosines,
            attribution,
            weak,
        })
    }

    /// What each vector, so many times, adds to the logit difference through each head.
    pub fn attribution_of(&self, share: f64) -> Vec<Vec<f64>> {
        let scaled = |of: &Vec<f64>| of.iter().map(|x| share * x).collect();
        self.attribution.iter().map(scaled).collect()
    }

    /// The places of the positions that are not weak.
    pub fn strong(&self) -> Vec<usize> {
        let strong = |n: &usize| !self.weak.contains(&self.positions[*n]);
        (0..self.positions.len()).filter(strong).collect()
    }

    /// Whether a position is weak, in the order of the positions.
    pub fn is_weak(&self) -> Vec<bool> {
        let weak = |p| self.weak.contains(p);
        self.positions.iter().map(weak).collect()
    }
}

/// The positions whose cosine is not more than half of the median, on its side of zero.
fn weak(positions: &[usize], cosines: &[f64]) -> Vec<usize> {
    let median = summary(cosines).map_or(0.0, |s| s.median);
    let at = positions.iter().zip(cosines);
    at.filter(|(_, c)| **c * median.signum() <= median.abs() / 2.0)
        .map(|(&p, _)| p)
        .collect()
}

/// The composed circuits from positions to the logits and to `END`'s attention, and values through them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Composed {
    /// `W_pos W_OV[0.0] W_OV[1.0] (W_U[:,0] - W_U[:,1])`, for every position.
    pub to_logits: Vec<f64>,
    /// `W_pos[-1] W_QK[1.0] W_OV[0.0]^T W_pos^T`, for every position.
    pub to_attention: Vec<f64>,
    /// For every position, how the comparing head's values there, through the collecting head, push the logit
    /// difference: the mean over a hundred sequences.
    pub values: Vec<f64>,
    /// And the sample standard deviation.
    pub values_std: Vec<f64>,
    /// One of these values, that which the second write-up prints.
    pub example: f64,
    /// What the comparing head writes, through the collecting head to the logit difference: the mean over a sequence's
    /// positions, by class.
    pub written: Vec<OfClass<usize, Summary>>,
    /// The same, in bins that both have.
    pub written_bins: Histogram<usize>,
}

impl Composed {
    pub(super) fn of(lab: &Lab<'_>, roles: &Roles) -> Result<Self> {
        let (comparing, collecting) = (roles.comparing(), roles.collecting());
        let onwards = format!("W_OV[{collecting}] (W_U[:,0] - W_U[:,1])");
        let to_logits = lab.circuit(&format!("W_pos W_OV[{comparing}] {onwards}"))?;
        let to_attention = lab.circuit(&format!(
            "W_pos[-1] W_QK[{collecting}] W_OV[{comparing}]^T W_pos^T"
        ))?;
        let tokens = &lab.data.hundred.sequences.tokens;
        let run = Run::new()
            .par(lab.par)
            .cache(Hook::V(comparing.layer))
            .cache(Hook::Z(comparing.layer));
        let out = lab.model.run(tokens, run)?;
        let of_run = |text: String| -> Result<Vec<Tensor<f64>>> {
            (0..tokens.batch())
                .map(|s| Ok(circuits_of(&Source::run(&lab.model, &out, s), &text)?.swap_remove(0)))
                .collect()
        };
        let through = of_run(format!("v[{comparing}] W_O[{comparing}] {onwards}"))?;
        let written = of_run(format!("z[{comparing}] W_O[{comparing}] {onwards}"))?;
        let written: Vec<f64> = written
            .iter()
            .map(|M| mean(M.data().iter().copied()))
            .collect();
        let answers = &lab.data.hundred.sequences.answers;
        let classes = answers.classes().expect("labelled sequences have classes");
        let at: Vec<_> = (0..lab.positions())
            .map(|p| summary(&through.iter().map(|M| M[[p, 0]]).collect::<Vec<f64>>()))
            .collect::<Result<_>>()?;
        let [sequence, position] = EXAMPLE;
        Ok(Composed {
            to_logits: to_logits.into_data(),
            to_attention: to_attention.into_data(),
            values: at.iter().map(|s| s.mean).collect(),
            values_std: at.iter().map(|s| s.std).collect(),
            example: through.get(sequence).map_or(f64::NAN, |M| M[[position, 0]]),
            written: summary_by_class(&written, classes)?,
            written_bins: histogram_by_class(&written, classes, BINS)?,
        })
    }

    /// The mean over the values' positions of the standard deviations.
    pub fn values_spread(&self) -> f64 {
        let last = self.values_std.len() - 1;
        mean(self.values_std[1..last].iter().copied())
    }

    /// The standard deviation over the values' positions of the means.
    pub fn positions_spread(&self) -> f64 {
        let last = self.values.len() - 1;
        summary(&self.values[1..last]).map_or(f64::NAN, |s| s.std)
    }
}
