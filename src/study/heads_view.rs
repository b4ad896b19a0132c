//! Attention of every head of a model on one sequence, small enough for a page.

use super::Number;
use crate::tensor::{Scalar, Tensor};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

/// Attention patterns of all heads on one sequence, to be looked through by layer and head.
///
/// A weight `w` is kept in eight bits, as `round(255 w)`: what is read back is within 1/510 of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadsView {
    /// The tokens as words, one for each position.
    pub tokens: Vec<String>,
    /// Layers.
    pub layers: usize,
    /// Heads of each layer.
    pub heads: usize,
    /// Whether a token sees itself and those before it only: then only these weights are kept.
    pub causal: bool,
    /// What the heads are coloured by where one is chosen: `adds to the logit`. Empty where nothing tells them apart.
    pub score: String,
    /// `[layer, head]`, row-major; as empty as `score`.
    pub scores: Vec<Number>,
    /// The layer and head that is seen first.
    pub first: [usize; 2],
    /// The position whose weights are seen first.
    pub query: usize,
    /// `[layer, head, query, key]`, row-major, a byte a weight, in base64. Of causal ones keys go up to the query.
    pub weights: String,
}

/// The largest weight, 1, as a byte.
const ONE: f64 = u8::MAX as f64;

impl HeadsView {
    /// From a pattern for each layer, `[1, head, query, key]`. The last head is seen first, with the last query.
    ///
    /// # Panics
    /// When the patterns' shapes are not these, or there are none.
    #[track_caller]
    pub fn new<T: Scalar>(tokens: Vec<String>, patterns: &[&Tensor<T>], causal: bool) -> Self {
        let n = tokens.len();
        let (layers, heads) = (patterns.len(), patterns[0].shape()[1]);
        let mut bytes = Vec::with_capacity(Self::weigh(layers, heads, n, causal));
        for pattern in patterns {
            assert_eq!(pattern.shape(), [1, heads, n, n], "a pattern for each head");
            for (row, weights) in pattern.data().chunks_exact(n).enumerate() {
                let keys = if causal { row % n + 1 } else { n };
                let byte = |w: &T| (w.to_f64().clamp(0.0, 1.0) * ONE).round() as u8;
                bytes.extend(weights[..keys].iter().map(byte));
            }
        }
        HeadsView {
            tokens,
            layers,
            heads,
            causal,
            score: String::new(),
            scores: Vec::new(),
            first: [layers - 1, heads - 1],
            query: n - 1,
            weights: BASE64_STANDARD.encode(bytes),
        }
    }

    /// How many weights are kept of so many layers, heads and tokens.
    pub fn weigh(layers: usize, heads: usize, tokens: usize, causal: bool) -> usize {
        let each = match causal {
            true => tokens.saturating_mul(tokens + 1) / 2,
            false => tokens.saturating_mul(tokens),
        };
        layers.saturating_mul(heads).saturating_mul(each)
    }

    /// The weights as they are kept, if they are sound: as many as there should be.
    pub(super) fn bytes(&self) -> Option<Vec<u8>> {
        let bytes = BASE64_STANDARD.decode(&self.weights).ok()?;
        let expected = Self::weigh(self.layers, self.heads, self.tokens.len(), self.causal);
        (bytes.len() == expected).then_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_kept_to_half_a_step() {
        let weight = |i: usize| (i as f64 * 0.37).sin().abs();
        let pattern = Tensor::from_vec(&[1, 2, 3, 3], (0..18).map(weight).collect());
        let words = || ["a", "b", "c"].map(String::from).to_vec();
        for causal in [false, true] {
            let view = HeadsView::new(words(), &[&pattern, &pattern], causal);
            let bytes = view.bytes().unwrap();
            let mut kept = bytes.iter().map(|&b| f64::from(b) / ONE);
            for _layer in 0..2 {
                for (i, &w) in pattern.data().iter().enumerate() {
                    let (query, key) = (i / 3 % 3, i % 3);
                    if causal && key > query {
                        continue;
                    }
                    let kept = kept.next().unwrap();
                    // Half a step, and the rounding of the quotient.
                    assert!(
                        (kept - w).abs() <= 0.5 / ONE + f64::EPSILON,
                        "{kept} and {w}"
                    );
                }
            }
            assert_eq!(kept.next(), None);
        }
        let mut view = HeadsView::new(words(), &[&pattern], true);
        view.weights.truncate(8);
        assert_eq!(view.bytes(), None);
    }
}
