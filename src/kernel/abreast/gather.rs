//! Rows of a table, each into the lane of its sequence.

use crate::tensor::Scalar;
use pulp::{Simd, WithSimd};

/// So many values of a row are moved at a time.
pub(super) const GROUP: usize = 4;

/// `out[p, :, lane] = table[ids[lane, p]]`; where there are fewer sequences than lanes, the last one again.
pub(crate) struct Gather<'a, T> {
    /// `[_, d]`
    pub table: &'a [T],
    pub d: usize,
    /// `[sequence, pos]`
    pub ids: &'a [i64],
    pub pos: usize,
    /// `[pos, d, lane]`
    pub out: &'a mut [T],
}

impl<T: Scalar> WithSimd for Gather<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (d, pos) = (self.d, self.pos);
        let lanes = size_of::<T::V<S>>() / size_of::<T>();
        let last = self.ids.len() / pos - 1;
        let places = places::<T, S>(simd);
        // `[group of a row, place, value]`
        let mut groups = vec![[T::ZERO; GROUP]; d / GROUP * lanes];
        for (p, out) in self.out.chunks_exact_mut(d * lanes).enumerate() {
            for (lane, &place) in places.iter().enumerate() {
                let id = self.ids[lane.min(last) * pos + p] as usize;
                let (row, rest) = self.table[id * d..][..d].as_chunks();
                for (to, from) in groups.chunks_exact_mut(lanes).zip(row) {
                    to[place] = *from;
                }
                for (i, &x) in (d - rest.len()..d).zip(rest) {
                    out[i * lanes + lane] = x;
                }
            }
            let (groups, _) = T::split::<S>(groups.as_flattened());
            let (out, _) = T::split_mut::<S>(out);
            for (to, from) in out.chunks_exact_mut(GROUP).zip(groups.chunks_exact(GROUP)) {
                let from = [from[0], from[1], from[2], from[3]];
                to.copy_from_slice(&T::by_place_in_four(simd, from));
            }
        }
    }
}

/// Where each lane's group must stand for its values to come into that lane.
#[inline(always)]
pub(super) fn places<T: Scalar, S: Simd>(simd: S) -> Vec<usize> {
    let lanes = size_of::<T::V<S>>() / size_of::<T>();
    let numbers: Vec<T> = (0..GROUP * lanes)
        .map(|i| T::from_f64((i / GROUP) as f64))
        .collect();
    let (numbers, _) = T::split::<S>(&numbers);
    let order = T::by_place_in_four(simd, [numbers[0], numbers[1], numbers[2], numbers[3]]);
    let mut places = vec![T::ZERO; lanes];
    T::split_mut::<S>(&mut places).0[0] = order[0];
    places.iter().map(|place| place.to_f64() as usize).collect()
}
