//! Paths: that they add up to the logits, that every sum over them is the sum of those it speaks of, and that
//! the search finds the largest and tells the truth about the rest.

use crate::common::{for_all, reference};
use pathsum::decompose::{
    By, Contribution, Logit, LogitPaths, Path, Paths, Score, Side, Start, Station, count,
    score_parts,
};
use pathsum::model::{ActFn, Mask, MlpKind, NormKind, NormWeight, Order};
use pathsum::names::NormSite;
use pathsum::strategies::{models_and_tokens_of, toy_configs};
use pathsum::{
    Cache, Config, Error, Head, Hook, Model, Par, Run, RunOutput, Scalar, Tensor, TensorFile,
    Tokens, Weights,
};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use std::collections::HashSet;

const MOST: usize = 10_000;
const BUDGET: usize = 10_000;

fn cached<T: Scalar>(model: &Model<T>, tokens: &Tokens) -> RunOutput<T> {
    let keep = Run::new().cache("*").par(Par::Seq);
    model.run(tokens, keep).expect("tokens of the model's own")
}

fn wide<T: Scalar>(cache: &Cache<T>) -> Cache<f64> {
    Cache::new(cache.iter().map(|(h, t)| (h, t.cast())).collect())
}

// ---- In integers: to the bit -----------------------------------------------------------------------

/// A model of small integers without norms: what it computes, but for its patterns, is exact.
fn integers(extra: &str, seed: u64) -> Model<f64> {
    let config = Config::from_json(&format!(
        r#"{{"n_layers": 3, "d_model": 5, "n_ctx": 4, "d_head": 3, "n_heads": 2, "d_vocab": 6, "d_vocab_out": 4,
            "normalization_type": null, {extra}}}"#
    ))
    .unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let weights = Weights::build(&config, |_, shape| {
        Ok(Tensor::from_fn(shape, |_| {
            rng.random_range(-2i32..=2).into()
        }))
    });
    Model::new(config, weights.unwrap()).unwrap()
}

/// Its run with patterns of quarters, whose rows do not add up to one.
fn quarters(model: &Model<f64>, tokens: &Tokens, seed: u64) -> RunOutput<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let hooks = Run::new().cache("*").hook("*.hook_pattern", |t, _| {
        let quarters = |_: &[usize]| f64::from(rng.random_range(-2i32..=4)) / 4.0;
        *t = Tensor::from_fn(t.shape(), quarters);
    });
    model.run(tokens, hooks).unwrap()
}

fn value(all: &[Contribution<f64>], which: impl Fn(&Path) -> bool) -> f64 {
    all.iter().filter(|c| which(&c.path)).map(|c| c.value).sum()
}

