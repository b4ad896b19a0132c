//! Cells: the inputs of a task of largest values, by the query, the largest value, and how often it occurs.
//!
//! Values may repeat, so that an input is a word over an alphabet. A cell fixes the query's token `q`, the largest value
//! `u`, and in how many of the other places `u` stands, `m`; the remaining places hold smaller tokens in any way:
//! `C(places, m) |{t < u}|^(places - m)` inputs. Over a cell the worst case is bounded as [`sets`](super::sets) do, with
//! tokens that may be chosen repeatedly: the sum of the smallest costs is the smallest cost, so often as there are places.
//! What a cell's bound leaves open is divided by how often the most harmful token occurs.

use super::sets::{Group, Root, State};
use crate::error::{Error, Result};
use crate::task::{InputPart, choose};

/// Where the values of an input stand.
pub(super) struct Places<'a> {
    /// By value, its position.
    pub list: &'a [usize],
    /// Tokens that always stand at a position.
    pub fixed: &'a [(usize, usize)],
    /// What stands where the answer is read.
    pub query: InputPart,
    /// How many values stand in the sequence once more, in order.
    pub sorted: usize,
}

/// The cells of an answer, read at a position, that is the value of a rank.
///
/// # Errors
/// When that is not the largest, or the query is neither a value nor a fixed token.
pub(super) fn roots(
    places: &Places<'_>,
    alphabet: &[i64],
    causal: bool,
    (position, rank): (usize, usize),
) -> Result<Vec<Root>> {
    let sees = |p: usize| !causal || p <= position;
    if rank + 1 != places.list.len() || places.sorted > 0 || !places.list.iter().all(|&p| sees(p)) {
        return Err(Error::NotCovered("cells are of the largest of all values"));
    }
    let mut tokens: Vec<usize> = alphabet.iter().map(|&t| t as usize).collect();
    tokens.sort_unstable();
    let queries = match places.query {
        InputPart::Fixed(token) => vec![(token as usize, None)],
        InputPart::Value(_) => tokens
            .iter()
            .enumerate()
            .map(|(i, &t)| (t, Some(i)))
            .collect(),
        InputPart::Sorted(_) | InputPart::All => {
            return Err(Error::NotCovered(
                "cells are of queries at a value or a fixed token",
            ));
        }
    };
    let others: Vec<usize> = match places.query {
        InputPart::Value(_) => places
            .list
            .iter()
            .copied()
            .filter(|&p| p != position)
            .collect(),
        _ => places.list.to_vec(),
    };
    let mut stand: Vec<_> = (places.fixed.iter())
        .filter(|&&(_, p)| sees(p))
        .map(|&(t, p)| (t, vec![p]))
        .collect();
    let mut roots = Vec::new();
    for (q, own) in queries {
        if own.is_some() {
            stand.push((q, vec![position]));
        }
        for (i, &u) in tokens.iter().enumerate().skip(own.unwrap_or(0)) {
            // Where the query is the largest, no other place needs to be.
            let least = usize::from(own != Some(i));
            for m in least..=others.len() {
                let mut fixed = stand.clone();
                fixed.extend((0..m).map(|_| (u, others.clone())));
                roots.push(Root {
                    query: (q, position),
                    right: u,
                    fixed,
                    groups: vec![Group {
                        tokens: tokens[..i].to_vec(),
                        choose: others.len() - m,
                        repeats: true,
                        list: others.clone(),
                        sorted: Vec::new(),
                    }],
                    orders: choose(others.len() as u128, m as u128)
                        .expect("smaller than the space"),
                });
            }
        }
        if own.is_some() {
            stand.pop();
        }
    }
    roots.retain(|root| State::new(root).size(root) > 0);
    Ok(roots)
}
