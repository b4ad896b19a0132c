//! Sums over paths, by the layerwise recurrence: nothing is enumerated.

use super::{Paths, Place, Start, Station, map, scale_rows, times};
use crate::decompose::Logit;
use crate::decompose::scores::{Constant, Reads, Score, Side, check_score, run_side};
use crate::decompose::stack::add;
use crate::error::{Error, Result};
use crate::model::{Cache, Model};
use crate::tensor::{Scalar, Tensor};

/// A sum, and how far rounding may have put it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sum<T> {
    /// The sum.
    pub value: T,
    /// The exact sum is no further off, underflow aside.
    pub rounding: T,
}

/// The paths to a logit, or a direction in the logits, at one position; or to a query or key in a head's score.
pub struct LogitPaths<'p, 'a, T: Scalar> {
    pub(super) paths: &'p Paths<'a, T>,
    /// How many levels they pass.
    pub(super) level: usize,
    pub(super) position: usize,
    /// The logit's cotangent of the stream at the position, through `ln_final`: `[d_model]`; or the score's.
    pub(super) row: Vec<T>,
    /// The norm of the terms that `row` was computed from.
    pub(super) row_size: T,
    /// The paths that pass no stream.
    pub(super) constants: Vec<(Start, T)>,
    /// The sum of the moduli of their terms.
    pub(super) constants_size: T,
    /// How many roundings a term of `row` meets beside those of a level.
    pub(super) weighed: usize,
}

/// The cotangents of a logit, through all levels.
pub(super) struct Cotangents<T: Scalar> {
    /// Of the stream before each level, and after the last: `[pos, d_model]`.
    pub streams: Vec<Tensor<T>>,
    /// Of each station's values, by level: `[pos, width]`.
    pub values: Vec<Vec<Tensor<T>>>,
}

/// The frozen model's own run, from its starts.
pub(super) struct Forward<T: Scalar> {
    /// The stream before each level, and after the last: `[pos, d_model]`.
    pub streams: Vec<Tensor<T>>,
    /// Each station's values, a head's without `b_V`, by level: `[pos, width]`.
    pub values: Vec<Vec<Tensor<T>>>,
}

impl<'a, T: Scalar> Paths<'a, T> {
    /// The paths to a logit at a position.
    ///
    /// # Errors
    /// When there is no such position or logit, or a direction has not one weight a logit.
    pub fn to_logit(&self, position: usize, logit: Logit<'_, T>) -> Result<LogitPaths<'_, 'a, T>> {
        let (c, end) = (self.config, &self.unembedding);
        logit.check(c.d_vocab_out)?;
        self.check_position(position)?;
        let (W_U, b_U) = (&end.W_U, &end.b_U);
        let mut row: Vec<T> = (0..c.d_model).map(|i| logit.weigh(|j| W_U(i, j))).collect();
        let mut size: Vec<T> = (0..c.d_model).map(|i| logit.size(|j| W_U(i, j))).collect();
        let mut constants = Vec::new();
        let mut constants_size = logit.size(|j| b_U[j]);
        let norm = end.norm.as_ref();
        if let Some(b) = norm.and_then(|norm| norm.b()) {
            let value = row.iter().zip(b).map(|(&u, &b)| b * u).sum();
            constants.push((Start::FinalNormBias, value));
            let sizes = size.iter().zip(b);
            constants_size += sizes.map(|(&u, b)| b.abs() * u).sum::<T>();
        }
        if let Some(norm) = norm {
            for (size, w) in size.iter_mut().zip(norm.w().unwrap_or_default()) {
                *size *= w.abs();
            }
            norm.before(&mut row);
        }
        constants.push((Start::UnembedBias, logit.weigh(|j| b_U[j])));
        let mut row_size = super::norm(&size);
        if let Some(scale) = &end.scale {
            let scale = scale[position];
            row.iter_mut().for_each(|g| *g /= scale);
            // Taking a mean off at most doubles the terms' norm.
            row_size = (row_size + row_size) / scale.abs();
        }
        Ok(LogitPaths {
            paths: self,
            level: self.levels.len(),
            position,
            row,
            row_size,
            constants,
            constants_size,
            weighed: match logit {
                Logit::Along(weights) => weights.len(),
                Logit::Of(_) | Logit::Difference(..) => 2,
            },
        })
    }

