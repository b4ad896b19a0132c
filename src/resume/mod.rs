//! The rest of a forward pass: from a changed value to the answers' logits, at the positions that matter.
//!
//! The same loop over the diagram as the forward pass, over what a change reaches ([`Reach`]). What does not lie
//! downstream of the change is taken from the clean run: earlier layers, positions that do not see the change, queries
//! whose answers nobody reads. Nor is there anything to be computed at the pads after a sequence's last token: as keys
//! they have no weight. A run that leaves them out makes sure of that.

mod attention;
mod pads;
mod reach;
mod rows;
mod stretch;

pub(crate) use reach::Reach;
pub(crate) use rows::Rows;
pub(crate) use stretch::{POSITIONS, Stretch};

use crate::diagram::{Op, Step, Value};
use crate::model::{Cache, Model, Tokens, places_of};
use crate::names::Hook;
use crate::op::{self, Attended, Layout, Place, Scratch};
use crate::tensor::{Scalar, Tensor, softmax_rows};

/// The clean run of a batch: what the rest of a changed run takes from it.
pub(crate) struct Clean<'a, T: Scalar> {
    pub model: &'a Model<T>,
    pub tokens: &'a Tokens,
    pub cache: &'a Cache<T>,
    /// Where answers are read.
    pub answers: &'a [usize],
    /// The clean run's logits there, `[batch, answer, d_vocab_out]`.
    pub logits: &'a Tensor<T>,
}

impl<T: Scalar> Clean<'_, T> {
    /// Which tokens of a stretch are pads, `[batch, pos]`, for a model with a pad token.
    fn pads(&self, stretch: &Stretch) -> Option<Vec<bool>> {
        let pad = self.model.config().pad_token? as i64;
        let tokens = |&s: &usize| &self.tokens.sequence(s)[..stretch.length];
        let ids = stretch.sequences.iter().flat_map(tokens);
        Some(ids.map(|&token| token == pad).collect())
    }

    /// Which tokens of a stretch are attended to, where not all are.
    fn attended(&self, stretch: &Stretch) -> Option<Left> {
        let mut left = Left::default();
        for &sequence in &stretch.sequences {
            let own = self.tokens.attended_range(sequence, 1)?;
            left.mask.extend(&own.mask[..stretch.length]);
            left.positions.extend(&own.positions[..stretch.length]);
        }
        Some(left)
    }
}

/// Which tokens of a stretch are attended to, and where these stand among those of their sequence.
#[derive(Clone, Default)]
struct Left {
    mask: Vec<bool>,
    positions: Vec<usize>,
}

impl Left {
    fn attended(&self) -> Attended<'_> {
        Attended {
            mask: &self.mask,
            positions: &self.positions,
        }
    }
}

/// Some sequences of a clean run, to be run on from changed values.
///
/// What it is given and what it gives is of the stretch's positions. It gives nothing when it finds that what the
/// stretch leaves out would be seen: then there is no way but to compute all positions.
pub(crate) struct Resume<'a, T: Scalar> {
    clean: &'a Clean<'a, T>,
    stretch: Stretch,
    /// Which tokens are pads, `[batch, pos]`.
    pads: Option<Vec<bool>>,
    /// Which tokens are attended to, where not all are.
    attended: Option<Left>,
    /// Whether pads after the stretch may have some weight.
    pads_matter: bool,
    /// The values that have changed and are still to be read.
    changed: Vec<Option<Rows<T>>>,
    scratch: &'a mut Scratch<T>,
}

impl<'a, T: Scalar> Resume<'a, T> {
    /// The sequences of a stretch of the batch.
    pub fn new(clean: &'a Clean<'a, T>, stretch: &Stretch, scratch: &'a mut Scratch<T>) -> Self {
        let values = clean.model.diagram.values.iter();
        Resume {
            clean,
            stretch: stretch.clone(),
            pads: clean.pads(stretch),
            attended: clean.attended(stretch),
            pads_matter: false,
            changed: values.map(|_| None).collect(),
            scratch,
        }
    }

