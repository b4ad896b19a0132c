//! The residual stream as a labelled stack of what wrote to it.

use crate::decompose::norm_in_precision;
use crate::diagram::{Diagram, Op, Value};
use crate::error::{Error, Result};
use crate::model::{Cache, Config, Model};
use crate::names::{Head, Hook, NormSite};
use crate::op::NormMap;
use crate::tensor::{Scalar, Tensor};
use serde::{Serialize, Serializer};
use std::fmt;

/// Something that writes to the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Component {
    /// `hook_embed`
    Embed,
    /// `hook_pos_embed`
    PosEmbed,
    /// `hook_token_type_embed`
    TokenTypeEmbed,
    /// A whole attention layer, `b_O` included.
    AttnOut(usize),
    /// One head's result, `b_V` included.
    Head(Head),
    /// A layer's `b_O`.
    AttnBias(usize),
    /// A whole MLP, `b_out` included.
    MlpOut(usize),
    /// One neuron: its activation times its row of `W_out`.
    Neuron {
        /// The layer, from 0.
        layer: usize,
        /// The neuron within the layer, from 0.
        neuron: usize,
    },
    /// A layer's `b_out`.
    MlpBias(usize),
    /// The `b` of a norm that the stack has passed.
    NormBias(NormSite),
    /// `b_U`, of a stack of logits.
    UnembedBias,
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Component::Embed => f.write_str("embed"),
            Component::PosEmbed => f.write_str("pos_embed"),
            Component::TokenTypeEmbed => f.write_str("token_type_embed"),
            Component::AttnOut(l) => write!(f, "attn_out {l}"),
            Component::Head(h) => write!(f, "head {h}"),
            Component::AttnBias(l) => write!(f, "b_O {l}"),
            Component::MlpOut(l) => write!(f, "mlp_out {l}"),
            Component::Neuron { layer, neuron } => write!(f, "neuron {layer}.{neuron}"),
            Component::MlpBias(l) => write!(f, "b_out {l}"),
            Component::NormBias(site) => write!(f, "{}.b", site.module()),
            Component::UnembedBias => f.write_str("b_U"),
        }
    }
}

impl Serialize for Component {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// How finely a stack is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Embeddings, attention layers, MLPs.
    Layer,
    /// As by layer, with each attention layer as its heads and `b_O`.
    Head,
    /// As by head, with each MLP as its neurons and `b_out`.
    Neuron,
}

impl By {
    /// The hooks that a run must keep for this cut of the stream at its end.
    pub fn hooks(self, config: &Config) -> Vec<Hook> {
        let diagram = Diagram::of(config);
        let end = diagram.value(config.end_of_stream());
        let mut hooks = Vec::new();
        self.add_hooks(&diagram, end.expect("a hook of this model"), &mut hooks);
        hooks
    }

    fn add_hooks(self, diagram: &Diagram, value: Value, hooks: &mut Vec<Hook>) {
        let made = self.made(diagram, value);
        let add = |hook: Hook, hooks: &mut Vec<Hook>| {
            if !hooks.contains(&hook) {
                hooks.push(hook);
            }
        };
        match made {
            Made::Of(parts) => parts
                .iter()
                .for_each(|&v| self.add_hooks(diagram, v, hooks)),
            Made::Normed(site, x) => {
                self.add_hooks(diagram, x, hooks);
                add(Hook::Scale(site), hooks);
            }
            Made::Alone(_) => add(diagram.values[value], hooks),
            Made::Heads(_, result) => add(diagram.values[result], hooks),
            Made::Neurons(_, post) => add(diagram.values[post], hooks),
        }
    }

    /// What a value of the stream is made of, at this cut.
    fn made(self, diagram: &Diagram, value: Value) -> Made {
        let step = &diagram.steps[diagram.made_by(value)];
        let read = |i: usize| step.reads[i].0;
        match (step.op, diagram.values[value]) {
            (Op::Embed, _) => Made::Alone(Component::Embed),
            (Op::PosEmbed, _) => Made::Alone(Component::PosEmbed),
            (Op::TokenTypeEmbed, _) => Made::Alone(Component::TokenTypeEmbed),
            (Op::WriteHeads(l) | Op::Norm(NormSite::Ln1Post(l)), _) if self == By::Layer => {
                Made::Alone(Component::AttnOut(l))
            }
            (Op::WriteNeurons(l) | Op::Norm(NormSite::Ln2Post(l)), _) if self != By::Neuron => {
                Made::Alone(Component::MlpOut(l))
            }
            (Op::WriteHeads(l), _) => Made::Heads(l, step.gives[0]),
            (Op::WriteNeurons(l), _) => Made::Neurons(l, read(0)),
            (Op::Norm(site), _) => Made::Normed(site, read(0)),
            (Op::Sum | Op::Same, _) => Made::Of(step.reads.iter().map(|&(v, _)| v).collect()),
            (
                Op::Project(..)
                | Op::Rotate(_)
                | Op::Attend(_)
                | Op::Gate(_)
                | Op::Neurons(_)
                | Op::Activate(_)
                | Op::MlmHead
                | Op::ActivateMlmHead
                | Op::Unembed,
                hook,
            ) => unreachable!("{hook} is no value of the stream"),
        }
    }
}

