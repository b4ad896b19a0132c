//! The weights of a family's file, read by the list of its tensors.

use super::family::{Family, Row, Storage};
use super::tensors::{AFTER, BEFORE, EMBED, POSITIONS, Stored, Tensors, UNEMBED, tensors};
use crate::diagram::Config;
use crate::error::{Error, Result, nearest_hint};
use crate::format::Held;
use crate::linalg::product_into;
use crate::model::Weights;
use crate::tensor::{Scalar, Tensor, TensorFile, check_room};
use std::collections::{BTreeMap, BTreeSet};

/// Which of a family's prefixes the names in a file have.
fn prefix_in(family: &Family, file: &TensorFile) -> (&'static str, &'static str) {
    let Some(Row::Table(_, embedding)) = family.body.first() else {
        unreachable!("a family's first tensor is the embedding")
    };
    let has = |body: &str| file.shape(&format!("{body}{embedding}.weight")).is_some();
    let mut prefixes = family.prefixes.iter().copied();
    let found = prefixes.find(|(body, _)| has(body));
    found.unwrap_or(family.prefixes[0])
}

/// Whether a file has tensors of the family's head; where nothing says so, a tied unembedding is there.
pub(super) fn has_head(family: &Family, tied: bool, file: &TensorFile) -> bool {
    let (_, head) = prefix_in(family, file);
    let mut own = family.head.iter().map(|row| match *row {
        Row::Linear(_, module, _) | Row::Unembed(module, _) => format!("{head}{module}.weight"),
        Row::Norm(_, module) => format!("{head}{module}.bias"),
        Row::Table(..) | Row::Fused(..) | Row::Alone(..) | Row::Projections(..) => String::new(),
    });
    let alone = matches!(family.head, [Row::Unembed(..)]);
    (tied && alone) || own.any(|name| file.shape(&name).is_some())
}

/// The weights of named tensors. The file's names and shapes are all compared before any value is read.
pub(super) fn read<T: Scalar>(
    family: &Family,
    config: &Config,
    storage: &Storage,
    file: &TensorFile,
    held: Held,
) -> Result<Weights<T>> {
    let prefix = prefix_in(family, file);
    // A layer has several tensors: of more layers than the file has tensors, one is missing before the list ends.
    let layers = config.n_layers.min(file.names().count() + 1);
    let all = tensors(family, config, storage, prefix, layers);
    let found: Vec<&str> = all
        .iter()
        .map(|stored| stored.found_in(file))
        .collect::<Result<_>>()?;
    check_names(family, config, prefix, &all, file)?;
    let bytes = all.iter().zip(&found).map(|(stored, name)| {
        let entries = stored.shape.iter().product::<usize>();
        entries * held.bytes::<T>(file.dtype(name))
    });
    check_room(bytes.sum::<usize>() as u64, "the weights")?;

    let mut places = BTreeMap::new();
    for (i, stored) in all.iter().enumerate() {
        for part in &stored.parts {
            places.insert(part.parameter.as_str(), (i, part));
        }
    }
    // What the file has in 16 bits, in these, where nothing is done to it but reordering.
    let changed = [BEFORE, AFTER].iter().any(|map| places.contains_key(map));
    let filed = |parameter: &str, shape: &[usize]| -> Result<Option<Tensor<T>>> {
        let tied = parameter == UNEMBED && storage.tied;
        let place = places.get(if tied { EMBED } else { parameter });
        let here = held.keeps(parameter) && !changed;
        let Some(&(i, part)) = place.filter(|_| here) else {
            return Ok(None);
        };
        let stored = &all[i];
        if stored.parts.len() > 1 {
            return Ok(None);
        }
        let Some(narrow) = file.narrow::<T>(found[i])? else {
            return Ok(None);
        };
        let narrow = match (tied, stored.inputs_first) {
            (true, _) => narrow.reordered(|bits| transposed(bits, config.d_vocab)),
            (false, true) => narrow,
            (false, false) => narrow.reordered(|bits| stored.part(bits, part)),
        };
        Ok(Some(narrow.tensor(shape)))
    };
    // Tensors that hold several parameters, while some of these are to be read.
    let mut open: BTreeMap<usize, (Tensor<T>, usize)> = BTreeMap::new();
    let mut value = |parameter: &str| -> Result<Option<Vec<T>>> {
        let Some(&(i, part)) = places.get(parameter) else {
            return Ok(None);
        };
        let stored = &all[i];
        let (whole, left) = match open.remove(&i) {
            Some(known) => known,
            None => (file.float::<T>(found[i])?, stored.parts.len()),
        };
        let as_it_is = stored.inputs_first && stored.parts.len() == 1;
        let value = match as_it_is {
            true => return Ok(Some(whole.into_data())),
            false => stored.part(whole.data(), part),
        };
        if left > 1 {
            open.insert(i, (whole, left - 1));
        }
        Ok(Some(value))
    };
    Weights::build(config, |parameter, shape| {
        if parameter == UNEMBED && shape.contains(&0) {
            return Ok(Tensor::zeros(shape));
        }
        if let Some(own) = filed(parameter, shape)? {
            return Ok(match parameter {
                EMBED => own.times(storage.embed_scale),
                _ => own,
            });
        }
        let tied = parameter == UNEMBED && storage.tied;
        let own = match tied {
            true => value(EMBED)?.map(|embed| transposed(&embed, config.d_vocab)),
            false => value(parameter)?,
        };
        // What a family has not is zero.
        let Some(mut own) = own else {
            return Ok(Tensor::zeros(shape));
        };
        match parameter {
            EMBED => {
                if let Some(map) = value(BEFORE)? {
                    own = product(&own, &map, config.d_vocab);
                }
                let own = held.tensor(parameter, Tensor::from_vec(shape, own));
                return Ok(own.times(storage.embed_scale));
            }
            POSITIONS => drop(own.drain(..storage.first_position * config.d_model)),
            UNEMBED => {
                if let Some(map) = value(AFTER)? {
                    own = product(&map, &own, config.d_model);
                }
            }
            _ => {}
        }
        Ok(held.tensor(parameter, Tensor::from_vec(shape, own)))
    })
}

