//! Which files of a folder hold a model's tensors.

use super::folder::open_checkpoint;
use crate::error::{Error, Result};
use crate::tensor::TensorFile;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// The file of a model's fields.
pub(super) const CONFIG: &str = "config.json";
/// The file of its tensors, as it is written.
pub(super) const WEIGHTS: &str = "model.safetensors";

/// The files that hold a model's tensors, or say which do; of several that are there the first counts.
const FILES: [&str; 4] = [
    WEIGHTS,
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// The fields of a folder's `config.json`.
///
/// # Errors
/// When it cannot be read, or is no JSON object.
pub(super) fn open_fields(path: &Path) -> Result<Map<String, Value>> {
    let json = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    fields(&json).map_err(|e| Error::format(path, e))
}

/// The fields of the text of a `config.json`.
pub(super) fn fields(json: &str) -> Result<Map<String, Value>> {
    let value: Value =
        serde_json::from_str(json).map_err(|e| Error::ConfigJson(format!("not JSON: {e}")))?;
    match value {
        Value::Object(fields) => Ok(fields),
        _ => Err(Error::ConfigJson(
            "expected a JSON object of HookedTransformerConfig's fields, or of Hugging Face's"
                .into(),
        )),
    }
}

/// The tensors of a folder, and the file that a message about them should name.
///
/// # Errors
/// When there is no file of tensors, one is missing or unsound, or an index says what is not so.
pub(super) fn open_folder(folder: &Path) -> Result<(PathBuf, TensorFile)> {
    let paths = FILES.map(|name| folder.join(name));
    let Some(path) = paths.into_iter().find(|path| path.exists()) else {
        let reason = format!("has no {WEIGHTS}, expected a folder with {CONFIG} and {WEIGHTS}");
        return Err(Error::format(folder, reason));
    };
    let file = match path.extension().is_some_and(|e| e == "json") {
        true => open_shards(folder, &path)?,
        false => open_checkpoint(&path)?,
    };
    Ok((path, file))
}

/// The tensors that an index names, from the files that it names.
fn open_shards(folder: &Path, index: &Path) -> Result<TensorFile> {
    let wrong = |reason: String| Err(Error::format(index, reason));
    let json = std::fs::read_to_string(index).map_err(|e| Error::io(index, e))?;
    let parsed: Result<Value, _> = serde_json::from_str(&json);
    let map = match &parsed {
        Err(e) => return wrong(format!("not JSON: {e}")),
        Ok(value) => match value.get("weight_map").and_then(Value::as_object) {
            Some(map) => map,
            None => return wrong("has no object `weight_map`, expected one".into()),
        },
    };
    let mut named: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (tensor, file) in map {
        // A file beside the index, and no other.
        let own = file.as_str().filter(|name| {
            let mut parts = Path::new(name).components();
            matches!(
                (parts.next(), parts.next()),
                (Some(Component::Normal(_)), None)
            )
        });
        let Some(own) = own else {
            return wrong(format!(
                "tensor `{tensor}` is in {file}, expected a file's name"
            ));
        };
        named.entry(own).or_default().insert(tensor);
    }
    let mut files = Vec::new();
    for (name, tensors) in named {
        let path = folder.join(name);
        if !path.exists() {
            return wrong(format!("names the file {name}, which is not there"));
        }
        let file = open_checkpoint(&path)?;
        if let Some(tensor) = tensors.iter().find(|tensor| !file.has(tensor)) {
            return wrong(format!(
                "says that {name} holds `{tensor}`, which it does not"
            ));
        }
        files.push(file.only(|tensor| {
            let elsewhere = map.get(tensor).is_some_and(|own| own != name);
            !elsewhere
        }));
    }
    Ok(TensorFile::joined(files))
}
