//! The paths that add most, found from the logit backwards by branch and bound.
//!
//! A set of stations that a path ends in has a cotangent of its first one's values, `[pos, width]`. The
//! products of that with what the starts are there are the paths that begin with that station. For all longer ones
//! at once there is a bound: at every position the cotangent's norm times the largest norm that values can
//! have there, of any path from any start. Whatever cannot exceed what has been found is left.

use super::reach::Reach;
use super::sums::{LogitPaths, Sum};
use super::{Contribution, Path, Place, Start, map, norm, scale_rows, times};
use crate::error::{Error, Result};
use crate::linalg::rounding::{gamma, rounded_up, unit};
use crate::tensor::{Scalar, Tensor};
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// What is known of the paths that are not listed. Every figure is rigorous, underflow aside.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unlisted<T> {
    /// How many they are; at the largest `u128`, so many or more.
    pub count: u128,
    /// What they add together: the sum over all paths, by recurrence, less those listed.
    pub together: T,
    /// How far off rounding may have put that: together they change the logit by at most
    /// `|together| + rounding`.
    pub rounding: T,
    /// No one of them adds more than this, by its modulus.
    pub each: T,
    /// Whether the search ended by itself, so that, but for the rounding of single paths, none unlisted adds
    /// more than one listed. Else the budget ended it, and there may be larger ones, up to `each`.
    pub complete: bool,
    /// How many sets of stations were looked below.
    pub expanded: usize,
}

/// The largest paths, and what is known of the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Top<T> {
    /// By modulus, the largest first.
    pub paths: Vec<Contribution<T>>,
    /// The sum over all paths.
    pub total: Sum<T>,
    /// What is known of the others.
    pub unlisted: Unlisted<T>,
}

/// Stations that paths end in.
struct PathEnd<T: Scalar> {
    places: Vec<Place>,
    /// The cotangent of the first one's values, `[pos, width]`.
    values: Tensor<T>,
    /// How far off it is, by the norm of each row.
    apart: Vec<T>,
}

/// Stations that paths end in, to be looked below: the largest bound first.
struct Open<T: Scalar> {
    bound: f64,
    /// What comes after the first; none, where the unembedding does.
    behind: Option<Arc<PathEnd<T>>>,
    place: Place,
}

/// A path found.
struct FoundPath<T> {
    value: T,
    error: T,
    start: Start,
    places: Vec<Place>,
}

impl<T: Scalar> PartialEq for Open<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl<T: Scalar> Eq for Open<T> {}
impl<T: Scalar> PartialOrd for Open<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<T: Scalar> Ord for Open<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bound.total_cmp(&other.bound)
    }
}

/// The paths found so far, and what those left out may add.
struct LargestPaths<T> {
    most: usize,
    /// The largest first.
    found: Vec<FoundPath<T>>,
    each: T,
}

impl<T: Scalar> LargestPaths<T> {
    /// What a path must exceed to be listed.
    fn threshold(&self) -> Option<T> {
        let last = self.found.get(self.most - 1)?;
        Some(last.value.abs())
    }

    fn take(&mut self, found: FoundPath<T>) {
        let size = found.value.abs();
        let at = self.found.partition_point(|f| f.value.abs() >= size);
        self.found.insert(at, found);
        if self.found.len() > self.most {
            let last = self.found.pop().expect("one more than there is room for");
            self.leave(last.value.abs() + last.error);
        }
    }

    /// Notes that something may add as much and is not listed.
    fn leave(&mut self, size: T) {
        if size > self.each {
            self.each = size;
        }
    }
}

/// What was seen at one more station.
struct Seen<T> {
    /// The paths that begin there.
    found: Vec<(Start, T)>,
    error: T,
    /// What any longer one may add.
    longer: T,
}

