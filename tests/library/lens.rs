//! What layers would say, what writes straight to the logits, and what heads are known by: against plain loops.

use crate::common::{for_all, full_run};
use pathsum::decompose::{
    By, Component, Logit, LogitLens, PatternScore, PatternScores, copying_scores,
    direct_logit_attribution, direct_logits, direct_logits_hooks, logit_lens, residual_stack,
};
use pathsum::model::{ActFn, NormKind, NormPlace, NormWeight, Standing};
use pathsum::names::NormSite;
use pathsum::strategies::{configs, masked_tokens_of, models_of, toy_configs};
use pathsum::text::Tokenizer;
use pathsum::{
    Config, Error, Factored, Head, Hook, Model, Par, Run, Scalar, Tokens, Weights, fixture,
};
use proptest::prelude::*;

/// Relative to what is added up, of which there are a few dozen terms.
const ROUNDING: f64 = 1e-12;

fn models_and_masked_tokens() -> impl Strategy<Value = (Model<f64>, Tokens)> {
    configs().prop_flat_map(|c| (models_of(&c), masked_tokens_of(&c, 1..=3)))
}

/// Every place of a batch at which something is said.
fn places(tokens: &Tokens) -> Vec<(usize, usize)> {
    let all = (0..tokens.batch()).flat_map(|s| (0..tokens.pos()).map(move |p| (s, p)));
    all.filter(|&(s, p)| tokens.is_attended(s, p)).collect()
}

/// `(x - mean) / scale`, times `w`, at the scale of another row; with its `b`.
fn norm(model: &Model<f64>, site: NormSite, kind: NormKind, x: &[f64], of: &[f64]) -> Vec<f64> {
    let d = x.len() as f64;
    let mean = |x: &[f64]| match kind.centred {
        true => x.iter().sum::<f64>() / d,
        false => 0.0,
    };
    let about = mean(of);
    let square: f64 = of.iter().map(|x| (x - about) * (x - about)).sum::<f64>() / d;
    let scale = (square + model.config().eps).sqrt();
    let own = mean(x);
    let w = |i: usize| match (kind.weight, model.weights().norms.get(&site)) {
        (NormWeight::Absent, _) | (_, None) => 1.0,
        (NormWeight::Plain, Some(norm)) => norm.w.data()[i],
        (NormWeight::OnePlus, Some(norm)) => 1.0 + norm.w.data()[i],
    };
    (0..x.len()).map(|i| (x[i] - own) / scale * w(i)).collect()
}

/// What a norm adds beside.
fn norm_bias(model: &Model<f64>, site: NormSite, i: usize) -> f64 {
    let norm = model.weights().norms.get(&site);
    norm.and_then(|norm| norm.b.as_ref())
        .map_or(0.0, |b| b.data()[i])
}

/// A norm with its bias, at its own scale.
fn whole_norm(model: &Model<f64>, site: NormSite, kind: NormKind, x: &[f64]) -> Vec<f64> {
    let normed = norm(model, site, kind, x, x);
    let normed = normed.into_iter().enumerate();
    normed.map(|(i, y)| y + norm_bias(model, site, i)).collect()
}

fn last_norm(c: &Config) -> Option<NormKind> {
    c.norm.filter(|_| c.norm_place != NormPlace::Stream)
}

