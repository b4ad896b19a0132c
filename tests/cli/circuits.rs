//! `eval`, `prove`, `plan`, `compose`, `weights` and `paths`.

use crate::program::{ROUNDING, Scratch, random_model, small_model, small_tokens, table, texts};
use faer::Mat;
use pathsum::decompose::{Distance, Logit, TokenCircuits, bilinear_form, query_key};
use pathsum::{Model, Par, Run};
use serde_json::{Value, json};

#[test]
fn eval_writes_what_the_forms_are_called() {
    let s = Scratch::new();
    let eval = |expr: &str, more: &[&str]| {
        let args = [&["eval", "model", expr, "--out", "out"], more].concat();
        let (status, _, stderr) = texts(s.command(&args).output());
        assert_eq!((status, stderr.as_str()), (Some(0), ""), "{expr}");
        let file = s.tensors("out");
        let names: Vec<(String, Vec<usize>)> = file
            .names()
            .map(|n| (n.to_string(), file.shape(n).unwrap().to_vec()))
            .collect();
        names
    };
    let named = |all: &[(&str, &[usize])]| -> Vec<(String, Vec<usize>)> {
        all.iter()
            .map(|(n, s)| (n.to_string(), s.to_vec()))
            .collect()
    };
    assert_eq!(eval("W_E W_U", &[]), named(&[("value", &[7, 5])]));
    let family = "W_E W_OV[*.*] W_E^T";
    assert_eq!(eval(family, &[]), named(&[("value", &[4, 7, 7])]));
    let pairs = "W_OV[0.*] W_OV[1.*]";
    assert_eq!(eval(pairs, &["--as", "norm"]), named(&[("value", &[2, 2])]));
    assert_eq!(
        eval(family, &["--as", "diag"]),
        named(&[("value", &[4, 7])])
    );
    assert_eq!(
        eval(family, &["--as", "top=3"]),
        named(&[("indices", &[4, 7, 3]), ("values", &[4, 7, 3])])
    );
    assert_eq!(
        eval(family, &["--as", "eig"]),
        named(&[("eigenvalues", &[4, 4, 2])])
    );
    assert_eq!(
        eval("W_OV[0.1]", &["--as", "svd"]),
        named(&[("S", &[4]), ("U", &[8, 4]), ("V", &[8, 4])])
    );
    assert_eq!(
        eval("W_OV[0.1]", &["--as", "factored"]),
        named(&[("A", &[8, 4]), ("B", &[4, 8])])
    );
    let on_run = ["--tokens", "data", "--sequence", "2", "--as", "softmax"];
    assert_eq!(
        eval("pattern[1.0] v[1.0]", &on_run),
        named(&[("value", &[6, 4])])
    );

    // And what they hold, against the weights.
    eval("W_E[2] W_U[:,-1]", &[]);
    let model = small_model();
    let (W_E, W_U) = (&model.weights().W_E, &model.weights().W_U);
    let expected: f64 = (0..8).map(|i| W_E[[2, i]] * W_U[[i, 4]]).sum();
    let found = s.tensors("out").float::<f64>("value").unwrap();
    assert!((found.data()[0] - expected).abs() <= ROUNDING);
    let printed: Value = s.json("eval model W_E[2]");
    assert_eq!(printed["value"][0][3], json!(W_E[[2, 3]]));
}