impl<T: Scalar> LogitPaths<'_, '_, T> {
    /// The `k` paths that add most, by modulus, and what is known of the others.
    ///
    /// At most `budget` sets of stations are looked below; where that ends the search, `complete` says so and
    /// is still true.
    ///
    /// # Errors
    /// When `k` is 0, a path adds no finite number, or there is no memory for the products.
    ///
    /// # Cost
    /// `2 d_model d_head²` operations and `d_head²` numbers for each pair of heads in different layers, with `d_mlp` in the place of
    /// `d_head` for neurons; then, for each set of stations looked below, `2 pos d_head (d_head + pos + starts)` for each before it.
    pub fn top(&self, k: usize, budget: usize) -> Result<Top<T>> {
        if k == 0 {
            return Err(Error::TooFew {
                found: 0,
                least: 1,
                message: "the 0 largest paths: ask for at least 1".into(),
            });
        }
        let total = self.total();
        if !total.value.is_finite() {
            return Err(Error::Numeric(
                "the paths add up to no finite number: the run or the model holds a NaN or an infinity".into(),
            ));
        }
        let reach = Reach::new(self.paths, self.level)?;
        let mut best = LargestPaths {
            most: k,
            found: Vec::new(),
            each: T::ZERO,
        };
        self.direct(&mut best);
        let mut open = BinaryHeap::new();
        let mut expanded = 0;
        self.look_below(&reach, None, &mut best, &mut open);
        let mut complete = true;
        while let Some(next) = open.pop() {
            let proved = best.threshold().is_some_and(|t| next.bound <= t.to_f64());
            if proved || expanded == budget {
                best.leave(T::from_f64(next.bound));
                complete = proved;
                break;
            }
            expanded += 1;
            let suffix = Arc::new(self.suffix(&reach, next.behind.as_deref(), next.place));
            self.look_below(&reach, Some(suffix), &mut best, &mut open);
        }
        Ok(self.certified(total, best, complete, expanded))
    }

    fn certified(
        &self,
        total: Sum<T>,
        best: LargestPaths<T>,
        complete: bool,
        expanded: usize,
    ) -> Top<T> {
        let listed: T = best.found.iter().map(|f| f.value).sum();
        let errors: T = best.found.iter().map(|f| f.error).sum();
        let sizes: T = best.found.iter().map(|f| f.value.abs()).sum();
        let n = best.found.len() + 4;
        let rounding = total.rounding + errors + gamma::<T>(n) * (sizes + total.value.abs());
        let count = match self.count() {
            u128::MAX => u128::MAX,
            count => count - best.found.len() as u128,
        };
        let path = |f: FoundPath<T>| Contribution {
            path: Path {
                start: f.start,
                stations: f
                    .places
                    .iter()
                    .map(|&place| self.paths.station(place))
                    .collect(),
            },
            value: f.value,
        };
        Top {
            paths: best.found.into_iter().map(path).collect(),
            total,
            unlisted: Unlisted {
                count,
                together: total.value - listed,
                rounding: rounding * rounded_up::<T>(n),
                // Rounded up to whatever precision it has been carried in.
                each: best.each * (T::ONE + unit::<T>() + unit::<T>()),
                complete,
                expanded,
            },
        }
    }

    /// The paths that pass nothing.
    fn direct(&self, best: &mut LargestPaths<T>) {
        let paths = self.paths;
        let (d, n) = (paths.d_model(), paths.roundings() + self.weighed);
        let (g, up) = (gamma::<T>(n), rounded_up::<T>(8 * n));
        let mut take = |start, value, error| {
            best.take(FoundPath {
                value,
                error,
                start,
                places: Vec::new(),
            });
        };
        for &(start, value) in &self.constants {
            take(start, value, g * self.constants_size * up);
        }
        for written in paths.written_before(self.level) {
            let (row, by) = written.value.at(self.position, d);
            let products = row.iter().zip(&self.row).map(|(&x, &g)| x * g);
            let size = written.size(self.position, d) * self.row_size;
            take(written.start, by * products.sum::<T>(), g * size * up);
        }
    }

