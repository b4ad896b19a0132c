//! Identities of an attention layer.

use super::bounded::{Bounded, ELEMENTARY, bounded_softmax, gamma, rounded_up, unit};
use super::evidence::{Evidence, Visibility};
use super::stream::through;
use super::verdict::Comparison;
use crate::diagram::{Op, Projection, QkNorm, RotaryPositions};
use crate::error::Result;
use crate::kernel::PAD_SCORE;
use crate::names::{Head, Hook, NormSite};
use crate::op::{NormMap, Place};
use crate::tensor::Scalar;

/// Scores from the run's own queries and keys, as they are multiplied; and from what these are made of: through `W_QK`
/// where nothing stands in between, else through the norms of queries and keys and their rotation.
pub(super) fn scores<T: Scalar>(e: &Evidence<'_, T>, cmp: &mut Comparison) -> Result<()> {
    let c = e.model.config();
    let w = e.model.weights();
    let slopes = c.alibi_slopes();
    for l in 0..c.n_layers {
        rotations(e, l, cmp)?;
        let x = e.value(e.read_by(Op::Project(l, Projection::Q), 0))?;
        let read = [0, 1].map(|i| e.read_by(Op::Attend(l), i));
        let found = e.value(Hook::AttnScores(l))?;
        let inverse = T::ONE / T::from_f64(c.score_scale(l));
        let between = c.rotary() || c.qk_norm.is_some();
        for h in 0..c.n_heads {
            let head = Head { layer: l, head: h };
            let W_Q = Bounded::exact(w.W_Q(head));
            let W_K = Bounded::exact(w.W_K(head));
            let b_Q = Bounded::exact_row(w.b_Q(head));
            let b_K = Bounded::exact_row(w.b_K(head));
            let W_QK = W_Q.times(&W_K.transposed());
            let query_bias = W_Q.times(&b_K.transposed());
            let key_bias = b_Q.times(&W_K.transposed());
            let constant = b_Q.times(&b_K.transposed());
            for b in 0..e.out.tokens.batch() {
                let x = Bounded::exact(x.mat(&[b]));
                // As the forward pass has it, for the bound on what it found…
                let q = x.times_plus(&W_Q, w.b_Q(head));
                let k = x.times_plus(&W_K, w.b_K(head));
                let (left, right) = if between {
                    // … from the run's own queries and keys, and here from the weights.
                    let of = |hook, h| Ok(Bounded::exact(e.value(hook)?.head(b, h)));
                    let left = of(read[0], h)?.times(&of(read[1], c.group(h))?.transposed());
                    let q = at_scores(e, (NormSite::Q(l), b, h), q)?;
                    let k = at_scores(e, (NormSite::K(l), b, c.group(h)), k)?;
                    (left, q.times(&k.transposed()).scaled(inverse, unit::<T>()))
                } else {
                    // … and through W_QK.
                    let right = x
                        .times(&W_QK)
                        .times(&x.transposed())
                        .plus(&x.times(&query_bias))
                        .plus(&key_bias.times(&x.transposed()))
                        .plus(&constant)
                        .scaled(inverse, unit::<T>());
                    (q.times(&k.transposed()), right)
                };
                let left = left.scaled(inverse, unit::<T>());
                let slope = slopes.as_ref().map(|slopes| T::from_f64(slopes[h]));
                let [left, right] = [left, right].map(|x| after_product(e, b, slope, x));
                let left = left.claimed(found.mat(&[b, h]));
                for query in 0..e.out.tokens.pos() {
                    for key in 0..e.out.tokens.pos() {
                        if e.visibility(l, b, query, key) != Visibility::Seen {
                            continue;
                        }
                        let at = (query, key);
                        let bound = left.error[at].to_f64() + right.error[at].to_f64();
                        let (found, expected) = (left.value[at].to_f64(), right.value[at].to_f64());
                        cmp.entry(found, expected, bound, || {
                            scores_place(e, Hook::AttnScores(l), b, h, at)
                        });
                    }
                }
            }
        }
    }
    Ok(())
}

