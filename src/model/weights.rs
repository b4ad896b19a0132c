//! The weights, with TransformerLens's names and shapes.

use crate::diagram::{Config, NormWeight, Op, Projection};
use crate::error::{Error, Result};
use crate::names::Head;
use crate::names::NormSite;
use crate::op::{Affine, NormMap};
use crate::tensor::{Scalar, Tensor};
use faer::MatRef;
use std::collections::BTreeMap;

/// A norm's parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Norm<T: Scalar> {
    /// `[d]`
    pub w: Tensor<T>,
    /// `[d]`, where it has one.
    pub b: Option<Tensor<T>>,
}

/// A dense layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Dense<T: Scalar> {
    /// `[inputs, outputs]`
    pub W: Tensor<T>,
    /// `[outputs]`
    pub b: Tensor<T>,
}

/// An attention layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention<T: Scalar> {
    /// `[d_model, n_heads, d_head]`: the heads side by side, as they are multiplied.
    pub W_Q: Tensor<T>,
    /// `[n_heads, d_head]`
    pub b_Q: Tensor<T>,
    /// `[d_model, groups, d_head]`
    pub W_K: Tensor<T>,
    /// `[groups, d_head]`
    pub b_K: Tensor<T>,
    /// `[d_model, groups, d_head]`
    pub W_V: Tensor<T>,
    /// `[groups, d_head]`
    pub b_V: Tensor<T>,
    /// `[n_heads, d_head, d_model]`
    pub W_O: Tensor<T>,
    /// `[d_model]`
    pub b_O: Tensor<T>,
}

/// An MLP.
#[derive(Clone, Debug, PartialEq)]
pub struct Mlp<T: Scalar> {
    /// `[d_model, d_mlp]`; only where the neurons are gated.
    pub W_gate: Option<Tensor<T>>,
    /// `[d_mlp]`; only where both maps of gated neurons have a bias.
    pub b_gate: Option<Tensor<T>>,
    /// `[d_model, d_mlp]`
    pub W_in: Tensor<T>,
    /// `[d_mlp]`; of gated neurons without a `b_gate` added to the product.
    pub b_in: Tensor<T>,
    /// `[d_mlp, d_model]`
    pub W_out: Tensor<T>,
    /// `[d_model]`
    pub b_out: Tensor<T>,
}

impl<T: Scalar> Mlp<T> {
    /// What is added to the product of gated neurons, where they have no bias before it.
    pub(crate) fn b_after(&self) -> Option<&Tensor<T>> {
        (self.W_gate.is_some() && self.b_gate.is_none()).then_some(&self.b_in)
    }
}

/// One block: attention, then the MLP if there is one.
#[derive(Clone, Debug, PartialEq)]
pub struct Block<T: Scalar> {
    /// The attention layer.
    pub attn: Attention<T>,
    /// The MLP; absent where the model is attention-only.
    pub mlp: Option<Mlp<T>>,
}

/// All parameters of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights<T: Scalar> {
    /// `[d_vocab, d_model]`
    pub W_E: Tensor<T>,
    /// `[n_ctx, d_model]`; no rows where positions are not added to the embeddings.
    pub W_pos: Tensor<T>,
    /// `[token_types, d_model]`; no rows where there are no token types.
    pub W_token_type: Tensor<T>,
    /// The blocks, in order.
    pub blocks: Vec<Block<T>>,
    /// The norms' parameters, of those that have any.
    pub norms: BTreeMap<NormSite, Norm<T>>,
    /// The dense layer before the unembedding, where there is one.
    pub mlm_head: Option<Dense<T>>,
    /// `[d_model, d_vocab_out]`
    pub W_U: Tensor<T>,
    /// `[d_vocab_out]`
    pub b_U: Tensor<T>,
}

/// Makes a parameter from its name and shape.
type Make<'m, T> = dyn FnMut(&str, &[usize]) -> Result<Tensor<T>> + 'm;