    /// The paths to a head's score, before the cap and the mask, by way of its query or of its key; the other is held at
    /// the run's. They add up to the score but for what the key's position adds by itself (ALiBi).
    ///
    /// `model` and `cache` are those of these paths, which kept the hooks of
    /// [`ScoreParts::hooks`](crate::decompose::ScoreParts::hooks) as well.
    ///
    /// # Errors
    /// When there is no such head or position, or the cache lacks a hook.
    pub fn to_score<U: Scalar>(
        &self,
        (model, cache, sequence): (&Model<U>, &Cache<U>, usize),
        score: Score,
        side: Side,
    ) -> Result<LogitPaths<'_, 'a, T>> {
        let c = self.config;
        check_score(c, cache, sequence, score)?;
        let (position, other) = match side {
            Side::Query => (score.query, (Side::Key, score.key)),
            Side::Key => (score.key, (Side::Query, score.query)),
        };
        let reads = Reads::new(model, cache, (score.head, side), (sequence, position))?;
        let mut held = run_side(model, cache, (score.head, other.0), (sequence, other.1))?;
        let scale = c.score_scale(score.head.layer);
        held.iter_mut().for_each(|x| *x /= scale);
        let (row, constants) = reads.back(&held);
        let start = |constant| match constant {
            Constant::Ln1 => Start::NormBias(score.head.layer),
            Constant::Projection => Start::ScoreBias(score.head, side),
            Constant::Norm => Start::ScoreNormBias(score.head.layer, side),
        };
        let size = super::norm(&held);
        let constants = constants.into_iter();
        Ok(LogitPaths {
            paths: self,
            level: self.level_of_heads(score.head.layer),
            position,
            row: row.into_iter().map(T::from_f64).collect(),
            row_size: T::from_f64(size * reads.most()),
            constants: constants.map(|(c, x)| (start(c), T::from_f64(x))).collect(),
            constants_size: T::from_f64(size * reads.constants_size()),
            weighed: reads.roundings(),
        })
    }

    pub(super) fn check_position(&self, position: usize) -> Result<()> {
        match position < self.pos {
            true => Ok(()),
            false => Err(Error::out_of_range(
                "position",
                position,
                "",
                "the sequence's positions",
                0..self.pos,
            )),
        }
    }

    /// One level back: the cotangents of its stations' values, and the sum of what they are at the stream that
    /// these read.
    fn back(&self, level: usize, cotangent: &Tensor<T>) -> (Vec<Tensor<T>>, Tensor<T>) {
        let both = map(self.par, self.levels[level].stations(), |index| {
            let place = Place { level, index };
            let values = self.values_of(place, cotangent.mat(&[]));
            let read = self.read_by(place, &values);
            (values, read)
        });
        let mut sum = Tensor::zeros(cotangent.shape());
        both.iter()
            .for_each(|(_, read)| add(sum.data_mut(), read.data()));
        (both.into_iter().map(|(values, _)| values).collect(), sum)
    }

    /// The streams by the recurrence: `x' = x + Σ mixing(x W_V / scale + b) W_O`, plus what else is written; through the
    /// first `level` levels.
    pub(super) fn forward(&self, level: usize) -> Forward<T> {
        let mut stream = Tensor::zeros(&[self.pos, self.d_model()]);
        self.write(0, &mut stream);
        let (mut streams, mut all_values) = (vec![stream.clone()], Vec::new());
        for (l, level) in self.levels[..level].iter().enumerate() {
            let both = map(self.par, level.stations(), |i| {
                let mut values = times(stream.mat(&[]), level.W_V(i));
                scale_rows(&mut values, &level.inverse_scale);
                for bias in &level.biases {
                    let rows = values.data_mut().chunks_exact_mut(level.width());
                    rows.for_each(|row| add(row, bias.values.slice(&[i])));
                }
                let mixed = level.mix(i, values.clone());
                let result = times(mixed.mat(&[]), level.W_O(i));
                (values, result)
            });
            let results = both.iter().map(|(_, result)| result);
            results.for_each(|r| add(stream.data_mut(), r.data()));
            self.write(l + 1, &mut stream);
            streams.push(stream.clone());
            all_values.push(both.into_iter().map(|(values, _)| values).collect());
        }
        Forward {
            streams,
            values: all_values,
        }
    }

    /// Adds the starts that a level is the first to read.
    fn write(&self, level: usize, stream: &mut Tensor<T>) {
        let d = self.d_model();
        for written in self.starts.iter().filter(|w| w.level == level) {
            for (p, to) in stream.data_mut().chunks_exact_mut(d).enumerate() {
                let (row, by) = written.value.at(p, d);
                to.iter_mut().zip(row).for_each(|(t, &x)| *t += x * by);
            }
        }
    }
}

impl<T: Scalar> LogitPaths<'_, '_, T> {
    /// The logit's cotangent of the stream after the last level, `[pos, d_model]`.
    pub(super) fn last_cotangent(&self) -> Tensor<T> {
        let mut last = Tensor::zeros(&[self.paths.pos, self.row.len()]);
        last.slice_mut(&[self.position]).copy_from_slice(&self.row);
        last
    }

    /// The number of paths, or the largest `u128` where there are more; see [`count`](super::count).
    pub fn count(&self) -> u128 {
        let constants = self.constants.len() as u128;
        self.paths
            .count_before(self.level)
            .saturating_add(constants)
    }

