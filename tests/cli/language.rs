//! Language models: text in and out, and what is wrong with their folders.

use crate::program::{PROGRAM, Scratch, WORDS, language_model, table, texts, tokenizer};
use pathsum::{Model, Tokens};
use serde_json::{Value, json};
use std::process::Command;

#[test]
fn text_goes_in_and_comes_out() {
    let s = Scratch::new();
    s.language_model("llama");
    let model = language_model();
    // What the tokenizer makes of it: the beginning, and the words.
    let ids = [0, 3, 8, 9];
    let output = s
        .command(&["run", "llama", "--prompt", "The cat sat", "--json"])
        .output();
    let (status, stdout, stderr) = texts(output);
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    let result: Value = serde_json::from_str(&stdout).unwrap();
    let own = &result["sequences"][0];
    assert_eq!(own["tokens"], json!(ids));
    let logits = model.logits(&Tokens::from_rows(&[ids])).unwrap();
    let row = logits.slice(&[0, 3]);
    let most = (0..row.len())
        .max_by(|&a, &b| row[a].total_cmp(&row[b]))
        .unwrap();
    assert_eq!(own["next"][0]["token"], json!(most));
    assert_eq!(own["next"].as_array().unwrap().len(), 10);

    // Of several lengths, each as if it were alone.
    let args = [
        "run",
        "llama",
        "--prompt",
        "The cat sat",
        "--prompt",
        "Once",
        "--json",
    ];
    let both: Value = serde_json::from_str(&texts(s.command(&args).output()).1).unwrap();
    assert_eq!(both["sequences"][0], *own);
    assert_eq!(both["sequences"][1]["tokens"], json!([0, 14]));

    let args = [
        "generate",
        "llama",
        "--prompt",
        "The cat sat",
        "-n",
        "5",
        "--json",
    ];
    let text: Value = serde_json::from_str(&texts(s.command(&args).output()).1).unwrap();
    let mut tokens = ids.to_vec();
    for token in text["tokens"].as_array().unwrap() {
        let logits = model
            .logits(&Tokens::from_rows(std::slice::from_ref(&tokens)))
            .unwrap();
        let row = logits.slice(&[0, tokens.len() - 1]);
        let most = (0..row.len())
            .max_by(|&a, &b| row[a].total_cmp(&row[b]))
            .unwrap();
        assert_eq!(token.as_i64(), Some(most as i64));
        tokens.push(most as i64);
    }

    let args = [
        "loss",
        "llama",
        "--prompt",
        "The cat sat",
        "--no-bos",
        "--json",
    ];
    let loss: Value = serde_json::from_str(&texts(s.command(&args).output()).1).unwrap();
    let logits = model.logits(&Tokens::from_rows(&[[3, 8, 9]])).unwrap();
    let surprise = |p: usize, token: usize| {
        let row = logits.slice(&[0, p]);
        row.iter().map(|x| x.exp()).sum::<f64>().ln() - row[token]
    };
    let expected = (surprise(0, 8) + surprise(1, 9)) / 2.0;
    assert!((loss["loss"].as_f64().unwrap() - expected).abs() < 1e-12);
    assert_eq!(
        loss["texts"][0]["words"][1],
        json!(format!(" {}", WORDS[8]))
    );
}

