//! What holds for every model, tried on random ones.
//!
//! The cases are the same every time; `PROPTEST_RNG_SEED` and `PROPTEST_CASES` try others, and more.

use crate::common::for_all;
use crate::naive::forward::{Edit, Reference, forward};
use crate::naive::{Params, Rounding, Value, params, process};
use faer::MatRef;
use pathsum::decompose::{
    By, Component, Logit, Stack, direct_logit_attribution, layer_norm_stack, residual_stack,
};
use pathsum::model::process::{Processed, Processing};
use pathsum::model::{ActFn, Mask, NormPlace, NormWeight, Order, Positions, RotaryScaling};
use pathsum::names::NormSite;
use pathsum::strategies::{
    configs, masked_tokens_of, models, models_and_tokens, models_of, tokens_of,
};
use pathsum::verify::{self, Evidence, Invariance, RunIdentity, Verdict};
use pathsum::{Cache, Config, Error, Hook, Model, Par, Run, RunOutput, Scalar, Tensor, Tokens};
use proptest::prelude::*;
use proptest::sample::subsequence;
use proptest::test_runner::TestCaseResult;
use std::cell::Cell;

fn run<T: Scalar>(model: &Model<T>, tokens: &Tokens, run: Run<'_, T>) -> RunOutput<T> {
    model.run(tokens, run).expect("tokens of the model's own")
}

fn cached<T: Scalar>(model: &Model<T>, tokens: &Tokens, par: Par) -> RunOutput<T> {
    run(model, tokens, Run::new().cache("*").par(par))
}

// ---- Identities and invariances --------------------------------------------------------------------

/// Why an identity or invariance does not apply, worked out from the configuration and the tokens alone.
fn reason(id: &str, c: &Config, tokens: &Tokens) -> Option<&'static str> {
    let pads = |t: &i64| c.pad_token.is_some_and(|pad| *t == pad as i64);
    let layers = c.n_layers > 0;
    let solu = c.mlp.is_some() && c.act_fn() == Some(ActFn::SoluLn);
    let in_blocks = layers && (solu || c.qk_norm.is_some());
    let elsewhere = c.embed_norm.is_some() || c.mlm_head.is_some();
    match id {
        "embeddings" => None,
        "token_types" => (c.token_types == 0).then_some("the model's tokens have no types"),
        "logits" => (c.mlm_head.is_none() && c.logit_cap.is_none())
            .then_some("the logits are linear in the stream: `direct_attribution` speaks of them"),
        "direct_attribution" | "path_sum" if c.mlm_head.is_some() => {
            Some("a dense layer with a function stands before the unembedding")
        }
        "direct_attribution" | "path_sum" if c.logit_cap.is_some() => Some("the logits are capped"),
        "direct_attribution" => None,
        "path_sum" => (!layers).then_some("the model has no layers"),
        "layer_norm" if in_blocks || elsewhere => None,
        "layer_norm" => match c.norm {
            None => Some("the model has no LayerNorm"),
            // They would stand behind attention and MLPs.
            Some(_) if c.norm_place == NormPlace::Stream && !layers => {
                Some("there was nothing to compare")
            }
            Some(_) => None,
        },
        "neurons" | "activation" | "mlp_out" if c.mlp.is_none() => Some("the model has no MLPs"),
        // Every key is a pad, and nothing is turned.
        "scores" if layers && !c.rotary() && tokens.ids().iter().all(pads) => {
            Some("there was nothing to compare")
        }
        "residual_sum" | "projections" | "scores" | "mask" | "softmax" | "pattern_rows"
        | "head_results" | "attn_out" | "neurons" | "activation" | "mlp_out" => {
            (!layers).then_some("the model has no layers")
        }
        "fold_layer_norm" | "center_writing_weights" | "center_unembed" | "fold_value_biases" => {
            let step: Processing = id.parse().expect("a step");
            left_by(step, c).err()
        }
        "refactor_factored_attn_matrices" => process::left_by_refactoring(c).err(),
        "value_basis" | "query_basis" | "head_order" | "neuron_order" if !layers => {
            Some("the model has no layers")
        }
        "head_order" if c.positions == Positions::Alibi => {
            Some("each head has its own slope by position, and another place another one")
        }
        "head_order" if c.qk_norm.is_some_and(|norm| !norm.per_head) => {
            Some("a norm of queries and keys goes over all heads, each of which has a w of its own")
        }
        "head_order" => (c.n_heads == 1).then_some("there is one head a layer"),
        "neuron_order" => c.mlp.is_none().then_some("the model has no MLPs"),
        "query_basis" if c.rotary() => {
            Some("positions turn queries and keys, and another basis does not turn with them")
        }
        "query_basis" if c.qk_norm.is_some() => {
            Some("queries and keys have norms, and another basis has others")
        }
        "value_basis" | "query_basis" => None,
        other => panic!("{other} is new: say here when it does not apply"),
    }
}

fn every_finding_is_as_expected<T: Scalar>(model: &Model<T>, tokens: &Tokens) -> TestCaseResult {
    let findings = verify::check(model, tokens, Par::Seq, &mut |_, _| {}).unwrap();
    prop_assert_eq!(
        findings.len(),
        RunIdentity::<T>::ALL.len() + Invariance::ALL.len()
    );
    for finding in findings {
        let expected = reason(finding.id, model.config(), tokens);
        match &finding.verdict {
            Verdict::Holds(measure) => {
                prop_assert_eq!(expected, None, "{} applies", finding.id);
                prop_assert!(measure.compared > 0 && measure.bound.is_finite());
            }
            Verdict::NotApplicable { reason } => {
                prop_assert_eq!(Some(reason.as_str()), expected, "{}", finding.id);
            }
            Verdict::Refuted(measure) => prop_assert!(false, "{}: {measure:?}", finding.id),
        }
    }
    Ok(())
}

