//! Lists that are hard by the circuit: a large jump from one value to the next, and large values only.

use super::lab::{Answered, Lab, Shown, draw, mean_of, mean_of_steps};
use crate::error::Result;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use serde::Serialize;

/// Lists of each kind that are drawn.
const TRIED: usize = 500;

/// Lists drawn for every smallest value.
const BY_SMALLEST: usize = 50;

/// Lists with a large jump that are shown.
const SHOWN: usize = 2;

/// What the value before a jump attends to.
pub(super) const AT_A_JUMP: [&str; 5] =
    ["itself", "the next", "others above", "others below", "SEP"];

/// The values after the first of the write-up's two lists with a jump. The first itself is not legible in the text;
/// with 0 in its place they do what the text says.
const JUMPS: [[i64; 10]; 2] = [
    [0, 40, 41, 42, 43, 44, 45, 46, 47, 48],
    [0, 30, 32, 34, 36, 38, 40, 42, 44, 46],
];

/// A kind of lists, of distinct values as in training, and how the model does on them, step by step.
#[derive(Clone, Debug, Serialize)]
pub struct Hard {
    /// Its figures' name.
    pub id: &'static str,
    /// What the lists have in common.
    pub kind: String,
    /// How many were drawn.
    pub lists: usize,
    /// The mean probability of the right token, and at each step.
    pub mean: f64,
    /// At each step.
    pub by_step: Vec<f64>,
    /// The share of right answers.
    pub accuracy: f64,
    /// At each step.
    pub right: Vec<f64>,
    /// The list with the worst answer, and the answer's step.
    pub worst: Vec<i64>,
    /// That step.
    pub step: usize,
    /// The right token's probability there.
    pub probability: f64,
    /// The token written instead.
    pub written: usize,
}

/// What happens at a large jump.
#[derive(Clone, Debug, Serialize)]
pub struct Jump {
    /// The step before which the values are small, and after which they are large.
    pub step: usize,
    /// The smallest jump there can be.
    pub least: usize,
    /// `[head][kind]`: mean attention to keys of each kind.
    pub attention: Vec<Vec<f64>>,
    /// The mean probability of the value itself.
    pub p_itself: f64,
    /// Of the next one, which is right.
    pub p_next: f64,
    /// And of the one after that; NaN where there is none.
    pub p_after_next: f64,
    /// The share of lists in which it is written once more.
    pub repeated: f64,
    /// The share in which something is written that is not in the list.
    pub not_in_list: f64,
    /// Some of the lists, with the heads' patterns.
    pub shown: Shown,
}

/// One of the write-up's lists with a jump from its first value, `x`, to its second, `y`.
#[derive(Clone, Debug, Serialize)]
pub struct PublishedJump {
    /// The list.
    pub list: Vec<i64>,
    /// Each head's attention from `x` to itself.
    pub to_itself: Vec<f64>,
    /// And to `y`.
    pub to_next: Vec<f64>,
    /// The probability of `x` once more.
    pub p_itself: f64,
    /// And of `y`.
    pub p_next: f64,
    /// What is written.
    pub written: usize,
}

/// The separator's step, by the list's smallest value.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Smallest {
    /// The smallest value.
    pub value: usize,
    /// The mean probability that it has there.
    pub probability: f64,
    /// The share of lists in which it is written.
    pub right: f64,
    /// The largest of the heads' mean attention to it.
    pub attention: f64,
}

/// A jump's size in the dataset, and the answers there.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct BySize {
    /// How much larger the next value is.
    pub size: usize,
    /// The share of such steps.
    pub share: f64,
    /// The mean probability of the right token.
    pub probability: f64,
}

/// Lists that are hard by the circuit.
#[derive(Clone, Debug, Serialize)]
pub struct Adversarial {
    /// Any values, a large jump, the upper values, the highest: those of which there are enough for a list.
    pub kinds: Vec<Hard>,
    /// At the jump, where there are such lists.
    pub jump: Option<Jump>,
    /// The write-up's lists with a jump, where they fit.
    pub published: Vec<PublishedJump>,
    /// The first step by the smallest value.
    pub by_smallest: Vec<Smallest>,
    /// A list of the upper values, with the heads' patterns; none where there are no such lists.
    pub shown: Option<Shown>,
    /// The dataset's steps by the size of the jump.
    pub by_size: Vec<BySize>,
}

impl Adversarial {
    pub(super) fn of(lab: &Lab<'_>) -> Result<Self> {
        let (values, length, half) = (lab.values, lab.length, lab.length / 2);
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let (low, high) = (values / 5, values - values / 5);
        // The write-up's "in the range [30, 50]", of 51 values.
        let upper = values * 3 / 5;
        let room = |from: usize| values - from >= length;
        let mut drawn = |from: usize| -> Vec<Vec<i64>> {
            let list = |_| draw(&mut rng, from..values, length, &[]);
            (0..TRIED).map(list).collect()
        };
        let mut kinds = Vec::new();
        let mut runs = Vec::new();
        let mut add = |id, kind: String, lists: &[Vec<i64>]| -> Result<()> {
            let on = lab.run(lists)?;
            kinds.push(Hard::of(lab, id, kind, &on));
            runs.push((id, on));
            Ok(())
        };
        if room(0) {
            add("any", "any values".into(), &drawn(0))?;
        }
        for (id, from) in [("upper", upper), ("highest", high)] {
            if room(from) {
                let kind = format!("all from {from} to {}", values - 1);
                add(id, kind, &drawn(from))?;
            }
        }
        if half > 0 && low >= half && values - high >= length - half {
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            let list = |_| {
                let below = draw(&mut rng, 0..low, half, &[]);
                [below, draw(&mut rng, high..values, length - half, &[])].concat()
            };
            let kind = format!("{half} below {low}, {} from {high} on", length - half);
            add("jump", kind, &(0..TRIED).map(list).collect::<Vec<_>>())?;
        }
        let run_of = |id: &str| runs.iter().find(|(of, _)| *of == id).map(|(_, on)| on);
        Ok(Adversarial {
            jump: run_of("jump").map(|on| Jump::of(lab, on, half, high + 1 - low)),
            shown: run_of("upper").map(|on| on.shown(&[0, 1])),
            published: published(lab)?,
            by_smallest: by_smallest(lab)?,
            by_size: by_size(lab),
            kinds,
        })
    }