/// What a value of the stream is made of.
enum Made {
    /// Of other values, which add up to it.
    Of(Vec<Value>),
    /// A norm's output, of its input.
    Normed(NormSite, Value),
    /// It is a component.
    Alone(Component),
    /// Of a layer's heads' results, and its `b_O`.
    Heads(usize, Value),
    /// Of a layer's neurons, and its `b_out`.
    Neurons(usize, Value),
}

/// Components of a value, which add up to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stack<T: Scalar> {
    /// What each component is.
    pub labels: Vec<Component>,
    /// `[component, batch, pos, d]`
    pub values: Tensor<T>,
}

impl<T: Scalar> Stack<T> {
    /// The components' sum, `[batch, pos, d]`, added in order.
    pub fn sum(&self) -> Tensor<T> {
        let mut sum = Tensor::zeros(&self.values.shape()[1..]);
        for i in 0..self.labels.len() {
            add(sum.data_mut(), self.values.slice(&[i]));
        }
        sum
    }

    /// The running sums: component `i` becomes the sum of components `0..=i`.
    pub fn accumulated(&self) -> Stack<T> {
        let mut values = self.values.clone();
        let each = values.len() / self.labels.len().max(1);
        for i in 1..self.labels.len() {
            let (before, own) = values.data_mut().split_at_mut(i * each);
            add(&mut own[..each], &before[(i - 1) * each..]);
        }
        Stack {
            labels: self.labels.clone(),
            values,
        }
    }

    /// One component, `[batch, pos, d]`, if it is there.
    pub fn component(&self, label: Component) -> Option<Tensor<T>> {
        let i = self.labels.iter().position(|&l| l == label)?;
        Some(Tensor::from_vec(
            &self.values.shape()[1..],
            self.values.slice(&[i]).to_vec(),
        ))
    }
}

pub(super) fn add<T: Scalar>(to: &mut [T], from: &[T]) {
    to.iter_mut().zip(from).for_each(|(t, &f)| *t += f);
}

/// Everything that has been written to the residual stream at a hook of the stream (`hook_resid_pre`,
/// `hook_resid_mid`, `hook_resid_post`, `hook_normalized_resid_post`), biases as components of their own, so that the
/// stack always adds up to the stream. What passes a norm on its way (in post-norm blocks, behind the embeddings, or
/// over what heads and neurons write) passes it at the run's scale, with which it is linear.
///
/// ```
/// use pathsum::decompose::{By, residual_stack};
/// use pathsum::{Hook, Run, Tokens, fixture};
/// let model = fixture::induction::<f64>();
/// let out = model.run(&Tokens::from_rows(&[[3, 1, 4, 3]]), Run::new().cache("*"))?;
/// let stack = residual_stack(&model, &out.cache, Hook::ResidPost(1), By::Head)?;
/// let labels: Vec<String> = stack.labels.iter().map(|c| c.to_string()).collect();
/// assert_eq!(labels, ["embed", "pos_embed", "head 0.0", "b_O 0", "head 1.0", "b_O 1"]);
/// approx::assert_relative_eq!(stack.sum(), out.cache[Hook::ResidPost(1)], epsilon = 16.0 * f64::EPSILON);
/// # Ok::<(), pathsum::Error>(())
/// ```
///
/// # Shapes
/// The values are `[component, batch, pos, d_model]`: by neuron, that is `n_layers * d_mlp` streams.
///
/// # Errors
/// When the hook is none of the stream's, or the cache lacks one that [`By::hooks`] names.
pub fn residual_stack<T: Scalar>(
    model: &Model<T>,
    cache: &Cache<T>,
    at: Hook,
    by: By,
) -> Result<Stack<T>> {
    let stream = matches!(
        at,
        Hook::ResidPre(_) | Hook::ResidMid(_) | Hook::ResidPost(_) | Hook::NormalizedResidPost(_)
    );
    match model.diagram.value(at) {
        Some(value) if stream && at.layer() < Some(model.config().n_layers) => {
            stack_of(model, cache, value, by)
        }
        _ => {
            let reason = "is no place in this model's residual stream, expected blocks.L.hook_resid_pre, _mid or _post";
            Err(Error::WrongHook {
                hook: at,
                reason: reason.into(),
            })
        }
    }
}

