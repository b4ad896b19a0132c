//! What reaches the stations' values, and how large it can be there: what the search bounds its branches by.

use super::{Paths, Place, Start, WrittenValue, frobenius, map, norm, row, scale_rows, times};
use crate::error::Result;
use crate::linalg::rounding::{gamma, spectral_at_most};
use crate::tensor::{Scalar, Tensor, check_room};
use faer::MatRef;

/// What reaches each station's values.
pub(super) struct Reach<T: Scalar> {
    /// By level.
    stations: Vec<Vec<AtStation<T>>>,
}

pub(super) struct AtStation<T: Scalar> {
    /// The starts with a row for every position, as values, `[pos, width]`.
    rows: Vec<(Start, Tensor<T>)>,
    /// The starts that are one row times a factor a position: the rows as values, `[start, d_head]`, and the
    /// factors, `[start, pos]`.
    multiples: Option<(Vec<Start>, Tensor<T>, Tensor<T>)>,
    /// `W_O W_V` from each station of an earlier level, `[station, their width, width]` by level, and bounds on their norms.
    before: Vec<(Tensor<T>, Vec<T>)>,
    /// The Frobenius norm of `W_O`.
    pub W_O: T,
    /// The Frobenius norm of the terms of the folded `W_V`.
    pub W_V: T,
    /// By position: the norm of the terms of any start's values, at most.
    pub terms: Vec<T>,
    /// By position: the norm of the values that any path has there, at most, whose start another station reads.
    pub longer: Vec<T>,
    /// By position: the same, of any path at all.
    any: Vec<T>,
}

fn raise<T: Scalar>(most: &mut [T], at: usize, x: T) {
    if x > most[at] || x.is_nan() {
        most[at] = x;
    }
}

impl<T: Scalar> Reach<T> {
    /// Of the stations before a level.
    ///
    /// # Errors
    /// When there is no memory for the products between them.
    pub fn new(paths: &Paths<'_, T>, level: usize) -> Result<Self> {
        let widths = |level: usize| paths.levels[level].stations() * paths.levels[level].width();
        let pairs = (0..level).flat_map(|l| (0..l).map(move |m| (l, m)));
        let products: usize = pairs.map(|(l, m)| widths(l) * widths(m)).sum();
        // What the starts are as values, too.
        let starts = |l: usize| widths(l) * paths.written_before(l).len();
        let numbers = products + (0..level).map(starts).sum::<usize>();
        check_room(
            (numbers * size_of::<T>()) as u64,
            "the products between all that paths can pass (sums over them, --by, need none)",
        )?;
        let mut stations: Vec<Vec<AtStation<T>>> = Vec::new();
        for level in 0..level {
            let own = map(paths.par, paths.levels[level].stations(), |index| {
                AtStation::new(paths, Place { level, index }, &stations)
            });
            stations.push(own);
        }
        Ok(Reach { stations })
    }

    pub fn of(&self, place: Place) -> &AtStation<T> {
        &self.stations[place.level][place.index]
    }

    /// `W_O W_V` from a station to a later one, the norm between them folded in, and a bound on its norm.
    pub fn between(&self, place: Place, later: Place) -> (MatRef<'_, T>, T) {
        let (W_OV, norms) = &self.of(later).before[place.level];
        (W_OV.mat(&[place.index]), norms[place.index])
    }

    /// What the starts that a station reads add, given the cotangent of its values.
    pub fn starts(
        &self,
        paths: &Paths<'_, T>,
        place: Place,
        cotangent: &Tensor<T>,
    ) -> Vec<(Start, T)> {
        let at = self.of(place);
        let mut all = Vec::new();
        for (start, values) in &at.rows {
            // By position first: no term meets more roundings than its features and the positions.
            let at = |p: usize| -> T {
                let products = cotangent.slice(&[p]).iter().zip(values.slice(&[p]));
                products.map(|(&g, &v)| g * v).sum()
            };
            all.push((*start, (0..paths.pos).map(at).sum()));
        }
        if let Some((starts, rows, factors)) = &at.multiples {
            let products = times(rows.mat(&[]), cotangent.mat(&[]).transpose());
            let products = products.data().chunks_exact(paths.pos);
            let factors = factors.data().chunks_exact(paths.pos);
            for ((start, x), by) in starts.iter().zip(products).zip(factors) {
                all.push((*start, x.iter().zip(by).map(|(&x, &by)| x * by).sum()));
            }
        }
        for bias in &paths.levels[place.level].biases {
            let value = super::sums::sum_along(cotangent, bias.values.slice(&[place.index]));
            all.push((bias.start, value));
        }
        all
    }
}