/// The model's own end on a row, and the sum of its logits' terms' moduli; nothing where its function is none of those that
/// are written here.
fn end(model: &Model<f64>, row: &[f64]) -> Option<Vec<(f64, f64)>> {
    let (c, w) = (model.config(), model.weights());
    let mut x = row.to_vec();
    if let Some(kind) = last_norm(c) {
        x = whole_norm(model, NormSite::Final, kind, &x);
    }
    if let Some(act_fn) = c.mlm_head {
        let dense = w.mlm_head.as_ref().unwrap();
        let mut y = dense.b.data().to_vec();
        for (i, x) in x.iter().enumerate() {
            for (j, y) in y.iter_mut().enumerate() {
                *y += x * dense.W[[i, j]];
            }
        }
        for y in &mut y {
            *y = match act_fn {
                ActFn::Relu => y.max(0.0),
                ActFn::Linear => *y,
                ActFn::Silu => *y / (1.0 + (-*y).exp()),
                ActFn::QuickGelu => *y / (1.0 + (-1.702 * *y).exp()),
                _ => return None,
            };
        }
        let kind = c.norm.unwrap_or(NormKind::LN);
        x = whole_norm(model, NormSite::MlmHead, kind, &y);
    }
    let logit = |j: usize| {
        let terms = x.iter().enumerate().map(|(i, x)| x * w.W_U[[i, j]]);
        let (mut sum, mut size) = (w.b_U.data()[j], w.b_U.data()[j].abs());
        for term in terms {
            sum += term;
            size += term.abs();
        }
        (
            c.logit_cap.map_or(sum, |cap| cap * (sum / cap).tanh()),
            size,
        )
    };
    Some((0..c.d_vocab_out).map(logit).collect())
}

#[test]
fn the_lens_is_the_models_own_end_at_every_layer() {
    for_all(300, models_and_masked_tokens(), |(model, tokens)| {
        let out = full_run(&model, &tokens);
        let c = model.config();
        for (s, p) in places(&tokens) {
            let lens = match logit_lens(&model, &out, (s, p)) {
                Err(e) => {
                    prop_assert!(c.n_layers == 0 || c.d_vocab_out == 0, "{e}");
                    continue;
                }
                Ok(lens) => lens,
            };
            prop_assert_eq!(lens.hooks.len(), c.n_layers + 1);
            prop_assert_eq!(lens.hooks.last(), Some(&c.end_of_stream()));
            prop_assert_eq!(&lens.hooks, &LogitLens::<f64>::hooks(c));
            let last = lens.logits.slice(&[c.n_layers]);
            for (own, expected) in last.iter().zip(out.logits.slice(&[s, p])) {
                let close = (own - expected).abs() <= 1e-9 * (1.0 + expected.abs());
                prop_assert!(close, "{own} {expected}");
            }
            for (i, &hook) in lens.hooks.iter().enumerate() {
                let row = out.cache[hook].slice(&[s, p]);
                // Behind a norm of nearly nothing, rounding is as large as what is left of it.
                let spread = row.iter().fold(0.0f64, |m, x| m.max(x.abs())) / c.eps.sqrt();
                let Some(expected) = end(&model, row) else {
                    continue;
                };
                for (own, (expected, size)) in lens.logits.slice(&[i]).iter().zip(expected) {
                    let bound = ROUNDING * (1.0 + size) * (1.0 + spread);
                    prop_assert!((own - expected).abs() <= bound, "{hook}: {own} {expected}");
                }
            }
        }
        Ok(())
    });
}

