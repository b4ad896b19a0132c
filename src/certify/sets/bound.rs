//! The bound on one node: what the module's documentation says, in numbers.

use super::problem::{Root, State};
use crate::certify::{Interval, OneLayer};
use crate::error::{Error, Result};
use std::ops::Range;

/// Corners double with every head.
const MOST_HEADS: usize = 4;

/// The keys that a token may be.
#[derive(Clone, Debug)]
struct Slot {
    /// One for each position of the list that it may stand at.
    list: Range<usize>,
    /// One for each rank, where it stands in order as well.
    sorted: Range<usize>,
}

/// What the bounds of all nodes of a root are made of.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    heads: usize,
    fixed: Vec<Slot>,
    /// By group.
    pool: Vec<Vec<Slot>>,
    /// How many keys an input has, at most.
    count: usize,
    /// `[head, key]`: the middles of `e`.
    e: Vec<f64>,
    /// `[class, head, key]`: `e (ov_u - ov_class)`.
    eg: Vec<f64>,
    /// By class, `d + σ δ` for u against the class, and the other way round.
    base: Vec<[Interval; 2]>,
    /// By head, how far `e` is from its middle at most, the largest `e`, and the same of `e g`.
    e_error: Vec<f64>,
    e_most: Vec<f64>,
    eg_error: Vec<f64>,
    eg_most: Vec<f64>,
    /// Keys of all slots.
    keys: usize,
}

/// What is the same for all rivals on a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Frame {
    /// By head, no more and no less than `1 / D`.
    inverse: Vec<[f64; 2]>,
    /// By group and place, the keys of the ranks that a token may have.
    ranks: Vec<Vec<Range<usize>>>,
}

/// What an evaluation found that did not show what it should.
#[derive(Clone, Debug, Default)]
pub(super) struct Worst {
    /// The bound on `G`, at the corner looked at.
    pub lower: f64,
    /// What `G` is at the worst choice found, about.
    pub value: f64,
    /// By head, `N / D` there.
    pub ratios: Vec<f64>,
    /// By group and place, what the token costs.
    pub costs: Vec<Vec<f64>>,
    /// By group, the cost between the last that is chosen and the first that is not.
    pub threshold: Vec<f64>,
    /// By group, the places of those chosen, among the undecided.
    pub chosen: Vec<Vec<usize>>,
    /// At which corner.
    corner: usize,
    /// A row of costs by key.
    row: Vec<f64>,
    order: Vec<(f64, usize)>,
}

/// `Σ` of the `k` smallest (or, where tokens repeat, `k` times the smallest), and where they are.
fn fill(order: &mut [(f64, usize)], k: usize, repeats: bool) -> (f64, f64) {
    if k == 0 || order.is_empty() {
        return (0.0, f64::NAN);
    }
    if repeats {
        let least = order
            .iter()
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .expect("not empty");
        let least = *least;
        order[0] = least;
        return (k as f64 * least.0, least.0);
    }
    if k < order.len() {
        order.select_nth_unstable_by(k - 1, |a, b| a.0.total_cmp(&b.0));
        let next = order[k..].iter().map(|c| c.0).fold(f64::INFINITY, f64::min);
        let sum = order[..k].iter().map(|c| c.0).sum();
        return (sum, 0.5 * (order[k - 1].0 + next));
    }
    let sum = order.iter().map(|c| c.0).sum();
    (
        sum,
        order.iter().map(|c| c.0).fold(f64::NEG_INFINITY, f64::max),
    )
}

