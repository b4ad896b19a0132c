//! What the circuits say of single tokens: what is copied, by which head, and what is looked for.

use super::lab::{Lab, mean_of};
use crate::error::Result;
use crate::study::circuit::{circuit, circuits, rows};
use serde::Serialize;

/// The values whose scores the write-up shows.
const SHOWN: [usize; 2] = [25, 40];

/// How far above a number a value may be to count as just above it.
pub(super) const JUST_ABOVE: usize = 5;

/// How far from a value its neighbours are looked at.
const NEIGHBOURS: i64 = 5;

/// The model's circuits, token by token.
#[derive(Clone, Debug, Serialize)]
pub struct Circuits {
    /// `W_E W_OV[h] W_U` of each head.
    pub ov_full: Vec<Vec<Vec<f64>>>,
    /// `W_E W_QK[h] W_E^T` of each head.
    pub qk_full: Vec<Vec<Vec<f64>>>,
    /// `W_pos W_QK[h] W_E^T` of each head.
    pub qk_pos_emb: Vec<Vec<Vec<f64>>>,
    /// `W_E W_U`.
    pub direct_path: Vec<Vec<f64>>,
    /// For each value the head that copies it most, by the diagonal of `ov_full`.
    pub owners: Vec<usize>,
    /// What the values that the write-up shows attend to.
    pub shown: Vec<Scores>,
    /// Whether each head prefers, of its own values above a number, those just above it.
    pub next_above: Vec<NextAbove>,
    /// The share of values whose own score is highest for a value just above it: of each head.
    pub just_above: Vec<f64>,
    /// The same, of each value in the head that copies the next one.
    pub just_above_by_copier: f64,
    /// What a value chosen at random would give.
    pub just_above_chance: f64,
    /// The share of values `d` that score `d + 2` or `d + 3` higher than `d + 1`, in the head that copies `d + 1`.
    pub skips: f64,
    /// What attending to a value adds to the logits around it, in the head that copies it.
    pub neighbours: Vec<Neighbour>,
    /// What each head does to the values that another copies.
    pub elsewhere: Vec<Elsewhere>,
}

/// How a value's query scores the values.
#[derive(Clone, Debug, Serialize)]
pub struct Scores {
    /// The value.
    pub value: usize,
    /// The head that copies it.
    pub head: usize,
    /// Its row of `qk_full`, of each head.
    pub scores: Vec<Vec<f64>>,
    /// The two values with the largest scores, of each head.
    pub top2: Vec<[usize; 2]>,
}

/// How a head's scores fall off above a number.
#[derive(Clone, Debug, Serialize)]
pub struct NextAbove {
    /// The head.
    pub head: usize,
    /// Of its own values, pairs `x < y < z` with `y` above `x` by at most five and `z` by more: the share in
    /// which `y` scores higher. NaN where there are none.
    pub share: f64,
    /// And of pairs `y < x < z`: the share in which the value above scores higher than the one below.
    pub above_below: f64,
}

/// What attending to a value adds to the logit of one a few steps away.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Neighbour {
    /// How far above the value it is.
    pub offset: i64,
    /// The mean over the values, less the mean over all logits.
    pub mean: f64,
    /// The share of values where it is above that mean.
    pub raised: f64,
}

/// What a head's OV circuit does to the values that another head copies.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Elsewhere {
    /// The head.
    pub head: usize,
    /// The number of these values.
    pub values: usize,
    /// The share that it takes from: whose entry on the diagonal is negative.
    pub negative: f64,
    /// The mean of the diagonal over them.
    pub mean: f64,
}

