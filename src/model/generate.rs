//! A sequence that a model goes on with, one token at a time: keys and values of what was read are kept.

use super::{Model, Run, Tokens};
use crate::diagram::{Op, RotaryScaling};
use crate::error::{Error, Result};
use crate::linalg::Par;
use crate::names::Hook;
use crate::op::{self, Attention, Layout, Place, Scratch};
use crate::tensor::{Scalar, Tensor};
use rand::{Rng, RngExt};

/// A sequence with what a model keeps of it, to be gone on with.
///
/// ```
/// use pathsum::{Tokens, fixture};
/// let model = fixture::induction::<f64>();
/// let mut text = model.continuation(&[7, 3, 9])?;
/// text.push(7)?;
/// let all = model.logits(&Tokens::from_rows(&[[7, 3, 9, 7]]))?;
/// let most = |logits: &[f64]| (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
/// assert_eq!(most(text.logits()), most(all.slice(&[0, 3])));
/// # Ok::<(), pathsum::Error>(())
/// ```
pub struct Continuation<'m, T: Scalar> {
    model: &'m Model<T>,
    tokens: Vec<i64>,
    /// By layer, keys as queries meet them and values, `[pos, group, d_head]` each.
    kept: Vec<[Vec<T>; 2]>,
    logits: Vec<T>,
    scratch: Scratch<T>,
}

impl<T: Scalar> Model<T> {
    /// Reads the beginning of a sequence, to go on with.
    ///
    /// # Errors
    /// As [`Model::run`]; when the beginning is empty; and when the model is none that goes on: attention sees what comes
    /// after, be it pads alone.
    pub fn continuation(&self, beginning: &[i64]) -> Result<Continuation<'_, T>> {
        if self.config.sees_ahead() {
            let reason = "going on with a text, where tokens see those after them";
            return Err(Error::NotCovered(reason));
        }
        let mut text = Continuation {
            model: self,
            tokens: beginning.to_vec(),
            kept: Vec::new(),
            logits: Vec::new(),
            scratch: Scratch::default(),
        };
        text.read()?;
        Ok(text)
    }

    /// Which value is a layer's keys as queries meet them, and which its values.
    fn kept_hooks(&self, l: usize) -> [Hook; 2] {
        let step = self.diagram.step_of(Op::Attend(l));
        let reads = &step.expect("every layer attends").reads;
        [1, 2].map(|i| self.diagram.values[reads[i].0])
    }
}