    /// Lists of a kind, where there are any.
    pub fn kind(&self, id: &str) -> Option<&Hard> {
        self.kinds.iter().find(|k| k.id == id)
    }
}

impl Hard {
    fn of(lab: &Lab<'_>, id: &'static str, kind: String, on: &Answered) -> Self {
        let steps = on.all().flat_map(|s| (0..lab.length).map(move |i| (s, i)));
        let worst = steps.min_by(|a, b| on.right[a.0][a.1].total_cmp(&on.right[b.0][b.1]));
        let (list, step) = worst.expect("there are lists");
        let by_step = mean_of_steps(&on.right);
        let right = mean_of_steps(&on.hits());
        Hard {
            id,
            kind,
            lists: on.all().len(),
            mean: mean_of(by_step.iter().copied()),
            accuracy: mean_of(right.iter().copied()),
            by_step,
            right,
            worst: on.tokens.sequence(list).to_vec(),
            step,
            probability: on.right[list][step],
            written: on.written(list, step),
        }
    }
}

impl Jump {
    fn of(lab: &Lab<'_>, on: &Answered, step: usize, least: usize) -> Self {
        let query = lab.length + step;
        let around = |s: usize| [0, 1].map(|after| on.tokens.sequence(s)[query + after]);
        let kind = |s: usize, key: i64| {
            let [x, y] = around(s);
            match key {
                _ if key == x => 0,
                _ if key == y => 1,
                _ if key == lab.sep() => 4,
                _ if key > x => 2,
                _ => 3,
            }
        };
        let to = |h: usize, k: usize| {
            let of = |s| on.attention_where(s, h, query, |key| kind(s, key) == k);
            mean_of(on.all().map(of))
        };
        let of_head = |h: usize| (0..AT_A_JUMP.len()).map(|k| to(h, k)).collect();
        let p = |after: usize| {
            let of = |s| {
                let token = on.tokens.sequence(s).get(query + after);
                token.map_or(f64::NAN, |&t| on.probability(s, step, t))
            };
            mean_of(on.all().map(of))
        };
        let written = |s: usize| on.written(s, step) as i64;
        let share = |such: &dyn Fn(usize) -> bool| mean_of(on.all().map(|s| f64::from(such(s))));
        Jump {
            step,
            least,
            attention: lab.heads().map(of_head).collect(),
            p_itself: p(0),
            p_next: p(1),
            p_after_next: p(2),
            repeated: share(&|s| written(s) == around(s)[0]),
            not_in_list: share(&|s| !on.tokens.sequence(s).contains(&written(s))),
            shown: on.shown(&on.all().take(SHOWN).collect::<Vec<_>>()),
        }
    }
}

fn published(lab: &Lab<'_>) -> Result<Vec<PublishedJump>> {
    let fits = |list: &&[i64; 10]| lab.length == list.len() && list.iter().all(|&v| v < lab.sep());
    let of = |list: &[i64; 10]| {
        let on = lab.run(&[list.to_vec()])?;
        let (x, y) = (list[0], list[1]);
        // The separator's step writes `x`, the next one comes after it.
        let step = 1;
        let to = |token: i64| {
            let attention = |h| on.attention(0, h, lab.length + step, token);
            lab.heads().map(attention).collect()
        };
        Ok(PublishedJump {
            list: list.to_vec(),
            to_itself: to(x),
            to_next: to(y),
            p_itself: on.probability(0, step, x),
            p_next: on.probability(0, step, y),
            written: on.written(0, step),
        })
    };
    JUMPS.iter().filter(fits).map(of).collect()
}

fn by_smallest(lab: &Lab<'_>) -> Result<Vec<Smallest>> {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut of = |value: usize| {
        let list = |_| draw(&mut rng, value..lab.values, lab.length, &[value]);
        let on = lab.run(&(0..BY_SMALLEST).map(list).collect::<Vec<_>>())?;
        let attention = |h: usize| {
            let to = |s| on.attention(s, h, lab.length, value as i64);
            mean_of(on.all().map(to))
        };
        Ok(Smallest {
            value,
            probability: mean_of_steps(&on.right)[0],
            right: mean_of_steps(&on.hits())[0],
            attention: lab.heads().map(attention).fold(0.0, f64::max),
        })
    };
    let smallest = 0..(lab.values + 1).saturating_sub(lab.length);
    smallest.map(&mut of).collect()
}

fn by_size(lab: &Lab<'_>) -> Vec<BySize> {
    let mut of_sizes = vec![Vec::new(); lab.values];
    for s in lab.on.all() {
        let sorted = &lab.tokens.sequence(s)[lab.length + 1..];
        for (i, pair) in sorted.windows(2).enumerate() {
            of_sizes[(pair[1] - pair[0]) as usize].push(lab.on.right[s][i + 1]);
        }
    }
    let steps = of_sizes.iter().map(Vec::len).sum::<usize>() as f64;
    let of = |(size, right): (usize, Vec<f64>)| BySize {
        size,
        share: right.len() as f64 / steps,
        probability: mean_of(right),
    };
    let seen = of_sizes.into_iter().enumerate();
    seen.filter(|(_, right)| !right.is_empty())
        .map(of)
        .collect()
}
