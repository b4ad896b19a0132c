//! `report`, `study` and `task`.

use crate::program::{Scratch, integers, llama, small_story, table};
use pathsum::tensor::Saved;
use serde_json::{Value, json};

#[test]
fn report_renders_a_story_again_from_its_numbers() {
    let s = Scratch::new();
    s.write("results", &serde_json::to_vec(&small_story()).unwrap());
    let printed = s.ok("report results --out page");
    assert!(
        printed.contains("1 hold, 1 do not hold, 0 not applicable"),
        "{printed}"
    );
    let page = String::from_utf8(s.read("page")).unwrap();
    assert_eq!(page, pathsum::report::html(&small_story()));
    let json = s.json("report results --out page");
    assert_eq!(json["steps"][1]["verdict"]["outcome"], "does_not_hold");

    s.bad("report nothing --out page", "nothing: No such file");
    s.write("text", b"no story");
    s.bad("report text --out page", "text: expected …at line 1");
    let mut wrong = small_story();
    wrong.steps[1].id = "one".into();
    s.write("wrong", &serde_json::to_vec(&wrong).unwrap());
    s.bad(
        "report wrong --out page",
        "wrong: step `one`: there are two",
    );
    s.write(
        "other",
        br#"{"study": "s", "title": "t", "model": "m", "summary": [], "steps": 3, "figures": {}}"#,
    );
    s.bad(
        "report other --out page",
        "other: invalid type: integer `3`",
    );
    s.bad(
        "report results --out none/page",
        "none/page: there is no folder `none`",
    );
}

#[test]
fn study_tells_a_story_and_writes_it_down() {
    let s = Scratch::new();
    let text = s.ok("study sorted-list --out told");
    assert!(
        text.contains(" hold, ")
            && text.ends_with("wrote told/report.html and told/results.json\n")
    );
    assert!(s.read("told/report.html").starts_with(b"<!DOCTYPE html>"));
    let written: Value = serde_json::from_slice(&s.read("told/results.json")).unwrap();
    let printed = |line: &str| -> Value {
        serde_json::from_str(&s.ok(&format!("{line} --json -"))).expect("the story")
    };
    assert_eq!(printed("study sorted-list"), written);
    assert!(written["figures"].as_object().unwrap().len() > 10);

    // Labels that the embedded model was not trained on: it agrees with about half of them.
    let n = 113;
    let lower: Vec<i64> = (0..n * n).map(|i| i64::from(i / n < i % n)).collect();
    let shape = [n as usize; 2];
    let labels = [("labels".to_string(), Saved::integers(&shape, &lower))];
    pathsum::write_safetensors(s.path("labels"), labels).unwrap();
    let verdict = &printed("study two-integer --labels labels")["steps"][0]["verdict"];
    assert_eq!(verdict["outcome"], "does_not_hold");
    let percent = verdict["because"].as_str().unwrap().split('%').next();
    let percent: f64 = percent.unwrap().parse().unwrap();
    assert!((20.0..80.0).contains(&percent), "{verdict}");

    // A model that has learned nothing: no split is found, and one can be told.
    let config = r#"{"n_layers": 1, "n_heads": 1, "d_model": 4, "d_head": 2, "d_mlp": 3, "n_ctx": 3, "d_vocab": 6,
        "d_vocab_out": 5, "act_fn": "relu", "normalization_type": null}"#;
    let config = pathsum::Config::from_json(config).unwrap();
    let weights = pathsum::train::initialise::<f64>(&config, 0, None);
    let model = pathsum::Model::new(config, weights).unwrap();
    model.save(s.path("residues")).unwrap();
    let figures = &printed("study modular-addition --model residues")["figures"];
    assert_eq!(
        (&figures["split"]["seed"], &figures["split"]["known"]),
        (&json!(1), &json!("assumed"))
    );
    let told = &printed("study modular-addition --model residues --split 7")["figures"]["split"];
    assert_eq!((&told["seed"], &told["known"]), (&json!(7), &json!("told")));

    let bad = "study sorted-list --labels labels => --labels labels: sorted-list finds the labels itself
        study modular-addition --tokens data => modular-addition is of all pairs there are
        study modular-addition --model model => config field `d_vocab`
        study palindrome --split 3 => --split 3: palindrome looks at no split
        study two-integer --tokens data => --tokens: two-integer is of all pairs there are, expected --labels
        study two-integer --labels data => data: unknown tensor `labels`
        study palindrome --model model => config field `d_vocab`: 7, expected 33 for the task palindrome
        study brackets --data no => no: there is no such folder
        study brackets --data model => model: no sequences there, expected dataset.safetensors
        study palindrome --data model => no sequences there, expected dataset.safetensors or dataset_100.safetensors or
        study brackets --data model --limit 3 => --data model: a write-up's sets are taken whole, expected no --limit
        study brackets --data model --tokens data => cannot be used with
        study palindrom => invalid value 'palindrom'
        study palindrome --dtype f32 => --dtype f32: studies compute in f64
        study palindrome --size 3 => --size 3: palindrome draws no prompts
        study brackets --seed 3 => --seed 3: brackets draws no prompts
        study ioi => ioi: expected --model DIR, a language model's folder with its tokenizer
        study ioi --model model => model: has no tokenizer
        study ioi --model model --tokens data => ioi draws its own prompts
        study induction --limit 3 => induction draws its own prompts
        study induction --size 0 => 0 sequences, expected one at least
        study induction --model nowhere => nowhere: there is no such folder";
    for (line, said) in table(bad) {
        s.bad(line, said);
    }
}

