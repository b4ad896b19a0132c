//! Strategies for property tests with [proptest](mod@proptest): random configurations, models of a configuration,
//! and tokens for a model.
//!
//! A property that holds for one model may hold by accident; these look for the model for which it
//! does not, and shrink what they find to the smallest configuration that still shows it. Sizes are
//! small and include the degenerate ones: no layer, one head, one position, heads wider than the stream.
//!
//! A claim about the models of one's own configuration:
//!
//! ```
//! use pathsum::strategies::{models_of, tokens_of};
//! use pathsum::{Config, Hook, Run};
//! use proptest::prelude::*;
//!
//! let config = Config::from_json(
//!     r#"{"n_layers": 1, "d_model": 8, "n_ctx": 5, "d_head": 4, "d_vocab": 6, "attn_only": true}"#,
//! )?;
//! let models = models_of::<f64>(&config);
//! let tokens = tokens_of(&config, 1..=3);
//! proptest!(ProptestConfig::with_cases(16), |(model in models, tokens in tokens)| {
//!     let cache = model.run(&tokens, Run::new().cache("*.hook_pattern")).unwrap().cache;
//!     // The first position of a causal model sees itself alone.
//!     prop_assert_eq!(cache[Hook::Pattern(0)][[0, 1, 0, 0]], 1.0);
//! });
//! # Ok::<(), pathsum::Error>(())
//! ```
//!
//! A claim about all models, and one about those of a kind:
//!
//! ```
//! use pathsum::strategies::{configs, models_and_tokens, models_and_tokens_of};
//! use pathsum::{Par, verify};
//! use proptest::prelude::*;
//!
//! let holds = |model: &pathsum::Model<f32>, tokens: &pathsum::Tokens| {
//!     let findings = verify::check(model, tokens, Par::Seq, &mut |_, _| {}).unwrap();
//!     findings.into_iter().find(|f| f.refuted())
//! };
//! proptest!(ProptestConfig::with_cases(4), |((model, tokens) in models_and_tokens())| {
//!     prop_assert_eq!(holds(&model, &tokens), None);
//! });
//! let without_norms = configs().prop_map(|config| pathsum::Config { norm: None, ..config });
//! let of_a_kind = without_norms.prop_flat_map(|config| models_and_tokens_of(&config));
//! proptest!(ProptestConfig::with_cases(4), |((model, tokens) in of_a_kind)| {
//!     prop_assert_eq!(holds(&model, &tokens), None);
//! });
//! ```

use crate::model::{
    ActFn, Config, Mask, MlpKind, Model, NormKind, Pairing, Positions, RotaryPositions,
    RotaryScaling, Tokens, Weights,
};
use crate::tensor::{Scalar, Tensor};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use std::ops::RangeInclusive;

/// The sequences of a batch where the caller does not say how many.
const BATCH: RangeInclusive<usize> = 1..=4;

/// How often a token is the pad token, where there is one: often enough for sequences of nothing else.
const PADS: u32 = 2;
/// Against how many others.
const OTHERS: u32 = 5;

const ACT_FNS: [ActFn; 8] = [
    ActFn::Relu,
    ActFn::Gelu,
    ActFn::GeluNew,
    ActFn::GeluFast,
    ActFn::GeluPytorchTanh,
    ActFn::Silu,
    ActFn::Solu,
    ActFn::SoluLn,
];

const NORMS: [Option<NormKind>; 6] = [
    Some(NormKind::LN),
    Some(NormKind::LN_PRE),
    Some(NormKind::RMS),
    Some(NormKind::RMS_PRE),
    Some(NormKind::RMS_ONE_PLUS),
    None,
];