impl<T: Scalar> Continuation<'_, T> {
    /// The tokens so far.
    pub fn tokens(&self) -> &[i64] {
        &self.tokens
    }

    /// The logits of the token that comes next, `[d_vocab_out]`.
    pub fn logits(&self) -> &[T] {
        &self.logits
    }

    /// Reads all tokens in one go.
    fn read(&mut self) -> Result<()> {
        let model = self.model;
        let layers = 0..model.config.n_layers;
        let run = layers.clone().flat_map(|l| model.kept_hooks(l));
        let run = run.fold(Run::new(), |run, hook| run.cache(hook));
        let pos = self.tokens.len();
        let tokens = Tokens::new(1, pos, self.tokens.clone());
        let out = model.run(&tokens, run)?;
        let kept = layers.map(|l| {
            model
                .kept_hooks(l)
                .map(|hook| out.cache[hook].data().to_vec())
        });
        self.kept = kept.collect();
        self.logits = out.logits.slice(&[0, pos - 1]).to_vec();
        Ok(())
    }

    /// Goes on with a token: one pass over the model's weights.
    ///
    /// # Errors
    /// When it is not in the vocabulary, or the context is full.
    pub fn push(&mut self, token: i64) -> Result<()> {
        let (model, p) = (self.model, self.tokens.len());
        let config = &model.config;
        if p == config.n_ctx {
            return Err(Error::SequenceLength {
                len: p + 1,
                n_ctx: p,
            });
        }
        Tokens::new(1, 1, vec![token]).check(config)?;
        self.tokens.push(token);
        if self.turns_anew() {
            return self.read();
        }
        let par = model.worth(Par::default(), 1);
        par.within(|| self.step(token, Layout::Rows(par)));
        Ok(())
    }

    /// The pass over the weights.
    fn step(&mut self, token: i64, layout: Layout) {
        let (model, p) = (self.model, self.tokens.len() - 1);
        let config = &model.config;
        let place = Place {
            position: p,
            length: p + 1,
        };
        let mut values: Vec<Option<Tensor<T>>> =
            model.diagram.values.iter().map(|_| None).collect();
        for step in &model.diagram.steps {
            let mut reads: Vec<Tensor<T>> = Vec::with_capacity(step.reads.len());
            for &(value, last) in &step.reads {
                let own = &mut values[value];
                let own = if last { own.take() } else { own.clone() };
                reads.push(own.expect("a value is made before it is read"));
            }
            let row = |table: &Tensor<T>, i: usize| {
                let mut out = Tensor::zeros(&[1, 1, config.d_model]);
                op::embed(layout, table, &[i as i64], &mut out);
                out
            };
            let made = match step.op {
                Op::Embed => row(&model.weights.W_E, token as usize),
                Op::PosEmbed => row(&model.weights.W_pos, p),
                Op::TokenTypeEmbed => row(&model.weights.W_token_type, 0),
                Op::Attend(l) => self.attend(l, reads),
                Op::Unembed => {
                    let map = model.affine(step.op).expect("a linear map");
                    let map = (map, model.logit_cap());
                    op::unembed(layout, &reads[0], map, &mut self.scratch, &mut self.logits);
                    continue;
                }
                other => model.apply(other, reads, &|| vec![place], layout, &mut self.scratch),
            };
            values[*step.gives.last().expect("it gives a value")] = Some(made);
        }
    }

    /// Whether the keys of the tokens before change with the last one, as where rotations depend on the length.
    fn turns_anew(&self) -> bool {
        let mut scalings = self.model.config.rotaries().map(|rotary| &rotary.scaling);
        scalings.any(|scaling| match scaling {
            RotaryScaling::ByLength { original, .. } => self.tokens.len() == original + 1,
            RotaryScaling::None | RotaryScaling::Linear(_) | RotaryScaling::ByParts { .. } => false,
        })
    }

    /// What the last token's queries mix, whose keys and values are then kept.
    fn attend(&mut self, l: usize, reads: Vec<Tensor<T>>) -> Tensor<T> {
        let (model, pos) = (self.model, self.tokens.len());
        let c = &model.config;
        let mut reads = reads.into_iter();
        let q = reads.next().expect("attention reads queries");
        for (kept, own) in self.kept[l].iter_mut().zip(reads) {
            kept.extend_from_slice(own.data());
        }
        let [k, v] = std::mem::take(&mut self.kept[l])
            .map(|kept| Tensor::from_vec(&[1, pos, c.groups, c.d_head], kept));
        let attention = Attention {
            queries: &[pos - 1],
            q: &q,
            k: &k,
            v: &v,
            scoring: model.scoring(l),
            masks: model.masks(l, None, None),
        };
        let mut z = self.scratch.take(q.shape());
        attention.mix_in_blocks(Par::Seq, &mut z);
        self.kept[l] = [k, v].map(Tensor::into_data);
        z
    }
}

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// What logits are divided by; at 0 the likeliest token is taken.
    pub temperature: f64,
    /// Of the likeliest tokens so many are drawn from that they have this share of the probability.
    pub top_p: f64,
}

impl Sampling {
    /// The likeliest token.
    pub const GREEDY: Sampling = Sampling {
        temperature: 0.0,
        top_p: 1.0,
    };

    /// A token, by the logits of all.
    ///
    /// # Panics
    /// When there are no logits.
    ///
    /// Source: Holtzman et al., "The Curious Case of Neural Text Degeneration" (2019), for `top_p`.
    pub fn choose<T: Scalar>(self, logits: &[T], rng: &mut impl Rng) -> usize {
        // Of equal logits the first token comes first.
        let likelier = |&a: &usize, &b: &usize| logits[b].to_f64().total_cmp(&logits[a].to_f64());
        if self.temperature == 0.0 {
            let first = (0..logits.len()).min_by(likelier);
            return first.expect("there are logits");
        }
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(likelier);
        let most = logits[order[0]].to_f64();
        let weight = |&i: &usize| ((logits[i].to_f64() - most) / self.temperature).exp();
        let all: f64 = order.iter().map(weight).sum();
        let mut kept = 0.0;
        let mut nucleus = Vec::new();
        for i in order {
            let own = weight(&i);
            nucleus.push((i, own));
            kept += own;
            if kept >= self.top_p * all {
                break;
            }
        }
        let mut at = rng.random_range(0.0..1.0) * kept;
        for &(i, own) in &nucleus {
            at -= own;
            if at < 0.0 {
                return i;
            }
        }
        nucleus[nucleus.len() - 1].0
    }
}
