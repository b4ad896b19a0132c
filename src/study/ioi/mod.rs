//! Indirect objects: "When Mary and John went to the store, John gave a drink to" goes on with " Mary". How a language model
//! finds the name, and how much of the circuit published of GPT-2 small it has.
//!
//! # Source
//! Wang, Variengien, Conmy, Shlegeris and Steinhardt, "Interpretability in the Wild: a Circuit for Indirect Object
//! Identification in GPT-2 small" (2022).

mod circuit;
mod patching;
mod prompts;
mod roles;
mod seen;
mod story;
#[cfg(feature = "text")]
mod templates;

pub use circuit::{ByRoles, Circuits, Exact, STEPS, Size, TARGET};
pub use patching::Patching;
pub use prompts::{Place, Prompts};
pub use roles::{COPIES, LOOKS, MATTERS, MOVERS, Role, Roles};
pub use seen::{Behaviour, Copies, Direct, Lens, Looks, Moved, Seen};

use super::Announce;
use crate::edges::{EdgeGraph, Sender};
use crate::error::Result;
use crate::linalg::Par;
use crate::model::{Config, Model};
use crate::names::Head;
use crate::tensor::{Scalar, check_room};
use roles::Numbers;

/// How many parts [`study`] reports.
pub const PARTS: usize = 6;

/// What the study of indirect objects found.
#[derive(Clone, Debug)]
pub struct IoiStudy {
    /// The model's configuration.
    pub config: Config,
    /// The precision of its numbers: `f32`.
    pub dtype: String,
    /// The prompts.
    pub prompts: Prompts,
    /// Every head, layer by layer.
    pub heads: Vec<Head>,
    /// What is to be seen of the prompts' own runs.
    pub seen: Seen,
    /// What patches of parts of the run do.
    pub patching: Patching,
    /// What edges do that were computed exactly.
    pub exact: Exact,
    /// Circuits of edges.
    pub circuits: Circuits,
    /// The heads of each role.
    pub roles: Roles,
    /// What the heads with roles restore.
    pub by_roles: ByRoles,
    /// What the logit difference changes by when the name movers write at the end what they write in the corrupted run;
    /// where there are any.
    pub without_movers: Option<f64>,
}

/// Studies how a model finds indirect objects, on these prompts.
///
/// # Errors
/// When the model has not the prompts' tokens, its edges are not known ([`EdgeGraph::of`]) or its logits no sum of what
/// components write, and when there is not memory enough.
///
/// # Cost
/// A run for each prompt, a sweep of the stream at five places of each layer and of all heads, [`STEPS`] derivatives by
/// all edges, the exact effects of the edges into the logits and the queries of up to [`MOVERS`] heads, and some twenty
/// runs of circuits.
pub fn study<T: Scalar>(
    model: &Model<T>,
    prompts: Prompts,
    par: Par,
    progress: Announce<'_>,
) -> Result<IoiStudy> {
    let c = model.config();
    prompts.check(c)?;
    let graph = EdgeGraph::of(c)?;
    check_room(needed::<T>(c, &prompts, &graph), "the runs of the prompts")?;
    let heads: Vec<Head> = c.dims().heads().collect();
    progress("running the prompts");
    let seen = Seen::of(model, &prompts, par)?;
    progress("patching");
    let source = patching::source(model, &prompts, par)?;
    let candidates = roles::candidates(&heads, &seen);
    let patching = Patching::of(model, &prompts, &source, &candidates, par)?;
    let numbers = Numbers {
        heads: &heads,
        seen: &seen,
        patching: &patching,
    };
    let roles = numbers.writers();
    let movers = roles.of(Role::NameMover);
    let without_movers = match movers.is_empty() {
        true => None,
        false => Some(patching::without(model, &prompts, &source, &movers, par)?),
    };
    progress("edges by derivatives");
    let scores = circuit::scores(model, &prompts, par)?;
    progress("edges exactly");
    let movers = &movers[..movers.len().min(MOVERS)];
    let exact = Exact::of(model, &prompts, (&scores, movers), par)?;
    let roles = numbers.all(roles, &exact, &graph);
    progress("circuits");
    let circuits = Circuits::of(model, &prompts, scores, par)?;
    progress("circuits of roles");
    let by_roles = ByRoles::of(model, &prompts, &roles, par)?;
    Ok(IoiStudy {
        config: c.clone(),
        dtype: T::PRECISION.to_string(),
        heads,
        seen,
        patching,
        exact,
        circuits,
        by_roles,
        without_movers,
        roles,
        prompts,
    })
}

/// About how many bytes the largest of the study's runs takes: what every sender writes in two of them, and every value of
/// a backward pass.
fn needed<T: Scalar>(c: &Config, prompts: &Prompts, graph: &EdgeGraph) -> u64 {
    let (batch, pos) = (prompts.clean.batch() as u64, prompts.clean.pos() as u64);
    let sizes = c.hooks().into_iter();
    let sizes = sizes.map(|hook| {
        c.hook_shape(hook, 1, pos as usize)
            .iter()
            .product::<usize>()
    });
    let values = sizes.sum::<usize>() as u64;
    let writes = graph.senders().len() as u64 * pos * c.d_model as u64;
    let logits = pos * c.d_vocab_out as u64;
    batch * (2 * writes + values + logits) * size_of::<T>() as u64
}

impl IoiStudy {
    /// The circuit that restores [`TARGET`] has this head.
    pub fn in_circuit(&self, head: Head) -> bool {
        let Some((_, inside)) = &self.circuits.smallest else {
            return false;
        };
        let edges = self.circuits.graph.edges().zip(inside);
        let mut own = edges.filter(|(edge, inside)| **inside && edge.from == Sender::Head(head));
        own.next().is_some()
    }
}
