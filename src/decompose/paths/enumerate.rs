//! Every path, one by one.

use super::sums::LogitPaths;
use super::{Contribution, Path, Start};
use crate::error::{Error, Result};
use crate::model::Config;
use crate::names::Head;
use crate::tensor::{Scalar, Tensor};

/// The number of paths from all starts to one logit, or the largest `u128` where there are more.
///
/// A start that is in the stream before layer `l` has `(1 + n_heads)^(n_layers - l)` paths: each layer from
/// there on is passed by, or through one of its heads. With `m = 1 + n_heads` and `L = n_layers`:
///
/// `2 m^L` from the embeddings; for each layer `l`, `(n_heads + 1) m^(L-l-1)` from the `b_V` and `b_O`,
/// `2 m^(L-l-1)` from an MLP and its `b_out`, and `n_heads m^(L-l-1)` from the `b` of an `ln1`; one from
/// the `b` of `ln_final`, and one from `b_U`.
///
/// ```
/// use pathsum::{decompose, fixture};
/// // 2 · 2² from the embeddings, (2 + 1) 2 and (2 + 1) 1 from the layers, and 2.
/// assert_eq!(decompose::count(fixture::induction::<f64>().config()), 19);
/// ```
pub fn count(config: &Config) -> u128 {
    let ln = config.norm.is_some_and(|norm| norm.bias);
    count_before(config, config.n_layers).saturating_add(1 + u128::from(ln))
}

/// The number of paths that are in the stream before a layer.
pub(super) fn count_before(config: &Config, layer: usize) -> u128 {
    let ln = config.norm.is_some_and(|norm| norm.bias);
    let heads = config.n_heads as u128;
    let ways = |layers: usize| {
        let layers = u32::try_from(layers).unwrap_or(u32::MAX);
        (1 + heads).saturating_pow(layers)
    };
    let biases = heads + 1 + if ln { heads } else { 0 };
    let mlp = if config.mlp.is_none() { 0 } else { 2 };
    let mut count = ways(layer).saturating_mul(if config.pos_embed() { 2 } else { 1 });
    for l in 0..layer {
        let from_layer = ways(layer - l - 1).saturating_mul(biases + mlp);
        count = count.saturating_add(from_layer);
    }
    count
}

impl<T: Scalar> LogitPaths<'_, '_, T> {
    /// Every path with what it adds, shortest first and else in the order of the layers.
    ///
    /// # Errors
    /// When there are more than `most` of them.
    ///
    /// # Cost
    /// Two products of a head's matrices for each set of heads, `(1 + n_heads)^n_layers` in all.
    pub fn enumerate(&self, most: usize) -> Result<Vec<Contribution<T>>> {
        let count = self.count();
        if count > most as u128 {
            return Err(Error::TooMany {
                found: count,
                most: most as u128,
                message: format!(
                    "there are {count} paths, more than {most}: ask for the largest, or for sums over them"
                ),
            });
        }
        let mut all = Vec::with_capacity(count as usize);
        for &(start, value) in &self.constants {
            let path = Path {
                start,
                heads: Vec::new(),
            };
            all.push(Contribution { path, value });
        }
        self.extend(&mut Vec::new(), &self.last_cotangent(), &mut all);
        // Stable: paths of one order stay as they were found, later layers' heads last.
        all.sort_by_key(|c| c.path.heads.len());
        Ok(all)
    }

    /// The paths that end in these heads, given the cotangent of the stream that the first of them reads.
    fn extend(&self, heads: &mut Vec<Head>, read: &Tensor<T>, all: &mut Vec<Contribution<T>>) {
        let paths = self.paths;
        let level = heads.first().map_or(self.level, |h| h.layer);
        let mut push = |start: Start, heads: &[Head], value: T| {
            let heads = heads.to_vec();
            all.push(Contribution {
                path: Path { start, heads },
                value,
            });
        };
        for written in paths.written_before(level) {
            push(written.start, heads, written.value.along(read.mat(&[])));
        }
        for layer in 0..level {
            for head in 0..paths.layers[layer].n_heads {
                let head = Head { layer, head };
                let values = paths.values_of(head, read.mat(&[]));
                heads.insert(0, head);
                if let Some(b) = &paths.layers[layer].b {
                    let value = super::sums::sum_along(&values, b.slice(&[head.head]));
                    let path = Path {
                        start: Start::NormBias(layer),
                        heads: heads.clone(),
                    };
                    all.push(Contribution { path, value });
                }
                self.extend(heads, &paths.read_by(head, &values), all);
                heads.remove(0);
            }
        }
    }
}
