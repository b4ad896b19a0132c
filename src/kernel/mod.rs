//! The inner loops, each once: for rows, and for sequences abreast where that is a loop of another shape.

pub(crate) mod abreast;
mod attend;
mod attend_rows;
mod norm;
mod sums;

pub(crate) use attend::{Attend, is_short};
pub(crate) use attend_rows::{AttendRows, attend_rows};
pub(crate) use norm::{NormAbreast, NormBack, NormBackAbreast, norm_rows};

/// What keys at the pad token score.
pub(crate) const PAD_SCORE: f64 = -1e5;