/// What is nearly linear in a run is exactly so at its scale: all writers add up to the logits, each is its own value
/// through the norm, and what is said of all logits is what is said of one.
#[test]
fn writers_are_their_values_through_the_last_norm() {
    for_all(300, models_and_masked_tokens(), |(model, tokens)| {
        let out = full_run(&model, &tokens);
        let c = model.config();
        for by in [By::Layer, By::Head] {
            // `z` is enough, and what each head writes is not kept.
            let keep = direct_logits_hooks(c, by).into_iter();
            let lean = keep.fold(Run::new(), |run, hook| run.cache(hook));
            let lean = model.run(&tokens, lean).unwrap();
            for at in places(&tokens) {
                let found = match direct_logits(&model, &out, at, by) {
                    Err(Error::NotCovered(_)) => {
                        let linear = c.mlm_head.is_none() && c.logit_cap.is_none();
                        prop_assert!(!linear || c.d_vocab_out == 0);
                        continue;
                    }
                    Err(e) => {
                        prop_assert!(c.n_layers == 0, "{e}");
                        continue;
                    }
                    Ok(found) => found,
                };
                let (s, p) = at;
                let size = found.values.max_abs() * found.labels.len() as f64;
                let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * (1.0 + size);
                let whole = found.sum();
                for (own, &expected) in whole.data().iter().zip(out.logits.slice(&[s, p])) {
                    prop_assert!(near(*own, expected), "{own} {expected}");
                }
                let other = direct_logits(&model, &lean, at, by).unwrap();
                prop_assert_eq!(&other.labels, &found.labels);
                for (a, b) in other.values.data().iter().zip(found.values.data()) {
                    prop_assert!(near(*a, *b), "{a} {b}");
                }
                let stack = residual_stack(&model, &out.cache, c.end_of_stream(), by).unwrap();
                let last = c.d_vocab_out - 1;
                let one = direct_logit_attribution(&model, &out.cache, stack, &[Logit::Of(last)]);
                let one = one.unwrap();
                prop_assert_eq!(&one.labels, &found.labels);
                for i in 0..one.labels.len() {
                    let (a, b) = (one.values[[i, s, p, 0]], found.values[[i, 0, 0, last]]);
                    prop_assert!(near(a, b), "{a} {b}");
                }
                if c.norm_place == NormPlace::Stream && c.norm.is_some() {
                    continue;
                }
                let end = out.cache[c.end_of_stream()].slice(&[s, p]);
                for (i, &component) in found.labels.iter().enumerate() {
                    let own = match component {
                        Component::AttnOut(l) => out.cache[Hook::AttnOut(l)].slice(&[s, p]),
                        Component::MlpOut(l) => out.cache[Hook::MlpOut(l)].slice(&[s, p]),
                        Component::Head(h)
                            if c.norm.is_none() || c.norm_place == NormPlace::Before =>
                        {
                            out.cache[Hook::Result(h.layer)].slice(&[s, p, h.head])
                        }
                        _ => continue,
                    };
                    let normed = match last_norm(c) {
                        Some(kind) => norm(&model, NormSite::Final, kind, own, end),
                        None => own.to_vec(),
                    };
                    for j in 0..c.d_vocab_out {
                        let terms = normed.iter().enumerate();
                        let logit: f64 = terms.map(|(k, x)| x * model.weights().W_U[[k, j]]).sum();
                        let found = found.values[[i, 0, 0, j]];
                        prop_assert!(near(found, logit), "{component}: {found} {logit}");
                    }
                }
            }
        }
        Ok(())
    });
}

#[test]
fn places_that_say_nothing_are_refused() {
    let model = fixture::induction::<f64>();
    let tokens = Tokens::from_rows(&[[3, 1, 4, 3]]);
    let tokens = tokens.attended(vec![true, true, true, false]).unwrap();
    assert_eq!(tokens.last_attended(0), 2);
    let out = full_run(&model, &tokens);
    let lens = |at| logit_lens(&model, &out, at).unwrap_err().to_string();
    assert_eq!(lens((1, 0)), "sequence 1: the run's are 0..=0");
    assert_eq!(lens((0, 4)), "position 4: the sequence's are 0..=3");
    assert!(lens((0, 3)).contains("position 3 of sequence 0 is a pad"));
    let direct = |at| {
        let found = direct_logits(&model, &out, at, By::Head);
        found.unwrap_err().to_string()
    };
    assert_eq!(direct((0, 4)), lens((0, 4)));
    let bare = model.run(&tokens, Run::new()).unwrap();
    assert!(matches!(
        logit_lens(&model, &bare, (0, 0)),
        Err(Error::NotCached(Hook::ResidPre(0)))
    ));
    assert!(matches!(
        direct_logits(&model, &bare, (0, 0), By::Head),
        Err(Error::NotCached(_))
    ));
    let narrow = pathsum::Tensor::<f64>::zeros(&[2, 3]);
    let reason = model.logits_of_stream(&narrow).unwrap_err().to_string();
    assert!(reason.contains("expected rows of 80"), "{reason}");
}

#[test]
fn ties_stand_in_the_order_of_tokens() {
    let logits = [1.0, 3.0, 1.0, 2.0];
    let all = Standing::likeliest(&logits, 9);
    let order: Vec<usize> = all.iter().map(|s| s.token).collect();
    assert_eq!(order, [1, 3, 0, 2]);
    for own in &all {
        assert_eq!(*own, Standing::of(&logits, own.token));
    }
    let whole: f64 = all.iter().map(|s| s.probability).sum();
    assert!((whole - 1.0).abs() < 1e-15);
}

