//! What a head would write if it attended to one place alone.

use crate::error::{Error, Result};
use crate::model::Model;
use crate::names::{Head, Hook, NormSite};
use crate::op;
use crate::tensor::{Scalar, Tensor};

/// What a head would write to the stream if it attended wholly to a place with this stream: the values there, through the
/// norm before them at the stream's own scale, and `W_O`; `b_V` included, `b_O` not.
///
/// The stream may come from anywhere. That of an earlier layer, at a name, tells what a head makes of that name whatever it
/// attends to.
///
/// ```
/// use pathsum::decompose::written_alone;
/// use pathsum::{Hook, Run, Tokens, fixture};
/// let model = fixture::induction::<f64>();
/// let out = model.run(&Tokens::from_rows(&[[7, 3]]), Run::new().cache(Hook::ResidPre(1)))?;
/// let stream = &out.cache[Hook::ResidPre(1)];
/// let written = written_alone(&model, "1.0".parse()?, stream)?;
/// // Wherever the induction head attends, it writes the token that is there.
/// let logits = model.logits_of_stream(&written)?;
/// assert!(logits[[0, 0, 7]] > logits[[0, 0, 3]] && logits[[0, 1, 3]] > logits[[0, 1, 7]]);
/// # Ok::<(), pathsum::Error>(())
/// ```
///
/// # Shapes
/// `[…, d_model]`, both.
///
/// # Errors
/// When there is no such head, the rows are not of the stream's width, or a norm comes over what the heads write together.
///
/// # Cost
/// The values of all heads of the layer, and `2 d_head d_model` operations a row.
///
/// # Source
/// The copy score of name movers in Wang et al., "Interpretability in the Wild" (2022), is made of it.
pub fn written_alone<T: Scalar>(
    model: &Model<T>,
    head: Head,
    stream: &Tensor<T>,
) -> Result<Tensor<T>> {
    let c = model.config();
    c.check_head(head)?;
    if stream.shape().last() != Some(&c.d_model) {
        return Err(Error::Mismatch(format!(
            "a stream of shape {:?}, expected rows of {} (d_model)",
            stream.shape(),
            c.d_model
        )));
    }
    if c.norm_at(NormSite::Ln1Post(head.layer)).is_some() {
        return Err(Error::NotCovered(
            "a norm comes over what the heads write together, and what one would write depends on the others",
        ));
    }
    let rows = stream.len() / c.d_model;
    let x = Tensor::from_vec(&[1, rows, c.d_model], stream.data().to_vec());
    let v = model.made_of((Hook::ResidPre(head.layer), &x), Hook::V(head.layer));
    let own = (0..rows).flat_map(|row| v.slice(&[0, row, c.group(head.head)]));
    let own: Vec<T> = own.copied().collect();
    let mut written = Tensor::zeros(stream.shape());
    op::head_result(&own, model.weights().W_O(head), written.data_mut());
    Ok(written)
}