impl<T: Scalar> AtStation<T> {
    /// `earlier` are the stations of all earlier levels.
    fn new(paths: &Paths<'_, T>, place: Place, earlier: &[Vec<AtStation<T>>]) -> Self {
        let (pos, d) = (paths.pos, paths.d_model());
        let level = &paths.levels[place.level];
        let (W_V, W_O) = (level.W_V(place.index), level.W_O(place.index));
        let g = gamma::<T>(paths.roundings());
        let V = level.V_sizes[place.index];
        let scale = |p: usize| level.inverse_scale[p].abs();

        let mut terms = vec![T::ZERO; pos];
        let mut any = vec![T::ZERO; pos];
        let mut rows = Vec::new();
        let (mut starts, mut multiples, mut factors) = (Vec::new(), Vec::new(), Vec::new());
        for written in paths.written_before(place.level) {
            let terms_at: Vec<T> = (0..pos)
                .map(|p| written.size(p, d) * V * scale(p))
                .collect();
            let mut reaches = |p: usize, size: T| {
                raise(&mut terms, p, terms_at[p]);
                raise(&mut any, p, size + g * terms_at[p]);
            };
            match &written.value {
                WrittenValue::Rows(x) => {
                    let mut values = times(MatRef::from_row_major_slice(x, pos, d), W_V);
                    scale_rows(&mut values, &level.inverse_scale);
                    (0..pos).for_each(|p| reaches(p, norm(values.slice(&[p]))));
                    rows.push((written.start, values));
                }
                WrittenValue::Multiples { of, by } => {
                    let values = times(row(of), W_V).into_data();
                    let own = norm(&values);
                    starts.push(written.start);
                    multiples.extend(values);
                    for (p, &by) in by.iter().enumerate() {
                        factors.push(by * level.inverse_scale[p]);
                        reaches(p, own * by.abs() * scale(p));
                    }
                }
            }
        }
        for bias in &level.biases {
            let (own, size) = (
                norm(bias.values.slice(&[place.index])),
                bias.sizes[place.index],
            );
            for p in 0..pos {
                raise(&mut terms, p, size);
                raise(&mut any, p, own + g * size);
            }
        }

        let mut longer = vec![T::ZERO; pos];
        let mut before = Vec::new();
        for (their_level, stations) in paths.levels.iter().zip(earlier) {
            let W_OV = times(their_level.all_W_O(), W_V);
            let W_OV = W_OV.reshape(&[stations.len(), their_level.width(), W_V.ncols()]);
            let mut norms = Vec::new();
            for (i, theirs) in stations.iter().enumerate() {
                let most = spectral_at_most(W_OV.mat(&[i])) + g * theirs.W_O * V;
                let mixed = their_level.mixed(i, &theirs.any);
                for (p, x) in mixed.into_iter().enumerate() {
                    raise(&mut longer, p, scale(p) * most * x);
                }
                norms.push(most);
            }
            before.push((W_OV, norms));
        }
        (0..pos).for_each(|p| raise(&mut any, p, longer[p]));
        let multiples = (!starts.is_empty()).then(|| {
            let rows = Tensor::from_vec(&[starts.len(), W_V.ncols()], multiples);
            let factors = Tensor::from_vec(&[starts.len(), pos], factors);
            (starts, rows, factors)
        });
        AtStation {
            rows,
            multiples,
            before,
            W_O: frobenius(W_O),
            W_V: V,
            terms,
            longer,
            any,
        }
    }
}
