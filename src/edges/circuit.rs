//! A run in which only the edges of a circuit carry what is computed: all others carry something else.

use super::graph::Sender;
use super::pairs::{Edges, pads};
use super::reads::{HeadInput, mix_head, through_norm};
use crate::error::{Error, Result};
use crate::intervene::Receiver;
use crate::linalg::{Par, product_with};
use crate::metric::{mean, values};
use crate::model::{Cache, Tokens};
use crate::names::{Head, Hook, NormSite};
use crate::op;
use crate::tensor::{Scalar, Tensor, check_room};
use faer::MatRef;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// What edges outside of a circuit carry in place of what their senders write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ablation {
    /// What the sender writes in the corrupted sequence's run.
    Corrupt,
    /// The mean over the clean sequences of what it writes, for each position.
    Mean,
    /// Nothing.
    Zero,
}

/// The pairs' runs are made some at a time.
struct Piece<T: Scalar> {
    first: usize,
    tokens: Tokens,
    /// The stream before the first block.
    input: Tensor<T>,
    /// What edges outside carry, `[sender, batch · pos · d_model]`.
    source: Tensor<T>,
}

impl<T: Scalar> Edges<'_, T> {
    /// The metric's mean over the pairs, in runs on the clean sequences in which every receiver sees what the model
    /// computes by the edges inside, and something else by all others.
    ///
    /// With all edges inside it is the clean run, with none and [`Ablation::Corrupt`] the corrupted one. Biases of
    /// attention, which no head writes, are left as they are.
    ///
    /// # Errors
    /// When there are not as many as the graph has edges; as a run; and when there is not memory enough.
    ///
    /// # Cost
    /// Three runs, and for each layer a norm more for each head and kind of input.
    pub fn circuit(&self, inside: &[bool], ablation: Ablation) -> Result<f64> {
        Ok(mean(&self.circuit_per_pair(inside, ablation)?))
    }

    /// The same of every pair.
    ///
    /// # Errors
    /// As [`Edges::circuit`].
    pub fn circuit_per_pair(&self, inside: &[bool], ablation: Ablation) -> Result<Vec<f64>> {
        if inside.len() != self.graph.len() {
            return Err(Error::Mismatch(format!(
                "a circuit of {} edges, expected {}, as the graph has",
                inside.len(),
                self.graph.len()
            )));
        }
        let mut found = Vec::with_capacity(self.pairs());
        let means = self.means(ablation)?;
        for first in (0..self.pairs()).step_by(self.together()) {
            let piece = self.piece(first, ablation, means.as_ref())?;
            found.extend(self.run_piece(&piece, inside)?);
        }
        Ok(found)
    }

    fn all_positions(&self) -> Vec<usize> {
        (0..self.clean.pos()).collect()
    }

    /// The mean over the clean sequences of what every sender writes, `[sender, 1, pos, d_model]`.
    fn means(&self, ablation: Ablation) -> Result<Option<Tensor<T>>> {
        if ablation != Ablation::Mean {
            return Ok(None);
        }
        let mut sums: Option<Tensor<T>> = None;
        for i in 0..self.pairs() {
            let run = self.keep(&self.clean.slice(i, 1), &self.written_hooks(), self.par)?;
            let own = self.written(&run, &self.all_positions());
            match &mut sums {
                None => sums = Some(own),
                Some(sums) => op::add(op::Layout::ROWS, sums, &own),
            }
        }
        let n = T::from_f64(self.pairs() as f64);
        Ok(sums.map(|mut sums| {
            sums.data_mut().iter_mut().for_each(|x| *x /= n);
            sums
        }))
    }

    fn piece(
        &self,
        first: usize,
        ablation: Ablation,
        means: Option<&Tensor<T>>,
    ) -> Result<Piece<T>> {
        let n = self.together().min(self.pairs() - first);
        check_room(
            2 * (n * self.written_bytes()) as u64,
            "what every sender writes",
        )?;
        let tokens = self.clean.slice(first, n);
        let senders = self.graph.senders().len();
        let shape = [senders, n, self.clean.pos(), self.model.config().d_model];
        let source = match (ablation, means) {
            (Ablation::Corrupt, _) => {
                let corrupt = self.corrupt.slice(first, n);
                let run = self.keep(&corrupt, &self.written_hooks(), self.par)?;
                self.written(&run, &self.all_positions())
            }
            (Ablation::Mean, Some(means)) => {
                let of = (0..senders).flat_map(|s| means.slice(&[s]).repeat(n));
                Tensor::from_vec(&shape, of.collect())
            }
            _ => Tensor::zeros(&shape),
        };
        let run = self.keep(&tokens, &[Hook::ResidPre(0)], self.par)?;
        let input = run[Hook::ResidPre(0)].clone();
        Ok(Piece {
            first,
            tokens,
            input,
            source,
        })
    }

    /// The metric of every pair of a piece.
    fn run_piece(&self, piece: &Piece<T>, inside: &[bool]) -> Result<Vec<f64>> {
        let (model, c) = (self.model, self.model.config());
        let rows = piece.input.len();
        let mut state = State {
            stream: piece.input.clone(),
            // What edges outside add to the stream: their own less what the sender writes.
            outside: vec![T::ZERO; self.graph.senders().len() * rows],
            rows,
        };
        state.wrote(0, piece, piece.input.data());
        let pads = pads(&piece.tokens, c);
        for l in 0..c.n_layers {
            let results = self.heads(l, &state, inside, pads.as_deref());
            let (attn_out, written) = self.attention_out(l, results, piece.input.shape());
            for (head, written) in written.iter().enumerate() {
                let sender = Sender::Head(Head { layer: l, head });
                let s = self.graph.sender(sender).expect("a head of this model");
                state.wrote(s, piece, written.data());
            }
            let receiver = Receiver::Mlp(l);
            let from = receiver.stream(c);
            // Of neurons beside the heads the stream is that before either.
            let sequential = from != Hook::ResidPre(l);
            if sequential {
                op::add(op::Layout::ROWS, &mut state.stream, &attn_out);
            }
            if c.mlp.is_some() {
                let r = self.graph.receiver(receiver).expect("a layer with neurons");
                let x = self.inputs(&[r], &state, inside).pop().expect("one");
                let out = model.made_of((from, &x), Hook::MlpOut(l));
                let own = self.graph.written_by(r);
                match self.graph.senders()[own.start] {
                    Sender::Neuron { .. } => {
                        let run = self.neurons_met(l, (from, &x));
                        let mut written = vec![T::ZERO; rows];
                        for (neuron, s) in own.enumerate() {
                            let at = (l, neuron);
                            self.neuron_writes(&run, at, &self.all_positions(), &mut written);
                            state.wrote(s, piece, &written);
                        }
                    }
                    _ => state.wrote(own.start, piece, out.data()),
                }
                op::add(op::Layout::ROWS, &mut state.stream, &out);
            }
            if !sequential {
                op::add(op::Layout::ROWS, &mut state.stream, &attn_out);
            }
        }
        let r = self.graph.receivers().len() - 1;
        let end = self.inputs(&[r], &state, inside).pop().expect("one");
        let end = self
            .answers
            .slice(piece.first, piece.tokens.batch())
            .rows_of(&end);
        let logits = model.logits_of_stream(&end)?;
        let sequences = piece.first..piece.first + piece.tokens.batch();
        Ok(values(
            self.metric,
            self.answers,
            sequences,
            logits.data(),
            c.d_vocab_out,
        ))
    }

    /// What a layer's neurons make of the stream that they read: their outputs, and the scale of a norm over what they write.
    fn neurons_met(&self, l: usize, from: (Hook, &Tensor<T>)) -> Cache<T> {
        let made = |hook| self.model.made_of(from, hook);
        let mut met = vec![(Hook::Post(l), made(Hook::Post(l)))];
        let site = NormSite::Ln2Post(l);
        if self.model.config().norm_at(site).is_some() {
            let (scale, out) = through_norm(self.model, site, &made(Hook::MlpSum(l)));
            let rows = [out.shape()[0], out.shape()[1], 1];
            let scale = scale.map(|scale| Tensor::from_vec(&rows, scale.into_data()));
            met.extend(scale.map(|scale| (Hook::Scale(site), scale)));
        }
        Cache::new(met)
    }

    /// What each head of a layer writes, before a norm over it.
    fn heads(
        &self,
        l: usize,
        state: &State<T>,
        inside: &[bool],
        pads: Option<&[bool]>,
    ) -> Vec<Tensor<T>> {
        let (model, c) = (self.model, self.model.config());
        let positions = self.all_positions();
        let number = |receiver| self.graph.receiver(receiver).expect("a head of this model");
        let heads = (0..c.n_heads).map(|head| Head { layer: l, head });
        let heads: Vec<Head> = heads.collect();
        let readers = heads
            .iter()
            .flat_map(|&h| [Receiver::Q(h), Receiver::K(h), Receiver::V(h)]);
        let numbers: Vec<usize> = readers.map(number).collect();
        let (kinds, distinct) = self.kinds(&numbers, inside);
        let inputs = self.inputs(&distinct, state, inside);
        let of = |head: &Head| {
            let own = &kinds[3 * head.head..3 * head.head + 3];
            let read = |receiver, input: usize| {
                let reads = HeadInput::of(model, receiver, &positions, positions.len());
                reads.expect("a head's").read(&inputs[input])
            };
            let q = read(Receiver::Q(*head), own[0]);
            let k = read(Receiver::K(*head), own[1]);
            let v = read(Receiver::V(*head), own[2]);
            let mut z = Tensor::zeros(q.shape());
            mix_head(model, *head, &positions, [&q, &k, &v], pads, &mut z);
            let mut out = Tensor::zeros(state.stream.shape());
            op::head_result(z.data(), model.weights().W_O(*head), out.data_mut());
            out
        };
        match self.par {
            Par::Rayon => heads.par_iter().map(of).collect(),
            Par::Seq => heads.iter().map(of).collect(),
        }
    }

    /// What attention adds to the stream, and of that what each head writes.
    fn attention_out(
        &self,
        l: usize,
        mut results: Vec<Tensor<T>>,
        shape: &[usize],
    ) -> (Tensor<T>, Vec<Tensor<T>>) {
        let d_model = shape[2];
        let mut sum = Tensor::zeros(shape);
        let b_O = self.model.weights().blocks[l].attn.b_O.data();
        sum.data_mut()
            .chunks_exact_mut(d_model)
            .for_each(|row| row.copy_from_slice(b_O));
        results
            .iter()
            .for_each(|own| op::add(op::Layout::ROWS, &mut sum, own));
        let site = NormSite::Ln1Post(l);
        let Some(map) = self.model.norm_at(site) else {
            return (sum, results);
        };
        let mut scale = Tensor::zeros(&[sum.len() / d_model]);
        let mut out = Tensor::zeros(shape);
        let eps = T::from_f64(self.model.config().eps);
        op::norm(op::Layout::ROWS, &sum, eps, &map, &mut scale, &mut out);
        for own in &mut results {
            let rows = own.data_mut().chunks_exact_mut(d_model).zip(scale.data());
            rows.for_each(|(row, &scale)| map.at_scale(row, scale));
        }
        (out, results)
    }

    /// Of some receivers those that see different streams, and of each which of these it sees.
    fn kinds(&self, receivers: &[usize], inside: &[bool]) -> (Vec<usize>, Vec<usize>) {
        let edges = |r: usize| &inside[self.graph.edges_to(r)];
        let mut distinct: Vec<usize> = Vec::new();
        let kind = |&r: &usize| {
            let known = distinct.iter().position(|&other| edges(other) == edges(r));
            known.unwrap_or_else(|| {
                distinct.push(r);
                distinct.len() - 1
            })
        };
        let kinds = receivers.iter().map(kind).collect();
        (kinds, distinct)
    }

    /// The streams as some receivers see them, which read the same senders.
    fn inputs(&self, receivers: &[usize], state: &State<T>, inside: &[bool]) -> Vec<Tensor<T>> {
        let edges = |r: usize| &inside[self.graph.edges_to(r)];
        let n = edges(receivers[0]).len();
        let missing = receivers.iter().flat_map(|&r| edges(r));
        let missing: Vec<T> = missing
            .map(|&inside| if inside { T::ZERO } else { T::ONE })
            .collect();
        let weights = MatRef::from_row_major_slice(&missing, receivers.len(), n);
        let outside =
            MatRef::from_row_major_slice(&state.outside, self.graph.senders().len(), state.rows);
        let added = product_with(weights, outside.subrows(0, n), self.par);
        let of = |(i, r): (usize, &usize)| {
            let mut x = state.stream.clone();
            if edges(*r).contains(&false) {
                let entries = x.data_mut().iter_mut().enumerate();
                entries.for_each(|(j, x)| *x += added[(i, j)]);
            }
            x
        };
        receivers.iter().enumerate().map(of).collect()
    }
}

/// A circuit's run so far.
struct State<T: Scalar> {
    /// The stream of what is computed.
    stream: Tensor<T>,
    /// `[sender, rows]`: what edges outside carry, less what the sender writes.
    outside: Vec<T>,
    /// Entries of the stream.
    rows: usize,
}

impl<T: Scalar> State<T> {
    /// Notes what a sender writes.
    fn wrote(&mut self, s: usize, piece: &Piece<T>, written: &[T]) {
        let own = &mut self.outside[s * self.rows..(s + 1) * self.rows];
        let source = piece.source.slice(&[s]).iter().zip(written);
        own.iter_mut()
            .zip(source)
            .for_each(|(to, (&source, &x))| *to = source - x);
    }
}
