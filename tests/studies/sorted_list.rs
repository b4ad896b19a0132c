//! The study of sorted lists: held to what the write-up publishes, to naive loops, and to models that sort nothing.

use crate::common::{outcome, sound, untrained, with_fields};
use crate::reference;
use pathsum::fixture::Fixture;
use pathsum::names::NormSite;
use pathsum::study::sorted_list::{self, SortedListStudy};
use pathsum::study::{Outcome, Story};
use pathsum::task::{SortedLists, Task};
use pathsum::{Config, Hook, Model, Run, Tokens, Weights};
use serde_json::{Value, json};

/// What only a model with the mechanism is told of.
const MECHANISM: &str = "attends to the smallest number of the list";

/// A model's configuration for values below `values` in lists of `length`, but for these fields.
fn config(values: usize, length: usize, other: &[(&str, Value)]) -> Config {
    let config = json!({
        "n_layers": 1, "n_heads": 2, "d_model": 12, "d_head": 6, "n_ctx": 2 * length + 1, "d_vocab": values + 1,
        "d_vocab_out": values + 1, "attn_only": true, "normalization_type": "LN"
    });
    with_fields(config, other).unwrap()
}

fn study(model: &Model<f64>, tokens: Tokens) -> SortedListStudy {
    sorted_list::study(model, &sorted_list::Data::of(tokens), &|_| {}).unwrap()
}

fn tells_the_mechanism(story: &Story) -> bool {
    story.summary.iter().any(|p| p.contains(MECHANISM))
}

/// The figures of the reference, and the study of its model.
fn on_the_reference() -> Option<(Value, SortedListStudy)> {
    let (folder, expected) = reference::folder("sorted_list")?;
    let model = Model::load(&folder).unwrap();
    let data = sorted_list::Data::open(&folder).unwrap();
    let study = sorted_list::study(&model, &data, &|_| {}).unwrap();
    Some((expected, study))
}

#[test]
fn every_published_figure_has_ours_beside_it() {
    let Some((expected, study)) = on_the_reference() else {
        return;
    };
    let story = study.story("the reference model");
    sound(&story);
    let rows: Vec<_> = story.published().collect();
    for (id, figure) in expected.as_object().unwrap() {
        let printed = match &figure["published"] {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            number => number.to_string(),
        };
        let row = rows.iter().find(|r| r.figure == *id && r.at.is_empty());
        assert_eq!(row.map(|r| &r.published), Some(&printed), "{id}");
    }
    let mut numbers = 0;
    for row in rows {
        let found = row.found(&story);
        let found = found.unwrap_or_else(|| panic!("{}: no `{}{}`", row.what, row.figure, row.at));
        // Where both are plain numbers, ours is within half of the last digit printed.
        if let (Ok(published), Some(found)) = (row.published.parse::<f64>(), found.as_f64()) {
            let decimals = row.published.split_once('.').map_or(0, |(_, d)| d.len());
            let half = 0.5 * 10f64.powi(-(decimals as i32));
            assert!((found - published).abs() <= half, "{}: {found}", row.what);
            numbers += 1;
        }
    }
    assert_eq!(numbers, 6);
}