#[test]
fn every_identity_and_invariance_holds_in_f64() {
    for_all(1200, models_and_tokens::<f64>(), |(model, tokens)| {
        every_finding_is_as_expected(&model, &tokens)
    });
}

#[test]
fn every_identity_and_invariance_holds_in_f32() {
    for_all(1200, models_and_tokens::<f32>(), |(model, tokens)| {
        every_finding_is_as_expected(&model, &tokens)
    });
}

/// Nothing is known of the values at tokens that are left out, and nothing is claimed of them.
#[test]
fn nothing_is_refuted_where_tokens_are_left_out() {
    for_all(400, models_and_masked_tokens(), |(model, tokens)| {
        let findings = verify::check(&model, &tokens, Par::Seq, &mut |_, _| {}).unwrap();
        let refuted = findings.into_iter().find(|finding| finding.refuted());
        prop_assert!(refuted.is_none(), "{refuted:?}");
        Ok(())
    });
}

// ---- The forward pass against the formulas ---------------------------------------------------------

/// Every hook and the logits of a run, against the formulas in plain loops.
fn is_the_formulas<T: Scalar>(
    model: &Model<T>,
    tokens: &Tokens,
    out: &RunOutput<T>,
    edits: &[(Hook, Edit)],
) -> Result<Reference, TestCaseError> {
    let expected = forward(
        model.config(),
        &params(model),
        tokens,
        Rounding::of::<T>(),
        edits,
    );
    let order = |hooks: &[(Hook, Value)]| hooks.iter().map(|(h, _)| *h).collect::<Vec<_>>();
    prop_assert_eq!(order(&expected.hooks), model.config().hooks());
    for (hook, value) in &expected.hooks {
        let shape = model
            .config()
            .hook_shape(*hook, tokens.batch(), tokens.pos());
        prop_assert_eq!(&shape, &value.shape);
        let wrong = value.differs(&out.cache[*hook]);
        prop_assert!(wrong.is_none(), "{hook}{}", wrong.unwrap());
    }
    let wrong = expected.logits.differs(&out.logits);
    prop_assert!(wrong.is_none(), "logits{}", wrong.unwrap());
    Ok(expected)
}

/// What a mistake in a formula moves a value by, at least. The bounds grow with depth, and in a LayerNorm
/// over two features that are almost the same by a thousand at once; on nearly every model they must
/// still show a mistake.
const POWER: f64 = 1e-3;

fn is_the_formulas_on<S: Strategy<Value = (Model<f64>, Tokens)>>(count: u32, drawn: S) {
    let (cases, loose) = (Cell::new(0), Cell::new(0));
    for_all(count, drawn, |(model, tokens)| {
        let expected = is_the_formulas(&model, &tokens, &cached(&model, &tokens, Par::Seq), &[])?;
        let (size, error) = expected.logits.size_and_error();
        cases.set(cases.get() + 1);
        loose.set(loose.get() + u32::from(error > POWER * size));
        let narrow = model.cast::<f32>();
        is_the_formulas(&narrow, &tokens, &cached(&narrow, &tokens, Par::Seq), &[])?;
        Ok(())
    });
    let (cases, loose) = (cases.get(), loose.get());
    assert!(loose * 10 <= cases, "{loose} of {cases} bounds are loose");
}

#[test]
fn every_hook_and_the_logits_are_the_formulas() {
    is_the_formulas_on(1200, models_and_tokens::<f64>());
}

/// Sequences with pads anywhere are those of their other tokens alone, at every hook.
#[test]
fn tokens_that_are_left_out_are_as_if_they_were_not_there() {
    is_the_formulas_on(800, models_and_masked_tokens());
}

fn models_and_masked_tokens() -> impl Strategy<Value = (Model<f64>, Tokens)> {
    configs().prop_flat_map(|config| (models_of::<f64>(&config), masked_tokens_of(&config, 1..=4)))
}

// ---- Hooks and caches ------------------------------------------------------------------------------

#[test]
fn a_cached_value_is_what_a_hook_saw_last() {
    for_all(400, models_and_tokens::<f64>(), |(model, tokens)| {
        let mut seen = Vec::new();
        let halve = |t: &mut Tensor<f64>, _| t.data_mut().iter_mut().for_each(|x| *x /= 2.0);
        let with_hooks = Run::new()
            .hook("hook_*embed", halve)
            .hook("*", |t, hook| seen.push((hook, t.clone())))
            .cache("*");
        let out = run(&model, &tokens, with_hooks);
        let kept: Vec<_> = out.cache.iter().map(|(h, t)| (h, t.clone())).collect();
        prop_assert_eq!(seen, kept);
        Ok(())
    });
}

/// Some of a configuration's hooks, and what to do to each.
fn edits(config: &Config) -> impl Strategy<Value = Vec<(Hook, Edit)>> + use<> {
    let hooks = config.hooks();
    let most = hooks.len().min(3);
    let edit = |hook: Hook| {
        // A stream divided by a scale of zero has no value to compare.
        let scale = hook.to_string().ends_with(".hook_scale");
        any::<bool>().prop_map(move |zero| match zero && !scale {
            true => (hook, Edit::Zero),
            false => (hook, Edit::Halve),
        })
    };
    subsequence(hooks, 1..=most)
        .prop_flat_map(move |hooks| hooks.into_iter().map(edit).collect::<Vec<_>>())
}

