//! `info`, `convert`, `process`, `run`, `cache` and `check`.

use crate::program::{
    ROUNDING, Scratch, assert_close, config, integers, random_model, small_model, small_tokens,
    texts, tokens_file, torch_model,
};
use pathsum::fixture::Fixture;
use pathsum::format::layout;
use pathsum::model::process::{Processed, Processing};
use pathsum::tensor::Dtype;
use pathsum::{Config, Model, Run, Tensor, TensorFile, Tokens, fixture};
use serde_json::{Value, json};

#[test]
fn info_shows_sizes_parameters_and_hooks() {
    let s = Scratch::new();
    let induction = Fixture::Induction.load::<f64>().config().clone();
    let small = small_model().config().clone();
    for (name, config) in [("fixture:induction", &induction), ("model", &small)] {
        let json = s.json(&format!("info {name}"));
        let fields: Value = serde_json::from_str(&config.to_json()).unwrap();
        assert_eq!(json["config"], fields);
        let listed = |key: &str| -> Vec<String> {
            let all = json[key].as_array().unwrap().iter();
            all.map(|x| x["name"].as_str().unwrap().to_string())
                .collect()
        };
        let hooks: Vec<String> = config.hooks().iter().map(|h| h.to_string()).collect();
        assert_eq!(listed("hooks"), hooks);
        let layout = layout(config);
        let names: Vec<String> = layout.iter().map(|(n, _)| n.clone()).collect();
        assert_eq!(listed("tensors"), names);
        let sizes = layout.iter().map(|(_, s)| s.iter().product::<usize>());
        let count: usize = sizes.sum();
        assert_eq!(json["parameters"], count);

        let text = s.ok(&format!("info {name}"));
        let fields = fields.as_object().unwrap().keys();
        let in_all = format!("{count} parameters in all");
        for word in hooks.iter().chain(&names).chain(fields).chain([&in_all]) {
            assert!(text.contains(word), "{word} is not in {text}");
        }
    }
    let text = s.ok("info model/");
    for shape in ["[2, 8, 4]", "[batch, pos, 2, 4]", "[batch, 2, pos, pos]"] {
        assert!(text.contains(shape), "{shape} is not in {text}");
    }
}

/// TransformerLens's own state dict, held to TransformerLens's own logits.
#[cfg(feature = "torch")]
#[test]
fn convert_reads_a_state_dict_of_transformer_lens() {
    let s = Scratch::new();
    let said = s.ok("convert model.pt converted");
    assert_eq!(said, "wrote converted in f32\n");
    let reference = TensorFile::open(torch_model("logits.safetensors")).unwrap();
    let expected = reference.float::<f64>("logits").unwrap();
    let tokens = Tokens::from_file(&reference).unwrap();
    s.write("tokens", &tokens_file(&tokens));
    // The folder, and the state dict itself: with the configuration beside it, and with one named.
    s.write("lone/model.pt", &s.read("model.pt"));
    for model in [
        "converted",
        "model.pt",
        "lone/model.pt --config config.json",
    ] {
        s.ok(&format!("run {model} --tokens tokens --out l"));
        assert_close(&s.logits("l"), &expected, ROUNDING);
    }

    // Its buffers (the mask, IGNORE) are no weights, and its values are those of the file.
    let file = s.tensors("converted/model.safetensors");
    assert!(file.names().all(|n| !n.contains("mask")));
    assert!(file.names().all(|n| file.dtype(n) == Some(Dtype::F32)));
    let config = Config::open(s.path("config.json")).unwrap();
    let direct = Model::<f32>::load_with_config(s.path("model.pt"), config).unwrap();
    assert_eq!(Model::<f32>::load(s.path("converted")).unwrap(), direct);

    let json = s.json("convert model.pt wide --dtype f64");
    assert_eq!(json, json!({"out": "wide", "dtype": "f64"}));
    let wide = s.tensors("wide/model.safetensors");
    assert!(wide.names().all(|n| wide.dtype(n) == Some(Dtype::F64)));
    assert_eq!(Model::<f32>::load(s.path("wide")).unwrap(), direct);
}

