//! Models from files: a folder with `config.json` and `model.safetensors`, or a PyTorch state dict.

use super::files::{CONFIG, WEIGHTS, open_fields, open_folder};
use super::held::Held;
use super::hugging_face;
use super::transformer_lens::{from_file, shape_in_file, shared_name, to_file};
use crate::diagram::Config;
use crate::error::{Error, Result, nearest_hint};
use crate::model::{self, Model, Weights};
use crate::tensor::{Scalar, Staged, Tensor, TensorFile, fill_folder, stage_safetensors};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

/// Buffers that a state dict holds beside the parameters; the configuration says what they say.
const BUFFERS: [&str; 2] = [".mask", ".IGNORE"];

impl<T: Scalar> Model<T> {
    /// Loads a folder with `config.json` and the model's tensors, as TransformerLens or as Hugging Face's `transformers`
    /// has them: which of the two is told by what is in it. Safetensors are mapped into memory while their values are
    /// converted to `T`, one tensor at a time.
    ///
    /// `docs/language-models.md` in the repository has the families of Hugging Face's that are covered.
    ///
    /// # Errors
    /// When a file is missing or unsound, the configuration asks for something not covered, a tensor is missing, has
    /// another shape than the configuration gives it, or has no place in the model.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self> {
        Self::load_held(folder, Held::Computed)
    }

    /// The same with its weights held in the precision computed in, or in that of the file.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_held(folder: impl AsRef<Path>, held: Held) -> Result<Self> {
        let folder = folder.as_ref();
        let config = folder.join(CONFIG);
        if !config.exists() {
            let reason = format!("has no {CONFIG}, expected a folder with {CONFIG} and {WEIGHTS}");
            return Err(Error::format(folder, reason));
        }
        let fields = open_fields(&config)?;
        let (path, file) = open_folder(folder)?;
        if hugging_face::is_config(&fields) {
            let described = hugging_face::describe(fields, Some(&file));
            let described = described.map_err(|e| Error::format(&config, e))?;
            return described
                .model(&file, held)
                .map_err(|e| Error::format(&path, e));
        }
        let config = Config::open(config)?;
        Self::from_file_held(config, &file, held).map_err(|e| Error::format(&path, e))
    }

    /// Loads a PyTorch state dict (`.pt`) or a safetensors file for a configuration that stands elsewhere.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_with_config(path: impl AsRef<Path>, config: Config) -> Result<Self> {
        let path = path.as_ref();
        Self::from_file(config, &open_checkpoint(path)?).map_err(|e| Error::format(path, e))
    }

    /// The weights of named tensors, checked against a configuration.
    ///
    /// # Errors
    /// When a tensor is missing, has another shape than the configuration gives it, or has no place.
    pub fn from_file(config: Config, file: &TensorFile) -> Result<Self> {
        Self::from_file_held(config, file, Held::Computed)
    }

    fn from_file_held(config: Config, file: &TensorFile, held: Held) -> Result<Self> {
        config.check()?;
        if hugging_face::is_weights(file) {
            return Err(hugging_face::without_fields());
        }
        // A layer has several tensors. A configuration with more layers than the file has tensors is
        // wrong, and a list of its names may be too long to make: the first missing name is error enough.
        let layout = if config.n_layers <= file.names().count() {
            layout(&config)
        } else {
            Vec::new()
        };
        let names: BTreeSet<&str> = layout.iter().map(|(name, _)| name.as_str()).collect();
        // In TransformerLens's grouped attention these are properties, and what they are made of has an underscore.
        let shared: BTreeSet<String> = names.iter().filter_map(|n| shared_name(n)).collect();
        let known = |name: &str| names.is_empty() || names.contains(name) || shared.contains(name);
        let buffer = |name: &str| BUFFERS.iter().any(|b| name.ends_with(b));
        if let Some(name) = file.names().find(|n| !known(n) && !buffer(n)) {
            return Err(Error::UnexpectedTensor {
                name: name.into(),
                reason: format!(
                    "the configuration does not call for it{}",
                    nearest_hint(name, names.iter().copied())
                ),
            });
        }
        let weights = Weights::build(&config, |name, own| {
            let expected = shape_in_file(name, own);
            let other = shared_name(name).filter(|n| file.names().any(|there| there == n));
            let (parameter, name) = (name, other.as_deref().unwrap_or(name));
            let found = file
                .shape(name)
                .ok_or_else(|| match file.float::<T>(name) {
                    // It is there, of a type that has no shape here.
                    Err(foreign @ Error::Dtype { .. }) => foreign,
                    _ => Error::MissingTensor {
                        name: name.into(),
                        expected: expected.clone(),
                    },
                })?;
            if found != expected.as_slice() {
                return Err(Error::Shape {
                    name: name.into(),
                    found: found.to_vec(),
                    expected,
                });
            }
            Ok(held.tensor(parameter, from_file(parameter, file.float(name)?)))
        })?;
        Ok(Model::of(config, weights))
    }

    /// Writes a folder with `config.json` and `model.safetensors` as TransformerLens has them, in the model's precision.
    ///
    /// # Errors
    /// When the folder or a file cannot be written. Folders made here are removed again then, and what
    /// an existing one held is still there.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let tensors = self.weights().state_dict();
        let named = tensors.iter().map(|(name, t)| (name.clone(), &**t));
        write(folder.as_ref(), &self.config().to_json(), named)
    }

    /// Writes a folder that Hugging Face's `transformers` loads, in the model's precision: as the family named (a
    /// `model_type`), or else as the first one that has a place for all of the model. Norms whose parameters were folded
    /// away get such as change nothing.
    ///
    /// # Errors
    /// When no such family has, naming what is in the way; and as [`Model::save`].
    pub fn save_hugging_face(&self, folder: impl AsRef<Path>, family: Option<&str>) -> Result<()> {
        let (fields, tensors) = hugging_face::write(self, family)?;
        let json = serde_json::to_string_pretty(&fields).expect("fields are plain data");
        let named = tensors.iter().map(|(name, t)| (name.clone(), t));
        write(folder.as_ref(), &json, named)
    }
}

