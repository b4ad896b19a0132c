//! The logits as the sum over paths.
//!
//! With the run's patterns, scales and MLP outputs frozen the model is linear, and the sum over all paths to a logit is made
//! from the logit back: through every operation goes the logit's cotangent, `G`, and what an operation adds of its own (an
//! embedding, a bias, an MLP's output) adds `⟨G, it⟩` to the sum.
//!
//! How far the run's own logit may be from that sum is made on the same way, by what one rounding does to the logit. Of an
//! operation `y = M x + c` the run has `x` and `y`, which is off by some `ε`; the cotangent `Mᵀ G` as computed is off by some
//! `ρ`. Then `⟨G, y⟩ = ⟨Mᵀ G, x⟩ + ⟨G, c⟩ + ⟨G, ε⟩ - ⟨ρ, x⟩`, exactly, and from the logit to the embeddings that adds up to
//!
//! `logit - sum = Σ ⟨G, ε⟩ - Σ ⟨ρ, x⟩`,
//!
//! with the cotangents as they were computed: no bound grows from layer to layer. All of it is in f64 whatever the run's
//! precision. `ρ` is bounded by running error analysis; `ε` is seen, and must be no more than what rounding in the run's
//! precision allows that operation: else the identity is refuted there.

use super::bounded::{Bounded, gamma, rounded_up, unit};
use super::evidence::Evidence;
use super::stream::{Chosen, through};
use super::verdict::Comparison;
use crate::decompose::{in_precision, norm_in_precision};
use crate::diagram::{Op, Step, Value};
use crate::error::Result;
use crate::names::{Head, Hook, NormSite};
use crate::tensor::{Precision, Scalar};
use faer::{Mat, MatRef};

/// At most this many logits of a sequence are compared: each is a pass back through all layers.
const COMPARED: usize = 16;

pub(super) fn path_sum<T: Scalar>(e: &Evidence<'_, T>, cmp: &mut Comparison) -> Result<()> {
    let logits = Chosen::of(e).logits;
    for b in 0..e.out.tokens.batch() {
        let attended = (0..e.out.tokens.pos()).filter(|&p| e.out.tokens.is_attended(b, p));
        let attended: Vec<usize> = attended.collect();
        let compared = places(attended.len() * logits.len(), b)
            .into_iter()
            .map(|at| (attended[at / logits.len()], logits[at % logits.len()]))
            .collect();
        Walk::new(e, b, compared).back(cmp)?;
    }
    Ok(())
}

/// At most so many places of `all` as are compared, spread over them: the step has no factor in common with their number, nor
/// so with that of the logits, and no place comes twice. Other sequences begin at others.
fn places(all: usize, first: usize) -> Vec<usize> {
    let coprime = |step: &usize| {
        let (mut a, mut b) = (*step, all);
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a == 1
    };
    let mut steps = all / COMPARED + 1..;
    let step = steps
        .find(coprime)
        .expect("one more than `all` is such a step");
    (0..COMPARED.min(all))
        .map(|i| (i * step + first) % all)
        .collect()
}

/// The way back from some logits of a sequence.
struct Walk<'e, 'a, T: Scalar> {
    e: &'e Evidence<'a, T>,
    sequence: usize,
    pos: usize,
    /// Positions and logits.
    compared: Vec<(usize, usize)>,
    /// Of every value of the diagram that one of them depends on: `[logit · pos, d]`.
    cotangents: Vec<Option<Mat<f64>>>,
    /// By logit: the sum over the paths, and the moduli of what was added to it.
    sums: Vec<f64>,
    sizes: Vec<f64>,
    terms: usize,
    /// By logit: how far the run's may be from the sum.
    bounds: Vec<f64>,
}

impl<'e, 'a, T: Scalar> Walk<'e, 'a, T> {
    fn new(e: &'e Evidence<'a, T>, sequence: usize, compared: Vec<(usize, usize)>) -> Self {
        let zeros = vec![0.0; compared.len()];
        Walk {
            e,
            sequence,
            pos: e.out.tokens.pos(),
            cotangents: vec![None; e.model.diagram.values.len()],
            sums: zeros.clone(),
            sizes: zeros.clone(),
            terms: 0,
            bounds: zeros,
            compared,
        }
    }

