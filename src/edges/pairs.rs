//! Pairs of a clean and a corrupted sequence, what is read of them, and what every sender writes in either's run.

use super::graph::{EdgeGraph, Sender};
use crate::diagram::Config;
use crate::error::{Error, Result};
use crate::linalg::Par;
use crate::metric::{Answer, Answers, Metric, mean, per_sequence};
use crate::model::{Cache, Model, Run, Tokens};
use crate::names::{Head, Hook, NormSite};
use crate::tensor::{Scalar, Tensor};

/// How much memory what the senders write in the pairs that are run together may take, in bytes.
const MEMORY: usize = 1 << 28;

/// The edges of a model, on pairs of a clean and a corrupted sequence, and the metric that is read of their answers.
///
/// An *effect* is what the metric's mean over the pairs changes by when the receivers of some edges see what the senders
/// write in the corrupted sequence's run in place of what they write in the clean one's; everything past the receivers is
/// computed anew.
///
/// What a head writes is its result, and where a norm stands over what attention writes (Gemma-2, OLMo-2) its part of that
/// norm's output at the run's own scale: so in every run what all senders write adds up to the stream.
pub struct Edges<'a, T: Scalar> {
    pub(super) model: &'a Model<T>,
    pub(super) graph: EdgeGraph,
    pub(super) clean: &'a Tokens,
    pub(super) corrupt: &'a Tokens,
    pub(super) answers: &'a Answers,
    pub(super) metric: &'a dyn Metric,
    pub(super) par: Par,
    progress: Option<&'a (dyn Fn(usize) + Sync)>,
}

impl<'a, T: Scalar> Edges<'a, T> {
    /// On these pairs. The answers are the clean sequences'.
    ///
    /// # Errors
    /// When the two batches are not of one shape or have pads at other places, tokens are left out of attention, the
    /// batch has no such answers or the metric cannot be read off them; and for models of which no stream is a sum of
    /// what components write ([`EdgeGraph::of`]), which have no layers, or whose heads have biases under a norm.
    pub fn new(
        model: &'a Model<T>,
        clean: &'a Tokens,
        corrupt: &'a Tokens,
        answers: &'a Answers,
        metric: &'a dyn Metric,
    ) -> Result<Self> {
        let c = model.config();
        let graph = EdgeGraph::of(c)?;
        for tokens in [clean, corrupt] {
            tokens.check(c)?;
            if tokens.attention_mask().is_some() {
                return Err(Error::NotCovered(
                    "edges of sequences some of whose tokens are left out of attention: expected all of one length",
                ));
            }
        }
        if (clean.batch(), clean.pos()) != (corrupt.batch(), corrupt.pos()) {
            return Err(Error::Mismatch(format!(
                "the corrupted sequences are [{}, {}] tokens, expected [{}, {}], as the clean ones are",
                corrupt.batch(),
                corrupt.pos(),
                clean.batch(),
                clean.pos()
            )));
        }
        if pads(clean, c) != pads(corrupt, c) {
            return Err(Error::Mismatch(
                "the corrupted sequences have pads at other positions than the clean ones".into(),
            ));
        }
        let biased = |l: usize| {
            let b_O = &model.weights().blocks[l].attn.b_O;
            c.norm_at(NormSite::Ln1Post(l)).is_some() && b_O.max_abs() != T::ZERO
        };
        if (0..c.n_layers).any(biased) {
            return Err(Error::NotCovered(
                "a norm comes over what the heads of a layer and a bias write, which no head's part is",
            ));
        }
        answers.check(c, clean)?;
        metric.check(answers, c.d_vocab_out)?;
        Ok(Edges {
            model,
            graph,
            clean,
            corrupt,
            answers,
            metric,
            par: Par::default(),
            progress: None,
        })
    }

    /// With each neuron of these layers as a sender of its own ([`EdgeGraph::with_neurons`]): it writes its output times its
    /// row of `W_out`; where a norm stands over what neurons write its part of that norm's output at the run's own scale.
    ///
    /// # Errors
    /// When there is no such layer or it has no neurons, or they have a bias under a norm.
    pub fn neurons(mut self, layers: &[usize]) -> Result<Self> {
        let c = self.model.config();
        self.graph = EdgeGraph::with_neurons(c, layers)?;
        let biased = |&l: &usize| {
            let b_out = &self.model.weights().mlp(l).b_out;
            c.norm_at(NormSite::Ln2Post(l)).is_some() && b_out.max_abs() != T::ZERO
        };
        match layers.iter().any(biased) {
            false => Ok(self),
            true => Err(Error::NotCovered(
                "a norm comes over what the neurons of a layer and a bias write, which no neuron's part is",
            )),
        }
    }

    /// Whether to split the work over threads; over the current rayon pool unless said otherwise.
    pub fn par(mut self, par: Par) -> Self {
        self.par = par;
        self
    }

