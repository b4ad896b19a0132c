//! `ablate`, `patch`, `merge` and `attribute`.

use crate::program::{
    LABELS, ROUNDING, Scratch, class_tokens, integers, labelled, small_model, small_tokens, table,
    tokens_file, with_labels,
};
use pathsum::{Run, Tensor, Tokens};
use serde_json::{Value, json};

fn numbers(value: &Value) -> Vec<f64> {
    let all = value.as_array().unwrap().iter();
    all.map(|x| x.as_f64().unwrap()).collect()
}

#[track_caller]
fn assert_near(found: &[f64], expected: &[f64], size: f64) {
    assert_eq!(found.len(), expected.len());
    for (f, e) in found.iter().zip(expected) {
        assert!((f - e).abs() <= ROUNDING * size, "{f} where {e} is meant");
    }
}

/// The mean over sequences of the right class's logit less the largest other, at a position.
fn logit_diff(logits: &Tensor<f64>, classes: &[i64], position: usize) -> f64 {
    let of = |(i, &class): (usize, &i64)| {
        let row = logits.slice(&[i, position]);
        let others = row.iter().enumerate().filter(|(j, _)| *j != class as usize);
        row[class as usize] - others.fold(f64::NEG_INFINITY, |m, (_, &x)| m.max(x))
    };
    let all = classes.iter().enumerate().map(of);
    all.sum::<f64>() / classes.len() as f64
}

/// The logits with something done to one hook's value.
fn with_hook(tokens: &Tokens, hook: pathsum::Hook, f: impl Fn(&mut Tensor<f64>)) -> Tensor<f64> {
    let name = hook.to_string();
    let run = Run::new().hook(name.as_str(), |value, _| f(value));
    small_model().run(tokens, run).unwrap().logits
}

#[test]
fn ablate_reads_the_metric_with_each_head_ablated() {
    let s = Scratch::new();
    s.write("data", &labelled(&small_tokens()));
    let tokens = small_tokens();
    let clean = small_model().logits(&tokens).unwrap();
    let size = clean.max_abs();
    let asked = "ablate model --tokens data --labels is_palindrome --site z --how zero";
    let json = s.json(asked);
    assert_near(
        &[json["clean"].as_f64().unwrap()],
        &[logit_diff(&clean, &LABELS, 5)],
        size,
    );
    let ablated = |layer: usize, head: usize| {
        with_hook(&tokens, pathsum::Hook::Z(layer), |z| {
            for i in 0..tokens.batch() * tokens.pos() {
                z.slice_mut(&[i / 6, i % 6, head]).fill(0.0);
            }
        })
    };
    let heads = [(0, 0), (0, 1), (1, 0), (1, 1)];
    let of = |position: usize| heads.map(|(l, h)| logit_diff(&ablated(l, h), &LABELS, position));
    assert_near(&numbers(&json["values"]), &of(5), size);
    assert_eq!(
        json["axes"],
        json!([{"by": "head", "labels": ["0.0", "0.1", "1.0", "1.1"]}])
    );
    // All that a library's result of a sweep has.
    let result: pathsum::intervene::SweepResult = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(result.metric, "logit_diff");

    let first = s.json(&format!("{asked} --at first"));
    assert_near(&numbers(&first["values"]), &of(0), size);
    let some = s.json(&format!("{asked} --heads 1.0,0.1"));
    assert_near(&numbers(&some["values"]), &of(5)[1..3], size);
    // Tokens and labels alike.
    let two = s.json(&format!("{asked} --limit 2"));
    let clean = logit_diff(
        &small_model().logits(&tokens.truncate(2)).unwrap(),
        &LABELS[..2],
        5,
    );
    assert_near(&[two["clean"].as_f64().unwrap()], &[clean], size);

    let text = s.ok(asked);
    for word in [
        "logit_diff at position 5 of 5 sequences",
        "z replaced by zero",
        "0.1",
        "change",
    ] {
        assert!(text.contains(word), "{word} is not in {text}");
    }
    let matrix = s.ok(&format!("{asked} --by head,position"));
    assert!(matrix.contains("position \\ head  0.0"), "{matrix}");
    let cells =
        s.ok("ablate model --tokens data --metric kl --site pattern --by head,position,key");
    assert!(
        cells.contains("The 20 largest changes of 144; --json has all."),
        "{cells}"
    );
    let neurons = s.json("ablate model --tokens data --metric kl --site post --neurons 3-5,last");
    let labels = ["0.3", "0.4", "0.5", "0.11", "1.3", "1.4", "1.5", "1.11"];
    assert_eq!(neurons["axes"][0]["labels"], json!(labels));
    assert_eq!(
        s.json("ablate model --tokens data --metric kl --by none")["axes"],
        json!([])
    );
    // The token that follows, at every position that has one.
    s.write("next", &tokens_file(&class_tokens()));
    let next = s.json("ablate model --tokens next --labels next --metric loss --layers 1");
    assert_eq!(next["at"], json!([0, 1, 2, 3, 4]));
}

