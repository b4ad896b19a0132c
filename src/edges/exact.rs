//! The effect of every edge: its receiver computed anew, and the rest of the run from there.

use super::graph::{EdgeGraph, layer_of};
use super::pairs::{Edges, gather, pads, subtract};
use super::reads::{HeadInput, mix_head, one_head};
use crate::error::{Error, Result};
use crate::intervene::Receiver;
use crate::linalg::Par;
use crate::metric::values;
use crate::model::{Cache, Run, Tokens};
use crate::names::{Head, Hook};
use crate::op::{self, Scratch};
use crate::resume::{Clean, POSITIONS, Reach, Resume, Rows, Stretch};
use crate::tensor::{Scalar, Tensor, check_room};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How far exact effects are: those of which receivers, and of each of them of how many pairs.
///
/// The same, however the work was cut into shards and wherever it was broken off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExactWork {
    /// For each edge the sum of its effects over the pairs that are done.
    sums: Vec<f64>,
    /// For each receiver how many pairs are done.
    done: Vec<usize>,
    /// Every `n`-th receiver only, from the `i`-th on.
    shard: (usize, usize),
}

impl ExactWork {
    /// Nothing done yet, of all receivers.
    pub fn new(graph: &EdgeGraph) -> Self {
        Self::shard(graph, 0, 1)
    }

    /// Of every `n`-th receiver only, from the `i`-th on.
    ///
    /// # Panics
    /// Unless `i < n`.
    #[track_caller]
    pub fn shard(graph: &EdgeGraph, i: usize, n: usize) -> Self {
        assert!(i < n, "shard {i} of {n}");
        ExactWork {
            sums: vec![0.0; graph.len()],
            done: vec![0; graph.receivers().len()],
            shard: (i, n),
        }
    }

    /// How many edges of single pairs are left to be done, of so many pairs.
    pub fn left(&self, graph: &EdgeGraph, pairs: usize) -> usize {
        let own = (0..self.done.len()).filter(|&r| self.owns(r));
        own.map(|r| graph.edges_to(r).len() * (pairs - self.done[r].min(pairs)))
            .sum()
    }

    /// Every edge's effect, averaged over so many pairs; none of edges that are not done, or another shard's.
    pub fn effects(&self, graph: &EdgeGraph, pairs: usize) -> Vec<Option<f64>> {
        let done = |r: usize| pairs > 0 && self.done[r] == pairs;
        let of = |r: usize| {
            let own = graph.edges_to(r);
            own.map(move |i| done(r).then(|| self.sums[i] / pairs as f64))
        };
        (0..self.done.len()).flat_map(of).collect()
    }

    fn owns(&self, r: usize) -> bool {
        r % self.shard.1 == self.shard.0
    }

    fn check(&self, graph: &EdgeGraph, pairs: usize) -> Result<()> {
        let fits = self.sums.len() == graph.len()
            && self.done.len() == graph.receivers().len()
            && self.done.iter().all(|&n| n <= pairs);
        match fits {
            true => Ok(()),
            false => Err(Error::Experiment(
                "what was done so far is of another model's edges, or of more pairs".into(),
            )),
        }
    }
}

/// One pair: its runs, and what the senders write otherwise in the corrupted one.
pub(super) struct Pair<'e, T: Scalar> {
    pub tokens: Tokens,
    pub cache: Cache<T>,
    /// At the answers.
    logits: Tensor<T>,
    /// The clean run's metric.
    metric: f64,
    /// Where the two runs may differ.
    pub positions: &'e [usize],
    /// `[sender, 1, positions, d_model]`
    pub differences: Tensor<T>,
}

impl<T: Scalar> Pair<'_, T> {
    /// How many senders are patched at a time.
    pub fn senders_together(&self) -> usize {
        (POSITIONS / self.positions.len().max(1)).max(1)
    }
}

