//! From tokens to logits by the weights alone: the direct path, and every head's `W_E W_OV W_U`; and what a head's queries
//! and keys are to one another.

use super::Logit;
use super::turned::{Distance, Meeting};
use crate::error::{Error, Result};
use crate::factored::Factored;
use crate::linalg::{Par, product_with};
use crate::model::{Model, NormPlace};
use crate::names::{Head, NormSite};
use crate::op::{self, Layout, NormMap};
use crate::tensor::{Scalar, Tensor};
use faer::{Mat, MatRef};
use std::borrow::Cow;

/// A model's matrices from tokens to logits.
///
/// Norms are in them but for their scales, which are a number for each position of a run: their weights, and that they take
/// the mean off. Biases, positions and MLPs are not. A norm over the embeddings is a token's own, and is in them wholly. Where
/// logits are capped, these are those before the cap.
///
/// ```
/// use pathsum::decompose::TokenCircuits;
/// use pathsum::{Par, fixture};
/// let model = fixture::induction::<f64>();
/// let circuits = TokenCircuits::new(&model)?;
/// // What the induction head attends to it writes: the largest entry of a row is on the diagonal.
/// let copies = circuits.of("1.0".parse()?, Par::Seq)?.largest(1, Par::Seq)?;
/// assert_eq!(copies[0].row, copies[0].column);
/// # Ok::<(), pathsum::Error>(())
/// ```
pub struct TokenCircuits<'a, T: Scalar> {
    model: &'a Model<T>,
    /// `[d_vocab, d_model]`
    W_E: Cow<'a, Tensor<T>>,
    /// `[d_model, d_vocab_out]`
    W_U: Cow<'a, Tensor<T>>,
}

impl<'a, T: Scalar> TokenCircuits<'a, T> {
    /// Of a model.
    ///
    /// # Errors
    /// When it has no unembedding, a dense layer with a function stands before it, norms stand over the stream, or one over the
    /// embeddings sees more than the tokens.
    ///
    /// # Cost
    /// A copy of `W_U` where there are norms.
    pub fn new(model: &'a Model<T>) -> Result<Self> {
        let (c, w) = (model.config(), model.weights());
        if c.d_vocab_out == 0 {
            return Err(Error::NotCovered("the model has no unembedding"));
        }
        if c.mlm_head.is_some() {
            return Err(Error::NotCovered(
                "a dense layer with a function stands before the unembedding",
            ));
        }
        if c.norm.is_some() && c.norm_place == NormPlace::Stream {
            return Err(Error::NotCovered(
                "norms stand over the stream, and what is written passes all that follow",
            ));
        }
        let W_E = match model.norm_at(NormSite::Embed) {
            None => Cow::Borrowed(&w.W_E),
            Some(_) if c.pos_embed() || c.token_types > 0 => {
                return Err(Error::NotCovered(
                    "the norm over the embeddings sees more than the tokens",
                ));
            }
            Some(norm) => {
                let (mut scale, mut out) =
                    (Tensor::zeros(&[c.d_vocab, 1]), Tensor::zeros(w.W_E.shape()));
                let eps = T::from_f64(c.eps);
                op::norm(Layout::ROWS, &w.W_E, eps, &norm, &mut scale, &mut out);
                Cow::Owned(out)
            }
        };
        Ok(TokenCircuits {
            model,
            W_E,
            W_U: read_through(model.norm_at(NormSite::Final), &w.W_U),
        })
    }