/// An expression that makes no sense: what is wrong, the text, and where.
#[test]
fn a_wrong_expression_is_pointed_at() {
    let s = Scratch::new();
    for command in ["eval", "plan"] {
        let (status, stdout, stderr) = texts(s.command(&[command, "model", "W_E W_U^T"]).output());
        assert_eq!((status, stdout.as_str()), (Some(2), ""));
        assert_eq!(
            stderr,
            "error: `W_E` has model columns, `W_U^T` has out rows; did you mean `W_U`?\n  W_E W_U^T\n      ^^^^^\n"
        );
    }
    let (status, _, stderr) = texts(s.command(&["prove", "W_E == "]).output());
    assert_eq!(status, Some(2));
    assert!(
        stderr.starts_with("error: the expression ends too early\n  W_E == \n"),
        "{stderr}"
    );
    s.bad_args(&["eval", "model", "W_E", "--as", "tap=3"], "tap=3");
    s.bad_args(
        &["eval", "model", "W_E", "--as", "trace"],
        "needs a square matrix",
    );
    s.bad_args(&["eval", "model", "v[0.0]"], "no tokens were given");
    s.bad_args(
        &[
            "eval",
            "model",
            "v[0.0]",
            "--tokens",
            "data",
            "--sequence",
            "5",
        ],
        "sequence 5: the file's sequences are 0..=4",
    );
    s.bad_args(
        &["eval", "model", "W_E", "--out", "no/such/folder"],
        "no/such/folder",
    );
    s.bad_args(&["compose", "model", "--kind", "x"], "expected q, k or v");
    s.bad_args(&["prove", "W_E == W_E", "--tokens", "data"], "--model");
}

#[test]
fn prove_says_what_decided_it() {
    let s = Scratch::new();
    let prove = |args: &[&str], status: i32, said: &str| {
        let args = [&["prove"], args].concat();
        let (found, stdout, stderr) = texts(s.command(&args).output());
        assert_eq!((found, stderr.as_str()), (Some(status), ""), "{args:?}");
        assert!(stdout.starts_with(said), "{args:?}: {stdout}");
        let (found, stdout, _) = texts(s.command(&args).arg("--json").output());
        assert_eq!(found, Some(status));
        let json: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(json["statement"], args[1]);
    };
    prove(
        &["C C W_U == C W_U"],
        0,
        "proved: both sides have the same normal form\nrules used: C C = C",
    );
    prove(
        &["ones[out]^T ones[out] == 7"],
        0,
        "proved, with a probability of error of at most 4.3e-19",
    );
    prove(&["W_QK[0.0] == W_QK[0.0]^T"], 1, "refuted: modulo 2^61 - 1");
    let run = "resid_post[1] == resid_mid[1] + post[1] W_out[1] + ones b_out[1]";
    prove(
        &[run, "--model", "model", "--tokens", "data"],
        0,
        "proved: both sides have the same normal form, with a run's",
    );
    let wrong = "resid_post[1] == resid_mid[1] + post[1] W_out[1]";
    prove(
        &[wrong, "--model", "model", "--tokens", "data"],
        1,
        "refuted: at [",
    );
    prove(
        &["b_U == 0", "--model", "fixture:induction"],
        0,
        "holds, for this model: 16 entries compared",
    );
}

#[test]
fn plan_and_compose_say_what_they_cost_and_found() {
    let s = Scratch::new();
    let args = [
        "plan",
        "model",
        "W_E W_OV[0.0] W_U[:,1]",
        "--measure",
        "--json",
    ];
    let (status, stdout, _) = texts(s.command(&args).output());
    assert_eq!(status, Some(0));
    let json: Value = serde_json::from_str(&stdout).unwrap();
    let flops = |plan: &Value| plan["total"]["flops"].as_u64().unwrap();
    // A column through the head and the embedding, against three products of matrices.
    assert_eq!(flops(&json["plan"]), 2 * (4 * 8 + 8 * 4 + 7 * 8));
    assert!(flops(&json["naive"]) > flops(&json["plan"]));
    // Every order of five factors.
    assert_eq!(json["orders"].as_array().unwrap().len(), 14);

    let json = s.json("compose model --kind v --out scores");
    assert_eq!(json["pairs"].as_array().unwrap().len(), 4);
    assert_eq!(s.tensors("scores").shape("value"), Some(&[2, 2, 2, 2][..]));
    assert!(
        s.ok("compose model --kind q")
            .contains("random weights of these shapes")
    );
}

