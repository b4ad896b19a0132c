//! The program from outside: what each subcommand does, and that whatever is wrong with its input is
//! said in one line on stderr, with status 2, leaving every file as it was.
#![cfg(feature = "cli")]

mod certify;
mod circuits;
mod cluster;
mod edges;
mod interventions;
mod language;
mod manners;
mod manual;
mod models;
mod outputs;
mod program;
mod requests;
mod stories;
mod typed;
mod unsound;
