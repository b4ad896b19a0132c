//! How far a change reaches, and what of the clean run is needed beside it.

use crate::diagram::{Config, Diagram, Op, Step, Value};
use crate::names::Hook;

/// Where the values downstream of a change differ from the clean run's, and somebody looks.
pub(crate) struct Reach<'a> {
    config: &'a Config,
    diagram: &'a Diagram,
    answers: &'a [usize],
    /// How many positions there are.
    length: usize,
    /// Of each value the positions that have changed, in order; none where nothing has.
    pub positions: Vec<Vec<usize>>,
    /// The values of the clean run that stand beside those that have changed.
    pub needed: Vec<Hook>,
}

impl<'a> Reach<'a> {
    /// Of a change of a hook's value at some positions of sequences that are so long.
    ///
    /// # Panics
    /// When the model has no such hook.
    #[track_caller]
    pub fn of(
        (config, diagram): (&'a Config, &'a Diagram),
        hook: Hook,
        positions: &[usize],
        answers: &'a [usize],
        length: usize,
    ) -> Self {
        let mut reach = Reach {
            config,
            diagram,
            answers,
            length,
            positions: vec![Vec::new(); diagram.values.len()],
            needed: Vec::new(),
        };
        let value = diagram.value(hook).expect("a hook of this model");
        reach.positions[value] = reach.looked_at(value, positions.iter().copied());
        let first = diagram.made_by(value);
        reach.inside(&diagram.steps[first], value);
        for step in &diagram.steps[first + 1..] {
            reach.step(step);
        }
        reach
    }

    /// From a value that a step makes on its way to the last that it gives.
    fn inside(&mut self, step: &Step, value: Value) {
        let last = *step.gives.last().expect("it gives a value");
        if value == last {
            return;
        }
        let own = self.positions[value].clone();
        if let Op::Attend(l) = step.op {
            self.needed.push(Hook::V(l));
        }
        self.positions[last] = self.looked_at(last, own.into_iter());
    }

    fn step(&mut self, step: &Step) {
        let Some(&last) = step.gives.last() else {
            return;
        };
        let mut own: Vec<usize> = match step.op {
            Op::Attend(_) => self.queries(step),
            _ => {
                let reads = step.reads.iter();
                reads
                    .flat_map(|&(v, _)| self.positions[v].iter().copied())
                    .collect()
            }
        };
        own.sort_unstable();
        own.dedup();
        let own = self.looked_at(last, own.into_iter());
        for &(value, _) in &step.reads {
            let changed = &self.positions[value];
            let beside = match step.op {
                Op::Attend(_) if value != step.reads[0].0 => changed.len() < self.length,
                _ => own.iter().any(|p| !changed.contains(p)),
            };
            if beside && !own.is_empty() {
                self.needed.push(self.diagram.values[value]);
            }
        }
        self.positions[last] = own;
    }

    /// The queries of a layer that see a changed key or value, or have changed.
    fn queries(&self, step: &Step) -> Vec<usize> {
        let [q, k, v] = [0, 1, 2].map(|i| step.reads[i].0);
        let first = self.positions[k]
            .first()
            .into_iter()
            .chain(self.positions[v].first());
        let first = first.copied().min();
        let first = match first {
            None => self.length,
            Some(_) if self.config.sees_ahead() => 0,
            Some(first) => first,
        };
        let seeing = first..self.length;
        self.positions[q].iter().copied().chain(seeing).collect()
    }

    /// Those of a value's positions that somebody looks at downstream.
    fn looked_at(&self, value: Value, positions: impl Iterator<Item = usize>) -> Vec<usize> {
        let last = self.answers.iter().copied().max();
        let is = |p: &usize| match self.diagram.narrow[value] {
            true => self.answers.contains(p),
            false => self.config.sees_ahead() || last.is_some_and(|last| *p <= last),
        };
        positions.filter(|&p| p < self.length).filter(is).collect()
    }
}