#[test]
fn process_takes_the_steps_asked_for() {
    let s = Scratch::new();
    let tokens = small_tokens();
    for (model, flag, steps) in [
        ("model", "", &Processing::DEFAULT[..]),
        (
            "model",
            "--steps refactor_factored_attn_matrices",
            &[Processing::RefactorFactoredAttnMatrices],
        ),
        (
            "model",
            "--steps center_unembed,fold_layer_norm",
            &[Processing::CenterUnembed, Processing::FoldLayerNorm],
        ),
        (
            "fixture:induction",
            "--steps fold_ln",
            &[Processing::FoldLayerNorm],
        ),
    ] {
        let _ = std::fs::remove_dir_all(s.path("made"));
        let text = s.ok(&format!("process {model} made/here {flag}"));
        let done = steps.iter().map(|step| format!("{step}: done\n"));
        let lines = done.chain(["wrote made/here in f64\n".to_string()]);
        assert_eq!(text, lines.collect::<String>());

        let before = match model {
            "model" => small_model(),
            _ => Fixture::Induction.load(),
        };
        let mut expected = before.clone();
        for step in steps {
            assert_eq!(step.apply(&mut expected).unwrap(), Processed::Done);
        }
        // The weights of the library, in every bit, and the configuration it began with.
        let found = Model::<f64>::load(s.path("made/here")).unwrap();
        assert_eq!(found, expected);
        assert_eq!(found.config(), before.config());
        let entries = std::fs::read_dir(s.path("made/here")).unwrap();
        let mut files: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
        files.sort();
        assert_eq!(files, ["config.json", "model.safetensors"]);
        if model == "model" && !steps.contains(&Processing::CenterUnembed) {
            let (found, before) = (found.logits(&tokens), before.logits(&tokens));
            assert_close(&found.unwrap(), &before.unwrap(), ROUNDING);
        }
        // What was written is a model like any other.
        s.ok("check made/here --quiet");
    }
    // In f32 from the start, and silent.
    assert_eq!(s.ok("process model narrow --dtype f32 --quiet"), "");
    let file = s.tensors("narrow/model.safetensors");
    assert!(file.names().all(|n| file.dtype(n) == Some(Dtype::F32)));
}

#[test]
fn process_says_which_steps_do_not_apply() {
    let s = Scratch::new();
    let bare = config(json!({"normalization_type": null}));
    let model = random_model::<f64>(&bare);
    model.save(s.path("bare")).unwrap();
    let text = s.ok("process bare made");
    for line in [
        "fold_layer_norm: skipped: the model has no LayerNorm",
        "center_writing_weights: skipped: the model has no LayerNorm: the stream's mean is read",
        "center_unembed: done",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
    }
    let json = s.json("process bare made");
    let (first, third) = (&json["steps"][0], &json["steps"][2]);
    let skipped = "the model has no LayerNorm";
    let skipped = json!({"step": "fold_layer_norm", "skipped": skipped, "left_alone": null});
    assert_eq!(*first, skipped);
    let done = json!({"step": "center_unembed", "skipped": null, "left_alone": null});
    assert_eq!(*third, done);
    let made = Model::<f64>::load(s.path("made")).unwrap();
    assert_eq!(made.config(), model.config());
}

#[test]
fn process_may_write_over_its_own_model() {
    let s = Scratch::new();
    s.ok("process model model --steps center_unembed");
    let mut expected = small_model();
    Processing::CenterUnembed.apply(&mut expected).unwrap();
    assert_eq!(Model::<f64>::load(s.path("model")).unwrap(), expected);
}

