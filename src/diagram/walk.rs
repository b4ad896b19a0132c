//! What is asked of a model's values, answered by walks over its diagram.

use super::{Config, Diagram, NormPlace, Op, Step, Value};
use crate::names::{Hook, NormSite};

impl Config {
    /// Every hook of this model, in the order of the forward pass.
    pub fn hooks(&self) -> Vec<Hook> {
        Diagram::of(self).hooks()
    }

    /// The hook of the stream at its end: what the last norm reads, where there is one, or else the unembedding. Without
    /// layers the stream has a value, but users do not see it.
    pub fn end_of_stream(&self) -> Hook {
        match self.n_layers.checked_sub(1) {
            None => Hook::ResidPre(0),
            Some(l) if self.norm.is_some() && self.norm_place == NormPlace::Stream => {
                Hook::NormalizedResidPost(l)
            }
            Some(l) => Hook::ResidPost(l),
        }
    }
}

impl Diagram {
    /// Every hook that users see, in the order of the forward pass.
    pub fn hooks(&self) -> Vec<Hook> {
        // Without layers the stream is there, but has no hook.
        let seen = |hook: &Hook| hook.layer().is_none_or(|l| l < self.n_layers);
        self.values.iter().copied().filter(seen).collect()
    }

    /// A hook's value, where the model has it.
    pub fn value(&self, hook: Hook) -> Option<Value> {
        self.values.iter().position(|&h| h == hook)
    }

    /// The step of an operation, where the model has it.
    pub fn step_of(&self, op: Op) -> Option<&Step> {
        self.steps.iter().find(|step| step.op == op)
    }

    /// The number of the step that gives a value.
    pub fn made_by(&self, value: Value) -> usize {
        let made = |step: &Step| step.gives.contains(&value);
        let found = self.steps.iter().position(made);
        found.expect("every value is given by a step")
    }

    /// What a value is made of: what its step reads, and what the step gives before it.
    pub fn made_of(&self, hook: Hook) -> Vec<Hook> {
        let Some(value) = self.value(hook) else {
            return Vec::new();
        };
        let step = &self.steps[self.made_by(value)];
        let given = step.gives.iter().copied().take_while(|&own| own != value);
        let all = step.reads.iter().map(|&(read, _)| read).chain(given);
        all.map(|value| self.values[value]).collect()
    }

    /// What the logits are made of.
    pub fn made_of_logits(&self) -> Option<Hook> {
        let (value, _) = *self.step_of(Op::Unembed)?.reads.first()?;
        Some(self.values[value])
    }

    /// The axis of a value along which only the positions that are read need be there.
    pub fn axis_read(&self, hook: Hook) -> Option<usize> {
        let value = self.value(hook)?;
        self.narrow[value].then(|| hook.position_axis())
    }

    /// The steps that read a value.
    pub fn readers(&self, value: Value) -> impl Iterator<Item = &Step> {
        let reads = move |step: &&Step| step.reads.iter().any(|&(v, _)| v == value);
        self.steps.iter().filter(reads)
    }

    /// The linear maps that read a value, under whatever name.
    pub fn linear_readers(&self, value: Value) -> Vec<Op> {
        let readers = self.readers(value);
        readers
            .flat_map(|step| self.linear_readers_of(step))
            .collect()
    }

    /// The linear map that a step is, or those that read what it gives under another name.
    fn linear_readers_of(&self, step: &Step) -> Vec<Op> {
        match step.op {
            Op::Same => self.linear_readers(step.gives[0]),
            Op::Project(..)
            | Op::Gate(_)
            | Op::Neurons(_)
            | Op::WriteHeads(_)
            | Op::WriteNeurons(_)
            | Op::MlmHead
            | Op::Unembed => vec![step.op],
            Op::Embed
            | Op::PosEmbed
            | Op::TokenTypeEmbed
            | Op::Sum
            | Op::Norm(_)
            | Op::Rotate(_)
            | Op::Attend(_)
            | Op::Activate(_)
            | Op::ActivateMlmHead => Vec::new(),
        }
    }

    /// Whether linear maps alone read a value, under whatever name.
    pub fn read_linearly(&self, value: Value) -> bool {
        self.readers(value).all(|step| match step.op {
            Op::Same => self.read_linearly(step.gives[0]),
            _ => !self.linear_readers_of(step).is_empty(),
        })
    }

    /// Whether norms alone read a value, under whatever name, or what it is added to: norms of which that is said.
    pub fn read_by_norms(&self, value: Value, of: &impl Fn(NormSite) -> bool) -> bool {
        self.readers(value).all(|step| match step.op {
            Op::Same | Op::Sum => self.read_by_norms(step.gives[0], of),
            Op::Norm(site) => of(site),
            _ => false,
        })
    }

