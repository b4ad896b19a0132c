//! Sets of inputs that one bound speaks of, by branch and bound.
//!
//! # What is bounded
//! A [`Root`] fixes what the query is and which class `u` is right. What else an input has is a choice of tokens from
//! [`Group`]s, and in which order they stand. With the costs of [`tables`](super::OneLayer), *u beats w by more than m*
//! is
//!
//! ```text
//! G = d + Σ_h N_h / D_h + σ δ > 0,   N_h = Σ_j e_hj g_hj,   D_h = Σ_j e_hj,
//! d = direct_u - direct_w,   g_hj = ov_h(t_j, j)_u - ov_h(t_j, j)_w,   δ = β_u - β_w - m.
//! ```
//!
//! For any numbers `λ_h`, `N_h / D_h = λ_h + F_h / D_h` with `F_h = Σ_j e_hj (g_hj - λ_h)`. Over all inputs of a node,
//! `1 / D_h` lies between `x_h` and `x'_h` (the `k` largest and smallest `e`), and for one input `Σ_h F_h / D_h` is linear
//! in each `1 / D_h`: it is least at a corner of that box. At a corner it is a sum over keys of
//! `c_j = Σ_h x_h e_hj (g_hj - λ_h)`, which is no less than the sum, over the tokens that are there for certain, of the
//! smallest `c` among the places where each may stand, and, of the tokens that may be chosen, of the smallest such costs:
//!
//! ```text
//! G >= d + Σ_h λ_h + min over corners (Σ fixed min_j c + Σ smallest min_j c) + δ (least or largest σ).
//! ```
//!
//! That holds whatever `λ` is. A good one is the ratio `N_h / D_h` at the worst input, whose own cost is then `Σ_h λ_h`:
//! it is had by going there from any other a few times (Dinkelbach's iteration). Coupling the heads in one cost is what
//! makes the bound good: the worst input of one head is not that of the other.
//!
//! # Rounding
//! Entries of the tables are intervals; costs are summed in floating point from their middles, and what the radii, the
//! products and the sums can add up to is taken off (`Keys::slack`).
//!
//! # The tree
//! A node that some rival `w` is not beaten on is divided by how often one token is among the chosen: the one whose cost is
//! furthest from where the choice ends. The parts are disjoint, their sizes products of binomials (powers and multinomials
//! where a token may be chosen repeatedly), and each inherits only the rivals that are not beaten yet. Where some rival
//! beats `u` on all of a node, by the same bound with the two exchanged, all its inputs are answered wrongly.
//!
//! # Source
//! W. Dinkelbach, "On nonlinear fractional programming", Management Science 13 (1967), for the iteration.

mod bound;
mod curve;
mod merge;
mod problem;
mod regions;
mod search;
mod tree;

pub use curve::{Point, ProofCurve};
pub use problem::{Group, Problem, Root, State};
pub use regions::{Found, Region, Thickness};
pub use search::{Done, Search, Stop};
pub use tree::{Beaten, Decision, Forest, InputSet};
