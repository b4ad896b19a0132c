//! Language models: against what `transformers` computes from them in float64, and as files.

use crate::common::{for_all, reference};
use crate::properties::rounding;

use pathsum::format::{Held, family_of};
use pathsum::model::{Config, Weights};
use pathsum::strategies::models_and_tokens;
use pathsum::tensor::write_safetensors;
use pathsum::{Hook, Model, Run, Scalar, Tensor, TensorFile, Tokens};
use proptest::prelude::*;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Every value of a file of activations, those that a prefix names, to a share of their largest entry; rows at pads are
/// no one's business.
fn agrees<T: Scalar>(model: &Model<T>, file: &TensorFile, prefix: &str, tolerance: f64) {
    let tokens = match prefix {
        "" => Tokens::from_file(file).unwrap(),
        _ => {
            let (shape, ids) = file.integer(&format!("{prefix}tokens")).unwrap();
            let [batch, pos] = *shape.as_slice() else {
                panic!("{prefix}tokens has the shape {shape:?}")
            };
            Tokens::new(batch, pos, ids)
        }
    };
    let out = model.run(&tokens, Run::new().cache("*")).unwrap();
    let mut compared = 0;
    for name in file.names() {
        let Some(own) = name.strip_prefix(prefix) else {
            continue;
        };
        let found = match own {
            "tokens" | "attention_mask" | "token_type_ids" | "log_probs" => continue,
            "logits" => &out.logits,
            _ => out.cache.require(own.parse::<Hook>().unwrap()).unwrap(),
        };
        let expected = file.float::<f64>(name).unwrap();
        assert_eq!(found.shape(), expected.shape(), "{name}");
        let size = expected.max_abs();
        let at = if own.ends_with("hook_pattern") { 2 } else { 1 };
        for (i, (a, b)) in found.data().iter().zip(expected.data()).enumerate() {
            let place = expected.place(i);
            let off = (a.to_f64() - b).abs();
            let counts = tokens.is_attended(place[0], place[at]);
            let close = off <= tolerance * size;
            assert!(close || !counts, "{name}{place:?}: {off:e} of {size:e}");
        }
        compared += 1;
    }
    assert!(compared > 5, "{compared} values to compare");
}

/// The families of the reference, each with its folder.
fn families() -> Vec<(String, PathBuf)> {
    let Some(root) = reference::root() else {
        return Vec::new();
    };
    let folders = std::fs::read_dir(root.join("language/families")).unwrap();
    let mut all: Vec<_> = folders
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .map(|path| {
            (
                path.file_name().unwrap().to_string_lossy().into_owned(),
                path,
            )
        })
        .collect();
    all.sort();
    assert!(all.len() >= 18, "{} families", all.len());
    all
}

#[test]
fn every_family_computes_what_transformers_does() {
    for (name, folder) in families() {
        eprintln!("{name}");
        let file = TensorFile::open(folder.join("activations.safetensors")).unwrap();
        agrees(&Model::<f64>::load(&folder).unwrap(), &file, "", 1e-11);
        agrees(&Model::<f32>::load(&folder).unwrap(), &file, "", 1e-4);
    }
}

#[test]
fn a_trained_llama_computes_what_transformers_does() {
    let Some(root) = reference::root() else {
        return;
    };
    let folder = root.join("language/stories260K");
    let file = TensorFile::open(folder.join("activations.safetensors")).unwrap();
    for prompt in ["0.", "1."] {
        agrees(&Model::<f64>::load(&folder).unwrap(), &file, prompt, 1e-11);
        agrees(&Model::<f32>::load(&folder).unwrap(), &file, prompt, 1e-4);
    }
}

#[test]
fn every_family_is_written_in_both_formats_as_it_was_read() {
    let to = tempfile::tempdir().unwrap();
    for (name, folder) in families() {
        eprintln!("{name}");
        let model = Model::<f64>::load(&folder).unwrap();
        let lens = to.path().join(format!("{name}-lens"));
        model.save(&lens).unwrap();
        assert_eq!(Model::<f64>::load(&lens).unwrap(), model);
        let there = to.path().join(format!("{name}-hugging-face"));
        model.save_hugging_face(&there, family_of(&folder)).unwrap();
        assert_eq!(family_of(&there), family_of(&folder));
        assert_eq!(Model::<f64>::load(&there).unwrap(), model);
        // Which family it was is not asked: one that has a place for all of it is found.
        model.save_hugging_face(&there, None).unwrap();
        assert_eq!(Model::<f64>::load(&there).unwrap(), model);
    }
}

