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
    ActFn, Config, Mask, MlpKind, Model, NormKind, NormPlace, NormWeight, Order, Pairing,
    Positions, QkNorm, RotaryPositions, RotaryScaling, Tokens, Weights,
};
use crate::tensor::{Scalar, Tensor};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use std::ops::RangeInclusive;

/// The sequences of a batch where the caller does not say how many.
const BATCH: RangeInclusive<usize> = 1..=4;

/// How often a token is the pad token, where there is one: often enough for sequences of nothing else.
const PADS: u32 = 2;
/// Against how many others.
const OTHERS: u32 = 5;

const ACT_FNS: [ActFn; 11] = [
    ActFn::Relu,
    ActFn::Gelu,
    ActFn::GeluNew,
    ActFn::GeluFast,
    ActFn::GeluBloom,
    ActFn::QuickGelu,
    ActFn::GeluPytorchTanh,
    ActFn::Silu,
    ActFn::Linear,
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

/// How often a feature that few models have is drawn, among models that may have any of them.
const FEATURE: f64 = 0.35;

/// What language models have and toy models mostly do not. Where features exclude each other the first one stays.
#[derive(Clone, Debug)]
struct Features {
    embed_norm: Option<NormKind>,
    token_types: usize,
    /// In the place of learned or rotary positions.
    positions: Option<Positions>,
    /// In the place of other rotary positions, in layers with a window.
    windowed_rotary: Option<RotaryDraw>,
    norm_place: NormPlace,
    order: Order,
    qk_norm: Option<QkNorm>,
    windows: Option<Vec<Option<usize>>>,
    score_cap: Option<f64>,
    logit_cap: Option<f64>,
    mlm_head: Option<ActFn>,
    gate_bias: bool,
}

/// Rotary positions for heads of any width.
#[derive(Clone, Debug)]
struct RotaryDraw {
    share: Index,
    neighbours: bool,
    base: f64,
    scaling: RotaryScaling,
    f32_angles: bool,
}

impl RotaryDraw {
    /// Those of heads of this width, if there is anything to turn.
    fn of(self, d_head: usize) -> Option<RotaryPositions> {
        let pairs = 1 + self.share.index((d_head / 2).max(1));
        let cut = |factors: Vec<f64>| factors.into_iter().cycle().take(pairs).collect();
        let scaling = match self.scaling {
            RotaryScaling::ByLength {
                short,
                long,
                original,
                scale,
            } => RotaryScaling::ByLength {
                short: cut(short),
                long: cut(long),
                original,
                scale,
            },
            other => other,
        };
        let rotary = RotaryPositions {
            dim: 2 * pairs,
            base: self.base,
            pairing: match self.neighbours {
                true => Pairing::Neighbours,
                false => Pairing::Halves,
            },
            scaling,
            f32_angles: self.f32_angles,
        };
        (d_head > 1).then_some(rotary)
    }
}

fn rotary() -> impl Strategy<Value = RotaryDraw> {
    let by_parts = RotaryScaling::ByParts {
        factor: 8.0,
        low: 1.0,
        high: 4.0,
        original: 16.0,
    };
    let factors = |range| vec(range, 3);
    let by_length = (factors(0.8..2.0), factors(2.0..8.0), 1..=7usize, 0.8..1.5);
    let scaling = prop_oneof![
        Just(RotaryScaling::None),
        Just(RotaryScaling::Linear(3.0)),
        Just(by_parts),
        by_length.prop_map(|(short, long, original, scale)| RotaryScaling::ByLength {
            short,
            long,
            original,
            scale,
        }),
    ];
    let kinds = (any::<bool>(), any::<bool>());
    (any::<Index>(), kinds, 2.0..100.0, scaling).prop_map(
        |(share, (neighbours, f32_angles), base, scaling)| RotaryDraw {
            f32_angles,
            share,
            neighbours,
            base,
            scaling,
        },
    )
}

fn features() -> impl Strategy<Value = Features> {
    let norm = || select(NORMS.into_iter().flatten().collect::<Vec<_>>());
    let now_and_then = |n: usize| prop_oneof![6 => Just(0), 3 => 1..=n];
    let embedding = (
        option::weighted(FEATURE, norm()),
        now_and_then(3),
        option::weighted(FEATURE, select(vec![Positions::Alibi, Positions::None])),
        option::weighted(2.0 * FEATURE, rotary()),
    );
    use NormPlace::{Around, Before, Output, Stream};
    let block = (
        prop_oneof![4 => Just(Before), 2 => select(vec![Around, Output, Stream])],
        prop_oneof![
            1 => Just(Order::Sequential),
            1 => select(vec![Order::Parallel, Order::SharedNorm])
        ],
    );
    let qk_norm = (norm(), any::<bool>()).prop_map(|(kind, per_head)| QkNorm { kind, per_head });
    let attention = (
        option::weighted(FEATURE, qk_norm),
        option::weighted(2.0 * FEATURE, vec(option::weighted(0.7, 1..=4usize), 3)),
        // A lower one leaves no choice among keys.
        option::weighted(FEATURE, 1.5..6.0),
    );
    let smooth = ACT_FNS.into_iter().filter(|f| !f.looks_across());
    let end = (
        option::weighted(FEATURE, 0.3..3.0),
        option::weighted(FEATURE, select(smooth.collect::<Vec<_>>())),
        any::<bool>(),
    );
    (embedding, block, attention, end).prop_map(|(embedding, block, attention, end)| {
        let (embed_norm, token_types, positions, windowed_rotary) = embedding;
        let (norm_place, order) = block;
        let (qk_norm, windows, score_cap) = attention;
        let (logit_cap, mlm_head, gate_bias) = end;
        Features {
            embed_norm,
            token_types,
            positions,
            windowed_rotary,
            norm_place,
            order,
            qk_norm,
            windows,
            score_cap,
            logit_cap,
            mlm_head,
            gate_bias,
        }
    })
}

impl Features {
    /// A configuration with these features, but for those that it cannot have.
    fn with(self, mut c: Config) -> Config {
        // What takes the mean off one number leaves nothing.
        let leaves = |norm: &NormKind, width: usize| !norm.centred || width > 1;
        c.embed_norm = self.embed_norm.filter(|norm| leaves(norm, c.d_model));
        c.token_types = self.token_types;
        if let Some(positions) = self.positions {
            c.positions = positions;
        }
        c.norm_place = self.norm_place;
        if c.norm_place == NormPlace::Before && c.mlp.is_some() {
            c.order = self.order;
        }
        c.qk_norm = self.qk_norm.filter(|norm| leaves(&norm.kind, c.d_head));
        let windows = self.windows.filter(|_| c.mask == Mask::Causal);
        c.windows = windows.unwrap_or_default();
        c.windows.truncate(c.n_layers);
        if c.windows.iter().all(Option::is_none) {
            c.windows.clear();
        }
        if c.rotary() && !c.windows.is_empty() {
            c.windowed_rotary = self.windowed_rotary.and_then(|r| r.of(c.d_head));
        }
        c.score_cap = self.score_cap;
        c.logit_cap = self.logit_cap;
        c.mlm_head = self.mlm_head;
        c.mlp = c.mlp.map(|mlp| MlpKind {
            gate_bias: mlp.gated && self.gate_bias,
            ..mlp
        });
        c
    }
}

/// Configurations: every combination of options, and sizes that a test can run by the hundred. Two fifths of them have
/// none of the features that toy models do not have.
///
/// `d_head` is drawn for itself, so that `n_heads * d_head` is mostly not `d_model`, and `d_head` may
/// exceed it.
pub fn configs() -> impl Strategy<Value = Config> {
    configs_with(option::weighted(0.6, features()))
}

/// Those of [`configs`] that have none of the features that toy models do not have: what paths and attributions by source
/// are for.
pub fn toy_configs() -> impl Strategy<Value = Config> {
    configs_with(Just(None))
}

fn configs_with(
    features: impl Strategy<Value = Option<Features>>,
) -> impl Strategy<Value = Config> {
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
        any::<Index>(),
    );
    let act_fn = (
        select(ACT_FNS.to_vec()),
        any::<bool>(),
        option::weighted(0.4, rotary()),
    );
    let drawn = (sizes, vocabulary, norm, attention, act_fn, features);
    drawn.prop_map(
        |(sizes, vocabulary, (norm, eps), attention, (act_fn, gated, rotary), features)| {
            let (n_layers, d_model, n_heads, d_head, d_mlp) = sizes;
            let (n_ctx, d_vocab, d_vocab_out, pad_token) = vocabulary;
            let (mask, attn_scale, scale_attn_by_inverse_layer_idx, groups) = attention;
            let divisors: Vec<usize> = (1..=n_heads).filter(|n| n_heads % n == 0).collect();
            let rotary = rotary.and_then(|r| r.of(d_head));
            let config = Config {
                n_layers,
                d_model,
                n_ctx,
                d_head,
                n_heads,
                groups: *groups.get(&divisors),
                d_vocab,
                d_vocab_out,
                positions: rotary.map_or(Positions::Learned, Positions::Rotary),
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
            };
            match features {
                Some(features) => features.with(config),
                None => config,
            }
        },
    )
}

