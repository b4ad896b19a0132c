//! The program, what it is run on, and what it may say.

use pathsum::study::{Chart, ChartAxis, Conclusion, HeatMap, Picture, Scale, Story};
use pathsum::{Config, Model, Scalar, Tensor, TensorFile, Tokens, Weights, study};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_pathsum");
pub const SUBCOMMANDS: [&str; 33] = [
    "info",
    "convert",
    "process",
    "run",
    "generate",
    "loss",
    "lens",
    "heads",
    "cache",
    "embed",
    "check",
    "certify",
    "diff",
    "eval",
    "plan",
    "prove",
    "compose",
    "weights",
    "bilinear",
    "paths",
    "report",
    "ablate",
    "patch",
    "edges",
    "circuit",
    "merge",
    "attribute",
    "task",
    "score",
    "study",
    "train",
    "completions",
    "man",
];

/// The one whose examples train models for a minute and more.
pub const LONG: &str = "train";

/// How far two ways to compute the same logits may be apart in f64, relative to the largest: the models
/// here have a few hundred operations a logit.
pub const ROUNDING: f64 = 1e-12;

// ---- Models and files

/// A model with everything that a model can have, small.
pub const CONFIG: &str = r#"{"n_layers": 2, "d_model": 8, "n_ctx": 6, "d_head": 4, "n_heads": 2, "d_mlp": 12,
    "act_fn": "gelu_new", "d_vocab": 7, "d_vocab_out": 5}"#;

/// [`CONFIG`] with other values for some fields; those that are to be `"absent"` are left out.
pub fn config(changes: Value) -> String {
    let mut fields: Value = serde_json::from_str(CONFIG).unwrap();
    let fields = fields.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if value == "absent" {
            fields.remove(name).unwrap();
        } else {
            fields.insert(name.clone(), value.clone());
        }
    }
    json!(fields).to_string()
}

pub fn random_model<T: Scalar>(config: &str) -> Model<T> {
    let config = Config::from_json(config).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let weights = Weights::build(&config, |_, shape| {
        Ok(Tensor::from_fn(shape, |_| {
            // Values of f32, so that a checkpoint of either precision holds them all.
            T::from_f64(rng.random_range(-0.5f32..0.5) as f64)
        }))
    });
    Model::new(config, weights.unwrap()).unwrap()
}

/// The words that the small language model knows, by their tokens.
pub const WORDS: [&str; 18] = [
    "<s>", "</s>", "[UNK]", "The", "capital", "of", "France", "is", "cat", "sat", "on", "the",
    "mat", ".", "Once", "upon", "a", "time",
];

/// A small LLaMA over [`WORDS`] and some tokens without a word.
pub fn language_model() -> Model<f64> {
    llama(
        r#"{"model_type": "llama", "vocab_size": 24, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32, "attention_bias": true,
            "mlp_bias": true, "rope_theta": 100.0}"#,
    )
}

/// A random LLaMA that can be written to a folder.
pub fn llama(config: &str) -> Model<f64> {
    let model = random_model(config);
    // Its files have no place for a bias of the logits.
    let mut weights: Weights<f64> = model.weights().clone();
    weights.b_U.data_mut().fill(0.0);
    Model::new(model.config().clone(), weights).unwrap()
}

/// A tokenizer that splits at blanks, and begins with `<s>`.
pub fn tokenizer() -> String {
    let vocab: BTreeMap<&str, usize> = WORDS.iter().enumerate().map(|(i, w)| (*w, i)).collect();
    let added = [(0, "<s>"), (1, "</s>"), (2, "[UNK]")].map(|(id, content)| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    });
    let begin = json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
    let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, text("A")], "pair": [begin, text("A"), text("B")],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
        },
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
    })
    .to_string()
}

pub fn small_model() -> Model<f64> {
    random_model(CONFIG)
}

pub fn small_tokens() -> Tokens {
    Tokens::random(small_model().config(), 5, 3)
}

/// A safetensors file of one tensor.
pub fn one_tensor(name: &str, dtype: safetensors::Dtype, shape: &[usize], bytes: &[u8]) -> Vec<u8> {
    let view = TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
    safetensors::serialize([(name, view)], None).unwrap()
}

pub fn integers(name: &str, shape: &[usize], values: &[i64]) -> Vec<u8> {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    one_tensor(name, safetensors::Dtype::I64, shape, &bytes)
}

