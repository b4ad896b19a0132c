//! How far a run's logits are from the function that the weights define: one number a layer, for every position.
//!
//! `e` bounds `|x̂ - x|`, the length by which a stream vector that was computed is off, at every position that was run.
//!
//! - *Norm*, `m = C x / σ`: its derivative `(I - m mᵀ / d) / σ` is no longer than `1 / σ`, and `σ` itself changes by at
//!   most `1 / √d` a unit. So `|m̂ - m| <= (e + rounding) / (σ̂ - e / √d)`, and `|m| <= √d`.
//! - *Map*, `m W + b`: `|W| |m̂ - m|` by the spectral norm, and `γ_n` of the product of the moduli.
//! - *Scores*, `m_i W_Q W_Kᵀ m_j + b_Q W_Kᵀ m_j`: through the spectral norm of `W_Q W_Kᵀ`, not that of the factors.
//! - *Pattern*: scores that are off by `δ` change every weight by a factor between `e^-δ` and `e^δ`. With
//!   `w_j (1 + θ_j)` in place of `w_j`, the mean `Σ p_j y_j` moves by `Σ p_j θ_j (y_j - ȳ) / (1 + Σ p_j θ_j)`, and
//!   `Σ p_j |y_j - ȳ| <= max |y_j|`: at most `τ / (1 - τ)` of the longest `y`, `τ = e^δ - 1`. Applied to `y = m`, and then
//!   through `W_V W_O`.
//! - *Neurons*, `max(x, 0)`: never further apart than what goes in.
//!
//! All lengths are Euclidean. What a weight underflows to, or a pad's key of score -1e5 is taken for (nothing), is
//! counted as the smallest normal number.

use super::folded::{Folded, HeadSize, Layer, MapSize};
use crate::kernel::PAD_SCORE;

/// How exact an arithmetic is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arithmetic {
    /// What a sum, product, quotient or root is within, relative to itself.
    pub roundoff: f64,
    /// What an exponential is within.
    pub exp_error: f64,
    /// Whether the last layer's queries are turned to meet the keys' rows themselves, and their means taken before `W_V`.
    pub turned: bool,
}

impl Arithmetic {
    /// `γ_n`, see [`crate::linalg::rounding`].
    fn gamma(self, n: usize) -> f64 {
        let nu = n as f64 * self.roundoff;
        if nu < 0.5 {
            nu / (1.0 - nu)
        } else {
            f64::INFINITY
        }
    }
}

/// The extremes of the stream where something reads it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extremes {
    /// The largest sum of squares.
    pub squares: f64,
    /// The smallest scale of the norm, where there is one.
    pub scale: f64,
}

impl Extremes {
    pub const NONE: Extremes = Extremes {
        squares: 0.0,
        scale: f64::INFINITY,
    };

    /// With one more vector; a NaN stays.
    pub fn add(&mut self, squares: f64, scale: f64) {
        if self.squares.is_nan() || self.scale.is_nan() {
            return;
        }
        if squares.is_nan() || squares > self.squares {
            self.squares = squares;
        }
        if scale.is_nan() || scale < self.scale {
            self.scale = scale;
        }
    }
}

/// What a run has met: by layer before attention and before neurons, and before the unembedding.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    sites: Vec<Extremes>,
    /// Positions of a sequence.
    pub positions: usize,
}

impl Seen {
    pub fn new(layers: usize, positions: usize) -> Seen {
        Seen {
            sites: vec![Extremes::NONE; 2 * layers + 1],
            positions,
        }
    }

    pub fn attention(&mut self, l: usize) -> &mut Extremes {
        &mut self.sites[2 * l]
    }

    pub fn neurons(&mut self, l: usize) -> &mut Extremes {
        &mut self.sites[2 * l + 1]
    }

    pub fn unembed(&mut self) -> &mut Extremes {
        self.sites.last_mut().expect("a site at the end")
    }
}

/// What a norm gives, or the stream itself: how long it is at the most, and how far off.
#[derive(Clone, Copy)]
struct Row {
    length: f64,
    error: f64,
}

/// By how much the difference of two logits is off.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogitErrors {
    /// For every unit by which the two columns of `W_U` are apart.
    row: f64,
    /// And besides.
    rounding: f64,
}

impl LogitErrors {
    /// What the difference of this class's logit and any other's may be off by.
    pub fn of(self, folded: &Folded, class: usize) -> f64 {
        // A dozen operations on positive numbers in all, each within a unit.
        (self.row * folded.columns_apart[class] + self.rounding) * (1.0 + 16.0 * f64::EPSILON)
    }
}