#[test]
fn a_dump_of_ones_own_agrees_and_a_changed_one_says_where() {
    let s = Scratch::new();
    s.language_model("llama");
    s.ok("cache llama --prompt cat --names * --out own");
    let own = s.json("diff llama own");
    assert_eq!(own["differ"], json!(0));
    // Queries without their bias.
    let right = language_model();
    let mut weights = right.weights().clone();
    weights.blocks[1].attn.b_Q.data_mut().fill(0.0);
    let model = Model::new(right.config().clone(), weights).unwrap();
    model
        .save_hugging_face(s.path("changed"), Some("llama"))
        .unwrap();
    s.write("changed/tokenizer.json", tokenizer().as_bytes());
    s.ok("cache changed --prompt cat --names * --out other");
    let (status, stdout, _) = texts(s.command(&["diff", "llama", "other", "--json"]).output());
    assert_eq!(status, Some(1));
    let result: Value = serde_json::from_str(&stdout).unwrap();
    let differ = |v: &&Value| v["error"].as_f64() > v["tolerance"].as_f64();
    let values = result["values"].as_array().unwrap();
    let names: Vec<&str> = values
        .iter()
        .filter(differ)
        .map(|v| v["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["blocks.1.attn.hook_q"]);
}

#[test]
fn formats_go_into_one_another_and_back() {
    let s = Scratch::new();
    s.language_model("llama");
    s.ok("convert llama lens");
    s.ok("convert lens back --to hugging_face");
    assert_eq!(
        Model::<f64>::load(s.path("back")).unwrap(),
        language_model()
    );
    s.ok("process llama processed --to llama");
    s.bad(
        "convert model gone --to hugging_face",
        "no family of Hugging Face's has a place for this model; gpt2:",
    );
    s.bad(
        "convert llama gone --to gpt2",
        "gpt2 has no place for this model:",
    );
    s.bad(
        "convert llama gone --to t5",
        "\"t5\" is no family of Hugging Face's, expected one of gpt2, llama",
    );
}

#[test]
fn what_is_wrong_with_a_text() {
    let s = Scratch::new();
    s.language_model("llama");
    s.language_model("torn");
    let whole = tokenizer();
    s.write("torn/tokenizer.json", &whole.as_bytes()[..whole.len() / 2]);
    s.write("empty.txt", b"");
    for (line, said) in table(
        "run model --prompt cat          => model: has no tokenizer, expected tokenizer.json, or vocab.json and merges.txt
         run llama                       => no sequences were given, expected --prompt TEXT
         run torn --prompt cat           => torn/tokenizer.json: is no sound tokenizer:
         run llama --text nowhere.txt    => nowhere.txt: No such file
         run llama --text empty.txt --no-bos => text 0 has no tokens
         run llama --prompt a --tokens data => '--prompt <TEXT>' cannot be used with '--tokens <FILE>'
         loss llama                      => no text was given, expected --text FILE or --prompt TEXT
         loss llama --prompt cat --no-bos => a text of 1 tokens has none to be foretold
         loss llama --prompt cat --window 33 => windows of 33 tokens, expected 2 to 32 (n_ctx)
         loss llama --prompt cat --stride 0 => windows that begin 0 tokens apart, expected 1 to 31
         generate llama --prompt a --temperature=-1 => expected a number that is not negative
         generate llama --prompt a --top-p 2 => expected a number above 0, at most 1
         diff llama nowhere              => nowhere: No such file
         diff llama llama/model.safetensors => llama/model.safetensors: unknown tensor `tokens`",
    ) {
        s.bad(line, said);
    }
    let long = vec!["cat"; 40].join(" ");
    s.bad_args(
        &["run", "llama", "--prompt", &long],
        "the sequences have 41 positions, this model takes 1 to 32",
    );
}

/// The folder `wrong`: the small language model with other fields.
fn with_fields(s: &Scratch, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    s.language_model("wrong");
    let mut fields: Value = serde_json::from_slice(&s.read("wrong/config.json")).unwrap();
    change(fields.as_object_mut().unwrap());
    s.write("wrong/config.json", fields.to_string().as_bytes());
}

#[test]
fn what_a_file_asks_for_and_is_not_covered_is_named() {
    let s = Scratch::new();
    for (field, said) in table(
        r#"model_type "t5"                      => field `model_type`: "t5" is not covered, expected one of gpt2, llama
           model_type "mixtral"                 => field `model_type`: "mixtral" is not covered
           architectures ["LlamaForQuestionAnswering"] => field `architectures`: "LlamaForQuestionAnswering" is not covered
           num_local_experts 8                  => field `num_local_experts`: 8 is not covered
           quantization_config {"bits":4}       => field `quantization_config`: {"bits":4} is not covered
           rope_scaling {"rope_type":"yarn"}    => field `rope_type`: "yarn" is not covered
           rope_scaling {"rope_type":"linear"}  => field `factor`: is missing
           hidden_act "relu6"                   => field `hidden_act`: "relu6" is not covered
           num_hidden_layers 1e12               => field `num_hidden_layers`: 1000000000000.0, expected a number of layers
           num_hidden_layers 1000000000000      => field `num_hidden_layers`: 1000000000000, expected a number of layers
           num_key_value_heads 3                => field `n_key_value_heads`: 3 does not divide n_heads, 2
           hidden_size 0                        => field `hidden_size`: 0, expected a whole number from 1"#,
    ) {
        let (field, value) = field.split_once(' ').unwrap();
        let value: Value = serde_json::from_str(value.trim()).unwrap();
        with_fields(&s, |fields| drop(fields.insert(field.into(), value)));
        s.bad("info wrong", &format!("wrong/config.json: config {said}"));
    }
    // A configuration of another family, and of another model of this one.
    with_fields(&s, |fields| {
        drop(fields.insert("model_type".into(), json!("qwen3")))
    });
    s.bad(
        "info wrong",
        "wrong/config.json: config field `architectures`: \"LlamaForCausalLM\" is not covered",
    );
    with_fields(&s, |fields| {
        fields.insert("model_type".into(), json!("qwen3"));
        fields.remove("architectures");
    });
    s.bad(
        "info wrong",
        "wrong/model.safetensors: tensor `model.layers.0.self_attn.",
    );
    with_fields(&s, |fields| {
        drop(fields.insert("num_hidden_layers".into(), json!(3)))
    });
    s.bad(
        "info wrong",
        "tensor `model.layers.2.input_layernorm.weight` is missing, expected shape [8]",
    );
    with_fields(&s, |fields| {
        drop(fields.insert("intermediate_size".into(), json!(16)))
    });
    s.bad(
        "info wrong",
        "tensor `model.layers.0.mlp.gate_proj.weight` has shape [12, 8], expected [16, 8]",
    );
    with_fields(&s, |fields| {
        drop(fields.insert("num_hidden_layers".into(), json!(1)))
    });
    s.bad("info wrong", "tensor `model.layers.1.");
}

#[test]
fn damaged_shards() {
    let s = Scratch::new();
    s.language_model("shards");
    let names: Vec<String> = s
        .tensors("shards/model.safetensors")
        .names()
        .map(String::from)
        .collect();
    std::fs::rename(
        s.path("shards/model.safetensors"),
        s.path("shards/one.safetensors"),
    )
    .unwrap();
    let index = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        let map: Value = names
            .iter()
            .map(|n| (n.clone(), json!("one.safetensors")))
            .collect();
        let mut map = map.as_object().unwrap().clone();
        change(&mut map);
        let text = json!({"metadata": {}, "weight_map": map}).to_string();
        s.write("shards/model.safetensors.index.json", text.as_bytes());
    };
    index(&|_| {});
    assert_eq!(
        Model::<f64>::load(s.path("shards")).unwrap(),
        language_model()
    );
    let name = names[0].clone();
    let own = |value: Value| {
        let name = name.clone();
        move |map: &mut serde_json::Map<String, Value>| {
            drop(map.insert(name.clone(), value.clone()))
        }
    };
    index(&own(json!("two.safetensors")));
    s.bad(
        "info shards",
        "shards/model.safetensors.index.json: names the file two.safetensors, which is not there",
    );
    index(&own(json!("../config.json")));
    s.bad(
        "info shards",
        "is in \"../config.json\", expected a file's name",
    );
    index(&own(json!(7)));
    s.bad("info shards", "is in 7, expected a file's name");
    index(&|map| drop(map.insert("no.such".into(), json!("one.safetensors"))));
    s.bad(
        "info shards",
        "says that one.safetensors holds `no.such`, which it does not",
    );
    s.write(
        "shards/model.safetensors.index.json",
        b"{\"weight_map\": []}",
    );
    s.bad("info shards", "has no object `weight_map`");
    s.write("shards/model.safetensors.index.json", b"{");
    s.bad(
        "info shards",
        "shards/model.safetensors.index.json: not JSON",
    );
}

#[test]
fn standard_output_has_the_text_and_nothing_else() {
    let s = Scratch::new();
    s.language_model("llama");
    let mut command = Command::new(PROGRAM);
    command.args(["generate", "llama", "--prompt", "The cat", "-n", "3"]);
    let (status, stdout, stderr) = texts(command.current_dir(s.0.path()).output());
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    assert!(
        stdout.starts_with("The cat") && stdout.ends_with('\n'),
        "{stdout:?}"
    );
}

#[test]
fn a_page_of_a_prompt_has_its_words_and_is_of_one() {
    let s = Scratch::new();
    s.language_model("llama");
    let args = [
        "report",
        "llama",
        "--prompt",
        "The cat sat",
        "--out",
        "page.html",
        "--json",
    ];
    let (status, stdout, stderr) = texts(s.command(&args).output());
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    let result: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(result["tokens"], json!([0, 3, 8, 9]));
    let page = String::from_utf8(s.read("page.html")).unwrap();
    assert_eq!(result["bytes"], json!(page.len()));
    assert!(page.contains("<h1 class=\"prompt\">The cat sat</h1>"));
    // The likeliest of all is what `run` says too.
    let run = ["run", "llama", "--prompt", "The cat sat", "--json"];
    let run: Value = serde_json::from_str(&texts(s.command(&run).output()).1).unwrap();
    let next = run["sequences"][0]["next"][0]["word"].as_str().unwrap();
    let said = result["summary"][0].as_str().unwrap();
    assert!(said.contains(&format!("position 3 is `{next}`")), "{said}");
    for (line, said) in table(
        "report llama --prompt a --prompt b  => --prompt \"b\": one sequence is looked at here
         report llama                        => llama: of a model a page shows a prompt, expected --prompt TEXT
         report nothing --answer cat         => --answer: is for a model and a prompt
         report llama --prompt cat --position 2 => position 2: the sequence's are 0..=1
         report model --prompt cat           => model: has no tokenizer
         report llama --prompt cat --answer= => --answer \"\": the text has no tokens, expected one",
    ) {
        s.bad(line, said);
    }
    s.bad(
        "patch llama --clean-prompt cat --corrupt-prompt sat,mat --metric kl",
        "--corrupt-prompt: expected as many texts as clean ones, of as many tokens; the first has …, the clean one 2 (",
    );
    s.bad(
        "ablate llama --prompt cat --metric kl",
        "--how mean: of one sequence that is its own value, and nothing changes",
    );
    // Where there is no tokenizer, numbers are words; and one sequence of a file is looked at.
    s.ok("report model --tokens data --sequence 1 --answer 4 --out other.html");
    let page = String::from_utf8(s.read("other.html")).unwrap();
    assert!(page.contains("The answer that is asked for"));
    // A model of a task is asked in its words, and where it answers; and the page carries it.
    s.ok("report fixture:brackets --sequence (()) --out toy.html");
    let page = String::from_utf8(s.read("toy.html")).unwrap();
    let said = "The likeliest answer after <code> [start]</code> at position 0 in the text is <code>balanced</code>";
    assert!(page.contains(said));
    assert!(page.contains("<section id=\"change\">") && page.contains("'wasm-unsafe-eval'"));
}

#[test]
fn positions_and_logits_are_words_where_there_is_a_tokenizer() {
    let s = Scratch::new();
    s.language_model("llama");
    let ok = |args: &[&str]| {
        let (status, stdout, stderr) = texts(s.command(args).output());
        assert_eq!((status, stderr.as_str()), (Some(0), ""), "{args:?}");
        stdout
    };
    let prompt = ["--prompt", "The cat sat"];
    let of = |command: &str, rest: &[&str]| ok(&[&[command, "llama"], &prompt[..], rest].concat());
    let said = of("attribute", &["--logit", "mat-cat", "--by", "source"]);
    assert!(
        said.starts_with(
            "logit 12 \" mat\" - 8 \" cat\" at position 3 \" sat\" of 1 sequence: mean"
        ),
        "{said}"
    );
    assert!(said.contains(" from 2 \" cat\""), "{said}");
    let by_number = of("attribute", &["--logit", "12-8", "--by", "source"]);
    assert_eq!(said, by_number);
    let said = of("paths", &["--position", "-1", "--logit", "mat"]);
    assert!(
        said.starts_with("logit 12 \" mat\" at position 3 \" sat\""),
        "{said}"
    );
    let said = of(
        "paths",
        &["--position", "2", "--key", "1", "--score", "1.0"],
    );
    assert!(
        said.contains("query 2 \" cat\" and key 1 \" The\""),
        "{said}"
    );
    let said = of(
        "ablate",
        &[
            "--metric",
            "logit_diff:mat-cat",
            "--site",
            "z",
            "--by",
            "position",
            "--how",
            "zero",
        ],
    );
    assert!(
        said.starts_with("logit_diff:12-8 at position 3 \" sat\""),
        "{said}"
    );
    assert!(said.contains("2 \" cat\""), "{said}");
    let said = of("eval", &["pattern[1.0]"]);
    assert!(said.contains("2 \" cat\""), "{said}");
    let said = ok(&["eval", "llama", "W_E W_U", "--as", "top=1"]);
    assert!(said.contains("3 \" The\""), "{said}");
    // Texts in the place of files; the corrupted run's words beside the clean one's.
    let said = ok(&[
        "patch",
        "llama",
        "--clean-prompt",
        "The cat sat",
        "--corrupt-prompt",
        "The mat sat",
        "--metric",
        "logit_diff:mat-cat",
        "--site",
        "resid_pre",
    ]);
    assert!(said.contains("2 \" cat/ mat\""), "{said}");
}

#[test]
fn what_the_last_layer_would_say_is_what_the_model_says() {
    let s = Scratch::new();
    s.language_model("llama");
    let json = |args: &[&str]| -> Value {
        let (status, stdout, stderr) = texts(s.command(args).output());
        assert_eq!((status, stderr.as_str()), (Some(0), ""), "{args:?}");
        serde_json::from_str(&stdout).unwrap()
    };
    let lens = json(&["lens", "llama", "--prompt", "The cat sat", "--json"]);
    let run = json(&["run", "llama", "--prompt", "The cat sat", "--json"]);
    let places = lens["sequences"][0]["places"].as_array().unwrap();
    assert_eq!(places.len(), 3);
    assert_eq!(places[2]["hook"], "blocks.1.hook_resid_post");
    let next = &run["sequences"][0]["next"][0];
    for (own, there) in [(&places[2]["top"][0], next), (&places[2]["answer"], next)] {
        assert_eq!(own["token"], there["token"]);
        let logits = [own, there].map(|v| v["logit"].as_f64().unwrap());
        assert!((logits[0] - logits[1]).abs() < 1e-12);
    }
    let heads = json(&[
        "heads",
        "fixture:induction",
        "--repeated",
        "8",
        "--sort",
        "induction",
        "--json",
    ]);
    let first = &heads["heads"][0];
    assert_eq!(first["head"], "1.0");
    assert!(first["induction"].as_f64().unwrap() > 0.99);
    let (status, _, stderr) = texts(
        s.command(&["lens", "llama", "--prompt", "a", "--at", "no"])
            .output(),
    );
    assert_eq!(status, Some(2));
    assert!(stderr.contains("'no' for '--at"), "{stderr}");
}