    /// What tokens write to the stream: `[d_vocab, d_model]`.
    pub fn W_E(&self) -> MatRef<'_, T> {
        self.W_E.mat(&[])
    }

    /// What logits read of the stream: `[d_model, d_vocab_out]`.
    pub fn W_U(&self) -> MatRef<'_, T> {
        self.W_U.mat(&[])
    }

    /// What a logit, or a direction in the logits, reads of the stream: `[d_model]`.
    ///
    /// # Errors
    /// When there is no such logit, or a direction has not one weight a logit.
    pub fn read_by(&self, logit: Logit<'_, T>) -> Result<Vec<T>> {
        let c = self.model.config();
        logit.check(c.d_vocab_out)?;
        let W_U = self.W_U();
        let weigh = |i: usize| logit.weigh(|j| W_U[(i, j)]);
        Ok((0..c.d_model).map(weigh).collect())
    }

    /// The direct path, `W_E W_U`: `[d_vocab, d_vocab_out]`.
    pub fn direct(&self) -> Factored<T> {
        Factored::from_views(self.W_E(), self.W_U())
    }

    /// A head's: what attending to a token does to the logits, `(W_E W_V)(W_O W_U)`, `[d_vocab, d_vocab_out]`.
    ///
    /// # Errors
    /// When there is no such head.
    ///
    /// # Cost
    /// `2 (d_vocab + d_vocab_out) d_model d_head` operations.
    pub fn of(&self, head: Head, par: Par) -> Result<Factored<T>> {
        let circuit = value_output(self.model, head)?;
        let A = product_with(self.W_E(), circuit.A(), par);
        let B = product_with(circuit.B(), self.W_U(), par);
        Ok(Factored::new(A, B))
    }
}

/// A head's `W_OV = W_V W_O`, `[d_model, d_model]`, with the norms before and behind it but for their scales.
///
/// # Errors
/// When there is no such head.
pub fn value_output<T: Scalar>(model: &Model<T>, head: Head) -> Result<Factored<T>> {
    model.config().check_head(head)?;
    let c = model.config();
    let W_V = behind_ln1(model, head.layer, model.weights().W_V(head));
    let mut W_O = model.weights().W_O(head).to_owned();
    if let Some(norm) = model.norm_at(NormSite::Ln1Post(head.layer)) {
        let mut row = vec![T::ZERO; c.d_model];
        for i in 0..W_O.nrows() {
            row.iter_mut()
                .enumerate()
                .for_each(|(j, x)| *x = W_O[(i, j)]);
            norm.at_scale(&mut row, T::ONE);
            row.iter().enumerate().for_each(|(j, &x)| W_O[(i, j)] = x);
        }
    }
    Ok(Factored::new(W_V, W_O))
}

/// A head's `W_QK = W_Q W_Kᵀ`, `[d_model, d_model]`, with the norm before it, and that of queries and keys, but for their
/// scales; turned by a distance where positions are rotary.
///
/// # Errors
/// When there is no such head, or the model's positions do not go so far.
pub fn query_key<T: Scalar>(
    model: &Model<T>,
    head: Head,
    distance: Distance,
) -> Result<Factored<T>> {
    let c = model.config();
    c.check_head(head)?;
    distance.check(c)?;
    let rotations = distance.rotations(c, head.layer);
    let meeting = Meeting::of(model, head, rotations.as_ref());
    let W_Q = behind_ln1(model, head.layer, meeting.W_Q.mat());
    let W_K = behind_ln1(model, head.layer, meeting.W_K.mat());
    Ok(Factored::new(W_Q, W_K.transpose().to_owned()))
}

/// A matrix that reads what a layer's attention reads, as it acts on the stream but for the scale of the norm before it.
fn behind_ln1<T: Scalar>(model: &Model<T>, layer: usize, W: MatRef<'_, T>) -> Mat<T> {
    let reads_ln1 = model.config().reads_ln1();
    match model.norm_at(NormSite::Ln1(layer)).filter(|_| reads_ln1) {
        None => W.to_owned(),
        Some(norm) => {
            let own = Tensor::from_fn(&[W.nrows(), W.ncols()], |at| W[(at[0], at[1])]);
            norm.folded_into(&own).mat(&[]).to_owned()
        }
    }
}

/// A matrix that reads a norm's output, as it acts on what the norm reads but for the scale.
fn read_through<'a, T: Scalar>(
    norm: Option<NormMap<'_, T>>,
    W: &'a Tensor<T>,
) -> Cow<'a, Tensor<T>> {
    match norm {
        Some(norm) => Cow::Owned(norm.folded_into(W)),
        None => Cow::Borrowed(W),
    }
}
