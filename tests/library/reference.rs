//! Real checkpoints, held to what TransformerLens computes from them in float64.
//!
//! `PATHSUM_REFERENCE` names a folder of reference folders (docs/reference.md says how to make more of
//! them). Where it is unset, these tests report that they were skipped.

use crate::common::reference;
use pathsum::decompose::{Composition, Distance, composition_scores};
use pathsum::model::process::Processing;
use pathsum::{Config, Model, Par, Run, Scalar, Tensor, TensorFile, Tokens};
use std::path::{Path, PathBuf};

/// What f64 and f32 must agree to, relative to a tensor's largest entry: the issue's own figures.
fn tolerance<T: Scalar>() -> f64 {
    match T::PRECISION {
        pathsum::Precision::F64 => 1e-11,
        pathsum::Precision::F32 => 1e-4,
    }
}

/// The reference folders that hold a checkpoint.
fn folders() -> Vec<PathBuf> {
    let Some(root) = reference::root() else {
        return Vec::new();
    };
    let entries = std::fs::read_dir(&root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
    let mut folders: Vec<PathBuf> = entries
        .map(|e| e.unwrap().path())
        .filter(|p| p.join("model.safetensors").exists())
        .collect();
    folders.sort();
    assert!(
        !folders.is_empty(),
        "{} holds no reference folder",
        root.display()
    );
    folders
}

/// What a masked score is in checkpoints of older TransformerLens versions (the buffer `IGNORE`), and
/// that of a key at the pad token.
const MASKED: f64 = -1e5;

/// The largest difference, relative to the largest entry expected. Masked scores must stand in the same
/// places: `-inf`, or [`MASKED`] in the reference.
fn difference<T: Scalar>(found: &Tensor<T>, expected: &Tensor<f64>) -> f64 {
    assert_eq!(found.shape(), expected.shape());
    let (mut error, mut size) = (0f64, 0f64);
    for (&f, &e) in found.data().iter().zip(expected.data()) {
        let f = f.to_f64();
        if e == f64::NEG_INFINITY || e == MASKED {
            assert!(
                f == e || f == f64::NEG_INFINITY,
                "{f} where a masked score is expected"
            );
            continue;
        }
        assert!(f.is_finite(), "{f} where {e} is expected");
        error = error.max((f - e).abs());
        size = size.max(e.abs());
    }
    if error == 0.0 { 0.0 } else { error / size }
}

fn processed(folder: &Path) -> Model<f64> {
    let config = Config::open(folder.join("config.json")).unwrap();
    Model::from_file(
        config,
        &TensorFile::open(folder.join("processed.safetensors")).unwrap(),
    )
    .unwrap()
}

fn hooks_and_logits<T: Scalar>() {
    for folder in folders() {
        let raw = Model::<f64>::load(&folder).unwrap();
        for (kind, model) in [("raw", raw), ("processed", processed(&folder))] {
            let model = model.cast::<T>();
            let file =
                TensorFile::open(folder.join(format!("activations_{kind}.safetensors"))).unwrap();
            let tokens = Tokens::from_file(&file).unwrap();
            let out = model.run(&tokens, Run::new().cache("*")).unwrap();
            let mut worst = (0.0, String::new());
            let mut compare = |name: &str, found: &Tensor<T>| {
                let error = difference(found, &file.float(name).unwrap());
                assert!(
                    error <= tolerance::<T>(),
                    "{} {kind} {name}: {error:e}",
                    folder.display()
                );
                if error > worst.0 {
                    worst = (error, name.to_string());
                }
            };
            for name in file.names().filter(|n| !["tokens", "logits"].contains(n)) {
                compare(name, out.cache.by_name(name).unwrap());
            }
            compare("logits", &out.logits);
            // Every hook that this model has is in the file: none is invented, none is missing.
            for (hook, _) in out.cache.iter() {
                assert!(
                    file.shape(&hook.to_string()).is_some(),
                    "{hook} is not in the reference"
                );
            }

            let tokens =
                Tokens::from_file(&TensorFile::open(folder.join("dataset.safetensors")).unwrap());
            let logits =
                TensorFile::open(folder.join(format!("logits_{kind}.safetensors"))).unwrap();
            let error = difference(
                &model.logits(&tokens.unwrap()).unwrap(),
                &logits.float("logits").unwrap(),
            );
            assert!(
                error <= tolerance::<T>(),
                "{} {kind} logits: {error:e}",
                folder.display()
            );
            println!(
                "{} {kind} {}: hooks {:.1e} ({}), logits {error:.1e}",
                folder.file_name().unwrap().to_string_lossy(),
                T::PRECISION,
                worst.0,
                worst.1
            );
        }
    }
}

#[test]
fn every_hook_and_all_logits_in_f64() {
    hooks_and_logits::<f64>();
}

#[test]
fn every_hook_and_all_logits_in_f32() {
    hooks_and_logits::<f32>();
}

#[test]
fn processed_weights() {
    const TOLERANCE: f64 = 1e-12;
    for folder in folders() {
        let mut model = Model::<f64>::load(&folder).unwrap();
        for step in Processing::DEFAULT {
            step.apply(&mut model).unwrap();
        }
        let file = TensorFile::open(folder.join("processed.safetensors")).unwrap();
        let mut worst = 0f64;
        for (name, found) in model.weights().state_dict() {
            let expected = file.float::<f64>(&name).unwrap();
            assert_eq!(found.shape(), expected.shape(), "{name}");
            for (f, e) in found.data().iter().zip(expected.data()) {
                worst = worst.max((f - e).abs());
                assert!(
                    (f - e).abs() <= TOLERANCE,
                    "{} {name}: {f} {e}",
                    folder.display()
                );
            }
        }
        println!(
            "{}: {worst:.1e}",
            folder.file_name().unwrap().to_string_lossy()
        );
    }
}

#[cfg(feature = "torch")]
#[test]
fn state_dicts_and_safetensors_load_to_the_same_bits() {
    for folder in folders() {
        let safe = Model::<f64>::load(&folder).unwrap();
        let path = folder.join("checkpoint.pt");
        let torch = Model::<f64>::load_with_config(path, safe.config().clone()).unwrap();
        for ((name, a), (_, b)) in safe
            .weights()
            .tensors()
            .iter()
            .zip(torch.weights().tensors())
        {
            let bits = |t: &Tensor<f64>| t.data().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert!(bits(a) == bits(b), "{} {name}", folder.display());
        }
    }
}

/// The write-up computes them from the processed weights.
#[test]
fn composition_scores_of_the_write_up() {
    const TOLERANCE: f64 = 1e-10;
    for folder in folders().iter().filter(|f| f.ends_with("palindrome")) {
        let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
        let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = &expected["composition"]["recomputed"];
        let scores = composition_scores(&processed(folder), Distance::At(0), Par::Rayon).unwrap();
        let printed = serde_json::to_value(&scores).unwrap();
        for kind in Composition::ALL {
            let name = format!("{kind:?}");
            for (i, j) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let expected = expected[&name][i][j].as_f64().unwrap();
                let found = scores.of(kind)[[0, i, 1, j]];
                assert!(
                    (found - expected).abs() <= TOLERANCE,
                    "{name} 0.{i} 1.{j}: {found} {expected}"
                );
                assert_eq!(printed[&name][0][i][1][j].as_f64(), Some(found));
            }
        }
    }
}