impl Keys {
    /// The keys of a root, with the exponentials of its query ([`OneLayer::exponentials`]), for claims with a margin.
    ///
    /// # Errors
    /// When the model has too many heads.
    pub fn new(tables: &OneLayer, e: &[Interval], root: &Root, margin: f64) -> Result<Keys> {
        let heads = tables.heads;
        if heads > MOST_HEADS {
            return Err(Error::NotCovered("cells and sets are of up to four heads"));
        }
        let mut keys: Vec<(usize, usize)> = Vec::new();
        let mut add = |token: usize, places: &[usize]| {
            let start = keys.len();
            keys.extend(places.iter().map(|&p| (token, p)));
            start..keys.len()
        };
        let mut slot = |token: usize, list: &[usize], sorted: &[usize]| Slot {
            list: add(token, list),
            sorted: add(token, sorted),
        };
        let fixed: Vec<Slot> = root
            .fixed
            .iter()
            .map(|(t, places)| slot(*t, places, &[]))
            .collect();
        let group = |g: &super::Group| -> Vec<Slot> {
            g.tokens
                .iter()
                .map(|&t| slot(t, &g.list, &g.sorted))
                .collect()
        };
        let pool: Vec<Vec<Slot>> = root.groups.iter().map(group).collect();
        let count = root
            .groups
            .iter()
            .map(|g| g.choose * (1 + usize::from(!g.sorted.is_empty())));
        let count = fixed.len() + count.sum::<usize>();

        let (mut own, mut e_error, mut e_most) = (Vec::new(), Vec::new(), Vec::new());
        for h in 0..heads {
            let of = |&(t, p): &(usize, usize)| e[tables.key(h, t, p)];
            own.extend(keys.iter().map(|key| of(key).middle()));
            e_error.push(keys.iter().map(|key| of(key).radius()).fold(0.0, f64::max));
            e_most.push(
                keys.iter()
                    .map(|key| of(key).magnitude())
                    .fold(0.0, f64::max),
            );
        }
        let u = root.right;
        let (mut eg, mut g_error, mut g_most) = (Vec::new(), vec![0f64; heads], vec![0f64; heads]);
        for w in 0..tables.classes {
            for h in 0..heads {
                for (i, &(t, p)) in keys.iter().enumerate() {
                    let ov = tables.ov(h, t, p);
                    let (a, b) = (ov[u].middle(), ov[w].middle());
                    eg.push(own[h * keys.len() + i] * (a - b));
                    g_error[h] = g_error[h].max(ov[u].radius() + ov[w].radius());
                    g_most[h] = g_most[h].max(ov[u].magnitude() + ov[w].magnitude());
                }
            }
        }
        // |e g - (m_e m_g rounded)|: what the radii add, and the roundings of the difference, the product, and those sums.
        let unit = Interval::of(8.0 * f64::EPSILON);
        let error = |h: usize| {
            let [e, r, g, q] = [e_most[h], e_error[h], g_most[h], g_error[h]].map(Interval::of);
            (e * q + r * (g + q) + unit * e * g).hi.next_up()
        };
        let eg_error = (0..heads).map(error).collect();
        let most = |h: usize| (Interval::of(e_most[h]) * Interval::of(g_most[h])).hi;
        let eg_most = (0..heads).map(most).collect();

        let (query, place) = root.query;
        let direct = tables.direct(query, place);
        let sigma = tables.sigma(root.query);
        let against = |a: usize, b: usize| {
            let over = tables.bias[a] - tables.bias[b] - Interval::of(margin);
            direct[a] - direct[b] + sigma * over
        };
        let base = (0..tables.classes)
            .map(|w| [against(u, w), against(w, u)])
            .collect();
        Ok(Keys {
            heads,
            fixed,
            pool,
            count,
            e: own,
            eg,
            base,
            e_error,
            e_most,
            eg_error,
            eg_most,
            keys: keys.len(),
        })
    }

    /// What is the same for all rivals on a node.
    pub fn frame(&self, root: &Root, state: &State) -> Frame {
        let groups = root.groups.iter().enumerate();
        let ranks: Vec<Vec<Range<usize>>> = groups
            .map(|(g, group)| {
                let own = |(place, slot): (usize, &Slot)| {
                    if group.sorted.is_empty() {
                        return slot.sorted.clone();
                    }
                    let ranks = state.ranks(g, place, group.choose);
                    slot.sorted.start + ranks.start()..slot.sorted.start + ranks.end() + 1
                };
                self.pool[g].iter().enumerate().map(own).collect()
            })
            .collect();
        let inverse = (0..self.heads).map(|h| {
            let e = &self.e[h * self.keys..][..self.keys];
            // Of the middles; then what they may be off, and what a sum of positive terms loses: (1 - u)^n > 1 - n u.
            let sum = |sign: f64| {
                let least = |range: &Range<usize>| {
                    let own = e[range.clone()].iter().map(|&e| sign * e);
                    let least = own.fold(f64::INFINITY, f64::min);
                    if range.is_empty() { 0.0 } else { least }
                };
                let mut total: f64 = self.fixed.iter().map(|slot| least(&slot.list)).sum();
                let mut order = Vec::new();
                for (g, slots) in self.pool.iter().enumerate() {
                    order.clear();
                    for (place, slot) in slots.iter().enumerate() {
                        let cost = || least(&slot.list) + least(&ranks[g][place]);
                        match state.counts[g][place] {
                            None => order.push((cost(), place)),
                            Some(0) => {}
                            Some(times) => total += times as f64 * cost(),
                        }
                    }
                    total += fill(&mut order, state.left[g], root.groups[g].repeats).0;
                }
                Interval::of(sign * total)
            };
            let n = Interval::of(self.count as f64);
            let off = n * Interval::of(self.e_error[h]);
            let share = Interval::ONE - n * Interval::of(f64::EPSILON);
            let least = (sum(1.0) * share - off).lo;
            let most = (sum(-1.0) / share + off).hi;
            [1.0 / most, 1.0 / least.max(0.0)].map(|x| if x.is_nan() { f64::INFINITY } else { x })
        });
        let inverse = inverse.map(|[low, high]| [low.next_down().max(0.0), high.next_up()]);
        Frame {
            inverse: inverse.collect(),
            ranks,
        }
    }