impl<T: Scalar> Edges<'_, T> {
    /// The effect of every edge: one after the other is patched, and what lies past its receiver computed anew.
    ///
    /// # Errors
    /// As a run; and when there is not memory enough.
    ///
    /// # Cost
    /// For each edge and pair the layers past its receiver, at the positions from the first token on that differs between
    /// the two sequences. Edges into one receiver are computed together, the last layer where an answer reads it alone.
    ///
    /// ```
    /// use pathsum::edges::Edges;
    /// use pathsum::metric::{Answers, Standard};
    /// use pathsum::{Tokens, fixture};
    /// let model = fixture::induction::<f64>();
    /// // After the second 7 comes what came after the first: 3, or in the corrupted sequence 4.
    /// let (clean, corrupt) = (Tokens::from_rows(&[[7, 3, 9, 7]]), Tokens::from_rows(&[[7, 4, 9, 7]]));
    /// let answers = Answers::new(&[3], vec![3]);
    /// let edges = Edges::new(&model, &clean, &corrupt, &answers, &Standard::Difference(3, 4))?;
    /// let effects = edges.exact()?;
    /// let of = |edge: &str| effects[edges.graph().number(edge.parse().unwrap()).unwrap()];
    /// assert!(of("input->a1.h0<v>") < -20.0); // the induction head copies another token
    /// assert!(of("input->a1.h0<q>").abs() < 1e-6); // and looks where it looked before
    /// # Ok::<(), pathsum::Error>(())
    /// ```
    pub fn exact(&self) -> Result<Vec<f64>> {
        let mut work = ExactWork::new(&self.graph);
        self.exact_on(&mut work, &mut |_| Ok(()))?;
        let effects = work.effects(&self.graph, self.pairs()).into_iter();
        Ok(effects.map(|effect| effect.expect("all is done")).collect())
    }

    /// The same from where it was left, or of a shard. After each layer of a pair `keep` is shown what is done: what it
    /// has kept, it may be gone on from.
    ///
    /// # Errors
    /// As [`Edges::exact`]; when the work is of another model's edges; and those of `keep`.
    pub fn exact_on(
        &self,
        work: &mut ExactWork,
        keep: &mut dyn FnMut(&ExactWork) -> Result<()>,
    ) -> Result<()> {
        work.check(&self.graph, self.pairs())?;
        let n_layers = self.model.config().n_layers;
        let layer = |r: usize| layer_of(self.graph.receivers()[r]).unwrap_or(n_layers);
        for p in 0..self.pairs() {
            let own: Vec<usize> = (0..work.done.len())
                .filter(|&r| work.owns(r) && work.done[r] == p)
                .collect();
            if own.is_empty() {
                continue;
            }
            let positions = self.positions(p..p + 1);
            let pair = self.pair(p, &positions)?;
            for receivers in own.chunk_by(|&a, &b| layer(a) == layer(b)) {
                let effects = self.effects_on(p, &pair, receivers);
                for (&r, effects) in receivers.iter().zip(effects) {
                    let sums = &mut work.sums[self.graph.edges_to(r)];
                    sums.iter_mut().zip(effects).for_each(|(sum, x)| *sum += x);
                    work.done[r] += 1;
                }
                keep(work)?;
            }
        }
        Ok(())
    }

    /// The effects of the edges into some receivers alone, averaged over the pairs: of each receiver those of its edges, in
    /// the order of their senders.
    ///
    /// # Errors
    /// As [`Edges::exact`]; and when the graph has no such receiver.
    pub fn exact_into(&self, receivers: &[Receiver]) -> Result<Vec<Vec<f64>>> {
        let number = |&receiver: &Receiver| {
            let r = self.graph.receiver(receiver);
            r.ok_or_else(|| Error::NotInModel(format!("receiver {receiver}")))
        };
        let numbers: Vec<usize> = receivers.iter().map(number).collect::<Result<_>>()?;
        let edges = |&r: &usize| vec![0.0; self.graph.edges_to(r).len()];
        let mut means: Vec<Vec<f64>> = numbers.iter().map(edges).collect();
        let share = 1.0 / self.pairs() as f64;
        for p in 0..self.pairs() {
            let positions = self.positions(p..p + 1);
            let pair = self.pair(p, &positions)?;
            for (means, effects) in means.iter_mut().zip(self.effects_on(p, &pair, &numbers)) {
                let means = means.iter_mut().zip(effects);
                means.for_each(|(mean, x)| *mean += share * x);
            }
        }
        Ok(means)
    }

    /// A pair's runs, and what is kept of them.
    pub(super) fn pair<'e>(&self, p: usize, positions: &'e [usize]) -> Result<Pair<'e, T>> {
        let (clean, corrupt) = (self.clean.slice(p, 1), self.corrupt.slice(p, 1));
        let d_model = self.model.config().d_model;
        let bytes = 2 * self.graph.senders().len() * positions.len() * d_model * size_of::<T>();
        check_room(bytes as u64, "what every sender writes in two runs")?;
        let written = self.written_hooks();
        let mut hooks = [written.clone(), self.resumed_hooks(positions)].concat();
        hooks.sort_unstable_by_key(Hook::to_string);
        hooks.dedup();
        // On one thread: a shard computes the same to the bit, however many it has.
        let run = Run::new().par(Par::Seq);
        let run = hooks.iter().fold(run, |run, hook| run.cache(hook));
        let run = self.model.run(&clean, run)?;
        let other = self.keep(&corrupt, &written, Par::Seq)?;
        let mut differences = self.written(&other, positions);
        subtract(&mut differences, &self.written(&run.cache, positions));
        let answers = self.answers.slice(p, 1);
        let logits = answers.rows_of(&run.logits);
        let d = self.model.config().d_vocab_out;
        let metric = values(self.metric, self.answers, [p], logits.data(), d)[0];
        Ok(Pair {
            tokens: clean,
            cache: run.cache,
            logits,
            metric,
            positions,
            differences,
        })
    }

    /// The values of a clean run that the rest of changed ones needs.
    fn resumed_hooks(&self, positions: &[usize]) -> Vec<Hook> {
        let (c, diagram) = (self.model.config(), &self.model.diagram);
        let mut hooks = vec![Receiver::Logits.stream(c)];
        let mut from = |hook: Hook| {
            hooks.push(hook);
            let reach = Reach::of(
                (c, diagram),
                hook,
                positions,
                self.answers.positions(),
                self.clean.pos(),
            );
            hooks.extend(reach.needed);
        };
        for l in 0..c.n_layers {
            from(self.heads_sum(l));
            if c.mlp.is_some() {
                from(Hook::MlpOut(l));
            }
        }
        for l in 0..c.n_layers {
            hooks.push(Hook::ResidPre(l));
            hooks.push(Hook::Z(l));
            hooks.extend(self.attended(l));
            hooks.extend(c.mlp.map(|_| Receiver::Mlp(l).stream(c)));
        }
        hooks
    }

    /// The sum of what the heads of a layer write, before a norm over it.
    fn heads_sum(&self, l: usize) -> Hook {
        let diagram = &self.model.diagram;
        let step = diagram.step_of(crate::diagram::Op::WriteHeads(l));
        let step = step.expect("a layer of this model");
        diagram.values[*step.gives.last().expect("it gives a value")]
    }

    /// What attention reads: queries, keys and values.
    pub(super) fn attended(&self, l: usize) -> [Hook; 3] {
        let diagram = &self.model.diagram;
        let step = diagram.step_of(crate::diagram::Op::Attend(l));
        let reads = &step.expect("a layer of this model").reads;
        [0, 1, 2].map(|i| diagram.values[reads[i].0])
    }

    /// The effects of all edges into some receivers, of one pair.
    fn effects_on(&self, p: usize, pair: &Pair<'_, T>, receivers: &[usize]) -> Vec<Vec<f64>> {
        let clean = Clean {
            model: self.model,
            tokens: &pair.tokens,
            cache: &pair.cache,
            answers: self.answers.positions(),
            logits: &pair.logits,
        };
        // So many senders at a time: the same ones, whoever does the work.
        let each = pair.senders_together();
        let tasks: Vec<(usize, std::ops::Range<usize>)> = (receivers.iter())
            .flat_map(|&r| {
                let senders = self.graph.edges_to(r).len();
                let starts = (0..senders).step_by(each);
                starts.map(move |first| (r, first..senders.min(first + each)))
            })
            .collect();
        let work = |scratch: &mut Scratch<T>, (r, senders): &(usize, std::ops::Range<usize>)| {
            let n = senders.len();
            let logits = self.logits_of(&clean, pair, self.graph.receivers()[*r], senders, scratch);
            let d = self.model.config().d_vocab_out;
            let found = values(
                self.metric,
                self.answers,
                std::iter::repeat_n(p, n),
                &logits,
                d,
            );
            self.done(n);
            let effects = found.into_iter().map(|x| x - pair.metric);
            effects.collect::<Vec<f64>>()
        };
        let found: Vec<Vec<f64>> = match self.par {
            Par::Rayon => tasks.par_iter().map_init(Scratch::default, work).collect(),
            Par::Seq => {
                let mut scratch = Scratch::default();
                tasks.iter().map(|task| work(&mut scratch, task)).collect()
            }
        };
        let mut found = found.into_iter().zip(&tasks).peekable();
        let mut of = |&r: &usize| {
            let mut effects = Vec::new();
            while let Some((own, _)) = found.next_if(|(_, (of, _))| *of == r) {
                effects.extend(own);
            }
            effects
        };
        receivers.iter().map(&mut of).collect()
    }

    /// The answers' logits with each of these senders patched into a receiver, `[sender, answer, d_vocab_out]`.
    fn logits_of(
        &self,
        clean: &Clean<'_, T>,
        pair: &Pair<'_, T>,
        receiver: Receiver,
        senders: &std::ops::Range<usize>,
        scratch: &mut Scratch<T>,
    ) -> Vec<T> {
        let stretch = Stretch {
            sequences: vec![0; senders.len()],
            length: pair.tokens.pos(),
        };
        let mut run = Resume::new(clean, &stretch, scratch);
        let logits = run.clean_logits();
        if pair.positions.is_empty() {
            return logits;
        }
        let written = match receiver {
            Receiver::Q(h) | Receiver::K(h) | Receiver::V(h) => self.heads_sum(h.layer),
            Receiver::Mlp(l) => Hook::MlpOut(l),
            Receiver::Logits => return self.of_end(pair, senders, logits),
        };
        let value = self
            .model
            .diagram
            .value(written)
            .expect("a hook of this model");
        let reach = run.reach(written, pair.positions);
        let reached = reach.positions[value].clone();
        if reached.is_empty() {
            return logits;
        }
        let values = match receiver {
            Receiver::Mlp(l) => {
                let from = receiver.stream(self.model.config());
                let x = self.seen(pair, from, senders, &reached);
                self.model.made_of((from, &x), Hook::MlpOut(l))
            }
            Receiver::Q(head) | Receiver::K(head) | Receiver::V(head) => {
                let z = self.mixed(pair, receiver, head, senders, &reached);
                let mut values = run.clean_rows(written, &reached).values;
                self.add_result(pair, head, &reached, z, &mut values);
                values
            }
            Receiver::Logits => unreachable!("done above"),
        };
        let rows = Rows {
            positions: reached,
            values,
        };
        run.run_on(written, rows, &reach)
            .expect("nothing is left out")
    }

    /// The stream as a receiver sees it, with each of these senders patched, `[sender, positions, d_model]`.
    fn seen(
        &self,
        pair: &Pair<'_, T>,
        stream: Hook,
        senders: &std::ops::Range<usize>,
        positions: &[usize],
    ) -> Tensor<T> {
        let d = self.model.config().d_model;
        let mut clean = vec![T::ZERO; positions.len() * d];
        gather(&pair.cache[stream], positions, &mut clean);
        let mut out = Vec::with_capacity(senders.len() * clean.len());
        for sender in senders.clone() {
            let changed = pair.differences.slice(&[sender, 0]);
            for (row, p) in clean.chunks_exact(d).zip(positions) {
                match pair.positions.binary_search(p) {
                    Ok(i) => {
                        let by = &changed[i * d..(i + 1) * d];
                        out.extend(row.iter().zip(by).map(|(&x, &by)| x + by));
                    }
                    Err(_) => out.extend_from_slice(row),
                }
            }
        }
        Tensor::from_vec(&[senders.len(), positions.len(), d], out)
    }

    /// What a head mixes at some queries, when it reads one of its three inputs with each of these senders patched:
    /// `[sender, queries, 1, d_head]`.
    pub(super) fn mixed(
        &self,
        pair: &Pair<'_, T>,
        receiver: Receiver,
        head: Head,
        senders: &std::ops::Range<usize>,
        queries: &[usize],
    ) -> Tensor<T> {
        let (model, l) = (self.model, head.layer);
        let (n, pos) = (senders.len(), pair.tokens.pos());
        let own = match receiver {
            Receiver::Q(_) => queries,
            _ => pair.positions,
        };
        let x = self.seen(pair, receiver.stream(model.config()), senders, own);
        let input = HeadInput::of(model, receiver, own, pos).expect("a head's");
        let changed = input.read(&x);
        let all: Vec<usize> = (0..pos).collect();
        let group = model.config().group(head.head);
        // The clean run's, once for each sender.
        let clean = |hook: Hook, head: usize, at: &[usize]| {
            let value = one_head(&pair.cache[hook], head);
            let width = value.shape()[3];
            let mut rows = vec![T::ZERO; at.len() * width];
            gather(&value, at, &mut rows);
            Tensor::from_vec(&[n, at.len(), 1, width], rows.repeat(n))
        };
        let [of_q, of_k, of_v] = self.attended(l);
        let over = |mut keys: Tensor<T>| {
            let width = keys.shape()[3];
            let to = keys.data_mut().chunks_exact_mut(pos * width);
            let from = changed.data().chunks_exact(own.len() * width);
            for (to, from) in to.zip(from) {
                for (from, &p) in from.chunks_exact(width).zip(own) {
                    to[p * width..(p + 1) * width].copy_from_slice(from);
                }
            }
            keys
        };
        let q = match receiver {
            Receiver::Q(_) => changed.clone(),
            _ => clean(of_q, head.head, queries),
        };
        let [k, v] = [of_k, of_v].map(|hook| clean(hook, group, &all));
        let k = if matches!(receiver, Receiver::K(_)) {
            over(k)
        } else {
            k
        };
        let v = if matches!(receiver, Receiver::V(_)) {
            over(v)
        } else {
            v
        };
        let pads = pads(&pair.tokens, model.config()).map(|own| own.repeat(n));
        let mut z = Tensor::zeros(q.shape());
        mix_head(model, head, queries, [&q, &k, &v], pads.as_deref(), &mut z);
        z
    }

    /// Adds to what the heads of a layer write what one of them writes otherwise.
    fn add_result(
        &self,
        pair: &Pair<'_, T>,
        head: Head,
        queries: &[usize],
        mut z: Tensor<T>,
        to: &mut Tensor<T>,
    ) {
        let clean = one_head(&pair.cache[Hook::Z(head.layer)], head.head);
        let mut rows = vec![T::ZERO; queries.len() * clean.shape()[3]];
        gather(&clean, queries, &mut rows);
        for own in z.data_mut().chunks_exact_mut(rows.len()) {
            own.iter_mut()
                .zip(&rows)
                .for_each(|(z, &clean)| *z -= clean);
        }
        let mut by = Tensor::zeros(to.shape());
        op::head_result(z.data(), self.model.weights().W_O(head), by.data_mut());
        to.data_mut()
            .iter_mut()
            .zip(by.data())
            .for_each(|(x, &by)| *x += by);
    }

    /// The logits of the stream's end with each of these senders patched, over the clean run's.
    fn of_end(
        &self,
        pair: &Pair<'_, T>,
        senders: &std::ops::Range<usize>,
        mut logits: Vec<T>,
    ) -> Vec<T> {
        let c = self.model.config();
        let answers = self.answers.positions();
        let read: Vec<usize> = (answers.iter().copied())
            .filter(|p| pair.positions.contains(p))
            .collect();
        let x = self.seen(pair, Receiver::Logits.stream(c), senders, &read);
        let found = self
            .model
            .logits_of_stream(&x)
            .expect("rows of the stream's width");
        let d = c.d_vocab_out;
        let sequences = logits.chunks_exact_mut(answers.len() * d);
        for (to, from) in sequences.zip(found.data().chunks_exact((read.len() * d).max(1))) {
            let mut from = from.chunks_exact(d);
            for (to, p) in to.chunks_exact_mut(d).zip(answers) {
                if pair.positions.contains(p) {
                    to.copy_from_slice(from.next().expect("one for each read"));
                }
            }
        }
        logits
    }
}
