//! Which parts of a model carry a behaviour: the edges between its components, and what each of them does.
//!
//! [`EdgeGraph`] has who writes into the stream (embeddings, heads, neurons), who reads it (queries, keys and values of
//! heads, neurons, logits), and an edge from each writer to each later reader. [`Edges`] has what edges do on pairs of a
//! clean and a corrupted sequence: [`exact`](Edges::exact), by computing anew what lies past each patched edge, and
//! approximated by derivatives ([`Edges::attribution`]). A circuit is some of a model's edges: it is run with everything
//! outside of it ablated ([`Edges::circuit`]), chosen by scores ([`EdgeGraph::top`], [`EdgeGraph::greedy`]) or by pruning
//! ([`Edges::pruned`]), and written as the Mechanistic Interpretability Benchmark has it ([`Scored`]).
//!
//! **No bound is known here** on what an edge may do that was not tried: derivatives say nothing of it that is proved. An
//! edge's effect is known where it was computed by [`Edges::exact`], and nowhere else.

mod atp_star;
mod attribution;
mod choose;
mod circuit;
mod exact;
mod file;
mod graph;
mod pairs;
mod prune;
mod reads;

pub use attribution::Attribution;
pub use choose::{FaithfulnessCurve, SHARES, ScoreOrder, faithfulness};
pub use circuit::Ablation;
pub use exact::ExactWork;
pub use file::Scored;
pub use graph::{Edge, EdgeGraph, Sender};
pub use pairs::Edges;