/// The least that an operation may lose by underflow.
const TINY: f64 = f64::MIN_POSITIVE;

/// So far from one is a factor for the rounding of the bound's own arithmetic: some hundred operations a layer, on
/// positive numbers.
fn own_rounding(layers: usize) -> f64 {
    1.0 + 256.0 * (layers + 1) as f64 * f64::EPSILON
}

impl Folded {
    /// What the logits of the inputs of a run may be off by.
    pub fn errors(&self, arithmetic: Arithmetic, seen: &Seen) -> LogitErrors {
        // The embedding: one sum.
        let length =
            seen.sites[0].squares.sqrt() * (1.0 + arithmetic.gamma(self.config.d_model + 4));
        self.errors_from(arithmetic.roundoff * length + TINY, arithmetic, seen)
    }

    /// The same where the embedding is off by `e`.
    fn errors_from(&self, e: f64, arithmetic: Arithmetic, seen: &Seen) -> LogitErrors {
        let c = &self.config;
        let u = arithmetic.roundoff;
        let length =
            |site: usize| seen.sites[site].squares.sqrt() * (1.0 + arithmetic.gamma(c.d_model + 4));
        let mut e = e;
        for (l, layer) in self.layers.iter().enumerate() {
            let row = self.row(arithmetic, e, &seen.sites[2 * l]);
            let after = if layer.mlp.is_some() {
                2 * l + 1
            } else {
                2 * l + 2
            };
            let last = l + 1 == self.layers.len() && arithmetic.turned;
            let written = self.attention(arithmetic, layer, row, seen.positions, last);
            e = e + written + u * length(after);
            if let Some((into, out)) = &layer.mlp {
                let row = self.row(arithmetic, e, &seen.sites[2 * l + 1]);
                let read = through(arithmetic, into.size, row, c.d_model, into.b.len());
                // A neuron is no further off, and no larger, than what goes into it.
                let written = through(arithmetic, out.size, read, into.b.len(), c.d_model);
                e = e + written.error + u * length(2 * l + 2);
            }
        }
        let row = self.row(arithmetic, e, &seen.sites[2 * self.layers.len()]);
        let up = own_rounding(self.layers.len());
        let logit = (row.length + row.error) * self.column + self.logit_bias;
        LogitErrors {
            row: row.error * up,
            // Both logits, and their difference.
            rounding: (2.0 * arithmetic.gamma(c.d_model + 12) * logit
                + 2.0 * c.d_model as f64 * TINY)
                * up,
        }
    }

    /// The norm of a stream that is off by `e`, or the stream.
    fn row(&self, arithmetic: Arithmetic, e: f64, seen: &Extremes) -> Row {
        let d = self.config.d_model;
        let length = seen.squares.sqrt() * (1.0 + arithmetic.gamma(d + 4));
        if self.config.norm.is_none() {
            return Row {
                length: length + e,
                error: e,
            };
        }
        let root = (d as f64).sqrt();
        // Taking off the mean, in d + 2 roundings of a sum of no more than √d |x|, and one more an entry.
        let off = e + arithmetic.gamma(d + 8) * length + d as f64 * TINY;
        let least = seen.scale * (1.0 - arithmetic.gamma(d + 10));
        // Past half of the scale nothing is said, so that the difference loses no more than a digit.
        let near = off / root <= 0.5 * least;
        if !near {
            return Row {
                length: root,
                error: f64::INFINITY,
            };
        }
        let least = (least - off / root) * (1.0 - 8.0 * f64::EPSILON);
        Row {
            length: root * (1.0 + f64::EPSILON),
            error: off / least + arithmetic.gamma(d + 10) * root + d as f64 * TINY,
        }
    }

    /// What an attention layer's output may be off by.
    fn attention(
        &self,
        arithmetic: Arithmetic,
        layer: &Layer,
        row: Row,
        positions: usize,
        last: bool,
    ) -> f64 {
        let c = &self.config;
        let each = layer
            .heads
            .iter()
            .map(|head| self.head(arithmetic, layer.factor.abs(), head, row, positions, last));
        let heads: f64 = each.sum();
        // Of the sum over all heads' entries.
        let values = layer.heads.iter().map(|h| {
            let value = through(arithmetic, h.v, row, c.d_model, c.d_head);
            // No mean of values is longer than twice what the longest may be, however the pattern is off.
            2.0 * (value.length + value.error) * h.o.moduli
        });
        let width = c.n_heads * c.d_head;
        heads
            + arithmetic.gamma(width + c.n_heads + 8)
                * (values.sum::<f64>() + layer.o.size.bias_terms)
            + (width * c.d_model) as f64 * TINY
    }

