//! What a head adds to a logit, by the position that it takes it from.

use super::Logit;
use super::logits::plain_stream;
use crate::error::{Error, Result};
use crate::linalg::product;
use crate::model::{Cache, Model};
use crate::names::NormSite;
use crate::names::{Head, Hook};
use crate::tensor::{Scalar, Tensor};
use faer::{Mat, MatRef};

/// What every head of a layer adds to a logit directly, split over the positions it attends to: the pattern times
/// what the values there are worth through `W_O`, `ln_final` at the run's own scale, and `W_U`.
///
/// Over the sources they add up to what [`direct_logit_attribution`](super::direct_logit_attribution) gives the
/// head. `b_V` is with the values, as in the head's result.
///
/// ```
/// use pathsum::decompose::{Logit, source_attribution};
/// use pathsum::{Run, Tokens, fixture};
/// let model = fixture::induction::<f64>();
/// let out = model.run(&Tokens::from_rows(&[[7, 3, 9, 7]]), Run::new().cache("*"))?;
/// // The logit of 3 comes from the position where the 3 is.
/// let by_source = source_attribution(&model, &out.cache, 1, Logit::Of(3))?;
/// assert!(by_source[[0, 0, 3, 1]] > 11.0);
/// # Ok::<(), pathsum::Error>(())
/// ```
///
/// # Shapes
/// As the pattern's: `[batch, head, query, source]`; the logit is the query's.
///
/// # Errors
/// When there is no such layer or logit, a direction has not one weight a logit, or the cache lacks the layer's
/// `hook_pattern`, `hook_v` or `ln_final.hook_scale`.
///
/// # Cost
/// `2 d_head` operations for every head and position, and two for every entry of the pattern.
pub fn source_attribution<T: Scalar>(
    model: &Model<T>,
    cache: &Cache<T>,
    layer: usize,
    logit: Logit<'_, T>,
) -> Result<Tensor<T>> {
    let last = final_reader(model, logit)?;
    model.config().check_layer(layer)?;
    let (pattern, v) = (
        cache.require(Hook::Pattern(layer))?,
        cache.require(Hook::V(layer))?,
    );
    let scale = final_scale(model, cache)?;
    let mut out = pattern.clone();
    let &[batch, heads, pos, _] = out.shape() else {
        unreachable!("a pattern has four axes")
    };
    for head in 0..heads {
        let read = through(model.weights().W_O(Head { layer, head }), &last);
        for sequence in 0..batch {
            let worth = through(v.head(sequence, model.config().group(head)), &read);
            for query in 0..pos {
                let scale = scale.map_or(T::ONE, |s| s[[sequence, query, 0]]);
                let row = out.slice_mut(&[sequence, head, query]);
                row.iter_mut()
                    .zip(&worth)
                    .for_each(|(x, &w)| *x *= w / scale);
            }
        }
    }
    Ok(out)
}

/// What a head adds to a logit through a later head's values (V-composition), split over where the earlier head
/// takes it from and where the later head finds it.
///
/// The virtual weights `W_OV W_OV` of the two heads, with the run's patterns and scales: the sum is what the paths
/// through exactly these two heads add to the logit, `b_V` of the earlier among their starts.
///
/// # Shapes
/// `[batch, between, source]`: from `source` by the earlier head to `between`, from there by the later head to
/// `query`, whose logit it is.
///
/// # Errors
/// When there are no such heads, the later is not in a later layer, there is no such position or logit, or the cache
/// lacks `hook_pattern` of the two layers, `hook_v` of the earlier, `ln1.hook_scale` of the later or
/// `ln_final.hook_scale`.
///
/// # Cost
/// `2 d_head` operations for every position, and two for every pair of positions.
pub fn source_attribution_through<T: Scalar>(
    model: &Model<T>,
    cache: &Cache<T>,
    earlier: Head,
    later: Head,
    query: usize,
    logit: Logit<'_, T>,
) -> Result<Tensor<T>> {
    for head in [earlier, later] {
        model.config().check_head(head)?;
    }
    if earlier.layer >= later.layer {
        return Err(Error::NotUpstream(format!(
            "head {later} reads nothing of head {earlier}, expected one of a later layer"
        )));
    }
    let w = model.weights();
    let read_by_later = through(w.W_O(later), &final_reader(model, logit)?);
    let read_by_later = through(w.W_V(later), &read_by_later);
    let before_norm = before_norm(model, NormSite::Ln1(later.layer), read_by_later);
    let read = through(w.W_O(earlier), &before_norm);

    let first = cache.require(Hook::Pattern(earlier.layer))?;
    let second = cache.require(Hook::Pattern(later.layer))?;
    let v = cache.require(Hook::V(earlier.layer))?;
    let normed = model.config().norm.is_some();
    let ln1 = normed.then(|| cache.require(Hook::Scale(NormSite::Ln1(later.layer))));
    let (ln1, scale) = (ln1.transpose()?, final_scale(model, cache)?);
    let &[batch, _, pos, _] = first.shape() else {
        unreachable!("a pattern has four axes")
    };
    if query >= pos {
        return Err(Error::out_of_range(
            "position",
            query,
            "",
            "the run's",
            0..pos,
        ));
    }
    let mut out = Tensor::zeros(&[batch, pos, pos]);
    for sequence in 0..batch {
        let worth = through(v.head(sequence, model.config().group(earlier.head)), &read);
        let scale = scale.map_or(T::ONE, |s| s[[sequence, query, 0]]);
        for between in 0..pos {
            let ln1 = ln1.map_or(T::ONE, |s| s[[sequence, between, 0]]);
            let onwards = second[[sequence, later.head, query, between]] / (ln1 * scale);
            let pattern = first.slice(&[sequence, earlier.head, between]);
            let row = out.slice_mut(&[sequence, between]).iter_mut();
            row.zip(pattern.iter().zip(&worth))
                .for_each(|(x, (&p, &w))| *x = onwards * p * w);
        }
    }
    Ok(out)
}

