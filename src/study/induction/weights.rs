//! What the weights alone say: who reads whom, and whether a token is found by the one before it.

use super::Repeated;
use crate::decompose::{
    Composition, CompositionScores, Distance, TokenCircuits, composition_scores, query_key,
    value_output,
};
use crate::error::{Error, Result};
use crate::linalg::{Par, product_with};
use crate::metric::mean;
use crate::model::{Config, Model};
use crate::names::Head;
use crate::tensor::Scalar;
use faer::Mat;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use serde::Serialize;

/// How much induction heads read of earlier heads by one of their inputs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Reads {
    /// The mean score with previous-token heads.
    pub previous: f64,
    /// With all other earlier heads.
    pub others: f64,
    /// The mean share of other earlier heads whose score is below that of a previous-token head.
    pub above: f64,
}

/// What induction heads read of earlier heads.
#[derive(Clone, Debug, Serialize)]
pub struct Composed {
    /// How far a key is behind its query.
    pub distance: usize,
    /// By queries, keys and values.
    pub by: [Reads; 3],
    /// The previous-token heads, and the induction heads of layers behind some of them.
    pub heads: [Vec<String>; 2],
    /// The scores by keys, `[previous-token head][induction head]`; nothing where the one is not before the other.
    pub keys: Vec<Vec<Option<f64>>>,
}

/// How far the key that an induction head looks for is behind its query, where that matters.
fn distance(c: &Config, repeated: &Repeated) -> Distance {
    match c.rotary() {
        true => Distance::At(repeated.period - 1),
        false => Distance::At(0),
    }
}

impl Composed {
    pub(super) fn of<T: Scalar>(
        model: &Model<T>,
        repeated: &Repeated,
        heads: &[Head],
        (induction, previous): (&[Head], &[Head]),
        par: Par,
    ) -> Result<Option<Self>> {
        let pairs = |earlier: &[Head]| -> Vec<(Head, Head)> {
            let with = |&later: &Head| {
                let earlier = earlier.iter().filter(move |h| h.layer < later.layer);
                earlier.map(move |&h| (h, later)).collect::<Vec<_>>()
            };
            induction.iter().flat_map(with).collect()
        };
        if pairs(previous).is_empty() {
            return Ok(None);
        }
        let others: Vec<Head> = (heads.iter().copied())
            .filter(|h| !previous.contains(h))
            .collect();
        let at = distance(model.config(), repeated);
        let scores = composition_scores(model, at, par)?;
        let reads = |kind| reads(&scores, kind, &pairs(previous), &pairs(&others));
        let later: Vec<Head> = (induction.iter().copied())
            .filter(|own| previous.iter().any(|h| h.layer < own.layer))
            .collect();
        let words = |heads: &[Head]| heads.iter().map(Head::to_string).collect::<Vec<_>>();
        let row = |&h: &Head| -> Vec<Option<f64>> {
            let of = |&own: &Head| {
                let before = h.layer < own.layer;
                before.then(|| scores.score(Composition::K, h, own).to_f64())
            };
            later.iter().map(of).collect()
        };
        Ok(Some(Composed {
            distance: match at {
                Distance::At(n) | Distance::MeanTo(n) => n,
            },
            by: Composition::ALL.map(reads),
            keys: previous.iter().map(row).collect(),
            heads: [words(previous), words(&later)],
        }))
    }
}

fn reads<T: Scalar>(
    scores: &CompositionScores<T>,
    kind: Composition,
    previous: &[(Head, Head)],
    others: &[(Head, Head)],
) -> Reads {
    let of = |&(earlier, later): &(Head, Head)| scores.score(kind, earlier, later).to_f64();
    let all = |pairs: &[(Head, Head)]| -> Vec<f64> { pairs.iter().map(of).collect() };
    let above = |pair: &(Head, Head)| {
        let rivals = others.iter().filter(|(_, later)| *later == pair.1);
        let rivals: Vec<f64> = rivals
            .map(|rival| f64::from(u8::from(of(rival) < of(pair))))
            .collect();
        // Where there are no others it is above all of them.
        if rivals.is_empty() {
            1.0
        } else {
            mean(&rivals)
        }
    };
    let above: Vec<f64> = previous.iter().map(above).collect();
    Reads {
        previous: mean(&all(previous)),
        others: mean(&all(others)),
        above: mean(&above),
    }
}

/// How many tokens are drawn for [`Matching`].
pub const SAMPLE: usize = 200;

/// How often an induction head's query finds its own token in what an earlier head writes of the token before.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// The induction head.
    pub induction: String,
    /// The previous-token head with which it finds most.
    pub previous: String,
    /// The share of tokens whose own score is the highest of all.
    pub share: f64,
}

/// Whether the weights alone find a token by the one before it.
#[derive(Clone, Debug, Serialize)]
pub struct Matching {
    /// How many tokens were tried.
    pub tokens: usize,
    /// Of each induction head with a previous-token head before it.
    pub found: Vec<Found>,
}

impl Matching {
    /// Scores of queries that are a token alone with keys that are what a previous-token head makes of a token: `W_E W_QK`
    /// turned by the distance, with `(W_E W_OV)ᵀ`.
    pub(super) fn of<T: Scalar>(
        model: &Model<T>,
        repeated: &Repeated,
        (induction, previous): (&[Head], &[Head]),
        par: Par,
    ) -> Result<Option<Self>> {
        let c = model.config();
        let circuits = match TokenCircuits::new(model) {
            Ok(circuits) => circuits,
            Err(Error::NotCovered(_)) => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let n = SAMPLE.min(c.d_vocab);
        let mut all: Vec<usize> = (0..c.d_vocab).collect();
        let (drawn, _) = all.partial_shuffle(&mut rng, n);
        let W_E = circuits.W_E();
        let rows = Mat::from_fn(n, c.d_model, |i, j| W_E[(drawn[i], j)]);
        let mut found = Vec::new();
        for &head in induction {
            let QK = query_key(model, head, distance(c, repeated))?;
            let queries = product_with(rows.as_ref(), QK.A(), par);
            let mut best: Option<Found> = None;
            for &before in previous.iter().filter(|h| h.layer < head.layer) {
                let OV = value_output(model, before)?;
                let written = product_with(
                    product_with(rows.as_ref(), OV.A(), par).as_ref(),
                    OV.B(),
                    par,
                );
                let keys = product_with(written.as_ref(), QK.B().transpose(), par);
                let scores = product_with(queries.as_ref(), keys.transpose(), par);
                let share = own_is_highest(&scores);
                if best.as_ref().is_none_or(|found| share > found.share) {
                    best = Some(Found {
                        induction: head.to_string(),
                        previous: before.to_string(),
                        share,
                    });
                }
            }
            found.extend(best);
        }
        Ok((!found.is_empty()).then_some(Matching { tokens: n, found }))
    }
}

/// The share of rows whose highest entry is on the diagonal.
fn own_is_highest<T: Scalar>(scores: &Mat<T>) -> f64 {
    let n = scores.nrows();
    let own = |i: &usize| (0..n).all(|j| j == *i || scores[(*i, j)] < scores[(*i, *i)]);
    (0..n).filter(own).count() as f64 / n as f64
}