/// As [`residual_stack`], of any value of the stream.
pub(crate) fn stack_of<T: Scalar>(
    model: &Model<T>,
    cache: &Cache<T>,
    value: Value,
    by: By,
) -> Result<Stack<T>> {
    let mut stack = Pushed {
        model,
        cache,
        by,
        labels: Vec::new(),
        data: Vec::new(),
    };
    stack.push(value)?;
    let shape = cache.require(Hook::Embed)?.shape();
    let shape = [&[stack.labels.len()], shape].concat();
    Ok(Stack {
        labels: stack.labels,
        values: Tensor::from_vec(&shape, stack.data),
    })
}

/// A stack under way.
struct Pushed<'a, T: Scalar> {
    model: &'a Model<T>,
    cache: &'a Cache<T>,
    by: By,
    labels: Vec<Component>,
    data: Vec<T>,
}

impl<T: Scalar> Pushed<'_, T> {
    fn push(&mut self, value: Value) -> Result<()> {
        let (model, cache) = (self.model, self.cache);
        let d = model.config().d_model;
        match self.by.made(&model.diagram, value) {
            Made::Of(parts) => parts.into_iter().try_for_each(|part| self.push(part)),
            Made::Alone(component) => {
                let x = cache.require(model.diagram.values[value])?;
                self.add(component, x.data().iter().copied());
                Ok(())
            }
            Made::Heads(l, result) => {
                let result = cache.require(model.diagram.values[result])?;
                let heads = model.config().n_heads;
                for head in 0..heads {
                    let rows = result.data().chunks_exact(d).skip(head).step_by(heads);
                    let label = Component::Head(Head { layer: l, head });
                    self.add(label, rows.flatten().copied());
                }
                let b_O = model.weights().blocks[l].attn.b_O.data();
                self.add_row(Component::AttnBias(l), b_O, result.len() / (heads * d));
                Ok(())
            }
            Made::Neurons(l, post) => {
                let post = cache.require(model.diagram.values[post])?;
                let mlp = model.weights().mlp(l);
                let d_mlp = mlp.b_in.len();
                for neuron in 0..d_mlp {
                    let direction = mlp.W_out.slice(&[neuron]);
                    let activations = post.data().iter().skip(neuron).step_by(d_mlp);
                    let values = activations.flat_map(|&a| direction.iter().map(move |&d| a * d));
                    self.add(Component::Neuron { layer: l, neuron }, values);
                }
                self.add_row(Component::MlpBias(l), mlp.b_out.data(), post.len() / d_mlp);
                Ok(())
            }
            Made::Normed(site, x) => {
                let (first, start) = (self.labels.len(), self.data.len());
                self.push(x)?;
                let norm = model.norm_at(site).expect("a norm of this model");
                let scale = cache.require(Hook::Scale(site))?.data();
                let rows = self.data[start..].chunks_exact_mut(d);
                for (row, &scale) in rows.zip(scale.iter().cycle()) {
                    norm.at_scale(row, scale);
                }
                debug_assert!(self.labels.len() > first);
                if let Some(b) = norm.b() {
                    self.add_row(Component::NormBias(site), b, scale.len());
                }
                Ok(())
            }
        }
    }

    fn add(&mut self, label: Component, values: impl Iterator<Item = T>) {
        self.labels.push(label);
        self.data.extend(values);
    }

    /// The same row at so many positions.
    fn add_row(&mut self, label: Component, row: &[T], positions: usize) {
        self.add(
            label,
            row.iter().copied().cycle().take(positions * row.len()),
        );
    }
}

/// A component at one position.
pub(super) struct Row<'a> {
    pub label: Component,
    /// `[d_model]`
    pub row: &'a [f64],
    /// The norm of the terms that it was computed from.
    pub size: f64,
}

/// The components of the stream at one position of a sequence, one after the other, in f64: what heads write is made of
/// their `hook_z`, so that nothing is as large as a stack.
pub(super) struct Rows<'a, T: Scalar> {
    model: &'a Model<T>,
    cache: &'a Cache<T>,
    by: By,
    sequence: usize,
    position: usize,
}

/// The hooks that [`Rows`] needs.
pub(super) fn row_hooks(config: &Config, at: Hook, by: By) -> Vec<Hook> {
    let diagram = Diagram::of(config);
    let mut hooks = vec![Hook::Embed];
    let end = diagram.value(at).expect("a hook of this model");
    by.add_hooks(&diagram, end, &mut hooks);
    for hook in &mut hooks {
        if let Hook::Result(l) = *hook {
            *hook = Hook::Z(l);
        }
    }
    hooks
}

