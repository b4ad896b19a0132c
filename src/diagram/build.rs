//! The operations of a model in order.

use super::{Config, NormPlace, Order, Positions};
use crate::names::{Hook, NormSite};

/// What a head's input is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Projection {
    Q,
    K,
    V,
}

/// An operation. Its number is the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// The tokens' rows of `W_E`.
    Embed,
    /// The positions' rows of `W_pos`.
    PosEmbed,
    /// The token types' rows of `W_token_type`.
    TokenTypeEmbed,
    /// The sum of what it reads.
    Sum,
    /// What it reads, under another name.
    Same,
    /// Scale and output of a norm.
    Norm(NormSite),
    /// Queries, keys or values of all heads.
    Project(usize, Projection),
    /// Queries or keys turned by their positions.
    Rotate(usize),
    /// Scores, pattern and `z`, of queries, keys and values.
    Attend(usize),
    /// What the heads write, and their sum with `b_O`.
    WriteHeads(usize),
    /// Into the gates of gated neurons.
    Gate(usize),
    /// Into the neurons.
    Neurons(usize),
    /// The neurons' function; where they are gated, of the gate, times what is gated.
    Activate(usize),
    /// What the neurons write.
    WriteNeurons(usize),
    /// A dense layer before the unembedding.
    MlmHead,
    /// Its function.
    ActivateMlmHead,
    /// The logits.
    Unembed,
}

/// A value's number in a diagram.
pub(crate) type Value = usize;

/// An operation, what it reads, and what it gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub op: Op,
    /// What it reads, and whether nobody reads it after.
    pub reads: Vec<(Value, bool)>,
    pub gives: Vec<Value>,
}

/// A model's values and the operations that make them, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Diagram {
    pub steps: Vec<Step>,
    /// Each value's hook.
    pub values: Vec<Hook>,
    /// Of each value, whether the positions that nobody reads need not be computed: past the last layer's keys and
    /// values no position needs another.
    pub narrow: Vec<bool>,
    /// How many of the values have hooks that users see: without layers the stream has none.
    pub(super) n_layers: usize,
    /// Whether scores are capped, so that a backward pass needs them.
    pub(super) caps_scores: bool,
}

impl Diagram {
    /// A model's.
    pub fn of(c: &Config) -> Self {
        let mut d = Diagram {
            steps: Vec::new(),
            values: Vec::new(),
            narrow: Vec::new(),
            n_layers: c.n_layers,
            caps_scores: c.score_cap.is_some(),
        };
        d.embed(c);
        for l in 0..c.n_layers {
            d.block(c, l);
        }
        let mut x = d.norm(c, NormSite::Final, c.end_of_stream());
        if c.mlm_head.is_some() {
            d.step(Op::MlmHead, &[x], &[Hook::MlmHeadPre]);
            d.step(
                Op::ActivateMlmHead,
                &[Hook::MlmHeadPre],
                &[Hook::MlmHeadPost],
            );
            x = d.norm(c, NormSite::MlmHead, Hook::MlmHeadPost);
        }
        d.step(Op::Unembed, &[x], &[]);
        d.note_last_readers();
        d.note_narrow();
        d
    }

    fn embed(&mut self, c: &Config) {
        let stream = Hook::ResidPre(0);
        self.step(Op::Embed, &[], &[Hook::Embed]);
        let mut parts = vec![Hook::Embed];
        if c.pos_embed() {
            self.step(Op::PosEmbed, &[], &[Hook::PosEmbed]);
            parts.push(Hook::PosEmbed);
        }
        if c.token_types > 0 {
            self.step(Op::TokenTypeEmbed, &[], &[Hook::TokenTypeEmbed]);
            parts.push(Hook::TokenTypeEmbed);
        }
        let op = match parts.len() {
            1 => Op::Same,
            _ => Op::Sum,
        };
        match c.embed_norm {
            None => self.step(op, &parts, &[stream]),
            Some(_) => {
                self.step(op, &parts, &[Hook::EmbedSum]);
                let full = self.norm(c, NormSite::Embed, Hook::EmbedSum);
                self.step(Op::Same, &[full], &[stream]);
            }
        }
    }