#[test]
fn weights_say_what_tokens_do_to_logits() {
    let s = Scratch::new();
    // The induction head writes what it attends to, and looks for the token itself.
    let json = s.json("weights fixture:induction --top 2");
    let heads = json["heads"].as_array().unwrap();
    assert_eq!((&heads[1]["head"], heads.len()), (&json!("1.0"), 2));
    let entries = heads[1]["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    assert!(entries.iter().all(|e| e["token"] == e["logit"]), "{json}");
    let sizes = heads[1]["W_OV"].as_array().unwrap();
    let sizes: Vec<f64> = sizes.iter().map(|x| x.as_f64().unwrap()).collect();
    assert!(sizes[0] > 0.0 && sizes.is_sorted_by(|a, b| a >= b));
    let smallest = s.json("weights model --smallest --top 1");
    let largest = s.json("weights model --top 1");
    let first = |json: &Value| json["direct"][0]["value"].as_f64().unwrap();
    assert!(first(&smallest) < first(&largest));

    // All directions together are the matrix: each end lists five of seven tokens, and all logits.
    let model = small_model();
    let head = "1.0".parse().unwrap();
    let circuits = TokenCircuits::new(&model).unwrap();
    let W_QK = query_key(&model, head, Distance::At(0)).unwrap();
    let keys = W_QK.times_dense(circuits.W_E().transpose(), Par::Seq);
    for (circuit, expected) in [
        ("ov", circuits.of(head, Par::Seq).unwrap()),
        ("qk", keys.dense_times(circuits.W_E(), Par::Seq)),
    ] {
        let expected = expected.AB(Par::Seq);
        let asked = format!("weights model --head 1.0 --circuit {circuit} --top 4");
        let json = s.json(&asked);
        let directions = json["directions"].as_array().unwrap();
        assert_eq!(directions.len(), 4);
        let mut sum = Mat::<f64>::zeros(expected.nrows(), expected.ncols());
        for direction in directions {
            let size = direction["singular_value"].as_f64().unwrap();
            // At the other end every sign is the other.
            let along = |side: &str, n: usize| {
                let mut all = vec![f64::NAN; n];
                for (end, sign) in [(0, 1.0), (1, -1.0)] {
                    for one in direction["ends"][end][side].as_array().unwrap() {
                        let at = one["index"].as_u64().unwrap() as usize;
                        all[at] = sign * one["value"].as_f64().unwrap();
                    }
                }
                all
            };
            let reads = along("reads", expected.nrows());
            let writes = along("writes", expected.ncols());
            for (i, j) in (0..reads.len()).flat_map(|i| (0..writes.len()).map(move |j| (i, j))) {
                sum[(i, j)] += size * reads[i] * writes[j];
            }
        }
        let off = (&sum - &expected).norm_max();
        assert!(off <= ROUNDING * expected.norm_max(), "{circuit}: {off:e}");
        let name = if circuit == "ov" { "W_OV" } else { "W_QK" };
        assert!(s.ok(&asked).contains(name));
    }
}

#[test]
fn bilinear_takes_gated_neurons_apart() {
    let s = Scratch::new();
    let model: Model<f64> = random_model(
        r#"{"n_layers": 1, "d_model": 6, "n_ctx": 4, "d_head": 3, "n_heads": 2, "d_mlp": 9, "d_vocab": 7,
            "act_fn": "linear", "gated_mlp": true, "normalization_type": "RMS"}"#,
    );
    model.save(s.path("gateless")).unwrap();
    let json = s.json("bilinear gateless --layer 0 --logit 3-5 --top 6");
    assert_eq!(json["exact"], json!(true));
    // The form of a token's row, by eigenvectors: each side lists five of seven tokens.
    let circuits = TokenCircuits::new(&model).unwrap();
    let read = circuits.read_by(Logit::Difference(3, 5)).unwrap();
    let form = bilinear_form(&model, 0, &read, Par::Seq).unwrap();
    let form = form.before_norm(&model, 0).unwrap();
    let mut squares = [0.0; 7];
    for one in json["eigenvectors"].as_array().unwrap() {
        let mut along = vec![f64::NAN; 7];
        for (side, sign) in [(0, 1.0), (1, -1.0)] {
            for token in one["sides"][side].as_array().unwrap() {
                let at = token["token"].as_u64().unwrap() as usize;
                along[at] = sign * token["value"].as_f64().unwrap();
            }
        }
        for (sum, x) in squares.iter_mut().zip(along) {
            *sum += one["eigenvalue"].as_f64().unwrap() * x * x;
        }
    }
    let expected: Vec<f64> = (0..7)
        .map(|token| {
            let x = model.weights().W_E.slice(&[token]);
            let pairs = (0..6).flat_map(|i| (0..6).map(move |j| (i, j)));
            pairs.map(|(i, j)| x[i] * form.M[(i, j)] * x[j]).sum()
        })
        .collect();
    let size = expected.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    for (found, expected) in squares.iter().zip(&expected) {
        assert!(
            (found - expected).abs() <= ROUNDING * size,
            "{found} {expected}"
        );
    }
    s.language_model("stories260K");
    let gated = s.ok("bilinear stories260K --layer 1 --logit 3");
    assert!(gated.contains("were there no function"), "{gated}");
    s.bad("bilinear model --layer 0 --logit 3", "not gated");
    s.bad(
        "bilinear gateless --layer 1 --logit 3",
        "layer 1: this model's layers are 0..=0",
    );
    s.bad("bilinear gateless --layer 0 --logit 9", "logit 9");
}

