//! Certificates: how good a model is on every input there is.
//!
//! What is claimed is said of the real-valued function that the model's weights, as exact numbers, define: that it
//! answers rightly on at least so many inputs of a space, and wrongly on at least so many ([`Certified`]). *u* is the
//! right answer and is given where its logit is larger than every other's by more than the claim's margin; a wrong
//! answer is given where another's logit is larger than the right one's by more than the margin. What is neither, and
//! what no method decided, is undecided.

mod cells;
mod certificate;
mod check;
mod double;
mod enumerate;
mod interval;
#[cfg(test)]
mod naive;
mod seek;
pub mod sets;
mod tables;

pub use crate::task::{InputPart, InputSpace, Restriction, Values};
pub use certificate::{Certificate, Header, Method, hash};
pub use check::{Checked, check};
pub use enumerate::{Case, Margin, Ranges, Walked, answers, walk};
pub use interval::Interval;
pub use seek::{Seek, seek};
pub use tables::OneLayer;

use serde::{Deserialize, Serialize};

/// What a claim is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// The task's name.
    pub task: String,
    /// What of its space is asked for, as [`Restriction::parse`] reads it; empty for all of it.
    pub space: String,
    /// By how much the right logit must be the largest.
    pub margin: f64,
}

/// How many inputs are answered rightly and wrongly: at least so many of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Count {
    /// Proved right.
    #[serde(with = "exact")]
    pub right: u128,
    /// Proved wrong.
    #[serde(with = "exact")]
    pub wrong: u128,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Count) {
        self.right += other.right;
        self.wrong += other.wrong;
    }
}

/// Inputs of one right answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Answered {
    /// How many there are.
    #[serde(with = "exact")]
    pub inputs: u128,
    /// What is proved of them.
    pub count: Count,
}

impl std::ops::AddAssign for Answered {
    fn add_assign(&mut self, other: Answered) {
        self.inputs += other.inputs;
        self.count += other.count;
    }
}

/// The figures of a certificate, exact counts of inputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certified {
    /// Inputs of the space.
    #[serde(with = "exact")]
    pub size: u128,
    /// By position where an answer is read.
    pub positions: Vec<(usize, Count)>,
    /// All positions together: right where every answer is, wrong where any is.
    pub all: Count,
}

impl Certified {
    /// From the counts at each position, of which it is not known which inputs they are of: right is what is left when
    /// all that is not proved right at some position is taken off, wrong what is wrong at one position.
    pub fn from_positions(size: u128, positions: Vec<(usize, Count)>) -> Certified {
        let fails = positions.iter().map(|(_, count)| size - count.right);
        let fails = fails.fold(0u128, u128::saturating_add);
        let wrong = positions.iter().map(|(_, count)| count.wrong).max();
        let all = Count {
            right: size.saturating_sub(fails),
            wrong: wrong.unwrap_or(0),
        };
        Certified {
            size,
            positions,
            all,
        }
    }

    /// A count as a share of the space, for people.
    pub fn share(&self, count: u128) -> f64 {
        count as f64 / self.size as f64
    }
}

/// With what is counted of other inputs of the same space, at the same positions.
impl std::ops::AddAssign<&Certified> for Certified {
    fn add_assign(&mut self, other: &Certified) {
        let pairs = self.positions.iter_mut().zip(&other.positions);
        pairs.for_each(|(own, other)| own.1 += other.1);
        self.all += other.all;
    }
}

/// Integers beyond 64 bits, written as decimal strings.
mod exact {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(n: &u128, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(n)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u128, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
