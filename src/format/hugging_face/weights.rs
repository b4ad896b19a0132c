//! A family's tensors: which parameters each holds, read and written by one list.

use super::family::{Bias, Family, Row, Storage, Weave};
use crate::diagram::{Config, NormWeight};
use crate::error::{Error, Result, nearest_hint};
use crate::linalg::product_into;
use crate::model::{Weights, norm_of_scale};
use crate::names::NormSite;
use crate::tensor::{Scalar, Tensor, TensorFile, check_room};
use std::collections::{BTreeMap, BTreeSet};

/// The parameters whose values are not those of their tensors.
pub(super) const EMBED: &str = "embed.W_E";
pub(super) const POSITIONS: &str = "pos_embed.W_pos";
pub(super) const UNEMBED: &str = "unembed.W_U";
/// Maps that are multiplied into embedding and unembedding.
const BEFORE: &str = "project_in";
const AFTER: &str = "project_out";

/// A tensor of a file.
pub(super) struct Stored {
    /// Its names; the first is written.
    pub names: Vec<String>,
    pub shape: Vec<usize>,
    /// As a matrix of inputs and outputs: how many there are, and which come first.
    inputs: usize,
    outputs: usize,
    inputs_first: bool,
    pub parts: Vec<Part>,
}

/// Where a parameter's outputs are among those of its tensor: `count` runs of `run`, the first at `start`, each `stride`
/// after the one before.
pub(super) struct Part {
    pub parameter: String,
    start: usize,
    run: usize,
    count: usize,
    stride: usize,
}

impl Part {
    fn whole(parameter: String, outputs: usize) -> Self {
        Part {
            parameter,
            start: 0,
            run: outputs,
            count: 1,
            stride: outputs,
        }
    }

    /// The tensor's output of each of the parameter's.
    fn outputs(&self) -> impl Iterator<Item = usize> + '_ {
        let run =
            move |i: usize| self.start + i * self.stride..self.start + i * self.stride + self.run;
        (0..self.count).flat_map(run)
    }
}

/// How wide the inputs and outputs of a linear map are, and how many of its outputs go together.
fn widths(c: &Config, parameter: &str) -> (usize, usize, usize) {
    let d_mlp = c.d_mlp().unwrap_or(0);
    match parameter {
        "attn.W_Q" => (c.d_model, c.n_heads * c.d_head, c.d_head),
        "attn.W_K" | "attn.W_V" => (c.d_model, c.groups * c.d_head, c.d_head),
        "attn.W_O" => (c.n_heads * c.d_head, c.d_model, c.d_model),
        "mlp.W_gate" | "mlp.W_in" => (c.d_model, d_mlp, d_mlp),
        "mlp.W_out" => (d_mlp, c.d_model, c.d_model),
        "mlm_head.W" => (c.d_model, c.d_model, c.d_model),
        other => unreachable!("{other} is no linear map of a block"),
    }
}

/// The bias beside a linear map's weights.
pub(super) fn bias_of(parameter: &str) -> String {
    match parameter.rsplit_once('.') {
        Some((module, own)) => format!("{module}.{}", own.replacen('W', "b", 1)),
        None => unreachable!("{parameter} has a module"),
    }
}

/// The tensors of a model's file, in the order of the forward pass; of the first so many layers.
pub(super) fn tensors(
    family: &Family,
    c: &Config,
    storage: &Storage,
    (body, head): (&str, &str),
    layers: usize,
) -> Vec<Stored> {
    let mut all = Tensors {
        config: c,
        storage,
        inputs_first: false,
        all: Vec::new(),
    };
    for row in family.body {
        all.row(row, "", body);
    }
    all.inputs_first = family.inputs_first;
    let (blocks, rows) = family.blocks;
    for l in 0..layers {
        let (here, there) = (format!("blocks.{l}."), format!("{body}{blocks}.{l}."));
        for row in rows {
            all.row(row, &here, &there);
        }
    }
    all.inputs_first = false;
    if storage.head {
        for row in family.head {
            all.row(row, "", head);
        }
    }
    all.all
}

struct Tensors<'a> {
    config: &'a Config,
    storage: &'a Storage,
    inputs_first: bool,
    all: Vec<Stored>,
}

