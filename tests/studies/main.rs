//! The studies: held to every figure that the write-ups publish, to naive loops, and to models that have learned nothing.

#[path = "../common/reference.rs"]
mod reference;

mod common;
mod induction;
mod ioi;
mod modular_addition;
mod sorted_list;
mod two_integer;
mod write_ups;
