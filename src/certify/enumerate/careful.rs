//! One input run through a model in twice the precision, by plain loops, for what f64 does not decide.

use super::super::double::Double;
use super::bound::{Arithmetic, Extremes, LogitErrors, Seen};
use super::folded::{Folded, norm_bias};
use crate::diagram::{NormKind, NormWeight};
use crate::model::{Mask, Model, Norm};
use crate::names::{Head, NormSite};
use faer::MatRef;

const DOUBLE: Arithmetic = Arithmetic {
    roundoff: Double::ROUNDOFF,
    exp_error: Double::EXP_ERROR,
    turned: false,
};

type Row = Vec<Double>;

fn of(x: f64) -> Double {
    Double::of(x)
}

fn dot(a: &[Double], b: impl Iterator<Item = Double>) -> Double {
    a.iter()
        .zip(b)
        .fold(Double::ZERO, |sum, (&a, b)| sum + a * b)
}

/// `x W + b`
fn map(x: &[Double], W: MatRef<'_, f64>, b: Option<&[f64]>) -> Row {
    let column = |j: usize| dot(x, (0..x.len()).map(|i| of(W[(i, j)])));
    let add = |j: usize| b.map_or(Double::ZERO, |b| of(b[j]));
    (0..W.ncols()).map(|j| column(j) + add(j)).collect()
}

fn plus(a: &mut [Double], b: &[Double]) {
    a.iter_mut().zip(b).for_each(|(a, &b)| *a = *a + b);
}

/// What reads the stream, but for what a norm adds; what it meets is noted.
fn read(model: &Model<f64>, site: NormSite, x: &[Double], seen: &mut Extremes) -> Row {
    let squares = |x: &[Double]| dot(x, x.iter().copied());
    let length = squares(x).to_f64() * (1.0 + f64::EPSILON);
    let Some(kind) = model.config().norm else {
        seen.add(length, f64::INFINITY);
        return x.to_vec();
    };
    let n = of(x.len() as f64);
    let mean = match kind.centred {
        true => x.iter().fold(Double::ZERO, |sum, &x| sum + x) / n,
        false => Double::ZERO,
    };
    let centred: Row = x.iter().map(|&x| x - mean).collect();
    let scale = (squares(&centred) / n + of(model.config().eps)).sqrt();
    seen.add(length, scale.to_f64() * (1.0 - f64::EPSILON));
    let own = model.weights().norms.get(&site);
    let entry = |(i, &x): (usize, &Double)| x / scale * weight(kind, own, i);
    centred.iter().enumerate().map(entry).collect()
}

/// With what the norm adds.
fn biased(model: &Model<f64>, site: NormSite, x: &[Double]) -> Row {
    let own = model.config().norm.and(model.weights().norms.get(&site));
    let entry = |(i, &x): (usize, &Double)| x + of(norm_bias(own, i));
    x.iter().enumerate().map(entry).collect()
}

fn weight(kind: NormKind, own: Option<&Norm<f64>>, i: usize) -> Double {
    match (kind.weight, own) {
        (NormWeight::Absent, _) | (_, None) => Double::ONE,
        (NormWeight::Plain, Some(norm)) => of(norm.w.data()[i]),
        (NormWeight::OnePlus, Some(norm)) => Double::ONE + of(norm.w.data()[i]),
    }
}

