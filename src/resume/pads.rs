//! Whether the pads after a stretch would have any weight, were they computed.

use super::Resume;
use crate::kernel::PAD_SCORE;
use crate::tensor::{Scalar, largest};

/// Where a query's largest score is no lower, keys at pads have no weight: the softmax takes `exp` of less than this
/// for them, which is zero in every precision.
const NO_WEIGHT: f64 = PAD_SCORE / 2.0;

impl<T: Scalar> Resume<'_, T> {
    /// Notes whether pads have no weight where every query's largest score is at least this.
    pub(super) fn note_largest_scores(&mut self, least: T) {
        let is_shorter = self.stretch.length < self.clean.tokens.pos();
        // Of a NaN it is not known.
        let have_none = least.to_f64() >= NO_WEIGHT;
        self.pads_matter |= is_shorter && !have_none;
    }

    /// As [`Resume::note_largest_scores`], from queries and keys, where the scores are not seen: no score is larger
    /// than `d_head` products of the largest entries. Every query sees some key that is no pad.
    pub(super) fn note_queries_and_keys(&mut self, q: &[T], k: &[T], d_head: usize, factor: T) {
        if self.stretch.length < self.clean.tokens.pos() {
            // A NaN may hide: its queries' patterns are zero, with pads or without.
            let bound = T::from_f64(d_head as f64) * largest(q) * largest(k) * factor.abs();
            self.note_largest_scores(-bound);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pad_has_no_weight_there() {
        assert_eq!(f64::from_f64(PAD_SCORE - NO_WEIGHT).exp_lane(), 0.0);
        assert_eq!(f32::from_f64(PAD_SCORE - NO_WEIGHT).exp_lane(), 0.0);
    }
}