/// A language model with names among its tokens, that has learned nothing: the whole way from its folder to a page.
#[test]
fn study_draws_prompts_in_a_language_models_own_tokens() {
    let s = Scratch::new();
    let words = "<s> Then When After While Afterwards Friends The the and had a long argument lunch to said gave decided it got at \
                 were working commuting thinking about going wanted give lot of fun found went afterwards store garden restaurant \
                 school hospital office house station ring kiss bone basketball computer necklace drink snack . , Mary John Tom \
                 Anna Paul Lucy";
    let words: Vec<&str> = words.split_whitespace().collect();
    let vocab: serde_json::Map<String, Value> = (words.iter().enumerate())
        .map(|(i, word)| (word.to_string(), json!(i)))
        .collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<s>"},
    });
    let model = llama(&format!(
        r#"{{"model_type": "llama", "vocab_size": {}, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32, "attention_bias": true,
            "mlp_bias": true, "rope_theta": 100.0}}"#,
        words.len()
    ));
    model
        .save_hugging_face(s.path("llama"), Some("llama"))
        .unwrap();
    s.write("llama/tokenizer.json", tokenizer.to_string().as_bytes());
    let text = s.ok("study ioi --model llama --size 4 --dtype f32 --out told");
    assert!(
        text.ends_with("wrote told/report.html and told/results.json\n"),
        "{text}"
    );
    let page = String::from_utf8(s.read("told/report.html")).unwrap();
    assert!(page.contains("Mary") && page.contains("S-inhibition"));
    let printed = |line: &str| -> Value {
        serde_json::from_str(&s.ok(&format!("{line} --json -"))).expect("the story")
    };
    let told = printed("study ioi --model llama --size 4 --seed 5");
    assert_eq!(
        told["figures"]["logit_diff.each"].as_array().unwrap().len(),
        4
    );
    assert!(
        told["model"]
            .as_str()
            .unwrap()
            .contains("4 prompts, in f64")
    );
    let again = printed("study ioi --model llama --size 4 --seed 5");
    assert_eq!(told["steps"][0], again["steps"][0]);
    let told = printed("study induction --model llama --size 2");
    assert!(
        told["model"]
            .as_str()
            .unwrap()
            .contains("2 sequences of 16 tokens")
    );
    let holds = |story: &Value| {
        let steps = story["steps"].as_array().unwrap();
        steps
            .iter()
            .all(|step| step["verdict"]["outcome"] == "holds")
    };
    assert!(holds(&printed("study induction")));
    s.bad(
        "study ioi --model llama --size 0",
        "0 prompts, expected one at least",
    );
    s.language_model("small");
    s.bad(
        "study ioi --model small",
        "0 of 64 names are one token of this model",
    );
}