#[test]
fn run_writes_the_logits() {
    let s = Scratch::new();
    let expected = small_model().logits(&small_tokens()).unwrap();
    // An output replaces what was there.
    s.write("l", b"what was there");
    const RUN: &str = "run model --tokens data --out l";
    assert_eq!(s.ok(RUN), "wrote logits [5, 6, 5] in f64 to l\n");
    let file = s.tensors("l");
    assert_eq!(file.names().collect::<Vec<_>>(), ["logits"]);
    assert_eq!(file.dtype("logits"), Some(Dtype::F64));
    assert_close(&s.logits("l"), &expected, ROUNDING);

    let json = json!({"logits": [5, 6, 5], "out": "l", "dtype": "f64"});
    assert_eq!(s.json(RUN), json);
    assert_eq!(s.ok(&format!("{RUN} --quiet")), "");
    assert_eq!(s.ok(&format!("{RUN} -q")), "");
    // Asked for both, JSON is what was asked for.
    assert_eq!(s.json(&format!("{RUN} -q")), json);

    for threads in [1, 2, 5] {
        s.ok(&format!("{RUN} --threads {threads}"));
        assert_close(&s.logits("l"), &expected, ROUNDING);
    }

    // The first sequences, not any; and all where there are fewer.
    s.ok(&format!("{RUN} --limit 2"));
    let first = expected.data()[..2 * 6 * 5].to_vec();
    let first = Tensor::from_vec(&[2, 6, 5], first);
    assert_close(&s.logits("l"), &first, ROUNDING);
    s.ok(&format!("{RUN} --limit 500"));
    assert_close(&s.logits("l"), &expected, ROUNDING);

    s.ok(&format!("{RUN} --dtype f32"));
    assert_eq!(s.tensors("l").dtype("logits"), Some(Dtype::F32));
    assert_close(&s.logits("l"), &expected, 100.0 * f32::EPSILON as f64);

    // One sequence may be [pos], and shorter than the context.
    s.write("one", &integers("tokens", &[2], &[6, 0]));
    s.ok("run model --tokens one --out l");
    assert_eq!(s.logits("l").shape(), [1, 2, 5]);

    // Embedded models run as any other.
    let tokens = fixture::repeated_sequences(2, 4, 0);
    s.write("repeated", &tokens_file(&tokens));
    s.ok("run fixture:induction --tokens repeated --out l");
    let expected = Fixture::Induction.load().logits(&tokens).unwrap();
    assert_close(&s.logits("l"), &expected, ROUNDING);
}

#[test]
fn cache_writes_the_hooks_asked_for() {
    let s = Scratch::new();
    let run = Run::new().cache("*");
    let out = small_model().run(&small_tokens(), run).unwrap();
    let of = |covered: &dyn Fn(&str) -> bool| -> Vec<String> {
        let all = out.cache.iter().map(|(h, _)| h.to_string());
        all.filter(|n| covered(n)).collect()
    };
    for (patterns, hooks) in [
        ("hook_embed", of(&|n| n == "hook_embed")),
        ("*", of(&|_| true)),
        (
            "blocks.1.attn.* hook_embed",
            of(&|n| n.starts_with("blocks.1.attn.") || n == "hook_embed"),
        ),
        ("blocks.?.hook_resid_*", of(&|n| n.contains(".hook_resid_"))),
        // Asked for twice, written once.
        (
            "*.hook_z blocks.0.attn.hook_z",
            of(&|n| n.ends_with(".hook_z")),
        ),
    ] {
        let json = s.json(&format!(
            "cache model --tokens data --out c --names {patterns}"
        ));
        let listed = json["hooks"].as_array().unwrap().iter();
        let listed: Vec<&str> = listed.map(|h| h["name"].as_str().unwrap()).collect();
        assert_eq!(listed, hooks);
        let file = s.tensors("c");
        let mut names: Vec<&str> = hooks.iter().map(String::as_str).collect();
        names.extend(["logits", "tokens"]);
        names.sort_unstable();
        assert_eq!(file.names().collect::<Vec<_>>(), names);
        for name in &hooks {
            let expected = out.cache.by_name(name).unwrap();
            let found = file.float::<f64>(name).unwrap();
            assert_eq!(found.shape(), expected.shape(), "{name}");
            for (f, e) in found.data().iter().zip(expected.data()) {
                let near = (f - e).abs() <= ROUNDING * e.abs().max(1.0);
                // Masked scores are -inf.
                assert!(f == e || near, "{name}: {f} where {e} is meant");
            }
        }
        assert_close(&s.logits("c"), &out.logits, ROUNDING);
    }
    let text = s.ok("cache model --tokens data --out c --names *.hook_z --limit 1 --dtype f32");
    assert_eq!(text, "wrote 2 hooks and logits in f32 to c\n");
    let file = s.tensors("c");
    const Z: &str = "blocks.1.attn.hook_z";
    assert_eq!(file.shape(Z), Some(&[1, 6, 2, 4][..]));
    assert_eq!(file.dtype(Z), Some(Dtype::F32));
    let text = s.ok("cache model --tokens data --out c --names *.hook_z --quiet");
    assert_eq!(text, "");
}