#[test]
fn shards_merged_say_what_the_whole_says() {
    let s = Scratch::new();
    // As many sequences as make the clean run compute layer 0 for all tokens at once, where it may.
    let tokens = Tokens::random(small_model().config(), 40, 8);
    s.write("data", &tokens_file(&tokens));
    s.write(
        "other",
        &tokens_file(&Tokens::random(small_model().config(), 40, 9)),
    );
    for asked in [
        "ablate model --tokens data --metric logit_diff:1-0",
        "ablate model --tokens data --metric kl --site q --by head,position --how resample",
        "ablate model --tokens data --metric probability:2 --site pre --how mean_all --dtype f32",
        "ablate model --tokens data --metric kl --site pattern --how zero --limit 7",
        "patch model --clean data --corrupt other --metric logit_diff:1-0 --site resid_pre",
    ] {
        let whole = s.ok(&format!("{asked} --json --out whole"));
        assert_eq!(whole.as_bytes(), s.read("whole"), "{asked}");
        let said = s.ok(asked);
        let names: Vec<String> = (1..=3).map(|i| format!("part{i}")).collect();
        for (i, name) in names.iter().enumerate() {
            let text = s.ok(&format!("{asked} --shard {}/3 --out {name}", i + 1));
            assert!(text.contains(&format!("shard {}/3", i + 1)), "{text}");
        }
        for order in [
            "part1 part2 part3",
            "part3 part1 part2",
            "whole",
            "whole part2",
        ] {
            assert_eq!(s.ok(&format!("merge {order} --json")), whole, "{asked}");
            assert_eq!(s.ok(&format!("merge {order}")), said, "{asked}");
        }
        s.ok("merge part3 part2 part1 --out merged --quiet");
        assert_eq!(s.read("merged"), s.read("whole"), "{asked}");
    }
}

#[test]
fn merge_refuses_what_does_not_belong_together() {
    let s = Scratch::new();
    let ablate = "ablate model --tokens data --metric kl --quiet";
    s.ok(&format!("{ablate} --shard 1/2 --out one"));
    s.ok(&format!("{ablate} --shard 2/2 --out two"));
    s.ok(&format!("{ablate} --shard 2/2 --how zero --out zero"));
    s.write("wrong", b"{}");
    // The same request of other tokens under the same name.
    let probability = "ablate model --tokens data --metric probability:1 --quiet";
    s.ok(&format!("{probability} --shard 1/2 --out a"));
    s.write(
        "data",
        &tokens_file(&Tokens::random(small_model().config(), 5, 99)),
    );
    s.ok(&format!("{probability} --shard 2/2 --out b"));
    for (line, said) in table(
        "merge one          => cell 2 of 4 is in none of these shards
         merge one zero     => one and zero are of different requests: `how` is \"mean\" in one and \"zero\" in the other
         merge one a        => one and a are of different requests: `metric`
         merge a b          => a and b are of different models, tokens or labels: without a change the probability:1 is
         merge one wrong    => wrong: is not what ablate, patch or edges writes: missing field
         merge one nowhere  => nowhere: No such file
         merge              => required arguments were not provided: <FILE>...",
    ) {
        s.bad(line, said);
    }
    s.bad(
        "merge one two --out gone/away",
        "gone/away: there is no folder `gone`",
    );
}