/// What was measured on the write-up's model by a program of its own, in numpy, from the weights.
#[test]
fn the_mechanism_is_found_on_the_reference() {
    let Some((_, study)) = on_the_reference() else {
        return;
    };
    let story = study.story("the reference model");
    for step in &story.steps {
        println!(
            "{}: {}: {}",
            step.id, step.verdict.outcome, step.verdict.because
        );
        assert_eq!(step.verdict.outcome, Outcome::Holds, "{}", step.id);
    }
    assert!(tells_the_mechanism(&story));
    let close = |found: f64, measured: f64| {
        assert!(
            (found - measured).abs() < 1e-3 * measured,
            "{found} {measured}"
        );
    };
    let a = &study.attending;
    close(a.at_the_separator().1, 0.996);
    close(a.after_the_separator()[0], 0.867_111);
    close(a.hits_in_list[1][0], 0.998);
    close(a.either_in_list.iter().sum::<f64>() / 10.0, 0.905);
    let z = &study.zero;
    close(z.attended[0], 0.067_990);
    close(z.attended[1], 0.018_179);
    close(z.exchanged[0], 0.417_963);
    close(z.exchanged[1], 0.145_754);
    assert_eq!(study.circuits.ranges(0), [[28, 36]]);
    close(study.shares.agree, 49.0 / 51.0);
    let direct = study.direct.unwrap();
    close(direct.accuracy[1], 0.942);
    close(direct.next_before_second, 45.0 / 49.0);
    close(study.adversarial.published[0].p_itself, 0.2651);
    close(study.adversarial.published[1].p_next, 0.0415);
    // Drawn lists are others than those of the program: to within six errors of the mean.
    let drawn = |found: f64, measured: f64, lists: f64| {
        let error = 6.0
            * (measured * (1.0 - measured) / lists)
                .sqrt()
                .max(1.0 / lists);
        assert!((found - measured).abs() < error, "{found} {measured}");
    };
    drawn(direct.right[1], 0.848, 980.0);
    let kind = |id: &str| study.adversarial.kind(id).unwrap();
    drawn(kind("jump").right[5], 0.004, 500.0);
    let jump = study.adversarial.jump.as_ref().unwrap();
    assert_eq!(jump.p_next, kind("jump").by_step[5]);
    assert!(jump.p_itself > jump.p_next && jump.attention[0][0] > 100.0 * jump.attention[0][1]);
    drawn(kind("upper").right[0], 0.0, 500.0);
    drawn(kind("upper").right[1], 0.506, 500.0);
    drawn(kind("any").mean, 0.967, 500.0);
}

#[test]
fn nothing_is_told_of_models_that_sort_nothing() {
    for (seed, (values, length, heads, sequences)) in [
        (51, 10, 2, 40),
        (51, 10, 3, 1),
        (51, 10, 1, 40),
        (13, 4, 2, 30),
        (6, 6, 2, 5),
        (3, 1, 2, 3),
        (2, 2, 2, 2),
    ]
    .into_iter()
    .enumerate()
    {
        let config = config(values, length, &[("n_heads", json!(heads))]);
        let tokens = SortedLists::new(length, values - 1).tokens(sequences, 5);
        let zeros = Model::new(config.clone(), Weights::zeros(&config)).unwrap();
        for model in [untrained(&config, 1.0, seed as u64), zeros] {
            let story = study(&model, tokens.clone()).story("a model");
            sound(&story);
            assert!(!tells_the_mechanism(&story), "{values} {length}");
            if length > 2 {
                for step in [
                    "performance",
                    "attention",
                    "ablation",
                    "ov",
                    "shares",
                    "anti",
                    "qk",
                ] {
                    assert_ne!(outcome(&story, step), Outcome::Holds, "{step}");
                }
                for step in ["jump", "smallest", "close", "direct"] {
                    assert_ne!(outcome(&story, step), Outcome::Holds, "{step}");
                }
            }
        }
    }
}

#[test]
fn lists_may_repeat_values() {
    let task = SortedLists::default();
    let list = |text: &str| task.parse(text).unwrap();
    let tokens = Tokens::from_rows(&[
        list("3 3 3 3 3 3 3 3 3 3"),
        list("50 0 50 0 50 0 50 0 50 0"),
    ]);
    // Nor need the model have as many positions as the sequences.
    let config = config(51, 10, &[("n_ctx", json!(25))]);
    sound(&study(&untrained(&config, 1.0, 7), tokens).story("a model"));
}

/// The stream's norm and the unembedding, by loops.
fn logits(model: &Model<f64>, stream: &[f64]) -> Vec<f64> {
    let w = model.weights();
    let n = stream.len() as f64;
    let mean = stream.iter().sum::<f64>() / n;
    let square = stream.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    let scale = (square + model.config().eps).sqrt();
    let norm = &w.norms[&NormSite::Final];
    (0..model.config().d_vocab_out)
        .map(|t| {
            let each = stream.iter().enumerate();
            let terms = each.map(|(i, x)| {
                ((x - mean) / scale * norm.w.data()[i] + norm.b.as_ref().unwrap().data()[i])
                    * w.W_U[[i, t]]
            });
            terms.sum::<f64>() + w.b_U.data()[t]
        })
        .collect()
}