/// The least that a file of each family says, but for what it has by default.
const SMALL: [(&str, &str); 17] = [
    (
        "gpt2",
        r#""vocab_size": 11, "n_positions": 8, "n_embd": 8, "n_layer": 2, "n_head": 2"#,
    ),
    (
        "opt",
        r#""vocab_size": 11, "max_position_embeddings": 8, "hidden_size": 8, "num_hidden_layers": 2,
           "num_attention_heads": 2, "ffn_dim": 12"#,
    ),
    (
        "gpt_neox",
        r#""vocab_size": 11, "max_position_embeddings": 8, "hidden_size": 16, "num_hidden_layers": 2,
           "num_attention_heads": 2, "intermediate_size": 12"#,
    ),
    (
        "gptj",
        r#""vocab_size": 11, "n_positions": 8, "n_embd": 8, "n_layer": 2, "n_head": 2, "rotary_dim": 2"#,
    ),
    (
        "phi",
        r#""vocab_size": 11, "max_position_embeddings": 8, "hidden_size": 8, "num_hidden_layers": 2,
           "num_attention_heads": 2, "intermediate_size": 12"#,
    ),
    (
        "phi3",
        r#""vocab_size": 11, "max_position_embeddings": 8, "original_max_position_embeddings": 4, "hidden_size": 8,
           "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 12,
           "sliding_window": 3, "rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.5],
           "long_factor": [2.0, 3.0]}"#,
    ),
    (
        "llama",
        r#""vocab_size": 11, "max_position_embeddings": 8, "hidden_size": 8, "num_hidden_layers": 2,
           "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 12, "attention_bias": true,
           "mlp_bias": true, "rope_parameters": {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0,
           "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}"#,
    ),
    (
        "mistral",
        r#""vocab_size": 11, "max_position_embeddings": 8, "hidden_size": 8, "num_hidden_layers": 2,
           "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 12, "sliding_window": 3"#,
    ),
    (
        "qwen2",
        r#""vocab_size": 11, "max_position_embeddings": 8, "hidden_size": 8, "num_hidden_layers": 2,
           "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 12, "use_sliding_window": true,
           "sliding_window": 3, "max_window_layers": 1"#,
    ),
    (
        "qwen3",
        r#""vocab_size": 11, "max_position_embeddings": 8, "hidden_size": 8, "num_hidden_layers": 2,
           "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 6, "intermediate_size": 12"#,
    ),
    (
        "gemma",
        r#""vocab_size": 11, "max_position_embeddings": 8, "hidden_size": 8, "num_hidden_layers": 2,
           "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 6, "intermediate_size": 12"#,
    ),
    (
        "gemma2",
        r#""vocab_size": 11, "max_position_embeddings": 8, "hidden_size": 8, "num_hidden_layers": 2,
           "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 6, "intermediate_size": 12,
           "sliding_window": 3, "query_pre_attn_scalar": 5"#,
    ),
    (
        "gemma3_text",
        r#""vocab_size": 11, "max_position_embeddings": 8, "hidden_size": 8, "num_hidden_layers": 2,
           "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 6, "intermediate_size": 12,
           "sliding_window": 3, "sliding_window_pattern": 2, "rope_scaling": {"rope_type": "linear", "factor": 8.0}"#,
    ),
    (
        "olmo2",
        r#""vocab_size": 11, "max_position_embeddings": 8, "hidden_size": 8, "num_hidden_layers": 2,
           "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 12"#,
    ),
    (
        "bloom",
        r#""vocab_size": 11, "hidden_size": 12, "n_layer": 2, "n_head": 3"#,
    ),
    (
        "bert",
        r#""vocab_size": 11, "max_position_embeddings": 8, "hidden_size": 8, "num_hidden_layers": 2,
           "num_attention_heads": 2, "intermediate_size": 12"#,
    ),
    (
        "roberta",
        r#""vocab_size": 11, "max_position_embeddings": 10, "hidden_size": 8, "num_hidden_layers": 2,
           "num_attention_heads": 2, "intermediate_size": 12, "type_vocab_size": 1"#,
    ),
];

