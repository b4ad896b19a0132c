//! The edges that carry the answer, by derivatives and exactly, and circuits of them.

use super::Prompts;
use super::roles::{Role, Roles};
use crate::edges::{
    Ablation, Attribution, EdgeGraph, Edges, FaithfulnessCurve, SHARES, ScoreOrder, Sender,
    faithfulness,
};
use crate::error::Result;
use crate::intervene::Receiver;
use crate::linalg::Par;
use crate::model::Model;
use crate::names::Head;
use crate::study::correlation::correlation;
use crate::tensor::Scalar;
use serde::Serialize;

/// At how many points derivatives are taken.
pub const STEPS: usize = 5;

/// What GPT-2's published circuit restores of its logit difference, which a circuit is to restore here.
pub const TARGET: f64 = 0.87;

/// How often the interval is halved in which the smallest circuit is looked for.
const HALVINGS: usize = 4;

/// Exact effects of the edges into some receivers, with those by derivatives.
#[derive(Clone, Debug, Serialize)]
pub struct Exact {
    /// Into the logits, by sender.
    pub into_logits: Vec<f64>,
    /// The heads whose queries were looked at: the name movers that add most.
    pub movers: Vec<Head>,
    /// Into each of their queries, by sender.
    pub into_queries: Vec<Vec<f64>>,
    /// How many edges these are.
    pub edges: usize,
    /// How the approximations correlate with them.
    pub correlation: f64,
}

/// A circuit.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Size {
    /// How many edges it has.
    pub edges: usize,
    /// How many heads have an edge into them or out of them.
    pub heads: usize,
    /// How many layers' neurons do.
    pub mlps: usize,
    /// What it restores of the logit difference, 0 as the corrupted run and 1 as the clean one.
    pub faithfulness: f64,
}

/// Circuits by the scores of their edges.
#[derive(Clone, Debug)]
pub struct Circuits {
    /// The graph.
    pub graph: EdgeGraph,
    /// About how much each edge does: what its corruption changes the logit difference by.
    pub scores: Vec<f64>,
    /// Circuits of the shares of the edges at which the Mechanistic Interpretability Benchmark looks.
    pub sizes: Vec<Size>,
    /// The area under the faithfulness.
    pub cpr: f64,
    /// The area between it and 1.
    pub cmd: f64,
    /// The smallest circuit found that restores [`TARGET`], and its edges.
    pub smallest: Option<(Size, Vec<bool>)>,
    /// What all edges but its own restore.
    pub completeness: Option<f64>,
}

/// The mean effects of every edge, by derivatives.
pub(super) fn scores<T: Scalar>(model: &Model<T>, prompts: &Prompts, par: Par) -> Result<Vec<f64>> {
    with_edges(model, prompts, par, |edges| {
        edges.attribution(Attribution::Inputs { steps: STEPS })
    })
}