/// Writes both files of a folder, or none: no disk that fills up leaves one model's weights beside another's
/// configuration.
fn write<'t, T: Scalar>(
    folder: &Path,
    config: &str,
    tensors: impl Iterator<Item = (String, &'t Tensor<T>)>,
) -> Result<()> {
    fill_folder(folder, || {
        let weights = stage_safetensors(&folder.join(WEIGHTS), tensors)?;
        let config = Staged::new(&folder.join(CONFIG), config.as_bytes())?;
        Ok(vec![weights, config])
    })
}

impl<T: Scalar> Weights<T> {
    /// Every parameter as a state dict of TransformerLens has it: `W_Q`, `W_K` and `W_V` by heads,
    /// `[n_heads, d_model, d_head]`; `_W_K`, `_W_V` and their biases where heads share them.
    pub fn state_dict(&self) -> Vec<(String, Cow<'_, Tensor<T>>)> {
        let attn = self.blocks.first().map(|block| &block.attn);
        let grouped = attn.is_some_and(|a| a.W_K.shape()[1] < a.W_Q.shape()[1]);
        let in_file = |(name, t): (String, _)| {
            let t = to_file(&name, t);
            let shared = shared_name(&name).filter(|_| grouped);
            (shared.unwrap_or(name), t)
        };
        self.tensors().into_iter().map(in_file).collect()
    }
}

/// The names of a model's parameters, and their shapes in a state dict.
pub fn layout(config: &Config) -> Vec<(String, Vec<usize>)> {
    let own = model::layout(config).into_iter();
    own.map(|(name, shape)| {
        let in_file = shape_in_file(&name, &shape);
        (name, in_file)
    })
    .collect()
}

/// Opens the tensors of a model's folder, or of a checkpoint.
///
/// # Errors
/// As [`open_checkpoint`], and when a folder has no such file or an index says what is not so.
pub fn open_weights(path: impl AsRef<Path>) -> Result<TensorFile> {
    let path = path.as_ref();
    match path.is_dir() {
        true => Ok(open_folder(path)?.1),
        false => open_checkpoint(path),
    }
}

/// Opens the tensors of a checkpoint: a safetensors file by its extension, else a PyTorch state dict.
///
/// # Errors
/// When the file cannot be opened or is unsound.
pub fn open_checkpoint(path: impl AsRef<Path>) -> Result<TensorFile> {
    let path = path.as_ref();
    if path.extension().is_some_and(|e| e == "safetensors") {
        TensorFile::open(path)
    } else {
        open_state_dict(path)
    }
}

#[cfg(feature = "torch")]
fn open_state_dict(path: &Path) -> Result<TensorFile> {
    super::torch::open_state_dict(path)
}

#[cfg(not(feature = "torch"))]
fn open_state_dict(path: &Path) -> Result<TensorFile> {
    Err(Error::format(
        path,
        "reading PyTorch state dicts needs the feature `torch`, expected .safetensors",
    ))
}