#[test]
fn task_shows_examples_and_writes_datasets() {
    let s = Scratch::new();
    let text = s.ok("task brackets --size 3 --seed 4");
    let head = "brackets: 42 positions of 5 tokens, 2 classes, read at 0";
    assert_eq!(text.lines().next(), Some(head));
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.lines().skip(2).all(|l| l.ends_with("balanced")));

    let json = s.json("task sorted_list --size 4");
    assert_eq!(json["sequences"].as_array().unwrap().len(), 4);
    let first = &json["sequences"][0];
    let (tokens, right) = (&first["tokens"], &first["classes"]);
    assert_eq!(
        tokens.as_array().unwrap()[11..],
        right.as_array().unwrap()[..]
    );

    let line = "task palindrome --size 100 --seed 1 --out tokens";
    assert_eq!(s.ok(line), "100 sequences of palindrome → tokens\n");
    let file = s.tokens_and(&["is_palindrome"]);
    assert_eq!(file.shape("is_palindrome"), Some(&[100][..]));
    let (_, labels) = file.integer("is_palindrome").unwrap();
    assert!(
        (50..53).contains(&labels.iter().sum::<i64>()),
        "half, and chance"
    );
    assert_eq!(
        s.json("task palindrome --size 9 --out tokens --limit 5")["written"],
        5
    );
    s.ok("task sorted_list --out tokens --quiet");
    s.tokens_and(&[]);

    // Another table of labels: 1 where A < B.
    let less: Vec<i64> = (0..9).map(|i| i64::from(i / 3 < i % 3)).collect();
    s.write("less", &integers("labels", &[3, 3], &less));
    let text = s.ok("task two_integer --labels less --size 50");
    let right = |l: &str| {
        let words: Vec<&str> = l.split_whitespace().collect();
        (words[0] < words[1]) == (words[3] == "1")
    };
    assert!(text.lines().skip(2).all(right), "{text}");
    // All there are, each once.
    let all = s.json("task two_integer --labels less --all")["sequences"].clone();
    let pairs: Vec<&str> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|q| q["text"].as_str().unwrap())
        .collect();
    let each = (0..9).map(|i| format!("{} {} =", i / 3, i % 3));
    assert_eq!(pairs, each.collect::<Vec<_>>());

    // Lists of another length.
    let lists = s.json("task max_of_k --k 7 --size 3")["sequences"].clone();
    for list in lists.as_array().unwrap() {
        let largest = list["tokens"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t.as_u64())
            .max();
        assert_eq!(list["tokens"].as_array().unwrap().len(), 7);
        assert_eq!(list["classes"][0].as_u64(), largest.unwrap());
    }

    // Residues of another modulus, subtracted.
    let all = s.json("task modular_addition --modulus 7 --subtract --all")["sequences"].clone();
    assert_eq!(all.as_array().unwrap().len(), 49);
    assert_eq!(
        (&all[9]["text"], &all[9]["classes"]),
        (&json!("1 2 ="), &json!([6]))
    );

    s.write("wide", &integers("labels", &[1, 3], &less[..3]));
    for (line, said) in table(
        "task bracket                    => unknown task `bracket`; did you mean `brackets`?
         task                            => required arguments were not provided: <TASK>
         task brackets --size 0          => expected a whole number from 1 to 1000000
         task brackets --size 1000001    => expected a whole number from 1 to 1000000
         task brackets --seed -1         => unexpected argument '-1'
         task brackets --all             => --all: the sequences of brackets are too many to list, expected --size
         task two_integer --all --size 3 => the argument '--all' cannot be used with '--size <N>'
         task brackets --subtract        => --modulus and --subtract are of modular_addition, not of brackets
         task modular_addition --modulus 1 => expected a whole number from 2 to 1000
         task brackets --k 3             => --k 3: brackets has sequences of one length
         task max_of_k --k 0             => expected a whole number from 1 to 1000
         task brackets --labels less     => --labels less: brackets has its own
         task two_integer --labels no    => no: No such file
         task two_integer --labels data  => unknown tensor `labels`
         task two_integer --labels wide  => wide: tensor `labels` has shape [1, 3], expected [n, n]
         task brackets --out no/such/file => no/such/file: there is no folder `no/such`",
    ) {
        s.bad(line, said);
    }
}
