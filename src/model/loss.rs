//! How well a model foretells a text.

use super::standing::exponentials;
use super::{Model, Run, Tokens};
use crate::error::{Error, Result};
use crate::tensor::Scalar;

/// A text's loss.
#[derive(Clone, Debug, PartialEq)]
pub struct Loss {
    /// The text's tokens.
    pub tokens: Vec<i64>,
    /// For each token but the first, the negative logarithm of the probability that it had, in nats.
    pub each: Vec<f64>,
}

impl<T: Scalar> Model<T> {
    /// The loss on a text. One that is longer than a window of so many tokens is read in windows, each of which begins
    /// `stride` tokens after the one before; a token counts in the first window that foretells it.
    ///
    /// `progress` is called with the number of tokens read.
    ///
    /// # Errors
    /// As [`Model::run`]; when the text has fewer than two tokens, and when the window is not at most the context or the
    /// stride not less than the window.
    pub fn loss(
        &self,
        tokens: &[i64],
        (window, stride): (usize, usize),
        progress: &dyn Fn(usize),
    ) -> Result<Loss> {
        if tokens.len() < 2 {
            return Err(Error::Mismatch(format!(
                "a text of {} tokens has none to be foretold, expected at least 2",
                tokens.len()
            )));
        }
        if window < 2 || window > self.config.n_ctx {
            return Err(Error::Mismatch(format!(
                "windows of {window} tokens, expected 2 to {} (n_ctx)",
                self.config.n_ctx
            )));
        }
        if stride == 0 || stride >= window {
            return Err(Error::Mismatch(format!(
                "windows that begin {stride} tokens apart, expected 1 to {}",
                window - 1
            )));
        }
        let mut each = Vec::with_capacity(tokens.len() - 1);
        let mut first = 0;
        loop {
            let end = tokens.len().min(first + window);
            let own = &tokens[first..end];
            let out = self.run(&Tokens::new(1, own.len(), own.to_vec()), Run::new())?;
            let before = each.len();
            for (p, &token) in own.iter().enumerate().skip(before + 1 - first) {
                each.push(surprise(out.logits.slice(&[0, p - 1]), token as usize)?);
            }
            progress(each.len() - before);
            if end == tokens.len() {
                break;
            }
            first += stride;
        }
        Ok(Loss {
            tokens: tokens.to_vec(),
            each,
        })
    }
}

/// The negative logarithm of a class's probability.
fn surprise<T: Scalar>(logits: &[T], class: usize) -> Result<f64> {
    let Some(own) = logits.get(class) else {
        return Err(Error::Mismatch(format!(
            "the model has {} logits, and none for token {class}",
            logits.len()
        )));
    };
    let (most, all) = exponentials(logits);
    Ok(most + all.ln() - own.to_f64())
}
