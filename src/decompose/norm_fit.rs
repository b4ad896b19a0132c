//! LayerNorm as an affine map: the one that fits it best over a run, and what that leaves.

use crate::error::{Error, Result};
use crate::linalg::{AffineFit, affine_fit};
use crate::model::{Cache, Config};
use crate::names::{Hook, NormSite};
use crate::tensor::{Scalar, Tensor};

/// An affine fit of a norm's output on its input.
///
/// Another linear stand-in than [`layer_norm_stack`](super::layer_norm_stack), which takes the run's own scale and
/// is exact for each position: this one is the same for all of them, and has a remainder.
#[derive(Clone, Debug, PartialEq)]
pub struct NormFit<T: Scalar> {
    /// The map, from `[d_model]` to `[d_model]`.
    pub map: AffineFit<T>,
    /// `[batch, chosen position, d_model]`: what the fit says.
    pub fitted: Tensor<T>,
    /// `[batch, chosen position, d_model]`: the norm's output less what the fit says. The two add up to the output,
    /// to within that addition's own rounding.
    pub remainder: Tensor<T>,
}

/// Fits a norm's output on its input, over all sequences of a run and the positions chosen.
///
/// ```
/// use pathsum::decompose::norm_fit;
/// use pathsum::names::NormSite;
/// use pathsum::{Run, fixture};
/// let model = fixture::induction::<f64>();
/// let out = model.run(&fixture::repeated_sequences(40, 8, 0), Run::new().cache("*"))?;
/// // This model's streams are all of one length about their mean at its later positions: nothing is left.
/// let fit = norm_fit(model.config(), &out.cache, NormSite::Ln1(1), &[12, 13, 14])?;
/// assert!(fit.remainder.max_abs() < 1e-9);
/// # Ok::<(), pathsum::Error>(())
/// ```
///
/// # Errors
/// When the model has no such norm, a position is not there, none is chosen, or the cache lacks the stream before
/// the norm or its `hook_normalized`.
///
/// # Cost
/// `8 n d_model²` operations for `n` positions of all sequences together.
pub fn norm_fit<T: Scalar>(
    config: &Config,
    cache: &Cache<T>,
    site: NormSite,
    positions: &[usize],
) -> Result<NormFit<T>> {
    let (input, output) = ends(config, site)?;
    let input = at_positions(cache.require(input)?, positions)?;
    let output = at_positions(cache.require(output)?, positions)?;
    let map = affine_fit(input.rows(), output.rows())?;
    let fitted = Tensor::from_mat(map.apply(input.rows()).as_ref()).reshape(output.shape());
    let mut remainder = output;
    let left = remainder.data_mut().iter_mut().zip(fitted.data());
    left.for_each(|(y, &fit)| *y -= fit);
    Ok(NormFit {
        map,
        fitted,
        remainder,
    })
}

/// The hooks of a norm's input and output.
fn ends(config: &Config, site: NormSite) -> Result<(Hook, Hook)> {
    let last = config.n_layers.checked_sub(1);
    let hooks = match site {
        NormSite::Ln1(l) => Some((Hook::ResidPre(l), Hook::Normalized(NormSite::Ln1(l)))),
        NormSite::Ln2(l) => Some((Hook::ResidMid(l), Hook::Normalized(NormSite::Ln2(l)))),
        NormSite::Embed
        | NormSite::Q(_)
        | NormSite::K(_)
        | NormSite::Ln1Post(_)
        | NormSite::Neurons(_)
        | NormSite::Ln2Post(_)
        | NormSite::MlmHead => None,
        NormSite::Final => last.map(|l| (Hook::ResidPost(l), Hook::Normalized(NormSite::Final))),
    };
    let all = config.hooks();
    let there = hooks.filter(|(input, output)| all.contains(input) && all.contains(output));
    there.ok_or_else(|| Error::NotInModel(format!("norm `{site}` with a hook before it")))
}

/// The chosen positions' values: `[batch, chosen, d]`.
fn at_positions<T: Scalar>(values: &Tensor<T>, positions: &[usize]) -> Result<Tensor<T>> {
    let &[batch, pos, d] = values.shape() else {
        unreachable!("the stream has three axes")
    };
    if let Some(p) = positions.iter().find(|&&p| p >= pos) {
        return Err(Error::out_of_range("position", *p, "", "the run's", 0..pos));
    }
    let mut data = Vec::with_capacity(batch * positions.len() * d);
    for sequence in 0..batch {
        for &p in positions {
            data.extend_from_slice(values.slice(&[sequence, p]));
        }
    }
    Ok(Tensor::from_vec(&[batch, positions.len(), d], data))
}