fn with_edges<T: Scalar, R>(
    model: &Model<T>,
    prompts: &Prompts,
    par: Par,
    f: impl FnOnce(&Edges<'_, T>) -> Result<R>,
) -> Result<R> {
    let answers = prompts.answers();
    let metric = prompts.metric(&answers)?;
    let edges = Edges::new(model, &prompts.clean, &prompts.corrupt, &answers, &metric)?;
    f(&edges.par(par))
}

impl Exact {
    pub(super) fn of<T: Scalar>(
        model: &Model<T>,
        prompts: &Prompts,
        (scores, movers): (&[f64], &[Head]),
        par: Par,
    ) -> Result<Self> {
        let queries = movers.iter().map(|&head| Receiver::Q(head));
        let receivers: Vec<Receiver> = [Receiver::Logits].into_iter().chain(queries).collect();
        with_edges(model, prompts, par, |edges| {
            let found = edges.exact_into(&receivers)?;
            let graph = edges.graph();
            let beside = receivers.iter().zip(&found).flat_map(|(&receiver, exact)| {
                let sender = graph.senders().iter().zip(exact);
                sender.map(move |(&from, &exact)| {
                    let i = graph.number(crate::edges::Edge { from, to: receiver });
                    [scores[i.expect("an edge of the graph")], exact]
                })
            });
            let correlation = correlation(beside);
            let mut found = found.into_iter();
            let into_logits = found.next().expect("the logits' own");
            let into_queries: Vec<Vec<f64>> = found.collect();
            Ok(Exact {
                edges: into_logits.len() + into_queries.iter().map(Vec::len).sum::<usize>(),
                into_logits,
                movers: movers.to_vec(),
                into_queries,
                correlation,
            })
        })
    }

    /// What a head's edges into the name movers' queries do, added up.
    pub fn upon_queries(&self, graph: &EdgeGraph, head: Head) -> f64 {
        self.sum(graph, Sender::Head(head))
    }

    fn sum(&self, graph: &EdgeGraph, sender: Sender) -> f64 {
        let s = graph.senders().iter().position(|&own| own == sender);
        let s = s.expect("a sender of the graph");
        self.into_queries.iter().filter_map(|own| own.get(s)).sum()
    }

    /// What a head's edge into the logits does.
    pub fn upon_logits(&self, graph: &EdgeGraph, head: Head) -> f64 {
        let s = graph
            .senders()
            .iter()
            .position(|&own| own == Sender::Head(head));
        self.into_logits[s.expect("a sender of the graph")]
    }
}

impl Circuits {
    pub(super) fn of<T: Scalar>(
        model: &Model<T>,
        prompts: &Prompts,
        scores: Vec<f64>,
        par: Par,
    ) -> Result<Self> {
        with_edges(model, prompts, par, |edges| {
            let graph = edges.graph().clone();
            let ends = edges.ends()?;
            let restores = |inside: &[bool]| -> Result<f64> {
                let metric = edges.circuit(inside, Ablation::Corrupt)?;
                Ok(faithfulness(metric, ends[1], ends[0]))
            };
            let first = |n: usize| -> Result<(Size, Vec<bool>)> {
                let inside = graph.top(&scores, n, ScoreOrder::Absolute);
                Ok((Size::of(&graph, &inside, restores(&inside)?), inside))
            };
            let mut counts = SHARES
                .map(|share| (share * graph.len() as f64).round() as usize)
                .to_vec();
            counts.dedup();
            let mut sizes = Vec::new();
            let (mut smallest, mut below) = (None::<(usize, Size, Vec<bool>)>, 0);
            for &n in &counts {
                let (size, inside) = first(n)?;
                if smallest.is_none() && size.faithfulness >= TARGET {
                    smallest = Some((n, size, inside));
                } else if smallest.is_none() {
                    below = n;
                }
                sizes.push(size);
            }
            for _ in 0..HALVINGS {
                let Some((n, ..)) = smallest else { break };
                let middle = below.midpoint(n);
                if middle == below {
                    break;
                }
                let (size, inside) = first(middle)?;
                match size.faithfulness >= TARGET {
                    true => smallest = Some((middle, size, inside)),
                    false => below = middle,
                }
            }
            let smallest = smallest.map(|(_, size, inside)| (size, inside));
            let rest = smallest.as_ref().map(|(_, inside)| {
                let outside: Vec<bool> = inside.iter().map(|inside| !inside).collect();
                restores(&outside)
            });
            let shares: Vec<f64> = counts
                .iter()
                .map(|&n| n as f64 / graph.len() as f64)
                .collect();
            let restored: Vec<f64> = sizes.iter().map(|size| size.faithfulness).collect();
            let curve = FaithfulnessCurve::new(&shares, &restored)?;
            Ok(Circuits {
                sizes,
                cpr: curve.cpr(),
                cmd: curve.cmd(),
                completeness: rest.transpose()?,
                smallest,
                scores,
                graph,
            })
        })
    }

    /// The edges with the largest scores, whatever their sign.
    pub fn largest(&self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.scores.len()).collect();
        order.sort_by(|&a, &b| self.scores[b].abs().total_cmp(&self.scores[a].abs()));
        order.truncate(n);
        order
    }
}

impl Size {
    fn of(graph: &EdgeGraph, inside: &[bool], faithfulness: f64) -> Self {
        let mut heads: Vec<Sender> = Vec::new();
        let mut edges = 0;
        for (edge, _) in graph.edges().zip(inside).filter(|(_, inside)| **inside) {
            edges += 1;
            // Edges of a circuit lie on ways from the embeddings to the logits: who reads also writes.
            if !heads.contains(&edge.from) {
                heads.push(edge.from);
            }
        }
        let count = |is: fn(&Sender) -> bool| heads.iter().filter(|s| is(s)).count();
        Size {
            edges,
            heads: count(|s| matches!(s, Sender::Head(_))),
            mlps: count(|s| matches!(s, Sender::Mlp(_))),
            faithfulness,
        }
    }
}

/// What the heads with roles restore, with all neurons, where every other head writes what it writes in the corrupted run.
#[derive(Clone, Debug, Serialize)]
pub struct ByRoles {
    /// Heads with a role.
    pub heads: usize,
    /// What they restore.
    pub faithfulness: f64,
    /// What is restored by all others, without those of one role.
    pub without: Vec<(Role, f64)>,
}

impl ByRoles {
    pub(super) fn of<T: Scalar>(
        model: &Model<T>,
        prompts: &Prompts,
        roles: &Roles,
        par: Par,
    ) -> Result<Self> {
        with_edges(model, prompts, par, |edges| {
            let graph = edges.graph();
            let [clean, corrupted] = edges.ends()?;
            let restores = |is_in: &dyn Fn(Head) -> bool| -> Result<f64> {
                let inside = graph.edges().map(|edge| match edge.from {
                    Sender::Head(head) => is_in(head),
                    Sender::Input | Sender::Mlp(_) | Sender::Neuron { .. } => true,
                });
                let inside: Vec<bool> = inside.collect();
                let metric = edges.circuit(&inside, Ablation::Corrupt)?;
                Ok(faithfulness(metric, corrupted, clean))
            };
            let all = roles.all();
            let without = |role: Role| {
                let own = roles.of(role);
                Ok((role, restores(&|head| !own.contains(&head))?))
            };
            let present = Role::ALL
                .into_iter()
                .filter(|&role| !roles.of(role).is_empty());
            Ok(ByRoles {
                heads: all.len(),
                faithfulness: restores(&|head| all.contains(&head))?,
                without: present.map(without).collect::<Result<_>>()?,
            })
        })
    }
}
