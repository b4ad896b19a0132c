//! A model small enough for a page to carry, to be run again there.

use crate::diagram::Mask;
use crate::error::{Error, Result};
use crate::format::layout;
use crate::model::{Config, Model};
use crate::tensor::{Scalar, Tensor, safetensors_bytes};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A model that the page carries, with one sequence: a reader changes its tokens or ablates heads, and the browser runs it
/// again, in f64.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelView {
    /// The sequence that is run first: numbers of tokens.
    pub tokens: Vec<usize>,
    /// The position whose logits are seen first.
    pub position: usize,
    /// Every token's word, by its number: `d_vocab` of them.
    pub words: Vec<String>,
    /// What every logit is of: `d_vocab_out` words.
    pub answers: Vec<String>,
    /// Layers.
    pub layers: usize,
    /// Heads of each layer.
    pub heads: usize,
    /// Whether a token sees itself and those before it only.
    pub causal: bool,
    /// The model's `config.json`.
    pub config: String,
    /// The model's `model.safetensors`, in base64: in f32 where that is what its weights are, else in f64.
    pub weights: String,
}

/// How many bytes of weights a page carries: with the module that runs them it stays below 5 MB.
const MOST_BYTES: usize = 2 << 20;
/// How many choices: of every token, at every position.
const MOST_CHOICES: usize = 50_000;
/// How many attention weights are drawn at once.
const MOST_WEIGHTS: usize = 1 << 17;
/// How many multiplications a click may cost, about: some thirty milliseconds.
const MOST_PRODUCTS: usize = 1 << 24;

impl ModelView {
    /// The view of a model on a sequence, if a page has room for it and a click there is answered at once; else why not, in
    /// half a sentence.
    ///
    /// # Errors
    /// When the weights cannot be written as a file's.
    pub(super) fn of<T: Scalar>(
        model: &Model<T>,
        tokens: &[i64],
        position: usize,
        (words, answers): (impl Iterator<Item = String>, impl Iterator<Item = String>),
    ) -> Result<Result<ModelView, String>> {
        let c = model.config();
        // By the shapes alone: a large model's weights are not gone through.
        let parameters: usize = (layout(c).iter())
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum();
        if 4 * parameters > MOST_BYTES {
            return Ok(Err(large(4 * parameters)));
        }
        let tensors = model.weights().state_dict();
        let narrow = tensors.iter().all(|(_, t)| is_f32(t));
        if !narrow && 8 * parameters > MOST_BYTES {
            return Ok(Err(large(8 * parameters)));
        }
        if let Some(reason) = too_much(c, tokens.len(), parameters) {
            return Ok(Err(reason));
        }
        let weights = match narrow {
            true => file(tensors.iter().map(|(n, t)| (n.clone(), t.cast::<f32>()))),
            false => file(tensors.iter().map(|(n, t)| (n.clone(), t.cast::<f64>()))),
        };
        Ok(Ok(ModelView {
            tokens: tokens.iter().map(|&t| t as usize).collect(),
            position,
            words: words.collect(),
            answers: answers.collect(),
            layers: c.n_layers,
            heads: c.n_heads,
            causal: c.mask == Mask::Causal,
            config: c.to_json(),
            weights: BASE64_STANDARD.encode(weights?),
        }))
    }
}

/// Whether f32 holds every value.
fn is_f32<T: Scalar>(t: &Tensor<T>) -> bool {
    let same = |x: &T| f64::from(x.to_f64() as f32) == x.to_f64();
    t.data().iter().all(same)
}

fn file<S: Scalar>(tensors: impl Iterator<Item = (String, Tensor<S>)>) -> Result<Vec<u8>> {
    let tensors: Vec<_> = tensors.collect();
    let named = tensors.iter().map(|(name, t)| (name.clone(), t));
    safetensors_bytes(named).map_err(|e| Error::format(Path::new("the page's weights"), e))
}

fn large(bytes: usize) -> String {
    let megabytes = |bytes: usize| format!("{:.1} MB", bytes as f64 / 1e6);
    format!(
        "its weights are {}, and a page has room for {}",
        megabytes(bytes),
        megabytes(MOST_BYTES)
    )
}

/// What else stands against it.
fn too_much(c: &Config, pos: usize, parameters: usize) -> Option<String> {
    if c.d_vocab_out == 0 {
        return Some("it has no unembedding".into());
    }
    if c.token_types > 0 {
        return Some("its tokens have types".into());
    }
    for (found, most, what) in [
        (
            pos * c.d_vocab,
            MOST_CHOICES,
            "tokens at all positions to choose from",
        ),
        (
            pos * pos * c.n_heads * c.n_layers,
            MOST_WEIGHTS,
            "attention weights to draw at once",
        ),
        (
            pos * parameters,
            MOST_PRODUCTS,
            "multiplications at every click",
        ),
    ] {
        if found > most {
            return Some(format!("{found} {what} are more than {most}"));
        }
    }
    None
}