/// A layer's patterns, each entry times the length of what the head writes of that source: `|v W_O|`.
///
/// Where a head rests, its attention goes to where there is little to be had, and this is small.
///
/// # Shapes
/// As the pattern's: `[batch, head, query, source]`.
///
/// # Errors
/// When there is no such layer, or the cache lacks its `hook_pattern` or `hook_v`.
///
/// # Cost
/// `2 d_head d_model` operations for every head and position.
///
/// # Source
/// The info-weighted attention of Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021), there
/// with `|v|`.
pub fn info_weighted_pattern<T: Scalar>(
    model: &Model<T>,
    cache: &Cache<T>,
    layer: usize,
) -> Result<Tensor<T>> {
    model.config().check_layer(layer)?;
    let v = cache.require(Hook::V(layer))?;
    let mut out = cache.require(Hook::Pattern(layer))?.clone();
    let &[batch, heads, pos, _] = out.shape() else {
        unreachable!("a pattern has four axes")
    };
    for head in 0..heads {
        let W_O = model.weights().W_O(Head { layer, head });
        for sequence in 0..batch {
            let written: Mat<T> = product(v.head(sequence, model.config().group(head)), W_O);
            let lengths: Vec<T> = written.row_iter().map(|row| row.norm_l2()).collect();
            for query in 0..pos {
                let row = out.slice_mut(&[sequence, head, query]).iter_mut();
                row.zip(&lengths).for_each(|(x, &length)| *x *= length);
            }
        }
    }
    Ok(out)
}

/// What reads a logit off the last stream, but for `ln_final`'s scale: `[d_model]`.
fn final_reader<T: Scalar>(model: &Model<T>, logit: Logit<'_, T>) -> Result<Vec<T>> {
    let c = model.config();
    plain_stream(c)?;
    logit.check(c.d_vocab_out)?;
    let W_U = model.weights().W_U.mat(&[]);
    let reader = (0..c.d_model)
        .map(|i| logit.weigh(|j| W_U[(i, j)]))
        .collect();
    Ok(before_norm(model, NormSite::Final, reader))
}

/// What a direction after a norm is before it, but for the scale.
fn before_norm<T: Scalar>(model: &Model<T>, site: NormSite, mut direction: Vec<T>) -> Vec<T> {
    if let Some(norm) = model.norm_at(site) {
        norm.before(&mut direction);
    }
    direction
}

fn final_scale<'c, T: Scalar>(
    model: &Model<T>,
    cache: &'c Cache<T>,
) -> Result<Option<&'c Tensor<T>>> {
    let normed = model.config().norm.is_some();
    normed
        .then(|| cache.require(Hook::Scale(NormSite::Final)))
        .transpose()
}

/// `A x`.
fn through<T: Scalar>(A: MatRef<'_, T>, x: &[T]) -> Vec<T> {
    let column = MatRef::from_column_major_slice(x, x.len(), 1);
    product(A, column).col(0).iter().copied().collect()
}
