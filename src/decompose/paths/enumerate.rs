//! Every path, one by one.

use super::sums::LogitPaths;
use super::{Contribution, Path, Paths, Place, Start};
use crate::error::{Error, Result};
use crate::model::Config;
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
    let heads = config.n_heads as u128;
    let ways = |layers: usize| {
        let layers = u32::try_from(layers).unwrap_or(u32::MAX);
        (1 + heads).saturating_pow(layers)
    };
    let biases = heads + 1 + if ln { heads } else { 0 };
    let mlp = if config.mlp.is_none() { 0 } else { 2 };
    let layers = config.n_layers;
    let mut count = ways(layers).saturating_mul(if config.pos_embed() { 2 } else { 1 });
    for l in 0..layers {
        let from_layer = ways(layers - l - 1).saturating_mul(biases + mlp);
        count = count.saturating_add(from_layer);
    }
    count.saturating_add(1 + u128::from(ln))
}

impl<T: Scalar> Paths<'_, T> {
    /// The number of paths that are in the stream before a level, or the largest `u128` where there are more.
    pub(super) fn count_before(&self, level: usize) -> u128 {
        let starts = |level: usize| self.starts.iter().filter(|w| w.level == level).count() as u128;
        let through = |paths: u128, level: usize| {
            let (own, stations) = (&self.levels[level], self.levels[level].stations() as u128);
            let from_here = paths.saturating_add(own.biases.len() as u128);
            let through = stations.saturating_mul(from_here);
            paths
                .saturating_add(through)
                .saturating_add(starts(level + 1))
        };
        (0..level).fold(starts(0), through)
    }
}

impl<T: Scalar> LogitPaths<'_, '_, T> {
    /// Every path with what it adds, shortest first and else in the order of the layers.
    ///
    /// # Errors
    /// When there are more than `most` of them.
    ///
    /// # Cost
    /// Two products of a station's matrices for each set of stations, `(1 + n_heads)^n_layers` in all where none are neurons.
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
                stations: Vec::new(),
            };
            all.push(Contribution { path, value });
        }
        self.extend(&mut Vec::new(), &self.last_cotangent(), &mut all);
        // Stable: paths of one order stay as they were found, later layers' heads last.
        all.sort_by_key(|c| c.path.stations.len());
        Ok(all)
    }

    /// The paths that end in these stations, given the cotangent of the stream that the first of them reads.
    fn extend(&self, end: &mut Vec<Place>, read: &Tensor<T>, all: &mut Vec<Contribution<T>>) {
        let paths = self.paths;
        let level = end.first().map_or(self.level, |place| place.level);
        let path = |start: Start, end: &[Place]| Path {
            start,
            stations: end.iter().map(|&place| paths.station(place)).collect(),
        };
        for written in paths.written_before(level) {
            let value = written.value.along(read.mat(&[]));
            let path = path(written.start, end);
            all.push(Contribution { path, value });
        }
        for place in paths.places_before(level) {
            let values = paths.values_of(place, read.mat(&[]));
            end.insert(0, place);
            for bias in &paths.levels[place.level].biases {
                let value = super::sums::sum_along(&values, bias.values.slice(&[place.index]));
                let path = path(bias.start, end);
                all.push(Contribution { path, value });
            }
            self.extend(end, &paths.read_by(place, &values), all);
            end.remove(0);
        }
    }
}
