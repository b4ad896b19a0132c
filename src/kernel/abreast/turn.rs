//! From sequences abreast to the order of the axes, and back.

use super::gather::{GROUP, places};
use crate::tensor::Scalar;
use pulp::{Arch, Simd, WithSimd};

/// `out[lane, :] = x[:, lane]`, for as many sequences as `out` has room for.
pub(crate) fn to_rows<T: Scalar>(x: &[T], lanes: usize, out: &mut [T]) {
    let each = x.len() / lanes;
    Arch::new().dispatch(ToRows { x, each, out });
}

/// The other way: `out[:, lane] = x[lane, :]`, and zeros in the lanes that there are no sequences for.
pub(crate) fn from_rows<T: Scalar>(x: &[T], lanes: usize, out: &mut [T]) {
    let each = out.len() / lanes;
    out.fill(T::ZERO);
    for (lane, x) in x.chunks_exact(each).enumerate() {
        let places = out.chunks_exact_mut(lanes).zip(x);
        places.for_each(|(out, &x)| out[lane] = x);
    }
}

/// So many groups are turned before they are written, so that each sequence's row is written by the cache line.
const TILE: usize = 4;

struct ToRows<'a, T> {
    /// `[each, lane]`
    x: &'a [T],
    each: usize,
    /// `[sequence, each]`
    out: &'a mut [T],
}

impl<T: Scalar> WithSimd for ToRows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = size_of::<T::V<S>>() / size_of::<T>();
        let places = places::<T, S>(simd);
        let mut groups = vec![[T::ZERO; GROUP]; TILE * lanes];
        let (x, _) = T::split::<S>(self.x);
        let (fours, rest) = x.as_chunks::<GROUP>();
        for (i, tile) in fours.chunks(TILE).enumerate() {
            for (groups, &four) in groups.chunks_exact_mut(lanes).zip(tile) {
                let (to, _) = T::split_mut::<S>(groups.as_flattened_mut());
                to.copy_from_slice(&T::in_groups_of_four(simd, four));
            }
            for (row, &place) in self.out.chunks_exact_mut(self.each).zip(&places) {
                let row = &mut row[TILE * GROUP * i..][..GROUP * tile.len()];
                let (row, _) = row.as_chunks_mut();
                for (to, groups) in row.iter_mut().zip(groups.chunks_exact(lanes)) {
                    *to = groups[place];
                }
            }
        }
        let rest = self.each - rest.len()..self.each;
        for (lane, row) in self.out.chunks_exact_mut(self.each).enumerate() {
            rest.clone().for_each(|i| row[i] = self.x[i * lanes + lane]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::lanes;

    #[test]
    fn turning_and_turning_back_changes_nothing() {
        fn check<T: Scalar>(lanes: usize, to_rows: impl Fn(ToRows<'_, T>)) {
            for (each, count) in [
                (1, lanes),
                (4, 1),
                (7, lanes.div_ceil(2)),
                (16, lanes),
                (30, lanes),
            ] {
                let rows: Vec<T> = (0..each * count)
                    .map(|i| T::from_f64(i as f64 + 1.0))
                    .collect();
                let mut abreast = vec![T::from_f64(f64::NAN); each * lanes];
                from_rows(&rows, lanes, &mut abreast);
                for (i, x) in abreast.chunks_exact(lanes).enumerate() {
                    for (lane, &x) in x.iter().enumerate() {
                        let there = rows.get(lane * each + i).filter(|_| lane < count);
                        assert_eq!(x, *there.unwrap_or(&T::ZERO));
                    }
                }
                let mut back = vec![T::ZERO; rows.len()];
                to_rows(ToRows {
                    x: &abreast,
                    each,
                    out: &mut back,
                });
                assert!(back == rows, "{each} {count}: {back:?}");
            }
        }
        check::<f32>(lanes::<f32>(), |turn| Arch::new().dispatch(turn));
        check::<f64>(lanes::<f64>(), |turn| Arch::new().dispatch(turn));
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V3::try_new() {
            check::<f32>(8, |turn| Simd::vectorize(simd, turn));
            check::<f64>(4, |turn| Simd::vectorize(simd, turn));
        }
    }
}