    /// What a head adds may be off by, but for the rounding of the last product.
    fn head(
        &self,
        arithmetic: Arithmetic,
        factor: f64,
        head: &HeadSize,
        row: Row,
        positions: usize,
        last: bool,
    ) -> f64 {
        let c = &self.config;
        let (d, d_head) = (c.d_model, c.d_head);
        let g = |n: usize| arithmetic.gamma(n);
        let plain = |size: MapSize| Row {
            length: size.norm * row.length + size.bias,
            error: g(d + 12) * (size.moduli * (row.length + row.error) + size.bias_terms)
                + (d * d_head) as f64 * TINY,
        };
        // The rounding of queries and keys alone; what they inherit goes through W_Q W_Kᵀ.
        let (q, k) = (plain(head.q), plain(head.k));
        let (q_off, k_off) = (
            q.error + head.q.norm * row.error,
            k.error + head.k.norm * row.error,
        );
        let query = head.qk * row.length + head.query_bias;
        let seen = row.length + row.error;
        let product = if last {
            // The query as the keys' own rows are met by it.
            let off = head.qk * row.error
                + q.error * head.k.norm
                + g(d_head + 10) * head.k.moduli * (q.length + q_off)
                + (d_head * d) as f64 * TINY;
            off * seen + query * row.error + g(d + 10) * (query + off) * seen
        } else {
            row.error * (head.qk * row.length + query)
                + q.error * k.length
                + q.length * k.error
                + q_off * k_off
                + g(d_head + 10) * (q.length + q_off) * (k.length + k_off)
        };
        let score_off = factor * product + d as f64 * TINY;
        let most = factor * query * row.length;
        let pads = factor * q.length * head.key_bias + most + score_off;
        let hidden = self.config.pad_token.is_none() || -PAD_SCORE - pads > -TINY.ln();
        // The difference from the largest score is one more rounding.
        let off = score_off
            + 2.0 * (most + score_off) * 2.0 * arithmetic.roundoff
            + 2.0 * arithmetic.exp_error;
        if !(off <= 0.25 && hidden) {
            return f64::INFINITY;
        }
        // e^t - 1 <= t + t² below one.
        let tau = off + off * off;
        let moved = tau / (1.0 - tau) * (1.0 + 4.0 * f64::EPSILON) + 8.0 * positions as f64 * TINY;
        let mixing = g(2 * positions + 12);
        let v = plain(head.v);
        if last {
            let mean =
                moved * row.length + row.error + mixing * seen + (positions * d) as f64 * TINY;
            let v = g(d + 12) * (head.v.moduli * (row.length + mean) + head.v.bias_terms)
                + (d * d_head) as f64 * TINY;
            head.ov * mean + head.o.norm * v
        } else {
            let v_off = v.error + head.v.norm * row.error;
            head.ov * (moved * row.length + row.error)
                + head.o.norm
                    * (v.error + mixing * (v.length + v_off) + (positions * d_head) as f64 * TINY)
        }
    }
}

/// A map of a row.
fn through(arithmetic: Arithmetic, size: MapSize, row: Row, inputs: usize, outputs: usize) -> Row {
    let rounding =
        arithmetic.gamma(inputs + 12) * (size.moduli * (row.length + row.error) + size.bias_terms);
    Row {
        length: size.norm * row.length + size.bias,
        error: size.norm * row.error + rounding + (inputs * outputs) as f64 * TINY,
    }
}

