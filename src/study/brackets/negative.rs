//! The branch for a count that goes negative: what its head reads at each bracket, where it looks, what it writes.

use super::data::{Data, StringKind};
use super::written::Written;
use crate::metric::mean;
use crate::names::Head;
use serde::Serialize;

/// What the negative head reads, and where the last layer's heads look in strings that go negative.
#[derive(Clone, Debug, Serialize)]
pub struct Negative {
    /// Every component before the last layer along what the negative head reads: its mean over the brackets from which
    /// on more open than close, less that over the other brackets.
    pub components: Vec<(String, f64)>,
    /// The last layer's heads in strings that go negative.
    pub looks: Vec<Looks>,
    /// One such string, by its place among the study's, and the negative head's attention on it from position 0.
    pub shown: (usize, Vec<f64>),
}

/// Where a head looks from position 0, and what it writes, in strings that start with an opening bracket and go
/// negative.
#[derive(Clone, Debug, Serialize)]
pub struct Looks {
    /// The head.
    pub head: Head,
    /// The share of its attention on positions from which on more brackets open than close.
    pub on_negative: f64,
    /// The share of positions that these are.
    pub are_negative: f64,
    /// The share of strings in which the position that it attends to most is one of these.
    pub top_negative: f64,
    /// What its value is worth along the unbalanced direction: the mean over negative brackets, and over the others.
    pub worth: [f64; 2],
    /// What it writes along that direction, on average: from negative positions, and from all others.
    pub written: [f64; 2],
    /// The mean of what it writes in balanced strings.
    pub written_if_balanced: f64,
}

impl Looks {
    /// How far its attention to negative positions is from even attention to all (0) towards nothing else (1).
    pub fn beyond_even(&self) -> f64 {
        beyond_even(self.on_negative, self.are_negative)
    }

    /// The same of the position that it attends to most.
    pub fn top_beyond_even(&self) -> f64 {
        beyond_even(self.top_negative, self.are_negative)
    }
}

/// How far a share is from what even attention gives (0) towards all of it (1).
pub(super) fn beyond_even(share: f64, even: f64) -> f64 {
    (share - even) / (1.0 - even)
}

impl Negative {
    /// From what was kept of the pass; `direction` is what the negative head reads at brackets.
    pub(super) fn new(written: &Written, data: &Data, own: Head, direction: &[f64]) -> Self {
        let (heads, layer) = (written.attention.shape()[1], own.layer);
        let look = |head| Looks::new(Head { layer, head }, written, data);
        let shown = data.shown(StringKind::Negative);
        let attention = written.attention.slice(&[shown, own.head]);
        Negative {
            components: written.along_at_negative(direction, layer),
            looks: (0..heads).map(look).collect(),
            shown: (shown, attention[..data.lengths[shown]].to_vec()),
        }
    }

    /// Where this head looks.
    pub fn of(&self, head: Head) -> &Looks {
        let found = self.looks.iter().find(|l| l.head == head);
        found.expect("a head of the last layer")
    }
}

impl Looks {
    fn new(head: Head, written: &Written, data: &Data) -> Self {
        let (mut on, mut are, mut top) = (Vec::new(), Vec::new(), Vec::new());
        let (mut at_negative, mut at_others) = (Vec::new(), Vec::new());
        let (mut from_negative, mut from_others) = (Vec::new(), Vec::new());
        let of = |s: usize| {
            let rows = [&written.attention, &written.worth].map(|t| t.slice(&[s, head.head]));
            rows.map(|row| &row[..data.lengths[s]])
        };
        for s in [StringKind::Negative, StringKind::Both]
            .into_iter()
            .flat_map(|kind| data.of_kind(kind))
        {
            let below = data.negative_positions(s);
            let [attention, worth] = of(s);
            let most = (0..attention.len()).max_by(|&i, &j| attention[i].total_cmp(&attention[j]));
            top.push(f64::from(most.is_some_and(|p| below.contains(&p))));
            are.push(below.len() as f64 / attention.len() as f64);
            let [mut share, mut from, mut rest] = [0.0; 3];
            for p in 0..attention.len() {
                if below.contains(&p) {
                    share += attention[p];
                    from += attention[p] * worth[p];
                    at_negative.push(worth[p]);
                } else {
                    rest += attention[p] * worth[p];
                    if (1..attention.len() - 1).contains(&p) {
                        at_others.push(worth[p]);
                    }
                }
            }
            on.push(share);
            from_negative.push(from);
            from_others.push(rest);
        }
        let whole = |s: usize| -> f64 {
            let [attention, worth] = of(s);
            attention.iter().zip(worth).map(|(a, w)| a * w).sum()
        };
        let balanced: Vec<f64> = data
            .of_kind(StringKind::Balanced)
            .into_iter()
            .map(whole)
            .collect();
        Looks {
            head,
            on_negative: mean(&on),
            are_negative: mean(&are),
            top_negative: mean(&top),
            worth: [mean(&at_negative), mean(&at_others)],
            written: [mean(&from_negative), mean(&from_others)],
            written_if_balanced: mean(&balanced),
        }
    }
}