fn small(name: &str, fields: &str) -> String {
    format!(r#"{{"model_type": "{name}", {fields}}}"#)
}

/// A model of a family with seeded random weights, tied where its files are by default.
fn small_model(name: &str, fields: &str) -> Model<f64> {
    let config = Config::from_json(&small(name, fields)).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut random = |shape: &[usize]| {
        let n = shape.iter().product();
        let values = (0..n).map(|_| f64::from(rng.random_range(-1.0..1.0f32)));
        Tensor::from_vec(shape, values.collect())
    };
    let weights = Weights::build(&config, |parameter, shape| {
        Ok(match parameter {
            // What a family's files have no place for is zero.
            _ if parameter.contains(".b") && !parameter.contains("ln") => Tensor::zeros(shape),
            _ => random(shape),
        })
    });
    Model::new(config, weights.unwrap()).unwrap()
}

#[test]
fn every_family_is_known_by_its_least_file() {
    let to = tempfile::tempdir().unwrap();
    for (name, fields) in SMALL {
        eprintln!("{name}");
        let model = small_model(name, fields);
        let folder = to.path().join(name);
        model.save_hugging_face(&folder, Some(name)).unwrap();
        assert_eq!(family_of(&folder), Some(name));
        let read = Model::<f64>::load(&folder).unwrap();
        // The embedding's scale is divided out in the file.
        assert_eq!(read.config(), model.config());
        for ((name, a), (_, b)) in (read.weights().tensors().iter()).zip(model.weights().tensors())
        {
            let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 2.0 * f64::EPSILON * b.abs();
            assert!(a.data().iter().zip(b.data()).all(close), "{name}");
        }
        model.save(&folder).unwrap();
        assert_eq!(Model::<f64>::load(&folder).unwrap(), model);
    }
}

/// Values that a field may have by mistake or by malice.
fn strange(rng: &mut ChaCha8Rng) -> Value {
    let all = [
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(-1),
        json!(3),
        json!(0.5),
        json!(-0.0),
        json!(1e-320),
        json!(1e308),
        json!(1_000_000_000_000_u64),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(""),
        json!("linear"),
        json!("gelu"),
        json!("a\nb\u{1b}[2J"),
        json!([]),
        json!([1, 2]),
        json!({}),
        json!({"rope_type": "linear", "factor": 0}),
        json!({"rope_type": "llama3"}),
        json!({"type": "longrope", "short_factor": [1], "long_factor": []}),
        json!({"full_attention": {"rope_theta": "x"}, "sliding_attention": null}),
    ];
    all[rng.random_range(0..all.len())].clone()
}

/// That an error is one line, and not a long one.
fn is_a_line(e: &pathsum::Error) {
    let said = e.to_string();
    assert!(!said.contains('\n') && said.len() < 1000, "{said}");
}

#[test]
fn ten_thousand_mutated_configurations_are_read_or_refused() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let to = tempfile::tempdir().unwrap();
    // A file with none of the tensors: whatever the fields say, there is little to load.
    let folder = to.path().join("model");
    std::fs::create_dir(&folder).unwrap();
    let none: [(String, &Tensor<f64>); 0] = [];
    write_safetensors(folder.join("model.safetensors"), none).unwrap();
    let (mut read, mut refused) = (0, 0);
    for case in 0..10_000 {
        let (name, fields) = SMALL[rng.random_range(0..SMALL.len())];
        let text = small(name, fields);
        let mut json: Value = serde_json::from_str(&text).unwrap();
        let all = json.as_object_mut().unwrap();
        for _ in 0..rng.random_range(1..4) {
            let (_, other) = SMALL[rng.random_range(0..SMALL.len())];
            let other: Value = serde_json::from_str(&small(name, other)).unwrap();
            let names: Vec<String> = match rng.random_range(0..3) {
                0 => other.as_object().unwrap().keys().cloned().collect(),
                _ => all.keys().cloned().collect(),
            };
            let name = names[rng.random_range(0..names.len())].clone();
            match rng.random_range(0..4) {
                0 => drop(all.remove(&name)),
                1 => drop(all.insert(name.clone(), other.get(&name).cloned().unwrap_or_default())),
                _ => drop(all.insert(name, strange(&mut rng))),
            }
        }
        let mut text = json.to_string().into_bytes();
        if rng.random_range(0..4) == 0 {
            let at = rng.random_range(0..text.len());
            text[at] = rng.random_range(0..=255);
        }
        std::fs::write(folder.join("config.json"), &text).unwrap();
        match Config::open(folder.join("config.json")) {
            Ok(_) => read += 1,
            Err(e) => {
                is_a_line(&e);
                refused += 1;
            }
        }
        // With its tensors missing none is a model, and none asks for much memory to find that out.
        if case % 10 == 0 {
            is_a_line(&Model::<f32>::load(&folder).unwrap_err());
        }
    }
    assert!(
        read > 500 && refused > 500,
        "{read} read, {refused} refused"
    );
}