#[test]
fn in_integers_every_sum_is_exact() {
    for (seed, extra) in [
        (1, r#""attn_only": true"#),
        (2, r#""d_mlp": 7, "act_fn": "relu""#),
        (
            3,
            r#""d_mlp": 7, "act_fn": "relu", "attention_dir": "bidirectional", "pad_token": 0"#,
        ),
    ] {
        let model = integers(extra, seed);
        let tokens = Tokens::from_rows(&[[1, 0, 5, 2], [0, 0, 3, 4]]);
        let out = quarters(&model, &tokens, seed);
        for (sequence, held) in [(0, false), (1, false), (0, true), (1, true)] {
            let paths = match held {
                false => Paths::<f64>::new(&model, &out.cache, sequence, Par::Rayon).unwrap(),
                // Of ReLU a gate is nought or one.
                true => Paths::through_neurons(&model, &out.cache, sequence, Par::Rayon).unwrap(),
            };
            for position in 0..4 {
                let weights = [1.0, 0.0, -3.0, 2.0];
                let logits: Vec<f64> = out.logits.slice(&[sequence, position]).to_vec();
                for (logit, expected) in [
                    (Logit::Of(2), logits[2]),
                    (Logit::Difference(0, 3), logits[0] - logits[3]),
                    (
                        Logit::Along(&weights),
                        logits[0] - 3.0 * logits[2] + 2.0 * logits[3],
                    ),
                ] {
                    let to_logit = paths.to_logit(position, logit).unwrap();
                    every_sum_is(&to_logit, expected);
                }
            }
        }
    }
}

/// Whether a station stands before another: a layer's neurons behind its heads.
fn before(a: Station, b: Station) -> bool {
    let level = |station: Station| match station {
        Station::Head(head) => (head.layer, 0),
        Station::Neurons(layer) => (layer, 1),
    };
    level(a) < level(b)
}

fn every_sum_is(to_logit: &LogitPaths<'_, '_, f64>, expected: f64) {
    let all = to_logit.enumerate(MOST).unwrap();
    assert_eq!(all.len() as u128, to_logit.count());
    let different: HashSet<&Path> = all.iter().map(|c| &c.path).collect();
    assert_eq!(different.len(), all.len(), "a path is there twice");
    let ascending = |p: &Path| p.stations.is_sorted_by(|&a, &b| before(a, b));
    assert!(all.iter().all(|c| ascending(&c.path)));

    assert_eq!(value(&all, |_| true), expected);
    assert_eq!(to_logit.total().value, expected);
    for (order, sum) in to_logit.by_order().into_iter().enumerate() {
        assert_eq!(value(&all, |p| p.stations.len() == order), sum, "{order}");
    }
    let by_start = to_logit.by_start();
    assert_eq!(by_start.iter().map(|x| x.1).sum::<f64>(), expected);
    for (start, sum) in by_start {
        assert_eq!(value(&all, |p| p.start == start), sum, "{start}");
    }
    let by_station = to_logit.by_station();
    let passed: HashSet<Station> = all.iter().flat_map(|c| c.path.stations.clone()).collect();
    assert!(by_station.len() >= 6 && passed.iter().all(|p| by_station.iter().any(|s| s.0 == *p)));
    for (station, sum) in by_station {
        assert_eq!(
            value(&all, |p| p.stations.contains(&station)),
            sum,
            "{station}"
        );
    }

    let mut sizes: Vec<f64> = all.iter().map(|c| c.value.abs()).collect();
    sizes.sort_by(|a, b| b.total_cmp(a));
    for k in [1, 3, 17, 100, all.len(), all.len() + 1] {
        let top = to_logit.top(k, BUDGET).unwrap();
        let listed = k.min(all.len());
        let found: Vec<f64> = top.paths.iter().map(|c| c.value.abs()).collect();
        assert_eq!(found, &sizes[..listed]);
        let each = |c: &Contribution<f64>| value(&all, |p| *p == c.path) == c.value;
        assert!(top.paths.iter().all(each));
        let unlisted = top.unlisted;
        assert!(unlisted.complete);
        assert_eq!(unlisted.count, (all.len() - listed) as u128);
        let is_listed = |p: &Path| top.paths.iter().any(|c| c.path == *p);
        assert_eq!(unlisted.together, value(&all, |p| !is_listed(p)));
        assert!(sizes.get(listed).is_none_or(|&next| next <= unlisted.each));
    }
}

// ---- Random models ---------------------------------------------------------------------------------

/// How far apart any two evaluations of the sum over all paths to a logit may be, in plain norms: the sum of
/// the norms of every path's factors, and the most roundings that a path's terms meet.
fn apart<T: Scalar>(
    model: &Model<T>,
    cache: &Cache<T>,
    sequence: usize,
    position: usize,
    logit: usize,
) -> f64 {
    let (c, w) = (model.config(), model.weights());
    let norm = |x: &[T]| x.iter().map(|x| x.to_f64().powi(2)).sum::<f64>().sqrt();
    let normed = c.norm.is_some();
    // Centring at most doubles what the sizes of its terms add up to.
    let read = |scale: Hook, p: usize| match normed {
        true => 2.0 / cache[scale][[sequence, p, 0]].to_f64(),
        false => 1.0,
    };
    let one = match c.norm.map(|norm| norm.weight) {
        Some(NormWeight::OnePlus) => 1.0,
        _ => 0.0,
    };
    let largest = |w: Option<&Tensor<T>>| w.map_or(1.0, |w| one + w.max_abs().to_f64());
    let b = |ln: Option<&pathsum::model::Norm<T>>| {
        ln.and_then(|ln| ln.b.as_ref())
            .map_or(0.0, |b| norm(b.data()))
    };
    let pos = cache[Hook::Embed].shape()[1];
    let rows = |hook: Hook, p: usize| norm(cache[hook].slice(&[sequence, p]));
    let mut size: Vec<f64> = (0..pos)
        .map(|p| {
            let pos_embed = cache.get(Hook::PosEmbed);
            rows(Hook::Embed, p) + pos_embed.map_or(0.0, |_| rows(Hook::PosEmbed, p))
        })
        .collect();
    for (l, block) in w.blocks.iter().enumerate() {
        let attn = &block.attn;
        let ln1 = w.norms.get(&NormSite::Ln1(l));
        let before: Vec<f64> = (0..pos)
            .map(|p| {
                size[p] * read(Hook::Scale(NormSite::Ln1(l)), p) * largest(ln1.map(|n| &n.w))
                    + b(ln1)
            })
            .collect();
        for h in 0..c.n_heads {
            let (V, O) = (
                norm(&columns(&attn.W_V, c.group(h))),
                norm(attn.W_O.slice(&[h])),
            );
            for (q, size) in size.iter_mut().enumerate() {
                for (k, before) in before.iter().enumerate() {
                    let pattern = cache[Hook::Pattern(l)][[sequence, h, q, k]].to_f64().abs();
                    *size += pattern * (before * V + norm(attn.b_V.slice(&[c.group(h)]))) * O;
                }
            }
        }
        for (p, size) in size.iter_mut().enumerate() {
            *size += norm(attn.b_O.data());
            if let Some(mlp) = &block.mlp {
                *size += rows(Hook::MlpOut(l), p) + 2.0 * norm(mlp.b_out.data());
            }
        }
    }
    let ln_final = w.norms.get(&NormSite::Final);
    let column: Vec<T> = (0..c.d_model).map(|i| w.W_U[[i, logit]]).collect();
    let size = size[position]
        * read(Hook::Scale(NormSite::Final), position)
        * largest(ln_final.map(|n| &n.w));
    let size = (size + b(ln_final)) * norm(&column) + w.b_U.data()[logit].abs().to_f64();
    let layer = 4 * (c.d_model + c.d_head + pos) + c.n_heads + 32;
    // Adding up the paths one by one meets a rounding a path.
    let n = (c.n_layers + 2) * layer + count(c).min(MOST as u128) as usize;
    2.0 * n as f64 * T::EPSILON.to_f64() * size
}

fn paths_add_up(model: &Model<f64>, tokens: &Tokens) -> TestCaseResult {
    let c = model.config();
    let out = cached(model, tokens);
    for sequence in 0..tokens.batch().min(2) {
        let paths = Paths::<f64>::new(model, &out.cache, sequence, Par::Seq).unwrap();
        let position = (sequence + 3) % tokens.pos();
        let logit = sequence % c.d_vocab_out;
        let to_logit = paths.to_logit(position, Logit::Of(logit)).unwrap();
        let bound = apart(model, &out.cache, sequence, position, logit);
        let close = |what: &str, a: f64, b: f64| {
            prop_assert!((a - b).abs() <= bound, "{what}: {a} {b}, {bound:e}");
            Ok(())
        };
        let expected = out.logits[[sequence, position, logit]];
        let all = to_logit.enumerate(MOST).unwrap();
        prop_assert_eq!(all.len() as u128, count(c));
        close("enumerated", value(&all, |_| true), expected)?;
        let total = to_logit.total();
        prop_assert!(total.rounding.is_finite());
        close("total", total.value, expected)?;
        for (order, sum) in to_logit.by_order().into_iter().enumerate() {
            close("order", value(&all, |p| p.stations.len() == order), sum)?;
        }
        for (start, sum) in to_logit.by_start() {
            close("start", value(&all, |p| p.start == start), sum)?;
        }
        for (station, sum) in to_logit.by_station() {
            let through = |p: &Path| p.stations.contains(&station);
            close("station", value(&all, through), sum)?;
        }
        certificates_are_true(&to_logit, &all, BUDGET, bound)?;
        certificates_are_true(&to_logit, &all, 1, bound)?;
        through_neurons_too(model, &out, (sequence, position, logit), bound)?;
    }
    Ok(())
}

/// Paths through the neurons, where there are any, add up to the same.
fn through_neurons_too(
    model: &Model<f64>,
    out: &RunOutput<f64>,
    (sequence, position, logit): (usize, usize, usize),
    apart: f64,
) -> TestCaseResult {
    let c = model.config();
    let paths = match Paths::<f64>::through_neurons(model, &out.cache, sequence, Par::Seq) {
        Ok(paths) => paths,
        Err(Error::NotCovered(_)) => {
            prop_assert!(c.act_fn() == Some(ActFn::SoluLn) || c.order != Order::Sequential);
            return Ok(());
        }
        Err(e) => return Err(TestCaseError::fail(e.to_string())),
    };
    let to_logit = paths.to_logit(position, Logit::Of(logit)).unwrap();
    let total = to_logit.total();
    if to_logit.count() > MOST as u128 {
        return Ok(());
    }
    let all = to_logit.enumerate(MOST).unwrap();
    prop_assert_eq!(all.len() as u128, to_logit.count());
    prop_assert!(all.iter().all(|c| !matches!(c.path.start, Start::Mlp(_))));
    // Added one by one each path meets its own roundings: no more than this of all that is added.
    let size: f64 = all.iter().map(|c| c.value.abs()).sum();
    let slack = 2.0 * (total.rounding + all.len() as f64 * f64::EPSILON * size);
    let expected = out.logits[[sequence, position, logit]];
    let close = |what: &str, a: f64, b: f64, bound: f64| {
        prop_assert!((a - b).abs() <= bound, "{what}: {a} {b}, {bound:e}");
        Ok(())
    };
    // What the run itself has rounded is in the bound on the paths from its MLPs.
    close("held", total.value, expected, apart + total.rounding)?;
    close("enumerated", value(&all, |_| true), total.value, slack)?;
    for (order, sum) in to_logit.by_order().into_iter().enumerate() {
        let found = value(&all, |p| p.stations.len() == order);
        close("order", found, sum, slack)?;
    }
    for (start, sum) in to_logit.by_start() {
        close("start", value(&all, |p| p.start == start), sum, slack)?;
    }
    for (station, sum) in to_logit.by_station() {
        let found = value(&all, |p| p.stations.contains(&station));
        close("station", found, sum, slack)?;
    }
    certificates_are_true(&to_logit, &all, BUDGET, slack)
}

/// The search against all paths.
fn certificates_are_true(
    to_logit: &LogitPaths<'_, '_, f64>,
    all: &[Contribution<f64>],
    budget: usize,
    bound: f64,
) -> TestCaseResult {
    for k in [1, 5, 20] {
        let top = to_logit.top(k, budget).unwrap();
        let unlisted = top.unlisted;
        prop_assert!(unlisted.complete || unlisted.expanded == budget);
        // Where the search was stopped it may not have come by so many.
        prop_assert!(top.paths.len() <= k.min(all.len()));
        prop_assert!(!unlisted.complete || top.paths.len() == k.min(all.len()));
        let listed = |p: &Path| top.paths.iter().any(|c| c.path == *p);
        for c in &top.paths {
            let found = value(all, |p| *p == c.path);
            prop_assert!(
                (c.value - found).abs() <= bound,
                "{}: {} {found}",
                c.path,
                c.value
            );
        }
        let smallest = top.paths.last().map_or(0.0, |c| c.value.abs());
        for c in all.iter().filter(|c| !listed(&c.path)) {
            let size = c.value.abs();
            prop_assert!(size <= unlisted.each + bound, "{} adds {size}", c.path);
            prop_assert!(!unlisted.complete || size <= smallest + bound, "{}", c.path);
        }
        let together = value(all, |p| !listed(p));
        let apart = (together - unlisted.together).abs();
        prop_assert!(apart <= unlisted.rounding + bound, "{apart:e}");
        prop_assert_eq!(unlisted.count, (all.len() - top.paths.len()) as u128);
    }
    Ok(())
}

/// Models whose stream is a plain sum, which is what paths are made for.
fn toys<T: Scalar>() -> impl Strategy<Value = (Model<T>, Tokens)> {
    toy_configs().prop_flat_map(|config| models_and_tokens_of(&config))
}

#[test]
fn paths_add_up_on_random_models() {
    for_all(200, toys::<f64>(), |(model, tokens)| {
        paths_add_up(&model, &tokens)
    });
}

/// One head's columns of weights that have the heads side by side, `[d_model, d_head]`.
fn columns<T: Scalar>(W: &Tensor<T>, head: usize) -> Vec<T> {
    let rows = W.of_head(head);
    let rows = rows.row_iter();
    rows.flat_map(|row| row.iter().copied().collect::<Vec<T>>())
        .collect()
}

/// Every kind of model, whatever the random ones happen to be.
#[test]
fn paths_add_up_on_every_kind_of_model() {
    let norms = [
        NormKind::LN,
        NormKind::LN_PRE,
        NormKind::RMS,
        NormKind::RMS_ONE_PLUS,
    ];
    let kinds = norms
        .map(Some)
        .into_iter()
        .chain([None])
        .flat_map(|norm| [Mask::Causal, Mask::All].map(|dir| (norm, dir)))
        .flat_map(|(norm, dir)| {
            [None, Some(ActFn::SoluLn), Some(ActFn::GeluNew)].map(|act| (norm, dir, act))
        });
    for (norm, mask, act_fn) in kinds {
        let of_a_kind = toy_configs().prop_map(move |config| Config {
            n_layers: 2,
            norm,
            mask,
            mlp: act_fn.map(|act_fn| MlpKind {
                d_mlp: 9,
                act_fn,
                gated: act_fn == ActFn::GeluNew,
                gate_bias: false,
            }),
            ..config
        });
        let cases = of_a_kind.prop_flat_map(|config| models_and_tokens_of(&config));
        for_all(8, cases, |(model, tokens)| paths_add_up(&model, &tokens));
    }
}

/// The frozen values of a run in f32 are values of f64 as well: there the same sum is as good as exact.
#[test]
fn rounding_in_f32_stays_within_its_bound() {
    let useful = std::cell::Cell::new((0u32, 0u32));
    for_all(400, toys::<f32>(), |(model, tokens)| {
        let out = cached(&model, &tokens);
        let (exact_model, exact_cache) = (model.cast::<f64>(), wide(&out.cache));
        let narrow = Paths::<f32>::new(&model, &out.cache, 0, Par::Seq).unwrap();
        let exact = Paths::<f64>::new(&exact_model, &exact_cache, 0, Par::Seq).unwrap();
        rounding_stays_within(&narrow, &exact, tokens.pos() - 1, &useful)
    });
    // Gates of ReLU are the same in both.
    let with_relu = toy_configs().prop_map(|config| Config {
        mlp: Some(MlpKind {
            d_mlp: 6,
            act_fn: ActFn::Relu,
            gated: false,
            gate_bias: false,
        }),
        ..config
    });
    let with_relu = with_relu.prop_flat_map(|config| models_and_tokens_of::<f32>(&config));
    for_all(200, with_relu, |(model, tokens)| {
        let out = cached(&model, &tokens);
        let (exact_model, exact_cache) = (model.cast::<f64>(), wide(&out.cache));
        let narrow = Paths::<f32>::through_neurons(&model, &out.cache, 0, Par::Seq).unwrap();
        let exact = Paths::<f64>::through_neurons(&exact_model, &exact_cache, 0, Par::Seq).unwrap();
        rounding_stays_within(&narrow, &exact, tokens.pos() - 1, &useful)
    });
    let (all, tight) = useful.get();
    println!("{tight} of {all} bounds are tight");
    assert!(
        tight * 10 > all * 9,
        "only {tight} of {all} bounds say anything"
    );
}

fn rounding_stays_within(
    narrow: &Paths<'_, f32>,
    exact: &Paths<'_, f64>,
    position: usize,
    useful: &std::cell::Cell<(u32, u32)>,
) -> TestCaseResult {
    let to_logit = narrow.to_logit(position, Logit::Of(0)).unwrap();
    let exactly = exact.to_logit(position, Logit::Of(0)).unwrap();
    let (sum, expected) = (to_logit.total(), exactly.total());
    let off = (f64::from(sum.value) - expected.value).abs();
    let bound = f64::from(sum.rounding) + expected.rounding;
    prop_assert!(off <= bound, "{off:e} > {bound:e}");
    let (all, tight) = useful.get();
    // The bound shows what a mistake in a formula does: it is no more than a tenth of what is added up.
    let size: f64 = exactly.by_start().iter().map(|x| x.1.abs()).sum();
    let is_tight = f64::from(sum.rounding) < size / 10.0;
    useful.set((all + 1, tight + u32::from(is_tight)));

    if exactly.count() > MOST as u128 {
        return Ok(());
    }
    let all = exactly.enumerate(MOST).unwrap();
    for k in [1, 7] {
        let top = to_logit.top(k, BUDGET).unwrap();
        let listed = |p: &Path| top.paths.iter().any(|c| c.path == *p);
        // The bounds of f64's own roundings are far below one of f32.
        let each = f64::from(top.unlisted.each) + expected.rounding;
        for c in all.iter().filter(|c| !listed(&c.path)) {
            prop_assert!(c.value.abs() <= each, "{} adds {}, {each}", c.path, c.value);
        }
        let off = (value(&all, |p| !listed(p)) - f64::from(top.unlisted.together)).abs();
        let bound = f64::from(top.unlisted.rounding) + expected.rounding;
        prop_assert!(off <= bound, "{off:e} > {bound:e}");
    }
    Ok(())
}

// ---- Scores ----------------------------------------------------------------------------------------

/// Paths into a query or a key against the score, and one by one.
fn paths_lead_to_scores<T: Scalar>(model: &Model<T>, tokens: &Tokens) -> TestCaseResult {
    let c = model.config();
    let out = cached(model, tokens);
    let paths = Paths::<f64>::new(model, &out.cache, 0, Par::Seq).unwrap();
    for layer in 0..c.n_layers {
        let score = Score {
            head: Head {
                layer,
                head: layer % c.n_heads,
            },
            query: tokens.pos() - 1,
            key: layer % tokens.pos(),
        };
        let parts = score_parts(model, &out.cache, 0, score, By::Head).unwrap();
        let expected = parts.run - parts.by_position;
        for side in [Side::Query, Side::Key] {
            let to = paths.to_score((model, &out.cache, 0), score, side).unwrap();
            let total = to.total();
            // The table's bound covers what the run has rounded.
            let bound = total.rounding + parts.rounding;
            let off = (total.value - expected).abs();
            prop_assert!(off <= bound, "{side:?}: {off:e} > {bound:e}");
            let all = to.enumerate(MOST).unwrap();
            prop_assert_eq!(all.len() as u128, to.count());
            // Added one by one each path meets its own roundings: no more than this of all that is added.
            let size: f64 = all.iter().map(|c| c.value.abs()).sum();
            let slack = total.rounding + all.len() as f64 * f64::EPSILON * size;
            let off = (value(&all, |_| true) - total.value).abs();
            prop_assert!(off <= 2.0 * slack, "{side:?}: {off:e} > {slack:e}");
            certificates_are_true(&to, &all, BUDGET, 2.0 * slack)?;
        }
    }
    Ok(())
}

#[test]
fn paths_lead_to_the_scores_of_random_models() {
    for_all(100, toys::<f64>(), |(model, tokens)| {
        paths_lead_to_scores(&model, &tokens)?;
        paths_lead_to_scores(&model.cast::<f32>(), &tokens)
    });
}

// ---- Words -----------------------------------------------------------------------------------------

#[test]
fn labels_and_refusals() {
    let model = integers(r#""d_mlp": 7, "act_fn": "relu""#, 1);
    let tokens = Tokens::from_rows(&[[1, 0, 5, 2]]);
    let out = cached(&model, &tokens);
    let paths = Paths::<f64>::new(&model, &out.cache, 0, Par::Seq).unwrap();
    let to_logit = paths.to_logit(3, Logit::Of(0)).unwrap();
    let labels: HashSet<String> = to_logit
        .enumerate(MOST)
        .unwrap()
        .iter()
        .map(|c| c.path.to_string())
        .collect();
    for label in [
        "W_E",
        "b_U",
        "W_E → 0.1 → 1.0",
        "b_V[0.1] → 1.0",
        "mlp 0 → 1.1",
        "W_pos → 0.0 → 1.1 → 2.0",
        "b_out[1] → 2.1",
        "b_O[2]",
    ] {
        assert!(labels.contains(label), "{label}");
    }
    assert_eq!(Start::NormBias(1).to_string(), "ln1.b[1]");
    for (error, expected) in [
        (to_logit.enumerate(10).err(), "paths, more than 10"),
        (to_logit.top(0, 1).err(), "at least 1"),
        (paths.to_logit(4, Logit::Of(0)).err(), "positions are 0..=3"),
        (paths.to_logit(0, Logit::Of(4)).err(), "logits are 0..=3"),
        (
            Paths::<f64>::new(&model, &out.cache, 1, Par::Seq).err(),
            "sequences are 0..=0",
        ),
        (
            Paths::<f64>::new(&model, &Cache::new(Vec::new()), 0, Par::Seq).err(),
            "kept no `hook_embed`",
        ),
    ] {
        let error = error.expect(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
    let needed = Paths::<f64>::hooks(model.config());
    let run = needed.iter().fold(Run::new(), |run, hook| run.cache(hook));
    let few = model.run(&tokens, run).unwrap();
    assert!(Paths::<f64>::new(&model, &few.cache, 0, Par::Seq).is_ok());
}

#[test]
fn a_nan_is_refused() {
    let model = integers(r#""attn_only": true"#, 1);
    let mut out = cached(&model, &Tokens::from_rows(&[[1, 0, 5, 2]]));
    out.cache.get_mut(Hook::Embed).unwrap()[[0, 0, 0]] = f64::NAN;
    out.cache
        .get_mut(Hook::Pattern(2))
        .unwrap()
        .data_mut()
        .fill(0.25);
    let paths = Paths::<f64>::new(&model, &out.cache, 0, Par::Seq).unwrap();
    let to_logit = paths.to_logit(3, Logit::Of(0)).unwrap();
    assert!(to_logit.top(1, 10).unwrap_err().to_string().contains("NaN"));
}

// ---- Real checkpoints ------------------------------------------------------------------------------

#[test]
fn paths_of_the_reference_models() {
    let Some(root) = reference::root() else {
        return;
    };
    for name in ["palindrome", "brackets", "sorted_list"] {
        let folder = root.join(name);
        let model = Model::<f64>::load(&folder).unwrap();
        let file = TensorFile::open(folder.join("activations_raw.safetensors")).unwrap();
        let tokens = Tokens::from_file(&file).unwrap().truncate(4);
        let out = cached(&model, &tokens);
        let mut worst = 0f64;
        for sequence in 0..tokens.batch() {
            let paths = Paths::<f64>::new(&model, &out.cache, sequence, Par::Seq).unwrap();
            for position in [0, tokens.pos() / 2, tokens.pos() - 1] {
                let to_logit = paths.to_logit(position, Logit::Of(1)).unwrap();
                let all = to_logit.enumerate(MOST).unwrap();
                let logit = out.logits[[sequence, position, 1]];
                let bound = apart(&model, &out.cache, sequence, position, 1);
                for sum in [value(&all, |_| true), to_logit.total().value] {
                    worst = worst.max((sum - logit).abs());
                    assert!(
                        (sum - logit).abs() <= bound,
                        "{name}: {sum} {logit} {bound:e}"
                    );
                }
                let checked = certificates_are_true(&to_logit, &all, BUDGET, bound);
                checked.unwrap_or_else(|e| panic!("{name}: {e}"));
                let top = to_logit.top(10, BUDGET).unwrap();
                assert!(top.unlisted.complete);
                if position == 0 && sequence == 0 {
                    println!(
                        "{name}: {} paths, the first is {}; the others {:.3e} ± {:.1e} together, {:.3e} each",
                        to_logit.count(),
                        top.paths[0].path,
                        top.unlisted.together,
                        top.unlisted.rounding,
                        top.unlisted.each
                    );
                }
            }
        }
        println!("{name}: sums are within {worst:.1e} of the logits");
        paths_lead_to_scores(&model, &tokens.slice(0, 1)).unwrap();
    }
}

// ---- At size ---------------------------------------------------------------------------------------

/// A random model of GPT-2-small's sizes: `cargo test --release --test library gpt_2 -- --ignored --nocapture`.
#[test]
#[ignore = "takes about 2 GB and half a minute"]
fn the_largest_paths_of_a_model_of_gpt_2_small_size() {
    let config = Config::from_json(
        r#"{"n_layers": 12, "d_model": 768, "n_ctx": 1024, "d_head": 64, "n_heads": 12, "d_mlp": 3072,
            "act_fn": "gelu_new", "d_vocab": 50257}"#,
    )
    .unwrap();
    fn search<T: Scalar + std::fmt::LowerExp>(config: &Config) {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let weights = Weights::<T>::build(config, |name, shape| {
            let deviation = match name {
                n if n.ends_with("W_E") || n.ends_with("W_pos") => 0.7,
                n if n.ends_with("W_out") => 1.0 / 3072f64.sqrt(),
                _ if shape.len() > 1 => 1.0 / 768f64.sqrt(),
                _ => 0.02,
            };
            let center = if name.ends_with(".w") { 1.0 } else { 0.0 };
            let half = deviation * 3f64.sqrt();
            Ok(Tensor::from_fn(shape, |_| {
                T::from_f64(center + rng.random_range(-half..half))
            }))
        });
        let model = Model::new(config.clone(), weights.unwrap()).unwrap();
        let ids: Vec<i64> = (0..24).map(|_| rng.random_range(0..50257)).collect();
        let tokens = Tokens::new(1, ids.len(), ids);
        let run = Paths::<T>::hooks(config)
            .iter()
            .fold(Run::new(), |run, hook| run.cache(hook));
        let out = model.run(&tokens, run).unwrap();
        let started = std::time::Instant::now();
        let paths = Paths::<f64>::new(&model, &out.cache, 0, Par::Rayon).unwrap();
        let to_logit = paths.to_logit(23, Logit::Difference(11, 12)).unwrap();
        println!("{}: frozen in {:.2?}", T::PRECISION, started.elapsed());
        for (k, budget) in [(10, 2000), (100, 2000)] {
            let started = std::time::Instant::now();
            let top = to_logit.top(k, budget).unwrap();
            let taken = started.elapsed();
            let unlisted = top.unlisted;
            println!(
                "{}: {k} of {} paths in {taken:.2?}; the last listed {:.3e}; {unlisted:?}",
                T::PRECISION,
                to_logit.count(),
                top.paths[k - 1].value,
            );
            let logit = out.logits[[0, 23, 11]] - out.logits[[0, 23, 12]];
            println!(
                "logit difference {logit}, total {:?}; first {}",
                top.total, top.paths[0].path
            );
        }
        let started = std::time::Instant::now();
        println!(
            "by order: {:?} in {:.2?}",
            to_logit.by_order(),
            started.elapsed()
        );
    }
    search::<f32>(&config);
    search::<f64>(&config);
}