/// A model's scores, of whole runs.
fn pattern_scores(model: &Model<f64>, tokens: &Tokens) -> PatternScores {
    let out = full_run(model, tokens);
    let mut scores = PatternScores::new(model.config());
    for layer in 0..model.config().n_layers {
        let pattern = &out.cache[Hook::Pattern(layer)];
        scores.add(tokens, layer, pattern).unwrap();
    }
    scores
}

/// The same of one head, by the definitions: every query with every key.
fn naive_scores(model: &Model<f64>, tokens: &Tokens, head: Head) -> PatternScore {
    let out = full_run(model, tokens);
    let pattern = &out.cache[Hook::Pattern(head.layer)];
    let pad = model.config().pad_token.map(|pad| pad as i64);
    let mut all: [Vec<f64>; 5] = Default::default();
    for s in 0..tokens.batch() {
        let ids = tokens.sequence(s);
        let there = |p: usize| tokens.is_attended(s, p) && Some(ids[p]) != pad;
        let own: Vec<usize> = (0..tokens.pos()).filter(|&p| there(p)).collect();
        for (i, &q) in own.iter().enumerate() {
            let to = |k: usize| pattern[[s, head.head, q, own[k]]];
            if i > 0 {
                all[0].push(to(i - 1));
            }
            let (mut duplicate, mut induction, mut any) = (0.0, 0.0, false);
            for k in 0..i {
                if ids[own[k]] == ids[q] {
                    (duplicate, induction, any) = (duplicate + to(k), induction + to(k + 1), true);
                }
            }
            if any {
                all[1].push(duplicate);
                all[2].push(induction);
            }
            all[3].push(to(0));
            let mut entropy = 0.0;
            for k in 0..own.len() {
                if to(k) > 0.0 {
                    entropy -= to(k) * to(k).ln();
                }
            }
            all[4].push(entropy);
        }
    }
    let mean = |i: usize| {
        let own: &Vec<f64> = &all[i];
        (!own.is_empty()).then(|| own.iter().sum::<f64>() / own.len() as f64)
    };
    PatternScore {
        previous: mean(0),
        duplicate: mean(1),
        induction: mean(2),
        first: mean(3),
        entropy: mean(4),
    }
}