/// The one list of names, for reading and for changing.
macro_rules! named_tensors {
    ($(#[$doc:meta])* $name:ident, $iter:ident, $as:ident, $($mut:tt)?) => {
        $(#[$doc])*
        pub fn $name(& $($mut)? self) -> Vec<(String, & $($mut)? Tensor<T>)> {
            let mut norms: BTreeMap<NormSite, & $($mut)? Norm<T>> =
                self.norms.$iter().map(|(&site, norm)| (site, norm)).collect();
            let mut all = vec![("embed.W_E".to_string(), & $($mut)? self.W_E)];
            let mut norm = |all: &mut Vec<_>, site: NormSite| {
                if let Some(norm) = norms.remove(&site) {
                    let module = site.module();
                    all.push((format!("{module}.w"), & $($mut)? norm.w));
                    if let Some(b) = norm.b.$as() {
                        all.push((format!("{module}.b"), b));
                    }
                }
            };
            if !self.W_pos.is_empty() {
                all.push(("pos_embed.W_pos".to_string(), & $($mut)? self.W_pos));
            }
            if !self.W_token_type.is_empty() {
                let name = "token_type_embed.W_token_type".to_string();
                all.push((name, & $($mut)? self.W_token_type));
            }
            norm(&mut all, NormSite::Embed);
            for (l, block) in self.blocks.$iter().enumerate() {
                let add = |all: &mut Vec<_>, name: &str, t| all.push((format!("blocks.{l}.{name}"), t));
                norm(&mut all, NormSite::Ln1(l));
                add(&mut all, "attn.W_Q", & $($mut)? block.attn.W_Q);
                add(&mut all, "attn.b_Q", & $($mut)? block.attn.b_Q);
                add(&mut all, "attn.W_K", & $($mut)? block.attn.W_K);
                add(&mut all, "attn.b_K", & $($mut)? block.attn.b_K);
                add(&mut all, "attn.W_V", & $($mut)? block.attn.W_V);
                add(&mut all, "attn.b_V", & $($mut)? block.attn.b_V);
                norm(&mut all, NormSite::Q(l));
                norm(&mut all, NormSite::K(l));
                add(&mut all, "attn.W_O", & $($mut)? block.attn.W_O);
                add(&mut all, "attn.b_O", & $($mut)? block.attn.b_O);
                norm(&mut all, NormSite::Ln1Post(l));
                norm(&mut all, NormSite::Ln2(l));
                if let Some(mlp) = block.mlp.$as() {
                    if let Some(W_gate) = mlp.W_gate.$as() {
                        add(&mut all, "mlp.W_gate", W_gate);
                    }
                    if let Some(b_gate) = mlp.b_gate.$as() {
                        add(&mut all, "mlp.b_gate", b_gate);
                    }
                    add(&mut all, "mlp.W_in", & $($mut)? mlp.W_in);
                    add(&mut all, "mlp.b_in", & $($mut)? mlp.b_in);
                    norm(&mut all, NormSite::Neurons(l));
                    add(&mut all, "mlp.W_out", & $($mut)? mlp.W_out);
                    add(&mut all, "mlp.b_out", & $($mut)? mlp.b_out);
                }
                norm(&mut all, NormSite::Ln2Post(l));
            }
            norm(&mut all, NormSite::Final);
            if let Some(head) = self.mlm_head.$as() {
                all.push(("mlm_head.W".to_string(), & $($mut)? head.W));
                all.push(("mlm_head.b".to_string(), & $($mut)? head.b));
            }
            norm(&mut all, NormSite::MlmHead);
            all.push(("unembed.W_U".to_string(), & $($mut)? self.W_U));
            all.push(("unembed.b_U".to_string(), & $($mut)? self.b_U));
            all
        }
    };
}

impl<T: Scalar> Weights<T> {
    /// Builds every parameter from its name and the shape that the configuration gives it.
    ///
    /// # Errors
    /// The first error of `make`.
    pub fn build(
        config: &Config,
        mut make: impl FnMut(&str, &[usize]) -> Result<Tensor<T>>,
    ) -> Result<Self> {
        let c = config;
        let mut norms = BTreeMap::new();
        let mut norm = |make: &mut Make<'_, T>, site: NormSite| {
            let kind = c.norm_at(site);
            let Some(kind) = kind.filter(|kind| kind.weight != NormWeight::Absent) else {
                return Result::Ok(());
            };
            let (module, d) = (site.module(), c.norm_width(site));
            let w = make(&format!("{module}.w"), &[d])?;
            let b = match kind.bias {
                true => Some(make(&format!("{module}.b"), &[d])?),
                false => None,
            };
            norms.insert(site, Norm { w, b });
            Ok(())
        };
        let W_E = make("embed.W_E", &[c.d_vocab, c.d_model])?;
        let W_pos = match c.pos_embed() {
            true => make("pos_embed.W_pos", &[c.n_ctx, c.d_model])?,
            false => Tensor::zeros(&[0, c.d_model]),
        };
        let W_token_type = match c.token_types {
            0 => Tensor::zeros(&[0, c.d_model]),
            n => make("token_type_embed.W_token_type", &[n, c.d_model])?,
        };
        norm(&mut make, NormSite::Embed)?;
        let mut blocks = Vec::new();
        for l in 0..c.n_layers {
            let name = |s: &str| format!("blocks.{l}.{s}");
            let into_head = [c.d_model, c.n_heads, c.d_head];
            let into_group = [c.d_model, c.groups, c.d_head];
            let of_head = [c.n_heads, c.d_head];
            let of_group = [c.groups, c.d_head];
            norm(&mut make, NormSite::Ln1(l))?;
            let W_Q = make(&name("attn.W_Q"), &into_head)?;
            let b_Q = make(&name("attn.b_Q"), &of_head)?;
            let W_K = make(&name("attn.W_K"), &into_group)?;
            let b_K = make(&name("attn.b_K"), &of_group)?;
            let W_V = make(&name("attn.W_V"), &into_group)?;
            let b_V = make(&name("attn.b_V"), &of_group)?;
            norm(&mut make, NormSite::Q(l))?;
            norm(&mut make, NormSite::K(l))?;
            let attn = Attention {
                W_Q,
                b_Q,
                W_K,
                b_K,
                W_V,
                b_V,
                W_O: make(&name("attn.W_O"), &[c.n_heads, c.d_head, c.d_model])?,
                b_O: make(&name("attn.b_O"), &[c.d_model])?,
            };
            norm(&mut make, NormSite::Ln1Post(l))?;
            norm(&mut make, NormSite::Ln2(l))?;
            let mlp = match c.d_mlp() {
                None => None,
                Some(d_mlp) => {
                    let W_gate = match c.gated() {
                        true => Some(make(&name("mlp.W_gate"), &[c.d_model, d_mlp])?),
                        false => None,
                    };
                    let b_gate = match c.gate_bias() {
                        true => Some(make(&name("mlp.b_gate"), &[d_mlp])?),
                        false => None,
                    };
                    let W_in = make(&name("mlp.W_in"), &[c.d_model, d_mlp])?;
                    let b_in = make(&name("mlp.b_in"), &[d_mlp])?;
                    norm(&mut make, NormSite::Neurons(l))?;
                    Some(Mlp {
                        W_gate,
                        b_gate,
                        W_in,
                        b_in,
                        W_out: make(&name("mlp.W_out"), &[d_mlp, c.d_model])?,
                        b_out: make(&name("mlp.b_out"), &[c.d_model])?,
                    })
                }
            };
            norm(&mut make, NormSite::Ln2Post(l))?;
            blocks.push(Block { attn, mlp });
        }
        norm(&mut make, NormSite::Final)?;
        let mlm_head = match c.mlm_head {
            None => None,
            Some(_) => Some(Dense {
                W: make("mlm_head.W", &[c.d_model, c.d_model])?,
                b: make("mlm_head.b", &[c.d_model])?,
            }),
        };
        norm(&mut make, NormSite::MlmHead)?;
        Ok(Weights {
            W_E,
            W_pos,
            W_token_type,
            blocks,
            norms,
            mlm_head,
            W_U: make("unembed.W_U", &[c.d_model, c.d_vocab_out])?,
            b_U: make("unembed.b_U", &[c.d_vocab_out])?,
        })
    }

    /// All parameters zero, but for the norms' `w`, which multiply by one.
    pub fn zeros(config: &Config) -> Self {
        let make = |name: &str, shape: &[usize]| {
            let norm = norm_of_scale(name).and_then(|site| config.norm_at(site));
            let value = norm.map_or(T::ZERO, NormMap::<T>::identity_w);
            Ok(Tensor::full(shape, value))
        };
        Self::build(config, make).expect("no error comes from a constant")
    }

    named_tensors!(
        /// Every parameter with its TransformerLens name, in the order of the forward pass.
        tensors, iter, as_ref,
    );
    named_tensors!(
        /// As [`Weights::tensors`], to be changed.
        tensors_mut, iter_mut, as_mut, mut
    );

    /// The number of parameters.
    pub fn len(&self) -> usize {
        self.tensors().iter().map(|(_, t)| t.len()).sum()
    }

    /// Whether there are no parameters; never, for a real model.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same weights in another precision, each rounded to the nearest.
    pub fn cast<U: Scalar>(&self, config: &Config) -> Weights<U> {
        let mut tensors = self.tensors().into_iter();
        Weights::build(config, |name, _| {
            let (own, t) = tensors
                .next()
                .expect("the configuration is the weights' own");
            debug_assert_eq!(own, name);
            Ok(t.cast())
        })
        .expect("no error comes from a cast")
    }

    /// That every parameter is there, in the shape the configuration gives it, and no other.
    pub(crate) fn check(&self, config: &Config) -> Result<()> {
        let mut found: BTreeMap<String, &Tensor<T>> = self.tensors().into_iter().collect();
        for (name, expected) in layout(config) {
            match found.remove(&name) {
                None => return Err(Error::MissingTensor { name, expected }),
                Some(t) if t.shape() != expected.as_slice() => {
                    return Err(Error::Shape {
                        name,
                        found: t.shape().to_vec(),
                        expected,
                    });
                }
                Some(_) => {}
            }
        }
        match found.pop_first() {
            None => Ok(()),
            Some((name, _)) => Err(Error::UnexpectedTensor {
                name,
                reason: "the configuration does not call for it".into(),
            }),
        }
    }

    /// The linear map that an operation is, where it is one.
    pub(crate) fn affine(&self, op: Op) -> Option<Affine<'_, T>> {
        let (W, b, input_axes) = match op {
            Op::Project(l, which) => {
                let attn = &self.blocks[l].attn;
                match which {
                    Projection::Q => (&attn.W_Q, Some(&attn.b_Q), 1),
                    Projection::K => (&attn.W_K, Some(&attn.b_K), 1),
                    Projection::V => (&attn.W_V, Some(&attn.b_V), 1),
                }
            }
            Op::WriteHeads(l) => {
                let attn = &self.blocks[l].attn;
                (&attn.W_O, Some(&attn.b_O), 2)
            }
            Op::Neurons(l) => {
                let mlp = self.blocks[l].mlp.as_ref()?;
                let b = mlp.b_after().is_none().then_some(&mlp.b_in);
                (&mlp.W_in, b, 1)
            }
            Op::Gate(l) => {
                let mlp = self.blocks[l].mlp.as_ref()?;
                (mlp.W_gate.as_ref()?, mlp.b_gate.as_ref(), 1)
            }
            Op::WriteNeurons(l) => {
                let mlp = self.blocks[l].mlp.as_ref()?;
                (&mlp.W_out, Some(&mlp.b_out), 1)
            }
            Op::MlmHead => {
                let dense = self.mlm_head.as_ref()?;
                (&dense.W, Some(&dense.b), 1)
            }
            Op::Unembed => (&self.W_U, Some(&self.b_U), 1),
            Op::Embed
            | Op::PosEmbed
            | Op::TokenTypeEmbed
            | Op::ActivateMlmHead
            | Op::Sum
            | Op::Same
            | Op::Norm(_)
            | Op::Rotate(_)
            | Op::Attend(_)
            | Op::Activate(_) => return None,
        };
        Some(Affine { W, b, input_axes })
    }

    /// The parameters of that map, to be changed, and how many of the first axes of `W` are inputs.
    #[allow(clippy::type_complexity)]
    pub(crate) fn affine_mut(
        &mut self,
        op: Op,
    ) -> Option<(&mut Tensor<T>, Option<&mut Tensor<T>>, usize)> {
        Some(match op {
            Op::Project(l, which) => {
                let attn = &mut self.blocks[l].attn;
                match which {
                    Projection::Q => (&mut attn.W_Q, Some(&mut attn.b_Q), 1),
                    Projection::K => (&mut attn.W_K, Some(&mut attn.b_K), 1),
                    Projection::V => (&mut attn.W_V, Some(&mut attn.b_V), 1),
                }
            }
            Op::WriteHeads(l) => {
                let attn = &mut self.blocks[l].attn;
                (&mut attn.W_O, Some(&mut attn.b_O), 2)
            }
            Op::Neurons(l) => {
                let mlp = self.blocks[l].mlp.as_mut()?;
                let own = mlp.b_after().is_none();
                (&mut mlp.W_in, own.then_some(&mut mlp.b_in), 1)
            }
            Op::Gate(l) => {
                let mlp = self.blocks[l].mlp.as_mut()?;
                (mlp.W_gate.as_mut()?, mlp.b_gate.as_mut(), 1)
            }
            Op::WriteNeurons(l) => {
                let mlp = self.blocks[l].mlp.as_mut()?;
                (&mut mlp.W_out, Some(&mut mlp.b_out), 1)
            }
            Op::MlmHead => {
                let dense = self.mlm_head.as_mut()?;
                (&mut dense.W, Some(&mut dense.b), 1)
            }
            Op::Unembed => (&mut self.W_U, Some(&mut self.b_U), 1),
            Op::Embed
            | Op::PosEmbed
            | Op::TokenTypeEmbed
            | Op::ActivateMlmHead
            | Op::Sum
            | Op::Same
            | Op::Norm(_)
            | Op::Rotate(_)
            | Op::Attend(_)
            | Op::Activate(_) => return None,
        })
    }

    /// A layer's MLP.
    ///
    /// # Panics
    /// Where there is none.
    #[track_caller]
    pub(crate) fn mlp(&self, l: usize) -> &Mlp<T> {
        self.blocks[l].mlp.as_ref().expect("a layer with neurons")
    }

    /// A head's `W_Q`: `[d_model, d_head]`.
    #[track_caller]
    pub fn W_Q(&self, h: Head) -> MatRef<'_, T> {
        self.blocks[h.layer].attn.W_Q.of_head(h.head)
    }

    /// A head's `W_K`: `[d_model, d_head]`.
    #[track_caller]
    pub fn W_K(&self, h: Head) -> MatRef<'_, T> {
        self.blocks[h.layer].attn.W_K.of_head(self.group(h))
    }

    /// A head's `W_V`: `[d_model, d_head]`.
    #[track_caller]
    pub fn W_V(&self, h: Head) -> MatRef<'_, T> {
        self.blocks[h.layer].attn.W_V.of_head(self.group(h))
    }

    /// A head's `b_Q`: `[d_head]`.
    #[track_caller]
    pub fn b_Q(&self, h: Head) -> &[T] {
        self.blocks[h.layer].attn.b_Q.slice(&[h.head])
    }

    /// A head's `b_K`: `[d_head]`.
    #[track_caller]
    pub fn b_K(&self, h: Head) -> &[T] {
        self.blocks[h.layer].attn.b_K.slice(&[self.group(h)])
    }

    /// A head's `b_V`: `[d_head]`.
    #[track_caller]
    pub fn b_V(&self, h: Head) -> &[T] {
        self.blocks[h.layer].attn.b_V.slice(&[self.group(h)])
    }

    /// Which of its layer's keys and values a head has.
    fn group(&self, h: Head) -> usize {
        let attn = &self.blocks[h.layer].attn;
        h.head / (attn.b_Q.shape()[0] / attn.b_K.shape()[0])
    }

    /// A head's `W_O`: `[d_head, d_model]`.
    #[track_caller]
    pub fn W_O(&self, h: Head) -> MatRef<'_, T> {
        self.blocks[h.layer].attn.W_O.mat(&[h.head])
    }
}