pub fn tokens_file(tokens: &Tokens) -> Vec<u8> {
    integers("tokens", &[tokens.batch(), tokens.pos()], tokens.ids())
}

/// Tokens that are all among the small model's classes.
pub fn class_tokens() -> Tokens {
    let few = config(json!({"d_vocab": 5}));
    Tokens::random(&Config::from_json(&few).unwrap(), 5, 0)
}

/// Labels of the small model's classes.
pub const LABELS: [i64; 5] = [3, 0, 4, 1, 3];

/// Tokens, and [`LABELS`] under a name.
pub fn labelled(tokens: &Tokens) -> Vec<u8> {
    with_labels(tokens, &LABELS)
}

pub fn with_labels(tokens: &Tokens, labels: &[i64]) -> Vec<u8> {
    let bytes =
        |values: &[i64]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    let (ids, classes) = (bytes(tokens.ids()), bytes(labels));
    let view = |shape: &[usize], bytes| {
        TensorView::new(safetensors::Dtype::I64, shape.to_vec(), bytes).unwrap()
    };
    let tensors = [
        ("tokens", view(&[tokens.batch(), tokens.pos()], &ids)),
        ("is_palindrome", view(&[labels.len()], &classes)),
    ];
    safetensors::serialize(tensors, None).unwrap()
}

/// A file of the model that TransformerLens made: `tests/data/torch/model/make.py` says how.
pub fn torch_model(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/data/torch/model").join(name)
}

#[track_caller]
pub fn assert_close(found: &Tensor<f64>, expected: &Tensor<f64>, tolerance: f64) {
    assert_eq!(found.shape(), expected.shape());
    let size = expected.data().iter().fold(0f64, |m, x| m.max(x.abs()));
    assert!(size > 0.0 && size.is_finite());
    for (f, e) in found.data().iter().zip(expected.data()) {
        assert!((f - e).abs() <= tolerance * size, "{f} where {e} is meant");
    }
}

// ---- Running the program

/// A folder in which the program runs, with the folder `model` and its `data`, and with a state dict
/// of TransformerLens's, `model.pt` and `config.json`.
pub struct Scratch(pub tempfile::TempDir);

pub type Contents = BTreeMap<PathBuf, Option<Vec<u8>>>;

impl Scratch {
    pub fn new() -> Self {
        let s = Scratch(tempfile::tempdir().unwrap());
        small_model().save(s.path("model")).unwrap();
        s.write("data", &tokens_file(&small_tokens()));
        for name in ["model.pt", "config.json"] {
            s.write(name, &std::fs::read(torch_model(name)).unwrap());
        }
        s
    }