/// What is turned, from what the run has before: no score sees it where queries and keys are both turned by too much.
fn rotations<T: Scalar>(e: &Evidence<'_, T>, l: usize, cmp: &mut Comparison) -> Result<()> {
    let Some(rotary) = e.model.config().rotary_at(l) else {
        return Ok(());
    };
    let tokens = &e.out.tokens;
    let queries = (NormSite::Q(l), Hook::Q(l), Hook::RotQ(l));
    let keys = (NormSite::K(l), Hook::K(l), Hook::RotK(l));
    for (site, straight, hook) in [queries, keys] {
        let straight = match e.model.norm_at(site) {
            Some(_) => site.output(),
            None => straight,
        };
        let (x, found) = (e.value(straight)?, e.value(hook)?);
        for b in 0..tokens.batch() {
            let places = e.places(b);
            for h in 0..x.shape()[2] {
                let expected = turned(rotary, &places, &Bounded::exact(x.head(b, h)));
                let found = found.head(b, h);
                for p in (0..tokens.pos()).filter(|&p| tokens.is_attended(b, p)) {
                    for j in 0..found.ncols() {
                        let at = (p, j);
                        let (value, bound) = (expected.value[at], expected.error[at]);
                        let bound = bound.to_f64() + bound.to_f64();
                        cmp.entry(found[at].to_f64(), value.to_f64(), bound, || {
                            format!("{hook}[{}, {p}, {h}, {j}]", e.first_sequence + b)
                        });
                    }
                }
            }
        }
    }
    Ok(())
}

/// Queries or keys of one head, from the projection to what is multiplied: through their norm at the run's scale, and
/// turned.
fn at_scores<T: Scalar>(
    e: &Evidence<'_, T>,
    (site, b, h): (NormSite, usize, usize),
    x: Bounded<T>,
) -> Result<Bounded<T>> {
    let c = e.model.config();
    let x = match (e.model.norm_at(site), c.qk_norm) {
        (Some(norm), Some(QkNorm { per_head, .. })) => {
            if norm.kind.centred && !per_head {
                // The mean is that of all heads.
                Bounded::exact(e.value(site.output())?.head(b, h))
            } else {
                let scale = e.value(Hook::Scale(site))?;
                let row = if per_head { h } else { 0 };
                let pos = e.out.tokens.pos();
                let scale: Vec<T> = (0..pos).map(|p| scale[[b, p, row, 0]]).collect();
                let first = if per_head { 0 } else { h * c.d_head };
                let own = |x: &[T]| x[first..first + c.d_head].to_vec();
                let of_head = NormMap {
                    affine: norm
                        .affine
                        .as_ref()
                        .map(|(w, b)| (own(w).into(), own(b).into())),
                    ..norm
                };
                through(&of_head, &x, &scale, true)
            }
        }
        _ => x,
    };
    let layer = site.layer().expect("in a layer");
    Ok(match c.rotary_at(layer) {
        Some(rotary) => turned(rotary, &e.places(b), &x),
        None => x,
    })
}

/// What becomes of scores after their product, but for the mask: a slope times the key's position is added, and they
/// are capped.
fn after_product<T: Scalar>(
    e: &Evidence<'_, T>,
    b: usize,
    slope: Option<T>,
    mut scores: Bounded<T>,
) -> Bounded<T> {
    let u = unit::<T>();
    let up = rounded_up::<T>(8);
    let places = e.places(b);
    if let Some(slope) = slope {
        for (key, place) in places.iter().enumerate() {
            let added = slope * T::from_f64(place.position as f64);
            for query in 0..scores.nrows() {
                let at = (query, key);
                let sum = scores.value[at] + added;
                // The slope is rounded once, so is its product, and the sum.
                let roundings = u * (added.abs() + added.abs() + sum.abs());
                scores.error[at] = (scores.error[at] + roundings) * up;
                scores.value[at] = sum;
            }
        }
    }
    match e.model.config().score_cap {
        Some(cap) => capped(cap, scores),
        None => scores,
    }
}

/// `cap tanh(x / cap)`
pub(super) fn capped<T: Scalar>(cap: f64, mut x: Bounded<T>) -> Bounded<T> {
    let (u, up) = (unit::<T>(), rounded_up::<T>(8));
    let cap = T::from_f64(cap);
    for i in 0..x.nrows() {
        for j in 0..x.value.ncols() {
            let at = (i, j);
            let entry = x.value[at].to_f64();
            x.value[at] = T::from_f64(cap.to_f64() * (entry / cap.to_f64()).tanh());
            // A hyperbolic tangent moves by no more than its argument. By way of an exponential it is off by as
            // much as that is, and by a few roundings of numbers that are at most two.
            let roundings = cap * u * T::from_f64(2.0 * ELEMENTARY + 12.0);
            x.error[at] = (x.error[at] + roundings) * up;
        }
    }
    x
}

