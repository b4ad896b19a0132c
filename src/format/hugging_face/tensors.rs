//! A family's tensors as a list: which parameters each holds, and where in it they stand.

use super::family::{Bias, Family, Row, Storage, Weave};
use crate::diagram::{Config, NormWeight};
use crate::model::norm_of_scale;
use crate::names::NormSite;
use crate::tensor::Scalar;

/// The parameters whose values are not those of their tensors.
pub(super) const EMBED: &str = "embed.W_E";
pub(super) const POSITIONS: &str = "pos_embed.W_pos";
pub(super) const UNEMBED: &str = "unembed.W_U";
/// Maps that are multiplied into embedding and unembedding.
pub(super) const BEFORE: &str = "project_in";
pub(super) const AFTER: &str = "project_out";

/// A tensor of a file.
pub(super) struct Stored {
    /// Its names; the first is written.
    pub names: Vec<String>,
    pub shape: Vec<usize>,
    /// As a matrix of inputs and outputs: how many there are, and which come first.
    pub inputs: usize,
    pub outputs: usize,
    pub inputs_first: bool,
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

pub(super) struct Tensors<'a> {
    pub config: &'a Config,
    pub storage: &'a Storage,
    pub inputs_first: bool,
    pub all: Vec<Stored>,
}

impl Tensors<'_> {
    /// A row's tensors, whose parameters' names begin with `here` and whose own with `there`.
    pub fn row(&mut self, row: &Row, here: &str, there: &str) {
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
    pub fn part<E: Copy + Default>(&self, value: &[E], part: &Part) -> Vec<E> {
        let width = part.run * part.count;
        let mut out = vec![E::default(); self.inputs * width];
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