#[test]
fn patch_puts_the_clean_value_into_the_corrupted_run() {
    let s = Scratch::new();
    let clean = small_tokens();
    let corrupt = Tokens::random(small_model().config(), 5, 4);
    s.write("clean", &labelled(&clean));
    s.write("corrupt", &tokens_file(&corrupt));
    let source = small_model().run(&clean, Run::new().cache("*")).unwrap();
    let unpatched = small_model().logits(&corrupt).unwrap();
    let size = source.logits.max_abs();
    type Part<'a> = &'a dyn Fn(&mut Tensor<f64>, &Tensor<f64>, usize);
    let patched = |hook, part: Part| {
        let logits = with_hook(&corrupt, hook, |value| {
            (0..5).for_each(|sequence| part(value, &source.cache[hook], sequence));
        });
        logit_diff(&logits, &LABELS, 5)
    };
    let asked = "patch model --clean clean --corrupt corrupt --labels is_palindrome";
    let json = s.json(&format!("{asked} --site resid_pre"));
    let of_clean = logit_diff(&source.logits, &LABELS, 5);
    let of_corrupted = logit_diff(&unpatched, &LABELS, 5);
    assert_near(&[json["clean"].as_f64().unwrap()], &[of_clean], size);
    assert_near(
        &[json["corrupted"].as_f64().unwrap()],
        &[of_corrupted],
        size,
    );
    let mut expected = Vec::new();
    for layer in 0..2 {
        for p in 0..6 {
            expected.push(patched(
                pathsum::Hook::ResidPre(layer),
                &|value, clean, i| {
                    value
                        .slice_mut(&[i, p])
                        .copy_from_slice(clean.slice(&[i, p]));
                },
            ));
        }
    }
    let values = numbers(&json["values"]);
    assert_near(&values, &expected, size);
    let shares = values
        .iter()
        .map(|x| (x - of_corrupted) / (of_clean - of_corrupted));
    let shares: Vec<f64> = shares.collect();
    let scale = size / (of_clean - of_corrupted).abs();
    assert_near(&numbers(&json["recovered"]), &shares, size * scale);

    let json = s.json(&format!(
        "{asked} --site pattern --by head,position,key --heads 1.1"
    ));
    let mut expected = Vec::new();
    for query in 0..6 {
        for key in 0..6 {
            expected.push(patched(pathsum::Hook::Pattern(1), &|value, clean, i| {
                value[[i, 1, query, key]] = clean[[i, 1, query, key]];
            }));
        }
    }
    assert_near(&numbers(&json["values"]), &expected, size);
    // Heads by position, unless something else is asked for.
    let json = s.json(&format!("{asked} --site z"));
    assert_eq!(json["axes"][1]["by"], "position");
    // All of the last stream is all of the answer.
    let json = s.json(&format!(
        "{asked} --site resid_post --layers last --by none"
    ));
    assert_near(&numbers(&json["values"]), &[of_clean], size);
    let text = s.ok(&format!("{asked} --site resid_pre"));
    assert!(text.contains("the share recovered"), "{text}");
    // A run patched from itself has nothing to recover.
    let same = "patch model --clean clean --corrupt clean --metric logit_diff:1-0";
    assert_eq!(s.json(same)["recovered"][0], Value::Null);
    assert!(s.ok(same).contains("the change"));
}

#[test]
fn attribute_splits_the_logit() {
    let s = Scratch::new();
    let logits = small_model().logits(&small_tokens()).unwrap();
    let size = logits.max_abs();
    let means: Vec<f64> = (0..5)
        .map(|i| {
            let of = |p: usize| logits[[i, p, 3]] - logits[[i, p, 0]];
            (of(2) + of(5)) / 2.0
        })
        .collect();
    let mean = means.iter().sum::<f64>() / 5.0;
    let squares: f64 = means.iter().map(|x| (x - mean).powi(2)).sum();
    let of = |json: &Value, key: &str| -> Vec<f64> {
        let all = json["components"].as_array().unwrap().iter();
        all.map(|c| c[key].as_f64().unwrap()).collect()
    };
    let asked = "attribute model --tokens data --logit 3-0 --at 2,last";
    // Embeddings, two layers of attention and MLP, ln_final.b and b_U; heads and b_O; neurons and b_out; sources.
    for (by, count) in [
        ("component", 8),
        ("head", 12),
        ("neuron", 36),
        ("source", 32),
    ] {
        let json = s.json(&format!("{asked} --by {by}"));
        assert_near(&[json["mean"].as_f64().unwrap()], &[mean], size);
        assert_near(
            &[json["std"].as_f64().unwrap()],
            &[(squares / 4.0).sqrt()],
            size,
        );
        let found = of(&json, "mean");
        assert_eq!(found.len(), count, "{by}: {json}");
        assert_near(&[found.iter().sum()], &[mean], size);
        assert!(of(&json, "std").iter().all(|&std| std >= 0.0));
    }
    let (heads, sources) = (s.json(asked), s.json(&format!("{asked} --by source")));
    for component in heads["components"].as_array().unwrap() {
        let name = component["component"].as_str().unwrap();
        let all = sources["components"].as_array().unwrap().iter();
        let own = all.filter(|c| {
            let label = c["component"].as_str().unwrap();
            label == name || label.starts_with(&format!("{name} from "))
        });
        let sum: f64 = own.map(|c| c["mean"].as_f64().unwrap()).sum();
        assert_near(&[sum], &[component["mean"].as_f64().unwrap()], size);
    }
    let text = s.ok(&format!("{asked} --by neuron"));
    assert!(text.contains("The 6 others together add"), "{text}");
    let one = s.json(&format!("{asked} --limit 1"));
    assert_eq!(one["std"], Value::Null);
}

