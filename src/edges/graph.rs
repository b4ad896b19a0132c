//! The graph: who writes into the stream, who reads it, and which edges that makes.

use crate::diagram::{Config, NormPlace, Order};
use crate::error::{Error, Result};
use crate::intervene::Receiver;
use crate::names::Head;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// Something that writes into the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sender {
    /// The embeddings, all of them together: the stream before the first block. `input`
    Input,
    /// A head. `a1.h0`
    Head(Head),
    /// A layer's neurons, all of them together. `m1`
    Mlp(usize),
    /// One neuron, in a layer whose neurons are asked for one by one. `m1.n5`
    Neuron {
        /// Its layer.
        layer: usize,
        /// Its number in it.
        neuron: usize,
    },
}

/// What one component writes, as another reads it.
///
/// It is written as in the circuit files of the Mechanistic Interpretability Benchmark:
///
/// ```
/// use pathsum::edges::{Edge, Sender};
/// use pathsum::intervene::Receiver;
/// let edge: Edge = "a0.h3->a2.h1<k>".parse()?;
/// assert_eq!(edge.from, Sender::Head("0.3".parse()?));
/// assert_eq!(edge.to, Receiver::K("2.1".parse()?));
/// assert_eq!(edge.to_string(), "a0.h3->a2.h1<k>");
/// assert_eq!("m4->logits".parse::<Edge>()?.from, Sender::Mlp(4));
/// # Ok::<(), pathsum::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Edge {
    /// Who writes.
    pub from: Sender,
    /// Who reads.
    pub to: Receiver,
}

/// The senders and receivers of a model, and its edges: every sender before a receiver is joined to it.
///
/// A head reads the stream three times, for its queries, keys and values, each with the norm before it at a scale of its
/// own. Where heads share keys and values, each head reads *its own copy* of them, as the Mechanistic Interpretability
/// Benchmark has it (TransformerLens's `ungroup_grouped_query_attention`): an edge into the keys of one head leaves those
/// of the others that share them as they were. So a model has as many edges as one without groups.
///
/// ```
/// use pathsum::edges::EdgeGraph;
/// let model = pathsum::fixture::induction::<f64>();
/// let graph = EdgeGraph::of(model.config())?;
/// assert_eq!(graph.senders().len(), 3); // the embeddings and two heads
/// assert_eq!(graph.len(), 3 + 2 * 3 + 3); // into head 0.0, into head 1.0, into the logits
/// # Ok::<(), pathsum::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeGraph {
    senders: Vec<Sender>,
    receivers: Vec<Receiver>,
    /// Of each receiver, the numbers of the senders that the component is that reads there.
    written: Vec<Range<usize>>,
    /// Of each receiver, the number of its first edge; and of all of them.
    first: Vec<usize>,
}

impl EdgeGraph {
    /// A model's.
    ///
    /// # Errors
    /// When norms stand over the stream itself (BERT): what a part adds to it depends there on all the rest.
    pub fn of(config: &Config) -> Result<Self> {
        Self::with_neurons(config, &[])
    }