/// By answer the differences of the logits from the right class's, `[class]`, and by how much logits are off.
pub(super) fn differences(
    model: &Model<f64>,
    folded: &Folded,
    sequence: &[i64],
    answers: &[(usize, usize)],
) -> (Vec<Vec<f64>>, LogitErrors) {
    let (c, w) = (model.config(), model.weights());
    let is_pad = |p: usize| c.pad_token.is_some_and(|pad| sequence[p] == pad as i64);
    let mut seen = Seen::new(c.n_layers, sequence.len());
    let mut x: Vec<Row> = (sequence.iter().enumerate())
        .map(|(p, &t)| {
            let pos = |i: usize| if c.pos_embed() { w.W_pos[[p, i]] } else { 0.0 };
            let own = w.W_E.slice(&[t as usize]).iter().enumerate();
            own.map(|(i, &e)| of(e) + of(pos(i))).collect()
        })
        .collect();
    for l in 0..c.n_layers {
        let ln1 = NormSite::Ln1(l);
        // What is the same for all keys changes no pattern: theirs are read without what the norm adds.
        let read_by_keys: Vec<Row> = (x.iter())
            .map(|x| read(model, ln1, x, seen.attention(l)))
            .collect();
        let n: Vec<Row> = (read_by_keys.iter())
            .map(|x| biased(model, ln1, x))
            .collect();
        let last = l + 1 == c.n_layers;
        let needed = |p: usize| !last || answers.iter().any(|&(at, _)| at == p);
        let mut scale = of(c.attn_scale);
        if c.scale_attn_by_inverse_layer_idx {
            scale = scale * of((l + 1) as f64);
        }
        let b_O: Row = w.blocks[l].attn.b_O.data().iter().map(|&b| of(b)).collect();
        let mut written = vec![b_O; x.len()];
        for head in (0..c.n_heads).map(|head| Head { layer: l, head }) {
            let keys: Vec<Row> = (read_by_keys.iter())
                .map(|n| map(n, w.W_K(head), None))
                .collect();
            let values: Vec<Row> = (n.iter())
                .map(|n| map(n, w.W_V(head), Some(w.b_V(head))))
                .collect();
            for p in (0..x.len()).filter(|&p| needed(p)) {
                let q = map(&n[p], w.W_Q(head), Some(w.b_Q(head)));
                let sees = |key: usize| !is_pad(key) && (c.mask == Mask::All || key <= p);
                let keys: Vec<(usize, Double)> = (0..x.len())
                    .filter(|&key| sees(key))
                    .map(|key| (key, dot(&q, keys[key].iter().copied()) / scale))
                    .collect();
                let Some(most) = keys.iter().map(|&(_, s)| s).reduce(Double::max) else {
                    // All keys are pads, whose scores are alike: no bound is made of that.
                    seen.attention(l).add(f64::NAN, f64::NAN);
                    continue;
                };
                let weights: Vec<(usize, Double)> = keys
                    .iter()
                    .map(|&(key, s)| (key, (s - most).exp()))
                    .collect();
                let total = weights.iter().fold(Double::ZERO, |sum, &(_, w)| sum + w);
                let mut z = vec![Double::ZERO; c.d_head];
                for &(key, weight) in &weights {
                    let share = weight / total;
                    let value = values[key].iter();
                    z.iter_mut()
                        .zip(value)
                        .for_each(|(z, &v)| *z = *z + share * v);
                }
                plus(&mut written[p], &map(&z, w.W_O(head), None));
            }
        }
        for p in (0..x.len()).filter(|&p| needed(p)) {
            plus(&mut x[p], &written[p]);
            let Some(mlp) = &w.blocks[l].mlp else {
                continue;
            };
            let ln2 = NormSite::Ln2(l);
            let n = biased(model, ln2, &read(model, ln2, &x[p], seen.neurons(l)));
            let mut pre = map(&n, mlp.W_in.rows(), Some(mlp.b_in.data()));
            pre.iter_mut().for_each(|x| *x = x.max(Double::ZERO));
            plus(
                &mut x[p],
                &map(&pre, mlp.W_out.rows(), Some(mlp.b_out.data())),
            );
        }
    }
    let each = answers.iter().map(|&(p, right)| {
        let last = NormSite::Final;
        let n = biased(model, last, &read(model, last, &x[p], seen.unembed()));
        let logits = map(&n, w.W_U.rows(), Some(w.b_U.data()));
        let apart = |&other: &Double| (logits[right] - other).to_f64();
        logits.iter().map(apart).collect()
    });
    let each = each.collect();
    (each, folded.errors(DOUBLE, &seen))
}
