//! The direction for "unbalanced", followed back: from the logits to before the last norm, and through a head.

use super::data::Data;
use super::written::{ANSWER, TALLY};
use crate::decompose::norm_fit;
use crate::error::Result;
use crate::linalg::{AffineFit, Par, affine_fit, product};
use crate::model::{Cache, Model, Run};
use crate::names::{Head, Hook, NormSite};
use crate::study::circuit::circuit;
use crate::tensor::Tensor;
use faer::{Mat, MatRef};
use serde::Serialize;

/// How well an affine map stands for a norm.
#[derive(Clone, Debug, Serialize)]
pub struct NormR2 {
    /// The norm: `ln_final`, `blocks.1.ln1`.
    pub norm: String,
    /// Where it was fitted: `0`, `1`, `brackets` or `all`.
    pub positions: String,
    /// The share of the output's variance that the fit explains, averaged over its entries.
    pub r2: f64,
    /// How many directions the input spreads in, of `d_model`.
    pub rank: usize,
}

/// The directions along which the stream says "unbalanced".
#[derive(Clone, Debug, Serialize)]
pub struct Directions {
    /// After the last norm: `W_U[:,0] - W_U[:,1]`.
    pub after_norm: Vec<f64>,
    /// Before it, at position 0: the same through the fitted norm.
    pub unbalanced: Vec<f64>,
    /// Before the last layer's first norm, at position 1: what the elevation head turns into `unbalanced`.
    pub pre_elevation: Vec<f64>,
    /// Before the same norm, at any bracket: what the negative head turns into `unbalanced`.
    pub pre_negative: Vec<f64>,
    /// The affine map in place of `ln_final`, at position 0.
    pub last: NormR2,
    /// In place of the last layer's `ln1`, at position 1.
    pub before_heads: NormR2,
    /// In place of the same norm, at all brackets.
    pub at_brackets: NormR2,
    /// In place of layer 0's `ln1`, at all positions.
    pub first: NormR2,
    /// In place of layer 1's `ln1`, at all positions.
    pub second: NormR2,
}

/// The affine maps that stand for the norms.
pub(super) struct Fits {
    /// `ln_final` at [`ANSWER`].
    pub last: AffineFit<f64>,
    /// The last layer's `ln1` at [`TALLY`].
    pub before_heads: AffineFit<f64>,
    /// The last layer's `ln1` at all brackets, of whatever position.
    pub at_brackets: AffineFit<f64>,
    /// Layer 0's `ln1` at all positions.
    pub first: AffineFit<f64>,
    /// Layer 1's `ln1` at all positions.
    pub second: AffineFit<f64>,
}

impl Fits {
    pub fn new(model: &Model<f64>, data: &Data, par: Par) -> Result<Self> {
        let (config, tokens) = (model.config(), &data.tokens);
        let last = config.n_layers - 1;
        let every: Vec<usize> = (0..tokens.pos()).collect();
        let cache = |hooks: [Hook; 2]| {
            let run = hooks
                .iter()
                .fold(Run::new().par(par), |run, hook| run.cache(hook));
            Ok(model.run(tokens, run)?.cache)
        };
        let fit = |site, cache: &Cache<f64>, positions: &[usize]| {
            Ok(norm_fit(config, cache, site, positions)?.map)
        };
        let ln1 = |l| [Hook::ResidPre(l), Hook::Normalized(NormSite::Ln1(l))];
        let all_of = |l| fit(NormSite::Ln1(l), &cache(ln1(l))?, &every);
        let ends = cache([Hook::ResidPost(last), Hook::Normalized(NormSite::Final)])?;
        let heads = cache(ln1(last))?;
        let [input, output] = ln1(last).map(|hook| at_brackets(&heads[hook], data));
        let at_brackets = || affine_fit(input.as_ref(), output.as_ref());
        let (at_brackets, (first, second)) =
            par.both(at_brackets, || par.both(|| all_of(0), || all_of(1)));
        Ok(Fits {
            last: fit(NormSite::Final, &ends, &[ANSWER])?,
            before_heads: fit(NormSite::Ln1(last), &heads, &[TALLY])?,
            at_brackets: at_brackets?,
            first: first?,
            second: second?,
        })
    }

    /// The direction before the last norm that becomes `W_U[:,0] - W_U[:,1]` after it.
    pub fn unbalanced(&self, model: &Model<f64>) -> Result<[Vec<f64>; 2]> {
        let after = circuit(model, "W_U[:,0] - W_U[:,1]")?.into_data();
        let before = self.last.carry_back(&after);
        Ok([after, before])
    }

    /// What a last-layer head must find to write along `direction`: at [`TALLY`], and at any bracket.
    pub fn through(
        &self,
        model: &Model<f64>,
        head: Head,
        direction: &[f64],
    ) -> Result<[Vec<f64>; 2]> {
        let W_OV = circuit(model, &format!("W_OV[{head}]"))?;
        let d = MatRef::from_column_major_slice(direction, direction.len(), 1);
        let read: Vec<f64> = product(W_OV.rows(), d).col(0).iter().copied().collect();
        Ok([&self.before_heads, &self.at_brackets].map(|fit| fit.carry_back(&read)))
    }

    /// The directions that the fits lead back, and how good these are.
    pub fn directions(
        &self,
        model: &Model<f64>,
        [after_norm, unbalanced]: [Vec<f64>; 2],
        [pre_elevation, pre_negative]: [Vec<f64>; 2],
    ) -> Directions {
        let last = model.config().n_layers - 1;
        let good = |norm: &str, positions: &str, fit: &AffineFit<f64>| NormR2 {
            norm: norm.into(),
            positions: positions.into(),
            r2: fit.mean_r2(),
            rank: fit.rank,
        };
        Directions {
            after_norm,
            unbalanced,
            pre_elevation,
            pre_negative,
            last: good("ln_final", &ANSWER.to_string(), &self.last),
            before_heads: good(
                &format!("blocks.{last}.ln1"),
                &TALLY.to_string(),
                &self.before_heads,
            ),
            at_brackets: good(&format!("blocks.{last}.ln1"), "brackets", &self.at_brackets),
            first: good("blocks.0.ln1", "all", &self.first),
            second: good("blocks.1.ln1", "all", &self.second),
        }
    }
}

/// A value's rows at the brackets of all sequences.
fn at_brackets(value: &Tensor<f64>, data: &Data) -> Mat<f64> {
    let brackets =
        (0..data.lengths.len()).flat_map(|s| (1..data.lengths[s] - 1).map(move |p| [s, p]));
    let rows: Vec<&[f64]> = brackets.map(|place| value.slice(&place)).collect();
    Mat::from_fn(rows.len(), value.shape()[2], |i, j| rows[i][j])
}
