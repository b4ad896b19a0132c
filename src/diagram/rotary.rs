//! Rotary positions: which entries are turned, by which angles.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Rotary positions: entries of a head's queries and keys are turned in pairs, by `position · angle`.
///
/// Source: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding" (2021).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RotaryPositions {
    /// How many of a head's entries are turned, the first ones.
    pub dim: usize,
    /// The pair `f` is turned by `base^(-2f / dim)` a position.
    pub base: f64,
    /// Which entries are pairs.
    pub pairing: Pairing,
    /// What becomes of the angles in longer contexts.
    pub scaling: RotaryScaling,
    /// Whether the angles a position are f32 whatever the model's precision, as in GPT-J.
    pub f32_angles: bool,
}

/// Which entries are turned together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pairing {
    /// Each of the first half with its counterpart in the second, as in GPT-NeoX and LLaMA.
    Halves,
    /// Each even one with the next, as in GPT-J.
    Neighbours,
}

/// How angles are scaled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RotaryScaling {
    /// They are not.
    None,
    /// All divided by a factor.
    Linear(f64),
    /// LLaMA 3's, by parts: slow ones are divided by `factor`, fast ones are left, those between in between.
    ByParts {
        /// What slow angles are divided by.
        factor: f64,
        /// Those that turn fewer times than this in the original context are slow.
        low: f64,
        /// Those that turn more often are fast.
        high: f64,
        /// The context that the model was first trained on.
        original: f64,
    },
    /// Each divided by a factor of its own, of one list in sequences up to a length and of another in longer ones; and
    /// what is turned is multiplied by `scale`, as in Phi-3.
    ///
    /// Source: Ding et al., "LongRoPE" (2024).
    ByLength {
        /// Factors of the angles in sequences of at most `original` tokens.
        short: Vec<f64>,
        /// In longer ones.
        long: Vec<f64>,
        /// The context that the model was first trained on.
        original: usize,
        /// What turned entries are multiplied by.
        scale: f64,
    },
}

impl RotaryPositions {
    /// Radians by which a position turns each pair, in sequences of so many tokens.
    pub(crate) fn angles(&self, length: usize) -> Vec<f64> {
        let angle = |f: usize| self.base.powf(-2.0 * f as f64 / self.dim as f64);
        let scaled = |f: usize| self.scaling.of(f, angle(f), length);
        let rounded = |angle: f64| match self.f32_angles {
            true => f64::from(angle as f32),
            false => angle,
        };
        (0..self.dim / 2).map(|f| rounded(scaled(f))).collect()
    }

    /// What turned entries are multiplied by.
    pub(crate) fn scale(&self) -> f64 {
        match self.scaling {
            RotaryScaling::ByLength { scale, .. } => scale,
            RotaryScaling::None | RotaryScaling::Linear(_) | RotaryScaling::ByParts { .. } => 1.0,
        }
    }

    /// The pairs of entries that are turned together, in the order of the angles.
    pub(crate) fn pairs(&self) -> Vec<(usize, usize)> {
        let pair = |f: usize| match self.pairing {
            Pairing::Halves => (f, f + self.dim / 2),
            Pairing::Neighbours => (2 * f, 2 * f + 1),
        };
        (0..self.dim / 2).map(pair).collect()
    }

    pub(super) fn check(&self, d_head: usize) -> Result<()> {
        let refuse = |field: &'static str, reason: String| Err(Error::Config { field, reason });
        if self.dim == 0 || self.dim % 2 == 1 || self.dim > d_head {
            let reason = format!("{}, expected an even number up to d_head", self.dim);
            return refuse("rotary_dim", reason);
        }
        if !(self.base > 0.0 && self.base.is_finite()) {
            let reason = format!("{}, expected a positive number", self.base);
            return refuse("rotary_base", reason);
        }
        let fair = |x: f64| x > 0.0 && x.is_finite();
        let factors: &[f64] = match &self.scaling {
            RotaryScaling::None => &[],
            RotaryScaling::Linear(factor) => &[*factor],
            RotaryScaling::ByParts {
                factor,
                low,
                high,
                original,
            } => &[*factor, *low, *high, *original],
            RotaryScaling::ByLength {
                short, long, scale, ..
            } => {
                for list in [short, long] {
                    if list.len() != self.dim / 2 {
                        let reason = format!("{} factors, expected {}", list.len(), self.dim / 2);
                        return refuse("rope_scaling", reason);
                    }
                }
                &[short.as_slice(), long, &[*scale]].concat()
            }
        };
        match factors.iter().find(|&&x| !fair(x)) {
            Some(x) => refuse("rope_scaling", format!("{x}, expected a positive number")),
            None => Ok(()),
        }
    }
}

impl RotaryScaling {
    /// What the angle a position of pair `f` becomes in sequences of so many tokens.
    fn of(&self, f: usize, angle: f64, length: usize) -> f64 {
        match *self {
            RotaryScaling::None => angle,
            RotaryScaling::Linear(factor) => angle / factor,
            RotaryScaling::ByParts {
                factor,
                low,
                high,
                original,
            } => {
                let turns = original * angle / std::f64::consts::TAU;
                match turns {
                    t if t < low => angle / factor,
                    t if t > high => angle,
                    t => {
                        let smooth = (t - low) / (high - low);
                        (1.0 - smooth) * angle / factor + smooth * angle
                    }
                }
            }
            RotaryScaling::ByLength {
                ref short,
                ref long,
                original,
                ..
            } => match length <= original {
                true => angle / short[f],
                false => angle / long[f],
            },
        }
    }
}