#[test]
fn mutated_headers_are_read_or_refused() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let to = tempfile::tempdir().unwrap();
    for (name, fields) in SMALL {
        let folder = to.path().join(name);
        let model = small_model(name, fields);
        model.save_hugging_face(&folder, Some(name)).unwrap();
        let path = folder.join("model.safetensors");
        let sound = std::fs::read(&path).unwrap();
        let header = u64::from_le_bytes(sound[..8].try_into().unwrap()) as usize;
        for _ in 0..200 {
            let mut bytes = sound.clone();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..8 + header);
                bytes[at] = rng.random_range(0..=255);
            }
            if rng.random_range(0..4) == 0 {
                bytes.truncate(rng.random_range(0..bytes.len()));
            }
            std::fs::write(&path, bytes).unwrap();
            if let Err(e) = Model::<f64>::load(&folder) {
                is_a_line(&e);
            }
        }
    }
}

/// Weights that are exactly bf16, held so: the same logits to rounding, and the same weights to whoever looks at them.
#[test]
fn weights_held_in_sixteen_bits_compute_the_same() {
    for_all(20, models_and_tokens::<f32>(), |(model, tokens)| {
        let config = model.config().clone();
        let mut weights = model.into_weights();
        for (_, tensor) in weights.tensors_mut() {
            let bf16 = |x: &mut f32| *x = f32::from_bits(x.to_bits() & 0xffff_0000);
            tensor.data_mut().iter_mut().for_each(bf16);
        }
        let to = tempfile::tempdir().unwrap();
        let model = Model::new(config, weights).unwrap();
        model.save(to.path()).unwrap();
        let held = Model::<f32>::load_held(to.path(), Held::Filed).unwrap();
        let bound = rounding(&model, &tokens);
        let (expected, found) = (
            model.logits(&tokens).unwrap(),
            held.logits(&tokens).unwrap(),
        );
        for (a, b) in expected.data().iter().zip(found.data()) {
            let apart = f64::from((a - b).abs());
            prop_assert!(
                apart <= bound || a.is_nan() && b.is_nan(),
                "{a} {b}, bound {bound:e}"
            );
        }
        prop_assert!(held.weights() == model.weights());
        Ok(())
    });
}

/// A folder's tensors, each number of them the nearest bf16 below it.
fn in_bf16(folder: &std::path::Path) {
    let path = folder.join("model.safetensors");
    let file = TensorFile::open(&path).unwrap();
    let (mut header, mut bytes) = (serde_json::Map::new(), Vec::<u8>::new());
    for name in file.names() {
        let tensor = file.float::<f32>(name).unwrap();
        let start = bytes.len();
        for x in tensor.data() {
            bytes.extend(&x.to_bits().to_le_bytes()[2..]);
        }
        let offsets = [start, bytes.len()];
        let entry = json!({"dtype": "BF16", "shape": tensor.shape(), "data_offsets": offsets});
        header.insert(name.to_string(), entry);
    }
    drop(file);
    let header = Value::Object(header).to_string();
    let mut all = (header.len() as u64).to_le_bytes().to_vec();
    all.extend(header.as_bytes());
    all.extend(bytes);
    std::fs::write(path, all).unwrap();
}

/// Every family's file in bf16, read into 16 bits and wide: tied embeddings, fused projections, embeddings that are scaled.
#[test]
fn sixteen_bits_of_every_family_are_the_same_weights() {
    let to = tempfile::tempdir().unwrap();
    for (name, fields) in SMALL {
        let folder = to.path().join(name);
        let model = small_model(name, fields);
        model.save_hugging_face(&folder, Some(name)).unwrap();
        in_bf16(&folder);
        let wide = Model::<f64>::load(&folder).unwrap();
        let held = Model::<f64>::load_held(&folder, Held::Filed).unwrap();
        let tokens = Tokens::random(wide.config(), 2, 3);
        let (expected, found) = (wide.logits(&tokens).unwrap(), held.logits(&tokens).unwrap());
        let size = expected.max_abs();
        // Products of the same numbers, split otherwise: some units for every number that goes into an entry of a layer.
        let c = wide.config();
        let terms = c.d_model + c.n_heads * c.d_head + c.d_mlp().unwrap_or(0) + c.d_vocab_out;
        let bound = 8.0 * (terms * (c.n_layers + 1)) as f64 * f64::EPSILON * (1.0 + size);
        for (a, b) in expected.data().iter().zip(found.data()) {
            assert!((a - b).abs() <= bound, "{name}: {a} {b}");
        }
        assert!(held.weights() == wide.weights(), "{name}");
    }
}