    fn block(&mut self, c: &Config, l: usize) {
        let before = Hook::ResidPre(l);
        if l > 0 {
            let end = match c.norm_place {
                NormPlace::Stream if c.norm.is_some() => Hook::NormalizedResidPost(l - 1),
                _ => Hook::ResidPost(l - 1),
            };
            self.step(Op::Same, &[end], &[before]);
        }
        let normed_first = c.norm_place != NormPlace::Stream;
        let x = match normed_first {
            true => self.norm(c, NormSite::Ln1(l), before),
            false => before,
        };
        self.attention(c, l, x);
        let Some(_) = c.mlp else {
            self.step(Op::Sum, &[before, Hook::AttnOut(l)], &[Hook::ResidPost(l)]);
            if !normed_first {
                // The one norm of the block stands at its end.
                let end = self.norm(c, NormSite::Ln1(l), Hook::ResidPost(l));
                self.norm_end(c, l, end);
            }
            return;
        };
        match c.order {
            Order::Sequential => {
                let mid = Hook::ResidMid(l);
                self.step(Op::Sum, &[before, Hook::AttnOut(l)], &[mid]);
                let (mid, x) = match normed_first {
                    true => (mid, self.norm(c, NormSite::Ln2(l), mid)),
                    false => {
                        let mid = self.norm(c, NormSite::Ln1(l), mid);
                        (mid, mid)
                    }
                };
                self.neurons(c, l, x);
                self.step(Op::Sum, &[mid, Hook::MlpOut(l)], &[Hook::ResidPost(l)]);
                if !normed_first {
                    let end = self.norm(c, NormSite::Ln2(l), Hook::ResidPost(l));
                    self.norm_end(c, l, end);
                }
            }
            Order::Parallel | Order::SharedNorm => {
                let x = match c.order {
                    Order::SharedNorm => x,
                    _ => self.norm(c, NormSite::Ln2(l), before),
                };
                self.neurons(c, l, x);
                let sum = [before, Hook::AttnOut(l), Hook::MlpOut(l)];
                self.step(Op::Sum, &sum, &[Hook::ResidPost(l)]);
            }
        }
    }

    /// The end of a post-norm block, under the name by which the next one reads it.
    fn norm_end(&mut self, c: &Config, l: usize, end: Hook) {
        if c.norm.is_some() {
            self.step(Op::Same, &[end], &[Hook::NormalizedResidPost(l)]);
        }
    }

    fn attention(&mut self, c: &Config, l: usize, x: Hook) {
        let (q, k, v) = (Hook::Q(l), Hook::K(l), Hook::V(l));
        self.step(Op::Project(l, Projection::Q), &[x], &[q]);
        self.step(Op::Project(l, Projection::K), &[x], &[k]);
        self.step(Op::Project(l, Projection::V), &[x], &[v]);
        let q = self.norm(c, NormSite::Q(l), q);
        let k = self.norm(c, NormSite::K(l), k);
        let (q, k) = match c.positions {
            Positions::Learned | Positions::Alibi | Positions::None => (q, k),
            Positions::Rotary(_) => {
                self.step(Op::Rotate(l), &[q], &[Hook::RotQ(l)]);
                self.step(Op::Rotate(l), &[k], &[Hook::RotK(l)]);
                (Hook::RotQ(l), Hook::RotK(l))
            }
        };
        let mixed = [Hook::AttnScores(l), Hook::Pattern(l), Hook::Z(l)];
        self.step(Op::Attend(l), &[q, k, v], &mixed);
        let sum = self.before_norm(c, NormSite::Ln1Post(l), Hook::AttnSum(l));
        self.step(Op::WriteHeads(l), &[Hook::Z(l)], &[Hook::Result(l), sum]);
        self.norm(c, NormSite::Ln1Post(l), sum);
    }