#[cfg(test)]
mod tests {
    use super::super::folded::Map;
    use super::super::forward::{Abreast, Workspace};
    use super::*;
    use crate::diagram::{ActFn, Config, Mask, MlpKind, NormKind};
    use crate::model::{Model, Weights};
    use crate::tensor::Tensor;
    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};

    type Change = dyn Fn(&mut Folded, &mut Seen);

    const IDEAL: Arithmetic = Arithmetic {
        roundoff: f64::EPSILON / 2.0,
        exp_error: 2.0 * f64::EPSILON,
        turned: true,
    };

    fn config(norm: Option<NormKind>, mlp: bool, n_layers: usize) -> Config {
        Config {
            n_layers,
            n_heads: 1,
            groups: 1,
            d_model: 2,
            d_head: 2,
            n_ctx: 3,
            d_vocab: 3,
            d_vocab_out: 2,
            norm,
            mask: Mask::Causal,
            mlp: mlp.then_some(MlpKind {
                d_mlp: 2,
                act_fn: ActFn::Relu,
                gated: false,
                gate_bias: false,
            }),
            ..Config::default()
        }
    }

    fn random(config: &Config, rng: &mut ChaCha8Rng) -> Model<f64> {
        let weights = Weights::build(config, |_, shape| {
            Ok(Tensor::from_fn(shape, |_| rng.random_range(-1.5..1.5)))
        });
        Model::new(config.clone(), weights.unwrap()).unwrap()
    }

    /// How far the difference of two logits moves when every embedding does by `e`, as a share of what the bound with
    /// such an error in the embedding says; the largest of so many models and their moves. `change` breaks the bound.
    fn largest_share(config: &Config, models: usize, change: &Change) -> f64 {
        let e = 1e-5;
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut largest = 0.0f64;
        for _ in 0..models {
            if largest > 1.0 {
                break;
            }
            let model = random(config, &mut rng);
            let run = |model: &Model<f64>| {
                let abreast = Abreast::new(Folded::new(model).unwrap());
                let values = abreast.run(&[0, 1, 2], 3, &[2], &mut Workspace::default());
                let lanes = abreast.lanes();
                (
                    values.values[0] - values.values[lanes],
                    values.seen,
                    abreast,
                )
            };
            let (before, mut seen, abreast) = run(&model);
            let mut folded = abreast.folded;
            change(&mut folded, &mut seen);
            let bound = folded.errors_from(e, IDEAL, &seen).of(&folded, 0);
            for _ in 0..20 {
                let mut weights = model.weights().clone();
                let rows = weights.W_E.data_mut().chunks_exact_mut(2);
                for row in rows {
                    let angle: f64 = rng.random_range(0.0..std::f64::consts::TAU);
                    row[0] += e * angle.cos();
                    row[1] += e * angle.sin();
                }
                let moved = Model::new(config.clone(), weights).unwrap();
                let share = (run(&moved).0 - before).abs() / bound;
                largest = largest.max(if share.is_nan() { f64::INFINITY } else { share });
            }
        }
        largest
    }

    #[test]
    fn what_the_embedding_is_off_by_is_bounded_to_the_end() {
        for norm in [None, Some(NormKind::LN), Some(NormKind::RMS)] {
            for (mlp, layers) in [(false, 1), (true, 1), (false, 2), (true, 2)] {
                let share = largest_share(&config(norm, mlp, layers), 60, &|_, _| {});
                assert!(share <= 1.0, "{norm:?} {mlp} {layers}: {share}");
            }
        }
    }

    /// A bound that leaves something out is one that some model is beyond.
    #[test]
    fn broken_bounds_are_found_out() {
        fn none(size: &mut MapSize) {
            size.norm = 0.0;
            size.moduli = 0.0;
        }
        fn neurons(f: &mut Folded) -> &mut (Map, Map) {
            f.layers[0].mlp.as_mut().expect("neurons")
        }
        let rms = Some(NormKind::RMS);
        let changes: [(&str, Config, &Change); 9] = [
            ("scores by the query", config(None, false, 1), &|f, _| {
                f.layers[0].heads[0].qk = 0.0
            }),
            ("values", config(None, false, 1), &|f, _| {
                f.layers[0].heads[0].ov = 0.0
            }),
            (
                "values of the first layer",
                config(None, false, 2),
                &|f, _| f.layers[0].heads[0].ov = 0.0,
            ),
            (
                "the way into the neurons",
                config(None, true, 1),
                &|f, _| none(&mut neurons(f).0.size),
            ),
            (
                "the way out of the neurons",
                config(None, true, 1),
                &|f, _| none(&mut neurons(f).1.size),
            ),
            ("the unembedding", config(None, false, 1), &|f, _| {
                f.columns_apart.fill(0.0)
            }),
            (
                "one class of the unembedding",
                config(None, false, 1),
                &|f, _| f.columns_apart[0] *= 0.05,
            ),
            (
                "the norm's scale before the layer",
                config(rms, false, 1),
                &|_, seen| {
                    seen.attention(0).scale *= 1e3;
                },
            ),
            (
                "the norm's scale before the end",
                config(rms, false, 1),
                &|_, seen| {
                    seen.unembed().scale *= 1e3;
                },
            ),
        ];
        let mut missed = Vec::new();
        for (what, config, change) in changes {
            let share = largest_share(&config, 2000, change);
            if share <= 1.0 {
                missed.push((what, share));
            }
        }
        assert!(
            missed.is_empty(),
            "without these nothing is beyond: {missed:?}"
        );
    }
}