#[test]
fn check_says_what_holds() {
    let s = Scratch::new();
    for (model, neurons) in [("fixture:induction", "not applicable"), ("model", "holds")] {
        for dtype in ["f64", "f32"] {
            let json = s.json(&format!("check {model} --dtype {dtype}"));
            assert_eq!(json["model"], model);
            assert_eq!(json["dtype"], dtype);
            assert_eq!(json["refuted"], 0);
            assert_eq!(json["tokens"]["source"], "random");
            let findings = json["findings"].as_array().unwrap();
            assert!(findings.len() > 20);
            let verdict = |id: &str| {
                let finding = findings.iter().find(|f| f["id"] == id);
                finding.unwrap_or_else(|| panic!("no {id}"))["verdict"].clone()
            };
            assert_eq!(verdict("residual_sum"), "holds");
            assert_eq!(verdict("fold_layer_norm"), "holds");
            assert_eq!(verdict("neurons"), neurons);
            for f in findings.iter().filter(|f| f["verdict"] == "holds") {
                assert!(f["compared"].as_u64().unwrap() > 0, "{f}");
                assert!(f["ratio"].as_f64().unwrap() <= 1.0, "{f}");
            }
        }
    }
    let text = s.ok("check model");
    let first = "model in f64, 16 random sequences of 6 tokens\n";
    assert!(text.starts_with(first), "{text}");
    // Neither token types, nor what comes between the unembedding and the logits.
    let last = " hold, 0 refuted, 2 not applicable\n";
    assert!(text.ends_with(last), "{text}");
    let text = s.ok("check fixture:induction");
    let line = "not applicable: neurons: the model has no MLPs";
    assert!(text.lines().any(|l| l == line), "{text}");
    assert_eq!(s.ok("check model --quiet --threads 1"), "");

    let tokens = |line: &str| s.json(line)["tokens"].clone();
    assert_eq!(
        tokens("check model --limit 3"),
        json!({"source": "random", "batch": 3, "pos": 6})
    );
    assert_eq!(
        tokens("check model --tokens data"),
        json!({"source": "given", "batch": 5, "pos": 6})
    );
    assert_eq!(
        tokens("check model --tokens data --limit 2"),
        json!({"source": "given", "batch": 2, "pos": 6})
    );
}

#[test]
fn check_refutes_a_model_with_a_nan_and_says_where() {
    let s = Scratch::new();
    for (tensor, at, id, place) in [
        ("unembed.b_U", 2, "direct_attribution", "logits[0, 0, 2]"),
        (
            "blocks.1.attn.b_Q",
            5,
            "projections",
            "q[1.1][0, 1] of sequence 0",
        ),
        (
            "blocks.0.mlp.b_in",
            0,
            "neurons",
            "pre[0][0, 0] of sequence 0",
        ),
    ] {
        s.wrong_tensors(|tensors| {
            tensors.get_mut(tensor).unwrap().data_mut()[at] = f64::NAN;
        });
        for dtype in ["f64", "f32"] {
            let args = ["check", "wrong", "--dtype", dtype];
            let (status, stdout, stderr) = texts(s.command(&args).output());
            assert_eq!((status, stderr.as_str()), (Some(1), ""), "{stdout}");
            let line =
                format!("refuted: {id}: at {place} the left side is NaN, the right side NaN");
            assert!(stdout.lines().any(|l| l == line), "no `{line}` in {stdout}");

            let (status, stdout, stderr) = texts(s.command(&args).arg("--json").output());
            assert_eq!((status, stderr.as_str()), (Some(1), ""), "{stdout}");
            let json: Value = serde_json::from_str(&stdout).unwrap();
            let findings = json["findings"].as_array().unwrap();
            let finding = findings.iter().find(|f| f["id"] == id).unwrap();
            assert_eq!(finding["verdict"], "refuted");
            assert_eq!(finding["place"], place);
            let refuted = findings.iter().filter(|f| f["verdict"] == "refuted");
            assert_eq!(json["refuted"], refuted.count());
        }
        // Silent, it still says so by its status.
        let silent = texts(s.command(&["check", "wrong", "--quiet"]).output());
        assert_eq!(silent, (Some(1), String::new(), String::new()));
    }
}
