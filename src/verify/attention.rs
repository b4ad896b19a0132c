//! Identities of an attention layer.

use super::bounded::{Bounded, ELEMENTARY, bounded_softmax, gamma, rounded_up, unit};
use super::evidence::{Evidence, Visibility};
use super::verdict::Comparison;
use crate::diagram::Config;
use crate::error::Result;
use crate::kernel::PAD_SCORE;
use crate::names::{Head, Hook};
use crate::tensor::Scalar;

pub(super) fn scores<T: Scalar>(e: &Evidence<'_, T>, cmp: &mut Comparison) -> Result<()> {
    let c = e.model.config();
    let w = e.model.weights();
    for l in 0..c.n_layers {
        let x = e.layer_input(Hook::Ln1Normalized(l), Hook::ResidPre(l))?;
        let found = e.value(Hook::AttnScores(l))?;
        let inverse = T::ONE / T::from_f64(c.score_scale(l));
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
                let (left, right) = if c.rotary() {
                    // … from the run's own turned queries and keys, and here from the weights.
                    let of = |hook, h| Ok(Bounded::exact(e.value(hook)?.head(b, h)));
                    let (rot_q, rot_k) = (of(Hook::RotQ(l), h)?, of(Hook::RotK(l), c.group(h))?);
                    let left = rot_q.times(&rot_k.transposed());
                    let right = turned(c, &q).times(&turned(c, &k).transposed());
                    (left, right.scaled(inverse, unit::<T>()))
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
                let left = left
                    .scaled(inverse, unit::<T>())
                    .claimed(found.mat(&[b, h]));
                for query in 0..e.out.tokens.pos() {
                    for key in 0..e.out.tokens.pos() {
                        if e.visibility(b, query, key) != Visibility::Seen {
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

/// Queries or keys of one sequence, each turned by its position. An angle is off by its rounding in f64, a sine by that
/// and its own; two products and a difference are rounded.
fn turned<T: Scalar>(c: &Config, x: &Bounded<T>) -> Bounded<T> {
    let mut out = x.clone();
    let u = unit::<T>();
    for position in 0..x.nrows() {
        for (&(a, b), angle) in c.rotary_pairs().iter().zip(c.rotary_angles()) {
            let turn = position as f64 * angle;
            let (sin, cos) = turn.sin_cos();
            let (sin, cos) = (T::from_f64(sin), T::from_f64(cos));
            let off = u + T::from_f64((turn + ELEMENTARY) * f64::EPSILON);
            let (at_a, at_b) = ((position, a), (position, b));
            let (x_a, x_b) = (x.value[at_a], x.value[at_b]);
            let (e_a, e_b) = (x.error[at_a], x.error[at_b]);
            let up = rounded_up::<T>(16);
            let error = |from: T, e_from: T, by: T, other: T, e_other: T, by_other: T| {
                let size = (from.abs() + e_from) + (other.abs() + e_other);
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
            let visibility = e.visibility(b, query, key);
            let future = score == -T::INFINITY;
            cmp.entry(
                is(future),
                is(visibility == Visibility::Future),
                0.0,
                || place(Hook::AttnScores(l)),
            );
            if visibility == Visibility::Pad {
                cmp.entry(score.to_f64(), PAD_SCORE, 0.0, || {
                    place(Hook::AttnScores(l))
                });
            }
            if visibility == Visibility::Future {
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