#[test]
fn paths_lists_the_largest_and_certifies_the_rest() {
    let s = Scratch::new();
    let logits = small_model().logits(&small_tokens()).unwrap();
    let expected = logits[[1, 5, 3]] - logits[[1, 5, 0]];
    let about = |x: &Value, y: f64| (x.as_f64().unwrap() - y).abs() <= ROUNDING * logits.max_abs();
    let asked = "paths model --tokens data --sequence 1 --position -1 --logit 3-0";
    let json = s.json(&format!("{asked} --top 7"));
    assert!(about(&json["value"], expected));
    assert_eq!(
        (&json["position"], &json["logit"], &json["less"]),
        (&json!(5), &json!(3), &json!(0))
    );
    // 2 · 3² from the embeddings, (2 + 1 + 2 + 2) (3 + 1) from the layers, ln_final.b and b_U.
    assert_eq!(json["paths"], 48);
    let top = json["top"].as_array().unwrap();
    assert_eq!(top.len(), 7);
    let unlisted = &json["unlisted"];
    assert_eq!(unlisted["complete"], true);
    assert_eq!(unlisted["count"], 41);
    let listed: f64 = top.iter().map(|c| c["value"].as_f64().unwrap()).sum();
    assert!(about(&unlisted["together"], expected - listed));
    assert!(unlisted["rounding"].as_f64().unwrap() < 1e-9);
    let smallest = top[6]["value"].as_f64().unwrap().abs();
    assert!(unlisted["each"].as_f64().unwrap() <= smallest);

    let text = s.ok(&format!("{asked} --top 7"));
    for path in top {
        let path = path["path"].as_str().unwrap();
        assert!(text.contains(path), "{path} is not in {text}");
    }
    assert!(text.contains("The 41 others together add"), "{text}");
    assert!(
        s.ok(&format!("{asked} --top 48"))
            .contains("These are all.")
    );
    // Through the neurons as well none starts at an MLP: with levels of 2 heads and of neurons in turn, 2 paths become
    // 2 + 2 (2 + 1) + 3 = 11, 11 + 13 + 1 = 25, 25 + 2 (25 + 1) + 3 = 80, 80 + 82 + 1 = 163; and ln_final.b and b_U.
    let held = s.json(&format!("{asked} --through-neurons --top 165"));
    assert_eq!(held["paths"], 165);
    let all = held["top"].as_array().unwrap();
    let sum: f64 = all.iter().map(|c| c["value"].as_f64().unwrap()).sum();
    assert!(about(&json!(sum), expected), "{sum} {expected}");
    let paths = all.iter().map(|c| c["path"].as_str().unwrap());
    assert!(paths.clone().any(|p| p.contains(" → mlp 0 → 1.1")));
    assert!(paths.into_iter().all(|p| !p.starts_with("mlp")));
    let given_up = s.ok(&format!("{asked} --budget 0"));
    assert!(
        given_up.contains("the search was given up after 0 sets"),
        "{given_up}"
    );

    for by in ["order", "start"] {
        let json = s.json(&format!("{asked} --by {by}"));
        let sums = json["sums"].as_array().unwrap().iter();
        let sum: f64 = sums.map(|x| x["value"].as_f64().unwrap()).sum();
        assert!(
            (sum - expected).abs() <= ROUNDING * logits.max_abs(),
            "{by}"
        );
        assert_eq!(json.get("top"), None);
    }
    let heads = s.json(&format!("{asked} --by head"));
    assert_eq!(heads["sums"].as_array().unwrap().len(), 4);
    assert_eq!(heads["sums"][2]["of"], "1.0");

    let out = small_model()
        .run(&small_tokens(), Run::new().cache("*"))
        .unwrap();
    let score = out.cache[pathsum::Hook::AttnScores(1)][[1, 1, 5, 2]];
    let about = |x: &Value| (x.as_f64().unwrap() - score).abs() <= ROUNDING * (1.0 + score.abs());
    let json =
        s.json("paths model --tokens data --sequence 1 --position 5 --score 1.1 --key 2 --top 3");
    assert!(about(&json["score"]));
    for side in ["query_side", "key_side"] {
        assert!(about(&json[side]["total"]), "{side}");
        assert_eq!(json[side]["top"].as_array().unwrap().len(), 3);
        assert_eq!(json[side]["unlisted"]["complete"], true);
    }
    let asked = "attribute model --tokens data --sequence 1 --score 1.1 --query -1 --key 2";
    let json = s.json(&format!("{asked} --top 3 --out table"));
    assert!(about(&json["score"]) && about(&json["sum"]));
    let number = |of: &str| json[of].as_f64().unwrap();
    assert!((number("score") - number("sum")).abs() <= number("rounding"));
    assert_eq!(json["top"].as_array().unwrap().len(), 3);
    // Two embeddings, two heads, b_O, an MLP, ln1.b, and b_K.
    assert_eq!(json["by_key"].as_array().unwrap().len(), 8);
    assert_eq!(s.tensors("table").shape("value"), Some(&[8, 8][..]));
    let text = s.ok(asked);
    assert!(text.contains("the table's 64 pairs add up to"), "{text}");
    let neurons = s.json(&format!("{asked} --by neuron"));
    assert!(neurons["pairs"].as_u64() > json["pairs"].as_u64());
}