#[test]
fn a_run_goes_on_from_what_a_hook_changed() {
    let cases = configs().prop_flat_map(|config| {
        (
            models_of::<f64>(&config),
            tokens_of(&config, 1..=3),
            edits(&config),
        )
    });
    for_all(800, cases, |(model, tokens, edits)| {
        let with_hooks = edits
            .iter()
            .fold(Run::new().cache("*"), |run, &(hook, edit)| {
                run.hook(hook, move |t, _| match edit {
                    Edit::Zero => t.data_mut().fill(0.0),
                    Edit::Halve => t.data_mut().iter_mut().for_each(|x| *x /= 2.0),
                })
            });
        is_the_formulas(&model, &tokens, &run(&model, &tokens, with_hooks), &edits)?;
        Ok(())
    });
}

#[test]
fn heads_that_look_nowhere_write_nothing() {
    for_all(200, models_and_tokens::<f64>(), |(model, tokens)| {
        let blind = || Run::new().hook("*.hook_pattern", |t, _| t.data_mut().fill(0.0));
        if model.config().n_layers == 0 {
            prop_assert!(
                model.run(&tokens, blind()).is_err(),
                "there is no such hook"
            );
            return Ok(());
        }
        // Before a norm of what they write, where there is one.
        let has_sum = model.config().hooks().contains(&Hook::AttnSum(0));
        let written = match has_sum {
            true => "*.attn.hook_out",
            false => "*.hook_attn_out",
        };
        // With each head's result and without: two ways through the code.
        for keep in [blind().cache("*"), blind().cache("*.hook_z").cache(written)] {
            let cache = run(&model, &tokens, keep).cache;
            for (l, block) in model.weights().blocks.iter().enumerate() {
                prop_assert_eq!(cache[Hook::Z(l)].max_abs(), 0.0);
                let written = match has_sum {
                    true => Hook::AttnSum(l),
                    false => Hook::AttnOut(l),
                };
                for row in cache[written].data().chunks(model.config().d_model) {
                    prop_assert_eq!(row, block.attn.b_O.data());
                }
            }
        }
        Ok(())
    });
}

/// That a run's values are its own: what later runs compute and change does not reach them, nor does
/// what is done to them reach the model.
#[test]
fn a_cache_is_independent_of_other_runs() {
    for_all(120, models_and_tokens::<f64>(), |(model, tokens)| {
        let mut first = cached(&model, &tokens, Par::Seq);
        let copy = (first.logits.clone(), first.cache.clone());
        let spoil = Run::new()
            .hook("*", |t, _| t.data_mut().fill(7.0))
            .cache("*");
        let spoiled = run(&model, &tokens, spoil);
        prop_assert!(spoiled.cache != copy.1);
        prop_assert_eq!((&first.logits, &first.cache), (&copy.0, &copy.1));
        for hook in model.config().hooks() {
            first.cache.get_mut(hook).unwrap().data_mut().fill(7.0);
        }
        // The same work on the same thread: to the bit.
        let again = cached(&model, &tokens, Par::Seq);
        prop_assert_eq!((again.logits, again.cache), copy);
        Ok(())
    });
}

// ---- Batches and sequences -------------------------------------------------------------------------

/// How far rounding may move a logit of a model on a batch, by the library's own estimate: the bound of
/// an invariance where nothing is changed.
pub fn rounding<T: Scalar>(model: &Model<T>, tokens: &Tokens) -> f64 {
    let unchanged = Invariance::HeadOrder.compare(model, model, tokens, Par::Seq);
    match unchanged.unwrap().verdict {
        Verdict::Holds(measure) => measure.bound,
        other => panic!("a model is not itself: {other:?}"),
    }
}

fn furthest<T: Scalar>(a: &Tensor<T>, b: &Tensor<T>) -> f64 {
    assert_eq!(a.shape(), b.shape());
    let pairs = a.data().iter().zip(b.data());
    let distances = pairs.map(|(a, b)| (a.to_f64() - b.to_f64()).abs());
    // A NaN is further than anything.
    distances.fold(0.0, |m, d| if d > m || d.is_nan() { d } else { m })
}

/// Several runs of one model as the run of their sequences together.
fn joined<T: Scalar>(outs: Vec<RunOutput<T>>) -> RunOutput<T> {
    let join = |parts: Vec<&Tensor<T>>| {
        let mut shape = parts[0].shape().to_vec();
        shape[0] = parts.iter().map(|t| t.shape()[0]).sum();
        let data = parts.iter().flat_map(|t| t.data()).copied().collect();
        Tensor::from_vec(&shape, data)
    };
    let hooks = outs[0].cache.iter().map(|(hook, _)| hook);
    let values = hooks.map(|h| (h, join(outs.iter().map(|o| &o.cache[h]).collect())));
    let ids: Vec<i64> = outs.iter().flat_map(|o| o.tokens.ids()).copied().collect();
    let pos = outs[0].tokens.pos();
    let types = outs.iter().flat_map(|o| match o.tokens.token_types() {
        Some(types) => types.to_vec(),
        None => vec![0; o.tokens.ids().len()],
    });
    let types = types.collect();
    let tokens = Tokens::new(ids.len() / pos, pos, ids).typed(types);
    RunOutput {
        tokens: tokens.expect("as many types as tokens"),
        logits: join(outs.iter().map(|o| &o.logits).collect()),
        cache: Cache::new(values.collect()),
    }
}

