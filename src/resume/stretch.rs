//! Sequences that are run on together, and the positions of theirs that matter.

use super::{Clean, Resume};
use crate::diagram::{Config, Mask};
use crate::linalg::Par;
use crate::model::Tokens;
use crate::names::Hook;
use crate::op::Scratch;
use crate::tensor::Scalar;
use rayon::prelude::*;

/// About how many positions are run on together: more than a forward pass takes, since of some layers only a few
/// positions are computed.
pub(crate) const POSITIONS: usize = 512;

/// Some sequences of a batch, and how many of their positions are computed: what comes later is pads, which nobody
/// looks at. A sequence may be there several times, to be changed in several ways.
#[derive(Clone)]
pub(crate) struct Stretch {
    pub sequences: Vec<usize>,
    pub length: usize,
}

impl Stretch {
    /// The same sequences with all of their positions, no more than a stretch has.
    pub fn whole(&self, pos: usize) -> Vec<Stretch> {
        let pieces = self.sequences.chunks((POSITIONS / pos).max(1));
        let whole = |sequences: &[usize]| Stretch {
            sequences: sequences.to_vec(),
            length: pos,
        };
        pieces.map(whole).collect()
    }

    /// Its sequences so many times, one after the other.
    pub fn times(&self, n: usize) -> Stretch {
        Stretch {
            sequences: self.sequences.repeat(n),
            length: self.length,
        }
    }
}

impl<T: Scalar> Clean<'_, T> {
    /// The batch in stretches, longest sequences first; of each, what changes before layer `l` or later can matter
    /// to. Without a layer, all positions are assumed to matter. The clean run's stream before layer `l` is needed.
    ///
    /// Sequences of about one length come together, so that few pads are computed.
    pub fn stretches(&self, l: Option<usize>, par: Par) -> Vec<Stretch> {
        let pos = self.tokens.pos();
        let lengths = match l {
            Some(_) => lengths(self.model.config(), self.tokens, self.answers),
            None => vec![pos; self.tokens.batch()],
        };
        let stretches = cut(&lengths);
        let checked = |scratch: &mut Scratch<T>, stretch: Stretch| {
            let shorter = l.filter(|_| stretch.length < pos);
            match shorter.is_none_or(|l| self.ends_at(&stretch, l, scratch)) {
                true => vec![stretch],
                false => stretch.whole(pos),
            }
        };
        let checked: Vec<Vec<Stretch>> = match par {
            Par::Rayon => stretches
                .into_par_iter()
                .map_init(Scratch::default, checked)
                .collect(),
            Par::Seq => {
                let mut scratch = Scratch::default();
                let stretches = stretches.into_iter();
                stretches.map(|s| checked(&mut scratch, s)).collect()
            }
        };
        checked.into_iter().flatten().collect()
    }

    /// Whether the clean run itself gives the pads after the stretch no weight, from layer `l` on. Where they had
    /// some, or the values are not finite (of which zero times is not zero), whatever changes there could be seen.
    fn ends_at(&self, stretch: &Stretch, l: usize, scratch: &mut Scratch<T>) -> bool {
        let mut run = Resume::new(self, stretch, scratch);
        let finite = run.clean_logits().iter().all(|x| x.is_finite());
        let all: Vec<usize> = (0..stretch.length).collect();
        let stream = run.clean_rows(Hook::ResidPre(l), &all);
        let reach = run.reach(Hook::ResidPre(l), &all);
        run.run_on(Hook::ResidPre(l), stream, &reach).is_some() && finite
    }
}

/// How many positions of each sequence matter: those up to its last token that is no pad, or its last answer. Where
/// tokens are left out all do: of angles that go by the sequence's length, those of the others depend on how many there
/// are.
fn lengths(config: &Config, tokens: &Tokens, answers: &[usize]) -> Vec<usize> {
    let pad = config.pad_token.map(|pad| pad as i64);
    let Some(pad) = pad.filter(|_| tokens.attention_mask().is_none()) else {
        return vec![tokens.pos(); tokens.batch()];
    };
    let causal = config.mask == Mask::Causal;
    let last_answer = answers.iter().copied().max();
    let of = |i: usize| {
        let sequence = tokens.sequence(i);
        let last = sequence.iter().rposition(|&token| token != pad);
        // A query that sees no other token attends to pads, to those at the end as well.
        let sees_pads_alone = causal && sequence[0] == pad;
        match last.max(last_answer) {
            Some(end) if last.is_some() && !sees_pads_alone => end + 1,
            _ => tokens.pos(),
        }
    };
    (0..tokens.batch()).map(of).collect()
}

/// Sequences of these lengths in stretches, each as long as its longest sequence.
fn cut(lengths: &[usize]) -> Vec<Stretch> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(lengths[i]));
    let mut stretches = Vec::new();
    let mut rest = &order[..];
    while let Some(&longest) = rest.first() {
        let length = lengths[longest];
        let most = &rest[..(POSITIONS / length).clamp(1, rest.len())];
        // Of a much shorter one most positions would be pads.
        let alike = most.partition_point(|&i| 8 * lengths[i] >= 7 * length);
        let (own, others) = rest.split_at(alike);
        stretches.push(Stretch {
            sequences: own.to_vec(),
            length,
        });
        rest = others;
    }
    stretches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_hold_every_sequence_once_and_whole() {
        let lengths: Vec<usize> = (0..500).map(|i| 1 + i * 37 % 90).collect();
        let stretches = cut(&lengths);
        let mut seen: Vec<usize> = Vec::new();
        for stretch in &stretches {
            let longest = stretch.sequences.iter().map(|&i| lengths[i]).max();
            assert_eq!(longest, Some(stretch.length));
            assert!(stretch.sequences.len() * stretch.length <= POSITIONS);
            seen.extend(&stretch.sequences);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..500).collect::<Vec<_>>());
        assert!(cut(&[]).is_empty());
        // Longer than a stretch has positions.
        let long = cut(&[3 * POSITIONS; 2]);
        assert_eq!(long[1].sequences, [1]);
        assert_eq!(long[0].whole(POSITIONS / 2)[0].length, POSITIONS / 2);
    }

    #[test]
    fn a_sequence_ends_where_nothing_but_pads_is_left() {
        let mut config = crate::fixture::induction::<f64>().config().clone();
        let of = |config: &Config, sequence: [i64; 5], answers: &[usize]| {
            lengths(config, &Tokens::from_rows(&[sequence]), answers)[0]
        };
        assert_eq!(of(&config, [1, 2, 0, 0, 0], &[0]), 5);
        config.pad_token = Some(0);
        for mask in [Mask::Causal, Mask::All] {
            config.mask = mask;
            assert_eq!(of(&config, [1, 0, 2, 0, 0], &[0]), 3);
            assert_eq!(of(&config, [1, 0, 2, 0, 0], &[0, 3, 1]), 4);
            assert_eq!(of(&config, [1, 0, 0, 0, 2], &[0]), 5);
            assert_eq!(of(&config, [0; 5], &[0]), 5);
        }
        assert_eq!(of(&config, [0, 1, 0, 0, 0], &[0]), 2);
        config.mask = Mask::Causal;
        assert_eq!(of(&config, [0, 1, 0, 0, 0], &[0]), 5);
    }
}