#[test]
fn pattern_scores_are_their_definitions() {
    for_all(300, models_and_masked_tokens(), |(model, tokens)| {
        let scores = pattern_scores(&model, &tokens);
        for head in model.config().dims().heads() {
            let (found, expected) = (scores.of(head), naive_scores(&model, &tokens, head));
            for (a, b) in [
                (found.previous, expected.previous),
                (found.duplicate, expected.duplicate),
                (found.induction, expected.induction),
                (found.first, expected.first),
                (found.entropy, expected.entropy),
            ] {
                let same = match (a, b) {
                    (Some(a), Some(b)) => (a - b).abs() <= ROUNDING,
                    (a, b) => a == b,
                };
                prop_assert!(same, "{head}: {a:?} {b:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn the_induction_head_stands_out() {
    let model = fixture::induction::<f64>();
    let heads = ["0.0", "1.0"].map(|h| h.parse::<Head>().unwrap());
    // Distinct tokens: the stripe at offset 11 over the second half's queries, and nothing beside it.
    let tokens = fixture::repeated_sequences(6, 12, 3);
    let scores = pattern_scores(&model, &tokens);
    let [previous, induction] = heads.map(|h| scores.of(h));
    assert!(induction.induction > Some(0.999) && previous.induction < Some(0.1));
    assert!(previous.previous > Some(0.999) && induction.previous < Some(0.3));
    assert!(induction.duplicate < Some(0.1) && previous.duplicate < Some(0.1));
    let out = full_run(&model, &tokens);
    let stripe = (0..6).flat_map(|s| (12..24).map(move |q| [s, 0, q, q - 11]));
    let stripe: f64 = stripe
        .map(|at| out.cache[Hook::Pattern(1)][at])
        .sum::<f64>()
        / 72.0;
    assert!((induction.induction.unwrap() - stripe).abs() < 1e-14);
    // Drawn independently, tokens may come twice in a period; all that follow earlier ones count.
    let tokens = Tokens::repeated(model.config(), 6, 15, None, 0);
    let scores = pattern_scores(&model, &tokens);
    assert!(scores.of(heads[1]).induction > Some(0.8));
    assert!(scores.of(heads[0]).induction < Some(0.2));
    // Two batches are one.
    let mut parts = PatternScores::new(model.config());
    for first in [0, 2] {
        let own = tokens.slice(first, first + 2);
        let out = full_run(&model, &own);
        for layer in 0..2 {
            let pattern = &out.cache[Hook::Pattern(layer)];
            parts.add(&own, layer, pattern).unwrap();
        }
    }
    for head in heads {
        let (a, b) = (parts.of(head), scores.of(head));
        assert!((a.induction.unwrap() - b.induction.unwrap()).abs() < 1e-14);
        assert!((a.entropy.unwrap() - b.entropy.unwrap()).abs() < 1e-14);
    }
}

#[test]
fn patterns_of_another_shape_are_refused() {
    let model = fixture::induction::<f64>();
    let tokens = Tokens::from_rows(&[[3, 1, 4, 3]]);
    let out = full_run(&model, &tokens);
    let pattern = &out.cache[Hook::Pattern(0)];
    let mut scores = PatternScores::new(model.config());
    let reason = scores.add(&tokens, 2, pattern).unwrap_err().to_string();
    assert_eq!(reason, "layer 2: this model's layers are 0..=1");
    let shorter = Tokens::from_rows(&[[3, 1, 4]]);
    assert!(matches!(
        scores.add(&shorter, 0, pattern),
        Err(Error::Shape { .. })
    ));
    let nothing = scores.of("0.0".parse().unwrap());
    assert_eq!(nothing, PatternScore::default());
}

#[test]
fn repeated_tokens_are_repeated() {
    let mut config = fixture::induction::<f64>().config().clone();
    config.pad_token = Some(5);
    let tokens = Tokens::repeated(&config, 40, 7, Some(2), 1);
    assert_eq!((tokens.batch(), tokens.pos()), (40, 15));
    let mut drawn = [false; 16];
    for s in 0..40 {
        let own = tokens.sequence(s);
        assert_eq!(own[0], 2);
        assert_eq!(own[1..8], own[8..]);
        own[1..].iter().for_each(|&t| drawn[t as usize] = true);
    }
    let left_out: Vec<usize> = (0..16).filter(|&t| !drawn[t]).collect();
    assert_eq!(left_out, [5]);
    assert_eq!(tokens, Tokens::repeated(&config, 40, 7, Some(2), 1));
    assert_ne!(tokens, Tokens::repeated(&config, 40, 7, Some(2), 2));
    assert_eq!(Tokens::repeated(&config, 3, 7, None, 1).pos(), 14);
}

/// A model of one head, whose tokens are the stream's axes and whose head turns two of them, and scales.
fn turning<T: Scalar>(angle: f64, scale: f64) -> Model<T> {
    let fields = r#"{"n_layers": 1, "d_model": 4, "n_ctx": 2, "d_head": 2, "n_heads": 1, "d_vocab": 4,
        "attn_only": true}"#;
    let config = Config::from_json(fields).unwrap();
    let mut w = Weights::<T>::zeros(&config);
    for i in 0..4 {
        (w.W_E[[i, i]], w.W_U[[i, i]]) = (T::ONE, T::ONE);
    }
    let turned = [[angle.cos(), angle.sin()], [-angle.sin(), angle.cos()]];
    let attn = &mut w.blocks[0].attn;
    for (i, row) in turned.iter().enumerate() {
        attn.W_V[[i, 0, i]] = T::ONE;
        for (j, x) in row.iter().enumerate() {
            attn.W_O[[0, i, j]] = T::from_f64(scale * x);
        }
    }
    Model::new(config, w).unwrap()
}

#[test]
fn copying_is_known_where_eigenvalues_are() {
    for (angle, scale) in [
        (0.0, 1.0),
        (0.0, -3.0),
        (0.7, 1.0),
        (2.5, 1e-3),
        (1.1, -1.0),
    ] {
        // The eigenvalues are scale (cos ± i sin), and zeros.
        let expected = f64::cos(angle) * f64::signum(scale);
        for par in [Par::Seq, Par::Rayon] {
            let found = copying_scores(&turning::<f64>(angle, scale), par, &|_| ()).unwrap();
            assert_eq!(found.len(), 1);
            assert!((found[0] - expected).abs() < 1e-12, "{found:?} {expected}");
            let found = copying_scores(&turning::<f32>(angle, scale), par, &|_| ()).unwrap();
            assert!((found[0] - expected).abs() < 1e-5, "{found:?} {expected}");
        }
    }
}

/// The same circuit, multiplied the other way round: from tokens to tokens.
#[test]
fn copying_is_of_the_circuit_from_tokens_to_tokens() {
    let square = toy_configs().prop_map(|mut c| {
        c.d_vocab_out = c.d_vocab;
        c
    });
    let models = square.prop_flat_map(|c| models_of::<f64>(&c));
    for_all(200, models, |model| {
        let c = model.config();
        let found = match copying_scores(&model, Par::Seq, &|_| ()) {
            Ok(found) => found,
            Err(e) => {
                prop_assert!(c.mlm_head.is_some(), "{e}");
                return Ok(());
            }
        };
        prop_assert_eq!(found.len(), c.n_layers * c.n_heads);
        let w = model.weights();
        let (W_E, W_U) = (w.W_E.mat(&[]), w.W_U.mat(&[]));
        for (head, found) in c.dims().heads().zip(found) {
            let circuit = Factored::new(W_E * w.W_V(head), w.W_O(head) * W_U);
            let dense = circuit.AB(Par::Seq);
            let trace: f64 = (0..c.d_vocab).map(|i| dense[(i, i)]).sum();
            let values = circuit.eigenvalues().unwrap();
            let moduli: f64 = values.iter().map(|z| z.re.hypot(z.im)).sum();
            // What stands for zeros among the eigenvalues is the root of a rounding error.
            let close = (found * moduli - trace).abs() <= 1e-6 * (moduli + trace.abs());
            prop_assert!(close, "{head}: {found} {trace} {moduli}");
        }
        Ok(())
    });
}

#[test]
fn copying_needs_logits_of_the_tokens() {
    let mut config = fixture::induction::<f64>().config().clone();
    config.d_vocab_out = 3;
    let model = Model::new(config.clone(), Weights::<f64>::zeros(&config)).unwrap();
    let refused = copying_scores(&model, Par::Seq, &|_| ()).unwrap_err();
    assert!(matches!(refused, Error::NotCovered(_)), "{refused}");
    let mut weights = fixture::induction::<f64>().into_weights();
    weights.blocks[1].attn.W_O.data_mut()[0] = f64::NAN;
    let model = Model::new(fixture::induction::<f64>().config().clone(), weights).unwrap();
    let refused = copying_scores(&model, Par::Seq, &|_| ()).unwrap_err();
    assert!(refused.to_string().contains("head 1.0"), "{refused}");
}

/// As GPT-2's files are: a word's blank is its own.
#[test]
fn an_answers_first_token_has_the_blank_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write(
        "vocab.json",
        r#"{"a": 0, "b": 1, "Ġ": 2, "Ġb": 3, "ab": 4, "c": 5}"#,
    );
    write("merges.txt", "#version: 0.2\nĠ b\na b\n");
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    for (text, expected) in [(" b", 3), ("b", 1), (" bc", 3), ("abc", 4), (" ", 2)] {
        assert_eq!(tokenizer.first_token(text).unwrap(), expected, "{text:?}");
    }
    let reason = tokenizer.first_token("").unwrap_err().to_string();
    assert_eq!(reason, "the text has no tokens, expected one");
}