/// The same values are computed whichever way a batch is split. The products are then of other sizes, and
/// so add up in another order; each way's values satisfy every identity within its derived bound, and
/// the logits of any two ways are apart by no more than rounding moves them.
fn ways_to_run_agree<T: Scalar>(model: &Model<T>, tokens: &Tokens) -> Result<usize, TestCaseError> {
    let threads = rayon::ThreadPoolBuilder::new().num_threads(3).build();
    let threads = threads.expect("threads can be started");
    let stretches = std::sync::atomic::AtomicUsize::new(0);
    let count = |_| {
        stretches.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    };
    let everything = || Run::new().cache("*");
    let one = |i| cached(model, &tokens.slice(i, 1), Par::Seq);
    let parallel = || run(model, tokens, everything().par(Par::Rayon).progress(&count));
    let ways = [
        ("at once", cached(model, tokens, Par::Seq)),
        ("in stretches", threads.install(parallel)),
        ("one by one", joined((0..tokens.batch()).map(one).collect())),
        (
            "whole, for a hook",
            run(
                model,
                tokens,
                everything().hook("*", |_, _| {}).par(Par::Seq),
            ),
        ),
        (
            "whole, for a hook, in parallel",
            threads.install(|| {
                run(
                    model,
                    tokens,
                    everything().hook("*", |_, _| {}).par(Par::Rayon),
                )
            }),
        ),
    ];
    let bound = rounding(model, tokens);
    let logits = run(model, tokens, Run::new().par(Par::Seq)).logits;
    for (way, out) in &ways {
        let apart = furthest(&out.logits, &logits);
        prop_assert!(apart <= bound, "{way}: {apart:e} > {bound:e}");
        let evidence = Evidence {
            model,
            out,
            first_sequence: 0,
        };
        for identity in RunIdentity::ALL {
            let finding = identity.check(&evidence).unwrap();
            prop_assert!(!finding.refuted(), "{way}: {finding:?}");
        }
    }
    Ok(stretches.into_inner())
}

#[test]
fn results_do_not_depend_on_how_a_batch_is_split() {
    // Up to 72 sequences of 8: more than one core takes at a time.
    let cases = configs().prop_flat_map(|config| {
        let many = Config {
            n_ctx: config.n_ctx + 2,
            ..config
        };
        (models_of::<f64>(&many), tokens_of(&many, 1..=72))
    });
    let split = Cell::new(0);
    for_all(32, cases, |(model, tokens)| {
        split.set(split.get() + ways_to_run_agree(&model, &tokens)? - 1);
        ways_to_run_agree(&model.cast::<f32>(), &tokens)?;
        Ok(())
    });
    assert!(split.get() > 0, "no batch was split");
}

/// Whether queries and keys are turned by other angles in sequences of another length.
fn angles_differ(c: &Config, one: usize, other: usize) -> bool {
    let of_all = match &c.positions {
        Positions::Rotary(rotary) => Some(rotary),
        _ => None,
    };
    let mut rotaries = of_all.into_iter().chain(&c.windowed_rotary);
    rotaries.any(|rotary| match rotary.scaling {
        RotaryScaling::ByLength { original, .. } => (one <= original) != (other <= original),
        _ => false,
    })
}

#[test]
fn a_causal_model_does_not_see_later_tokens() {
    let cases = configs().prop_flat_map(|config| {
        let causal = Config {
            mask: Mask::Causal,
            n_ctx: config.n_ctx + 1,
            ..config
        };
        let tokens = || tokens_of(&causal, 2..=2);
        (
            models_of::<f64>(&causal),
            tokens(),
            any::<prop::sample::Index>(),
        )
    });
    for_all(400, cases, |(model, tokens, index)| {
        // The first sequence, then the same with the rest of the second, then cut.
        let keep = 1 + index.index(tokens.pos());
        let (own, other) = (tokens.sequence(0), tokens.sequence(1));
        let changed = [&own[..keep], &other[keep..]].concat();
        let own = Tokens::from_rows(&[own]);
        let logits = model.logits(&own).unwrap();
        for tokens in [changed, own.sequence(0)[..keep].to_vec()] {
            let tokens = Tokens::from_rows(&[tokens]);
            // How fast positions turn may go by the sequence's length.
            if angles_differ(model.config(), own.pos(), tokens.pos()) {
                continue;
            }
            let bound = rounding(&model, &own).max(rounding(&model, &tokens));
            let theirs = model.logits(&tokens).unwrap();
            for p in 0..keep {
                // Where a query sees nothing but pads, it looks at the pads after it too: TransformerLens
                // gives those -1e5, not -inf.
                let c = model.config();
                let pad = |t: &i64| c.pad_token.is_some_and(|pad| *t == pad as i64);
                let windows = c.windows.iter().flatten().copied().min();
                let first = windows.map_or(0, |window| (p + 1).saturating_sub(window));
                if own.sequence(0)[first..=p].iter().all(pad) {
                    continue;
                }
                let row =
                    |t: &Tensor<f64>| Tensor::from_vec(&[t.shape()[2]], t.slice(&[0, p]).to_vec());
                let apart = furthest(&row(&logits), &row(&theirs));
                prop_assert!(apart <= bound, "{p}: {apart:e} > {bound:e}");
            }
        }
        Ok(())
    });
}

// ---- Files -----------------------------------------------------------------------------------------

fn reads_back<T: Scalar>(model: &Model<T>) -> TestCaseResult {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("model");
    model.save(&folder).unwrap();
    let read = Model::<T>::load(&folder).unwrap();
    prop_assert_eq!(read.config(), model.config());
    let bits = |model: &Model<T>| {
        let tensors = model.weights().tensors().into_iter();
        let bits = |t: &Tensor<T>| t.data().iter().map(|x| x.to_f64().to_bits()).collect();
        tensors
            .map(|(name, t)| (name, t.shape().to_vec(), bits(t)))
            .collect::<Vec<(String, Vec<usize>, Vec<u64>)>>()
    };
    prop_assert_eq!(bits(&read), bits(model));
    Ok(())
}

#[test]
fn a_saved_model_reads_back_to_the_same_bits() {
    for_all(240, models::<f64>(), |model| {
        reads_back(&model)?;
        reads_back(&model.cast::<f32>())
    });
}

// ---- Decomposition ---------------------------------------------------------------------------------

/// The places in a model's residual stream.
fn places(c: &Config) -> Vec<Hook> {
    let stream = |h: &Hook| {
        matches!(
            h,
            Hook::ResidPre(_)
                | Hook::ResidMid(_)
                | Hook::ResidPost(_)
                | Hook::NormalizedResidPost(_)
        )
    };
    c.hooks().into_iter().filter(stream).collect()
}