/// Configurations: every combination of options, and sizes that a test can run by the hundred.
///
/// `d_head` is drawn for itself, so that `n_heads * d_head` is mostly not `d_model`, and `d_head` may
/// exceed it.
pub fn configs() -> impl Strategy<Value = Config> {
    // Past sixteen, a row is longer than the widest vector there is in f32.
    let sizes = (
        0..=3usize,
        1..=20usize,
        1..=4usize,
        1..=10usize,
        option::weighted(0.6, 1..=24usize),
    );
    let vocabulary = (1..=8usize, 1..=9usize, 1..=9usize).prop_flat_map(|(n_ctx, tokens, out)| {
        option::of(0..tokens).prop_map(move |pad| (n_ctx, tokens, out, pad))
    });
    let norm = (
        select(NORMS.to_vec()),
        // By orders of magnitude, around the default of 1e-5.
        prop_oneof![Just(1e-5), (-7.0..-1.0).prop_map(|e| 10f64.powf(e))],
    );
    let attention = (
        select(vec![Mask::Causal, Mask::All]),
        option::of(0.5..4.0),
        any::<bool>(),
        any::<prop::sample::Index>(),
    );
    let by_parts = RotaryScaling::ByParts {
        factor: 8.0,
        low: 1.0,
        high: 4.0,
        original: 16.0,
    };
    let scaling = vec![RotaryScaling::None, RotaryScaling::Linear(3.0), by_parts];
    let rotary = (
        any::<prop::sample::Index>(),
        any::<bool>(),
        2.0..100.0,
        select(scaling),
    );
    let act_fn = (
        select(ACT_FNS.to_vec()),
        any::<bool>(),
        option::weighted(0.4, rotary),
    );
    (sizes, vocabulary, norm, attention, act_fn).prop_map(
        |(sizes, vocabulary, (norm, eps), attention, (act_fn, gated, rotary))| {
            let (n_layers, d_model, n_heads, d_head, d_mlp) = sizes;
            let (n_ctx, d_vocab, d_vocab_out, pad_token) = vocabulary;
            let (mask, attn_scale, scale_attn_by_inverse_layer_idx, groups) = attention;
            let divisors: Vec<usize> = (1..=n_heads).filter(|n| n_heads % n == 0).collect();
            Config {
                n_layers,
                d_model,
                n_ctx,
                d_head,
                n_heads,
                groups: *groups.get(&divisors),
                d_vocab,
                d_vocab_out,
                positions: rotary
                    .filter(|_| d_head > 1)
                    .map_or(Positions::Learned, |r| {
                        let (share, neighbours, base, scaling) = r;
                        let pairs = 1 + share.index(d_head / 2);
                        Positions::Rotary(RotaryPositions {
                            dim: 2 * pairs,
                            base,
                            pairing: if neighbours {
                                Pairing::Neighbours
                            } else {
                                Pairing::Halves
                            },
                            scaling,
                            f32_angles: false,
                        })
                    }),
                norm,
                eps,
                mask,
                attn_scale: attn_scale.unwrap_or((d_head as f64).sqrt()),
                scale_attn_by_inverse_layer_idx,
                mlp: d_mlp.map(|d_mlp| MlpKind {
                    d_mlp,
                    act_fn,
                    gated: gated && act_fn != ActFn::SoluLn,
                    gate_bias: false,
                }),
                pad_token,
                ..Config::default()
            }
        },
    )
}

/// Models of a configuration: every parameter random, none of them trivial, biases included.
///
/// Queries, keys, values, neurons and what is written to the stream are of size one or so, LayerNorms'
/// `w` lie around one, and the scores of a row spread enough for patterns to be neither uniform nor
/// one-hot. Every tensor has a mean that is not zero, so that centring it does something.
///
/// The values come from a seed: shrinking makes them tamer, not fewer. To shrink the sizes, draw the
/// configuration too, as [`models`] does.
pub fn models_of<T: Scalar>(config: &Config) -> impl Strategy<Value = Model<T>> + use<T> {
    let config = config.clone();
    (any::<u64>().no_shrink(), 0.75..2.0, 0.5..1.5).prop_map(move |(seed, spread, size)| {
        let weights = weights(&config, seed, spread, size);
        Model::new(config.clone(), weights).expect("built from the configuration")
    })
}

/// Models of random configurations; see [`configs`] and [`models_of`].
pub fn models<T: Scalar>() -> impl Strategy<Value = Model<T>> {
    configs().prop_flat_map(|config| models_of(&config))
}

