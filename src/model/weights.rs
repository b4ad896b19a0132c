//! The weights, with TransformerLens's names and shapes.

use crate::diagram::{Config, NormSite, NormWeight, Op, Positions, Projection};
use crate::error::{Error, Result};
use crate::names::Head;
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
    /// `[d_model, d_mlp]`
    pub W_in: Tensor<T>,
    /// `[d_mlp]`; of gated neurons added to the product.
    pub b_in: Tensor<T>,
    /// The LayerNorm over the neurons, `[d_mlp]`; only where `act_fn` is `solu_ln` and the norms are `LN`.
    pub ln: Option<Norm<T>>,
    /// `[d_mlp, d_model]`
    pub W_out: Tensor<T>,
    /// `[d_model]`
    pub b_out: Tensor<T>,
}

/// One block: attention, then the MLP if there is one.
#[derive(Clone, Debug, PartialEq)]
pub struct Block<T: Scalar> {
    /// Before attention; only where the norms are `LN`.
    pub ln1: Option<Norm<T>>,
    /// The attention layer.
    pub attn: Attention<T>,
    /// Before the MLP; only where there is one and the norms are `LN`.
    pub ln2: Option<Norm<T>>,
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
    /// The blocks, in order.
    pub blocks: Vec<Block<T>>,
    /// Before the unembedding; only where the norms are `LN`.
    pub ln_final: Option<Norm<T>>,
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
            let mut all = vec![("embed.W_E".to_string(), & $($mut)? self.W_E)];
            if !self.W_pos.is_empty() {
                all.push(("pos_embed.W_pos".to_string(), & $($mut)? self.W_pos));
            }
            for (l, block) in self.blocks.$iter().enumerate() {
                let mut add = |name: &str, t| all.push((format!("blocks.{l}.{name}"), t));
                if let Some(ln1) = block.ln1.$as() {
                    add("ln1.w", & $($mut)? ln1.w);
                    if let Some(b) = ln1.b.$as() {
                        add("ln1.b", b);
                    }
                }
                add("attn.W_Q", & $($mut)? block.attn.W_Q);
                add("attn.b_Q", & $($mut)? block.attn.b_Q);
                add("attn.W_K", & $($mut)? block.attn.W_K);
                add("attn.b_K", & $($mut)? block.attn.b_K);
                add("attn.W_V", & $($mut)? block.attn.W_V);
                add("attn.b_V", & $($mut)? block.attn.b_V);
                add("attn.W_O", & $($mut)? block.attn.W_O);
                add("attn.b_O", & $($mut)? block.attn.b_O);
                if let Some(ln2) = block.ln2.$as() {
                    add("ln2.w", & $($mut)? ln2.w);
                    if let Some(b) = ln2.b.$as() {
                        add("ln2.b", b);
                    }
                }
                if let Some(mlp) = block.mlp.$as() {
                    if let Some(W_gate) = mlp.W_gate.$as() {
                        add("mlp.W_gate", W_gate);
                    }
                    add("mlp.W_in", & $($mut)? mlp.W_in);
                    add("mlp.b_in", & $($mut)? mlp.b_in);
                    if let Some(ln) = mlp.ln.$as() {
                        add("mlp.ln.w", & $($mut)? ln.w);
                        if let Some(b) = ln.b.$as() {
                            add("mlp.ln.b", b);
                        }
                    }
                    add("mlp.W_out", & $($mut)? mlp.W_out);
                    add("mlp.b_out", & $($mut)? mlp.b_out);
                }
            }
            if let Some(ln_final) = self.ln_final.$as() {
                all.push(("ln_final.w".to_string(), & $($mut)? ln_final.w));
                if let Some(b) = ln_final.b.$as() {
                    all.push(("ln_final.b".to_string(), b));
                }
            }
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
        let norm = |make: &mut Make<'_, T>, site: NormSite, name: &str, d: usize| {
            let kind = c.norm_at(site);
            let Some(kind) = kind.filter(|kind| kind.weight != NormWeight::Absent) else {
                return Ok(None);
            };
            let w = make(&format!("{name}.w"), &[d])?;
            let b = match kind.bias {
                true => Some(make(&format!("{name}.b"), &[d])?),
                false => None,
            };
            Result::Ok(Some(Norm { w, b }))
        };
        let W_E = make("embed.W_E", &[c.d_vocab, c.d_model])?;
        let W_pos = match c.positions {
            Positions::Learned => make("pos_embed.W_pos", &[c.n_ctx, c.d_model])?,
            Positions::Rotary(_) => Tensor::zeros(&[0, c.d_model]),
        };
        let mut blocks = Vec::new();
        for l in 0..c.n_layers {
            let name = |s: &str| format!("blocks.{l}.{s}");
            let into_head = [c.d_model, c.n_heads, c.d_head];
            let into_group = [c.d_model, c.groups, c.d_head];
            let of_head = [c.n_heads, c.d_head];
            let of_group = [c.groups, c.d_head];
            let ln1 = norm(&mut make, NormSite::Ln1(l), &name("ln1"), c.d_model)?;
            let attn = Attention {
                W_Q: make(&name("attn.W_Q"), &into_head)?,
                b_Q: make(&name("attn.b_Q"), &of_head)?,
                W_K: make(&name("attn.W_K"), &into_group)?,
                b_K: make(&name("attn.b_K"), &of_group)?,
                W_V: make(&name("attn.W_V"), &into_group)?,
                b_V: make(&name("attn.b_V"), &of_group)?,
                W_O: make(&name("attn.W_O"), &[c.n_heads, c.d_head, c.d_model])?,
                b_O: make(&name("attn.b_O"), &[c.d_model])?,
            };
            let ln2 = match c.mlp {
                Some(_) => norm(&mut make, NormSite::Ln2(l), &name("ln2"), c.d_model)?,
                None => None,
            };
            let mlp = match c.d_mlp() {
                None => None,
                Some(d_mlp) => Some(Mlp {
                    W_gate: match c.gated() {
                        true => Some(make(&name("mlp.W_gate"), &[c.d_model, d_mlp])?),
                        false => None,
                    },
                    W_in: make(&name("mlp.W_in"), &[c.d_model, d_mlp])?,
                    b_in: make(&name("mlp.b_in"), &[d_mlp])?,
                    ln: norm(&mut make, NormSite::Neurons(l), &name("mlp.ln"), d_mlp)?,
                    W_out: make(&name("mlp.W_out"), &[d_mlp, c.d_model])?,
                    b_out: make(&name("mlp.b_out"), &[c.d_model])?,
                }),
            };
            blocks.push(Block {
                ln1,
                attn,
                ln2,
                mlp,
            });
        }
        Ok(Weights {
            W_E,
            W_pos,
            blocks,
            ln_final: norm(&mut make, NormSite::Final, "ln_final", c.d_model)?,
            W_U: make("unembed.W_U", &[c.d_model, c.d_vocab_out])?,
            b_U: make("unembed.b_U", &[c.d_vocab_out])?,
        })
    }

    /// All parameters zero, but for the norms' `w`, which multiply by one.
    pub fn zeros(config: &Config) -> Self {
        let make = |name: &str, shape: &[usize]| {
            let value = match (is_norm_scale(name), config.norm) {
                (true, Some(kind)) => NormMap::<T>::identity_w(kind),
                (true, None) => T::ONE,
                (false, _) => T::ZERO,
            };
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

    /// The parameters of a norm, where it has any.
    pub(crate) fn norm(&self, site: NormSite) -> Option<&Norm<T>> {
        match site {
            NormSite::Ln1(l) => self.blocks[l].ln1.as_ref(),
            NormSite::Ln2(l) => self.blocks[l].ln2.as_ref(),
            NormSite::Neurons(l) => self.blocks[l].mlp.as_ref()?.ln.as_ref(),
            NormSite::Final => self.ln_final.as_ref(),
        }
    }

    /// As [`Weights::norm`], to be changed.
    pub(crate) fn norm_mut(&mut self, site: NormSite) -> Option<&mut Norm<T>> {
        match site {
            NormSite::Ln1(l) => self.blocks[l].ln1.as_mut(),
            NormSite::Ln2(l) => self.blocks[l].ln2.as_mut(),
            NormSite::Neurons(l) => self.blocks[l].mlp.as_mut()?.ln.as_mut(),
            NormSite::Final => self.ln_final.as_mut(),
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
                // Of gated neurons it is added later.
                let b = mlp.W_gate.is_none().then_some(&mlp.b_in);
                (&mlp.W_in, b, 1)
            }
            Op::Gate(l) => {
                let mlp = self.blocks[l].mlp.as_ref()?;
                (mlp.W_gate.as_ref()?, None, 1)
            }
            Op::WriteNeurons(l) => {
                let mlp = self.blocks[l].mlp.as_ref()?;
                (&mlp.W_out, Some(&mlp.b_out), 1)
            }
            Op::Unembed => (&self.W_U, Some(&self.b_U), 1),
            Op::Embed
            | Op::PosEmbed
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
                // Of gated neurons it is added later.
                let b = mlp.W_gate.is_none().then_some(&mut mlp.b_in);
                (&mut mlp.W_in, b, 1)
            }
            Op::Gate(l) => {
                let mlp = self.blocks[l].mlp.as_mut()?;
                (mlp.W_gate.as_mut()?, None, 1)
            }
            Op::WriteNeurons(l) => {
                let mlp = self.blocks[l].mlp.as_mut()?;
                (&mut mlp.W_out, Some(&mut mlp.b_out), 1)
            }
            Op::Unembed => (&mut self.W_U, Some(&mut self.b_U), 1),
            Op::Embed
            | Op::PosEmbed
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

/// Whether this names a LayerNorm's `w`.
pub(crate) fn is_norm_scale(name: &str) -> bool {
    let parent = name.strip_suffix(".w").and_then(|p| p.rsplit('.').next());
    parent.is_some_and(|p| p.starts_with("ln"))
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
