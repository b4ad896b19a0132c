//! The operations of a model in order.

use super::{Config, Positions};
use crate::names::Hook;

/// Where a norm stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NormSite {
    /// Before a layer's attention.
    Ln1(usize),
    /// Before a layer's MLP.
    Ln2(usize),
    /// Over a layer's neurons, after SoLU.
    Neurons(usize),
    /// Before the unembedding.
    Final,
}

impl NormSite {
    /// The hook of what it divides by.
    pub fn scale(self) -> Hook {
        match self {
            NormSite::Ln1(l) => Hook::Ln1Scale(l),
            NormSite::Ln2(l) => Hook::Ln2Scale(l),
            NormSite::Neurons(l) => Hook::MlpLnScale(l),
            NormSite::Final => Hook::LnFinalScale,
        }
    }

    /// The norm whose scale this is.
    pub fn of_scale(hook: Hook) -> Option<Self> {
        let l = hook.layer();
        let all = [NormSite::Ln1, NormSite::Ln2, NormSite::Neurons];
        let in_layer = l.into_iter().flat_map(|l| all.map(|site| site(l)));
        let mut sites = in_layer.chain([NormSite::Final]);
        sites.find(|site| site.scale() == hook)
    }

    /// The hook of its output.
    pub fn normalized(self) -> Hook {
        match self {
            NormSite::Ln1(l) => Hook::Ln1Normalized(l),
            NormSite::Ln2(l) => Hook::Ln2Normalized(l),
            NormSite::Neurons(l) => Hook::MlpLnNormalized(l),
            NormSite::Final => Hook::LnFinalNormalized,
        }
    }
}

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
}

impl Diagram {
    /// A model's.
    pub fn of(c: &Config) -> Self {
        let mut d = Diagram {
            steps: Vec::new(),
            values: Vec::new(),
            narrow: Vec::new(),
            n_layers: c.n_layers,
        };
        let stream = Hook::ResidPre(0);
        d.step(Op::Embed, &[], &[Hook::Embed]);
        match c.positions {
            Positions::Learned => {
                d.step(Op::PosEmbed, &[], &[Hook::PosEmbed]);
                d.step(Op::Sum, &[Hook::Embed, Hook::PosEmbed], &[stream]);
            }
            Positions::Rotary(_) => d.step(Op::Same, &[Hook::Embed], &[stream]),
        }
        for l in 0..c.n_layers {
            d.block(c, l);
        }
        let end = match c.n_layers {
            0 => stream,
            n => Hook::ResidPost(n - 1),
        };
        let x = d.norm(c, NormSite::Final, end);
        d.step(Op::Unembed, &[x], &[]);
        d.note_last_readers();
        d.note_narrow();
        d
    }

    fn block(&mut self, c: &Config, l: usize) {
        if l > 0 {
            self.step(Op::Same, &[Hook::ResidPost(l - 1)], &[Hook::ResidPre(l)]);
        }
        let x = self.norm(c, NormSite::Ln1(l), Hook::ResidPre(l));
        let (q, k, v) = (Hook::Q(l), Hook::K(l), Hook::V(l));
        self.step(Op::Project(l, Projection::Q), &[x], &[q]);
        self.step(Op::Project(l, Projection::K), &[x], &[k]);
        self.step(Op::Project(l, Projection::V), &[x], &[v]);
        let (q, k) = match c.positions {
            Positions::Learned => (q, k),
            Positions::Rotary(_) => {
                self.step(Op::Rotate(l), &[q], &[Hook::RotQ(l)]);
                self.step(Op::Rotate(l), &[k], &[Hook::RotK(l)]);
                (Hook::RotQ(l), Hook::RotK(l))
            }
        };
        let mixed = [Hook::AttnScores(l), Hook::Pattern(l), Hook::Z(l)];
        self.step(Op::Attend(l), &[q, k, v], &mixed);
        let written = [Hook::Result(l), Hook::AttnOut(l)];
        self.step(Op::WriteHeads(l), &[Hook::Z(l)], &written);
        let after = match c.mlp {
            Some(_) => Hook::ResidMid(l),
            None => Hook::ResidPost(l),
        };
        self.step(Op::Sum, &[Hook::ResidPre(l), Hook::AttnOut(l)], &[after]);
        if c.mlp.is_some() {
            let x = self.norm(c, NormSite::Ln2(l), after);
            self.neurons(c, l, x);
            let sum = [after, Hook::MlpOut(l)];
            self.step(Op::Sum, &sum, &[Hook::ResidPost(l)]);
        }
    }

    fn neurons(&mut self, c: &Config, l: usize, x: Hook) {
        if c.gated() {
            self.step(Op::Gate(l), &[x], &[Hook::Pre(l)]);
            self.step(Op::Neurons(l), &[x], &[Hook::PreLinear(l)]);
            let gated = [Hook::Pre(l), Hook::PreLinear(l)];
            self.step(Op::Activate(l), &gated, &[Hook::Post(l)]);
            return self.step(Op::WriteNeurons(l), &[Hook::Post(l)], &[Hook::MlpOut(l)]);
        }
        self.step(Op::Neurons(l), &[x], &[Hook::Pre(l)]);
        match c.norms_neurons() {
            false => self.step(Op::Activate(l), &[Hook::Pre(l)], &[Hook::Post(l)]),
            true => {
                self.step(Op::Activate(l), &[Hook::Pre(l)], &[Hook::Mid(l)]);
                let site = NormSite::Neurons(l);
                self.step(
                    Op::Norm(site),
                    &[Hook::Mid(l)],
                    &[site.scale(), site.normalized()],
                );
                self.step(Op::Same, &[site.normalized()], &[Hook::Post(l)]);
            }
        }
        self.step(Op::WriteNeurons(l), &[Hook::Post(l)], &[Hook::MlpOut(l)]);
    }

    /// What a layer reads of the stream: the norm's output, or the stream itself where there are no norms.
    fn norm(&mut self, c: &Config, site: NormSite, x: Hook) -> Hook {
        if c.norm_at(site).is_none() {
            return x;
        }
        self.step(Op::Norm(site), &[x], &[site.scale(), site.normalized()]);
        site.normalized()
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
            | Op::Unembed => false,
        }
    }

    /// Whether it changes the first value that it reads into what it gives, in place.
    pub fn in_place(self) -> bool {
        match self {
            Op::Sum | Op::Same | Op::Rotate(_) | Op::Activate(_) => true,
            Op::Embed
            | Op::PosEmbed
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
