//! What derivatives say of edges: edge attribution patching, with and without integrated gradients.

use super::pairs::{Edges, gather, subtract};
use super::reads::{HeadInput, neurons_back, of_head, one_head};
use crate::diagram::Op;
use crate::error::{Error, Result};
use crate::gradient::{Pass, gradients_with};
use crate::intervene::Receiver;
use crate::linalg::Par;
use crate::model::{Cache, Run, Tokens};
use crate::names::{Head, Hook};
use crate::op::{AttentionBack, Layout, Rules, Scratch};
use crate::tensor::{Scalar, Tensor, check_room};
use faer::{MatMut, MatRef};
use rayon::prelude::*;
use std::ops::Range;

/// Where the derivatives are taken that stand for an edge's effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribution {
    /// In the clean run: edge attribution patching.
    Eap,
    /// In runs on the way from the corrupted embeddings to the clean ones, at the shares `0, 1/m, …, (m-1)/m` of it:
    /// EAP-IG by inputs.
    Inputs {
        /// `m`
        steps: usize,
    },
    /// In clean runs in which one component after the other (the embeddings, the heads of a layer, its neurons) writes
    /// something on the way from what it writes in the corrupted run to what it writes in the clean one, at the shares
    /// `1/m, 2/m, …, 1`; what it is made of has no derivative through it. The mean over components and shares: EAP-IG by
    /// activations.
    Activations {
        /// `m`
        steps: usize,
    },
    /// In the clean run, with two mends of what derivatives miss: AtP*.
    ///
    /// *Saturated attention*: for an edge into queries or keys the pattern is computed anew, with what its sender writes in
    /// the corrupted run, and the derivative is that by the pattern (the QK fix).
    ///
    /// *Effects that cancel*: of each layer in turn nothing that it writes has a derivative, and the score is the mean of
    /// the sizes over the layers but the receiver's own (GradDrop). So scores are of no sign; a pair's are taken one by
    /// one, and averaged over the pairs.
    AtpStar,
    /// In the clean run, by the rules of layer-wise relevance propagation in place of derivatives: relevance patching.
    ///
    /// Norms are linear, at the run's scale; `f(x)` of an activation function is `x` times `f(x) / x`; and of a gate and
    /// what is gated each passes on half of its derivative.
    Relp {
        /// Whether attention is linear in its values, at the run's pattern: then edges into queries and keys have a score
        /// of zero. Otherwise attention has its derivatives.
        hold_patterns: bool,
    },
}

/// A run at which derivatives are taken: the values that it met, and the derivatives by some of them.
pub(super) struct Point<'p, T: Scalar> {
    pub tokens: &'p Tokens,
    pub met: &'p Cache<T>,
    pub d: &'p Cache<T>,
    pub rules: Rules,
}