    /// Called with the number of pieces of work done, as they are: of [`Edges::exact`] edges of single pairs, of
    /// attributions derivatives.
    pub fn progress(mut self, f: &'a (dyn Fn(usize) + Sync)) -> Self {
        self.progress = Some(f);
        self
    }

    /// The graph.
    pub fn graph(&self) -> &EdgeGraph {
        &self.graph
    }

    /// How many pairs there are.
    pub fn pairs(&self) -> usize {
        self.clean.batch()
    }

    /// The metric's mean over the clean sequences, and over the corrupted ones.
    ///
    /// # Errors
    /// As a run.
    pub fn ends(&self) -> Result<[f64; 2]> {
        let of = |tokens: &Tokens| {
            // On one thread: shards say the same to the bit, however many threads each has.
            let logits = self.model.run(tokens, Run::new().par(Par::Seq))?.logits;
            let rows = self.answers.rows_of(&logits);
            Ok(mean(&per_sequence(self.metric, self.answers, &rows)))
        };
        Ok([of(self.clean)?, of(self.corrupt)?])
    }

    pub(super) fn done(&self, n: usize) {
        self.progress.iter().for_each(|f| f(n));
    }

    /// How many pairs are run together.
    pub(super) fn together(&self) -> usize {
        (MEMORY / self.written_bytes().max(1)).clamp(1, self.pairs().max(1))
    }

    /// The bytes of what all senders write in one sequence.
    pub(super) fn written_bytes(&self) -> usize {
        let d_model = self.model.config().d_model;
        self.graph.senders().len() * self.clean.pos() * d_model * size_of::<T>()
    }

    /// The positions at which a clean sequence's run and the corrupted one's may differ, of some pairs, as far as an
    /// answer is made of them: from the first other token on, where no query sees keys after it.
    pub(super) fn positions(&self, pairs: std::ops::Range<usize>) -> Vec<usize> {
        let pos = self.clean.pos();
        if self.model.config().sees_ahead() {
            return (0..pos).collect();
        }
        let differs = |p: usize| {
            pairs.clone().any(|i| {
                let types = |tokens: &Tokens| tokens.types_range(i, 1).map(|types| types[p]);
                let (a, b) = (self.clean, self.corrupt);
                a.sequence(i)[p] != b.sequence(i)[p] || types(a) != types(b)
            })
        };
        let first = (0..pos).find(|&p| differs(p)).unwrap_or(pos);
        let last = self.answers.positions().iter().copied().max().unwrap_or(0);
        (first..pos).take_while(|&p| p <= last).collect()
    }

    /// The hooks of which [`Edges::written`] is made.
    pub(super) fn written_hooks(&self) -> Vec<Hook> {
        let c = self.model.config();
        let layer = |l: usize| {
            let scale = c
                .norm_at(NormSite::Ln1Post(l))
                .map(|_| Hook::Scale(NormSite::Ln1Post(l)));
            let mlp = c.mlp.map(|_| self.neurons_hooks(l)).into_iter().flatten();
            [Some(Hook::Z(l)), scale].into_iter().flatten().chain(mlp)
        };
        [Hook::ResidPre(0)]
            .into_iter()
            .chain((0..c.n_layers).flat_map(layer))
            .collect()
    }

    /// Of what a layer's neurons write.
    pub(super) fn neurons_hooks(&self, l: usize) -> Vec<Hook> {
        let one = Sender::Neuron {
            layer: l,
            neuron: 0,
        };
        if self.graph.sender(one).is_none() {
            return vec![Hook::MlpOut(l)];
        }
        let site = NormSite::Ln2Post(l);
        let scale = self.model.config().norm_at(site);
        let scale = scale.map(|_| Hook::Scale(site));
        std::iter::once(Hook::Post(l)).chain(scale).collect()
    }

    /// What every sender writes in a run, at some positions, `[sender, batch, positions, d_model]`; of a head or a neuron
    /// without the bias of its layer, and without the `b` of a norm over it.
    pub(super) fn written(&self, run: &Cache<T>, positions: &[usize]) -> Tensor<T> {
        let senders = self.graph.senders();
        let batch = run[Hook::ResidPre(0)].shape()[0];
        let d_model = self.model.config().d_model;
        let mut out = Tensor::zeros(&[senders.len(), batch, positions.len(), d_model]);
        let each = batch * positions.len() * d_model;
        if each == 0 {
            return out;
        }
        let of = |(sender, to): (&Sender, &mut [T])| match *sender {
            Sender::Input => gather(&run[Hook::ResidPre(0)], positions, to),
            Sender::Mlp(l) => gather(&run[Hook::MlpOut(l)], positions, to),
            Sender::Head(head) => self.head_writes(run, head, positions, to),
            Sender::Neuron { layer, neuron } => {
                self.neuron_writes(run, (layer, neuron), positions, to);
            }
        };
        let tasks = senders.iter().zip(out.data_mut().chunks_exact_mut(each));
        match self.par {
            Par::Seq => tasks.for_each(of),
            Par::Rayon => {
                use rayon::prelude::*;
                tasks.collect::<Vec<_>>().into_par_iter().for_each(of);
            }
        }
        out
    }