const CUTS: [By; 3] = [By::Layer, By::Head, By::Neuron];

/// That every entry of two tensors is within a bound of its own.
fn close<T: Scalar>(
    what: &str,
    a: &Tensor<T>,
    b: &Tensor<T>,
    bound: impl Fn(usize) -> f64,
) -> TestCaseResult {
    prop_assert_eq!(a.shape(), b.shape());
    for (i, (x, y)) in a.data().iter().zip(b.data()).enumerate() {
        let apart = (x.to_f64() - y.to_f64()).abs();
        let bound = bound(i);
        prop_assert!(
            apart <= bound,
            "{what}{:?}: {apart:e} > {bound:e}",
            a.place(i)
        );
    }
    Ok(())
}

/// The sum of the components' moduli at an entry of the stream.
fn magnitude<T: Scalar>(stack: &Stack<T>, i: usize) -> f64 {
    let each = stack.values.len() / stack.labels.len();
    let entries = stack.values.data()[i..].iter().step_by(each);
    entries.map(|x| x.abs().to_f64()).sum()
}

/// The moduli of what has been written to a place in the stream, entry by entry, and how many roundings each of these
/// terms meets at most on its way there.
#[derive(Clone)]
struct Written {
    sizes: Vec<f64>,
    roundings: usize,
}

impl Written {
    fn of<T: Scalar>(value: &Tensor<T>) -> Written {
        Written {
            sizes: value.data().iter().map(|x| x.abs().to_f64()).collect(),
            roundings: 1,
        }
    }

    /// The sum with something else.
    fn plus(mut self, other: &Written) -> Written {
        self.sizes
            .iter_mut()
            .zip(&other.sizes)
            .for_each(|(a, b)| *a += b);
        self.roundings = self.roundings.max(other.roundings) + 1;
        self
    }

    /// Products of such a row and a matrix, `[d_in, d_out]`, and a bias.
    fn written_by<T: Scalar>(&self, W: &Tensor<T>, b: &Tensor<T>) -> Written {
        let (d_in, d) = (W.shape()[0], W.shape()[1]);
        let rows = self.sizes.chunks_exact(d_in);
        let entry = |row: &[f64], j: usize| {
            let products = (0..d_in).map(|i| row[i] * W[[i, j]].abs().to_f64());
            products.sum::<f64>() + b.data()[j].abs().to_f64()
        };
        Written {
            sizes: rows
                .flat_map(|row| (0..d).map(move |j| entry(row, j)))
                .collect(),
            roundings: self.roundings + d_in + 2,
        }
    }

    /// Through a norm of the model, if it stands there, at the run's scale: each term meets two sums over the features
    /// where the mean is taken off, that one's quotient and difference, the scale's quotient (two roundings where it is by
    /// the inverse), `w` (two where one is added to it) and `b`.
    fn through<T: Scalar>(self, model: &Model<T>, cache: &Cache<T>, site: NormSite) -> Written {
        let Some(scale) = cache.get(Hook::Scale(site)) else {
            return self;
        };
        let (c, parameters) = (model.config(), model.weights().norms.get(&site));
        let kind = match site {
            NormSite::Embed => c.embed_norm,
            _ => c.norm,
        };
        let kind = kind.expect("it has a scale");
        let w = |i: usize| match (parameters, kind.weight) {
            (Some(norm), NormWeight::OnePlus) => (T::ONE + norm.w.data()[i]).abs().to_f64(),
            (Some(norm), _) => norm.w.data()[i].abs().to_f64(),
            (None, _) => 1.0,
        };
        let b = |i: usize| {
            let b = parameters.and_then(|norm| norm.b.as_ref());
            b.map_or(0.0, |b| b.data()[i].abs().to_f64())
        };
        let d = c.d_model;
        let rows = self.sizes.chunks_exact(d).zip(scale.data());
        let entries = rows.flat_map(|(row, scale)| {
            let mean = match kind.centred {
                true => row.iter().sum::<f64>() / d as f64,
                false => 0.0,
            };
            let entry =
                move |(i, x): (usize, &f64)| (x + mean) / scale.abs().to_f64() * w(i) + b(i);
            row.iter().enumerate().map(entry)
        });
        Written {
            sizes: entries.collect(),
            roundings: self.roundings + 2 * d + 10,
        }
    }
}

/// What has been written to every place in the stream, of a run that kept everything.
fn written<T: Scalar>(model: &Model<T>, cache: &Cache<T>) -> Vec<(Hook, Written)> {
    let (c, w) = (model.config(), model.weights());
    let stream_norms = c.norm_place == NormPlace::Stream && c.norm.is_some();
    let through = |x: Written, site| x.through(model, cache, site);
    let embeddings = [Hook::PosEmbed, Hook::TokenTypeEmbed];
    let embeddings = embeddings.into_iter().filter_map(|hook| cache.get(hook));
    let sum = embeddings.fold(Written::of(&cache[Hook::Embed]), |sum, x| {
        sum.plus(&Written::of(x))
    });
    let mut stream = through(sum, NormSite::Embed);
    let mut places = Vec::new();
    for (l, block) in w.blocks.iter().enumerate() {
        places.push((Hook::ResidPre(l), stream.clone()));
        let results = Written::of(&cache[Hook::Result(l)]);
        let positions = results.sizes.chunks_exact(c.n_heads * c.d_model);
        let b_O = block.attn.b_O.data();
        let sizes = positions.flat_map(|heads| {
            let heads = move |i: usize| heads.iter().skip(i).step_by(c.d_model).sum::<f64>();
            (0..c.d_model).map(move |i| heads(i) + b_O[i].abs().to_f64())
        });
        let by_attention = Written {
            sizes: sizes.collect(),
            roundings: c.n_heads + 2,
        };
        let by_attention = through(by_attention, NormSite::Ln1Post(l));
        stream = stream.plus(&by_attention);
        if let Some(mlp) = &block.mlp {
            if c.order == Order::Sequential {
                places.push((Hook::ResidMid(l), stream.clone()));
                if stream_norms {
                    stream = through(stream, NormSite::Ln1(l));
                }
            }
            let by_mlp = Written::of(&cache[Hook::Post(l)]).written_by(&mlp.W_out, &mlp.b_out);
            stream = stream.plus(&through(by_mlp, NormSite::Ln2Post(l)));
        }
        places.push((Hook::ResidPost(l), stream.clone()));
        if stream_norms {
            let last = match block.mlp {
                Some(_) => NormSite::Ln2(l),
                None => NormSite::Ln1(l),
            };
            stream = through(stream, last);
            places.push((Hook::NormalizedResidPost(l), stream.clone()));
        }
    }
    places
}

