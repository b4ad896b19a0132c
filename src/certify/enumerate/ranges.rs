//! Which inputs of a space, by their numbers.

use crate::error::{Error, Result};
use crate::task::InputSpace;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Inputs by their numbers in a space ([`InputSpace::sequence`]): ranges in order, none of them empty, that do not touch. What is
/// read from a file may be others, until the checker has looked.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ranges(pub Vec<Range<u64>>);

impl Ranges {
    /// The `i`-th of `n` parts of a space, counted from 0, as equal as they can be: `(0, 1)` is all of it.
    ///
    /// # Errors
    /// When the space has more inputs than 2^63.
    pub fn part(space: &InputSpace, (i, n): (usize, usize)) -> Result<Ranges> {
        let size = space.size();
        if i64::try_from(size).is_err() {
            return Err(Error::TooMany {
                found: size,
                most: 1 << 63,
                message: format!("{size} inputs are too many to walk through"),
            });
        }
        let boundary = |i: usize| (size * i as u128 / n as u128) as u64;
        Ok(Ranges::from(boundary(i)..boundary(i + 1)))
    }

    /// How many inputs they are.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|r| r.end - r.start).sum()
    }

    /// Those that are not among others.
    pub fn without(&self, others: &Ranges) -> Ranges {
        let mut left = self.0.clone();
        for cut in &others.0 {
            let beside =
                |r: Range<u64>| [r.start..r.end.min(cut.start), r.start.max(cut.end)..r.end];
            left = left.into_iter().flat_map(beside).collect();
            left.retain(|r| !r.is_empty());
        }
        Ranges(left)
    }

    /// Takes others in.
    ///
    /// # Errors
    /// When an input is among both; nothing is taken in then.
    pub fn add(&mut self, others: &Ranges) -> Result<()> {
        let mut all = [&self.0[..], &others.0].concat();
        all.sort_by_key(|r| r.start);
        if let Some(pair) = all.windows(2).find(|pair| pair[1].start < pair[0].end) {
            let (first, last) = (
                pair[1].start,
                pair[0].end.min(pair[1].end).saturating_sub(1),
            );
            return Err(Error::Experiment(format!(
                "inputs {first} to {last} are counted already, expected each once"
            )));
        }
        self.0.clear();
        for r in all {
            match self.0.last_mut() {
                Some(last) if last.end == r.start => last.end = r.end,
                _ => self.0.push(r),
            }
        }
        Ok(())
    }
}

impl From<Range<u64>> for Ranges {
    fn from(range: Range<u64>) -> Ranges {
        let range = Some(range).filter(|r| !r.is_empty());
        Ranges(range.into_iter().collect())
    }
}