/// Attention and the path's removal on an unprocessed model, against loops: processing changes neither.
#[test]
fn attention_and_paths_are_what_loops_find() {
    let (values, length) = (20, 6);
    let model = untrained(&config(values, length, &[]), 1.0, 11);
    let tokens = SortedLists::new(length, values - 1).tokens(30, 2);
    let found = study(&model, tokens.clone());
    let cache = model.run(&tokens, Run::new().cache("*")).unwrap().cache;
    let pattern = &cache[Hook::Pattern(0)];

    // Which key has the largest weight.
    for head in 0..2 {
        for step in 0..length {
            let query = length + step;
            let hits = (0..30).filter(|&s| {
                let row = pattern.slice(&[s, head, query]);
                let sequence = tokens.sequence(s);
                let largest = (0..=query).fold(0, |b, k| if row[k] > row[b] { k } else { b });
                sequence[largest] == sequence[query + 1]
            });
            let share = hits.count() as f64 / 30.0;
            assert!((found.attending.hits[head][step] - share).abs() < 1e-12);
            let kinds: f64 = found.attending.kinds[head][step].iter().sum();
            assert!((kinds - 1.0).abs() < 1e-12);
            assert!((found.attending.kinds[head][step][0] - share).abs() < 1e-12);
        }
    }

    // Without the direct path: the embedding taken from the stream before the last norm.
    let (embed, post) = (&cache[Hook::Embed], &cache[Hook::ResidPost(0)]);
    let mut right = 0;
    for s in 0..30 {
        for p in length..2 * length {
            let pairs = post.slice(&[s, p]).iter().zip(embed.slice(&[s, p]));
            let stream: Vec<f64> = pairs.map(|(x, e)| x - e).collect();
            let row = logits(&model, &stream);
            let best = (0..row.len()).fold(0, |b, t| if row[t] > row[b] { t } else { b });
            right += usize::from(best as i64 == tokens.sequence(s)[p + 1]);
        }
    }
    let share = right as f64 / (30 * length) as f64;
    assert!((found.direct.unwrap().accuracy[1] - share).abs() < 1e-12);

    // Queries where the first value is written: of large values, to small ones.
    let first = length + 1;
    let moved = {
        let mut weights = model.weights().clone();
        let embedding = weights.W_pos.slice(&[first]).to_vec();
        (first..2 * length + 1)
            .for_each(|p| weights.W_pos.slice_mut(&[p]).copy_from_slice(&embedding));
        Model::new(model.config().clone(), weights).unwrap()
    };
    let queries = moved.run(&tokens, Run::new().cache("*")).unwrap().cache;
    let (q, k) = (&queries[Hook::Q(0)], &cache[Hook::K(0)]);
    let z = &found.zero;
    let (small, large) = (z.small.end as i64, z.large.start as i64);
    for head in 0..2 {
        let mut shares = Vec::new();
        for s in 0..30 {
            let sequence = tokens.sequence(s);
            if !sequence[..length].iter().any(|&t| t < small) {
                continue;
            }
            for p in first + 1..2 * length {
                if sequence[p] < large {
                    continue;
                }
                let score = |key: usize| {
                    let products = (0..6).map(|i| q[[s, p, head, i]] * k[[s, key, head, i]]);
                    (products.sum::<f64>() / 6f64.sqrt()).exp()
                };
                let all: f64 = (0..=p).map(score).sum();
                let to_small: f64 = (0..=p)
                    .filter(|&key| sequence[key] < small)
                    .map(score)
                    .sum();
                shares.push(to_small / all);
            }
        }
        assert_eq!(shares.len(), z.queries);
        assert!(!shares.is_empty());
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        assert!(
            (z.exchanged[head] - mean).abs() < 1e-9,
            "{} {mean}",
            z.exchanged[head]
        );
    }
}