    /// The cotangent of a station's values, given that of the one behind it.
    fn suffix(&self, reach: &Reach<T>, behind: Option<&PathEnd<T>>, place: Place) -> PathEnd<T> {
        let paths = self.paths;
        let level = &paths.levels[place.level];
        let Some(behind) = behind else {
            let n = paths.roundings() + self.weighed;
            let mut at = vec![T::ZERO; paths.pos];
            at[self.position] = gamma::<T>(n) * self.row_size * reach.of(place).W_O;
            return PathEnd {
                places: vec![place],
                values: paths.values_of(place, self.last_cotangent().mat(&[])),
                apart: level.mixed_back(place.index, &at),
            };
        };
        let next = behind.places[0];
        let inverse_scale = &paths.levels[next.level].inverse_scale;
        let (W_OV, at_most) = reach.between(place, next);
        let mut scaled = behind.values.clone();
        scale_rows(&mut scaled, inverse_scale);
        let out = times(scaled.mat(&[]), W_OV.transpose());
        // Through the product as computed, whose own entries are off by no more than it itself may round.
        let g = gamma::<T>(2 * paths.roundings());
        let size = g * reach.of(place).W_O * reach.of(next).W_V;
        let apart: Vec<T> = (0..paths.pos)
            .map(|p| {
                let row = norm(behind.values.slice(&[p]));
                inverse_scale[p].abs() * (behind.apart[p] * at_most + row * size)
            })
            .collect();
        PathEnd {
            places: [&[place], &behind.places[..]].concat(),
            values: level.mix_back(place.index, out),
            apart: level.mixed_back(place.index, &apart),
        }
    }

    /// Looks at every station before a suffix: what begins there is found, what may begin before is left open.
    fn look_below(
        &self,
        reach: &Reach<T>,
        behind: Option<Arc<PathEnd<T>>>,
        best: &mut LargestPaths<T>,
        open: &mut BinaryHeap<Open<T>>,
    ) {
        let paths = self.paths;
        let level = behind.as_ref().map_or(self.level, |b| b.places[0].level);
        let places = paths.places_before(level);
        let seen = map(paths.par, places.len(), |i| {
            let suffix = self.suffix(reach, behind.as_deref(), places[i]);
            self.look_at(reach, &suffix)
        });
        for (place, seen) in places.into_iter().zip(seen) {
            for (start, value) in seen.found {
                if best.threshold().is_some_and(|t| value.abs() <= t) {
                    best.leave(value.abs() + seen.error);
                    continue;
                }
                let after = behind.iter().flat_map(|b| &b.places);
                best.take(FoundPath {
                    value,
                    error: seen.error,
                    start,
                    places: std::iter::once(&place).chain(after).copied().collect(),
                });
            }
            if place.level == 0 {
                continue;
            }
            if best.threshold().is_some_and(|t| seen.longer <= t) {
                best.leave(seen.longer);
            } else {
                open.push(Open {
                    bound: seen.longer.to_f64(),
                    behind: behind.clone(),
                    place,
                });
            }
        }
    }

    fn look_at(&self, reach: &Reach<T>, suffix: &PathEnd<T>) -> Seen<T> {
        let paths = self.paths;
        let n = paths.roundings();
        let (g, up) = (gamma::<T>(n), rounded_up::<T>(8 * n));
        let place = suffix.places[0];
        let at = reach.of(place);
        let (mut error, mut longer) = (T::ZERO, T::ZERO);
        for (p, &apart) in suffix.apart.iter().enumerate() {
            let size = norm(suffix.values.slice(&[p]));
            error += (apart + g * size) * at.terms[p];
            longer += (size + apart) * at.longer[p];
        }
        Seen {
            found: reach.starts(paths, place, &suffix.values),
            error: error * up,
            longer: longer * up,
        }
    }
}
