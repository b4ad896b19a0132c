//! Tables of attention scores: that they add up, and what stands in them.

use crate::common::{for_all, full_run, reference};
use pathsum::decompose::{
    By, Component, Score, ScoreParts, ScoreTerm, layer_norm_stack, residual_stack, score_parts,
};
use pathsum::names::NormSite;
use pathsum::strategies::models_and_tokens;
use pathsum::{Head, Hook, Model, Par, Run, RunOutput, Scalar, TensorFile, Tokens, fixture};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

/// Every head's table at the last query and a key.
fn tables_add_up<T: Scalar>(
    model: &Model<T>,
    out: &RunOutput<T>,
    tokens: &Tokens,
) -> TestCaseResult {
    let c = model.config();
    for layer in 0..c.n_layers {
        for (head, by) in (0..c.n_heads).zip([By::Head, By::Layer, By::Neuron].into_iter().cycle())
        {
            let score = Score {
                head: Head { layer, head },
                query: tokens.pos() - 1,
                key: (layer + head) % tokens.pos(),
            };
            if !tokens.is_attended(0, score.query) || !tokens.is_attended(0, score.key) {
                continue;
            }
            let parts = score_parts(model, &out.cache, 0, score, by).unwrap();
            let off = (parts.sum() - parts.run).abs();
            prop_assert!(
                off <= parts.rounding,
                "{score:?}: {off:e} > {:e}",
                parts.rounding
            );

            let table = parts.table(Par::Seq);
            let (n, m) = (parts.query.len(), parts.key.len());
            prop_assert_eq!(table.shape(), &[n, m]);
            // What sums of the table's entries may be off by, in whatever order.
            let size: f64 = table.data().iter().map(|x| x.abs()).sum();
            let slack = parts.rounding + (n * m + c.d_head) as f64 * f64::EPSILON * size;
            let close = |a: f64, b: f64| (a - b).abs() <= slack;
            prop_assert!(close(
                table.data().iter().sum::<f64>() + parts.by_position,
                parts.sum()
            ));
            for (i, (term, x)) in parts.by_query().into_iter().enumerate() {
                prop_assert_eq!(term, parts.query[i]);
                prop_assert!(close(table.slice(&[i]).iter().sum(), x));
            }
            for (j, (term, x)) in parts.by_key().into_iter().enumerate() {
                prop_assert_eq!(term, parts.key[j]);
                prop_assert!(close((0..n).map(|i| table[[i, j]]).sum(), x));
            }
            let mut largest: Vec<f64> = table.data().iter().map(|x| x.abs()).collect();
            largest.sort_by(|a, b| b.total_cmp(a));
            for k in [1, 5, n * m + 3] {
                let top = parts.top(k, Par::Seq).unwrap();
                prop_assert_eq!(top.len(), k.min(n * m));
                for (pair, x) in top.iter().zip(&largest) {
                    prop_assert!(close(pair.value.abs(), *x), "{} {x}", pair.value);
                }
            }

            // The scores of the run itself, where it shows them as they are.
            let run =
                out.cache[Hook::AttnScores(layer)][[0, head, score.query, score.key]].to_f64();
            let pad = c
                .pad_token
                .is_some_and(|pad| tokens.sequence(0)[score.key] == pad as i64);
            if run.is_finite() && !pad {
                let shown = match c.score_cap {
                    Some(cap) => cap * (parts.run / cap).tanh(),
                    None => parts.run,
                };
                // Of the run's own product, and of the cap.
                let rounding =
                    16.0 * T::EPSILON.to_f64() * (shown.abs() + c.score_cap.unwrap_or(0.0));
                let bound = parts.rounding + rounding;
                prop_assert!((shown - run).abs() <= bound, "{shown} {run} {bound:e}");
            }
        }
    }
    Ok(())
}

/// Norms of queries and keys, rotations, ALiBi, caps, norms around and over the stream: whatever a model has.
#[test]
fn tables_add_up_to_the_scores_of_random_models() {
    for_all(150, models_and_tokens::<f64>(), |(model, tokens)| {
        tables_add_up(&model, &full_run(&model, &tokens), &tokens)?;
        let narrow = model.cast::<f32>();
        tables_add_up(&narrow, &full_run(&narrow, &tokens), &tokens)
    });
}