    /// The hook whose value this is too: of a stream under two names the earlier.
    pub fn same_as(&self, hook: Hook) -> Option<Hook> {
        let step = &self.steps[self.made_by(self.value(hook)?)];
        (step.op == Op::Same).then(|| self.values[step.reads[0].0])
    }

    /// The hook that stands for all whose derivatives are one: what nothing reads but a sum has the sum's.
    pub fn same_derivative_as(&self, hook: Hook) -> Hook {
        let Some(value) = self.value(hook) else {
            return hook;
        };
        let mut readers = self.readers(value);
        match (readers.next(), readers.next()) {
            (Some(step), None) if matches!(step.op, Op::Sum | Op::Same) => {
                self.same_derivative_as(self.values[step.gives[0]])
            }
            _ => hook,
        }
    }

    /// Whether a forward pass is done with a hook's value before another is made of it in its place.
    pub fn leaves_whole(&self, hook: Hook) -> bool {
        let Some(value) = self.value(hook) else {
            return false;
        };
        // Scores become the pattern where they stand.
        let made_by = self.steps[self.made_by(value)].op;
        let scores = matches!(made_by, Op::Attend(_)) && matches!(hook, Hook::AttnScores(_));
        let spent = |step: &Step| step.op.in_place() && step.reads[0] == (value, true);
        !scores && !self.readers(value).any(spent)
    }

    /// Of each value whether a backward pass has to come by: whether it is wanted, or anything that it is made of. Where
    /// the derivatives by `parameters` are, every value.
    pub fn reached_back(&self, wanted: impl Fn(Hook) -> bool, parameters: bool) -> Vec<bool> {
        let mut reached = vec![parameters; self.values.len()];
        for step in &self.steps {
            let before = step.reads.iter().any(|&(value, _)| reached[value]);
            let is = |&value: &Value| before || wanted(self.values[value]);
            let Some((&last, inner)) = step.gives.split_last() else {
                continue;
            };
            // The last of what it gives is made of the others.
            reached[last] |= step.gives.iter().any(is);
            inner.iter().for_each(|value| reached[*value] |= is(value));
        }
        reached
    }

    /// The values that a backward pass reads, which comes by those `reached`; and where the derivatives by `parameters`
    /// are wanted, what these are made of.
    pub fn needed_back(&self, reached: &[bool], parameters: bool) -> Vec<Hook> {
        let mut needed = vec![false; self.values.len()];
        for step in &self.steps {
            if parameters || step.goes_back(reached) {
                for value in step.op.read_back(step, parameters, self.caps_scores) {
                    needed[value] = true;
                }
            }
        }
        let values = self.values.iter().zip(needed);
        values
            .filter(|(_, needed)| *needed)
            .map(|(&hook, _)| hook)
            .collect()
    }
}

impl Step {
    /// Whether a backward pass that comes by those values goes through this operation, or into it.
    pub fn goes_back(&self, reached: &[bool]) -> bool {
        let inner = self.gives.split_last().map_or(&[][..], |(_, inner)| inner);
        let through = self.reads.iter().any(|&(value, _)| reached[value]);
        through || inner.iter().any(|&value| reached[value])
    }
}

impl Op {
    /// What its backward pass reads of the forward pass's values.
    fn read_back(self, step: &Step, parameters: bool, caps_scores: bool) -> Vec<Value> {
        let read = |i: usize| step.reads[i].0;
        match self {
            Op::Embed | Op::PosEmbed | Op::TokenTypeEmbed | Op::Sum | Op::Same | Op::Rotate(_) => {
                Vec::new()
            }
            Op::Norm(_) => vec![read(0), step.gives[0]],
            // The pattern, and of capped scores these too.
            Op::Attend(_) => {
                let scores = caps_scores.then_some(step.gives[0]);
                let values = [read(0), read(1), read(2), step.gives[1]].into_iter();
                values.chain(scores).collect()
            }
            Op::Activate(_) | Op::ActivateMlmHead => {
                step.reads.iter().map(|&(value, _)| value).collect()
            }
            Op::Project(..)
            | Op::WriteHeads(_)
            | Op::Gate(_)
            | Op::Neurons(_)
            | Op::WriteNeurons(_)
            | Op::MlmHead
            | Op::Unembed => match parameters {
                true => vec![read(0)],
                false => Vec::new(),
            },
        }
    }
}