    /// A first `λ`: by head the mean of `g`, weighted by `e`, of all keys that are not excluded, each wherever it may
    /// stand (whatever its rank).
    pub fn mean(&self, state: &State, rival: usize, swapped: bool) -> Vec<f64> {
        let of = |h: usize| {
            let e = &self.e[h * self.keys..][..self.keys];
            let eg = &self.eg[(rival * self.heads + h) * self.keys..][..self.keys];
            let mut sums = (0.0, 0.0);
            let mut add = |slot: &Slot| {
                let all = slot.list.start..slot.sorted.end.max(slot.list.end);
                sums.0 += eg[all.clone()].iter().sum::<f64>();
                sums.1 += e[all].iter().sum::<f64>();
            };
            self.fixed.iter().for_each(&mut add);
            for (g, slots) in self.pool.iter().enumerate() {
                let kept = |place: &usize| state.counts[g][*place] != Some(0);
                (0..slots.len())
                    .filter(kept)
                    .for_each(|place| add(&slots[place]));
            }
            let mean = sums.0 / sums.1;
            if swapped { -mean } else { mean }
        };
        (0..self.heads).map(of).collect()
    }

    /// What the middles, products and sums of costs can be off by, over a whole choice: for each of its keys, by head,
    /// `x (error of e g + |λ| error of e)`, the roundings of the cost, and those of the sum over keys, each no more
    /// than a few units of the largest cost there is.
    fn slack(&self, frame: &Frame, lambda: &[f64]) -> f64 {
        let n = Interval::of(self.count as f64);
        let unit = Interval::of(f64::EPSILON * (self.count + 4 * self.heads + 8) as f64);
        let terms = (0..self.heads).map(|h| {
            let x = Interval::of(frame.inverse[h][1]);
            let size = Interval::of(lambda[h].abs());
            let [error, eg_error] = [self.e_error[h], self.eg_error[h]].map(Interval::of);
            let [most, eg_most] = [self.e_most[h], self.eg_most[h]].map(Interval::of);
            x * (eg_error + size * error + unit * (eg_most + size * most))
        });
        (n * terms.sum::<Interval>()).hi
    }

    /// Whether `G` of the right class against a rival (the other way round where `swapped`) is above zero on a node; where
    /// that is not shown, what is worst there is left in `worst`. The bound must be above zero by some times the slack,
    /// so that a checker whose roundings are wider sees it too.
    pub fn evaluate(
        &self,
        (root, state, frame): (&Root, &State, &Frame),
        (rival, swapped): (usize, bool),
        lambda: &[f64],
        worst: &mut Worst,
    ) -> bool {
        const WIDER: f64 = 64.0;
        let sign = if swapped { -1.0 } else { 1.0 };
        let (heads, n) = (self.heads, self.keys);
        let eg = &self.eg[rival * heads * n..][..heads * n];
        worst.costs.resize(self.pool.len(), Vec::new());
        worst.chosen.resize(self.pool.len(), Vec::new());
        let (rest, slack) = self.rest(frame, (rival, swapped), lambda);
        // The corner that was in the way last is tried first.
        let (corners, first) = (1usize << heads, worst.corner);
        for corner in (0..corners).map(|i| i ^ first) {
            let sum = self.corner(
                (root, state, frame),
                (eg, sign),
                lambda,
                corner,
                worst,
                false,
            );
            let lower = (rest + Interval::of(sum)).lo;
            // A NaN is in the way.
            if lower > WIDER * slack {
                continue;
            }
            worst.corner = corner;
            self.corner(
                (root, state, frame),
                (eg, sign),
                lambda,
                corner,
                worst,
                true,
            );
            worst.lower = lower;
            worst.value =
                self.base[rival][usize::from(swapped)].lo + worst.ratios.iter().sum::<f64>();
            return false;
        }
        true
    }

