//! Language models, against what `transformers` computes from them in float64.

use crate::common::reference;

use pathsum::{Hook, Model, Run, Scalar, TensorFile, Tokens};
use std::path::Path;

/// Every value of a file that the run has, and the logits, to a share of their largest entry.
fn agrees<T: Scalar>(folder: &Path, prefix: &str, tolerance: f64) {
    let model = Model::<T>::load(folder).unwrap();
    let file = TensorFile::open(folder.join("activations.safetensors")).unwrap();
    let (shape, ids) = file.integer(&format!("{prefix}tokens")).unwrap();
    let tokens = Tokens::new(shape[0], shape[1], ids);
    let out = model.run(&tokens, Run::new().cache("*")).unwrap();
    let mut compared = 0;
    for name in file.names() {
        let Some(own) = name.strip_prefix(prefix) else {
            continue;
        };
        let found = match own {
            "logits" => &out.logits,
            _ => match own.parse::<Hook>() {
                Ok(hook) => out.cache.require(hook).unwrap(),
                Err(_) => continue,
            },
        };
        let expected = file.float::<f64>(name).unwrap();
        assert_eq!(found.shape(), expected.shape(), "{name}");
        let size = expected.max_abs();
        let off = found.data().iter().zip(expected.data());
        let off = off.fold(0.0, |m: f64, (a, b)| m.max((a.to_f64() - b).abs()));
        assert!(off <= tolerance * size, "{name}: {off:e} of {size:e}");
        compared += 1;
    }
    assert!(compared > 5, "{} has nothing to compare", folder.display());
}

#[test]
fn llamas_compute_what_transformers_does() {
    let Some(root) = reference::root() else {
        return;
    };
    let language = root.join("language");
    for family in ["llama", "llama3"] {
        let folder = language.join("families").join(family);
        agrees::<f64>(&folder, "", 1e-11);
        agrees::<f32>(&folder, "", 1e-4);
    }
    for prompt in ["0.", "1."] {
        agrees::<f64>(&language.join("stories260K"), prompt, 1e-11);
        agrees::<f32>(&language.join("stories260K"), prompt, 1e-4);
    }
}
