//! What the circuits say of single tokens: what is looked for.

use serde::Serialize;

/// What one value attends to.
#[derive(Clone, Debug, Serialize)]
pub struct Attention {
    /// The value.
    pub value: usize,
    /// The head that copies it.
    pub head: usize,
    /// Its row of `qk_full`.
    pub scores: Vec<f64>,
    /// The two values with the largest scores.
    pub top2: [usize; 2],
}

/// How a head's scores fall off above a number.
#[derive(Clone, Debug, Serialize)]
pub struct NextAbove {
    /// The head.
    pub head: usize,
    /// Of its own values, pairs `x < y < z` with `y` above `x` by at most five and `z` by more: the share in
    /// which `y` scores higher.
    pub share: f64,
    /// And of pairs `y < x < z`: the share in which the value above scores higher than the one below.
    pub above_below: f64,
}

pub(super) fn top2(scores: &[f64]) -> [usize; 2] {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&i, &j| scores[j].total_cmp(&scores[i]));
    [order[0], order[1]]
}

/// How far above a number a value may be to count as just above it.
pub(super) const JUST_ABOVE: usize = 5;

pub(super) fn next_above(head: usize, owners: &[usize], scores: &[Vec<f64>]) -> NextAbove {
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
    let share = |n: usize, of: usize| n as f64 / of.max(1) as f64;
    NextAbove {
        head,
        share: share(near, of_near),
        above_below: share(above, of_above),
    }
}