fn stacks_add_up<T: Scalar>(model: &Model<T>, tokens: &Tokens) -> TestCaseResult {
    let r = Rounding::of::<T>();
    let out = cached(model, tokens, Par::Seq);
    let written = written(model, &out.cache);
    let hooks = written.iter().map(|(at, _)| *at).collect::<Vec<_>>();
    prop_assert_eq!(hooks, places(model.config()));
    let cuts = written.iter().flat_map(|at| CUTS.map(|by| (at, by)));
    for ((at, written), by) in cuts {
        let at = *at;
        let stack = residual_stack(model, &out.cache, at, by).unwrap();
        prop_assert_eq!(stack.values.shape()[0], stack.labels.len());
        // What is written meets its roundings in the stream; in the stack as many additions as there are components,
        // behind norms that it passes alone.
        let gamma = r.gamma(stack.labels.len() + 2);
        let whole = r.gamma(stack.labels.len() + written.roundings);
        let sum = stack.sum();
        close(&format!("{at} {by:?}"), &sum, &out.cache[at], |i| {
            2.0 * whole * written.sizes[i]
        })?;

        let accumulated = stack.accumulated();
        prop_assert_eq!(&accumulated.labels, &stack.labels);
        let last = *stack.labels.last().unwrap();
        let last = accumulated.component(last).unwrap();
        close("accumulated", &last, &sum, |i| {
            2.0 * gamma * magnitude(&stack, i)
        })?;
        for (i, &label) in stack.labels.iter().enumerate() {
            let own = stack.component(label).expect("every label is there once");
            prop_assert_eq!(own.data(), stack.values.slice(&[i]));
        }
        prop_assert_eq!(stack.component(Component::UnembedBias), None);
    }
    Ok(())
}

#[test]
fn every_stack_adds_up_to_its_place_in_the_stream() {
    let cases = prop_oneof![models_and_tokens(), models_and_masked_tokens()];
    for_all(240, cases, |(model, tokens)| {
        stacks_add_up(&model, &tokens)?;
        stacks_add_up(&model.cast::<f32>(), &tokens)
    });
}

/// What the logits of a model with layers are attributed to: the stream at its end. Of capped logits, and of those behind
/// a function, nothing is.
fn attributed<T: Scalar>(c: &Config, found: pathsum::Result<Stack<T>>) -> Option<Stack<T>> {
    let linear = c.mlm_head.is_none() && c.logit_cap.is_none();
    match found {
        Ok(parts) => {
            assert!(linear, "the logits are not linear");
            Some(parts)
        }
        Err(Error::NotCovered(_)) if !linear => None,
        Err(e) => panic!("{e}"),
    }
}

/// The logits as a sum over components, features and nothing else, and what rounding may do to it.
///
/// With the run's own scale the way from the components to a logit is linear: every product of a
/// component's entry, `1/scale`, `w` and `W_U` goes into sums in some order, here and in the run. Each
/// meets at most as many roundings as on its way through the last norm, as there are components, and as
/// there are features in the product with `W_U`, and two more in this and in `b_U`.
fn attributions_add_up<T: Scalar>(model: &Model<T>, tokens: &Tokens) -> TestCaseResult {
    let (c, w, r) = (model.config(), model.weights(), Rounding::of::<T>());
    if c.n_layers == 0 {
        return Ok(());
    }
    let out = cached(model, tokens, Par::Seq);
    let all: Vec<Logit<T>> = (0..c.d_vocab_out).map(Logit::Of).collect();
    let (end, stream) = written(model, &out.cache).pop().expect("a layer");
    prop_assert_eq!(end, c.end_of_stream());
    let read = stream.through(model, &out.cache, NormSite::Final);
    let logits = read.written_by(&w.W_U, &w.b_U);
    for by in CUTS {
        let stack = residual_stack(model, &out.cache, end, by).unwrap();
        let components = stack.labels.len();
        let parts = direct_logit_attribution(model, &out.cache, stack, &all);
        let Some(parts) = attributed(c, parts) else {
            continue;
        };
        let gamma = r.gamma(components + logits.roundings);
        close(&format!("logits {by:?}"), &parts.sum(), &out.logits, |i| {
            2.0 * gamma * logits.sizes[i]
        })?;
    }
    Ok(())
}

#[test]
fn attributions_add_up_to_the_logits() {
    for_all(240, models_and_tokens::<f64>(), |(model, tokens)| {
        attributions_add_up(&model, &tokens)?;
        attributions_add_up(&model.cast::<f32>(), &tokens)
    });
}