    fn neurons(&mut self, c: &Config, l: usize, x: Hook) {
        if c.gated() {
            self.step(Op::Gate(l), &[x], &[Hook::Pre(l)]);
            self.step(Op::Neurons(l), &[x], &[Hook::PreLinear(l)]);
            let gated = [Hook::Pre(l), Hook::PreLinear(l)];
            self.step(Op::Activate(l), &gated, &[Hook::Post(l)]);
        } else {
            self.step(Op::Neurons(l), &[x], &[Hook::Pre(l)]);
            match c.norms_neurons() {
                false => self.step(Op::Activate(l), &[Hook::Pre(l)], &[Hook::Post(l)]),
                true => {
                    self.step(Op::Activate(l), &[Hook::Pre(l)], &[Hook::Mid(l)]);
                    let normalized = self.norm(c, NormSite::Neurons(l), Hook::Mid(l));
                    self.step(Op::Same, &[normalized], &[Hook::Post(l)]);
                }
            }
        }
        let sum = self.before_norm(c, NormSite::Ln2Post(l), Hook::MlpSum(l));
        self.step(Op::WriteNeurons(l), &[Hook::Post(l)], &[sum]);
        self.norm(c, NormSite::Ln2Post(l), sum);
    }

    /// What is written where a norm goes over it, else the norm's output itself.
    fn before_norm(&self, c: &Config, site: NormSite, sum: Hook) -> Hook {
        match c.norm_at(site) {
            Some(_) => sum,
            None => site.output(),
        }
    }

    /// What is read where a norm may stand: its output, or the value itself where there is none.
    fn norm(&mut self, c: &Config, site: NormSite, x: Hook) -> Hook {
        if c.norm_at(site).is_none() {
            return x;
        }
        let gives = [Hook::Scale(site), site.output()];
        self.step(Op::Norm(site), &[x], &gives);
        site.output()
    }

    fn step(&mut self, op: Op, reads: &[Hook], gives: &[Hook]) {
        let number = |hook: &Hook| {
            let found = self.values.iter().position(|h| h == hook);
            found.expect("a value is made before it is read")
        };
        let reads = reads.iter().map(|hook| (number(hook), false)).collect();
        let first = self.values.len();
        self.values.extend(gives);
        self.steps.push(Step {
            op,
            reads,
            gives: (first..self.values.len()).collect(),
        });
    }

    fn note_last_readers(&mut self) {
        let mut read = vec![false; self.values.len()];
        for step in self.steps.iter_mut().rev() {
            for (value, last) in step.reads.iter_mut().rev() {
                *last = !std::mem::replace(&mut read[*value], true);
            }
        }
    }

    fn note_narrow(&mut self) {
        let mut narrow = vec![true; self.values.len()];
        for step in self.steps.iter().rev() {
            let own = step.gives.iter().all(|&value| narrow[value]);
            for (i, &(value, _)) in step.reads.iter().enumerate() {
                narrow[value] &= own && !step.op.mixes(i);
            }
            // What an operation gives has the same positions.
            step.gives.iter().for_each(|&value| narrow[value] = own);
        }
        self.narrow = narrow;
    }
}

impl Op {
    /// Whether what it gives at one position is made of the `i`-th value that it reads at others.
    pub fn mixes(self, i: usize) -> bool {
        match self {
            // Keys and values.
            Op::Attend(_) => i > 0,
            Op::Embed
            | Op::PosEmbed
            | Op::TokenTypeEmbed
            | Op::Sum
            | Op::Same
            | Op::Norm(_)
            | Op::Project(..)
            | Op::Rotate(_)
            | Op::WriteHeads(_)
            | Op::Gate(_)
            | Op::Neurons(_)
            | Op::Activate(_)
            | Op::WriteNeurons(_)
            | Op::MlmHead
            | Op::ActivateMlmHead
            | Op::Unembed => false,
        }
    }

    /// Whether it changes the first value that it reads into what it gives, in place.
    pub fn in_place(self) -> bool {
        match self {
            Op::Sum | Op::Same | Op::Rotate(_) | Op::Activate(_) | Op::ActivateMlmHead => true,
            Op::Embed
            | Op::PosEmbed
            | Op::TokenTypeEmbed
            | Op::MlmHead
            | Op::Norm(_)
            | Op::Project(..)
            | Op::Attend(_)
            | Op::WriteHeads(_)
            | Op::Gate(_)
            | Op::Neurons(_)
            | Op::WriteNeurons(_)
            | Op::Unembed => false,
        }
    }
}