impl Tensors<'_> {
    /// A row's tensors, whose parameters' names begin with `here` and whose own with `there`.
    fn row(&mut self, row: &Row, here: &str, there: &str) {
        let (c, s) = (self.config, self.storage);
        let d = c.d_model;
        match *row {
            Row::Table(parameter, module) => {
                let (rows, width) = match parameter {
                    EMBED => (c.d_vocab, s.projected.unwrap_or(d)),
                    POSITIONS => (c.n_ctx.saturating_add(s.first_position), d),
                    _ => (c.token_types, d),
                };
                let name = format!("{there}{module}.weight");
                self.matrix(name, (rows, width), true, parameter.into());
            }
            Row::Norm(module, name) => {
                let parameter = format!("{here}{module}.w");
                let site = norm_of_scale(&parameter).expect("a norm's module");
                let kind = self.norm(site);
                let Some((width, bias)) = kind else { return };
                let names = |own: [&str; 2]| own.map(|own| format!("{there}{name}.{own}")).to_vec();
                self.vector(names(["weight", "gamma"]), width, parameter);
                if bias {
                    let parameter = format!("{here}{module}.b");
                    self.vector(names(["bias", "beta"]), width, parameter);
                }
            }
            Row::Linear(parameter, module, bias) => {
                self.linear(&[parameter], module, (Weave::Stacked, bias), here, there);
            }
            Row::Fused(parameters, module, weave, bias) => {
                self.linear(parameters, module, (weave, bias), here, there);
            }
            Row::Unembed(module, bias) => {
                let width = s.projected.unwrap_or(d);
                if !s.tied {
                    let name = format!("{there}{module}.weight");
                    self.matrix(name, (width, c.d_vocab_out), false, UNEMBED.into());
                }
                if self.has(bias) {
                    let name = format!("{there}{module}.bias");
                    self.vector(vec![name], c.d_vocab_out, bias_of(UNEMBED));
                }
            }
            Row::Alone(parameter, names) => {
                let names = names.iter().map(|name| format!("{there}{name}"));
                self.vector(names.collect(), c.d_vocab_out, parameter.into());
            }
            Row::Projections(before, after) => {
                let Some(width) = s.projected else { return };
                for (module, parameter, inputs, outputs) in
                    [(before, BEFORE, width, d), (after, AFTER, d, width)]
                {
                    let name = format!("{there}{module}.weight");
                    self.matrix(name, (inputs, outputs), false, parameter.into());
                }
            }
        }
    }

    /// How wide a norm is and whether it has a bias, where it has parameters.
    fn norm(&self, site: NormSite) -> Option<(usize, bool)> {
        let kind = self.config.norm_at(site)?;
        let has = kind.weight != NormWeight::Absent;
        has.then(|| (self.config.norm_width(site), kind.bias))
    }

    fn has(&self, bias: Bias) -> bool {
        match bias {
            Bias::Yes => true,
            Bias::No => false,
            Bias::Asked => self.storage.biases,
            Bias::OfGates => self.config.gate_bias(),
        }
    }

    fn linear(
        &mut self,
        parameters: &[&str],
        module: &str,
        (weave, bias): (Weave, Bias),
        here: &str,
        there: &str,
    ) {
        let c = self.config;
        let all: usize = parameters.iter().map(|p| widths(c, p).1).sum();
        let inputs = widths(c, parameters[0]).0;
        let mut before = 0;
        let mut parts = Vec::new();
        for (i, parameter) in parameters.iter().enumerate() {
            let (_, own, together) = widths(c, parameter);
            let part = match weave {
                Weave::Stacked => Part {
                    start: before,
                    ..Part::whole(format!("{here}{parameter}"), own)
                },
                Weave::ByHead => Part {
                    parameter: format!("{here}{parameter}"),
                    start: i * together,
                    run: together,
                    count: own / together.max(1),
                    stride: parameters.len() * together,
                },
            };
            before += own;
            parts.push(part);
        }
        let biases = parts.iter().map(|part| Part {
            parameter: bias_of(&part.parameter),
            ..*part
        });
        let biases: Vec<Part> = biases.collect();
        let stored = |own: &str, shape, inputs, inputs_first, parts| Stored {
            names: vec![format!("{there}{module}.{own}")],
            shape,
            inputs,
            outputs: all,
            inputs_first,
            parts,
        };
        let shape = match self.inputs_first {
            true => vec![inputs, all],
            false => vec![all, inputs],
        };
        let weight = stored("weight", shape, inputs, self.inputs_first, parts);
        self.all.push(weight);
        if self.has(bias) {
            self.all.push(stored("bias", vec![all], 1, true, biases));
        }
    }

    /// A tensor that is one parameter.
    fn matrix(
        &mut self,
        name: String,
        (inputs, outputs): (usize, usize),
        inputs_first: bool,
        parameter: String,
    ) {
        let shape = match inputs_first {
            true => vec![inputs, outputs],
            false => vec![outputs, inputs],
        };
        self.all.push(Stored {
            names: vec![name],
            shape,
            inputs,
            outputs,
            inputs_first,
            parts: vec![Part::whole(parameter, outputs)],
        });
    }

    fn vector(&mut self, names: Vec<String>, outputs: usize, parameter: String) {
        self.all.push(Stored {
            names,
            shape: vec![outputs],
            inputs: 1,
            outputs,
            inputs_first: true,
            parts: vec![Part::whole(parameter, outputs)],
        });
    }
}

