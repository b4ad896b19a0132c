//! Which part of a hook's value an intervention touches.

use crate::diagram::Axis;
use crate::error::{Error, Result};
use crate::model::Config;
use crate::names::Hook;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The part of a value that is changed: along each axis the places chosen, or all of them.
///
/// ```
/// use pathsum::intervene::Part;
/// let part = Part::all().heads([0]).positions([3, 4]);
/// let json = serde_json::to_string(&part).unwrap();
/// assert_eq!(json, r#"{"heads":[0],"positions":[3,4]}"#);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Sequences of the batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequences: Option<Vec<usize>>,
    /// Heads of the layer, where the value has heads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heads: Option<Vec<usize>>,
    /// Positions; the queries' in scores and patterns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positions: Option<Vec<usize>>,
    /// The keys' positions, in scores and patterns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<usize>>,
    /// Places along the last axis of every other value: neurons, or coordinates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units: Option<Vec<usize>>,
}

macro_rules! choose {
    ($($(#[$doc:meta])* $axis:ident),*) => {
        $($(#[$doc])*
        pub fn $axis(mut self, chosen: impl IntoIterator<Item = usize>) -> Self {
            self.$axis = Some(chosen.into_iter().collect());
            self
        })*
    };
}

impl Part {
    /// All of the value.
    pub fn all() -> Self {
        Self::default()
    }

    choose! {
        /// Of these sequences.
        sequences,
        /// Of these heads.
        heads,
        /// At these positions.
        positions,
        /// At these keys.
        keys,
        /// Of these neurons or coordinates.
        units
    }
}

/// What an axis of a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueAxis {
    Sequence,
    Position,
    Head,
    Key,
    Unit,
}

/// The axes of a hook's value, outermost first.
pub(super) fn axes(hook: Hook) -> &'static [ValueAxis] {
    use ValueAxis::{Head, Key, Position, Sequence, Unit};
    match hook.axes() {
        [_, _, _] => &[Sequence, Position, Unit],
        [_, Axis::Head, ..] => &[Sequence, Head, Position, Key],
        _ => &[Sequence, Position, Head, Unit],
    }
}

/// A [`Part`] of a certain value, checked: for each axis the chosen places in order, and each place's rank
/// among them.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    axes: &'static [ValueAxis],
    chosen: Vec<Vec<usize>>,
    ranks: Vec<Vec<Option<usize>>>,
}

impl Selection {
    /// # Errors
    /// When the value has no such axis or no such place along it, or an axis is left without any.
    pub fn new(config: &Config, hook: Hook, part: &Part, batch: usize, pos: usize) -> Result<Self> {
        let axes = axes(hook);
        let shape = config.hook_shape(hook, batch, pos);
        let given = [
            (ValueAxis::Sequence, "sequence", &part.sequences),
            (ValueAxis::Head, "head", &part.heads),
            (ValueAxis::Position, "position", &part.positions),
            (ValueAxis::Key, "key", &part.keys),
            (ValueAxis::Unit, "unit", &part.units),
        ];
        let mut chosen: Vec<Vec<usize>> = shape.iter().map(|&n| (0..n).collect()).collect();
        for (axis, name, places) in given {
            let Some(places) = places else { continue };
            let Some(at) = axes.iter().position(|a| *a == axis) else {
                return Err(Error::WrongHook {
                    hook,
                    reason: format!("has no {name}s"),
                });
            };
            if let Some(&wrong) = places.iter().find(|&&i| i >= shape[at]) {
                return Err(Error::out_of_range(
                    name,
                    wrong,
                    format!(" of `{hook}`"),
                    "there",
                    0..shape[at],
                ));
            }
            if places.is_empty() {
                return Err(Error::Intervention {
                    hook,
                    reason: format!("no {name}s are chosen"),
                });
            }
            chosen[at] = places.clone();
            chosen[at].sort_unstable();
            chosen[at].dedup();
        }
        let ranks = chosen.iter().zip(&shape).map(|(chosen, &n)| {
            let mut ranks = vec![None; n];
            chosen
                .iter()
                .enumerate()
                .for_each(|(rank, &i)| ranks[i] = Some(rank));
            ranks
        });
        Ok(Selection {
            axes,
            ranks: ranks.collect(),
            chosen,
        })
    }

    /// The chosen places along an axis that the value has.
    pub fn chosen(&self, axis: ValueAxis) -> Option<&[usize]> {
        let at = self.axes.iter().position(|a| *a == axis)?;
        Some(&self.chosen[at])
    }

    /// The chosen positions.
    pub fn positions(&self) -> &[usize] {
        self.chosen(ValueAxis::Position)
            .expect("every value has positions")
    }

    /// The chosen places along the last axis.
    pub fn last(&self) -> &[usize] {
        self.chosen.last().expect("a value has axes")
    }

    /// Whether a place is chosen by both; they are of one hook.
    pub fn meets(&self, other: &Selection) -> bool {
        let mut axes = self.chosen.iter().zip(&other.ranks);
        axes.all(|(chosen, ranks)| chosen.iter().any(|&i| ranks[i].is_some()))
    }

    /// The number of places chosen along each axis.
    pub fn counts(&self) -> Vec<usize> {
        self.chosen.iter().map(Vec::len).collect()
    }

    /// Calls `f` on every row along the last axis that holds something chosen: with the row's number in
    /// the whole batch's value, its number among the chosen rows, and the row.
    ///
    /// `data` may be a window on the value only: `window` says which sequences, positions and heads.
    pub fn rows<T>(
        &self,
        window: &Window<'_>,
        data: &mut [T],
        mut f: impl FnMut(usize, usize, &mut [T]),
    ) {
        let outer = self.axes.len() - 1;
        let width = self.ranks[outer].len();
        let places: Vec<Vec<usize>> = (self.axes[..outer].iter().zip(&self.ranks))
            .map(|(axis, ranks)| match axis {
                ValueAxis::Sequence => window.sequences.to_vec(),
                ValueAxis::Position => window.positions.to_vec(),
                _ => window
                    .heads
                    .map_or_else(|| (0..ranks.len()).collect(), <[usize]>::to_vec),
            })
            .collect();
        let rows: usize = places.iter().map(Vec::len).product();
        assert_eq!(rows * width, data.len(), "the window's values");
        let mut at = vec![0; outer];
        for row in data.chunks_exact_mut(width) {
            let (mut whole, mut rank) = (0, Some(0));
            for axis in 0..outer {
                let place = places[axis][at[axis]];
                whole = whole * self.ranks[axis].len() + place;
                let own = self.ranks[axis][place];
                rank = rank
                    .zip(own)
                    .map(|(r, own)| r * self.chosen[axis].len() + own);
            }
            if let Some(rank) = rank {
                f(whole, rank, row);
            }
            for axis in (0..outer).rev() {
                at[axis] += 1;
                if at[axis] < places[axis].len() {
                    break;
                }
                at[axis] = 0;
            }
        }
    }
}

/// The sequences, positions and heads that a piece of a value holds.
#[derive(Clone, Debug)]
pub(super) struct Window<'a> {
    pub sequences: Cow<'a, [usize]>,
    pub positions: Cow<'a, [usize]>,
    /// All of them where none are named.
    pub heads: Option<&'a [usize]>,
}

impl Window<'_> {
    /// All of a value.
    pub fn whole(batch: usize, pos: usize) -> Self {
        let all = |n: usize| Cow::Owned((0..n).collect());
        Window {
            sequences: all(batch),
            positions: all(pos),
            heads: None,
        }
    }
}
