//! A model as Hugging Face's `transformers` loads it: as a family that has a place for all of it.

use super::describe;
use super::families::FAMILIES;
use super::family::{Bias, Family, Row, Storage};
use super::tensors::{EMBED, POSITIONS, UNEMBED, bias_of, tensors};
use super::weights::transposed;
use crate::diagram::{Config, NormKind, NormWeight};
use crate::error::{Error, Result};
use crate::format::fields::{Fields, shown};
use crate::model::{Model, Weights, layout, norm_of_scale};
use crate::op::NormMap;
use crate::tensor::{Scalar, Tensor};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The fields of a `config.json`, and the tensors beside it.
pub(in crate::format) type Written<T> = (Map<String, Value>, Vec<(String, Tensor<T>)>);

/// A model's fields and tensors, as the family that is asked for or else as the first that has a place for all of it.
///
/// # Errors
/// When none has; it says what is in the way of the one asked for, or of the first.
pub(in crate::format) fn write<T: Scalar>(
    model: &Model<T>,
    asked: Option<&str>,
) -> Result<Written<T>> {
    let named = |family: &&&Family| asked.is_none_or(|name| family.name == name);
    let mut first = None;
    for family in FAMILIES.iter().filter(named) {
        match as_family(model, family) {
            Ok(written) => return Ok(written),
            Err(reason) => first = first.or(Some((family.name, reason))),
        }
    }
    let reason = match (first, asked) {
        (Some((name, reason)), Some(_)) => format!("{name} has no place for this model: {reason}"),
        (Some((name, reason)), None) => {
            format!("no family of Hugging Face's has a place for this model; {name}: {reason}")
        }
        (None, _) => format!(
            "{:?} is no family of Hugging Face's, expected one of {}",
            asked.unwrap_or_default(),
            super::family::names()
        ),
    };
    Err(Error::Mismatch(reason))
}

/// What is in the way, where something is.
fn as_family<T: Scalar>(model: &Model<T>, family: &Family) -> Result<Written<T>, String> {
    let usual = usual(family).map_err(|e| e.to_string())?;
    let config = with_norms_of(model.config(), &usual);
    let weights = model.weights();
    let mut storage = Storage::default();
    // Constants of the family's, which the values below depend on.
    let mut fields = Fields::write();
    (family.fields)(&mut fields, &mut config.clone(), &mut storage).map_err(|e| e.to_string())?;
    storage.projected = None;
    storage.head = config.d_vocab_out > 0;
    storage.tied = storage.head && is_tied(weights, storage.embed_scale);
    storage.biases = has_biases(family, weights);

    let mut fields = Fields::write();
    let asked = storage.clone();
    (family.fields)(&mut fields, &mut config.clone(), &mut storage).map_err(|e| e.to_string())?;
    let mut json = fields.into_json();
    json.insert("model_type".into(), json!(family.name));
    let classes = match storage.head {
        true => family.with_head,
        false => family.bodies,
    };
    json.insert("architectures".into(), json!([classes[0]]));
    json.insert("torch_dtype".into(), json!(dtype::<T>()));
    let read = describe(json.clone(), None).map_err(|e| e.to_string())?;
    if let Some(difference) = difference(&config, &read.config) {
        return Err(difference);
    }
    if read.storage != asked {
        return Err("its tensors would be read in another way than they are written".into());
    }
    let added = added(model, &config);
    let own = weights.tensors().into_iter();
    let own = own.chain(added.iter().map(|(name, t)| (name.clone(), t)));
    Ok((json, values(family, &config, &storage, own.collect())?))
}

/// PyTorch's word for a precision.
fn dtype<T: Scalar>() -> &'static str {
    match size_of::<T>() {
        4 => "float32",
        _ => "float64",
    }
}

/// The configuration of a family's file that says nothing.
fn usual(family: &Family) -> Result<Config> {
    let mut config = Config::default();
    let mut fields = Fields::read(Map::new());
    (family.fields)(&mut fields, &mut config, &mut Storage::default())?;
    Ok(config)
}

/// A configuration whose norms without parameters have those of a family's, which then change nothing.
fn with_norms_of(config: &Config, usual: &Config) -> Config {
    let filled = |own: NormKind, usual: NormKind| {
        let empty = own.weight == NormWeight::Absent && own.centred == usual.centred;
        if empty { usual } else { own }
    };
    let norm = |own: Option<NormKind>, usual: Option<NormKind>| {
        own.map(|own| usual.map_or(own, |usual| filled(own, usual)))
    };
    Config {
        norm: norm(config.norm, usual.norm),
        embed_norm: norm(config.embed_norm, usual.embed_norm),
        qk_norm: config.qk_norm.map(|own| {
            let mut own = own;
            own.kind = usual
                .qk_norm
                .map_or(own.kind, |usual| filled(own.kind, usual.kind));
            own
        }),
        ..config.clone()
    }
}