    /// A model's, in which of these layers each neuron is a sender of its own, in place of all of them together. They read
    /// together: into neurons there are as many edges as before for each sender.
    ///
    /// ```
    /// use pathsum::edges::EdgeGraph;
    /// let config = pathsum::Config::from_json(
    ///     r#"{"n_layers": 2, "n_heads": 1, "d_model": 4, "d_head": 4, "d_mlp": 8, "act_fn": "gelu", "d_vocab": 5, "n_ctx": 8}"#,
    /// )?;
    /// let whole = EdgeGraph::of(&config)?;
    /// let graph = EdgeGraph::with_neurons(&config, &[0])?;
    /// assert_eq!(graph.senders().len(), whole.senders().len() - 1 + 8);
    /// assert_eq!(graph.len(), whole.len() + 7 * 5); // into head 1.0 three times, neurons of layer 1, logits
    /// assert!(graph.number("m0.n7->m1".parse()?).is_some());
    /// # Ok::<(), pathsum::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`EdgeGraph::of`]; and when there is no such layer, or it has no neurons.
    pub fn with_neurons(config: &Config, layers: &[usize]) -> Result<Self> {
        let d_mlp = config.d_mlp().unwrap_or(0);
        for &l in layers {
            if l >= config.n_layers {
                let there = 0..config.n_layers;
                return Err(Error::out_of_range("layer", l, "", "there", there));
            }
            if config.mlp.is_none() {
                return Err(Error::NotInModel(format!("neurons of layer {l}")));
            }
        }
        if config.norm.is_some() && config.norm_place == NormPlace::Stream {
            return Err(Error::NotCovered(
                "a norm comes over the stream itself, which is no sum of what components write",
            ));
        }
        let (mut senders, mut receivers, mut first) = (vec![Sender::Input], Vec::new(), vec![0]);
        let (mut written, mut count) = (Vec::new(), 0);
        let mut reads = |receiver, senders: usize, own: Range<usize>| {
            receivers.push(receiver);
            written.push(own);
            count += senders;
            first.push(count);
        };
        for layer in 0..config.n_layers {
            let heads = (0..config.n_heads).map(|head| Head { layer, head });
            let before = senders.len();
            for of in [Receiver::Q, Receiver::K, Receiver::V] {
                heads.clone().for_each(|head| {
                    let own = before + head.head;
                    reads(of(head), before, own..own + 1);
                });
            }
            senders.extend(heads.map(Sender::Head));
            if config.mlp.is_some() {
                let before = match config.order {
                    Order::Sequential => senders.len(),
                    Order::Parallel | Order::SharedNorm => before,
                };
                let start = senders.len();
                match layers.contains(&layer) {
                    true => {
                        senders.extend((0..d_mlp).map(|neuron| Sender::Neuron { layer, neuron }))
                    }
                    false => senders.push(Sender::Mlp(layer)),
                }
                reads(Receiver::Mlp(layer), before, start..senders.len());
            }
        }
        reads(Receiver::Logits, senders.len(), 0..0);
        Ok(EdgeGraph {
            senders,
            receivers,
            written,
            first,
        })
    }

    /// The senders, in the order in which they write.
    pub fn senders(&self) -> &[Sender] {
        &self.senders
    }

    /// The receivers, layer by layer: queries of its heads, keys, values, neurons; last the logits.
    pub fn receivers(&self) -> &[Receiver] {
        &self.receivers
    }

    /// How many edges there are.
    pub fn len(&self) -> usize {
        self.first[self.receivers.len()]
    }

    /// Whether there are none: there is always one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The numbers of the edges into the `r`-th receiver, in the order of their senders: the first so many of all.
    ///
    /// # Panics
    /// When there is no such receiver.
    #[track_caller]
    pub fn edges_to(&self, r: usize) -> Range<usize> {
        self.first[r]..self.first[r + 1]
    }

    /// The numbers of the senders that the component is that reads at the `r`-th receiver; none of the logits.
    pub(super) fn written_by(&self, r: usize) -> Range<usize> {
        self.written[r].clone()
    }

    /// The number of the receiver that the `i`-th edge goes to.
    pub(super) fn receiver_of(&self, i: usize) -> usize {
        self.first.partition_point(|&first| first <= i) - 1
    }

    /// The `i`-th edge.
    ///
    /// # Panics
    /// When there is no such edge.
    #[track_caller]
    pub fn edge(&self, i: usize) -> Edge {
        assert!(i < self.len(), "edge {i} of {}", self.len());
        let r = self.receiver_of(i);
        Edge {
            from: self.senders[i - self.first[r]],
            to: self.receivers[r],
        }
    }

    /// Every edge, in order.
    pub fn edges(&self) -> impl Iterator<Item = Edge> + '_ {
        (0..self.len()).map(|i| self.edge(i))
    }

    /// An edge's number, where the model has it.
    pub fn number(&self, edge: Edge) -> Option<usize> {
        let r = self.receiver(edge.to)?;
        let s = self.sender(edge.from)?;
        let own = self.edges_to(r);
        (s < own.len()).then_some(own.start + s)
    }

    /// A sender's number.
    pub(super) fn sender(&self, sender: Sender) -> Option<usize> {
        self.senders.iter().position(|&own| own == sender)
    }

    /// A receiver's number.
    pub(super) fn receiver(&self, receiver: Receiver) -> Option<usize> {
        self.receivers.iter().position(|&own| own == receiver)
    }
}