    /// No more than `G` has on a node: the bound that [`Keys::evaluate`] compares with zero.
    pub fn bound(
        &self,
        at: (&Root, &State, &Frame),
        (rival, swapped): (usize, bool),
        lambda: &[f64],
        worst: &mut Worst,
    ) -> f64 {
        let (rest, _) = self.rest(at.2, (rival, swapped), lambda);
        let sign = if swapped { -1.0 } else { 1.0 };
        let n = self.heads * self.keys;
        let costs = (&self.eg[rival * n..][..n], sign);
        worst.costs.resize(self.pool.len(), Vec::new());
        let corner =
            |corner| (rest + Interval::of(self.corner(at, costs, lambda, corner, worst, false))).lo;
        (0..1usize << self.heads)
            .map(corner)
            .fold(f64::INFINITY, f64::min)
    }

    /// What a bound is made of besides the costs, and the slack that was taken off it.
    fn rest(
        &self,
        frame: &Frame,
        (rival, swapped): (usize, bool),
        lambda: &[f64],
    ) -> (Interval, f64) {
        let slack = self.slack(frame, lambda);
        let lambdas: Interval = lambda.iter().map(|&l| Interval::of(l)).sum();
        let base = self.base[rival][usize::from(swapped)];
        (base + lambdas - Interval::of(slack), slack)
    }

    /// The least cost at a corner; where asked for, with all that is known of it.
    fn corner(
        &self,
        (root, state, frame): (&Root, &State, &Frame),
        (eg, sign): (&[f64], f64),
        lambda: &[f64],
        corner: usize,
        worst: &mut Worst,
        details: bool,
    ) -> f64 {
        let n = self.keys;
        worst.row.clear();
        worst.row.resize(n, 0.0);
        for h in 0..self.heads {
            let x = frame.inverse[h][corner >> h & 1];
            let (a, b) = (sign * x, x * lambda[h]);
            let rows = eg[h * n..][..n].iter().zip(&self.e[h * n..][..n]);
            for (to, (eg, e)) in worst.row.iter_mut().zip(rows) {
                *to += a * eg - b * e;
            }
        }
        let row = &worst.row;
        let least = |range: &Range<usize>| match range.is_empty() {
            true => 0.0,
            false => row[range.clone()]
                .iter()
                .copied()
                .fold(f64::INFINITY, f64::min),
        };
        let mut total: f64 = self.fixed.iter().map(|slot| least(&slot.list)).sum();
        if details {
            worst.threshold.clear();
        }
        for (g, slots) in self.pool.iter().enumerate() {
            worst.order.clear();
            worst.costs[g].clear();
            for (place, slot) in slots.iter().enumerate() {
                let times = state.counts[g][place];
                let cost = match times {
                    Some(0) => 0.0,
                    _ => least(&slot.list) + least(&frame.ranks[g][place]),
                };
                match times {
                    None => worst.order.push((cost, place)),
                    Some(times) => total += times as f64 * cost,
                }
                worst.costs[g].push(cost);
            }
            let (left, repeats) = (state.left[g], root.groups[g].repeats);
            let (sum, threshold) = fill(&mut worst.order, left, repeats);
            total += sum;
            if details {
                worst.threshold.push(threshold);
                worst.chosen[g].clear();
                match repeats {
                    true if left > 0 && !worst.order.is_empty() => {
                        let place = worst.order[0].1;
                        worst.chosen[g].extend((0..left).map(|_| place));
                    }
                    true => {}
                    false => worst.chosen[g].extend(worst.order.iter().take(left).map(|c| c.1)),
                }
            }
        }
        if details {
            self.ratios((state, frame), (eg, sign), worst);
        }
        total
    }

    /// By head `N / D` of the worst choice, each key where it costs least.
    fn ratios(
        &self,
        (state, frame): (&State, &Frame),
        (eg, sign): (&[f64], f64),
        worst: &mut Worst,
    ) {
        let n = self.keys;
        let mut sums = vec![(0.0, 0.0); self.heads];
        let row = &worst.row;
        let mut add = |range: &Range<usize>, times: f64| {
            let Some(key) = range.clone().min_by(|&i, &j| row[i].total_cmp(&row[j])) else {
                return;
            };
            for (h, sums) in sums.iter_mut().enumerate() {
                sums.0 += times * sign * eg[h * n + key];
                sums.1 += times * self.e[h * n + key];
            }
        };
        self.fixed.iter().for_each(|slot| add(&slot.list, 1.0));
        for (g, slots) in self.pool.iter().enumerate() {
            for (place, slot) in slots.iter().enumerate() {
                let chosen = || worst.chosen[g].iter().filter(|&&p| p == place).count();
                let times = state.counts[g][place].unwrap_or_else(chosen);
                if times > 0 {
                    add(&slot.list, times as f64);
                    add(&frame.ranks[g][place], times as f64);
                }
            }
        }
        worst.ratios = sums.iter().map(|(n, d)| n / d).collect();
    }
}