#[test]
fn sweeps_refuse_what_is_not_there() {
    let s = Scratch::new();
    s.write("data", &labelled(&small_tokens()));
    s.write("four", &tokens_file(&small_tokens().truncate(4)));
    s.write(
        "corrupt",
        &tokens_file(&Tokens::random(small_model().config(), 5, 4)),
    );
    s.write("short", &with_labels(&small_tokens(), &LABELS[..4]));
    s.write("single", &integers("tokens", &[1, 1], &[0]));
    let ablate = "ablate model --tokens data --labels is_palindrome";
    for (line, said) in table(
        "--heads 2.0       => head 2.0: this model has 2 layers of 2 heads
         --heads 1         => head `1`: expected `layer.head`, as in 1.0
         --positions 6     => --positions: position 6: there are 0..=5
         --positions 4-2   => expected all, first, last, N, N-M
         --layers 2        => --layers: layer 2: there are 0..=1
         --neurons 3       => --neurons: `result` has none, expected --site pre or post
         --site pre --neurons 12 => --neurons: neuron 12: there are 0..=11
         --site head_out   => unknown site `head_out`
         --site resid_pre --heads 0.0 => `blocks.0.hook_resid_pre` has no heads
         --site resid_pre --by head => `blocks.0.hook_resid_pre` has no heads
         --by heads        => unknown axis `heads`; did you mean `head`?
         --by position,position => two axes of positions, expected one
         --by layer,head   => axes of layers and heads, expected one of them: each head is of one layer
         --by key          => `blocks.0.attn.hook_result` has no keys
         --metric los      => unknown metric `los`, expected loss, accuracy … or kl
         --metric logit_diff:1-5 => logit_diff:1-5: this model's logits are 0..=4
         --at 6            => --at: position 6: there are 0..=5
         --how median      => invalid value 'median' for '--how <HOW>'
         --seed 3          => --seed: nothing is drawn at random but with --how resample
         --how resample --limit 1 => there is no other sequence to resample from
         --shard 0/3       => expected I/N with I from 1 to N, as in 1/4
         --shard 4/3       => expected I/N
         --out gone/away   => gone/away: there is no folder `gone`",
    ) {
        s.bad(&format!("{ablate} {line}"), said);
    }
    for (line, said) in table(
        "ablate model --tokens data => logit_diff needs to know the right answers: labels are missing
         ablate model --tokens data --labels is_palindrom => data: unknown tensor `is_palindrom`; did you mean `is_palindrome`?
         ablate model --tokens short --labels is_palindrome => short: labels `is_palindrome` have shape [4], expected [5] or [5, 6], as there are tokens
         ablate model --tokens data --labels tokens => label … of sequence … this model's classes are 0..=4
         ablate model --tokens data --labels next --at last => data: position 5 has no next token
         ablate model --tokens single --labels next => single: no position has a next token
         ablate fixture:induction --tokens data --metric kl --site post => this model has no site `post`
         patch model --clean data --corrupt four --metric kl => four: `tokens` has shape [4, 6], expected [5, 6], as in data
         patch model --clean data --corrupt corrupt --metric loss => labels are missing
         patch model --clean data --metric kl => required arguments were not provided: --corrupt <FILE>
         attribute model --tokens data --logit 5 => logit 5: this model's logits are 0..=4
         attribute model --tokens data --logit x => expected a logit, as in 3
         attribute model --tokens data --logit 1 --at 6 => --at: position 6: there are 0..=5
         attribute model --tokens data --logit 1 --by layer => invalid value 'layer'",
    ) {
        s.bad(line, said);
    }
}