/// The norm whose `w` this names.
pub(crate) fn norm_of_scale(name: &str) -> Option<NormSite> {
    NormSite::of_module(name.strip_suffix(".w")?)
}

/// The names and shapes of a model's parameters, in the order of [`Weights::tensors`].
pub(crate) fn layout(config: &Config) -> Vec<(String, Vec<usize>)> {
    let mut all = Vec::new();
    Weights::<f32>::build(config, |name, shape| {
        all.push((name.to_string(), shape.to_vec()));
        Ok(Tensor::zeros(&[0]))
    })
    .expect("no error comes from listing");
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_lists_of_names_are_one() {
        for extra in [
            r#""attn_only": true"#,
            r#""act_fn": "relu", "normalization_type": "LNPre""#,
            r#""act_fn": "solu_ln""#,
        ] {
            let config = Config::from_json(&format!(
                r#"{{"n_layers": 2, "d_model": 6, "n_ctx": 4, "d_head": 3, "d_vocab": 5, {extra}}}"#
            ))
            .unwrap();
            let weights = Weights::<f64>::zeros(&config);
            let names: Vec<_> = weights
                .tensors()
                .iter()
                .map(|(n, t)| (n.clone(), t.shape().to_vec()))
                .collect();
            assert_eq!(names, layout(&config));
            weights.check(&config).unwrap();
            assert_eq!(weights.cast::<f32>(&config).cast::<f64>(&config), weights);
        }
    }
}
