//! The residual stream as a labelled stack of what wrote to it.

use crate::error::{Error, Result};
use crate::model::{Cache, Config, Model};
use crate::names::{Head, Hook};
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
    /// The `b` of the LayerNorm applied to the stack.
    NormBias,
    /// `b_U`, of a stack of logits.
    UnembedBias,
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Component::Embed => f.write_str("embed"),
            Component::PosEmbed => f.write_str("pos_embed"),
            Component::AttnOut(l) => write!(f, "attn_out {l}"),
            Component::Head(h) => write!(f, "head {h}"),
            Component::AttnBias(l) => write!(f, "b_O {l}"),
            Component::MlpOut(l) => write!(f, "mlp_out {l}"),
            Component::Neuron { layer, neuron } => write!(f, "neuron {layer}.{neuron}"),
            Component::MlpBias(l) => write!(f, "b_out {l}"),
            Component::NormBias => f.write_str("ln.b"),
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
        let mut hooks = vec![Hook::Embed];
        if !config.rotary() {
            hooks.push(Hook::PosEmbed);
        }
        for l in 0..config.n_layers {
            hooks.push(if self == By::Layer {
                Hook::AttnOut(l)
            } else {
                Hook::Result(l)
            });
            if config.mlp.is_some() {
                hooks.push(if self == By::Neuron {
                    Hook::Post(l)
                } else {
                    Hook::MlpOut(l)
                });
            }
        }
        hooks
    }
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
/// `hook_resid_mid`, `hook_resid_post`), biases as components of their own, so that the stack always
/// adds up to the stream.
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
    let c = model.config();
    // How many attention layers and MLPs have written by then.
    let (attns, mlps) = match at {
        Hook::ResidPre(l) if l < c.n_layers => (l, l),
        Hook::ResidMid(l) if l < c.n_layers && c.mlp.is_some() => (l + 1, l),
        Hook::ResidPost(l) if l < c.n_layers => (l + 1, l + 1),
        _ => {
            let reason = "is no place in this model's residual stream, expected blocks.L.hook_resid_pre, _mid or _post";
            return Err(Error::WrongHook {
                hook: at,
                reason: reason.into(),
            });
        }
    };
    let embed = cache.require(Hook::Embed)?;
    let mut labels = Vec::new();
    let mut data: Vec<T> = Vec::new();
    let mut push = |label: Component, values: &mut dyn Iterator<Item = T>| {
        labels.push(label);
        data.extend(values);
    };
    let positions = embed.len() / c.d_model;
    push(Component::Embed, &mut embed.data().iter().copied());
    if !c.rotary() {
        let pos_embed = cache.require(Hook::PosEmbed)?;
        push(Component::PosEmbed, &mut pos_embed.data().iter().copied());
    }
    for l in 0..attns {
        let block = &model.weights().blocks[l];
        if by == By::Layer {
            let attn_out = cache.require(Hook::AttnOut(l))?;
            push(Component::AttnOut(l), &mut attn_out.data().iter().copied());
        } else {
            let result = cache.require(Hook::Result(l))?;
            for head in 0..c.n_heads {
                let rows = result
                    .data()
                    .chunks_exact(c.d_model)
                    .skip(head)
                    .step_by(c.n_heads);
                push(
                    Component::Head(Head { layer: l, head }),
                    &mut rows.flatten().copied(),
                );
            }
            let b_O = block.attn.b_O.data();
            push(
                Component::AttnBias(l),
                &mut b_O.iter().copied().cycle().take(positions * c.d_model),
            );
        }
        let Some(mlp) = block.mlp.as_ref().filter(|_| l < mlps) else {
            continue;
        };
        if by == By::Neuron {
            let post = cache.require(Hook::Post(l))?;
            for neuron in 0..mlp.b_in.len() {
                let direction = mlp.W_out.slice(&[neuron]);
                let activations = post.data().iter().skip(neuron).step_by(mlp.b_in.len());
                push(
                    Component::Neuron { layer: l, neuron },
                    &mut activations.flat_map(|&a| direction.iter().map(move |&d| a * d)),
                );
            }
            let b_out = mlp.b_out.data();
            push(
                Component::MlpBias(l),
                &mut b_out.iter().copied().cycle().take(positions * c.d_model),
            );
        } else {
            let mlp_out = cache.require(Hook::MlpOut(l))?;
            push(Component::MlpOut(l), &mut mlp_out.data().iter().copied());
        }
    }
    let shape = [&[labels.len()], embed.shape()].concat();
    Ok(Stack {
        labels,
        values: Tensor::from_vec(&shape, data),
    })
}