impl<T: Scalar> Edges<'_, T> {
    /// About how much each edge's effect is: what its sender writes in the corrupted run less what it writes in the clean
    /// one, times the derivative by what its receiver reads, summed over positions and averaged over the pairs.
    ///
    /// The derivative is by the stream *as this receiver reads it*, through a norm of its own. Exact where the metric is
    /// linear in that stream.
    ///
    /// # Errors
    /// When the metric has no gradient, there are no steps, or not memory enough.
    ///
    /// # Cost
    /// Two runs, and about four runs for each point at which derivatives are taken: one, `m`, or `m` for each component. Of
    /// [`Attribution::AtpStar`] one for each layer and pair, and attention of each edge into queries or keys.
    ///
    /// # Source
    /// Syed, Rager & Conmy, "Attribution Patching Outperforms Automated Circuit Discovery" (2023). Hanna, Pezzelle &
    /// Belinkov, "Have Faith in Faithfulness" (2024), whose published code has these shares. Kramár, Lieberum, Shah &
    /// Nanda, "AtP*: An efficient and scalable method for localizing LLM behaviour to components" (2024). Rezaei Jafari,
    /// Eberle, Khakzar & Nanda, "RelP: Faithful and Efficient Circuit Discovery in Language Models via Relevance Patching"
    /// (2025).
    pub fn attribution(&self, at: Attribution) -> Result<Vec<f64>> {
        let steps = self.points(at)?;
        let rules = match at {
            Attribution::AtpStar => return self.atp_star(),
            Attribution::Relp { hold_patterns } => Rules::Relevance {
                patterns: hold_patterns,
            },
            _ => Rules::Derivatives,
        };
        let model = self.model;
        let (piece, each) = (self.together(), self.written_bytes());
        check_room(
            3 * (piece * each) as u64,
            "what every sender writes in two runs",
        )?;
        let mut scores = vec![0.0; self.graph.len()];
        for first in (0..self.pairs()).step_by(piece) {
            let pairs = first..self.pairs().min(first + piece);
            let positions = self.positions(pairs.clone());
            let tokens = self.clean.slice(first, pairs.len());
            let answers = self.answers.slice(first, pairs.len());
            let metric = self.metric_from(first);
            let set = self.set_hooks();
            let mut hooks = self.written_hooks();
            if let Attribution::Activations { .. } = at {
                hooks.extend(&set);
            }
            hooks.sort_unstable_by_key(Hook::to_string);
            hooks.dedup();
            // Of the clean run what the way back passes, where derivatives are taken in it.
            let met = match at {
                Attribution::Eap | Attribution::Relp { .. } => self.met_hooks(),
                _ => Vec::new(),
            };
            let clean = self.keep(&tokens, &[&hooks[..], &met].concat(), self.par)?;
            let corrupt = self.keep(&self.corrupt.slice(first, pairs.len()), &hooks, self.par)?;
            let mut differences = self.written(&corrupt, &positions);
            subtract(&mut differences, &self.written(&clean, &positions));
            let share = pairs.len() as f64 / (self.pairs() * steps) as f64;
            let mut at_point = |replaced: Option<(Hook, &Tensor<T>)>| -> Result<()> {
                let cut: Vec<Hook> = replaced.iter().map(|&(hook, _)| hook).collect();
                let pass = Pass {
                    replaced,
                    rules,
                    ..Pass::default()
                };
                let asked = self.asked(&cut);
                let (d, _) =
                    gradients_with(model, &tokens, &metric, &answers, asked, pass, self.par)?;
                let own = replaced.map(|(hook, value)| {
                    let run = Run::new().par(self.par).without_logits();
                    let run = self.met_hooks().iter().fold(run, |run, h| run.cache(h));
                    let run = run.hook(hook, move |to: &mut Tensor<T>, _| {
                        to.data_mut().copy_from_slice(value.data());
                    });
                    Ok(model.run(&tokens, run)?.cache)
                });
                let own = own.transpose()?;
                let point = Point {
                    tokens: &tokens,
                    met: own.as_ref().unwrap_or(&clean),
                    d: &d.gradients,
                    rules,
                };
                self.add_scores(&positions, &differences, &point, share, &mut scores);
                self.done(1);
                Ok(())
            };
            let between = |hook: Hook, share: f64| {
                let share = T::from_f64(share);
                let ends = corrupt[hook].data().iter().zip(clean[hook].data());
                let value = ends.map(|(&from, &to)| from + share * (to - from));
                Tensor::from_vec(clean[hook].shape(), value.collect())
            };
            match at {
                Attribution::Eap | Attribution::Relp { .. } => at_point(None)?,
                Attribution::AtpStar => unreachable!("done above"),
                Attribution::Inputs { steps } => {
                    for k in 0..steps {
                        let value = between(Hook::ResidPre(0), k as f64 / steps as f64);
                        at_point(Some((Hook::ResidPre(0), &value)))?;
                    }
                }
                Attribution::Activations { steps } => {
                    for hook in set {
                        for k in 1..=steps {
                            let value = between(hook, k as f64 / steps as f64);
                            at_point(Some((hook, &value)))?;
                        }
                    }
                }
            }
        }
        Ok(scores)
    }

    /// How often an attribution takes derivatives, in all.
    ///
    /// # Errors
    /// When there are no steps.
    pub fn derivatives(&self, at: Attribution) -> Result<usize> {
        let pieces = match at {
            Attribution::AtpStar => self.pairs(),
            _ => self.pairs().div_ceil(self.together()),
        };
        Ok(pieces * self.points(at)?)
    }

    /// How often, of each piece of the batch.
    fn points(&self, at: Attribution) -> Result<usize> {
        let points = match at {
            Attribution::Eap | Attribution::Relp { .. } => 1,
            Attribution::Inputs { steps } => steps,
            Attribution::Activations { steps } => steps * self.set_hooks().len(),
            Attribution::AtpStar => 1 + self.model.config().n_layers,
        };
        match points {
            0 => Err(Error::TooFew {
                found: 0,
                least: 1,
                message: "0 steps: expected one at least".into(),
            }),
            n => Ok(n),
        }
    }

    /// What each component writes, as it may be set as a whole.
    fn set_hooks(&self) -> Vec<Hook> {
        let c = self.model.config();
        let layer = |l: usize| {
            let mlp = c.mlp.map(|_| Hook::MlpOut(l));
            [Some(Hook::AttnOut(l)), mlp].into_iter().flatten()
        };
        [Hook::ResidPre(0)]
            .into_iter()
            .chain((0..c.n_layers).flat_map(layer))
            .collect()
    }

    /// The linear maps into a layer's neurons, and what they give.
    fn maps_to_neurons(&self, l: usize) -> impl Iterator<Item = (Op, Hook)> {
        let gated = self.model.config().gated();
        let all = match gated {
            true => vec![
                (Op::Gate(l), Hook::Pre(l)),
                (Op::Neurons(l), Hook::PreLinear(l)),
            ],
            false => vec![(Op::Neurons(l), Hook::Pre(l))],
        };
        all.into_iter()
    }

    /// The values by which derivatives are needed, but of those that are made into one of these alone, which has none.
    pub(super) fn asked(&self, cut: &[Hook]) -> Vec<Hook> {
        let c = self.model.config();
        let mut asked = vec![Receiver::Logits.stream(c)];
        for l in 0..c.n_layers {
            if !cut.contains(&Hook::AttnOut(l)) {
                asked.push(Hook::Z(l));
            }
            if c.mlp.is_some() && !cut.contains(&Hook::MlpOut(l)) {
                asked.extend(self.maps_to_neurons(l).map(|(_, hook)| hook));
            }
        }
        let all = c.hooks().into_iter();
        all.filter(|hook| asked.contains(hook)).collect()
    }

    /// The values that the way back from there passes.
    pub(super) fn met_hooks(&self) -> Vec<Hook> {
        let c = self.model.config();
        let mut met = Vec::new();
        for l in 0..c.n_layers {
            met.extend([Hook::ResidPre(l), Hook::Pattern(l)]);
            met.extend(self.attended(l));
            met.extend(c.score_cap.map(|_| Hook::AttnScores(l)));
            met.extend(c.mlp.map(|_| Receiver::Mlp(l).stream(c)));
        }
        met
    }

    /// Adds to every edge's score what derivatives at one point say.
    fn add_scores(
        &self,
        positions: &[usize],
        differences: &Tensor<T>,
        point: &Point<'_, T>,
        share: f64,
        scores: &mut [f64],
    ) {
        if differences.is_empty() {
            return;
        }
        let rows = differences.len() / self.graph.senders().len();
        let senders =
            MatRef::from_row_major_slice(differences.data(), self.graph.senders().len(), rows);
        let of = |range: Range<usize>| -> Vec<(usize, Vec<f64>)> {
            let mut by = Vec::with_capacity(range.len() * rows);
            let mut own = Vec::new();
            for r in range {
                if let Some(d_x) = self.by_stream(self.graph.receivers()[r], positions, point) {
                    by.extend_from_slice(d_x.data());
                    own.push(r);
                }
            }
            let Some(&last) = own.last() else {
                return Vec::new();
            };
            // Those of one layer's heads read the same senders, its neurons more.
            let n = self.graph.edges_to(last).len();
            let by = MatRef::from_row_major_slice(&by, own.len(), rows);
            let mut product = vec![T::ZERO; own.len() * n];
            let to = MatMut::from_row_major_slice_mut(&mut product, own.len(), n);
            crate::linalg::product_into(to, T::ONE, by, senders.subrows(0, n).transpose());
            let product = own.into_iter().zip(product.chunks_exact(n));
            let of = |(r, row): (usize, &[T])| {
                let reads = self.graph.edges_to(r).len();
                (r, row[..reads].iter().map(|x| share * x.to_f64()).collect())
            };
            product.map(of).collect()
        };
        /// Enough rows for a product.
        const TOGETHER: usize = 8;
        let all = self.graph.receivers().len();
        let ranges: Vec<Range<usize>> = (0..all)
            .step_by(TOGETHER)
            .map(|first| first..all.min(first + TOGETHER))
            .collect();
        let found: Vec<_> = match self.par {
            Par::Rayon => ranges.into_par_iter().map(of).collect(),
            Par::Seq => ranges.into_iter().map(of).collect(),
        };
        for (r, own) in found.into_iter().flatten() {
            let to = &mut scores[self.graph.edges_to(r)];
            to.iter_mut().zip(own).for_each(|(to, x)| *to += x);
        }
    }

    /// The derivative by the stream as a receiver reads it, `[batch, positions, d_model]`; none where a value that is set
    /// stands between.
    pub(super) fn by_stream(
        &self,
        receiver: Receiver,
        positions: &[usize],
        point: &Point<'_, T>,
    ) -> Option<Tensor<T>> {
        let (model, Point { met, d, .. }) = (self.model, point);
        let stream = receiver.stream(model.config());
        match receiver {
            Receiver::Logits => Some(at(d.get(stream)?, positions)),
            Receiver::Mlp(l) => {
                let maps = self.maps_to_neurons(l);
                let d_pre: Option<Vec<(Op, Tensor<T>)>> = maps
                    .map(|(op, hook)| Some((op, at(d.get(hook)?, positions))))
                    .collect();
                let x = at(&met[stream], positions);
                Some(neurons_back(model, point.rules, l, &x, &d_pre?))
            }
            Receiver::Q(head) | Receiver::K(head) | Receiver::V(head) => {
                let d_z = d.get(Hook::Z(head.layer))?;
                let d_own = at(&self.by_input(receiver, head, point, d_z), positions);
                let x = at(&met[stream], positions);
                let pos = met[stream].shape()[1];
                let input = HeadInput::of(model, receiver, positions, pos).expect("a head's");
                Some(input.back(point.rules, &x, d_own))
            }
        }
    }

    /// The derivative by what one head's attention reads, `[batch, pos, 1, d_head]`: of keys and values that several share,
    /// this head's part.
    fn by_input(
        &self,
        receiver: Receiver,
        head: Head,
        point: &Point<'_, T>,
        d_z: &Tensor<T>,
    ) -> Tensor<T> {
        let (model, l) = (self.model, head.layer);
        let Point { tokens, met, .. } = point;
        let group = model.config().group(head.head);
        let [q, k, v] = self.attended(l);
        let [q, k, v] =
            [(q, head.head), (k, group), (v, group)].map(|(hook, h)| one_head(&met[hook], h));
        let d_z = one_head(d_z, head.head);
        let square = |hook: Hook| {
            let value = &met[hook];
            let &[batch, _, queries, keys] = value.shape() else {
                unreachable!("patterns have four axes")
            };
            let own = (0..batch).flat_map(|b| value.slice(&[b, head.head]));
            Tensor::from_vec(&[batch, 1, queries, keys], own.copied().collect())
        };
        let pattern = square(Hook::Pattern(l));
        let scores = model
            .config()
            .score_cap
            .map(|_| square(Hook::AttnScores(l)));
        let queries: Vec<usize> = (0..q.shape()[1]).collect();
        let pads = super::pairs::pads(tokens, model.config());
        let attention = of_head(model, head, &queries, [&q, &k, &v], pads.as_deref());
        let [mut d_q, mut d_k, mut d_v] = [&q, &k, &v].map(|x| Tensor::zeros(x.shape()));
        let to = AttentionBack {
            d_q: &mut d_q,
            d_k: &mut d_k,
            d_v: &mut d_v,
            d_pattern: None,
            d_scores: None,
        };
        let met = (&pattern, scores.as_ref());
        let mut scratch = Scratch::default();
        attention.back(Layout::ROWS, point.rules, met, &d_z, to, &mut scratch);
        match receiver {
            Receiver::Q(_) => d_q,
            Receiver::K(_) => d_k,
            _ => d_v,
        }
    }
}

/// A `[batch, pos, …]` value at some positions.
pub(super) fn at<T: Scalar>(value: &Tensor<T>, positions: &[usize]) -> Tensor<T> {
    let mut shape = value.shape().to_vec();
    shape[1] = positions.len();
    let mut out = Tensor::zeros(&shape);
    gather(value, positions, out.data_mut());
    out
}