    pub(super) fn sweep(&self) -> Cotangents<T> {
        let mut streams = vec![self.last_cotangent()];
        let mut values = Vec::new();
        for level in (0..self.level).rev() {
            let after = &streams[streams.len() - 1];
            let (own, mut before) = self.paths.back(level, after);
            add(before.data_mut(), after.data());
            values.push(own);
            streams.push(before);
        }
        streams.reverse();
        values.reverse();
        Cotangents { streams, values }
    }

    /// The sum over all paths: the logit, or the score.
    ///
    /// Each path is a product of the run's frozen values and the model's weights, taken as exact. The bound on
    /// the sum's rounding is derived: in f64 it is below a thousandth of the logit behind thirty layers too, whatever the
    /// precision of the run (docs/language-models.md has figures). Of sums in f32 it is of use on small models alone.
    ///
    /// # Cost
    /// As a forward pass over the sequence's attention layers, twice.
    pub fn total(&self) -> Sum<T> {
        let sweep = self.sweep();
        Sum {
            value: self.by_start_of(&sweep).into_iter().map(|(_, x)| x).sum(),
            rounding: self.rounding(&sweep),
        }
    }

    /// The sums over the paths with each start, in the order in which the starts are written.
    ///
    /// # Cost
    /// As a forward pass over the sequence's attention layers.
    pub fn by_start(&self) -> Vec<(Start, T)> {
        self.by_start_of(&self.sweep())
    }

    fn by_start_of(&self, sweep: &Cotangents<T>) -> Vec<(Start, T)> {
        let mut sums = Vec::new();
        let mut written = self.paths.starts.iter().peekable();
        for level in 0..=self.level {
            let read = sweep.streams[level].mat(&[]);
            while let Some(w) = written.next_if(|w| w.level == level) {
                sums.push((w.start, w.value.along(read)));
            }
            let own = self.paths.levels[..self.level].get(level);
            for bias in own.map_or(&[][..], |own| &own.biases) {
                let values = sweep.values[level].iter().enumerate();
                let sum = values.map(|(i, values)| sum_along(values, bias.values.slice(&[i])));
                sums.push((bias.start, sum.sum()));
            }
        }
        sums.extend(&self.constants);
        sums
    }

    /// The sums over the paths that pass nothing, one station, two…, up to one a level.
    ///
    /// # Cost
    /// As half of `n_layers` forward passes over the sequence's attention layers.
    pub fn by_order(&self) -> Vec<T> {
        let paths = self.paths;
        let mut sums = vec![T::ZERO; self.level + 1];
        sums[0] = self.constants.iter().map(|&(_, x)| x).sum();
        // By order: the sum of the cotangents through so many stations of the levels behind.
        let mut cotangents = vec![self.last_cotangent()];
        for level in (0..=self.level).rev() {
            for written in paths.starts.iter().filter(|w| w.level == level) {
                for (sum, cotangent) in sums.iter_mut().zip(&cotangents) {
                    *sum += written.value.along(cotangent.mat(&[]));
                }
            }
            let Some(before) = level.checked_sub(1) else {
                break;
            };
            cotangents.push(Tensor::zeros(cotangents[0].shape()));
            // The highest order first, so that each still takes what the one below was.
            for order in (1..cotangents.len()).rev() {
                let (values, read) = paths.back(before, &cotangents[order - 1]);
                add(cotangents[order].data_mut(), read.data());
                for bias in &paths.levels[before].biases {
                    for (i, values) in values.iter().enumerate() {
                        sums[order] += sum_along(values, bias.values.slice(&[i]));
                    }
                }
            }
        }
        sums
    }

    /// The sums over the paths through each head, and each layer's neurons where these are held: over all starts, whatever comes
    /// before and after.
    ///
    /// A path of three heads is in the sums of all three, so these do not add up to the logit. A head's `b_V`
    /// is no path through it; see [`Start::ValueBias`].
    ///
    /// # Cost
    /// As two forward passes over the sequence's attention layers.
    pub fn by_station(&self) -> Vec<(Station, T)> {
        let (sweep, forward) = (self.sweep(), self.paths.forward(self.level));
        let both = sweep.values.iter().zip(&forward.values);
        let levels = self.paths.levels.iter().zip(both);
        levels
            .flat_map(|(level, (cotangents, values))| {
                let stations = cotangents.iter().zip(values).enumerate();
                stations.map(move |(i, (g, v))| {
                    let products = g.data().iter().zip(v.data());
                    (level.station(i), products.map(|(&g, &v)| g * v).sum())
                })
            })
            .collect()
    }
}

/// The sum over positions of a cotangent's rows' products with one row.
pub(super) fn sum_along<T: Scalar>(cotangent: &Tensor<T>, row: &[T]) -> T {
    let rows = cotangent.data().chunks_exact(row.len());
    rows.map(|g| g.iter().zip(row).map(|(&g, &x)| g * x).sum::<T>())
        .sum()
}