/// Queries or keys of one sequence, each turned by its position. An angle is off by its rounding in f64, a sine by that
/// and its own; two products and a difference are rounded.
fn turned<T: Scalar>(rotary: &RotaryPositions, places: &[Place], x: &Bounded<T>) -> Bounded<T> {
    let mut out = x.clone();
    let u = unit::<T>();
    for (row, place) in places.iter().enumerate() {
        let scale = rotary.scale();
        for (&(a, b), angle) in rotary.pairs().iter().zip(rotary.angles(place.length)) {
            let turn = place.position as f64 * angle;
            let (sin, cos) = turn.sin_cos();
            let (sin, cos) = (T::from_f64(scale * sin), T::from_f64(scale * cos));
            let off = u + T::from_f64((turn + ELEMENTARY + 1.0) * f64::EPSILON);
            let (at_a, at_b) = ((row, a), (row, b));
            let (x_a, x_b) = (x.value[at_a], x.value[at_b]);
            let (e_a, e_b) = (x.error[at_a], x.error[at_b]);
            let up = rounded_up::<T>(16);
            let scale = T::from_f64(scale);
            let error = |from: T, e_from: T, by: T, other: T, e_other: T, by_other: T| {
                let size = scale * ((from.abs() + e_from) + (other.abs() + e_other));
                let carried = e_from * by.abs() + e_other * by_other.abs();
                (carried + size * (off + gamma::<T>(3))) * up + T::MIN_POSITIVE
            };
            out.value[at_a] = x_a * cos - x_b * sin;
            out.value[at_b] = x_b * cos + x_a * sin;
            out.error[at_a] = error(x_a, e_a, cos, x_b, e_b, sin);
            out.error[at_b] = error(x_b, e_b, cos, x_a, e_a, sin);
        }
    }
    out
}

fn scores_place<T: Scalar>(
    e: &Evidence<'_, T>,
    hook: Hook,
    b: usize,
    h: usize,
    (query, key): (usize, usize),
) -> String {
    format!("{hook}[{}, {h}, {query}, {key}]", e.first_sequence + b)
}

/// Every score is what the mask says it is: 1 where it is masked, 0 where it is not.
pub(super) fn mask<T: Scalar>(e: &Evidence<'_, T>, cmp: &mut Comparison) -> Result<()> {
    let c = e.model.config();
    let is = |condition: bool| f64::from(u8::from(condition));
    for l in 0..c.n_layers {
        let (scores, pattern) = (e.value(Hook::AttnScores(l))?, e.value(Hook::Pattern(l))?);
        for (flat, (&score, &weight)) in scores.data().iter().zip(pattern.data()).enumerate() {
            let &[b, h, query, key] = scores.place(flat).as_slice() else {
                unreachable!("four axes")
            };
            let place = |hook| scores_place(e, hook, b, h, (query, key));
            let visibility = e.visibility(l, b, query, key);
            let hidden = score == -T::INFINITY;
            cmp.entry(
                is(hidden),
                is(visibility == Visibility::Hidden),
                0.0,
                || place(Hook::AttnScores(l)),
            );
            if visibility == Visibility::Pad {
                cmp.entry(score.to_f64(), PAD_SCORE, 0.0, || {
                    place(Hook::AttnScores(l))
                });
            }
            if visibility == Visibility::Hidden {
                cmp.entry(weight.to_f64(), 0.0, 0.0, || place(Hook::Pattern(l)));
            }
        }
    }
    Ok(())
}

pub(super) fn softmax<T: Scalar>(e: &Evidence<'_, T>, cmp: &mut Comparison) -> Result<()> {
    for l in 0..e.model.config().n_layers {
        let (scores, pattern) = (e.value(Hook::AttnScores(l))?, e.value(Hook::Pattern(l))?);
        let keys = e.out.tokens.pos();
        let rows = scores
            .data()
            .chunks_exact(keys)
            .zip(pattern.data().chunks_exact(keys));
        for (row, (scores_row, found)) in rows.enumerate() {
            let (expected, error) = bounded_softmax(scores_row);
            for key in 0..keys {
                let bound = 2.0 * error[key].to_f64();
                cmp.entry(found[key].to_f64(), expected[key].to_f64(), bound, || {
                    let at = scores.place(row * keys + key);
                    scores_place(e, Hook::Pattern(l), at[0], at[1], (at[2], at[3]))
                });
            }
        }
    }
    Ok(())
}

/// Each weight is its exponential over their sum, with three roundings; the sums here and there are
/// within `γ_n` each.
pub(super) fn pattern_rows<T: Scalar>(e: &Evidence<'_, T>, cmp: &mut Comparison) -> Result<()> {
    for l in 0..e.model.config().n_layers {
        let pattern = e.value(Hook::Pattern(l))?;
        let keys = e.out.tokens.pos();
        let bound = (gamma::<T>(2 * keys + 4) * rounded_up::<T>(4)).to_f64()
            + keys as f64 * T::MIN_POSITIVE.to_f64();
        for (row, weights) in pattern.data().chunks_exact(keys).enumerate() {
            let sum: T = weights.iter().copied().sum();
            cmp.entry(sum.to_f64(), 1.0, bound, || {
                let at = pattern.place(row * keys);
                format!(
                    "{}[{}, {}, {}, :]",
                    Hook::Pattern(l),
                    e.first_sequence + at[0],
                    at[1],
                    at[2]
                )
            });
        }
    }
    Ok(())
}