/// The parameters that a configuration has and a model has not: those of norms, so that they change nothing.
fn added<T: Scalar>(model: &Model<T>, config: &Config) -> Vec<(String, Tensor<T>)> {
    let own: BTreeSet<String> = (model.weights().tensors().into_iter())
        .map(|(name, _)| name)
        .collect();
    let missing = layout(config)
        .into_iter()
        .filter(|(name, _)| !own.contains(name));
    missing
        .map(|(name, shape)| {
            let norm = norm_of_scale(&name).and_then(|site| config.norm_at(site));
            let value = norm.map_or(T::ZERO, NormMap::<T>::identity_w);
            (name, Tensor::full(&shape, value))
        })
        .collect()
}

/// Whether the unembedding is the embedding, but for the embedding's scale.
fn is_tied<T: Scalar>(weights: &Weights<T>, scale: f64) -> bool {
    let (E, U) = (&weights.W_E, &weights.W_U);
    let &[d_vocab, d_model] = E.shape() else {
        unreachable!("an embedding is [d_vocab, d_model]")
    };
    let same = |(i, &x): (usize, &T)| {
        let (token, j) = (i / d_model, i % d_model);
        x == T::from_f64(U.data()[j * d_vocab + token].to_f64() * scale)
    };
    U.shape() == [d_model, d_vocab] && E.data().iter().enumerate().all(same)
}

/// Whether any linear map has a bias of those that a field speaks of.
fn has_biases<T: Scalar>(family: &Family, weights: &Weights<T>) -> bool {
    let asked: Vec<String> = family
        .blocks
        .1
        .iter()
        .flat_map(|row| match row {
            Row::Linear(parameter, _, Bias::Asked) => vec![bias_of(parameter)],
            Row::Fused(parameters, _, _, Bias::Asked) => {
                parameters.iter().map(|p| bias_of(p)).collect()
            }
            _ => Vec::new(),
        })
        .collect();
    let tensors = weights.tensors();
    let mut own = tensors.iter().filter(|(name, _)| {
        let parameter = name.splitn(3, '.').nth(2);
        parameter.is_some_and(|own| asked.iter().any(|b| b == own))
    });
    own.any(|(_, t)| t.max_abs() != T::ZERO)
}

/// What a configuration has that another has not.
fn difference(own: &Config, read: &Config) -> Option<String> {
    if own == read {
        return None;
    }
    let fields = |c: &Config| match serde_json::to_value(c) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let (own, read) = (fields(own), fields(read));
    let name = own
        .keys()
        .chain(read.keys())
        .find(|name| own.get(*name) != read.get(*name));
    let value = |of: &Map<String, Value>, name| of.get(name).map_or("absent".into(), shown);
    Some(match name {
        Some(name) => format!(
            "{name} is {}, not {}",
            value(&own, name),
            value(&read, name)
        ),
        None => "its configuration would be read as another".into(),
    })
}

/// A model's tensors as a family names them.
fn values<T: Scalar>(
    family: &Family,
    config: &Config,
    storage: &Storage,
    mut own: BTreeMap<String, &Tensor<T>>,
) -> Result<Vec<(String, Tensor<T>)>, String> {
    let all = tensors(family, config, storage, family.prefixes[0], config.n_layers);
    let mut out = Vec::with_capacity(all.len());
    for stored in &all {
        let mut value = Tensor::zeros(&stored.shape);
        for part in &stored.parts {
            let parameter = own.remove(&part.parameter);
            let parameter = parameter.ok_or_else(|| format!("{} is missing", part.parameter))?;
            match part.parameter.as_str() {
                EMBED if storage.tied => {
                    let unembed = own.get(UNEMBED).expect("every model has one");
                    let embed = transposed(unembed.data(), config.d_model);
                    stored.put(value.data_mut(), part, &embed);
                }
                EMBED if storage.embed_scale != 1.0 => {
                    let unscaled = |&x: &T| T::from_f64(x.to_f64() / storage.embed_scale);
                    let embed: Vec<T> = parameter.data().iter().map(unscaled).collect();
                    stored.put(value.data_mut(), part, &embed);
                }
                POSITIONS => {
                    let before = storage.first_position * config.d_model;
                    value.data_mut()[before..].copy_from_slice(parameter.data());
                }
                _ => stored.put(value.data_mut(), part, parameter.data()),
            }
        }
        out.push((stored.names[0].clone(), value));
    }
    if storage.tied || config.d_vocab_out == 0 {
        own.remove(UNEMBED);
    }
    match own.into_iter().find(|(_, t)| t.max_abs() != T::ZERO) {
        Some((name, _)) => Err(format!("there is no tensor for {name}, which is not zero")),
        None => Ok(out),
    }
}