/// Batches for a configuration: so many sequences, of one length from 1 to `n_ctx`; where there is a
/// pad token it is frequent.
///
/// # Panics
/// When `batch` is empty.
pub fn tokens_of(
    config: &Config,
    batch: RangeInclusive<usize>,
) -> impl Strategy<Value = Tokens> + use<> {
    let most = batch.end() * config.n_ctx;
    let any_token = 0..config.d_vocab as i64;
    let token = match config.pad_token {
        Some(pad) => prop_oneof![PADS => Just(pad as i64), OTHERS => any_token].boxed(),
        None => any_token.boxed(),
    };
    // Ids for the largest batch, of which a smaller one takes fewer: shrinking needs no new draw.
    (batch, 1..=config.n_ctx, vec(token, most)).prop_map(|(batch, pos, mut ids)| {
        ids.truncate(batch * pos);
        Tokens::new(batch, pos, ids)
    })
}

/// Models of a configuration, each with a small batch.
pub fn models_and_tokens_of<T: Scalar>(
    config: &Config,
) -> impl Strategy<Value = (Model<T>, Tokens)> + use<T> {
    (models_of(config), tokens_of(config, BATCH))
}

/// Models of random configurations, each with a small batch.
pub fn models_and_tokens<T: Scalar>() -> impl Strategy<Value = (Model<T>, Tokens)> {
    configs().prop_flat_map(|config| models_and_tokens_of(&config))
}