    /// From the logits to the embeddings.
    fn back(mut self, cmp: &mut Comparison) -> Result<()> {
        let e = self.e;
        for step in e.model.diagram.steps.iter().rev() {
            if step.op == Op::Unembed {
                self.unembed(step.reads[0].0, cmp)?;
                continue;
            }
            let Some(&made) = step.gives.last() else {
                continue;
            };
            if let Some(G) = self.cotangents[made].take() {
                self.step(step, made, &G, cmp)?;
            }
        }
        let entries = e.model.diagram.steps.len() * self.pos * e.model.config().d_model;
        let up = rounded_up::<f64>(8 * entries);
        for (i, &(p, logit)) in self.compared.iter().enumerate() {
            let bound = (self.bounds[i] + gamma::<f64>(self.terms) * self.sizes[i]) * up;
            let found = e.out.logits[[self.sequence, p, logit]].to_f64();
            let row = self.sequence * self.pos + p;
            cmp.entry(found, self.sums[i], bound, || {
                e.place("logits", row, &[logit])
            });
        }
        Ok(())
    }

    /// What a value is in the run.
    fn own(&self, value: Value) -> Result<MatRef<'e, T>> {
        let hook = self.e.model.diagram.values[value];
        Ok(self.e.value(hook)?.mat(&[self.sequence]))
    }

    fn unembed(&mut self, read: Value, cmp: &mut Comparison) -> Result<()> {
        let (e, w) = (self.e, self.e.model.weights());
        let x = self.own(read)?;
        let d = x.ncols();
        let mut G = Mat::zeros(self.compared.len() * self.pos, d);
        for (i, &(p, logit)) in self.compared.clone().iter().enumerate() {
            let b = w.b_U.data()[logit];
            let column = w.W_U.mat(&[]).subcols(logit, 1);
            let found = e.out.logits[[self.sequence, p, logit]].to_f64();
            let found = Mat::from_fn(1, 1, |_, _| found);
            let at = x.subrows(p, 1);
            let expected = exact_in::<T, f64>(at).times_plus(&exact_in(column), &[b.to_f64()]);
            let own = || Bounded::exact(at).times_plus(&Bounded::exact(column), &[b]);
            let off = self.off(p, &found, &expected, own, cmp, |_, _| {
                e.place("logits", self.sequence * self.pos + p, &[logit])
            });
            self.bounds[i] += off[(0, 0)];
            self.add(i, b.to_f64());
            for j in 0..d {
                G[(i * self.pos + p, j)] = column[(j, 0)].to_f64();
            }
        }
        self.give(read, Bounded::exact(G.as_ref()))
    }

    fn step(&mut self, step: &Step, made: Value, G: &Mat<f64>, cmp: &mut Comparison) -> Result<()> {
        let read = |i: usize| step.reads[i].0;
        match step.op {
            Op::Embed | Op::PosEmbed | Op::TokenTypeEmbed | Op::WriteNeurons(_) => {
                let x = self.own(made)?;
                let n = self.pos * x.ncols();
                for i in 0..self.compared.len() {
                    let (mut sum, mut size) = (0.0, 0.0);
                    for (p, j) in entries(x) {
                        let term = G[(i * self.pos + p, j)] * x[(p, j)].to_f64();
                        sum += term;
                        size += term.abs();
                    }
                    self.bounds[i] += gamma::<f64>(n) * size;
                    self.add(i, sum);
                }
                Ok(())
            }
            Op::Same | Op::Sum => {
                fn sum<A: Scalar>(parts: Vec<Bounded<A>>) -> Bounded<A> {
                    let sum = parts.into_iter().reduce(|sum, part| sum.plus(&part));
                    sum.expect("a sum has parts")
                }
                let parts = (0..step.reads.len()).map(|i| self.own(read(i)));
                let parts: Vec<_> = parts.collect::<Result<_>>()?;
                let expected = sum(parts.iter().map(|&x| exact_in::<T, f64>(x)).collect());
                let own = || sum(parts.iter().map(|&x| Bounded::exact(x)).collect());
                self.compare_step(made, G, &expected, own, cmp)?;
                step.reads
                    .iter()
                    .try_for_each(|&(part, _)| self.give(part, Bounded::exact(G.as_ref())))
            }
            Op::Norm(site) => self.norm(site, (read(0), made), G, cmp),
            Op::WriteHeads(l) => self.heads(l, made, G, cmp),
            Op::Project(..)
            | Op::Rotate(_)
            | Op::Attend(_)
            | Op::Gate(_)
            | Op::Neurons(_)
            | Op::Activate(_)
            | Op::MlmHead
            | Op::ActivateMlmHead
            | Op::Unembed => unreachable!("{:?} gives no value of the stream", step.op),
        }
    }

    fn norm(
        &mut self,
        site: NormSite,
        (read, made): (Value, Value),
        G: &Mat<f64>,
        cmp: &mut Comparison,
    ) -> Result<()> {
        let e = self.e;
        let scale = e.value(Hook::Scale(site))?.slice(&[self.sequence]);
        let x = self.own(read)?;
        let norm = norm_in_precision::<T, f64>(e.model, site).expect("a norm of this model");
        let wide = in_precision::<T, f64>(scale);
        let expected = through(&norm, &exact_in(x), &wide, true);
        let own = || {
            let norm = e.model.norm_at(site).expect("a norm of this model");
            through(&norm, &Bounded::exact(x), scale, true)
        };
        self.compare_step(made, G, &expected, own, cmp)?;
        if let Some(b) = norm.b() {
            self.everywhere(&Bounded::exact(G.as_ref()), b);
        }
        // `(G w - its mean) / scale`
        let mut back = Bounded::exact(G.as_ref());
        if let Some(w) = norm.w() {
            back = back.times_row(w);
        }
        if norm.kind.centred {
            back = back.centered();
        }
        let scales: Vec<f64> = wide.repeat(self.compared.len());
        self.give(read, back.divided_by_column(&scales))
    }

    /// A layer's heads, from what they read; none of the run's values in between enters.
    fn heads(&mut self, l: usize, made: Value, G: &Mat<f64>, cmp: &mut Comparison) -> Result<()> {
        let (e, diagram) = (self.e, &self.e.model.diagram);
        let values = diagram.value(Hook::V(l)).expect("a layer's values");
        let read = diagram.steps[diagram.made_by(values)].reads[0].0;
        let sequence = self.sequence;
        let expected = attn_out::<T, f64>(e, sequence, l, read)?;
        let own = || attn_out::<T, T>(e, sequence, l, read).expect("what it reads is there");
        self.compare_step(made, G, &expected, own, cmp)?;

        let (c, w) = (e.model.config(), e.model.weights());
        let G = Bounded::exact(G.as_ref());
        let b_O = in_precision::<T, f64>(w.blocks[l].attn.b_O.data());
        self.everywhere(&G, &b_O);
        let mut back: Option<Bounded<f64>> = None;
        for head in 0..c.n_heads {
            let h = Head { layer: l, head };
            let pattern = e.value(Hook::Pattern(l))?.mat(&[self.sequence, head]);
            let pattern = exact_in::<T, f64>(pattern).transposed();
            let out = G.times(&exact_in(w.W_O(h)).transposed());
            let blocks = (0..self.compared.len()).map(|i| {
                let rows = |M: &Mat<f64>| M.subrows(i * self.pos, self.pos).to_owned();
                pattern.times(&Bounded {
                    value: rows(&out.value),
                    error: rows(&out.error),
                })
            });
            let values = one_below_the_other(blocks.collect());
            self.everywhere(&values, &in_precision::<T, f64>(w.b_V(h)));
            let read = values.times(&exact_in(w.W_V(h)).transposed());
            back = Some(back.map_or(read.clone(), |back| back.plus(&read)));
        }
        self.give(read, back.expect("a layer has heads"))
    }

    /// Adds what a row that stands at every position adds to the logits, of cotangents `[logit · pos, d]`.
    fn everywhere(&mut self, G: &Bounded<f64>, row: &[f64]) {
        let row = Bounded::exact_row(row).transposed();
        let along = G.times(&row);
        for i in 0..self.compared.len() {
            let block = |M: &Mat<f64>| M.subrows(i * self.pos, self.pos).transpose().to_owned();
            let sum = Bounded {
                value: block(&along.value),
                error: block(&along.error),
            };
            let sum = sum.row_sums();
            self.bounds[i] += sum.error[(0, 0)];
            self.add(i, sum.value[(0, 0)]);
        }
    }

    fn add(&mut self, logit: usize, term: f64) {
        self.sums[logit] += term;
        self.sizes[logit] += term.abs();
        // The same number of terms for every logit.
        self.terms += usize::from(logit == 0);
    }

    /// Adds what a value's cotangent is by one of its readers, and what its rounding does.
    fn give(&mut self, value: Value, more: Bounded<f64>) -> Result<()> {
        let x = self.own(value)?;
        let before = self.cotangents[value].take();
        for i in 0..self.compared.len() {
            let mut bound = 0.0;
            for (p, j) in entries(x) {
                let at = (i * self.pos + p, j);
                let sum = before.as_ref().map_or(0.0, |b| b[at] + more.value[at]);
                bound += (more.error[at] + unit::<f64>() * sum.abs()) * x[(p, j)].to_f64().abs();
            }
            self.bounds[i] += bound;
        }
        self.cotangents[value] = Some(match before {
            Some(before) => before + &more.value,
            None => more.value,
        });
        Ok(())
    }

    /// Adds what the run's roundings in one step do to the logits.
    fn compare_step(
        &mut self,
        made: Value,
        G: &Mat<f64>,
        expected: &Bounded<f64>,
        own: impl FnOnce() -> Bounded<T>,
        cmp: &mut Comparison,
    ) -> Result<()> {
        let (e, hook) = (self.e, self.e.model.diagram.values[made]);
        let found = exact_in::<T, f64>(self.own(made)?).value;
        let row = self.sequence * self.pos;
        let off = self.off(0, &found, expected, own, cmp, |i, j| {
            e.place(hook, row + i, &[j])
        });
        for i in 0..self.compared.len() {
            let mut bound = 0.0;
            for (p, j) in entries(off.as_ref()) {
                bound += G[(i * self.pos + p, j)].abs() * off[(p, j)];
            }
            self.bounds[i] += bound;
        }
        Ok(())
    }

    /// How far the run's value from a position on may be from the exact one, seen from f64. What is further off than rounding in the run's
    /// precision may put it goes to the comparison.
    fn off(
        &self,
        first: usize,
        found: &Mat<f64>,
        expected: &Bounded<f64>,
        own: impl FnOnce() -> Bounded<T>,
        cmp: &mut Comparison,
        place: impl Fn(usize, usize) -> String,
    ) -> Mat<f64> {
        let own = (T::PRECISION != Precision::F64).then(own);
        Mat::from_fn(found.nrows(), found.ncols(), |i, j| {
            let (f, x, error) = (
                found[(i, j)],
                expected.value[(i, j)],
                expected.error[(i, j)],
            );
            let attended = self.e.out.tokens.is_attended(self.sequence, first + i);
            let allowed = own.as_ref().map_or(error, |own| own.error[(i, j)].to_f64());
            let seen = (f - x).abs();
            if attended && (seen.is_nan() || seen > allowed + error) {
                cmp.entry(f, x, allowed + error, || place(i, j));
            }
            seen + error
        })
    }
}

