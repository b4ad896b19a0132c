//! Where on the table of pairs the model is wrong.

use super::Answered;
use serde::Serialize;

/// How far wrong and right answers lie from the edges that labels have along one of the integers.
///
/// On a table whose rows are scattered, every pair has an edge beside it along one of the integers; the edges along
/// the other are the curves.
#[derive(Clone, Debug, Serialize)]
pub struct Edges {
    /// The integer along which the labels change less often: 0 for `A`, 1 for `B`.
    pub along: usize,
    /// How many pairs the model is wrong on.
    pub wrong: usize,
    /// The share of those that are at most [`NEAR`] steps from such a change; where there are any.
    pub wrong_near: Option<f64>,
    /// The share of all pairs that are.
    pub all_near: f64,
    /// The pairs that are, `A` by `A`.
    #[serde(skip)]
    pub near: Vec<bool>,
}

/// So many steps from an edge are near it.
pub const NEAR: usize = 3;

impl Edges {
    pub(super) fn of(full: &Answered, labels: &[bool], n: usize) -> Self {
        // The pair at a place of a line along one of the integers.
        let pair = |along: usize, line: usize, place: usize| match along {
            0 => place * n + line,
            _ => line * n + place,
        };
        let changes = |along: usize| -> Vec<[usize; 2]> {
            let all = (0..n).flat_map(|line| (1..n).map(move |place| [line, place]));
            let changes = |&[line, place]: &[usize; 2]| {
                labels[pair(along, line, place - 1)] != labels[pair(along, line, place)]
            };
            all.filter(changes).collect()
        };
        let both = [changes(0), changes(1)];
        let along = usize::from(both[1].len() <= both[0].len());
        let mut near = vec![false; labels.len()];
        for &[line, place] in &both[along] {
            let places = place.saturating_sub(NEAR)..(place + NEAR).min(n);
            places.for_each(|place| near[pair(along, line, place)] = true);
        }
        let wrong: Vec<usize> = (0..labels.len())
            .filter(|&i| full.says[i] != labels[i])
            .collect();
        let wrong_near = wrong.iter().filter(|&&i| near[i]).count() as f64;
        Edges {
            along,
            wrong_near: (!wrong.is_empty()).then(|| wrong_near / wrong.len() as f64),
            wrong: wrong.len(),
            all_near: near.iter().filter(|&&x| x).count() as f64 / labels.len() as f64,
            near,
        }
    }
}
