//! Models that come with the crate: constructed or trained on the write-ups' tasks, small, embedded.

use crate::error::{Error, Result};
use crate::model::{Config, Model, Tokens, Weights};
use crate::tensor::{Scalar, Tensor, TensorFile};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use std::fmt;
use std::str::FromStr;

/// An embedded model, written `fixture:NAME` wherever the program takes a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fixture {
    /// [`induction`]
    Induction,
    /// Trained to tell palindromes: the task and the architecture of the July 2023 monthly algorithmic challenge.
    Palindrome,
    /// Trained to sort lists: those of the October 2023 challenge.
    SortedList,
    /// Trained to tell balanced brackets: those of the balanced bracket classifier.
    Brackets,
    /// Trained on half of all pairs of integers: those of the second challenge of "EIS VII", on labels of our own.
    TwoInteger,
}

/// The two files of an embedded model.
macro_rules! files {
    ($name:literal) => {
        (
            include_str!(concat!("../fixtures/", $name, "/config.json")),
            include_bytes!(concat!("../fixtures/", $name, "/model.safetensors")).as_slice(),
        )
    };
}

impl Fixture {
    /// Every embedded model.
    pub const ALL: [Fixture; 5] = [
        Fixture::Induction,
        Fixture::Palindrome,
        Fixture::SortedList,
        Fixture::Brackets,
        Fixture::TwoInteger,
    ];

    /// The model, from its embedded files.
    pub fn load<T: Scalar>(self) -> Model<T> {
        let (config, weights) = match self {
            Fixture::Induction => files!("induction"),
            Fixture::Palindrome => files!("palindrome"),
            Fixture::SortedList => files!("sorted_list"),
            Fixture::Brackets => files!("brackets"),
            Fixture::TwoInteger => files!("two_integer"),
        };
        let read = || {
            let config = Config::from_json(config)?;
            Model::from_file(
                config,
                &TensorFile::from_bytes("embedded", weights.to_vec())?,
            )
        };
        read().expect("an embedded model is sound")
    }
}

impl fmt::Display for Fixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fixture::Induction => "induction",
            Fixture::Palindrome => "palindrome",
            Fixture::SortedList => "sorted_list",
            Fixture::Brackets => "brackets",
            Fixture::TwoInteger => "two_integer",
        })
    }
}

impl FromStr for Fixture {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let names = Fixture::ALL.map(|f| f.to_string());
        let found = Fixture::ALL.into_iter().find(|f| f.to_string() == s);
        found.ok_or_else(|| Error::unknown("fixture", s, names.iter().map(String::as_str)))
    }
}

/// Tokens of the induction model.
const VOCAB: usize = 16;
/// Its context: a sequence of every token once, and again.
const CONTEXT: usize = 2 * VOCAB;
/// The residual stream's four parts: the current token, the position, the token before, the prediction;
/// each a one-hot.
const TOKEN: usize = 0;
const POSITION: usize = VOCAB;
const PREVIOUS: usize = POSITION + CONTEXT;
const PREDICTION: usize = PREVIOUS + VOCAB;
const D_MODEL: usize = PREDICTION + VOCAB;
/// How far above every other key the key that a head looks for scores. At 24, softmax leaves the others
/// `e^-24`, 4e-11, each.
const SCORE_GAP: f64 = 24.0;
/// How far above every other logit the predicted token's is: `15 e^-12`, 1e-4, is left for the others.
const LOGIT_GAP: f64 = 12.0;

