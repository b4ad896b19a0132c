//! Language models, against what `transformers` computes from them in float64.

use crate::common::reference;

use pathsum::format::family_of;
use pathsum::{Hook, Model, Run, Scalar, TensorFile, Tokens};
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