/// What the heads of layer `l` write, in `A`, from the run's value that they read: in the order in which a run computes it, so
/// that the bound is the run's too.
fn attn_out<T: Scalar, A: Scalar>(
    e: &Evidence<'_, T>,
    sequence: usize,
    l: usize,
    read: Value,
) -> Result<Bounded<A>> {
    let (c, w) = (e.model.config(), e.model.weights());
    let attn = &w.blocks[l].attn;
    let x = exact_in::<T, A>(e.value(e.model.diagram.values[read])?.mat(&[sequence]));
    let mut z = Vec::with_capacity(c.n_heads);
    for head in 0..c.n_heads {
        let h = Head { layer: l, head };
        let v = x.times_plus(&exact_in(w.W_V(h)), &in_precision::<T, A>(w.b_V(h)));
        let pattern = exact_in::<T, A>(e.value(Hook::Pattern(l))?.mat(&[sequence, head]));
        z.push(pattern.times(&v).transposed());
    }
    let z = one_below_the_other(z).transposed();
    Ok(z.times_plus(
        &exact_in(attn.W_O.rows()),
        &in_precision::<T, A>(attn.b_O.data()),
    ))
}

/// Values that are exact by definition, in a precision that holds them.
fn exact_in<T: Scalar, A: Scalar>(M: MatRef<'_, T>) -> Bounded<A> {
    let wide = Mat::from_fn(M.nrows(), M.ncols(), |i, j| A::from_f64(M[(i, j)].to_f64()));
    Bounded::exact(wide.as_ref())
}