impl Stored {
    /// A part of its values, in the order of the parameter: inputs by outputs.
    fn part<T: Scalar>(&self, value: &[T], part: &Part) -> Vec<T> {
        let width = part.run * part.count;
        let mut out = vec![T::ZERO; self.inputs * width];
        self.pairs(part, |ours, theirs| out[ours] = value[theirs]);
        out
    }

    /// Puts a parameter's values in their places.
    pub fn put<T: Scalar>(&self, value: &mut [T], part: &Part, parameter: &[T]) {
        self.pairs(part, |ours, theirs| value[theirs] = parameter[ours]);
    }

    /// Every entry's places in a parameter and in the tensor.
    fn pairs(&self, part: &Part, mut f: impl FnMut(usize, usize)) {
        // So many rows of the tensor are read side by side while the other is gone through in order.
        const ABREAST: usize = 16;
        let outputs: Vec<usize> = part.outputs().collect();
        let width = outputs.len();
        let mut before = 0;
        for block in outputs.chunks(if self.inputs_first {
            width.max(1)
        } else {
            ABREAST
        }) {
            for i in 0..self.inputs {
                for (j, &output) in block.iter().enumerate() {
                    let theirs = match self.inputs_first {
                        true => i * self.outputs + output,
                        false => output * self.inputs + i,
                    };
                    f(i * width + before + j, theirs);
                }
            }
            before += block.len();
        }
    }
}

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
    let entries = all
        .iter()
        .map(|stored| stored.shape.iter().product::<usize>());
    check_room(
        (entries.sum::<usize>() * size_of::<T>()) as u64,
        "the weights",
    )?;

    let mut places = BTreeMap::new();
    for (i, stored) in all.iter().enumerate() {
        for part in &stored.parts {
            places.insert(part.parameter.as_str(), (i, part));
        }
    }
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
                let scale = storage.embed_scale;
                own.iter_mut().for_each(|x| *x = scaled(*x, scale));
            }
            POSITIONS => drop(own.drain(..storage.first_position * config.d_model)),
            UNEMBED => {
                if let Some(map) = value(AFTER)? {
                    own = product(&map, &own, config.d_model);
                }
            }
            _ => {}
        }
        Ok(Tensor::from_vec(shape, own))
    })
}

/// A number times a constant, rounded once.
pub(super) fn scaled<T: Scalar>(x: T, scale: f64) -> T {
    match scale == 1.0 {
        true => x,
        false => T::from_f64(x.to_f64() * scale),
    }
}

/// `[columns, rows]` of `[rows, columns]`.
pub(super) fn transposed<T: Scalar>(x: &[T], rows: usize) -> Vec<T> {
    let columns = x.len() / rows.max(1);
    let mut out = vec![T::ZERO; x.len()];
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