impl Circuits {
    pub(super) fn of(lab: &Lab<'_>) -> Result<Self> {
        let per_head = |expression: &str| -> Result<Vec<Vec<Vec<f64>>>> {
            Ok(circuits(&lab.model, expression)?.iter().map(rows).collect())
        };
        let ov_full = per_head("W_E W_OV[0.*] W_U")?;
        let qk_full = per_head("W_E W_QK[0.*] W_E^T")?;
        let values = lab.values;
        let owner = |v: usize| order(&lab.heads().map(|h| ov_full[h][v][v]).collect::<Vec<_>>())[0];
        let owners: Vec<usize> = (0..values).map(owner).collect();
        let just_above = |head: usize, d: usize| {
            let top = order(&qk_full[head][d][..values])[0];
            f64::from(top > d && top <= d + JUST_ABOVE)
        };
        // The largest value has none above it.
        let with_next = || 0..values - 1;
        let reach = |d: usize| JUST_ABOVE.min(values - 1 - d) as f64 / values as f64;
        let skips = |d: usize| {
            let row = &qk_full[owners[d + 1]][d];
            f64::from((d + 2..values.min(d + 4)).any(|v| row[v] > row[d + 1]))
        };
        let shown = SHOWN.into_iter().filter(|&v| v < values);
        Ok(Circuits {
            shown: shown.map(|v| Scores::of(v, &qk_full, &owners)).collect(),
            next_above: lab
                .heads()
                .map(|h| next_above(h, &owners, &qk_full[h]))
                .collect(),
            just_above: lab
                .heads()
                .map(|h| mean_of(with_next().map(|d| just_above(h, d))))
                .collect(),
            just_above_by_copier: mean_of(with_next().map(|d| just_above(owners[d + 1], d))),
            just_above_chance: mean_of(with_next().map(reach)),
            skips: mean_of((0..values.saturating_sub(2)).map(skips)),
            neighbours: (-NEIGHBOURS..=NEIGHBOURS)
                .map(|o| Neighbour::of(o, &ov_full, &owners))
                .collect(),
            elsewhere: lab
                .heads()
                .map(|h| Elsewhere::of(h, &ov_full[h], &owners))
                .collect(),
            qk_pos_emb: per_head("W_pos W_QK[0.*] W_E^T")?,
            direct_path: rows(&circuit(&lab.model, "W_E W_U")?),
            ov_full,
            qk_full,
            owners,
        })
    }

    /// Stretches of values that a head copies most: the first and the last.
    pub fn ranges(&self, head: usize) -> Vec<[usize; 2]> {
        let mut ranges: Vec<[usize; 2]> = Vec::new();
        for (v, _) in self.owners.iter().enumerate().filter(|(_, h)| **h == head) {
            match ranges.last_mut() {
                Some(range) if range[1] + 1 == v => range[1] = v,
                _ => ranges.push([v, v]),
            }
        }
        ranges
    }

    /// Values that are the largest logit of their own row, in the head that copies them most.
    pub fn copied(&self) -> usize {
        let values = self.owners.len();
        let largest = |&v: &usize| {
            let row = &self.ov_full[self.owners[v]][v][..values];
            // A row of one value for all copies nothing.
            (0..values).all(|u| u == v || row[u] < row[v])
        };
        (0..values).filter(largest).count()
    }
}

impl Scores {
    fn of(value: usize, qk_full: &[Vec<Vec<f64>>], owners: &[usize]) -> Self {
        let scores: Vec<Vec<f64>> = qk_full.iter().map(|head| head[value].clone()).collect();
        let top2 = scores.iter().map(|row| {
            let order = order(&row[..owners.len()]);
            [order[0], order[1]]
        });
        Scores {
            value,
            head: owners[value],
            top2: top2.collect(),
            scores,
        }
    }
}

impl Neighbour {
    fn of(offset: i64, ov_full: &[Vec<Vec<f64>>], owners: &[usize]) -> Self {
        let there = |v: usize| {
            let to = v as i64 + offset;
            let to = usize::try_from(to).ok().filter(|&to| to < owners.len())?;
            let row = &ov_full[owners[v]][v][..owners.len()];
            Some(row[to] - mean_of(row.iter().copied()))
        };
        let all: Vec<f64> = (0..owners.len()).filter_map(there).collect();
        Neighbour {
            offset,
            raised: mean_of(all.iter().map(|&x| f64::from(x > 0.0))),
            mean: mean_of(all),
        }
    }
}

impl Elsewhere {
    fn of(head: usize, ov: &[Vec<f64>], owners: &[usize]) -> Self {
        let others = (0..owners.len()).filter(|&v| owners[v] != head);
        let diagonal: Vec<f64> = others.map(|v| ov[v][v]).collect();
        Elsewhere {
            head,
            values: diagonal.len(),
            negative: mean_of(diagonal.iter().map(|&x| f64::from(x < 0.0))),
            mean: mean_of(diagonal),
        }
    }
}

/// Places in the order of their values, the largest first.
pub(super) fn order(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[j].total_cmp(&values[i]));
    order
}

fn next_above(head: usize, owners: &[usize], scores: &[Vec<f64>]) -> NextAbove {
    let own: Vec<usize> = (0..owners.len()).filter(|&v| owners[v] == head).collect();
    let (mut near, mut of_near, mut above, mut of_above) = (0, 0, 0, 0);
    for (x, row) in scores.iter().enumerate().take(owners.len()) {
        for &y in &own {
            for &z in own.iter().filter(|&&z| z > x) {
                if y > x && y <= x + JUST_ABOVE && z > x + JUST_ABOVE {
                    of_near += 1;
                    near += usize::from(row[y] > row[z]);
                } else if y < x {
                    of_above += 1;
                    above += usize::from(row[z] > row[y]);
                }
            }
        }
    }
    NextAbove {
        head,
        share: near as f64 / of_near as f64,
        above_below: above as f64 / of_above as f64,
    }
}
