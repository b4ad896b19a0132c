//! Hugging Face's format: what `config.json` and the tensors of each family of models say, read and written by one
//! description of the family.

mod families;
mod family;
mod modules;
mod rope;
mod tensors;
mod weights;
mod write;

use super::held::Held;
use crate::diagram::Config;
use crate::error::{Error, Result};
use crate::format::fields::{Fields, refuse, shown};
use crate::format::files::{CONFIG, open_fields};
use crate::model::{Model, Weights};
use crate::tensor::{Scalar, TensorFile};
use family::{Family, Storage, names};
pub use modules::module_hooks;
use serde_json::{Map, Value};
use std::path::Path;
pub(super) use write::write;

/// Fields of any family that ask for something not covered, unless they have this value (or are null).
const UNCOVERED: [(&str, Value); 4] = [
    ("is_encoder_decoder", Value::Bool(false)),
    ("add_cross_attention", Value::Bool(false)),
    ("quantization_config", Value::Null),
    ("compression_config", Value::Null),
];

/// Fields that say of how many experts a block's MLP is made.
const EXPERTS: [&str; 4] = [
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "moe_num_experts",
];

/// What a `config.json` says.
pub(super) struct Described {
    pub config: Config,
    family: &'static Family,
    storage: Storage,
}

/// Whether these are the fields of such a file.
pub(super) fn is_config(fields: &Map<String, Value>) -> bool {
    ["model_type", "architectures"]
        .iter()
        .any(|name| fields.contains_key(*name))
}

/// What these fields say; of a folder whose tensors these are, where they are known.
pub(super) fn describe(
    mut fields: Map<String, Value>,
    file: Option<&TensorFile>,
) -> Result<Described> {
    let family = named_by(&fields)?;
    if let Some(text) = fields.remove("text_config") {
        let Value::Object(mut text) = text else {
            return refuse(
                "text_config",
                format!("{}, expected an object", shown(&text)),
            );
        };
        for name in [
            "architectures",
            "tie_word_embeddings",
            "quantization_config",
        ] {
            if let Some(value) = fields.remove(name) {
                text.insert(name.into(), value);
            }
        }
        fields = text;
    }
    for (other, own) in family.aliases {
        if let Some(value) = fields.remove(*other).filter(|value| !value.is_null()) {
            fields.insert((*own).into(), value);
        }
    }
    rope::as_version_4(&mut fields)?;
    let class = class(family, &fields)?;
    let mut fields = Fields::read(fields);
    for (field, value) in UNCOVERED {
        fields.only(field, value)?;
    }
    for field in EXPERTS {
        if fields
            .given(field)
            .and_then(Value::as_u64)
            .is_none_or(|n| n > 1)
        {
            fields.only(field, Value::Null)?;
        }
    }
    if let Some(heads) = fields.given("pruned_heads")
        && *heads != Value::Object(Map::new())
    {
        let reason = format!("{} is not covered, expected none", shown(heads));
        return refuse("pruned_heads", reason);
    }

    let mut storage = Storage::default();
    let mut config = Config::default();
    (family.fields)(&mut fields, &mut config, &mut storage)?;
    storage.head = match (class, file) {
        (Some(head), _) => head,
        (None, Some(file)) => weights::has_head(family, storage.tied, file),
        (None, None) => true,
    };
    // Of a masked language model the head is a feature of the configuration.
    let mut config = Config::default();
    (family.fields)(&mut fields, &mut config, &mut storage)?;
    config.d_vocab_out = match storage.head {
        true => config.d_vocab,
        false => 0,
    };
    config.check()?;
    Ok(Described {
        config,
        family,
        storage,
    })
}

/// The family that `model_type` names, or where there is none the class in `architectures`.
fn named_by(fields: &Map<String, Value>) -> Result<&'static Family> {
    match fields.get("model_type") {
        Some(Value::String(name)) => family::family_of(name),
        None | Some(Value::Null) => {
            let class = fields.get("architectures").and_then(|all| all.get(0));
            let of = |family: &&Family| {
                let mut classes = family.bodies.iter().chain(family.with_head);
                classes.any(|own| class.is_some_and(|class| class == own))
            };
            let mut all = families::FAMILIES.iter().copied();
            match all.find(of) {
                Some(family) => Ok(family),
                None => refuse(
                    "model_type",
                    format!("is missing, expected one of {}", names()),
                ),
            }
        }
        Some(other) => {
            let reason = format!(
                "{} is not covered, expected one of {}",
                shown(other),
                names()
            );
            refuse("model_type", reason)
        }
    }
}

/// Whether the class that was saved has an unembedding, where the fields name one.
fn class(family: &Family, fields: &Map<String, Value>) -> Result<Option<bool>> {
    let known = || {
        let all = family.bodies.iter().chain(family.with_head);
        all.copied().collect::<Vec<_>>().join(", ")
    };
    let class = match fields.get("architectures") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(all)) => match all.as_slice() {
            [] => return Ok(None),
            [first, ..] => first,
        },
        Some(other) => other,
    };
    let is = |own: &&&str| class == *own;
    match (
        family.bodies.iter().find(is),
        family.with_head.iter().find(is),
    ) {
        (Some(_), _) => Ok(Some(false)),
        (_, Some(_)) => Ok(Some(true)),
        (None, None) => refuse(
            "architectures",
            format!(
                "{} is not covered, expected one of {}",
                shown(class),
                known()
            ),
        ),
    }
}

impl Described {
    /// The weights of named tensors.
    pub fn weights<T: Scalar>(&self, file: &TensorFile, held: Held) -> Result<Weights<T>> {
        weights::read(self.family, &self.config, &self.storage, file, held)
    }

    /// The model of named tensors.
    pub fn model<T: Scalar>(self, file: &TensorFile, held: Held) -> Result<Model<T>> {
        let weights = self.weights(file, held)?;
        Ok(Model::of(self.config, weights))
    }
}

/// Whether a file has the tensors of any family, and none of TransformerLens's.
pub(super) fn is_weights(file: &TensorFile) -> bool {
    let own = file.names().any(|name| name.ends_with(".weight"));
    own && file.shape("embed.W_E").is_none()
}

/// What is said where such tensors come without their `config.json`.
pub(super) fn without_fields() -> Error {
    Error::ConfigJson(
        "these are the tensors of a Hugging Face model: load the folder that they are in, with its config.json".into(),
    )
}

/// The family of a folder in Hugging Face's layout, where it is one of those that are covered: its `model_type`.
pub fn family_of(folder: impl AsRef<Path>) -> Option<&'static str> {
    let fields = open_fields(&folder.as_ref().join(CONFIG)).ok()?;
    let family = named_by(&fields).ok().filter(|_| is_config(&fields));
    family.map(|family| family.name)
}