/// Entry by entry: a pair's is the product of what the two components are behind the norm, `W_Q` and `W_K`.
#[test]
fn an_entry_is_a_product_of_two_components() {
    let model = fixture::induction::<f64>();
    let tokens = fixture::repeated_sequences(1, 8, 0);
    let out = full_run(&model, &tokens);
    let head = Head { layer: 1, head: 0 };
    let score = Score {
        head,
        query: 6,
        key: 2,
    };
    let parts = score_parts(&model, &out.cache, 0, score, By::Head).unwrap();
    let stack = residual_stack(&model, &out.cache, Hook::ResidPre(1), By::Head).unwrap();
    let stack = match model.config().norm {
        Some(_) => {
            layer_norm_stack(&model, &out.cache, stack, Hook::Scale(NormSite::Ln1(1))).unwrap()
        }
        None => stack,
    };
    let (w, table) = (model.weights(), parts.table(Par::Seq));
    for (i, query) in parts.query.iter().enumerate() {
        for (j, key) in parts.key.iter().enumerate() {
            let side =
                |term: &ScoreTerm, W: faer::MatRef<'_, f64>, b: &[f64], p: usize| -> Vec<f64> {
                    match term {
                        ScoreTerm::Component(label) => {
                            let row = stack.component(*label).unwrap();
                            let row = row.slice(&[0, p]).to_vec();
                            (0..W.ncols())
                                .map(|j| row.iter().enumerate().map(|(i, x)| x * W[(i, j)]).sum())
                                .collect()
                        }
                        _ => b.to_vec(),
                    }
                };
            let q = side(query, w.W_Q(head), w.b_Q(head), score.query);
            let k = side(key, w.W_K(head), w.b_K(head), score.key);
            let expected: f64 = q.iter().zip(&k).map(|(q, k)| q * k).sum();
            let expected = expected / model.config().score_scale(1);
            let off = (table[[i, j]] - expected).abs();
            assert!(off <= parts.rounding, "{query} {key}: {off:e}");
        }
    }
    assert!(
        parts
            .query
            .contains(&ScoreTerm::Component(Component::Embed))
    );
}

#[test]
fn tables_of_the_reference_families_add_up() {
    let Some(root) = reference::root() else {
        return;
    };
    let mut worst = Vec::new();
    for entry in std::fs::read_dir(root.join("language/families")).unwrap() {
        let folder = entry.unwrap().path();
        let file = TensorFile::open(folder.join("activations.safetensors")).unwrap();
        let tokens = Tokens::from_file(&file).unwrap().slice(0, 1);
        fn check<T: Scalar>(folder: &std::path::Path, tokens: &Tokens) -> f64 {
            let model = Model::<T>::load(folder).unwrap();
            let out = full_run(&model, tokens);
            let added = tables_add_up(&model, &out, tokens);
            added.unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
            let last = Head {
                layer: model.config().n_layers - 1,
                head: 0,
            };
            let score = Score {
                head: last,
                query: 5,
                key: 2,
            };
            let parts = score_parts(&model, &out.cache, 0, score, By::Neuron).unwrap();
            parts.rounding
        }
        worst.push(check::<f64>(&folder, &tokens));
        check::<f32>(&folder, &tokens);
    }
    println!(
        "{} families, bounds up to {:.1e}",
        worst.len(),
        worst.iter().fold(0.0, |m: f64, &x| m.max(x))
    );
}

/// The hooks that are said to be needed are all that is needed.
#[test]
fn few_hooks_are_enough() {
    let model = fixture::induction::<f64>();
    let tokens = fixture::repeated_sequences(1, 6, 0);
    let hooks = ScoreParts::hooks(model.config(), "1.0".parse().unwrap(), By::Head).unwrap();
    let run = hooks.iter().fold(Run::new(), |run, &hook| run.cache(hook));
    let out = model.run(&tokens, run).unwrap();
    let score = Score {
        head: Head { layer: 1, head: 0 },
        query: 5,
        key: 1,
    };
    let few = score_parts(&model, &out.cache, 0, score, By::Head).unwrap();
    let all = score_parts(&model, &full_run(&model, &tokens).cache, 0, score, By::Head).unwrap();
    assert_eq!(few, all);
    let beyond = Score {
        key: tokens.pos(),
        ..score
    };
    let error = score_parts(&model, &out.cache, 0, beyond, By::Head).unwrap_err();
    assert!(error.to_string().contains("key "), "{error}");
}