/// `[columns, rows]` of `[rows, columns]`.
pub(super) fn transposed<E: Copy + Default>(x: &[E], rows: usize) -> Vec<E> {
    let columns = x.len() / rows.max(1);
    let mut out = vec![E::default(); x.len()];
    const ABREAST: usize = 16;
    for first in (0..rows).step_by(ABREAST) {
        for j in 0..columns {
            for i in first..rows.min(first + ABREAST) {
                out[j * rows + i] = x[i * columns + j];
            }
        }
    }
    out
}

/// A product of matrices of which the first has so many rows, computed in f64 and rounded once.
fn product<T: Scalar>(a: &[T], b: &[T], rows: usize) -> Vec<T> {
    let wide = |x: &[T]| -> Vec<f64> { x.iter().map(|x| x.to_f64()).collect() };
    let inner = a.len() / rows;
    let columns = b.len() / inner;
    let (a, b) = (wide(a), wide(b));
    let mut out = vec![0.0; rows * columns];
    let view = |x, rows, columns| faer::MatRef::from_row_major_slice(x, rows, columns);
    let to = faer::MatMut::from_row_major_slice_mut(&mut out, rows, columns);
    product_into(to, 1.0, view(&a, rows, inner), view(&b, inner, columns));
    out.into_iter().map(T::from_f64).collect()
}

impl Stored {
    /// The name that it has in a file, with the shape that it should have.
    fn found_in(&self, file: &TensorFile) -> Result<&str> {
        let mut names = self.names.iter();
        let name = names.find(|name| file.shape(name).is_some());
        let missing = || match file.float::<f64>(&self.names[0]) {
            // It is there, of a type that has no shape here.
            Err(foreign @ Error::Dtype { .. }) => foreign,
            _ => Error::MissingTensor {
                name: self.names[0].clone(),
                expected: self.shape.clone(),
            },
        };
        let name = name.ok_or_else(missing)?;
        let found = file.shape(name).unwrap_or_default();
        match found == self.shape {
            true => Ok(name),
            false => Err(Error::Shape {
                name: name.clone(),
                found: found.to_vec(),
                expected: self.shape.clone(),
            }),
        }
    }
}

/// That a file has no tensor that neither holds a parameter nor is known to hold none.
fn check_names(
    family: &Family,
    config: &Config,
    prefix: (&str, &str),
    all: &[Stored],
    file: &TensorFile,
) -> Result<()> {
    let names = all.iter().flat_map(|stored| &stored.names);
    let mut known: BTreeSet<&str> = names.map(String::as_str).collect();
    // An unembedding beside a tied one is not read.
    let untied = Storage::default();
    let mut heads = Tensors {
        config,
        storage: &untied,
        inputs_first: false,
        all: Vec::new(),
    };
    for row in family.head {
        if matches!(row, Row::Unembed(..)) {
            heads.row(row, "", prefix.1);
        }
    }
    let heads = heads.all.iter().flat_map(|stored| &stored.names);
    known.extend(heads.map(String::as_str));
    let ignored = |name: &str| {
        let own = name.strip_prefix(prefix.0).unwrap_or(name);
        let is = |pattern: &&str| matches(pattern, own, config) || matches(pattern, name, config);
        family.ignored.iter().any(is)
    };
    let mut unknown = file
        .names()
        .filter(|name| !known.contains(name) && !ignored(name));
    match unknown.next() {
        None => Ok(()),
        Some(name) => Err(Error::UnexpectedTensor {
            name: name.into(),
            reason: format!(
                "the configuration does not call for it{}",
                nearest_hint(name, known.iter().copied())
            ),
        }),
    }
}

/// Whether a name is one that a pattern of [`Family::ignored`] means.
fn matches(pattern: &str, name: &str, config: &Config) -> bool {
    if let Some(start) = pattern.strip_suffix('*') {
        return name.starts_with(start);
    }
    let Some((before, after)) = pattern.split_once("{}") else {
        return pattern == name;
    };
    let layer = name
        .strip_prefix(before)
        .and_then(|rest| rest.strip_suffix(after));
    let layer = layer.and_then(|layer| layer.parse::<usize>().ok());
    layer.is_some_and(|l| l < config.n_layers)
}