#[test]
fn an_attribution_to_a_difference_is_the_difference_of_attributions() {
    let cases = models_and_tokens::<f64>().prop_flat_map(|(model, tokens)| {
        let logit = 0..model.config().d_vocab_out;
        (Just(model), Just(tokens), logit.clone(), logit)
    });
    for_all(240, cases, |(model, tokens, i, j)| {
        let (c, W_U) = (model.config(), &model.weights().W_U);
        if c.n_layers == 0 {
            return Ok(());
        }
        let cache = cached(&model, &tokens, Par::Seq).cache;
        let stack = residual_stack(&model, &cache, c.end_of_stream(), By::Head).unwrap();
        let logits = [Logit::Difference(i, j), Logit::Of(i), Logit::Of(j)];
        let parts = direct_logit_attribution(&model, &cache, stack.clone(), &logits);
        let Some(parts) = attributed(c, parts) else {
            return Ok(());
        };
        let scale = Hook::Scale(NormSite::Final);
        let normalized = match cache.get(scale) {
            Some(_) => layer_norm_stack(&model, &cache, stack, scale).unwrap(),
            None => stack,
        };
        // A product over d_model, and one rounding more on each side for its difference.
        let gamma = Rounding::of::<f64>().gamma(c.d_model + 2);
        let mut rows = normalized.values.data().chunks(c.d_model);
        for part in parts.values.data().chunks(3) {
            let magnitude: f64 = match rows.next() {
                Some(x) => {
                    let W_U = |k: usize| W_U[[k, i]].abs() + W_U[[k, j]].abs();
                    x.iter().enumerate().map(|(k, x)| x.abs() * W_U(k)).sum()
                }
                // The last component is the bias.
                None => part[1].abs() + part[2].abs(),
            };
            let apart = (part[0] - (part[1] - part[2])).abs();
            prop_assert!(apart <= 2.0 * gamma * magnitude, "{part:?}");
        }
        Ok(())
    });
}

// ---- Processing ------------------------------------------------------------------------------------

/// A step on the parameters in plain loops; `None` for the one that has no formula for its entries.
fn naive_step(step: Processing, c: &Config, r: Rounding, p: &mut Params) -> Option<()> {
    match step {
        Processing::FoldLayerNorm => process::fold_layer_norm(c, r, p),
        Processing::CenterWritingWeights => process::center_writing_weights(c, r, p),
        Processing::CenterUnembed => process::center_unembed(c, r, p),
        Processing::FoldValueBiases => process::fold_value_biases(c, r, p),
        Processing::RefactorFactoredAttnMatrices => return None,
    }
    Some(())
}

/// What a step leaves alone, worked out from the configuration.
fn left_by(step: Processing, c: &Config) -> process::Left {
    match step {
        Processing::FoldLayerNorm => process::left_by_folding(c),
        Processing::CenterWritingWeights => process::left_by_centring(c),
        Processing::CenterUnembed => process::left_by_centring_the_unembedding(c),
        Processing::FoldValueBiases => Ok(Vec::new()),
        Processing::RefactorFactoredAttnMatrices => process::left_by_refactoring(c),
    }
}

fn is_the_parameters<T: Scalar>(model: &Model<T>, expected: &Params) -> TestCaseResult {
    let tensors = model.weights().state_dict();
    prop_assert_eq!(tensors.len(), expected.len());
    for (name, t) in tensors {
        let name = name.replace("attn._", "attn.");
        let wrong = expected[&name].differs(&*t);
        prop_assert!(wrong.is_none(), "{name}{}", wrong.unwrap());
    }
    Ok(())
}

/// Each step's weights are its formula's; what it does not apply to it says, and leaves alone; and once
/// is enough: a second time, which by its formula changes nothing, changes nothing but by rounding.
fn steps_are_their_formulas<T: Scalar>(model: &Model<T>) -> TestCaseResult {
    let (c, r) = (model.config(), Rounding::of::<T>());
    for step in Processing::DEFAULT {
        let mut changed = model.clone();
        let mut expected = params(model);
        let outcome = step.apply(&mut changed).unwrap();
        naive_step(step, c, r, &mut expected).expect("a step with a formula");
        prop_assert_eq!(changed.config(), c);
        match (left_by(step, c), outcome) {
            (Err(reason), outcome) => {
                prop_assert_eq!(outcome, Processed::Skipped(reason));
                prop_assert_eq!(&changed, model);
            }
            (Ok(left), Processed::Partly(said)) => {
                let words = said.split([' ', ',', ':', ';']);
                let mut named: Vec<&str> = words.filter(|word| word.contains('.')).collect();
                let mut left: Vec<&str> = left.iter().map(String::as_str).collect();
                named.sort_unstable();
                left.sort_unstable();
                prop_assert_eq!(named, left, "{}", said);
            }
            (Ok(left), outcome) => {
                prop_assert_eq!(outcome, Processed::Done);
                prop_assert_eq!(left, Vec::<String>::new());
            }
        }
        is_the_parameters(&changed, &expected)?;

        let (once, its_bounds) = (changed.clone(), expected.clone());
        naive_step(step, c, r, &mut expected).expect("a step with a formula");
        step.apply(&mut changed).unwrap();
        is_the_parameters(&changed, &expected)?;
        // By the formula the second time changes nothing: both are within their bounds of the same.
        for ((name, t), (_, once)) in changed
            .weights()
            .state_dict()
            .iter()
            .zip(once.weights().state_dict())
        {
            let name = &name.replace("attn._", "attn.");
            let (first, second) = (&its_bounds[name].data, &expected[name].data);
            let what = format!("{step} twice: {name}");
            close(&what, t, &once, |i| first[i].e + second[i].e)?;
        }
    }
    // One after another, as TransformerLens applies them.
    let (mut changed, mut expected) = (model.clone(), params(model));
    for step in Processing::DEFAULT {
        step.apply(&mut changed).unwrap();
        naive_step(step, c, r, &mut expected).expect("a step with a formula");
    }
    is_the_parameters(&changed, &expected)
}