    /// A folder with the small language model in Hugging Face's layout, and its tokenizer.
    pub fn language_model(&self, name: &str) {
        let family = Some("llama");
        language_model()
            .save_hugging_face(self.path(name), family)
            .unwrap();
        self.write(&format!("{name}/tokenizer.json"), tokenizer().as_bytes());
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// Every file of the folder with its bytes, and every folder in it with none.
    pub fn contents(&self) -> Contents {
        fn add(folder: &Path, all: &mut Contents) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    add(&path, all);
                    all.insert(path, None);
                } else {
                    let bytes = std::fs::read(&path).unwrap();
                    all.insert(path, Some(bytes));
                }
            }
        }
        let mut all = Contents::new();
        add(self.0.path(), &mut all);
        all
    }

    #[track_caller]
    pub fn assert_unchanged(&self, before: &Contents, what: &str) {
        let after = self.contents();
        let paths = |all: &Contents| all.keys().cloned().collect::<Vec<_>>();
        assert_eq!(paths(before), paths(&after), "{what}: other files");
        for (path, bytes) in before {
            assert!(after[path] == *bytes, "{what} changed {}", path.display());
        }
    }

    /// The folder `wrong`: the weights of `model` with another configuration.
    pub fn wrong_config(&self, config: &str) {
        let weights = self.read("model/model.safetensors");
        self.write("wrong/model.safetensors", &weights);
        self.write("wrong/config.json", config.as_bytes());
    }

    /// The folder `wrong`: the configuration of `model` with other tensors.
    pub fn wrong_tensors(&self, change: impl FnOnce(&mut BTreeMap<String, Tensor<f64>>)) {
        let model = small_model();
        let tensors = model.weights().state_dict().into_iter();
        let mut tensors = tensors.map(|(n, t)| (n, t.into_owned())).collect();
        change(&mut tensors);
        self.wrong_config(CONFIG);
        let named = tensors.iter().map(|(n, t)| (n.clone(), t));
        pathsum::write_safetensors(self.path("wrong/model.safetensors"), named).unwrap();
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(args).current_dir(self.0.path());
        // The program's own defaults, whatever the machine that tests it says.
        for name in ["RAYON_NUM_THREADS", "RUST_BACKTRACE", "COLUMNS"] {
            command.env_remove(name);
        }
        command
    }

    /// What a command line without quotes prints where all is well: nothing of it on stderr.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        let args: Vec<&str> = line.split_whitespace().collect();
        let (status, stdout, stderr) = texts(self.command(&args).output());
        assert_eq!((status, stderr.as_str()), (Some(0), ""), "{line}");
        assert!(!stdout.contains('\x1b'), "colours in a pipe: {stdout:?}");
        stdout
    }

    #[track_caller]
    pub fn json(&self, line: &str) -> Value {
        let text = self.ok(&format!("{line} --json"));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{line}: {e}: {text}"))
    }

    /// The contract for bad input: status 2, nothing on stdout, one line on stderr that says what is
    /// said here, and every file and folder as it was.
    #[track_caller]
    pub fn bad(&self, line: &str, said: &str) {
        let args: Vec<&str> = line.split_whitespace().collect();
        self.bad_args(&args, said);
    }

    #[track_caller]
    pub fn bad_args(&self, args: &[&str], said: &str) {
        let before = self.contents();
        let what = args.join(" ");
        check_complaint(&what, texts(self.command(args).output()), said);
        self.assert_unchanged(&before, &what);
    }

    #[track_caller]
    pub fn tensors(&self, name: &str) -> TensorFile {
        TensorFile::open(self.path(name)).unwrap()
    }

    /// The file `tokens`, which holds tokens and these tensors, and nothing else.
    #[track_caller]
    pub fn tokens_and(&self, names: &[&str]) -> TensorFile {
        let file = self.tensors("tokens");
        let mut expected = [names, &["tokens"]].concat();
        expected.sort_unstable();
        assert!(file.names().eq(expected));
        file
    }

    #[track_caller]
    pub fn logits(&self, name: &str) -> Tensor<f64> {
        self.tensors(name).float("logits").unwrap()
    }
}

/// Status, stdout, stderr.
pub type Texts = (Option<i32>, String, String);

pub fn texts(output: std::io::Result<Output>) -> Texts {
    let output = output.unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// `said` has a `…` wherever the message may say more.
#[track_caller]
pub fn check_complaint(what: &str, (status, stdout, stderr): Texts, said: &str) {
    assert_eq!(status, Some(2), "{what}: {stderr}");
    assert_eq!(stdout, "", "{what}");
    let line = stderr.strip_prefix("error: ").unwrap_or_else(|| {
        panic!("{what}: {stderr}");
    });
    let newlines = line.matches('\n').count();
    assert!(newlines == 1 && line.ends_with('\n'), "{what}: {stderr}");
    assert!(line.chars().count() < 2100, "{what}: too long");
    let mut rest = line;
    for part in said.split('…').map(str::trim) {
        let at = rest.find(part);
        let at = at.unwrap_or_else(|| panic!("{what}: `{part}` is not said: {line}"));
        rest = &rest[at + part.len()..];
    }
}

/// Pairs on lines, with `=>` between them.
pub fn table(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().map(|line| {
        let (left, right) = line.split_once("=>").expect("a pair");
        (left.trim(), right.trim())
    })
}

/// A story of two steps.
pub fn small_story() -> Story {
    let mut story = Story::new("small", "A small story", "no model");
    let map = HeatMap::new(
        "",
        ChartAxis::new("a", 0..2),
        ChartAxis::new("b", 0..1),
        &[1.0, -2.0],
    );
    let maps = Chart::HeatMaps {
        scale: Scale::Diverging,
        maps: vec![map],
    };
    story.steps = vec![
        study::Step::new("one", "One", "1 > 0", Conclusion::of(true, "1 and 0"))
            .picture(Picture::new("map", "A map", maps)),
        study::Step::new("two", "Two", "2 < 1", Conclusion::of(false, "2 and 1")),
    ];
    story.figure("one", 1.0);
    story
}