    fn head_writes(&self, run: &Cache<T>, head: Head, positions: &[usize], to: &mut [T]) {
        let l = head.layer;
        let z = &run[Hook::Z(l)];
        let &[batch, _, _, d_head] = z.shape() else {
            unreachable!("z has four axes")
        };
        let places = (0..batch).flat_map(|b| positions.iter().map(move |&p| [b, p, head.head]));
        let z: Vec<T> = places.flat_map(|at| z.slice(&at)).copied().collect();
        debug_assert_eq!(z.len(), batch * positions.len() * d_head);
        crate::op::head_result(&z, self.model.weights().W_O(head), to);
        self.through_norm_over(NormSite::Ln1Post(l), run, positions, to);
    }

    /// What one neuron of a layer writes.
    pub(super) fn neuron_writes(
        &self,
        run: &Cache<T>,
        (l, neuron): (usize, usize),
        positions: &[usize],
        to: &mut [T],
    ) {
        let post = &run[Hook::Post(l)];
        let row = self.model.weights().mlp(l).W_out.slice(&[neuron]);
        let places =
            (0..post.shape()[0]).flat_map(|b| positions.iter().map(move |&p| [b, p, neuron]));
        for (to, at) in to.chunks_exact_mut(row.len()).zip(places) {
            let x = post[at];
            to.iter_mut().zip(row).for_each(|(to, &w)| *to = x * w);
        }
        self.through_norm_over(NormSite::Ln2Post(l), run, positions, to);
    }

    /// A part of what a layer's heads or neurons write, through the norm over it at the run's own scale, where there is one.
    fn through_norm_over(&self, site: NormSite, run: &Cache<T>, positions: &[usize], to: &mut [T]) {
        let Some(norm) = self.model.norm_at(site) else {
            return;
        };
        let scale = &run[Hook::Scale(site)];
        let rows = to.chunks_exact_mut(self.model.config().d_model);
        let places = (0..scale.shape()[0]).flat_map(|b| positions.iter().map(move |&p| [b, p]));
        for (row, at) in rows.zip(places) {
            norm.at_scale(row, scale.slice(&at)[0]);
        }
    }

    /// A run of some pairs' sequences that keeps these hooks.
    pub(super) fn keep(&self, tokens: &Tokens, hooks: &[Hook], par: Par) -> Result<Cache<T>> {
        let run = hooks
            .iter()
            .fold(Run::new().par(par).without_logits(), |run, hook| {
                run.cache(hook)
            });
        Ok(self.model.run(tokens, run)?.cache)
    }

    /// The metric of some of the pairs, counted from the first of them.
    pub(super) fn metric_from(&self, first: usize) -> Later<'a> {
        Later {
            metric: self.metric,
            first,
        }
    }
}

/// A metric of a batch's sequences from one on: metrics may know sequences by their numbers.
pub(super) struct Later<'a> {
    metric: &'a dyn Metric,
    first: usize,
}

impl Later<'_> {
    fn whole(&self, answer: &Answer) -> Answer {
        Answer {
            sequence: answer.sequence + self.first,
            ..*answer
        }
    }
}

impl Metric for Later<'_> {
    fn name(&self) -> String {
        self.metric.name()
    }

    fn of(&self, answer: &Answer, logits: &[f64]) -> f64 {
        self.metric.of(&self.whole(answer), logits)
    }

    fn gradient(&self, answer: &Answer, logits: &[f64], d_logits: &mut [f64]) -> Result<f64> {
        self.metric.gradient(&self.whole(answer), logits, d_logits)
    }
}

/// The rows of a `[batch, pos, width]` value at some positions.
pub(super) fn gather<T: Scalar>(from: &Tensor<T>, positions: &[usize], to: &mut [T]) {
    let width = from.len() / (from.shape()[0] * from.shape()[1]);
    let places = (0..from.shape()[0]).flat_map(|b| positions.iter().map(move |&p| [b, p]));
    for (to, at) in to.chunks_exact_mut(width).zip(places) {
        to.copy_from_slice(from.slice(&at));
    }
}

/// `to -= by`
pub(super) fn subtract<T: Scalar>(to: &mut Tensor<T>, by: &Tensor<T>) {
    to.data_mut()
        .iter_mut()
        .zip(by.data())
        .for_each(|(x, &y)| *x -= y);
}

/// Which tokens are pads, `[batch, pos]`, for a model with a pad token.
pub(super) fn pads(tokens: &Tokens, config: &Config) -> Option<Vec<bool>> {
    let pad = config.pad_token? as i64;
    let sequences = (0..tokens.batch()).flat_map(|i| tokens.sequence(i));
    Some(sequences.map(|&token| token == pad).collect())
}