/// The weights of a seed. `spread` is about the standard deviation of a row of scores, `size` about that
/// of what each layer writes.
fn weights<T: Scalar>(config: &Config, seed: u64, spread: f64, size: f64) -> Weights<T> {
    let c = config;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let root = |n: usize| (n as f64).sqrt();
    // A score is a sum over d_head of products of two sums over d_model of inputs of size one.
    let query = |l: usize| {
        let variance = spread * c.score_scale(l).abs() / root(c.d_head);
        (variance / c.d_model as f64).sqrt()
    };
    let make = |name: &str, shape: &[usize]| {
        let (layer, parameter) = match name.strip_prefix("blocks.") {
            Some(rest) => rest.split_once('.').expect("a layer and a name"),
            None => ("0", name),
        };
        let layer: usize = layer.parse().expect("a layer");
        let is_w = crate::model::norm_of_scale(name).is_some();
        // Where it is centred, and its standard deviation.
        let (center, deviation) = match parameter {
            "embed.W_E" | "pos_embed.W_pos" => (0.0, 0.5f64.sqrt()),
            "attn.W_Q" | "attn.W_K" => (0.0, query(layer)),
            "attn.b_Q" | "attn.b_K" => (0.0, query(layer) * root(c.d_model) / 2.0),
            "attn.W_V" | "mlp.W_in" | "mlp.W_gate" | "unembed.W_U" => (0.0, 1.0 / root(c.d_model)),
            "attn.W_O" => (0.0, size / root(c.n_heads * c.d_head)),
            "mlp.W_out" => (0.0, size / root(shape[0])),
            _ if is_w => (1.0, 0.25),
            _ => (0.0, 0.3),
        };
        // A uniform distribution's deviation is its half-width over the root of three.
        let half = deviation * root(3);
        let shift = rng.random_range(-0.25..0.25) * deviation;
        let mut draw = || T::from_f64(center + shift + rng.random_range(-half..half));
        match *shape {
            // Head by head, as a state dict has them.
            [_, heads, _] if parameter != "attn.W_O" => {
                let mut W = Tensor::zeros(shape);
                for h in 0..heads {
                    let rows = W.of_head_mut(h).row_iter_mut();
                    rows.for_each(|row| row.iter_mut().for_each(|x| *x = draw()));
                }
                Ok(W)
            }
            _ => Ok(Tensor::from_fn(shape, |_| draw())),
        }
    };
    Weights::build(config, make).expect("no error comes from a random number")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Run;
    use crate::names::Hook;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    fn draw<S: Strategy>(strategy: S, runner: &mut TestRunner) -> S::Value {
        strategy
            .new_tree(runner)
            .expect("nothing is filtered")
            .current()
    }

    #[test]
    fn every_config_is_one_that_a_file_may_hold() {
        let mut runner = TestRunner::deterministic();
        for _ in 0..200 {
            let config = draw(configs(), &mut runner);
            assert_eq!(Config::from_json(&config.to_json()).unwrap(), config);
        }
    }

    /// Options and relations between sizes that a test may rely on to turn up.
    #[test]
    fn configs_cover_what_they_promise() {
        let mut runner = TestRunner::deterministic();
        let drawn: Vec<Config> = (0..400).map(|_| draw(configs(), &mut runner)).collect();
        let any = |what: &str, f: &dyn Fn(&Config) -> bool| {
            assert!(drawn.iter().any(f), "never: {what}");
            assert!(!drawn.iter().all(f), "always: {what}");
        };
        any("no layers", &|c| c.n_layers == 0);
        any("three layers", &|c| c.n_layers == 3);
        any("one head", &|c| c.n_heads == 1);
        any("heads of another width", &|c| {
            c.n_heads * c.d_head != c.d_model
        });
        any("heads wider than the stream", &|c| c.d_head > c.d_model);
        any("heads as wide as the stream", &|c| c.d_head == c.d_model);
        any("attention only", &|c| c.mlp.is_none());
        any("other outputs", &|c| c.d_vocab_out != c.d_vocab);
        any("pads", &|c| c.pad_token.is_some());
        any("causal", &|c| c.mask == Mask::Causal);
        any("scaled by layer", &|c| c.scale_attn_by_inverse_layer_idx);
        for act_fn in ACT_FNS {
            any("act_fn", &|c| c.act_fn() == Some(act_fn));
        }
        for norm in NORMS {
            any("norm", &|c| c.norm == norm);
        }
    }

    #[test]
    fn every_parameter_varies() {
        let mut runner = TestRunner::deterministic();
        for _ in 0..50 {
            let model = draw(models::<f64>(), &mut runner);
            for (name, t) in model.weights().tensors() {
                let first = t.data()[0];
                assert!(t.max_abs() > 0.0, "{name} is zero");
                assert!(
                    t.len() == 1 || t.data().iter().any(|&x| x != first),
                    "{name} is the same everywhere"
                );
            }
        }
    }

    #[test]
    fn patterns_are_neither_uniform_nor_one_hot() {
        let mut runner = TestRunner::deterministic();
        let (mut rows, mut uniform, mut one_hot) = (0, 0, 0);
        for _ in 0..200 {
            let (model, tokens) = draw(models_and_tokens::<f64>(), &mut runner);
            for l in 0..model.config().n_layers {
                let run = Run::new().cache(Hook::Pattern(l));
                let cache = model.run(&tokens, run).unwrap().cache;
                for row in cache[Hook::Pattern(l)].data().chunks_exact(tokens.pos()) {
                    let seen: Vec<f64> = row.iter().copied().filter(|&p| p > 0.0).collect();
                    // A row that sees one key, or pads alone, has no choice.
                    let pads = seen.iter().all(|&p| p == seen[0]);
                    if seen.len() < 2 || pads {
                        continue;
                    }
                    let largest = seen.iter().copied().fold(0.0, f64::max);
                    rows += 1;
                    uniform += usize::from(largest < 1.05 / seen.len() as f64);
                    one_hot += usize::from(largest > 0.99);
                }
            }
        }
        assert!(rows > 1000, "{rows}");
        // Some are, by chance.
        assert!(uniform * 10 < rows, "{uniform} of {rows} are uniform");
        assert!(one_hot * 10 < rows, "{one_hot} of {rows} are one-hot");
    }

    #[test]
    fn tokens_fit_their_model_and_hold_pads() {
        let mut runner = TestRunner::deterministic();
        let mut all_pads = 0;
        for _ in 0..200 {
            let config = draw(configs(), &mut runner);
            let tokens = draw(tokens_of(&config, 2..=3), &mut runner);
            tokens.check(&config).unwrap();
            assert!((2..=3).contains(&tokens.batch()));
            let pad = |t: &i64| config.pad_token.is_some_and(|pad| *t == pad as i64);
            all_pads += usize::from(tokens.pos() > 1 && tokens.sequence(0).iter().all(pad));
        }
        assert!(all_pads > 0);
    }
}