/// A two-layer attention-only transformer with an induction head, constructed.
///
/// On a sequence of distinct tokens that is repeated it predicts each repeated token. Its weights are
/// chosen, not trained, so that what each head does is known beforehand:
///
/// - The stream `[80]` is four one-hots side by side: current token `[16]`, position `[32]`, previous
///   token `[16]`, prediction `[16]`. `W_E` writes the first, `W_pos` the second.
/// - A stream of `n` ones has the mean `m = n/80` and the scale `s = sqrt(m - m² + eps)`, whichever ones
///   they are. Each LayerNorm has `w = s` and `b = m`, and so undoes itself: the heads read the one-hots.
/// - Head 0.0 looks at the position before: `W_Q` takes position `p` to `p`, `W_K` position `p` to
///   `p + 1`, each scaled so that the match scores 24 above the rest. `W_V W_O` copies the token there
///   into the "previous token" part. The first position can only look at itself.
/// - Head 1.0 looks for the position whose previous token is the current token: `W_Q` reads the current
///   token, `W_K` the previous one. The first position has none, and its key is pushed down. `W_V W_O`
///   copies the token there into the "prediction" part.
/// - `W_U` reads the prediction, scaled so that the predicted token's logit is 12 above the rest.
///
/// Source of the mechanism: Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021).
pub fn induction<T: Scalar>() -> Model<T> {
    let config = Config::from_json(&format!(
        r#"{{"n_layers": 2, "d_model": {D_MODEL}, "n_ctx": {CONTEXT}, "d_head": {CONTEXT}, "n_heads": 1,
            "d_vocab": {VOCAB}, "attn_only": true}}"#
    ))
    .expect("a constant");
    // Q and K share the gap; the scores are divided by attn_scale afterwards.
    let gain = T::from_f64((SCORE_GAP * config.attn_scale).sqrt());
    let one = T::ONE;
    let eps = config.eps;
    let undo = |ones: usize| {
        let mean = ones as f64 / D_MODEL as f64;
        let scale = (mean - mean * mean + eps).sqrt();
        let full = |x| Tensor::full(&[D_MODEL], T::from_f64(x));
        Some(crate::model::Norm {
            w: full(scale),
            b: full(mean),
        })
    };

    let mut w = Weights::zeros(&config);
    for t in 0..VOCAB {
        w.W_E[[t, TOKEN + t]] = one;
        w.W_U[[PREDICTION + t, t]] = T::from_f64(LOGIT_GAP);
    }
    for p in 0..CONTEXT {
        w.W_pos[[p, POSITION + p]] = one;
    }

    let previous = &mut w.blocks[0];
    previous.ln1 = undo(2);
    for p in 0..CONTEXT {
        previous.attn.W_Q[[POSITION + p, 0, p]] = gain;
        if p + 1 < CONTEXT {
            previous.attn.W_K[[POSITION + p, 0, p + 1]] = gain;
        }
    }
    for t in 0..VOCAB {
        previous.attn.W_V[[TOKEN + t, 0, t]] = one;
        previous.attn.W_O[[0, t, PREVIOUS + t]] = one;
    }

    let induction = &mut w.blocks[1];
    induction.ln1 = undo(3);
    for t in 0..VOCAB {
        induction.attn.W_Q[[TOKEN + t, 0, t]] = gain;
        induction.attn.W_K[[PREVIOUS + t, 0, t]] = gain;
        induction.attn.W_K[[POSITION, 0, t]] = -(gain + gain);
        induction.attn.W_V[[TOKEN + t, 0, t]] = one;
        induction.attn.W_O[[0, t, PREDICTION + t]] = one;
    }
    w.ln_final = undo(4);
    Model::new(config, w).expect("built from the configuration")
}

/// Seeded sequences for [`induction`]: `period` distinct random tokens, and again.
///
/// # Panics
/// When `period` is 0 or larger than the vocabulary.
#[track_caller]
pub fn repeated_sequences(batch: usize, period: usize, seed: u64) -> Tokens {
    assert!(
        (1..=VOCAB).contains(&period),
        "{period} distinct tokens of {VOCAB}"
    );
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut ids = Vec::with_capacity(2 * batch * period);
    for _ in 0..batch {
        let mut all: Vec<i64> = (0..VOCAB as i64).collect();
        all.shuffle(&mut rng);
        ids.extend_from_slice(&all[..period]);
        ids.extend_from_slice(&all[..period]);
    }
    Tokens::new(batch, 2 * period, ids)
}