#[test]
fn drawn_lists_are_distinct_and_of_their_kind() {
    let model = untrained(&config(51, 10, &[]), 1.0, 3);
    let a = study(&model, SortedLists::default().tokens(20, 1)).adversarial;
    for (id, from, to) in [
        ("any", 0, 51),
        ("upper", 30, 51),
        ("highest", 41, 51),
        ("jump", 0, 51),
    ] {
        let kind = a.kind(id).unwrap();
        let mut list = kind.worst[..10].to_vec();
        assert!(
            list.iter().all(|v| (from..to).contains(v)),
            "{id}: {list:?}"
        );
        list.sort_unstable();
        list.dedup();
        assert_eq!(list.len(), 10, "{id}");
        if id == "jump" {
            assert!(list[4] < 10 && list[5] >= 41, "{list:?}");
        }
        let mean = kind.by_step.iter().sum::<f64>() / 10.0;
        assert!((kind.mean - mean).abs() < 1e-12);
    }
    let smallest: Vec<usize> = a.by_smallest.iter().map(|s| s.value).collect();
    assert_eq!(smallest, (0..=41).collect::<Vec<_>>());
}

#[test]
fn refuses_in_one_line() {
    let tokens = || SortedLists::default().tokens(3, 0);
    let refused = |config: &Config, tokens: Tokens| {
        let data = sorted_list::Data::of(tokens);
        let found = sorted_list::study(&untrained(config, 1.0, 0), &data, &|_| {});
        found.unwrap_err().to_string()
    };
    for (field, value, error) in [
        (
            "n_layers",
            json!(2),
            "config field `n_layers`: 2, expected 1 for this study",
        ),
        (
            "d_vocab_out",
            json!(2),
            "config field `d_vocab_out`: 2, expected 52, a logit for every token, for this study",
        ),
        (
            "n_ctx",
            json!(20),
            "config field `n_ctx`: 20, expected 21, the sequences' positions",
        ),
    ] {
        assert_eq!(refused(&config(51, 10, &[(field, value)]), tokens()), error);
    }
    let mlp = [
        ("attn_only", json!(false)),
        ("d_mlp", json!(8)),
        ("act_fn", json!("relu")),
    ];
    assert_eq!(
        refused(&config(51, 10, &mlp), tokens()),
        "config field `attn_only`: false, expected true for this study"
    );
    assert_eq!(
        refused(&config(40, 10, &[]), tokens()),
        "config field `d_vocab`: 41, expected 52: the sequences' separator is 51"
    );
    let two = Tokens::from_rows(&[[3i64, 51, 3], [4, 51, 5]]);
    assert_eq!(
        refused(&config(51, 10, &[]), two),
        "the study of sorted lists: sequence 1 is not a list, the separator 51, and the list in order"
    );
    assert_eq!(
        refused(&config(51, 10, &[]), Tokens::from_rows(&[[3i64, 51, 3, 4]])),
        "the study of sorted lists: sequences of 4 tokens, expected a list, the separator, and the list in order"
    );
}

#[test]
fn figures_of_generated_sequences_have_ids_of_their_own() {
    let model = Fixture::SortedList.load::<f64>();
    let story = sorted_list::study(&model, &sorted_list::Data::generated(), &|_| {})
        .unwrap()
        .story("a model");
    sound(&story);
    assert!(tells_the_mechanism(&story));
    for id in ["loss", "p_correct.mean", "attention.hits", "zero.attention"] {
        assert!(!story.figures.contains_key(id), "{id}");
        assert!(
            story.figures.contains_key(&format!("{id}.generated")),
            "{id}"
        );
    }
    for id in ["ov_full", "dla.close_triples", "advex.published"] {
        assert!(story.figures.contains_key(id), "{id}");
    }
    // It has the mechanism, and other ways to get along with what is hard for the write-up's model.
    for step in [
        "performance",
        "attention",
        "ablation",
        "ov",
        "shares",
        "qk",
        "smallest",
    ] {
        assert_eq!(outcome(&story, step), Outcome::Holds, "{step}");
    }
    for step in ["anti", "one_token", "zero", "close"] {
        assert_ne!(outcome(&story, step), Outcome::Holds, "{step}");
    }
}
