//! One vector a sequence: the mean of what its tokens end as.

use super::{Model, Run, Tokens};
use crate::diagram::{Config, Op};
use crate::error::{Error, Result};
use crate::names::Hook;
use crate::tensor::{Scalar, Tensor};

/// About how many bytes of hidden states are kept at a time.
const MEMORY: usize = 1 << 28;

impl Config {
    /// The hook of the last hidden state, as `transformers` calls it: what the unembedding reads, or the dense layer
    /// before it.
    ///
    /// # Errors
    /// When users do not see it: the stream of a model without layers and norms.
    pub fn last_hidden_state(&self) -> Result<Hook> {
        let diagram = crate::diagram::Diagram::of(self);
        let head = |op: &Op| matches!(op, Op::MlmHead | Op::Unembed);
        let step = diagram.steps.iter().find(|step| head(&step.op));
        let step = step.expect("every model ends with its logits");
        let hook = diagram.values[step.reads[0].0];
        match diagram.hooks().contains(&hook) {
            true => Ok(hook),
            false => Err(Error::NotInModel("hidden state after its layers".into())),
        }
    }
}

impl<T: Scalar> Model<T> {
    /// A vector for each sequence, `[batch, d_model]`: the mean of its last hidden state ([`Config::last_hidden_state`])
    /// over the tokens that are attended to. As models of sentences are used that are built on BERT.
    ///
    /// `progress` is called with the number of sequences done.
    ///
    /// # Errors
    /// As [`Model::run`], and when the model has no layers and no norms.
    ///
    /// Source: mean pooling as in Reimers and Gurevych, "Sentence-BERT" (2019).
    pub fn sentence_embeddings(
        &self,
        tokens: &Tokens,
        progress: &dyn Fn(usize),
    ) -> Result<Tensor<T>> {
        let hook = self.config().last_hidden_state()?;
        let (batch, pos, d) = (tokens.batch(), tokens.pos(), self.config().d_model);
        let each = pos * d * size_of::<T>();
        let piece = (MEMORY / each.max(1)).clamp(1, batch.max(1));
        let mut out = Tensor::zeros(&[batch, d]);
        for first in (0..batch).step_by(piece) {
            let own = tokens.slice(first, piece.min(batch - first));
            let cache = self
                .run(&own, Run::new().without_logits().cache(hook))?
                .cache;
            for i in 0..own.batch() {
                let mean = out.slice_mut(&[first + i]);
                let seen: Vec<usize> = (0..pos).filter(|&p| own.is_attended(i, p)).collect();
                for &p in &seen {
                    let row = cache[hook].slice(&[i, p]);
                    mean.iter_mut().zip(row).for_each(|(m, &x)| *m += x);
                }
                let n = T::from_f64(seen.len() as f64);
                mean.iter_mut().for_each(|m| *m /= n);
            }
            progress(own.batch());
        }
        Ok(out)
    }
}