/// Models of a configuration: every parameter random, none of them trivial, biases included.
///
/// Queries, keys, values, neurons and what is written to the stream are of size one or so, norms' `w` lie around what
/// multiplies by one, and the scores of a row spread enough for patterns to be neither uniform nor
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
    let types = config.token_types.max(1) as i64;
    // Ids for the largest batch, of which a smaller one takes fewer: shrinking needs no new draw.
    let ids = (vec(token, most), vec(0..types, most));
    (batch, 1..=config.n_ctx, ids).prop_map(|(batch, pos, (mut ids, mut types))| {
        ids.truncate(batch * pos);
        types.truncate(batch * pos);
        let tokens = Tokens::new(batch, pos, ids).typed(types);
        tokens.expect("as many types as tokens")
    })
}

/// As [`tokens_of`], of which some are left out of most sequences (see [`Tokens::attended`]): before those that are
/// attended to, after them, or between them. Those left out have logits that are no numbers.
///
/// # Panics
/// When `batch` is empty.
pub fn masked_tokens_of(
    config: &Config,
    batch: RangeInclusive<usize>,
) -> impl Strategy<Value = Tokens> + use<> {
    let most = *batch.end();
    let between = vec(any::<bool>(), config.n_ctx);
    let mask = (0..4usize, any::<Index>(), between);
    (tokens_of(config, batch), vec(mask, most)).prop_map(|(tokens, masks)| {
        let pos = tokens.pos();
        let of_sequence = |(how, at, between): &(usize, Index, Vec<bool>)| {
            let at = at.index(pos);
            let seen = |p: usize| match how {
                0 => true,
                1 => p >= at,
                2 => p <= at,
                _ => p == at || between[p],
            };
            (0..pos).map(seen).collect::<Vec<_>>()
        };
        let mask = masks[..tokens.batch()].iter().flat_map(of_sequence);
        let mask = mask.collect();
        tokens.attended(mask).expect("every sequence has a token")
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
        let norm = crate::model::norm_of_scale(name).and_then(|site| c.norm_at(site));
        // Where it is centred, and its standard deviation.
        let (center, deviation) = match parameter {
            "embed.W_E" | "pos_embed.W_pos" | "token_type_embed.W_token_type" => {
                (0.0, 0.5f64.sqrt())
            }
            "attn.W_Q" | "attn.W_K" => (0.0, query(layer)),
            "attn.b_Q" | "attn.b_K" => (0.0, query(layer) * root(c.d_model) / 2.0),
            "attn.W_V" | "mlp.W_in" | "mlp.W_gate" | "mlm_head.W" | "unembed.W_U" => {
                (0.0, 1.0 / root(c.d_model))
            }
            "attn.W_O" => (0.0, size / root(c.n_heads * c.d_head)),
            "mlp.W_out" => (0.0, size / root(shape[0])),
            _ => match norm.map(|norm| norm.weight) {
                Some(NormWeight::Plain | NormWeight::Absent) => (1.0, 0.25),
                Some(NormWeight::OnePlus) => (0.0, 0.25),
                None => (0.0, 0.3),
            },
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
    use proptest::strategy::{BoxedStrategy, ValueTree};
    use proptest::test_runner::TestRunner;

    fn draw<S: Strategy>(strategy: S, runner: &mut TestRunner) -> S::Value {
        strategy
            .new_tree(runner)
            .expect("nothing is filtered")
            .current()
    }

    #[test]
    fn every_config_is_one_that_a_model_may_have() {
        let mut runner = TestRunner::deterministic();
        for _ in 0..400 {
            let config = draw(configs(), &mut runner);
            config.check().unwrap();
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
        any("none of the rarer features", &|c| {
            let plain = Config {
                n_layers: c.n_layers,
                d_model: c.d_model,
                n_ctx: c.n_ctx,
                n_heads: c.n_heads,
                groups: c.groups,
                d_head: c.d_head,
                d_vocab: c.d_vocab,
                d_vocab_out: c.d_vocab_out,
                positions: c.positions.clone(),
                norm: c.norm,
                eps: c.eps,
                mask: c.mask,
                attn_scale: c.attn_scale,
                scale_attn_by_inverse_layer_idx: c.scale_attn_by_inverse_layer_idx,
                mlp: c.mlp,
                pad_token: c.pad_token,
                ..Config::default()
            };
            *c == plain && !matches!(c.positions, Positions::Alibi | Positions::None)
        });
        any("a norm of the embeddings", &|c| c.embed_norm.is_some());
        any("token types", &|c| c.token_types > 1);
        any("one token type", &|c| c.token_types == 1);
        any("positions by ALiBi", &|c| c.positions == Positions::Alibi);
        any("ALiBi of three heads", &|c| {
            c.positions == Positions::Alibi && c.n_heads == 3
        });
        any("no positions", &|c| c.positions == Positions::None);
        any("angles by length", &|c| {
            let by_length = |r: &RotaryPositions| {
                let original = match r.scaling {
                    RotaryScaling::ByLength { original, .. } => original,
                    _ => return false,
                };
                original < c.n_ctx
            };
            matches!(&c.positions, Positions::Rotary(r) if by_length(r))
        });
        any("angles of windows", &|c| c.windowed_rotary.is_some());
        for place in [
            NormPlace::Before,
            NormPlace::Around,
            NormPlace::Output,
            NormPlace::Stream,
        ] {
            any("place of norms", &|c| {
                c.norm_place == place && c.norm.is_some() && c.n_layers > 1
            });
        }
        any("norms of the stream without MLPs", &|c| {
            c.norm_place == NormPlace::Stream && c.norm.is_some() && c.mlp.is_none()
        });
        for order in [Order::Sequential, Order::Parallel, Order::SharedNorm] {
            any("order", &|c| c.order == order && c.norm.is_some());
        }
        for per_head in [true, false] {
            any("norms of queries and keys", &|c| {
                c.n_heads > 1 && c.qk_norm.is_some_and(|norm| norm.per_head == per_head)
            });
        }
        any("windows in some layers", &|c| {
            c.windows.contains(&None) && c.windows.iter().any(|w| w.is_some_and(|w| w < c.n_ctx))
        });
        any("capped scores", &|c| c.score_cap.is_some());
        any("capped logits", &|c| c.logit_cap.is_some());
        any("a dense layer before the unembedding", &|c| {
            c.mlm_head.is_some()
        });
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
        few_are(toy_configs().boxed(), 10);
        // Caps, and norms of queries and keys, make more of them flat.
        few_are(configs().boxed(), 7);
    }

    /// That of the patterns' rows less than one in so many is uniform, and as few have one key alone.
    fn few_are(configs: BoxedStrategy<Config>, one_in: usize) {
        let mut runner = TestRunner::deterministic();
        let (mut rows, mut uniform, mut one_hot) = (0, 0, 0);
        let models = configs.prop_flat_map(|config| models_and_tokens_of::<f64>(&config));
        for _ in 0..200 {
            let (model, tokens) = draw(&models, &mut runner);
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
        assert!(uniform * one_in < rows, "{uniform} of {rows} are uniform");
        assert!(one_hot * one_in < rows, "{one_hot} of {rows} are one-hot");
    }

    #[test]
    fn tokens_fit_their_model_and_hold_pads() {
        let mut runner = TestRunner::deterministic();
        let (mut all_pads, mut typed) = (0, 0);
        let (mut left, mut right, mut between) = (0, 0, 0);
        for _ in 0..200 {
            let config = draw(configs(), &mut runner);
            let tokens = draw(tokens_of(&config, 2..=3), &mut runner);
            tokens.check(&config).unwrap();
            assert!((2..=3).contains(&tokens.batch()));
            typed += usize::from(tokens.token_types().is_some());
            let masked = draw(masked_tokens_of(&config, 2..=3), &mut runner);
            masked.check(&config).unwrap();
            let first = |p: usize| masked.is_attended(0, p);
            let last = masked.pos() - 1;
            left += usize::from(!first(0) && first(last));
            right += usize::from(first(0) && !first(last));
            between += usize::from(first(0) && first(last) && !(0..last).all(first));
            let pad = |t: &i64| config.pad_token.is_some_and(|pad| *t == pad as i64);
            all_pads += usize::from(tokens.pos() > 1 && tokens.sequence(0).iter().all(pad));
        }
        assert!(all_pads > 0 && typed > 0);
        assert!(left > 0 && right > 0 && between > 0);
    }
}