/// The layer in which something reads; none past the last.
pub(super) fn layer_of(receiver: Receiver) -> Option<usize> {
    match receiver {
        Receiver::Q(h) | Receiver::K(h) | Receiver::V(h) => Some(h.layer),
        Receiver::Mlp(l) => Some(l),
        Receiver::Logits => None,
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sender::Input => f.write_str("input"),
            Sender::Head(h) => write!(f, "a{}.h{}", h.layer, h.head),
            Sender::Mlp(l) => write!(f, "m{l}"),
            Sender::Neuron { layer, neuron } => write!(f, "m{layer}.n{neuron}"),
        }
    }
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}->{}", self.from, self.to)
    }
}

impl FromStr for Sender {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let number = |s: &str| s.parse().ok().filter(|n: &usize| n.to_string() == s);
        let parse = || {
            if s == "input" {
                return Some(Sender::Input);
            }
            if let Some(mlp) = s.strip_prefix('m') {
                return Some(match mlp.split_once(".n") {
                    None => Sender::Mlp(number(mlp)?),
                    Some((layer, neuron)) => Sender::Neuron {
                        layer: number(layer)?,
                        neuron: number(neuron)?,
                    },
                });
            }
            let (layer, head) = s.strip_prefix('a')?.split_once(".h")?;
            let (layer, head) = (number(layer)?, number(head)?);
            Some(Sender::Head(Head { layer, head }))
        };
        parse().ok_or_else(|| Error::Malformed {
            kind: "sender",
            text: s.into(),
            expected: "input, aL.hH, mL or mL.nN",
        })
    }
}

impl FromStr for Edge {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let Some((from, to)) = s.split_once("->") else {
            return Err(Error::Malformed {
                kind: "edge",
                text: s.into(),
                expected: "SENDER->RECEIVER, as in a0.h3->a2.h1<k>",
            });
        };
        Ok(Edge {
            from: from.parse()?,
            to: to.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of edges that the benchmark publishes for its models.
    #[test]
    fn graphs_have_as_many_edges_as_the_benchmark_counts() {
        for (layers, heads, groups, edges) in [
            (12, 12, 12, 32_491),
            (24, 14, 2, 179_749),
            (26, 8, 4, 74_218),
            (32, 32, 8, 1_592_881),
        ] {
            let config = Config::from_json(&format!(
                r#"{{"n_layers": {layers}, "n_heads": {heads}, "n_key_value_heads": {groups}, "d_model": 64,
                    "d_head": 2, "d_mlp": 8, "act_fn": "gelu", "d_vocab": 5, "n_ctx": 8}}"#
            ));
            let graph = EdgeGraph::of(&config.unwrap()).unwrap();
            assert_eq!(graph.len(), edges);
        }
    }

    #[test]
    fn edges_have_numbers_and_names() {
        for order in ["", r#", "parallel_attn_mlp": true"#] {
            let config = Config::from_json(&format!(
                r#"{{"n_layers": 2, "n_heads": 3, "d_model": 6, "d_head": 2, "d_mlp": 8, "act_fn": "gelu",
                    "d_vocab": 5, "n_ctx": 8{order}}}"#
            ));
            let graph = EdgeGraph::of(&config.unwrap()).unwrap();
            for (i, edge) in graph.edges().enumerate() {
                assert_eq!(graph.number(edge), Some(i));
                assert_eq!(edge.to_string().parse::<Edge>().unwrap(), edge);
            }
            let own = "a1.h0->m1".parse().unwrap();
            assert_eq!(graph.number(own).is_some(), order.is_empty());
            assert_eq!(graph.number("m1->a1.h0<q>".parse().unwrap()), None);
        }
        for wrong in [
            "",
            "input",
            "input->input",
            "m0->a1.h0",
            "a0->m1",
            "m01->logits",
            "m0->a1.h0<z>",
            "logits->m0",
            "m0->m1<q>",
            "m0.n->m1",
            "m0.n01->m1",
            "m0->m1.n2",
        ] {
            assert!(wrong.parse::<Edge>().is_err(), "{wrong}");
        }
    }
}