fn one_below_the_other<T: Scalar>(blocks: Vec<Bounded<T>>) -> Bounded<T> {
    let each = blocks[0].nrows();
    let (rows, cols) = (blocks.len() * each, blocks[0].value.ncols());
    let of = |part: fn(&Bounded<T>) -> &Mat<T>| {
        Mat::from_fn(rows, cols, |i, j| part(&blocks[i / each])[(i % each, j)])
    };
    Bounded {
        value: of(|b| &b.value),
        error: of(|b| &b.error),
    }
}

/// The places of a matrix's entries.
fn entries<T: Scalar>(M: MatRef<'_, T>) -> impl Iterator<Item = (usize, usize)> + use<T> {
    let (rows, cols) = (M.nrows(), M.ncols());
    (0..rows).flat_map(move |i| (0..cols).map(move |j| (i, j)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_place_is_compared_twice_and_every_logit_is() {
        for positions in 0..40 {
            for logits in 1..20 {
                let all = positions * logits;
                let mut found = places(all, 5);
                assert_eq!(found.len(), COMPARED.min(all));
                let mut seen: Vec<usize> = found.iter().map(|at| at % logits).collect();
                found.sort_unstable();
                found.dedup();
                seen.sort_unstable();
                seen.dedup();
                assert_eq!(found.len(), COMPARED.min(all));
                assert_eq!(seen.len(), logits.min(COMPARED.min(all)));
            }
        }
    }
}