#[test]
fn every_step_is_its_formula_and_once_is_enough() {
    for_all(320, models::<f64>(), |model| {
        steps_are_their_formulas(&model)?;
        steps_are_their_formulas(&model.cast::<f32>())
    });
}

/// `A Bᵀ`, for rows `A: [m, k]`, `B: [n, k]`
fn outer(A: &[Vec<f64>], B: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let dot = |a: &Vec<f64>, b: &Vec<f64>| a.iter().zip(b).map(|(a, b)| a * b).sum();
    A.iter()
        .map(|a| B.iter().map(|b| dot(a, b)).collect())
        .collect()
}

fn transposed(A: &[Vec<f64>]) -> Vec<Vec<f64>> {
    (0..A[0].len())
        .map(|j| A.iter().map(|a| a[j]).collect())
        .collect()
}

fn norm(A: &[Vec<f64>]) -> f64 {
    A.iter().flatten().map(|x| x * x).sum::<f64>().sqrt()
}

/// A head's matrix, in f64, with its bias as a last row.
fn rows<T: Scalar>(W: MatRef<'_, T>, b: Option<&[T]>) -> Vec<Vec<f64>> {
    let wide = |i: usize| (0..W.ncols()).map(|j| W[(i, j)].to_f64()).collect();
    let mut rows: Vec<Vec<f64>> = (0..W.nrows()).map(wide).collect();
    rows.extend(b.map(|b| b.iter().map(|x| x.to_f64()).collect()));
    rows
}

/// The factors' entries are not unique, but what they multiply to is, and how they are balanced.
fn refactored_is_balanced<T: Scalar>(model: &Model<T>) -> TestCaseResult {
    let (c, r) = (model.config(), Rounding::of::<T>());
    let mut changed = model.clone();
    let outcome = Processing::RefactorFactoredAttnMatrices.apply(&mut changed);
    if let Err(reason) = process::left_by_refactoring(c) {
        prop_assert_eq!(outcome.unwrap(), Processed::Skipped(reason));
        return Ok(());
    }
    prop_assert_eq!(outcome.unwrap(), Processed::Done);
    let mut folded = params(model);
    process::fold_value_biases(c, r, &mut folded);
    // Orthogonal factors of [m, k] matrices and what follows from them are off by γ of a small multiple
    // of m k, of the matrices' norms: Higham (2002), section 19.3.
    let gamma = r.gamma(16 * (c.d_model + 1) * c.d_head);
    let zip = |a: &[Vec<f64>], b: &[Vec<f64>]| -> f64 {
        let pairs = a.iter().flatten().zip(b.iter().flatten());
        pairs.fold(0.0, |m, (a, b)| f64::max(m, (a - b).abs()))
    };
    for (l, (old, new)) in model
        .weights()
        .blocks
        .iter()
        .zip(&changed.weights().blocks)
        .enumerate()
    {
        let (old, new) = (&old.attn, &new.attn);
        prop_assert_eq!(new.b_V.max_abs(), T::ZERO);
        let wrong = folded[&format!("blocks.{l}.attn.b_O")].differs(&new.b_O);
        prop_assert!(wrong.is_none(), "b_O{}", wrong.unwrap());
        for h in 0..c.n_heads {
            let circuits = [
                (
                    "QK",
                    [
                        rows(old.W_Q.of_head(h), Some(old.b_Q.slice(&[h]))),
                        rows(old.W_K.of_head(h), Some(old.b_K.slice(&[h]))),
                    ],
                    [
                        rows(new.W_Q.of_head(h), Some(new.b_Q.slice(&[h]))),
                        rows(new.W_K.of_head(h), Some(new.b_K.slice(&[h]))),
                    ],
                ),
                (
                    "OV",
                    [
                        rows(old.W_V.of_head(h), None),
                        transposed(&rows(old.W_O.mat(&[h]), None)),
                    ],
                    [
                        rows(new.W_V.of_head(h), None),
                        transposed(&rows(new.W_O.mat(&[h]), None)),
                    ],
                ),
            ];
            for (circuit, [A, B], [left, right]) in circuits {
                let size = norm(&A) * norm(&B);
                let product = zip(&outer(&A, &B), &outer(&left, &right));
                prop_assert!(
                    product <= gamma * size,
                    "{circuit}: {product:e} of {size:e}"
                );
                // The columns' products with each other: singular values on the diagonal, or ones.
                let grams = [&left, &right].map(|M| outer(&transposed(M), &transposed(M)));
                for i in 0..c.d_head {
                    for j in 0..i {
                        let [l, r] = [&grams[0], &grams[1]].map(|g| g[i][j].abs());
                        let [l_size, r_size] = match circuit {
                            "QK" => [size, size],
                            _ => [size * size, 1.0],
                        };
                        prop_assert!(
                            l <= gamma * l_size && r <= gamma * r_size,
                            "{circuit} {l} {r}"
                        );
                    }
                    let (l, r) = (grams[0][i][i], grams[1][i][i]);
                    if circuit == "QK" {
                        prop_assert!((l - r).abs() <= gamma * size, "uneven: {l} {r}");
                    } else if i < c.d_model {
                        prop_assert!((r - 1.0).abs() <= gamma, "W_O's row {i}: {r}");
                    } else {
                        prop_assert_eq!((l, r), (0.0, 0.0));
                    }
                    if i > 0 {
                        let before = grams[0][i - 1][i - 1];
                        let slack = gamma * if circuit == "QK" { size } else { size * size };
                        prop_assert!(l <= before + slack, "ascending: {before} {l}");
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn refactored_circuits_are_the_same_and_balanced() {
    for_all(240, models::<f64>(), |model| {
        refactored_is_balanced(&model)?;
        refactored_is_balanced(&model.cast::<f32>())
    });
}
