//! Induction: what came once is foretold when it comes again. Which heads of a language model do it, by what they attend to
//! on repeated random tokens and by the weights alone; and what is lost without them.
//!
//! # Source
//! Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021); Olsson et al., "In-context Learning and
//! Induction Heads" (2022).

mod ablation;
mod repeated;
mod story;
mod weights;

pub use ablation::{Ablated, Ablations, DRAWS};
pub use repeated::{Losses, Repeated};
pub use weights::{Composed, Found, Matching, Reads, SAMPLE};

use super::Announce;
use crate::decompose::{PatternScore, copying_scores};
use crate::error::{Error, Result};
use crate::linalg::Par;
use crate::model::{Config, Model};
use crate::names::Head;
use crate::tensor::{Scalar, check_room};

/// How many parts [`study`] reports.
pub const PARTS: usize = 4;

/// The least attention, on average, by which a head is called an induction or a previous-token head.
pub const LOOKS: f64 = 0.4;

/// What the study of induction found.
#[derive(Clone, Debug)]
pub struct InductionStudy {
    /// The model's configuration.
    pub config: Config,
    /// The precision of its numbers: `f32`.
    pub dtype: String,
    /// The sequences.
    pub repeated: Repeated,
    /// Every head, layer by layer.
    pub heads: Vec<Head>,
    /// The loss of each token.
    pub losses: Losses,
    /// What each head's patterns say of it.
    pub scores: Vec<PatternScore>,
    /// Whether each head copies; where the model's logits are of its tokens.
    pub copying: Option<Vec<f64>>,
    /// The induction heads, those that attend most first.
    pub induction: Vec<Head>,
    /// The previous-token heads, likewise.
    pub previous: Vec<Head>,
    /// What induction heads read of earlier heads, by the weights; where there are both kinds.
    pub composed: Option<Composed>,
    /// Whether the weights alone find a token by the one before it.
    pub matching: Option<Matching>,
    /// What is lost without these heads; where there are induction heads.
    pub ablations: Option<Ablations>,
}

/// Studies a model's induction heads on repeated sequences.
///
/// # Errors
/// When the model has no layers or not the sequences' tokens, and when there is not memory enough.
///
/// # Cost
/// About a dozen runs of the sequences, the composition scores of all pairs of heads and the copying scores of all heads.
pub fn study<T: Scalar>(
    model: &Model<T>,
    repeated: Repeated,
    par: Par,
    progress: Announce<'_>,
) -> Result<InductionStudy> {
    let c = model.config();
    if c.n_layers == 0 {
        return Err(Error::NotInModel("layers".into()));
    }
    repeated.tokens.check(c)?;
    let positions = (repeated.tokens.batch() * repeated.tokens.pos()) as u64;
    // A run with closures has all logits at once, as it has all patterns of a layer.
    let wide = c.d_vocab_out + c.n_heads * repeated.tokens.pos();
    check_room(
        positions * wide as u64 * size_of::<T>() as u64,
        "a run of the sequences",
    )?;
    let heads: Vec<Head> = c.dims().heads().collect();
    progress("running the sequences");
    let (losses, scores) = repeated::run(model, &repeated, par)?;
    let by = |of: &dyn Fn(&PatternScore) -> Option<f64>| {
        let own = heads.iter().zip(&scores);
        let mut own: Vec<(Head, f64)> = own
            .filter_map(|(&head, score)| Some((head, of(score)?)))
            .filter(|(_, score)| *score >= LOOKS)
            .collect();
        own.sort_by(|a, b| b.1.total_cmp(&a.1));
        own.into_iter().map(|(head, _)| head).collect::<Vec<_>>()
    };
    let induction = by(&|score| score.induction);
    let previous = by(&|score| score.previous);
    progress("copying");
    let copying = match copying_scores(model, par, &|_| ()) {
        Ok(scores) => Some(scores),
        Err(Error::NotCovered(_)) => None,
        Err(e) => return Err(e),
    };
    progress("composition");
    let kinds = (&induction[..], &previous[..]);
    let composed = Composed::of(model, &repeated, &heads, kinds, par)?;
    let matching = Matching::of(model, &repeated, kinds, par)?;
    progress("ablating");
    let ablations = match induction.is_empty() {
        true => None,
        false => Some(Ablations::of(model, &repeated, &heads, kinds, par)?),
    };
    Ok(InductionStudy {
        config: c.clone(),
        dtype: T::PRECISION.to_string(),
        heads,
        losses,
        scores,
        copying,
        composed,
        matching,
        ablations,
        induction,
        previous,
        repeated,
    })
}