    /// Sequences.
    fn count(&self) -> usize {
        self.stretch.sequences.len()
    }

    /// The model.
    pub fn model(&self) -> &'a Model<T> {
        self.clean.model
    }

    /// What a change of a hook's value at some positions reaches.
    pub fn reach(&self, hook: Hook, positions: &[usize]) -> Reach<'a> {
        let model = self.model();
        let (of, answers) = ((model.config(), &model.diagram), self.clean.answers);
        Reach::of(of, hook, positions, answers, self.stretch.length)
    }

    /// Leaves out the sequences where a value is what it was, and its rows. Gives the places of the others, which are
    /// left, among those there were.
    pub fn keep_changed(&mut self, hook: Hook, rows: &mut Rows<T>) -> Vec<usize> {
        let clean = self.clean_rows(hook, &rows.positions).values;
        let each = clean.len() / self.count();
        let pairs = rows.values.data().chunks_exact(each);
        let pairs = pairs.zip(clean.data().chunks_exact(each)).enumerate();
        let places: Vec<usize> = pairs.filter(|(_, (a, b))| a != b).map(|(i, _)| i).collect();
        if places.len() < self.count() {
            let mut shape = clean.shape().to_vec();
            shape[0] = places.len();
            let mut left = self.scratch.take(&shape);
            for (to, &place) in left.data_mut().chunks_exact_mut(each).zip(&places) {
                to.copy_from_slice(&rows.values.data()[place * each..(place + 1) * each]);
            }
            let all = std::mem::replace(&mut rows.values, left);
            self.scratch.give(all);
            let of = |&place: &usize| self.stretch.sequences[place];
            self.stretch.sequences = places.iter().map(of).collect();
            self.pads = self.clean.pads(&self.stretch);
            self.attended = self.clean.attended(&self.stretch);
        }
        self.scratch.give(clean);
        places
    }

    /// The answers' logits, from a hook's value where it has changed, by what that reaches.
    pub fn run_on(mut self, hook: Hook, rows: Rows<T>, reach: &Reach<'_>) -> Option<Vec<T>> {
        let diagram = &self.model().diagram;
        let value = diagram.value(hook).expect("a hook of this model");
        let first = diagram.made_by(value);
        self.changed[value] = Some(rows);
        self.inside(&diagram.steps[first], hook, value);
        for step in &diagram.steps[first + 1..] {
            if let Some(&last) = step.gives.last() {
                let own = &reach.positions[last];
                if !own.is_empty() {
                    self.step(step, last, own);
                }
                self.release(step);
            }
        }
        self.read()
    }

    /// From scores or a pattern of some queries to what they mix.
    fn inside(&mut self, step: &Step, hook: Hook, value: Value) {
        let last = *step.gives.last().expect("it gives a value");
        if value == last {
            return;
        }
        let mut rows = self.changed[value].take().expect("just put there");
        if matches!(hook, Hook::AttnScores(_)) {
            softmax_rows(rows.values.data_mut(), self.clean.tokens.pos());
        }
        let v = self.clean.cache[self.model().diagram.values[step.reads[2].0]].shape();
        let shape = [
            self.count(),
            rows.positions.len(),
            rows.values.shape()[1],
            v[3],
        ];
        let mut z = self.scratch.take(&shape);
        self.weigh(step, &rows.values, &mut z);
        self.scratch.give(rows.values);
        self.changed[last] = Some(Rows {
            positions: rows.positions,
            values: z,
        });
    }

    /// Makes a value anew at the positions reached.
    fn step(&mut self, step: &Step, to: Value, own: &[usize]) {
        let whole = self.clean.tokens.pos();
        let values = match step.op {
            Op::Attend(l) => self.attend(l, step, own),
            _ => {
                let reads = step.reads.iter();
                let reads = reads.map(|&read| self.beside_clean(read, own));
                let reads = reads.collect();
                let (attended, length) = (&self.attended, self.stretch.length);
                // Where tokens are left out no sequence is cut short.
                let places = || match attended {
                    Some(left) => places_of(left.attended(), length, own),
                    None => own
                        .iter()
                        .map(|&position| Place {
                            position,
                            length: whole,
                        })
                        .collect(),
                };
                self.clean
                    .model
                    .apply(step.op, reads, &places, Layout::ROWS, self.scratch)
            }
        };
        self.changed[to] = Some(Rows {
            positions: own.to_vec(),
            values,
        });
    }

    /// Gives back the memory of what nobody reads any more.
    fn release(&mut self, step: &Step) {
        for &(value, last) in &step.reads {
            if let (true, Some(rows)) = (last, self.changed[value].take_if(|_| last)) {
                self.scratch.give(rows.values);
            }
        }
    }

    /// The answers' logits, from what the unembedding reads.
    fn read(mut self) -> Option<Vec<T>> {
        if self.pads_matter {
            return None;
        }
        let model = self.model();
        let unembed = model.diagram.steps.last().expect("it ends with the logits");
        let mut logits = self.clean_logits();
        let Some(x) = self.changed[unembed.reads[0].0].take() else {
            return Some(logits);
        };
        let d = model.config().d_vocab_out;
        let own = &x.positions;
        let mut rows = self.scratch.take(&[self.count() * own.len(), d]);
        let map = model.affine(unembed.op).expect("a linear map");
        let of = (map, model.logit_cap());
        op::unembed(Layout::ROWS, &x.values, of, self.scratch, rows.data_mut());
        let answers = self.clean.answers;
        let sequences = logits.chunks_exact_mut(answers.len() * d);
        for (to, from) in sequences.zip(rows.data().chunks_exact(own.len() * d)) {
            for (to, p) in to.chunks_exact_mut(d).zip(answers) {
                if let Ok(i) = own.binary_search(p) {
                    to.copy_from_slice(&from[i * d..(i + 1) * d]);
                }
            }
        }
        [rows, x.values]
            .into_iter()
            .for_each(|t| self.scratch.give(t));
        Some(logits)
    }

    /// Adds what a change of neurons of layer `l` adds to what they write.
    pub fn add_neurons(
        &mut self,
        l: usize,
        written: &mut Rows<T>,
        changed: &Tensor<T>,
        clean: &Tensor<T>,
    ) {
        let W_out = &self.model().weights().mlp(l).W_out;
        let &[d_mlp, d_model] = W_out.shape() else {
            unreachable!("checked at loading")
        };
        let differs = |u: &usize| {
            let at = |t: &Tensor<T>, row: usize| t.data()[row * d_mlp + u];
            (0..clean.len() / d_mlp).any(|row| at(changed, row) != at(clean, row))
        };
        // Mostly one neuron, of many; in each sequence another, where several cells are run on together.
        let units: Vec<usize> = (0..d_mlp).filter(differs).collect();
        let rows = clean
            .data()
            .chunks_exact(d_mlp)
            .zip(changed.data().chunks_exact(d_mlp));
        for (to, (clean, changed)) in written
            .values
            .data_mut()
            .chunks_exact_mut(d_model)
            .zip(rows)
        {
            for &u in units.iter().filter(|&&u| changed[u] != clean[u]) {
                let by = changed[u] - clean[u];
                let writes = W_out.slice(&[u]);
                to.iter_mut().zip(writes).for_each(|(x, &w)| *x += by * w);
            }
        }
    }

    /// The clean run's logits.
    pub fn clean_logits(&self) -> Vec<T> {
        let of = |&s: &usize| self.clean.logits.slice(&[s]);
        let sequences = self.stretch.sequences.iter();
        sequences.flat_map(of).copied().collect()
    }
}