#[test]
fn paths_refuses_what_is_not_there() {
    let s = Scratch::new();
    let bad = "paths model --tokens data --position 0 --logit 5 => logit 5: this model's logits are 0..=4
        paths model --tokens data --position 6 --logit 0 => position 6: the sequence's positions are 0..=5, or -6..=-1
        paths model --tokens data --position -7 --logit 0 => position -7
        paths model --tokens data --position 0 --logit 0 --sequence 5 => sequence 5: the file's sequences are 0..=4
        paths model --tokens data --position 0 --logit x => expected a logit, as in 3
        paths model --tokens data --position 0 --logit 0-1-2 => expected a logit, as in 3
        paths model --tokens data --position 0 => --logit
        paths model --tokens data --position 0 --logit 0 --top 0 => ask for at least 1
        paths model --tokens data --position 0 --score 1.0 => --key
        paths model --tokens data --position 0 --score 2.0 --key 0 => head 2.0: this model has 2 layers of 2 heads
        paths model --tokens data --position 0 --score 1.0 --key 9 => position 9
        attribute model --tokens data => --logit
        attribute model --tokens data --score 1.0 --query 0 => --key
        attribute model --tokens data --score 2.0 --query 0 --key 0 => head 2.0: this model has 2 layers of 2 heads
        attribute model --tokens data --score 1.0 --query 0 --key 9 => position 9
        attribute model --tokens data --score 1.0 --query 0 --key 0 --by source => --by source
        attribute model --tokens data --logit 1 --top 3 => --score
        compose model --kind q --distance 2 => no rotary positions
        weights model --distance 2 => no rotary positions
        weights model --head 2.0 => head 2.0: this model has 2 layers of 2 heads
        weights model --head 1.0 --top 0 => --top 0
        weights model --circuit qk => --head
        weights model --head 1.0 --smallest => cannot be used with
        paths model --tokens data --position 0 --logit 0 --by layer => 'layer'";
    for (line, said) in table(bad) {
        s.bad(line, said);
    }
}