/// A norm that parts pass on their way.
struct Passed {
    norm: NormMap<'static, f64>,
    scale: f64,
}

impl<'a, T: Scalar> Rows<'a, T> {
    pub fn new(
        model: &'a Model<T>,
        cache: &'a Cache<T>,
        by: By,
        sequence: usize,
        position: usize,
    ) -> Self {
        Rows {
            model,
            cache,
            by,
            sequence,
            position,
        }
    }

    /// Hands on every component of a value of the stream; how many roundings a term of the run's own meets at most.
    pub fn each(&self, at: Hook, take: &mut dyn FnMut(Row<'_>)) -> Result<usize> {
        let value = self.model.diagram.value(at).expect("a hook of this model");
        self.walk(value, &mut Vec::new(), take)
    }

    fn at(&self, hook: Hook) -> Result<Vec<f64>> {
        let value = self.cache.require(hook)?;
        let row = value.slice(&[self.sequence, self.position]);
        Ok(row.iter().map(|x| x.to_f64()).collect())
    }

    fn walk(
        &self,
        value: Value,
        passed: &mut Vec<Passed>,
        take: &mut dyn FnMut(Row<'_>),
    ) -> Result<usize> {
        let model = self.model;
        let c = model.config();
        match self.by.made(&model.diagram, value) {
            Made::Of(parts) => {
                let mut roundings = 0;
                for part in parts {
                    roundings = self.walk(part, passed, take)?.max(roundings) + 1;
                }
                Ok(roundings)
            }
            Made::Alone(component) => {
                let mut row = self.at(model.diagram.values[value])?;
                let size = norm(&row);
                emit(component, &mut row, size, passed, take);
                Ok(0)
            }
            Made::Heads(l, _) => {
                let z = self.at(Hook::Z(l))?;
                for (head, z) in z.chunks_exact(c.d_head).enumerate() {
                    let h = Head { layer: l, head };
                    let W_O = model.weights().W_O(h);
                    let mut row = vec![0.0; c.d_model];
                    let mut squares = 0.0;
                    for (j, &z) in z.iter().enumerate() {
                        for (i, x) in row.iter_mut().enumerate() {
                            let w = W_O[(j, i)].to_f64();
                            *x += z * w;
                            squares += w * w;
                        }
                    }
                    let size = norm(z) * squares.sqrt();
                    emit(Component::Head(h), &mut row, size, passed, take);
                }
                let b_O = &model.weights().blocks[l].attn.b_O;
                self.bias(Component::AttnBias(l), b_O.data(), passed, take);
                Ok(c.n_heads * c.d_head + 1)
            }
            Made::Neurons(l, post) => {
                let post = self.at(model.diagram.values[post])?;
                let mlp = model.weights().mlp(l);
                for (neuron, &a) in post.iter().enumerate() {
                    let direction = mlp.W_out.slice(&[neuron]);
                    let mut row: Vec<f64> = direction.iter().map(|w| a * w.to_f64()).collect();
                    let label = Component::Neuron { layer: l, neuron };
                    let size = norm(&row);
                    emit(label, &mut row, size, passed, take);
                }
                self.bias(Component::MlpBias(l), mlp.b_out.data(), passed, take);
                Ok(post.len() + 1)
            }
            Made::Normed(site, x) => {
                let norm = norm_in_precision::<T, f64>(model, site).expect("a norm of this model");
                let scale = self.at(Hook::Scale(site))?[0];
                let b = norm.b().map(<[f64]>::to_vec);
                passed.push(Passed { norm, scale });
                let roundings = self.walk(x, passed, take)?;
                passed.pop();
                if let Some(mut b) = b {
                    let size = self::norm(&b);
                    emit(Component::NormBias(site), &mut b, size, passed, take);
                }
                Ok(roundings + 2 * c.d_model + 8)
            }
        }
    }

    fn bias(&self, label: Component, row: &[T], passed: &[Passed], take: &mut dyn FnMut(Row<'_>)) {
        let mut row: Vec<f64> = row.iter().map(|x| x.to_f64()).collect();
        let size = norm(&row);
        emit(label, &mut row, size, passed, take);
    }
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Hands a component on, through the norms that it passes.
fn emit(
    label: Component,
    row: &mut [f64],
    mut size: f64,
    passed: &[Passed],
    take: &mut dyn FnMut(Row<'_>),
) {
    for Passed { norm, scale } in passed.iter().rev() {
        norm.at_scale(row, *scale);
        let w = norm.w().unwrap_or_default().iter();
        let most = w.fold(f64::from(norm.w().is_none()), |m, w| m.max(w.abs()));
        // Taking the mean off doubles a term at most.
        size *= 2.0 * most / scale.abs();
    }
    take(Row { label, row, size });
}
